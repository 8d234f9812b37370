"""Quality learned directly: every model's score regressed on the prompt's embedding, the regression chosen by folds.

Battles say who is better; where a benchmark gives every model's score on every prompt, a regression of the scores uses
more of it. Any regressor with scikit-learn's `fit` and `predict` for several outputs will do; which one does, only
folds of the training prompts decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, Self

import numpy as np
import pandas as pd
from sklearn.compose import TransformedTargetRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

ROUNDING = 1e-12  # of a mean of scores
Vectors = tuple[np.ndarray, np.ndarray]  # of the training prompts and of the test prompts


class Regressor(Protocol):
    """What scikit-learn's regressors of several outputs are."""

    def fit(self, embeddings: np.ndarray, quality: np.ndarray) -> Self: ...

    def predict(self, embeddings: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class QualityCandidate:
    """A regression and the embeddings that it would see."""

    make_regressor: Callable[[], Regressor]
    train: np.ndarray  # (n_train, width)
    test: np.ndarray  # (n_test, width)


def regression_ideas(last: Vectors, middle: Vectors) -> tuple[dict[str, QualityCandidate], dict[str, list[str]]]:
    """The regressions that notebook 08 tries, and blends of them, as `try_regressions` takes them.

    Parameters
    ----------
    last, middle : pair of float arrays, (n_train, width) and (n_test, width), unit rows
        Embeddings of the training and test prompts by the encoder's last layer and by one in its middle.
    """
    both = tuple(np.hstack(part) / np.sqrt(2) for part in zip(last, middle, strict=True))
    nearest = partial(KNeighborsRegressor, 50)
    weighted = partial(KNeighborsRegressor, 150, weights=partial(_similarity_weights, log_gamma=10))
    steep = partial(KNeighborsRegressor, 150, weights=partial(_similarity_weights, log_gamma=20))
    single = {
        "50 nearest, last layer": QualityCandidate(nearest, *last),
        "50 nearest, middle layer": QualityCandidate(nearest, *middle),
        "weighted, last layer": QualityCandidate(weighted, *last),
        "weighted, middle layer": QualityCandidate(weighted, *middle),
        "weighted steeply, middle layer": QualityCandidate(steep, *middle),
        "ridge, middle layer": QualityCandidate(partial(Ridge, 10.0), *middle),
        "ridge, both layers": QualityCandidate(partial(Ridge, 10.0), *both),
        "kernel ridge, last layer": QualityCandidate(partial(_kernel_ridge, gamma=1.0), *last),
        "kernel ridge, middle layer": QualityCandidate(partial(_kernel_ridge, gamma=3.0), *middle),
    }
    blends = {
        "weighted + ridge, middle layer": ["weighted, middle layer", "ridge, middle layer"],
        "weighted + kernel ridge, middle layer": ["weighted, middle layer", "kernel ridge, middle layer"],
        "kernel ridge of each layer": ["kernel ridge, last layer", "kernel ridge, middle layer"],
        "weighted, ridge and kernel ridge": [
            "weighted, middle layer",
            "ridge, both layers",
            "kernel ridge, last layer",
            "kernel ridge, middle layer",
        ],
    }
    return single, blends


def _similarity_weights(distance: np.ndarray, log_gamma: float) -> np.ndarray:
    """RouteLLM's weights, gamma ** cosine, from distances between unit vectors; the most similar prompt has 1."""
    return np.exp(-log_gamma * (distance**2 - distance.min(axis=-1, keepdims=True) ** 2) / 2)


def _kernel_ridge(gamma: float) -> TransformedTargetRegressor:
    """Kernel ridge that falls back on each model's mean score, not on 0, for a prompt like no other."""
    return TransformedTargetRegressor(
        KernelRidge(alpha=10.0, kernel="rbf", gamma=gamma), transformer=StandardScaler(with_std=False)
    )


@dataclass(frozen=True)
class TriedRegressions:
    """What `try_regressions` found.

    Attributes
    ----------
    table : DataFrame
        A row a candidate: name, inner_score (on the training prompts, each by a fit to the other folds), inner_error
        (standard error of its distance to the best), test_score with low and high, chosen (the best by inner_score).
    chosen : str
    inner : dict of DataFrame, shape (n_train, n_models)
        Quality that each candidate expects on the training prompts, out of fold.
    test : dict of DataFrame, shape (n_test, n_models)
    """

    table: pd.DataFrame
    chosen: str
    inner: dict[str, pd.DataFrame]
    test: dict[str, pd.DataFrame]


def choice_scores(expected: pd.DataFrame, quality: pd.DataFrame) -> np.ndarray:
    """Score of the model that is expected to be best on each prompt: (n_prompts,).

    Where several are, their mean: what taking one of them at random scores. So the order of the models counts for
    nothing. It would: means of a few neighbours' scores are often equal.

    Raises
    ------
    ValueError
        Tables of other models or length.
    """
    if set(expected.columns) != set(quality.columns) or len(expected) != len(quality):
        raise ValueError(f"expected quality is {expected.shape} and quality {quality.shape}, or of other models")
    names = sorted(expected.columns)
    said = expected[names].to_numpy()
    at_best = said >= said.max(axis=1, keepdims=True) - ROUNDING
    return (at_best * quality[names].to_numpy(dtype=float)).sum(axis=1) / at_best.sum(axis=1)


def try_regressions(
    candidates: Mapping[str, QualityCandidate],
    blends: Mapping[str, Sequence[str]],
    train_quality: pd.DataFrame,
    test_quality: pd.DataFrame,
    folds: np.ndarray,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> TriedRegressions:
    """Fit every candidate within folds of the training prompts and on all of them, and choose by the folds alone.

    Parameters
    ----------
    candidates : mapping of str to QualityCandidate
    blends : mapping of str to names of candidates
        Further candidates: the mean of what several expect.
    train_quality, test_quality : DataFrame, (n_train, n_models) and (n_test, n_models)
    folds : int array, shape (n_train,)
        As `routing.studies.cross_validation.assign_folds`.
    n_resamples : int
        Of the test prompts, for the percentile interval of each test score.

    Raises
    ------
    ValueError
        A blend of something that is no candidate.
    """
    inner, test = {}, {}
    models = list(train_quality.columns)
    scores = train_quality.to_numpy(dtype=float)
    for name, candidate in candidates.items():
        expected = np.empty_like(scores)
        for fold in np.unique(folds):
            inside = folds == fold
            regressor = candidate.make_regressor().fit(candidate.train[~inside], scores[~inside])
            expected[inside] = regressor.predict(candidate.train[inside])
        inner[name] = pd.DataFrame(expected, columns=models)
        expected = candidate.make_regressor().fit(candidate.train, scores).predict(candidate.test)
        test[name] = pd.DataFrame(expected, columns=models)
    for name, parts in blends.items():
        unknown = [part for part in parts if part not in candidates]
        if unknown:
            raise ValueError(f"blend {name}: no candidate {', '.join(unknown)}")
        for expectations in (inner, test):
            expectations[name] = sum(expectations[part] for part in parts) / len(parts)
    drawn = rng.integers(len(test_quality), size=(n_resamples, len(test_quality)))
    inner_scores = {name: choice_scores(expected, train_quality) for name, expected in inner.items()}
    chosen = max(inner_scores, key=lambda name: inner_scores[name].mean())
    rows = []
    for name, inner_score in inner_scores.items():
        score = choice_scores(test[name], test_quality)
        low, high = np.quantile(score[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
        behind = inner_score - inner_scores[chosen]
        error = behind.std(ddof=1) / np.sqrt(len(behind))
        rows.append((name, inner_score.mean(), error, score.mean(), low, high, name == chosen))
    columns = ["name", "inner_score", "inner_error", "test_score", "low", "high", "chosen"]
    return TriedRegressions(pd.DataFrame(rows, columns=columns), chosen, inner, test)
