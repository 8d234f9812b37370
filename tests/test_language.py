"""Texts use the field's words: none of the phrases that a reader would stumble over remains."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
PHRASES = {  # what is written instead
    r"exchang(?!es\.csv|es\\?\")\w*": "swap",
    r"\bsurely\b": "significantly, with its interval",
    r"\btold apart\b": "significantly different, or separated",
    r"\bheld back\b": "validation",
    r"\bnewcomers?\b(?!\\?\")": "new model",
    r"\bdear(er|est)?\b": "expensive",
    r"\bnats an? \w+": "nats per ...",
    r"\bjudged[ _]gains?\b": "score gap",
    r"\bkinds? of prompts?\b": "category",
    r"\bknown[ _]cause\b": "difference from the paper",
    r"\bbeyond the head\b": "fine-tuning the encoder",
    r"\bexpected and seen\b": "checks",
    r"\b(reaches|reaching) to never\b": "the interval includes never reaching it",
    r"\breading_s\b|\breading_share\b": "encoding_s",
    r"\breleased (code|form|router)s?\b": "RouteLLM (original)",
    r"\bbeside\b": "next to",
    r"\bgreatest\b": "highest",
    r"\bcould not be had\b": "could not be downloaded",
    r"\bit was ended\b": "it was killed",
    r"\b(row|figure|file|line) a (router|notebook|model|prompt|battle)\b": "per",
}
TEXTS = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", PROJECT / "results" / "REPORT.md"]
TEXTS += [*PROJECT.glob("notebooks/*.ipynb"), *PROJECT.glob("routing/**/*.py"), *PROJECT.glob("routing/**/*.toml")]


def find_phrases(text: str) -> list[str]:
    """Each phrase of `PHRASES` in a text, with what is written instead."""
    found = [(match[0], word) for phrase, word in PHRASES.items() for match in re.finditer(phrase, text, re.IGNORECASE)]
    return [f"{phrase!r}: write {word}" for phrase, word in found]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_no_phrase_remains(path):
    assert find_phrases(path.read_text(encoding="utf-8")) == []


def test_a_phrase_is_found():
    assert find_phrases("All rows exchanged, by 0.1 nats a battle") == [
        "'exchanged': write swap",
        "'nats a battle': write nats per ...",
    ]
    assert find_phrases('save_figure(figure, table, "exchanges") of exchanges.csv, next to it') == []
