from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from routing.battles import PairCounts
from routing.policy.quality import QualityMap, rate_new_model, win_share
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.ratings.ties import outcome_probability

NAMES = ["a", "b", "c", "d"]
RATINGS = st.lists(st.lists(st.floats(-5, 5), min_size=4, max_size=4), min_size=1, max_size=8)


def table(values: object) -> pd.DataFrame:
    return pd.DataFrame(np.asarray(values, dtype=float), columns=NAMES)


def test_win_share_against_a_reference_is_the_win_probability():
    ratings = table([[0.0, 1.0, -1.0, 3.0]])
    share = win_share(ratings, reference="b")
    np.testing.assert_allclose(share, expit(ratings - 1.0))
    assert share["b"].item() == 0.5


def test_a_tie_is_half_a_win():
    share = win_share(table([[0.0, 1.0, -1.0, 3.0]]), nu=0.8, reference="a")
    win, tie, _ = outcome_probability(np.array(3.0), "davidson", 0.8)
    assert share["d"].item() == pytest.approx(win + tie / 2)


def test_the_share_against_the_pool_is_the_mean_over_the_others(monkeypatch, rng):
    ratings = table(rng.normal(size=(7, 4)))
    others = [win_share(ratings, 0.5, name) for name in NAMES]
    expected = {m: sum(share[m] for n, share in zip(NAMES, others, strict=True) if n != m) / 3 for m in NAMES}
    np.testing.assert_allclose(win_share(ratings, 0.5), pd.DataFrame(expected))
    monkeypatch.setattr("routing.policy.quality.BLOCK_CELLS", 40)  # two prompts at a time
    np.testing.assert_allclose(win_share(ratings, 0.5), pd.DataFrame(expected))


@given(RATINGS, st.floats(0, 3), st.permutations(NAMES))
def test_shares_of_the_pool_average_to_a_half_and_know_no_order(values, tie, order):
    ratings = table(values)
    share = win_share(ratings, tie)
    np.testing.assert_allclose(share.mean(axis=1), 0.5, atol=1e-12)
    pd.testing.assert_frame_equal(win_share(ratings[order], tie), share[order], check_exact=True)


@pytest.mark.parametrize("kind", ["logistic", "isotonic"])
def test_the_map_recovers_the_true_score(kind, rng):
    ratings = table(rng.normal(size=(8_000, 4)))
    truth = expit(0.6 * ratings + 0.4)
    correct = (rng.random(ratings.shape) < truth).astype(float)
    fitted = QualityMap(kind).fit(ratings[:6_000], correct[:6_000])
    error = (fitted.predict(ratings[6_000:]) - truth[6_000:]).abs().to_numpy()
    assert error.mean() < {"logistic": 0.01, "isotonic": 0.02}[kind]


@pytest.mark.parametrize("kind", ["logistic", "isotonic"])
def test_the_map_keeps_the_order_of_models_and_forgets_that_of_rows(kind, rng):
    ratings = table(rng.normal(size=(60, 4)))
    scores = (expit(ratings) + rng.normal(0, 0.2, ratings.shape)).clip(0, 1)
    fitted = QualityMap(kind).fit(ratings, scores)
    predicted = fitted.predict(ratings).to_numpy().ravel()
    assert (np.diff(predicted[np.argsort(ratings.to_numpy().ravel())]) >= 0).all()
    order = rng.permutation(60)
    other = QualityMap(kind).fit(ratings.iloc[order][["c", "a", "d", "b"]], scores.iloc[order])
    pd.testing.assert_frame_equal(other.predict(ratings), fitted.predict(ratings), check_exact=True)


def test_graded_scores_count_in_parts():
    ratings, scores = table([[0.0, 0.0, 1.0, 1.0]]), table([[0.2, 0.4, 0.6, 0.8]])
    predicted = QualityMap("logistic").fit(ratings, scores).predict(ratings)
    np.testing.assert_allclose(predicted, [[0.3, 0.3, 0.7, 0.7]], atol=1e-4)


