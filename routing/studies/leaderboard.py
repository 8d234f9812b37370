"""The figures of notebook 01: each draws a table, and the table is what `save_figure` writes beside it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from routing.studies.plotting import set_title


def _highlight(models: pd.Index, highlighted: tuple[str, ...]) -> list[str]:
    return ["C3" if model in highlighted else "C0" for model in models]


def plot_leaderboard(table: pd.DataFrame, title: str, highlighted: tuple[str, ...] = ()) -> Figure:
    """Rating and interval of every model, strongest first.

    Parameters
    ----------
    table : DataFrame, shape (n_models, 3), indexed by model
        ``rating_elo``, ``low``, ``high`` in Elo points, sorted.
    highlighted : names drawn in another colour and with a diamond.
    """
    figure, axis = plt.subplots(figsize=(10, 6))
    rank = np.arange(1, len(table) + 1)
    error = [table["rating_elo"] - table["low"], table["high"] - table["rating_elo"]]
    axis.errorbar(rank, table["rating_elo"], yerr=error, fmt="none", ecolor="0.6", linewidth=1.2)
    for position, (model, row) in zip(rank, table.iterrows(), strict=True):
        marked = model in highlighted
        axis.plot(
            position,
            row["rating_elo"],
            "D" if marked else "o",
            color="C3" if marked else "C0",
            markersize=5 if marked else 3,
        )
    marked_positions = {table.index.get_loc(model) for model in highlighted}
    regular = [p for p in range(0, len(table), 8) if all(abs(p - m) > 4 for m in marked_positions)]
    labelled = marked_positions.union(regular)
    for position in sorted(labelled):
        row, marked = table.iloc[position], table.index[position] in highlighted
        axis.annotate(
            f"{position + 1}. {table.index[position]}",
            (position + 1, row["high"]),
            (4, 5),
            textcoords="offset points",
            fontsize=8,
            color="C3" if marked else "0.2",
            rotation=22,
        )
    axis.set(xlabel="rank", ylabel="rating (Elo points, 95 % interval)")
    set_title(figure, title)
    axis.set_xlim(-1, len(table) + 16)
    axis.set_ylim(top=axis.get_ylim()[1] + 0.08 * np.ptp(axis.get_ylim()))
    return figure


def plot_pair_matrices(matrices: dict[str, pd.DataFrame], title: str, value: str, **scale: object) -> Figure:
    """One heat map a matrix of models against models, side by side on one colour scale."""
    count = len(matrices)
    figure, axes = plt.subplots(1, count, figsize=(6.2 * count, 6.2), squeeze=False, sharey=True)
    for number, (axis, (name, matrix)) in enumerate(zip(axes[0], matrices.items(), strict=True)):
        last = number == count - 1
        sns.heatmap(matrix, ax=axis, square=True, cbar=last, cbar_kws={"label": value, "shrink": 0.6}, **scale)
        axis.set(xlabel="", ylabel="", title=name)
        axis.tick_params(axis="both", labelsize=7, length=0)
        axis.tick_params(axis="x", rotation=90)
    set_title(figure, title)
    return figure


def plot_scores(scores: pd.Series, label: str, title: str, highlighted: tuple[str, ...] = ()) -> Figure:
    """A bar a model, in the order given."""
    figure, axis = plt.subplots(figsize=(7.5, 0.2 * len(scores) + 1))
    axis.barh(scores.index[::-1], scores[::-1], color=_highlight(scores.index[::-1], highlighted))
    axis.tick_params(axis="y", labelsize=7.5, length=0)
    axis.set(xlabel=label)
    set_title(figure, title)
    axis.margins(y=0.01)
    return figure


def plot_tie_models(table: pd.DataFrame, title: str) -> Figure:
    """Observed share of ties, and that each model predicts, against the rating gap of the pair.

    Parameters
    ----------
    table : DataFrame
        ``gap_elo``, ``observed``, ``low``, ``high``, and a column for each model of ties.
    """
    figure, axis = plt.subplots()
    error = [table["observed"] - table["low"], table["high"] - table["observed"]]
    axis.errorbar(table["gap_elo"], table["observed"], yerr=error, fmt="ko", label="observed", zorder=3)
    axis.annotate(
        "observed",
        (table["gap_elo"].iloc[-2], table["observed"].iloc[-2]),
        (-8, -12),
        textcoords="offset points",
        ha="right",
    )
    models = [name for name in table.columns if name not in ("gap_elo", "observed", "low", "high", "n_battles")]
    for number, name in enumerate(models):
        axis.plot(table["gap_elo"], table[name], ["-", "--", ":"][number], color=f"C{number}")
        axis.annotate(
            name,
            (table["gap_elo"].iloc[-1], table[name].iloc[-1]),
            (6, 0),
            textcoords="offset points",
            color=f"C{number}",
            va="center",
        )
    axis.set(xlabel="rating gap of the two models (Elo points)", ylabel="share of ties", ylim=(0, None))
    set_title(figure, title)
    axis.margins(x=0.18)
    return figure


def plot_agreement(table: pd.DataFrame, x: str, y: str, labels: tuple[str, str], title: str) -> Figure:
    """One estimate against another, a point a model, with the line on which they agree."""
    figure, axis = plt.subplots(figsize=(5.2, 4.6))
    ends = [table[[x, y]].min().min(), table[[x, y]].max().max()]
    axis.plot(ends, ends, color="0.7", zorder=0)
    axis.annotate("equal", (ends[1], ends[1]), (-4, -12), textcoords="offset points", color="0.5", ha="right")
    axis.plot(table[x], table[y], "o", markersize=4, alpha=0.8)
    axis.set(xlabel=labels[0], ylabel=labels[1])
    set_title(figure, title)
    return figure


def plot_online_elo(orders: pd.DataFrame, likelihood: pd.DataFrame, title: str) -> Figure:
    """Online Elo under several orders of the same battles, beside the maximum-likelihood interval.

    Parameters
    ----------
    orders : DataFrame, shape (n_models, n_orders)
        Online Elo, one column for each order of the rows.
    likelihood : DataFrame, shape (n_models, 3)
        ``rating_elo``, ``low``, ``high``, on the same scale and the same index.
    """
    figure, axis = plt.subplots(figsize=(8, 0.32 * len(orders) + 1.4))
    position = np.arange(len(orders))[::-1]
    for column in orders:
        axis.plot(orders[column], position + 0.15, "|", color="C1", markersize=9)
    error = [likelihood["rating_elo"] - likelihood["low"], likelihood["high"] - likelihood["rating_elo"]]
    axis.errorbar(likelihood["rating_elo"], position - 0.15, xerr=error, fmt="o", color="C0", markersize=4)
    top = orders.iloc[0]
    axis.annotate(
        "online Elo, one mark an order of rows",
        (top.max(), position[0] + 0.15),
        (8, 3),
        textcoords="offset points",
        color="C1",
    )
    axis.annotate(
        "maximum likelihood, 95 %",
        (likelihood["high"].iloc[0], position[0] - 0.15),
        (8, -10),
        textcoords="offset points",
        color="C0",
    )
    axis.set_yticks(position, orders.index)
    axis.set(xlabel="rating (Elo points)")
    set_title(figure, title)
    axis.margins(x=0.12)
    return figure


def plot_tiers(table: pd.DataFrame, title: str) -> Figure:
    """Ratings as points in one line a tier.

    Parameters
    ----------
    table : DataFrame, indexed by model
        ``rating_elo`` and ``tier``.
    """
    figure, axis = plt.subplots(figsize=(9, 4.2))
    for tier, part in table.groupby("tier"):
        axis.plot(part["rating_elo"], np.full(len(part), tier), "o", markersize=4, color=f"C{tier % 2}")
        best = part["rating_elo"].idxmax()
        axis.annotate(
            f"{len(part)} models, best {best}",
            (part["rating_elo"].max(), tier),
            (8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axis.set_yticks(range(int(table["tier"].max()) + 1))
    axis.invert_yaxis()
    axis.set(xlabel="rating (Elo points)", ylabel="tier")
    set_title(figure, title)
    axis.set_xlim(right=axis.get_xlim()[1] + 0.3 * np.ptp(axis.get_xlim()))
    return figure
