"""Write results/benchmarks/README.md, the comparisons with other packages in one table, from the CSVs beside it.

python benchmarks/table.py
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parents[1] / "results" / "benchmarks"
UNKNOWN = "not recorded"
HEADER = ("task", "peer", "ours, s", "peer, s", "peer / ours", "runs", "machine", "physical limit, s", "ours / limit")
TITLE = "# Benchmarks against other packages\n\n"
INTRODUCTION = """\
Seconds are medians of the runs, measured in turn in one process (of the encoder,
processor seconds). The physical limit is what the same work costs at
least: reading the rows from memory for counts, the bare matrix product for similarity weighting, and the matrix
products of the dense layers for the encoder. It is given where it was measured; that of reading the rows is from a run
of its own (`limits.csv`).
"""
END = "\nThis file is written by `python benchmarks/table.py` from the CSVs in this folder.\n"


def compare(task: str, ours: pd.Series, peers: pd.DataFrame, limit: pd.Series | None = None) -> list[tuple[str, ...]]:
    """Return a row for each peer; times are divided by the prompts, where there are any."""
    own = ours["median_s"] / ours.get("prompts", 1)
    least = "" if limit is None else limit["median_s"] / limit.get("prompts", 1)
    rows = []
    for _, peer in peers.iterrows():
        seconds = peer["median_s"] / peer.get("prompts", 1)
        machine = peer.get("machine", UNKNOWN)
        at_limit = ("", "") if limit is None else (f"{least:.3g}", f"{own / least:.2f}")
        numbers = f"{own:.3g}", f"{seconds:.3g}", f"{seconds / own:.2f}", f"{peer['runs']}", machine, *at_limit
        rows.append((task, peer["name"], *numbers))
    return rows


def read(folder: Path, name: str) -> pd.DataFrame | None:
    path = folder / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else None


def render(folder: Path = FOLDER) -> str:
    """Return the page; a comparison whose CSV is not there is named as not run."""
    rows, missing = [], []
    limits, peers = read(folder, "limits"), read(folder, "bradley_terry_peers")
    if peers is None:
        missing.append("evalica, arena-rank, choix and scikit-learn (`benchmarks/bradley_terry.py`)")
    else:
        for stage, group in peers.groupby("stage", sort=False):
            others, own = group[group["name"] != "ours"], group[group["name"] == "ours"].iloc[0]
            counts_rows = stage == "table to ratings" and limits is not None
            rows += compare(f"Bradley-Terry, {stage}", own, others, limits.iloc[0] if counts_rows else None)
    similarity = read(folder, "similarity_throughput")
    if similarity is None:
        missing.append("RouteLLM (`benchmarks/similarity.py`)")
    else:
        for width, group in similarity.groupby("width"):
            at = group.set_index("name", drop=False)
            one, batch, product = (at.loc[name] for name in ("ours, one prompt", *at.index[:2]))
            peer = at.loc[["RouteLLM, one prompt"]]
            rows += compare(f"similarity weighting, width {width}, one prompt", one, peer)
            rows += compare(f"similarity weighting, width {width}, a prompt of a batch", batch, peer, product)
    encoder = read(folder, "encoder")
    if encoder is None:
        missing.append("sentence-transformers (`benchmarks/encoder.py`)")
    else:
        at = encoder.set_index("name", drop=False)
        product, many = at.loc["matrix products alone, float32"], at.loc[["sentence-transformers, float32"]]
        for name in [name for name in at.index if name.startswith("ours, ") and "prompt" not in name]:
            rows += compare(
                f"encoding, a prompt of a batch, {name.removeprefix('ours, ')}", at.loc[name], many, product
            )
        alone = at.loc[["sentence-transformers, one prompt"]]
        rows += compare("encoding, one prompt", at.loc["ours, one prompt"], alone)
    lines = [" | ".join(cells) for cells in (HEADER, ("---",) * len(HEADER), *rows)]
    page = TITLE + INTRODUCTION + "\n" + "\n".join(f"| {line} |" for line in lines) + "\n"
    if missing:
        page += "\nNot run here: " + "; ".join(missing) + ".\n"
    return page + END


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(render(), encoding="utf-8")
