"""Intervals: a paired bootstrap over prompts, battles or models, also over trainings, and Wilson's of a share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import ndtri


def check_level(level: float) -> None:
    """Raise a ValueError unless 0 < level < 1."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; give it as a share between 0 and 1, such as 0.95")


def paired_bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray | None],
    n_rows: int,
    n_resamples: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Resample rows, or groups of rows, with replacement; return percentile intervals of all that `statistic` gives.

    Returns low, high and the number of resamples in which the statistic is not defined. All numbers of one call see the
    same resamples: compute every router and their differences in one `statistic`, since the interval of a difference is
    then paired, and much narrower than the two routers' intervals suggest.

    `statistic` is given how often each row is drawn, (n_rows,) int, and returns a float array of fixed shape, or None
    where it is not defined; if that is so in every resample, a ValueError says it.
    Where values are infinite, the interval ends at values that occurred.
    """
    check_level(level)
    if n_rows < 1 or n_resamples < 1:
        raise ValueError(f"n_rows is {n_rows} and n_resamples is {n_resamples}; both are at least 1")
    draws = []
    for _ in range(n_resamples):
        value = statistic(np.bincount(rng.integers(n_rows, size=n_rows), minlength=n_rows))
        if value is not None:
            draws.append(np.asarray(value, dtype=float))
    if not draws:
        raise ValueError(
            f"the statistic is defined in none of {n_resamples} resamples; if it needs the strong model to be better"
            " than the weak one, use more prompts"
        )
    tails = [(1 - level) / 2, (1 + level) / 2]
    with np.errstate(invalid="ignore"):  # infinity minus infinity, replaced below
        ends = np.quantile(draws, tails, axis=0)
    occurred = np.quantile(draws, tails, axis=0, method="inverted_cdf")
    low, high = np.where(np.isfinite(draws).all(axis=0), ends, occurred)
    return low, high, n_resamples - len(draws)


def draw_training(fits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a normal deviation with the covariance between `fits`, (n_fits, ...), of which there are at least 2."""
    return np.tensordot(rng.standard_normal(len(fits)), fits - fits.mean(axis=0), axes=1) / np.sqrt(len(fits) - 1)


def bootstrap_fits(
    statistic: Callable[[np.ndarray, int], np.ndarray | None],
    n_fits: int,
    n_rows: int,
    n_resamples: int,
    rng: np.random.Generator,
    level: float = 0.95,
    then: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, int]]:
    """Return a statistic's mean over fits, and its interval (as `paired_bootstrap`) for one training on new rows.

    A resample draws rows as `paired_bootstrap`, for one of the fits, and adds a normal deviation with the variance
    between fits. So the interval covers both the prompts a router is tested on and its training, as far as the fits
    differ in what it is to cover: the seed, or the battles learned from. Compute what is compared in one `statistic`.

    `statistic` is given how often each row is drawn and the number of a fit, of which there are at least 2, else a
    ValueError; it returns a finite float array of fixed shape, or None where it is not defined in a resample. `then` is
    computed from the statistic, of its mean and in each resample, such as a curve fitted to it.
    """
    if n_fits < 2:
        raise ValueError(f"n_fits is {n_fits}; how fits differ shows from 2 on")
    every = np.array([statistic(np.ones(n_rows, dtype=int), fit) for fit in range(n_fits)], dtype=float)
    mean = every.mean(axis=0)

    def draw(counts: np.ndarray) -> np.ndarray:
        fit = int(rng.integers(n_fits))
        training = draw_training(every, rng)
        value = statistic(counts, fit)
        return None if value is None else then(mean + training + (value - every[fit]))

    return then(mean), paired_bootstrap(draw, n_rows, n_resamples, rng, level)


def wilson_interval(
    n_happened: float | np.ndarray, n_rows: float | np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of Wilson's interval of the share ``n_happened / n_rows``, in [0, 1] [Wilson27].

    A tie may count as half. ValueError unless ``0 <= n_happened <= n_rows > 0`` throughout.
    """
    check_level(level)
    k, n = np.asarray(n_happened, dtype=float), np.asarray(n_rows, dtype=float)
    if not ((k >= 0) & (k <= n) & (n > 0)).all():
        raise ValueError(f"n_happened is {n_happened} of n_rows {n_rows}; it is from 0 to n_rows, which is above 0")
    z = ndtri((1 + level) / 2)
    centre = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)
