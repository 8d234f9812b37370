"""Prompts of other collections next to those of the evaluations: which overlap, and what must not be passed on."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from routing.data.benchmarks import read_gsm8k, read_mmlu
from routing.data.sources import find_files
from routing.data.votes import pick_files

BLANKS = str.maketrans(dict.fromkeys(string.punctuation, " "))
FEWEST_WORDS = 10  # of a question that a prompt can contain by more than chance
Flag = Callable[[Iterable[str]], list[str]]
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
PHONE = re.compile(r"(?<![\w.])(?:\+\d{9,14}|\(?\d{3}\)?[-. ]\d{3}[-. ]\d{4})(?![\w-])")
KEY = re.compile(r"\bsk-[A-Za-z0-9]{20,}")


def redact(text: str) -> str:
    """Replace e-mail addresses, phone numbers and API keys by [email], [phone] and [key]."""
    for pattern, name in ((EMAIL, "[email]"), (PHONE, "[phone]"), (KEY, "[key]")):
        text = pattern.sub(name, text)
    return text


def plain_words(text: str) -> str:
    """Return a text in lower case, without punctuation, one space between words."""
    return " ".join(text.lower().translate(BLANKS).split())


def overlap_flag(questions: Mapping[str, Iterable[tuple[str, str]]]) -> Flag:
    """Return a function that flags prompts of an evaluation; `questions`: by benchmark, (id or "", text) of each.

    The flag is ``benchmark:kind`` or ``benchmark:kind:id``. By `plain_words` the prompt is ``exact``ly a question,
    ``contains`` one of at least ten words, or is ``near`` one: it has more than half of its runs of eight words.
    """
    exact: dict[str, str] = {}
    by_run: dict[str, list[int]] = {}
    known = []
    for benchmark, pairs in questions.items():
        for name, text in pairs:
            plain, end = plain_words(text), f":{name}" if name else ""
            exact.setdefault(plain, f"{benchmark}:exact{end}")
            runs = _runs(plain) if len(plain.split()) >= FEWEST_WORDS else ()
            for run in runs:
                by_run.setdefault(run, []).append(len(known))
            known.append((f"{benchmark}:{{}}{end}", plain, len(runs)))

    def flag(prompt: str) -> str:
        plain = plain_words(prompt)
        if plain in exact:
            return exact[plain]
        shared: dict[int, int] = {}
        for run in _runs(plain):
            for question in by_run.get(run, ()):
                shared[question] = shared.get(question, 0) + 1
        found = {}
        for question, n in shared.items():
            name, text, n_runs = known[question]
            if f" {text} " in f" {plain} ":
                found.setdefault("contains", name)
            elif n > n_runs / 2:
                found.setdefault("near", name)
        return next((found[kind].format(kind) for kind in ("contains", "near") if kind in found), "")

    return lambda prompts: [flag(prompt) for prompt in prompts]


def _runs(plain: str, length: int = 8) -> set[str]:
    words = plain.split()
    return {" ".join(words[start : start + length]) for start in range(len(words) - length + 1)}


def evaluation_questions(path: Path | str | None = None) -> dict[str, list[tuple[str, str]]]:
    """Return what `overlap_flag` takes: MT-Bench's turns with their ids, questions of MMLU and GSM8K of ten words.

    Of MMLU without the choices. `path` as `routing.data.benchmarks.read_mmlu`.
    """
    files = find_files("routellm", path)
    turns = [
        (str(question["question_id"]), turn)
        for question in map(json.loads, pick_files(files, "mt_bench/question.jsonl")[0].read_text("utf-8").splitlines())
        for turn in question["turns"]
    ]
    mmlu = read_mmlu(decontaminate=False, path=path).prompts["prompt"].str.split("\nA. ", regex=False).str[0]
    gsm8k = read_gsm8k(decontaminate=False, path=path).prompts["prompt"]
    long = {
        benchmark: [("", text) for text in texts if len(plain_words(text).split()) >= FEWEST_WORDS]
        for benchmark, texts in (("mmlu", mmlu), ("gsm8k", gsm8k))
    }
    return {"mtbench": turns} | long
