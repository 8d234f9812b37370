"""A cluster gives what one machine gives, digit for digit, also while its worker processes are killed."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.distributed import Client
from hypothesis import given
from hypothesis import strategies as st

from routing.battles import PAIR_COLUMNS, PairCounts, count_pairs
from routing.cluster.counts import (
    PATIENCE_S,
    bootstrap_on_cluster,
    count_battles,
    encode_battles_on_cluster,
    find_shards,
    gather,
    read_battles,
    read_shard,
    tabulate_partition,
    tabulate_shards,
    untabulate,
    wait_for,
)
from routing.data.tables import NAME_COLUMNS, read_table
from routing.embeddings import PromptEncoder
from routing.ratings.bradley_terry import bootstrap_ratings
from tests.conftest import battle_tables, embed

WRITERS = {
    "0.parquet": lambda table, path: table.to_parquet(path),
    "1.csv": lambda table, path: table.to_csv(path, index=False),
    "2.jsonl": lambda table, path: table.to_json(path, orient="records", lines=True),
    "3.json": lambda table, path: table.to_json(path, orient="records"),
    "4.csv.gz": lambda table, path: table.to_csv(path, index=False),
    "5.parquet": lambda table, path: table.assign(model_a=table["model_a"].astype("category")).to_parquet(path),
}


def make_battles(n_battles: int = 900, seed: int = 1) -> pd.DataFrame:
    """Battles of seven models; one name looks like a number, one like a missing value."""
    rng = np.random.default_rng(seed)
    names = np.array(["ant", "bee", "cat", "42", "null-model", "Écureuil", "gnu"])
    first = rng.integers(7, size=n_battles)
    second = (first + rng.integers(1, 7, size=n_battles)) % 7
    return pd.DataFrame(
        {
            "prompt": [f"question {n}" for n in rng.integers(60, size=n_battles)],
            "model_a": names[first],
            "model_b": names[second],
            "winner": rng.choice(["model_a", "tie", "model_b"], size=n_battles, p=[0.4, 0.3, 0.3]),
        }
    )


def write_shards(folder: Path, battles: pd.DataFrame) -> Path:
    folder.mkdir()
    for (name, write), rows in zip(WRITERS.items(), np.array_split(np.arange(len(battles)), 6), strict=True):
        write(battles.iloc[rows], folder / name)
    return folder


@pytest.fixture(scope="module")
def battles() -> pd.DataFrame:
    return make_battles()


@pytest.fixture
def shards(tmp_path, battles) -> Path:
    return write_shards(tmp_path / "shards", battles)


def assert_equal_counts(counts: PairCounts, expected: PairCounts) -> None:
    assert counts.models == expected.models
    np.testing.assert_array_equal(counts.wins, expected.wins)
    np.testing.assert_array_equal(counts.ties, expected.ties)


def die_once(value, marker: str):
    """`value`; but the process that comes here first is killed as by the system, in the middle of its task."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return value
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


@contextmanager
def kill_a_busy_worker(client: Client, n_kills: int = 1) -> Iterator[list[int]]:
    """Kill worker processes while they work, from another thread; gives the list of the killed ones."""
    pids = client.run(os.getpid, on_error="ignore")  # one may just have been killed
    killed: list[int] = []
    left = threading.Event()

    def watch() -> None:
        while not left.is_set() and len(killed) < n_kills:
            busy = [worker for worker, tasks in client.processing().items() if tasks and worker in pids]
            if busy:
                killed.append(pids.pop(busy[0]))
                os.kill(killed[-1], signal.SIGKILL)
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        left.set()
        thread.join()


# -- pair counts ------------------------------------------------------------------------------------------------------


@given(battle_tables(), st.randoms(use_true_random=False), st.integers(1, 5))
def test_tables_of_any_parts_add_up_to_the_counts_of_the_whole(table, random, n_parts):
    rows = list(range(len(table)))
    random.shuffle(rows)
    parts = [table.iloc[part] for part in np.array_split(rows, n_parts) if len(part)]
    added = pd.concat([tabulate_partition(part) for part in parts]).groupby(list(PAIR_COLUMNS)).sum()
    assert (added.dtypes == np.int64).all()
    assert_equal_counts(untabulate(added.reset_index()), count_pairs(table))


def test_shards_of_every_format_are_counted_as_one_table(client, shards, battles):
    (shards / "_SUCCESS").write_text("")
    (shards / ".5.parquet.crc").write_text("")
    (shards / "notes.txt").write_text("not a shard")
    assert [Path(name).name for name in find_shards(str(shards))] == list(WRITERS)
    expected = count_pairs(battles)
    assert_equal_counts(count_battles(str(shards), client), expected)
    assert_equal_counts(count_battles(read_battles(f"file://{shards}/[0-9].*"), client), expected)
    some = read_battles(str(shards))
    assert_equal_counts(
        count_battles(some[some["model_a"] == "ant"], client), count_pairs(battles[battles["model_a"] == "ant"])
    )
    frame = dd.from_pandas(battles, npartitions=4)
    assert_equal_counts(count_battles(frame, client), expected)


