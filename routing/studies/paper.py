"""Compare results with the numbers that the RouteLLM paper prints [RouteLLM24]."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd

from routing.files import write_atomically

BENCHMARK_NAMES = {"mt_bench": "MT-Bench", "mmlu": "MMLU", "gsm8k": "GSM8K"}
ROUTER_NAMES = {"similarity_weighted": "similarity_weighting"}

# Dollars per million tokens, input and output averaged, and mean tokens of a call (95 in, 264 out).
PRICE_STRONG_USD, PRICE_WEAK_USD = 24.7, 0.24
TOKENS_PER_CALL = 95 + 264

# The training set with which the paper's figures show each benchmark.
PUBLISHED_SETS = {"MT-Bench": "arena+judge", "MMLU": "arena+gold", "GSM8K": "arena+judge"}
# Mean over a benchmark's prompts of the highest cosine to a training prompt, with text-embedding-3-small.
PAPER_SIMILARITY = pd.DataFrame(
    [
        ("MT-Bench", "arena", 0.6078),
        ("MT-Bench", "arena+judge", 0.6525),
        ("MMLU", "arena", 0.4823),
        ("MMLU", "arena+gold", 0.5678),
        ("GSM8K", "arena", 0.4926),
        ("GSM8K", "arena+judge", 0.5335),
    ],
    columns=["benchmark", "training_data", "paper"],
)

# Table 7: overhead of each router, and the machine; dollars at the hourly price of a virtual machine.
PAPER_OVERHEAD = pd.DataFrame(
    [
        ("similarity_weighting", "8-core CPU", 2.9, 39.26),
        ("matrix_factorization", "one L4 GPU", 155.16, 3.32),
        ("bert", "one L4 GPU", 69.62, 3.19),
        ("causal_llm", "one L4 GPU", 42.46, 5.23),
    ],
    columns=["router", "machine", "requests_per_s", "usd_per_million"],
)
# What the first row, the only one without an accelerator, implies: 1e6 requests take 1e6 / 2.9 / 3600 hours of 8 cores.
USD_PER_CORE_HOUR = 39.26 * 2.9 * 3600 / 1e6 / 8  # 0.0512
METRIC_TITLES = {"apgr_trapezoid": "APGR", "cpt50": "CPT50", "cpt80": "CPT80"}

# What is known to differ from the paper, by training set and by router.
DATA_DIFFERENCES = {
    "arena": "a sixth of the battles",
    "arena+judge": "a sixth of the battles; judgements on 805 prompts, not 120,000",
    "arena+gold": "a sixth of the battles",
}
MODEL_DIFFERENCES = {
    "similarity_weighting": "embeddings of all-MiniLM-L6-v2, not text-embedding-3-small",
    "matrix_factorization": "embeddings of all-MiniLM-L6-v2, not text-embedding-3-small",
    "bert": "all-MiniLM-L6-v2, not BERT-base; prompts cut shorter",
    "causal_llm": "22 million parameters, not Llama 3 8B; prompts cut shorter",
}


def read_paper_tables() -> pd.DataFrame:
    """Read tables 1 to 4 of the paper, one row per router.

    Returns
    -------
    DataFrame
        table, benchmark, strong, weak, training_data ("none", "arena", "arena+judge", "arena+gold"), router (named as
        in `routing.studies.plotting.ROUTER_STYLES`), cpt50 and cpt80 (share of strong-model calls), apgr.
    """
    with resources.files("routing.studies").joinpath("paper_tables.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file)
    shares = {f"cpt{level}": table.pop(f"cpt{level}_pct") / 100 for level in (50, 80)}
    return table.assign(
        benchmark=table["benchmark"].replace(BENCHMARK_NAMES), router=table["router"].replace(ROUTER_NAMES), **shares
    )


def calls_cost_usd(strong_share: float | np.ndarray) -> float | np.ndarray:
    """Return the mean dollars per call where `strong_share` of the calls go to GPT-4 and the others to Mixtral."""
    per_million = strong_share * PRICE_STRONG_USD + (1 - strong_share) * PRICE_WEAK_USD
    return TOKENS_PER_CALL * per_million / 1e6


def match_paper(ours: pd.DataFrame, strong: str, weak: str) -> pd.DataFrame:
    """Return the rows of `ours` whose metric the paper prints, with its number in column paper (may be missing).

    Parameters
    ----------
    ours : DataFrame
        benchmark, training_data, router, metric ("apgr_trapezoid", which is the paper's APGR, "cpt50", "cpt80").
    strong, weak : str
        The pair of models, as the paper's tables name it.
    """
    keys = ["benchmark", "training_data", "router"]
    paper = read_paper_tables().rename(columns={"apgr": "apgr_trapezoid"})
    paper = paper[(paper["strong"] == strong) & (paper["weak"] == weak)]
    paper = paper.melt(keys, list(METRIC_TITLES), "metric", "paper")
    return ours[ours["metric"].isin(METRIC_TITLES)].merge(paper, how="left", on=[*keys, "metric"])


def compare_with_paper(ours: pd.DataFrame, strong: str, weak: str) -> pd.DataFrame:
    """Compare each result with the paper's number.

    Parameters
    ----------
    ours : DataFrame
        As in `match_paper`, with estimate, low, high.

    Returns
    -------
    DataFrame
        The same with paper, difference (ours minus the paper's), and verdict: "inside the interval", "better" or
        "worse" than it (a higher APGR is better, a lower CPT), "not in the paper".
    """
    both = match_paper(ours, strong, weak)
    both["difference"] = both["estimate"] - both["paper"]
    better = (both["difference"] > 0) == (both["metric"] == "apgr_trapezoid")
    outside = np.where(better, "better", "worse")
    verdict = np.where(both["paper"].between(both["low"], both["high"]), "inside the interval", outside)
    return both.assign(verdict=np.where(both["paper"].isna(), "not in the paper", verdict))


def write_comparison(both: pd.DataFrame, data: str, folder: Path) -> None:
    """Write ``paper_vs_ours.csv`` and ``paper_vs_ours.md``: every cell with interval, verdict and known difference.

    Parameters
    ----------
    both : DataFrame
        As `compare_with_paper`.
    data : "real" or "simulated"
    folder : Path
        Made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    outside = both["verdict"].isin(["better", "worse"])
    differences = both["training_data"].map(DATA_DIFFERENCES) + "; " + both["router"].map(MODEL_DIFFERENCES)
    columns = "benchmark training_data router metric paper estimate low high difference verdict".split()
    table = both[columns].assign(difference_from_paper=differences.where(outside, ""))
    write_atomically(folder / "paper_vs_ours.csv", table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    lines = [
        f"Data: {data}. Each cell: the paper, ours with its 95 % interval over prompts. APGR as in the paper, the"
        " trapezoid over 11 points; CPT in % of calls to the strong model, the smallest share.",
        "",
        "| benchmark | learned from | router | "
        + " | ".join(METRIC_TITLES.values())
        + " | difference from the paper |",
        "| --- | --- | --- | " + "--- | " * (len(METRIC_TITLES) + 1),
    ]
    for (benchmark, training_data, router), rows in table.groupby(["benchmark", "training_data", "router"], sort=False):
        by_metric = rows.set_index("metric")
        cells = [_describe_cell(by_metric.loc[metric], metric) for metric in METRIC_TITLES]
        known = next((text for text in rows["difference_from_paper"] if text), "")
        lines.append(f"| {benchmark} | {training_data} | {router.replace('_', ' ')} | {' | '.join(cells)} | {known} |")
    write_atomically(folder / "paper_vs_ours.md", "\n".join(lines) + "\n")


def _describe_cell(row: pd.Series, metric: str) -> str:
    scale, digits = (1, 3) if metric == "apgr_trapezoid" else (100, 1)
    paper, ours, low, high = (f"{scale * row[name]:.{digits}f}" for name in ("paper", "estimate", "low", "high"))
    if row["verdict"] == "not in the paper":
        return f"{ours} [{low}, {high}]"
    return f"{paper}; {ours} [{low}, {high}], {row['verdict']}"
