"""Ratings of prompts by routers that did not learn from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from routing.battles import number_texts
from routing.evaluation.call_curve import call_curve
from routing.routers.base import Router


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
    distinct, number = number_texts(groups)
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
        lead[inside] = router.margin(embeddings[inside], strong, weak)
    return lead


@dataclass(frozen=True)
class Candidate:
    """A router and the embeddings it would see: one of several to choose from."""

    make_router: Callable[[], Router]
    embeddings: np.ndarray  # (n_battles, width), of the same battles for every candidate


def choose_candidate(
    candidates: dict[str, Candidate], battles: pd.DataFrame, folds: np.ndarray, strong: str, weak: str
) -> tuple[str, dict[str, float]]:
    """The candidate that orders battles best which it did not learn from, and how well each does.

    The best has the greatest area under the call-performance curve of the battles, each rated by a router fitted to
    the other folds: the mean score of a prompt's choice over all shares of calls to `strong`.

    Parameters
    ----------
    candidates : dict of Candidate
        With embeddings of these battles.
    battles : DataFrame
        Battles of `strong` against `weak` alone.
    """
    won = battles["winner"].map({"model_a": 1.0, "tie": 0.5, "model_b": 0.0}).to_numpy()
    score = np.where(battles["model_a"] == strong, won, 1 - won)  # of the strong model
    areas = {}
    for name, candidate in candidates.items():
        lead = cross_validated_lead(candidate.make_router, battles, candidate.embeddings, folds, strong, weak)
        curve = call_curve(lead, score, 1 - score)
        areas[name] = float(np.trapezoid(curve.quality, curve.strong_share))  # unlike APGR without a gap too
    return max(areas, key=areas.__getitem__), areas


def nested_lead(
    candidates: dict[str, Candidate],
    battles: pd.DataFrame,
    folds: np.ndarray,
    strong: str,
    weak: str,
    rng: np.random.Generator,
    n_inner_folds: int = 4,
) -> tuple[np.ndarray, list[str]]:
    """As `cross_validated_lead`, each fold by the candidate that does best within the other folds.

    So no choice has seen the prompts it is judged on.

    Parameters
    ----------
    candidates, battles
        As `choose_candidate`.

    Returns
    -------
    lead : float array, shape (n_battles,), log-odds
    chosen : list of str
        The candidate of each fold.
    """
    prompts = battles["prompt"].to_numpy()
    lead, chosen = np.empty(len(battles)), []
    for fold in np.unique(folds):
        inside = folds == fold
        table = battles[~inside]
        inner = assign_folds(prompts[~inside], n_inner_folds, rng)
        learned = {name: Candidate(item.make_router, item.embeddings[~inside]) for name, item in candidates.items()}
        chosen.append(choose_candidate(learned, table, inner, strong, weak)[0])
        best = candidates[chosen[-1]]
        router = best.make_router().fit(table, best.embeddings[~inside])
        lead[inside] = router.margin(best.embeddings[inside], strong, weak)
    return lead, chosen
