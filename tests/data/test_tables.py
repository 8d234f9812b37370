"""Tables as people write them: text that looks like something else, rows of another width, other labels and formats."""

from __future__ import annotations

import gzip
import io
import sys

import pandas as pd
import pytest

from routing.battles import count_pairs, validate_battles
from routing.data.tables import file_kind, parse_table, read_table

COLUMNS = ["prompt", "model_a", "model_b", "winner"]
HEADER = ",".join(COLUMNS) + "\n"
NAMES = ["7", "3.5", "True", "1984", "None", "NA", "null", "nan", "007", "1e3", "N/A"]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "csv.xz", "tsv", "tsv.gz", "jsonl", "ndjson", "json", "parquet"])
def test_names_and_prompts_are_text_in_every_format(tmp_path, kind):
    table = pd.DataFrame({"prompt": NAMES, "model_a": NAMES, "model_b": "y", "winner": "tie", "id": range(len(NAMES))})
    path = tmp_path / f"battles.{kind}"
    if "sv" in kind:
        table.to_csv(path, index=False, sep="\t" if "tsv" in kind else ",")
    elif kind == "parquet":
        table.to_parquet(path)
    else:
        table.to_json(path, orient="records", lines=kind != "json")
    read = read_table(path, COLUMNS)
    assert read["model_a"].tolist() == read["prompt"].tolist() == NAMES
    assert read["id"].tolist() == list(range(len(NAMES)))
    with path.open("rb") if not kind.endswith(("gz", "xz")) else io.BytesIO(table.to_csv(index=False).encode()) as file:
        shard = parse_table(file, "CSV" if kind.endswith(("gz", "xz")) else file_kind(path.name), ["model_a", "prompt"])
    assert shard["model_a"].tolist() == NAMES and set(shard.columns) == {"model_a", "prompt"}
    assert count_pairs(read).models == tuple(sorted([*NAMES, "y"]))


def test_numbers_of_json_and_parquet_become_text_and_keep_their_digits(tmp_path):
    lines = '{"model_a": 7, "model_b": "y", "prompt": 9007199254740993}\n{"model_a": null, "model_b": 3.5}\n\n'
    table = read_table(write(tmp_path / "b.jsonl", "\ufeff" + lines), ["model_a"])
    assert table["model_a"].tolist()[0] == "7" and table["model_a"].isna().tolist() == [False, True]
    assert table["model_b"].tolist() == ["y", "3.5"] and table["prompt"][0] == "9007199254740993"
    pd.DataFrame({"model_a": pd.array([7, None], dtype="Int64")}).to_parquet(tmp_path / "b.parquet")
    table = read_table(tmp_path / "b.parquet", ["model_a"])
    assert table["model_a"][0] == "7" and table["model_a"].isna()[1]
    with pytest.raises(ValueError, match="b.jsonl.* row 0, column model_a"):
        read_table(write(tmp_path / "b.jsonl", '{"model_a": ["x"]}\n'), ["model_a"])


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (HEADER + "Write a poem, please,x,y,tie\nSay hi, now,y,x,tie\n", "row 0 has 5 fields.* 4"),
        (HEADER + "hi,x,y,tie\n\nyo,y,x\n", "row 1 has 3 fields.* 4"),
        (HEADER + 'hi,x,y,tie\n"yo" he said,y,x,tie\n', "row 1"),
        (HEADER + 'hi,x,y,tie\n"yo,y,x,tie\n', "row 1"),
        (HEADER + "hi,x,y,tie\nyo,x\0,y,tie\n", "row 1: .*NUL"),
        (HEADER.encode() + b"hi,x,y,tie\ncaf\xe9,x,y,tie\n", "UTF-8"),
        ((HEADER + "hi,x,y,tie\n").encode("utf-16"), "UTF-8"),
        ("prompt,model_a,model_a,winner\nhi,x,y,tie\n", "named twice: model_a"),
        ("", "empty"),
        ("\n\n", "empty"),
    ],
)
def test_a_csv_that_would_be_read_wrongly_is_refused_with_file_and_row(tmp_path, content, facts):
    with pytest.raises(ValueError, match=f"battles.csv: .*{facts}"):
        read_table(write(tmp_path / "battles.csv", content), COLUMNS)


def test_what_a_spreadsheet_adds_is_left_out(tmp_path):
    rows = '\ufeffprompt, model_a ,model_b,winner\r\n"two\r\nlines, \u2028 and a comma",x,y,tie\r\n'
    rows += "\r\n,,,\r\n ,,,,\r\n,,,\r\n"
    table = read_table(write(tmp_path / "battles.csv", rows), COLUMNS)
    assert table["prompt"].tolist() == ["two\r\nlines, \u2028 and a comma"]
    table = read_table(write(tmp_path / "battles.csv", HEADER + ",,,\nhi,x,y,tie\n,,,\n"), COLUMNS)
    assert table["model_a"].isna().tolist() == [True, False]  # in the middle it is a row that lacks its names


def test_a_prompt_may_be_long_and_the_message_about_it_short(tmp_path):
    path = write(tmp_path / "battles.csv", HEADER + "word " * 60_000 + ",x,y,tie\n")
    assert len(read_table(path, COLUMNS)["prompt"][0]) == 300_000
    with pytest.raises(ValueError, match="battles.csv: lacks question") as raised:
        read_table(write(path, "word " * 60_000 + "\nx\n"), ["question"])
    assert len(str(raised.value)) < 500


def test_columns_of_other_names(tmp_path):
    path = write(tmp_path / "battles.csv", "question,prompt,left,model_b,verdict\n1984,no,7,y,tie\n")
    renamed = {"prompt": "question", "model_a": "left", "winner": "verdict"}
    assert read_table(path, COLUMNS, renamed)[COLUMNS].iloc[0].tolist() == ["1984", "7", "y", "tie"]
    with pytest.raises(ValueError, match="battles.csv: lacks judgement"):
        read_table(path, COLUMNS, renamed | {"winner": "judgement"})
    swapped = read_table(path, COLUMNS, renamed | {"model_a": "model_b", "model_b": "left"})
    assert swapped[COLUMNS].iloc[0].tolist() == ["1984", "y", "7", "tie"]


@pytest.mark.parametrize(
    ("name", "content", "facts"),
    [
        ("b.jsonl", '{"model_a": "x"}\n{"model_a": \n', "line 2"),
        ("b.jsonl", '{"model_a": "x"}\n7\n', "line 2"),
        ("b.jsonl", '{"model_a": "x"}\n{"model_a": "x\\ud800"}\n', "row 1, column model_a"),
        ("b.json", '[{"model_a": "x"}, 7]', "record 1"),
        ("b.parquet", "PAR1 and no more", "Parquet"),
        ("b.csv.gz", "not compressed", "CSV"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, facts):
    with pytest.raises(ValueError, match=f"{name}: .*{facts}"):
        read_table(write(tmp_path / name, content), ["model_a"])


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="b.parquet: .*pyarrow"):
        read_table(write(tmp_path / "b.parquet", b"PAR1"), ["model_a"])


def test_compressed_and_plain_files_give_the_same_battles(tmp_path):
    content = (HEADER + "hi,x ,y,Model_A\nyo,y,\u200bx,tie (bothbad)\n").encode()
    plain = validate_battles(read_table(write(tmp_path / "b.csv", content), COLUMNS))
    packed = validate_battles(read_table(write(tmp_path / "b.csv.gz", gzip.compress(content)), COLUMNS))
    pd.testing.assert_frame_equal(plain, packed)
    assert plain["winner"].tolist() == ["model_a", "tie"] and set(plain["model_a"]) == {"x", "y"}
