from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from routing.data.benchmarks import BenchmarkTable
from routing.studies.inputs import RoutingTask
from routing.studies.many_models import contenders


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def table(rng) -> BenchmarkTable:
    """Two tasks, of 40 and 160 prompts; "a" is right on all of the first, "b" on most of the second, "c" sometimes."""
    task = np.array(["first"] * 40 + ["second"] * 160)
    right = {"a": task == "first", "b": (task == "second") & (rng.random(200) < 0.8), "c": rng.random(200) < 0.3}
    quality = pd.DataFrame(right, dtype=float)
    return BenchmarkTable(pd.DataFrame({"prompt": [f"p{n}" for n in range(200)], "task": task}), quality)


def measures(table: BenchmarkTable, rng, **expected) -> pd.Series:
    found = contenders.compare_choices(expected, table, "b", 50, rng)
    assert (found["low"] <= found["estimate"] + 1e-12).all() and (found["estimate"] <= found["high"] + 1e-12).all()
    return found.set_index(["router", "measure"])["estimate"]


def test_a_constant_gains_nothing_over_any_control(table, rng):
    constant = pd.DataFrame(0.0, range(200), list("abc")).assign(b=1.0)
    found = measures(table, rng, constant=constant)["constant"]
    assert found[["over_constant", "over_shuffled", "over_task", "share_of_gap"]].to_numpy() == pytest.approx(0)
    assert found["score"] == pytest.approx(table.quality["b"][40:].mean() / 2)  # the mean over two tasks


def test_a_router_of_tasks_has_nothing_above_the_task_and_the_oracle_all(table, rng):
    known = table.quality.groupby(table.prompts["task"]).transform("mean")
    found = measures(table, rng, task=known, oracle=table.quality)
    assert found["task", "over_task"] == pytest.approx(0)
    assert found["task", "over_shuffled"] > 0.3 and found["task", "over_constant"] == pytest.approx(0.5)
    assert found["oracle", "share_of_gap"] == pytest.approx(1) and found["oracle", "over_task"] > 0


def test_the_shuffled_control_is_the_mean_over_permutations(table, rng):
    table = BenchmarkTable(table.prompts[["prompt"]], table.quality)
    expected = pd.DataFrame(rng.random((200, 3)), columns=list("abc"))
    found = measures(table, rng, router=expected)["router"]
    chosen, true = expected.to_numpy().argmax(axis=1), table.quality.to_numpy()
    drawn = [true[np.arange(200), rng.permutation(chosen)].mean() for _ in range(2_000)]
    assert found["score"] - found["over_shuffled"] == pytest.approx(np.mean(drawn), abs=0.005)
    assert "over_task" not in found.index


def test_battles_are_those_of_the_scores_and_none_is_drawn_twice(table, rng):
    battles = contenders.draw_battles(table, 10_000, rng)
    assert len(battles) == 600 and not battles.duplicated(["prompt", "model_a", "model_b"]).any()
    few = contenders.draw_battles(table, 50, rng)
    assert len(few) == 50
    quality = table.quality.set_axis(table.prompts["prompt"])
    for row in few.itertuples():
        sign = np.sign(quality.loc[row.prompt, row.model_a] - quality.loc[row.prompt, row.model_b])
        assert row.winner == {1: "model_a", 0: "tie", -1: "model_b"}[sign]


def test_the_best_constant_is_the_one_of_the_training_prompts(table):
    assert contenders.best_constant(table) == "a"  # half of the measure is the first task
    assert contenders.best_constant(BenchmarkTable(table.prompts[["prompt"]], table.quality)) == "b"
    other = RoutingTask(table, table.select(np.arange(200) >= 20))
    assert contenders.single_score(other) == pytest.approx(0.5)


def test_published_rows_stand_next_to_ours_and_what_the_task_alone_gives(table, rng):
    task = RoutingTask(table, table, table)
    scores = [
        contenders.compare_choices({"regression": table.quality}, table, "a", 20, rng).assign(task=name)
        for name in ("RouterDC", "RouterDC, out of distribution")
    ]
    rivals = contenders.compare_published(task, pd.concat(scores), 20, rng)
    rows = rivals.set_index(["part", "name"])["estimate"]
    assert rows["in distribution", "RouterDC [published]"] == 58.54
    assert rows["out of distribution", "RouterDC [published]"] == 45.85
    assert rows["in distribution", contenders.KNOWN_TASK] == pytest.approx(50 * (1 + table.quality["b"][40:].mean()))
    assert rows["in distribution", "always a"] == pytest.approx(50)
    assert "best published router 58.5 %" in contenders.plot_published(rivals).get_suptitle()


def test_when_routing_pays_is_read_off_one_router():
    rows = [("r", "over_constant", 0.1, 0.05, 0.15, "t"), ("other", "over_constant", 0.2, 0.1, 0.3, "t")]
    compared = pd.DataFrame(rows, columns=["router", "measure", "estimate", "low", "high", "task"])
    metrics = pd.DataFrame(
        [("r", "cost_share", 0.6, 0.5, np.inf, "t")], columns=["router", "metric", *compared.columns[2:]]
    )
    table = contenders.summarize_pay(compared, metrics, "r").set_index("measure")
    assert table.loc["over_constant", "estimate"] == 0.1 and len(table) == 2
    assert table.loc["dollars_saved", ["estimate", "low", "high"]].tolist() == [0.4, -np.inf, 0.5]
    assert "On 1 of 1" in contenders.plot_pay(table.reset_index()).get_suptitle()


def test_the_arena_score_by_hand_and_the_cheaper_of_equal_answers():
    assert contenders.arena_score(1.0, 0.0044) == pytest.approx(1.0)
    assert contenders.arena_score(0.5, 200.0) == 0.0
    assert contenders.arena_score(0.6, 1.0) == pytest.approx(1.1 * 0.6 * 0.49387 / (0.06 + 0.49387), rel=1e-3)
    quality, cost = pd.DataFrame({"x": [1.0, 1.0], "y": [1.0, 0.0]}), pd.DataFrame({"x": [0.3, 0.3], "y": [0.1, 0.1]})
    table = BenchmarkTable(pd.DataFrame({"prompt": ["p", "q"]}), quality, cost)
    found = contenders.judge_arena(table, 10, np.random.default_rng(0)).set_index("name")
    assert found.loc["oracle", "usd_per_1000"] == pytest.approx(200) and found.loc["oracle", "estimate"] == 1.0
    assert found.loc["an even mix", "estimate"] == 0.75