def test_only_the_columns_asked_for_are_read(shards):
    for name in WRITERS:
        assert set(read_shard(str(shards / name), NAME_COLUMNS).columns) == set(NAME_COLUMNS)


def test_a_shard_is_read_as_train_reads_its_table(tmp_path):
    rows = '\ufeffprompt,model_a,model_b,winner\nNA,None, 7,A\n"two\nlines",7\u00a0,None,B\n,,,\n'
    (tmp_path / "shard.csv").write_text(rows)
    shard = read_shard(str(tmp_path / "shard.csv"), ("prompt", *NAME_COLUMNS))
    assert_equal_counts(untabulate(tabulate_partition(shard)), count_pairs(read_table(tmp_path / "shard.csv", shard)))
    assert tabulate_partition(shard).iloc[0].tolist() == ["7", "None", 0, 0, 2]
    assert shard["prompt"].tolist() == ["NA", "two\nlines"]
    (tmp_path / "shard.csv").write_text("prompt,model_a,model_b,winner\nhi, you,x,y,tie\n")
    with pytest.raises(ValueError, match="shard.csv .*row 0 has 5 fields"):
        read_shard(str(tmp_path / "shard.csv"), NAME_COLUMNS)
    pd.DataFrame({"model_a": [7], "model_b": [3.5], "winner": [0.5]}).to_parquet(tmp_path / "shard.parquet")
    shard = read_shard(str(tmp_path / "shard.parquet"), ("prompt", *NAME_COLUMNS))
    assert tabulate_partition(shard).iloc[0].tolist() == ["3.5", "7", 0, 1, 0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "9.csv",
            b"prompt,model_a,model_b,winner\np,x,y,tie\np,x,y,won\n",
            "row 1, column winner: unknown label",
        ),
        ("9.csv", b"prompt,model_a,model_b,winner\np,x,,tie\n", "row 0, column model_b: no model name"),
        ("9.csv", b"prompt,model_a,model_b\np,x,y\n", "the battle table lacks column winner"),
        ("9.csv", b"", "cannot be read as CSV"),
        ("9.jsonl", b'{"model_a": "x", "model_b": "x", "winner": "tie"}\n', "column model_a: 'x' meets itself"),
        ("9.jsonl", b'{"model_a": "x", "mod', "cannot be read as JSON"),
        ("9.csv.gz", "cut", "cannot be read as CSV"),
        ("9.parquet", "cut", "cannot be read as Parquet"),
    ],
)
def test_a_bad_shard_is_named_and_nothing_is_counted(client, shards, name, content, message):
    if content == "cut":
        whole = (shards / next(other for other in WRITERS if other.endswith(name[1:]))).read_bytes()
        content = whole[: len(whole) // 2]
    (shards / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"^shard {shards / name}.*{message}"):
        count_battles(str(shards), client)


def test_empty_shards_count_nothing(client, shards, battles, tmp_path):
    (shards / "9.csv").write_text("prompt,model_a,model_b,winner\n")
    assert_equal_counts(count_battles(str(shards), client), count_pairs(battles))
    with pytest.raises(ValueError, match="the shards hold no battle"):
        count_battles(str(shards / "9.csv"), client)


def test_no_shard_or_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no shard"):
        find_shards(str(tmp_path))
    (tmp_path / "battles.xlsx").write_text("")
    with pytest.raises(ValueError, match="battles.xlsx is none of .*.csv"):
        find_shards(str(tmp_path / "battles.xlsx"))


# -- bootstrap and embeddings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", ["half", "davidson"])
def test_resamples_are_those_of_one_machine(client, battles, ties):
    counts = count_pairs(battles)
    expected = bootstrap_ratings(counts, 150, np.random.default_rng(3), ties)
    np.testing.assert_array_equal(bootstrap_on_cluster(counts, 150, np.random.default_rng(3), client, ties), expected)
    assert len(np.unique(expected[:, 0])) == 150  # no block repeats another's draws


def test_a_resample_without_ratings_raises_as_on_one_machine(client):
    counts = PairCounts(("x", "y"), np.array([[0, 1.0], [30, 0]]), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="in resample .* x lost every battle") as ours:
        bootstrap_ratings(counts, 100, np.random.default_rng(1))
    with pytest.raises(ValueError) as theirs:
        bootstrap_on_cluster(counts, 100, np.random.default_rng(1), client)
    assert str(theirs.value) == str(ours.value)


class LoggedModel:
    """A callable encoder that notes in a file which process loads it."""

    def __init__(self, log: str) -> None:
        self.log = log

    def __reduce__(self):
        return load_logged, (self.log,)

    def __call__(self, prompts: list[str]) -> np.ndarray:
        return embed(prompts)


def load_logged(log: str) -> LoggedModel:
    with open(log, "a") as file:
        file.write(f"{os.getpid()}\n")
    return LoggedModel(log)


def test_prompts_are_encoded_with_a_model_loaded_once_a_worker(client, shards, battles, tmp_path):
    encoder = PromptEncoder(LoggedModel(str(tmp_path / "log")), cache=False)
    vectors = gather(client, encode_battles_on_cluster(read_battles(str(shards)), encoder, client))
    assert [len(part) for part in vectors] == [150] * 6
    np.testing.assert_array_equal(np.concatenate(vectors), encoder.encode(battles["prompt"].tolist()))
    loaded = (tmp_path / "log").read_text().split()
    assert len(loaded) == len(set(loaded)) <= 2
    nameless = read_battles(str(shards), NAME_COLUMNS)
    with pytest.raises(ValueError, match="^shard .*0.parquet: the battle table lacks column prompt"):
        gather(client, encode_battles_on_cluster(nameless, encoder, client)[:1])


# -- faults -----------------------------------------------------------------------------------------------------------


def test_a_worker_killed_while_it_counts_loses_nothing(client, shards, battles, tmp_path):
    sharded = read_battles(str(shards))
    dying = sharded.map_partitions(die_once, str(tmp_path / "died"), meta=sharded._meta, enforce_metadata=False)
    assert_equal_counts(count_battles(dying, client), count_pairs(battles))
    assert (tmp_path / "died").exists()


def test_a_worker_killed_while_it_resamples_loses_nothing(client, battles):
    counts = count_pairs(battles)
    with kill_a_busy_worker(client) as killed:
        drawn = bootstrap_on_cluster(counts, 5000, np.random.default_rng(3), client)
    assert killed
    np.testing.assert_array_equal(drawn, bootstrap_ratings(counts, 5000, np.random.default_rng(3)))


class DyingModel(LoggedModel):
    def __reduce__(self):
        return DyingModel, (self.log,)

    def __call__(self, prompts: list[str]) -> np.ndarray:
        return die_once(embed(prompts), self.log)


def test_a_worker_killed_while_it_encodes_loses_nothing(client, shards, battles, tmp_path):
    encoder = PromptEncoder(DyingModel(str(tmp_path / "died")), cache=False)
    vectors = gather(client, encode_battles_on_cluster(read_battles(str(shards)), encoder, client))
    assert (tmp_path / "died").exists()
    np.testing.assert_array_equal(np.concatenate(vectors), PromptEncoder(embed, cache=False).encode(battles["prompt"]))


def always_die(battles: pd.DataFrame) -> pd.DataFrame:
    """What the system does to a process whose shard does not fit its memory."""
    if battles.attrs["shard"].endswith("4.csv.gz"):
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    return tabulate_partition(battles)


def test_a_shard_that_kills_every_worker_is_named(client, shards, monkeypatch):
    """With others where they waited on the same worker each time, so at the least patience perhaps one more."""
    client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 0))
    monkeypatch.setattr("routing.cluster.counts.tabulate_partition", always_die)
    try:
        with pytest.raises(RuntimeError, match="memory") as caught:
            count_battles(str(shards), client)
    finally:
        client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 3))
    named = re.fullmatch(r"shard (.*) killed 1 worker\(s\), .*", str(caught.value))[1].split(" or ")
    assert str(shards / "4.csv.gz") in named
    assert len(named) < len(list(shards.iterdir()))


