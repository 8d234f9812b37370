"""What notebook 08 studies in each profile: scores of many models on prompts to learn from and on others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from routing.data.benchmarks import BenchmarkTable, read_llmrouter, read_routerbench
from routing.data.sources import find_files
from routing.studies.simulated.arena import simulate_arena

SIMULATED_SIZES = {"smoke": (240, 120), "quick": (900, 450)}  # prompts to learn from, prompts to test on


@dataclass(frozen=True)
class RoutingTask:
    """Scores of many models on prompts to learn from, and on others to be judged on; columns as each other's."""

    train: BenchmarkTable
    test: BenchmarkTable


def load_tasks(profile: str, seed: int) -> tuple[dict[str, RoutingTask], dict[str, object]]:
    """The tasks of a profile, and what to tell `Run.record_input` of all that notebook 08 reads: name to source.

    In "full" RouterBench's ARC-Challenge and MBPP (with dollars) and LLMRouter's mixture (without), split as published;
    the prompt of a RouterBench row is its question, without the worked examples that all share. Otherwise one
    simulated benchmark, of the arena of `routing.studies.inputs.load_study`.

    Raises
    ------
    ValueError
        An unknown profile.
    FileNotFoundError
        "full" without the real data; nothing simulated takes its place.
    """
    if profile == "full":
        tasks = {}
        for title, name in (("ARC-Challenge", "arc_challenge"), ("MBPP", "mbpp")):
            table = read_routerbench(name)
            prompts = table.prompts.assign(prompt=table.prompts["question"])
            table = BenchmarkTable(prompts, table.quality, table.cost_usd)
            in_train = table.prompts["split"] == "train"
            tasks[title] = RoutingTask(table.select(in_train), table.select(~in_train))
        tasks["LLMRouter"] = RoutingTask(*read_llmrouter())
        paths = [path for name in ("routerbench", "llmrouter", "votes", "alpaca_eval") for path in find_files(name)]
        return tasks, {f"{path.parent.name}/{path.name}": path for path in paths}
    if profile not in SIMULATED_SIZES:
        raise ValueError(f"profile is {profile!r}; use one of {', '.join(SIMULATED_SIZES)}, full")
    n_train, n_test = SIMULATED_SIZES[profile]
    rng = np.random.default_rng(np.random.SeedSequence([seed, 8]))
    arena = simulate_arena(seed)
    table = arena.sample_benchmark(arena.sample_prompts(n_train + n_test, rng), rng)
    in_train = np.arange(n_train + n_test) < n_train
    task = RoutingTask(table.select(in_train), table.select(~in_train))
    return {"simulated": task}, {"simulated task": table.quality}