def test_what_no_map_can_be_learned_from_raises():
    ratings, scores = table([[0.0, 1.0, 2.0, 3.0]] * 2), table([[0.0, 0.3, 0.6, 0.9]] * 2)
    with pytest.raises(ValueError, match="no score of d"):
        QualityMap().fit(ratings, scores[["a", "b", "c"]])
    with pytest.raises(ValueError, match="1 rows of scores for ratings of 4 models on 2 prompts"):
        QualityMap().fit(ratings, scores[:1])
    with pytest.raises(ValueError, match=r"score of b, row 0: 3.0 is outside \[0, 1\]"):
        QualityMap().fit(ratings, scores * 10)
    with pytest.raises(ValueError, match="scores do not rise"):
        QualityMap("logistic").fit(ratings, 1 - scores)
    with pytest.raises(ValueError, match="ratings, row 1, model b: nan"):
        win_share(ratings.mask((ratings == 1.0) & (ratings.index.to_numpy() == 1)[:, None]))
    with pytest.raises(ValueError, match="unknown kind 'linear'"):
        QualityMap("linear")
    with pytest.raises(RuntimeError, match="has not been fitted"):
        QualityMap().predict(ratings)
    with pytest.raises(ValueError, match="no reference 'z'; use pool or one of a, b"):
        win_share(ratings, reference="z")
    with pytest.raises(ValueError, match="at least two models"):
        win_share(ratings[["a"]])


def test_a_newcomer_is_rated_as_if_it_had_been_there(rng):
    wins = rng.integers(5, 40, (4, 4)).astype(float)
    np.fill_diagonal(wins, 0)
    ties = rng.integers(0, 10, (4, 4)).astype(float)
    ties = np.triu(ties, 1) + np.triu(ties, 1).T
    fit = fit_bradley_terry(PairCounts(NAMES, wins, ties), "davidson")
    others = fit.ratings[["a", "b", "c"]].to_numpy()
    counts = np.stack([wins[3, :3], ties[3, :3], wins[:3, 3]], axis=1).astype(int)  # (3, outcomes)
    battles = np.repeat(np.tile(np.arange(3), 3), counts.ravel())
    opponents = np.repeat(np.repeat(others, 3), counts.ravel())
    rating = rate_new_model(opponents, battles, fit.tie_parameter, prior_strength=1e-9)
    assert rating == pytest.approx(fit.ratings["d"], abs=1e-6)


def test_a_newcomer_starts_at_the_prior_and_moves_with_its_battles():
    assert rate_new_model(np.array([]), np.array([]), 0.5, prior_rating=0.7) == pytest.approx(0.7)
    assert 0 < rate_new_model(np.zeros(9), np.zeros(9, dtype=int), 0.5, prior_strength=1e-300) < 1500  # won all
    few, many = (rate_new_model(np.zeros(n), np.zeros(n, dtype=int), 0.5, 0.7) for n in (3, 300))
    assert 0.7 < few < many < math.inf
    assert rate_new_model(np.zeros(9), np.ones(9, dtype=int), 0.5, 0.7, 1e-6) == pytest.approx(0.0, abs=1e-5)


@given(
    st.lists(st.tuples(st.floats(-4, 4), st.sampled_from([0, 1, 2])), max_size=20), st.randoms(use_true_random=False)
)
def test_the_order_of_a_newcomers_battles_is_nothing(battles, random):
    shuffled = random.sample(battles, len(battles))
    one, other = (
        rate_new_model(np.array([b[0] for b in t]), np.array([b[1] for b in t]), 0.4) for t in (battles, shuffled)
    )
    assert one == other


def test_battles_that_cannot_be_read_raise():
    for arguments, message in [
        (([0.0], [0, 1], 0.5), r"shape \(1,\) and outcome \(2,\)"),
        (([0.0], [3], 0.5), "besides 0, 1 and 2"),
        (([math.inf], [1], 0.5), "a rating is not finite"),
        (([0.0], [1], 0.5, 0.0, 0.0), "prior_strength is 0.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            rate_new_model(*arguments)
