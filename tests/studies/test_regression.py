from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

from routing.data.benchmarks import BenchmarkTable
from routing.embeddings import unit_rows
from routing.studies.cross_validation import assign_folds
from routing.studies.many_models.regression import (
    CHOSEN,
    ClusterRegressor,
    TaskRegressor,
    choice_scores,
    known_tasks,
    plot_tried,
    regression_ideas,
    task_weights,
    try_regressions,
)


def as_table(score: pd.DataFrame, **metadata) -> BenchmarkTable:
    score = score.reset_index(drop=True)
    return BenchmarkTable(pd.DataFrame({"prompt": [f"p{n}" for n in score.index], **metadata}), score)


@pytest.fixture
def task(rng):
    """Embeddings and scores of two models, each better on its side of the plane; 200 prompts to train, 100 to test."""
    vectors = rng.normal(size=(300, 2))
    score = pd.DataFrame({"left": vectors[:, 0] < 0, "right": vectors[:, 0] > 0}, dtype=float)
    return vectors[:200], vectors[200:], score[:200], score[200:].reset_index(drop=True)


def tried(task, rng, ideas: dict, by_task: bool = False, **metadata):
    train, test, train_quality, test_quality = task
    tests = {"test": (as_table(test_quality), {"only": test}, np.zeros(len(test)))}
    folds = assign_folds(np.arange(200), 5, rng)
    ideas = {name: ("only", idea) for name, idea in ideas.items()}
    return try_regressions(
        ideas, as_table(train_quality, **metadata), {"only": train}, tests, by_task, folds, rng, n_resamples=100
    )


def test_the_score_is_that_of_the_model_expected_best_and_of_equal_ones_the_mean():
    expected = pd.DataFrame({"b": [1.0, 0.5, 0.0], "a": [0.0, 0.5, 1.0]})
    quality = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [10.0, 20.0, 30.0]})
    assert choice_scores(expected, quality).tolist() == [10.0, 11.0, 3.0]
    assert choice_scores(expected[["a", "b"]], quality).tolist() == [10.0, 11.0, 3.0]
    with pytest.raises(ValueError, match="other models"):
        choice_scores(expected, quality.rename(columns={"a": "c"}))


def test_the_mean_over_tasks_weighs_every_task_alike():
    weigh = task_weights(np.array(["a", "b", "b", "b"]))
    assert weigh(np.ones(4)) @ np.array([1.0, 0.0, 3.0, 6.0]) == pytest.approx((1 + 3) / 2)
    assert weigh(np.array([0, 2, 1, 1])).tolist() == pytest.approx([0, 0.5, 0.25, 0.25])  # a task that is not drawn
    assert known_tasks(pd.DataFrame({"task": ["x", None], "topic": ["s", "t"]})).tolist() == ["s", "t"]
    assert known_tasks(pd.DataFrame({"prompt": ["x", "y"]})).tolist() == [0, 0]


class Copies(RegressorMixin, BaseEstimator):
    """Knows only the prompts that it was fitted to: perfect unless it is judged out of fold."""

    def fit(self, embeddings, quality):
        self.known = {row.tobytes(): score for row, score in zip(embeddings, quality, strict=True)}
        return self

    def predict(self, embeddings):
        return np.array([self.known.get(row.tobytes(), [1.0, 0.0]) for row in embeddings])


def test_what_only_remembers_is_not_chosen(task, rng):
    found = tried(task, rng, {"copies": Copies(), "ridge": Ridge(1.0)})
    assert found.table["in_mean"].tolist() == [False, True, False]
    pd.testing.assert_frame_equal(found.test["test"][CHOSEN], found.test["test"]["ridge"])
    assert found.table["inner_error"].iloc[1] == 0 < found.table["inner_error"].iloc[0] < 0.1
    inner = found.table.set_index("name")["inner_score"]
    assert inner["copies"] == pytest.approx(task[2]["left"].mean()) and inner["ridge"] > 0.95


def test_nothing_of_the_test_part_is_seen_by_the_choice(task):
    ideas = {"near": KNeighborsRegressor(5), "ridge": Ridge(1.0)}
    found = tried(task, np.random.default_rng(0), ideas)
    mirrored = (*task[:3], task[3].rename(columns={"left": "right", "right": "left"}))
    again = tried(mirrored, np.random.default_rng(0), ideas)
    assert found.table["in_mean"].equals(again.table["in_mean"])
    assert found.table["inner_score"].equals(again.table["inner_score"])
    assert (found.table["test_score"] + again.table["test_score"]).to_numpy() == pytest.approx(1.0)


def test_candidates_that_are_not_significantly_worse_are_averaged(task, rng):
    found = tried(task, rng, {"one": Ridge(1.0), "same": Ridge(1.0), "near": KNeighborsRegressor(5)})
    picked = found.table.loc[found.table["in_mean"], "name"].tolist()
    assert {"one", "same"} <= set(picked)
    mean = sum(found.test["test"][name] for name in picked) / len(picked)
    pd.testing.assert_frame_equal(found.test["test"][CHOSEN], mean)
    row = found.table.set_index("name").loc[CHOSEN]
    assert row["test_low"] <= row["test_score"] <= row["test_high"]
    assert row["test_score"] == pytest.approx(choice_scores(mean, task[3]).mean())


def test_clusters_and_tasks_expect_their_mean_scores(task):
    vectors, _, score, _ = task
    side = np.where(vectors[:, 0] < 0, "left", "right")
    apart = np.column_stack([np.where(side == "left", -5.0, 5.0), np.zeros(200)])
    for made in (ClusterRegressor(2).fit(apart, score.to_numpy()), TaskRegressor().fit(apart, score.to_numpy(), side)):
        np.testing.assert_allclose(made.predict(apart), score, atol=0.02)
    noisy = score.to_numpy() + 0.1 * vectors[:, [1]]
    with_rest = TaskRegressor(Ridge(1e-6)).fit(vectors, noisy, side)
    assert (
        np.abs(with_rest.predict(vectors) - noisy).mean()
        < np.abs(TaskRegressor().fit(vectors, noisy, side).predict(vectors) - noisy).mean()
    )


def test_every_idea_finds_what_is_easy_and_needs_no_scale(rng):
    directions = unit_rows(rng.normal(size=(500, 3)))
    score = pd.DataFrame({"left": directions[:, 0] < 0, "right": directions[:, 0] > 0}, dtype=float)
    vectors = {layer: directions for layer in ("last", "middle", "both")}
    seen = np.arange(500) < 400
    queried = {name: some[~seen] for name, some in vectors.items()}
    tests = {"test": (as_table(score[~seen]), queried, np.zeros(100))}
    train = as_table(score[seen], task=np.where(directions[seen, 0] < 0, "l", "r"))
    folds = assign_folds(np.arange(400), 2, rng)
    ideas = regression_ideas(400, tasks=True)
    found = try_regressions(ideas, train, {k: v[seen] for k, v in vectors.items()}, tests, True, folds, rng, 20)
    assert len(found.table) == len(ideas) + 1
    assert (found.table["test_score"] > 0.85).all() and (found.table["inner_score"] > 0.85).all()
    figure = plot_tried(found.table, {"best single model": 0.5})
    (text,) = [f"{score:.3f}" for score in found.table.loc[found.table["name"] == CHOSEN, "test_score"]]
    assert text in figure.get_suptitle()
