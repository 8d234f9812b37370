"""Profile ``paper`` step by step on small files in the published formats: its own could not be downloaded here."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from routing.__main__ import main
from routing.battles import count_pairs
from routing.data import paper, sources, votes
from routing.files import hash_file
from routing.routers.base import BradleyTerryRouter
from routing.routers.factorization import MatrixFactorizationRouter
from routing.runner.estimate import BATTLES, estimate_run
from routing.studies import classifiers
from routing.studies.inputs import PAIR, load_study, training_sets
from routing.upstream import collection
from tests.runner.test_run import write_notebook

pytest.importorskip("pyarrow")
N_ARENA, N_JUDGE = 60, 40
OWN_NAMES = ["gpt-4-1106-preview", "mistralai/Mixtral-8x7B-Instruct-v0.1"]


def arena_format(n, kind):
    """Make battles with the columns of lmsys-arena-human-preference-55k, every fifth prompt too short."""
    rng = np.random.default_rng(n)
    models = [*PAIR, "third"]
    rows = []
    for number in range(n):
        a, b = rng.choice(3, 2, replace=False)
        won = rng.integers(3)
        prompt = ["short" if number % 5 == 0 else f"Question {number} of the {kind} is long", "And then?"]
        row = {"id": number, "model_a": models[a], "model_b": models[b], "prompt": json.dumps(prompt)}
        row |= {"response_a": '["x"]', "response_b": "[null]"}
        rows.append(row | {mark: int(place == won) for place, mark in enumerate(votes.ARENA_MARKS.values())})
    return pd.DataFrame(rows)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder of published files for ROUTING_DATA, and the paper's battles asked for."""
    judged = [
        {"judge": ["gpt-4", "single-v1"], "model": model, "question_id": question, "turn": turn, "score": score}
        for question in (81, 82)
        for turn in (1, 2)
        for model, score in zip(OWN_NAMES, (9, 7), strict=True)
    ]
    asked = [
        {"question_id": question, "category": "writing", "turns": [f"Write {question}.", "?"]} for question in (81, 82)
    ]
    right = (
        "prompt," + ",".join(OWN_NAMES) + "\n" + "".join(f'"Question {n}\nA. 1",True,{n % 2 == 0}\n' for n in range(9))
    )
    lines = {
        name: "".join(json.dumps(row) + "\n" for row in rows) for name, rows in (("judged", judged), ("asked", asked))
    }
    files = {"mt_bench/judgements.jsonl": lines["judged"], "mt_bench/question.jsonl": lines["asked"]}
    files |= {"mmlu/responses/mmlu_x.csv": right, "gsm8k/gsm8k_responses.csv": right}
    files |= {
        f"{name}/contaminated_prompts.jsonl": '{"eval_prompt": "none"}\n' for name in ("mt_bench", "mmlu", "gsm8k")
    }
    rows = []
    for path, content in files.items():
        file = tmp_path / "routellm" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        rows.append(("routellm", "o/r", "c", f"routellm/evals/{path}", file.stat().st_size, hash_file(file)))
    registry = pd.DataFrame(rows, columns=["dataset", "repository", "commit", "path", "bytes", "sha256"])
    monkeypatch.setattr(sources, "registry", lambda: registry)
    (tmp_path / "arena55k").mkdir()
    arena_format(N_ARENA, "arena").to_csv(tmp_path / "arena55k" / "train.csv", index=False)
    (tmp_path / "gpt4_judge_battles").mkdir()
    judge = arena_format(N_JUDGE, "judge")
    judge[:25].to_parquet(tmp_path / "gpt4_judge_battles" / "0.parquet")
    judge[25:].to_parquet(tmp_path / "gpt4_judge_battles" / "1.parquet")
    monkeypatch.setattr(votes, "ARENA55K_ROWS", N_ARENA)
    monkeypatch.setattr(paper, "JUDGE_ROWS", N_JUDGE)
    monkeypatch.setenv("ROUTING_DATA", str(tmp_path))
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ROUTING_BATTLES", "paper")
    return tmp_path


def test_study_and_training_sets_take_all_battles_and_the_judges(data):
    study = load_study("full", 0)
    assert len(study.battles) + len(study.held_out) == N_ARENA * 4 // 5
    assert study.inputs["arena55k_whole"] == data / "arena55k" / "train.csv"
    sets = training_sets(study, 0)
    sizes = {name: len(table) for name, table in sets.battles.items()}
    assert sizes["arena+judge"] - sizes["arena"] == N_JUDGE * 4 // 5
    assert sets.inputs["gpt4_judge_battles"] == data / "gpt4_judge_battles" / "0.parquet"
    judged = sets.battles["arena+judge"]["prompt"].str.contains("judge")
    assert judged.sum() == N_JUDGE * 4 // 5 and count_pairs(sets.battles["all"]).models == (*sorted(PAIR), "third")


