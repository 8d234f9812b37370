"""From what a few workers measured to what many votes and many requests would take: arithmetic, not measurement."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

BENCHMARKS = Path(__file__).parents[3] / "results" / "benchmarks"  # of the repository
VOTES, SIMILARITY = BENCHMARKS / "scale_votes.csv", BENCHMARKS / "scale_similarity.csv"  # as benchmarks/scale.py writes


def plan_capacity(
    votes: pd.DataFrame,
    similarity: pd.DataFrame,
    n_votes: float = 1e9,
    within_s: float = 60.0,
    requests_per_s: float = 1e4,
    n_battles: tuple[int, ...] = (55_000, 1_000_000),
) -> pd.DataFrame:
    """Workers, time, disk and memory for `n_votes` votes and `requests_per_s` requests, with what is assumed.

    Parameters
    ----------
    votes, similarity : DataFrame
        ``scale_votes.csv`` and ``scale_similarity.csv`` as benchmarks/scale.py writes them. The largest count and the
        most workers of each are what is carried on.
    within_s : float
        Time in which all votes are to be counted, seconds.
    n_battles : tuple of int
        Battles that similarity weighting looks at for each request.

    Returns
    -------
    DataFrame
        ``quantity``, ``value``, ``unit``, ``assumption``.
    """
    counted = votes.sort_values(["battles", "workers"]).iloc[-1]
    votes_per_s = counted["battles"] / counted["median_s"] / counted["workers"]
    weighed = similarity.sort_values("workers").iloc[-1]
    cosines_per_s = weighed["prompts_per_s"] * weighed["battles"] / weighed["workers"]
    linear = "votes a second and worker as measured, and shards enough to share out evenly"
    rows = [
        ("votes counted a second and worker", votes_per_s, "votes", f"as measured on {counted['battles']:.0e} votes"),
        (
            f"workers for {n_votes:.0e} votes in {within_s:.0f} s",
            math.ceil(n_votes / votes_per_s / within_s),
            "",
            linear,
        ),
        (f"time for {n_votes:.0e} votes on 2 workers", n_votes / votes_per_s / 2, "s", linear),
        (
            f"disk for {n_votes:.0e} votes",
            counted["disk_mib"] / counted["battles"] * n_votes / 1024,
            "GiB",
            "names and winner only, as dictionaries, in Parquet",
        ),
        (
            "memory a worker",
            counted["peak_mib_a_worker"],
            "MiB",
            "as measured: it depends on the size of a shard and the number of models, not on the number of shards",
        ),
        ("cosines a second and worker", cosines_per_s, "cosines", "as measured, in double precision, with their sums"),
    ]
    for number in n_battles:
        workers = math.ceil(requests_per_s * number / cosines_per_s)
        name = f"workers for {requests_per_s:.0e} requests a second over {number:,} battles"
        rows.append((name, workers, "", "one thread each, full batches; without encoding, network and scheduler"))
    return pd.DataFrame(rows, columns=["quantity", "value", "unit", "assumption"])


def cluster_growth_title(table: pd.DataFrame) -> str:
    """What `plot_cluster_growth` shows, in a sentence made of the table's numbers."""
    most = table[table["workers"] == table["workers"].max()].sort_values("battles")
    first, last = most.iloc[0], most.iloc[-1]
    more, longer, larger = (last[name] / first[name] for name in ("battles", "median_s", "peak_mib_a_worker"))
    return (
        f"{more:,.0f} times the votes take {longer:,.0f} times the time on {last['workers']:.0f} workers"
        f" ({last['median_s']:.0f} s for {last['battles']:,.0f}) and {larger:.1f} times the memory of each"
    )