def test_of_many_shards_a_task_reads_several(client, shards, battles, monkeypatch):
    monkeypatch.setattr("routing.cluster.counts.MOST_TASKS", 2)
    assert_equal_counts(count_battles(str(shards), client), count_pairs(battles))
    (shards / "3.csv").write_text("model_a,model_b,winner\nant,bee,model_a\nant,bee,nobody\n")
    with pytest.raises(ValueError, match=f"^shard {shards / '3.csv'}: .*nobody"):
        count_battles(str(shards), client)
    (shards / "3.csv").write_text("model_a,model_b\n")
    with pytest.raises(ValueError, match=f"^shard {shards / '3.csv'}: .*winner"):
        count_battles(str(shards), client)


@pytest.mark.parametrize("end", ["\n", "\r\n", ""], ids=["lines", "carriage returns", "no last line end"])
def test_small_shards_are_read_as_one_file_where_that_is_safe(tmp_path, battles, monkeypatch, end):
    names = battles[list(NAME_COLUMNS)]
    for number in range(6):
        text = names[number::6].to_csv(index=False, lineterminator=end or "\n")
        (tmp_path / f"{number}.csv").write_bytes(text.encode() if end else text.rstrip("\n").encode())
    (tmp_path / "6.csv").write_text("model_a,model_b,winner\n")  # a shard without battles
    paths = find_shards(str(tmp_path))
    opened = []
    monkeypatch.setattr("routing.cluster.counts.read_shard", lambda *some: opened.append(some) or read_shard(*some))
    assert_equal_counts(untabulate(tabulate_shards(paths, tabulate_partition)), count_pairs(battles))
    assert len(opened) == (7 if end == "\r\n" else 0)


