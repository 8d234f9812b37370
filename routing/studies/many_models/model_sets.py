"""Route among many models: frontiers, what each further model adds, and which model gets the calls at a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from numpy.random import Generator

from routing.evaluation.call_curve import CallCurve
from routing.evaluation.frontier import Frontier, bootstrap_frontier, cost_quality_frontier, upper_hull
from routing.policy.budget import MultiModelPolicy, Prices
from routing.studies.inputs import RoutingTask, title_name
from routing.studies.plotting import ROUTER_STYLES, plot_bars, plot_lines, plot_rows

MIXED = "single models mixed at random"
MAIN = "regression"  # the router that the folds chose
STYLES = {
    **{name: {**style, "marker": ""} for name, style in ROUTER_STYLES.items()},
    MAIN: {"color": "#d55e00", "marker": "", "linestyle": "-", "linewidth": 2.2},
    "k-means": {"color": "#ca9161", "marker": "", "linestyle": (0, (6, 2))},
    "50 nearest": {"color": "#fbafe4", "marker": "", "linestyle": (0, (4, 2, 1, 2))},
    "oracle": {**ROUTER_STYLES["oracle"], "marker": "", "linestyle": ":"},
    MIXED: {"color": "#949494", "marker": "", "linestyle": "--"},
}
RARE_SHARE = 0.01  # models that never get as much are counted together
SHARES = (0.25, 0.5, 1.0)  # of the budgets
STREAM = (5_000, 20_000)  # prompts of the sample, and of the stream after it
RESAMPLES = {"smoke": 20, "quick": 200, "full": 1000}


def short_name(model: str) -> str:
    """Return the name of a model without its organisation."""
    return model.rsplit("/", 1)[-1]


def frontier_tables(
    tasks: Mapping[str, RoutingTask], expected: Mapping[str, Mapping[str, pd.DataFrame]], n_resamples: int,
    rng: Generator, n_budgets: int = 400,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """Return frontiers, their metrics and the single models of tasks, by what routers expect on the test prompts.

    The policy's prices are mean costs on the training prompts; what is paid is what each answer cost. Bands and metrics
    are as from `bootstrap_frontier`, of every router and "oracle", with column task; single models have task, model,
    cost_usd and quality (means over the test prompts).
    """
    parts = []
    for name, tables in expected.items():
        test, prices = tasks[name].test, tasks[name].train.cost_usd.mean()
        routers = {**tables, "oracle": test.quality}
        found = bootstrap_frontier(routers, test.quality, test.cost_usd, n_resamples, rng, prices, n_budgets=n_budgets)
        alone = {"model": test.models, "cost_usd": test.cost_usd.mean(), "quality": test.quality.mean()}
        parts.append([part.assign(task=name) for part in (*found, pd.DataFrame(alone))])
    bands, metrics, singles = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    return bands, metrics, singles


def compare_budgets(
    tasks: Mapping[str, RoutingTask], expected: Mapping[str, pd.DataFrame], shares: Sequence[float] = SHARES
) -> pd.DataFrame:
    """Return what budgets buy on the test prompts, by two ways to keep to them.

    `with_budget` calibrates a policy that then takes prompts one by one; `best_within` assigns the prompts of a batch
    together. Budgets are shares of the way from the cheapest model to always taking the best expected one. The columns
    are task, budget_share, budget_usd, method, expected_usd (at the prices), usd (what the answers cost; all three per
    call), quality (what the answers scored).
    """
    rows = []
    for name, table in expected.items():
        test, prices = tasks[name].test, tasks[name].train.cost_usd.mean()
        policy = MultiModelPolicy(prices)
        for share, budget in zip(shares, _budgets(table, prices, shares), strict=True):
            calibrated, batch = policy.with_budget(table, budget), policy.best_within(table, budget)
            for method, chosen in {"with_budget": calibrated.choose(table), "best_within": batch.models}.items():
                place = np.arange(len(chosen)), test.quality.columns.get_indexer(chosen)
                usd = prices[chosen].mean(), test.cost_usd[test.quality.columns].to_numpy()[place].mean()
                rows.append((name, share, budget, method, *usd, test.quality.to_numpy()[place].mean()))
    return pd.DataFrame(rows, columns="task budget_share budget_usd method expected_usd usd quality".split())


def hold_budgets(
    tasks: Mapping[str, RoutingTask], expected: Mapping[str, pd.DataFrame], n_draws: int, rng: Generator,
    shares: Sequence[float] = SHARES[:2],
) -> pd.DataFrame:  # fmt: skip
    """Return how far a stream's mean price is from the budget, with the lambda that `with_budget` finds on a sample.

    Sample and stream, of `STREAM` prompts, are drawn again and again from the test prompts, with replacement. The
    columns are task, budget_share, off (mean price over the budget, minus 1: its mean), low, high (95 % of the draws),
    forecast_low, forecast_high (as `forecast_cost` has it, means) and within_5_percent (share of the draws).
    """
    rows = []
    for name, table in expected.items():
        prices = tasks[name].train.cost_usd.mean()
        for share, budget in zip(shares, _budgets(table, prices, shares), strict=True):
            off, forecast = [], []
            for _ in range(n_draws):
                sample, stream = (table.iloc[rng.integers(len(table), size=size)] for size in STREAM)
                policy = MultiModelPolicy(prices).with_budget(sample, budget)
                forecast.append(policy.forecast_cost(sample, len(stream)))
                off.append(prices[policy.choose(stream)].mean() / budget - 1)
            said = np.mean(forecast, axis=0) / budget - 1
            within = np.mean(np.abs(off) <= 0.05)
            rows.append((name, share, np.mean(off), *np.quantile(off, [0.025, 0.975]), *said, within))
    columns = "task budget_share off low high forecast_low forecast_high within_5_percent"
    return pd.DataFrame(rows, columns=columns.split())


def _budgets(expected: pd.DataFrame, prices: pd.Series, shares: Sequence[float]) -> list[float]:
    """Return budgets at shares of the way from the cheapest model to always taking the best expected one."""
    most = prices[expected.idxmax(axis=1)].mean()
    return [prices.min() + share * (most - prices.min()) for share in shares]


def order_models(
    expected: pd.DataFrame, quality: pd.DataFrame, cost_usd: Prices, n_models: int, prices: Prices | None = None
) -> list[str]:
    """Return the first `n_models` models to have: the cheapest, the best, then always the one that adds most AIQ.

    Of equal ones the first by name. Arguments and errors as of `cost_quality_frontier`; use prompts that nothing is
    evaluated on.
    """
    everything = cost_quality_frontier(expected, quality, cost_usd, prices)
    if not 2 <= n_models <= len(everything.models):
        raise ValueError(f"n_models is {n_models}; it is from 2 to {len(everything.models)}")
    span = everything.single_cost_usd.min(), everything.single_cost_usd.max()
    order = list(dict.fromkeys(everything.models[place] for place in (everything.cheapest, everything.best)))
    while len(order) < n_models:
        lifts = {}
        for name in everything.models:
            if name not in order:
                lifts[name] = cost_quality_frontier(expected[[*order, name]], quality, cost_usd, prices).aiq(*span)
        order.append(max(lifts, key=lifts.__getitem__))  # the first of equal ones, which come by name
    return order


def growing_frontiers(
    order: Sequence[str], expected: pd.DataFrame, quality: pd.DataFrame, cost_usd: pd.DataFrame, prices: pd.Series,
    n_resamples: int, rng: Generator,
) -> pd.DataFrame:  # fmt: skip
    """Return the mean quality over the budgets that the first 2, 3, ... models of an order reach.

    Other arguments as of `cost_quality_frontier`. The columns are models (how many), added (the name of the last one),
    aiq over the costs of all single models, low, high (95 %).
    """
    low, high = cost_usd.mean().min(), cost_usd.mean().max()
    tables = {str(count): expected[sorted(order[:count])] for count in range(2, len(order) + 1)}
    aiq = {"aiq": lambda frontier: frontier.aiq(low, high)}
    _, metrics = bootstrap_frontier(tables, quality, cost_usd, n_resamples, rng, prices, metrics=aiq)
    table = metrics.rename(columns={"estimate": "aiq"}).assign(models=metrics["router"].astype(int), added=order[1:])
    return table[["models", "added", "aiq", "low", "high"]]


def calls_by_budget(expected: pd.DataFrame, prices: Prices, n_budgets: int = 12) -> pd.DataFrame:
    """Return the share of the prompts that goes to each model, from the cheapest models' budget to the best ones'.

    Indexed by usd_per_1000_calls, in equal ratios; models from the cheapest to the most expensive; rows sum to 1.
    Raises as `MultiModelPolicy`, and for cheapest models that cost nothing, which have no ratios.
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


