"""What a router keeps of the prompts it learned from: enough to find them among others, and none of their text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from routing.routers.base import BradleyTerryRouter, find_learned, load_router
from routing.routers.factorization import MatrixFactorizationRouter
from routing.routers.similarity import SimilarityRouter

PROMPTS = ["Say hello.", "Prove it!", "¿Qué?", "42", "..."]
BATTLES = pd.DataFrame(
    {
        "prompt": PROMPTS * 4,
        "model_a": "ant",
        "model_b": "bee",
        "winner": ["model_a", "model_b", "tie", "model_a", "model_b"] * 4,
    }
)
VECTORS = np.tile(np.eye(5) + 0.1, (4, 1))
ASKED = ["say  HELLO", "Prove it", "Que", "qué", "42!", "...", "!!!", "Say"]
FOUND = [True, True, False, True, True, True, False, False]


def similarity() -> SimilarityRouter:
    return SimilarityRouter(n_tiers=None, prior_strength=1.0)


@pytest.mark.parametrize("make", [similarity, lambda: MatrixFactorizationRouter(n_epochs=1, n_seeds=1, dimension=2)])
def test_training_prompts_are_found_again_by_their_words(make, tmp_path):
    router = make().fit(BATTLES, VECTORS)
    router.save(tmp_path / "saved")
    for known in (router, load_router(tmp_path / "saved")):
        assert find_learned(known, ASKED).tolist() == FOUND
        assert find_learned(known, []).shape == (0,)
    assert b"hello" not in (tmp_path / "saved" / "arrays.npz").read_bytes().lower()
    assert find_learned(router.fit(BATTLES[BATTLES["prompt"] != "42"], VECTORS[[0, 1, 2, 4] * 4]), ["42"]) == [False]


def test_battles_that_are_added_are_remembered_too(tmp_path):
    whole, parts = similarity().fit(BATTLES, VECTORS), similarity().fit(BATTLES[:7], VECTORS[:7])
    parts.save(tmp_path / "first")
    for router in (parts, load_router(tmp_path / "first")):
        router.add(BATTLES[7:], VECTORS[7:])
        np.testing.assert_array_equal(router.prompts_learned(), whole.prompts_learned())
    forgotten = load_router(tmp_path / "first")
    del forgotten.learned_prompts  # as in a file of an earlier version
    assert find_learned(forgotten.add(BATTLES[7:], VECTORS[7:]), PROMPTS) is None


def test_a_leaderboard_remembers_none():
    assert find_learned(BradleyTerryRouter().fit(BATTLES), PROMPTS) is None
