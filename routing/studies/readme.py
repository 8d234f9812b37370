"""Fill the README's numbers from the CSVs in ``results/``: ``python -m routing.studies.readme``, after a full run.

A number in prose is written as ``0.689<!--07_two_models/gold_labels.csv|benchmark=MMLU|metric=apgr|estimate|.3f-->``:
file, the conditions that pick one row, its column, and its format. Tables, where bars are borders of cells, stand
between a comment and ``<!--end-->``: the paper's numbers next to ours are written whole, of notebooks the last cell.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from routing.studies.inputs import PAIR
from routing.studies.paper import read_paper_tables, write_markdown
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
    """Return the number that a marker names, formatted; ValueError with the marker where it picks none or several."""
    file, *conditions, column, style = source.split("|")
    table = pd.read_csv(folder / file, dtype={"notebook": "str"})
    for condition in conditions:
        name, value = condition.split("=", 1)
        values = table[name]
        table = table[values == float(value) if pd.api.types.is_float_dtype(values) else values.astype(str) == value]
    values = table[column].unique()
    if len(values) != 1:
        raise ValueError(f"{len(values)} values instead of one for {source}")
    return format(values[0], style)


def compare_table(folder: Path = FOLDER) -> str:
    """Return a table of APGR, the paper's and ours, one row per training set and router, one column per benchmark."""
    both = pd.read_csv(folder / "tables" / "paper_vs_ours.csv")
    both = both[both["metric"] == "apgr_trapezoid"]
    paper = both["paper"].map("{:.3f}, ".format).where(both["paper"].notna(), "")
    ours = [f"**{row.estimate:.3f}** [{row.low:.3f}, {row.high:.3f}]" for row in both.itertuples()]
    both = both.assign(cell=paper + ours, router=both["router"].map(spell), column=both["benchmark"] + ": paper, ours")
    table = both.pivot_table("cell", ["training_data", "router"], "column", "first", sort=False)
    return write_markdown(table.reset_index().rename(columns={"training_data": "learned from"}))


def fill(text: str, folder: Path = FOLDER) -> str:
    """Return the text with every marked number, and the tables, as the CSVs have them."""

    def fill_minutes(row: re.Match) -> str:
        table = pd.read_csv(folder / "tables" / "minutes.csv", dtype={"notebook": "str"}).set_index("notebook")
        minutes = table["minutes"].get(row[2])
        return f"{row[1]}{'no full run yet' if minutes is None else format(minutes, '.1f')} |"

    text = NUMBER.sub(lambda match: f"{look_up(match['source'], folder)}<!--{match['source']}-->", text)
    text = NOTEBOOKS.sub(lambda match: MINUTES.sub(fill_minutes, match[0]), text)
    return TABLE.sub(lambda _: compare_table(folder), text)


if __name__ == "__main__":
    write_tables()
    README.write_text(fill(README.read_text(encoding="utf-8")), encoding="utf-8")
