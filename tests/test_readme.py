"""What README shows can be copied: its blocks run, in the order in which they stand, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
SECTIONS = {"Use the package": ["python"], "Use it on your own models": ["sh", "sh", "python"]}
# A section ends at the next heading of its level; a block may hold lines that begin with one "#".
SECTION = re.compile(r"^## (?P<title>.+)\n(?P<text>(?:(?!## ).*\n?)*)", re.MULTILINE)
BLOCK = re.compile(r"^```(?P<language>sh|python)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def read_blocks(text: str, title: str) -> list[tuple[str, str]]:
    """Language and code of each block in a section."""
    sections = {section["title"]: section["text"] for section in SECTION.finditer(text)}
    return [(block["language"], block["code"]) for block in BLOCK.finditer(sections[title])]


@pytest.mark.parametrize("title", SECTIONS)
def test_the_blocks_of_a_section_run(title, tmp_path):
    blocks = read_blocks((PROJECT / "README.md").read_text(encoding="utf-8"), title)
    assert [language for language, _ in blocks] == SECTIONS[title]
    environment = {**os.environ, "ROUTING_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(PROJECT)}
    for language, code in blocks:
        code = code.replace(".venv/bin/python", shlex.quote(sys.executable))
        command = ["sh", "-e", "-c", code] if language == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{code}\n{done.stderr}"
        assert done.stdout.strip(), f"prints nothing:\n{code}"


def test_blocks_are_found_by_section():
    text = (
        "# T\n```sh\nno\n```\n## One\ntext\n```sh\n# a comment\nls\n```\n```json\n{}\n```\n## Two\n```python\nx\n```\n"
    )
    assert read_blocks(text, "One") == [("sh", "# a comment\nls\n")]
    assert read_blocks(text, "Two") == [("python", "x\n")]
