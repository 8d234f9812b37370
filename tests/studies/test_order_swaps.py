"""Original and fixed forms next to each other: the fault alone differs, and the truth is known where it is claimed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from routing.battles import swap_battles
from routing.evaluation.call_curve import call_curve
from routing.order_audit import decisions_changed
from routing.routers.base import BradleyTerryRouter
from routing.routers.similarity import SimilarityRouter
from routing.studies.order.original import FixedPairRouter, OriginalSimilarityRouter, TiesToWeakRouter
from routing.studies.order.swaps import (
    SETTINGS,
    SWAPS,
    audit_forms,
    audit_leaderboards,
    compare_decisions,
    draw_decisions,
    level_tiers,
    measure_consequences,
    name_both_ways,
    plot_audit,
    plot_bias,
    plot_consequences,
    plot_decisions,
    plot_draws,
    plot_naming,
    same_tier_bias,
    score_orders,
    select_row_orders,
    vector_forms,
)
from routing.studies.simulated.arena import SimulatedArena, simulate_arena
from tests.studies.conftest import title

PAIR = ("gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1")
FORMS = {
    "RouteLLM": lambda *pair: OriginalSimilarityRouter(*pair, n_tiers=4),
    "fixed": lambda *_: SimilarityRouter(n_tiers=4),
}


@pytest.fixture(scope="module")
def arena() -> SimulatedArena:
    return simulate_arena(0)


@pytest.fixture(scope="module")
def study(arena) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Battles, their vectors, and vectors of 60 prompts."""
    rng = np.random.default_rng(3)
    battles = arena.sample_battles(arena.sample_prompts(80, rng), 900, rng)
    vectors = np.hstack([np.full((960, 1), 2.0), rng.normal(size=(960, 5))])
    return battles, vectors[:900], vectors[900:]


def test_each_router_is_audited_in_both_forms(study, rng):
    battles, vectors, asked = study
    makers = {
        "leaderboard, fixed pair": (
            lambda *pair: FixedPairRouter(BradleyTerryRouter(), *pair),
            lambda *_: BradleyTerryRouter(),
        )
    }
    quality = rng.integers(0, 2, 60) + 0.5, rng.integers(0, 2, 60).astype(float)
    table = audit_forms(makers, battles, asked, PAIR, vectors, quality)
    changed = table[table["largest_change"] > 0].groupby("kind")["swap"].agg(list)
    assert changed.to_dict() == {"RouteLLM": ["pair at construction", "pair when asked"]}
    assert table.groupby("kind").size().to_dict() == {"fixed": 9, "RouteLLM": 9}
    assert set(table["router"]) == set(makers)


@pytest.mark.parametrize("kind", FORMS)
def test_scores_are_those_of_a_router_fitted_to_the_battles_as_written(study, rng, kind):
    battles, vectors, asked = study
    scores = score_orders(FORMS[kind], battles, vectors, {"one": asked, "two": asked[:5]}, PAIR, rng)
    assert list(scores) == ["one", "two"] and scores["two"]["all rows"].shape == (5,)
    one = scores["one"]
    for order, table in {"as displayed": battles, "all rows": swap_battles(battles)}.items():
        np.testing.assert_array_equal(one[order], FORMS[kind](*PAIR).fit(table, vectors).margin(asked, *PAIR))
    moved = {order for order, score in one.items() if np.abs(score - one["as displayed"]).max() > 1e-5}
    if kind == "fixed":
        assert all((score == one["as displayed"]).all() for score in one.values())
    else:
        assert moved == set(one) - {"as displayed", "rows shuffled"}
        np.testing.assert_array_equal(one["pair swapped"], -one["as displayed"])


def test_the_leaderboards_are_audited_each_on_its_battles(study, rng):
    battles, _, asked = study
    quality = rng.integers(0, 2, 60) + 0.5, rng.integers(0, 2, 60).astype(float)
    table = audit_leaderboards(battles, asked, PAIR, quality, min_battles=60)
    tied = table[table["swap"] == "tied scores"].groupby("kind")["largest_change"].min()
    assert tied["Arena notebook"] > 0 and tied["fixed"] == 0  # a naive top-k cut follows the rows
    table = table[table["swap"] != "tied scores"]
    fixed = table[table["kind"] == "fixed"]
    assert (fixed["largest_change"] == 0).all() and (fixed["raised"] == "").all()
    at_fault = table[(table["largest_change"] > 1e-5) | (table["raised"] != "")]
    assert at_fault.groupby("router")["swap"].agg(list).to_dict() == {
        "intervals, bootstrap": ["all rows", "winner first", "strong first", "random half", "canonical"],
        "ratings, online Elo": ["canonical", "rows shuffled"],
        "ratings, pivot tables": ["winner first", "strong first", "canonical"],
        "ratings, rows without ties": ["winner first"],
    }


