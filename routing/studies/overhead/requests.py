"""Measure what routing a request costs: seconds, memory and dollars, from text in to choice out.

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
from matplotlib.figure import Figure
from scipy.stats import quantile_test

from routing.policy.budget import route_pair
from routing.routers.base import BradleyTerryRouter, EmbeddingRouter, Router, load_router
from routing.studies.classifiers import KINDS, make_classifier, plan_trainings
from routing.studies.inputs import PAIR, TrainingSets
from routing.studies.overhead.timing import peak_memory_mib, run_on_one_core
from routing.studies.paper import PAPER_OVERHEAD, calls_cost_usd
from routing.studies.plotting import plot_lines, plot_rows
from routing.studies.two_models.pairs import embedding_routers

THRESHOLD = 0.5  # which one changes no timing
BATCHES = {"smoke": (1, 16), "quick": (1, 16, 64), "full": (1, 16, 64, 256)}
REQUESTS = {"smoke": 16, "quick": 32, "full": 80}  # per run, at least so many in each batch size
RUNS = {"smoke": 2, "quick": 2, "full": 5}


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


def fit_routers(profile: str, seed: int, sets: TrainingSets) -> dict[str, Router]:
    """Return fitted routers of every kind, trained on people's battles; two of them in "smoke".

    Matrix factorization is trained for one epoch from one seed, as its ratings take as long after any number of them.
    """
    made = {"bradley_terry": BradleyTerryRouter(prior_strength=1.0)} | embedding_routers(profile, seed)
    made["matrix_factorization"] = replace(made["matrix_factorization"], n_seeds=1, n_epochs=1)
    kinds = list(KINDS)
    if profile == "smoke":  # a fresh process per router is most of what this notebook costs
        made.pop("matrix_factorization")
        kinds = []
    routers = {name: router.fit(sets.battles["arena"]) for name, router in made.items()}
    for kind in kinds:
        routers[kind] = plan_trainings(make_classifier(kind, profile, seed), sets)["arena"].fitted
    return routers


def route(router: Router, prompts: Sequence[str], pair: tuple[str, str]) -> np.ndarray:
    """Return the model of `pair` that each prompt goes to: (n_prompts,)."""
    return route_pair(router.win_probability(prompts, *pair), THRESHOLD, *pair)


def time_requests(router: Router, workload: Workload) -> pd.DataFrame:
    """Time every batch, in this process.

    Returns
    -------
    DataFrame
        One row per batch: batch (its size), run, seconds, and encoding_s, those of them in which the encoder or
        transformer turned text into vectors.
    """
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
    steps = []
    if isinstance(router, EmbeddingRouter):
        steps = [(router, "_vectors")]
    elif hasattr(router, "model"):  # a classifier: tokenizer and transformer
        steps = [(router, "_tokenize"), (router.model, "vectors")]
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
    """Time the router in `folder`, and return the MiB of memory that loading it and its largest batch takes.

    For a fresh process. No vector comes from a cache.
    """
    router = load_router(folder)
    if isinstance(router, EmbeddingRouter):
        router.encoder = replace(router.encoder, cache=False)
    route(router, workload.prompts[: max(workload.batch_sizes)], workload.pair)
    memory_mib = peak_memory_mib()
    return time_requests(router, workload), memory_mib


def measure_routers(routers: Mapping[str, Router], workload: Workload) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure time and memory of fitted routers, each saved and loaded again in a fresh process.

    Returns
    -------
    timings : DataFrame
        router, and the columns of `time_requests`.
    memory : DataFrame
        One row per router: router, resident_mib (see `measure_saved`), saved_mib (size of its files).
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
    """Return requests per second of each router and batch size.

    Returns
    -------
    DataFrame
        router, batch, requests_per_s (median of the runs), low, high (slowest and fastest run), encoding_share (of the
        time).
    """
    runs = timings.groupby(["router", "run", "batch"], sort=False)
    sums = runs[["seconds", "encoding_s"]].sum()
    per_s = (runs.size() * sums.index.get_level_values("batch") / sums["seconds"]).groupby(
        ["router", "batch"], sort=False
    )
    shares = sums.groupby(["router", "batch"], sort=False).sum()
    table = pd.DataFrame({"requests_per_s": per_s.median(), "low": per_s.min(), "high": per_s.max()})
    return table.assign(encoding_share=shares["encoding_s"] / shares["seconds"]).reset_index()


def latency_table(timings: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Return the milliseconds of single requests that half of them, and all but one in a hundred, do not exceed.

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
    """Return the dollars for a million requests on a machine of this price that routes one after another."""
    return 1e6 / requests_per_s / 3600 * usd_per_hour


def cost_table(speed: pd.DataFrame, usd_per_core_hour: float) -> pd.DataFrame:
    """Return the dollars for a million requests, one at a time and in the largest batches, and the paper's.

    Returns
    -------
    DataFrame with columns router, series, usd_per_million, low, high (missing for the paper's)
    """
    here = speed[speed["batch"].isin([1, speed["batch"].max()])].copy()
    here["series"] = "here, batches of " + here["batch"].astype(str)
    for column, per_s in {"usd_per_million": "requests_per_s", "low": "high", "high": "low"}.items():
        here[column] = usd_per_million(speed[per_s], usd_per_core_hour)
    columns = ["router", "series", "usd_per_million", "low", "high"]
    return pd.concat([here, PAPER_OVERHEAD.assign(series="the paper")], ignore_index=True)[columns]


# -- figures ----------------------------------------------------------------------------------------------------------


def plot_throughput(table: pd.DataFrame) -> Figure:
    """Draw requests per second over the size of a batch, one line per router; `table` as `throughput_table`."""
    single = table[(table["batch"] == 1) & (table["encoding_share"] > 0)].set_index("router")["requests_per_s"]
    title = f"A router that encodes the prompt routes up to {single.max():,.0f} single requests per second and core"
    labels = ("requests per batch", "requests per second, one core")
    figure = plot_lines(table, "batch", "requests_per_s", labels, title, by="router", log_x=True, log_y=True)
    figure.axes[0].set_xticks(sizes := sorted(set(table["batch"])), [str(size) for size in sizes])
    figure.axes[0].minorticks_off()
    return figure


def plot_latency(table: pd.DataFrame) -> Figure:
    """Draw median and 99th percentile of single requests, with their intervals; `table` as `latency_table`."""
    slowest = table.loc[table["latency_ms"].idxmax()]
    title = f"99 % of single requests are routed within {slowest['latency_ms']:,.0f} ms by the slowest router"
    share = {0.5: "half of the requests are faster", 0.99: "99 % are faster"}
    shown = table.assign(name=table["router"], estimate=table["latency_ms"], share=table["quantile"].map(share))
    label = "milliseconds for a single request, text in to choice out, one core"
    return plot_rows(shown, label, title, group="share", log_x=True)


def plot_cost(table: pd.DataFrame) -> Figure:
    """Draw dollars for a million requests next to the price of as many calls; `table` as `cost_table`."""
    strong, weak = 1e6 * calls_cost_usd(1.0), 1e6 * calls_cost_usd(0.0)
    highest = table.loc[table["series"] != "the paper", "usd_per_million"].max()
    title = f"Routing here costs at most {100 * highest / strong:.2g} % of the price of the GPT-4 calls"
    shown = table.assign(name=table["router"], estimate=table["usd_per_million"])
    calls = {f"Mixtral calls: {weak:,.0f} $": weak, f"GPT-4 calls: {strong:,.0f} $": strong}
    label = "dollars for a million requests"
    return plot_rows(shown, label, title, group="series", reference=calls, log_x=True)
