"""The figures that the RouteLLM paper prints, to stand beside those computed here [RouteLLM24]."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pandas as pd

BENCHMARK_NAMES = {"mt_bench": "MT-Bench", "mmlu": "MMLU", "gsm8k": "GSM8K"}
ROUTER_NAMES = {"similarity_weighted": "similarity_weighting"}

# Dollars per million tokens, input and output averaged, and mean tokens of a call (95 in, 264 out).
PRICE_STRONG_USD, PRICE_WEAK_USD = 24.7, 0.24
TOKENS_PER_CALL = 95 + 264


def read_paper_tables() -> pd.DataFrame:
    """Tables 1 to 4 of the paper, a row a router.

    Returns
    -------
    DataFrame
        table, benchmark, strong, weak, training_data ("none", "arena", "arena+judge", "arena+gold"), router (named as
        in `routing.plots.ROUTER_STYLES`), cpt50 and cpt80 (share of strong-model calls), apgr.
    """
    with resources.files("routing").joinpath("paper_tables.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file)
    shares = {f"cpt{level}": table.pop(f"cpt{level}_pct") / 100 for level in (50, 80)}
    return table.assign(
        benchmark=table["benchmark"].replace(BENCHMARK_NAMES), router=table["router"].replace(ROUTER_NAMES), **shares
    )


def calls_cost_usd(strong_share: float | np.ndarray) -> float | np.ndarray:
    """Dollars a call, on average, where `strong_share` of the calls go to GPT-4 and the others to Mixtral."""
    per_million = strong_share * PRICE_STRONG_USD + (1 - strong_share) * PRICE_WEAK_USD
    return TOKENS_PER_CALL * per_million / 1e6


def compare_with_paper(ours: pd.DataFrame, strong: str, weak: str) -> pd.DataFrame:
    """The paper's figure beside each of ours.

    Parameters
    ----------
    ours : DataFrame
        benchmark, training_data, router, metric ("apgr_trapezoid", which is the paper's APGR, "cpt50", "cpt80"),
        estimate, low, high; other metrics are left out.

    Returns
    -------
    DataFrame
        The same with paper (missing where it prints none), difference (ours less the paper's), and verdict: "inside the
        interval", "better" or "worse" than it (a greater APGR is better, a smaller CPT), "not in the paper".
    """
    keys = ["benchmark", "training_data", "router"]
    paper = read_paper_tables().rename(columns={"apgr": "apgr_trapezoid"})
    paper = paper[(paper["strong"] == strong) & (paper["weak"] == weak)]
    paper = paper.melt(keys, ["cpt50", "cpt80", "apgr_trapezoid"], "metric", "paper")
    both = ours[ours["metric"].isin(paper["metric"])].merge(paper, how="left", on=[*keys, "metric"])
    both["difference"] = both["estimate"] - both["paper"]
    better = (both["difference"] > 0) == (both["metric"] == "apgr_trapezoid")
    outside = np.where(better, "better", "worse")
    verdict = np.where(both["paper"].between(both["low"], both["high"]), "inside the interval", outside)
    return both.assign(verdict=np.where(both["paper"].isna(), "not in the paper", verdict))
