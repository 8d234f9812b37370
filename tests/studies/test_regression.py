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
    QualityCandidate,
    choice_scores,
    gain_over_single,
    plot_tried,
    regression_ideas,
    try_regressions,
)


@pytest.fixture
def task(rng):
    """Embeddings and scores of two models, each better on its side of the plane; 200 prompts to train, 100 to test."""
    vectors = rng.normal(size=(300, 2))
    score = pd.DataFrame({"left": vectors[:, 0] < 0, "right": vectors[:, 0] > 0}, dtype=float)
    return vectors[:200], vectors[200:], score[:200], score[200:].reset_index(drop=True)


def tried(task, rng, candidates: dict, blends: dict | None = None):
    train, test, train_quality, test_quality = task
    candidates = {name: QualityCandidate(make, train, test) for name, make in candidates.items()}
    folds = assign_folds(np.arange(200), 5, rng)
    return try_regressions(candidates, blends or {}, train_quality, test_quality, folds, rng, n_resamples=100)


def test_the_score_is_that_of_the_model_expected_best_and_of_equal_ones_the_mean():
    expected = pd.DataFrame({"b": [1.0, 0.5, 0.0], "a": [0.0, 0.5, 1.0]})
    quality = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [10.0, 20.0, 30.0]})
    assert choice_scores(expected, quality).tolist() == [10.0, 11.0, 3.0]
    assert choice_scores(expected[["a", "b"]], quality).tolist() == [10.0, 11.0, 3.0]
    with pytest.raises(ValueError, match="other models"):
        choice_scores(expected, quality.rename(columns={"a": "c"}))


class Copies(RegressorMixin, BaseEstimator):
    """Knows only the prompts that it was fitted to: perfect unless it is judged out of fold."""

    def fit(self, embeddings, quality):
        self.known = {row.tobytes(): score for row, score in zip(embeddings, quality, strict=True)}
        return self

    def predict(self, embeddings):
        return np.array([self.known.get(row.tobytes(), [1.0, 0.0]) for row in embeddings])


def test_what_only_remembers_is_not_chosen(task, rng):
    found = tried(task, rng, {"copies": Copies, "ridge": lambda: Ridge(1.0)})
    assert found.chosen == "ridge" and found.table["chosen"].tolist() == [False, True]
    assert found.table["inner_error"].iloc[1] == 0 < found.table["inner_error"].iloc[0] < 0.1
    inner = found.table.set_index("name")["inner_score"]
    assert inner["copies"] == pytest.approx(task[2]["left"].mean()) and inner["ridge"] > 0.95


def test_nothing_of_the_test_part_is_seen_by_the_choice(task, rng):
    candidates = {"near": lambda: KNeighborsRegressor(5), "ridge": lambda: Ridge(1.0)}
    found = tried(task, np.random.default_rng(0), candidates)
    mirrored = (*task[:3], task[3].rename(columns={"left": "right", "right": "left"}))
    again = tried(mirrored, np.random.default_rng(0), candidates)
    assert found.chosen == again.chosen
    assert found.table["inner_score"].equals(again.table["inner_score"])
    assert (found.table["test_score"] + again.table["test_score"]).to_numpy() == pytest.approx(1.0)


def test_a_blend_is_the_mean_of_its_parts(task, rng):
    candidates = {"near": lambda: KNeighborsRegressor(5), "ridge": lambda: Ridge(1.0)}
    found = tried(task, rng, candidates, {"both": ["near", "ridge"]})
    mean = (found.test["near"] + found.test["ridge"]) / 2
    pd.testing.assert_frame_equal(found.test["both"], mean)
    row = found.table.set_index("name").loc["both"]
    assert row["low"] <= row["test_score"] <= row["high"]
    assert row["test_score"] == choice_scores(mean, task[3]).mean()
    with pytest.raises(ValueError, match="blend bad: no candidate far"):
        tried(task, rng, candidates, {"bad": ["far"]})


def test_every_idea_finds_what_is_easy_and_needs_no_scale(rng):
    directions = unit_rows(rng.normal(size=(500, 3)))
    vectors = directions[:400], directions[400:]
    score = pd.DataFrame({"left": directions[:, 0] < 0, "right": directions[:, 0] > 0}, dtype=float)
    candidates, blends = regression_ideas(vectors, vectors)
    folds = assign_folds(np.arange(400), 2, rng)
    found = try_regressions(candidates, blends, score[:400], score[400:].reset_index(drop=True), folds, rng, 20)
    assert len(found.table) == len(candidates) + len(blends)
    assert (found.table["test_score"] > 0.9).all() and (found.table["inner_score"] > 0.9).all()
    for expected in found.test.values():
        assert expected.sum(axis=1).to_numpy() == pytest.approx(1.0)  # as the scores of each prompt do


def test_the_gain_of_what_was_chosen_is_paired_with_the_best_single_model(task, rng):
    found = tried(task, rng, {"ridge": lambda: Ridge(1.0)})
    test = BenchmarkTable(pd.DataFrame({"prompt": [f"p{n}" for n in range(100)]}), task[3])
    gain = gain_over_single(found, test, 200, rng)
    assert gain["gain"] == pytest.approx(found.table["test_score"].iloc[0] - task[3].mean().max())
    assert 0 < gain["low"] < gain["gain"] < gain["high"]
    figure = plot_tried(found.table, {"best single model": 0.5})
    assert figure.get_suptitle().endswith(f"scores {found.table['test_score'].iloc[0]:.3f} on the test prompts")
    assert "ridge (chosen)" in [label.get_text() for label in figure.axes[0].get_yticklabels()]
