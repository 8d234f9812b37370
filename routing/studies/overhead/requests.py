"""What routing a request costs: seconds, memory and dollars, from text in to choice out.

Timings are of one core, as a server that runs one such process on each of its cores has them. They depend on the
machine and on what else it does, and are not the same in two runs.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import quantile_test

from routing.policy.budget import route_pair
from routing.routers.base import EmbeddingRouter, Router, load_router
from routing.studies.overhead.timing import peak_memory_mib, run_on_one_core

THRESHOLD = 0.5  # which one changes no timing


@dataclass(frozen=True)
class Workload:
    """Requests to route.

    Parameters
    ----------
    prompts : sequence of str
        All different, as routers read equal prompts of a batch once; asked in this order, again and again.
    pair : (str, str)
        The strong and the weak model.
    batch_sizes : sequence of int
        How many requests are routed at once.
    n_runs : int
        How often everything is timed.
    requests_per_run : int
        At least so many of each batch size in a run.

    Raises
    ------
    ValueError
        A prompt twice, or fewer prompts than the largest batch.
    """

    prompts: Sequence[str]
    pair: tuple[str, str]
    batch_sizes: Sequence[int] = (1, 16, 64, 256)
    n_runs: int = 5
    requests_per_run: int = 80

    def __post_init__(self) -> None:
        if len(set(self.prompts)) < len(self.prompts):
            raise ValueError("a prompt stands twice in the workload; drop duplicates")
        if len(self.prompts) < max(self.batch_sizes):
            raise ValueError(f"{len(self.prompts)} prompts for batches of {max(self.batch_sizes)}; give as many")


def route(router: Router, prompts: Sequence[str], pair: tuple[str, str]) -> np.ndarray:
    """The model of `pair` that each prompt goes to: (n_prompts,)."""
    return route_pair(router.win_probability(prompts, *pair), THRESHOLD, *pair)


def time_requests(router: Router, workload: Workload) -> pd.DataFrame:
    """Seconds of every batch, in this process.

    Returns
    -------
    DataFrame
        A row a batch: batch (its size), run, seconds, and reading_s, those of them in which the encoder or transformer
        turned text into vectors.
    """
    stream = itertools.cycle(workload.prompts)
    rows = []
    with _timed_reading(router) as reading:
        for run, size in itertools.product(range(workload.n_runs), workload.batch_sizes):
            for _ in range(math.ceil(workload.requests_per_run / size)):
                prompts = list(itertools.islice(stream, size))
                reading.clear()
                start = time.perf_counter()
                route(router, prompts, workload.pair)
                rows.append((size, run, time.perf_counter() - start, sum(reading)))
    return pd.DataFrame(rows, columns=["batch", "run", "seconds", "reading_s"])


@contextmanager
def _timed_reading(router: Router) -> Iterator[list[float]]:
    """The seconds of each call in which the router turns text into vectors are appended to the list."""
    if isinstance(router, EmbeddingRouter):
        steps = [(router, "_vectors")]
    elif hasattr(router, "model"):  # a classifier: tokenizer and transformer
        steps = [(router, "_tokenize"), (router.model, "vectors")]
    else:
        steps = []
    seconds: list[float] = []

    def timed(function: Callable) -> Callable:
        def call(*arguments: Any, **settings: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **settings)
            finally:
                seconds.append(time.perf_counter() - start)

        return call

    for owner, name in steps:
        setattr(owner, name, timed(getattr(owner, name)))
    try:
        yield seconds
    finally:
        for owner, name in steps:
            delattr(owner, name)  # the method of the class is there again


def measure_saved(folder: Path, workload: Workload) -> tuple[pd.DataFrame, float]:
    """As `time_requests` of the router in `folder`, and the memory that loading it and its largest batch takes, MiB.

    For a fresh process. No vector comes from a cache.
    """
    router = load_router(folder)
    if isinstance(router, EmbeddingRouter):
        router.encoder = replace(router.encoder, cache=False)
    route(router, workload.prompts[: max(workload.batch_sizes)], workload.pair)
    memory_mib = peak_memory_mib()
    return time_requests(router, workload), memory_mib


def measure_routers(routers: Mapping[str, Router], workload: Workload) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Time and memory of fitted routers, each saved and loaded again in a process of its own.

    Returns
    -------
    timings : DataFrame
        router, and the columns of `time_requests`.
    memory : DataFrame
        A row a router: router, resident_mib (see `measure_saved`), saved_mib (size of its files).
    """
    timings, memory = {}, []
    for name, router in routers.items():
        with tempfile.TemporaryDirectory() as folder:
            saved = Path(folder, name)
            router.save(saved)
            timings[name], resident_mib = run_on_one_core(measure_saved, saved, workload)
            saved_mib = sum(path.stat().st_size for path in saved.iterdir()) / 2**20
        memory.append({"router": name, "resident_mib": resident_mib, "saved_mib": saved_mib})
    return pd.concat(timings, names=["router"]).reset_index(level=0), pd.DataFrame(memory)


def throughput_table(timings: pd.DataFrame) -> pd.DataFrame:
    """Requests a second and the share of time spent reading text, for each router and batch size.

    Returns
    -------
    DataFrame
        router, batch; requests_per_s and reading_share, each the median of the runs with ``_low`` and ``_high``, the
        least and greatest run.
    """
    runs = timings.groupby(["router", "run", "batch"], sort=False)
    sums = runs[["seconds", "reading_s"]].sum()
    n_requests = runs.size() * sums.index.get_level_values("batch")
    each = pd.DataFrame(
        {"requests_per_s": n_requests / sums["seconds"], "reading_share": sums["reading_s"] / sums["seconds"]}
    )
    table = each.groupby(["router", "batch"], sort=False).agg(["median", "min", "max"])
    ending = {"median": "", "min": "_low", "max": "_high"}
    table.columns = [name + ending[statistic] for name, statistic in table.columns]
    return table.reset_index()


def latency_table(timings: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Milliseconds of single requests that half of them, and all but one in a hundred, do not exceed.

    Returns
    -------
    DataFrame
        router, quantile (0.5, 0.99), latency_ms, low, high (interval from order statistics; missing where there are too
        few requests for one), n_requests.
    """
    rows = []
    for router, single in timings[timings["batch"] == 1].groupby("router", sort=False):
        latency_ms = 1e3 * single["seconds"].to_numpy()
        for quantile in (0.5, 0.99):
            interval = quantile_test(latency_ms, p=quantile).confidence_interval(level)
            rows.append((router, quantile, np.quantile(latency_ms, quantile), *interval, len(latency_ms)))
    return pd.DataFrame(rows, columns=["router", "quantile", "latency_ms", "low", "high", "n_requests"])


def usd_per_million(requests_per_s: float | pd.Series, usd_per_hour: float | pd.Series) -> float | pd.Series:
    """Dollars for a million requests on a machine of this price that routes one after another without a pause."""
    return 1e6 / requests_per_s / 3600 * usd_per_hour
