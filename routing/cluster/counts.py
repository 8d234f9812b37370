"""Battles past one machine: pair counts, bootstrap and embeddings on a Dask cluster [Rocklin15].

All that ratings need from battles is a sum over battles, and whole numbers below 2**53 add up exactly in any order. So
a cluster computes what one machine computes, digit for digit. Dask schedules, moves, spills to disk, and computes again
what a lost worker held; no task here has an effect that a second time would change. Needs the extra "scale".
"""

from __future__ import annotations

import functools
import io
import pickle
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath

import cloudpickle
import dask
import dask.dataframe as dd
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
from dask.distributed import Client, Future, KilledWorker, wait

from routing.battles import PAIR_COLUMNS, PairCounts, count_pairs, validate_battles, warn_of_case
from routing.data.tables import KINDS, NAME_COLUMNS, READ_ERRORS, file_kind, parse_table
from routing.embeddings import PromptEncoder
from routing.ratings.bradley_terry import join_resamples, prepare_resampling, resample_ratings

OUTCOMES = ("wins", "ties", "losses")
MOST_TASKS = 500  # of a count: of more shards than that a task reads several, as a task costs more than a small shard
ROWS_AT_ONCE = 100_000  # of small shards that are counted together
SMALL_BYTES = 100_000  # of a shard that may be read as a part of one file
PATIENCE_S = 600.0  # that a wait lasts without progress
CHECK_S = 2.0  # between two looks at the cluster
VECTOR_LIST = pd.ArrowDtype(pa.list_(pa.float32()))
# A worker that is started again on a busy machine takes its time; by default a local cluster drops it after 15 s.
PATIENT = {"distributed.deploy.lost-worker-timeout": "10 minutes"}
PAIR_TABLE = pd.DataFrame(columns=[*PAIR_COLUMNS, *OUTCOMES]).astype(
    dict.fromkeys(PAIR_COLUMNS, "str") | dict.fromkeys(OUTCOMES, int)
)


def find_shards(address: str) -> list[str]:
    """Return the addresses of the shards at `address`, sorted; FileNotFoundError where there is none.

    A folder, a file or a pattern with ``*``: local, or any that fsspec knows (``s3://...``, ``gs://...``). Of a folder,
    the files below it of a kind that `file_kind` knows; names that begin with "." or "_" are passed over.
    """
    system, path = fsspec.core.url_to_fs(str(address))
    if "*" in path:
        found = system.glob(path)
    elif system.isdir(path):
        found = [file for file in system.find(path) if file_kind(file)]
    else:
        found = [path] if system.exists(path) else []
    shards = sorted(file for file in found if not PurePosixPath(file).name.startswith((".", "_")))
    if not shards:
        raise FileNotFoundError(f"{address} holds no shard ({', '.join(KINDS)})")
    if unknown := [file for file in shards if not file_kind(file)]:
        raise ValueError(f"shard {unknown[0]} is none of {', '.join(KINDS)}")
    return [system.unstrip_protocol(file) if "://" in str(address) else file for file in shards]


