"""Fill README.md and REPORT.md from the CSVs in ``results/``: ``python -m routing.studies.readme``, after a full run.

A number in prose is written as ``0.689<!--07_two_models/gold_labels.csv|benchmark=MMLU|metric=apgr|estimate|.3f-->``:
file, the conditions that pick one row, its column, and its format. A bar would end the cell of a table, so tables hold
no marker: what stands between the comment of a block of `BLOCKS` and ``<!--end-->`` is written whole.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd

from routing.battles import swap_battles
from routing.files import write_atomically
from routing.studies import claims, report
from routing.studies.order import original
from routing.studies.paper import write_markdown

FOLDER = Path(__file__).parents[2] / "results"
README = FOLDER.parent / "README.md"
NUMBER = re.compile(r"(?P<shown>[-+−]?\d[\d,]*(?:\.\d+)?%?|\?)<!--(?P<source>[^|<>]+\.csv(?:\|[^|<>]+)+)-->")
BLOCK = re.compile(r"(?<=<!--)(?!end-->)(?P<name>[a-z ]+)-->\n.*?(?=<!--end-->)", re.DOTALL)


def write_tables(folder: Path = FOLDER) -> None:
    """Write into ``tables`` how long each notebook ran (``minutes.csv``) and P(strong wins) of ``four_battles.csv``."""
    manifests = sorted(folder.glob("[0-9][0-9]_*/manifest.json"))
    seconds = {path.parent.name[:2]: json.loads(path.read_text(encoding="utf-8"))["seconds"] for path in manifests}
    table = pd.DataFrame({"notebook": list(seconds), "minutes": [value / 60 for value in seconds.values()]})
    table.to_csv(folder / "tables" / "minutes.csv", index=False, float_format="%.2f", lineterminator="\n")
    orders = {"as shown": original.FOUR_BATTLES, "all swapped": swap_battles(original.FOUR_BATTLES)}
    rows = []
    for order, battles in orders.items():
        for form, overwrite in (("RouteLLM", True), ("fixed", False)):
            p_strong = original.fit_design(original.write_design(battles, original.FOUR_TIERS, overwrite))
            rows.append((order, form, p_strong))
    table = pd.DataFrame(rows, columns=["rows", "form", "p_strong"])
    table.to_csv(folder / "tables" / "four_battles.csv", index=False, float_format="%.6f", lineterminator="\n")


def look_up(source: str, folder: Path = FOLDER) -> str:
    """Return the number that a marker names, formatted; "?" where its file, column or row is not there (yet).

    Raises ValueError with the marker where it picks several numbers.
    """
    file, *conditions, column, style = source.split("|")
    if not (folder / file).is_file():
        return "?"
    table = pd.read_csv(folder / file, dtype={"notebook": "str"})
    for name, value in (condition.split("=", 1) for condition in conditions):
        if name not in table:
            return "?"
        values = table[name]
        table = table[values == float(value) if pd.api.types.is_float_dtype(values) else values.astype(str) == value]
    values = table[column].unique() if column in table else []
    if len(values) > 1:
        raise ValueError(f"{len(values)} values instead of one for {source}")
    return format(values[0], style) if len(values) else "?"


def write_findings(folder: Path = FOLDER) -> str:
    """Return three findings in Markdown, each with its numbers, interval and notebook."""
    paper = claims.judge_claims(folder).query("source == 'paper'")
    judges = lambda _: claims.judge_votes(_, "MT-Bench"), claims.judge_gold, claims.judge_order, claims.judge_many
    votes, gold, order, many = (claims.judge_safely(judge, folder).ours for judge in judges)
    hold = f"{paper['verdict'].isin(claims.HOLDS).sum()} of {len(paper)} claims of the paper hold here"
    texts = {
        "07_two_models": f"**{hold}.** APGR (trapezoid) on MT-Bench from people's votes alone: {votes}."
        f" From its own labels, MMLU has {gold}",
        "02_order_swap": f"**The order bug:** at half strong calls, {order}",
        "08_many_models": f"**Many models:** {many}",
    }
    return "".join(f"- {text} ([{name[:2]}](notebooks/{name}.ipynb)).\n" for name, text in texts.items())


def write_four_battles(folder: Path = FOLDER) -> str:
    """Return P(strong wins) of the four battles, and the model that answers at threshold 0.5, as a table."""
    table = pd.read_csv(folder / "tables" / "four_battles.csv")
    shown = table["p_strong"].map("{:.2f}".format)
    cell = shown + np.where(shown.astype(float) >= 0.5, ": strong", ": weak")
    return write_markdown(
        table.assign(cell=cell).pivot_table("cell", "rows", "form", "first", sort=False).reset_index()
    )


def list_notebooks(folder: Path = FOLDER) -> str:
    """Return a table of the notebooks next to the results: number, question, links, minutes of the last full run."""
    minutes = pd.read_csv(folder / "tables" / "minutes.csv", dtype={"notebook": "str"}).set_index("notebook")["minutes"]
    rows = []
    for path in sorted((folder.parent / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        number, place = path.stem[:2], f"{folder.name}/{path.stem}/{path.name}"
        title = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].removeprefix(f"# {number} ")
        read = f"[read]({place})" if (folder.parent / place).is_file() else "no full run yet"
        time = f"{minutes[number]:.1f}" if number in minutes else "no full run yet"
        rows.append((number, title, read, f"[run](notebooks/{path.name})", time))
    columns = ["notebook", "question", "with outputs", "source", "minutes (2 cores)"]
    return write_markdown(pd.DataFrame(rows, columns=columns))


def list_claims(folder: Path = FOLDER) -> str:
    """Return a table of the claims: what they say, what was found here, the verdict, the notebook."""
    found = claims.judge_claims(folder)
    names = {path.name[:2]: path.name for path in (folder.parent / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    links = [f"[{number}](notebooks/{names[number]})" for number in found["notebook"]]
    columns = {"claim": "claim", "ours": "found here", "verdict": "verdict", "notebook": "notebook"}
    return write_markdown(found.assign(notebook=links)[list(columns)].rename(columns=columns))


BLOCKS: dict[str, Callable[[Path], str]] = {
    "findings": write_findings,
    "four battles": write_four_battles,
    "notebooks": list_notebooks,
    "claims": list_claims,
}


def fill(text: str, folder: Path = FOLDER) -> str:
    """Return the text with every marked number, and every block, as the CSVs have them."""
    text = NUMBER.sub(lambda match: f"{look_up(match['source'], folder)}<!--{match['source']}-->", text)
    return BLOCK.sub(lambda match: f"{match['name']}-->\n{BLOCKS[match['name']](folder)}", text)


def find_missing(text: str) -> list[str]:
    """Return the markers whose number is not in the results, and the blocks that lack one."""
    markers = [match["source"] for match in NUMBER.finditer(text) if match["shown"] == "?"]
    return markers + [match["name"] for match in BLOCK.finditer(text) if claims.NOT_RUN in match[0]]


def main() -> int:
    """Write the tables, README.md and REPORT.md; return 1, and say which, where the results lack a number."""
    write_tables()
    text = fill(README.read_text(encoding="utf-8"))
    write_atomically(README, text)
    write_atomically(FOLDER / "REPORT.md", report.write_report(FOLDER))
    missing = find_missing(text)
    for name in missing:
        print(f"README.md: no number for {name}; run the notebook again or correct the marker", file=sys.stderr)
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main())
