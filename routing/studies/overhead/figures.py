"""The figures of notebook 09: each draws a table, and the table is what `save_figure` writes beside it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from routing.studies.plotting import ROUTER_STYLES, label_line_ends, set_title

WORKER_STYLES = [{"color": "C0", "marker": "o", "linestyle": "-"}, {"color": "C1", "marker": "s", "linestyle": "--"}]


def _spell(name: str) -> str:
    return name.replace("_", " ")


def _rows_of_routers(routers: pd.Series, height: float) -> tuple[Figure, Axes, dict[str, int]]:
    """An axis with a row a router, the first on top, and the height of each."""
    names = list(dict.fromkeys(routers))
    figure, axis = plt.subplots(figsize=(8, height * len(names) + 1.6))
    place = {name: len(names) - 1 - number for number, name in enumerate(names)}
    axis.set_yticks(list(place.values()), [_spell(name) for name in names])
    axis.set_ylim(-0.6, len(names) - 0.4)
    return figure, axis, place


def _draw_interval(axis: Axes, x: float, y: float, low: float, high: float, text: str, **style: object) -> None:
    """A point, its interval (either end where it is known), and its value right of it."""
    low, high = np.fmin(x, low), np.fmax(x, high)
    axis.errorbar(x, y, xerr=[[x - low], [high - x]], linestyle="none", **style)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    axis.annotate(text, (high, y), (5, 0), textcoords="offset points", va="center", fontsize=8, bbox=box)


def plot_throughput(table: pd.DataFrame, title: str) -> Figure:
    """Requests a second over the size of a batch, a line a router.

    Parameters
    ----------
    table : DataFrame
        As `routing.studies.overhead.requests.throughput_table`.
    """
    figure, axis = plt.subplots(figsize=(8, 4.4))
    ends = []
    for name, part in table.groupby("router", sort=False):
        error = [
            part["requests_per_s"] - part["requests_per_s_low"],
            part["requests_per_s_high"] - part["requests_per_s"],
        ]
        axis.errorbar(part["batch"], part["requests_per_s"], yerr=error, **ROUTER_STYLES[name])
        ends.append(
            (part["batch"].iloc[-1], part["requests_per_s"].iloc[-1], _spell(name), ROUTER_STYLES[name]["color"])
        )
    axis.set(xlabel="requests in a batch", ylabel="requests a second, one core", xscale="log", yscale="log")
    axis.set_xticks(sizes := sorted(set(table["batch"])), [str(size) for size in sizes])
    axis.minorticks_off()
    label_line_ends(axis, ends)
    set_title(figure, title)
    return figure


def plot_latency(table: pd.DataFrame, title: str) -> Figure:
    """Median and 99th percentile of single requests, with their intervals.

    Parameters
    ----------
    table : DataFrame
        As `routing.studies.overhead.requests.latency_table`.
    """
    figure, axis, place = _rows_of_routers(table["router"], 0.5)
    for row in table.itertuples():
        color = ROUTER_STYLES[row.router]["color"]
        half = row.quantile == 0.5
        fill = {"marker": "o"} if half else {"marker": "D", "markerfacecolor": "white"}
        y = place[row.router] + (0.17 if half else -0.17)
        _draw_interval(axis, row.latency_ms, y, row.low, row.high, f"{row.latency_ms:.3g}", color=color, **fill)
    axis.set(xlabel="milliseconds for a single request, text in to choice out, one core", xscale="log")
    marks = [Line2D([], [], color="0.3", marker="o", linestyle="none", label="half of the requests are faster")]
    marks.append(
        Line2D([], [], color="0.3", marker="D", markerfacecolor="white", linestyle="none", label="99 % are faster")
    )
    figure.legend(handles=marks, loc="outside lower center", ncols=2)
    set_title(figure, title)
    return figure


def plot_reading_share(table: pd.DataFrame, title: str) -> Figure:
    """Share of the time that the encoder or transformer takes, a bar a batch size.

    Parameters
    ----------
    table : DataFrame
        As `routing.studies.overhead.requests.throughput_table`.
    """
    figure, axis, place = _rows_of_routers(table["router"], 0.75)
    sizes = sorted(table["batch"].unique())
    height = 0.8 / len(sizes)
    for row in table.itertuples():
        y = place[row.router] + 0.4 - height * (sizes.index(row.batch) + 0.5)
        share = 100 * row.reading_share
        axis.barh(y, share, 0.9 * height, color="#0173b2")
        axis.barh(y, 100 - share, 0.9 * height, left=share, color="#de8f05")
        ends = [[share - 100 * row.reading_share_low], [100 * row.reading_share_high - share]]
        axis.errorbar(share, y, xerr=ends, color="black", linewidth=1)
        axis.text(101, y, f"batch {row.batch}: {share:.0f} %", va="center", fontsize=7.5)
    axis.set(xlabel="share of the time of a request (%)", xlim=(0, 100))
    boxes = [plt.Rectangle((0, 0), 1, 1, color=color) for color in ("#0173b2", "#de8f05")]
    labels = ["encoder or transformer: text to vector", "the router's own arithmetic and the choice"]
    figure.legend(boxes, labels, loc="outside lower center", ncols=2)
    set_title(figure, title)
    return figure


def plot_memory(table: pd.DataFrame, title: str) -> Figure:
    """Resident memory and size of the saved files of each router.

    Parameters
    ----------
    table : DataFrame
        The second of `routing.studies.overhead.requests.measure_routers`.
    """
    figure, axis, place = _rows_of_routers(table["router"], 0.5)
    for number, (column, label) in enumerate({"resident_mib": "resident", "saved_mib": "saved"}.items()):
        y = np.array([place[name] for name in table["router"]]) + 0.2 - 0.4 * number
        axis.barh(y, table[column], 0.36, color=["#0173b2", "#de8f05"][number], label=label)
        for value, height in zip(table[column], y, strict=True):
            axis.annotate(f"{value:,.3g}", (value, height), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set(xlabel="MiB", xscale="log")
    axis.margins(x=0.1)
    handles, labels = axis.get_legend_handles_labels()
    spelled = {"resident": "resident, after the first batch, encoder included", "saved": "files of the saved router"}
    figure.legend(handles, [spelled[label] for label in labels], loc="outside lower center", ncols=2)
    set_title(figure, title)
    return figure


def plot_cost(table: pd.DataFrame, calls_usd: dict[str, float], title: str) -> Figure:
    """Dollars for a million requests, ours and the paper's, beside the price of the calls that are routed.

    Parameters
    ----------
    table : DataFrame
        router, series ("paper", or a name for ours), usd_per_million, low, high (missing for the paper's).
    calls_usd : dict
        Name of a model: dollars of a million calls to it.
    """
    figure, axis, place = _rows_of_routers(table["router"], 0.6)
    series = [name for name in dict.fromkeys(table["series"]) if name != "paper"]
    marks = {name: {"marker": "oDs"[number], "color": f"C{number}"} for number, name in enumerate(series)}
    marks["paper"] = {"marker": "X", "color": "0.3"}
    height = dict(zip(marks, np.linspace(0.25, -0.25, len(marks)), strict=True))
    for row in table.itertuples():
        text = f"{row.usd_per_million:.2g}" if row.usd_per_million < 1 else f"{row.usd_per_million:,.4g}"
        y = place[row.router] + height[row.series]
        _draw_interval(axis, row.usd_per_million, y, row.low, row.high, text, **marks[row.series])
    for name, usd in calls_usd.items():
        axis.axvline(usd, color="0.6", linewidth=1, zorder=0)
        text = f"{name}:\n{usd:,.0f} $"
        place_text = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "right", "va": "top"}
        axis.annotate(text, (usd, 1), (-3, -2), fontsize=8, **place_text)
    axis.set(xlabel="dollars for a million requests", xscale="log")
    handles = [Line2D([], [], linestyle="none", label=name, **style) for name, style in marks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    set_title(figure, title)
    return figure


def plot_growth(table: pd.DataFrame, reading_s: float, title: str) -> Figure:
    """Time to fit and time of a request, a column for each thing that grows.

    Parameters
    ----------
    table : DataFrame
        As `routing.studies.overhead.growth.time_growth`.
    reading_s : float
        What the encoder takes for a prompt, drawn beside what the router adds.
    """
    columns, steps = list(table["grows"].unique()), ["fit", "request"]
    figure, axes = plt.subplots(2, len(columns), figsize=(10.5, 6.2), sharey="row", sharex="col", squeeze=False)
    for (grows, step), part in table.groupby(["grows", "step"], sort=False):
        axis = axes[steps.index(step), columns.index(grows)]
        for name, line in part.groupby("router", sort=False):
            style = dict(ROUTER_STYLES[name.split(",")[0]])
            if "," in name:
                style |= {"linestyle": ":", "markerfacecolor": "white"}
            error = [line["seconds"] - line["low"], line["high"] - line["seconds"]]
            axis.errorbar(line["size"], line["seconds"], yerr=error, label=_spell(name), **style)
        axis.set(xscale="log", yscale="log")
        axis.set_xticks(sizes := sorted(set(part["size"])), [f"{size:,}" for size in sizes], fontsize=8)
        axis.xaxis.minorticks_off()
        if step == "request":
            axis.axhline(reading_s, color="0.6", linewidth=1, zorder=0)
            axis.set_xlabel({"battles": "battles", "models": "models", "width": "width of the embedding"}[grows])
    axes[0, 0].set_ylabel("seconds to fit to all battles")
    axes[1, 0].set_ylabel("seconds a request adds\nto reading its text")
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 7.5, "color": "0.4"}
    axes[1, 0].annotate("the encoder takes", (0, reading_s), (3, 2), **place)
    handles, labels = axes[0, columns.index("models")].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    set_title(figure, title)
    return figure


def plot_cluster_growth(table: pd.DataFrame, title: str) -> Figure:
    """Seconds, and memory a worker, against the number of battles, a line a number of workers.

    Parameters
    ----------
    table : DataFrame
        ``battles``, ``workers``, ``median_s``, ``least_s``, ``greatest_s``, ``peak_mib_a_worker``.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8))
    for style, (workers, part) in zip(WORKER_STYLES, table.groupby("workers"), strict=True):
        error = [part["median_s"] - part["least_s"], part["greatest_s"] - part["median_s"]]
        left.errorbar(part["battles"], part["median_s"], yerr=error, capsize=3, **style)
        right.plot(part["battles"], part["peak_mib_a_worker"], **style)
        name = "1 worker" if workers == 1 else f"{workers} workers"
        below = workers > 1
        for axis, value in ((left, "median_s"), (right, "peak_mib_a_worker")):
            last = part[["battles", value]].iloc[-1]
            axis.annotate(
                name,
                tuple(last),
                (8, -6 if below else 6),
                textcoords="offset points",
                va="top" if below else "bottom",
                color=style["color"],
            )
    left.set(xscale="log", yscale="log", ylabel="seconds from shards to ratings")
    right.set(xscale="log", ylabel="greatest memory of a worker (MiB)", ylim=(0, None))
    right.set_ylim(top=right.get_ylim()[1] * 1.15)
    for axis in (left, right):
        low, high = axis.get_xlim()
        axis.set(xlabel="battles", xlim=(low, high * 5))
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    set_title(figure, title)
    return figure
