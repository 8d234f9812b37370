"""Released and ours side by side: what differs is the fault alone, and the truth is known where it is claimed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from routing.battles import swap_battles
from routing.evaluation.call_curve import call_curve
from routing.order_audit import decisions_changed
from routing.routers.base import BradleyTerryRouter
from routing.routers.similarity import SimilarityRouter
from routing.studies.order.original import FixedPairRouter, ReleasedSimilarityRouter, TiesToWeakRouter
from routing.studies.order.swaps import (
    audit_leaderboards,
    audit_pairs,
    compare_decisions,
    draw_decisions,
    level_tiers,
    measure_consequences,
    name_both_ways,
    same_tier_bias,
    scores_as_written,
)
from routing.studies.simulated.arena import SimulatedArena, simulate_arena

PAIR = ("gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1")
FORMS = {
    "released": lambda *pair: ReleasedSimilarityRouter(*pair, n_tiers=4),
    "ours": lambda *_: SimilarityRouter(n_tiers=4),
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
    table = audit_pairs(makers, battles, asked, PAIR, vectors, quality)
    changed = table[table["largest_change"] > 0].groupby("kind")["swap"].agg(list)
    assert changed.to_dict() == {"released": ["pair at construction", "pair when asked", "tied scores"]}
    assert table.groupby("kind").size().to_dict() == {"ours": 9, "released": 9}
    assert set(table["router"]) == set(makers)


@pytest.mark.parametrize("kind", FORMS)
def test_scores_are_those_of_a_router_fitted_to_the_battles_as_written(study, rng, kind):
    battles, vectors, asked = study
    scores = scores_as_written(FORMS[kind], battles, vectors, {"one": asked, "two": asked[:5]}, PAIR, rng)
    assert list(scores) == ["one", "two"] and scores["two"]["all rows"].shape == (5,)
    one = scores["one"]
    for writing, table in {"as displayed": battles, "all rows": swap_battles(battles)}.items():
        np.testing.assert_array_equal(one[writing], FORMS[kind](*PAIR).fit(table, vectors).margin(asked, *PAIR))
    moved = {writing for writing, score in one.items() if np.abs(score - one["as displayed"]).max() > 1e-5}
    if kind == "ours":
        assert all((score == one["as displayed"]).all() for score in one.values())
    else:
        assert moved == set(one) - {"as displayed", "rows shuffled"}
        np.testing.assert_array_equal(one["pair exchanged"], -one["as displayed"])


def test_the_leaderboards_are_audited_each_on_its_battles(study, rng):
    battles, _, asked = study
    quality = rng.integers(0, 2, 60) + 0.5, rng.integers(0, 2, 60).astype(float)
    table = audit_leaderboards(battles, asked, PAIR, quality, min_battles=60)
    table = table[table["swap"] != "tied scores"]
    ours = table[table["kind"] == "ours"]
    assert (ours["largest_change"] == 0).all() and (ours["raised"] == "").all()
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
        "released": {"A": {"as displayed": one, "all rows": other}},
        "ours": {"A": {"as displayed": one, "all rows": one}, "B": {"as displayed": other, "all rows": other}},
    }
    table = compare_decisions(scores, np.array([0.2, 0.5]), 20, rng).set_index(["kind", "benchmark", "strong_share"])
    assert len(table) == 6 and (table.loc["ours", ["estimate", "low", "high"]] == 0).all().all()
    assert table.loc[("released", "A", 0.5), "estimate"] == decisions_changed(one, other)


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
    assert (drawn.groupby("kind")["changed"].max() == 0).to_dict() == {"released": False, "ours": True}


def test_consequences_by_hand(rng):
    strong, weak = np.repeat([1.0, 1, 1, 0.5], 10), np.repeat([0.0, 0, 1, 0.5], 10)
    good = -np.arange(40.0)
    scores = {"released": {"A": {"as displayed": good, "pair exchanged": -good}}}
    table = measure_consequences(scores, {"A": (strong, weak)}, 50, rng)
    assert (table["kind"] == "released").all() and (table["benchmark"] == "A").all()
    table = table.set_index("writing")
    apgr = call_curve(good, strong, weak).apgr()
    assert apgr == 0.75 and table.loc["as displayed", "apgr"] == apgr
    assert (table.loc["as displayed", ["difference", "low", "high"]] == 0).all()
    assert table.loc["pair exchanged", "difference"] == pytest.approx(1 - 2 * apgr)
    assert table.loc["pair exchanged", "high"] < 0
    # half of the gap: a quarter of the prompts here, three quarters there
    mean_price = 0.25 * 24.7 + 0.75 * 0.24, 0.75 * 24.7 + 0.25 * 0.24  # dollars per million tokens
    np.testing.assert_allclose(table["usd_per_1000"], 359e-3 * np.array(mean_price))


def test_only_a_fair_router_s_two_answers_add_up_to_one(study):
    battles, vectors, asked = study
    routers = {
        ("released", "ties"): TiesToWeakRouter(SimilarityRouter(n_tiers=4)),
        ("released", "pair"): FixedPairRouter(SimilarityRouter(n_tiers=4), *PAIR),
        ("ours", "similarity"): SimilarityRouter(n_tiers=4),
    }
    table = name_both_ways({name: router.fit(battles, vectors) for name, router in routers.items()}, asked, PAIR)
    assert table.groupby("form").size().to_dict() == dict.fromkeys(
        ["ours: similarity", "released: pair", "released: ties"], 60
    )
    off = (table["sum"] - 1).abs().groupby(table["form"])
    assert off.max()["ours: similarity"] < 1e-12
    assert off.min()["released: ties"] > 0.2  # the share of ties
    assert off.max()["released: pair"] > 0.01
    np.testing.assert_allclose(table["straight"] - table["mirrored"], table["sum"] - 1, atol=1e-12)


def test_the_models_of_a_level_tier_are_equal(arena):
    level = level_tiers(arena, 3)
    assert len(np.unique(level.mean_ratings)) == 3 and not level.topic_offsets.any()
    assert level.mean_ratings.sum() == pytest.approx(arena.mean_ratings.sum())
    np.testing.assert_allclose(level_tiers(arena, len(arena.models)).mean_ratings, arena.mean_ratings)


def test_only_the_released_fit_is_biased_by_battles_within_a_tier(arena, rng):
    table = same_tier_bias(arena, 3, PAIR, [0.0, 0.3, 0.6], 1_500, 6, rng).set_index(["router", "share"])
    estimate = table["estimate"].unstack()
    width = (table["high"] - table["low"]).unstack()
    assert (estimate.loc["ours"].abs() < width.loc["ours"]).all()
    assert np.ptp(estimate.loc["ours"]) < 0.005  # battles within a tier teach it nothing
    assert estimate.loc["released", 0.0] == pytest.approx(estimate.loc["ours", 0.0], abs=1e-6)
    assert estimate.loc["released", 0.6] < 2 * estimate.loc["released", 0.3] < -0.03
