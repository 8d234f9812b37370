"""Every reader on small files in the published form, on faulty ones, and on the real data against known figures."""

from __future__ import annotations

import gzip
import hashlib
import json
import os

import numpy as np
import pandas as pd
import pytest

from routing.battles import count_pairs
from routing.data import benchmarks as benchmark_tables
from routing.data import sources
from routing.data import votes as readers

needs_data = pytest.mark.skipif(not os.environ.get("ROUTING_DATA"), reason="ROUTING_DATA is not set")
CORE = ["model_a", "model_b", "winner"]


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_csv(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def rows(table, columns=CORE):
    return [tuple(row) for row in table[list(columns)].itertuples(index=False)]


# ---------------------------------------------------------------------------------------------------------- votes
VOTES = {"models": ["x", "y", "z"], "X": [[0, 1], [2, 1]], "Y": [[5, 3, 2, 1], [7, 0, 0, 4]]}


def test_arena_votes(tmp_path):
    path = write_json(tmp_path / "votes.json", VOTES)
    counts = readers.read_arena_votes(path)
    assert counts.models == ("x", "y", "z")
    np.testing.assert_array_equal(counts.wins, [[0, 5, 0], [3, 0, 0], [0, 7, 0]])
    np.testing.assert_array_equal(counts.ties, [[0, 3, 0], [3, 0, 4], [0, 4, 0]])
    assert counts.n_battles == np.sum(VOTES["Y"])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"X": [[0, 1]]}, r"votes.json: X has shape \(1, 2\) and Y \(2, 4\)"),
        ({"X": [[0, 1], [3, 1]]}, "votes.json: X names models 0 to 3 of 3"),
        ({"X": [[0, 1], [1, 1]]}, "votes.json: pair counts: wins has battles of y against itself"),
    ],
)
def test_arena_votes_at_fault(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        readers.read_arena_votes(write_json(tmp_path / "votes.json", VOTES | change))


def test_the_published_arena55k_gives_the_battles_of_the_results(tmp_path, monkeypatch):
    """Of ``train.csv`` as published, with both responses, `full` reads a listed part and `paper` every battle."""
    battles = [
        {"id": number, "model_a": "x", "model_b": "y", "prompt": f'["What is question {number} about?", null]'}
        | {"response_a": '["a, \\"b\\"\\nc"]', "response_b": "[null]"}
        | {"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}
        for number in (30192, 53567, 65089, 96401)
    ]
    (tmp_path / "arena55k").mkdir()
    pd.DataFrame(battles).to_csv(tmp_path / "arena55k" / "train.csv", index=False)
    monkeypatch.setenv("ROUTING_DATA", str(tmp_path))
    monkeypatch.setattr(readers, "arena55k_ids", lambda: (53567, 96401))
    assert readers.read_arena55k()["id"].tolist() == [53567, 96401]
    with pytest.raises(ValueError, match="train.csv.* 4 of the 57,477"):
        readers.read_arena55k(whole=True)
    monkeypatch.setattr(readers, "ARENA55K_ROWS", 4)
    whole = readers.read_arena55k(whole=True)
    assert whole["id"].tolist() == [battle["id"] for battle in battles] and set(whole["winner"]) == {"model_b"}
    assert list(whole) == ["prompt", "model_a", "model_b", "winner", "id"]
    monkeypatch.setattr(readers, "arena55k_ids", lambda: (53567, 7))
    with pytest.raises(ValueError, match="train.csv.* 1 of the 2"):
        readers.read_arena55k()


def test_ids_of_the_results():
    ids = readers.arena55k_ids()
    assert len(ids) == len(set(ids)) == 9_998 and list(ids) == sorted(ids)
    assert all(number % 11 for number in ids)


@needs_data
def test_real_ids_of_the_results():
    table = pd.read_csv(sources.find_files("arena55k")[0])
    listed = set(readers.arena55k_ids())
    assert listed <= set(table["id"]) and (len(table) > len(listed) or listed == set(table["id"]))


@needs_data
def test_real_arena_votes():
    counts = readers.read_arena_votes()
    assert (counts.n_battles, len(counts.models)) == (1_670_250, 129)


# -------------------------------------------------------------------------------------------------------- battles
def test_clean_battles(tmp_path):
    vote = {"model_a": "x", "model_b": "y", "winner": "model_a", "anony": True, "language": "English", "tstamp": 1.5}
    sampled, repeated = ({"high_freq": True, "sampled": s} for s in (True, False))
    records = [
        vote,
        vote | {"winner": "tie", "dedup_tag": sampled},
        vote | {"winner": "tie (bothbad)", "language": "German"},
        vote | {"winner": "model_b", "dedup_tag": repeated},
        vote | {"winner": "model_b", "anony": False},
        vote | {"winner": "model_b", "model_b": "x"},
    ]
    path = write_json(tmp_path / "clean_battle.json", records)
    assert rows(readers.read_clean_battles(path), ["winner", "language", "tstamp"]) == [
        ("model_a", "English", 1.5),
        ("tie", "English", 1.5),
        ("tie", "German", 1.5),
    ]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_clean_battles_are_read_in_pieces(tmp_path, size):
    records = [{"model_a": "x [1], ]", "nested": {"list": [1, {"a": "}"}]}}, {"model_a": "é"}]
    for indent in (None, 4):
        path = tmp_path / "votes.json"
        path.write_text(json.dumps(records, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
        assert list(readers.clean_battle_records(path, size)) == records
    path.write_text("[]")
    assert list(readers.clean_battle_records(path, size)) == []
    path.write_text(json.dumps(records)[:-3])
    with pytest.raises(ValueError, match="votes.json.*record 1"):
        list(readers.clean_battle_records(path, size))


def test_clean_battles_are_checked_by_their_counts(tmp_path):
    vote = {"model_a": "x", "model_b": "y", "winner": "tie", "anony": True, "language": "English", "tstamp": 1.5}
    path = write_json(tmp_path / "clean_battle.json", [vote, vote | {"winner": "model_a"}, vote | {"anony": False}])
    counts = count_pairs(readers.read_clean_battles(path))
    assert "3 votes" in readers.check_clean_battles(path, counts, (3, 2))
    other = count_pairs(pd.DataFrame([vote, vote]))
    for wrong, rows in ((counts, (3, 3)), (counts, (2, 2)), (other, (3, 2))):
        with pytest.raises(ValueError, match=r"clean_battle.json.*\(3, 2\)"):
            readers.check_clean_battles(path, wrong, rows)


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_arena55k(tmp_path, suffix):
    prompts = [
        '["What is a monad, in one line?", "And in two?"]',
        '["short"]',
        "[null, null]",
        r'["half a surrogate pair: \ud83d"]',
        r'["a whole surrogate pair: \ud83d\ude00"]',
    ]
    path = write_csv(
        tmp_path / f"train.{suffix}",
        id=range(5),
        model_a=["x", "x", "x", "y", "mistralai/Mixtral-8x7B-Instruct-v0.1"],
        model_b=["y", "y", "y", "x", "x"],
        prompt=prompts,
        response_a="[]",
        winner_model_a=[1, 1, 1, 0, 0],
        winner_model_b=[0, 0, 0, 1, 0],
        winner_tie=[0, 0, 0, 0, 1],
    )
    assert rows(readers.read_arena55k(path), ["prompt", *CORE, "id"]) == [
        ("What is a monad, in one line?", "x", "y", "model_a", 0),
        ("half a surrogate pair: \ufffd", "y", "x", "model_b", 3),
        ("a whole surrogate pair: \U0001f600", "mixtral-8x7b-instruct-v0.1", "x", "tie", 4),
    ]
    assert readers.read_arena55k(path, min_prompt_characters=0)["prompt"].tolist()[1:3] == ["short", ""]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"winner_tie": [1, 1]}, "train.csv, row 0: not exactly one of winner_model_a, winner_tie, winner_model_b is"),
        ({"prompt": ['["fine enough a prompt"]', "no list"]}, "train.csv, row 1, column prompt: not a JSON list"),
        ({"prompt": ["[]", "[]"]}, "train.csv, row 0, column prompt: not a JSON list"),
        ({"winner_tie": None}, "train.csv: lacks winner_tie; it has id, model_a"),
        ({"model_a": ["", "x"]}, "train.csv: battle table, row 0, column model_a: no model name"),
    ],
)
def test_arena55k_at_fault(tmp_path, change, message):
    columns = {
        "id": [1, 2],
        "model_a": ["x", "x"],
        "model_b": ["y", "y"],
        "prompt": ['["fine enough a prompt"]'] * 2,
        "winner_model_a": [1, 0],
        "winner_model_b": [0, 0],
        "winner_tie": [0, 1],
    } | change
    path = write_csv(tmp_path / "train.csv", **{name: cells for name, cells in columns.items() if cells is not None})
    with pytest.raises(ValueError, match=message):
        readers.read_arena55k(path)


