"""Evaluate a router over any number of models: mean cost and mean quality of its policy at every trade-off.

AIQ is the mean height of the frontier's non-decreasing convex hull over the costs of the single models; the *zero
router* mixes these at random, so its frontier is the hull of their points [RouterBench24]. APGR is the share recovered
of the gap between the cheapest and the best single model, averaged over the costs between them; for two models at
prices 0 and 1 it is the APGR of `routing.evaluation.call_curve` [RouteLLM24].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from routing.evaluation.call_curve import first_reaching
from routing.evaluation.resampling import paired_bootstrap
from routing.policy.budget import MultiModelPolicy, Prices


@dataclass(frozen=True)
class Frontier:
    """Mean cost and quality of a policy's choices, from every prompt's cheapest model to the best expected one.

    Between two points the policies are mixed at random.
    """

    cost_usd: np.ndarray  # (n_points,)
    quality: np.ndarray  # (n_points,)
    models: tuple[str, ...]  # in alphabetical order
    single_cost_usd: np.ndarray  # (n_models,), each model alone
    single_quality: np.ndarray  # (n_models,)
    best: int  # position in `models` of the best single model, of equal ones the cheaper
    cheapest: int

    @cached_property
    def hull(self) -> tuple[np.ndarray, np.ndarray]:
        """Return cost and quality at the corners of the non-decreasing convex hull."""
        return upper_hull(self.cost_usd, self.quality)

    def quality_at(self, cost_usd: float | np.ndarray) -> np.ndarray:
        """Return the mean quality at this mean cost, constant beyond the frontier's ends."""
        return np.interp(cost_usd, np.maximum.accumulate(self.cost_usd), self.quality)

    def cost_reaching(self, quality: float) -> float:
        """Return the lowest mean cost at which the policy has this mean quality; infinite if it never has."""
        return first_reaching(self.cost_usd, self.quality, quality)

    def aiq(self, low_usd: float | None = None, high_usd: float | None = None) -> float:
        """Return the hull's mean height over these costs (default: those of the single models)."""
        low = self.single_cost_usd.min() if low_usd is None else low_usd
        high = self.single_cost_usd.max() if high_usd is None else high_usd
        return _mean_height(*self.hull, low, high)

    def zero_aiq(self) -> float:
        """Return the AIQ of the zero router."""
        cost = self.single_cost_usd
        return _mean_height(*upper_hull(cost, self.single_quality), cost.min(), cost.max())

    def apgr(self) -> float:
        """Return the share recovered of the gap between cheapest and best single model; NaN where there is none."""
        low, high = self.single_cost_usd[self.cheapest], self.single_cost_usd[self.best]
        worst, best = self.single_quality[self.cheapest], self.single_quality[self.best]
        if not (high > low and best > worst):
            return math.nan
        height = _mean_height(np.maximum.accumulate(self.cost_usd), self.quality, low, high)
        return (height - worst) / (best - worst)

    def cost_share(self) -> float:
        """Return the cost of the best single model's quality as a share of its cost; infinite if not reached."""
        best_cost = self.single_cost_usd[self.best]
        return self.cost_reaching(self.single_quality[self.best]) / best_cost if best_cost > 0 else math.nan


METRICS: Mapping[str, Callable[[Frontier], float]] = {
    "quality": lambda frontier: frontier.quality[-1],
    "cost_share": Frontier.cost_share,
    "aiq": Frontier.aiq,
    "aiq_gain": lambda frontier: frontier.aiq() - frontier.zero_aiq(),
    "apgr": Frontier.apgr,
}


