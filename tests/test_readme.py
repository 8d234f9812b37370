"""What README shows can be copied and traced: its blocks run in an empty folder, its numbers stand in the results."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import cmarkgfm
import pandas as pd
import pytest

from routing.studies import claims, readme

PROJECT = Path(__file__).parent.parent
SECTIONS = [  # those of one dictionary run one after the other in one folder
    {"Use the package": ["python"]},
    {"Use it on your own models": ["sh", "sh", "python"], "On your own prompts": ["sh", "sh"]},
    {"More than one machine": ["python"]},
]
# A section ends at the next heading of its level; a block may hold lines that begin with one "#".
SECTION = re.compile(r"^## (?P<title>.+)\n(?P<text>(?:(?!## ).*\n?)*)", re.MULTILINE)
BLOCK = re.compile(r"^```(?P<language>sh|python)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def read_blocks(text: str, title: str) -> list[tuple[str, str]]:
    """Language and code of each block in a section."""
    sections = {section["title"]: section["text"] for section in SECTION.finditer(text)}
    return [(block["language"], block["code"]) for block in BLOCK.finditer(sections[title])]


@pytest.mark.parametrize("languages", SECTIONS, ids=lambda languages: next(iter(languages)))
def test_the_blocks_of_a_section_run(languages, tmp_path):
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    blocks = {title: read_blocks(text, title) for title in languages}
    assert {title: [language for language, _ in found] for title, found in blocks.items()} == languages
    environment = {**os.environ, "ROUTING_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(PROJECT)}
    for language, code in [block for found in blocks.values() for block in found]:
        code = code.replace(".venv/bin/python", shlex.quote(sys.executable))
        code = code.replace("results/routers", shlex.quote(str(PROJECT / "results" / "routers")))
        command = ["sh", "-e", "-c", code] if language == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{code}\n{done.stderr}"
        assert done.stdout.strip(), f"prints nothing:\n{code}"


@pytest.mark.parametrize("title", ["On your own prompts", "In an application"])
def test_the_short_sections_are_short(title):
    sections = {
        found["title"]: found[0] for found in SECTION.finditer((PROJECT / "README.md").read_text(encoding="utf-8"))
    }
    assert len(sections[title].strip().splitlines()) < 25


def test_blocks_are_found_by_section():
    text = (
        "# T\n```sh\nno\n```\n## One\ntext\n```sh\n# a comment\nls\n```\n```json\n{}\n```\n## Two\n```python\nx\n```\n"
    )
    assert read_blocks(text, "One") == [("sh", "# a comment\nls\n")]
    assert read_blocks(text, "Two") == [("python", "x\n")]


# -- its numbers ----------------------------------------------------------------------------------------------------


KNOWN = {"3.11", "0.5", "2.0", "4.0"}  # Python's version, random order, licences
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)
LINK = re.compile(r"\]\([^)]*\)")
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def unmarked_numbers(text: str) -> list[str]:
    """Decimals and percentages in prose that name no CSV."""
    prose = readme.NUMBER.sub("", readme.BLOCK.sub("", LINK.sub("", CODE.sub("", text))))
    return [number for number in re.findall(r"\d+\.\d+%?|\d+ ?%", prose) if number not in KNOWN | {"95 %", "95\n %"}]


def test_every_number_of_the_readme_stands_in_the_results():
    assert unmarked_numbers(README) == []
    assert readme.fill(README) == README, "run: python -m routing.studies.readme"


def test_no_number_is_missing_of_a_notebook_whose_copy_is_committed():
    """A run from before the copies may lack a CSV that a marker names; one since then may not."""
    manifests = [*(PROJECT / "results").glob("[0-9][0-9]_*/manifest.json")]
    renewed = {
        path.parent.name for path in manifests if f"{path.parent.name}.ipynb" in json.loads(path.read_text())["outputs"]
    }
    missing = readme.find_missing(README)
    assert [name for name in missing if name.split("/")[0] in renewed] == []
    if len(renewed) == len([*(PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb")]):
        assert missing == []


def test_a_number_without_a_source_or_with_another_value_is_found(tmp_path):
    (tmp_path / "a.csv").write_text("name,kind,value\nx,1,0.5\ny,1,0.25\n")
    assert unmarked_numbers("It is 0.5<!--a.csv|name=x|value|.1f-->, and 0.7 or 20 % of it; `0.1`.") == ["0.7", "20 %"]
    assert readme.fill("?<!--a.csv|name=y|kind=1|value|.2f-->", tmp_path) == "0.25<!--a.csv|name=y|kind=1|value|.2f-->"
    with pytest.raises(ValueError, match=r"2 values instead of one for a.csv\|kind=1\|value"):
        readme.fill("?<!--a.csv|kind=1|value|.2f-->", tmp_path)


@pytest.mark.parametrize("source", ["b.csv|v", "a.csv|name=z|value", "a.csv|order=1|value", "a.csv|name=x|width"])
def test_a_number_that_is_not_there_is_a_question_mark(tmp_path, source):
    (tmp_path / "a.csv").write_text("name,value\nx,0.5\n")
    text = readme.fill(f"It is 0.5<!--{source}|.1f-->.", tmp_path)
    assert text == f"It is ?<!--{source}|.1f-->."
    assert readme.find_missing(text) == [f"{source}|.1f"]


# -- its tables, as a code host renders them ------------------------------------------------------------------------


class Tables(HTMLParser):
    """The cells' texts of each table of a page: tables of rows, the header first."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.inside = False
        self.feed(cmarkgfm.github_flavored_markdown_to_html(text))

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside &= tag not in ("th", "td")

    def handle_data(self, data):
        if self.inside:
            self.tables[-1][-1][-1] += data


