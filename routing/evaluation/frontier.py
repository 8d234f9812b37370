"""The cost-quality frontier of a router over any number of models, what it recovers, and how sure we are.

A policy at trade-off lambda has a mean cost and a mean quality; over all lambda these are the points of the frontier
(`routing.policy.hulls` has them in order). It is compared with

- the single models, and the *zero router*, which mixes them at random: the hull of their points [RouterBench24];
- the oracle, which knows the quality of every answer.

AIQ is the mean height of the frontier's non-decreasing convex hull over the costs of the single models
[RouterBench24]. APGR is that of the share recovered of the gap between the cheapest and the best single model, over the
costs between them; with two models at prices 0 and 1 it is the APGR of `routing.evaluation.call_curve` [RouteLLM24].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from routing.policy.budget import MultiModelPolicy, Prices

METRICS = ("quality", "gain", "oracle_share", "cost_share", "aiq", "aiq_gain", "apgr")


@dataclass(frozen=True)
class Frontier:
    """Mean cost and mean quality of a policy at every trade-off, and of what it is compared with.

    Attributes
    ----------
    cost_usd, quality : float array, shape (n_points,)
        From every prompt's cheapest model to its best one, as the policy expects them; what they really cost and
        score. Between two points the policy of both at random.
    models : tuple of str
        In alphabetical order.
    single_cost_usd, single_quality : float array, shape (n_models,)
        Each model alone.
    oracle_quality : float
        Mean quality of the best answer to each prompt.
    best : int
        The best single model (of equal ones the cheaper), a position in `models`.
    cheapest : int
        The cheapest single model.
    """

    cost_usd: np.ndarray
    quality: np.ndarray
    models: tuple[str, ...]
    single_cost_usd: np.ndarray
    single_quality: np.ndarray
    oracle_quality: float
    best: int
    cheapest: int

    @cached_property
    def hull(self) -> tuple[np.ndarray, np.ndarray]:
        """Cost and quality at the corners of the non-decreasing convex hull."""
        return upper_hull(self.cost_usd, self.quality)

    def quality_at(self, cost_usd: float | np.ndarray) -> np.ndarray:
        """Mean quality where the policy is stopped at this mean cost; at its ends beyond them."""
        return np.interp(cost_usd, np.maximum.accumulate(self.cost_usd), self.quality)

    def cost_reaching(self, quality: float) -> float:
        """The first mean cost at which the policy has this mean quality; infinite if it never has."""
        reached = self.quality >= quality
        if not reached.any():
            return math.inf
        first = int(np.argmax(reached))
        if first == 0:
            return float(self.cost_usd[0])
        part = (quality - self.quality[first - 1]) / (self.quality[first] - self.quality[first - 1])
        return float(self.cost_usd[first - 1] + part * (self.cost_usd[first] - self.cost_usd[first - 1]))

    def aiq(self, low_usd: float | None = None, high_usd: float | None = None) -> float:
        """Average improvement in quality: the hull's mean height over these costs (default: of the single models)."""
        return _mean_height(*self.hull, *self._span(low_usd, high_usd))

    def zero_aiq(self, low_usd: float | None = None, high_usd: float | None = None) -> float:
        """AIQ of the zero router."""
        return _mean_height(*upper_hull(self.single_cost_usd, self.single_quality), *self._span(low_usd, high_usd))

    def _span(self, low_usd: float | None, high_usd: float | None) -> tuple[float, float]:
        low = self.single_cost_usd.min() if low_usd is None else low_usd
        return low, self.single_cost_usd.max() if high_usd is None else high_usd

    def apgr(self) -> float:
        """Share of the gap between cheapest and best single model that is recovered, averaged over the costs between.

        Not a number where the cheapest model is the best or as dear.
        """
        low, high = self.single_cost_usd[self.cheapest], self.single_cost_usd[self.best]
        worst, best = self.single_quality[self.cheapest], self.single_quality[self.best]
        if not (high > low and best > worst):
            return math.nan
        height = _mean_height(np.maximum.accumulate(self.cost_usd), self.quality, low, high)
        return (height - worst) / (best - worst)

    def metrics(self) -> dict[str, float]:
        """The frontier in seven numbers.

        ``quality`` at any price; ``gain`` over the best single model; ``oracle_share``, the gain as a share of the
        oracle's; ``cost_share``, the cost of the best single model's quality as a share of its cost (infinite if not
        reached); ``aiq``; ``aiq_gain`` over the zero router; ``apgr``.
        """
        best_quality, best_cost = self.single_quality[self.best], self.single_cost_usd[self.best]
        gain, room = self.quality[-1] - best_quality, self.oracle_quality - best_quality
        aiq = self.aiq()
        values = (
            self.quality[-1],
            gain,
            gain / room if room > 0 else math.nan,
            self.cost_reaching(best_quality) / best_cost if best_cost > 0 else math.nan,
            aiq,
            aiq - self.zero_aiq(),
            self.apgr(),
        )
        return dict(zip(METRICS, map(float, values), strict=True))


