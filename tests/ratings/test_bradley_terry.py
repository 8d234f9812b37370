from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from routing.battles import PairCounts, count_pairs
from routing.ratings.bradley_terry import (
    ELO_PER_LOG_ODDS,
    bootstrap_ratings,
    fit_bradley_terry,
    rating_tiers,
)
from routing.ratings.newton import pair_sums, solve_ratings
from routing.ratings.ties import TIE_MODELS, davidson_terms, half_win_terms, outcome_probability, rao_kupper_terms
from tests.conftest import battle_tables
from tests.test_battles import exchanged_and_shuffled

# American League baseball 1987, wins of the row over the column [Agresti13, table 11.10].
TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
BASEBALL = np.array(
    [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ],
    dtype=float,
)
AGRESTI_RATINGS = {  # Baltimore = 0
    "Milwaukee": 1.581,
    "Detroit": 1.436,
    "Toronto": 1.294,
    "New York": 1.248,
    "Boston": 1.108,
    "Cleveland": 0.684,
    "Baltimore": 0.0,
}


def random_counts(rng: np.random.Generator, n_models: int = 6, mean: float = 20.0) -> PairCounts:
    wins = rng.poisson(mean, (n_models, n_models)).astype(float)
    ties = np.triu(rng.poisson(mean / 3, (n_models, n_models)), 1).astype(float)
    np.fill_diagonal(wins, 0)
    return PairCounts([f"m{index}" for index in range(n_models)], wins, ties + ties.T)


def simulated_counts(rng, theta: np.ndarray, ties: str, tie: float, n_per_pair: int) -> PairCounts:
    wins, tied = np.zeros((2, len(theta), len(theta)))
    for i in range(len(theta)):
        for j in range(i):
            wins[i, j], tied[i, j], wins[j, i] = rng.multinomial(
                n_per_pair, outcome_probability(theta[i] - theta[j], ties, tie)
            )
    return PairCounts([f"m{index}" for index in range(len(theta))], wins, tied + tied.T)


def test_baseball_matches_the_textbook():
    fit = fit_bradley_terry(PairCounts(TEAMS, BASEBALL, np.zeros((7, 7))))
    ours = fit.ratings - fit.ratings["Baltimore"]
    np.testing.assert_allclose(ours, pd.Series(AGRESTI_RATINGS), atol=6e-4)
    assert fit.win_probability("Boston", "New York") == pytest.approx(0.46, abs=0.01)  # the book: 0.47 and 0.46 fitted


def test_ratings_equal_a_logistic_regression_on_the_rows(rng):
    counts = random_counts(rng)
    rows, labels, weights = [], [], []
    for i in range(6):
        for j in range(6):
            for label, weight in ((1, counts.wins[i, j] + counts.ties[i, j] / 2),):
                if i != j:
                    rows.append(np.eye(6)[i] - np.eye(6)[j])
                    labels.append(label)
                    weights.append(weight)
                    rows.append(np.eye(6)[j] - np.eye(6)[i])
                    labels.append(1 - label)
                    weights.append(weight)
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=1000, solver="newton-cg")
    model.fit(rows, labels, sample_weight=weights)
    expected = model.coef_[0] - model.coef_[0].mean()
    np.testing.assert_allclose(fit_bradley_terry(counts).ratings, expected, atol=1e-6)


@pytest.mark.parametrize("ties", ["davidson", "rao_kupper"])
def test_tie_models_equal_a_general_optimiser(rng, ties):
    counts = random_counts(rng, 5)

    def loss(parameters: np.ndarray) -> float:
        theta = np.append(parameters[:4], -parameters[:4].sum())
        tie = np.exp(parameters[4])
        p = outcome_probability(theta[:, None] - theta[None, :], ties, tie)
        return -(counts.wins * np.log(p[..., 0])).sum() - (np.triu(counts.ties) * np.log(p[..., 1])).sum()

    best = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-4})
    fit = fit_bradley_terry(counts, ties)
    np.testing.assert_allclose(fit.ratings[:4], best.x[:4], atol=1e-5)
    assert fit.tie == pytest.approx(np.exp(best.x[4]), rel=1e-4)
    assert fit.log_likelihood == pytest.approx(-best.fun, rel=1e-10)


