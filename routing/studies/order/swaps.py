"""What the order of two models does to a study: audits side by side, scores, their bias, and the bill.

`order` measures one router and `released` has the faults; here both forms of every router meet the same battles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from routing.battles import count_pairs, swap_battles
from routing.evaluation.call_curve import CallCurve, bootstrap_metrics, call_curve
from routing.order_audit import RouterMaker, audit_order, bootstrap_decisions, decisions_changed, reorder_battles
from routing.ratings.bradley_terry import ELO_PER_LOG_ODDS, bootstrap_ratings, rating_tiers
from routing.routers.base import BradleyTerryRouter, Prompts, Router
from routing.routers.similarity import SimilarityRouter
from routing.studies.leaderboard import online_elo
from routing.studies.order.original import (
    EloRouter,
    ReleasedSimilarityRouter,
    bootstrap_written_cells,
    curve_by_rows,
    fit_pivot_tables,
    fit_rows,
)
from routing.studies.paper import calls_cost_usd
from routing.studies.simulated.arena import SimulatedArena

AS_DISPLAYED = "as displayed"
PAIR_EXCHANGED = "pair exchanged"

Scores = dict[str, dict[str, np.ndarray]]  # by benchmark, then by writing of the battles: (n_prompts,)


def audit_pairs(
    makers: Mapping[str, tuple[RouterMaker, RouterMaker]],
    battles: pd.DataFrame,
    prompts: Prompts,
    pair: tuple[str, str],
    embeddings: np.ndarray | None,
    quality: tuple[np.ndarray, np.ndarray],
    seed: int = 0,
) -> pd.DataFrame:
    """`audit_order` of the released and of our form of each router; arguments as there.

    Parameters
    ----------
    makers : mapping of str to (released, ours)
        The released form is evaluated by `curve_by_rows`, ours by `call_curve`.

    Returns
    -------
    DataFrame
        The columns of `audit_order` after router and kind ("released" or "ours").
    """
    audits = []
    for name, forms in makers.items():
        for kind, make, curve in zip(("released", "ours"), forms, (curve_by_rows, call_curve), strict=True):
            options = {"embeddings": embeddings, "quality": quality, "make_curve": curve, "seed": seed}
            audit = audit_order(make, battles, prompts, pair, **options)
            audit.insert(0, "router", name)
            audit.insert(1, "kind", kind)
            audits.append(audit)
    return pd.concat(audits, ignore_index=True)


def audit_leaderboards(
    battles: pd.DataFrame,
    prompts: Prompts,
    pair: tuple[str, str],
    quality: tuple[np.ndarray, np.ndarray],
    min_battles: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """`audit_pairs` of what makes ratings of battles alone, the same for every prompt.

    Regression on rows is given the battles without ties, as only they can have one outcome. The ends of bootstrap
    intervals stand in the place of ratings, of models with `min_battles` in each column: whether a seed draws the same
    battles.
    """

    def fair(*_: str) -> Router:
        return BradleyTerryRouter()

    def upper_ends(resampled: np.ndarray, table: pd.DataFrame) -> pd.Series:
        ends = ELO_PER_LOG_ODDS * np.quantile(resampled, 0.975, axis=0)
        return pd.Series(ends, index=count_pairs(table).models)

    def written(table: pd.DataFrame) -> pd.Series:
        return upper_ends(bootstrap_written_cells(table, 20, np.random.default_rng(seed)), table)

    def counted(table: pd.DataFrame) -> pd.Series:
        return upper_ends(bootstrap_ratings(count_pairs(table), 20, np.random.default_rng(seed)), table)

    sizes = [battles.groupby(side)[side].transform("size") for side in ("model_a", "model_b")]
    busy = (sizes[0] >= min_battles) & (sizes[1] >= min_battles)
    parts = {
        "ratings, pivot tables": (lambda *_: EloRouter(fit_pivot_tables), fair, battles),
        "ratings, online Elo": (lambda *_: EloRouter(online_elo), fair, battles),
        "ratings, rows without ties": (lambda *_: EloRouter(fit_rows), fair, battles[battles["winner"] != "tie"]),
        "intervals, bootstrap": (lambda *_: EloRouter(written), lambda *_: EloRouter(counted), battles[busy]),
    }
    audits = [
        audit_pairs({name: (released, ours)}, table, prompts, pair, None, quality, seed)
        for name, (released, ours, table) in parts.items()
    ]
    return pd.concat(audits, ignore_index=True)


def scores_as_written(
    make_router: RouterMaker,
    battles: pd.DataFrame,
    embeddings: np.ndarray,
    prompts: Mapping[str, np.ndarray],
    pair: tuple[str, str],
    rng: np.random.Generator,
) -> Scores:
    """The score of the strong model on benchmarks, the battles being written in every way of `reorder_battles`.

    Beside them "as displayed", and "pair exchanged": the same router asked about (weak, strong), mirrored back.

    Parameters
    ----------
    battles : DataFrame
        Its index counts from 0.
    embeddings : array, shape (n_battles, width)
    prompts : mapping of str to array, shape (n_prompts, width)
        Embedded prompts of each benchmark.

    Returns
    -------
    dict of dict of array, shape (n_prompts,)
        By benchmark, then by writing: log-odds that the strong model wins.
    """
    scores: Scores = {name: {} for name in prompts}
    for writing, written in ({AS_DISPLAYED: battles} | reorder_battles(battles, rng)).items():
        router = make_router(*pair).fit(written, embeddings[written.index])
        for name, vectors in prompts.items():
            scores[name][writing] = router.margin(vectors, *pair)
            if writing == AS_DISPLAYED:
                scores[name][PAIR_EXCHANGED] = -router.margin(vectors, *pair[::-1])
    return scores


def compare_decisions(
    scores: Mapping[str, Scores], shares: np.ndarray, n_resamples: int, rng: np.random.Generator
) -> pd.DataFrame:
    """`bootstrap_decisions` between the battles as displayed and with all rows exchanged.

    Parameters
    ----------
    scores : mapping of str to Scores
        By kind ("released", "ours").

    Returns
    -------
    DataFrame with columns kind, benchmark, strong_share, estimate, low, high
    """
    parts = []
    for kind, by_benchmark in scores.items():
        for benchmark, written in by_benchmark.items():
            one, other = written[AS_DISPLAYED], written["all rows"]
            part = bootstrap_decisions(one, other, shares, n_resamples, rng)
            parts.append(part.assign(kind=kind, benchmark=benchmark))
    return pd.concat(parts, ignore_index=True)


def draw_decisions(
    makers: Mapping[str, RouterMaker],
    battles: pd.DataFrame,
    embeddings: np.ndarray,
    prompts: np.ndarray,
    pair: tuple[str, str],
    sizes: tuple[int, int],
    n_draws: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Decisions changed by exchanging all rows, on several draws of so many battles and so many prompts.

    Parameters
    ----------
    makers : mapping of str to function
        By kind; all meet the same draws.
    sizes : (int, int)
        Battles and prompts of a draw, without replacement.

    Returns
    -------
    DataFrame
        kind, definition, changed (share of the prompts). "half of the calls": before and after, half of the calls go to
        the strong model; "old threshold kept": the median score before the exchange stays the threshold after it.
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


def measure_consequences(
    scores: Mapping[str, Scores],
    quality: Mapping[str, tuple[np.ndarray, np.ndarray]],
    n_resamples: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """What another writing of the same battles does to APGR and to the bill.

    Parameters
    ----------
    scores : mapping of str to Scores
        By kind, as `scores_as_written` gives them.
    quality : mapping of str to (strong, weak)
        By benchmark.

    Returns
    -------
    DataFrame
        kind, benchmark, writing, apgr, difference (to "as displayed"), low, high (of the difference, 95 %, paired over
        prompts), usd_per_1000 (dollars for 1,000 calls at the smallest share of strong calls that recovers half of the
        gap).
    """
    parts = []
    for kind, by_benchmark in scores.items():
        for benchmark, written in by_benchmark.items():
            qualities = quality[benchmark]
            metrics = {"apgr": CallCurve.apgr}
            table = bootstrap_metrics(
                written, *qualities, n_resamples, rng, reference=AS_DISPLAYED, metrics=metrics
            ).rename(columns={"router": "writing", "estimate": "apgr"})
            table["low"], table["high"] = table["difference_low"], table["difference_high"]
            shares = np.array([call_curve(score, *qualities).cpt(0.5) for score in written.values()])
            table["usd_per_1000"] = 1000 * calls_cost_usd(shares)
            parts.append(table.assign(kind=kind, benchmark=benchmark))
    columns = ["kind", "benchmark", "writing", "apgr", "difference", "low", "high", "usd_per_1000"]
    return pd.concat(parts, ignore_index=True)[columns]


def name_both_ways(routers: Mapping[tuple[str, str], Router], prompts: Prompts, pair: tuple[str, str]) -> pd.DataFrame:
    """P(strong wins) of fitted routers, and what they say of the pair named the other way round.

    Parameters
    ----------
    routers : mapping of (kind, name) to Router

    Returns
    -------
    DataFrame
        A row a router and prompt: kind, form ("kind: name"), straight (P(strong wins)), mirrored (1 - P(weak wins)),
        sum (of the two probabilities; 1 where naming means nothing).
    """
    parts = []
    for (kind, name), router in routers.items():
        p, other = router.win_probability(prompts, *pair), router.win_probability(prompts, *pair[::-1])
        table = pd.DataFrame({"straight": p, "mirrored": 1 - other, "sum": p + other})
        parts.append(table.assign(kind=kind, form=f"{kind}: {name}"))
    return pd.concat(parts, ignore_index=True)


def level_tiers(arena: SimulatedArena, n_tiers: int) -> SimulatedArena:
    """The arena with the models of a tier made equal and without topics: a fit of tiers can find the truth."""
    ratings = pd.Series(arena.mean_ratings, index=arena.models)
    level = ratings.groupby(rating_tiers(ratings, n_tiers)).transform("mean")
    return replace(arena, mean_ratings=level.to_numpy(), topic_offsets=np.zeros_like(arena.topic_offsets))


def same_tier_bias(
    arena: SimulatedArena,
    n_tiers: int,
    pair: tuple[str, str],
    shares: Sequence[float],
    n_across: int,
    n_draws: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """P(strong wins) less the truth, as battles between models of one tier are added to `n_across` between tiers.

    Battles are decided ones of `level_tiers`, on prompts that are all alike, each pair shown either way round equally
    often. So a sound fit is off by its sampling error only, and battles within a tier teach it nothing.

    Parameters
    ----------
    shares : sequence of float
        Of battles within a tier among all, below 1.
    n_draws : int
        Of battles; all shares and routers are compared on the same.

    Returns
    -------
    DataFrame
        router ("released", "ours"), share, estimate (mean error over the draws), low, high
        (95 % interval of that mean).
    """
    level = level_tiers(arena, n_tiers)
    rating = dict(zip(level.models, level.mean_ratings, strict=True))
    prompts = pd.DataFrame({"prompt": ["?"], "topic": arena.topics[:1], "difficulty": "medium"})  # where the slope is 1
    win, _, loss = level.outcome_probability(prompts, *pair)[0]
    truth = win / (win + loss)
    n_within = {share: round(n_across * share / (1 - share)) for share in shares}
    rows = []
    for _ in range(n_draws):
        across, within = _draw_decided(level, rating, prompts, n_across, max(n_within.values()), rng)
        for share, count in n_within.items():
            table = pd.concat([across, within[:count]], ignore_index=True)
            vectors = np.ones((len(table), 2))
            fits = {
                "released": ReleasedSimilarityRouter(*pair, gamma=1.0, n_tiers=n_tiers).fit(table, vectors),
                "ours": SimilarityRouter(gamma=1.0, n_tiers=n_tiers).fit(table, vectors),
            }
            errors = {name: router.win_probability(vectors[:1], *pair)[0] - truth for name, router in fits.items()}
            rows += [(name, share, error) for name, error in errors.items()]
    drawn = pd.DataFrame(rows, columns=["router", "share", "error"]).groupby(["router", "share"], sort=False)["error"]
    mean, width = drawn.mean(), 1.96 * drawn.std() / np.sqrt(n_draws)
    return pd.DataFrame({"estimate": mean, "low": mean - width, "high": mean + width}).reset_index()


def _draw_decided(
    arena: SimulatedArena,
    rating: Mapping[str, float],
    prompts: pd.DataFrame,
    n_across: int,
    n_within: int,
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Battles without ties between models of different and of the same rating."""
    tables: list[pd.DataFrame] = []
    found = np.zeros(2, dtype=np.int64)
    while (found < (n_across, n_within)).any():
        table = arena.sample_battles(prompts, 2 * (n_across + n_within), rng)
        tables.append(table[table["winner"] != "tie"])
        same = tables[-1]["model_a"].map(rating) == tables[-1]["model_b"].map(rating)
        found += np.bincount(same, minlength=2)
    table = pd.concat(tables, ignore_index=True)
    same = (table["model_a"].map(rating) == table["model_b"].map(rating)).to_numpy()
    return table[~same][:n_across], table[same][:n_within]
