"""Tables of notebooks 03 and 04 hold what routers say, and their titles follow from the tables."""

from __future__ import annotations

from dataclasses import replace

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


def contenders_of(study, vectors) -> dict[str, routers.Contender]:
    held_out_vectors = encode(study.held_out["prompt"].tolist())
    made = {"paper's": SimilarityRouter(n_tiers=3), "sharp": SimilarityRouter(1_000, None, 1.0)}
    return {
        name: routers.Contender(r.fit(study.battles, vectors), vectors, held_out_vectors) for name, r in made.items()
    }


def test_intervals_over_prompts_are_those_of_resampled_prompts(study):
    """All battles of a prompt are drawn together: equal battles on few prompts give wide intervals."""
    prompts = study.held_out["prompt"].drop_duplicates().to_numpy()
    few = replace(study, arena=None, held_out=study.held_out.assign(prompt=np.resize(prompts[:4], 200)))
    many = replace(few, held_out=few.held_out.assign(prompt=[f"prompt {n}" for n in range(200)]))
    winner = np.eye(3)[encode_battles(study.held_out).outcome]
    says = np.where(np.arange(200)[:, None] % 4 < 2, 0.2 / 3 + 0.8 * winner, 1 / 3)  # good on two of the four prompts
    tables = [routers.compare_on_held_out(s, {"x": says}).set_index("name").loc["x"] for s in (few, many)]
    widths = [table["high"] - table["low"] for table in tables]
    assert tables[0]["estimate"] == tables[1]["estimate"] and tables[0]["covers"] == routers.PROMPTS
    assert widths[0] > 2 * widths[1]


def test_training_widens_intervals_and_moves_no_estimate(study):
    says = {"x": np.full((200, 3), 1 / 3)}
    every = ["Bradley-Terry", "x", "the truth"]
    spread = pd.DataFrame([[0.0, 5.0, 0.1], [0.0, 6.0, 0.1], [0.0, 4.0, 0.1]], columns=every)  # x: s.d. 1
    plain, wide = (routers.compare_on_held_out(study, says, part).set_index("name") for part in (None, spread))
    assert (plain["estimate"] == wide["estimate"]).all() and set(wide["covers"]) == {routers.TRAINING}
    width = (wide["high"] - wide["low"]).loc["x"]
    assert 3.2 < width < 4.8  # 2 x 1.96, and little of the prompts
    truth = [table.loc["the truth", ["low", "high"]].astype(float) for table in (plain, wide)]
    assert abs(truth[0] - truth[1]).max() < 0.02
    with pytest.raises(KeyError, match="x"):
        routers.compare_on_held_out(study, says, spread.drop(columns="x"))


def test_refits_see_the_same_resampled_battles_and_every_model(study, vectors):
    contenders = contenders_of(study, vectors)
    contenders["twice"] = contenders["paper's"]
    gains = routers.refit_gains(study, contenders, 3, np.random.default_rng(1))
    assert list(gains) == ["Bradley-Terry", "paper's", "sharp", "twice", "the truth"] and len(gains) == 3
    assert (gains["Bradley-Terry"] == 0).all() and (gains["twice"] == gains["paper's"]).all()
    assert gains["sharp"].nunique() == 3 and gains["the truth"].nunique() == 3
    table = routers.compare_contenders(study, contenders_of(study, vectors), 2, 0).set_index("name")
    assert (table["low"] <= table["estimate"]).all() and (table["estimate"] <= table["high"]).all()
    assert table.loc["Bradley-Terry", ["estimate", "low", "high"]].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("low", "high", "covers", "verdict"),
    [
        (0.1, 0.3, routers.TRAINING, "significantly beats"),
        (-0.3, -0.1, routers.TRAINING, "significantly worse"),
        (-1, 1, routers.TRAINING, "not significantly"),
        (0.1, 0.3, routers.PROMPTS, "better than"),
        (-0.3, -0.1, routers.PROMPTS, "worse than"),
        (-1, 1, routers.PROMPTS, "not clearly"),
    ],
)
def test_the_verdict_on_a_gain_follows_from_its_interval_and_what_that_covers(low, high, covers, verdict):
    rows = [("Bradley-Terry", 0.0, 0.0, 0.0, covers), ("x", (low + high) / 2, low, high, covers)]
    losses = pd.DataFrame(rows, columns=["name", "estimate", "low", "high", "covers"])
    figure = routers.plot_gains(losses, "x")
    assert verdict in title(figure) and ("significantly" in title(figure)) == (covers == routers.TRAINING)
    assert covers in figure.axes[0].get_xlabel()
    assert f"{covers} {low:+.4f} to {high:+.4f}" in routers.describe_gain(losses, "x")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["x"]