def test_arena140k(tmp_path):
    path = write_csv(
        tmp_path / "battles.csv.gz",
        id=list("stuv"),
        model_a=["x", "x", "x", "y"],
        model_b=["y", "y", "y", "y"],
        winner=["model_b", "both_bad", "tie", "model_a"],
    )
    table = readers.read_arena140k(path)
    assert rows(table, [*CORE, "id"]) == [("x", "y", "model_b", "s"), ("x", "y", "tie", "t"), ("x", "y", "tie", "u")]


@needs_data
def test_real_arena_battles():
    everything = readers.read_arena55k(min_prompt_characters=0)
    shares = everything["winner"].value_counts(normalize=True)
    assert len(everything) == 9_998 and everything["model_a"].nunique() == 64
    np.testing.assert_allclose(shares[["model_a", "model_b", "tie"]] * 100, [35.36, 34.97, 29.68], atol=0.005)
    assert readers.read_arena55k()["prompt"].str.len().min() == 16
    newer = readers.read_arena140k()
    assert len(newer) == 135_634 - 10  # ten battles of a model against itself


# --------------------------------------------------------------------------------------------------------- judges
JUDGES = {  # published file: column of the collected table
    "human": "human",
    "gpt-4-0125-preview": "gpt_4_0125_preview",
    "gpt-3.5-turbo": "gpt_3_5_turbo",
    "claude-3-opus-20240229": "claude_3_opus",
}


