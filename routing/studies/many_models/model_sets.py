"""A growing set of models, and a growing budget: what each model adds to the frontier, and which gets the calls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from routing.evaluation.frontier import cost_quality_frontier
from routing.policy.budget import MultiModelPolicy, Prices


def growing_frontiers(
    order: Sequence[str],
    expected: pd.DataFrame,
    quality: pd.DataFrame,
    cost_usd: pd.DataFrame,
    prices: pd.Series,
    n_resamples: int,
    rng: np.random.Generator,
    n_points: int = 200,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frontiers of the first 2, 3, ... models, and their mean quality over the budgets.

    Parameters
    ----------
    order : sequence of str
        The models in the order in which one has them, as `routing.evaluation.frontier.order_models` gives it.
    expected, quality, cost_usd, prices : as in `routing.evaluation.frontier.cost_quality_frontier`
    n_resamples : int
        Of the prompts, the same for every number of models.
    n_points : int
        Costs at which each frontier is given, in equal ratios.

    Returns
    -------
    lines : DataFrame
        models (how many), usd_per_1000_calls, quality.
    areas : DataFrame
        models, added (the name of the last one), aiq over the costs of all single models, low, high (95 %).

    Raises
    ------
    ValueError
        As `cost_quality_frontier`.
    """
    span = cost_usd.mean().min(), cost_usd.mean().max()
    rows = [np.arange(len(quality)), *rng.integers(len(quality), size=(n_resamples, len(quality)))]
    lines, areas = [], []
    for count in range(2, len(order) + 1):
        tables = [table[sorted(order[:count])] for table in (expected, quality, cost_usd)]
        frontiers = [cost_quality_frontier(*(table.iloc[drawn] for table in tables), prices) for drawn in rows]
        cost = np.geomspace(frontiers[0].cost_usd.min(), frontiers[0].cost_usd.max(), n_points)
        at = frontiers[0].quality_at(cost)
        lines.append(pd.DataFrame({"models": count, "usd_per_1000_calls": 1000 * cost, "quality": at}))
        aiq = [frontier.aiq(*span) for frontier in frontiers]
        areas.append((count, order[count - 1], aiq[0], *np.quantile(aiq[1:], [0.025, 0.975])))
    columns = ["models", "added", "aiq", "low", "high"]
    return pd.concat(lines, ignore_index=True), pd.DataFrame(areas, columns=columns)


def calls_by_budget(expected: pd.DataFrame, prices: Prices, n_budgets: int = 200) -> pd.DataFrame:
    """Share of the prompts that goes to each model at budgets from that of the cheapest models to that of the best.

    Parameters
    ----------
    expected : DataFrame, shape (n_prompts, n_models)
    prices : as in `MultiModelPolicy`

    Returns
    -------
    DataFrame, shape (n_budgets, n_models)
        Indexed by usd_per_1000_calls, in equal ratios; models from the cheapest to the dearest; rows sum to 1.

    Raises
    ------
    ValueError
        As `MultiModelPolicy`; cheapest models that cost nothing, as ratios of nothing are not budgets.
    """
    policy = MultiModelPolicy(prices)
    models, values, price = policy.align(expected)
    table = np.broadcast_to(price, values.shape)
    upgrades = policy.upgrades(expected)
    first, last = (table[np.arange(len(table)), upgrades.choice(n)].mean() for n in (0, len(upgrades.row)))
    if not first > 0:
        raise ValueError("the cheapest models cost nothing; budgets in equal ratios need a price above 0")
    budgets = np.geomspace(first, last, n_budgets).clip(first)
    chosen = [upgrades.choice(upgrades.within(price, budget)) for budget in budgets]
    shares = [np.bincount(choice, minlength=len(models)) / len(table) for choice in chosen]
    by_price = np.lexsort((models, table.mean(axis=0)))
    index = pd.Index(1000 * budgets, name="usd_per_1000_calls")
    return pd.DataFrame(np.array(shares)[:, by_price], index, [models[column] for column in by_price])
