"""Make the sources of notebook 10: what prompts do to a strong model among people, among judges and on benchmarks.

The effect of a prompt is what it changes in the score of a source's strong model: the outcome minus what the source's
leaderboard expects, on average over the prompt's battles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from routing.battles import WINNERS, encode_battles, number_texts
from routing.data import judged
from routing.data.benchmarks import BenchmarkTable, read_gsm8k, read_mmlu, read_mt_bench
from routing.data.sources import find_files
from routing.data.votes import read_arena55k
from routing.embeddings import PromptEncoder, unit_rows
from routing.ratings.ties import outcome_probability
from routing.routers.base import BradleyTerryRouter
from routing.studies.inputs import PAIR

PRIOR = 0.1  # of leaderboards; so weak that only a model without a win or a loss is held
LARGEST = (2_000, 4)  # prompts of a source, and battles of a prompt, that the matrix learns from
SAMPLED = {"MMLU": 3_000, "GSM8K": 1_307}  # prompts
GPT_4 = ("gpt-4-1106-preview", "gpt-4-0125-preview", "gpt-4-0314", "gpt-4-0613")
PEOPLE = "Arena (people)"
SIMULATED_PROMPTS = {"smoke": 60, "quick": 120}
DATASETS = ("arena55k", "arena55k_more", "alpaca_eval", "elobench_gpt4_battles", "arena_hard_v01", "oasst_gpt4_pairs",
            "arena33k_human_and_gpt4", "arena_bench_v1", "routellm")  # fmt: skip

Encode = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True, eq=False)
class Source:
    """Where effects of prompts are learned from and tested: comparisons of strong models with others, or scores."""

    effects: pd.Series  # by prompt, each distinct; what is tested
    battles: pd.DataFrame | None = None  # what is learned from; None: evaluation only
    strong: tuple[str, ...] = ()  # exactly one model of each battle is of these
    ceiling: float = np.nan  # correlation with the effects of one who knew them without noise; NaN: unknown

    @property
    def prompts(self) -> list[str]:
        """The distinct prompts."""
        return self.effects.index.tolist()

    def learn_from(self, rows: np.ndarray) -> Self:
        """Return a source with these rows of the battles, perhaps some repeated."""
        return replace(self, battles=self.battles.iloc[rows].reset_index(drop=True))


class Sources(NamedTuple):
    """The sources of a profile."""

    sources: dict[str, Source]
    encode: Encode
    data: str  # "real" or "simulated"
    inputs: dict[str, object]  # for `Run.record_input`
    limits: pd.DataFrame | None  # of simulated sources, as `simulate_sources`


def score_residuals(battles: pd.DataFrame, strong: Iterable[str]) -> np.ndarray:
    """Return what the strong model of each battle scored minus what the leaderboard expects: (n_battles,).

    A tie is half. Battles with a column ``source`` have a leaderboard for each. Raises a ValueError, with the row and
    both names, where not exactly one model of a battle is strong.
    """
    is_strong = battles[["model_a", "model_b"]].isin(list(strong)).to_numpy()
    wrong = np.flatnonzero(is_strong.sum(axis=1) != 1)
    if len(wrong):
        pair = " and ".join(battles.iloc[wrong[0]][["model_a", "model_b"]])
        raise ValueError(f"battle {wrong[0]} is of {pair}; exactly one of a pair is to be of {', '.join(strong)}")
    residual = np.empty(len(battles))
    groups = battles["source"].to_numpy() if "source" in battles else np.zeros(len(battles))
    for rows in (groups == group for group in pd.unique(groups)):
        part = battles[rows]
        win, tie, _ = BradleyTerryRouter(PRIOR).fit(part).battle_probability(part).T
        residual[rows] = 1 - encode_battles(part).outcome / 2 - win - tie / 2
    return np.where(is_strong[:, 0], residual, -residual)


def source_of_battles(
    battles: pd.DataFrame, strong: Sequence[str], seed: int = 0, largest: tuple[int, int] = LARGEST
) -> Source:
    """Return a source of the battles in which exactly one model is strong; `largest`: as `LARGEST`, drawn by `seed`.

    Effects of prompts are means over all their battles.
    """
    one = battles[["model_a", "model_b"]].isin(list(strong)).sum(axis=1) == 1
    battles = battles[one].reset_index(drop=True)
    rng = np.random.default_rng([seed, 10])
    distinct, number = number_texts(battles["prompt"])
    kept = rng.permutation(len(distinct))[: largest[0]]
    order = rng.permutation(len(battles))
    place = battles.iloc[order].groupby("prompt").cumcount().sort_index().to_numpy()  # among a prompt's, at random
    residual = score_residuals(battles, strong)
    effects = pd.Series(np.bincount(number, residual) / np.bincount(number), pd.Index(distinct, dtype=object))
    some = battles[np.isin(number, kept) & (place < largest[1])]
    return Source(effects.iloc[np.sort(kept)], some, tuple(strong), noise_ceiling(residual, number))


def source_of_scores(table: BenchmarkTable, strong: str, weak: str) -> Source:
    """Return a source for evaluation only, whose effects are the gaps between two models' scores minus their mean."""
    gap = (table.quality[strong] - table.quality[weak]).groupby(table.prompts["prompt"].to_numpy(dtype=object)).mean()
    return Source(gap - gap.mean())


