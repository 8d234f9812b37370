"""Compute surface features of a prompt: lengths, numbers, symbols.

An encoder that separates topics loses these, and they say how much work a question is: a question of GSM8K with more
numbers has more steps.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from routing.embeddings import unit_rows

NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
SENTENCE_END = re.compile(r"[.!?](?:\s|$)")
SYMBOLS = "+-*/=^%$\\_"
LARGEST = 1e9  # numbers beyond it say no more
N_FEATURES = 8


def surface_features(prompts: Sequence[str]) -> np.ndarray:
    """Return eight features of each prompt, shape (n_prompts, 8), float64.

    Logarithms of 1 plus: characters, words, numbers, the largest number, line breaks, sentences, symbols of formulas,
    and characters per word.
    """
    rows = []
    for prompt in prompts:
        words = len(prompt.split())
        numbers = [min(float(text.replace(",", "")), LARGEST) for text in NUMBER.findall(prompt)]
        row = (
            len(prompt),
            words,
            len(numbers),
            max(numbers, default=0.0),
            prompt.count("\n"),
            len(SENTENCE_END.findall(prompt)),
            sum(prompt.count(symbol) for symbol in SYMBOLS),
            len(prompt) / max(words, 1),
        )
        rows.append(row)
    return np.log1p(np.array(rows, dtype=float).reshape(len(rows), N_FEATURES))


def add_surface(vectors: np.ndarray, prompts: Sequence[str], weight: float) -> np.ndarray:
    """Append to unit vectors the surface features of their prompts: (n_prompts, width + 8), unit rows, float32.

    The features are scaled to mean 0 and deviation 1 over these prompts (to 0 where all are equal); no label is used.

    Parameters
    ----------
    vectors : array, shape (n_prompts, width)
        Unit rows.
    weight : float
        Length of the scaled features (root mean square over the prompts), relative to the vectors' length of 1.
    """
    features = surface_features(prompts)
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 1e-9, spread, np.inf) / np.sqrt(N_FEATURES)
    return unit_rows(np.hstack([vectors, weight * scaled])).astype(np.float32)
