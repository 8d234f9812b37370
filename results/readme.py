"""Fill the README's numbers from the CSVs beside this file: ``python results/readme.py``.

A number is written as ``0.689<!--07_two_models/gold_labels.csv|benchmark=MMLU|metric=apgr|estimate|.3f-->``: file, the
conditions that pick one row, its column, and how it is formatted. The table of the paper's figures beside ours stands
between ``<!--paper and ours-->`` and ``<!--end-->``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent
README = FOLDER.parent / "README.md"
NUMBER = re.compile(r"(?P<shown>[-+−]?\d[\d,]*(?:\.\d+)?%?|\?)<!--(?P<source>[^|<>]+\.csv(?:\|[^|<>]+)+)-->")
TABLE = re.compile(r"(?<=<!--paper and ours-->\n).*?(?=<!--end-->)", re.DOTALL)
ROUTERS = {
    "similarity_weighting": "similarity weighting",
    "matrix_factorization": "matrix factorization",
    "bert": "BERT",
    "causal_llm": "causal LLM",
}


def look_up(source: str, folder: Path = FOLDER) -> str:
    """The number that a marker names, formatted.

    Raises
    ------
    ValueError
        The conditions pick no row or several; the message gives the marker.
    """
    file, *conditions, column, style = source.split("|")
    table = pd.read_csv(folder / file)
    for condition in conditions:
        name, value = condition.split("=", 1)
        values = table[name]
        table = (
            table[values == float(value)] if pd.api.types.is_float_dtype(values) else table[values.astype(str) == value]
        )
    if len(table) != 1:
        raise ValueError(f"{len(table)} rows instead of one for {source}")
    return format(table[column].iloc[0], style)


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
    README.write_text(fill(README.read_text(encoding="utf-8")), encoding="utf-8")