def write_judges_as_published(collected, folder):
    for judge, column in JUDGES.items():
        keys = ["num", "question_id", "model_a", "model_b", "winner"]
        if judge != "human":
            keys = ["num", "model_a", "model_b", "winner", "question_id"]
        table = collected.assign(winner=collected[column])[keys]
        write_lines(folder / "data" / f"{judge}.json", table.astype(object).to_dict("records"))


def test_human_and_judges_in_both_forms(tmp_path):
    collected = pd.DataFrame(
        {
            "num": [3, 5],
            "question_id": ["p", "q"],
            "model_a": ["x", "y"],
            "model_b": ["y", "x"],
            "human": ["model_a", "tie (bothbad)"],
            "gpt_4_0125_preview": ["model_b", "tie"],
            "gpt_3_5_turbo": ["model_a", "model_a"],
            "claude_3_opus": ["model_b", "model_b"],
        }
    )
    collected.to_csv(tmp_path / "collected.csv.gz", index=False)
    write_judges_as_published(collected, tmp_path / "published")
    table = readers.read_human_and_judges(tmp_path / "collected.csv.gz")
    pd.testing.assert_frame_equal(table, readers.read_human_and_judges(tmp_path / "published"))
    assert rows(table, [*CORE, "judge", "num"])[:3] == [
        ("x", "y", "model_a", "human", 3),
        ("y", "x", "tie", "human", 5),
        ("x", "y", "model_b", "gpt-4-0125-preview", 3),
    ]
    (tmp_path / "published" / "data" / "gpt-3.5-turbo.json").unlink()
    with pytest.raises(FileNotFoundError, match="no gpt-3.5-turbo.json among 3 file"):
        readers.read_human_and_judges(tmp_path / "published")


@needs_data
def test_real_judges_are_the_published_bytes(tmp_path):
    (path,) = [file for file in sources.find_files("judges") if file.name.startswith("human_vs")] or [None]
    if path is None:
        pytest.skip("ROUTING_DATA has the published files, not the collected table")
    write_judges_as_published(pd.read_csv(path), tmp_path)
    for _, row in sources.published_files("judges").iterrows():
        assert hashlib.sha256((tmp_path / row["path"]).read_bytes()).hexdigest() == row["sha256"]
    table = readers.read_human_and_judges()
    pd.testing.assert_frame_equal(table, readers.read_human_and_judges(tmp_path))
    first = table["winner"].eq("model_a").groupby(table["judge"]).mean()
    assert len(table) == 4 * 26_919 and first["gpt-3.5-turbo"] == pytest.approx(0.861, abs=5e-4)


def llmbar_answers(unswapped, swapped):
    return {"swap = False": {"completion": [], "winner": unswapped}, "swap = True": {"winner": swapped}}


