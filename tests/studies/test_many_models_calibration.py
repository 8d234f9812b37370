from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from routing.battles import swap_battles
from routing.embeddings import PromptEncoder
from routing.studies.inputs import load_tasks
from routing.studies.many_models.calibration import (
    compare_win_shares,
    group_scores,
    map_ratings,
    plot_quality_maps,
    plot_win_shares,
)
from routing.studies.simulated.arena import simulate_arena


def test_win_shares_are_recovered_whichever_model_stands_first(rng):
    arena = simulate_arena(0, 5, topic_spread=0.01)
    prompts = arena.sample_prompts(400, rng)
    learned, held_out = arena.sample_battles(prompts[:200], 8000, rng), arena.sample_battles(prompts[200:], 8000, rng)
    reference = arena.models[0]
    table = compare_win_shares(learned, held_out, reference)
    assert table["model"].tolist() == list(arena.models[1:])
    assert (table["expected"] - table["observed"]).abs().max() < 0.06
    assert ((table["low"] < table["observed"]) & (table["observed"] < table["high"])).all()
    assert f"{(table['expected'] - table['observed']).abs().mean():.3f}" in plot_win_shares(table, "a").get_suptitle()
    swapped = compare_win_shares(swap_battles(learned), swap_battles(held_out, rng.random(8000) < 0.5), reference)
    pd.testing.assert_frame_equal(swapped, table)


def test_observed_shares_count_a_tie_as_half():
    rows = [("p", "a", "b", "model_a"), ("q", "b", "a", "tie"), ("r", "b", "a", "model_b"), ("s", "a", "b", "model_b")]
    battles = pd.DataFrame(rows, columns=["prompt", "model_a", "model_b", "winner"])
    (row,) = compare_win_shares(battles, battles, "a").itertuples()
    assert row.model == "b" and row.observed == (0 + 0.5 + 0 + 1) / 4 and row.n == 4
    with pytest.raises(ValueError, match="c fought no battle that was held out"):
        compare_win_shares(battles.assign(model_a="c"), battles, "c")


def test_groups_are_of_the_expected_score_alone():
    expected = pd.DataFrame({"a": [0.1, 0.1, 0.9, 0.9], "b": [0.1, 0.1, 0.9, 0.9]})
    quality = pd.DataFrame({"b": [0.0, 0.0, 1.0, 1.0], "a": [0.0, 1.0, 1.0, 0.0]})
    table = group_scores(expected, quality, n_groups=4)  # only two are distinct, whatever was observed
    assert table["n"].tolist() == [4, 4]
    assert table["expected"].tolist() == pytest.approx([0.1, 0.9]) and table["observed"].tolist() == [0.25, 0.75]
    assert (table["low"] < table["observed"]).all() and (table["observed"] < table["high"]).all()


def test_answers_to_one_prompt_count_as_one_for_the_interval(rng):
    expected = pd.DataFrame({"a": np.linspace(0, 1, 400)})
    quality = pd.DataFrame({"a": (rng.random(400) < 0.5).astype(float)})
    once = group_scores(expected, quality, n_groups=1)
    copies = [pd.concat([table["a"]] * 3, axis=1, keys=list("abc")) for table in (expected, quality)]
    thrice = group_scores(*copies, n_groups=1)
    np.testing.assert_allclose(thrice[["low", "high"]], once[["low", "high"]], atol=1e-9)
    with pytest.raises(ValueError, match="or of other models"):
        group_scores(expected, quality[:3])


def test_maps_tell_scores_better_than_the_win_share(rng):
    task = load_tasks("smoke", 0)[0]["simulated"]
    table, error = map_ratings(
        task, PromptEncoder(lambda texts: rng.normal(size=(len(texts), 4)) + 3, cache=False), rng
    )
    assert table["way"].unique().tolist() == ["logistic", "isotonic", "win share, not mapped"] == list(error.index)
    assert error["logistic"] < error["win share, not mapped"]
    assert f"to {error['logistic']:.3f}" in plot_quality_maps(table, error).get_suptitle()
