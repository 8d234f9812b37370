"""The figures of notebook 08: cost against quality, and who gets the calls, for any number of models."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullLocator

from routing.evaluation.frontier import upper_hull
from routing.studies.plotting import ROUTER_STYLES, set_title

LEARNED = {"color": "#0173b2", "linestyle": "-"}
ORACLE = {"color": ROUTER_STYLES["oracle"]["color"], "linestyle": ":"}
MIXED = {"color": "#949494", "linestyle": "--"}
LABELLED_SHARE = 0.09  # of the calls, from which on an area is wide enough for its model's name
RARE_SHARE = 0.01  # models that never get as much are drawn as one


def plot_two_models(table: pd.DataFrame, labels: tuple[str, str], title: str) -> Figure:
    """The call-performance curve as a line, and on it points of the frontier of two models.

    Parameters
    ----------
    table : DataFrame
        ``strong_share`` and ``quality`` of the curve, ``cost_usd`` and ``frontier_quality``, point by point.
    labels : of the two axes
    """
    figure, axis = plt.subplots(figsize=(7, 4))
    axis.plot(table["strong_share"], table["quality"], color="0.55", linewidth=4, label="call-performance curve")
    shown = table.iloc[np.unique(np.linspace(0, len(table) - 1, 40).astype(int))]
    axis.plot(shown["cost_usd"], shown["frontier_quality"], "o", color=LEARNED["color"], label="frontier of N = 2")
    axis.set(xlabel=labels[0], ylabel=labels[1])
    figure.legend(loc="outside lower center", ncols=2)
    set_title(figure, title)
    return figure


def plot_frontiers(bands: pd.DataFrame, singles: pd.DataFrame, router: str, title: str) -> Figure:
    """Mean quality against mean cost, a panel a task.

    Parameters
    ----------
    bands : DataFrame
        ``task``, ``router`` (`router` and "oracle"), ``cost_usd``, ``quality``, ``low``, ``high``.
    singles : DataFrame
        ``task``, ``model``, ``cost_usd``, ``quality`` of every model alone.
    router : str
        Which one is drawn with its band.
    """
    tasks = list(bands["task"].unique())
    figure, axes = plt.subplots(1, len(tasks), figsize=(5.6 * len(tasks) + 1.2, 5), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        alone = singles[singles["task"] == task]
        _draw_singles(axis, alone)
        for name, style in ((router, LEARNED), ("oracle", ORACLE)):
            part = bands[(bands["task"] == task) & (bands["router"] == name)]
            axis.plot(1000 * part["cost_usd"], part["quality"], label=name, **style)
            if name == router:
                low, high = part["low"], part["high"]
                axis.fill_between(1000 * part["cost_usd"], low, high, color=style["color"], alpha=0.15, linewidth=0)
        axis.set(ylabel="mean score")
        axis.set_title(f"{task}: {len(alone)} models", fontsize=10)
        axis.margins(x=0.12)
        _set_dollars(axis, "dollars per 1,000 calls")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4 if len(tasks) > 1 else 2)
    set_title(figure, title)
    return figure


def plot_growing_set(lines: pd.DataFrame, areas: pd.DataFrame, counts: list[int], title: str) -> Figure:
    """What each further model buys: frontiers of some numbers of models, and the mean quality of every number.

    Parameters
    ----------
    lines, areas : DataFrame
        As `routing.studies.many_models.model_sets.growing_frontiers` gives them.
    counts : list of int
        The numbers of models whose frontiers are drawn.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11.5, 4.6), width_ratios=[1.35, 1])
    colours = plt.get_cmap("cividis")(np.linspace(0.8, 0.0, len(counts)))
    for number, (count, colour) in enumerate(zip(counts, colours, strict=True)):
        part = lines[lines["models"] == count]
        style = {"color": colour, "linestyle": [":", "-.", "--", "-"][number % 4]}
        axes[0].plot(part["usd_per_1000_calls"], part["quality"], label=f"{count} models", **style)
    axes[0].set(ylabel="mean score")
    _set_dollars(axes[0], "dollars per 1,000 calls")
    axes[0].legend(loc="lower right")
    position = np.arange(len(areas))[::-1]
    axes[1].hlines(position, areas["low"], areas["high"], color=LEARNED["color"], linewidth=1)
    axes[1].plot(areas["aiq"], position, "o", color=LEARNED["color"])
    names = [f"{row.models}: + {row.added.rsplit('/', 1)[-1]}" for row in areas.itertuples()]
    axes[1].set_yticks(position, ["2: cheapest and best", *names[1:]], fontsize=8)
    axes[1].set(xlabel="mean score over the budgets (AIQ, 95 %)")
    set_title(figure, title)
    return figure


