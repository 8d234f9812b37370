"""Draw every figure from a few primitives in one style, and save each PNG with a CSV of the numbers it shows.

Call `set_style` once per notebook. Each primitive draws a table; the figure's ``axes`` are the panels in order. Columns
`group` and `by` tell marks of a row, or lines, apart, and `panel` panels; `styles` are colour, marker and linestyle by
value of `group` or `by`; `reference` is the value of a grey line, or names and values of several for the legend.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import Bbox

from routing.files import write_atomically
from routing.runner.provenance import check_data_kind

DPI = 150
CHARACTERS_PER_INCH = 12  # of a title at 11 points
DATA_LABEL = "routing-data-label"

Style = Mapping[str, object]
Reference = float | Mapping[str, float] | None
# seaborn's "colorblind" palette, with black and grey for two baselines; no router is told by its colour alone
ROUTER_STYLES: dict[str, Style] = {
    "random": {"color": "#949494", "marker": "x", "linestyle": ":"},
    "bradley_terry": {"color": "#56b4e9", "marker": "o", "linestyle": (0, (10, 3))},
    "similarity_weighting": {"color": "#de8f05", "marker": "s", "linestyle": "--"},
    "matrix_factorization": {"color": "#029e73", "marker": "^", "linestyle": "-."},
    "bert": {"color": "#0173b2", "marker": "D", "linestyle": (0, (8, 2, 3, 2))},
    "causal_llm": {"color": "#cc78bc", "marker": "v", "linestyle": (0, (3, 1, 1, 1, 1, 1))},
    "oracle": {"color": "#000000", "marker": "*", "linestyle": "-"},
}
SPELLED = {"bradley_terry": "Bradley-Terry", "rao_kupper": "Rao-Kupper", "davidson": "Davidson"}
SPELLED |= {"bert": "BERT", "causal_llm": "causal LLM", "held_out": "held-out"}


def set_style() -> None:
    """Set seaborn's and matplotlib's defaults for all figures: palette, sizes, spines, layout, font."""
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", font="DejaVu Sans")
    layout = {"figure.dpi": DPI, "savefig.dpi": DPI, "figure.constrained_layout.use": True}
    sizes = {"axes.titlesize": 10, "axes.labelsize": 10, "xtick.labelsize": 9, "ytick.labelsize": 9}
    axes = {"axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}
    numbers = {"axes.formatter.useoffset": False, "axes.formatter.limits": (-5, 7), "mathtext.fontset": "dejavusans"}
    lines = {"legend.fontsize": 9, "legend.frameon": False, "lines.linewidth": 1.6, "lines.markersize": 5}
    matplotlib.rcParams.update(layout | sizes | axes | numbers | lines)


def spell(name: object) -> str:
    """Return a key such as ``rao_kupper`` as a reader expects it."""
    return SPELLED.get(str(name), str(name).replace("_", " "))


def label_line_ends(axis: Axes, ends: Sequence[tuple[float, float, str, object]]) -> None:
    """Write a text right of the last point of each line, in its colour; texts that would touch are moved apart.

    `ends` are x, y, text and colour; the axes have their final limits, and the figure its title.
    """
    axis.figure.draw_without_rendering()  # lays the axes out, which sets how high a point stands
    points = axis.transData.transform([(x, y) for x, y, _, _ in ends])[:, 1] * 72 / axis.figure.dpi
    order = np.argsort(points, kind="stable")
    heights = points[order]
    for _ in range(100):  # each pass moves two that are too close by half of what they lack
        lack = np.maximum(12.0 - np.diff(heights), 0) / 2  # points that a label takes
        heights = heights - np.append(lack, 0) + np.append(0, lack)
    for height, number in zip(heights, order, strict=True):
        x, y, text, color = ends[number]
        style = {"textcoords": "offset points", "va": "center", "color": color, "fontsize": 9}
        axis.annotate(text, (x, y), (7, height - points[number]), annotation_clip=False, **style)


def _choose_styles(names: Iterable[object], styles: Mapping[str, Style] | None) -> dict[object, Style]:
    """Return the style of each distinct name, in order."""
    known, dashes = {**ROUTER_STYLES, **(styles or {})}, ["-", "--", "-.", ":"]
    by_position = [{"color": f"C{n}", "marker": "osD^vP*"[n % 7], "linestyle": dashes[n % 4]} for n in range(10)]
    return {name: known.get(name, by_position[n % 10]) for n, name in enumerate(dict.fromkeys(names))}


def _split_panels(
    table: pd.DataFrame, panel: str | None, size: tuple[float, float], margin: tuple[float, float], **sharing: object
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """Return a figure, and axes and rows of each panel: in one line up to four, else three per line."""
    parts = [("", table)] if panel is None else list(table.groupby(panel, sort=False))
    columns = len(parts) if len(parts) <= 4 else 3
    lines = -(-len(parts) // columns)
    figsize = (size[0] * columns + margin[0], size[1] * lines + margin[1])
    figure, axes = plt.subplots(lines, columns, figsize=figsize, squeeze=False, **sharing)
    for axis in axes.flat[len(parts) :]:
        axis.remove()
    for axis, (name, _) in zip(figure.axes, parts, strict=True):
        axis.set_title(textwrap.fill(spell(name), int(size[0] * CHARACTERS_PER_INCH)))
    return figure, [(axis, part) for axis, (_, part) in zip(figure.axes, parts, strict=True)]


def _draw_reference(draw_line: Callable[..., object], reference: Reference) -> None:
    if isinstance(reference, Mapping):
        for number, (name, value) in enumerate(reference.items()):
            draw_line(value, color="0.35", linewidth=1, linestyle=["--", ":", "-."][number % 3], label=name)
    elif reference is not None:
        draw_line(reference, color="0.7", linewidth=1, zorder=0)


def _finish(figure: Figure, title: str) -> Figure:
    """Set the title and one legend below the axes; an axis that spans no more than rounding errors is widened."""
    entries: dict[str, object] = {}
    for axis in figure.axes:
        for get, put in ((axis.get_xlim, axis.set_xlim), (axis.get_ylim, axis.set_ylim)):
            if np.ptp(get()) < 1e-8:
                put(np.mean(get()) - 0.01, np.mean(get()) + 0.01)
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    if entries:
        columns = int(figure.get_figwidth() / (0.65 + 0.08 * max(map(len, entries))))  # inches: a handle, a character
        place = {"loc": "outside lower center", "borderaxespad": 1.4}  # above what `save_figure` writes in the corner
        figure.legend(entries.values(), entries.keys(), ncols=max(1, min(columns, len(entries))), **place)
    lines = textwrap.fill(title, int(figure.get_figwidth() * CHARACTERS_PER_INCH))
    figure.suptitle(lines, x=0.01, ha="left", fontsize=11)
    return figure


def write_number(value: float) -> str:
    """Return a number with three significant digits, from 1,000 on in whole numbers; a rounding error is 0."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{round(value, 10) + 0.0:.3g}"


