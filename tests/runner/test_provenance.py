"""The manifest says what it should, nothing of the machine, and is there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from routing.files import hash_file, hash_table, write_json
from routing.runner import provenance
from routing.runner.provenance import MANIFEST, describe_code, start_run

PARAMETERS = {"profile": "smoke", "seed": 7, "rate": 0.5, "shuffle": True}
TABLE = pd.DataFrame({"model": ["a", "b"], "rating": [0.25, -0.25]})


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_manifest_holds_hashes_of_what_went_in_and_what_came_out(tmp_path):
    data = tmp_path / "votes.csv"
    data.write_bytes(b"a,b\n1,2\n")
    run = start_run("01_bradley_terry", PARAMETERS, tmp_path / "results")
    run.record_input("votes", data, "real")
    run.record_input("arena", TABLE, "simulated")
    (run.folder / "deep").mkdir()
    (run.folder / "deep" / "scores.csv").write_bytes(b"x\n")
    run.finish()
    run.finish()  # a cell run twice: the first manifest is no output
    manifest = json.loads((run.folder / MANIFEST).read_text())

    assert manifest["parameters"] == PARAMETERS
    assert manifest["inputs"]["votes"] == {"sha256": hashlib.sha256(b"a,b\n1,2\n").hexdigest(), "data": "real"}
    assert manifest["inputs"]["arena"] == {"sha256": hash_table(TABLE), "data": "simulated"}
    assert manifest["outputs"] == {"deep/scores.csv": hashlib.sha256(b"x\n").hexdigest()}
    assert manifest["seconds"] >= 0
    assert manifest["versions"]["numpy"] == pytest.importorskip("numpy").__version__
    assert set(manifest["versions"]) == {"python", "routing", *provenance.PACKAGES}
    assert {path.name for path in run.folder.iterdir()} == {"deep", "manifest.json"}


def test_the_manifest_names_no_path_and_no_host(tmp_path):
    parameters = {**PARAMETERS, "results_dir": str(tmp_path / "results"), "label": "a/b"}
    run = start_run("01_bradley_terry", parameters, tmp_path / "results")
    run.record_input("arena", TABLE, "simulated")
    run.finish()
    text = (run.folder / MANIFEST).read_text()
    assert json.loads(text)["parameters"] == {**PARAMETERS, "results_dir": "results", "label": "a/b"}
    for secret in (str(tmp_path), str(Path.cwd()), str(Path.home()) + "/", socket.gethostname()):
        assert secret not in text


def test_a_new_run_removes_what_the_last_one_made_and_nothing_else(tmp_path):
    run = start_run("01_bradley_terry", PARAMETERS, tmp_path)
    (run.folder / "old.png").write_bytes(b"old")
    run.record_input("arena", TABLE, "simulated")
    run.finish()
    (run.folder / "notes.txt").write_bytes(b"mine")
    start_run("01_bradley_terry", PARAMETERS, tmp_path)
    assert {path.name for path in run.folder.iterdir()} == {"notes.txt"}
    assert not (run.folder / MANIFEST).exists()  # so that a run that is aborted now leaves none


def test_a_manifest_that_was_tampered_with_removes_nothing_outside_its_folder(tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_bytes(b"1")
    folder = start_run("01_bradley_terry", PARAMETERS, tmp_path).folder
    (folder / "manifest.json").write_text(json.dumps({"outputs": {"../precious.txt": "", str(precious): ""}}))
    start_run("01_bradley_terry", PARAMETERS, tmp_path)
    assert precious.exists()


@pytest.mark.parametrize("name", ["bradley_terry", "1_bt", "../01_bt", "01_bt/x", ""])
def test_a_run_is_named_as_a_notebook(tmp_path, name):
    with pytest.raises(ValueError, match="01_bradley_terry"):
        start_run(name, PARAMETERS, tmp_path)


def test_bad_parameters_and_inputs_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"parameter sizes is \[1\]"):
        start_run("01_bt", {"sizes": [1]}, tmp_path)
    run = start_run("01_bt", PARAMETERS, tmp_path)
    with pytest.raises(ValueError, match="recorded no input"):
        run.finish()
    with pytest.raises(ValueError, match="data is 'fake'"):
        run.record_input("votes", TABLE, "fake")
    with pytest.raises(FileNotFoundError, match="missing.csv"):
        run.record_input("votes", tmp_path / "missing.csv", "real")
    assert run.inputs == {}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_dirty_means_anything_but_results_and_runs(tmp_path):
    package, unknown = tmp_path / "package", {"commit": None, "dirty": None}
    package.mkdir()
    (package / "__init__.py").write_text("1")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "routing"\n')
    assert describe_code(package) == unknown
    git(tmp_path, "init", "--quiet")
    assert describe_code(package) == unknown  # not tracked
    git(tmp_path, "add", ".")
    assert describe_code(package) == {"commit": None, "dirty": True}
    git(tmp_path, "commit", "--quiet", "--message", "first")
    clean = {"commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    assert describe_code(package) == clean
    for folder in ("results", "runs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "figure.png").write_text("1")
    assert describe_code(package) == clean
    (tmp_path / "README.md").write_text("changed beside the package")
    assert describe_code(package) == {**clean, "dirty": True}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("place", ["package", "lib/package"])
def test_a_copy_within_another_repository_has_no_commit(tmp_path, place):
    package = tmp_path / place
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("1")
    for folder, name in ((tmp_path, "other"), (package.parent, "other" if place == "package" else "routing")):
        (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    assert describe_code(package) == {"commit": None, "dirty": None}


def test_without_git_the_code_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_code() == {"commit": None, "dirty": None}


def test_an_output_made_after_the_run_is_added_to_its_manifest(tmp_path):
    late = tmp_path / "01_a.ipynb"
    late.write_text("{}")
    provenance.record_output(late)  # without a manifest there is nothing to add to
    write_json(tmp_path / "manifest.json", {"name": "01_a", "outputs": {"a.png": "1"}})
    provenance.record_output(late)
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content == {"name": "01_a", "outputs": {"a.png": "1", "01_a.ipynb": hash_file(late)}}