def test_decisions_are_compared_for_every_kind_and_benchmark(rng):
    one, other = rng.random(50), rng.random(50)
    scores = {
        "RouteLLM": {"A": {"as displayed": one, "all rows": other}},
        "fixed": {"A": {"as displayed": one, "all rows": one}, "B": {"as displayed": other, "all rows": other}},
    }
    table = compare_decisions(scores, np.array([0.2, 0.5]), 20, rng).set_index(["kind", "benchmark", "strong_share"])
    assert len(table) == 6 and (table.loc["fixed", ["estimate", "low", "high"]] == 0).all().all()
    assert table.loc[("RouteLLM", "A", 0.5), "estimate"] == decisions_changed(one, other)


def test_draws_count_what_moves(study, rng):
    battles, vectors, asked = study
    everything = draw_decisions(FORMS, battles, vectors, asked, PAIR, (len(battles), len(asked)), 1, rng)
    changed = everything.set_index(["kind", "definition"])["changed"]
    for kind, make in FORMS.items():
        one, other = (
            make(*PAIR).fit(table, vectors).margin(asked, *PAIR) for table in (battles, swap_battles(battles))
        )
        assert changed[kind, "half of the calls"] == decisions_changed(one, other)
        median = np.median(one)
        assert changed[kind, "old threshold kept"] == np.mean((one >= median) != (other >= median))
    drawn = draw_decisions(FORMS, battles, vectors, asked, PAIR, (600, 40), 4, rng)
    assert len(drawn) == 4 * 2 * 2
    assert (drawn.groupby("kind")["changed"].max() == 0).to_dict() == {"RouteLLM": False, "fixed": True}


def test_consequences_by_hand(rng):
    strong, weak = np.repeat([1.0, 1, 1, 0.5], 10), np.repeat([0.0, 0, 1, 0.5], 10)
    good = -np.arange(40.0)
    scores = {"RouteLLM": {"A": {"as displayed": good, "pair swapped": -good}}}
    table = measure_consequences(scores, {"A": (strong, weak)}, 50, rng)
    assert (table["kind"] == "RouteLLM").all() and (table["benchmark"] == "A").all()
    table = table.set_index("order")
    apgr = call_curve(good, strong, weak).apgr()
    assert apgr == 0.75 and table.loc["as displayed", "apgr"] == apgr
    assert (table.loc["as displayed", ["difference", "low", "high"]] == 0).all()
    assert table.loc["pair swapped", "difference"] == pytest.approx(1 - 2 * apgr)
    assert table.loc["pair swapped", "high"] < 0
    # half of the gap: a quarter of the prompts here, three quarters there
    mean_price = 0.25 * 24.7 + 0.75 * 0.24, 0.75 * 24.7 + 0.25 * 0.24  # dollars per million tokens
    np.testing.assert_allclose(table["usd_per_1000"], 359e-3 * np.array(mean_price))


def test_only_a_fair_router_s_two_answers_add_up_to_one(study):
    battles, vectors, asked = study
    routers = {
        ("RouteLLM", "ties"): TiesToWeakRouter(SimilarityRouter(n_tiers=4)),
        ("RouteLLM", "pair"): FixedPairRouter(SimilarityRouter(n_tiers=4), *PAIR),
        ("fixed", "similarity"): SimilarityRouter(n_tiers=4),
    }
    table = name_both_ways({name: router.fit(battles, vectors) for name, router in routers.items()}, asked, PAIR)
    assert table.groupby("form").size().to_dict() == dict.fromkeys(
        ["fixed: similarity", "RouteLLM: pair", "RouteLLM: ties"], 60
    )
    off = (table["sum"] - 1).abs().groupby(table["form"])
    assert off.max()["fixed: similarity"] < 1e-12
    assert off.min()["RouteLLM: ties"] > 0.2  # the share of ties
    assert off.max()["RouteLLM: pair"] > 0.01
    np.testing.assert_allclose(table["straight"] - table["mirrored"], table["sum"] - 1, atol=1e-12)


def test_the_models_of_a_level_tier_are_equal(arena):
    level = level_tiers(arena, 3)
    assert len(np.unique(level.mean_ratings)) == 3 and not level.topic_offsets.any()
    assert level.mean_ratings.sum() == pytest.approx(arena.mean_ratings.sum())
    np.testing.assert_allclose(level_tiers(arena, len(arena.models)).mean_ratings, arena.mean_ratings)


