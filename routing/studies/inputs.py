"""Load what notebooks 03 to 09 study in each profile: battles, training sets, benchmarks, scores of many models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.random import Generator
from scipy.stats import norm

from routing.battles import number_texts
from routing.data import benchmarks
from routing.data.benchmarks import BenchmarkTable
from routing.data.judged import HUMAN, READERS, overlaps, read_arena_bench
from routing.data.paper import read_gpt4_judge_battles
from routing.data.sources import find_files
from routing.data.votes import read_arena55k
from routing.studies.cross_validation import assign_folds
from routing.studies.mixtures import (
    CHOSEN,
    MIXTURES,
    N_BATTLES,
    PEOPLE,
    add_leaderboard,
    draw_mixture,
    hold_out,
    load_sources,
)
from routing.studies.simulated.arena import SimulatedArena, simulate_arena

PAIR = ("gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1")  # strong and weak in RouteLLM's main tables
SIMULATED_SIZES = {"smoke": (160, 1_200, 100), "quick": (900, 8_000, 450)}  # prompts, battles, benchmark prompts
TASK_SIZES = {"smoke": (190, 60), "quick": (600, 300)}  # of many models: prompts to train on, prompts to test on
HELD_OUT_FOLDS = 5  # one of them is held out
HELD_OUT_PROMPTS = 200  # of each judged source
GOLD_LABELS = 1_500  # as the paper has of MMLU; of a benchmark with fewer than three times as many, a third
COLUMNS = ["prompt", "model_a", "model_b", "winner"]


@dataclass(frozen=True)
class Study:
    """Battles and benchmarks of one profile."""

    battles: pd.DataFrame  # to train on
    held_out: pd.DataFrame  # on other prompts
    benchmarks: dict[str, BenchmarkTable]  # of the paper and "Arena-Bench", or "simulated"; with both models of `PAIR`
    data: str  # "real" or "simulated"
    inputs: dict[str, object]  # name and source of each input, for `Run.record_input`
    arena: SimulatedArena | None = None  # the truth of simulated data,
    held_out_prompts: pd.DataFrame | None = None  # and topic and difficulty of each held-out battle's prompt


@dataclass(frozen=True)
class TrainingSets:
    """The paper's training sets: people's battles alone, with LLM judges', with gold labels, and all together.

    Judgements and gold labels are battles too: with the judges' a mixture of `routing.studies.mixtures`. Prompts with
    gold labels are left out of their benchmark's evaluation; no other prompt of a benchmark is learned from.
    """

    battles: Mapping[str, pd.DataFrame]  # "arena" and "arena+gold"; of real data also "arena+judge" and "all"
    evaluated: Mapping[str, Mapping[str, np.ndarray]]  # by set and benchmark: (n_prompts,), those not trained on
    inputs: Mapping[str, object]  # beyond the study's own
    held_out: pd.DataFrame | None = None  # of real data: battles of every source on other prompts, as `hold_out` gives
    sources: pd.DataFrame | None = None  # of real data: all battles that "arena+judge" is drawn from


@dataclass(frozen=True)
class RoutingTask:
    """Scores of many models on prompts to train on, and on other prompts to test on, with the same columns."""

    train: BenchmarkTable
    test: BenchmarkTable
    ood: BenchmarkTable | None = None  # test prompts of tasks that are not trained on

    @property
    def parts(self) -> dict[str, BenchmarkTable]:
        """The parts to test on, by name: "test" and, where there is one, "ood"."""
        return {"test": self.test} | ({"ood": self.ood} if self.ood is not None else {})


def paper_battles() -> bool:
    """Return whether profile "full" takes the paper's battles (the environment's ``ROUTING_BATTLES`` is "paper").

    Those are all 57,477 of people and the GPT-4 judge's 109,101, instead of a part and the mixture of judged battles
    that the results of this project are made with, and the paper's three benchmarks. ``python -m routing run --profile
    paper`` runs the notebooks of "full" so.
    """
    battles = os.environ.get("ROUTING_BATTLES", "results")
    if battles not in ("results", "paper"):
        raise ValueError(f"ROUTING_BATTLES is {battles!r}; use results or paper")
    return battles == "paper"


def title_name(benchmark: str) -> str:
    """Return the name of a benchmark inside a sentence."""
    return "the simulated benchmark" if benchmark == "simulated" else benchmark


def _sizes(profile: str, sizes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    if profile not in sizes:
        raise ValueError(f"profile is {profile!r}; use one of {', '.join(sizes)}, full")
    return sizes[profile]


def _tested_prompts(benchmarks: Mapping[str, BenchmarkTable]) -> list[str]:
    return [prompt for table in benchmarks.values() for prompt in table.prompts["prompt"]]


def load_study(profile: str, seed: int) -> Study:
    """Load the study of a profile: simulated for "smoke" and "quick", real for "full".

    Raises ValueError for an unknown profile, FileNotFoundError for "full" without the real data: nothing replaces them.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 3]))
    if profile == "full":
        battles, arena = read_arena55k(whole=paper_battles()), "arena55k_whole" if paper_battles() else "arena55k"
        held_out = assign_folds(battles["prompt"].to_numpy(), HELD_OUT_FOLDS, rng) == 0
        tables = {"MT-Bench": benchmarks.read_mt_bench(), "MMLU": benchmarks.read_mmlu()}
        tables["GSM8K"] = benchmarks.read_gsm8k()
        inputs = {arena: find_files(arena)[0], **{path.name: path for path in find_files("routellm")}}
        if not paper_battles():
            tables["Arena-Bench"], inputs["arena_bench_v1"] = read_arena_bench(), find_files("arena_bench_v1")[0]
        learned = ~held_out & ~overlaps(battles["prompt"], _tested_prompts(tables))
        parts = [battles[rows].reset_index(drop=True) for rows in (learned, held_out)]
        return Study(*parts, tables, "real", inputs)
    n_prompts, n_battles, n_benchmark = _sizes(profile, SIMULATED_SIZES)
    arena = simulate_arena(seed)
    prompts = arena.sample_prompts(n_prompts + n_benchmark, rng)
    queried, tested = prompts[:n_prompts], prompts[n_prompts:]
    held_out = assign_folds(queried["prompt"].to_numpy(), HELD_OUT_FOLDS, rng) == 0
    battles = arena.sample_battles(queried[~held_out], n_battles, rng)
    held_out_battles = arena.sample_battles(queried[held_out], n_battles // HELD_OUT_FOLDS, rng)
    benchmark = arena.sample_benchmark(tested, rng)
    inputs = {"simulated battles": battles, "simulated benchmark": benchmark.quality}
    held_out_prompts = queried.set_index("prompt").loc[held_out_battles["prompt"]].reset_index()
    return Study(battles, held_out_battles, {"simulated": benchmark}, "simulated", inputs, arena, held_out_prompts)


def draw_gold(prompts: np.ndarray, n_gold: int, rng: Generator) -> np.ndarray:
    """Return a mask, (n_prompts,), over `n_gold` distinct prompts drawn at random and their repetitions."""
    distinct, number = number_texts(prompts)
    return np.isin(number, rng.permutation(len(distinct))[:n_gold])


def training_sets(study: Study, seed: int) -> TrainingSets:
    """Make the training sets of a study; FileNotFoundError for a real one without the AlpacaEval judgements.

    Gold labels are of MMLU (of the simulated benchmark in a simulated study): one battle of the two models of `PAIR`
    on each of `GOLD_LABELS` prompts drawn by `seed`, or on a third of all prompts if that is fewer.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 5]))
    source = "MMLU" if "MMLU" in study.benchmarks else next(iter(study.benchmarks))
    benchmark = study.benchmarks[source]
    prompts = benchmark.prompts["prompt"].to_numpy()
    labelled = draw_gold(prompts, min(GOLD_LABELS, len(prompts) // 3), rng)
    gold = benchmark.battles(*PAIR)[labelled]
    battles = {"arena": study.battles[COLUMNS]}
    inputs: dict[str, object] = {}
    held_out = learned = None
    if study.data == "real":
        tested = [*_tested_prompts(study.benchmarks), *study.held_out["prompt"]]
        people = study.held_out[COLUMNS].assign(source=PEOPLE, judge=HUMAN, weight=1.0)
        if paper_battles():
            inputs["gpt4_judge_battles"] = find_files("gpt4_judge_battles")[0]
            judge = read_gpt4_judge_battles()[COLUMNS]
            judge = judge[~overlaps(judge["prompt"], tested)]
            held_out = add_leaderboard(people, battles["arena"].assign(source=PEOPLE, judge=HUMAN, weight=1.0))
            battles["arena+judge"] = pd.concat([battles["arena"], judge], ignore_index=True)
        else:
            paths = [path for name in READERS for path in find_files(name)]
            inputs |= {f"{path.parent.name}/{path.name}": path for path in paths}
            table = load_sources(study.battles, tested)
            others = table[table["source"] != PEOPLE].reset_index(drop=True)
            held_out = pd.concat([people, hold_out(others, rng, HELD_OUT_PROMPTS)[1][people.columns]])
            learned = table[~overlaps(table["prompt"], held_out["prompt"])].reset_index(drop=True)
            held_out = add_leaderboard(held_out.reset_index(drop=True), learned)
            battles["arena+judge"] = draw_mixture(learned, MIXTURES[CHOSEN], N_BATTLES, rng).reset_index(drop=True)
    battles["arena+gold"] = pd.concat([battles["arena"], gold], ignore_index=True)
    if study.data == "real":
        battles["all"] = pd.concat([battles["arena+judge"], gold], ignore_index=True)
    everything = {name: np.ones(len(table.prompts), dtype=bool) for name, table in study.benchmarks.items()}
    unseen = {source: ~overlaps(prompts, prompts[labelled])}
    return TrainingSets(
        battles,
        {name: everything | (unseen if name in ("arena+gold", "all") else {}) for name in battles},
        inputs,
        held_out,
        learned,
    )


def select_data(study: Study, training_data: str, seed: int) -> Study:
    """Return the study with the battles of a training set, "arena" (as it is) or another of `training_sets`."""
    if training_data == "arena":
        return study
    sets = training_sets(study, seed)
    if training_data not in sets.battles:
        raise ValueError(f"no training set {training_data} of {study.data} data; use {', '.join(sets.battles)}")
    return replace(study, battles=sets.battles[training_data], inputs={**study.inputs, **sets.inputs})


def load_tasks(profile: str, seed: int) -> tuple[dict[str, RoutingTask], dict[str, object]]:
    """Load the tasks of many models of a profile, and name and source of all inputs of notebook 08.

    In "full" RouterBench's ARC-Challenge and MBPP (with dollars; prompts without the worked examples all share),
    LLMRouter's and RouterDC's mixtures (without), split as published, with the three tasks that RouterDC's tables have
    out of distribution; else one of the arena of `load_study`. Raises as `load_study`.
    """
    if profile == "full":
        tasks = {}
        for title, name in (("ARC-Challenge", "arc_challenge"), ("MBPP", "mbpp")):
            table = benchmarks.read_routerbench(name)
            table = replace(table, prompts=table.prompts.assign(prompt=table.prompts["question"]))
            in_train = table.prompts["split"] == "train"
            tasks[title] = RoutingTask(table.select(in_train), table.select(~in_train))
        tasks["LLMRouter"] = RoutingTask(*benchmarks.read_llmrouter())
        train, test, ood = benchmarks.read_routerdc()
        tasks["RouterDC"] = RoutingTask(train, test, ood.select(ood.prompts["task"] != "javascript"))
        sources = ("routerbench", "llmrouter", "routerdc", "routerarena_cached", "votes", "alpaca_eval")
        paths = [path for name in sources for path in find_files(name)]
        return tasks, {f"{path.parent.name}/{path.name}": path for path in paths}
    n_train, n_test = _sizes(profile, TASK_SIZES)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 8]))
    arena = simulate_arena(seed)
    table = arena.sample_benchmark(arena.sample_prompts(n_train + n_test, rng), rng)
    in_train = np.arange(n_train + n_test) < n_train
    task = RoutingTask(table.select(in_train), table.select(~in_train))
    return {"simulated": task}, {"simulated task": table.quality}


def score_by_category(tables: Mapping[str, BenchmarkTable], predicted: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return the score of the strong against the weak model of `PAIR` on each category of prompts; a tie is half.

    `predicted` has P(strong wins), P(tie), P(weak wins) by benchmark, shape (n_prompts, 3). A category is a topic,
    category or subject of a benchmark that has them, else all of it. Columns are group, predicted, observed (means), n,
    low, high (95 % of the observed mean, normal; missing for a single prompt).
    """
    parts = []
    for name, table in tables.items():
        known = [column for column in ("topic", "category", "subject") if column in table.prompts]
        group = name + ": " + table.prompts[known[0]] if known else pd.Series(name, index=table.prompts.index)
        observed = table.battles(*PAIR)["winner"].map({"model_a": 1.0, "tie": 0.5, "model_b": 0.0})
        score = predicted[name][:, 0] + predicted[name][:, 1] / 2
        parts.append(pd.DataFrame({"group": group, "predicted": score, "observed": observed}))
    categories = pd.concat(parts).groupby("group")
    table = categories.mean().assign(n=categories.size())
    width = norm.ppf(0.975) * categories["observed"].std() / np.sqrt(table["n"])
    return table.assign(low=table["observed"] - width, high=table["observed"] + width).reset_index()
