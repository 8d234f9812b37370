"""Every builder on small files in the published form; what is doubtful there is left out, and in which order."""

from __future__ import annotations

import gzip
import json
import struct

import numpy as np
import pandas as pd
import pytest

from routing.upstream import builders
from routing.upstream import elobench as elobench_tables
from routing.upstream.prompt_overlap import evaluation_questions, overlap_flag, plain_words, redact
from routing.upstream.rds import read_rds

COMMIT = "0123456789" * 4


def no_flag(prompts):
    return ["" for _ in prompts]


@pytest.fixture
def published(tmp_path):
    """Write a file as ``owner/repository/commit/path``: records as JSON lines, a table as CSV."""

    def write(path, content, owner="owner", commit=COMMIT):
        file = tmp_path / owner / "repository" / commit / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(record) + "\n" for record in content)
        elif isinstance(content, pd.DataFrame):
            content = content.to_csv()
        file.write_text(content)
        return file

    return write


def rows(table, columns):
    return list(table[columns].itertuples(index=False, name=None))


# ------------------------------------------------------------------------------------------------- prompts, and R
def test_addresses_phone_numbers_and_keys_are_replaced():
    text = "Ask joe.b+c@mail.example.org. or +237676292112, (801) 596-1887, 205-422-1680; key sk-abcdefghijklmnopqrstuv"
    assert redact(text) == "Ask [email]. or [phone], [phone], [phone]; key [key]"
    kept = "card 6011546511247784, @app.route, 1-2-3, 10/19/1972, version 3.101.2024, a@b"
    assert redact(kept) == kept


def test_overlaps_are_exact_contained_or_near():
    long = "One two three four five six seven eight nine ten eleven twelve thirteen?"
    flag = overlap_flag({"mtbench": [("81", "Prove it."), ("82", long)], "mmlu": [("", "a b c d e f g h i j")]})
    words = plain_words(long)
    assert flag(
        ["prove IT!", f"Please: {long} Thanks", words.replace(" thirteen", " 13"), words[:40], "prove it now"]
    ) == [
        "mtbench:exact:81",
        "mtbench:contains:82",
        "mtbench:near:82",
        "",
        "",
    ]
    assert flag(["First a b c d, e f g h i j k", "", "a b c d e f g h i"]) == ["mmlu:contains", "", "mmlu:near"]


def test_questions_of_the_evaluations(tmp_path):
    long = "What is the answer to a question of more than ten words here?"
    for path, content in {
        "mt_bench/question.jsonl": json.dumps({"question_id": 81, "turns": ["One?", "Two?"]}),
        "mmlu/responses/mmlu_x.csv": f'prompt,m\n"{long}\nA. yes\nB. no",True\n"Short?\nA. 1",False\n',
        "gsm8k/gsm8k_responses.csv": f"prompt,m\n{long},True\nShort?,True\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    assert evaluation_questions(tmp_path) == {
        "mtbench": [("81", "One?"), ("81", "Two?")],
        "mmlu": [("", long)],
        "gsm8k": [("", long)],
    }


class RdsWriter:
    """Writes a data frame as R does: text, whole numbers, numbers, and a nested data frame."""

    def item(self, kind, *parts, attributes=None):
        head = struct.pack(">i", kind | (512 if attributes else 0))
        return head + b"".join(parts) + (self.pairs(attributes) if attributes else b"")

    def vector(self, values):
        if isinstance(values, pd.DataFrame):
            return self.frame(values)
        if isinstance(values[0], str | None):
            return self.item(16, struct.pack(">i", len(values)), *map(self.text, values))
        kind, code = (14, ">d") if isinstance(values[0], float) else (13, ">i")
        return self.item(kind, struct.pack(">i", len(values)), *(struct.pack(code, value) for value in values))

    def text(self, value):
        content = b"" if value is None else value.encode()
        return self.item(9, struct.pack(">i", -1 if value is None else len(content)) + content)

    def pairs(self, attributes):
        symbols = ((self.item(1, self.text(name)), values) for name, values in attributes.items())
        cells = (struct.pack(">i", 2 | 1024) + symbol + self.vector(values) for symbol, values in symbols)
        return b"".join(cells) + struct.pack(">i", 254)

    def frame(self, table):
        columns = [table[name] if isinstance(table[name], pd.DataFrame) else list(table[name]) for name in table]
        names = {"names": list(table), "class": ["data.frame"]}
        return self.item(19, struct.pack(">i", len(columns)), *map(self.vector, columns), attributes=names)