def plot_by_hand(table: pd.DataFrame, prices: pd.Series) -> tuple[Figure, pd.DataFrame]:
    """Draw the value of each model of one prompt as the trade-off grows; also returns the lines.

    `table` has one row, the expected quality of each model; the model that is highest at a trade-off gets the prompt.
    """
    policy = MultiModelPolicy(prices)
    slopes = policy.upgrades(table).quality_per_usd
    at = np.linspace(0, 1.6 * slopes.max(), 40)
    lines = pd.concat(
        pd.DataFrame({"quality_per_usd": at, "value": table[name].iloc[0] - at * prices[name], "model": name})
        for name in table
    )
    title = f"As λ grows past {slopes[-1]:.0f} and {slopes[0]:.0f}, the prompt moves to a cheaper model"
    labels = ("λ (quality per dollar)", "expected quality − λ · price")
    figure = plot_lines(lines, "quality_per_usd", "value", labels, title, by="model")
    for slope in slopes:
        figure.axes[0].axvline(slope, color="0.7", linewidth=1, zorder=0)
    return figure, lines


def plot_two_models(curve: CallCurve, frontier: Frontier) -> tuple[Figure, pd.DataFrame]:
    """Draw the call-performance curve and the frontier of two models at prices 1 and 0; also returns the table."""
    table = pd.DataFrame({"strong_share": curve.strong_share, "quality": curve.quality})
    table = table.assign(cost_usd=frontier.cost_usd, frontier_quality=frontier.quality)
    names = ("call-performance curve", "frontier of two models")
    thin = table.iloc[np.unique(np.linspace(0, len(table) - 1, 40).astype(int))]
    points = thin[["cost_usd", "frontier_quality"]].set_axis(["strong_share", "quality"], axis=1)
    shown = pd.concat([table[["strong_share", "quality"]].assign(by=names[0]), points.assign(by=names[1])])
    styles = {
        names[0]: {"color": "0.55", "linewidth": 4, "marker": ""},
        names[1]: {"color": "C0", "marker": "o", "linestyle": "", "markevery": 1},
    }
    labels = ("share of calls to the strong model = mean cost at prices 1 and 0", "mean score")
    title = "The frontier of two models is the call-performance curve, point by point"
    return plot_lines(shown, "strong_share", "quality", labels, title, by="by", styles=styles), table


