"""The paper's own files, in the published formats: columns, rows, prompts too short to be embedded, and damage."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from routing.data import paper

pytest.importorskip("pyarrow")


def battles(numbers):
    prompts = {0: ["What is the capital of Australia?", "And of Austria?"], 1: ["Short"], 2: [None]}
    return pd.DataFrame(
        [
            {"id": f"q{n}", "model_a": "gpt-4-1106-preview", "model_b": "mixtral-8x7b-instruct-v0.1"}
            | {"prompt": json.dumps(prompts.get(n, [f"Is question {n} a long one?"]))}
            | {"response_a": "[]", "response_b": "[]"}
            | {"winner_model_a": int(n % 3 == 0), "winner_model_b": int(n % 3 == 1), "winner_tie": int(n % 3 == 2)}
            for n in numbers
        ]
    )


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The judge's battles as ROUTING_DATA has them, in eleven parts: 10 comes after 9."""
    folder = tmp_path / "gpt4_judge_battles"
    folder.mkdir()
    for part in range(11):
        battles([2 * part, 2 * part + 1]).to_parquet(folder / f"{part}.parquet")
    monkeypatch.setenv("ROUTING_DATA", str(tmp_path))
    monkeypatch.setattr(paper, "JUDGE_ROWS", 22)
    return tmp_path


def test_the_judges_battles(data):
    table = paper.read_gpt4_judge_battles()
    assert table["id"].tolist() == [f"q{n}" for n in range(22) if n not in (1, 2)]
    assert list(table) == ["prompt", "model_a", "model_b", "winner", "id"]
    assert table["prompt"][0] == "What is the capital of Australia?"
    assert table["winner"].tolist()[:3] == ["model_a", "model_a", "model_b"]
    everything = paper.read_gpt4_judge_battles(min_prompt_characters=0)
    assert len(everything) == 22 and everything["prompt"][1:3].tolist() == ["Short", ""]
    assert len(paper.read_gpt4_judge_battles(data / "gpt4_judge_battles" / "0.parquet", 0)) == 22


def test_a_part_that_is_missing_or_damaged_is_named(data, monkeypatch):
    folder = data / "gpt4_judge_battles"
    (folder / "10.parquet").unlink()
    with pytest.raises(ValueError, match="gpt4_judge_battles: has 20 of the judge's 22 battles"):
        paper.read_gpt4_judge_battles()
    (folder / "3.parquet").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="3.parquet: cannot be read as Parquet"):
        paper.read_gpt4_judge_battles()
    battles([1]).drop(columns="prompt").to_parquet(folder / "3.parquet")
    with pytest.raises(ValueError, match="3.parquet: lacks prompt"):
        paper.read_gpt4_judge_battles()
    with pytest.raises(FileNotFoundError, match="no .parquet file"):
        paper.read_gpt4_judge_battles(data)


def write_embeddings(data, vectors, name="gpt4_judge_battles_embeddings"):
    (data / name).mkdir(exist_ok=True)
    pd.DataFrame({"embeddings": list(vectors)}).to_parquet(data / name / "0.parquet")
    return name


def test_published_embeddings_belong_to_the_prompts_that_are_long_enough(data):
    prompts = paper.read_gpt4_judge_battles(min_prompt_characters=0)["prompt"].tolist()
    prompts[5] = " " * 20 + "short"
    vectors = np.random.default_rng(0).normal(size=(19, 1_536)).astype(np.float32)
    name = write_embeddings(data, vectors)
    embedded, read = paper.read_published_embeddings(name, prompts)
    assert np.flatnonzero(~embedded).tolist() == [1, 2, 5]
    assert read.dtype == np.float32 and np.array_equal(read, vectors)


@pytest.mark.parametrize("vectors", [np.ones((18, 1_536)), np.ones((20, 1_535)), [np.ones(1_536)] * 19 + [np.ones(3)]])
def test_embeddings_that_do_not_fit_the_prompts(data, vectors):
    prompts = paper.read_gpt4_judge_battles(min_prompt_characters=0)["prompt"].tolist()
    with pytest.raises(ValueError, match="20 vectors of 1,536 numbers"):
        paper.read_published_embeddings(write_embeddings(data, vectors), prompts)
    with pytest.raises(ValueError, match="arena_battles_embeddings, gpt4_judge"):
        paper.read_published_embeddings("others", prompts)
