"""The figures of notebook 02: each draws a table, and the table is what `save_figure` writes beside it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from routing.studies.plotting import set_title

STYLES = {"released": {"color": "C3", "marker": "X"}, "ours": {"color": "C0", "marker": "o"}}
EXCHANGES = {  # in the order of their panels
    "all rows": "(a) all rows exchanged",
    "winner first": "(b) the winner written first",
    "strong first": "(c) the strong model written first",
    "random half": "(d) a random half exchanged",
    "canonical": "(e) one orientation a pair",
    "pair at construction": "(f) pair exchanged when made",
    "pair when asked": "(g) pair exchanged when asked",
    "rows shuffled": "(h) rows shuffled",
    "tied scores": "(i) benchmark rows shuffled (ties)",
}
SMALLEST_SHOWN = 1e-5  # of a change; below it the scale is linear, so that 0 has a place
ANSWER_COLORS = ("C0", "C1", "C4", "0.75")


def _draw_change(axis: Axes, row: tuple, height: float) -> None:
    """One router under one exchange: a stem from 0 to the change, and the share of decisions at its end."""
    style = STYLES[row.kind]
    note = {"textcoords": "offset points", "va": "center", "fontsize": 7.5, "color": style["color"]}
    if row.raised:
        axis.annotate("raises", (0, height), (7, 0), weight="bold", **note)
        return
    axis.plot([0, row.largest_change], [height, height], color=style["color"], linewidth=1.2)
    axis.plot(row.largest_change, height, linestyle="", clip_on=False, zorder=3, **style)
    if row.decisions_changed > 0:
        axis.annotate(f"{row.decisions_changed:.0%}", (row.largest_change, height), (-7, 6), ha="right", **note)


def plot_exchanges(table: pd.DataFrame, title: str) -> Figure:
    """Largest change under each exchange, a panel an exchange, a line a router: released and ours.

    Numbers at the marks are shares of prompts that go to the other model.

    Parameters
    ----------
    table : DataFrame
        ``swap``, ``router``, ``kind`` ("released" or "ours"), ``largest_change``, ``decisions_changed``,
        ``raised``.
    """
    routers = list(table["router"].unique())
    figure, axes = plt.subplots(3, 3, figsize=(11, 2.4 + 0.85 * len(routers)), sharex=True, sharey=True)
    for axis, (exchange, label) in zip(axes.flat, EXCHANGES.items(), strict=True):
        for row in table[table["swap"] == exchange].itertuples():
            shift = {"released": 0.16, "ours": -0.16}[row.kind]
            _draw_change(axis, row, len(routers) - routers.index(row.router) + shift)
        axis.set_title(label, fontsize=9.5)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="y", color="0.93")
    axes[0, 0].set_xscale("symlog", linthresh=SMALLEST_SHOWN)
    axes[0, 0].set_xlim(0, 1)
    axes[0, 0].set_xticks([0, 1e-4, 1e-2, 1], ["0", "0.0001", "0.01", "1"])
    axes[0, 0].minorticks_off()
    axes[0, 0].set_yticks(range(len(routers), 0, -1), routers)
    axes[0, 0].set_ylim(0.4, len(routers) + 0.6)
    for axis in axes[-1]:
        axis.set_xlabel(
            "largest change of a probability" if axis is not axes[-1, -1] else "of a probability; (i) of APGR"
        )
    handles = [plt.Line2D([], [], linestyle="", label=kind, **style) for kind, style in STYLES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    set_title(figure, title)
    return figure


def plot_decisions(table: pd.DataFrame, title: str) -> Figure:
    """Share of prompts that go to the other model against the call share, a panel a benchmark, with bands.

    Parameters
    ----------
    table : DataFrame
        ``benchmark``, ``kind``, ``strong_share``, ``estimate``, ``low``, ``high``.
    """
    benchmarks = table["benchmark"].unique()
    size = (3.6 * max(len(benchmarks), 2) + 0.6, 3.8)
    figure, axes = plt.subplots(1, len(benchmarks), figsize=size, sharey=True, squeeze=False)
    for axis, benchmark in zip(axes[0], benchmarks, strict=True):
        for kind, part in table[table["benchmark"] == benchmark].groupby("kind", sort=False):
            x = 100 * part["strong_share"]
            axis.plot(x, 100 * part["estimate"], markersize=4, label=kind, clip_on=False, **STYLES[kind])
            band = {"color": STYLES[kind]["color"], "alpha": 0.18, "linewidth": 0}
            axis.fill_between(x, 100 * part["low"], 100 * part["high"], **band)
        axis.set(xlabel="calls to the strong model (%)", xlim=(0, 100), ylim=(0, None))
        axis.set_title(benchmark, fontsize=10)
    axes[0][0].set_ylabel("decisions changed (%)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    set_title(figure, title)
    return figure


def plot_draws(table: pd.DataFrame, title: str, published: float | None = None) -> Figure:
    """A mark for each draw of battles and prompts, a line a definition.

    Parameters
    ----------
    table : DataFrame
        ``definition``, ``kind``, ``changed`` (share of decisions).
    published : float, optional
        The share it is compared with.
    """
    groups = list(table.groupby(["definition", "kind"], sort=False))
    figure, axis = plt.subplots(figsize=(8, 0.5 * len(groups) + 1.6))
    for height, ((_, kind), part) in zip(range(len(groups), 0, -1), groups, strict=True):
        values = 100 * part["changed"]
        axis.plot(values, np.full(len(part), height), "|", color=STYLES[kind]["color"], markersize=15, clip_on=False)
        axis.plot(values.median(), height, markersize=7, clip_on=False, zorder=3, **STYLES[kind])
    if published is not None:
        axis.axvline(100 * published, color="0.3", linestyle="--", linewidth=1)
        place = {"xytext": (4, 0), "textcoords": "offset points", "fontsize": 8.5}
        axis.annotate(f"published: {100 * published:g} %", (100 * published, len(groups) + 0.5), **place)
    axis.set_yticks(range(len(groups), 0, -1), [f"{kind}, {definition}" for (definition, kind), _ in groups])
    axis.set(xlabel="decisions changed (%), a line a draw, a mark at their median", xlim=(0, None))
    axis.set_ylim(0.5, len(groups) + 0.8)
    set_title(figure, title)
    return figure


def plot_consequences(table: pd.DataFrame, title: str) -> Figure:
    """Change of APGR by another writing of the same battles, with intervals; a panel a benchmark.

    Beside each line dollars for 1,000 calls where half of the gap is recovered.

    Parameters
    ----------
    table : DataFrame
        ``benchmark``, ``writing``, ``kind``, ``difference``, ``low``, ``high``, ``usd_per_1000``.
    """
    benchmarks = table["benchmark"].unique()
    lines = list(dict.fromkeys(zip(table["kind"], table["writing"], strict=True)))
    size = (3.5 * max(len(benchmarks), 2) + 2.2, 0.36 * len(lines) + 1.7)
    figure, axes = plt.subplots(1, len(benchmarks), figsize=size, sharey=True, squeeze=False)
    for axis, benchmark in zip(axes[0], benchmarks, strict=True):
        axis.axvline(0, color="0.8", linewidth=1, zorder=0)
        for row in table[table["benchmark"] == benchmark].itertuples():
            height = len(lines) - lines.index((row.kind, row.writing))
            axis.plot([row.low, row.high], [height, height], color=STYLES[row.kind]["color"])
            axis.plot(row.difference, height, linestyle="", **STYLES[row.kind])
            place = {"xycoords": axis.get_yaxis_transform(), "va": "center", "fontsize": 8, "color": "0.3"}
            axis.annotate(f"${row.usd_per_1000:.2f}", (1.02, height), **place)
        axis.annotate("at half the gap:", (1.02, len(lines) + 0.9), **place | {"fontsize": 7})
        axis.locator_params(axis="x", nbins=5)
        axis.set_title(benchmark, fontsize=10)
        axis.set_xlabel("change of APGR (95 %)")
    axes[0][0].set_yticks(range(len(lines), 0, -1), [f"{kind}, {writing}" for kind, writing in lines])
    axes[0][0].set_ylim(0.4, len(lines) + 1.2)
    set_title(figure, title)
    return figure


def plot_naming(table: pd.DataFrame, title: str) -> Figure:
    """P(strong wins) of each prompt, asked about both ways round; a panel a form.

    Parameters
    ----------
    table : DataFrame
        ``form``, ``kind``, ``straight`` (P(strong)), ``mirrored`` (1 - P(weak), the pair named the other way round).
    """
    forms = table["form"].unique()
    figure, axes = plt.subplots(1, len(forms), figsize=(3.7 * len(forms), 3.9), sharey=True, squeeze=False)
    for axis, form in zip(axes[0], forms, strict=True):
        part = table[table["form"] == form].sort_values("straight")
        color = STYLES[part["kind"].iloc[0]]["color"]
        rank = np.linspace(0, 100, len(part))
        axis.plot(rank, part["straight"], color=color, linewidth=2.2)
        (mirrored,) = axis.plot(rank, part["mirrored"], "--", color="0.15", label="1 − answer for (weak, strong)")
        axis.fill_between(rank, part["straight"], part["mirrored"], color=color, alpha=0.18, linewidth=0)
        axis.set(xlabel="prompts, by P(strong wins) (%)", ylim=(0, 1))
        axis.set_title(form, fontsize=10, color=color)
    axes[0][0].set_ylabel("P(strong wins)")
    straight = plt.Line2D([], [], color="0.6", linewidth=2.2, label="asked for (strong, weak)")
    figure.legend(handles=[straight, mirrored], loc="outside lower center", ncols=2)
    set_title(figure, title)
    return figure


def plot_bias(table: pd.DataFrame, share: float, label: str, title: str) -> Figure:
    """Error of a probability against the share of battles within a tier, with bands.

    Parameters
    ----------
    table : DataFrame
        As `same_tier_bias`.
    share, label : a share to mark, and what it is.
    """
    figure, axis = plt.subplots(figsize=(7.5, 4))
    axis.axhline(0, color="0.8", linewidth=1, zorder=0)
    for kind, part in table.groupby("router", sort=False):
        x, style = 100 * part["share"], STYLES[kind]
        axis.plot(x, part["estimate"], **style)
        axis.fill_between(x, part["low"], part["high"], color=style["color"], alpha=0.2, linewidth=0)
        place = {"xytext": (8, 0), "textcoords": "offset points", "va": "center", "color": style["color"]}
        axis.annotate(kind, (x.iloc[-1], part["estimate"].iloc[-1]), **place)
    axis.axvline(100 * share, color="0.5", linestyle=":")
    axis.annotate(label, (100 * share, axis.get_ylim()[0]), (5, 5), textcoords="offset points", fontsize=8.5)
    axis.set(xlabel="battles within a tier (% of all battles)", ylabel="P(strong wins) less the truth")
    axis.margins(x=0.12)
    set_title(figure, title)
    return figure


def plot_answer_shares(table: pd.DataFrame, title: str) -> Figure:
    """How often the first and the second answer won, a line a judge, with intervals.

    Parameters
    ----------
    table : DataFrame
        As `first_answer_shares`.
    """
    judges = list(table["judge"].unique())
    figure, axis = plt.subplots(figsize=(8, 0.55 * len(judges) + 1.6))
    for (place, part), color, marker in zip(table.groupby("place", sort=False), ("C1", "C2"), ("s", "D"), strict=True):
        height = [len(judges) - judges.index(judge) for judge in part["judge"]]
        error = [100 * (part["share"] - part["low"]), 100 * (part["high"] - part["share"])]
        axis.errorbar(100 * part["share"], height, xerr=error, fmt=marker, color=color, label=f"{place} answer won")
        for x, y in zip(100 * part["share"], height, strict=True):
            offset = (0, 7) if place == "first" else (0, -13)
            axis.annotate(f"{x:.1f}", (x, y), offset, textcoords="offset points", ha="center", fontsize=8, color=color)
    axis.set_yticks(range(len(judges), 0, -1), judges)
    axis.set(xlabel="share of all battles (%), 95 % interval; the rest are ties", xlim=(0, 100))
    axis.set_ylim(0.4, len(judges) + 0.6)
    figure.legend(loc="outside lower center", ncols=2)
    set_title(figure, title)
    return figure


def plot_both_orders(table: pd.DataFrame, title: str) -> Figure:
    """What judges said who were asked in both orders: a bar a judge, in four parts.

    Parameters
    ----------
    table : DataFrame
        As `both_order_shares`.
    """
    judges, answers = list(table["judge"].unique()), list(table["answer"].unique())
    figure, axis = plt.subplots(figsize=(9, 0.45 * len(judges) + 1.6))
    left = np.zeros(len(judges))
    height = np.arange(len(judges), 0, -1)
    for answer, color in zip(answers, ANSWER_COLORS, strict=True):
        part = table[table["answer"] == answer].set_index("judge").loc[judges]
        width = 100 * part["share"].to_numpy()
        axis.barh(height, width, left=left, color=color, label=answer, edgecolor="white")
        for y, begin, extent in zip(height, left, width, strict=True):
            if extent >= 1.5:
                axis.text(begin + extent / 2, y, f"{extent:.0f}", ha="center", va="center", fontsize=8)
        left += width
    right = table[table["answer"] == answers[0]].set_index("judge").loc[judges]
    error = 100 * np.array([right["share"] - right["low"], right["high"] - right["share"]])
    axis.errorbar(100 * right["share"], height - 0.3, xerr=error, fmt="none", ecolor="black", elinewidth=1.2, capsize=2)
    axis.set_yticks(height, judges)
    axis.set(xlabel=f"share of items (%), 95 % interval of {answers[0]}", xlim=(0, 100))
    figure.legend(loc="outside lower center", ncols=2)
    set_title(figure, title)
    return figure


def plot_estimates(
    table: pd.DataFrame, label: str, title: str, truth: pd.Series | None = None, reference: float | None = None
) -> Figure:
    """Two estimates of one number for each name, top to bottom, with intervals; a bar where the truth is known.

    Parameters
    ----------
    table : DataFrame
        ``name``, ``estimate`` (which of the two), ``value``, ``low``, ``high``.
    truth : Series, optional
        By name.
    reference : float, optional
        Where a line is drawn.
    """
    names, estimates = list(table["name"].unique()), list(table["estimate"].unique())
    figure, axis = plt.subplots(figsize=(8.5, 0.42 * len(names) + 1.7))
    if reference is not None:
        axis.axvline(reference, color="0.75", linewidth=1, zorder=0)
    if truth is not None:
        axis.plot(truth[names], range(len(names), 0, -1), "|", color="black", markersize=20, label="truth", zorder=3)
    for estimate, style, shift in zip(estimates, STYLES.values(), (0.13, -0.13), strict=True):
        part = table[table["estimate"] == estimate]
        height = np.array([len(names) - names.index(name) for name in part["name"]]) + shift
        error = [part["value"] - part["low"], part["high"] - part["value"]]
        axis.errorbar(
            part["value"], height, xerr=error, fmt=style["marker"], color=style["color"], label=estimate, markersize=5
        )
    axis.set_yticks(range(len(names), 0, -1), names)
    axis.set_ylim(0.4, len(names) + 0.6)
    axis.set(xlabel=label)
    figure.legend(loc="outside lower center", ncols=3)
    set_title(figure, title)
    return figure
