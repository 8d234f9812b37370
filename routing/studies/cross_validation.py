"""Rate prompts by routers that were not trained on them: cross-validation, also to choose among routers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.random import Generator

from routing.battles import number_texts
from routing.evaluation.call_curve import call_curve
from routing.routers.base import Router

N_INNER_FOLDS = 3  # within the others, to choose by


def assign_folds(groups: np.ndarray, n_folds: int, rng: Generator) -> np.ndarray:
    """Assign a fold to each row, (n_rows,) from 0 to n_folds - 1; rows of one of the `groups`, (n_rows,), share theirs.

    So a repeated prompt is never on both sides. ValueError for fewer than 2 folds, or fewer groups than folds.
    """
    distinct, number = number_texts(groups)
    if not 2 <= n_folds <= len(distinct):
        raise ValueError(f"n_folds is {n_folds}; with {len(distinct)} groups it is between 2 and {len(distinct)}")
    return rng.permutation(np.arange(len(distinct)) % n_folds)[number]


@dataclass(frozen=True)
class Candidate:
    """A router and the embeddings of some battles' prompts that it would see: one of several to choose from."""

    make_router: Callable[[], Router]  # unfitted
    embeddings: np.ndarray  # (n_battles, width)

    def select(self, rows: np.ndarray) -> Candidate:
        """Return the candidate for these battles alone."""
        return Candidate(self.make_router, self.embeddings[rows])

    def fit(self, battles: pd.DataFrame) -> Router:
        """Return a new router, fitted to the battles."""
        return self.make_router().fit(battles, self.embeddings)


def cross_validated_margin(
    candidate: Candidate, battles: pd.DataFrame, folds: np.ndarray, strong: str, weak: str
) -> np.ndarray:
    """Return each prompt's rating of `strong` minus that of `weak` by a router fitted to the other folds of battles.

    `folds` are those of `assign_folds`, and margins log-odds, (n_battles,) each.
    """
    margin = np.empty(len(battles))
    for fold in np.unique(folds):
        inside = folds == fold
        router = candidate.select(~inside).fit(battles[~inside])
        margin[inside] = router.margin(candidate.embeddings[inside], strong, weak)
    return margin


def choose_candidate(
    candidates: Mapping[str, Candidate], battles: pd.DataFrame, folds: np.ndarray, strong: str, weak: str
) -> str:
    """Return the candidate that orders battles of `strong` against `weak` best, by a router fitted to the other folds.

    The best has the highest area under the call-performance curve: the mean score over all shares of calls to `strong`.
    """
    won = battles["winner"].map({"model_a": 1.0, "tie": 0.5, "model_b": 0.0}).to_numpy()
    score = np.where(battles["model_a"] == strong, won, 1 - won)  # of the strong model
    areas = {}
    for name, candidate in candidates.items():
        curve = call_curve(cross_validated_margin(candidate, battles, folds, strong, weak), score, 1 - score)
        areas[name] = float(np.trapezoid(curve.quality, curve.strong_share))  # unlike APGR defined without a gap too
    return max(areas, key=areas.__getitem__)


def nested_margin(
    candidates: Mapping[str, Candidate], battles: pd.DataFrame, folds: np.ndarray, strong: str, weak: str,
    rng: Generator,
) -> tuple[np.ndarray, list[str]]:  # fmt: skip
    """Return margins as `cross_validated_margin`, each fold's by the best candidate within the others, and these."""
    prompts = battles["prompt"].to_numpy()
    margin, chosen = np.empty(len(battles)), []
    for fold in np.unique(folds):
        inside = folds == fold
        inner = assign_folds(prompts[~inside], N_INNER_FOLDS, rng)
        others = {name: candidate.select(~inside) for name, candidate in candidates.items()}
        chosen.append(choose_candidate(others, battles[~inside], inner, strong, weak))
        router = others[chosen[-1]].fit(battles[~inside])
        margin[inside] = router.margin(candidates[chosen[-1]].embeddings[inside], strong, weak)
    return margin, chosen
