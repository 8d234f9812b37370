"""The original behaviours have the faults they are here to show, and are right apart from them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from routing.battles import canonical_order, count_pairs, swap_battles
from routing.evaluation.call_curve import call_curve
from routing.ratings.bradley_terry import ELO_PER_LOG_ODDS, bootstrap_ratings, fit_bradley_terry
from routing.routers.base import BradleyTerryRouter
from routing.studies.order.original import (
    FOUR_BATTLES,
    FOUR_TIERS,
    FixedPairRouter,
    OriginalSimilarityRouter,
    TiesToWeakRouter,
    bootstrap_written_cells,
    curve_at_quantiles,
    curve_by_rows,
    fit_design,
    fit_pivot_tables,
    fit_rows,
    overwrite_rows,
    variance_tiers,
    write_design,
)
from routing.studies.simulated.arena import SimulatedArena, simulate_arena

PAIR = ("gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1")
WIDTH = 6


@pytest.fixture(scope="module")
def arena() -> SimulatedArena:
    return simulate_arena(0)


@pytest.fixture
def battles(arena, rng) -> pd.DataFrame:
    return arena.sample_battles(arena.sample_prompts(100, rng), 1500, rng)


def draw_vectors(n_rows: int, rng: np.random.Generator) -> np.ndarray:
    vectors = np.hstack([np.full((n_rows, 1), 2.0), rng.normal(size=(n_rows, WIDTH - 1))])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def winner_first(battles: pd.DataFrame) -> pd.DataFrame:
    return swap_battles(battles, (battles["winner"] == "model_b").to_numpy())


def test_four_battles_by_hand():
    """The second write erases the first where both models are in one tier, and a swap then changes the answer."""
    both = {"as shown": FOUR_BATTLES, "swapped": swap_battles(FOUR_BATTLES)}
    rows = {name: write_design(battles, FOUR_TIERS, overwrite=True) for name, battles in both.items()}
    assert rows["as shown"][["strong", "weak"]].to_numpy().tolist() == [[1, -1], [1, -1], [-1, 0], [0, -1]]
    assert rows["swapped"][["strong", "weak"]].to_numpy().tolist() == [[-1, 1], [-1, 1], [-1, 0], [0, -1]]
    assert rows["as shown"]["model_a_won"].tolist() == [True, False, True, False]
    assert [round(fit_design(table), 2) for table in rows.values()] == [0.39, 0.61]
    added = [write_design(battles, FOUR_TIERS, overwrite=False) for battles in both.values()]
    assert added[0][["strong", "weak"]].to_numpy().tolist() == [[1, -1], [1, -1], [0, 0], [0, 0]]
    assert [fit_design(table) for table in added] == pytest.approx([0.5, 0.5], abs=1e-9)


@pytest.mark.parametrize("n_tiers", [3, 6])
def test_the_overwritten_rows_equal_a_logistic_regression_a_prompt(battles, rng, n_tiers):
    """Each prompt's rows, written into a matrix where the second write erases the first, fitted by scikit-learn."""
    vectors, asked = draw_vectors(len(battles), rng), draw_vectors(4, rng)
    router = OriginalSimilarityRouter(*PAIR, n_tiers=n_tiers).fit(battles, vectors)
    row = np.arange(len(battles))
    design = np.zeros((len(battles), n_tiers))
    design[row, router.tiers[battles["model_a"]]] = np.log(10)
    design[row, router.tiers[battles["model_b"]]] = -np.log(10)
    labels = np.concatenate([battles["winner"] == "model_a", battles["winner"] != "model_b"])
    assert 0.1 < (design != 0).sum(axis=1).tolist().count(1) / len(battles) < 0.6  # rows that lost one of their entries
    expected = []
    for vector in asked:
        similarity = vectors @ vector
        weights = 10 * 10 ** (similarity / similarity.max())
        model = LogisticRegression(C=np.inf, fit_intercept=False, solver="newton-cg", tol=1e-10, max_iter=1000)
        model.fit(np.tile(design, (2, 1)), labels, sample_weight=np.tile(weights, 2))
        weak_less_strong = 400 * (model.coef_[0][router.tiers[PAIR[1]]] - model.coef_[0][router.tiers[PAIR[0]]])
        expected.append(1 / (1 + 10 ** (weak_less_strong / 400)))
    np.testing.assert_allclose(router.win_probability(asked, *PAIR), expected, atol=1e-6)


def test_a_row_within_a_tier_is_an_opponent_whom_the_second_model_beats():
    table = pd.DataFrame({"model_a": ["x", "x", "z"], "model_b": ["y", "z", "y"], "winner": ["model_b", "tie", "tie"]})
    written = overwrite_rows(table, pd.Series({"x": 0, "y": 0, "z": 3}))
    assert written["model_a"].tolist() == ["an opponent rated 0", "tier 00", "tier 03"]
    assert written["model_b"].tolist() == ["tier 00", "tier 03", "tier 00"]
    assert written["winner"].tolist() == ["model_b", "tie", "tie"]