def plot_frontiers(bands: pd.DataFrame, singles: pd.DataFrame, metrics: pd.DataFrame) -> Figure:
    """Draw mean quality against mean cost, one panel per task; tables as from `frontier_tables`."""
    lines = [bands.assign(low=bands["low"].where(bands["router"] == MAIN))]
    for task, alone in singles.groupby("task", sort=False):
        cost, quality = upper_hull(alone["cost_usd"].to_numpy(), alone["quality"].to_numpy())
        # A mixture of two models is a straight line in dollars, which a logarithmic axis bends.
        grid = np.unique(np.concatenate([cost, np.geomspace(cost[0], alone["cost_usd"].max(), 200)]))
        mixed = {"task": task, "router": MIXED, "cost_usd": grid, "quality": np.interp(grid, cost, quality)}
        lines.append(pd.DataFrame(mixed))
    shown = pd.concat(lines, ignore_index=True)
    shown["usd"] = 1000 * shown["cost_usd"]
    share = metrics[(metrics["metric"] == "cost_share") & (metrics["router"] == MAIN)].set_index("task")["estimate"]
    where = title_name(share.idxmin())
    title = f"Routing reaches the best single model's quality at {share.min():.0%} of its cost on {where}"
    if not np.isfinite(share.min()):
        title = "Routing does not reach the best single model's quality"
    labels = ("dollars per 1,000 calls", "mean score")
    shown = shown[["task", "router", "usd", "quality", "low", "high"]]
    figure = plot_lines(shown, "usd", "quality", labels, title, by="router", panel="task", styles=STYLES, log_x=True)
    for axis, (_, alone) in zip(figure.axes, singles.groupby("task", sort=False), strict=True):
        axis.plot(1000 * alone["cost_usd"], alone["quality"], "o", color="0.35", markersize=4, zorder=1)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        best = alone.loc[alone["quality"].idxmax()]
        place = {"textcoords": "offset points", "ha": "right", "fontsize": 8}
        axis.annotate(short_name(best["model"]), (1000 * best["cost_usd"], best["quality"]), (0, 6), **place)
    return figure


def plot_added_models(areas: pd.DataFrame) -> Figure:
    """Draw the mean quality over the budgets of 2, 3, ... models, one row each; `areas` as `growing_frontiers`."""
    first, last = areas["aiq"].iloc[0], areas["aiq"].iloc[-1]
    enough = areas.loc[areas["aiq"] >= first + 0.9 * (last - first), "models"].iloc[0]
    title = f"{enough} of {areas['models'].max()} models bring most of what all bring"
    names = [f"{row.models}: + {short_name(row.added)}" for row in areas.itertuples()]
    shown = areas.assign(name=["2: cheapest and best", *names[1:]], estimate=areas["aiq"])
    return plot_rows(shown, "mean score over the budgets (AIQ, 95 %)", title)


def plot_call_shares(shares: pd.DataFrame) -> Figure:
    """Draw who gets the calls at each budget, one bar per budget; `shares` as `calls_by_budget`."""
    rare = shares.columns[shares.max() < RARE_SHARE]
    used = shares.drop(columns=rare)
    if shares[rare].to_numpy().any():
        used = used.assign(others=shares[rare].sum(axis=1))
    table = used.rename(columns=short_name).rename_axis(columns="model").stack().rename("estimate").reset_index()
    table["name"] = table["usd_per_1000_calls"].map("{:.3g} $".format)
    title = f"Calls move from cheap to expensive models as the budget grows; {used.shape[1]} models share them"
    label = "share of calls by model, cheapest first, at each budget per 1,000 calls"
    return plot_bars(table, label, title, by="model")
