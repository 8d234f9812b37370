"""Routers shared through a hub: the real client against a small hub on loopback, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pytest
import yaml

from routing.battles import WINNERS
from routing.routers.base import BradleyTerryRouter, load_router
from routing.routers.hub import fetch_files, fetch_router, parse_hub_name
from routing.routers.sharing import push_router, write_model_card
from routing.routers.similarity import SimilarityRouter

PAIRS = [("ant", "bee"), ("bee", "cat"), ("ant", "cat")] * 8
TABLE = pd.DataFrame(PAIRS, columns=["model_a", "model_b"]).assign(
    prompt=[f"prompt {number}" for number in range(24)],
    winner=[WINNERS[number % 3] if number < 12 else WINNERS[-(number % 3) - 1] for number in range(24)],
)


class Hub(ThreadingHTTPServer):
    """As much of the Hub as the client asks for: repositories of commits of files, and every request that came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}  # repository -> commit -> file -> content
        self.requests: list[str] = []
        self.created: list[dict] = []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def commit(self, repository: str, files: dict[str, bytes]) -> str:
        history = self.commits.setdefault(repository, {})
        commit = hashlib.sha1(f"{repository} {len(history)}".encode()).hexdigest()
        history[commit] = (list(history.values())[-1] if history else {}) | files
        return commit


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, content: object, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code: str) -> None:
        self.answer({"error": "not found"}, 404, X_Error_Code=code)

    def found(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        history = self.server.commits.get(repository)
        if not history:
            return self.missing("RepoNotFound")
        commit = list(history)[-1] if unquote(revision) == "main" else revision
        if commit not in history:
            return self.missing("RevisionNotFound")
        return commit, history[commit]

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.requests.append(path)
        if file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if found := self.found(file[1], file[2]):
                content = found[1][unquote(file[3])]
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                self.answer(content, ETag=etag, X_Repo_Commit=found[0], Accept_Ranges="bytes")
        elif listing := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            if found := self.found(listing[1], listing[2]):
                files = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in found[1].items()
                ]
                self.answer(files)
        elif about := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            if found := self.found(about[1], about[2] or "main"):
                self.answer({"id": about[1], "sha": found[0], "siblings": [{"rfilename": name} for name in found[1]]})
        else:
            self.missing("EntryNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(self.path)
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            self.server.created.append(wanted)
            self.answer({"url": f"{self.server.address}/{wanted['organization']}/{wanted['name']}"})
        elif self.path == "/api/validate-yaml":
            front = json.loads(body)["content"].split("---\n")[1]
            self.answer({"errors": [] if yaml.safe_load(front) else [{"message": "no metadata"}], "warnings": []})
        elif preupload := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path):
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            self.answer({"files": [file | {"shouldIgnore": False} for file in files]})
        elif commit := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            values = [json.loads(line) for line in body.splitlines()]
            files = {v["value"]["path"]: base64.b64decode(v["value"]["content"]) for v in values if v["key"] == "file"}
            oid = self.server.commit(commit[1], files)
            self.answer({"commitUrl": f"{self.server.address}/{commit[1]}/commit/{oid}", "commitOid": oid})
        else:
            self.missing(f"EntryNotFound {preupload}")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that the real client talks to, with a cache and a token of its own."""
    from huggingface_hub import constants

    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def saved(tmp_path) -> Path:
    router = BradleyTerryRouter().fit(TABLE)
    router.save(tmp_path / "router")
    write_model_card(router, tmp_path / "router", licence="cc-by-4.0", data="24 battles, made for a test.")
    return tmp_path / "router"


def test_a_pushed_router_comes_back_the_same_at_the_pinned_commit(hub, saved):
    (saved / "notes.txt").write_text("private")
    name = push_router(saved, "someone/router")
    repository, commit = parse_hub_name(name)
    assert repository == "someone/router" and re.fullmatch("[0-9a-f]{40}", commit)
    assert hub.created[0].get("private") is True or hub.created[0]["visibility"] == "private"
    assert set(hub.commits["someone/router"][commit]) == {"router.json", "arrays.npz", "README.md"}  # no notes

    hub.commit("someone/router", {"router.json": b"{}"})  # later versions change nothing for who pinned a commit
    folder = fetch_router(name)
    assert folder.name == commit and (folder / "README.md").is_file()
    loaded = load_router(folder)
    np.testing.assert_array_equal(loaded.ratings(["a", "b"]), load_router(saved).ratings(["a", "b"]))


def test_a_router_with_an_encoder_comes_back(hub, tmp_path):
    router = SimilarityRouter(n_tiers=2).fit(TABLE, np.eye(24) + 0.1)
    router.save(tmp_path / "router")
    write_model_card(router, tmp_path / "router", licence="other", data="24 battles, made for a test.")
    loaded = load_router(fetch_router(push_router(tmp_path / "router", "someone/similarity")))
    vectors = np.eye(24)[:3] + 0.1
    np.testing.assert_array_equal(loaded.ratings(vectors), router.ratings(vectors))


def test_a_branch_is_resolved_once_and_only_listed_files_come(hub, saved):
    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    commit = hub.commit("someone/router", files | {"large.bin": b"0" * 1000, "model.py": b"raise SystemExit"})
    folder = fetch_router("hub:someone/router")
    assert folder.name == commit and {path.name for path in folder.iterdir()} == set(files)
    resolved = [path for path in hub.requests if path.endswith("/revision/main")]
    assert len(resolved) == 1
    assert not [path for path in hub.requests if "/resolve/main/" in path]


def test_pushing_again_makes_a_new_commit_and_keeps_the_old(hub, saved, tmp_path):
    first = push_router(saved, "someone/router")
    router = BradleyTerryRouter(prior_strength=1.0).fit(TABLE)
    router.save(tmp_path / "second")
    write_model_card(router, tmp_path / "second", licence="cc-by-4.0", data="The same battles, with a prior.")
    second = push_router(tmp_path / "second", "someone/router")
    assert first != second
    before, after = (load_router(name).prior_strength for name in (first, second))
    assert (before, after) == (0.0, 1.0)


def test_a_changed_file_of_a_stranger_is_refused(hub, saved):
    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    hub.commit("someone/router", files | {"arrays.npz": files["arrays.npz"][:-1] + b"x"})
    with pytest.raises(ValueError, match=r"arrays\.npz"):
        load_router(fetch_router("hub:someone/router"))


@pytest.mark.parametrize("listed", ["../../secret", "*", "/etc/passwd", ".netrc", "a/b"])
def test_listed_names_that_lead_elsewhere_are_refused_before_any_download(hub, saved, listed):
    description = json.loads((saved / "router.json").read_text())
    description["sha256"][listed] = "0" * 64
    hub.commit("someone/router", {"router.json": json.dumps(description).encode(), "arrays.npz": b"0"})
    with pytest.raises(ValueError, match="lists"):
        fetch_router("hub:someone/router")
    assert not [path for path in hub.requests if path.endswith("arrays.npz")]


@pytest.mark.parametrize("content", [b"{", b"[1]", b"3", b"{}", None])
def test_a_repository_without_a_router_says_so(hub, content):
    hub.commit("someone/else", {"config.json": b"{}"} | ({} if content is None else {"router.json": content}))
    with pytest.raises((ValueError, FileNotFoundError), match="hub:someone/else"):
        fetch_router("hub:someone/else")


@pytest.mark.parametrize("name", ["hub:nobody/nothing", "hub:someone/router@" + "0" * 40])
def test_what_is_not_there_is_named(hub, saved, name):
    push_router(saved, "someone/router")
    with pytest.raises(FileNotFoundError, match=name):
        fetch_router(name)


def test_a_pinned_router_needs_no_network_once_it_is_here(hub, saved):
    name = push_router(saved, "someone/router")
    folder = fetch_router(name)
    hub.shutdown()
    hub.server_close()
    assert fetch_router(name) == folder
    with pytest.raises(FileNotFoundError, match="hub:someone/other"):
        fetch_router("hub:someone/other")


@pytest.mark.parametrize("name", ["someone/router", "hub:router", "hub:a/b/c", "hub:a/b@", "hub:a b/c", "hub:é/b"])
def test_names_of_another_form_reach_no_network(monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.HfApi.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(ValueError, match=re.escape(name)):
        fetch_files(name, ["*"])


def test_the_card_has_what_the_hub_and_a_reader_look_for(saved):
    router = load_router(saved)
    table = pd.DataFrame({"metric": ["APGR|x"], "prompts": [80], "estimate": [0.61], "low": [0.5512], "high": [0.66]})
    path = write_model_card(
        router, saved, licence="cc-by-4.0", data="24 battles.", intervals=table, datasets=["lmsys/arena"]
    )
    _, front, body = path.read_text().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "license": "cc-by-4.0",
        "library_name": "routing",
        "tags": ["llm-routing", "bradley-terry"],
        "datasets": ["lmsys/arena"],
    }
    headings = re.findall("^## (.*)$", body, re.M)
    assert headings == ["Intended use", "How to load", "Models", "Data", "Measurements", "Limits", "Licence"]
    assert r"| APGR\|x | 80 | 0.610 | 0.551 | 0.660 |" in body
    assert all(f"- `{model}`" in body for model in router.models)
    (code,) = re.findall("```python\n(.*?)```", body, re.S)
    scope: dict = {}
    exec(code.replace("hub:OWNER/NAME@COMMIT", str(saved)), scope)
    assert scope["router"].models == router.models
    load_router(saved)  # the card does not disturb what the router's own files say


def test_a_card_of_another_router_or_without_facts_is_refused(saved, tmp_path):
    router = load_router(saved)
    other = BradleyTerryRouter().fit(TABLE[TABLE["model_b"] == "bee"].assign(winner=["model_a", "model_b"] * 4))
    with pytest.raises(ValueError, match="another router"):
        write_model_card(other, saved, licence="other", data="x")
    with pytest.raises(ValueError, match="data"):
        write_model_card(router, saved, licence="other", data=" ")
    with pytest.raises(ValueError, match="Apache 2"):
        write_model_card(router, saved, licence="Apache 2", data="x")
    with pytest.raises(FileNotFoundError, match=r"router\.json"):
        write_model_card(router, tmp_path, licence="other", data="x")


def test_what_others_could_not_use_is_not_sent(hub, saved, tmp_path):
    (saved / "README.md").unlink()
    with pytest.raises(FileNotFoundError, match=r"README\.md"):
        push_router(saved, "someone/router")
    with (saved / "arrays.npz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"arrays\.npz"):
        push_router(saved, "someone/router")
    with pytest.raises(ValueError, match="router"):
        push_router(saved, "router")
    router = SimilarityRouter(n_tiers=2).fit(TABLE, np.eye(24) + 0.1)
    router.save(tmp_path / "local")
    write_model_card(router, tmp_path / "local", licence="other", data="x")
    description = json.loads((tmp_path / "local" / "router.json").read_text())
    description["settings"]["encoder"]["name"] = str(tmp_path)
    (tmp_path / "local" / "router.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        push_router(tmp_path / "local", "someone/router")
    assert hub.requests == []


def test_a_hub_that_does_not_answer_is_one_error_with_a_reason(hub, saved):
    hub.shutdown()
    hub.server_close()
    with pytest.raises(ConnectionError, match="someone/router"):
        push_router(saved, "someone/router")
