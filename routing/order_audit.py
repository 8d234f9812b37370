"""Audit the order: measure what changes in a router's answers when the order of models, rows or names does.

Nothing should. `audit_order` makes every swap and measures; it takes this project's routers and any other with the same
methods. The faults it was written for are rewritten in `routing.studies.order.original`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from routing.battles import canonical_order, count_pairs, swap_battles
from routing.evaluation.call_curve import CallCurve, call_curve
from routing.evaluation.resampling import paired_bootstrap
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.routers.base import Prompts, Router

RouterMaker = Callable[[str, str], Router]


def reorder_battles(battles: pd.DataFrame, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Return the same battles in six other orders of models or rows; index labels are positions in `battles`.

    "strong first" puts first the model that a Bradley-Terry fit to all battles rates higher.
    """
    table = battles.reset_index(drop=True)
    ratings = fit_bradley_terry(count_pairs(table), prior_strength=1.0).ratings
    weak_first = (table["model_a"].map(ratings) < table["model_b"].map(ratings)).to_numpy(dtype=bool)
    return {
        "all rows": swap_battles(table),
        "winner first": swap_battles(table, (table["winner"] == "model_b").to_numpy(dtype=bool)),
        "strong first": swap_battles(table, weak_first),
        "random half": swap_battles(table, rng.random(len(table)) < 0.5),
        "canonical": canonical_order(table),
        "rows shuffled": table.iloc[rng.permutation(len(table))],
    }


def calls_at_share(p_strong: np.ndarray, strong_share: float | np.ndarray) -> np.ndarray:
    """Return P(a prompt goes to the strong model) at a share of calls, (n_prompts,), or several: (n_shares, n_prompts).

    1 or 0, but prompts of equal score at the cut share the calls that are left.
    """
    share = np.asarray(strong_share, dtype=float)
    if not ((share >= 0) & (share <= 1)).all():
        raise ValueError(f"strong_share is {strong_share}; a share of prompts is between 0 and 1")
    scores, block, size = np.unique(-np.asarray(p_strong), return_inverse=True, return_counts=True)
    before = np.cumsum(size) - size
    return np.clip((share[..., None] * len(block) - before) / size, 0.0, 1.0)[..., block]


def decisions_changed(
    p_one: np.ndarray, p_other: np.ndarray, strong_share: float | np.ndarray = 0.5
) -> float | np.ndarray:
    """Return the share of prompts that change models when one score replaces another, at each share of strong calls."""
    changed = np.abs(calls_at_share(p_one, strong_share) - calls_at_share(p_other, strong_share)).mean(axis=-1)
    return changed if np.ndim(strong_share) else float(changed)


def bootstrap_decisions(
    p_one: np.ndarray,
    p_other: np.ndarray,
    strong_shares: np.ndarray,
    n_resamples: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return `decisions_changed` with a percentile interval over prompts: strong_share, estimate, low, high."""

    def measure(counts: np.ndarray) -> np.ndarray:
        prompts = np.repeat(np.arange(len(counts)), counts)
        return decisions_changed(p_one[prompts], p_other[prompts], strong_shares)

    low, high, _ = paired_bootstrap(measure, len(p_one), n_resamples, rng, level)
    estimate = decisions_changed(p_one, p_other, strong_shares)
    return pd.DataFrame({"strong_share": strong_shares, "estimate": estimate, "low": low, "high": high})


def _p_strong(outcome: np.ndarray) -> np.ndarray:
    """Return P(strong wins | no tie), by the same operations for both orders of the two models."""
    return outcome[:, 0] / (outcome[:, 0] + outcome[:, 2])


def audit_order(
    make_router: RouterMaker,
    battles: pd.DataFrame,
    prompts: Prompts,
    pair: tuple[str, str],
    embeddings: np.ndarray | None = None,
    strong_share: float = 0.5,
    quality: tuple[np.ndarray, np.ndarray] | None = None,
    make_curve: Callable[[np.ndarray, np.ndarray, np.ndarray], CallCurve] = call_curve,
    seed: int = 0,
) -> pd.DataFrame:
    """Make every swap of order on one router, and measure what changes in its answers about `pair` (strong, weak).

    Battles are reordered and a new router is fitted (`reorder_battles`); the pair is swapped where the router is made,
    and where it is queried; given the `quality` of both models' answers, (n_prompts,) each, rows of the evaluation
    `make_curve` are shuffled while scores are tied.

    `make_router` takes strong and weak and returns an unfitted router; those of this package need no pair: ``lambda
    strong, weak: SimilarityRouter()``. `embeddings`, (n_battles, width), are of the battles' prompts; by default the
    router's encoder makes them. `prompts` are those of the queries, as strings or embeddings.

    One row per swap: swap; largest_change of P(strong wins), P(tie), P(weak wins) over all prompts, mirrored back where
    a swap mirrors it, or of APGR for "tied scores"; decisions_changed, the share of prompts that go to the other model
    at `strong_share`; raised, the error if there was one, else "".
    """
    rng = np.random.default_rng(seed)
    strong, weak = pair
    table = battles.reset_index(drop=True)

    def fit(reordered: pd.DataFrame, *made_for: str) -> Router:
        vectors = None if embeddings is None else np.asarray(embeddings)[reordered.index]
        return make_router(*made_for).fit(reordered, vectors)

    router = fit(table, strong, weak)
    before = router.outcome_probability(prompts, strong, weak)

    def refit(reordered: pd.DataFrame) -> np.ndarray:
        return fit(reordered, strong, weak).outcome_probability(prompts, strong, weak)

    def query_swapped(queried: Router) -> np.ndarray:
        return queried.outcome_probability(prompts, weak, strong)[:, ::-1]

    def make_swapped() -> np.ndarray:
        """Return the answer about the pair or the swapped pair, whichever changed more."""
        other = fit(table, weak, strong)
        answers = other.outcome_probability(prompts, strong, weak), query_swapped(other)
        return max(answers, key=lambda after: np.abs(after - before).max())

    trials = {name: partial(refit, reordered) for name, reordered in reorder_battles(table, rng).items()}
    trials |= {"pair at construction": make_swapped, "pair when asked": partial(query_swapped, router)}
    rows = []
    for name, trial in trials.items():
        try:
            after = trial()
        except Exception as error:  # any: a router that fails on the same battles reordered is a finding
            rows.append((name, np.nan, np.nan, f"{type(error).__name__}: {error}"))
        else:
            changed = decisions_changed(_p_strong(before), _p_strong(after), strong_share)
            rows.append((name, float(np.abs(after - before).max()), changed, ""))
    if quality is not None:
        tied = np.round(_p_strong(before), 1)
        columns = np.stack([tied, *quality])
        one, other = (make_curve(*table).apgr() for table in (columns, columns[:, rng.permutation(len(tied))]))
        rows.append(("tied scores", abs(one - other), np.nan, ""))
    return pd.DataFrame(rows, columns=["swap", "largest_change", "decisions_changed", "raised"])