def noise_ceiling(residuals: np.ndarray, prompts: np.ndarray) -> float:
    """Return the correlation with prompts' mean residuals that one would have who knew their effects; NaN if unknown.

    The root of the means' reliability, by an analysis of variance of the battles of prompts that have several: the
    variance between prompts over that of the means. What one opponent alone finds hard counts as noise. `prompts` has
    the number of each battle's prompt; of a source with fewer than a tenth of repeated prompts nothing is known.
    """
    groups = pd.Series(residuals).groupby(prompts)
    n = groups.size()
    if (n > 1).mean() < 0.1:
        return np.nan
    noise = (groups.var() * (n - 1)).sum() / (n - 1).sum() * (1 / n).mean()
    return float(np.sqrt(max(1 - noise / groups.mean().var(), 0.0)))


def correlation(predicted: np.ndarray, observed: np.ndarray, counts: np.ndarray | None = None) -> float:
    """Return the correlation of two arrays (n,), rows weighted by `counts`; 0 if `predicted` tells no rows apart."""
    weights = np.ones(len(observed)) if counts is None else counts
    weights = weights / weights.sum()
    x, y = predicted - weights @ predicted, observed - weights @ observed
    spread = (weights @ x**2) * (weights @ y**2)
    return float(weights @ (x * y) / np.sqrt(spread)) if spread > 1e-20 else 0.0


def load_sources(profile: str, seed: int, largest: tuple[int, int] = LARGEST) -> Sources:
    """Load the sources of a profile: two simulated ones for "smoke" and "quick", real ones for "full".

    A source's strong model is its GPT-4: in the Arena, where one version has few battles, all four of that time.
    Benchmarks are for evaluation only. Raises FileNotFoundError for "full" where real data are missing.
    """
    if profile != "full":
        sources, encode, limits = simulate_sources(seed, SIMULATED_PROMPTS[profile], 0.8, 0.8)
        return Sources(sources, encode, "simulated", {name: item.battles for name, item in sources.items()}, limits)
    arena = pd.concat([read_arena55k().assign(source="arena55k"), judged.read_arena55k_more()], ignore_index=True)
    tables = {
        PEOPLE: (arena, GPT_4),
        "AlpacaEval": (judged.read_alpaca_eval_battles(), GPT_4[:1]),
        "EloBench": (judged.read_elobench(), GPT_4[:1]),
        "Arena-Hard": (judged.read_arena_hard(), ("gpt-4-0314",)),
        "OASST": (judged.read_oasst(), ("gpt-4-0314",)),
    }
    sources = {name: source_of_battles(*table, seed, largest) for name, table in tables.items()}
    sources |= {name: source_of_scores(table, *PAIR) for name, table in load_benchmarks(seed).items()}
    inputs = {f"{path.parent.name}/{path.name}": path for name in DATASETS for path in find_files(name)}
    return Sources(sources, PromptEncoder().encode, "real", inputs, None)


def load_benchmarks(seed: int) -> dict[str, BenchmarkTable]:
    """Load the benchmarks with both models of `PAIR`; of MMLU and GSM8K samples of `SAMPLED` prompts."""
    tables = {"MT-Bench": read_mt_bench(), "Arena-Bench": judged.read_arena_bench()}
    for name, table in {"MMLU": read_mmlu(), "GSM8K": read_gsm8k()}.items():
        drawn = np.random.default_rng([seed, 10]).permutation(len(table.prompts))[: SAMPLED[name]]
        tables[name] = table.select(np.isin(np.arange(len(table.prompts)), drawn))
    return tables


def simulate_sources(
    seed: int, n_prompts: int, shared: float, own: float, n_battles: int = 4, width: int = 16
) -> tuple[dict[str, Source], Encode, pd.DataFrame]:
    """Simulate two sources whose prompts have effects, in log-odds, that are linear in their vectors.

    `shared` and `own` are the standard deviations of what both sources have in common and what only each has. Returns
    sources, what encodes their prompts, and the correlation of what a source's truth (row) says with the effects
    observed in a source (column): the limit of all learning.
    """
    rng = np.random.default_rng([seed, 9])
    directions = np.linalg.qr(rng.normal(size=(width, 3)))[0].T * np.sqrt(width)
    ratings = np.array([1.0, 0.5, 0.0, -0.5])  # of the strong model and three others
    sources, known, true = {}, {}, {}
    for name, direction in zip(("simulated A", "simulated B"), directions[1:], strict=True):
        vectors = unit_rows(rng.normal(size=(n_prompts, width)))
        prompts = np.array([f"{name}, prompt {row}" for row in range(n_prompts)], dtype=object)
        known |= dict(zip(prompts, vectors, strict=True))
        true[name] = shared * directions[0] + own * direction
        row, other = np.repeat(np.arange(n_prompts), n_battles), rng.integers(1, 4, size=n_prompts * n_battles)
        probability = outcome_probability(ratings[0] - ratings[other] + vectors[row] @ true[name], "davidson", 0.5)
        outcome = (rng.random(len(row))[:, None] > probability.cumsum(axis=1)[:, :2]).sum(axis=1)
        battles = {"prompt": prompts[row], "model_a": "strong", "model_b": np.array(list("-abc"), dtype=object)[other]}
        battles["winner"] = np.array(WINNERS, dtype=object)[outcome]
        sources[name] = source_of_battles(pd.DataFrame(battles), ["strong"])

    def encode(prompts: list[str]) -> np.ndarray:
        return np.stack([known[prompt] for prompt in prompts])

    said = {
        name: {row: encode(test.prompts) @ effect for row, effect in true.items()} for name, test in sources.items()
    }
    limits = {
        name: {row: correlation(values, sources[name].effects.to_numpy()) for row, values in columns.items()}
        for name, columns in said.items()
    }
    return sources, encode, pd.DataFrame(limits)
