"""Simulate an arena: prompts, votes and benchmark scores of real models, with a truth that is known.

Models, their mean ratings and the tie parameter of Davidson's model [Davidson70] are those of the Arena votes; what a
prompt does to them is drawn from a seed: ``slope(difficulty) * (mean rating of the model + offset(model, topic))``,
with slopes of mean 1 over the difficulties and offsets of mean 0 over the topics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from routing.studies.simulated.prompts import DIFFICULTIES, draw_prompts, read_parts

# US dollars per million input and output tokens: list prices of August 2024 from the providers' price pages (OpenAI,
# Anthropic, Google, Mistral; Together AI, by size, for other open models), and for Mixtral what [RouteLLM24] counts.
# The first names are the pair of [RouteLLM24]; few or many of them, they reach from strong to weak.
PRICES_USD_PER_MILLION = {
    "gpt-4-1106-preview": (10.0, 30.0),
    "mixtral-8x7b-instruct-v0.1": (0.24, 0.24),
    "gpt-3.5-turbo-0125": (0.50, 1.50),
    "llama-3-70b-instruct": (0.90, 0.90),
    "dolly-v2-12b": (0.30, 0.30),
    "gpt-4o-2024-05-13": (5.0, 15.0),
    "claude-3-haiku-20240307": (0.25, 1.25),
    "mistral-7b-instruct": (0.25, 0.25),
    "claude-3-5-sonnet-20240620": (3.0, 15.0),
    "gpt-4o-mini-2024-07-18": (0.15, 0.60),
    "vicuna-13b": (0.30, 0.30),
    "gemini-1.5-pro-api-0514": (3.50, 10.50),
}

Names = str | Sequence[str]  # one model for all prompts, or one for each
SLOPES = np.array([0.4, 1.0, 1.6])  # by difficulty; mean 1. The harder the prompt, the further models are apart
BENCHMARK_SKILL = 0.6  # log-odds of a right answer per log-odds of rating
BENCHMARK_EASE = np.array([2.0, 1.0, 0.0])  # log-odds that a model of rating 0 is right, by difficulty
OUTPUT_SPREAD = 0.6  # standard deviation of its logarithm


@dataclass(frozen=True, eq=False)
class SimulatedArena:
    """Models whose ratings on every prompt are known. Prompts are tables with columns prompt, topic and difficulty.

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
        """Return the true P(a wins), P(tie), P(b wins), shape (n_prompts, 3), when a's answer is shown first.

        The bias is log-odds added to the rating of the first.
        """
        theta, row = self.ratings(prompts), np.arange(len(prompts))  # (n_prompts, n_models)
        rating_a, rating_b = (theta[row, self._positions(model, len(theta))] for model in (model_a, model_b))
        return outcome_probability(rating_a - rating_b + first_answer_bias, "davidson", self.nu)

    def sample_battles(
        self, prompts: pd.DataFrame, n_battles: int, rng: Generator, first_answer_bias: float = 0.0
    ) -> pd.DataFrame:
        """Draw a battle table: every prompt equally often (give or take one), all pairs and both orders equally likely.

        The model shown first is model_a. Raises a ValueError for no prompts or battles too.
        """
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
        """Draw one graded answer of every model to every prompt, and what it cost.

        An answer is right (1, else 0) with log-odds ``BENCHMARK_SKILL * rating + BENCHMARK_EASE[difficulty]``. It
        costs the list price of the prompt's tokens and of an answer of log-normal length.
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
    if (codes < 0).any():
        row = int(np.argmin(codes))
        found = f"prompts, row {row}, column {column}: {prompts[column].iloc[row]!r}"
        raise ValueError(f"{found} is none of {', '.join(names)}")
    return codes


def simulate_arena(seed: int, n_models: int = 12, topic_spread: float = 0.8) -> SimulatedArena:
    """Return an arena of the first `n_models` of `PRICES_USD_PER_MILLION`, from 2 to all, else a ValueError.

    `seed` decides how good each model is at each topic; `topic_spread` is the standard deviation of the offsets before
    they are centred, in log-odds.
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
