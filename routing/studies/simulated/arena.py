"""Simulate an arena: prompts, votes and benchmark scores of real models, with a truth that is known.

Models, their mean ratings and the tie parameter of Davidson's model [Davidson70] are those of the Arena votes; what a
prompt does to them is drawn from a seed: ``slope(difficulty) * (mean rating of the model + offset(model, topic))``,
with slopes of mean 1 over the difficulties and offsets of mean 0 over the topics. Templates of ``prompts.toml``, with
slots in braces, make the prompts: nothing marks topic or difficulty but what is asked, as in a real one.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import islice, zip_longest
from string import Formatter
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from scipy.special import expit

from routing.battles import WINNERS
from routing.data.benchmarks import BenchmarkTable
from routing.data.votes import read_arena_votes
from routing.policy.budget import CHARACTERS_PER_TOKEN, OUTPUT_TOKENS
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.ratings.ties import outcome_probability

# US dollars per million input and output tokens: list prices of August 2024 from the providers' price pages (OpenAI,
# Anthropic, Google, Mistral; Together AI, by size, for other open models), and for Mixtral what [RouteLLM24] counts.
# The first names are the pair of [RouteLLM24]; few or many of them, they reach from strong to weak.
PRICES_USD_PER_MILLION = {
    "gpt-4-1106-preview": (10.0, 30.0), "mixtral-8x7b-instruct-v0.1": (0.24, 0.24),
    "gpt-3.5-turbo-0125": (0.50, 1.50), "llama-3-70b-instruct": (0.90, 0.90),
    "dolly-v2-12b": (0.30, 0.30), "gpt-4o-2024-05-13": (5.0, 15.0),
    "claude-3-haiku-20240307": (0.25, 1.25), "mistral-7b-instruct": (0.25, 0.25),
    "claude-3-5-sonnet-20240620": (3.0, 15.0), "gpt-4o-mini-2024-07-18": (0.15, 0.60),
    "vicuna-13b": (0.30, 0.30), "gemini-1.5-pro-api-0514": (3.50, 10.50),
}  # fmt: skip

Names = str | Sequence[str]  # one model for all prompts, or one for each
DIFFICULTIES = ("easy", "medium", "hard")
SLOPES = np.array([0.4, 1.0, 1.6])  # by difficulty; mean 1. The harder the prompt, the further models are apart
BENCHMARK_SKILL = 0.6  # log-odds of a right answer per log-odds of rating
BENCHMARK_EASE = np.array([2.0, 1.0, 0.0])  # log-odds that a model of rating 0 is right, by difficulty
OUTPUT_SPREAD = 0.6  # standard deviation of its logarithm


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

    Columns are prompt, topic (a key of the templates) and difficulty. ValueError for none, or more than there are.
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


@dataclass(frozen=True, eq=False)
class SimulatedArena:
    """Models whose ratings on every prompt, a row with columns prompt, topic and difficulty, are known.

    Methods raise a ValueError for a column that is missing, and for a topic, difficulty or model that is not known.
    """

    models: tuple[str, ...]  # in alphabetical order, as everything fitted to battles has them
    topics: tuple[str, ...]
    mean_ratings: np.ndarray  # (n_models,), log-odds of mean 0
    topic_offsets: np.ndarray  # (n_models, n_topics), log-odds, each row of mean 0
    nu: float  # of Davidson's model

    def sample_prompts(self, n_prompts: int, rng: Generator) -> pd.DataFrame:
        """Draw distinct prompts, as `draw_prompts`."""
        return draw_prompts(n_prompts, rng)

    def ratings(self, prompts: pd.DataFrame) -> np.ndarray:
        """Return the true ratings, float array of shape (n_prompts, n_models), log-odds."""
        topic = _encode(prompts, "topic", self.topics)
        slope = SLOPES[_encode(prompts, "difficulty", DIFFICULTIES)]
        return slope[:, None] * (self.mean_ratings + self.topic_offsets.T[topic])

    def outcome_probability(
        self, prompts: pd.DataFrame, model_a: Names, model_b: Names, first_answer_bias: float = 0.0
    ) -> np.ndarray:
        """Return the true P(a wins), P(tie), P(b wins), (n_prompts, 3); the bias adds log-odds to the rating of a."""
        theta, row = self.ratings(prompts), np.arange(len(prompts))  # (n_prompts, n_models)
        rating_a, rating_b = (theta[row, self._positions(model, len(theta))] for model in (model_a, model_b))
        return outcome_probability(rating_a - rating_b + first_answer_bias, "davidson", self.nu)

    def sample_battles(
        self, prompts: pd.DataFrame, n_battles: int, rng: Generator, first_answer_bias: float = 0.0
    ) -> pd.DataFrame:
        """Draw a battle table, model_a shown first: prompts equally often, all pairs and orders equally likely."""
        if len(prompts) == 0 or n_battles < 1:
            raise ValueError(f"cannot sample {n_battles} battles over {len(prompts)} prompts; both are 1 or more")
        asked = prompts.iloc[np.resize(rng.permutation(len(prompts)), n_battles)]
        n_models = len(self.models)
        first = rng.integers(n_models, size=n_battles)
        second = (first + rng.integers(1, n_models, size=n_battles)) % n_models
        names = np.array(self.models, dtype=object)
        probability = self.outcome_probability(asked, names[first], names[second], first_answer_bias)
        outcome = (rng.random(n_battles)[:, None] > probability.cumsum(axis=1)[:, :2]).sum(axis=1)
        battles = {"prompt": asked["prompt"].to_numpy(), "model_a": names[first], "model_b": names[second]}
        return pd.DataFrame({**battles, "winner": np.array(WINNERS, dtype=object)[outcome]})

    def sample_benchmark(self, prompts: pd.DataFrame, rng: Generator) -> BenchmarkTable:
        """Draw an answer of every model to every prompt, right (1) or not, at the list price of a log-normal length.

        It is right with log-odds ``BENCHMARK_SKILL * rating + BENCHMARK_EASE[difficulty]``.
        """
        theta = self.ratings(prompts)  # (n_prompts, n_models)
        ease = BENCHMARK_EASE[_encode(prompts, "difficulty", DIFFICULTIES)]
        quality = (rng.random(theta.shape) < expit(BENCHMARK_SKILL * theta + ease[:, None])).astype(float)
        input_tokens = prompts["prompt"].str.len().to_numpy()[:, None] / CHARACTERS_PER_TOKEN  # (n_prompts, 1)
        output_tokens = rng.lognormal(np.log(OUTPUT_TOKENS) - OUTPUT_SPREAD**2 / 2, OUTPUT_SPREAD, theta.shape)
        input_price, output_price = np.array([PRICES_USD_PER_MILLION[name] for name in self.models]).T  # (n_models,)
        cost = (input_tokens * input_price + output_tokens * output_price) / 1e6
        tables = (pd.DataFrame(values, columns=list(self.models)) for values in (quality, cost))
        return BenchmarkTable(prompts.reset_index(drop=True), *tables)

    def _positions(self, models: Names, n_prompts: int) -> np.ndarray:
        """Return the number of each prompt's model, shape (n_prompts,)."""
        names = [models] * n_prompts if isinstance(models, str) else list(models)
        if len(names) != n_prompts:
            raise ValueError(f"{len(names)} models for {n_prompts} prompts; give one name, or one for each prompt")
        if unknown := set(names) - set(self.models):
            raise ValueError(f"no model {min(unknown)!r} in the arena; it has {', '.join(self.models)}")
        return pd.Index(self.models).get_indexer(names)