def test_llmbar_in_both_forms(tmp_path):
    folder = tmp_path / "Dataset" / "LLMBar"
    item = {"input": "", "output_1": "", "output_2": "", "label": 1}
    debate = [llmbar_answers("1", "2"), llmbar_answers("1", "1")]
    write_json(
        folder / "Natural" / "evaluators" / "GPT-4" / "Swap" / "result.json",
        [item | {"results": debate}, item | {"label": 2, "results": [llmbar_answers("2", None)]}],
    )
    write_json(
        folder / "Adversarial" / "GPTInst" / "evaluators" / "PaLM2" / "Metrics" / "result.json",
        [
            item | {"results": [["1. Is the output ...", "stop"], llmbar_answers("2", "error")]},
            item | {"results": [llmbar_answers("3", "1")]},
        ],
    )
    write_json(folder / "Natural" / "dataset.json", [item])
    table = readers.read_llmbar(folder)
    assert rows(table, table.columns) == [
        ("Adversarial/GPTInst", "PaLM2", "Metrics", 0, 0, 1, 2, pd.NA),
        ("Adversarial/GPTInst", "PaLM2", "Metrics", 1, 0, 1, pd.NA, 1),
        ("Natural", "GPT-4", "Swap", 0, 0, 1, 1, 2),
        ("Natural", "GPT-4", "Swap", 0, 1, 1, 1, 1),
        ("Natural", "GPT-4", "Swap", 1, 0, 2, 2, pd.NA),
    ]
    table.drop(columns="round").to_csv(tmp_path / "collected.csv.gz", index=False)
    pd.testing.assert_frame_equal(table, readers.read_llmbar(tmp_path / "collected.csv.gz"))


def test_llmbar_is_read_from_within_its_folder(tmp_path, monkeypatch):
    folder = tmp_path / "Natural" / "evaluators" / "GPT-4" / "Swap"
    write_json(folder / "result.json", [{"label": 1, "results": [llmbar_answers("1", "2")]}])
    monkeypatch.chdir(folder)
    assert readers.read_llmbar("result.json")[["subset", "judge"]].iloc[0].tolist() == ["Natural", "GPT-4"]


@needs_data
def test_real_llmbar():
    table = readers.read_llmbar()
    plain = table[(table["judge"] == "GPT-4") & (table["protocol"] == "Vanilla")]
    assert len(table) == 29_374 and len(plain) == 419
    assert (plain["winner_unswapped"] == plain["winner_swapped"]).mean() == pytest.approx(0.928, abs=5e-4)
    assert not table.duplicated(["subset", "judge", "protocol", "item", "round"]).any()


def test_alpaca_eval_in_both_forms(tmp_path):
    def judgement(instruction, model, preference):
        return {
            "instruction": instruction,
            "output_1": "text",
            "generator_1": "gpt4_1106_preview",
            "generator_2": model,
            "annotator": "judge",
            "preference": preference,
        }

    results = tmp_path / "results"
    write_json(
        results / "other" / "judge" / "annotations.json",
        [judgement("p", "other", 1.49), judgement("NA", "other", 1.5), judgement("r", "other", None)],
    )
    write_json(
        results / "Mixtral-8x7B-Instruct-v0.1" / "judge" / "judge" / "annotations.json",
        [judgement("p", "Mixtral-8x7B-Instruct-v0.1", 1.51), judgement("q", "gpt4_1106_preview", 1.5)],
    )
    table = readers.read_alpaca_eval(results)
    assert rows(table, table.columns) == [
        ("p", "gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1", "model_b", 1.51, "judge")
        + ("Mixtral-8x7B-Instruct-v0.1",),
        ("p", "gpt-4-1106-preview", "other", "model_a", 1.49, "judge", "other"),
        ("NA", "gpt-4-1106-preview", "other", "tie", 1.5, "judge", "other"),
    ]
    names = {"prompt": "instruction", "model_a": "generator_1", "model_b": "generator_2"}
    table.drop(columns="winner").rename(columns=names).to_csv(tmp_path / "collected.csv.gz", index=False)
    pd.testing.assert_frame_equal(table, readers.read_alpaca_eval(tmp_path / "collected.csv.gz"))
    alone = readers.read_alpaca_eval(results / "other" / "judge" / "annotations.json")
    assert alone["directory"].tolist() == ["other", "other"]


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_alpaca_eval_counts_0_as_a_draw_and_refuses_what_is_no_preference(tmp_path, kind, monkeypatch):
    def write(*preferences):
        records = [
            {"instruction": "1984", "generator_1": "7", "generator_2": "y", "annotator": "j", "preference": preference}
            for preference in preferences
        ]
        if kind == "json":
            write_json(tmp_path / "annotations.json", records)
        else:
            pd.DataFrame(records).assign(directory="d").to_csv(tmp_path / "own.csv", index=False)

    monkeypatch.chdir(tmp_path)  # a file is found by its bare name
    name = "annotations.json" if kind == "json" else "own.csv"
    write(0, 1, 1.2, 1.5, None, 2)
    table = readers.read_alpaca_eval(name)
    assert table["winner"].tolist() == ["tie", "model_a", "model_a", "tie", "model_b"]
    assert table["preference"].tolist() == [0, 1, 1.2, 1.5, 2] and set(table["prompt"]) == {"1984"}
    for wrong in (0.5, 2.5, -1, "best"):
        write(1, wrong)
        with pytest.raises(ValueError, match=f"{name}, row 1, column preference: {wrong}"):
            readers.read_alpaca_eval(name)


