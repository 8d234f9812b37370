"""The paper's training sets: people's battles alone, with an LLM judge's, with gold labels, and all together.

Judgements and gold labels become battles of the same table as people's votes, so every router learns from any of them
in the same way. Gold labels come from benchmark prompts, which are then left out of that benchmark's evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from routing.battles import number_texts
from routing.data.sources import find_files
from routing.data.votes import read_alpaca_eval
from routing.studies.inputs import PAIR, Study

GOLD_LABELS = 1_500  # as the paper has of MMLU; of a benchmark with fewer than three times as many, a third
COLUMNS = ["prompt", "model_a", "model_b", "winner"]


@dataclass(frozen=True)
class TrainingSets:
    """Battles to learn from under each of the paper's names, and which benchmark prompts each leaves to evaluate.

    Attributes
    ----------
    battles : dict of DataFrame
        "arena", "arena+judge" (real data only), "arena+gold" and "all".
    evaluated : dict of dict of bool array, shape (n_prompts,)
        Of each training set and benchmark: the prompts that were not learned from.
    inputs : dict
        What to tell `Run.record_input` beyond the study's own: name to source.
    """

    battles: Mapping[str, pd.DataFrame]
    evaluated: Mapping[str, Mapping[str, np.ndarray]]
    inputs: Mapping[str, object]


def draw_gold(prompts: np.ndarray, n_gold: int, rng: np.random.Generator) -> np.ndarray:
    """A mask, (n_prompts,), over `n_gold` distinct prompts drawn at random and their repetitions."""
    distinct, number = number_texts(prompts)
    return np.isin(number, rng.permutation(len(distinct))[:n_gold])


def training_sets(study: Study, seed: int, n_gold: int = GOLD_LABELS) -> TrainingSets:
    """The training sets of a study.

    Gold labels are of MMLU (of the simulated benchmark in a simulated study): a battle of the two models of `PAIR` on
    each of `n_gold` prompts drawn by `seed`, of at most a third of them all.

    Raises
    ------
    FileNotFoundError
        A real study without the AlpacaEval judgements.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 5]))
    source = "MMLU" if "MMLU" in study.benchmarks else next(iter(study.benchmarks))
    benchmark = study.benchmarks[source]
    prompts = benchmark.prompts["prompt"].to_numpy()
    labelled = draw_gold(prompts, min(n_gold, len(prompts) // 3), rng)
    parts = {"arena": study.battles[COLUMNS], "gold": benchmark.battles(*PAIR)[labelled]}
    wanted = {"arena": ["arena"], "arena+gold": ["arena", "gold"]}
    inputs: dict[str, object] = {}
    if study.data == "real":
        inputs["alpaca_eval"] = find_files("alpaca_eval")[0]
        parts["judge"] = read_alpaca_eval()[COLUMNS]
        names = ("arena", "arena+judge", "arena+gold")
        wanted = {name: name.split("+") for name in names} | {"all": ["arena", "judge", "gold"]}
    everything = {name: np.ones(len(table.prompts), dtype=bool) for name, table in study.benchmarks.items()}
    return TrainingSets(
        {name: pd.concat([parts[part] for part in chosen], ignore_index=True) for name, chosen in wanted.items()},
        {name: everything | ({source: ~labelled} if "gold" in chosen else {}) for name, chosen in wanted.items()},
        inputs,
    )