def plot_newcomer(table: pd.DataFrame, title: str) -> Figure:
    """Error of a new model's rating against the number of its battles, a line a start.

    Parameters
    ----------
    table : DataFrame
        As `routing.studies.many_models.new_models.newcomer_errors` gives it.
    """
    figure, axis = plt.subplots(figsize=(7.5, 4.3))
    for number, (start, part) in enumerate(table.groupby("start", sort=False)):
        style = {"color": f"C{number}", "marker": "os"[number % 2], "linestyle": ["-", "--"][number % 2]}
        axis.plot(part["battles"], part["error"], label=f"start: {start}", **style)
        axis.fill_between(part["battles"], part["low"], part["high"], color=style["color"], alpha=0.15, linewidth=0)
    ticks = table["battles"].unique()
    axis.set_xscale("symlog", linthresh=ticks[ticks > 0].min(), linscale=0.5)
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.set(xlabel="battles of the new model", ylabel="error of its rating (log-odds, RMS)")
    axis.set_ylim(bottom=0)
    axis.legend()
    set_title(figure, title)
    return figure


def _set_dollars(axis: Axes, label: str) -> None:
    """A logarithmic axis of costs, with ticks in plain numbers."""
    axis.set(xscale="log", xlabel=label)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())


def _draw_singles(axis: Axes, alone: pd.DataFrame) -> None:
    cost, quality = upper_hull(alone["cost_usd"].to_numpy(), alone["quality"].to_numpy())
    # A mixture of two models is a straight line in dollars, which a logarithmic axis bends.
    grid = np.unique(np.concatenate([cost, np.geomspace(cost[0], alone["cost_usd"].max(), 200)]))
    axis.plot(1000 * grid, np.interp(grid, cost, quality), label="single models mixed at random", **MIXED)
    axis.plot(1000 * alone["cost_usd"], alone["quality"], "o", color="0.35", markersize=4, label="single model")
    order = alone.sort_values("quality")
    named = order[order["cost_usd"].isin(cost)]
    for row in named.itertuples():
        name, dear = row.model.rsplit("/", 1)[-1], row.cost_usd > np.median(alone["cost_usd"])
        where = {
            "xytext": (0, 7) if dear else (5, -10),
            "textcoords": "offset points",
            "ha": "right" if dear else "left",
            "path_effects": [withStroke(linewidth=2.5, foreground="white")],  # it may lie on a curve
        }
        axis.annotate(name, (1000 * row.cost_usd, row.quality), fontsize=7.5, **where)


def plot_tried(table: pd.DataFrame, references: dict[str, float], title: str) -> Figure:
    """What was tried: score on the inner folds of training, by which one was chosen, and on the test prompts.

    Parameters
    ----------
    table : DataFrame
        As `routing.studies.many_models.regression.TriedRegressions.table`, of one task.
    references : dict of str to float
        Test scores that the others are compared with.
    """
    table = table.sort_values("inner_score")
    height = 0.32 * len(table) + 1.9
    figure, axes = plt.subplots(1, 2, figsize=(10, height), sharey=True, width_ratios=[1, 1.6])
    position = np.arange(len(table))
    colours = np.where(table["chosen"], "#d55e00", LEARNED["color"])
    half = 1.96 * table["inner_error"]
    axes[0].hlines(position, table["inner_score"] - half, table["inner_score"] + half, color=colours, linewidth=1.2)
    axes[0].scatter(table["inner_score"], position, c=colours, s=26)
    axes[0].set_yticks(position, table["name"])
    axes[0].set(xlabel="mean score, inner folds\n(95 % of the distance to the best)")
    for value, number, row, colour in zip(table["test_score"], position, table.itertuples(), colours, strict=True):
        axes[1].plot([row.low, row.high], [number, number], color=colour, linewidth=1.2)
        axes[1].plot(value, number, "o", color=colour)
    for number, (name, value) in enumerate(references.items()):
        axes[1].axvline(value, color="0.6", linewidth=1, linestyle=["--", ":", "-."][number % 3])
        axes[1].annotate(
            f"{name} {value:.3f}",
            (value, len(table) - 0.2 + 0.8 * number),
            (3, 0),
            textcoords="offset points",
            fontsize=8,
        )
    axes[1].set_ylim(-0.7, len(table) + 0.8 * len(references))
    axes[1].set(xlabel="mean score on the test prompts (95 %)")
    axes[0].get_yticklabels()[int(np.flatnonzero(table["chosen"])[0])].set_color("#d55e00")
    set_title(figure, title)
    return figure


