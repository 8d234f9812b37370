"""Measure what the order of two models does to original and fixed routers on the same battles.

`routing.order_audit` audits one router, and `routing.studies.order.original` has the faults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from numpy.random import Generator

from routing.battles import count_pairs, swap_battles
from routing.evaluation.call_curve import CallCurve, bootstrap_metrics, call_curve
from routing.order_audit import RouterMaker, audit_order, bootstrap_decisions, decisions_changed, reorder_battles
from routing.ratings.bradley_terry import ELO_PER_LOG_ODDS, bootstrap_ratings, rating_tiers
from routing.routers.base import BradleyTerryRouter, Prompts, Router
from routing.routers.bert import BertRouter
from routing.routers.causal import CausalLMRouter
from routing.routers.factorization import MatrixFactorizationRouter
from routing.routers.similarity import SimilarityRouter
from routing.studies.leaderboard import online_elo
from routing.studies.order import original
from routing.studies.order.judges import alike_prompts, mean_interval
from routing.studies.paper import calls_cost_usd
from routing.studies.plotting import plot_heatmaps, plot_lines, plot_rows
from routing.studies.simulated.arena import SimulatedArena

ROUTELLM, ARENA, FIXED = "RouteLLM", "Arena notebook", "fixed"
STYLES = {ROUTELLM: {"color": "C3", "marker": "X", "linestyle": "-"}}
STYLES[FIXED] = {"color": "C0", "marker": "o", "linestyle": "--"}
AS_DISPLAYED, PAIR_SWAPPED = "as displayed", "pair swapped"
SETTINGS = pd.DataFrame({
    "n_resamples": (20, 100, 200),  # of prompts, for intervals
    "n_draws": (3, 5, 20),  # of battles
    "n_tiers": (4, 4, 10),  # the paper's ten hold 64 models, the simulated arena has 12
    "n_epochs": (1, 1, 3),
    "batch_size": (512, 256, 64),
    "n_of_pair": (100, 100, 400),  # battles that the classifiers are trained on
    "n_texts": (30, 60, 60),  # prompts that they are queried about
    "n_shares": (4, 5, 9),  # of battles within a tier
    "n_across": (1_000, 2_000, 4_000),  # battles between tiers
}, index=["smoke", "quick", "full"])  # fmt: skip
SWAPS = {  # in the order of the figure's columns
    "all rows": "(a) all rows swapped",
    "winner first": "(b) winner first",
    "strong first": "(c) strong model first",
    "random half": "(d) random half swapped",
    "canonical": "(e) one orientation per pair",
    "pair at construction": "(f) pair swapped when made",
    "pair when asked": "(g) pair swapped when queried",
    "rows shuffled": "(h) rows shuffled",
    "tied scores": "(i) benchmark rows shuffled",
}

Pair = tuple[str, str]  # the strong and the weak model
Quality = tuple[np.ndarray, np.ndarray]  # of the strong and the weak model's answers, (n_prompts,) each
Forms = tuple[RouterMaker, RouterMaker]  # the original and the fixed one
Scores = dict[str, dict[str, np.ndarray]]  # by benchmark, then by order of the battles: (n_prompts,)


def vector_forms(n_tiers: int, n_epochs: int, batch_size: int) -> dict[str, Forms]:
    """Return RouteLLM's and the fixed form of the routers that take embeddings."""

    def factorization(*_: str) -> Router:  # it keeps all its epochs, so that a swap has something to change
        return MatrixFactorizationRouter(n_epochs=n_epochs, batch_size=batch_size, n_seeds=1, reference=True)

    return {
        "similarity weighting": (
            lambda *pair: original.OriginalSimilarityRouter(*pair, n_tiers=n_tiers),
            lambda *_: SimilarityRouter(n_tiers=n_tiers),
        ),
        "matrix factorization": (lambda *pair: original.FixedPairRouter(factorization(), *pair), factorization),
        "outcomes with ties": (
            lambda *_: original.TiesToWeakRouter(BradleyTerryRouter()),
            lambda *_: BradleyTerryRouter(),
        ),
    }


