"""Fill the README's numbers from the CSVs in ``results/``: ``python -m routing.studies.readme``, after a full run.

A number in prose is written as ``0.689<!--07_two_models/gold_labels.csv|benchmark=MMLU|metric=apgr|estimate|.3f-->``:
file, the conditions that pick one row, its column, and its format. A table cannot hold such comments, whose bars would
be read as borders of cells. So tables are filled whole: that of the paper's numbers next to ours is written between
``<!--paper and ours-->`` and ``<!--end-->``; in that of the notebooks, between ``<!--notebooks-->`` and ``<!--end-->``,
the last cell of each row is.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from routing.studies.inputs import PAIR
from routing.studies.paper import read_paper_tables
from routing.studies.plotting import spell

FOLDER = Path(__file__).parents[2] / "results"
README = FOLDER.parent / "README.md"
NUMBER = re.compile(r"(?P<shown>[-+−]?\d[\d,]*(?:\.\d+)?%?|\?)<!--(?P<source>[^|<>]+\.csv(?:\|[^|<>]+)+)-->")
TABLE = re.compile(r"(?<=<!--paper and ours-->\n).*?(?=<!--end-->)", re.DOTALL)
NOTEBOOKS = re.compile(r"(?<=<!--notebooks-->\n).*?(?=<!--end-->)", re.DOTALL)
MINUTES = re.compile(r"^(\| \[(\d\d)\].*\| )[^|]*\|$", re.MULTILINE)  # of a row, but for its last cell


def write_tables(folder: Path = FOLDER) -> None:
    """Write ``minutes.csv``, how long each notebook ran, and ``paper_best.csv``, the paper's best, into ``tables``."""
    manifests = sorted(folder.glob("[0-9][0-9]_*/manifest.json"))
    seconds = {path.parent.name[:2]: json.loads(path.read_text(encoding="utf-8"))["seconds"] for path in manifests}
    table = pd.DataFrame({"notebook": list(seconds), "minutes": [value / 60 for value in seconds.values()]})
    table.to_csv(folder / "tables" / "minutes.csv", index=False, float_format="%.2f", lineterminator="\n")
    paper = read_paper_tables()
    best = paper[paper["strong"] == PAIR[0]].groupby("benchmark", sort=False)["apgr"].max().reset_index()
    best.to_csv(folder / "tables" / "paper_best.csv", index=False, lineterminator="\n")


def look_up(source: str, folder: Path = FOLDER) -> str:
    """Return the number that a marker names, formatted.

    Raises
    ------
    ValueError
        The conditions pick no value or several; the message gives the marker.
    """
    file, *conditions, column, style = source.split("|")
    table = pd.read_csv(folder / file, dtype={"notebook": "str"})
    for condition in conditions:
        name, value = condition.split("=", 1)
        values = table[name]
        table = (
            table[values == float(value)] if pd.api.types.is_float_dtype(values) else table[values.astype(str) == value]
        )
    values = table[column].unique()
    if len(values) != 1:
        raise ValueError(f"{len(values)} values instead of one for {source}")
    return format(values[0], style)


def compare_table(folder: Path = FOLDER) -> str:
    """Return a table of APGR, the paper's and ours, one row per training set and router, one column per benchmark."""
    both = pd.read_csv(folder / "tables" / "paper_vs_ours.csv")
    both = both[both["metric"] == "apgr_trapezoid"]
    benchmarks = list(dict.fromkeys(both["benchmark"]))
    lines = [
        "| learned from | router | " + " | ".join(f"{name}: paper, ours" for name in benchmarks) + " |",
        "|" + " --- |" * (2 + len(benchmarks)),
    ]
    for (training_data, router), rows in both.groupby(["training_data", "router"], sort=False):
        cells = []
        for name in benchmarks:
            (row,) = rows[rows["benchmark"] == name].itertuples()
            paper = f"{row.paper:.3f}, " if row.paper == row.paper else ""
            cells.append(f"{paper}**{row.estimate:.3f}** [{row.low:.3f}, {row.high:.3f}]")
        lines.append(f"| {training_data} | {spell(router)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def fill_minutes(table: str, folder: Path = FOLDER) -> str:
    """Return the table of notebooks with the minutes of each as ``minutes.csv`` has them."""

    def replace(row: re.Match) -> str:
        return f"{row[1]}{look_up(f'tables/minutes.csv|notebook={row[2]}|minutes|.1f', folder)} |"

    return MINUTES.sub(replace, table)


def fill(text: str, folder: Path = FOLDER) -> str:
    """Return the text with every marked number, and the tables, as the CSVs have them."""
    text = NUMBER.sub(lambda match: f"{look_up(match['source'], folder)}<!--{match['source']}-->", text)
    text = NOTEBOOKS.sub(lambda match: fill_minutes(match[0], folder), text)
    return TABLE.sub(lambda _: compare_table(folder), text)


if __name__ == "__main__":
    write_tables()
    README.write_text(fill(README.read_text(encoding="utf-8")), encoding="utf-8")
