"""How long this machine's memory takes for the rows of the Arena's votes: the limit of whatever counts them.

    python benchmarks/limits.py

Writes results/benchmarks/limits.csv.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import pandas as pd
from timing import describe_machine

FOLDER = Path(__file__).parents[1] / "results" / "benchmarks"
N_ROWS, N_COLUMNS, REPEATS = 1_670_250, 3, 51  # votes: two models and a winner, 8 bytes each (a pointer to text)


def main() -> None:
    rows, seconds = np.ones((N_COLUMNS, N_ROWS), dtype=np.int64), []
    for _ in range(REPEATS):  # processor time, in which waiting for memory counts and other programs do not
        begin = time.process_time()
        rows.sum()
        seconds.append(time.process_time() - begin)
    median = statistics.median(seconds)
    row = {"name": f"read {N_ROWS:,} rows of {8 * N_COLUMNS} bytes", "median_s": median, "runs": REPEATS}
    row |= {"gigabytes_per_s": rows.nbytes / median / 1e9, "machine": describe_machine()}
    print(row)
    pd.DataFrame([row]).to_csv(FOLDER / "limits.csv", index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    main()
