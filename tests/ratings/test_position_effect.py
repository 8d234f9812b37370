"""The first-answer term: recovery of a known bias, an independent optimiser, what it leaves alone."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize

from routing.battles import count_pairs, encode_battles, swap_battles
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.ratings.position_effect import fit_position_effect
from routing.studies.simulated.arena import SimulatedArena, simulate_arena
from tests.conftest import battle_tables

BIAS = 0.7


@cache
def make_arena() -> SimulatedArena:
    return simulate_arena(0, n_models=8, topic_spread=0.0)


def sample(n_battles: int, rng: np.random.Generator, always_first: str | None = None) -> tuple[pd.Series, pd.DataFrame]:
    """Battles that follow the model exactly: without topics, and prompts of the difficulty whose slope is 1."""
    arena = make_arena()
    prompts = pd.DataFrame({"prompt": ["?"], "topic": arena.topics[:1], "difficulty": "medium"})
    battles = arena.sample_battles(prompts, n_battles, rng, BIAS)
    truth = pd.Series(arena.mean_ratings, index=arena.models)
    return truth, battles[battles["model_b"] != always_first]


def share_inside(fit, truth: pd.Series) -> float:
    interval = fit.interval()
    return ((interval["low"] <= truth) & (truth <= interval["high"])).mean()


def test_a_known_bias_is_found(rng):
    truth, battles = sample(20_000, rng)
    fit = fit_position_effect(battles)
    low, high = fit.position_interval()
    assert low < BIAS < high < BIAS + 0.1
    assert share_inside(fit, truth) >= 0.75 and abs(fit.ratings.mean()) < 1e-12


def test_a_model_that_always_stands_first_is_overrated_without_the_term(rng):
    favoured = "mistral-7b-instruct"
    truth, battles = sample(20_000, rng, always_first=favoured)
    with_term, without = fit_position_effect(battles), fit_bradley_terry(count_pairs(battles), "davidson")
    assert without.interval().loc[favoured, "low"] > truth[favoured] + 0.3
    interval = with_term.interval().loc[favoured]
    assert interval["low"] < truth[favoured] < interval["high"]
    assert share_inside(with_term, truth) >= 0.75 > share_inside(without, truth)
    others = truth.drop(favoured).index  # among themselves shown both ways round
    moved = without.ratings[others] - with_term.ratings[others]
    assert np.ptp(moved) < abs(without.ratings[favoured] - with_term.ratings[favoured]) / 2


def test_intervals_hold_the_truth_as_often_as_they_say(rng):
    intervals = [fit_position_effect(sample(600, rng)[1]).position_interval(0.8) for _ in range(60)]
    inside = sum(low < BIAS < high for low, high in intervals)
    assert 38 <= inside <= 56  # 48 expected, standard deviation 3.1


def test_a_general_optimiser_agrees(rng):
    _, battles = sample(1_500, rng)
    models, first, second, outcome = encode_battles(battles)

    def loss(x: np.ndarray) -> float:
        delta = x[first] - x[second] + x[-2]
        logits = np.stack([delta / 2, np.full(len(delta), x[-1]), -delta / 2])
        return float((np.log(np.exp(logits).sum(axis=0)) - logits[outcome, np.arange(len(delta))]).sum())

    found = minimize(loss, np.zeros(len(models) + 2), method="BFGS", options={"gtol": 1e-4})
    fit = fit_position_effect(battles)
    np.testing.assert_allclose(fit.ratings, found.x[:-2] - found.x[:-2].mean(), atol=1e-4)
    assert fit.position_effect == pytest.approx(found.x[-2], abs=1e-4)
    assert np.log(fit.tie_parameter) == pytest.approx(found.x[-1], abs=1e-4)
    assert fit.log_likelihood == pytest.approx(-found.fun, abs=1e-4)


@given(table=battle_tables(max_rows=20), seed=st.integers(0, 2**32 - 1))
def test_exchange_turns_the_sign_and_rows_have_no_order(table, seed):
    both_ways = pd.concat([table, swap_battles(table), table], ignore_index=True)
    assume((table["winner"] != "tie").any())
    fit, other = fit_position_effect(both_ways), fit_position_effect(swap_battles(both_ways))
    assert other.position_effect == pytest.approx(-fit.position_effect, abs=1e-8)
    np.testing.assert_allclose(other.ratings, fit.ratings, atol=1e-8)
    np.testing.assert_allclose(other.interval(), fit.interval(), atol=1e-6)
    shuffled = both_ways.iloc[np.random.default_rng(seed).permutation(len(both_ways))]
    assert fit_position_effect(shuffled).position_effect == fit.position_effect


def test_battles_shown_equally_often_both_ways_have_no_effect(rng):
    _, battles = sample(2_000, rng)
    both = pd.concat([battles, swap_battles(battles)])
    fit, plain = fit_position_effect(both), fit_bradley_terry(count_pairs(both), "davidson")
    assert abs(fit.position_effect) < 1e-10
    np.testing.assert_allclose(fit.ratings, plain.ratings, atol=1e-8)
    assert fit.tie_parameter == pytest.approx(plain.tie) and fit.log_likelihood == pytest.approx(plain.log_likelihood)


def test_without_ties_it_is_a_logistic_regression_with_intercept(rng):
    _, battles = sample(2_000, rng)
    decided = battles[battles["winner"] != "tie"]
    fit = fit_position_effect(decided)
    _, first, second, outcome = encode_battles(decided)
    delta = fit.ratings.to_numpy()[first] - fit.ratings.to_numpy()[second] + fit.position_effect
    assert fit.tie_parameter == 0
    assert ((outcome == 0) - 1 / (1 + np.exp(-delta))).sum() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("x", "y", "model_a"), ("x", "y", "model_b")], "cannot be told from the ratings"),
        ([("x", "y", "model_a"), ("y", "x", "model_a")], "the first answer always won"),
        ([("x", "y", "model_b"), ("y", "x", "model_b")], "the first answer never won"),
        ([("x", "y", "model_a"), ("y", "x", "model_b")], "won every battle|lost every battle"),
        ([("x", "x", "tie")], "meets itself"),
    ],
)
def test_what_cannot_be_estimated_is_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        fit_position_effect(pd.DataFrame(rows, columns=["model_a", "model_b", "winner"]))


def test_battles_too_one_sided_have_no_finite_fit():
    """First answers win between x and y; z > x + effect and y + effect > z: the larger all of them, the better."""
    rows = [("x", "y", "model_a"), ("y", "x", "model_a"), ("x", "z", "model_b"), ("y", "z", "model_a")]
    with pytest.raises(ValueError, match=r"no finite ratings and effect.*z can rise above x, y.*prior_strength"):
        fit_position_effect(pd.DataFrame(rows, columns=["model_a", "model_b", "winner"]))
