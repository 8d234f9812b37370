"""What notebooks 03 to 08 study in each profile: battles to learn from, battles held out, and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from routing.data.benchmarks import BenchmarkTable, read_gsm8k, read_mmlu, read_mt_bench
from routing.data.sources import find_files
from routing.data.votes import read_arena55k
from routing.studies.cross_validation import assign_folds
from routing.studies.simulated.arena import SimulatedArena, simulate_arena

PAIR = ("gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1")  # strong and weak in RouteLLM's main tables
SIMULATED_SIZES = {"smoke": (240, 2_000, 120), "quick": (1_200, 12_000, 600)}  # prompts, battles, benchmark prompts
HELD_OUT_FOLDS = 5  # one of them is held out


@dataclass(frozen=True)
class Study:
    """Battles and benchmarks of one profile.

    Attributes
    ----------
    battles : DataFrame
        To learn from. Held-out battles are on other prompts.
    held_out : DataFrame
    benchmarks : dict of BenchmarkTable
        "MT-Bench", "MMLU" and "GSM8K", or "simulated"; each has both models of `PAIR`.
    data : "real" or "simulated"
    inputs : dict
        What to tell `Run.record_input`: name to source.
    arena : SimulatedArena or None
        Where the data are simulated, their truth,
    held_out_prompts : DataFrame or None
        and topic and difficulty of each held-out battle's prompt.
    """

    battles: pd.DataFrame
    held_out: pd.DataFrame
    benchmarks: dict[str, BenchmarkTable]
    data: str
    inputs: dict[str, object]
    arena: SimulatedArena | None = None
    held_out_prompts: pd.DataFrame | None = None


def load_study(profile: str, seed: int) -> Study:
    """The study of a profile: simulated for "smoke" and "quick", real for "full".

    Raises
    ------
    ValueError
        An unknown profile.
    FileNotFoundError
        "full" without the real data; nothing simulated takes its place.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 3]))
    if profile == "full":
        battles = read_arena55k()
        held_out = assign_folds(battles["prompt"].to_numpy(), HELD_OUT_FOLDS, rng) == 0
        return Study(
            battles[~held_out].reset_index(drop=True),
            battles[held_out].reset_index(drop=True),
            {"MT-Bench": read_mt_bench(), "MMLU": read_mmlu(), "GSM8K": read_gsm8k()},
            "real",
            {"arena55k": find_files("arena55k")[0], **{path.name: path for path in find_files("routellm")}},
        )
    if profile not in SIMULATED_SIZES:
        raise ValueError(f"profile is {profile!r}; use one of {', '.join(SIMULATED_SIZES)}, full")
    n_prompts, n_battles, n_benchmark = SIMULATED_SIZES[profile]
    arena = simulate_arena(seed)
    prompts = arena.sample_prompts(n_prompts + n_benchmark, rng)
    asked, tested = prompts[:n_prompts], prompts[n_prompts:]
    held_out = assign_folds(asked["prompt"].to_numpy(), HELD_OUT_FOLDS, rng) == 0
    battles = arena.sample_battles(asked[~held_out], n_battles, rng)
    held_out_battles = arena.sample_battles(asked[held_out], n_battles // HELD_OUT_FOLDS, rng)
    benchmark = arena.sample_benchmark(tested, rng)
    return Study(
        battles,
        held_out_battles,
        {"simulated": benchmark},
        "simulated",
        {"simulated battles": battles, "simulated benchmark": benchmark.quality},
        arena,
        asked.set_index("prompt").loc[held_out_battles["prompt"]].reset_index(),
    )


def score_by_kind(
    benchmarks: dict[str, BenchmarkTable], predicted: dict[str, np.ndarray], level: float = 0.95
) -> pd.DataFrame:
    """Score of the strong against the weak model of `PAIR` on each kind of prompt: predicted, and as graded.

    A kind is a topic, category or subject of a benchmark that has them, else the whole benchmark. A tie is half.

    Parameters
    ----------
    predicted : dict of float array, shape (n_prompts, 3)
        Of each benchmark: P(strong wins), P(tie), P(weak wins).

    Returns
    -------
    DataFrame
        A row a kind: group, predicted, observed (means), n, low, high (normal interval of the observed mean; missing
        for a single prompt).
    """
    parts = []
    for name, table in benchmarks.items():
        known = [column for column in ("topic", "category", "subject") if column in table.prompts]
        group = name + ": " + table.prompts[known[0]] if known else pd.Series(name, index=table.prompts.index)
        observed = table.battles(*PAIR)["winner"].map({"model_a": 1.0, "tie": 0.5, "model_b": 0.0})
        score = predicted[name][:, 0] + predicted[name][:, 1] / 2
        parts.append(pd.DataFrame({"group": group, "predicted": score, "observed": observed}))
    kinds = pd.concat(parts).groupby("group")
    table = kinds.mean().assign(n=kinds.size())
    width = norm.ppf((1 + level) / 2) * kinds["observed"].std() / np.sqrt(table["n"])
    return table.assign(low=table["observed"] - width, high=table["observed"] + width).reset_index()
