"""Which classifiers are trained in each profile, on what: notebooks 05, 06 and 07 ask here, and so share trainings."""

from __future__ import annotations

import numpy as np

from routing.data.benchmarks import BenchmarkTable
from routing.routers.bert import BertRouter
from routing.routers.causal import CausalLMRouter
from routing.routers.classifier import ClassifierRouter
from routing.studies.cross_validation import Candidate, assign_folds, nested_margin
from routing.studies.inputs import PAIR, Study, TrainingSets
from routing.studies.training_cache import RatedRouter, Training
from routing.studies.two_models.pairs import Key

TRAINING_DATA = ("arena", "arena+judge", "arena+gold")  # the paper's; those that a study has are trained on
# The simulated prompts are short, and topics change each model's rating there; real battles are few for each model.
SIMULATED = {"n_tiers": None, "batch_size": 32}
SETTINGS = {
    "smoke": SIMULATED | {"max_length": 32, "n_layers": 2},
    "quick": SIMULATED | {"max_length": 40, "checkpoint_steps": 20},
    "full": {"n_tiers": 10, "max_length": 128, "batch_size": 16},
}
LAST_STEP = {"early_stopping": False}  # as the paper's; what is seen is what training did, better or worse

GOLD_HEADS = {"layer 4": {"n_layers": 4, "max_length": 256}, "last layer": {}}  # what a head on gold labels may see


def make_bert(profile: str, seed: int, train: str = "all") -> BertRouter:
    """The BERT classifier of a profile, not fitted; `train` as `ClassifierRouter`."""
    rates = {} if profile == "full" else {"learning_rate": 1e-4, "head_learning_rate": 1e-3}
    return BertRouter(train=train, seed=seed, **SETTINGS[profile], **rates, **LAST_STEP)


def make_causal(profile: str, seed: int, train: str = "all") -> CausalLMRouter:
    """The causal LLM classifier of a profile, not fitted; `train` as `ClassifierRouter`."""
    rates = {} if profile == "full" else {"learning_rate": 2e-4, "head_learning_rate": 1e-3}
    return CausalLMRouter(train=train, seed=seed, **SETTINGS[profile], **rates, **LAST_STEP)


def plan_trainings(router: ClassifierRouter, sets: TrainingSets) -> dict[str, Training]:
    """A training for each of the paper's training sets: on "arena" once, and from there on to the others.

    Nothing is trained before a `Training` is asked for its ratings.
    """
    arena = Training(router, sets.battles["arena"])
    return {
        name: arena if name == "arena" else Training(router, sets.battles[name], start=arena)
        for name in TRAINING_DATA
        if name in sets.battles
    }


def rate_benchmarks(training: Training, study: Study) -> RatedRouter:
    """Ratings of all prompts of the study's benchmarks and of its held-out battles."""
    lists = [table.prompts["prompt"].tolist() for table in study.benchmarks.values()]
    return training.rate(study.held_out["prompt"].tolist(), *lists)


def training_leads(rated: dict[str, RatedRouter], study: Study, router: str) -> dict[Key, np.ndarray]:
    """Leads on every benchmark after each training.

    Parameters
    ----------
    rated : dict of RatedRouter
        By training set, as `rate_benchmarks` gives them.
    router : str
        Its name in tables and figures.
    """
    return {
        Key(training_data, router, benchmark): ratings.margin(table.prompts["prompt"].tolist(), *PAIR)
        for training_data, ratings in rated.items()
        for benchmark, table in study.benchmarks.items()
    }


def classifier_leads(profile: str, seed: int, study: Study, sets: TrainingSets) -> dict[Key, np.ndarray]:
    """Leads of both classifiers on every benchmark; what notebooks 05 and 06 have trained is not trained again."""
    leads = {}
    for name, router in {"bert": make_bert(profile, seed), "causal_llm": make_causal(profile, seed)}.items():
        rated = {data: rate_benchmarks(training, study) for data, training in plan_trainings(router, sets).items()}
        leads |= training_leads(rated, study, name)
    return leads


def cross_validate_heads(table: BenchmarkTable, seed: int, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Ratings of a benchmark's prompts by heads trained on its own labels, by five folds.

    In each fold a head on the vectors of one layer or another, whichever does better within the other folds; its
    penalty is chosen there too. So nothing is chosen on the prompts it is judged on.

    Returns
    -------
    lead : float array, shape (n_prompts,)
        Of the pair's strong model.
    chosen : list of str
        The candidate of each fold.
    """
    battles = table.battles(*PAIR)
    prompts = battles["prompt"].to_numpy()
    candidates = {
        name: Candidate(lambda seen=seen: BertRouter(train="head", n_tiers=None, seed=seed, **seen), prompts)
        for name, seen in GOLD_HEADS.items()
    }
    return nested_margin(candidates, battles, assign_folds(prompts, 5, rng), *PAIR, rng, n_inner_folds=3)
