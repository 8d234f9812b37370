from __future__ import annotations

import os

import pytest

from routing.studies.many_models.tasks import load_tasks


def test_tasks_are_simulated_for_smoke_and_never_instead_of_real_ones(tmp_path, monkeypatch):
    tasks, inputs = load_tasks("smoke", 0)
    task = tasks["simulated"]
    assert list(task.train.quality) == list(task.test.quality) and task.test.cost_usd is not None and inputs
    assert not set(task.train.prompts["prompt"]) & set(task.test.prompts["prompt"])
    monkeypatch.setenv("ROUTING_DATA", str(tmp_path))
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match="routerbench"):
        load_tasks("full", 0)
    with pytest.raises(ValueError, match="profile is 'all'"):
        load_tasks("all", 0)


@pytest.mark.skipif("ROUTING_DATA" not in os.environ, reason="no real data")
def test_real_tasks_are_split_as_published():
    tasks, _ = load_tasks("full", 0)
    sizes = {name: (len(task.train.prompts), len(task.test.prompts)) for name, task in tasks.items()}
    assert sizes == {"ARC-Challenge": (1019, 437), "MBPP": (299, 128), "LLMRouter": (5608, 500)}
    assert tasks["LLMRouter"].test.quality.mean().max() == pytest.approx(0.5626, abs=5e-5)
    assert tasks["LLMRouter"].test.quality.max(axis=1).mean() == pytest.approx(0.7434, abs=5e-5)
    assert tasks["ARC-Challenge"].test.prompts["prompt"].str.len().max() < 1200  # no worked examples
