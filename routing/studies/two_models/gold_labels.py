"""Train routers on gold labels alone, by cross-validation, and transfer such labels to another benchmark.

The router is similarity weighting between the two models of `PAIR`, on one battle per prompt that the answer key
decides. What it sees of a prompt and its gamma are chosen by inner folds, never on the prompts it is evaluated on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from routing.data.benchmarks import BenchmarkTable
from routing.embeddings import PromptEncoder
from routing.evaluation.call_curve import bootstrap_metrics
from routing.routers.similarity import SimilarityRouter
from routing.studies.cross_validation import (
    Candidate,
    assign_folds,
    choose_candidate,
    cross_validated_margin,
    nested_margin,
)
from routing.studies.inputs import PAIR
from routing.studies.plotting import plot_rows
from routing.studies.two_models.pairs import pair_quality
from routing.studies.two_models.surface_features import add_surface

SURFACE_WEIGHT = 0.4  # of the surface features, relative to the embedding
GAMMAS = (1e4, 1e6, 1e8)
LABEL_RULES = ("gain", "strict", "weak wrong")
N_FOLDS = 5
CHOSEN_ON = 3_000  # labels that choose what is transferred to another benchmark

Vectors = Mapping[str, Mapping[str, np.ndarray]]


class GoldMargin(NamedTuple):
    """Margins of a router trained on gold labels."""

    benchmark: str
    labels: str  # what it was trained on
    repeat: int  # number of the random split
    chosen: str  # what it saw and its gamma; of several folds the most frequent
    margin: np.ndarray  # (n_prompts,); NaN where a prompt was trained on


def gold_vectors(tables: Mapping[str, BenchmarkTable]) -> dict[str, dict[str, np.ndarray]]:
    """Return what a router may see of a prompt, by kind, then by benchmark: arrays of unit rows.

    "layer 4" is the mean of the tokens after the fourth of six layers, which says less about the topic than the last
    layer and more about the type of question.
    """
    prompts = {benchmark: table.prompts["prompt"].tolist() for benchmark, table in tables.items()}
    encoders = {"last layer": PromptEncoder(), "layer 4": PromptEncoder(n_layers=4, max_length=256)}
    vectors = {
        kind: {benchmark: encoder.encode(texts) for benchmark, texts in prompts.items()}
        for kind, encoder in encoders.items()
    }
    vectors["layer 4 and surface"] = {
        benchmark: add_surface(vectors["layer 4"][benchmark], texts, SURFACE_WEIGHT)
        for benchmark, texts in prompts.items()
    }
    return vectors


def label_battles(table: BenchmarkTable, rule: str = "gain") -> pd.DataFrame:
    """Return one battle of `PAIR` per prompt.

    Parameters
    ----------
    rule : {"gain", "strict", "weak wrong"}
        Who wins: the better answer, equal ones being ties; the same, but equal ones count for the weak model; or the
        strong model wherever the weak one is wrong, which is what RouteLLM's causal LLM is trained on [RouteLLM24].
    """
    if rule not in LABEL_RULES:
        raise ValueError(f"unknown label rule {rule!r}; use one of {', '.join(LABEL_RULES)}")
    battles = table.battles(*PAIR)
    if rule == "strict":
        return battles.assign(winner=battles["winner"].replace("tie", "model_b"))
    if rule == "weak wrong":
        wrong = table.quality[PAIR[1]] < table.quality[PAIR[1]].max()
        return battles.assign(winner=np.where(wrong, "model_a", "model_b"))
    return battles


def gold_candidates(vectors: Mapping[str, np.ndarray]) -> dict[str, Candidate]:
    """Return a candidate for every kind of vector and every gamma; `vectors`: of the battles' prompts, by kind.

    The prior is just strong enough to hold the rating of a prompt that resembles none.
    """

    def make_router(gamma: float) -> SimilarityRouter:
        return SimilarityRouter(gamma=gamma, n_tiers=None, prior_strength=0.1, ties="half")

    return {
        f"{kind}, gamma {gamma:.0e}": Candidate(lambda gamma=gamma: make_router(gamma), seen)
        for kind, seen in vectors.items()
        for gamma in GAMMAS
    }


def cross_validate_gold(
    benchmark: str, table: BenchmarkTable, vectors: Vectors, rng: np.random.Generator, n_repeats: int = 1
) -> list[GoldMargin]:
    """Return margins by five folds over a benchmark's prompts, each by the candidate that is best within the others."""
    battles, prompts = label_battles(table), table.prompts["prompt"].to_numpy()
    candidates = gold_candidates({kind: seen[benchmark] for kind, seen in vectors.items()})
    margins = []
    for repeat in range(n_repeats):
        folds = assign_folds(prompts, N_FOLDS, rng)
        margin, chosen = nested_margin(candidates, battles, folds, *PAIR, rng, n_inner_folds=3)
        margins.append(GoldMargin(benchmark, "5 folds", repeat, max(chosen, key=chosen.count), margin))
    return margins


