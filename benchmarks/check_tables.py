"""Compare tables made from published files with those of ROUTING_DATA, row by row.

    ROUTING_DATA=<tables> python benchmarks/check_tables.py <folder>

The folder has the published files as ``<repository>/<commit>/<path>``: ``published`` in the cache is one, and so is any
other that a reader fills, by git for instance. Printed is, for each table: how many of its files are there, rows, and
whether the text of both tables is equal; for a dataset that is read as published, whether the reader gives equal tables
from these files and from ROUTING_DATA. The exit code is 1 where a table differs.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import pandas as pd

from routing.data import benchmarks, votes
from routing.data.sources import find_files, published_files
from routing.upstream import collection

READERS = {  # what is read as published
    "judges": [votes.read_human_and_judges],
    "alpaca_eval": [votes.read_alpaca_eval],
    "routerbench": [partial(benchmarks.read_routerbench, name) for name in ("arc_challenge", "mbpp")],
    "llmrouter": [benchmarks.read_llmrouter],
    "routellm": [benchmarks.read_mmlu, benchmarks.read_gsm8k, benchmarks.read_mt_bench],
}


def compare_built(name: str, folder: Path) -> str:
    """Return what is seen of a table that is built."""
    equal, n_rows = [], []
    for place, table in collection.make_tables(name, folder).items():
        (path,) = (path for path in find_files(name) if path.name == Path(place).name)
        equal.append(collection.table_text(table) == collection.table_text(_read(path)))
        n_rows.append(f"{len(table):,}")
    return f"{' and '.join(n_rows)} rows, {'equal' if all(equal) else 'DIFFERENT'}"


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def compare_read(name: str, folder: Path) -> str:
    """Return what is seen of a dataset that is read as published."""
    with tempfile.TemporaryDirectory() as below:  # the short layout, by links
        for _, row in published_files(name).iterrows():
            link = Path(below) / row["path"]
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((folder / row["repository"] / row["commit"] / row["path"]).resolve())
        pairs = [(reader(path=below), reader()) for reader in READERS[name]]
    tables = [(*_tables(published), *_tables(here)) for published, here in pairs]
    same = all(
        a.equals(b) for parts in tables for a, b in zip(parts[: len(parts) // 2], parts[len(parts) // 2 :], strict=True)
    )
    return f"{sum(len(parts[0]) for parts in tables):,} rows, {'equal' if same else 'DIFFERENT'}"


def _tables(read: object) -> list[pd.DataFrame]:
    if isinstance(read, tuple):
        return [table for part in read for table in _tables(part)]
    if isinstance(read, benchmarks.BenchmarkTable):
        return [table for table in (read.prompts, read.quality, read.cost_usd) if table is not None]
    return [read]


def main(folder: Path) -> int:
    """Print a line for each dataset; return the exit code."""
    different = False
    for name in (*READERS, *collection.BUILDERS):
        rows = published_files(name) if name in READERS else collection.upstream().query("dataset == @name")
        there = [(folder / row["repository"] / row["commit"] / row["path"]).is_file() for _, row in rows.iterrows()]
        seen = "not compared"
        if all(there):
            seen = (compare_read if name in READERS else compare_built)(name, folder)
        different |= "DIFFERENT" in seen
        print(f"{name}: {sum(there)} of {len(there)} published files, {seen}", flush=True)
    return int(different)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