def test_routers_learn_from_the_published_embeddings(data):
    battles = votes.read_arena55k(whole=True, min_prompt_characters=0)
    n_long = N_ARENA * 4 // 5
    vectors = np.random.default_rng(0).normal(size=(n_long, paper.EMBEDDING_WIDTH)).astype(np.float32)
    (data / "arena_battles_embeddings").mkdir()
    pd.DataFrame({"embeddings": list(vectors)}).to_parquet(data / "arena_battles_embeddings" / "0.parquet")
    embedded, read = paper.read_published_embeddings("arena_battles_embeddings", battles["prompt"])
    battles = battles[embedded].reset_index(drop=True)
    assert len(battles) == n_long and battles["prompt"].equals(votes.read_arena55k(whole=True)["prompt"])
    router = MatrixFactorizationRouter(n_epochs=1).fit(battles, read)
    assert router.ratings(read[:3]).shape == (3, 3)
    assert BradleyTerryRouter(prior_strength=1.0).fit(battles).models == router.models


def test_a_part_of_the_battles_is_not_taken_for_all(data, monkeypatch):
    monkeypatch.setattr(votes, "ARENA55K_ROWS", N_ARENA + 1)
    with pytest.raises(ValueError, match="train.csv.* 60 of the 61 battles"):
        load_study("full", 0)
    (data / "arena55k" / "train.csv").rename(data / "arena55k" / "other.csv")
    with pytest.raises(FileNotFoundError, match="data fetch arena55k_whole"):
        load_study("full", 0)
    monkeypatch.setenv("ROUTING_BATTLES", "all")
    with pytest.raises(ValueError, match="ROUTING_BATTLES is 'all'; use results or paper"):
        load_study("full", 0)


@pytest.mark.parametrize("there", [True, False])
def test_the_causal_llm_is_llama_where_an_accelerator_is(data, monkeypatch, there):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: there)
    router = classifiers.make_classifier("causal_llm", "full", 0)
    assert (router.name == "meta-llama/Meta-Llama-3-8B") == there == (router.lora_rank > 0)
    assert classifiers.make_classifier("bert", "full", 0).name != "meta-llama/Meta-Llama-3-8B"
    assert classifiers.make_classifier("causal_llm", "full", 0, train="head").lora_rank == 0
    monkeypatch.setenv("ROUTING_BATTLES", "results")
    assert classifiers.make_classifier("causal_llm", "full", 0).lora_rank == 0


def test_the_runner_gives_the_notebooks_of_full_the_paper_s_battles(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROUTING_BATTLES", raising=False)
    write_notebook(
        tmp_path / "notebooks" / "01_a.ipynb", "import os\nassert profile == 'full'\nos.environ['ROUTING_BATTLES']"
    )
    assert main(["run", "--profile", "paper"]) == 0
    assert "'paper'" in (tmp_path / "runs" / "paper" / "01_a.ipynb").read_text()
    assert json.loads((tmp_path / "runs" / "paper" / "manifest.json").read_text())["profile"] == "paper"


def test_a_dry_run_lists_downloads_minutes_and_dollars(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROUTING_DATA", raising=False)
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path / "cache"))
    write_notebook(tmp_path / "notebooks" / "01_a.ipynb", "1 / 0")
    assert main(["run", "--profile", "paper", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    plan = collection.plan([*paper.DATASETS, *paper.EMBEDDINGS])
    assert all(address in printed for address in plan["address"])
    assert (
        "Llama 3 8B" in printed
        and "dollars a million" in printed
        and f"{plan['bytes'].sum() + 16_060_000_000:,}" in printed
    )
    assert main(["run", "--profile", "smoke", "--dry-run"]) == 0 and not (tmp_path / "runs").exists()


def test_minutes_are_those_of_earlier_runs_and_grow_with_the_battles(tmp_path):
    for name, inputs in (("03_a", ["arena55k", "gsm8k"]), ("01_b", {"votes": {}})):
        (tmp_path / name).mkdir()
        entries = [{"name": entry} for entry in inputs] if isinstance(inputs, list) else inputs
        (tmp_path / name / "manifest.json").write_text(json.dumps({"seconds": 120.0, "inputs": entries}))
    names = ["03_a", "01_b", "02_c"]
    assert estimate_run("full", names, tmp_path)["minutes"].fillna(-1).tolist() == [2, 2, -1]
    table = estimate_run("paper", names, tmp_path)
    ratio = BATTLES["paper"] / BATTLES["full"]
    assert table["minutes"].fillna(-1).tolist()[:3] == [2 * ratio, 2, -1]
    assert (table["usd"] > 0).tolist() == [False] * 3 + [True, True] and table["how"].str.len().min() > 0
    assert estimate_run("quick", names, tmp_path)["minutes"].isna().all()
