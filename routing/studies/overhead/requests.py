"""Measure what routing a request costs: seconds and memory, from text in to choice out.

Timings are of one core, as a server that runs one such process on each of its cores has them, and not the same in two
runs. A fresh process imports this module to measure a router, so it imports nothing that a router does not need.
"""

from __future__ import annotations

import copy
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

from routing.policy.budget import route_pair
from routing.routers.base import EmbeddingRouter, Router, load_router
from routing.studies.inputs import PAIR
from routing.studies.overhead.timing import peak_memory_mib, run_on_one_core

THRESHOLD = 0.5  # which one changes no timing


@dataclass(frozen=True)
class Workload:
    """Requests to route; a prompt twice, or fewer prompts than the largest batch, is a ValueError."""

    prompts: Sequence[str]  # all different, as routers encode equal ones of a batch once; in this order, repeated
    batch_sizes: Sequence[int]  # how many requests are routed at once
    n_runs: int  # how often everything is timed
    requests_per_run: int  # at least so many of each batch size in a run
    pair: tuple[str, str] = PAIR  # the strong and the weak model

    def __post_init__(self) -> None:
        if len(set(self.prompts)) < len(self.prompts):
            raise ValueError("a prompt occurs twice in the workload; drop duplicates")
        if len(self.prompts) < max(self.batch_sizes):
            raise ValueError(f"{len(self.prompts)} prompts for batches of {max(self.batch_sizes)}; give as many")


def route(router: Router, prompts: Sequence[str], pair: tuple[str, str]) -> np.ndarray:
    """Return the model of `pair` that each prompt goes to: (n_prompts,)."""
    return route_pair(router.win_probability(prompts, *pair), THRESHOLD, *pair)


def split_request(router: EmbeddingRouter, prompt: str, pair: tuple[str, str], n_runs: int) -> pd.DataFrame:
    """Return the milliseconds of each step of one request, and of the whole, measured on its own: medians of runs.

    Columns are step and ms. The prompt is encoded each time, without a cache.
    """
    router = copy.copy(router)
    router.encoder = replace(router.encoder, cache=False)
    route(router, [prompt], pair)  # loads the model
    rows = []
    for _ in range(n_runs):
        clock = [time.perf_counter()]
        vectors = router.encoder.encode([prompt])
        clock.append(time.perf_counter())
        margin = router.margin(vectors, *pair)
        clock.append(time.perf_counter())
        route_pair(router.win_probability_at(margin), THRESHOLD, *pair)
        clock.append(time.perf_counter())
        route(router, [prompt], pair)
        clock.append(time.perf_counter())
        rows.append(1e3 * np.diff(clock))
    steps = ["encode the text", "rate both models", "compare with the threshold", "the whole request"]
    return pd.DataFrame({"step": steps, "ms": np.median(rows, axis=0)})


def time_requests(router: Router, workload: Workload) -> pd.DataFrame:
    """Return batch (its size), run, seconds and encoding_s (turning text into vectors) of every batch routed here."""
    stream = itertools.cycle(workload.prompts)
    rows = []
    with _timed_encoding(router) as encoding:
        for run, size in itertools.product(range(workload.n_runs), workload.batch_sizes):
            for _ in range(math.ceil(workload.requests_per_run / size)):
                prompts = list(itertools.islice(stream, size))
                encoding.clear()
                start = time.perf_counter()
                route(router, prompts, workload.pair)
                rows.append((size, run, time.perf_counter() - start, sum(encoding)))
    return pd.DataFrame(rows, columns=["batch", "run", "seconds", "encoding_s"])


@contextmanager
def _timed_encoding(router: Router) -> Iterator[list[float]]:
    """Append the seconds of each call in which the router turns text into vectors to the list."""
    steps, seconds = [(router, "_vectors")] if isinstance(router, EmbeddingRouter) else [], []
    if hasattr(router, "model"):  # a classifier: tokenizer and transformer
        steps = [(router, "_tokenize"), (router.model, "vectors")]

    def timed(function: Callable) -> Callable:
        def call(*arguments: Any, **settings: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **settings)
            seconds.append(time.perf_counter() - start)
            return result

        return call

    for owner, name in steps:
        setattr(owner, name, timed(getattr(owner, name)))
    try:
        yield seconds
    finally:
        for owner, name in steps:
            delattr(owner, name)  # the method of the class is there again


def measure_saved(folder: Path, workload: Workload) -> tuple[pd.DataFrame, float]:
    """Time the router in `folder`, without a cache; also return the MiB that it takes, in a fresh process."""
    router = load_router(folder)
    if isinstance(router, EmbeddingRouter):
        router.encoder = replace(router.encoder, cache=False)
    route(router, workload.prompts[: max(workload.batch_sizes)], workload.pair)
    memory_mib = peak_memory_mib()
    return time_requests(router, workload), memory_mib


def measure_routers(routers: Mapping[str, Router], workload: Workload) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `time_requests` and memory of fitted routers, each saved and loaded again in a fresh process.

    Memory has router, resident_mib (of loading it and its largest batch), saved_mib (size of its files).
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
