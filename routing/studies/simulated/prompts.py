"""Draw English prompts of a known topic and difficulty from the templates and word lists of ``prompts.toml``.

A template is a sentence or a few with slots in braces; a slot takes each word of the list of its name. Nothing marks
topic or difficulty but what is asked, as in a real prompt: a harder one asks for something harder.
"""

from __future__ import annotations

import math
import tomllib
from functools import cache
from importlib import resources
from itertools import islice, zip_longest
from string import Formatter
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator

DIFFICULTIES = ("easy", "medium", "hard")


@cache
def read_parts() -> dict[str, Any]:
    """Return what prompts are made of: templates[topic][difficulty], words[slot], greetings and asides[topic]."""
    return tomllib.loads(resources.files(__package__).joinpath("prompts.toml").read_text(encoding="utf-8"))


def _find_words(template: str) -> dict[str, list[str]]:
    """Return the words for each slot of a template, by slot in order of appearance."""
    slots = dict.fromkeys(name for _, name, _, _ in Formatter().parse(template) if name)
    return {slot: read_parts()["words"][slot] for slot in slots}


def _count_fillings(template: str) -> int:
    return math.prod(map(len, _find_words(template).values()))


def _fill(template: str, number: int) -> str:
    """Return the filling of that number: its digits, in the mixed base of the lists' lengths, choose the words."""
    words = {}
    for slot, known in _find_words(template).items():
        number, choice = divmod(number, len(known))
        words[slot] = known[choice]
    return template.format(**words)


def _draw_requests(templates: list[str], n_requests: int, rng: Generator) -> list[str]:
    """Return distinct requests, about as many from each template, until its fillings are used up."""
    fillings = [[(template, number) for number in rng.permutation(_count_fillings(template))] for template in templates]
    in_turn = (choice for turn in zip_longest(*fillings) for choice in turn if choice is not None)
    return [_fill(template, int(number)) for template, number in islice(in_turn, n_requests)]


def _add_asides(request: str, topic: str, rng: Generator) -> str:
    """Return the request as people send it: one in four after a greeting, two in five with a sentence or two more."""
    greeting = [rng.choice(read_parts()["greetings"])] if rng.random() < 0.25 else []
    asides = rng.choice(read_parts()["asides"][topic], size=rng.choice(3, p=[0.6, 0.3, 0.1]), replace=False)
    return " ".join([*greeting, request, *asides])


def draw_prompts(n_prompts: int, rng: Generator) -> pd.DataFrame:
    """Draw distinct prompts in random order, as many of each topic and difficulty as of any other (give or take one).

    Columns are prompt, topic (a key of the templates) and difficulty (one of `DIFFICULTIES`). Raises a ValueError for
    fewer than one prompt, or more than there are.
    """
    templates = read_parts()["templates"]
    kinds = [(topic, difficulty) for topic in templates for difficulty in DIFFICULTIES]
    limit = len(kinds) * min(sum(map(_count_fillings, templates[topic][level])) for topic, level in kinds)
    if not 1 <= n_prompts <= limit:
        raise ValueError(f"n_prompts is {n_prompts}; between 1 and {limit} distinct prompts can be drawn")
    share = np.full(len(kinds), n_prompts // len(kinds))
    share[rng.permutation(len(kinds))[: n_prompts % len(kinds)]] += 1
    rows = []
    for (topic, difficulty), n_requests in zip(kinds, share, strict=True):
        for request in _draw_requests(templates[topic][difficulty], int(n_requests), rng):
            rows.append((_add_asides(request, topic, rng), topic, difficulty))
    prompts = pd.DataFrame(rows, columns=["prompt", "topic", "difficulty"])
    return prompts.iloc[rng.permutation(n_prompts)].reset_index(drop=True)
