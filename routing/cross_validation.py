"""Ratings of prompts by routers that did not learn from them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from routing.router import Router


def assign_folds(groups: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """A fold for each row, (n_rows,) from 0 to n_folds - 1; rows of one group share theirs.

    Parameters
    ----------
    groups : array, shape (n_rows,)
        What must not be split: the prompts' texts, so that a repeated prompt is never on both sides, or subjects.

    Raises
    ------
    ValueError
        Fewer than 2 folds, or fewer groups than folds.
    """
    distinct, number = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    if not 2 <= n_folds <= len(distinct):
        raise ValueError(f"n_folds is {n_folds}; with {len(distinct)} groups it is between 2 and {len(distinct)}")
    fold_of_group = rng.permutation(np.arange(len(distinct)) % n_folds)
    return fold_of_group[number]


def cross_validated_lead(
    make_router: Callable[[], Router],
    battles: pd.DataFrame,
    embeddings: np.ndarray,
    folds: np.ndarray,
    strong: str,
    weak: str,
    also: tuple[pd.DataFrame, np.ndarray] | None = None,
) -> np.ndarray:
    """Rating of `strong` less that of `weak` on each battle's prompt, by a router fitted to the other folds.

    Parameters
    ----------
    make_router : callable
        Gives an unfitted router.
    battles : DataFrame, n_battles rows
    embeddings : array, shape (n_battles, width)
    folds : int array, shape (n_battles,)
        As `assign_folds`.
    also : (battles, embeddings), optional
        Other battles to learn from in every fold.

    Returns
    -------
    float array, shape (n_battles,), log-odds
    """
    lead = np.empty(len(battles))
    for fold in np.unique(folds):
        inside = folds == fold
        table, vectors = battles[~inside], embeddings[~inside]
        if also is not None:
            table, vectors = pd.concat([table, also[0]]), np.concatenate([vectors, also[1]])
        router = make_router().fit(table, vectors)
        ratings = router.ratings(embeddings[inside])
        lead[inside] = ratings[:, router.models.index(strong)] - ratings[:, router.models.index(weak)]
    return lead
