"""Tables of notebooks 03 and 04 hold what routers say, and their titles follow from the tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from routing.battles import encode_battles
from routing.routers.base import BradleyTerryRouter
from routing.routers.factorization import MatrixFactorizationRouter
from routing.routers.similarity import SimilarityRouter
from routing.studies import routers
from routing.studies.inputs import Study
from routing.studies.simulated.arena import simulate_arena
from tests.studies.conftest import title


@pytest.fixture(scope="module")
def study() -> Study:
    rng, arena = np.random.default_rng(3), simulate_arena(0)
    prompts = arena.sample_prompts(60, rng)
    battles, held_out = arena.sample_battles(prompts[:40], 600, rng), arena.sample_battles(prompts[40:], 200, rng)
    asked = prompts.set_index("prompt").loc[held_out["prompt"]].reset_index()
    return Study(battles, held_out, {}, "simulated", {}, arena, asked)


def encode(prompts: list[str]) -> np.ndarray:
    """Vectors that depend on a prompt's text alone."""
    letters = np.array([[text.lower().count(letter) for letter in "etaoinshr"] for text in prompts], dtype=float)
    vectors = letters - 3
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def vectors(study) -> np.ndarray:
    return encode(study.battles["prompt"].tolist())


def test_gains_are_over_the_leaderboard_and_the_truth_is_there_where_known(study):
    uniform = np.full((200, 3), 1 / 3)
    losses = routers.compare_on_held_out(study, {"uniform": uniform}).set_index("name")
    assert list(losses.index) == ["Bradley-Terry", "uniform", "the truth"]
    assert losses.loc["uniform", "log_loss"] == pytest.approx(np.log(3))
    plain = BradleyTerryRouter().fit(study.battles).battle_probability(study.held_out)
    outcome = encode_battles(study.held_out).outcome
    expected = (np.log(1 / 3) - np.log(plain[np.arange(200), outcome])).mean()
    assert losses.loc["uniform", "estimate"] == pytest.approx(expected)
    assert losses["estimate"].idxmax() == "the truth"


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.1, 0.3, "beats"), (-0.3, -0.1, "worse"), (-1, 1, "not significantly")]
)
def test_the_verdict_on_a_gain_follows_from_its_interval(low, high, verdict):
    rows = [("Bradley-Terry", 0.0, 0.0, 0.0), ("x", (low + high) / 2, low, high)]
    figure = routers.plot_gains(pd.DataFrame(rows, columns=["name", "estimate", "low", "high"]), "x")
    assert verdict in title(figure)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["x"]


def test_neighbours_are_the_prompts_of_largest_weight(study, vectors):
    router = SimilarityRouter(n_tiers=3).fit(study.battles, vectors)
    asked = study.held_out["prompt"].iloc[[0]].tolist() + [study.battles["prompt"].iloc[0]]
    table = routers.find_neighbours(router, encode, asked, 4)
    assert len(table) == 8 and table["prompt"].tolist() == [asked[0]] * 4 + [asked[1]] * 4
    assert table["neighbour"].iloc[4] == asked[1] and table["weight"].iloc[4] == pytest.approx(1)
    assert table.groupby("prompt", sort=False)["weight"].apply(lambda w: w.is_monotonic_decreasing).all()
    labels = [label.get_text().strip() for label in routers.plot_neighbours(table).axes[0].get_yticklabels()]
    assert len(labels) == 10 and labels[0].startswith("for: ") and labels[5].startswith("for: ")


def test_fewer_battles_count_with_a_larger_gamma(study, vectors):
    table = routers.count_effective_battles(study.battles, vectors, encode(study.held_out["prompt"].tolist()), 3)
    assert table["median"].iloc[0] == pytest.approx(600) and table["share"].iloc[0] == pytest.approx(1)
    assert table["median"].is_monotonic_decreasing
    assert f"{table['share'][1]:.0%}" in title(routers.plot_effective_battles(table))


def test_every_setting_is_judged_and_the_best_is_named(study, vectors):
    validation = np.arange(600) % 5 == 0
    grid = routers.search_settings(study.battles, vectors, validation, 3, (10, 100))
    assert len(grid) == 8 and grid["setting"].nunique() == 4 and np.isfinite(grid["log_loss"]).all()
    best = grid.loc[grid["log_loss"].idxmin()]
    assert f"γ = {best['gamma']}" in title(routers.plot_settings(grid))
    assert best["setting"] in title(routers.plot_settings(grid))


def test_categories_show_both_values():
    scores = pd.DataFrame(
        {"group": ["x", "y"], "predicted": [0.6, 0.5], "observed": [0.7, 0.4], "low": 0.3, "high": 0.8}
    )
    figure = routers.plot_categories(scores)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.6", "0.5", "0.7", "0.4"]
    assert "1.00" in title(figure)


def test_batches_are_timed_at_their_sizes():
    sizes = []
    table = routers.time_batches(lambda batch: sizes.append(len(batch)), np.ones((3, 2)))
    assert sorted(set(sizes)) == table["batch"].tolist() == [1, 16, 64, 256] and len(sizes) == 20
    assert (table["low"] <= table["prompts_per_s"]).all() and (table["prompts_per_s"] <= table["high"]).all()
    assert "256" in title(routers.plot_batches(table))


@pytest.mark.parametrize(
    ("validation", "expected"), [([3.0, 2, 1], "after 2 epochs"), ([1.0, 2, 3], "rises from the first")]
)
def test_the_learning_curve_says_where_validation_is_best(validation, expected):
    parts = [pd.DataFrame({"epoch": range(3), "training": 1.0, "held_out": validation}).assign(seed=s) for s in (0, 1)]
    figure = routers.plot_learning_curve(pd.concat(parts))
    assert expected in title(figure)
    assert [text.get_text() for text in figure.axes[0].texts] == ["training", "validation"]


def test_the_map_holds_the_components_that_prompts_move_most(study, vectors):
    router = MatrixFactorizationRouter(dimension=4, n_epochs=1, n_seeds=1, early_stopping=False)
    table = routers.map_models(router.fit(study.battles, vectors), vectors)
    assert set(table["model"]) == set(router.models) and 0 < table["explained"].iloc[0] <= 1
    assert (np.diff(table["first"] ** 2 + table["second"] ** 2) <= 1e-12).all()
    assert f"{table['explained'].iloc[0]:.0%}" in title(routers.plot_model_map(table))


def test_calibration_counts_the_bins_that_agree():
    table = pd.DataFrame(
        {"predicted": [0.2, 0.8], "observed": 0.5, "observed_low": [0.1, 0.1], "observed_high": [0.6, 0.6]}
    )
    assert "50% of the bins" in title(routers.plot_calibration({"bert": table, "bradley_terry": table}))
