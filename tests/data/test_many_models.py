from __future__ import annotations

import json
import os

import pandas as pd
import pytest

from routing.data.benchmarks import ROUTERDC_TASKS, read_routerarena, read_routerdc

MODELS = ["org/B", "org/A"]


@pytest.fixture
def published(tmp_path):
    """RouterDC's JSON files, two prompts each: the first answered by both models, the second by none."""
    folder = tmp_path / "published"
    folder.mkdir()
    for tasks in ROUTERDC_TASKS.values():
        for task, name in tasks.items():
            rows = [
                {"question": f"{task} {n}", "scores": dict.fromkeys(MODELS, 0.3 if n == 0 else 0)} for n in range(2)
            ]
            (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def test_routerdc_is_read_as_published_and_as_collected(published, tmp_path):
    train, test, ood = parts = read_routerdc(published)
    assert [len(part.prompts) for part in parts] == [10, 10, 8] and train.models == ("org/A", "org/B")
    score = test.quality["org/A"].groupby(test.prompts["task"]).max()
    assert score["mmlu"] == 1.0 and score["gsm8k"] == 0.3  # right where the score is above 0; a share of attempts
    folder = tmp_path / "collected"
    folder.mkdir()
    raw = {part: sorted(tasks) for part, tasks in ROUTERDC_TASKS.items()}
    for part, tasks in raw.items():
        rows = [(f"{task} {n}", task, part, 0.3 * (1 - n), 0.3 * (1 - n)) for task in tasks for n in range(2)]
        columns = ["prompt", "task", "split", *MODELS]
        pd.DataFrame(rows, columns=columns).to_csv(folder / f"{part}.csv.gz", index=False)
    again = read_routerdc(folder)[2]
    assert sorted(again.prompts["prompt"]) == sorted(ood.prompts["prompt"])
    assert again.quality.to_numpy().sum() == pytest.approx(ood.quality.to_numpy().sum())
    (published / "mmlu_test.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"mmlu_test\.json"):
        read_routerdc(published)


def test_routerarena_keeps_the_queries_that_both_models_answered(tmp_path):
    rows = [(n, f"q{n}", model, 1.0 * (model == "x"), 0.1) for n in range(4) for model in ("x", "y")]
    rows = [row for row in rows if row[:3] != (3, "q3", "y")] + [(0, "q0", "rare", 1.0, 0.1)]
    table = pd.DataFrame(rows, columns=["global_index", "prompt", "model", "score", "cost_usd"])
    table.to_csv(tmp_path / "scores.csv", index=False)
    found = read_routerarena(tmp_path / "scores.csv")
    assert found.models == ("x", "y") and found.prompts["prompt"].tolist() == ["q0", "q1", "q2"]
    assert found.quality["x"].tolist() == [1.0] * 3 and found.cost_usd["y"].tolist() == [0.1] * 3


@pytest.mark.skipif("ROUTING_DATA" not in os.environ, reason="needs the real data")
def test_the_single_models_of_routerdc_have_the_published_accuracy():
    train, test, ood = read_routerdc()
    assert [len(part.prompts) for part in (train, test, ood)] == [5_935, 9_408, 2_881]
    by_task = 100 * test.quality.groupby(test.prompts["task"]).mean()
    assert by_task.max(axis=1).round(2).to_dict() == {
        "mmlu": 64.59, "gsm8k": 69.81, "cmmlu": 51.77, "arc_challenge": 57.95, "humaneval": 49.39,
    }  # fmt: skip
    assert by_task.mean().idxmax() == "cognitivecomputations/dolphin-2.9-llama3-8b"
    assert by_task.mean().max() == pytest.approx(54.56, abs=0.005)
    arena = read_routerarena()
    assert len(arena.prompts) == 809 and arena.quality.mean().round(4).tolist() == [0.5234, 0.6901]
