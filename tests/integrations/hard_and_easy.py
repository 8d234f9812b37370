"""A router of two models that tells hard prompts from easy ones, without weights: what the tests of plugins share."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from routing.embeddings import PromptEncoder
from routing.routers.similarity import SimilarityRouter

HARD, EASY = "Prove that e is irrational.", "Say hello in Greek."
PRICES = {"large": 0.01, "small": 0.001}
QUALITY_PER_USD = 30.0  # large has to win 0.27 more


def encode(texts: list[str]) -> np.ndarray:
    """Unit vectors by whether a text asks for a proof: (n_texts, 2)."""
    return np.array([[1.0, 0.1] if "Prove" in text else [0.1, 1.0] for text in texts])


def fit_router() -> SimilarityRouter:
    """Learn that the large model wins on proofs, and that either answer does elsewhere."""
    battles = [
        {"prompt": prompt, "model_a": "large", "model_b": "small", "winner": winner}
        for (prompt, winner), _ in product([(HARD, "model_a"), (HARD, "model_a"), (EASY, "tie")], range(10))
    ]
    router = SimilarityRouter(
        gamma=100, n_tiers=None, prior_strength=0.5, encoder=PromptEncoder(name=encode, cache=False)
    )
    return router.fit(pd.DataFrame(battles))