def learn_few_labels(
    benchmark: str, table: BenchmarkTable, vectors: Vectors, labelled: np.ndarray, rng: np.random.Generator
) -> list[GoldMargin]:
    """Return margins of a router trained on the prompts in `labelled` alone; with subjects, also of folds by subject.

    Both choose on the labels, by folds of prompts or of subjects, and neither rates a prompt in `labelled`, a bool
    array of shape (n_prompts,).
    """
    battles = label_battles(table)
    few = battles[labelled]
    candidates = gold_candidates({kind: by_benchmark[benchmark] for kind, by_benchmark in vectors.items()})
    of_labels = {name: candidate.select(labelled) for name, candidate in candidates.items()}

    def choose(groups: pd.Series) -> str:
        return choose_candidate(of_labels, few, assign_folds(groups[labelled].to_numpy(), N_FOLDS, rng), *PAIR)

    chosen = choose(table.prompts["prompt"])
    margin = of_labels[chosen].fit(few).margin(candidates[chosen].embeddings, *PAIR)
    found = {f"{int(labelled.sum()):,} labels": (chosen, margin)}
    if "subject" in table.prompts:
        chosen = choose(table.prompts["subject"])
        folds = assign_folds(table.prompts["subject"].to_numpy(), N_FOLDS, rng)
        found["folds by subject"] = chosen, cross_validated_margin(candidates[chosen], battles, folds, *PAIR)
    return [
        GoldMargin(benchmark, labels, 0, chosen, np.where(labelled, np.nan, margin))
        for labels, (chosen, margin) in found.items()
    ]


def transfer_gold(
    sources: Mapping[str, BenchmarkTable], benchmark: str, vectors: Vectors, rng: np.random.Generator
) -> list[GoldMargin]:
    """Return margins on a benchmark by routers trained on labels of others, one per label rule.

    Vectors and gamma are chosen on the labels themselves. Surface features are left out: their scale depends on the
    benchmark.
    """
    margins = []
    for rule in LABEL_RULES:
        battles = pd.concat([label_battles(table, rule) for table in sources.values()], ignore_index=True)
        candidates = gold_candidates(
            {
                kind: np.concatenate([by_benchmark[name] for name in sources])
                for kind, by_benchmark in vectors.items()
                if "surface" not in kind
            }
        )
        rows = rng.permutation(len(battles))[:CHOSEN_ON]
        folds = assign_folds(battles["prompt"].to_numpy()[rows], N_FOLDS, rng)
        few = {name: candidate.select(rows) for name, candidate in candidates.items()}
        chosen = choose_candidate(few, battles.iloc[rows], folds, *PAIR)
        margin = candidates[chosen].fit(battles).margin(vectors[chosen.split(",")[0]][benchmark], *PAIR)
        margins.append(GoldMargin(benchmark, f"other benchmarks, {rule}", 0, chosen, margin))
    return margins


def evaluate_gold(
    margins: list[GoldMargin], tables: Mapping[str, BenchmarkTable], n_resamples: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Return metrics of each margin with intervals over its prompts, averaged over repeats.

    Returns
    -------
    DataFrame with columns benchmark, labels, chosen (of the first repeat), metric, estimate, low, high
    """
    parts = []
    for item in margins:
        kept = np.isfinite(item.margin)
        quality = [values[kept] for values in pair_quality(tables[item.benchmark])]
        metrics = bootstrap_metrics({"gold": item.margin[kept]}, *quality, n_resamples, rng)
        parts.append(metrics.assign(benchmark=item.benchmark, labels=item.labels, chosen=item.chosen))
    by = pd.concat(parts).groupby(["benchmark", "labels", "metric"], sort=False)
    return by[["estimate", "low", "high"]].mean().assign(chosen=by["chosen"].first()).reset_index()


def plot_gold(results: pd.DataFrame) -> Figure:
    """Draw APGR of each setting, one row each; `results` as `evaluate_gold`."""
    shown = results[results["metric"] == "apgr"]
    shown = shown.assign(name=shown["benchmark"] + ", " + shown["labels"])
    title = (
        f"Gold labels route significantly better than random in {(shown['low'] > 0.5).sum()} of {len(shown)} settings"
    )
    return plot_rows(shown, "APGR (exact area, 95 % over prompts)", title, reference=0.5)
