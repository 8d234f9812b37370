"""Learn quality directly: regress every model's score on the prompt's embedding, with the regression chosen by folds.

Battles say who is better; where a benchmark gives every model's score on every prompt, a regression of the scores uses
more of it. Any regressor with scikit-learn's `fit` and `predict` for several outputs will do; which one does, only
folds of the training prompts decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.random import Generator
from sklearn.base import RegressorMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from routing.data.benchmarks import BenchmarkTable
from routing.embeddings import PromptEncoder
from routing.evaluation.resampling import paired_bootstrap
from routing.studies.cross_validation import assign_folds
from routing.studies.inputs import RoutingTask
from routing.studies.plotting import plot_rows

ROUNDING = 1e-12  # of a mean of scores
Vectors = tuple[np.ndarray, np.ndarray]  # of the training prompts and of the test prompts


@dataclass(frozen=True)
class QualityCandidate:
    """A regression and the embeddings that it would see."""

    make_regressor: Callable[[], RegressorMixin]  # of several outputs
    train: np.ndarray  # (n_train, width)
    test: np.ndarray  # (n_test, width)


def regression_ideas(last: Vectors, middle: Vectors) -> tuple[dict[str, QualityCandidate], dict[str, list[str]]]:
    """Return the regressions that notebook 08 tries, and blends of them, as `try_regressions` takes them.

    Their embeddings, unit rows, are of the encoder's last layer and of one in its middle.
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
    kernels = ["kernel ridge, last layer", "kernel ridge, middle layer"]
    blends = {
        "weighted + ridge, middle layer": ["weighted, middle layer", "ridge, middle layer"],
        "weighted + kernel ridge, middle layer": ["weighted, middle layer", "kernel ridge, middle layer"],
        "kernel ridge of each layer": kernels,
        "weighted, ridge and kernel ridge": ["weighted, middle layer", "ridge, both layers", *kernels],
    }
    return single, blends


def _similarity_weights(distance: np.ndarray, log_gamma: float) -> np.ndarray:
    """Return RouteLLM's weights, gamma ** cosine, from distances of unit vectors; the most similar prompt has 1."""
    return np.exp(-log_gamma * (distance**2 - distance.min(axis=-1, keepdims=True) ** 2) / 2)


def _kernel_ridge(gamma: float) -> TransformedTargetRegressor:
    """Return kernel ridge that falls back on each model's mean score, not on 0, for a prompt like no other."""
    ridge = KernelRidge(alpha=10.0, kernel="rbf", gamma=gamma)
    return TransformedTargetRegressor(ridge, transformer=StandardScaler(with_std=False))


@dataclass(frozen=True)
class TriedRegressions:
    """What `try_regressions` found.

    The table has one row per candidate: name, inner_score (on training prompts, each by a fit to the other folds),
    inner_error (standard error of its distance to the best), test_score, low, high, chosen (the best by inner_score).
    """

    table: pd.DataFrame
    chosen: str
    inner: dict[str, pd.DataFrame]  # (n_train, n_models) each: expected quality, out of fold
    test: dict[str, pd.DataFrame]  # (n_test, n_models) each


