"""Compare what the RouteLLM paper claims [RouteLLM24], and what the two updates claim, with the CSVs in ``results/``.

Every number and every verdict is computed from a CSV, so that neither can outlive its run. A claim whose CSV is not
there yet, or has another form, says so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from routing.studies.paper import calls_cost_usd, read_paper_tables

COMMERCIAL = {"martian": "Martian", "unify": "Unify"}
SAVINGS = {"MT-Bench": 3.66, "MMLU": 1.41, "GSM8K": 1.49}  # of calls at half of the gap, as the paper prints
NOT_RUN = "not run yet"
HOLDS = {"reproduced", "inside the interval", "above the paper"}
PROMPTS, RUNS, NONE = "prompts", "repeated timings", "no interval"


class Finding(NamedTuple):
    """What the results say of a claim."""

    ours: str
    verdict: str
    covers: str = ""  # what its intervals cover, where the CSV says so


class Claim(NamedTuple):
    """A claim, its scope, and the function of the results folder that judges it."""

    claim: str
    scope: str
    notebook: str  # two digits
    covers: str  # what its intervals cover, unless the finding says so
    judge: Callable[[Path], Finding]
    source: str = "paper"  # or "ours"


def write_interval(row: pd.Series, style: str = ".3f") -> str:
    """Return "estimate [low, high]" of a row, each in the given format."""
    return "{} [{}, {}]".format(*(format(row[name], style) for name in ("estimate", "low", "high")))


def pick_rows(folder: Path, file: str, **values: object) -> pd.DataFrame:
    """Return the rows of a CSV in `folder` that have these values; LookupError where there are none."""
    path = folder / file
    if not path.is_file():
        raise LookupError(f"{file} is missing")
    table = pd.read_csv(path)
    for name, value in values.items():
        table = table[table[name] == value]
    if table.empty:
        raise LookupError(f"{file} has no row of {values}")
    return table


def _areas(folder: Path, **values: object) -> pd.DataFrame:
    return pick_rows(folder, "tables/paper_vs_ours.csv", metric="apgr_trapezoid", **values)


def _compare(low: float, paper: float, high: float) -> str:
    return "above the paper" if low > paper else "below the paper" if high < paper else "inside the interval"


def _covers(areas: pd.DataFrame) -> str:
    over = areas.get("interval_over", pd.Series(PROMPTS, index=areas.index)).value_counts(sort=False)
    return ", ".join(name if n == len(areas) else f"{name} ({n} of {len(areas)})" for name, n in over.items())


def _count(n: int, of: int, word: str = "reproduced") -> str:
    return word if n == of else f"not {word}" if n == 0 else f"in part: {n} of {of}"


def count_sides(areas: pd.DataFrame) -> tuple[int, int, str]:
    """Return how many intervals lie above and below random order, and both in words, with the best router's."""
    above, below = int((areas["low"] > 0.5).sum()), int((areas["high"] < 0.5).sum())
    best = write_interval(areas.loc[areas["estimate"].idxmax()])
    return above, below, f"{above} of {len(areas)} above random order, {below} below; best {best}"


def judge_votes(folder: Path, benchmark: str) -> Finding:
    """Judge whether routers trained on votes alone are above random order on MT-Bench, and near it on others."""
    areas = _areas(folder, benchmark=benchmark, training_data="arena")
    above, below, text = count_sides(areas)
    near = "reproduced" if above == below == 0 else f"{above} of {len(areas)} above it, {below} below"
    paper = f"; the paper's {areas['paper'].min():.3f} to {areas['paper'].max():.3f}"
    verdict = _count(above, len(areas)) if benchmark == "MT-Bench" else near
    return Finding(text + paper, verdict, _covers(areas))


def judge_added(folder: Path, benchmark: str, added: str) -> Finding:
    """Judge whether adding battles to the votes raises routers: the interval with them lies above that without."""
    areas = _areas(folder, benchmark=benchmark)
    both = areas.pivot(index="router", columns="training_data")
    raised = int((both["low"][added] > both["high"]["arena"]).sum())
    best = both["estimate"][added].idxmax()
    before, after = (write_interval(both.xs(name, axis=1, level=1).loc[best]) for name in ("arena", added))
    text = f"{raised} of {len(both)} raised beyond both intervals; best {after}, on votes alone {before}"
    text += f"; the paper's best {both['paper'][added].max():.3f}"
    return Finding(text, _count(raised, len(both)), _covers(areas[areas["training_data"] == added]))


