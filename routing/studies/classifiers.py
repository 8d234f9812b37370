"""Train both classifiers, and make the tables and figures of notebooks 05 and 06; 07 and 09 share the trainings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.random import Generator

from routing.battles import encode_battles
from routing.embeddings import PromptEncoder
from routing.evaluation.calibration import calibration_table
from routing.evaluation.call_curve import bootstrap_metrics
from routing.routers.base import BradleyTerryRouter, Router
from routing.routers.bert import BertRouter
from routing.routers.causal import CausalLMRouter
from routing.routers.classifier import TRAINED_PARTS, ClassifierRouter
from routing.studies.cross_validation import Candidate, assign_folds, nested_margin
from routing.studies.inputs import PAIR, Study, TrainingSets, paper_battles
from routing.studies.mixtures import prompt_effect
from routing.studies.paper import compare_with_paper
from routing.studies.plotting import plot_lines, plot_rows, spell
from routing.studies.routers import compare_on_held_out
from routing.studies.training_cache import RatedRouter, Training
from routing.studies.two_models.pairs import FLAT, GREY, Key, evaluate_margins, pair_quality

KINDS = {"bert": BertRouter, "causal_llm": CausalLMRouter}
TRAINING_DATA = ("arena", "arena+judge", "arena+gold")  # the paper's; those that a study has are trained on
# The simulated prompts are short, and topics change each model's rating there; real battles are few for each model.
SIMULATED = {"n_tiers": None, "batch_size": 32, "head_learning_rate": 1e-3}
SETTINGS = {
    "smoke": SIMULATED | {"max_length": 32, "n_layers": 1},
    "quick": SIMULATED | {"max_length": 40, "n_layers": 3, "checkpoint_steps": 20},
    "full": {"n_tiers": 10, "max_length": 128, "batch_size": 16},
}
SIMULATED_RATES = {"bert": 1e-4, "causal_llm": 2e-4}
# As the paper's, but where all weights are trained, which one device does not hold, matrices of low rank next to them
# with the learning rate that is usual for these [Hu22].
PAPER_CAUSAL_LLM = {"name": "meta-llama/Meta-Llama-3-8B", "max_length": 2048, "batch_size": 8, "n_epochs": 1}
LOW_RANK = {"lora_rank": 16, "learning_rate": 1e-4}
LAST_STEP = {"early_stopping": False}  # as the paper's, so that figures show what training did, better or worse
PART_NAMES = {"head": "head alone", "last_layer": "last layer", "all": "all layers"}
GOLD_HEADS = {"layer 4": {"n_layers": 4, "max_length": 256}, "last layer": {}}  # candidates for heads on gold labels
FEWEST_GOLD_LABELS = 100
APGR_LABEL = "APGR (95 % CI over prompts)"
NEW_PROMPTS = 3_000  # a training takes minutes on two cores


def make_classifier(kind: str, profile: str, seed: int, train: str = "all") -> ClassifierRouter:
    """Make the classifier of a profile, not fitted: kind is "bert" or "causal_llm", `train` as `ClassifierRouter`.

    With the paper's battles and an accelerator the causal LLM is the paper's, Llama 3 8B.
    """
    rates = {} if profile == "full" else {"learning_rate": SIMULATED_RATES[kind]}
    if kind == "causal_llm" and paper_battles() and torch.accelerator.is_available():
        settings = SETTINGS[profile] | PAPER_CAUSAL_LLM | (LOW_RANK if train == "all" else {})
        return CausalLMRouter(train=train, seed=seed, **settings, **LAST_STEP)
    return KINDS[kind](train=train, seed=seed, **SETTINGS[profile], **rates, **LAST_STEP)


def plan_trainings(router: ClassifierRouter, sets: TrainingSets) -> dict[str, Training]:
    """Plan a training for each of the paper's training sets: on "arena", and from there on to the others.

    Of prompts that the arena lacks at most `NEW_PROMPTS`, drawn at random, are gone on with.
    """
    arena = Training(router, sets.battles["arena"])
    plans = {"arena": arena}
    for name in TRAINING_DATA[1:]:
        if name in sets.battles:
            battles = sets.battles[name]
            known = battles["prompt"].isin(sets.battles["arena"]["prompt"])
            new = np.sort(battles.loc[~known, "prompt"].unique())
            drawn = np.random.default_rng([router.seed, 3]).permutation(new)[:NEW_PROMPTS]
            kept = (known | battles["prompt"].isin(drawn)).to_numpy()
            plans[name] = Training(router, battles[kept].reset_index(drop=True), start=arena)
    return plans


def rate_benchmarks(kind: str, profile: str, seed: int, study: Study, sets: TrainingSets) -> dict[str, RatedRouter]:
    """Return ratings of the prompts of all benchmarks and held-out battles, by what the classifier was trained on."""
    lists = [table.prompts["prompt"].tolist() for table in study.benchmarks.values()]
    judged = [] if sets.held_out is None else [sets.held_out["prompt"].tolist()]
    trainings = plan_trainings(make_classifier(kind, profile, seed), sets)
    return {
        name: training.rate(study.held_out["prompt"].tolist(), *lists, *(judged if name == "arena+judge" else []))
        for name, training in trainings.items()
    }


def training_margins(rated: dict[str, RatedRouter], study: Study, kind: str) -> dict[Key, np.ndarray]:
    """Return the margins on every benchmark after each training; `rated` as `rate_benchmarks` gives it."""
    return {
        Key(training_data, kind, benchmark): ratings.margin(table.prompts["prompt"].tolist(), *PAIR)
        for training_data, ratings in rated.items()
        for benchmark, table in study.benchmarks.items()
    }


def judged_effects(
    fitted: Mapping[tuple[str, str], Router], profile: str, seed: int, study: Study, sets: TrainingSets,
    encoder: PromptEncoder,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return `prompt_effect` of all four routers, trained on arena+judge, on the held-out battles of every source.

    `fitted` as `fit_embedding_routers` gives them.
    """
    held_out, prompts = sets.held_out, sets.held_out["prompt"].tolist()
    queries = encoder.encode(prompts)
    embedding = {name: router for (data, name), router in fitted.items() if data == "arena+judge"}
    effects = {name: prompt_effect(router, held_out, queries) for name, router in embedding.items()}
    for kind in KINDS:
        rated = rate_benchmarks(kind, profile, seed, study, sets)["arena+judge"]
        effects[kind] = prompt_effect(rated, held_out, prompts)
    return effects


