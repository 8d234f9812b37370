"""Train routers on gold labels alone, by cross-validation, and transfer such labels to another benchmark.

The router is similarity weighting of the models of `PAIR`, on a battle per prompt that the answer key decides. What it
sees of a prompt and its gamma are chosen by inner folds, never on the prompts it is evaluated on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.random import Generator

from routing.data.benchmarks import BenchmarkTable
from routing.embeddings import PromptEncoder, unit_rows
from routing.evaluation.call_curve import bootstrap_metrics
from routing.routers.similarity import SimilarityRouter
from routing.studies import cross_validation
from routing.studies.cross_validation import Candidate, assign_folds
from routing.studies.inputs import PAIR
from routing.studies.plotting import plot_rows
from routing.studies.two_models.pairs import Benchmarks, pair_quality

SURFACE_WEIGHT = 0.4  # of the surface features, relative to the embedding
GAMMAS = (1e4, 1e6, 1e8)
LABEL_RULES = ("gain", "strict", "weak wrong")
N_FOLDS = 5
CHOSEN_ON = 3_000  # labels that choose what is transferred to another benchmark
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
SENTENCE_END = re.compile(r"[.!?](?:\s|$)")
SYMBOLS = re.compile(r"[-+*/=^%$\\_]")
LARGEST_NUMBER = 1e9  # numbers beyond it say no more
N_FEATURES = 8  # of a prompt's surface

Vectors = Mapping[str, Mapping[str, np.ndarray]]


def surface_features(prompts: Sequence[str]) -> np.ndarray:
    """Return eight features of each prompt that say how much work it is: (n_prompts, 8), float64.

    Logarithms of 1 plus: characters, words, numbers, the largest number, line breaks, sentences, symbols of formulas,
    characters per word.
    """
    features = np.zeros((len(prompts), N_FEATURES))
    for row, prompt in zip(features, prompts, strict=True):
        words = len(prompt.split())
        numbers = [min(float(text.replace(",", "")), LARGEST_NUMBER) for text in NUMBER.findall(prompt)]
        sentences, symbols = (len(pattern.findall(prompt)) for pattern in (SENTENCE_END, SYMBOLS))
        row[:4] = len(prompt), words, len(numbers), max(numbers, default=0.0)
        row[4:] = prompt.count("\n"), sentences, symbols, len(prompt) / max(words, 1)
    return np.log1p(features)


def add_surface(vectors: np.ndarray, prompts: Sequence[str], weight: float) -> np.ndarray:
    """Append to unit vectors the surface features of their prompts: (n_prompts, width + 8), unit rows, float32.

    The features have mean 0 and deviation 1 over these prompts (0 where all are equal), times `weight` / sqrt(8).
    """
    features = surface_features(prompts)
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 1e-9, spread, np.inf) / np.sqrt(N_FEATURES)
    return unit_rows(np.hstack([vectors, weight * scaled])).astype(np.float32)


class GoldMargin(NamedTuple):
    """Margins of a router trained on gold labels."""

    benchmark: str
    labels: str  # what it was trained on
    chosen: str  # what it saw and its gamma; of several folds the most frequent
    margin: np.ndarray  # (n_prompts,); NaN where a prompt was trained on


def gold_vectors(tables: Benchmarks) -> Vectors:
    """Return what a router may see of a prompt, by kind, then by benchmark: arrays of unit rows.

    "layer 4", of six, says less about the topic than the last layer and more about the type of question.
    """
    prompts = {benchmark: table.prompts["prompt"].tolist() for benchmark, table in tables.items()}
    encoders = {"last layer": PromptEncoder(), "layer 4": PromptEncoder(n_layers=4, max_length=256)}
    vectors = {}
    for kind, encoder in encoders.items():
        vectors[kind] = {name: encoder.encode(texts) for name, texts in prompts.items()}
    layer = vectors["layer 4"]
    surface = {name: add_surface(layer[name], texts, SURFACE_WEIGHT) for name, texts in prompts.items()}
    return {**vectors, "layer 4 and surface": surface}


def label_battles(table: BenchmarkTable, rule: str = "gain") -> pd.DataFrame:
    """Return one battle of `PAIR` per prompt, won by a label rule.

    "gain": the better answer wins, equal ones are ties; "strict": equal ones count for the weak model; "weak wrong":
    the strong model wins wherever the weak one is wrong, as RouteLLM's causal LLM is trained [RouteLLM24].
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


