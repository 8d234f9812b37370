"""The figures of notebooks 03 to 06: each draws a table, and the table is what `save_figure` writes beside it."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from routing.studies.plotting import ROUTER_STYLES, label_line_ends, set_title


def _errors(part: pd.DataFrame, value: str) -> list[pd.Series]:
    return [part[value] - part["low"], part["high"] - part[value]]


def plot_intervals(table: pd.DataFrame, label: str, title: str, reference: float | None = None) -> Figure:
    """A point and its interval for each row, top to bottom.

    Parameters
    ----------
    table : DataFrame
        ``name``, ``estimate``, ``low``, ``high``.
    label : str
        Of the value.
    reference : float, optional
        Where a line is drawn that the points are compared with.
    """
    figure, axis = plt.subplots(figsize=(8, 0.38 * len(table) + 1.3))
    position = np.arange(len(table))[::-1]
    if reference is not None:
        axis.axvline(reference, color="0.7", linewidth=1)
    axis.errorbar(table["estimate"], position, xerr=_errors(table, "estimate"), fmt="o", color="C0")
    for row, values in zip(position, table.itertuples(), strict=True):
        axis.annotate(f"{values.estimate:.4g}", (values.estimate, row), (0, 5), textcoords="offset points", ha="center")
    axis.set_yticks(position, table["name"])
    axis.set_ylim(-0.6, len(table) - 0.3)
    axis.set(xlabel=label)
    set_title(figure, title)
    return figure


def plot_lines(
    table: pd.DataFrame, x: str, y: str, group: str, labels: tuple[str, str], title: str, log_x: bool = False
) -> Figure:
    """A line a group, each labelled at its end; with a band where the table has ``low`` and ``high``."""
    figure, axis = plt.subplots(figsize=(7.5, 4))
    ends = []
    for number, (name, part) in enumerate(table.groupby(group, sort=False)):
        style = {"color": f"C{number}", "marker": "os^Dv*"[number % 6], "linestyle": ["-", "--", "-.", ":"][number % 4]}
        axis.plot(part[x], part[y], **style)
        if "low" in part:
            axis.fill_between(part[x], part["low"], part["high"], color=style["color"], alpha=0.15, linewidth=0)
        ends.append((part[x].iloc[-1], part[y].iloc[-1], str(name), style["color"]))
    axis.set(xlabel=labels[0], ylabel=labels[1], xscale="log" if log_x else "linear")
    set_title(figure, title)
    label_line_ends(axis, ends)
    return figure


def plot_neighbours(table: pd.DataFrame, title: str) -> Figure:
    """Weights of the battles that weigh most for a few prompts.

    Parameters
    ----------
    table : DataFrame
        ``prompt``, ``neighbour``, ``similarity``, ``weight``.
    """
    prompts = table["prompt"].unique()
    figure, axes = plt.subplots(len(prompts), 1, figsize=(9, 1.9 * len(prompts) + 0.6), sharex=True)
    for axis, prompt in zip(np.atleast_1d(axes), prompts, strict=True):
        part = table[table["prompt"] == prompt].iloc[::-1]
        axis.barh(range(len(part)), part["weight"], color="C0")
        axis.set_yticks(range(len(part)), [textwrap.shorten(text, 64, placeholder=" …") for text in part["neighbour"]])
        axis.tick_params(axis="y", labelsize=7.5, length=0)
        axis.set_title(f"for: {textwrap.shorten(prompt, 66, placeholder=' …')}", fontsize=9)
    np.atleast_1d(axes)[-1].set(xlabel="weight in the fit (most similar prompt: 1)")
    set_title(figure, title)
    return figure


def plot_groups(table: pd.DataFrame, labels: tuple[str, str], title: str) -> Figure:
    """Observed value with interval and predicted value for each group.

    Parameters
    ----------
    table : DataFrame
        ``group``, ``predicted``, ``observed``, ``low``, ``high``, sorted as to be shown.
    labels : of the predicted and of the observed value.
    """
    figure, axis = plt.subplots(figsize=(8, 0.32 * len(table) + 1.6))
    position = np.arange(len(table))[::-1]
    axis.errorbar(table["observed"], position, xerr=_errors(table, "observed"), fmt="o", color="0.3", label=labels[1])
    axis.plot(table["predicted"], position, "D", color="C1", label=labels[0])
    axis.set_yticks(position, table["group"])
    axis.set(xlabel="expected score of the strong model against the weak one (a tie is one half)")
    figure.legend(loc="outside lower center", ncols=2)
    set_title(figure, title)
    return figure


def plot_learning_curve(table: pd.DataFrame, title: str) -> Figure:
    """Loss on training and on held-out battles by epoch, a thin line a seed.

    Parameters
    ----------
    table : DataFrame
        ``epoch``, ``seed``, ``training``, ``held_out``: nats a battle.
    """
    figure, axis = plt.subplots(figsize=(7, 4))
    ends = []
    for number, column in enumerate(("training", "held_out")):
        for _, part in table.groupby("seed"):
            axis.plot(part["epoch"], part[column], color=f"C{number}", alpha=0.35, linewidth=1)
        mean = table.groupby("epoch")[column].mean()
        axis.plot(mean.index, mean, ["-", "--"][number], color=f"C{number}")
        ends.append((mean.index[-1], mean.iloc[-1], column.replace("_", " "), f"C{number}"))
    axis.set(xlabel="epoch (0: the leaderboard)", ylabel="log-loss (nats a battle)")
    set_title(figure, title)
    label_line_ends(axis, ends)
    return figure


def plot_model_map(table: pd.DataFrame, title: str) -> Figure:
    """Models in the plane of their two main prompt-dependent directions, coloured by rating.

    The models farthest out are named, as far as their names do not lie on each other.

    Parameters
    ----------
    table : DataFrame
        ``model``, ``first``, ``second``, ``rating_elo``.
    """
    figure, axis = plt.subplots(figsize=(8, 5.5))
    points = axis.scatter(table["first"], table["second"], c=table["rating_elo"], cmap="cividis", s=30)
    figure.colorbar(points, label="mean rating (Elo points)")
    axis.set(xlabel="first direction", ylabel="second direction")
    axis.margins(x=0.15)
    set_title(figure, title)
    distance = sum((table[name] / table[name].std()) ** 2 for name in ("first", "second"))
    figure.canvas.draw()  # where the axis lies decides which names meet
    taken = []
    for row in table.loc[distance.nlargest(20).index].itertuples():
        name = axis.annotate(row.model, (row.first, row.second), (4, 3), textcoords="offset points", fontsize=7.5)
        place = name.get_window_extent()
        if any(place.overlaps(other) for other in taken):
            name.remove()
        else:
            taken.append(place)
    return figure


def plot_calibration(tables: dict[str, pd.DataFrame], title: str) -> Figure:
    """Reliability: predicted against observed frequency, with intervals; a router a line."""
    figure, axis = plt.subplots(figsize=(5.6, 4.8))
    axis.plot([0, 1], [0, 1], color="0.7", zorder=0)
    for name, table in tables.items():
        error = [table["observed"] - table["observed_low"], table["observed_high"] - table["observed"]]
        style = ROUTER_STYLES[name]
        axis.errorbar(table["predicted"], table["observed"], yerr=error, label=name.replace("_", " "), **style)
    axis.set(xlabel="predicted probability that model a wins", ylabel="observed share")
    figure.legend(loc="outside lower center", ncols=2)
    set_title(figure, title)
    return figure