def held_out_calibration(
    fitted: Mapping[tuple[str, str], Router], profile: str, seed: int, study: Study, sets: TrainingSets,
    encoder: PromptEncoder,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Return the `calibration_table` of the leaderboard and of all four routers, trained on the arena, by name.

    `fitted` as `fit_embedding_routers` gives them; on the study's held-out battles.
    """
    queries = encoder.encode(study.held_out["prompt"].tolist())
    leaderboard = BradleyTerryRouter(prior_strength=0.1).fit(study.battles)
    predicted = {"bradley_terry": leaderboard.battle_probability(study.held_out)}
    for (data, name), router in fitted.items():
        if data == "arena":
            predicted[name] = router.battle_probability(study.held_out, queries)
    for kind in KINDS:
        rated = rate_benchmarks(kind, profile, seed, study, sets)["arena"]
        predicted[kind] = rated.battle_probability(study.held_out)
    won = encode_battles(study.held_out).outcome == 0
    return {name: calibration_table(probability[:, 0], won) for name, probability in predicted.items()}


def classifier_margins(profile: str, seed: int, study: Study, sets: TrainingSets) -> dict[Key, np.ndarray]:
    """Return the margins of both classifiers on every benchmark; trainings of notebooks 05 and 06 are used again."""
    both = [training_margins(rate_benchmarks(kind, profile, seed, study, sets), study, kind) for kind in KINDS]
    return both[0] | both[1]


class Comparison(NamedTuple):
    """What comes of training the head alone, the last layer, or all layers."""

    routers: dict[str, ClassifierRouter]  # by the part that is trained
    cost: pd.DataFrame  # parameters_trained and training_seconds, by the part that is trained
    losses: pd.DataFrame  # on held-out battles, as `compare_on_held_out`
    curve: pd.DataFrame  # loss by step, trained and battles (training, validation)


def compare_training(kind: str, profile: str, seed: int, study: Study, battles: pd.DataFrame) -> Comparison:
    """Train a classifier's head alone, its last layer, and all layers, and compare them on the held-out battles."""
    trainings = {part: Training(make_classifier(kind, profile, seed, part), battles) for part in TRAINED_PARTS}
    rated = {part: training.rate(study.held_out["prompt"].tolist()) for part, training in trainings.items()}
    routers = {part: training.fitted for part, training in trainings.items()}
    rows = [(int(router.n_trained), rated[part].training_seconds) for part, router in routers.items()]
    cost = pd.DataFrame(rows, index=list(routers), columns=["parameters_trained", "training_seconds"])
    predicted = {part: ratings.battle_probability(study.held_out) for part, ratings in rated.items()}
    losses = compare_on_held_out(study, predicted).join(cost["parameters_trained"], on="name")
    losses["name"] = losses["name"].map(lambda name: name_part(kind, name) if name in PART_NAMES else name)
    curve = pd.concat([router.learning_curve.assign(trained=PART_NAMES[part]) for part, router in routers.items()])
    curve = curve.melt(["step", "trained"], ["training", "validation"], "battles", "loss").dropna()
    return Comparison(routers, cost, losses, curve.assign(line=curve["trained"] + ", " + curve["battles"]))


def name_part(kind: str, part: str) -> str:
    """Return the name of a classifier in tables, with the part of it that is trained."""
    return f"{spell(kind)} ({PART_NAMES[part]})"


def plot_loss_curve(curve: pd.DataFrame) -> Figure:
    """Draw the learning curves of a `Comparison`."""
    every = curve[(curve["trained"] == PART_NAMES["all"]) & (curve["battles"] == "validation")]["loss"]
    title = f"Training all layers changes the validation loss by {every.iloc[-1] - every.iloc[0]:+z.4f} nats per battle"
    return plot_lines(curve, "step", "loss", ("step", "loss (nats per battle)"), title, by="line")


def evaluate_training_sets(
    rated: dict[str, RatedRouter], kind: str, study: Study, sets: TrainingSets, n_resamples: int, rng: Generator
) -> pd.DataFrame:
    """Return `compare_with_paper` of the metrics after each training, with intervals over prompts."""
    margins = training_margins(rated, study, kind)
    return compare_with_paper(evaluate_margins(margins, sets, study.benchmarks, n_resamples, rng), *PAIR)


def plot_training_sets(areas: pd.DataFrame) -> Figure:
    """Draw the area under the call curve after each training next to the paper's, one panel per benchmark."""
    kind = areas["router"].iloc[0]
    rows = areas.rename(columns={"training_data": "name"})
    paper = rows.dropna(subset="paper").drop(columns=["low", "high"])
    flat = rows["flat"] if "flat" in rows else pd.Series(False, index=rows.index)
    ours = rows.assign(source=np.where(flat, FLAT, kind))
    shown = pd.concat([ours, paper.assign(source="paper", estimate=paper["paper"])])
    title = f"{((rows['low'] > 0.5) & ~flat).sum()} of {(~flat).sum()} have a 95 % CI over prompts above random routing"
    styles = {FLAT: GREY, "paper": {"color": "black", "marker": "|", "markersize": 12}}
    return plot_rows(shown, APGR_LABEL, title, reference=0.5, group="source", panel="benchmark", styles=styles)


def evaluate_gold_heads(study: Study, seed: int, n_resamples: int, rng: Generator) -> pd.DataFrame:
    """Return `bootstrap_metrics` of heads trained on a benchmark's own labels, on each with at least 100 labels.

    In each of five folds it is the head that does best within the others, so that no choice sees the prompts it is
    judged on. Column chosen has the layer that most folds chose.
    """
    parts = []
    for benchmark, table in study.benchmarks.items():
        if len(table.prompts) < FEWEST_GOLD_LABELS:
            continue
        battles = table.battles(*PAIR)
        prompts, head = battles["prompt"].to_numpy(), partial(BertRouter, train="head", n_tiers=None, seed=seed)
        candidates = {name: Candidate(partial(head, **layers), prompts) for name, layers in GOLD_HEADS.items()}
        folds = assign_folds(prompts, 5, rng)
        margin, chosen = nested_margin(candidates, battles, folds, *PAIR, rng)
        metrics = bootstrap_metrics({"bert": margin}, *pair_quality(table), n_resamples, rng)
        parts.append(metrics.assign(benchmark=benchmark, chosen=max(chosen, key=chosen.count)))
    return pd.concat(parts, ignore_index=True)


def plot_gold_heads(areas: pd.DataFrame) -> Figure:
    """Draw the APGR of `evaluate_gold_heads`."""
    best = areas.loc[areas["estimate"].idxmax()]
    title = f"Heads trained on gold labels reach an APGR of up to {best['estimate']:.3f} ({best['benchmark']})"
    shown = areas.assign(name=areas["benchmark"] + ", head on " + areas["chosen"])
    return plot_rows(shown, APGR_LABEL, title, reference=0.5)