def _candidates(vectors: Vectors, *benchmarks: str) -> dict[str, Candidate]:
    """Return a candidate for every kind of vector and every gamma, on the prompts of these benchmarks in this order."""
    make_router = partial(SimilarityRouter, n_tiers=None, prior_strength=0.1, ties="half")  # a prompt may resemble none
    candidates = {}
    for kind, seen in vectors.items():
        embeddings = np.concatenate([seen[name] for name in benchmarks])
        for gamma in GAMMAS:
            candidates[f"{kind}, gamma {gamma:.0e}"] = Candidate(partial(make_router, gamma=gamma), embeddings)
    return candidates


def _choose(
    candidates: Mapping[str, Candidate], battles: pd.DataFrame, groups: pd.Series, rows: np.ndarray, rng: Generator
) -> str:
    """Return the candidate that is best by folds over the groups of these rows of the battles."""
    folds = assign_folds(groups.to_numpy()[rows], N_FOLDS, rng)
    selected = {name: candidate.select(rows) for name, candidate in candidates.items()}
    return cross_validation.choose_candidate(selected, battles.iloc[rows], folds, *PAIR)


def cross_validate_gold(
    benchmark: str, table: BenchmarkTable, vectors: Vectors, rng: Generator, n_repeats: int = 1
) -> list[GoldMargin]:
    """Return margins by five folds over a benchmark's prompts, each by the candidate that is best within the others."""
    battles, candidates = label_battles(table), _candidates(vectors, benchmark)
    margins = []
    for _ in range(n_repeats):
        folds = assign_folds(battles["prompt"].to_numpy(), N_FOLDS, rng)
        margin, chosen = cross_validation.nested_margin(candidates, battles, folds, *PAIR, rng)
        margins.append(GoldMargin(benchmark, "5 folds", max(chosen, key=chosen.count), margin))
    return margins


def learn_few_labels(
    benchmark: str, table: BenchmarkTable, vectors: Vectors, labelled: np.ndarray, rng: Generator
) -> list[GoldMargin]:
    """Return margins of a router trained on the prompts in `labelled`, bool (n_prompts,); also of folds by subject.

    Both choose on the labels, by folds of prompts or of subjects, and neither rates a prompt in `labelled`.
    """
    battles, candidates = label_battles(table), _candidates(vectors, benchmark)
    chosen = _choose(candidates, battles, table.prompts["prompt"], labelled, rng)
    router = candidates[chosen].select(labelled).fit(battles[labelled])
    found = [(f"{labelled.sum():,} labels", chosen, router.margin(candidates[chosen].embeddings, *PAIR))]
    if "subject" in table.prompts:
        chosen = _choose(candidates, battles, table.prompts["subject"], labelled, rng)
        folds = assign_folds(table.prompts["subject"].to_numpy(), N_FOLDS, rng)
        margin = cross_validation.cross_validated_margin(candidates[chosen], battles, folds, *PAIR)
        found.append(("folds by subject", chosen, margin))
    return [GoldMargin(benchmark, labels, name, np.where(labelled, np.nan, margin)) for labels, name, margin in found]


def transfer_gold(sources: Benchmarks, benchmark: str, vectors: Vectors, rng: Generator) -> list[GoldMargin]:
    """Return margins on a benchmark by routers trained on labels of others, one per label rule.

    All is chosen on the labels themselves, without surface features, whose scale depends on the benchmark.
    """
    candidates = _candidates({kind: seen for kind, seen in vectors.items() if "surface" not in kind}, *sources)
    margins = []
    for rule in LABEL_RULES:
        battles = pd.concat([label_battles(table, rule) for table in sources.values()], ignore_index=True)
        chosen = _choose(candidates, battles, battles["prompt"], rng.permutation(len(battles))[:CHOSEN_ON], rng)
        margin = candidates[chosen].fit(battles).margin(vectors[chosen.split(",")[0]][benchmark], *PAIR)
        margins.append(GoldMargin(benchmark, f"other benchmarks, {rule}", chosen, margin))
    return margins


def evaluate_gold(margins: list[GoldMargin], tables: Benchmarks, n_resamples: int, rng: Generator) -> pd.DataFrame:
    """Return metrics of each margin over its prompts, averaged over repeats, and what the first repeat has chosen."""
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
    n_better = (shown["low"] > 0.5).sum()
    title = f"With gold labels {n_better} of {len(shown)} settings have a 95 % CI over prompts above random routing"
    return plot_rows(shown, "APGR (exact area, 95 % CI over prompts)", title, reference=0.5)