def plot_call_shares(shares: pd.DataFrame, title: str) -> Figure:
    """Who gets the calls as the budget grows: areas that sum to 1, the cheapest model at the bottom.

    Parameters
    ----------
    shares : DataFrame, indexed by budget (``usd_per_1000_calls``)
        A column a model, in the order of their prices; each row sums to 1. Models of few calls are drawn on top.
    """
    figure, axis = plt.subplots(figsize=(8.5, 4.8))
    rare = shares.columns[shares.max() < RARE_SHARE]
    used = shares.drop(columns=rare)
    if shares[rare].to_numpy().any():
        used = used.assign(others=shares[rare].sum(axis=1))
    colours = plt.get_cmap("cividis")(np.linspace(0.05, 0.95, used.shape[1]))
    budget = shares.index.to_numpy()
    areas = axis.stackplot(budget, used.to_numpy().T, colors=colours, edgecolor="white", linewidth=0.5)
    tops = used.cumsum(axis=1).to_numpy()
    for column, (model, area) in enumerate(zip(used.columns, areas, strict=True)):
        share = used[model].to_numpy()
        if share.max() < LABELLED_SHARE:
            continue
        widest = np.flatnonzero(share >= 0.9 * share.max())
        row = int(widest[len(widest) // 2])
        side = "left" if row < len(share) / 6 else "right" if row > 5 * len(share) / 6 else "center"
        axis.text(
            budget[row],
            tops[row, column] - share[row] / 2,
            model.rsplit("/", 1)[-1],
            ha=side,
            va="center",
            fontsize=8,
            color="white" if area.get_facecolor()[0][:3].mean() < 0.5 else "black",
        )
    axis.set(xlim=(budget[0], budget[-1]), ylim=(0, 1), ylabel="share of the calls")
    _set_dollars(axis, "budget (dollars per 1,000 calls)")
    set_title(figure, title)
    return figure


def plot_win_shares(table: pd.DataFrame, reference: str, title: str) -> Figure:
    """Expected against observed win share of each model over one, on prompts that were held out.

    Parameters
    ----------
    table : DataFrame
        ``model``, ``expected``, ``observed``, ``low``, ``high``.
    """
    figure, axis = plt.subplots(figsize=(6.4, 5.6))
    axis.plot([0, 1], [0, 1], color="0.7", zorder=0)
    error = [table["observed"] - table["low"], table["high"] - table["observed"]]
    axis.errorbar(table["expected"], table["observed"], yerr=error, fmt="o", color=LEARNED["color"], elinewidth=0.8)
    off = (table["expected"] - table["observed"]).abs().nlargest(2).index
    for row in table.loc[off].itertuples():
        axis.annotate(row.model, (row.expected, row.observed), (6, -3), textcoords="offset points", fontsize=7.5)
    axis.set(xlabel=f"expected win share against {reference}", ylabel="observed on held-out prompts (95 %)")
    axis.set(xlim=(0, 1), ylim=(0, 1))
    set_title(figure, title)
    return figure


def plot_quality_maps(table: pd.DataFrame, title: str) -> Figure:
    """Expected against observed mean score, in groups of equal size; a line a way to expect it.

    Parameters
    ----------
    table : DataFrame
        ``way``, ``expected``, ``observed``, ``low``, ``high``.
    """
    figure, axis = plt.subplots(figsize=(6.4, 5))
    axis.plot([0, 1], [0, 1], color="0.7", zorder=0)
    for number, (way, part) in enumerate(table.groupby("way", sort=False)):
        error = [part["observed"] - part["low"], part["high"] - part["observed"]]
        style = {"color": f"C{number}", "marker": "os^"[number % 3], "linestyle": ["-", "--", ":"][number % 3]}
        axis.errorbar(part["expected"], part["observed"], yerr=error, label=way, elinewidth=0.8, **style)
    axis.set(xlabel="expected score", ylabel="observed mean score (95 %)")
    figure.legend(loc="outside lower center", ncols=3)
    set_title(figure, title)
    return figure
