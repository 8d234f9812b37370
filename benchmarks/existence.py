"""Whether fits are right or refused, on 10,000 random tables, valid and not, and whether intervals hold the truth.

    python -m benchmarks.existence [n_tables]

The linear programme of `tests/ratings/test_existence.py` says which tables have a finite estimate; a fit is right where
its gradient is zero. Writes results/benchmarks/existence.csv.
"""

from __future__ import annotations

import collections
import sys
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from routing.ratings.bradley_terry import fit_bradley_terry
from routing.ratings.ties import TIE_MODELS
from tests.ratings.test_bradley_terry import simulated_counts
from tests.ratings.test_existence import check_invalid, check_table, random_table

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"


def judge_tables(numbers: Iterable[int]) -> pd.Series:
    """Count what became of tables by tie model, without and with a prior; print every wrong answer."""
    found = collections.Counter()
    for number in numbers:
        rng = np.random.default_rng([14, number])
        counts = random_table(rng)
        for ties in TIE_MODELS:
            for prior, prior_strength in (("none", 0.0), ("some", 10 ** rng.uniform(-5, 2))):
                try:
                    answer = check_table(counts, ties, prior_strength)
                except Exception:
                    answer = "wrong"
                    print(f"table {number}, {ties}, prior {prior_strength}", counts, traceback.format_exc(), sep="\n")
                found[ties, prior, answer] += 1
        check_invalid(counts, rng)
    return pd.Series(found).rename_axis(["ties", "prior", "answer"])


def measure_coverage(n_tables: int) -> pd.DataFrame:
    """Return the share of 95 % intervals of a rating that hold the truth, by tie model and battles per pair."""
    rng, theta, shares = np.random.default_rng(0), np.array([0.8, 0.1, -0.9]), []
    for ties, tie in (
        ("davidson", 0.8),
        ("davidson", 6.0),
        ("rao_kupper", 0.7),
        ("drop", 0.3),
        ("half", 0.3),
        ("half", 0.8),
    ):
        for n_battles in (60, 200):
            inside = []
            for _ in range(n_tables):
                interval = fit_bradley_terry(simulated_counts(rng, theta, ties, tie, n_battles), ties).interval()
                inside.append((interval["low"] < theta) & (theta < interval["high"]))
            shares.append({"ties": ties, "tie": tie, "battles_per_pair": n_battles, "coverage": np.mean(inside)})
    return pd.DataFrame(shares)


if __name__ == "__main__":
    n_tables = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    start = time.perf_counter()
    with ProcessPoolExecutor() as pool:
        counted = pd.concat(
            pool.map(judge_tables, [range(first, n_tables, 100) for first in range(min(100, n_tables))])
        )
    table = counted.groupby(level=["ties", "prior", "answer"]).sum().unstack(fill_value=0)
    table = table.reindex(columns=["fit", "none", "rounding", "wrong"], fill_value=0)
    print(table, f"{n_tables} tables, {time.perf_counter() - start:.0f} s", sep="\n")
    RESULTS.mkdir(parents=True, exist_ok=True)
    table.to_csv(RESULTS / "existence.csv")
    coverage = measure_coverage(n_tables // 10)
    print(coverage.to_string(index=False))
    coverage.to_csv(RESULTS / "coverage.csv", index=False)