def write_rds(path, columns, version=3):
    encoding = struct.pack(">i", 5) + b"UTF-8" if version == 3 else b""
    head = b"X\n" + struct.pack(">3i", version, 263426, 197888) + encoding
    path.write_bytes(gzip.compress(head + RdsWriter().frame(columns)))
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_a_data_frame_of_r(tmp_path, version):
    inner = {"math": [1, -(2**31)], "score": ["no", None]}
    columns = {"id": ["a", "ü"], "share": [0.5, 1.0], "tag": inner}
    path = write_rds(tmp_path / "votes.rds", NestedFrame(columns), version)
    table = read_rds(path)
    assert table.columns.tolist() == ["id", "share", "tag.math", "tag.score"]
    assert rows(table.fillna("missing"), table.columns) == [("a", 0.5, 1, "no"), ("ü", 1.0, -(2**31), "missing")]


class NestedFrame(dict):
    """Columns by name, some of them tables, for `RdsWriter`."""

    def __getitem__(self, name):
        value = super().__getitem__(name)
        return pd.DataFrame(value, dtype=object) if isinstance(value, dict) else value


NO_TABLE = {"empty": b"", "text": b"text", "cut": gzip.compress(b"X\n" + b"\0" * 30), "other": gzip.compress(b"RDX3\n")}


@pytest.mark.parametrize("content", NO_TABLE.values(), ids=NO_TABLE)
def test_what_is_no_data_frame_of_r(tmp_path, content):
    path = tmp_path / "votes.rds"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="votes.rds"):
        read_rds(path)


# ------------------------------------------------------------------------------------------------- people's votes
def test_arena140k(published):
    file = published("chatbot.data.rds", "")
    write_rds(file, NestedFrame({"id": ["x"], "winner": ["tie"], "category_tag": {"math_v0.1": [1]}}))
    assert builders.build_arena140k([file], no_flag)["battles.csv.gz"].to_dict("records") == [
        {"id": "x", "winner": "tie", "math_v0.1": 1}
    ]


