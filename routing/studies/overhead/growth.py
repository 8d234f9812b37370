"""Measure how a router's cost grows with battles, models and the width of embeddings, on random unit vectors.

What a prompt says changes no timing here. How the cluster's cost grows is measured by ``benchmarks/scale.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.random import Generator

from routing.battles import WINNERS
from routing.routers.base import BradleyTerryRouter, Router
from routing.routers.factorization import MatrixFactorizationRouter
from routing.routers.similarity import SimilarityRouter
from routing.studies.plotting import ROUTER_STYLES, plot_lines

VOTES = Path(__file__).parents[3] / "results" / "benchmarks" / "scale_votes.csv"  # as benchmarks/scale.py writes it
SIZES = {
    "smoke": {"battles": (1_000, 10_000), "models": (2, 10), "width": (64, 128)},
    "quick": {"battles": (1_000, 5_000, 25_000), "models": (2, 10, 100), "width": (64, 256, 1024)},
    "full": {"battles": (1_000, 10_000, 100_000, 1_000_000), "models": (2, 10, 100, 1_000)},
}
SIZES["full"]["width"] = (64, 192, 384, 768, 1536)
BASE = {name: {"battles": 10_000, "models": 64, "width": 128} for name in SIZES}
BASE["smoke"]["battles"], BASE["quick"]["battles"] = 1_000, 5_000
BATCH, N_BATCHES = 16, 20  # requests rated at once, and how often
PATIENCE_S = 1.0  # no further run of what has taken so long
STEPS = {"fit": "fit to all battles", "request": "request, beyond encoding"}
NO_TIERS = "similarity_weighting, no tiers"


def random_battles(n_battles: int, n_models: int, width: int, rng: Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Return battles of random models, won at random, on different prompts, and their unit vectors."""
    names = np.array([f"model {number:04d}" for number in range(n_models)], dtype=object)
    first = rng.integers(n_models, size=n_battles)
    second = (first + rng.integers(1, n_models, size=n_battles)) % n_models
    battles = pd.DataFrame({"model_a": names[first], "model_b": names[second]})
    battles["winner"] = rng.choice(WINNERS, size=n_battles)
    battles["prompt"] = [f"prompt {number}" for number in range(n_battles)]
    vectors = rng.standard_normal((n_battles, width), dtype=np.float32)
    for row in vectors:  # in place: a million of them are as large as memory may be
        row /= np.sqrt(row @ row)
    return battles, vectors


def _routers(grows: str) -> dict[str, Router]:
    routers = {
        "bradley_terry": BradleyTerryRouter(prior_strength=1.0),
        "similarity_weighting": SimilarityRouter(prior_strength=1.0),
        "matrix_factorization": MatrixFactorizationRouter(prior_strength=1.0, n_seeds=1, n_epochs=1),
    }
    if grows == "models":
        routers[NO_TIERS] = SimilarityRouter(n_tiers=None, prior_strength=1.0)
    return routers


def _seconds(function: Callable, n_runs: int) -> np.ndarray:
    """Return the seconds of each run: at most `n_runs`, fewer once they have taken `PATIENCE_S` together."""
    seconds: list[float] = []
    while len(seconds) < n_runs and sum(seconds) < PATIENCE_S:
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return np.array(seconds)


def time_growth(sizes: Mapping[str, Sequence[int]], base: Mapping[str, int], n_runs: int, seed: int) -> pd.DataFrame:
    """Time fits `n_runs` times, and requests, while one of "battles", "models" and "width" grows through `sizes`.

    `base` has the size of each while another grows. Columns are grows, size, router, step ("fit": on all battles, of
    matrix factorization one epoch; "request": from a vector to the ratings of all models, in `N_BATCHES` batches of
    `BATCH`), seconds (median), low, high (of the runs), n_runs.
    """
    battles, vectors = random_battles(200, 4, 8, np.random.default_rng(seed))
    for router in _routers("models").values():  # libraries load some of their parts when first used
        router.fit(battles, vectors).ratings(vectors[:2])
    rows = []
    for number, (grows, values) in enumerate(sizes.items()):
        for size in values:
            shape = {**base, grows: size}
            rng = np.random.default_rng(np.random.SeedSequence([seed, number, size]))
            battles, vectors = random_battles(shape["battles"], shape["models"], shape["width"], rng)
            queries = vectors[:BATCH] + vectors[BATCH : 2 * BATCH]
            for name, router in _routers(grows).items():
                prompts = ["a prompt"] * BATCH if name == "bradley_terry" else queries
                fit_s = _seconds(lambda: router.fit(battles, vectors), n_runs)  # noqa: B023 - called at once
                request_s = _seconds(lambda: router.ratings(prompts), N_BATCHES) / BATCH  # noqa: B023
                for step, seconds in (("fit", fit_s), ("request", request_s)):
                    summary = np.median(seconds), seconds.min(), seconds.max(), len(seconds)
                    rows.append((grows, size, name, step, *summary))
    return pd.DataFrame(rows, columns=["grows", "size", "router", "step", "seconds", "low", "high", "n_runs"])


def plot_growth(table: pd.DataFrame, encoding_s: float) -> Figure:
    """Draw the table of `time_growth`; `encoding_s`, what the encoder takes for a prompt, is a line."""
    rows = table[(table["grows"] == "battles") & (table["step"] == "request")]
    lines = rows.pivot(index="size", columns="router", values="seconds")["similarity_weighting"]
    factor, more = lines.iloc[-1] / lines.iloc[0], lines.index[-1] // lines.index[0]
    title = f"A request of similarity weighting takes {factor:,.2g} times as long with {more:,} times the battles"
    panels = table.assign(panel=table["step"].map(STEPS) + ", by " + table["grows"]).sort_values("step", kind="stable")
    styles = {NO_TIERS: {**ROUTER_STYLES["similarity_weighting"], "linestyle": ":", "markerfacecolor": "white"}}
    options = {"by": "router", "panel": "panel", "styles": styles, "log_x": True, "log_y": True}
    figure = plot_lines(panels, "size", "seconds", ("size", "seconds"), title, **options)
    for axis in figure.axes:
        axis.set_xticks(sizes := axis.lines[0].get_xdata(), [f"{size:,.0f}" for size in sizes], fontsize=8)
        axis.minorticks_off()
        if axis.get_title().startswith("request"):
            axis.axhline(encoding_s, color="0.6", linewidth=1, zorder=0)
    return figure


def plot_cluster_growth(table: pd.DataFrame) -> Figure:
    """Draw seconds from shards of votes to ratings, one line per number of workers; `table` as `VOTES`."""
    last = table.sort_values(["battles", "workers"]).iloc[-1]
    title = f"{last['workers']:.0f} workers turn {last['battles']:,.0f} votes into ratings in {last['median_s']:.0f} s"
    shown = table.rename(columns={"least_s": "low", "greatest_s": "high"})
    shown["by"] = table["workers"].map({1: "1 worker", 2: "2 workers"})
    labels = ("battles", "seconds from shards to ratings")
    return plot_lines(shown, "battles", "median_s", labels, title, by="by", log_x=True, log_y=True)
