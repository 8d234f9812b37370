"""The order audit: what changes in a router's answers when the order of models, rows or names does.

Nothing should. `audit_order` makes every exchange and measures; it takes this project's routers and any other of the
same face. The faults it was written for stand in `released`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from routing.battles import canonical_order, count_pairs, swap_battles
from routing.evaluation.call_curve import CallCurve, call_curve
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.routers.base import Prompts, Router

RouterMaker = Callable[[str, str], Router]


def exchange_battles(battles: pd.DataFrame, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """The same battles written in six other ways; index labels are positions in `battles`.

    "strong first" puts first whom a Bradley-Terry fit to all battles rates higher. "random half" and "rows shuffled"
    are drawn.
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
    """The probability with which each prompt goes to the strong model where `strong_share` of all do: (n_prompts,).

    1 and 0 but for the prompts of equal score among which the cut falls; they share what is left of the calls. For
    several shares (n_shares, n_prompts).
    """
    scores, block, size = np.unique(-np.asarray(p_strong), return_inverse=True, return_counts=True)
    before = np.cumsum(size) - size
    return np.clip((np.asarray(strong_share)[..., None] * len(block) - before) / size, 0.0, 1.0)[..., block]


def decisions_changed(
    p_one: np.ndarray, p_other: np.ndarray, strong_share: float | np.ndarray = 0.5
) -> float | np.ndarray:
    """Share of prompts that go to the other model when one score takes the place of another at an equal call share.

    For several shares (n_shares,).
    """
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
    """`decisions_changed` at each share with a percentile interval over prompts drawn with replacement.

    Returns
    -------
    DataFrame with columns strong_share, estimate, low, high
    """
    resampled = []
    for _ in range(n_resamples):
        prompts = rng.integers(len(p_one), size=len(p_one))
        resampled.append(decisions_changed(p_one[prompts], p_other[prompts], strong_shares))
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    estimate = decisions_changed(p_one, p_other, strong_shares)
    return pd.DataFrame({"strong_share": strong_shares, "estimate": estimate, "low": low, "high": high})


def _p_strong(outcome: np.ndarray) -> np.ndarray:
    """P(strong wins | no tie), by the same operations whichever way round the outcomes were asked for."""
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
    """Every exchange of order made on one router: what changes in its answers about `pair`.

    Battles are written otherwise and the router is fitted again (the six of `exchange_battles`); the pair is exchanged
    where the router is made, and where it is asked about; rows of the benchmark are shuffled while scores are tied.

    Parameters
    ----------
    make_router : function (strong, weak) -> Router
        A new, unfitted router. Routers of this package take no pair: ``lambda strong, weak: SimilarityRouter()``.
    battles : DataFrame
        Columns of `routing.battles`.
    prompts : sequence of str, or array of embeddings, shape (n_prompts, width)
        What the router is asked.
    pair : (str, str)
        The strong and the weak model.
    embeddings : array, shape (n_battles, width), optional
        Of the battles' prompts; by default the router's encoder makes them.
    strong_share : float
        Call share at which decisions are compared.
    quality : two arrays, shape (n_prompts,), optional
        Quality of the strong and the weak model's answers. Without it the evaluation is not audited.
    make_curve : function (p_strong, quality_strong, quality_weak) -> CallCurve
        The evaluation.
    seed : int
        Of the random half and of the shuffles.

    Returns
    -------
    DataFrame, a row an exchange, with columns

    - exchange;
    - largest_change: of P(strong wins), P(tie), P(weak wins) over all prompts, once an exchange that mirrors the
      answer is mirrored back; of APGR for "tied scores";
    - decisions_changed: share of prompts that go to the other model at an equal call share;
    - raised: the error where there was one, else "".
    """
    rng = np.random.default_rng(seed)
    strong, weak = pair
    table = battles.reset_index(drop=True)

    def fit(written: pd.DataFrame, *made_for: str) -> Router:
        vectors = None if embeddings is None else np.asarray(embeddings)[written.index]
        return make_router(*made_for).fit(written, vectors)

    router = fit(table, strong, weak)
    before = router.outcome_probability(prompts, strong, weak)

    def refit(written: pd.DataFrame) -> np.ndarray:
        return fit(written, strong, weak).outcome_probability(prompts, strong, weak)

    def name_the_other_way(asked: Router) -> np.ndarray:
        return asked.outcome_probability(prompts, weak, strong)[:, ::-1]

    def make_for_the_other_way() -> np.ndarray:
        """Neither what it says of the pair nor of the exchanged pair may change; the worse of the two."""
        other = fit(table, weak, strong)
        answers = other.outcome_probability(prompts, strong, weak), name_the_other_way(other)
        return max(answers, key=lambda after: np.abs(after - before).max())

    trials: dict[str, Callable[[], np.ndarray]] = {
        name: lambda written=written: refit(written) for name, written in exchange_battles(table, rng).items()
    }
    trials["pair at construction"] = make_for_the_other_way
    trials["pair when asked"] = lambda: name_the_other_way(router)
    rows = []
    for name, trial in trials.items():
        try:
            after = trial()
        except Exception as error:  # any: a router that fails on the same battles written otherwise is a finding
            rows.append((name, np.nan, np.nan, f"{type(error).__name__}: {error}"))
        else:
            changed = decisions_changed(_p_strong(before), _p_strong(after), strong_share)
            rows.append((name, float(np.abs(after - before).max()), changed, ""))
    if quality is not None:
        tied = np.round(_p_strong(before), 1)
        shuffled = rng.permutation(len(tied))
        one, other = (
            make_curve(tied[rows_], *(np.asarray(values)[rows_] for values in quality)).apgr()
            for rows_ in (np.arange(len(tied)), shuffled)
        )
        rows.append(("tied scores", abs(one - other), np.nan, ""))
    return pd.DataFrame(rows, columns=["exchange", "largest_change", "decisions_changed", "raised"])
