"""Past one machine, measured: votes, similarity weighting and growth on one and two Dask workers of this machine.

    python benchmarks/scale.py            (with the extra "scale" installed; about ten minutes, 10 GB of memory)

Writes results/benchmarks/scale_*.{png,csv}. Votes are simulated into shards by the workers and counted from there; the
whole is never held anywhere. What one machine counts for comparison it streams, one shard at a time.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import tempfile
import time
from pathlib import Path

import dask
import dask.dataframe as dd
import matplotlib
import numpy as np
import pandas as pd
from dask.distributed import Client, LocalCluster

from routing.battles import PairCounts, count_pairs
from routing.cluster import similarity as scale_similarity
from routing.cluster.counts import PATIENT, count_battles, embedding_column, find_shards, read_shard
from routing.cluster.similarity import ShardedSimilarityRouter
from routing.data.tables import NAME_COLUMNS
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.routers.similarity import SimilarityRouter
from routing.studies.overhead.growth import plot_cluster_growth
from routing.studies.overhead.timing import peak_memory_mib
from routing.studies.plotting import save_figure, set_style

FOLDER = Path(__file__).parents[1] / "results" / "benchmarks"
N_MODELS, SHARD_ROWS = 64, 1_000_000
N_BATTLES, WIDTH, N_PROMPTS, N_SHARDS = 1_000_000, 384, 256, 16
BATCH = 32  # prompts, for one worker and for two
MEMORY_LIMIT = "1.5GB"
OPTIONS = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "local_directory": tempfile.gettempdir()}


def simulate_battles(n_rows: int, seed: list[int]) -> pd.DataFrame:
    """Battles of 64 models with known ratings, by Davidson's model with nu = 1; names as categories."""
    rng = np.random.default_rng(seed)
    theta = np.linspace(-1.5, 1.5, N_MODELS)
    first = rng.integers(N_MODELS, size=n_rows)
    second = (first + rng.integers(1, N_MODELS, size=n_rows)) % N_MODELS
    lead = np.exp((theta[first] - theta[second]) / 2)
    draw = rng.random(n_rows) * (lead + 1 + 1 / lead)
    outcome = (draw > lead).astype(int) + (draw > lead + 1)
    names = [f"model {number:02}" for number in range(N_MODELS)]
    return pd.DataFrame(
        {
            "model_a": pd.Categorical.from_codes(first, names),
            "model_b": pd.Categorical.from_codes(second, names),
            "winner": pd.Categorical.from_codes(outcome, ["model_a", "tie", "model_b"]),
        }
    )