@pytest.mark.parametrize("n_tiers", [1, 2, 4, 7])
def test_variance_tiers_are_the_best_of_all_splits(rng, n_tiers):
    ratings = pd.Series(rng.normal(size=8), index=[*"hbdcaefg"])
    values = np.sort(ratings)[::-1]
    splits = ([0, *cut, 8] for cut in combinations(range(1, 8), n_tiers - 1))
    best = min(splits, key=lambda ends: sum(values[i:j].var() for i, j in zip(ends, ends[1:], strict=False)))
    tiers = variance_tiers(ratings, n_tiers)
    assert tiers.index.equals(ratings.index)
    assert np.bincount(tiers).tolist() == np.diff(best).tolist()
    assert tiers[ratings.sort_values(ascending=False).index].is_monotonic_increasing


def test_a_fixed_pair_answers_alike_whoever_is_asked_about(battles):
    plain = BradleyTerryRouter().fit(battles)
    router = FixedPairRouter(BradleyTerryRouter(), *PAIR).fit(battles)
    p = plain.win_probability(["?"], *PAIR)
    for asked in (PAIR, PAIR[::-1], ("vicuna-13b", "dolly-v2-12b")):
        np.testing.assert_array_equal(router.win_probability(["?"], *asked), p)
    similar = OriginalSimilarityRouter(*PAIR, n_tiers=3).fit(battles, np.ones((len(battles), 3)))
    p = similar.win_probability(np.ones((1, 3)), *PAIR)
    np.testing.assert_array_equal(similar.win_probability(np.ones((1, 3)), *PAIR[::-1]), p)
    assert abs(p - 0.5) > 0.05


def test_the_tie_goes_to_whoever_is_called_weak(battles):
    plain = BradleyTerryRouter().fit(battles)
    router = TiesToWeakRouter(BradleyTerryRouter()).fit(battles)
    p, other = (router.win_probability(["?"], *pair) for pair in (PAIR, PAIR[::-1]))
    tie = plain.outcome_probability(["?"], *PAIR)[:, 1]
    assert tie > 0.2
    np.testing.assert_allclose(p + other, 1 - tie, atol=1e-12)
    np.testing.assert_allclose(router.outcome_probability(["?"], *PAIR).sum(axis=1), 1)


def test_pivot_tables_are_right_until_one_lacks_an_entry(battles):
    expected = ELO_PER_LOG_ODDS * fit_bradley_terry(count_pairs(battles)).ratings + 1000
    np.testing.assert_allclose(fit_pivot_tables(battles), expected, atol=0.05)
    np.testing.assert_allclose(fit_pivot_tables(battles[battles["winner"] != "tie"]).mean(), 1000, atol=0.05)
    canonical = fit_pivot_tables(canonical_order(battles))
    assert canonical.iloc[0] == canonical.iloc[-1] == 1000.0
    assert (canonical.iloc[1:-1] - expected.iloc[1:-1]).abs().max() > 5
    with pytest.raises(ValueError, match="0 sample"):
        fit_pivot_tables(winner_first(battles))


def test_rows_of_one_class_cannot_be_fitted(battles):
    expected = ELO_PER_LOG_ODDS * fit_bradley_terry(count_pairs(battles)).ratings + 1000
    np.testing.assert_allclose(fit_rows(battles), expected, atol=0.05)
    decided = battles[battles["winner"] != "tie"]
    assert np.isfinite(fit_rows(decided)).all()
    with pytest.raises(ValueError, match="at least 2 classes"):
        fit_rows(winner_first(decided))


def test_written_cells_give_a_seed_other_resamples(battles):
    def draw(function, table, *counted):
        return function(*counted or (table,), 20, np.random.default_rng(3))

    first, other = (draw(bootstrap_written_cells, table) for table in (battles, swap_battles(battles)))
    assert np.abs(first - other).max() > 0.01
    np.testing.assert_allclose(first.mean(axis=0), fit_bradley_terry(count_pairs(battles)).ratings, atol=0.1)
    ours = [bootstrap_ratings(count_pairs(t), 20, np.random.default_rng(3)) for t in (battles, swap_battles(battles))]
    np.testing.assert_array_equal(*ours)


def test_equal_scores_are_cut_by_row_order(rng):
    strong, weak = rng.integers(0, 2, 60) + 0.5, rng.integers(0, 2, 60).astype(float)
    distinct, tied = rng.permutation(60) / 60, np.repeat([0.2, 0.7], 30)
    shuffled = rng.permutation(60)
    for score, changes in ((distinct, False), (tied, True)):
        one, other = (curve_by_rows(score[r], strong[r], weak[r]).apgr() for r in (np.arange(60), shuffled))
        assert (one != other) == changes
        assert (one == pytest.approx(call_curve(score, strong, weak).apgr(), abs=1e-12)) != changes


def test_quantile_cuts_follow_no_row_order(rng):
    strong, weak = rng.integers(0, 2, 60) + 0.5, rng.random(60)
    tied, shuffled = rng.integers(0, 4, 60) / 4, rng.permutation(60)
    one, other = (curve_at_quantiles(tied[r], strong[r], weak[r]) for r in (np.arange(60), shuffled))
    np.testing.assert_array_equal(one.quality, other.quality)
    distinct = rng.permutation(60) / 60
    exact, cut = call_curve(distinct, strong, weak), curve_at_quantiles(distinct, strong, weak)
    np.testing.assert_allclose(cut.pgr(cut.strong_share), exact.pgr(cut.strong_share), atol=1e-12)
    assert cut.strong_share.tolist() == [0.0, *cut.strong_share[1:-1], 1.0] and len(cut.strong_share) == 11
