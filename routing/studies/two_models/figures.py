"""The figures of notebook 07: each draws a table, and the table is what `save_figure` writes beside it."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from routing.studies.plotting import ROUTER_STYLES, label_line_ends, set_title


def _spell(name: str) -> str:
    return name.replace("_", " ")


def _draw_curves(axis: Axes, table: pd.DataFrame) -> None:
    for name, part in table.groupby("router", sort=False):
        style = {**ROUTER_STYLES[name], "marker": None}
        share = 100 * part["strong_share"]
        axis.plot(share, part["estimate"], label=_spell(name), **style)
        if name not in ("oracle", "random"):
            axis.fill_between(share, part["low"], part["high"], color=style["color"], alpha=0.12, linewidth=0)
    ends = table.loc[table["strong_share"].isin([0, 1]), "estimate"]
    for level in (ends.min(), ends.max()):
        axis.axhline(level, color="0.8", linewidth=0.8, zorder=0)
    axis.set(xlabel="calls to the strong model (%)", xlim=(0, 100))


def plot_call_curves(table: pd.DataFrame, units: Mapping[str, str], title: str) -> Figure:
    """Quality against the share of calls to the strong model, a panel a benchmark, with bootstrap bands.

    Parameters
    ----------
    table : DataFrame
        ``benchmark``, ``training_data`` (one a benchmark), ``router``, ``strong_share``, and ``estimate``, ``low``,
        ``high`` of the quality.
    units : mapping
        Label of each benchmark's quality.
    """
    benchmarks = table["benchmark"].unique()
    figure, axes = plt.subplots(1, len(benchmarks), figsize=(4.3 * len(benchmarks) + 0.5, 4.6), squeeze=False)
    for axis, name in zip(axes[0], benchmarks, strict=True):
        part = table[table["benchmark"] == name]
        _draw_curves(axis, part)
        axis.set_ylabel(units[name])
        axis.set_title(f"{name}, trained on {part['training_data'].iloc[0]}", fontsize=10)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    set_title(figure, title)
    return figure


def plot_commercial(curves: pd.DataFrame, points: pd.DataFrame, title: str) -> Figure:
    """Where call-performance curves reach the scores of commercial routers.

    Parameters
    ----------
    curves : DataFrame
        As in `plot_call_curves`, of one benchmark.
    points : DataFrame
        As `routing.studies.two_models.pairs.commercial_points`; a router without a curve is drawn in black.
    """
    figure, axis = plt.subplots(figsize=(7.5, 4.6))
    _draw_curves(axis, curves)
    for (name, score), part in points.groupby(["commercial", "score"], sort=False):
        axis.axhline(score, color="0.4", linewidth=1, linestyle=":")
        axis.annotate(f"{name}: {score:.2f}", (100, score), (6, 0), textcoords="offset points", va="center", fontsize=9)
        for row in part.dropna().itertuples():
            style = ROUTER_STYLES.get(row.router, {"color": "black", "marker": "D"})
            first = name == points["commercial"].iloc[0] and row.router not in ROUTER_STYLES
            label = f"learned from {_spell(row.router)}" if first else None
            marker = {"linestyle": "none", "marker": style["marker"], "color": style["color"], "markersize": 8}
            axis.plot(100 * row.strong_share, score, label=label, zorder=3, **marker)
    axis.set_ylabel("mean score (1 to 10)")
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    set_title(figure, title)
    return figure


def plot_paper_and_ours(table: pd.DataFrame, random_ranges: Mapping[str, tuple[float, float]], title: str) -> Figure:
    """APGR of the paper and of ours with its interval, a panel a benchmark, over the range of one random router.

    Parameters
    ----------
    table : DataFrame
        ``benchmark``, ``training_data``, ``router``, ``estimate``, ``low``, ``high``, ``paper`` (may be missing).
    random_ranges : mapping of benchmark to (low, high)
        Of those benchmarks for which it is drawn.
    """
    rows = list(dict.fromkeys(zip(table["training_data"], table["router"], strict=True)))
    benchmarks = table["benchmark"].unique()
    size = (3.6 * len(benchmarks) + 2.2, 0.27 * len(rows) + 1.9)
    figure, axes = plt.subplots(1, len(benchmarks), figsize=size, sharey=True, squeeze=False)
    for axis, name in zip(axes[0], benchmarks, strict=True):
        if name in random_ranges:
            axis.axvspan(*random_ranges[name], color="0.92", zorder=0, label="one random router, 95 %")
        axis.axvline(0.5, color="0.75", linewidth=1, zorder=0)
        for row in table[table["benchmark"] == name].itertuples():
            height = -rows.index((row.training_data, row.router))
            style = ROUTER_STYLES[row.router]
            error = [[row.estimate - row.low], [row.high - row.estimate]]
            axis.errorbar(row.estimate, height, xerr=error, fmt=style["marker"], color=style["color"])
            axis.plot(row.paper, height, "D", markerfacecolor="none", markeredgecolor="0.15", markersize=6)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("APGR (11-point trapezoid)")
    axes[0][0].plot([], [], "o", color="0.4", label="ours, 95 %")
    axes[0][0].plot([], [], "D", markerfacecolor="none", markeredgecolor="0.15", label="the paper")
    axes[0][0].set_yticks([-number for number in range(len(rows))], [f"{data}: {_spell(name)}" for data, name in rows])
    for edge in [number for number in range(1, len(rows)) if rows[number][0] != rows[number - 1][0]]:
        for axis in axes[0]:
            axis.axhline(0.5 - edge, color="0.85", linewidth=0.8, zorder=0)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    set_title(figure, title)
    return figure


def plot_pair_matrix(table: pd.DataFrame, title: str) -> Figure:
    """APGR of one router for pairs of models, strong ones in rows, both by mean score; empty where there is none.

    Parameters
    ----------
    table : DataFrame
        As `routing.studies.two_models.pairs.other_pairs` gives it.
    """
    scores = pd.concat([table.set_index("strong")["strong_score"], table.set_index("weak")["weak_score"]])
    order = scores.groupby(level=0).first().sort_values(ascending=False)
    matrix = table.pivot(index="strong", columns="weak", values="apgr").reindex(index=order.index, columns=order.index)
    names = [f"{name} ({score:.2f})" for name, score in order.items()]
    size = 0.62 * len(order) + 3.2
    figure, axis = plt.subplots(figsize=(size + 0.6, size - 0.6))
    limit = float(np.nanmax(np.abs(matrix.to_numpy() - 0.5)))
    scale = {"vmin": 0.5 - limit, "vmax": 0.5 + limit, "cmap": "PuOr_r"}
    sns.heatmap(
        matrix.iloc[:-1, 1:], annot=True, fmt=".2f", ax=axis, cbar_kws={"label": "APGR (random: 0.5)"},
        annot_kws={"fontsize": 8}, xticklabels=names[1:], yticklabels=names[:-1], linewidths=0.5, **scale,
    )  # fmt: skip
    axis.set(xlabel="weak model (its mean score)", ylabel="strong model (its mean score)")
    axis.tick_params(axis="x", rotation=40)
    plt.setp(axis.get_xticklabels(), ha="right", rotation_mode="anchor")
    set_title(figure, title)
    return figure


def plot_kinds(table: pd.DataFrame, title: str) -> Figure:
    """What judges see in kinds of prompts beside what routers expect, each column colored by its ranks.

    Parameters
    ----------
    table : DataFrame
        A row a kind of prompt, a column a quantity; the first is what the others are compared with.
    """
    judged, *routers = table.columns
    agreement = table.corr("spearman")[judged]
    names = [f"{_spell(judged)}\n(points of 10)"]
    names += [f"{_spell(name)}\nrank correlation {agreement[name]:.2f}" for name in routers]
    figure, axis = plt.subplots(figsize=(2.0 * len(names) + 1.5, 0.36 * len(table) + 2.0))
    sns.heatmap(
        table.rank(), annot=table, fmt=".3f", ax=axis, cmap="viridis", linewidths=0.5, xticklabels=names,
        annot_kws={"fontsize": 9}, cbar_kws={"label": "rank among the kinds"},
    )  # fmt: skip
    axis.set(xlabel="", ylabel="kind of prompt")
    axis.tick_params(axis="both", rotation=0)
    set_title(figure, title)
    return figure


def plot_costs(table: pd.DataFrame, title: str) -> Figure:
    """Dollars per 1,000 calls against the share of the gap recovered, a panel a benchmark, a line a router.

    Parameters
    ----------
    table : DataFrame
        ``benchmark``, ``router``, ``pgr`` (increasing within a router), ``usd_per_1000``, ``usd_low``, ``usd_high``.
    """
    benchmarks = table["benchmark"].unique()
    figure, axes = plt.subplots(1, len(benchmarks), figsize=(3.9 * len(benchmarks) + 0.8, 3.8), squeeze=False)
    ends = []
    for axis, name in zip(axes[0], benchmarks, strict=True):
        ends.append([])
        for router, part in table[table["benchmark"] == name].groupby("router", sort=False):
            style = ROUTER_STYLES[router]
            axis.plot(100 * part["pgr"], part["usd_per_1000"], **style)
            axis.fill_between(100 * part["pgr"], part["usd_low"], part["usd_high"], color=style["color"], alpha=0.1)
            ends[-1].append((100 * part["pgr"].iloc[-1], part["usd_per_1000"].iloc[-1], _spell(router), style["color"]))
        axis.set(xlabel="gap recovered (%)", ylabel="dollars per 1,000 calls")
        axis.set_title(name, fontsize=10)
    set_title(figure, title)
    for axis, lines in zip(axes[0], ends, strict=True):
        label_line_ends(axis, lines)
    return figure