def write_table(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def write_shard(path: str, n_rows: int, seed: list[int]) -> None:
    simulate_battles(n_rows, seed).to_parquet(path, index=False)


def reset_peak_memory() -> None:
    """Let `peak_memory_mib` of this worker process start anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def busiest(client: Client, begin_cpu_s: dict[str, float]) -> float:
    """Processor seconds of the worker that had the most to do since `begin_cpu_s`."""
    return max(end - begin_cpu_s[worker] for worker, end in client.run(time.process_time).items())


def count_streamed(folder: Path) -> PairCounts:
    """Counts by one process without Dask, shard by shard: what the cluster's have to equal exactly."""
    models, wins, ties = None, 0.0, 0.0
    for shard in find_shards(str(folder)):
        counts = count_pairs(read_shard(shard, NAME_COLUMNS))
        if models not in (None, counts.models):
            raise ValueError(f"{shard} has other models than the first shard")
        models, wins, ties = counts.models, wins + counts.wins, ties + counts.ties
    return PairCounts(models, wins, ties)


def measure_votes(sizes: list[int], repeats: int, scratch: Path) -> pd.DataFrame:
    """Seconds and memory a worker from shards on disk to ratings, for numbers of votes and workers."""
    rows = []
    for size in sizes:
        folder = scratch / f"votes_{size}"
        folder.mkdir()
        shard_rows = min(SHARD_ROWS, size // 4)
        n_shards = size // shard_rows
        with LocalCluster(n_workers=2, memory_limit=MEMORY_LIMIT, **OPTIONS) as cluster, Client(cluster) as client:
            written = [
                client.submit(write_shard, str(folder / f"{n:05}.parquet"), shard_rows, [size, n], pure=False)
                for n in range(n_shards)
            ]
            client.gather(written)
        begin = time.perf_counter()
        expected = count_streamed(folder)
        alone_s = time.perf_counter() - begin
        for n_workers in (1, 2):
            options = {"n_workers": n_workers, "memory_limit": MEMORY_LIMIT, **OPTIONS}
            with LocalCluster(**options) as cluster, Client(cluster) as client:
                count_battles(find_shards(str(folder))[0], client)  # workers import what they need
                client.run(reset_peak_memory)
                begin_cpu_s = client.run(time.process_time)
                seconds = []
                for _ in range(repeats):
                    begin = time.perf_counter()
                    counts = count_battles(str(folder), client)
                    fit = fit_bradley_terry(counts, "davidson")
                    seconds.append(time.perf_counter() - begin)
                cpu_s = busiest(client, begin_cpu_s) / repeats
                memory = client.run(peak_memory_mib)
            for kind in ("wins", "ties"):
                np.testing.assert_array_equal(getattr(counts, kind), getattr(expected, kind))
            assert counts.models == expected.models and counts.n_battles == size
            rows.append(
                {
                    "battles": size,
                    "shards": n_shards,
                    "workers": n_workers,
                    "median_s": np.median(seconds),
                    "least_s": min(seconds),
                    "greatest_s": max(seconds),
                    "runs": repeats,
                    "cpu_s_busiest_worker": cpu_s,
                    "without_dask_s": alone_s,
                    "peak_mib_a_worker": max(memory.values()),
                    "disk_mib": sum(path.stat().st_size for path in folder.iterdir()) / 2**20,
                    "equals_one_machine": True,
                    "rating_error": np.abs(fit.ratings - np.linspace(-1.5, 1.5, N_MODELS)).max(),
                }
            )
            print(rows[-1], flush=True)
        shutil.rmtree(folder)
    return pd.DataFrame(rows)


def make_vectors(n_rows: int, seed: list[int]) -> np.ndarray:
    """Unit vectors in a cone, so that cosines are mostly positive, as those of prompts are."""
    vectors = np.random.default_rng(seed).standard_normal(size=(n_rows, WIDTH), dtype=np.float32) + np.float32(0.5)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def simulate_shard(number: int, n_rows: int) -> pd.DataFrame:
    """A partition of battles with the embeddings of their prompts."""
    vectors = embedding_column(make_vectors(n_rows, [1, number]))
    return simulate_battles(n_rows, [2, number]).assign(prompt="simulated", embedding=vectors)


def sharded_battles(n_battles: int) -> dd.DataFrame:
    meta = simulate_shard(0, 2).iloc[:0]
    size = n_battles // N_SHARDS
    return dd.from_map(simulate_shard, range(N_SHARDS), n_rows=size, meta=meta, enforce_metadata=False)


def measure_similarity(n_battles: int, repeats: int) -> pd.DataFrame:
    """Seconds of a batch of prompts on one and two workers of one thread, and how far they are from one machine."""
    # By itself a router takes larger batches the more workers hold their cosines, and so reads vectors less often.
    scale_similarity.MAX_BATCH = BATCH
    queries = make_vectors(N_PROMPTS, [3])
    rows, ratings = [], []
    for n_workers in (1, 2):
        options = {"n_workers": n_workers, "memory_limit": "5GB", **OPTIONS}
        with LocalCluster(**options) as cluster, Client(cluster) as client:
            router = ShardedSimilarityRouter().fit(sharded_battles(n_battles), client=client)
            ratings.append(router.ratings(queries))
            client.run(reset_peak_memory)
            begin_cpu_s = client.run(time.process_time)
            seconds = []
            for number in range(repeats):
                prompts = np.roll(queries, number + 1, axis=0)  # not those of before, which the cluster may remember
                begin = time.perf_counter()
                router.ratings(prompts)
                seconds.append(time.perf_counter() - begin)
            cpu_s = busiest(client, begin_cpu_s) / repeats
            memory = client.run(peak_memory_mib)
        rows.append(
            {
                "workers": n_workers,
                "battles": n_battles,
                "prompts": N_PROMPTS,
                "batch": BATCH,
                "median_s": np.median(seconds),
                "least_s": min(seconds),
                "greatest_s": max(seconds),
                "runs": repeats,
                "cpu_s_busiest_worker": cpu_s,
                "prompts_per_s": N_PROMPTS / np.median(seconds),
                "peak_mib_a_worker": max(memory.values()),
            }
        )
        print(rows[-1], flush=True)
    parts = [simulate_shard(number, n_battles // N_SHARDS).drop(columns="embedding") for number in range(N_SHARDS)]
    battles = pd.concat(parts, ignore_index=True).astype("str")
    vectors = np.concatenate([make_vectors(n_battles // N_SHARDS, [1, number]) for number in range(N_SHARDS)])
    one = SimilarityRouter(precision="double").fit(battles, vectors).ratings(queries)
    table = pd.DataFrame(rows)
    for name, seconds in {"speedup": "median_s", "cpu_speedup": "cpu_s_busiest_worker"}.items():
        table[name] = table[seconds].iloc[0] / table[seconds]  # the second does not depend on the machine's other load
    table["largest_difference_from_one_machine"] = [np.abs(rated - one).max() for rated in ratings]
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--votes", default="100000,1000000,10000000,100000000", help="numbers of votes")
    parser.add_argument("--battles", type=int, default=N_BATTLES, help="of similarity weighting")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=FOLDER)
    options = parser.parse_args()
    matplotlib.use("Agg")
    set_style()
    options.output.mkdir(parents=True, exist_ok=True)
    print(f"{platform.machine()}, {dask.system.CPU_COUNT} processors")
    with dask.config.set(PATIENT), tempfile.TemporaryDirectory() as scratch:
        similarity = measure_similarity(options.battles, options.repeats)
        print(similarity.to_string(index=False))
        write_table(similarity, options.output / "scale_similarity.csv")
        votes = measure_votes([int(size) for size in options.votes.split(",")], options.repeats, Path(scratch))
        save_figure(plot_cluster_growth(votes), votes, "scale_votes", options.output, data="simulated")


if __name__ == "__main__":
    main()