@pytest.mark.parametrize("terms", [lambda d, t: half_win_terms(d), davidson_terms, rao_kupper_terms])
def test_derivatives_equal_finite_differences(terms):
    delta, tie, h = np.linspace(-3, 3, 13), np.full(13, 0.7), 1e-5

    def along(name, by_delta, by_tie):
        up, down = (getattr(terms(delta + s * h * by_delta, tie + s * h * by_tie), name) for s in (1, -1))
        return (up - down) / (2 * h)

    exact = terms(delta, tie)
    np.testing.assert_allclose(exact.slope, along("log_probability", 1, 0), atol=1e-8)
    np.testing.assert_allclose(np.broadcast_to(exact.curvature, (3, 13)), -along("slope", 1, 0), atol=1e-8)
    if terms in (davidson_terms, rao_kupper_terms):
        np.testing.assert_allclose(exact.tie_slope, along("log_probability", 0, 1), atol=1e-8)
        np.testing.assert_allclose(np.broadcast_to(exact.tie_curvature, (3, 13)), -along("tie_slope", 0, 1), atol=1e-8)
        np.testing.assert_allclose(np.broadcast_to(exact.cross_curvature, (3, 13)), -along("slope", 0, 1), atol=1e-8)


@given(st.floats(-700, 700), st.sampled_from(TIE_MODELS), st.floats(0.01, 0.99))
def test_outcomes_sum_to_one_and_mirror_exactly(delta, ties, tie):
    p, mirrored = outcome_probability(delta, ties, tie), outcome_probability(-delta, ties, tie)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert (p >= 0).all()
    np.testing.assert_array_equal(p, mirrored[::-1])


@pytest.mark.parametrize(("ties", "tie"), [("half", 0.0), ("davidson", 0.9), ("rao_kupper", 0.6), ("drop", 0.0)])
def test_the_simulated_truth_is_recovered_within_its_error(rng, ties, tie):
    theta = np.array([1.2, 0.4, 0.0, -0.5, -1.1])
    fit = fit_bradley_terry(simulated_counts(rng, theta, ties, tie, 4000), ties)
    error = (fit.ratings - theta) / np.sqrt(np.diagonal(fit.covariance))
    assert np.abs(error).max() < 3.5
    if tie:
        assert fit.tie == pytest.approx(tie, rel=0.05)


def test_intervals_cover_the_truth_as_often_as_they_say(rng):
    theta = np.array([0.8, 0.1, -0.9])
    inside = []
    for _ in range(400):
        interval = fit_bradley_terry(simulated_counts(rng, theta, "davidson", 0.8, 60), "davidson").interval(0.9)
        inside.append((interval["low"] < theta) & (theta < interval["high"]))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("ties", TIE_MODELS)
def test_bootstrap_agrees_with_the_sandwich(rng, ties):
    counts = random_counts(rng)
    resampled = bootstrap_ratings(counts, 2000, rng, ties)
    closed_form = np.sqrt(np.diagonal(fit_bradley_terry(counts, ties).covariance))
    np.testing.assert_allclose(resampled.std(axis=0), closed_form, rtol=0.08)
    np.testing.assert_allclose(resampled.mean(axis=0), fit_bradley_terry(counts, ties).ratings, atol=0.05)


@given(battle_tables(), st.data(), st.sampled_from(TIE_MODELS))
def test_fit_intervals_and_bootstrap_do_not_see_exchange_or_order(battles, data, ties):
    other, _ = exchanged_and_shuffled(data, battles)
    counts, other_counts = count_pairs(battles), count_pairs(other)
    first, second = (fit_bradley_terry(c, ties, prior_strength=0.1) for c in (counts, other_counts))
    assert first.ratings.to_numpy().tobytes() == second.ratings.to_numpy().tobytes()
    assert first.interval().to_numpy().tobytes() == second.interval().to_numpy().tobytes()
    assert first.tie == second.tie
    if ties == "half":
        a, b = (bootstrap_ratings(c, 5, np.random.default_rng(1), prior_strength=0.1) for c in (counts, other_counts))
        assert a.tobytes() == b.tobytes()