def plot_rows(
    table: pd.DataFrame, label: str, title: str, *, reference: Reference = None, group: str | None = None,
    panel: str | None = None, styles: Mapping[str, Style] | None = None, log_x: bool = False,
) -> Figure:  # fmt: skip
    """Draw one row per name, from top to bottom: estimate, interval, and the value right of it.

    The table has name, estimate, low and high; a column ``text`` is written in the place of the value.
    """
    names, marks = list(dict.fromkeys(table["name"])), _choose_styles(table[group] if group else [None], styles)
    shifts = dict(zip(marks, np.linspace(0.25, -0.25, len(marks)) if len(marks) > 1 else [0.0], strict=True))
    height = max(0.36, 0.21 * len(marks)) * len(names) + 0.3
    figure, panels = _split_panels(table, panel, (3.4 if panel else 6, height), (2, 1.1), sharey=True)
    for axis, part in panels:
        axis.set(xlabel=label, xscale="log" if log_x else "linear")
        axis.margins(x=0.14)
        if panel and not log_x:
            axis.locator_params(axis="x", nbins=4)  # more would overlap in a narrow panel
        _draw_reference(axis.axvline, reference)
        for row in part.to_dict("records"):
            kind, x, high = row[group] if group else None, row["estimate"], row.get("high", np.nan)
            y = shifts[kind] - names.index(row["name"])
            axis.plot([row.get("low", np.nan), high], [y, y], color=marks[kind]["color"])
            axis.plot(x, y, label=spell(kind) if group else None, zorder=3, **{**marks[kind], "linestyle": ""})
            text = row.get("text", "" if np.isnan(x) else write_number(x))
            end = float(np.nan_to_num(np.fmax(x, high)))
            axis.annotate(text, (end, y), (6, 0), textcoords="offset points", va="center", fontsize=8)
        axis.tick_params(axis="y", length=0)
    axis.set_yticks(-np.arange(len(names)), [spell(name) for name in names])
    axis.set_ylim(0.5 - len(names), 0.5)
    return _finish(figure, title)