def upper_hull(cost: np.ndarray, quality: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of the lowest non-decreasing concave curve above these points: costs, qualities."""
    order = np.lexsort((-quality, cost))
    cost, quality = cost[order], quality[order]
    record = np.append(True, quality[1:] > np.maximum.accumulate(quality)[:-1])
    corners: list[tuple[float, float]] = []
    for x, y in zip(cost[record].tolist(), quality[record].tolist(), strict=True):
        while len(corners) > 1:
            (x1, y1), (x2, y2) = corners[-2:]
            if (y2 - y1) * (x - x2) > (y - y2) * (x2 - x1):
                break
            corners.pop()
        corners.append((x, y))
    return tuple(np.array(corners).T)


def _mean_height(cost: np.ndarray, quality: np.ndarray, low: float, high: float) -> float:
    """Return the mean from cost `low` to `high` of a piecewise linear curve that is constant beyond its ends."""
    if not high > low:
        return math.nan
    inside = (cost > low) & (cost < high)
    first, last = np.interp([low, high], cost, quality)
    heights, places = np.concatenate([[first], quality[inside], [last]]), np.concatenate([[low], cost[inside], [high]])
    return float(np.trapezoid(heights, places) / (high - low))


def _tracer(
    expected: pd.DataFrame, quality: pd.DataFrame, cost_usd: Prices, prices: Prices | None
) -> Callable[[np.ndarray], Frontier]:
    """Return a function from how often each prompt occurs, (n_prompts,), to the frontier of these prompts."""
    upgrades = MultiModelPolicy(cost_usd if prices is None else prices).upgrades(expected)
    unscored = [name for name in upgrades.models if name not in quality.columns]
    if unscored or len(quality) != len(expected):
        missing = f"no quality of {', '.join(unscored)}" if unscored else f"{len(quality)} rows of quality"
        raise ValueError(f"{missing} for expected quality of {expected.shape[1]} models on {len(expected)} prompts")
    _, true, cost = MultiModelPolicy(cost_usd).align(quality[list(upgrades.models)])
    cost = np.broadcast_to(cost, true.shape)
    slopes = upgrades.quality_per_usd
    ends = np.flatnonzero(np.append(slopes[1:] != slopes[:-1], True)[: len(slopes)])  # of each block of equal ones
    steps = [(table, upgrades.differences(table)) for table in (cost, true)]
    mean_cost, mean_quality = cost.mean(axis=0), true.mean(axis=0)
    best = int(np.lexsort((mean_cost, -mean_quality))[0])
    cheapest = int(np.lexsort((-mean_quality, mean_cost))[0])

    def trace(weights: np.ndarray) -> Frontier:
        total, counts = weights.sum(), weights[upgrades.row]
        points = []
        for table, extra in steps:
            first = (weights * table[np.arange(len(weights)), upgrades.start]).sum() / total
            points.append(np.append(first, first + (counts * extra).cumsum()[ends] / total))
        singles = weights @ cost / total, weights @ true / total
        return Frontier(*points, upgrades.models, *singles, best, cheapest)

    return trace


def cost_quality_frontier(
    expected: pd.DataFrame, quality: pd.DataFrame, cost_usd: Prices, prices: Prices | None = None
) -> Frontier:
    """Return the frontier of a router that expects qualities and knows prices.

    `expected` and `quality`, (n_prompts, n_models), are what the router expects of each model and the truth; a router
    that expects the truth is the oracle. `cost_usd`, a Series by model or a table like those, is what a call costs,
    `prices` (by default the same) what the policy takes it to cost beforehand. ValueError: as `MultiModelPolicy`, a
    model without a true quality, or tables of different length.
    """
    return _tracer(expected, quality, cost_usd, prices)(np.ones(len(quality)))


def bootstrap_frontier(
    expected: Mapping[str, pd.DataFrame],
    quality: pd.DataFrame,
    cost_usd: Prices,
    n_resamples: int,
    rng: np.random.Generator,
    prices: Prices | None = None,
    level: float = 0.95,
    n_budgets: int = 50,
    metrics: Mapping[str, Callable[[Frontier], float]] = METRICS,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return frontiers of several routers, each as in `cost_quality_frontier`, with intervals of `paired_bootstrap`.

    The first table has bands at `n_budgets` evenly spaced mean costs of each: router, cost_usd, quality, low, high. The
    second has the metrics: router, metric, estimate, low, high. The best and the cheapest single model are those of all
    prompts in every resample.
    """
    tracers = {name: _tracer(table, quality, cost_usd, prices) for name, table in expected.items()}
    whole = [trace(np.ones(len(quality))) for trace in tracers.values()]
    budgets = [np.linspace(line.cost_usd.min(), line.cost_usd.max(), n_budgets) for line in whole]

    def measure(frontiers: list[Frontier]) -> np.ndarray:
        numbers = [[metric(line) for metric in metrics.values()] for line in frontiers]
        heights = [line.quality_at(at) for line, at in zip(frontiers, budgets, strict=True)]
        return np.hstack([numbers, heights])  # (n_routers, n_metrics + n_budgets)

    def measure_resample(counts: np.ndarray) -> np.ndarray:
        return measure([trace(counts) for trace in tracers.values()])

    low, high, _ = paired_bootstrap(measure_resample, len(quality), n_resamples, rng, level)
    bands, numbers = [], []
    for name, cost, *values in zip(expected, budgets, measure(whole), low, high, strict=True):
        of, at = np.split(np.transpose(values), [len(metrics)])
        bands.append(pd.DataFrame(at, columns=["quality", "low", "high"]).assign(router=name, cost_usd=cost))
        numbers.append(pd.DataFrame(of, columns=["estimate", "low", "high"]).assign(router=name, metric=list(metrics)))
    return (
        pd.concat(bands, ignore_index=True)[["router", "cost_usd", "quality", "low", "high"]],
        pd.concat(numbers, ignore_index=True)[["router", "metric", "estimate", "low", "high"]],
    )
