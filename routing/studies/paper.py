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

# The training set with which the paper's figures show each benchmark; Arena-Bench, not the paper's, as MT-Bench.
PUBLISHED_SETS = {"MT-Bench": "arena+judge", "MMLU": "arena+gold", "GSM8K": "arena+judge", "Arena-Bench": "arena+judge"}
# Mean over a benchmark's prompts of the highest cosine to a training prompt, with text-embedding-3-small.
PAPER_SIMILARITY = pd.DataFrame({
    "benchmark": ["MT-Bench", "MT-Bench", "MMLU", "MMLU", "GSM8K", "GSM8K"],
    "training_data": ["arena", "arena+judge", "arena", "arena+gold", "arena", "arena+judge"],
    "paper": [0.6078, 0.6525, 0.4823, 0.5678, 0.4926, 0.5335],
})  # fmt: skip

# Table 7: overhead of each router, and the machine; dollars at the hourly price of a virtual machine.
PAPER_OVERHEAD = pd.DataFrame({
    "router": ["similarity_weighting", "matrix_factorization", "bert", "causal_llm"],
    "machine": ["8-core CPU", "one L4 GPU", "one L4 GPU", "one L4 GPU"],
    "requests_per_s": [2.9, 155.16, 69.62, 42.46],
    "usd_per_million": [39.26, 3.32, 3.19, 5.23],
})  # fmt: skip
# What the first row, the only one without an accelerator, implies: 1e6 requests take 1e6 / 2.9 / 3600 hours of 8 cores.
USD_PER_CORE_HOUR = 39.26 * 2.9 * 3600 / 1e6 / 8  # 0.0512
METRIC_TITLES = {"apgr_trapezoid": "APGR", "cpt50": "CPT50", "cpt80": "CPT80"}

# Published by third parties, not run here: APGR of RouteLLM's released BERT router, by wanghesong2019/RouteLLM-Eng
# (2026), on 5,700 prompts of MMLU (100 per subject) and all 1,319 of GSM8K, not decontaminated.
PUBLISHED_ELSEWHERE = pd.DataFrame(
    [
        (benchmark, "arena+judge", "bert", "apgr_trapezoid", area)
        for benchmark, area in (("MMLU", 0.527), ("GSM8K", 0.533))
    ],
    columns=["benchmark", "training_data", "router", "metric", "published"],
)

# What is known to differ from the paper, by training set and by router.
DATA_DIFFERENCES = dict.fromkeys(("arena", "arena+judge", "arena+gold"), "a sixth of the battles")
DATA_DIFFERENCES["arena+judge"] = "a sixth of the people's battles; eight other sources for 109,101 judged ones"
MODEL_DIFFERENCES = {
    "similarity_weighting": "embeddings of all-MiniLM-L6-v2, not text-embedding-3-small",
    "matrix_factorization": "embeddings of all-MiniLM-L6-v2, not text-embedding-3-small",
    "bert": "all-MiniLM-L6-v2, not BERT-base; prompts cut shorter",
    "causal_llm": "22 million parameters, not Llama 3 8B; prompts cut shorter",
}


def read_paper_tables() -> pd.DataFrame:
    """Read tables 1 to 4 of the paper, one row per router.

    Columns are table, benchmark, strong, weak, training_data ("none", "arena", "arena+judge", "arena+gold"), router (a
    name of `ROUTER_STYLES`), cpt50 and cpt80 (share of strong-model calls), apgr.
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
    """Return the rows of `ours` whose metric the paper prints, with its number for the pair in column paper.

    `ours` has benchmark, training_data, router, metric ("apgr_trapezoid", the paper's APGR, "cpt50", "cpt80").
    """
    keys = ["benchmark", "training_data", "router"]
    paper = read_paper_tables().rename(columns={"apgr": "apgr_trapezoid"})
    paper = paper[(paper["strong"] == strong) & (paper["weak"] == weak)]
    paper = paper.melt(keys, list(METRIC_TITLES), "metric", "paper")
    return ours[ours["metric"].isin(METRIC_TITLES)].merge(paper, how="left", on=[*keys, "metric"])


def compare_with_paper(ours: pd.DataFrame, strong: str, weak: str) -> pd.DataFrame:
    """Return `match_paper` of results with estimate, low and high, and how each compares with the paper's number.

    Added are difference (ours minus the paper's) and verdict: "inside the interval", "better" or "worse" than it (a
    higher APGR is better, a lower CPT), "not in the paper".
    """
    both = match_paper(ours, strong, weak)
    both["difference"] = both["estimate"] - both["paper"]
    better = (both["difference"] > 0) == (both["metric"] == "apgr_trapezoid")
    outside = np.where(better, "better", "worse")
    verdict = np.where(both["paper"].between(both["low"], both["high"]), "inside the interval", outside)
    return both.assign(verdict=np.where(both["paper"].isna(), "not in the paper", verdict))


def write_comparison(both: pd.DataFrame, data: str, folder: Path) -> None:
    """Write ``paper_vs_ours.csv`` and ``paper_vs_ours.md``: every cell with interval, verdict and known difference.

    `both` is what `compare_with_paper` gives, `data` "real" or "simulated"; the folder is made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    outside = both["verdict"].isin(["better", "worse"])
    differences = both["training_data"].map(DATA_DIFFERENCES) + "; " + both["router"].map(MODEL_DIFFERENCES)
    columns = "benchmark training_data router metric paper estimate low high difference verdict".split()
    both = both.merge(PUBLISHED_ELSEWHERE, how="left", on=list(PUBLISHED_ELSEWHERE.columns[:4]))
    flat = both["flat"] if "flat" in both else pd.Series(False, index=both.index)
    table = both[[*columns, "published"]].assign(
        equals_leaderboard=flat,
        interval_over=both["covers"] if "covers" in both else "prompts",
        difference_from_paper=differences.where(outside, ""),
    )
    write_atomically(folder / "paper_vs_ours.csv", table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    text = (
        f"Data: {data}. Each cell: the paper, ours with its 95 % interval over prompts, and over training where"
        " interval_over in the CSV says so. APGR as in the paper, the"
        " trapezoid over 11 points; CPT in % of calls to the strong model, the smallest share.\n\n"
    )
    keys = ["benchmark", "training_data", "router"]
    flat = table["equals_leaderboard"].map({True: " (equals the leaderboard)", False: ""})
    cells = table.assign(cell=[_describe_cell(row) for row in table.to_dict("records")])
    cells["router"] = cells["router"].str.replace("_", " ") + flat
    shown = cells.pivot_table("cell", keys, "metric", "first", sort=False)[list(METRIC_TITLES)]
    grouped = cells.groupby(keys, sort=False)
    shown["published (third party)"] = grouped["published"].max().map("{:.3f}".format).replace("nan", "")
    shown["difference from the paper"] = grouped["difference_from_paper"].max()
    shown = shown.rename(columns=METRIC_TITLES)
    text += write_markdown(shown.reset_index().rename(columns={"training_data": "learned from"}))
    write_atomically(folder / "paper_vs_ours.md", text)


def write_markdown(table: pd.DataFrame) -> str:
    """Return a table of texts in Markdown, without its index."""
    lines = [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _describe_cell(row: dict) -> str:
    scale, digits = (1, 3) if row["metric"] == "apgr_trapezoid" else (100, 1)
    paper, ours, low, high = (f"{scale * row[name]:.{digits}f}" for name in ("paper", "estimate", "low", "high"))
    if row["verdict"] == "not in the paper":
        return f"{ours} [{low}, {high}]"
    return f"{paper}; {ours} [{low}, {high}], {row['verdict']}"