def test_only_the_original_fit_is_biased_by_battles_within_a_tier(arena, rng):
    table = same_tier_bias(arena, 3, PAIR, [0.0, 0.3, 0.6], 1_500, 6, rng).set_index(["router", "share"])
    estimate = table["estimate"].unstack()
    width = (table["high"] - table["low"]).unstack()
    assert (estimate.loc["fixed"].abs() < width.loc["fixed"]).all()
    assert np.ptp(estimate.loc["fixed"]) < 0.005  # battles within a tier teach it nothing
    assert estimate.loc["RouteLLM", 0.0] == pytest.approx(estimate.loc["fixed", 0.0], abs=1e-6)
    assert estimate.loc["RouteLLM", 0.6] < 2 * estimate.loc["RouteLLM", 0.3] < -0.03


def test_settings_differ_by_profile_and_the_forms_by_their_kind():
    assert SETTINGS.loc["full", "n_tiers"] == 10 and list(SETTINGS.index) == ["smoke", "quick", "full"]
    original, fixed = vector_forms(3, 1, 64)["similarity weighting"]
    assert (original(*PAIR).strong, original(*PAIR).n_tiers) == (PAIR[0], 3)
    assert isinstance(fixed(*PAIR), SimilarityRouter)


def test_the_audit_map_shows_every_change_and_every_error():
    rows = [(router, kind, swap) for kind, router in (("RouteLLM", "a"), ("fixed", "a")) for swap in SWAPS]
    table = pd.DataFrame(rows, columns=["router", "kind", "swap"]).assign(largest_change=0.0, raised="")
    table.loc[table["kind"] == "RouteLLM", "largest_change"] = 0.25
    table.loc[1, ["largest_change", "raised"]] = [np.nan, "ValueError: one class"]
    figure = plot_audit(table)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(texts) == sorted(["raises", *["0.25"] * 8, *["0"] * 9])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["RouteLLM: a", "fixed: a"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list(SWAPS.values())
    assert title(figure).endswith("a fixed one is 0")


def intervals(**columns: object) -> pd.DataFrame:
    return pd.DataFrame(columns).assign(low=lambda table: table["estimate"] - 0.1, high=lambda t: t["estimate"] + 0.1)


def test_figures_of_swaps_say_what_their_tables_hold():
    decisions = intervals(kind=["RouteLLM", "fixed"], benchmark="A", strong_share=0.5, estimate=[0.06, 0.0])
    assert "6.0% of A decisions" in title(plot_decisions(decisions))
    draws = pd.DataFrame({"kind": "RouteLLM", "definition": "half", "changed": [0.02, 0.1, 0.04]})
    assert "median of 4.0 %" in title(plot_draws(draws, 0.078))
    assert [text.get_text() for text in plot_draws(draws, 0.078).axes[0].texts] == ["", "", "", "4.0"]
    assert "one earlier draw: 7.8%" in [text.get_text() for text in plot_draws(draws, 0.078).legends[0].get_texts()]
    bias = intervals(router=["RouteLLM"] * 2 + ["fixed"] * 2, share=[0.0, 0.5] * 2, estimate=[0, -0.2, 0, 0.01])
    figure = plot_bias(bias, {"these battles": 0.1, "all votes": 0.25})
    assert title(figure).endswith("-0.100") and "in all votes" in title(figure)  # between the points at 0 and 0.5
    assert {"these battles: 10%", "all votes: 25%"} <= {text.get_text() for text in figure.axes[0].texts}


def test_consequences_of_rows_and_of_a_swapped_pair_are_told_apart():
    orders = ["as displayed", "pair swapped", "all rows", "all rows"]
    table = intervals(kind=["RouteLLM"] * 3 + ["fixed"], order=orders, benchmark="A", estimate=[0, -0.3, 0.014, 0])
    table = table.rename(columns={"estimate": "difference"})
    assert select_row_orders(table)["difference"].tolist() == [0.014]
    figure = plot_consequences(table)
    assert "at most 0.014" in title(figure)
    assert [text.get_text() for text in figure.axes[0].texts] == ["+0.014", "+0.000"]


def test_naming_draws_both_answers_in_one_order():
    table = pd.DataFrame({"form": "f", "kind": "fixed", "straight": [0.8, 0.2], "mirrored": [0.7, 0.3]})
    straight, mirrored = plot_naming(table).axes[0].lines
    assert straight.get_ydata().tolist() == [0.2, 0.8] and mirrored.get_ydata().tolist() == [0.3, 0.7]