def upper_hull(cost: np.ndarray, quality: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the least non-decreasing concave curve above these points: costs and qualities, both increasing."""
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
    """Mean of a piecewise linear curve, constant beyond its ends, from cost `low` to `high`."""
    if not high > low:
        return math.nan
    inside = cost[(cost > low) & (cost < high)]
    grid = np.concatenate([[low], inside, [high]])
    height = np.concatenate(
        [[np.interp(low, cost, quality)], quality[(cost > low) & (cost < high)], [np.interp(high, cost, quality)]]
    )
    return float(np.trapezoid(height, grid) / (high - low))


@dataclass(frozen=True, eq=False)
class _Walk:
    """A router's upgrades with what they really cost and give; traced again for every resample."""

    models: tuple[str, ...]
    quality: np.ndarray  # (n_prompts, n_models)
    cost: np.ndarray  # (n_prompts, n_models)
    start: np.ndarray  # (n_prompts,)
    row: np.ndarray  # (n_upgrades,)
    gain: np.ndarray  # (n_upgrades,)
    extra: np.ndarray  # (n_upgrades,)
    ends: np.ndarray  # last upgrade of each block of equal ones
    best: int
    cheapest: int

    def trace(self, weights: np.ndarray) -> Frontier:
        """The frontier in which prompt i stands ``weights[i]`` times."""
        total, prompts = weights.sum(), np.arange(len(weights))
        counts = weights[self.row]
        points = []
        for table, steps in ((self.cost, self.extra), (self.quality, self.gain)):
            first = (weights * table[prompts, self.start]).sum() / total
            points.append(np.append(first, first + (counts * steps).cumsum()[self.ends] / total))
        return Frontier(
            *points,
            self.models,
            weights @ self.cost / total,
            weights @ self.quality / total,
            float(weights @ self.quality.max(axis=1) / total),
            self.best,
            self.cheapest,
        )


def _walk(expected: pd.DataFrame, quality: pd.DataFrame, cost_usd: Prices, prices: Prices) -> _Walk:
    upgrades = MultiModelPolicy(prices).upgrades(expected)
    names = list(upgrades.models)
    unscored = [name for name in names if name not in quality.columns]
    if unscored or len(quality) != len(expected):
        missing = f"no quality of {', '.join(unscored)}" if unscored else f"{len(quality)} rows of quality"
        raise ValueError(f"{missing} for expected quality of {len(names)} models on {len(expected)} prompts")
    _, true, cost = MultiModelPolicy(cost_usd).align(quality[names])
    cost = np.broadcast_to(cost, true.shape)
    slopes = upgrades.quality_per_usd
    ends = np.flatnonzero(np.append(slopes[1:] != slopes[:-1], True)[: len(slopes)])
    mean_cost, mean_quality = cost.mean(axis=0), true.mean(axis=0)
    return _Walk(
        upgrades.models,
        true,
        cost,
        upgrades.start,
        upgrades.row,
        upgrades.differences(true),
        upgrades.differences(cost),
        ends,
        best=int(np.lexsort((mean_cost, -mean_quality))[0]),
        cheapest=int(np.lexsort((-mean_quality, mean_cost))[0]),
    )


def cost_quality_frontier(
    expected: pd.DataFrame, quality: pd.DataFrame, cost_usd: Prices, prices: Prices | None = None
) -> Frontier:
    """The frontier of a router that expects qualities and knows prices.

    Parameters
    ----------
    expected : DataFrame, shape (n_prompts, n_models)
        Quality that the router expects of each model on each prompt. With `quality` itself it is the oracle.
    quality : DataFrame, shape (n_prompts, n_models)
        The true one.
    cost_usd : Series of a cost a model, or DataFrame, shape (n_prompts, n_models)
        What a call really costs.
    prices : as `cost_usd`, optional
        What the policy takes a call to cost before it is made. Default: `cost_usd`.

    Raises
    ------
    ValueError
        As `MultiModelPolicy`; a model without a true quality, or tables of other length.
    """
    walk = _walk(expected, quality, cost_usd, cost_usd if prices is None else prices)
    return walk.trace(np.ones(len(quality)))


def bootstrap_frontier(
    expected: Mapping[str, pd.DataFrame],
    quality: pd.DataFrame,
    cost_usd: Prices,
    n_resamples: int,
    rng: np.random.Generator,
    prices: Prices | None = None,
    level: float = 0.95,
    n_budgets: int = 50,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Frontiers of several routers with percentile bands, and their metrics with intervals, over resampled prompts.

    Each resample draws prompts with replacement, the same for every router. The best and the cheapest single model
    are those of all prompts throughout. Intervals end at values that occurred (an infinite cost share is one).

    Parameters
    ----------
    expected : mapping of str to DataFrame, shape (n_prompts, n_models)
        Of each router, as in `cost_quality_frontier`, like the other parameters.
    n_budgets : int
        Mean costs at which the bands are given, evenly over each router's frontier.

    Returns
    -------
    bands : DataFrame
        router, cost_usd, quality, low, high.
    metrics : DataFrame
        router, metric (as `Frontier.metrics`), estimate, low, high.

    Raises
    ------
    ValueError
        As `cost_quality_frontier`; fewer than 1 resample.
    """
    if n_resamples < 1:
        raise ValueError(f"n_resamples is {n_resamples}; it is at least 1")
    walks = {
        name: _walk(table, quality, cost_usd, cost_usd if prices is None else prices)
        for name, table in expected.items()
    }
    whole = {name: walk.trace(np.ones(len(quality))) for name, walk in walks.items()}
    budgets = {name: np.linspace(line.cost_usd.min(), line.cost_usd.max(), n_budgets) for name, line in whole.items()}
    heights: dict[str, list] = {name: [] for name in walks}
    numbers: dict[str, list] = {name: [] for name in walks}
    for _ in range(n_resamples):
        weights = np.bincount(rng.integers(len(quality), size=len(quality)), minlength=len(quality)).astype(float)
        for name, walk in walks.items():
            line = walk.trace(weights)
            heights[name].append(line.quality_at(budgets[name]))
            numbers[name].append(list(line.metrics().values()))
    tails = [(1 - level) / 2, (1 + level) / 2]
    bands, metrics = [], []
    for name, line in whole.items():
        low, high = np.quantile(heights[name], tails, axis=0, method="inverted_cdf")
        at = line.quality_at(budgets[name])
        bands.append(pd.DataFrame({"router": name, "cost_usd": budgets[name], "quality": at, "low": low, "high": high}))
        low, high = np.quantile(numbers[name], tails, axis=0, method="inverted_cdf")
        estimate = list(line.metrics().values())
        metrics.append(
            pd.DataFrame({"router": name, "metric": METRICS, "estimate": estimate, "low": low, "high": high})
        )
    return pd.concat(bands, ignore_index=True), pd.concat(metrics, ignore_index=True)


def order_models(
    expected: pd.DataFrame, quality: pd.DataFrame, cost_usd: Prices, n_models: int, prices: Prices | None = None
) -> list[str]:
    """The first `n_models` models to have: the cheapest, the best, then always the one that lifts the AIQ most.

    Of equal ones the first by name. Parameters as in `cost_quality_frontier`; use prompts that nothing is judged on.

    Raises
    ------
    ValueError
        As `cost_quality_frontier`; fewer than 2 models, or more than there are.
    """
    everything = cost_quality_frontier(expected, quality, cost_usd, prices)
    if not 2 <= n_models <= len(everything.models):
        raise ValueError(f"n_models is {n_models}; it is from 2 to {len(everything.models)}")
    span = everything.single_cost_usd.min(), everything.single_cost_usd.max()
    order = list(dict.fromkeys(everything.models[place] for place in (everything.cheapest, everything.best)))
    while len(order) < n_models:
        lifts = {
            name: cost_quality_frontier(expected[[*order, name]], quality, cost_usd, prices).aiq(*span)
            for name in everything.models
            if name not in order
        }
        order.append(max(lifts, key=lifts.__getitem__))  # the first of equal ones, which come by name
    return order