@needs_data
def test_real_alpaca_eval():
    table = readers.read_alpaca_eval()
    # 64,390 rows, without one that lacks its preference and two files that compare the baseline with itself
    assert len(table) == 64_390 - 1 - 2 * 805
    assert (table["prompt"].nunique(), table["model_b"].nunique(), table["model_a"].unique().tolist()) == (
        805,
        68,
        ["gpt-4-1106-preview"],
    )


def test_mt_bench_judgements(tmp_path):
    columns = {"model": ["x", "y"], "question_id": [81, 82], "turn": [1, 2], "score": [7.5, -1]}
    collected = write_csv(
        tmp_path / "all.csv", repository="r", judge="gpt-4", reference="single-v1", public_model=True, **columns
    )
    table = readers.read_mt_bench_judgements(collected)
    assert rows(table, table.columns) == [("r", "gpt-4", "x", 81, 1, 7.5, True)]
    records = [r | {"judge": ["gpt-4", "single-v1"]} for r in pd.DataFrame(columns).astype(object).to_dict("records")]
    table = readers.read_mt_bench_judgements(write_lines(tmp_path / "gpt-4_single.jsonl", records))
    assert rows(table, table.columns) == [("gpt-4", "x", 81, 1, 7.5)]


@needs_data
def test_real_mt_bench_judgements():
    table = readers.read_mt_bench_judgements()
    assert len(table) == 7_851 and table["score"].between(0, 10).all()


# ----------------------------------------------------------------------------------------------------- benchmarks
MIXTRAL = "mistralai/Mixtral-8x7B-Instruct-v0.1"


def write_routellm(folder):
    for subject, prompts in (("anatomy", ["p", "q"]), ("law", ["q", "nan"])):
        write_csv(
            folder / "mmlu" / "responses" / f"mmlu_{subject}.csv",
            prompt=prompts,
            **{MIXTRAL: [True, False], "gpt-4-1106-preview": True},
        )
    write_csv(
        folder / "gsm8k" / "gsm8k_responses.csv",
        prompt=["p", "q"],
        **{MIXTRAL: [True, False], "gpt-4-1106-preview": [False, True], f"{MIXTRAL}_response": "text"},
    )
    questions = [{"question_id": i, "category": "math", "turns": [prompt, "more"]} for i, prompt in enumerate("qp")]
    write_lines(folder / "mt_bench" / "question.jsonl", questions)
    scores = [
        {"question_id": question, "model": model, "judge": ["gpt-4", ""], "turn": turn, "score": question + turn + plus}
        for question in (1, 0)
        for model, plus in (("x", 0), (MIXTRAL, 3))
        for turn in (2, 1)
    ]
    write_lines(folder / "mt_bench" / "judgements.jsonl", scores)
    for benchmark in ("mmlu", "gsm8k", "mt_bench"):
        write_lines(folder / benchmark / "contaminated_prompts.jsonl", [{"eval_prompt": "q", "train_prompt": "p"}])
    return scores