def text_forms(profile: str) -> dict[str, Forms]:
    """Return RouteLLM's and the fixed form of the classifiers: the cheapest, a head on one layer; in smoke BERT's."""
    head = {"train": "head", "n_layers": 1, "max_length": 16}
    kinds = {"BERT": (original.ThreeLabelRouter, BertRouter)}
    if profile != "smoke":
        kinds["causal LLM"] = (original.ScoreTokenRouter, CausalLMRouter)
    return {name: tuple(lambda *_, kind=kind: kind(**head) for kind in both) for name, both in kinds.items()}


def audit_forms(
    forms: Mapping[str, Forms], battles: pd.DataFrame, prompts: Prompts, pair: Pair, embeddings: np.ndarray | None,
    quality: Quality, seed: int = 0, form: str = ROUTELLM,
    original_curve: Callable[..., CallCurve] = original.curve_at_quantiles,
) -> pd.DataFrame:  # fmt: skip
    """Return `audit_order` of both forms of each router, after columns router and kind; arguments as there.

    The kind of the first form is `form`, and `original_curve` evaluates it; the second is "fixed", by `call_curve`.
    """
    audits = {}
    for name, both in forms.items():
        for kind, make, curve in zip((form, FIXED), both, (original_curve, call_curve), strict=True):
            options = {"embeddings": embeddings, "quality": quality, "make_curve": curve, "seed": seed}
            audits[name, kind] = audit_order(make, battles, prompts, pair, **options)
    return pd.concat(audits, names=["router", "kind"]).reset_index(["router", "kind"]).reset_index(drop=True)


def audit_leaderboards(
    battles: pd.DataFrame, prompts: Prompts, pair: Pair, quality: Quality, min_battles: int = 100, seed: int = 0
) -> pd.DataFrame:
    """Return `audit_forms` of what the Arena notebook computes from battles alone, evaluated by a naive top-k cut.

    Regression on rows sees no ties, as only without them one class is possible. The bootstrap's upper interval ends
    take the place of ratings, of models with `min_battles` in each column.
    """

    def upper_ends(table: pd.DataFrame, written: bool) -> pd.Series:
        counts, rng = count_pairs(table), np.random.default_rng(seed)
        resampled = original.bootstrap_written_cells(table, 20, rng) if written else bootstrap_ratings(counts, 20, rng)
        return pd.Series(ELO_PER_LOG_ODDS * np.quantile(resampled, 0.975, axis=0), index=counts.models)

    first, second = (battles.groupby(side)[side].transform("size") for side in ("model_a", "model_b"))
    often = battles[(first >= min_battles) & (second >= min_battles)]
    decided = battles[battles["winner"] != "tie"]
    fixed_ends = partial(original.EloRouter, partial(upper_ends, written=False))
    parts = {
        "ratings, pivot tables": (original.fit_pivot_tables, BradleyTerryRouter, battles),
        "ratings, online Elo": (online_elo, BradleyTerryRouter, battles),
        "ratings, rows without ties": (original.fit_rows, BradleyTerryRouter, decided),
        "intervals, bootstrap": (partial(upper_ends, written=True), fixed_ends, often),
    }
    audits, options = [], (prompts, pair, None, quality, seed, ARENA, original.curve_by_rows)
    for name, (fit_elo, fixed, table) in parts.items():
        forms = {name: (lambda *_, fit=fit_elo: original.EloRouter(fit), lambda *_, make=fixed: make())}
        audits.append(audit_forms(forms, table, *options))
    return pd.concat(audits, ignore_index=True)


def plot_audit(audit: pd.DataFrame) -> Figure:
    """Draw the largest change of each router under each swap; an error is written as such."""
    matrix = audit.assign(row=audit["kind"] + ": " + audit["router"]).rename(columns={"largest_change": "change"})
    order = [*matrix.loc[matrix["kind"] != FIXED, "row"].unique(), *matrix.loc[matrix["kind"] == FIXED, "row"].unique()]
    changes = matrix.pivot(index="row", columns="swap", values="change").loc[order, list(SWAPS)].round(9)
    largest = audit.loc[audit["kind"] == FIXED, "largest_change"].max()
    title = f"Only the original forms depend on an order; the largest change of a fixed one is {largest:g}"
    scale = {"cmap": "Oranges", "norm": SymLogNorm(1e-3, vmin=0, vmax=1), "linewidths": 0.5}
    label = "largest change of a probability; in (i) of APGR"
    figure = plot_heatmaps({"": changes.rename(columns=SWAPS)}, label, title, annot=True, fmt=".2g", **scale)
    for row, column in np.argwhere(changes.isna().to_numpy()):
        figure.axes[0].text(column + 0.5, row + 0.5, "raises", ha="center", va="center", fontsize=9)
    return figure


