"""Fill the README's numbers from the CSVs in ``results/``: ``python -m routing.studies.readme``, after a full run.

A number is written as ``0.689<!--07_two_models/gold_labels.csv|benchmark=MMLU|metric=apgr|estimate|.3f-->``: file, the
conditions that pick one row, its column, and how it is formatted. The table of the paper's figures beside ours stands
between ``<!--paper and ours-->`` and ``<!--end-->``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from routing.studies.inputs import PAIR
from routing.studies.paper import read_paper_tables

FOLDER = Path(__file__).parents[2] / "results"
README = FOLDER.parent / "README.md"
NUMBER = re.compile(r"(?P<shown>[-+−]?\d[\d,]*(?:\.\d+)?%?|\?)<!--(?P<source>[^|<>]+\.csv(?:\|[^|<>]+)+)-->")
TABLE = re.compile(r"(?<=<!--paper and ours-->\n).*?(?=<!--end-->)", re.DOTALL)
ROUTERS = {
    "similarity_weighting": "similarity weighting",
    "matrix_factorization": "matrix factorization",
    "bert": "BERT",
    "causal_llm": "causal LLM",
}


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
    """The number that a marker names, formatted.

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
    """APGR of the paper and of ours, a row a training set and router, a column a benchmark."""
    both = pd.read_csv(folder / "tables" / "paper_vs_ours.csv")
    both = both[both["metric"] == "apgr_trapezoid"]
    benchmarks = list(dict.fromkeys(both["benchmark"]))
    lines = [
        "| learned from | router | " + " | ".join(f"{name}: paper, ours" for name in benchmarks) + " |",
        "| --- | --- | " + "--- | " * len(benchmarks),
    ]
    for (training_data, router), rows in both.groupby(["training_data", "router"], sort=False):
        cells = []
        for name in benchmarks:
            (row,) = rows[rows["benchmark"] == name].itertuples()
            paper = f"{row.paper:.3f}, " if row.paper == row.paper else ""
            cells.append(f"{paper}**{row.estimate:.3f}** [{row.low:.3f}, {row.high:.3f}]")
        lines.append(f"| {training_data} | {ROUTERS[router]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def fill(text: str, folder: Path = FOLDER) -> str:
    """The text with every marked number, and the table, as the CSVs have them."""
    text = NUMBER.sub(lambda match: f"{look_up(match['source'], folder)}<!--{match['source']}-->", text)
    return TABLE.sub(lambda _: compare_table(folder), text)


if __name__ == "__main__":
    write_tables()
    README.write_text(fill(README.read_text(encoding="utf-8")), encoding="utf-8")