def test_routellm_benchmarks(tmp_path):
    write_routellm(tmp_path)
    whole = benchmark_tables.read_mmlu(decontaminate=False, path=tmp_path)
    assert rows(whole.prompts, ["prompt", "subject"]) == [
        ("p", "anatomy"),
        ("q", "anatomy"),
        ("q", "law"),
        ("nan", "law"),
    ]
    assert whole.models == ("mixtral-8x7b-instruct-v0.1", "gpt-4-1106-preview")
    assert whole.quality.to_numpy().tolist() == [[1, 1], [0, 1], [1, 1], [0, 1]]
    clean = benchmark_tables.read_mmlu(path=tmp_path)
    assert clean.prompts["prompt"].tolist() == ["p", "nan"] and clean.quality.to_numpy().tolist() == [[1, 1], [0, 1]]

    gsm8k = benchmark_tables.read_gsm8k(decontaminate=False, path=tmp_path)
    assert gsm8k.models == whole.models and gsm8k.quality.to_numpy().tolist() == [[1, 0], [0, 1]]
    assert benchmark_tables.read_gsm8k(path=tmp_path).prompts["prompt"].tolist() == ["p"]

    mt_bench = benchmark_tables.read_mt_bench(decontaminate=False, path=tmp_path)
    assert rows(mt_bench.prompts, ["prompt", "question_id", "category"]) == [("q", 0, "math"), ("p", 1, "math")]
    assert mt_bench.quality.to_dict("list") == {"mixtral-8x7b-instruct-v0.1": [4.5, 5.5], "x": [1.5, 2.5]}
    assert benchmark_tables.read_mt_bench(path=tmp_path).quality["x"].tolist() == [2.5]


def test_routellm_benchmarks_at_fault(tmp_path):
    scores = write_routellm(tmp_path)
    write_lines(tmp_path / "mt_bench" / "judgements.jsonl", scores[1:])
    with pytest.raises(ValueError, match="judgements.jsonl: no score for x at question 1, turn 2"):
        benchmark_tables.read_mt_bench(path=tmp_path)
    write_csv(tmp_path / "mmlu" / "responses" / "mmlu_law.csv", prompt=["p"], **{MIXTRAL: ["yes"]})
    with pytest.raises(ValueError, match="mmlu_law.csv: column mistralai.* holds 'yes'; expected True or False"):
        benchmark_tables.read_mmlu(path=tmp_path)
    write_csv(tmp_path / "mmlu" / "responses" / "mmlu_law.csv", prompt=["p"], **{MIXTRAL: [True]})
    with pytest.raises(ValueError, match="mmlu_law.csv: lacks gpt-4-1106-preview; it has mixtral-8x7b-instruct-v0.1"):
        benchmark_tables.read_mmlu(path=tmp_path)


@needs_data
def test_real_routellm_benchmarks():
    expected = {  # prompts, percent or score of gpt-4-1106-preview and of Mixtral [RouteLLM24]
        benchmark_tables.read_mmlu: (14_042, 14_037, 0.80587, 0.68091),
        benchmark_tables.read_gsm8k: (1_319, 1_307, 0.85769, 0.63734),
        benchmark_tables.read_mt_bench: (80, 72, 9.212, 8.281),
    }
    for read, (n_all, n_clean, strong, weak) in expected.items():
        table = read()
        assert (len(read(decontaminate=False).prompts), len(table.prompts)) == (n_all, n_clean)
        means = table.quality.mean()[["gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"]]
        np.testing.assert_allclose(means, [strong, weak], atol=5e-4 if n_all == 80 else 5e-6)


def routerbench_rows(names, prompts):
    return {
        "sample_id": names,
        "prompt": [repr(prompt) for prompt in prompts],
        "eval_name": "arc-challenge",
        "x": [1.0, 0.0],
        "vendor/y": [0.5, 1.0],
        "vendor/y|total_cost": [0.02, 0.04],
        "x|total_cost": [0.1, 0.3],
        "oracle_model_to_route_to": "x",
    }


