"""Routers that learn from gold labels alone, by cross-validation, and what such labels say about another benchmark.

The router is similarity weighting between the two models of `PAIR`, on one battle a prompt that the answer key decides.
What it sees of a prompt and how sharply it weighs are chosen by inner folds, never on the prompts it is judged on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from routing.data.benchmarks import BenchmarkTable
from routing.embeddings import PromptEncoder
from routing.evaluation.call_curve import bootstrap_metrics
from routing.routers.similarity import SimilarityRouter
from routing.studies.cross_validation import (
    Candidate,
    assign_folds,
    choose_candidate,
    cross_validated_lead,
    nested_lead,
)
from routing.studies.inputs import PAIR
from routing.studies.two_models.pairs import pair_quality
from routing.studies.two_models.surface_features import add_surface

SURFACE_WEIGHT = 0.4  # of the surface features beside the embedding
GAMMAS = (1e4, 1e6, 1e8)
READINGS = ("gain", "strict", "weak wrong")
N_FOLDS = 5
CHOSEN_ON = 3_000  # labels that choose what is carried to another benchmark

Vectors = Mapping[str, Mapping[str, np.ndarray]]


class GoldLead(NamedTuple):
    """Ratings by a router that learned from gold labels."""

    benchmark: str
    labels: str  # what it learned from
    repeat: int  # number of the random split
    chosen: str  # what it saw and its gamma; of several folds the most frequent
    lead: np.ndarray  # (n_prompts,); not a number where a prompt was learned from


def gold_vectors(tables: Mapping[str, BenchmarkTable]) -> dict[str, dict[str, np.ndarray]]:
    """What a router may see of a prompt, by kind, then by benchmark: arrays of unit rows.

    "layer 4" is the mean of the tokens after the fourth of six layers: less of what is asked than in the last, more of
    what kind of question it is.
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


def label_battles(table: BenchmarkTable, reading: str = "gain") -> pd.DataFrame:
    """A battle of `PAIR` on each prompt.

    Parameters
    ----------
    reading : {"gain", "strict", "weak wrong"}
        Who wins: the better answer, equal ones being ties; the same, but equal ones count for the weak model; or the
        strong model wherever the weak one is wrong, which is what RouteLLM's causal LLM is trained to tell
        [RouteLLM24].
    """
    if reading not in READINGS:
        raise ValueError(f"unknown reading {reading!r}; use one of {', '.join(READINGS)}")
    battles = table.battles(*PAIR)
    if reading == "strict":
        return battles.assign(winner=battles["winner"].replace("tie", "model_b"))
    if reading == "weak wrong":
        wrong = table.quality[PAIR[1]] < table.quality[PAIR[1]].max()
        return battles.assign(winner=np.where(wrong, "model_a", "model_b"))
    return battles


def gold_candidates(vectors: Mapping[str, np.ndarray]) -> dict[str, Candidate]:
    """Every kind of vector with every gamma; `vectors`: of the battles' prompts, by kind.

    The prior is as little as holds the rating of a prompt that resembles none.
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
) -> list[GoldLead]:
    """Five folds over a benchmark's prompts, each rated by the candidate that does best within the others."""
    battles, prompts = label_battles(table), table.prompts["prompt"].to_numpy()
    candidates = gold_candidates({kind: seen[benchmark] for kind, seen in vectors.items()})
    leads = []
    for repeat in range(n_repeats):
        folds = assign_folds(prompts, N_FOLDS, rng)
        lead, chosen = nested_lead(candidates, battles, folds, *PAIR, rng, n_inner_folds=3)
        leads.append(GoldLead(benchmark, "5 folds", repeat, max(chosen, key=chosen.count), lead))
    return leads


def learn_few_labels(
    benchmark: str, table: BenchmarkTable, vectors: Vectors, labelled: np.ndarray, rng: np.random.Generator
) -> list[GoldLead]:
    """A router that learned from the prompts in `labelled` alone; and, where there are subjects, folds by subject.

    Both choose on the labels, by folds of prompts or of subjects, and neither rates a prompt in `labelled`.

    Parameters
    ----------
    labelled : bool array, shape (n_prompts,)
    """
    battles = label_battles(table)
    few = battles[labelled]
    seen = {kind: by_benchmark[benchmark] for kind, by_benchmark in vectors.items()}
    candidates = gold_candidates(seen)
    of_labels = gold_candidates({kind: rows[labelled] for kind, rows in seen.items()})

    def choose(groups: pd.Series) -> str:
        folds = assign_folds(groups[labelled].to_numpy(), N_FOLDS, rng)
        return choose_candidate(of_labels, few, folds, *PAIR)[0]

    chosen = choose(table.prompts["prompt"])
    router = of_labels[chosen].make_router().fit(few, of_labels[chosen].embeddings)
    lead = router.margin(candidates[chosen].embeddings, *PAIR)
    leads = [GoldLead(benchmark, f"{int(labelled.sum()):,} labels", 0, chosen, np.where(labelled, np.nan, lead))]
    if "subject" in table.prompts:
        chosen = choose(table.prompts["subject"])
        folds = assign_folds(table.prompts["subject"].to_numpy(), N_FOLDS, rng)
        best = candidates[chosen]
        lead = cross_validated_lead(best.make_router, battles, best.embeddings, folds, *PAIR)
        leads.append(GoldLead(benchmark, "folds by subject", 0, chosen, np.where(labelled, np.nan, lead)))
    return leads


def carry_gold(
    sources: Mapping[str, BenchmarkTable], benchmark: str, vectors: Vectors, rng: np.random.Generator
) -> list[GoldLead]:
    """What labels of other benchmarks say of this one, in each reading of a label; nothing is learned from it.

    Vectors and gamma are chosen on the labels themselves. Surface features are left out: their scale is a benchmark's.
    """
    leads = []
    for reading in READINGS:
        battles = pd.concat([label_battles(table, reading) for table in sources.values()], ignore_index=True)
        seen = {
            kind: np.concatenate([by_benchmark[name] for name in sources])
            for kind, by_benchmark in vectors.items()
            if "surface" not in kind
        }
        rows = rng.permutation(len(battles))[:CHOSEN_ON]
        folds = assign_folds(battles["prompt"].to_numpy()[rows], N_FOLDS, rng)
        few = gold_candidates({kind: known[rows] for kind, known in seen.items()})
        chosen, _ = choose_candidate(few, battles.iloc[rows], folds, *PAIR)
        best = gold_candidates(seen)[chosen]
        queries = vectors[chosen.split(",")[0]][benchmark]
        lead = best.make_router().fit(battles, best.embeddings).margin(queries, *PAIR)
        leads.append(GoldLead(benchmark, f"other benchmarks, {reading}", 0, chosen, lead))
    return leads


def evaluate_gold(
    leads: list[GoldLead], tables: Mapping[str, BenchmarkTable], n_resamples: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Metrics of each lead with intervals over its prompts, averaged over repeats.

    Returns
    -------
    DataFrame with columns benchmark, labels, chosen (of the first repeat), metric, estimate, low, high
    """
    parts = []
    for item in leads:
        kept = np.isfinite(item.lead)
        quality = [values[kept] for values in pair_quality(tables[item.benchmark])]
        metrics = bootstrap_metrics({"gold": item.lead[kept]}, *quality, n_resamples, rng)
        parts.append(metrics.assign(benchmark=item.benchmark, labels=item.labels, chosen=item.chosen))
    by = pd.concat(parts).groupby(["benchmark", "labels", "metric"], sort=False)
    return by[["estimate", "low", "high"]].mean().assign(chosen=by["chosen"].first()).reset_index()