def read_block(name: str) -> list[list[str]]:
    """The rows of the table in a block of README, as rendered."""
    (text,) = (match[0] for match in readme.BLOCK.finditer(README) if match["name"] == name)
    (table,) = Tables(f"<!--{text}").tables
    return table


def faulty_rows(text: str) -> list[str]:
    """Rows of tables whose cells a code host would drop or leave empty: it splits at every bar, in comments too."""
    faults = [" | ".join(row) for table in Tables(text).tables for row in table if "" in row]
    width = None  # cells of the header, inside a table
    for line in CODE.sub("", text).splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) - 1 if line.startswith("|") else None
        faults += [line] if None not in (cells, width) and cells != width else []
        faults += [line] if cells and "<!--" in line else []
        width = None if cells is None else width or cells
    return faults


def test_every_row_of_a_table_has_as_many_cells_as_the_header():
    assert [len(table[0]) for table in Tables(README).tables] == [3, 5, 4, 3]
    assert faulty_rows(README) == []


def test_a_row_with_a_marker_or_without_a_cell_is_found():
    header = "| a | b |\n| --- | --- |\n"
    assert Tables(header + "| 1 | *2* [3](x) |\n").tables == [[["a", "b"], ["1", "2 3"]]]
    assert faulty_rows(header + "| 1 | 2 |\n") == []
    assert faulty_rows(header + "| 1 | 2<!--a.csv|x|.1f--> |\n")
    assert faulty_rows(header + "| 1 |\n") and faulty_rows(header + "| 1 | 2 | 3 |\n")


def test_the_cells_of_the_notebooks_table_are_those_of_the_csv():
    minutes = pd.read_csv(readme.FOLDER / "tables" / "minutes.csv", dtype={"notebook": "str"})
    written = {row.notebook: f"{row.minutes:.1f}" for row in minutes.itertuples()}
    rows = read_block("notebooks")[1:]
    assert [row[0] for row in rows] == sorted(path.name[:2] for path in (PROJECT / "notebooks").glob("*.ipynb"))
    assert all(row[4] == written.get(row[0], "no full run yet") for row in rows)
    for number, _, read, source, _ in rows:
        copies = [*(PROJECT / "results").glob(f"{number}_*/{number}_*.ipynb")]
        assert (read, source) == ("read" if copies else "no full run yet", "run")


def test_the_cells_of_the_other_tables_are_those_of_the_csvs():
    found = claims.judge_claims(readme.FOLDER)
    rows = read_block("claims")[1:]
    assert rows == found[["claim", "ours", "verdict", "notebook"]].to_numpy().tolist()
    four = pd.read_csv(readme.FOLDER / "tables" / "four_battles.csv")
    cells = [cell for row in read_block("four battles")[1:] for cell in row[1:]]
    assert [cell.split(":")[0] for cell in cells] == four["p_strong"].map("{:.2f}".format).tolist()


def test_the_four_battles_are_those_of_today(tmp_path):
    (tmp_path / "tables").mkdir()
    readme.write_tables(tmp_path)
    fresh, kept = ((folder / "tables" / "four_battles.csv").read_text() for folder in (tmp_path, readme.FOLDER))
    assert fresh == kept


def test_a_changed_csv_changes_the_blocks(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "four_battles.csv").write_text("rows,form,p_strong\nas shown,RouteLLM,0.25\n")
    assert "| as shown | 0.25: weak |" in readme.fill("<!--four battles-->\n<!--end-->", tmp_path)


def test_every_figure_of_the_results_has_its_numbers():
    figures = sorted((PROJECT / "results").rglob("*.png"))
    assert figures
    lacking = [path.name for path in figures if not path.with_suffix(".csv").is_file()]
    assert lacking == []