def test_routerbench_in_both_forms(tmp_path):
    shots = "Example?\nA) it's\nAnswer:\nA\n\n"
    train = routerbench_rows(["a", "b"], [[shots + "First?\nAnswer:"], ["One.", "Two."]])
    test = routerbench_rows(["c", "d"], [["Third?"], ["Fourth?"]]) | {"x": [1.0, None]}
    published = tmp_path / "published"
    write_csv(published / "arc_challenge_train.csv", **train, **{"x|model_response": "text"})
    write_csv(published / "arc_challenge_test.csv", **test)
    collected = pd.concat([pd.DataFrame(train).assign(split="train"), pd.DataFrame(test).assign(split="test")])
    (tmp_path / "collected").mkdir()
    collected.to_csv(tmp_path / "collected" / "arc_challenge.csv.gz", index=False)

    table = benchmark_tables.read_routerbench("arc_challenge", published)
    assert rows(table.prompts, table.prompts.columns) == [
        (shots + "First?\nAnswer:", "First?\nAnswer:", "a", "train"),
        ("One.\nTwo.", "One.\nTwo.", "b", "train"),
        ("Third?", "Third?", "c", "test"),
    ]
    assert table.models == ("x", "vendor/y")
    assert table.quality.to_dict("list") == {"x": [1, 0, 1], "vendor/y": [0.5, 1, 0.5]}
    assert table.cost_usd.to_dict("list") == {"x": [0.1, 0.3, 0.1], "vendor/y": [0.02, 0.04, 0.02]}
    other = benchmark_tables.read_routerbench("arc_challenge", tmp_path / "collected")
    for kind in ("prompts", "quality", "cost_usd"):
        pd.testing.assert_frame_equal(getattr(table, kind), getattr(other, kind))

    with pytest.raises(ValueError, match="unknown benchmark hellaswag"):
        benchmark_tables.read_routerbench("hellaswag", published)
    with pytest.raises(FileNotFoundError, match=r"no mbpp.csv\* among 2 file"):
        benchmark_tables.read_routerbench("mbpp", published)
    write_csv(published / "mbpp_train.csv", **train | {"prompt": ["['a'", "[]"]})
    write_csv(published / "mbpp_test.csv", **test)
    with pytest.raises(ValueError, match="mbpp_train.csv, row 0, column prompt: not a list of strings"):
        benchmark_tables.read_routerbench("mbpp", published)


@needs_data
def test_real_routerbench():
    sizes = {"arc_challenge": 1_484 - 28, "mbpp": 427}
    for name, n_prompts in sizes.items():
        table = benchmark_tables.read_routerbench(name)
        assert table.quality.shape == table.cost_usd.shape == (n_prompts, 11)
        assert table.prompts["sample_id"].is_unique and set(table.prompts["split"]) == {"train", "test"}
    assert benchmark_tables.read_routerbench("arc_challenge").prompts["question"].str.len().max() < 1_100


def test_llmrouter_in_both_forms(tmp_path):
    published, collected = tmp_path / "published", tmp_path / "collected"
    train = [{"question": "p", "scores": {"y": 1.0, "x": 0.5}, "cluster_id": 2}]
    write_json(published / "train.json", train)
    write_json(published / "test.json", [{"question": "q", "scores": {"x": 0.25, "y": 0}}])
    write_csv(collected / "train.csv.gz", question=["p"], task=[2], y=[1.0], x=[0.5])
    write_csv(collected / "test.csv.gz", question=["q"], task=[None], x=[0.25], y=[0.0])
    for folder in (published, collected):
        train_part, test_part = benchmark_tables.read_llmrouter(folder)
        assert train_part.models == test_part.models == ("x", "y")
        assert train_part.quality.to_numpy().tolist() == [[0.5, 1]] and train_part.prompts["cluster"].tolist() == [2]
        assert test_part.quality.to_numpy().tolist() == [[0.25, 0]] and test_part.prompts["prompt"].tolist() == ["q"]
        assert test_part.prompts["cluster"].isna().all()
    write_json(published / "test.json", [{"question": "q", "scores": {"x": 0.25, "z": 0}}])
    with pytest.raises(ValueError, match="test.json: lacks y; it has x, z"):
        benchmark_tables.read_llmrouter(published)
    write_json(published / "train.json", train + [{"question": "q", "scores": {"y": 1.0}}])
    with pytest.raises(ValueError, match="quality of x in row 1 is missing"):
        benchmark_tables.read_llmrouter(published)


@needs_data
def test_real_llmrouter():
    train, test = benchmark_tables.read_llmrouter()
    assert train.quality.shape == (5_608, 9) and test.quality.shape == (500, 9) and train.models == test.models
    for part in (train, test):
        assert part.quality.to_numpy().min() >= 0 and part.quality.to_numpy().max() <= 1
    assert train.quality["gemma-2-9b-it"].mean() == pytest.approx(0.53466, abs=5e-6)
    assert test.quality["gemma-2-9b-it"].mean() == pytest.approx(0.44998, abs=5e-6)


