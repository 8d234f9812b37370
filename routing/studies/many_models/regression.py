"""Learn quality directly: regress every model's score on the prompt's embedding, with the regression chosen by folds.

Battles say who is better; where a benchmark gives every model's score on every prompt, a regression of the scores uses
more of it. **Protocol**, the same for every benchmark and fixed before any test prompt was looked at with it:

1. every candidate of `regression_ideas` is fitted within five folds of the training prompts, and scored on the fold
   left out by what the model it expects to be best scored there: the mean over prompts or, where a benchmark has
   several tasks, the mean over tasks of the mean over a task's prompts;
2. chosen are all candidates that a paired 95 % interval over prompts does not tell from the best one, and the router
   expects the mean of what they expect;
3. that one router is evaluated once on all test prompts. Test scores of the candidates are for comparison only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.random import Generator
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.cluster import KMeans
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline

from routing.data.benchmarks import BenchmarkTable
from routing.embeddings import PromptEncoder
from routing.evaluation.resampling import paired_bootstrap
from routing.studies.cross_validation import assign_folds
from routing.studies.inputs import RoutingTask
from routing.studies.plotting import plot_rows

ROUNDING = 1e-12  # of a mean of scores
CHOSEN = "chosen: mean of the best"
CLUSTERS, NEAREST = "k-means, 16 clusters, both", "50 nearest, last"
SMOKE_IDEAS = (CLUSTERS, NEAREST, "ridge, α = 10, both", "task classifier, both")
SIGNIFICANT = 1.96  # standard errors
TASK_COLUMNS = ("task", "topic", "cluster")  # of prompts: the first of them that is known of all
Vectors = Mapping[str, np.ndarray]  # by layer, "last", "middle" and "both": (n_prompts, width)


class ClusterRegressor(RegressorMixin, BaseEstimator):
    """Expect the mean scores of the prompts in the same cluster of k-means: what the router of Avengers does."""

    def __init__(self, n_clusters: int = 16, n_starts: int = 4) -> None:
        self.n_clusters, self.n_starts = n_clusters, n_starts

    def fit(self, vectors: np.ndarray, quality: np.ndarray) -> Self:
        size = min(self.n_clusters, len(vectors))
        self.clusters = [KMeans(size, n_init=1, random_state=seed).fit(vectors) for seed in range(self.n_starts)]
        self.means = [pd.DataFrame(quality).groupby(part.labels_).mean().to_numpy() for part in self.clusters]
        return self

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        return np.mean([mean[part.predict(vectors)] for part, mean in zip(self.clusters, self.means, strict=True)], 0)


class TaskRegressor(RegressorMixin, BaseEstimator):
    """Expect the mean scores of the tasks a prompt may belong to, and what a regression of the rest adds to them."""

    def __init__(self, rest: RegressorMixin | None = None) -> None:
        self.rest = rest

    def fit(self, vectors: np.ndarray, quality: np.ndarray, task: np.ndarray) -> Self:
        self.classifier = LogisticRegression(C=10.0, max_iter=300).fit(vectors, task)
        self.means = pd.DataFrame(quality).groupby(task).mean().to_numpy()  # sorted, as the classifier's classes
        self.added = self.rest and clone(self.rest).fit(vectors, quality - self._expect(vectors))
        return self

    def _expect(self, vectors: np.ndarray) -> np.ndarray:
        return self.classifier.predict_proba(vectors) @ self.means

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        return self._expect(vectors) + (self.added.predict(vectors) if self.added else 0.0)


def _kernel_ridge(n_train: int, alpha: float) -> RegressorMixin:
    # Nystroem's 500 prompts stand for all: an exact kernel of 6,000 would take a minute per fit
    return make_pipeline(Nystroem(n_components=min(500, n_train // 2), gamma=1.0, random_state=0), Ridge(alpha))


def _similarity_weights(distance: np.ndarray, log_gamma: float) -> np.ndarray:
    """Return RouteLLM's weights, gamma ** cosine, from distances of unit vectors; the most similar prompt has 1."""
    return np.exp(-log_gamma * (distance**2 - distance.min(axis=-1, keepdims=True) ** 2) / 2)