def _encode(prompts: pd.DataFrame, column: str, names: tuple[str, ...]) -> np.ndarray:
    """Return the place of each prompt's topic or difficulty in `names`, shape (n_prompts,)."""
    if column not in prompts.columns:
        raise ValueError(f"the prompts lack column {column}; it says which of {', '.join(names)} a prompt is")
    codes = pd.Index(names).get_indexer(prompts[column])
    for row in np.flatnonzero(codes < 0):
        found = f"prompts, row {row}, column {column}: {prompts[column].iloc[row]!r}"
        raise ValueError(f"{found} is none of {', '.join(names)}")
    return codes


def simulate_arena(seed: int, n_models: int = 12, topic_spread: float = 0.8) -> SimulatedArena:
    """Return an arena of the first `n_models` of `PRICES_USD_PER_MILLION`, from 2 to all, else a ValueError.

    `seed` decides the offsets by topic, of standard deviation `topic_spread` (log-odds) before they are centred.
    """
    if not 2 <= n_models <= len(PRICES_USD_PER_MILLION):
        raise ValueError(f"n_models is {n_models}; it has to be from 2 to {len(PRICES_USD_PER_MILLION)}")
    fit = fit_bradley_terry(read_arena_votes(), ties="davidson")
    models = sorted(list(PRICES_USD_PER_MILLION)[:n_models])
    mean_ratings = fit.ratings[models].to_numpy()
    # A child of the seed: a caller's default_rng(seed) must not repeat the offsets' stream in its votes.
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    topics = tuple(read_parts()["templates"])
    offsets = rng.normal(0.0, topic_spread, size=(n_models, len(topics)))
    offsets -= offsets.mean(axis=1, keepdims=True)
    # Rounded, as the last bits of a fit depend on the number of threads of the linear algebra; the arena must not.
    mean_ratings = (mean_ratings - mean_ratings.mean()).round(9)
    return SimulatedArena(tuple(models), topics, mean_ratings, offsets, round(fit.tie_parameter, 9))
