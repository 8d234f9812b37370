"""Grids of notebook parameters: every combination of some values, each a run of its own."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from routing.runner.provenance import Outcome


def read_grid(options: Sequence[str]) -> dict[str, list[str]]:
    """Values of each parameter from options such as ``seed=0,1,2``.

    Raises
    ------
    ValueError
        An option of another form, a parameter named twice, or a value given twice.
    """
    grid: dict[str, list[str]] = {}
    for option in options:
        name, _, text = option.partition("=")
        values = [value.strip() for value in text.split(",")]
        if not name.isidentifier() or not all(values):
            raise ValueError(f"--grid {option}: write name=value,value,...")
        if name in grid:
            raise ValueError(f"--grid {name} is given twice; name all its values in one")
        if len(set(values)) < len(values):
            raise ValueError(f"--grid {option}: a value is given twice")
        grid[name] = values
    return grid


def grid_points(grid: Mapping[str, Sequence[str]], parameters: Mapping[str, str]) -> list[dict[str, str]]:
    """Every combination of the values of a grid, the last parameter changing fastest; one empty point without a grid.

    Raises
    ------
    ValueError
        A parameter that is set for all points too, or two points that would have the same folder.
    """
    for name in grid:
        if name in parameters:
            raise ValueError(f"parameter {name} is given by both -p and --grid")
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    names = [point_name(point) for point in points]
    if len({name.lower() for name in names}) < len(names):  # a file system may not tell cases apart
        raise ValueError("two points of the grid have the same folder name; give their values other names")
    return points


def point_name(point: Mapping[str, str]) -> str:
    """The name of a point's folder, ``seed=0,encoder=a``; what a file name cannot hold becomes "_"."""
    return ",".join(f"{name}={re.sub(r'[^A-Za-z0-9.+-]', '_', value)}" for name, value in point.items())


def summarise(points: Sequence[Mapping[str, str]], outcomes: Sequence[Sequence[Outcome]]) -> pd.DataFrame:
    """One row a point and notebook: the point's parameters, the folder, the notebook, how it ended and its seconds."""
    return pd.DataFrame(
        [
            {
                **point,
                "folder": point_name(point),
                "notebook": outcome.name,
                "status": outcome.status,
                "seconds": outcome.seconds,
                "failure": outcome.failure if outcome.error else "",
            }
            for point, ended in zip(points, outcomes, strict=True)
            for outcome in ended
        ]
    )
