"""Notebooks on a cluster: real worker processes, one of them killed, and a client that is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from routing.__main__ import main
from routing.runner import run
from routing.runner.cluster import connect
from routing.runner.run import run_notebooks
from tests.runner.test_run import write_notebook

KILL_THE_WORKER = """import os, signal, time
from pathlib import Path
marker = Path(note)
if not marker.exists():
    marker.touch()
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)"""
WAIT = """import time
from pathlib import Path
with Path(note + ".runs").open("a") as log:
    log.write("run\\n")
while not Path(note).exists():
    time.sleep(0.02)"""


def test_a_grid_runs_on_a_cluster_while_a_worker_is_killed(cluster, client, tmp_path, capsys):
    write_notebook(tmp_path / "nb" / "01_kills.ipynb", KILL_THE_WORKER)
    write_notebook(tmp_path / "nb" / "02_fails.ipynb", "assert seed < 2")
    arguments = ["run", "--profile", "smoke", "--notebooks", str(tmp_path / "nb"), "--output", str(tmp_path / "out")]
    arguments += ["-p", "note", str(tmp_path / "died"), "--grid", "seed=1,2", "--cluster", cluster.scheduler_address]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.err == "routing: seed=2: 02_fails failed in cell 4 (`assert seed < 2`): AssertionError:\n"
    assert "[1/4] 01_kills seed=1  sent" in printed.out and "[3/4] 01_kills seed=2  ok" in printed.out
    assert (tmp_path / "died").exists()

    table = pd.read_csv(tmp_path / "out" / "grid.csv")
    assert table["seed"].tolist() == [1, 1, 2, 2]
    assert table["status"].tolist() == ["ok", "ok", "ok", "failed"]
    for seed in (1, 2):
        manifest = json.loads((tmp_path / "out" / f"seed={seed}" / "manifest.json").read_text())
        assert manifest["parameters"]["seed"] == str(seed)
        assert [entry["parameters"]["seed"] for entry in manifest["notebooks"]] == [seed, seed]
        assert (tmp_path / "out" / f"seed={seed}" / "01_kills.html").exists()
    assert not list((tmp_path / "out").rglob("*.partial*"))


def test_a_client_that_comes_back_waits_for_what_still_runs(cluster, client, tmp_path):
    note = tmp_path / "go"
    write_notebook(tmp_path / "nb" / "01_waits.ipynb", WAIT)
    arguments = ["run", "--profile", "smoke", "--notebooks", str(tmp_path / "nb"), "--output", str(tmp_path / "out")]
    arguments += ["-p", "note", str(note), "--cluster", cluster.scheduler_address]
    lost = subprocess.Popen([sys.executable, "-m", "routing", *arguments], stdout=subprocess.DEVNULL)
    while not Path(f"{note}.runs").exists():
        assert lost.poll() is None
        time.sleep(0.02)
    os.kill(lost.pid, signal.SIGKILL)
    lost.wait()
    back = subprocess.Popen([sys.executable, "-m", "routing", *arguments], stdout=subprocess.PIPE, text=True)
    assert back.stdout.readline() == "[1/1] 01_waits  sent\n"
    note.touch()
    assert back.communicate()[0].startswith("[1/1] 01_waits  ok") and back.returncode == 0
    assert Path(f"{note}.runs").read_text() == "run\n"  # once


def test_addresses_that_lead_nowhere_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("routing.runner.cluster.CONNECT_TIMEOUT_S", 0.2)
    for address, message in {
        "local:": "write local:N",
        "local:0": "write local:N",
        "tcp://127.0.0.1:9": "Timed out trying to connect",
    }.items():
        with pytest.raises((ValueError, OSError), match=message), connect(address):
            pass
    write_notebook(tmp_path / "nb" / "01_a.ipynb")
    with pytest.raises(ValueError, match="--jobs is of this machine"):
        run_notebooks("smoke", tmp_path / "nb", jobs=2, cluster="local:2")


def test_workers_have_this_package_and_see_the_folders(cluster, client, tmp_path, monkeypatch):
    write_notebook(tmp_path / "nb" / "01_a.ipynb")
    options = {"output": tmp_path / "out", "cluster": cluster.scheduler_address}
    monkeypatch.setattr("routing.runner.provenance.hash_package", lambda: "other code")
    with pytest.raises(ValueError, match="worker tcp://.* runs another version of this package"):
        run_notebooks("smoke", tmp_path / "nb", **options)
    monkeypatch.undo()
    plan = run._plan

    def hide(*arguments):
        planned = plan(*arguments)
        for name, task in planned.tasks.items():
            planned.tasks[name] = task.__class__(**{**vars(task), "copy": tmp_path / "elsewhere" / task.copy.name})
        return planned

    monkeypatch.setattr(run, "_plan", hide)
    with pytest.raises(ValueError, match="does not see the folder .*elsewhere; notebooks and --output have to lie"):
        run_notebooks("smoke", tmp_path / "nb", **options)
