"""One look for every figure, and a file format that can be checked: each PNG has its numbers beside it.

`set_style` is called once by a notebook. A router has the same colour, marker and line in every figure, so that
none is told apart by colour alone.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from routing.files import write_atomically
from routing.runner.provenance import check_data_kind

DPI = 150
CHARACTERS_PER_INCH = 12  # of a title at 11 points
DATA_LABEL = "routing-data-label"
LABEL_HEIGHT = 12.0  # points that a label at a line's end takes

# seaborn's "colorblind" palette, with black and grey for the two baselines that frame every comparison
ROUTER_STYLES: dict[str, dict[str, object]] = {
    "random": {"color": "#949494", "marker": "x", "linestyle": ":"},
    "bradley_terry": {"color": "#56b4e9", "marker": "o", "linestyle": (0, (10, 3))},
    "similarity_weighting": {"color": "#de8f05", "marker": "s", "linestyle": "--"},
    "matrix_factorization": {"color": "#029e73", "marker": "^", "linestyle": "-."},
    "bert": {"color": "#0173b2", "marker": "D", "linestyle": (0, (8, 2, 3, 2))},
    "causal_llm": {"color": "#cc78bc", "marker": "v", "linestyle": (0, (3, 1, 1, 1, 1, 1))},
    "oracle": {"color": "#000000", "marker": "*", "linestyle": "-"},
}


def set_style() -> None:
    """Set seaborn's and matplotlib's defaults for all figures: palette, sizes, spines, layout, font."""
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", font="DejaVu Sans")
    matplotlib.rcParams.update(
        {
            "figure.figsize": (6.4, 4.0),
            "figure.dpi": DPI,
            "savefig.dpi": DPI,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
            "lines.markersize": 5,
            "mathtext.fontset": "dejavusans",
        }
    )


def set_title(figure: Figure, title: str) -> None:
    """A sentence as title, from the figure's left edge, broken into lines that its width holds."""
    lines = textwrap.fill(title, int(figure.get_figwidth() * CHARACTERS_PER_INCH))
    figure.suptitle(lines, x=0.01, ha="left", fontsize=11)


def label_line_ends(axis: Axes, ends: Sequence[tuple[float, float, str, object]]) -> None:
    """A text right of the last point of each line, in its colour; texts that would touch are moved apart.

    Parameters
    ----------
    axis : Axes
        With its final limits, and its figure with its title.
    ends : sequence of (x, y, text, colour)
        x and y in data units.
    """
    axis.figure.draw_without_rendering()  # lays the axes out, which sets how high a point stands
    points = axis.transData.transform([(x, y) for x, y, _, _ in ends])[:, 1] * 72 / axis.figure.dpi
    order = np.argsort(points, kind="stable")
    heights = points[order]
    for _ in range(100):  # each pass moves two that are too close by half of what they lack
        lack = np.maximum(LABEL_HEIGHT - np.diff(heights), 0) / 2
        heights = heights - np.append(lack, 0) + np.append(0, lack)
    for height, number in zip(heights, order, strict=True):
        x, y, text, color = ends[number]
        style = {"textcoords": "offset points", "va": "center", "color": color, "fontsize": 9}
        axis.annotate(text, (x, y), (7, height - points[number]), annotation_clip=False, **style)


def _label_data(figure: Figure, data: str) -> None:
    """Write ``data: ...`` into the bottom right corner, below all axes; once, however often a figure is saved."""
    for text in list(figure.texts):
        if text.get_gid() == DATA_LABEL:
            text.remove()
    figure.text(
        0.995,
        0.005,
        f"data: {data}",
        ha="right",
        va="bottom",
        fontsize=7,
        color="0.35",
        gid=DATA_LABEL,
    )
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        label_height = 0.15 / figure.get_figheight()  # 0.15 inches: one line of 7 points and some air
        engine.set(rect=(0, label_height, 1, 1 - label_height))


def save_figure(figure: Figure, table: pd.DataFrame, name: str, folder: Path, data: str) -> None:
    """Write ``<name>.png`` and, beside it, ``<name>.csv`` with the numbers the figure shows.

    The same figure and table give the same bytes. A named index is written as the first columns; an unnamed
    one is left out.

    Parameters
    ----------
    figure : Figure
    table : DataFrame
        Exactly what is plotted; floats are written with 10 significant digits.
    name : str
        Letters, digits, "_" and "-": both files' name without the ending.
    folder : Path
        An existing folder, such as `Run.folder`.
    data : "real" or "simulated"
        What the figure says in its corner.

    Raises
    ------
    ValueError
        A name with other characters, a table without rows or columns, an unnamed index of labels (which the
        CSV would lose), another kind of data.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"figure name {name!r}: use letters, digits, '_' and '-' only")
    if table.empty:
        raise ValueError(f"figure {name}: the table behind it is empty")
    named = all(level is not None for level in table.index.names)
    if not named and not pd.api.types.is_integer_dtype(table.index.dtype):
        raise ValueError(f"figure {name}: the table's index has labels but no name; name it or call reset_index")
    _label_data(figure, check_data_kind(data))
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    path = folder / f"{name}.png"
    write_atomically(path, png.getvalue())
    write_atomically(path.with_suffix(".csv"), table.to_csv(index=named, float_format="%.10g", lineterminator="\n"))