def align_scores(expected: pd.DataFrame, quality: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of both tables, models in alphabetical order; other models or lengths raise a ValueError."""
    if set(expected.columns) != set(quality.columns) or len(expected) != len(quality):
        raise ValueError(f"expected quality is {expected.shape} and quality {quality.shape}, or of other models")
    names = sorted(expected.columns)
    return expected[names].to_numpy(), quality[names].to_numpy(dtype=float)


def choice_scores(expected: pd.DataFrame, quality: pd.DataFrame) -> np.ndarray:
    """Return the score of the model that is expected to be best on each prompt: (n_prompts,).

    Where several are, their mean, so that the order of the models changes nothing: means of a few neighbours' scores
    are often equal. Raises as `align_scores`.
    """
    said, true = align_scores(expected, quality)
    at_best = said >= said.max(axis=1, keepdims=True) - ROUNDING
    return (at_best * true).sum(axis=1) / at_best.sum(axis=1)


def try_regressions(
    candidates: Mapping[str, QualityCandidate], blends: Mapping[str, Sequence[str]], train_quality: pd.DataFrame,
    test_quality: pd.DataFrame, folds: np.ndarray, rng: Generator, n_resamples: int,
) -> TriedRegressions:  # fmt: skip
    """Fit every candidate within folds of the training prompts and on all of them, and choose by the folds alone.

    Blends are further candidates: the mean of what those named expect; an unknown one raises a ValueError. The folds,
    (n_train,), are those of `assign_folds`; test prompts are resampled for a 95 % interval of each test score.
    """
    inner, test = {}, {}
    models, scores = list(train_quality.columns), train_quality.to_numpy(dtype=float)
    for name, candidate in candidates.items():
        regressor = candidate.make_regressor()
        expected = cross_val_predict(regressor, candidate.train, scores, cv=PredefinedSplit(folds))
        inner[name] = pd.DataFrame(expected, columns=models)
        test[name] = pd.DataFrame(regressor.fit(candidate.train, scores).predict(candidate.test), columns=models)
    for name, parts in blends.items():
        if unknown := set(parts) - set(candidates):
            raise ValueError(f"blend {name}: no candidate {', '.join(sorted(unknown))}")
        for expectations in (inner, test):
            expectations[name] = sum(expectations[part] for part in parts) / len(parts)
    inner_scores = {name: choice_scores(expected, train_quality) for name, expected in inner.items()}
    test_scores = np.array([choice_scores(expected, test_quality) for expected in test.values()])
    chosen = max(inner_scores, key=lambda name: inner_scores[name].mean())
    n_test = len(test_quality)
    low, high, _ = paired_bootstrap(lambda counts: test_scores @ counts / n_test, n_test, n_resamples, rng)
    rows = []
    for number, (name, score) in enumerate(inner_scores.items()):
        behind = score - inner_scores[chosen]
        error = behind.std(ddof=1) / np.sqrt(len(behind))
        rows.append((name, score.mean(), error, test_scores[number].mean(), low[number], high[number], name == chosen))
    columns = ["name", "inner_score", "inner_error", "test_score", "low", "high", "chosen"]
    return TriedRegressions(pd.DataFrame(rows, columns=columns), chosen, inner, test)


def try_ideas(
    task: RoutingTask, last: PromptEncoder, middle: PromptEncoder, rng: Generator, n_resamples: int
) -> TriedRegressions:
    """Try `regression_ideas` on a task, by five folds over its training prompts."""
    prompts = [part.prompts["prompt"].tolist() for part in (task.train, task.test)]
    ideas = regression_ideas(*(tuple(map(encoder.encode, prompts)) for encoder in (last, middle)))
    folds = assign_folds(task.train.prompts["prompt"].to_numpy(), 5, rng)
    return try_regressions(*ideas, task.train.quality, task.test.quality, folds, rng, n_resamples)


def gain_over_single(found: TriedRegressions, test: BenchmarkTable, n_resamples: int, rng: Generator) -> pd.Series:
    """Return what the chosen regression scores above the best single model, paired over prompts: gain, low, high."""
    gain = choice_scores(found.test[found.chosen], test.quality) - test.quality[test.quality.mean().idxmax()].to_numpy()
    low, high, _ = paired_bootstrap(lambda counts: gain @ counts / len(gain), len(gain), n_resamples, rng)
    return pd.Series({"gain": gain.mean(), "low": float(low), "high": float(high)})


def plot_tried(table: pd.DataFrame, references: Mapping[str, float]) -> Figure:
    """Draw the scores of what was tried, one row each, and test scores to compare them with, as lines."""
    table = table.sort_values("inner_score", ascending=False)
    parts = ["inner folds, which choose", "test prompts (95 %)"]
    inner = table.assign(estimate=table["inner_score"], low=np.nan, high=np.nan, part=parts[0])
    shown = pd.concat([inner, table.assign(estimate=table["test_score"], part=parts[1])])
    shown["name"] = shown["name"].where(~shown["chosen"], shown["name"] + " (chosen)")
    (score,) = table.loc[table["chosen"], "test_score"]
    title = f"The regression chosen by inner folds scores {score:.3f} on the test prompts"
    return plot_rows(shown, "mean score", title, group="part", reference=references)