def judge_gold(folder: Path) -> Finding:
    """Judge the labels of MMLU alone, by five folds, next to the paper's best router with such labels."""
    alone = pick_rows(folder, "07_two_models/gold_labels.csv", benchmark="MMLU", labels="5 folds").set_index("metric")
    paper = read_paper_tables().query("benchmark == 'MMLU'")["apgr"].max()
    area = alone.loc["apgr_trapezoid"]
    text = f"{write_interval(area)} (exact area {write_interval(alone.loc['apgr'])})"
    return Finding(f"{text}; the paper's best {paper:.3f}", _compare(area["low"], paper, area["high"]))


def judge_transfer(folder: Path) -> Finding:
    """Judge whether routers of one pair, not trained again, route another."""
    file = "07_two_models/claude_opus_llama.csv"
    areas = pick_rows(folder, file, metric="apgr_trapezoid", training_data="arena+judge")
    above, _, text = count_sides(areas)
    paper = f"; the paper's {areas['paper'].min():.3f} to {areas['paper'].max():.3f}"
    return Finding(text + paper, _count(above, len(areas)))


def judge_commercial(folder: Path) -> Finding:
    """Say how many strong calls reach the score of commercial routers; their own bills are not in the data."""
    points = pick_rows(folder, "07_two_models/commercial_routers.csv")
    points = points[points["router"] != "gold labels"]
    best = points.loc[points.groupby("commercial")["strong_share"].idxmin()]
    reached = [
        f"{COMMERCIAL[row.commercial]}'s score at {row.strong_share:.0%} strong calls" for row in best.itertuples()
    ]
    return Finding("; ".join(reached), "cannot be tested: their bills are not in the data")


def judge_saving(folder: Path, benchmark: str) -> Finding:
    """Judge the saving at half of the gap: random routing's strong calls over the router's, as the paper counts."""
    costs = pick_rows(folder, "07_two_models/costs.csv", benchmark=benchmark)
    costs = costs[np.isclose(costs["pgr"], 0.5) & (costs["router"] != "random")]
    best = costs.loc[costs["saving"].idxmax()]
    low, high, paper = 0.5 / best["high"], 0.5 / best["low"], SAVINGS[benchmark]
    text = f"{best['saving']:.2f} [{low:.2f}, {high:.2f}]; the paper's {paper:.2f}"
    return Finding(text, _compare(low, paper, high))


def judge_overhead(folder: Path) -> Finding:
    """Judge the most expensive router's dollars on one core, request by request, as a share of a call to GPT-4."""
    costs = pick_rows(folder, "09_overhead/cost_timing.csv")
    costs = costs[costs["series"].str.endswith("batches of 1")]
    most = costs.loc[costs["usd_per_million"].idxmax()]
    shares = [most[name] / (1e6 * calls_cost_usd(1.0)) for name in ("usd_per_million", "low", "high")]
    text = "at most {:.4%} [{:.4%}, {:.4%}] of a call to GPT-4".format(*shares)
    return Finding(f"{text}, with 22 million parameters", "reproduced" if shares[2] < 0.01 else "not reproduced")


def judge_order(folder: Path) -> Finding:
    """Judge that no swap changes a fixed router, next to what swapping all rows does to RouteLLM's."""
    audit = pick_rows(folder, "02_order_swap/exchanges.csv", kind="fixed")
    flips = pick_rows(folder, "02_order_swap/decisions.csv", kind="RouteLLM")
    flips = flips[np.isclose(flips["strong_share"], 0.5)]
    moved = pick_rows(folder, "02_order_swap/consequences.csv", kind="RouteLLM")
    moved = moved.loc[moved["order"] != "pair swapped", "difference"].abs().max()
    most, largest = flips.loc[flips["estimate"].idxmax()], audit["largest_change"].max()
    text = f"swapping all rows changes {write_interval(most, '.1%')} of decisions of RouteLLM's similarity weighting on"
    text += f" {most['benchmark']}; no other order of rows moves its APGR (exact) by more than {moved:.3f}; the fixed"
    text += f" routers' largest change under {audit['swap'].nunique()} swaps is {largest:g}"
    return Finding(text, "holds" if largest == 0 else "fails")


