from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from routing.studies.many_models.new_models import new_model_errors, plot_new_models
from routing.studies.simulated.arena import simulate_arena


@pytest.fixture(scope="module")
def arena_battles():
    """Battles of an arena in which prompts do not matter much, and its true ratings."""
    arena, rng = simulate_arena(3, topic_spread=0.01), np.random.default_rng(3)
    battles = arena.sample_battles(arena.sample_prompts(100, rng), 6000, rng)
    return battles, pd.Series(arena.mean_ratings, arena.models)


def test_battles_make_a_rating_right_and_a_true_leaderboard_helps_at_the_start(arena_battles):
    battles, truth = arena_battles
    errors = new_model_errors(battles, truth.index[:4], truth, [0, 10, 200], 20, np.random.default_rng(0))
    error = errors.set_index(["start", "battles"])["error"]
    assert error["leaderboard", 0] < 0.5 * error["average model", 0]
    for start in ("leaderboard", "average model"):
        assert error[start, 200] < 0.35
    assert error["average model", 200] < error["average model", 10] < error["average model", 0]
    # A leaderboard that is right is not thrown away for the first few battles.
    assert error["leaderboard", 10] < error["average model", 10]
    assert (errors["low"] <= errors["error"]).all() and (errors["error"] <= errors["high"]).all()
    saved = error["average model", 10] - error["leaderboard", 10]
    assert f"saves {saved:.2f} log-odds" in plot_new_models(errors).get_suptitle()


def test_the_scale_of_the_leaderboard_does_not_matter(arena_battles):
    battles, truth = arena_battles
    found = [
        new_model_errors(battles, truth.index[:2], board, [0, 5], 3, np.random.default_rng(0))
        for board in (truth, 1000 + 174 * truth)
    ]
    np.testing.assert_allclose(found[0]["error"], found[1]["error"], atol=1e-9)


def test_who_joins_has_battles_and_a_place(arena_battles):
    battles, truth = arena_battles
    rng = np.random.default_rng(0)
    name = truth.index[0]
    with pytest.raises(ValueError, match=f"{name} has .* battles; 10000 are needed"):
        new_model_errors(battles, [name], truth, [5000], 1, rng)
    with pytest.raises(ValueError, match=f"{name} has no place on the leaderboard"):
        new_model_errors(battles, [name], truth.drop(name), [5], 1, rng)
    with pytest.raises(ValueError, match="has 2 of the models that"):
        new_model_errors(battles, [name], truth.iloc[:3], [5], 1, rng)
