"""How the benchmarks measure: medians of several runs, competitors in turn, memory in a process of its own."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import pandas as pd


def time_in_turn(competitors: dict[str, Callable[[], object]], repeats: int = 5) -> pd.DataFrame:
    """Median, least and greatest seconds of each competitor over `repeats` rounds.

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
        }
    )


def peak_memory_mib(script: str) -> float:
    """Greatest resident memory, MiB, of a fresh Python process that runs `script` and imports nothing else."""
    # Linux's VmHWM is the process' own; getrusage would report the parent's peak where that is the greater one.
    measured = script + "\nprint(open('/proc/self/status').read())"
    printed = subprocess.run([sys.executable, "-c", measured], check=True, capture_output=True, text=True).stdout
    return int(re.search(r"VmHWM:\s+(\d+) kB", printed).group(1)) / 1024