def judge_many(folder: Path) -> Finding:
    """Judge what routing among many models gains over the best constant one, benchmark by benchmark."""
    gains = pick_rows(folder, "08_many_models/when_routing_pays.csv", measure="over_constant")
    wins, best = int((gains["low"] > 0).sum()), gains.loc[gains["low"].idxmax()]
    text = f"the score is above the best constant model's on {wins} of {len(gains)} test sets; best {best['task']}"
    return Finding(f"{text} {write_interval(best, '+.3f')}", _count(wins, len(gains), "shown"))


def _votes(benchmark: str) -> Claim:
    are = "beat" if benchmark == "MT-Bench" else "are near"
    scope = "APGR (trapezoid), four routers, GPT-4 and Mixtral-8x7B"
    text = f"On people's votes alone, routers {are} random order: {benchmark}"
    return Claim(text, scope, "07", PROMPTS, lambda folder: judge_votes(folder, benchmark))


def _saving(benchmark: str) -> Claim:
    text = f"Random order needs {SAVINGS[benchmark]:.2f} times the strong calls: {benchmark}"
    scope = "calls that recover half of the gap, best of four routers"
    return Claim(text, scope, "07", PROMPTS, lambda folder: judge_saving(folder, benchmark))


_JUDGED = "Judged battles lift MT-Bench", "APGR (trapezoid), four routers, arena+judge against arena"
_GOLD = "Gold labels lift MMLU", "APGR (trapezoid), four routers, arena+gold against arena"
_ALONE = "Gold labels alone route MMLU (not the paper's)", "similarity weighting, five folds, APGR (trapezoid)"
_PAIR = "Routers carry to another pair", "arena+judge, Claude 3 Opus and Llama 3 8B, MT-Bench, APGR (trapezoid)"
_OVERHEAD = "Routing costs little next to the calls", "dollars on one core, at the paper's price of a machine"
_ORDER = "Update 1: the order of two models changes nothing", "every router, every swap"
_MANY = "Update 2: routing among any number of models pays", "the router that folds chose, every test set"
CLAIMS = (
    *map(_votes, SAVINGS),
    Claim(*_JUDGED, "07", PROMPTS, lambda folder: judge_added(folder, "MT-Bench", "arena+judge")),
    Claim(*_GOLD, "07", PROMPTS, lambda folder: judge_added(folder, "MMLU", "arena+gold")),
    Claim(*_ALONE, "07", PROMPTS, judge_gold, "ours"),
    Claim(*_PAIR, "07", PROMPTS, judge_transfer),
    *map(_saving, SAVINGS),
    Claim("As good as commercial routers, for less", "MT-Bench, best of four routers", "07", NONE, judge_commercial),
    Claim(*_OVERHEAD, "09", RUNS, judge_overhead),
    Claim(*_ORDER, "02", PROMPTS, judge_order, "ours"),
    Claim(*_MANY, "08", PROMPTS, judge_many, "ours"),
)


def judge_safely(judge: Callable[[Path], Finding], folder: Path) -> Finding:
    """Return what `judge` finds, or `NOT_RUN` where the results are from before its CSV had this form, or lack it."""
    try:
        return judge(folder)
    except LookupError:  # KeyError is one
        return Finding(NOT_RUN, NOT_RUN)


def judge_claims(folder: Path) -> pd.DataFrame:
    """Return each claim as the fields of `Claim` and `Finding`, but for the function, from the CSVs in `folder`."""
    rows = []
    for claim in CLAIMS:
        found = judge_safely(claim.judge, folder)
        rows.append({**claim._asdict(), **found._asdict(), "covers": found.covers or claim.covers})
    return pd.DataFrame(rows).drop(columns="judge")