@pytest.mark.parametrize(
    "prompts, quality, cost_usd, message",
    [
        ({"text": ["p"]}, {"x": [1.0]}, None, "no column prompt, only text"),
        ({"prompt": ["p", "q"]}, {"x": [1.0]}, None, "quality has other rows or models"),
        ({"prompt": ["p"]}, {"x": [1.0]}, {"y": [1.0]}, "cost_usd has other rows or models"),
        ({"prompt": ["p", "q"]}, {"x": [1.0, 0]}, {"x": [1.0, np.nan]}, "cost_usd of x in row 1 is missing"),
    ],
)
def test_benchmark_table_at_fault(prompts, quality, cost_usd, message):
    with pytest.raises(ValueError, match=message):
        benchmark_tables.BenchmarkTable(
            pd.DataFrame(prompts), pd.DataFrame(quality), None if cost_usd is None else pd.DataFrame(cost_usd)
        )


def test_benchmark_table_refuses_a_model_named_twice():
    with pytest.raises(ValueError, match="a model is named twice: x, x"):
        benchmark_tables.BenchmarkTable(pd.DataFrame({"prompt": ["p"]}), pd.DataFrame([[1.0, 2.0]], columns=["x", "x"]))


def test_benchmark_table_selects_its_three_tables_alike():
    table = benchmark_tables.BenchmarkTable(
        pd.DataFrame({"prompt": list("pqr")}), pd.DataFrame({"x": [1.0, 2, 3]}), pd.DataFrame({"x": [4.0, 5, 6]})
    )
    part = table.select([True, False, True])
    assert (part.prompts["prompt"].tolist(), part.quality["x"].tolist()) == (["p", "r"], [1, 3])
    assert part.cost_usd["x"].tolist() == [4, 6] and part.quality.index.tolist() == [0, 1]


# ------------------------------------------------------------------------------------------------- damaged files
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[:12] + b"~" * 20 + data[32:], lambda _: b""]
)
def test_damaged_gzip_names_the_file(tmp_path, damage):
    path = tmp_path / "train.csv.gz"
    whole = gzip.compress(b"id,model_a\n" + bytes(range(48, 91)) * 40)
    path.write_bytes(damage(whole))
    with pytest.raises(ValueError, match="train.csv.gz: cannot be read as CSV"):
        readers.read_arena55k(path)


@pytest.mark.parametrize(
    "read, content, message",
    [
        (readers.read_arena_votes, b'{"models": ["x"', "own.json: cannot be read as JSON"),
        (readers.read_arena_votes, b"\xff\xfe", "own.json: cannot be read as JSON"),
        (readers.read_arena_votes, b"[]", "own.json: lacks models, X, Y"),
        (readers.read_clean_battles, b'["model_a"]', "own.json: .* record 0: expected a JSON object"),
        (readers.read_clean_battles, b'[{"model_a": "x"}]', "own.json: lacks model_b, winner, language, tstamp, anony"),
    ],
)
def test_damaged_json_names_the_file(tmp_path, read, content, message):
    path = tmp_path / "own.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(path)


def test_a_folder_where_one_file_is_wanted(tmp_path):
    for name in ("a.json", "b.json"):
        write_json(tmp_path / name, VOTES)
    with pytest.raises(ValueError, match="holds 2 files; name the one to read as votes"):
        readers.read_arena_votes(tmp_path)


def test_damaged_line_is_named(tmp_path):
    path = tmp_path / "gpt-4_single.jsonl"
    path.write_text('{"judge": ["gpt-4"], "model": "x", "question_id": 1, "turn": 1, "score": 1}\n{"judge": \n')
    with pytest.raises(ValueError, match="gpt-4_single.jsonl: cannot be read as JSON: line 2"):
        readers.read_mt_bench_judgements(path)


def test_battles_of_a_benchmark_follow_the_scores():
    table = benchmark_tables.BenchmarkTable(
        pd.DataFrame({"prompt": ["p", "q", "r"]}), pd.DataFrame({"x": [1.0, 0.5, 0.0], "y": [0.0, 0.5, 1.0]})
    )
    assert table.battles("x", "y")["winner"].tolist() == ["model_a", "tie", "model_b"]
    assert table.battles("y", "x")["winner"].tolist() == ["model_b", "tie", "model_a"]
    with pytest.raises(ValueError, match="no model 'z'; it has x, y"):
        table.battles("x", "z")
