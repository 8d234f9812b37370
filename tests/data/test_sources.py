"""Look-up, and download from a real HTTP server on this machine: whole, cut, slow, wrong, absent, offline."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest

from routing.data import sources

COMMIT = "c0ffee"
HUMAN, JUDGE = "data/human.json", "data/gpt-4.json"
CONTENT = {HUMAN: np.random.default_rng(0).bytes(300_000), JUDGE: b'{"winner": "tie"}\n'}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class FileServer(ThreadingHTTPServer):
    """Serves `files` (path to bytes); answers break off at `cut_at`, or stay open there where `stalls`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FileHandler)
        self.files = {f"/owner/repository/{COMMIT}/{path}": body for path, body in CONTENT.items()}
        self.cut_at: int | None = None
        self.lengths = True  # whether it tells how long an answer is
        self.stalls = threading.Event()
        self.go_on = threading.Event()
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class FileHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        server.requests.append(self.path.rsplit("/", 1)[1])
        if self.path not in server.files:
            self.send_error(404)
            return
        body = server.files[self.path]
        self.send_response(200)
        if server.lengths:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut_at])
        if server.stalls.is_set():
            server.go_on.wait(30)
        if server.cut_at is not None:
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, no ROUTING_DATA, and a registry of two small files for the dataset `judges`."""
    rows = [("judges", "owner/repository", COMMIT, path, len(body), sha256(body)) for path, body in CONTENT.items()]
    table = pd.DataFrame(rows, columns=["dataset", "repository", "commit", "path", "bytes", "sha256"])
    monkeypatch.setattr(sources, "registry", lambda: table)
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ROUTING_DATA", raising=False)
    return tmp_path / "cache" / "judges"


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_fetch_brings_the_published_bytes_once(server, cache):
    table = sources.fetch(["judges"], progress=False, base_address=server.address)
    assert table.to_dict("records") == [{"dataset": "judges", "files": 2, "bytes": 300_018, "found": "cache"}]
    assert [path.read_bytes() for path in sources.find_files("judges")] == list(CONTENT.values())
    assert files_below(cache) == sorted(CONTENT)
    n_requests = len(server.requests)
    sources.fetch(["judges"], progress=False, base_address=server.address)
    assert len(server.requests) == n_requests == 2


def test_fetch_asks_only_for_the_file_that_is_missing_or_damaged(server, cache):
    sources.fetch(["judges"], progress=False, base_address=server.address)
    (cache / JUDGE).write_bytes(b"damaged")
    assert sources.status(["judges"])["found"].item() == "damaged"
    with pytest.raises(ValueError, match=f"{sha256(b'damaged')}, not {sha256(CONTENT[JUDGE])}.*data fetch judges"):
        sources.find_files("judges")
    server.requests.clear()
    assert sources.fetch(["judges"], progress=False, base_address=server.address)["found"].item() == "cache"
    assert server.requests == ["gpt-4.json"]


@pytest.mark.parametrize("lengths", [True, False])
def test_a_cut_download_leaves_nothing_and_works_again(server, cache, lengths):
    server.cut_at, server.lengths = 200_000, lengths
    with pytest.raises(ConnectionError, match=f"{server.address}/owner/repository/{COMMIT}/{HUMAN}.*run it again"):
        sources.fetch(["judges"], progress=False, base_address=server.address)
    assert files_below(cache) == []
    server.cut_at = None
    sources.fetch(["judges"], progress=False, base_address=server.address)
    assert (cache / HUMAN).read_bytes() == CONTENT[HUMAN]
    assert files_below(cache) == sorted(CONTENT)


def test_a_download_has_a_time_limit(server, cache, monkeypatch):
    server.cut_at = 200_000
    server.stalls.set()
    monkeypatch.setattr(sources, "TIME_LIMIT_S", 0.5)
    with pytest.raises(ConnectionError, match=f"{HUMAN}.*0.5 s"):
        sources.fetch(["judges"], progress=False, base_address=server.address)
    assert files_below(cache) == []


def test_a_download_is_cut_at_its_registered_size(server, cache):
    endless = CONTENT[HUMAN] + b"x" * 50_000_000
    server.files[f"/owner/repository/{COMMIT}/{HUMAN}"] = endless
    assert sources.fetch(["judges"], progress=False, base_address=server.address)["found"].item() == "cache"
    assert (cache / HUMAN).read_bytes() == CONTENT[HUMAN]


def test_two_fetches_at_once_both_succeed_and_remove_what_a_killed_one_left(server, cache):
    cache.joinpath("data").mkdir(parents=True)
    (cache / "data" / ".human.json.1.partial").write_bytes(b"of a killed process")
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(sources.fetch, ["judges"], False, server.address) for _ in range(2)]
        assert [call.result()["found"].item() for call in calls] == ["cache", "cache"]
    assert files_below(cache) == sorted(CONTENT)
    assert [path.read_bytes() for path in sources.find_files("judges")] == list(CONTENT.values())


def test_wrong_bytes_are_not_written(server, cache):
    wrong = b"x" * len(CONTENT[HUMAN])
    server.files[f"/owner/repository/{COMMIT}/{HUMAN}"] = wrong
    with pytest.raises(ValueError, match=f"{HUMAN} has the sha256 {sha256(wrong)}, expected {sha256(CONTENT[HUMAN])}"):
        sources.fetch(["judges"], progress=False, base_address=server.address)
    assert files_below(cache) == []


def test_file_not_found_on_the_server(server, cache):
    server.files.clear()
    with pytest.raises(ConnectionError, match=f"{HUMAN} to .*{HUMAN}: 404.*ROUTING_DATA") as error:
        sources.fetch(["judges"], progress=False, base_address=server.address)
    assert "again" not in str(error.value)
    assert files_below(cache) == []


def test_offline(cache):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=f"could not download {address}/owner.*{HUMAN}"):
        sources.fetch(["judges"], progress=False, base_address=address)
    assert files_below(cache) == []


def test_missing_data_names_file_hash_address_and_command(cache):
    with pytest.raises(FileNotFoundError) as error:
        sources.find_files("judges")
    for part in (
        HUMAN,
        sha256(CONTENT[HUMAN]),
        f"https://raw.githubusercontent.com/owner/repository/{COMMIT}/{HUMAN}",
        "`python -m routing data fetch judges`",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("name, place", [("arena55k", "lmsys-arena-human-preference-55k"), ("arena140k", "lmarena-ai")])
def test_data_behind_an_account_names_its_owner(cache, name, place):
    for get in (sources.find_files, lambda name: sources.fetch([name])):
        with pytest.raises(FileNotFoundError, match=rf"{place}.*\$ROUTING_DATA/{name}/"):
            get(name)


def test_unknown_dataset_names_the_known_ones(cache):
    for call in (sources.find_files, sources.published_files, lambda name: sources.status([name])):
        with pytest.raises(ValueError, match="unknown dataset chess.* votes, .*llmrouter"):
            call("chess")
    with pytest.raises(ValueError, match="unknown dataset chess"):
        sources.fetch(["judges", "chess"])


def test_routing_data_comes_before_the_cache_in_each_of_its_layouts(server, cache, tmp_path, monkeypatch):
    sources.fetch(["judges"], progress=False, base_address=server.address)
    folder = tmp_path / "own"
    collected = folder / "judges" / "human_vs_llm_judges.csv.gz"
    collected.parent.mkdir(parents=True)
    monkeypatch.setenv("ROUTING_DATA", str(folder))
    assert sources.status(["judges"])["found"].item() == "cache"
    collected.write_bytes(b"")
    assert sources.find_files("judges") == (collected,)
    for path, content in CONTENT.items():
        (folder / "judges" / path).parent.mkdir(exist_ok=True)
        (folder / "judges" / path).write_bytes(content)
    assert sources.find_files("judges") == tuple(folder / "judges" / path for path in CONTENT)

    (folder / "judges" / HUMAN).write_bytes(b"changed")
    with pytest.raises(ValueError, match=f"{HUMAN} has the sha256 {sha256(b'changed')}.*remove it"):
        sources.fetch(["judges"], base_address=server.address)

    monkeypatch.setenv("ROUTING_DATA", str(tmp_path / "typo"))
    with pytest.raises(NotADirectoryError, match="ROUTING_DATA names .*typo"):
        sources.find_files("judges")


def test_short_layout_leaves_out_the_prefix(tmp_path, monkeypatch):
    row = sources.published_files("routellm").iloc[[0]].assign(sha256=sha256(b"{}"))
    monkeypatch.setattr(sources, "registry", lambda: row)
    monkeypatch.setenv("ROUTING_DATA", str(tmp_path))
    short = tmp_path / "routellm" / row["path"].item().removeprefix("routellm/evals/")
    short.parent.mkdir(parents=True)
    short.write_bytes(b"{}")
    assert sources.find_files("routellm") == (short,)


def test_own_copy_is_taken_as_it_is(cache, tmp_path):
    own = tmp_path / "own" / "deep" / "file.json"
    own.parent.mkdir(parents=True)
    own.touch()
    assert sources.find_files("judges", own) == sources.find_files("judges", tmp_path / "own") == (own,)
    with pytest.raises(FileNotFoundError, match="nowhere.json does not exist"):
        sources.find_files("judges", tmp_path / "nowhere.json")


def test_votes_come_with_the_package_unless_it_carries_others(server, tmp_path, monkeypatch):
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path))
    monkeypatch.delenv("ROUTING_DATA", raising=False)
    assert sources.status(["votes"]).to_dict("records") == [
        {"dataset": "votes", "files": 1, "bytes": 102_901, "found": "leaderbot"}
    ]
    sources.fetch(["votes"], base_address=server.address)
    assert server.requests == []
    other_release = sources.published_files("votes").assign(sha256=sha256(b"other votes"))
    monkeypatch.setattr(sources, "registry", lambda: other_release)
    assert sources.status(["votes"])["found"].item() == "missing"


def test_finding_the_votes_imports_nothing_of_the_package(tmp_path):
    code = (
        "import sys; from routing.data import sources; sources.find_files('votes'); print('leaderbot' in sys.modules)"
    )
    environment = {**os.environ, "ROUTING_CACHE": str(tmp_path)} | {"PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("ROUTING_DATA", None)
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert answer.stdout.strip() == "False"


def test_registry_is_sound():
    table = sources.registry()
    assert set(table["dataset"]) <= set(sources.datasets())
    assert table["bytes"].max() < 5e6  # a download is held in memory
    assert not table.duplicated(["dataset", "path"]).any()
    assert table["sha256"].str.fullmatch("[0-9a-f]{64}").all() and table["commit"].str.fullmatch("[0-9a-f]{40}").all()
    assert (table["bytes"] > 0).all()
    for name in sources.datasets():  # each can be fetched, or says where it comes from
        known = sources.datasets()[name]
        assert len(sources.published_files(name)) > 0 or (known["origin"] and known["collected"])
        assert known["licence"] and set(known) <= {
            *("licence", "prefix", "package", "collected", "origin"),
            *("address", "bytes", "sha256", "check", "account", "on_request"),
        }
