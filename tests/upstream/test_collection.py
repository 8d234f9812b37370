"""What is missing is listed, brought and built, from a real HTTP server on this machine; what fails says why."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pandas as pd
import pytest

from routing.__main__ import main
from routing.data import sources
from routing.upstream import collection
from tests.data.test_sources import server as file_server

server = file_server
COMMIT = "0123456789" * 4
VERDICTS = b'{"question_id": 2, "score": 1}\n'
QUESTIONS = b'{"question_id": 2, "text": "Why?", "category": "generic"}\n'
FILES = {
    "eval/ratings-gpt4/vicuna/pairwise/answer-gpt4-vs-answer-bard-gpt-4-reviewer-threeclass.jsonl": VERDICTS,
    "eval/prompts/vicuna_questions.jsonl": QUESTIONS,
}
TABLE = b"question_id,category,prompt,model_a,model_b,winner,eval_overlap\n"
TABLE += b'vicuna-2,generic,"[""Why?""]",gpt-4,bard,model_a,\n'
NAME, PLACE = "vicuna80_gpt4_pairs", "vicuna80_gpt4_pairs/judgements.csv.gz"
WHOLE, PARTS = b"id,prompt\n1,x\n", [b"first", b"second"]


@pytest.fixture
def cache(tmp_path, monkeypatch, server):
    """An empty cache and no ROUTING_DATA; on the server the files of one table, a large file, a list and its parts."""
    rows = [
        (NAME, "owner/repository", COMMIT, path, len(body), sha256(body).hexdigest()) for path, body in FILES.items()
    ]
    columns = ["dataset", "repository", "commit", "path", "bytes", "sha256"]
    tables = pd.DataFrame([(NAME, PLACE, 1, sha256(TABLE).hexdigest())], columns=["dataset", "path", "rows", "sha256"])
    monkeypatch.setattr(collection, "upstream", lambda: pd.DataFrame(rows, columns=columns))
    monkeypatch.setattr(collection, "expected_tables", lambda: tables)
    monkeypatch.setattr(collection, "_evaluation_flag", lambda: lambda prompts: ["" for _ in prompts])
    monkeypatch.setattr(sources, "registry", lambda: pd.DataFrame(columns=columns))
    server.files = {f"/owner/repository/{COMMIT}/{path}": body for path, body in FILES.items()}
    server.files |= {
        "/train.csv": WHOLE,
        "/x/parquet/list": json.dumps([f"{server.address}/{n}" for n in "01"]).encode(),
    }
    server.files |= {f"/{n}": body for n, body in enumerate(PARTS)}
    known = {
        NAME: {"licence": "MIT", "collected": [[PLACE]], "origin": "ratings"},
        "whole": {"licence": "none", "collected": [["whole/train.csv"]], "origin": "one file", "bytes": len(WHOLE)},
        "parts": {"licence": "none", "collected": [["parts/0.parquet"]], "origin": "a list", "on_request": True},
        "routellm": {"licence": "Apache-2.0", "prefix": "", "collected": [["routellm/all"]], "origin": "evaluations"},
    }
    known["whole"] |= {
        "address": f"{server.address}/train.csv",
        "sha256": sha256(WHOLE).hexdigest(),
        "account": "the page",
    }
    known["parts"]["address"] = f"{server.address}/x/parquet/list"
    monkeypatch.setattr(collection, "datasets", lambda: known)
    monkeypatch.setattr(sources, "datasets", lambda: known)
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ROUTING_DATA", raising=False)
    (tmp_path / "cache" / "routellm").mkdir(parents=True)
    (tmp_path / "cache" / "routellm" / "all").write_text("evaluations")
    return tmp_path / "cache"


def fetch(server, *names):
    return collection.fetch(names or None, progress=False, base_address=server.address).set_index("dataset")["found"]


def test_a_table_is_built_from_what_was_published_and_found_afterwards(server, cache):
    assert fetch(server, NAME).tolist() == ["cache"]
    (path,) = sources.find_files(NAME)
    assert path == cache / PLACE and gzip.decompress(path.read_bytes()) == TABLE
    server.requests.clear()
    assert fetch(server, NAME).tolist() == ["cache"] and not server.requests


def test_downloaded_files_are_used_again_and_damaged_ones_replaced(server, cache):
    path, other = FILES
    del server.files[f"/owner/repository/{COMMIT}/{other}"]
    with pytest.raises(ConnectionError, match=f"{server.address}/owner/repository/{COMMIT}/{other}.*ROUTING_DATA"):
        fetch(server, NAME)
    assert not (cache / PLACE).exists()
    server.files[f"/owner/repository/{COMMIT}/{other}"] = QUESTIONS
    server.requests.clear()
    fetch(server, NAME)
    assert server.requests == ["vicuna_questions.jsonl"]
    (cache / PLACE).unlink()
    (collection.published_folder() / "owner/repository" / COMMIT / path).write_bytes(b"damaged")
    server.requests.clear()
    assert fetch(server, NAME).tolist() == ["cache"] and server.requests == [path.rsplit("/", 1)[1]]


def test_a_table_that_is_not_the_expected_one_is_not_written(server, cache, monkeypatch):
    monkeypatch.setattr(
        collection, "expected_tables", lambda: pd.DataFrame([(PLACE, 2, "0")], columns=["path", "rows", "sha256"])
    )
    with pytest.raises(ValueError, match=f"{PLACE}.* 1 rows.* 2 "):
        fetch(server, NAME)
    assert not (cache / PLACE).exists()


def test_files_of_another_form_are_named_with_their_collection(cache):
    for path in FILES:
        file = cache / "other" / "owner/repository" / COMMIT / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b'{"a": 1}\n')
    with pytest.raises(ValueError, match=f"{NAME}.*{cache / 'other'}.*KeyError"):
        collection.make_tables(NAME, cache / "other", lambda prompts: [])


def test_two_fetches_at_once_lose_nothing(server, cache):
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(fetch, server, NAME, "whole", "parts") for _ in range(2)]
        assert [call.result().tolist() for call in calls] == [["cache"] * 3] * 2
    assert gzip.decompress((cache / PLACE).read_bytes()) == TABLE
    assert [path.read_bytes() for path in sorted((cache / "parts").glob("*.parquet"))] == PARTS
    assert not [*cache.rglob("*.partial")]


def test_a_large_file_is_checked_and_written_whole_or_not_at_all(server, cache):
    assert fetch(server, "whole").tolist() == ["cache"]
    assert (cache / "whole/train.csv").read_bytes() == WHOLE
    (cache / "whole/train.csv").unlink()
    server.files["/train.csv"] = WHOLE + b"2,y\n"
    with pytest.raises(ValueError, match="train.csv.*sha256.*expected.*not written"):
        fetch(server, "whole")
    server.files["/train.csv"], server.cut_at = WHOLE, 4
    with pytest.raises(ConnectionError, match=f"{server.address}/train.csv.*run it again.*whole/train.csv"):
        fetch(server, "whole")
    assert [*(cache / "whole").iterdir()] == []


@pytest.mark.parametrize("code, remedy", [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "look for it")])
def test_a_refusal_says_what_to_do_and_the_others_are_fetched(server, cache, monkeypatch, code, remedy):
    def refuse(address, token, **_):
        error = OSError("refused")
        error.response = type("Response", (), {"status_code": code})()
        raise error

    monkeypatch.setattr(collection, "_listed", refuse)
    with pytest.raises(ConnectionError, match=f"{server.address}/x/parquet/list.*{remedy}.*parts/0.parquet"):
        fetch(server, "parts", "whole", NAME)
    assert sources.status(["parts", "whole", NAME])["found"].tolist() == ["missing", "cache", "cache"]


def test_the_token_goes_to_the_hub_alone(cache, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    addresses = ["https://huggingface.co/datasets/x", "https://huggingface.co.example.org/x", "http://huggingface.co/x"]
    headers = [collection._ask(address, cache, lambda token: token) for address in addresses]
    assert headers == [{"Authorization": "Bearer secret"}, {}, {}]


def test_status_and_plan_list_everything_that_can_be_had(server, cache):
    table = collection.status([NAME, "whole", "parts"])
    assert table["found"].eq("missing").all() and table["licence"].tolist() == ["MIT", "none", "none"]
    assert table[["files", "bytes"]].iloc[:2].to_numpy().tolist() == [[2, len(VERDICTS + QUESTIONS)], [1, len(WHOLE)]]
    assert all(f"data fetch {name}" in bring for name, bring in zip(table["dataset"], table["bring"], strict=True))
    assert "the page" in table["bring"][1] and "HF_TOKEN" in table["bring"][1]
    plan = collection.plan()
    assert plan["dataset"].tolist() == [NAME, NAME, "whole", "routellm"][: len(plan)]
    assert plan["address"][0] == f"{sources.BASE_ADDRESS}/owner/repository/{COMMIT}/{[*FILES][0]}"
    fetch(server, NAME)
    assert collection.status([NAME])["bring"].item() == "" and collection.plan([NAME])["found"].eq("cache").all()
    with pytest.raises(ValueError, match="unknown dataset nothing"):
        collection.plan(["nothing"])


# ------------------------------------------------------------------------------------------------ the real lists
def test_every_dataset_has_a_way_a_size_and_a_licence(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("ROUTING_DATA", raising=False)
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path))
    table = collection.status()
    missing = table[table["found"] == "missing"]
    assert missing["bring"].str.startswith("python -m routing data fetch ").all()
    assert (missing["bytes"] > 0).all() and (table["licence"] != "").all()
    plan = collection.plan()
    assert (
        plan["address"].str.startswith("https://").all() and (plan["bytes"] > 0).all() and (plan["licence"] != "").all()
    )
    assert main(["data", "fetch", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert all(address in printed for address in plan["address"])
    assert not [*tmp_path.iterdir()]


def test_the_lists_fit_one_another():
    built = set(collection.BUILDERS)
    assert set(collection.upstream()["dataset"]) == set(collection.expected_tables()["dataset"]) == built
    assert not collection.upstream().duplicated(["dataset", "repository", "commit", "path"]).any()
    assert collection.upstream()["sha256"].str.fullmatch("[0-9a-f]{64}").all()
    for name in built:
        places = collection.expected_tables().query("dataset == @name")["path"].tolist()
        assert sources.datasets()[name]["collected"][0] == places