def regression_ideas(n_train: int, tasks: bool) -> dict[str, tuple[str, RegressorMixin]]:
    """Return the regressions that are tried, by name, each with the layer it sees; those of tasks where they are known.

    Regressors have scikit-learn's `fit` and `predict` for several outputs; a `TaskRegressor` is also given the tasks.
    """
    weights = partial(_similarity_weights, log_gamma=10)
    some, more = min(50, n_train // 2), min(150, n_train // 2)
    kernel = {alpha: _kernel_ridge(n_train, alpha) for alpha in (1.0, 10.0)}
    ideas = [
        *(("both", f"ridge, α = {alpha}", Ridge(alpha)) for alpha in (10, 100)),
        *((layer, "kernel ridge, α = 10", kernel[10.0]) for layer in ("last", "middle", "both")),
        ("both", "kernel ridge, α = 1", kernel[1.0]),
        *(("both", f"k-means, {size} clusters", ClusterRegressor(size)) for size in (8, 16, 32, 64)),
        *((layer, "50 nearest", KNeighborsRegressor(some)) for layer in ("last", "middle")),
        ("both", "150 nearest", KNeighborsRegressor(more)),
        *((layer, "150 nearest, weighted", KNeighborsRegressor(more, weights=weights)) for layer in ("last", "middle")),
    ]
    if tasks:
        ideas += [(layer, "task classifier", TaskRegressor()) for layer in ("last", "middle", "both")]
        ideas += [("both", "task classifier + ridge", TaskRegressor(Ridge(100.0)))]
        ideas += [("both", "task classifier + kernel ridge", TaskRegressor(kernel[10.0]))]
    return {f"{name}, {layer}": (layer, idea) for layer, name, idea in ideas}


@dataclass(frozen=True)
class TriedRegressions:
    """What `try_regressions` found.

    The table has one row per candidate and one for `CHOSEN`: name, inner_score (on training prompts, each by a fit to
    the other folds), inner_error (standard error of its distance to the best), in_mean (whether it is part of
    `CHOSEN`), and of each part of the test prompts its name with ``_score``, ``_low``, ``_high``.
    """

    table: pd.DataFrame
    inner: dict[str, pd.DataFrame]  # (n_train, n_models) each: expected quality, out of fold
    test: dict[str, dict[str, pd.DataFrame]]  # by part, then by name: (n_prompts, n_models)


def align_scores(expected: pd.DataFrame, quality: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of both tables, models in alphabetical order; other models or lengths raise a ValueError."""
    if set(expected.columns) != set(quality.columns) or len(expected) != len(quality):
        raise ValueError(f"expected quality is {expected.shape} and quality {quality.shape}, or of other models")
    names = sorted(expected.columns)
    return expected[names].to_numpy(), quality[names].to_numpy(dtype=float)


def choice_shares(expected: np.ndarray) -> np.ndarray:
    """Return the share of each prompt that each model gets, (n_prompts, n_models): all, or equal ones the same part.

    So the order of the models changes nothing: means of a few neighbours' scores are often equal.
    """
    at_best = expected >= expected.max(axis=1, keepdims=True) - ROUNDING
    return at_best / at_best.sum(axis=1, keepdims=True)


def choice_scores(expected: pd.DataFrame, quality: pd.DataFrame) -> np.ndarray:
    """Return the score of the model expected to be best on each prompt: (n_prompts,). Raises as `align_scores`."""
    said, true = align_scores(expected, quality)
    return (choice_shares(said) * true).sum(axis=1)


def known_tasks(prompts: pd.DataFrame) -> np.ndarray:
    """Return the task of each prompt, (n_prompts,), by the first of `TASK_COLUMNS` known of all, else one for all."""
    for column in TASK_COLUMNS:
        if column in prompts and prompts[column].notna().all():
            return prompts[column].to_numpy()
    return np.zeros(len(prompts), dtype=int)


def task_weights(task: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of how often each prompt occurs that gives the weights of the mean over tasks: (n_prompts,)."""
    names, codes = np.unique(task, return_inverse=True)

    def weigh(counts: np.ndarray) -> np.ndarray:
        totals = np.bincount(codes, counts, len(names))
        return counts / (totals[codes] + (totals[codes] == 0)) / np.count_nonzero(totals)

    return weigh


def try_regressions(
    ideas: Mapping[str, tuple[str, RegressorMixin]], train: BenchmarkTable, vectors: Vectors,
    tests: Mapping[str, tuple[BenchmarkTable, Vectors, np.ndarray]], by_task: bool, folds: np.ndarray, rng: Generator,
    n_resamples: int,
) -> TriedRegressions:  # fmt: skip
    """Follow the protocol of this module with some candidates, as `regression_ideas` gives them.

    `tests` have, by part, the prompts, their vectors and tasks; `by_task`: the measure is a mean over tasks. Folds,
    (n_train,), are those of `assign_folds`; test prompts are resampled for a 95 % interval of each test score.
    """
    models, scores, task = list(train.models), train.quality.to_numpy(dtype=float), known_tasks(train.prompts)
    inner, test = {}, {part: {} for part in tests}
    for name, (layer, idea) in ideas.items():

        def fit(rows: np.ndarray, layer: str = layer, idea: RegressorMixin = idea) -> RegressorMixin:
            labels = (task[rows],) if isinstance(idea, TaskRegressor) else ()
            return clone(idea).fit(vectors[layer][rows], scores[rows], *labels)

        inner[name] = pd.DataFrame(0.0, range(len(scores)), models)
        for fold in np.unique(folds):
            inner[name].loc[folds == fold] = fit(folds != fold).predict(vectors[layer][folds == fold])
        whole = fit(folds >= 0)
        for part, (_, queried, _) in tests.items():
            test[part][name] = pd.DataFrame(whole.predict(queried[layer]), columns=models)
    weight = task_weights(task if by_task else np.zeros(len(task)))(np.ones(len(task)))
    found = {name: choice_scores(expected, train.quality) for name, expected in inner.items()}
    best = max(found, key=lambda name: weight @ found[name])
    behind = {name: found[best] - score for name, score in found.items()}
    error = {name: np.sqrt((weight**2) @ (far - weight @ far / weight.sum()) ** 2) for name, far in behind.items()}
    picked = [name for name, far in behind.items() if weight @ far <= SIGNIFICANT * error[name]]
    for expectations in (inner, *test.values()):
        expectations[CHOSEN] = sum(expectations[name] for name in picked) / len(picked)
    found[CHOSEN], error[CHOSEN] = choice_scores(inner[CHOSEN], train.quality), np.nan
    rows = {"name": list(found), "inner_score": [weight @ score for score in found.values()]}
    columns = [rows | {"inner_error": list(error.values()), "in_mean": [name in picked for name in found]}]
    for part, (table, _, part_task) in tests.items():
        reached = np.column_stack([choice_scores(expected, table.quality) for expected in test[part].values()])
        weigh = task_weights(part_task if by_task else np.zeros(len(part_task)))
        low, high, _ = paired_bootstrap(lambda n, w=weigh, s=reached: w(n) @ s, len(reached), n_resamples, rng)
        columns.append(
            {f"{part}_score": weigh(np.ones(len(reached))) @ reached, f"{part}_low": low, f"{part}_high": high}
        )
    return TriedRegressions(pd.DataFrame({key: value for part in columns for key, value in part.items()}), inner, test)


def try_ideas(
    task: RoutingTask, last: PromptEncoder, middle: PromptEncoder, rng: Generator, n_resamples: int,
    names: Sequence[str] | None = None,
) -> TriedRegressions:  # fmt: skip
    """Follow the protocol with `regression_ideas`, all or those of some names, on a task and all its parts."""

    def encode(part: BenchmarkTable) -> Vectors:
        layers = [encoder.encode(part.prompts["prompt"].tolist()) for encoder in (last, middle)]
        return {"last": layers[0], "middle": layers[1], "both": np.hstack(layers) / np.sqrt(2)}

    tests = {part: (table, encode(table), known_tasks(table.prompts)) for part, table in task.parts.items()}
    labels, n_train = known_tasks(task.train.prompts), len(task.train.prompts)
    ideas = regression_ideas(n_train, len(np.unique(labels)) > 1)
    ideas = {name: idea for name, idea in ideas.items() if names is None or name in names}
    by_task = "task" in task.train.prompts
    folds = assign_folds(task.train.prompts["prompt"].to_numpy(), 5, rng)
    return try_regressions(ideas, task.train, encode(task.train), tests, by_task, folds, rng, n_resamples)


def plot_tried(table: pd.DataFrame, references: Mapping[str, float]) -> Figure:
    """Draw what was tried, one row each: inner and test scores, and test scores to compare them with, as lines."""
    table = table.sort_values("inner_score", ascending=False, kind="stable")
    parts = ["inner folds, which choose", "test prompts (95 %)"]
    inner = table.assign(estimate=table["inner_score"], low=np.nan, high=np.nan, part=parts[0], text="")
    outer = table.assign(estimate=table["test_score"], low=table["test_low"], high=table["test_high"], part=parts[1])
    shown = pd.concat([inner, outer.assign(text=outer["estimate"].map("{:.3f}".format))])
    shown["name"] = np.where(shown["in_mean"], "• ", "") + shown["name"]
    (score,) = table.loc[table["name"] == CHOSEN, "test_score"]
    title = f"The router chosen by inner folds scores {score:.3f} on the test prompts"
    label = "mean score (•: part of the chosen mean)"
    return plot_rows(shown, label, title, group="part", reference=references)