def plot_lines(
    table: pd.DataFrame, x: str, y: str, labels: tuple[str, str], title: str, *, by: str | None = None,
    panel: str | None = None, styles: Mapping[str, Style] | None = None, log_x: bool = False, log_y: bool = False,
    reference: Reference = None,
) -> Figure:  # fmt: skip
    """Draw a line per value of `by`, labelled at its end; in a legend where there are panels or ends lie apart.

    With low and high in the table lines have bands; these widen the vertical axis by no more than its range without
    them on either side.
    """
    marks = _choose_styles(table[by] if by else [None], styles)
    direct = by and not panel and table.groupby(by)[x].last().nunique() == 1
    figure, panels = _split_panels(table, panel, (3.9, 3.4) if panel else (6.4, 3.7), (0.6, 0.7))
    ends = []
    for axis, part in panels:
        axis.set(xlabel=labels[0], xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
        _draw_reference(axis.axhline, reference)
        lines = list(part.groupby(by, sort=False)) if by else [(None, part)]
        for name, line in lines:
            style = {"markevery": max(1, len(line) // 10), **marks[name]}
            axis.plot(line[x], line[y], label=spell(name) if by and not direct else None, **style)
            ends.append((line[x].iloc[-1], line[y].iloc[-1], spell(name), style["color"]))
        if pd.api.types.is_integer_dtype(table[x]) and not log_x:
            axis.xaxis.get_major_locator().set_params(integer=True)
        (low, high), room = axis.get_ylim(), 0 if log_y else np.ptp(axis.get_ylim())
        for name, line in lines if "low" in table else []:
            band = {"color": marks[name]["color"], "alpha": 0.15, "linewidth": 0}
            axis.fill_between(line[x], line["low"], line["high"], **band)
        if room:
            axis.set_ylim(max(axis.get_ylim()[0], low - room), min(axis.get_ylim()[1], high + room))
    panels[0][0].set_ylabel(labels[1])
    _finish(figure, title)
    if direct:
        label_line_ends(panels[0][0], ends)
    return figure


def plot_heatmaps(matrices: Mapping[str, pd.DataFrame], label: str, title: str, **scale: object) -> Figure:
    """Draw matrices side by side on one colour scale; `scale` goes to `seaborn.heatmap`, ``annot`` widens cells."""
    lines, columns = next(iter(matrices.values())).shape
    width, height = (0.85, 0.4) if "annot" in scale else (0.22, 0.22)
    size = (len(matrices) * (width * columns + 0.4) + 3.4, height * lines + 2.4)
    figure, axes = plt.subplots(1, len(matrices), figsize=size, squeeze=False, sharey=True)
    for axis, (name, matrix) in zip(axes[0], matrices.items(), strict=True):
        sns.heatmap(matrix, ax=axis, cbar=axis is axes[0][-1], cbar_kws={"label": label, "shrink": 0.7}, **scale)
        axis.set(xlabel="", ylabel="", title=name)
        axis.tick_params(axis="both", labelsize=8, length=0)
        plt.setp(axis.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
        plt.setp(axis.get_yticklabels(), rotation=0)
    return _finish(figure, title)


def plot_bars(table: pd.DataFrame, label: str, title: str, *, by: str) -> Figure:
    """Draw one horizontal bar per name, in parts by `by`, each with its value where it is wide enough.

    The table has name and estimate; low and high, where it has them, are drawn for the first part.
    """
    names, parts = list(dict.fromkeys(table["name"])), list(dict.fromkeys(table[by]))
    figure, axis = plt.subplots(figsize=(8.5, 0.42 * len(names) + 1.7))
    left, place = np.zeros(len(names)), -np.arange(len(names))
    enough = 0.03 * table.groupby("name")["estimate"].sum().max()
    colors = sns.color_palette("colorblind" if len(parts) <= 10 else "cividis", len(parts))
    for part, color in zip(parts, colors, strict=True):
        chosen = table[table[by] == part].set_index("name").reindex(names)
        width = chosen["estimate"].fillna(0).to_numpy()
        bars = axis.barh(place, width, left=left, color=color, edgecolor="white", label=spell(part))
        texts = [write_number(value) if value >= enough else "" for value in width]
        contrast = "white" if np.mean(color) < 0.45 else "black"
        axis.bar_label(bars, texts, fontsize=8, label_type="center", color=contrast)
        if "low" in chosen and part == parts[0]:
            axis.hlines(place - 0.3, chosen["low"], chosen["high"], color="black", linewidth=1.2)
        left = left + width
    axis.set_yticks(place, [spell(name) for name in names])
    axis.set(xlabel=label)
    axis.margins(x=0, y=0.02)
    return _finish(figure, title)


def plot_points(
    table: pd.DataFrame, x: str, y: str, labels: tuple[str, str], title: str, *, name: str | None = None,
    color: tuple[str, str] | None = None, equal: bool = False,
) -> Figure:  # fmt: skip
    """Draw one point per row; names are written in the order of rows, as far as they do not lie on each other.

    Each point has a vertical interval where the table has low and high. `color` is a column and the label of its scale;
    `equal` draws the line on which x and y are equal.
    """
    figure, axis = plt.subplots(figsize=(7.2, 5))
    if equal:
        axis.axline((table[x].mean(), table[x].mean()), slope=1, color="0.7", zorder=0, label="equal")
    if "low" in table:
        axis.vlines(table[x], table["low"], table["high"], color="C0", linewidth=0.8)
    shade = {"c": table[color[0]], "cmap": "cividis"} if color else {"color": "C0"}
    points = axis.scatter(table[x], table[y], s=24, zorder=3, **shade)
    if color:
        figure.colorbar(points, label=color[1])
    axis.set(xlabel=labels[0], ylabel=labels[1])
    axis.margins(0.12)
    _finish(figure, title)
    figure.draw_without_rendering()  # where the axes lie decides which names meet
    written: set[str] = set()
    taken = [Bbox.from_bounds(*(place - 4), 8, 8) for place in axis.transData.transform(table[[x, y]])]
    rows = table[table[name] != ""].to_dict("records") if name else []
    for row, (side, shift) in product(rows, (("left", 5), ("right", -5))):
        style = {"textcoords": "offset points", "fontsize": 7.5, "ha": side}
        text = axis.annotate(row[name], (row[x], row[y]), (shift, 4), **style)
        box = text.get_window_extent()
        inside = axis.bbox.x0 < box.x0 and box.x1 < axis.bbox.x1 and box.y1 < axis.bbox.y1
        if row[name] in written or not inside or any(box.overlaps(other) for other in taken):
            text.remove()
        else:
            written.add(row[name])
            taken.append(box)
    return figure


def save_figure(figure: Figure, table: pd.DataFrame, name: str, folder: Path, data: str) -> None:
    """Write ``<name>.png`` and ``<name>.csv``, the table that is plotted, and show the PNG where a notebook runs.

    The same input gives the same bytes. The figure is closed: Jupyter would draw it twice more, to show it.
    Floats have 10 significant digits; a named index becomes the first columns. `data`, "real" or "simulated", is
    written in the corner. Raises a ValueError for a name with other characters than letters, digits, "_" and "-", an
    empty table, an unnamed index of labels (which the CSV would lose), or another kind of data.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"figure name {name!r}: use letters, digits, '_' and '-' only")
    if table.empty:
        raise ValueError(f"figure {name}: the table behind it is empty")
    named = all(level is not None for level in table.index.names)
    if not named and not pd.api.types.is_integer_dtype(table.index.dtype):
        raise ValueError(f"figure {name}: the table's index has labels but no name; name it or call reset_index")
    data = check_data_kind(data)
    for label in figure.findobj(lambda artist: artist.get_gid() == DATA_LABEL):  # of an earlier call
        label.remove()
    place = {"ha": "right", "va": "bottom", "fontsize": 7, "color": "0.35"}
    figure.text(0.995, 0.005, f"data: {data}", gid=DATA_LABEL, **place)
    if isinstance(engine := figure.get_layout_engine(), ConstrainedLayoutEngine):
        label_height = 0.15 / figure.get_figheight()  # 0.15 inches: one line of 7 points and some air
        engine.set(rect=(0, label_height, 1, 1 - label_height))
    png = io.BytesIO()
    title = " ".join(figure.get_suptitle().split())  # which pages show as the figure's caption
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None, "Title": title})
    write_atomically(folder / f"{name}.png", png.getvalue())
    csv = table.to_csv(index=named, float_format="%.10g", lineterminator="\n")
    write_atomically(folder / f"{name}.csv", csv)
    plt.close(figure)
    if get_ipython():
        display(Image(png.getvalue(), alt=title))
