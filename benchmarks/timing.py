"""Time competitors in turn, and take medians of several runs. Memory: `routing.studies.overhead.timing`."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd


def describe_machine() -> str:
    """Return the processor's name, as Linux gives it or else its architecture, and the number of its cores."""
    path, name = Path("/proc/cpuinfo"), platform.machine()
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"


def time_in_turn(competitors: dict[str, Callable[[], object]], repeats: int = 5) -> pd.DataFrame:
    """Return median, least and greatest seconds of each competitor over `repeats` rounds.

    In every round each runs once, so that a slow moment of the machine falls on all. A first round is not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for round_number in range(repeats + 1):
        for name, function in competitors.items():
            begin = time.perf_counter()
            function()
            if round_number > 0:
                seconds[name].append(time.perf_counter() - begin)
    return pd.DataFrame(
        {
            "name": list(seconds),
            "median_s": [statistics.median(values) for values in seconds.values()],
            "least_s": [min(values) for values in seconds.values()],
            "greatest_s": [max(values) for values in seconds.values()],
            "runs": repeats,
            "machine": describe_machine(),
        }
    )
