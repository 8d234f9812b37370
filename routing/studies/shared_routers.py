"""Train the routers in ``results/routers/``: ``python -m routing.studies.shared_routers``, with ``ROUTING_DATA`` set.

Three small routers that a fresh clone can use: the leaderboard of 1.67 million Arena votes, similarity weighting and
matrix factorization of the public Arena battles, with the settings of ``python -m routing train``. Only
matrix factorization differs: it is that of the last epoch, as the paper's, since early stopping keeps the leaderboard.
A fifth of the battles, on prompts of their own, is held out (those of notebooks 03 and 04) and measured on each card.
Similarity weighting keeps `N_BATTLES` drawn battles with vectors of half precision, so that each router has less than
1 MB. No text of a prompt is stored. ``ratings.json`` holds the ratings of `PROMPTS`, which a test compares.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from routing.battles import encode_battles
from routing.data.votes import read_arena_votes
from routing.evaluation.calibration import compare_log_loss
from routing.files import write_atomically
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.routers.base import BradleyTerryRouter, load_router
from routing.routers.factorization import MatrixFactorizationRouter
from routing.routers.sharing import write_model_card
from routing.routers.similarity import SimilarityRouter
from routing.studies.inputs import load_study

FOLDER = Path(__file__).parents[2] / "results" / "routers"
N_BATTLES = 1_200
PROMPTS = ("Say hello in Greek.", "Prove that the square root of two is irrational.")
ARENA = (
    "{n:,} battles of Chatbot Arena with prompts, judged by people: a part of lmsys-arena-human-preference-55k"
    " (Apache-2.0). No text of a prompt is kept: {kept}."
)
DATA = {
    "bt": "1,670,250 votes of Chatbot Arena up to 2024-08-14 as pair counts, which the package leaderbot publishes"
    " under a BSD-style licence. The ratings are the same for every prompt.",
    "sw": ARENA + " Vectors may let somebody guess what a prompt was about.",
    "mf": ARENA,
}
KEPT = {"sw": "a vector of 384 numbers and 64 bits of a hash stand for each", "mf": "64 bits of a hash stand for each"}
LICENCES = {"bt": "bsd-3-clause", "sw": "apache-2.0", "mf": "apache-2.0"}
DATASETS = ["lmsys/lmsys-arena-human-preference-55k"]


def make_routers(folder: Path = FOLDER) -> None:
    """Write the three routers with their cards, and ``ratings.json``; what was in `folder` is removed."""
    study, votes = load_study("full", 0), read_arena_votes()
    overall = fit_bradley_terry(votes, "davidson", prior_strength=1.0)
    leaderboard = BradleyTerryRouter(prior_strength=1.0)
    leaderboard.models, leaderboard.nu = votes.models, overall.tie_parameter
    leaderboard.constant_ratings = overall.ratings.to_numpy()
    drawn = study.battles.sample(N_BATTLES, random_state=0)
    similarity = SimilarityRouter(prior_strength=1.0).fit(drawn)
    similarity.battle_vectors = similarity.battle_vectors.astype(np.float16)
    factorization = MatrixFactorizationRouter(prior_strength=1.0, early_stopping=False).fit(study.battles)
    routers = {"bt": leaderboard, "sw": similarity, "mf": factorization}

    rated = set.intersection(*(set(router.models) for router in routers.values()))
    held_out = study.held_out[study.held_out[["model_a", "model_b"]].isin(rated).all(axis=1)]
    vectors, outcome = similarity.encoder.encode(held_out["prompt"].tolist()), encode_battles(held_out).outcome
    known = {name: router.battle_probability(held_out, vectors) for name, router in routers.items()}
    measured = compare_log_loss(known, outcome, "bt")

    shutil.rmtree(folder, ignore_errors=True)
    for name, router in routers.items():
        router.save(folder / name)
        n_battles = N_BATTLES if name == "sw" else len(study.battles)
        data = DATA[name].format(n=n_battles, kept=KEPT.get(name))
        data += " The measurements are of battles on other prompts; those of the leaderboard are among its votes."
        datasets = [] if name == "bt" else DATASETS
        write_model_card(
            router, folder / name, licence=LICENCES[name], data=data, intervals=measured, datasets=datasets
        )
    ratings = {name: load_router(folder / name).ratings(list(PROMPTS)).round(6).tolist() for name in routers}
    write_atomically(folder / "ratings.json", json.dumps({"prompts": PROMPTS, "ratings": ratings}) + "\n")


if __name__ == "__main__":
    make_routers()
