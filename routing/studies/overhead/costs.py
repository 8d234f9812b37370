"""Turn timings of requests into throughput, latency and dollars, and draw them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import quantile_test

from routing.routers.base import BradleyTerryRouter, Router
from routing.studies.classifiers import KINDS, make_classifier, plan_trainings
from routing.studies.inputs import TrainingSets
from routing.studies.paper import PAPER_OVERHEAD, calls_cost_usd
from routing.studies.plotting import plot_lines, plot_rows
from routing.studies.two_models.pairs import embedding_routers

BATCHES = {"smoke": (1, 16), "quick": (1, 16), "full": (1, 16, 64, 256)}
REQUESTS = {"smoke": 16, "quick": 10, "full": 80}  # per run, at least so many in each batch size
RUNS = {"smoke": 2, "quick": 2, "full": 5}


def fit_routers(profile: str, seed: int, sets: TrainingSets) -> dict[str, Router]:
    """Return fitted routers of every kind, trained on people's battles; two of them in "smoke".

    Matrix factorization is trained for one epoch from one seed, as its ratings take as long after any number of them.
    """
    made = {"bradley_terry": BradleyTerryRouter(prior_strength=1.0)} | embedding_routers(profile, seed)
    made["matrix_factorization"] = replace(made["matrix_factorization"], n_seeds=1, n_epochs=1)
    if profile == "smoke":  # a fresh process per router is most of what this notebook costs
        made.pop("matrix_factorization")
    trainings = {kind: plan_trainings(make_classifier(kind, profile, seed), sets)["arena"] for kind in KINDS}
    classifiers = {kind: training.fitted for kind, training in trainings.items() if profile != "smoke"}
    return {name: router.fit(sets.battles["arena"]) for name, router in made.items()} | classifiers


def throughput_table(timings: pd.DataFrame) -> pd.DataFrame:
    """Return requests per second of each router and batch size.

    Columns are router, batch, requests_per_s (median of the runs), low, high (slowest and fastest run), encoding_share
    (of the time).
    """
    by = timings.assign(requests=timings["batch"]).groupby(["router", "run", "batch"], sort=False)
    runs = by[["requests", "seconds", "encoding_s"]].sum()
    per_s = (runs["requests"] / runs["seconds"]).groupby(["router", "batch"], sort=False)
    table = per_s.agg(requests_per_s="median", low="min", high="max")
    sums = runs.groupby(["router", "batch"], sort=False).sum()
    return table.assign(encoding_share=sums["encoding_s"] / sums["seconds"]).reset_index()


def latency_table(timings: pd.DataFrame) -> pd.DataFrame:
    """Return the milliseconds of single requests that half of them, and all but one in a hundred, do not exceed.

    Columns are router, quantile (0.5, 0.99), latency_ms, low, high (95 % from order statistics; missing where there are
    too few requests for one), n_requests.
    """
    rows = []
    for router, single in timings[timings["batch"] == 1].groupby("router", sort=False):
        latency_ms = 1e3 * single["seconds"].to_numpy()
        for quantile in (0.5, 0.99):
            interval = quantile_test(latency_ms, p=quantile).confidence_interval(0.95)
            rows.append((router, quantile, np.quantile(latency_ms, quantile), *interval, len(latency_ms)))
    return pd.DataFrame(rows, columns=["router", "quantile", "latency_ms", "low", "high", "n_requests"])


def usd_per_million(requests_per_s: float | pd.Series, usd_per_hour: float | pd.Series) -> float | pd.Series:
    """Return the dollars for a million requests on a machine of this price that routes one after another."""
    return 1e6 / requests_per_s / 3600 * usd_per_hour


def cost_table(speed: pd.DataFrame, usd_per_core_hour: float) -> pd.DataFrame:
    """Return the dollars for a million requests, one at a time and in the largest batches, and the paper's.

    Columns are router, series, usd_per_million, low, high (missing for the paper's).
    """
    here = speed[speed["batch"].isin([1, speed["batch"].max()])].copy()
    here["series"] = "here, batches of " + here["batch"].astype(str)
    for column, per_s in {"usd_per_million": "requests_per_s", "low": "high", "high": "low"}.items():
        here[column] = usd_per_million(speed[per_s], usd_per_core_hour)
    columns = ["router", "series", "usd_per_million", "low", "high"]
    return pd.concat([here, PAPER_OVERHEAD.assign(series="the paper")], ignore_index=True)[columns]


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
