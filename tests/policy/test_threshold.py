from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.policy.budget import calibrate_threshold, route_pair

# Few distinct values, so that equal probabilities are common.
PROBABILITIES = st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]) | st.floats(0, 1), min_size=1, max_size=30)


def share_sent(p_strong: np.ndarray, threshold: float) -> float:
    return float((route_pair(p_strong, threshold, "big", "small") == "big").mean())


def test_a_prompt_at_the_threshold_goes_to_the_strong_model():
    routed = route_pair([0.2, 0.5, 0.8], 0.5, strong="gpt-4-1106-preview", weak="mixtral-8x7b-instruct-v0.1")
    assert routed.tolist() == ["mixtral-8x7b-instruct-v0.1", "gpt-4-1106-preview", "gpt-4-1106-preview"]


def test_thresholds_at_and_beyond_the_ends_send_everything_or_nothing():
    p_strong = np.array([0.0, 0.4, 1.0])
    assert share_sent(p_strong, 0.0) == 1.0
    assert share_sent(p_strong, 1.0) == 1 / 3
    assert share_sent(p_strong, np.nextafter(1.0, 2.0)) == 0.0
    assert share_sent(p_strong, math.inf) == 0.0


@given(PROBABILITIES)
def test_exchanging_the_names_with_the_probabilities_routes_the_same(p_strong):
    # The complement is exact on this grid; a prompt at the threshold goes to whichever model is called strong.
    p_a = np.round(np.array(p_strong) * 64) / 64
    off_threshold = p_a != 0.5
    one_way, other_way = route_pair(p_a, 0.5, "a", "b"), route_pair(1 - p_a, 0.5, "b", "a")
    assert (one_way == other_way)[off_threshold].all()
    assert (one_way != other_way)[~off_threshold].all()


@pytest.mark.parametrize("bad", [math.nan, -0.01, 1.01, math.inf])
def test_what_is_no_probability_raises_naming_the_row(bad):
    with pytest.raises(ValueError, match=r"p_strong, row 2: .* is not a probability"):
        route_pair([0.1, 0.9, bad, bad], 0.5, "big", "small")
    with pytest.raises(ValueError, match=r"p_strong, row 1: .* is not a probability"):
        calibrate_threshold([0.1, bad], 0.5)


def test_other_bad_input_raises():
    with pytest.raises(ValueError, match="both 'big'"):
        route_pair([0.1], 0.5, "big", "big")
    with pytest.raises(ValueError, match="threshold is NaN"):
        route_pair([0.1], math.nan, "big", "small")
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        route_pair([[0.1, 0.2]], 0.5, "big", "small")
    with pytest.raises(ValueError, match="at least one prompt"):
        calibrate_threshold([], 0.5)
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="strong_share is"):
            calibrate_threshold([0.1], share)


@given(PROBABILITIES, st.floats(0, 1) | st.fractions(0, 1, max_denominator=30).map(float))
def test_calibrated_share_is_the_largest_within_the_budget(p_strong, strong_share):
    p_strong = np.array(p_strong)
    realised = share_sent(p_strong, calibrate_threshold(p_strong, strong_share))
    assert realised <= strong_share
    reachable = [share_sent(p_strong, threshold) for threshold in [*p_strong, math.inf]]
    assert realised == max(share for share in reachable if share <= strong_share)


@given(PROBABILITIES)
def test_ends_of_the_budget(p_strong):
    assert calibrate_threshold(p_strong, 0.0) > max(p_strong)
    assert calibrate_threshold(p_strong, 1.0) == min(p_strong)


def test_a_budget_short_of_one_prompt_by_one_bit_does_not_send_it():
    assert share_sent([0.2, 0.8], calibrate_threshold([0.2, 0.8], 0.5)) == 0.5
    assert share_sent([0.2, 0.8], calibrate_threshold([0.2, 0.8], np.nextafter(0.5, 0))) == 0.0


def test_distinct_probabilities_reach_every_share_exactly():
    p_strong = np.random.default_rng(0).permutation(np.linspace(0, 1, 100))
    for n_strong in range(101):
        assert share_sent(p_strong, calibrate_threshold(p_strong, n_strong / 100)) == n_strong / 100


def test_equal_probabilities_stay_within_the_budget_where_a_quantile_does_not():
    p_strong = np.array([0.2, 0.6, 0.6, 0.6, 0.9])
    assert share_sent(p_strong, np.quantile(p_strong, 1 - 0.4)) == 0.8
    assert share_sent(p_strong, calibrate_threshold(p_strong, 0.4)) == 0.2