@given(battle_tables(), st.sampled_from(TIE_MODELS))
def test_exchanging_wins_and_losses_negates_the_ratings(battles, ties):
    counts = count_pairs(battles)
    mirrored = PairCounts(counts.models, counts.wins.T, counts.ties)
    fits = [fit_bradley_terry(c, ties, prior_strength=0.1).ratings for c in (counts, mirrored)]
    np.testing.assert_allclose(fits[0], -fits[1], atol=1e-9)
    assert fits[0].mean() == pytest.approx(0, abs=1e-12)


def test_a_problem_of_a_batch_is_solved_as_if_alone(rng):
    counts = [random_counts(rng, 4, mean) for mean in (5, 20, 300)]
    pairs = pair_sums(counts[0])
    together = pairs._replace(outcomes=np.concatenate([pair_sums(c).outcomes for c in counts], axis=1))
    batch = solve_ratings(together, 4, "davidson")
    for index, one in enumerate(counts):
        alone = solve_ratings(pair_sums(one), 4, "davidson")
        np.testing.assert_allclose(batch.ratings[index], alone.ratings[0], atol=1e-12)
        assert batch.tie_parameter[index] == pytest.approx(alone.tie_parameter[0], abs=1e-12)


def test_prior_shrinks_and_gives_the_undefeated_a_rating():
    counts = PairCounts(("x", "y"), np.array([[0.0, 9], [0, 0]]), np.zeros((2, 2)))
    weak, strong = (fit_bradley_terry(counts, prior_strength=s).ratings["x"] for s in (0.01, 1.0))
    assert 0 < strong < weak < np.inf


def test_elo_stands_at_its_anchor():
    fit = fit_bradley_terry(PairCounts(TEAMS, BASEBALL, np.zeros((7, 7))))
    elo = fit.elo("Boston", 1000)
    assert elo["Boston"] == 1000
    odds = np.exp(fit.ratings["Detroit"] - fit.ratings["Boston"])
    assert 10 ** ((elo["Detroit"] - elo["Boston"]) / 400) == pytest.approx(odds)
    assert ELO_PER_LOG_ODDS == pytest.approx(173.7178, abs=1e-4)
    with pytest.raises(ValueError, match=r"no rating of model 'mixtral-8x7b-instruct-v0.1'; there are 7: Milwaukee"):
        fit.elo()


ZERO = np.zeros((4, 4))


def counts_of(*pairs: tuple[int, int, int]) -> PairCounts:
    wins = ZERO.copy()
    for winner, loser, count in pairs:
        wins[winner, loser] = count
    return PairCounts(("w", "x", "y", "z"), wins, ZERO)


def test_groups_that_never_met_are_named():
    counts = counts_of((0, 1, 2), (1, 0, 1), (2, 3, 2), (3, 2, 1))
    with pytest.raises(ValueError, match=r"2 groups that never met.*One group: w, x;.*prior_strength"):
        fit_bradley_terry(counts)
    assert fit_bradley_terry(counts, prior_strength=0.1).converged


def test_a_model_without_battles_is_named():
    with pytest.raises(ValueError, match=r"never met.*One group: z;"):
        fit_bradley_terry(counts_of((0, 1, 2), (1, 0, 1), (1, 2, 2), (2, 1, 1)))


@pytest.mark.parametrize(("winner", "loser", "word"), [(3, 2, "won"), (2, 3, "lost")])
def test_a_model_that_won_or_lost_everything_is_named(winner, loser, word):
    counts = counts_of((0, 1, 2), (1, 0, 1), (1, 2, 2), (2, 1, 1), (winner, loser, 4))
    with pytest.raises(ValueError, match=rf"z {word} every battle.*prior_strength"):
        fit_bradley_terry(counts)