def score_orders(
    make_router: RouterMaker, battles: pd.DataFrame, embeddings: np.ndarray, prompts: Mapping[str, np.ndarray],
    pair: Pair, rng: Generator,
) -> Scores:  # fmt: skip
    """Return log-odds that the strong model wins, fitted to the battles "as displayed" and in other orders.

    These are those of `reorder_battles`, and "pair swapped": queried about (weak, strong), mirrored back. The index of
    `battles` counts from 0; `prompts` are embedded, by benchmark.
    """
    scores: Scores = {name: {} for name in prompts}
    for order, table in ({AS_DISPLAYED: battles} | reorder_battles(battles, rng)).items():
        router = make_router(*pair).fit(table, embeddings[table.index])
        for name, vectors in prompts.items():
            scores[name][order] = router.margin(vectors, *pair)
            if order == AS_DISPLAYED:
                scores[name][PAIR_SWAPPED] = -router.margin(vectors, *pair[::-1])
    return scores


def compare_decisions(
    scores: Mapping[str, Scores], shares: np.ndarray, n_resamples: int, rng: Generator
) -> pd.DataFrame:
    """Return `bootstrap_decisions` between the battles as displayed and all swapped, by kind and benchmark."""
    parts = []
    for kind, by_benchmark in scores.items():
        for benchmark, orders in by_benchmark.items():
            part = bootstrap_decisions(orders[AS_DISPLAYED], orders["all rows"], shares, n_resamples, rng)
            parts.append(part.assign(kind=kind, benchmark=benchmark))
    return pd.concat(parts, ignore_index=True)


def plot_decisions(table: pd.DataFrame) -> Figure:
    """Draw the table of `compare_decisions`, a panel per benchmark."""
    half = table[(table["kind"] == ROUTELLM) & np.isclose(table["strong_share"], 0.5)]
    most = half.loc[half["estimate"].idxmax()]
    title = f"Swapping all rows flips {most['estimate']:.1%} of {most['benchmark']} decisions at 50 % strong calls"
    shown = table.assign(**{name: 100 * table[name] for name in ("strong_share", "estimate", "low", "high")})
    labels = ("strong calls (%)", "decisions changed (%, 95 %)")
    return plot_lines(shown, "strong_share", "estimate", labels, title, by="kind", panel="benchmark", styles=STYLES)


def draw_decisions(
    makers: Mapping[str, RouterMaker], battles: pd.DataFrame, embeddings: np.ndarray, prompts: np.ndarray,
    pair: Pair, sizes: tuple[int, int], n_draws: int, rng: Generator,
) -> pd.DataFrame:  # fmt: skip
    """Return the decisions changed by swapping all rows, on several draws of so many battles and so many prompts.

    All `makers`, by kind, see the same draws. Columns are kind, definition, changed (share of the prompts): where "half
    of the calls" are strong before and after, or where the median score before is the "old threshold kept".
    """
    rows = []
    for _ in range(n_draws):
        chosen = rng.permutation(len(battles))[: sizes[0]]
        asked = prompts[rng.permutation(len(prompts))[: sizes[1]]]
        tables = battles.iloc[chosen], swap_battles(battles.iloc[chosen])
        for kind, make in makers.items():
            one, other = (make(*pair).fit(table, embeddings[chosen]).margin(asked, *pair) for table in tables)
            crossed = (one >= np.median(one)) != (other >= np.median(one))
            rows.append((kind, "half of the calls", decisions_changed(one, other)))
            rows.append((kind, "old threshold kept", float(crossed.mean())))
    return pd.DataFrame(rows, columns=["kind", "definition", "changed"])


