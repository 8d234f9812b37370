from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from routing.evaluation.resampling import bootstrap_fits, paired_bootstrap, wilson_interval


def test_everything_of_one_call_sees_the_same_resamples(rng):
    one = rng.normal(size=50)
    other = one + 2.0
    low, high, n_excluded = paired_bootstrap(
        lambda counts: np.array([counts @ one, counts @ other, counts @ (other - one)]) / 50, 50, 200, rng
    )
    np.testing.assert_allclose([low[1], high[1]], np.array([low[0], high[0]]) + 2.0)
    assert low[2] == pytest.approx(2.0) and high[2] == pytest.approx(2.0) and n_excluded == 0
    assert low[0] < one.mean() < high[0]


def test_the_interval_of_a_mean_is_as_wide_as_theory_says(rng):
    values = rng.normal(size=400)
    low, high, _ = paired_bootstrap(lambda counts: counts @ values / 400, 400, 2_000, rng)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_the_same_seed_gives_the_same_interval():
    values = np.arange(10.0)
    one, other = (paired_bootstrap(lambda c: c @ values, 10, 20, np.random.default_rng(3)) for _ in range(2))
    assert one == other


def test_undefined_resamples_are_counted_and_infinite_values_may_end_an_interval(rng):
    def count_first(counts):
        return None if counts[0] == 0 else np.array([np.inf if counts[0] > 1 else 1.0, counts[0]])

    low, high, n_excluded = paired_bootstrap(count_first, 4, 500, rng)
    assert n_excluded / 500 == pytest.approx(0.75**4, abs=0.08)
    assert low.tolist() == [1.0, 1.0] and math.isinf(high[0]) and high[1] in (3.0, 4.0)
    with pytest.raises(ValueError, match="in none of 5 resamples"):
        paired_bootstrap(lambda counts: None, 4, 5, rng)


@pytest.mark.parametrize("n_fits", [5, 30])
def test_the_interval_of_fits_covers_rows_and_training(n_fits, rng):
    """Its width is that of a normal distribution whose variance is the sum of the rows' and the fits'."""
    values, fits = rng.normal(size=100), rng.normal(size=n_fits)
    fits /= 10 * fits.std(ddof=1)
    mean, (low, high, _) = bootstrap_fits(lambda c, f: c @ values / 100 + fits[f], n_fits, 100, 3_000, rng)
    assert mean == pytest.approx(values.mean() + fits.mean())
    assert high - low == pytest.approx(2 * 1.96 * np.hypot(values.std() / 10, 0.1), rel=0.08)


def test_equal_fits_leave_the_interval_of_the_rows(rng):
    values = rng.normal(size=100)
    mean, (low, high, _) = bootstrap_fits(lambda c, f: np.array([c @ values, 2 * c @ values]), 4, 100, 2_000, rng)
    one_low, one_high, _ = paired_bootstrap(lambda c: c @ values, 100, 2_000, rng)
    assert mean[0] == pytest.approx(values.sum())
    np.testing.assert_allclose([low[1], high[1]], [2 * low[0], 2 * high[0]])
    assert high[0] - low[0] == pytest.approx(one_high - one_low, rel=0.1)
    doubled, ends = bootstrap_fits(lambda c, f: c @ values, 4, 100, 50, rng, then=lambda value: np.abs(2 * value))
    assert doubled == pytest.approx(abs(2 * values.sum())) and ends[0] >= 0
    with pytest.raises(ValueError, match="n_fits is 1"):
        bootstrap_fits(lambda c, f: 0.0, 1, 3, 5, rng)


@pytest.mark.parametrize("level", [95, 1.0, 0.0, math.nan])
def test_a_level_is_a_share(level, rng):
    with pytest.raises(ValueError, match="level is"):
        paired_bootstrap(lambda counts: counts[0], 3, 5, rng, level)
    with pytest.raises(ValueError, match="level is"):
        wilson_interval(1, 2, level)


def test_counts_that_are_none_raise(rng):
    for n_rows, n_resamples in ((0, 5), (5, 0)):
        with pytest.raises(ValueError, match=f"n_rows is {n_rows} and n_resamples is {n_resamples}"):
            paired_bootstrap(lambda counts: 0.0, n_rows, n_resamples, rng)
    for n_happened, n_rows in ((3, 2), (-1, 2), (0, 0), (math.nan, 2)):
        with pytest.raises(ValueError, match="n_happened is"):
            wilson_interval(n_happened, n_rows)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_is_scipys(counts, level):
    expected = binomtest(*counts).proportion_ci(level, method="wilson")
    np.testing.assert_allclose(wilson_interval(*counts, level), expected, rtol=1e-9, atol=1e-12)


def test_wilson_takes_arrays_and_half_counts():
    low, high = wilson_interval(np.array([0.0, 0.5, 4.0]), np.array([4.0, 4.0, 4.0]))
    assert low[0] == 0 and high[2] == 1 and (np.diff(low) > 0).all() and (np.diff(high) > 0).all()
