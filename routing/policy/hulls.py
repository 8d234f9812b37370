"""The upgrades from each prompt's cheapest model to its best, in the order of what a dollar buys.

The models that are best at some trade-off of quality against price are the corners of the upper hull of a prompt's
points (price, quality). All prompts start at their cheapest model; going from corner to corner is an upgrade. Of all
upgrades of all prompts those that buy most quality per dollar come first. However far one goes, at a trade-off, a
budget or a quality, the upgrades bought are the first so many of this one order, which is the cost-quality frontier.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

BLOCK_ROWS = 4096
ROUNDING = 1e-12  # relative; of a sum over prompts


@dataclass(frozen=True)
class Upgrades:
    """The upgrades from cheapest to best, over all prompts, in the order of what a dollar buys.

    Attributes
    ----------
    models : tuple of str
        In alphabetical order; the other arrays count in it.
    start : int array, shape (n_prompts,)
        The cheapest model of each prompt.
    row : int array, shape (n_upgrades,)
        The prompt that is upgraded.
    before, after : int array, shape (n_upgrades,)
        The model it leaves and the model it goes to.
    quality_per_usd : float array, shape (n_upgrades,)
        Expected quality gained per dollar, never increasing. Equal ones stand in the order of the prompts.
    """

    models: tuple[str, ...]
    start: np.ndarray
    row: np.ndarray
    before: np.ndarray
    after: np.ndarray
    quality_per_usd: np.ndarray

    def choice(self, n_upgrades: int) -> np.ndarray:
        """Model of each prompt once the first `n_upgrades` are bought: int array, shape (n_prompts,)."""
        chosen = self.start.copy()
        chosen[self.row[:n_upgrades]] = self.after[:n_upgrades]  # of a prompt that occurs twice the last one holds
        return chosen

    def within(self, price: np.ndarray, budget_usd: float) -> int:
        """How many upgrades a mean of `budget_usd` a call buys, in their order; `price` as in `differences`.

        Raises
        ------
        ValueError
            A budget below the price of the cheapest models.
        """
        prompts = np.arange(len(self.start))
        spent = math.fsum(np.broadcast_to(price, (len(prompts), len(self.models)))[prompts, self.start]) / len(prompts)
        limit = budget_usd * (1 + ROUNDING)
        if not spent <= limit:
            raise ValueError(f"the budget is {budget_usd:.6g} dollars a call; the cheapest models cost {spent:.6g}")
        costs = self.differences(price).cumsum() / len(prompts)
        return int(np.searchsorted(costs, limit - spent, side="right"))

    def differences(self, table: np.ndarray) -> np.ndarray:
        """What each upgrade adds of `table`, shape (n_prompts, n_models) or (n_models,): (n_upgrades,)."""
        table = np.broadcast_to(table, (len(self.start), len(self.models)))
        return table[self.row, self.after] - table[self.row, self.before]


def walk_hulls(models: tuple[str, ...], expected: np.ndarray, price: np.ndarray) -> Upgrades:
    """All upgrades worth buying.

    Parameters
    ----------
    models : tuple of str
        In alphabetical order.
    expected : float array, shape (n_prompts, n_models)
        Expected quality, finite.
    price : float array, shape (n_models,) or (n_prompts, n_models)
        Dollars a call, finite.
    """
    parts = []
    for block in row_blocks(len(expected)):
        start, row, before, after, slope = _climb(expected[block], price if price.ndim == 1 else price[block])
        parts.append((start, row + block.start, before, after, slope))
    start, row, before, after, slope = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(-slope, kind="stable")  # stable: upgrades of one prompt stay in their order
    return Upgrades(models, start, row[order], before[order], after[order], slope[order])


def _climb(expected: np.ndarray, price: np.ndarray) -> tuple[np.ndarray, ...]:
    """The upper hulls of a block of prompts from its cheapest to its best models, as the arrays of `Upgrades`.

    The monotone chain: models come in the order of their price, and each removes the corners that it leaves below the
    line to itself. A model no better than the last corner is passed over, which leaves few steps to most models.
    """
    n_prompts, n_models = expected.shape
    order = np.argsort(np.broadcast_to(price, (n_prompts, n_models)) if price.ndim == 2 else price[None], kind="stable")
    cost = np.ascontiguousarray(np.take_along_axis(np.atleast_2d(price), order, axis=1).T)  # (M, n) or (M, 1)
    cost = np.broadcast_to(cost, (n_models, n_prompts))
    order = np.broadcast_to(order, (n_prompts, n_models))
    quality = np.ascontiguousarray(np.take_along_axis(expected, order, axis=1).T)  # (M, n)
    corner = np.zeros((n_models, n_prompts), dtype=np.int64)  # positions in `order`, a stack a prompt
    slope = np.full((n_models, n_prompts), np.inf)  # towards each corner
    height = np.zeros(n_prompts, dtype=np.int64)  # of the stack, less 1
    best = quality[0].copy()
    for position in range(1, n_models):
        rising = np.flatnonzero(quality[position] > best)
        best[rising] = quality[position, rising]
        towards = np.full(len(rising), np.inf)
        open_ = np.arange(len(rising))
        while len(open_):
            rows = rising[open_]
            last = corner[height[rows], rows]
            extra = cost[position, rows] - cost[last, rows]
            with np.errstate(divide="ignore"):
                steepness = (quality[position, rows] - quality[last, rows]) / extra  # infinite at equal price
            above = (steepness > slope[height[rows], rows]) | (extra == 0)
            towards[open_[~above]] = steepness[~above]
            height[rows[above]] -= 1
            open_ = open_[above & (height[rows] >= 0)]
        height[rising] += 1
        corner[height[rising], rising] = position
        slope[height[rising], rising] = np.where(height[rising] == 0, np.inf, towards)
    row, step = np.nonzero(np.arange(1, n_models) <= height[:, None])
    everyone = np.arange(n_prompts)
    start = order[everyone, corner[0]]
    return start, row, order[row, corner[step, row]], order[row, corner[step + 1, row]], slope[step + 1, row]


def row_blocks(n_rows: int) -> Iterator[slice]:
    """Slices over prompts that are worked on at once: what a block needs stays in the processor's cache."""
    return (slice(begin, min(begin + BLOCK_ROWS, n_rows)) for begin in range(0, n_rows, BLOCK_ROWS))