def plot_draws(table: pd.DataFrame, earlier: float | None = None) -> Figure:
    """Draw each draw of `draw_decisions` and their median; `earlier` is a share on one other draw."""
    drawn = pd.DataFrame({"name": table["kind"] + ", " + table["definition"], "estimate": 100 * table["changed"]})
    medians = drawn.groupby("name", sort=False).median().reset_index()
    medians = medians.assign(mark="median", text=medians["estimate"].map("{:.1f}".format))
    middle = medians["text"].iloc[0]
    title = f"On other draws of battles and prompts a median of {middle} % of RouteLLM's decisions change"
    styles = {"one draw": {"color": "C0", "marker": "|"}, "median": {"color": "C3", "marker": "D"}}
    reference = None if earlier is None else {f"one earlier draw: {earlier:.1%}": 100 * earlier}
    shown = pd.concat([drawn.assign(mark="one draw", text=""), medians])
    return plot_rows(shown, "decisions changed (%)", title, group="mark", styles=styles, reference=reference)


def measure_consequences(
    scores: Mapping[str, Scores], quality: Mapping[str, Quality], n_resamples: int, rng: Generator
) -> pd.DataFrame:
    """Return what another order of the battles does to APGR and the bill; `scores` by kind, `quality` by benchmark.

    Columns are kind, benchmark, order, apgr, difference (to "as displayed"), low, high (of the difference, 95 %, paired
    over prompts), usd_per_1000 (for 1,000 calls at the smallest share of strong calls that recovers half of the gap).
    """
    parts = []
    for kind, by_benchmark in scores.items():
        for benchmark, orders in by_benchmark.items():
            qualities, options = quality[benchmark], {"reference": AS_DISPLAYED, "metrics": {"apgr": CallCurve.apgr}}
            table = bootstrap_metrics(orders, *qualities, n_resamples, rng, **options)
            table = table.drop(columns=["low", "high"]).rename(columns={"router": "order", "estimate": "apgr"})
            shares = np.array([call_curve(score, *qualities).cpt(0.5) for score in orders.values()])
            parts.append(table.assign(kind=kind, benchmark=benchmark, usd_per_1000=1000 * calls_cost_usd(shares)))
    table = pd.concat(parts, ignore_index=True).rename(columns={"difference_low": "low", "difference_high": "high"})
    return table[["kind", "benchmark", "order", "apgr", "difference", "low", "high", "usd_per_1000"]]