@pytest.mark.parametrize(
    "text",
    [
        'model_a,model_b,winner\n"ant, first",bee,model_a\n',
        "model_a,winner,model_b\nant,model_a,bee\n",
        "\nmodel_a,model_b,winner\nant,bee,model_a\n",
    ],
    ids=["quotes", "another header", "blank line before the header"],
)
def test_shards_that_only_look_alike_are_read_one_by_one(tmp_path, text):
    tables = ["model_a,model_b,winner\nant,bee,tie\n", text]
    for number, table in enumerate(tables):
        (tmp_path / f"{number}.csv").write_text(table)
    paths = find_shards(str(tmp_path))
    expected = count_pairs(pd.concat([read_shard(path, NAME_COLUMNS) for path in paths], ignore_index=True))
    assert_equal_counts(untabulate(tabulate_shards(paths, tabulate_partition)), expected)
    assert expected.battles.sum() == 4  # each is in two cells


class StalledCluster:
    """A client of a cluster whose scheduler reports the same at every look, and a future of it that never ends."""

    status = "pending"

    def __init__(self, *workers: SimpleNamespace) -> None:
        self.scheduler = SimpleNamespace(transition_counter=7, workers={w.address: w for w in workers})
        self.cancelled = False

    def run_on_scheduler(self, look):
        return look(self.scheduler)

    def cancel(self, futures) -> None:
        self.cancelled = True


def worker(number: int, status: str, tasks: int) -> SimpleNamespace:
    state = SimpleNamespace(name=status)
    room = {"metrics": {"memory": 950_000_000}, "memory_limit": 1_000_000_000}
    return SimpleNamespace(address=f"tcp://worker-{number}", status=state, processing=range(tasks), **room)


def test_a_wait_without_progress_ends_and_names_the_paused_workers(monkeypatch):
    def pass_time(futures, timeout: float) -> None:
        clock[0] += timeout
        raise TimeoutError

    clock = [0.0]
    monkeypatch.setattr("routing.cluster.counts.wait", pass_time)
    monkeypatch.setattr("routing.cluster.counts.time.monotonic", lambda: clock[0])
    stalled = StalledCluster(worker(1, "running", 0), worker(2, "paused", 3))
    with pytest.raises(RuntimeError, match=r"600 s.*tcp://worker-2 \(950 of 1,000 MB\).*memory_limit") as caught:
        gather(stalled, stalled)
    assert stalled.cancelled and "worker-1" not in str(caught.value)
    assert PATIENCE_S <= clock[0] < PATIENCE_S + 10
    with pytest.raises(RuntimeError, match="no worker"):
        gather(StalledCluster(), stalled)


def test_a_long_task_is_waited_for(monkeypatch):
    def pass_time(futures, timeout: float) -> None:
        clock[0] += timeout
        busy.status = "pending" if clock[0] < 10 * PATIENCE_S else "finished"
        raise TimeoutError

    clock, busy = [0.0], StalledCluster(worker(1, "running", 1))
    monkeypatch.setattr("routing.cluster.counts.wait", pass_time)
    monkeypatch.setattr("routing.cluster.counts.time.monotonic", lambda: clock[0])
    wait_for(busy, busy)
    assert clock[0] >= 10 * PATIENCE_S


def hold_until(battles: pd.DataFrame, marker: str) -> pd.DataFrame:
    Path(marker + ".begun").touch()
    while not Path(marker).exists():
        time.sleep(0.01)
    return battles


def test_a_client_that_comes_back_gets_the_same_counts(cluster, client, shards, battles, tmp_path):
    sharded = read_battles(str(shards))
    held = sharded.map_partitions(hold_until, str(tmp_path / "go"), meta=sharded._meta, enforce_metadata=False)
    lost = Client(cluster)
    future = lost.compute(held)
    while not (tmp_path / "go.begun").exists():
        time.sleep(0.01)
    lost.close()  # with its work under way
    assert future.status == "cancelled"
    (tmp_path / "go").touch()
    assert_equal_counts(count_battles(held, client), count_pairs(battles))
