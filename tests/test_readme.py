"""What README shows can be copied and traced: its blocks run in an empty folder, its numbers stand in the results."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from routing.studies import readme

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


KNOWN = {"3.11", "1.67", "0.5", "2.0", "4.0"}  # Python's version, millions of votes, random order, licences
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)
LINK = re.compile(r"\]\([^)]*\)")
MARKED = re.compile(readme.NUMBER.pattern)


def unmarked_numbers(text: str) -> list[str]:
    """Decimals and percentages in prose that name no CSV."""
    prose = MARKED.sub("", readme.NOTEBOOKS.sub("", readme.TABLE.sub("", LINK.sub("", CODE.sub("", text)))))
    return [number for number in re.findall(r"\d+\.\d+%?|\d+ ?%", prose) if number not in KNOWN | {"95 %", "95\n %"}]


def test_every_number_of_the_readme_stands_in_the_results():
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert unmarked_numbers(text) == []
    assert readme.fill(text) == text, "run: python -m routing.studies.readme"


def test_a_number_without_a_source_or_with_another_value_is_found(tmp_path):
    (tmp_path / "a.csv").write_text("name,kind,value\nx,1,0.5\ny,1,0.25\n")
    assert unmarked_numbers("It is 0.5<!--a.csv|name=x|value|.1f-->, and 0.7 or 20 % of it; `0.1`.") == ["0.7", "20 %"]
    assert (
        readme.fill("It is ?<!--a.csv|name=y|kind=1|value|.2f-->.", tmp_path)
        == "It is 0.25<!--a.csv|name=y|kind=1|value|.2f-->."
    )
    with pytest.raises(ValueError, match=r"2 values instead of one for a.csv\|kind=1\|value"):
        readme.fill("?<!--a.csv|kind=1|value|.2f-->", tmp_path)


def test_minutes_are_filled_into_the_last_cell_of_a_row(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "minutes.csv").write_text("notebook,minutes\n01,2.34\n02,10\n")
    rows = "| [01](notebooks/01_a.ipynb) | who? | {} |\n| [03](notebooks/03_b.ipynb) | why? | {} |\n"
    filled = readme.fill("<!--notebooks-->\n| a | b | c |\n" + rows.format("?", "?") + "<!--end-->\n", tmp_path)
    assert filled == "<!--notebooks-->\n| a | b | c |\n" + rows.format("2.3", "no full run yet") + "<!--end-->\n"


def table_rows(text: str) -> list[list[list[str]]]:
    """Each table of a text as a code host renders it: rows of cells, the header first; other lines are no table."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    tables, row = [], []
    for number, token in enumerate(tokens):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            row = []
        elif token.type in ("th_open", "td_open"):
            row.append(tokens[number + 1].content)
        elif token.type == "tr_close":
            tables[-1].append(row)
    return tables


def faulty_rows(text: str) -> list[str]:
    """Rows of tables whose cells a code host would drop or leave empty: it splits at every bar, in comments too."""
    faults = []
    for table in table_rows(text):
        faults += [" | ".join(row) for row in table if "" in row or any("<!--" in cell for cell in row)]
    width = None  # cells of the header, inside a table
    for line in CODE.sub("", text).splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) - 1 if line.startswith("|") else None
        faults += [line] if None not in (cells, width) and cells != width else []
        width = None if cells is None else width or cells
    return faults


def test_every_row_of_a_table_has_as_many_cells_as_the_header():
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert [len(table[0]) for table in table_rows(text)] == [5, 4, 3]
    assert faulty_rows(text) == []


def test_a_row_with_a_marker_or_without_a_cell_is_found():
    header = "| a | b |\n| --- | --- |\n"
    assert faulty_rows(header + "| 1 | 2 |\n") == []
    assert faulty_rows(header + "| 1 | 2<!--a.csv|x|.1f--> |\n")
    assert faulty_rows(header + "| 1 |\n") and faulty_rows(header + "| 1 | 2 | 3 |\n")


def test_every_figure_of_the_results_has_its_numbers():
    figures = sorted((PROJECT / "results").rglob("*.png"))
    assert figures
    lacking = [path.name for path in figures if not path.with_suffix(".csv").is_file()]
    assert lacking == []