def select_row_orders(consequences: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `measure_consequences` for RouteLLM's form on other orders of the same battles."""
    return consequences[(consequences["kind"] == ROUTELLM) & ~consequences["order"].isin([AS_DISPLAYED, PAIR_SWAPPED])]


def plot_consequences(consequences: pd.DataFrame) -> Figure:
    """Draw the change of APGR by other orders of the rows, a panel per benchmark; the fixed form once."""
    rows = select_row_orders(consequences)
    fixed = consequences[(consequences["kind"] == FIXED) & (consequences["order"] == "all rows")]
    title = f"Another order of rows changes RouteLLM's APGR by at most {rows['difference'].abs().max():.3f}"
    shown = pd.concat([rows, fixed]).rename(columns={"difference": "estimate"})
    shown = shown.assign(name=shown["kind"] + ": " + shown["order"], text=[f"{d:+.3f}" for d in shown["estimate"]])
    return plot_rows(shown, "change of APGR (95 %)", title, panel="benchmark", reference=0.0)


def name_both_ways(routers: Mapping[tuple[str, str], Router], prompts: Prompts, pair: Pair) -> pd.DataFrame:
    """Return what fitted routers, by (kind, name), say of each prompt, the pair named either way round.

    Columns are straight (P(strong wins)), mirrored (1 - P(weak wins)), sum (of both), kind, form ("kind: name").
    """
    parts = []
    for (kind, name), router in routers.items():
        p, other = router.win_probability(prompts, *pair), router.win_probability(prompts, *pair[::-1])
        table = pd.DataFrame({"straight": p, "mirrored": 1 - other, "sum": p + other})
        parts.append(table.assign(kind=kind, form=f"{kind}: {name}"))
    return pd.concat(parts, ignore_index=True)


def plot_naming(naming: pd.DataFrame) -> Figure:
    """Draw both answers of `name_both_ways`, prompts by the first, a panel per form."""
    ordered = naming.sort_values("straight").assign(rank=lambda table: table.groupby("form").cumcount())
    ordered["rank"] = 100 * ordered["rank"] / (ordered.groupby("form")["rank"].transform("max"))
    queries = {"straight": "queried for (strong, weak)", "mirrored": "1 − answer for (weak, strong)"}
    shown = ordered.rename(columns=queries).melt(["form", "rank"], queries.values(), "query", "p")
    shown = pd.concat([shown[shown["form"] == form] for form in naming["form"].unique()])
    title = "Only the fixed form gives one answer, whichever model is named first"
    labels = ("prompts, by P(strong wins) (%)", "P(strong wins)")
    return plot_lines(shown, "rank", "p", labels, title, by="query", panel="form")


def level_tiers(arena: SimulatedArena, n_tiers: int) -> SimulatedArena:
    """Return the arena with the models of a tier made equal and without topics: a fit of tiers can find the truth."""
    ratings = pd.Series(arena.mean_ratings, index=arena.models)
    level = ratings.groupby(rating_tiers(ratings, n_tiers)).transform("mean")
    return replace(arena, mean_ratings=level.to_numpy(), topic_offsets=np.zeros_like(arena.topic_offsets))


def same_tier_bias(
    arena: SimulatedArena, n_tiers: int, pair: Pair, shares: Sequence[float], n_across: int, n_draws: int,
    rng: Generator,
) -> pd.DataFrame:  # fmt: skip
    """Return P(strong wins) minus the truth, as battles within a tier are added to `n_across` between tiers.

    Battles are decided ones of `level_tiers`, on prompts that are all alike: those within a tier teach a sound fit
    nothing. `shares` of these are below 1; all see the same draws. Columns are router ("RouteLLM", "fixed"), share,
    estimate (mean error over the draws), low, high (95 % of that mean).
    """
    level = level_tiers(arena, n_tiers)
    prompts = alike_prompts(level)
    win, _, loss = level.outcome_probability(prompts, *pair)[0]
    n_within = {share: round(n_across * share / (1 - share)) for share in shares}
    rows = []
    for _ in range(n_draws):
        across, within = _draw_decided(level, n_across, max(n_within.values()), rng)
        for share, count in n_within.items():
            table = pd.concat([across, within[:count]], ignore_index=True)
            vectors = np.ones((len(table), 2))
            forms = {ROUTELLM: original.OriginalSimilarityRouter(*pair, gamma=1.0, n_tiers=n_tiers)}
            forms[FIXED] = SimilarityRouter(gamma=1.0, n_tiers=n_tiers)
            for name, router in forms.items():
                p_strong = router.fit(table, vectors).win_probability(vectors[:1], *pair)[0]
                rows.append((name, share, p_strong - win / (win + loss)))
    drawn = pd.DataFrame(rows, columns=["router", "share", "error"])
    return mean_interval(drawn.groupby(["router", "share"], sort=False)["error"]).reset_index()


def plot_bias(table: pd.DataFrame, shares: Mapping[str, float]) -> Figure:
    """Draw the table of `same_tier_bias`; the title is about the last of `shares`, marked by name."""
    original_form = table[table["router"] == ROUTELLM]
    name, share = list(shares.items())[-1]
    bias = np.interp(share, original_form["share"], original_form["estimate"])
    title = f"At the share of same-tier battles in {name}, RouteLLM's P(strong wins) is off by {bias:+.3f}"
    shown = table.assign(share=100 * table["share"])
    labels = ("battles within a tier (%)", "P(strong wins) minus the truth")
    figure = plot_lines(shown, "share", "estimate", labels, title, by="router", styles=STYLES, reference=0.0)
    axis = figure.axes[0]
    for name, share in shares.items():
        axis.axvline(100 * share, color="0.5", linestyle=":", linewidth=1, zorder=0)
        style = {"rotation": 90, "fontsize": 8, "color": "0.35", "ha": "right", "va": "bottom"}
        axis.annotate(f"{name}: {share:.0%}", (100 * share, 0.03), xycoords=("data", "axes fraction"), **style)
    return figure


def _draw_decided(
    arena: SimulatedArena, n_across: int, n_within: int, rng: Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return battles without ties between models of different and of the same rating."""
    rating = dict(zip(arena.models, arena.mean_ratings, strict=True))
    table, same = pd.DataFrame(), np.array([], dtype=bool)
    while (~same).sum() < n_across or same.sum() < n_within:
        drawn = arena.sample_battles(alike_prompts(arena), 2 * (n_across + n_within), rng)
        table = pd.concat([table, drawn[drawn["winner"] != "tie"]], ignore_index=True)
        same = (table["model_a"].map(rating) == table["model_b"].map(rating)).to_numpy()
    return table[~same][:n_across], table[same][:n_within]