def read_shard(address: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return the named columns of one shard, those it has; ``attrs["shard"]`` is its address.

    Raises ValueError, with the address, for a file that cannot be read as what its name says.
    """
    kind = file_kind(address)
    try:
        with fsspec.open(address, "rb", compression="infer") as file:
            frame = parse_table(file, kind, columns)
    except FileNotFoundError:
        raise
    except READ_ERRORS as error:
        raise ValueError(f"shard {address} cannot be read as {kind}: {error}; replace it or leave it out") from error
    frame = frame[[name for name in columns if name in frame.columns]]
    if "embedding" in frame.columns and frame["embedding"].dtype == object:
        frame = frame.assign(embedding=pd.array(frame["embedding"].tolist(), dtype=VECTOR_LIST))
    frame.attrs["shard"] = address
    return frame


def embedding_column(vectors: np.ndarray) -> pd.api.extensions.ExtensionArray:
    """Return a matrix, (n_battles, width), as the column ``embedding`` of a table of battles.

    Dask turns lists in a column of objects into text; a column of this type it leaves alone.
    """
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    starts = pa.array(np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1])
    return pd.array(pa.ListArray.from_arrays(starts, flat), dtype=VECTOR_LIST)


def read_battles(address: str, columns: Sequence[str] = ("prompt", *NAME_COLUMNS)) -> dd.DataFrame:
    """Return these columns of all shards at `address`, as in `find_shards`: a Dask DataFrame, one partition per shard.

    Nothing is read yet. A shard has to fit a worker's memory several times over: about a million battles with
    prompts is a good size, or ten million without. Pair counts need no prompts: `NAME_COLUMNS` is enough.
    """
    meta = pd.DataFrame({name: pd.Series(dtype=VECTOR_LIST if name == "embedding" else "str") for name in columns})
    shards = find_shards(address)
    return dd.from_map(
        read_shard, shards, columns=tuple(columns), meta=meta, enforce_metadata=False, label="read-shard"
    )


@contextmanager
def naming(partition: pd.DataFrame) -> Iterator[None]:
    """Let a ValueError begin with the shard that a partition was read from, where that is known."""
    try:
        yield
    except ValueError as error:
        name = f"shard {partition.attrs['shard']}" if "shard" in partition.attrs else "a partition"
        raise ValueError(f"{name}: {error}") from None


def tabulate_partition(battles: pd.DataFrame) -> pd.DataFrame:
    """Count the pairs of one partition: model_a below model_b by name, int64 wins, ties and losses of model_a.

    Raises as `count_pairs`, naming the shard, but for a partition without rows, which counts nothing.
    """
    if len(battles) == 0 and {*NAME_COLUMNS} <= {*battles.columns}:
        return PAIR_TABLE
    with naming(battles):
        counts = count_pairs(battles)
    names = np.array(counts.models, dtype=object)
    first, second = np.nonzero(np.triu(counts.battles))
    columns = counts.wins[first, second], counts.ties[first, second], counts.wins[second, first]
    table = {"model_a": names[first], "model_b": names[second]}
    return pd.DataFrame(table | {name: c.astype(np.int64) for name, c in zip(OUTCOMES, columns, strict=True)})


def tabulate_shards(shards: Sequence[str], tabulate: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """Count the pairs of several shards as `tabulate_partition` does of one; small ones are counted together."""
    if len(shards) > 1:
        with suppress(*READ_ERRORS):  # what is wrong with which of them is said below
            return tabulate(_read_as_one(shards))
    tables, frames, n_rows = [], [], 0
    for number, shard in enumerate(shards, start=1):
        frames.append(read_shard(shard, NAME_COLUMNS))
        n_rows += len(frames[-1])
        if number == len(shards) or n_rows >= ROWS_AT_ONCE:
            tables.append(_tabulate_together(frames, tabulate))
            frames, n_rows = [], 0
    return tables[0] if len(tables) == 1 else pd.concat(tables).groupby(list(PAIR_COLUMNS), as_index=False).sum()


def _read_as_one(shards: Sequence[str]) -> pd.DataFrame:
    """Return small CSV shards with the same header as one table, as a table costs more time than its rows.

    ValueError for others, and where a row might not end with its line.
    """
    texts: list[bytes] = []
    for shard in shards:
        with fsspec.open(shard, "rb", compression="infer") as file:
            texts.append(file.read(SMALL_BYTES + 1))
        if file_kind(shard) != "CSV" or len(texts[-1]) > SMALL_BYTES or re.search(rb'["\r]', texts[-1]):
            raise ValueError(f"shard {shard} is not a small CSV file without quotes")
    header = texts[0].partition(b"\n")[0]
    if any(text.partition(b"\n")[0] != header for text in texts):
        raise ValueError("the shards have several headers")
    rows = [text.partition(b"\n")[2].rstrip(b"\n") for text in texts]
    return parse_table(io.BytesIO(b"\n".join([header, *rows])), "CSV", NAME_COLUMNS)


def _tabulate_together(frames: list[pd.DataFrame], tabulate: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    if len(frames) > 1 and all({*NAME_COLUMNS} <= {*frame.columns} for frame in frames):
        with suppress(ValueError):  # which of them is wrong is said below
            return tabulate(pd.concat(frames, ignore_index=True))
    return pd.concat([tabulate(frame) for frame in frames]).groupby(list(PAIR_COLUMNS), as_index=False).sum()


def untabulate(table: pd.DataFrame) -> PairCounts:
    """Return the pair counts that a table as of `tabulate_partition` holds; ValueError where it holds none."""
    if len(table) == 0:
        raise ValueError("the shards hold no battle")
    models = tuple(sorted({*table["model_a"], *table["model_b"]}))
    warn_of_case(models)  # each may stand in another shard
    index = pd.Index(models)
    first, second = index.get_indexer(table["model_a"]), index.get_indexer(table["model_b"])
    wins, ties = np.zeros((2, len(models), len(models)))
    wins[first, second], wins[second, first] = table["wins"], table["losses"]
    ties[first, second] = ties[second, first] = table["ties"]
    return PairCounts(models, wins, ties)


def count_battles(battles: dd.DataFrame | str, client: Client) -> PairCounts:
    """Count the pairs of sharded battles (or of the shards at an address), equal to `count_pairs` on all at once.

    One pass: each shard is counted where it is read, and tables of pairs, whose size does not grow with the number of
    battles, are added up in a tree on the workers. A worker holds as many shards at a time as it has threads. From an
    address of more than `MOST_TASKS` shards, a task reads several, one after the other.

    Raises
    ------
    ValueError
        As `count_pairs` and `read_shard`, naming the shard: all shards are counted, or none.
    RuntimeError
        A shard that killed several workers, or no progress as in `wait_for`.
    """
    shards: list[list[str]] = []
    if isinstance(battles, str):
        found = find_shards(battles)
        size = -(-len(found) // MOST_TASKS)
        shards = [found[begin : begin + size] for begin in range(0, len(found), size)]
        options = {"meta": PAIR_TABLE, "enforce_metadata": False, "label": "read-shard"}
        tables = dd.from_map(tabulate_shards, shards, tabulate=tabulate_partition, **options)
    else:
        tables = battles.map_partitions(tabulate_partition, meta=PAIR_TABLE, enforce_metadata=False)
    total = tables.groupby(list(PAIR_COLUMNS), sort=True).sum(split_every=8).optimize()
    tasks = [key for key in total.__dask_graph__() if key[0].startswith("read-")]  # (name, number of the task)
    read = {key: " or ".join(shards[key[1]]) for key in tasks if shards}
    return untabulate(gather(client, client.compute(total), read).reset_index())


def gather(client: Client, futures, shards: Mapping[tuple[str, int], str] | None = None):
    """Return the results of futures, or cancel them all and raise the first error. `shards`: what a task reads, by key.

    RuntimeError where the cluster makes no progress, as in `wait_for`.

    A task that was lost with one worker after another is a RuntimeError. A worker holds several tasks, and which of
    them killed it nobody knows: the message names every shard that was lost so often.
    """
    try:
        wait_for(client, futures)
        return client.gather(futures)
    except BaseException as error:
        reason = _explain_lost(client, error, shards or {}) if isinstance(error, KilledWorker) else None
        with suppress(Exception):  # the first error is the one to tell
            client.cancel(futures)
        if reason:
            raise reason from error
        raise


def wait_for(client: Client, futures: Future | list[Future]) -> None:
    """Wait until futures are done or one of them has failed.

    RuntimeError: for `PATIENCE_S` no task began or ended, and the workers that have tasks are paused, as Dask pauses
    those whose memory is near its limit, or there is none. It names them, their memory and their limit.
    """
    pending, progress, since = futures if isinstance(futures, list) else [futures], None, time.monotonic()
    while pending:
        with suppress(TimeoutError):
            wait(pending, timeout=CHECK_S)
        if any(future.status not in ("pending", "finished") for future in pending):
            return
        pending = [future for future in pending if future.status == "pending"]
        if not pending:
            return
        state = client.run_on_scheduler(  # a lambda goes by value: the scheduler's machine may lack this package
            lambda dask_scheduler: (
                dask_scheduler.transition_counter,
                [
                    (worker.address, worker.status.name, worker.metrics.get("memory", 0), worker.memory_limit)
                    for worker in dask_scheduler.workers.values()
                    if worker.processing or worker.status.name == "paused"
                ],
                len(dask_scheduler.workers),
            )
        )
        if state[0] != progress or any(status != "paused" for _, status, *_ in state[1]):
            progress, since = state[0], time.monotonic()
        elif time.monotonic() - since >= PATIENCE_S:
            raise RuntimeError(_explain_stall(*state[1:]))


def _explain_stall(paused: list[tuple[str, str, int, int]], n_workers: int) -> str:
    if not paused:
        why = "no task can run, as it has no worker" if not n_workers else f"none of its {n_workers} workers has a task"
        return f"the cluster made no progress for {PATIENCE_S:g} s: {why}; start workers, or restart the cluster"
    named = ", ".join(f"{address} ({used / 1e6:,.0f} of {limit / 1e6:,.0f} MB)" for address, _, used, limit in paused)
    return (
        f"the cluster made no progress for {PATIENCE_S:g} s: it paused workers whose memory is near its limit: {named}."
        " Raise memory_limit, use fewer threads or processes on each machine, or cut the battles into smaller shards"
    )


def _explain_lost(client: Client, error: KilledWorker, shards: Mapping[tuple[str, int], str]) -> RuntimeError:
    # A lambda goes by value: the scheduler's machine may lack this package.
    lost = client.run_on_scheduler(
        lambda dask_scheduler: [
            key for key, task in dask_scheduler.tasks.items() if task.suspicious > dask_scheduler.allowed_failures
        ]
    )
    suspects = " or ".join(sorted(shards[key] for key in lost if key in shards))
    return RuntimeError(
        f"{f'shard {suspects}' if suspects else f'task {error.task}'} killed {error.allowed_failures + 1} worker(s),"
        " one after the other, most likely because memory ran out: cut it into smaller shards, or add memory"
    )


def bootstrap_on_cluster(
    counts: PairCounts,
    n_resamples: int,
    rng: np.random.Generator,
    client: Client,
    ties: str = "half",
    prior_strength: float = 0.0,
) -> np.ndarray:
    """`bootstrap_ratings` with its blocks of resamples spread over the workers.

    Each block draws from a generator of its own, so the result is that of one machine, whatever the number of workers.
    """
    resampling = prepare_resampling(counts, ties, prior_strength)
    blocks = resampling.blocks(n_resamples, rng)
    shared = client.submit(pickle.loads, pickle.dumps(resampling))  # sent once per worker, not once per block
    futures = [client.submit(resample_ratings, shared, *block) for block in blocks]
    wait_for(client, futures)
    return join_resamples(resampling, blocks, [gather(client, future) for future in futures])


_unpickle_once = functools.lru_cache(maxsize=1)(pickle.loads)  # so that a process loads a model once
_loading = threading.Lock()


def encode_partition(battles: pd.DataFrame, encoder: bytes) -> np.ndarray:
    """Return unit vectors of a partition's prompts, (n_battles, width) float32, by a pickled `PromptEncoder`."""
    with naming(battles):
        checked = validate_battles(battles)
        if "prompt" not in checked.columns:
            raise ValueError("the battle table lacks column prompt")
        with _loading:  # a worker may have several threads
            loaded: PromptEncoder = _unpickle_once(encoder)
        return loaded.encode(checked["prompt"].tolist(), progress=False)


def encode_battles_on_cluster(battles: dd.DataFrame, encoder: PromptEncoder, client: Client) -> list[Future]:
    """Encode every prompt: per partition, in order, a future of unit vectors, (n_battles, width) float32.

    The vectors stay where they were made. With `encoder.cache` each machine keeps its own cache on disk.
    """
    pickled = cloudpickle.dumps(encoder)
    futures = client.compute([dask.delayed(encode_partition)(part, pickled) for part in battles.to_delayed()])
    wait_for(client, futures)
    return futures