def test_arena33k(published):
    models = [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h"), ("i", "j"), ("k", "l"), ("m", "n")]
    judged = pd.DataFrame(models, columns=["model_a", "model_b"]).assign(
        winner=["model_a", "tie(all bad)", "invalid", "", "tie", "model_b", "model_b"],
        question=[f"Question {number} of joe@example.org?" for number in range(7)],
    )
    votes = judged[["model_a", "model_b"]].assign(winner="tie")
    files = [
        published("results/battle_records_arena_gpt4_as_judger_0_499.csv", judged[:4]),
        published("results/battle_records_arena_gpt4_as_judger_500_2010.csv", judged[4:]),
        published("data/battled_pairs_human_as_judger.csv", pd.concat([votes[:0], votes])),
        published("data/human.json", (votes[1:].assign(question_id=list("ABCDEF"))).to_dict("records")),
    ]
    table = builders.build_arena33k(files, lambda prompts: ["mtbench:exact:81" for _ in prompts])["battles.csv.gz"]
    assert table["question_id"].tolist() == ["", *"ABCDEF"]
    assert table["winner_gpt4"].tolist() == ["model_a", "tie (bothbad)", "", "", "tie", "model_b", "model_b"]
    assert table.loc[0, ["prompt", "winner_human", "eval_overlap"]].tolist() == [
        '["Question 0 of [email]?"]',
        "tie",
        "mtbench:exact:81",
    ]


def test_runs_of_fewer_than_six_rows_are_not_matched():
    left = pd.DataFrame({"model": list("abcdeXfghijk")})
    right = pd.DataFrame({"model": list("abcdefghijk"), "id": range(11)})
    assert builders._match(left, right, ["model"], "id") == [""] * 6 + [5, 6, 7, 8, 9, 10]


def test_arena55k_more(published, monkeypatch):
    monkeypatch.setattr(builders, "arena55k_ids", lambda: (5,))
    ids, labels = [5, 6, 7, 8, 22], [0, 1, 2, 0, 0]
    marks = np.eye(3, dtype=int)

    def row(number, models, prompt, won):
        return {"id": number, "model_a": models[0], "model_b": models[1], "prompt": prompt} | dict(
            zip(builders.MARKS, marks[won], strict=True)
        )

    first = [row(6, "xy", 'A\\/B "c"', 0), row(6, "yx", 'A\\/B "c"', 1), row(5, "xy", "in arena55k", 0)]
    second = [row(7, "yx", '["one", "two"]', 2), row(7, "xy", "one", 2), row(22, "xy", "divisible by 11", 0)]
    second += [row(6, "xy", 'A\\/B "c"', 0), row(8, "pq", '["not JSON', 0)]
    files = [
        published("test_data/left_los.csv", pd.DataFrame(first).set_index("id")),
        published("test_data/verbo_win.csv", pd.DataFrame(second).set_index("id")),
        published("tree/train_pred.csv", pd.DataFrame({"id": ids}).set_index("id")),
        published("artifacts/y_true.npy", ""),
    ]
    np.save(files[-1], np.array(labels))
    table = builders.build_arena55k_more(files, no_flag)["train_more.csv.gz"]
    assert rows(table, ["id", "model_a", "model_b", "prompt", *builders.MARKS, "sampling", "prompt_exact"]) == [
        (6, "y", "x", '["A/B \\"c\\""]', 0, 1, 0, "left_los|verbo_win", 0),
        (7, "x", "y", '["one", "two"]', 0, 0, 1, "verbo_win", 1),
        (8, "p", "q", '["[\\"not JSON"]', 1, 0, 0, "verbo_win", 0),
    ]


# ---------------------------------------------------------------------------------------------------- judges' verdicts
def test_oasst(published):
    verdicts = [{"message_id": "q", "score": score} for score in (1, 2, 3, -1)]
    files = [
        published(f"eval/ratings-gpt4/oa/{name}-gpt-4-reviewer-threeclass.jsonl", verdicts[at : at + 2])
        for at, name in ((0, "30b-guanaco-oa-generations-topp0.9-temp0.7-vs-gpt-3.5-oa-generations"),
                         (2, "gpt-4-oa-generations-vs-vicuna-13b-oa-generations"))
    ]  # fmt: skip
    dialogue = "### Human: Hi ### Assistant: Hello ### Human: Bye\n### Assistant:"
    questions = [{"question_id": "q", "lang": "en", "text": dialogue}]
    questions += [{"question_id": "b", "lang": "es", "text": "### Human: ¿Qué? ### Assistant:"}]
    tables = builders.build_oasst([*files, published("eval/prompts/oa_questions.jsonl", questions)], no_flag)
    assert rows(tables["judgements.csv.gz"], ["question_id", "model_a", "model_b", "winner"]) == [
        ("q", "gpt-4", "vicuna-13b", "tie"),
        ("q", "guanaco-33b", "gpt-3.5-turbo", "model_a"),
        ("q", "guanaco-33b", "gpt-3.5-turbo", "model_b"),
    ]
    context = '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]'
    assert rows(tables["prompts.csv.gz"], ["question_id", "prompt", "last_turn", "n_turns", "context"]) == [
        ("b", '["¿Qué?"]', "¿Qué?", 1, ""),
        ("q", '["Hi", "Bye"]', "Bye", 2, context),
    ]


def test_vicuna80(published):
    pair = "65b-guanaco-vicuna-generations-topp0.9-temp0.7-vs-answer-bard"
    files = [
        published(f"eval/ratings-gpt4/vicuna/pairwise/{pair}-gpt-4-reviewer-threeclass.jsonl",
                  [{"question_id": 2, "score": 2}, {"question_id": 10, "score": -1}]),
        published("eval/prompts/vicuna_questions.jsonl", [{"question_id": 2, "text": "Why?", "category": "generic"}]),
    ]  # fmt: skip
    table = builders.build_vicuna80_gpt4_pairs(files, lambda prompts: ["x" for _ in prompts])["judgements.csv.gz"]
    assert rows(table, table.columns) == [("vicuna-2", "generic", '["Why?"]', "guanaco-65b", "bard", "model_b", "x")]
    names = {
        "gpt35": "answer_claude-vs-answer_gpt4-gpt35-reviewer_threeclass",
        "gpt4": "answer_gpt35-vs-answer_vicuna-13b-gpt4-reviewer-threeclass",
    }
    files = [
        published(f"data/vicuna80/ratings-{judge}/{name}.jsonl", [{"question_id": 10, "score": 3}])
        for judge, name in names.items()
    ]
    table = builders.build_vicuna80_four_judges(files, no_flag)["judgements.csv.gz"]
    assert rows(table, table.columns) == [
        ("vicuna-10", "gpt-3.5-turbo", "claude-1", "gpt-4", "tie"),
        ("vicuna-10", "gpt-4", "gpt-3.5-turbo", "vicuna-13b", "tie"),
    ]


@pytest.mark.parametrize(
    "winners, games",
    [
        (["a", "a"], [("a", 1), ("a", 1)]),
        (["a"] * 4, [("a", 2), ("a", 2)]),
        (["a"] * 6, [("a", 3), ("a", 3)]),
        (["a", "a", "a", "b"], [("a", 3), ("b", 1)]),
        (["t", "b"], [("t", 1), ("b", 1)]),
        (["a"], []),
        (["a"] * 3, []),
        (["a", "b", "a"], []),
        (["a"] * 4 + ["b"], []),
    ],
)
def test_games_of_arena_hard(winners, games):
    assert builders._games(winners) == games


def test_arena_hard(published):
    def verdicts(entry, winners):
        return [{"question_id": "q", "model_a": "gpt-4-0314", "model_b": entry, "winner": winner} for winner in winners]

    shared = verdicts("e", ["model_a"] * 3 + ["model_b"])
    files = [
        published("data/arena_hard_battles.jsonl", shared, owner="Myashka"),
        published(
            "data/arena-hard-v0.1_battles.jsonl", [*shared, *verdicts("f", ["tie", "model_a"])], owner="danielwetzel"
        ),
        published("data/arena_hard_battles.jsonl", verdicts("__mnt__somewhere", ["tie", "tie"]), owner="zeppombal"),
        published(
            "data/arena-hard-v0.1/question.jsonl", [{"question_id": "q", "turns": [{"content": "+10123456789"}]}]
        ),
    ]
    tables = builders.build_arena_hard(files, no_flag)
    source = {"M": f"Myashka@{COMMIT[:8]}", "d": f"danielwetzel@{COMMIT[:8]}"}
    assert rows(tables["judgements.csv.gz"], ["model_a", "model_b", "winner", "strength", "judge", "source"]) == [
        ("e", "gpt-4-0314", "model_a", 1, "gpt-4-1106-preview", source["M"]),
        ("gpt-4-0314", "e", "model_a", 3, "gpt-4-1106-preview", source["M"]),
        ("f", "gpt-4-0314", "model_b", 1, "gpt-4o", source["d"]),
        ("gpt-4-0314", "f", "tie", 1, "gpt-4o", source["d"]),
    ]
    assert tables["prompts.csv.gz"]["prompt"].tolist() == ['["[phone]"]']


def elobench(published, shown, judged):
    """Write the same arrangement and verdicts into every experiment but those of the arguments."""
    names = "clean_20772_fullset 21962_test1_smallset 10629_test 10629_test2 10629_test3 quora_100_test"
    names += " test5_iterative_80_no_tie test2_shuffle_ab quora_100_test3 nx1_gpt4 nx1_gpt35 nx1_llama1_13b"
    empty = pd.DataFrame(columns=["question", "model_a", "model_b", "winner"])
    files = [published("data/x/questions.csv", pd.DataFrame({"question": ["B?"], "source": ["Quora"]}))]
    for name in names.split():
        files.append(
            published(
                f"results/{name}/battle_arrangement.csv", shown.get(name, empty)[["question", "model_a", "model_b"]]
            )
        )
        files.append(
            published(f"results/{name}/battled_pairs.csv", judged.get(name, empty)[["model_a", "model_b", "winner"]])
        )
    return files


def test_elobench(published):
    battles = pd.DataFrame(
        [
            ("B?", "gpt-4-turbo", "lmsys/vicuna-33b-v1.3", "model_a"),
            ("A joe@example.org?", "gpt-35-turbo", "meta-llama/Llama-2-7b-hf", "tie(all bad)"),
            ("B?", "gemini", "chavinlo/alpaca-native", "invalid"),
            ("B?", "huggyllama/llama-7b", "mistralai/Mixtral-8x7B-Instruct-v0.1", ""),
        ],
        columns=["question", "model_a", "model_b", "winner"],
    )
    again = battles[:1].assign(winner="model_b")  # the verdict of the first experiment counts
    other = again.assign(question="C?")
    tables = {"clean_20772_fullset": battles, "quora_100_test3": pd.concat([again, other])}
    files = elobench(published, tables, tables)
    built = builders.build_elobench(files, no_flag)
    assert rows(built["judgements.csv.gz"], built["judgements.csv.gz"].columns) == [
        ("rwq-00001", "gpt-4-1106-preview", "vicuna-33b", "model_a", "rwq_20772"),
        ("rwq-00000", "gpt-3.5-turbo", "llama-2-7b-base", "tie (bothbad)", "rwq_20772"),
        ("rwq-00002", "gpt-4-1106-preview", "vicuna-33b", "model_b", "quora_100"),
    ]
    assert rows(built["prompts.csv.gz"], ["question_id", "source", "prompt"]) == [
        ("rwq-00000", "", "A [email]?"),
        ("rwq-00001", "Quora", "B?"),
        ("rwq-00002", "", "C?"),
    ]
    tables["clean_20772_fullset"] = battles[::-1]
    with pytest.raises(ValueError, match="row 0.*huggyllama.*gpt-4-turbo"):
        builders.build_elobench(elobench(published, tables, {**tables, "clean_20772_fullset": battles}), no_flag)


def test_verdicts_near_a_gap_and_short_runs_are_left_out():
    pairs = [(number % 5, number % 7) for number in range(100)]
    shown, judged = elobench_tables._match_gaps(pairs, pairs[:60] + pairs[61:], doubtful=40)
    assert shown == [*range(20), *range(61, 100)] and judged == [*range(20), *range(60, 99)]
    shown, judged = elobench_tables._match_runs(
        pairs[:40] + [("x", "y")] + pairs[40:50], pairs[:40] + pairs[40:50], fewest=30
    )
    assert shown == judged == [*range(40)]


# ------------------------------------------------------------------------------------------------------ models' scores
def test_arena_bench(published):
    text = "[Question]\nWhy\n\nis it?\n\n[The Start of Reference Answer]\n..."
    record = {"question_id": "q", "model": "mistralai/Mixtral-8x7B-Instruct-v0.1", "user_prompt": text, "score": 7}
    records = [record, record | {"model": "claude-1", "score": None}, record | {"model": "a", "score": 9.5}]
    table = builders.build_arena_bench([published("data/arena-bench-v1/model_judgment/m.jsonl", records)], no_flag)
    assert rows(table["scores.csv.gz"], ["question_id", "prompt", "model", "score"]) == [
        ("q", '["Why\\n\\nis it?"]', "a", 9.5),
        ("q", '["Why\\n\\nis it?"]', "mixtral-8x7b-instruct-v0.1", 7),
    ]


def test_mt_bench(published):
    score = {"judge": ["gpt-4", "single-v1"], "model": "private", "question_id": 81, "turn": 1, "score": 6.0}
    first = [score, score | {"turn": 2, "score": -1}, score | {"question_id": 82, "score": 0.0}]
    second = [score | {"score": 3.0}, score | {"model": "unify"}]
    files = [published("gpt-4_single.jsonl", first), published("gpt-4_single.jsonl", second, commit="f" * 40)]
    table = builders.build_mt_bench(files, no_flag)["single_judgements.csv.gz"]
    columns = ["repository", "commit", "path", "judge", "reference", "model", "score", "public_model"]
    assert rows(table, columns) == [
        ("owner/repository", COMMIT, "gpt-4_single.jsonl", "gpt-4", "single-v1", "private", 6.0, False),
        ("owner/repository", "f" * 40, "gpt-4_single.jsonl", "gpt-4", "single-v1", "unify", 6.0, True),
    ]


def test_routerarena(published):
    result = {"score": 0.5, "metric": "m", "inference_cost": 1e-5}
    answer = {
        "global_index": "i",
        "question": "q",
        "llm_selected": "x",
        "token_usage": {"input_tokens": 3, "output_tokens": 4},
    }
    records = [
        answer | {"evaluation_result": str(result)},
        answer | {"evaluation_result": None, "token_usage": None},
        answer | {"evaluation_result": result, "llm_selected": "y"},
    ]
    table = builders.build_routerarena([published("cached_results/x.jsonl", records)], no_flag)["scores.csv.gz"]
    assert rows(table, table.columns) == [("i", "q", model, 0.5, "m", 1e-5, 3, 4, "") for model in "xy"]


def test_llmbar(published):
    answers = [{"swap = False": {"winner": "1"}, "swap = True": {"winner": "?"}}]
    content = json.dumps([{"label": 2, "results": answers}])
    file = published("Dataset/LLMBar/Adversarial/GPTInst/evaluators/GPT-4/CoT/result.json", content)
    table = builders.build_llmbar([file], no_flag)["llmbar_both_orders.csv.gz"]
    assert table.columns.tolist() == [
        "subset",
        "judge",
        "protocol",
        "item",
        "label",
        "winner_unswapped",
        "winner_swapped",
    ]
    assert table.iloc[0, :6].tolist() == ["Adversarial/GPTInst", "GPT-4", "CoT", 0, 2, 1] and pd.isna(table.iloc[0, 6])


def test_damaged_json_lines_are_named(published):
    with pytest.raises(ValueError, match="x.jsonl"):
        builders.build_routerarena([published("cached_results/x.jsonl", "{")], no_flag)