def test_dropping_the_ties_that_hold_models_together_is_refused():
    ties = ZERO.copy()
    ties[2, 3] = ties[3, 2] = 5
    counts = PairCounts(("w", "x", "y", "z"), counts_of((0, 1, 2), (1, 0, 1), (1, 2, 2), (2, 1, 1)).wins, ties)
    assert fit_bradley_terry(counts).converged
    with pytest.raises(ValueError, match="never met"):
        fit_bradley_terry(counts, "drop")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ties": "elo"}, "ties is 'elo'; use one of half, davidson, rao_kupper, drop"),
        ({"prior_strength": -1.0}, "prior_strength is -1.0"),
        ({"prior_strength": float("nan")}, "prior_strength is nan"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_bradley_terry(counts_of((0, 1, 2), (1, 0, 1)), **arguments)


@pytest.mark.parametrize("ties", ["davidson", "rao_kupper"])
def test_without_ties_the_tie_parameter_is_zero(ties):
    counts = counts_of((0, 1, 2), (1, 0, 1), (1, 2, 2), (2, 1, 1), (2, 3, 5), (3, 2, 1))
    fit, plain = fit_bradley_terry(counts, ties), fit_bradley_terry(counts)
    assert fit.tie == 0 and fit.outcome_probability("w", "x")[1] == 0
    pd.testing.assert_series_equal(fit.ratings, plain.ratings)
    assert fit.log_likelihood == pytest.approx(plain.log_likelihood)


def test_ties_alone_teach_only_the_half_wins():
    ties = np.ones((2, 2)) - np.eye(2)
    counts = PairCounts(("x", "y"), np.zeros((2, 2)), ties)
    assert fit_bradley_terry(counts).ratings.tolist() == [0, 0]
    for model in ("davidson", "rao_kupper", "drop"):
        with pytest.raises(ValueError, match="all battles are ties"):
            fit_bradley_terry(counts, model)


def test_empty_counts_are_refused():
    with pytest.raises(ValueError, match="no battle"):
        fit_bradley_terry(PairCounts(("x", "y"), np.zeros((2, 2)), np.zeros((2, 2))))


def test_a_resample_without_finite_ratings_is_explained(rng):
    counts = PairCounts(("x", "y"), np.array([[0.0, 9], [1, 0]]), np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"in resample \d+ (x|y) (won|lost) every battle.*prior_strength"):
        bootstrap_ratings(counts, 100, rng)
    with pytest.raises(ValueError, match="whole"):
        bootstrap_ratings(PairCounts(("x", "y"), np.array([[0, 1.25], [1, 0]]), np.zeros((2, 2))), 10, rng)


def tier_deviation(ratings: np.ndarray, tiers: np.ndarray) -> float:
    return sum(((ratings[tiers == t] - ratings[tiers == t].mean()) ** 2).sum() for t in np.unique(tiers))


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=8), st.data())
def test_tiers_are_the_best_of_all_splits(values, data):
    ratings = pd.Series(np.array(values) / 7, index=[f"m{i}" for i in range(len(values))])
    distinct = np.unique(values)
    n_tiers = data.draw(st.integers(1, len(distinct)))
    tiers = rating_tiers(ratings, n_tiers)
    assert set(tiers) == set(range(n_tiers))
    assert tiers[ratings.idxmax()] == 0
    assert ratings.groupby(ratings).apply(lambda same: tiers[same.index].nunique() == 1).all()

    def splits(n_values: int, n_parts: int):
        if n_parts == 1:
            yield (0,) * n_values
            return
        for size in range(1, n_values - n_parts + 2):
            yield from ((0,) * size + tuple(1 + t for t in rest) for rest in splits(n_values - size, n_parts - 1))

    brute = min(
        tier_deviation(ratings.to_numpy(), np.array(split)[np.searchsorted(distinct, values)])
        for split in splits(len(distinct), n_tiers)
    )
    assert tier_deviation(ratings.to_numpy(), tiers.to_numpy()) == pytest.approx(brute, abs=1e-12)


@pytest.mark.parametrize(("n_tiers", "message"), [(0, "between 1 and 2"), (3, "between 1 and 2")])
def test_impossible_tiers_are_refused(n_tiers, message):
    with pytest.raises(ValueError, match=message):
        rating_tiers(pd.Series({"x": 1.0, "y": 1.0, "z": 0.0}), n_tiers)


def test_tiers_of_a_missing_rating_are_refused():
    with pytest.raises(ValueError, match="no finite rating of y"):
        rating_tiers(pd.Series({"x": 1.0, "y": np.nan}), 1)
