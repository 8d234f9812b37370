"""Tables of the leaderboard are counted by hand where they can be, and their figures say what the tables hold."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from routing.battles import count_pairs, expand_counts, swap_battles
from routing.ratings.bradley_terry import ELO_PER_LOG_ODDS, fit_bradley_terry
from routing.studies import leaderboard
from routing.studies.inputs import PAIR
from routing.studies.leaderboard import online_elo
from tests.conftest import battle_tables
from tests.studies.conftest import title

MODELS = (*PAIR, *(f"model {number:02d}" for number in range(10)))


@pytest.fixture(scope="module")
def votes() -> pd.DataFrame:
    """3,000 battles between twelve models, each a little worse than the one before it."""
    rng = np.random.default_rng(5)
    first = rng.integers(12, size=3_000)
    second = (first + rng.integers(1, 12, size=3_000)) % 12
    draw = rng.random(3_000) * 1.4
    p = 1 / (1 + np.exp(0.2 * (first - second)))
    winner = np.where(draw < p, "model_a", np.where(draw < 1, "model_b", "tie"))
    names = np.array(MODELS)
    return pd.DataFrame({"model_a": names[first], "model_b": names[second], "winner": winner})


@pytest.fixture(scope="module")
def fits(votes) -> dict:
    return {ties: fit_bradley_terry(count_pairs(votes), ties) for ties in ("half", "drop", "davidson", "rao_kupper")}


def test_online_elo_of_a_worked_example():
    battles = pd.DataFrame({"model_a": ["x", "x"], "model_b": ["y", "y"], "winner": ["model_a", "tie"]})
    after_one = 1000 + 32 * 0.5
    expected = 1 / (1 + 10 ** ((2000 - 2 * after_one) / 400))
    assert online_elo(battles, step_elo=32)["x"] == pytest.approx(after_one + 32 * (0.5 - expected))


@given(battle_tables())
def test_points_are_conserved_and_a_swap_does_not_matter(battles):
    ratings = online_elo(battles)
    assert ratings.mean() == pytest.approx(1000)
    pd.testing.assert_series_equal(ratings, online_elo(swap_battles(battles)))


def test_the_order_of_rows_matters():
    battles = pd.DataFrame({"model_a": ["x", "y"], "model_b": ["y", "x"], "winner": ["model_a", "model_a"]})
    assert online_elo(battles)["x"] != online_elo(battles[::-1])["x"]


def test_orders_are_those_of_online_elo_on_the_scale_of_the_leaderboard(votes, fits):
    ranked = leaderboard.rank_models(fits["half"])
    table = leaderboard.compare_orders(votes, ranked, 2, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    for number in range(2):
        elo = online_elo(votes.iloc[rng.permutation(len(votes))], start_elo=ranked["rating_elo"].mean())
        part = table.iloc[12 * (number + 1) : 12 * (number + 2)].set_index("name")["estimate"]
        pd.testing.assert_series_equal(part, elo, check_names=False)
    assert table["low"].notna().sum() == 12
    assert title(leaderboard.plot_orders(table)).startswith("The order of rows alone moves online Elo by")


def test_models_are_ranked_with_intervals_and_tiers(fits):
    ranked = leaderboard.rank_models(fits["half"])
    pd.testing.assert_series_equal(ranked["rating_elo"], fits["half"].elo().loc[ranked.index], check_names=False)
    assert ranked["rating_elo"].is_monotonic_decreasing and ranked["rank"].tolist() == list(range(1, 13))
    half_width = ELO_PER_LOG_ODDS * (fits["half"].interval()["high"] - fits["half"].ratings).loc[ranked.index]
    np.testing.assert_allclose(ranked["high"] - ranked["rating_elo"], half_width)
    names = [text.get_text() for text in leaderboard.plot_leaderboard(ranked).axes[0].texts]
    assert set(PAIR) <= set(names)
    assert f"{PAIR[0]} in tier {ranked['tier'][PAIR[0]]}" in title(leaderboard.plot_tiers(ranked))


def test_win_shares_are_counted_and_predicted_for_every_ordered_pair(votes, fits):
    pairs = leaderboard.compare_win_shares(count_pairs(votes), fits["half"])
    assert len(pairs) == 144 and pairs["model_a"].iloc[0] == fits["half"].ratings.idxmax()
    row = pairs[(pairs["model_a"] == PAIR[0]) & (pairs["model_b"] == PAIR[1])].iloc[0]
    met = votes[votes[["model_a", "model_b"]].isin(PAIR).all(axis=1)]
    won = np.where(met["model_a"] == PAIR[0], met["winner"] == "model_a", met["winner"] == "model_b")
    assert row["battles"] == len(met)
    assert row["observed"] == pytest.approx((won.sum() + (met["winner"] == "tie").sum() / 2) / len(met))
    assert row["predicted"] == pytest.approx(fits["half"].expected_score(*PAIR))
    assert pairs.loc[pairs["model_a"] == pairs["model_b"], "observed"].isna().all()
    busiest = leaderboard.select_busiest(pairs, 3)
    assert len(busiest) == 9
    assert "3 busiest" in title(leaderboard.plot_battle_counts(busiest))
    assert [axis.get_title(loc="left") for axis in leaderboard.plot_win_shares(busiest).axes[:2]] == [
        "observed",
        "predicted",
    ]


def test_shares_of_ties_add_up_in_every_bin(votes, fits):
    table = leaderboard.ties_by_gap(count_pairs(votes), fits)
    assert set(table["ties"]) == {"observed", "drop", "davidson", "rao_kupper"}
    observed = table[table["ties"] == "observed"]
    assert (observed["share"] * observed["battles"]).sum() == pytest.approx((votes["winner"] == "tie").sum())
    assert observed["battles"].sum() == len(votes)
    assert (observed["low"] < observed["share"]).all() and (observed["share"] < observed["high"]).all()
    constant = table.loc[table["ties"] == "drop", "share"]
    np.testing.assert_allclose(constant, (votes["winner"] == "tie").mean())
    davidson = table[table["ties"] == "davidson"]
    assert davidson["share"].is_monotonic_decreasing and davidson["low"].isna().all()
    best = max(fits, key=lambda name: fits[name].log_likelihood)
    assert {"davidson": "Davidson", "rao_kupper": "Rao-Kupper", "drop": "drop", "half": "half"}[best] in title(
        leaderboard.plot_ties(table, fits)
    )


def test_agreement_is_measured_from_the_table():
    table = pd.DataFrame({"half": [0.0, 10, -10], "drop": [0.0, 15, -15], "sandwich": 2.0, "bootstrap": [1.0, 3, 3]})
    assert "1.50 times" in title(leaderboard.plot_dropped_ties(table))
    assert "1.50 times" in title(leaderboard.plot_errors(table))


def test_published_votes_are_checked_where_they_are_found(votes, monkeypatch, tmp_path):
    counts = count_pairs(votes)
    monkeypatch.setenv("ROUTING_DATA", str(tmp_path))
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path))
    assert "not on this machine" in leaderboard.check_published_votes(counts)
    rows = expand_counts(counts, np.random.default_rng(0)).assign(language="English", tstamp=1.0, anony=True)
    records = rows.to_dict("records") + [{**rows.iloc[0].to_dict(), "anony": False}]
    (tmp_path / "votes").mkdir()
    (tmp_path / "votes" / "clean_battle_20240814_public.json").write_text(json.dumps(records))
    with pytest.raises(ValueError, match="clean_battle.*3001, 3000"):
        leaderboard.check_published_votes(counts)
    monkeypatch.setattr(leaderboard, "PUBLISHED", (3001, 3000))
    assert leaderboard.check_published_votes(counts).startswith("3,001 votes")
    with pytest.raises(ValueError, match="pair counts"):
        leaderboard.check_published_votes(count_pairs(swap_battles(votes.assign(winner="model_a"))))


def test_logistic_regression_finds_the_same_ratings(votes, fits):
    ratings = leaderboard.fit_by_regression(count_pairs(votes))
    pd.testing.assert_series_equal(ratings, fits["half"].ratings, check_names=False, atol=1e-5)