def test_all_components_keep_every_cosine_and_the_first_keep_most(study, vectors):
    others = encode(study.held_out["prompt"].tolist())
    projected, asked = routers.project_vectors(vectors, others, vectors.shape[1])
    np.testing.assert_allclose(projected @ asked.T, vectors @ others.T, atol=1e-12)
    fewer, _ = routers.project_vectors(vectors, others, 2)
    assert fewer.shape == (600, 2)
    np.testing.assert_allclose(np.linalg.norm(fewer, axis=1), 1)
    plane = np.random.default_rng(0).standard_normal((50, 2)) @ np.eye(5)[:2]  # of rank 2
    plane = plane / np.linalg.norm(plane, axis=1, keepdims=True)
    kept, _ = routers.project_vectors(plane, plane, 2)
    np.testing.assert_allclose(kept @ kept.T, plane @ plane.T, atol=1e-12)


def test_widths_are_compared_by_one_router(study, vectors):
    embeddings = {
        "letters": (np.tile(vectors, 5) / 5**0.5, np.tile(encode(study.held_out["prompt"].tolist()), 5) / 5**0.5)
    }
    table = routers.compare_widths(study, embeddings, SimilarityRouter(n_tiers=3), "smoke", 0)
    assert table["name"].tolist() == ["letters, 32 of 45 components", "letters, all 45 numbers"]
    assert table["width"].tolist() == [32, 45]
    assert np.ptp(table["estimate"]) < 1e-6  # the rank is 9
    assert "From 32 to 45 numbers" in title(routers.plot_widths(table)) and "0.0000" in title(
        routers.plot_widths(table)
    )


def test_the_examples_by_hand():
    table, p_a = routers.weigh_by_hand()
    np.testing.assert_allclose(table["weight"], [1, 10**-0.4, 0.1], rtol=1e-6)
    assert p_a == pytest.approx(1.1 / (1.1 + 10**-0.4), abs=1e-6)
    router = routers.multiply_by_hand(np.ones(2), np.eye(2), np.array([[0.7, -0.3], [-0.3, 0.7]]))
    p = router.win_probability(np.eye(2), "model 1", "model 2")
    np.testing.assert_allclose(p, [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))])


def test_neighbours_are_the_prompts_of_largest_weight(study, vectors):
    router = SimilarityRouter(n_tiers=3).fit(study.battles, vectors)
    asked = study.held_out["prompt"].iloc[[0]].tolist() + [study.battles["prompt"].iloc[0]]
    table = routers.find_neighbours(router, encode, asked, 4)
    assert len(table) == 8 and table["prompt"].tolist() == [asked[0]] * 4 + [asked[1]] * 4
    assert table["neighbour"].iloc[4] == asked[1] and table["weight"].iloc[4] == pytest.approx(1)
    assert table.groupby("prompt", sort=False)["weight"].apply(lambda w: w.is_monotonic_decreasing).all()
    labels = [label.get_text().strip() for label in routers.plot_neighbours(table).axes[0].get_yticklabels()]
    assert len(labels) == 10 and labels[0].startswith("for: ") and labels[5].startswith("for: ")
    alike = table.assign(neighbour=[f"{'the same beginning ' * 4}{number}" for number in range(8)])
    assert len(routers.plot_neighbours(alike).axes[0].get_yticklabels()) == 10


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
