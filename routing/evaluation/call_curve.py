"""Evaluate routers between two models: call-performance curves, the gap they recover, and intervals [RouteLLM24].

r(s) is the mean quality when the share s of prompts, those of highest score, goes to the strong model. Of it come the
performance gap recovered, PGR(s) = (r(s) - r(0)) / (r(1) - r(0)); APGR, the area under it, 0.5 in expectation for a
random order; and the call-performance threshold CPT(x), the smallest s with PGR(s) >= x. Over prompts of equal score
the curve is a straight line, the expected quality of a random cut, so the order of rows changes nothing, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd

from routing.evaluation.resampling import check_level, draw_training, paired_bootstrap

TENTHS = np.linspace(0.0, 1.0, 11)


@dataclass(frozen=True)
class CallCurve:
    """Mean quality against the share of prompts that go to the strong model: a piecewise linear curve."""

    strong_share: np.ndarray  # (n_blocks + 1,), at the ends of the blocks of equal score, from 0.0 to 1.0
    quality: np.ndarray  # (n_blocks + 1,), mean there, in the unit of the benchmark

    def __post_init__(self) -> None:
        self.strong_share.setflags(write=False)
        self.quality.setflags(write=False)

    @property
    def quality_weak(self) -> float:
        """Mean quality of the weak model alone."""
        return float(self.quality[0])

    @property
    def quality_strong(self) -> float:
        """Mean quality of the strong model alone."""
        return float(self.quality[-1])

    @cached_property
    def recovered(self) -> np.ndarray:
        """PGR at each `strong_share`, (n_blocks + 1,), from 0.0 to 1.0; without a gap to recover a ValueError."""
        gap = self.quality_strong - self.quality_weak
        if gap <= 0:
            raise ValueError(
                f"the strong model's mean quality, {self.quality_strong:.6g}, is not above the weak model's,"
                f" {self.quality_weak:.6g}, so there is no gap to recover; are the two models swapped?"
            )
        return (self.quality - self.quality_weak) / gap

    def pgr(self, share: float | np.ndarray) -> np.ndarray:
        """Return the performance gap recovered where `share` of the prompts, in [0, 1], go to the strong model."""
        share = np.asarray(share, dtype=float)
        if not ((share >= 0) & (share <= 1)).all():
            raise ValueError(f"share is {share}; a share of prompts lies in [0, 1]")
        return np.interp(share, self.strong_share, self.recovered)

    def apgr(self, rule: Literal["exact", "trapezoid", "mean_of_ten"] = "exact") -> float:
        """Return the average performance gap recovered: the area under PGR over the share.

        "trapezoid" takes the 11 shares 0, 0.1, ..., 1, as the paper's tables do (RouteLLM's code cuts at deciles of the
        score instead, which do not exist where scores are equal); "mean_of_ten" the mean over 0.1, ..., 1, as the paper
        words it, which gives a random order 0.55.
        """
        if rule == "exact":
            return float(np.trapezoid(self.recovered, self.strong_share))
        if rule == "trapezoid":
            return float(np.trapezoid(self.pgr(TENTHS), TENTHS))
        if rule == "mean_of_ten":
            return float(self.pgr(TENTHS[1:]).mean())
        raise ValueError(f"unknown APGR rule {rule!r}; use exact, trapezoid or mean_of_ten")

    def cpt(self, level: float, rule: Literal["smallest", "routellm"] = "smallest") -> float:
        """Return the call-performance threshold: the smallest strong share, in [0, 1], whose PGR reaches `level`.

        Rule "routellm", to compare with the paper's tables, is what its code computes: ``np.interp`` over the qualities
        at the 11 shares 0, 0.1, ..., 1, which is wrong where they do not increase.
        """
        if not 0 <= level <= 1:
            raise ValueError(f"level is {level}; a share of the gap lies in [0, 1]")
        if rule == "routellm":
            return float(np.interp(level, self.pgr(TENTHS), TENTHS))
        if rule != "smallest":
            raise ValueError(f"unknown CPT rule {rule!r}; use smallest or routellm")
        return first_reaching(self.strong_share, self.recovered, level)


METRICS: Mapping[str, Callable[[CallCurve], float]] = {
    "apgr": CallCurve.apgr,
    "apgr_trapezoid": lambda curve: curve.apgr("trapezoid"),
    "cpt50": lambda curve: curve.cpt(0.5),
    "cpt80": lambda curve: curve.cpt(0.8),
}


def _tracer(score: np.ndarray, strong: np.ndarray, weak: np.ndarray) -> Callable[..., CallCurve]:
    """Return a function from how often each prompt occurs, (n_prompts,), and both mean qualities to the curve."""
    # Within a block the qualities give the order, so that sums of floats cannot depend on the order of rows.
    order = np.lexsort((weak, strong, -score))
    ranked, gain = score[order], (strong - weak)[order]
    block_ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(score) - 1)

    def trace(weights: np.ndarray, weak_mean: float, strong_mean: float) -> CallCurve:
        counts = weights[order]
        n_sent = counts.cumsum()[block_ends]
        quality = weak_mean + (counts * gain).cumsum()[block_ends] / n_sent[-1]
        quality[-1] = strong_mean  # the same, without the rounding of the sum
        return CallCurve(np.append(0.0, n_sent / n_sent[-1]), np.append(weak_mean, quality))

    return trace


def first_reaching(x: np.ndarray, y: np.ndarray, level: float) -> float:
    """Return the smallest x at which a piecewise linear curve reaches `level`; infinite if it never does."""
    if not (y >= level).any():
        return math.inf
    first = int(np.argmax(y >= level))
    if first == 0:
        return float(x[0])
    return float(x[first - 1] + (x[first] - x[first - 1]) * ((level - y[first - 1]) / (y[first] - y[first - 1])))


def refuse_rows(at_fault: np.ndarray, name: str, values: np.ndarray, reason: str) -> None:
    """Raise ValueError with the first row at fault, if there is one."""
    if at_fault.any():
        row = int(np.argmax(at_fault))
        raise ValueError(f"{name}, row {row}: {values[row]} {reason}")


def check_columns(**columns: np.ndarray) -> list[np.ndarray]:
    """Return arrays of floats, shape (n_rows,) each, checked to be finite and of one length."""
    arrays = {name: np.asarray(values, dtype=float) for name, values in columns.items()}
    shape = next(iter(arrays.values())).shape
    for name, values in arrays.items():
        if values.shape != shape or len(shape) != 1 or shape == (0,):
            shapes = ", ".join(f"{name} {values.shape}" for name, values in arrays.items())
            raise ValueError(f"expected arrays of one shape (n_rows,), with at least one row, not {shapes}")
        refuse_rows(~np.isfinite(values), name, values, "is not a finite number")
    return list(arrays.values())


def call_curve(p_strong: np.ndarray, quality_strong: np.ndarray, quality_weak: np.ndarray) -> CallCurve:
    """Return the call-performance curve of a router; all arrays have shape (n_prompts,).

    `p_strong` is P(strong wins | prompt), or any score that grows with it; the qualities of the two models' answers are
    0 or 1, a judge's grade, or any other number. ValueError names the row of a value that is not finite.
    """
    score, strong, weak = check_columns(p_strong=p_strong, quality_strong=quality_strong, quality_weak=quality_weak)
    n = len(score)
    # fsum is exact, so the order of rows changes nothing.
    return _tracer(score, strong, weak)(np.ones(n, dtype=np.int64), math.fsum(weak) / n, math.fsum(strong) / n)


def oracle_scores(quality_strong: np.ndarray, quality_weak: np.ndarray) -> np.ndarray:
    """Return the best possible scores, (n_prompts,): what the strong model gains on each prompt."""
    strong, weak = check_columns(quality_strong=quality_strong, quality_weak=quality_weak)
    return strong - weak


def random_apgr_range(
    quality_strong: np.ndarray,
    quality_weak: np.ndarray,
    n_routers: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the central range that holds `level` of the APGRs of `n_routers` random routers.

    Each draws its scores once. A router inside the range cannot be told from a random one.
    """
    check_level(level)
    gain = np.sort(oracle_scores(quality_strong, quality_weak))
    gap = math.fsum(gain)
    if gap <= 0:
        raise ValueError(f"the strong model gains {gap / len(gain):.6g} a prompt: there is no gap to recover")
    # The area is linear in the gains: the prompt at position j (from 0) lifts the curve over n - j - 1/2 prompts.
    lifted_share = (len(gain) - 0.5 - np.arange(len(gain))) / len(gain)
    apgr = np.array([rng.permutation(gain) @ lifted_share for _ in range(n_routers)]) / gap
    low, high = np.quantile(apgr, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_metrics(
    scores: Mapping[str, np.ndarray],
    quality_strong: np.ndarray,
    quality_weak: np.ndarray,
    n_resamples: int,
    rng: np.random.Generator,
    level: float = 0.95,
    reference: str | None = None,
    metrics: Mapping[str, Callable[[CallCurve], float]] = METRICS,
    refits: Sequence[Mapping[str, np.ndarray]] = (),
) -> pd.DataFrame:
    """Return metrics of each router with paired percentile intervals over prompts (see `paired_bootstrap`).

    With `refits`, at least 2, they cover training too: each holds the scores of routers trained once more, on resampled
    battles with another seed; a resample adds a normal deviation with the covariance between refits. A router that they
    lack counts as trained alike each time.

    `scores` holds each router's `p_strong` as in `call_curve`; constant scores give the expectation of random routing.
    Resamples in which the strong model is no better than the weak one have no PGR: they are left out and counted in
    `n_excluded`. Where they are more than a few, the benchmark is too small for this pair.

    One row per router and metric: router, metric, estimate, low, high, n_excluded; with a `reference`, one of the
    routers, also difference, difference_low, difference_high (router minus reference).
    """
    if not scores:
        raise ValueError("scores holds no router")
    if reference is not None and reference not in scores:
        raise ValueError(f"reference {reference!r} is none of the routers {', '.join(scores)}")
    if len(refits) == 1:
        raise ValueError("refits holds one training; how trainings differ shows from 2 on")
    named_scores = {f"scores of {name}": score for name, score in scores.items()}
    strong, weak, *columns = check_columns(quality_strong=quality_strong, quality_weak=quality_weak, **named_scores)
    curves = [call_curve(score, strong, weak) for score in columns]
    estimates = np.array([[metric(curve) for metric in metrics.values()] for curve in curves])
    trained = np.array([estimates] * len(refits))
    for number, (place, name) in product(range(len(refits)), enumerate(scores)):
        if name in refits[number]:
            curve = call_curve(refits[number][name], strong, weak)
            trained[number, place] = [metric(curve) for metric in metrics.values()]

    # Resamples are drawn on rows in one order, whatever order they came in.
    by_name = [columns[router] for router in np.argsort(list(scores))]
    rows = np.lexsort((*by_name, weak, strong))
    strong, weak, n_prompts = strong[rows], weak[rows], len(rows)
    tracers = [_tracer(score[rows], strong, weak) for score in columns]
    base = list(scores).index(reference) if reference is not None else 0

    def measure(weights: np.ndarray) -> np.ndarray | None:
        weak_mean, strong_mean = (weights * weak).sum() / n_prompts, (weights * strong).sum() / n_prompts
        if not strong_mean > weak_mean:
            return None
        curves = [trace(weights, weak_mean, strong_mean) for trace in tracers]
        values = np.array([[metric(curve) for metric in metrics.values()] for curve in curves])
        values = values + draw_training(trained, rng) if refits else values
        return np.stack([values, values - values[base]])

    low, high, n_excluded = paired_bootstrap(measure, n_prompts, n_resamples, rng, level)
    names = pd.MultiIndex.from_product([list(scores), list(metrics)], names=["router", "metric"])
    table = {"estimate": estimates, "low": low[0], "high": high[0], "n_excluded": np.full(estimates.shape, n_excluded)}
    if reference is not None:
        table |= {"difference": estimates - estimates[base], "difference_low": low[1], "difference_high": high[1]}
    return pd.DataFrame({name: values.ravel() for name, values in table.items()}, index=names).reset_index()
