"""A file is there whole or not at all, whoever else writes it and whoever is killed; a folder has one writer."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from routing import files
from routing.files import hash_table, lock_folder, write_atomically, write_whole

TABLE = pd.DataFrame({"model": ["a", "b"], "rating": [0.25, -0.25]})
HOLD = """
import os, sys
from pathlib import Path
from routing import files
{hold}
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold():
    """Start a process that opens a block and stays in it until it is killed."""
    processes = []

    def start(block: str) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD.format(hold=block)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == f"{process.pid}\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_racing_writes_all_succeed_and_leave_one_whole_file(tmp_path):
    path = tmp_path / "a.bin"
    contents = [bytes([number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            list(pool.map(lambda content: write_atomically(path, content), contents))
            assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_the_next_write_removes_what_a_killed_process_left_and_nothing_else(tmp_path, hold):
    path, other, used = tmp_path / "a[1].txt", tmp_path / ".b.txt.1.partial", tmp_path / ".a[1].txt.1.partial"
    other.touch()
    used.touch()
    process = hold(f"with files.locked(Path({str(used)!r})):")
    write_atomically(path, "1")
    assert {*tmp_path.iterdir()} == {path, other, used}  # its writer is alive
    process.kill()
    process.wait()
    write_atomically(path, "2")
    assert {*tmp_path.iterdir()} == {path, other} and path.read_text() == "2"


def test_a_folder_appears_whole_or_not_at_all_and_never_over_another(tmp_path):
    target = tmp_path / "router"
    with pytest.raises(KeyError), write_whole(target, folder=True) as partial:
        (partial / "a").touch()
        raise KeyError
    assert not [*tmp_path.iterdir()]
    with write_whole(target, folder=True) as partial:
        (partial / "a").touch()
    with pytest.raises(OSError), write_whole(target, folder=True) as partial:
        (partial / "b").touch()
    assert [*tmp_path.rglob("*")] == [target, target / "a"]


def test_a_folder_is_locked_for_one_process_and_free_when_that_one_is_killed(tmp_path, hold):
    process = hold(f"with files.lock_folder(Path({str(tmp_path)!r})):")
    with pytest.raises(ValueError, match=f"{process.pid} .*{tmp_path}"), lock_folder(tmp_path):
        pass
    process.kill()
    process.wait()
    with lock_folder(tmp_path):
        assert len([*tmp_path.iterdir()]) == 1
    assert not [*tmp_path.iterdir()]


def test_a_tables_hash_follows_values_names_and_order_but_not_the_index():
    reference = hash_table(TABLE)
    assert hash_table(TABLE.set_axis([5, 9], axis=0)) == reference
    changed = [TABLE.iloc[::-1], TABLE.rename(columns={"rating": "elo"}), TABLE.assign(rating=[0.25, -0.26])]
    assert len({reference, *map(hash_table, changed)}) == 4
