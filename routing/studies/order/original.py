"""What released code does with the order of two models, rewritten from its description so that it can be measured.

Nothing here is for use. Each has one fault of RouteLLM's code [RouteLLM24] or of the notebook behind the Chatbot
Arena's leaderboard [Chiang24], and is otherwise as sound as the rest of the package, so that what differs is the
fault's doing alone:

======================  ==========================================================================================
overwritten rows        `overwrite_rows`: a battle within a tier depends on who stands first
fixed pair              `FixedPairRouter`: the pair that is asked about is ignored
ties to the weak model  `TiesToWeakRouter`: the probability of a tie goes to whichever model is called weak
pivot tables            `fit_pivot_tables`: a model without one outcome in one role drops out
one class               `fit_rows`: rows that all say "model_a" cannot be fitted
bootstrap cells         `bootstrap_written_cells`: (a, b, a wins) and (b, a, b wins) count as different
row-order cuts          `curve_by_rows`: prompts of equal score are cut as they happen to stand
======================  ==========================================================================================

`ReleasedSimilarityRouter` is RouteLLM's similarity-weighted router: overwritten rows, a fixed pair, and its tiers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from routing.battles import count_pairs, encode_battles, sum_outcomes, validate_battles
from routing.embeddings import PromptEncoder
from routing.evaluation.call_curve import CallCurve, call_curve
from routing.ratings.bradley_terry import ELO_PER_LOG_ODDS, fit_bradley_terry
from routing.routers.base import Prompts, Router
from routing.routers.similarity import SimilarityRouter

OPPONENT = "an opponent rated 0"
TIER_NAME = "tier {:02d}".format
INITIAL_ELO = 1000.0


def overwrite_rows(battles: pd.DataFrame, tiers: pd.Series) -> pd.DataFrame:
    """Battles of models as battles of tiers, the way RouteLLM's design matrix has them [RouteLLM24].

    A row of the matrix is written as ``row[tier_a] = +1``, then ``row[tier_b] = -1``. Where both are one tier the
    second write erases the first, and the row says that the label "model_a won" has log-odds ``-rating``: the tier
    met an opponent rated 0, and won where model_b did.

    Parameters
    ----------
    tiers : Series
        Tier of each model, whole numbers.

    Returns
    -------
    DataFrame with the rows and the index of `battles`.
    """
    table = validate_battles(battles)
    first, second = (table[side].map(tiers).map(TIER_NAME) for side in ("model_a", "model_b"))
    return table.assign(model_a=first.where(first != second, OPPONENT), model_b=second)


def variance_tiers(ratings: pd.Series, n_tiers: int) -> pd.Series:
    """Tier of each model, 0 the strongest: the split with the least sum of variances within tiers [RouteLLM24].

    `rating_tiers` has the squared deviation instead, as the paper says. A variance does not count its models, so here
    tiers in the middle are large, and twice as many battles are between models of one tier.
    """
    ordered = ratings.sort_values(ascending=False, kind="stable")
    values, n_models = ordered.to_numpy(), len(ratings)
    cost = np.full((n_models, n_models + 1), np.inf)  # of values[begin:end]
    for begin in range(n_models):
        cost[begin, begin + 1 :] = [values[begin:end].var() for end in range(begin + 1, n_models + 1)]
    best, cuts = cost[0], []
    for _ in range(n_tiers - 1):
        split = best[:n_models, None] + cost  # best up to here, then one more tier
        cuts.append(split.argmin(axis=0))
        best = split.min(axis=0)
    tiers, end = np.zeros(n_models, dtype=np.int64), n_models
    for cut in reversed(cuts):
        end = cut[end]
        tiers[end:] += 1
    return pd.Series(tiers, index=ordered.index, name="tier").reindex(ratings.index)


@dataclass
class ReleasedSimilarityRouter(Router):
    """RouteLLM's similarity-weighted router with its two faults of order [RouteLLM24].

    Rows are overwritten (`overwrite_rows`), and the pair is fixed when the router is made. A tie is half a win for
    each, as two rows of half the weight are there.

    Parameters
    ----------
    strong, weak : str
        The pair that is scored, whichever pair is asked about.
    gamma, n_tiers, prior_strength, encoder
        As in `SimilarityRouter`.
    """

    strong: str
    weak: str
    gamma: float = 10.0
    n_tiers: int = 10
    prior_strength: float = 0.0
    encoder: PromptEncoder = field(default_factory=PromptEncoder, kw_only=True)

    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Self:
        """Learn from battles as they are written."""
        counts = count_pairs(battles)
        ratings = fit_bradley_terry(counts, "half", self.prior_strength).ratings
        self.models, self.nu = counts.models, 0.0
        self.tiers = variance_tiers(ratings, min(self.n_tiers, len(ratings)))
        self.tier_router = SimilarityRouter(self.gamma, None, self.prior_strength, "half", encoder=self.encoder)
        self.tier_router.fit(overwrite_rows(battles, self.tiers), embeddings)
        return self

    def ratings(self, prompts: Prompts) -> np.ndarray:
        positions = [self.tier_router.models.index(name) for name in self.tiers.map(TIER_NAME)]
        return self.tier_router.ratings(prompts)[:, positions]

    def margin(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        return super().margin(prompts, self.strong, self.weak)


class _Wrapper(Router):
    """A router with something laid over its answers."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Self:
        self.router.fit(battles, embeddings)
        self.models, self.nu = self.router.models, self.router.nu
        return self

    def ratings(self, prompts: Prompts) -> np.ndarray:
        return self.router.ratings(prompts)


class FixedPairRouter(_Wrapper):
    """A router that scores the pair it was made with, as RouteLLM's matrix factorization does [RouteLLM24].

    Which pair is asked about is ignored, so with the two exchanged hard prompts go to the weak model (its issue 79).

    Parameters
    ----------
    router : Router
    strong, weak : str
    """

    def __init__(self, router: Router, strong: str, weak: str) -> None:
        super().__init__(router)
        self.strong, self.weak = strong, weak

    def margin(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        return super().margin(prompts, self.strong, self.weak)


class TiesToWeakRouter(_Wrapper):
    """A router with three outcomes and RouteLLM's P(strong) = 1 - P(tie) - P(weak) [RouteLLM24].

    The first model named is the strong one. Named the other way round, the two answers do not add up to 1: what lacks
    is the probability of a tie, which each time is the weak model's.
    """

    def win_probability(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        return self.router.outcome_probability(prompts, model_a, model_b)[:, 0]

    def outcome_probability(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        p_strong = self.win_probability(prompts, model_a, model_b)
        return np.stack([p_strong, np.zeros_like(p_strong), 1 - p_strong], axis=1)


class EloRouter(Router):
    """Ratings from any function of a battle table as a router, so that `audit_order` can be put on it.

    Parameters
    ----------
    fit_elo : function DataFrame -> Series
        Elo points by model, as `fit_rows` and `fit_pivot_tables` give them.
    """

    def __init__(self, fit_elo: Callable[[pd.DataFrame], pd.Series]) -> None:
        self.fit_elo = fit_elo

    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Self:
        elo = self.fit_elo(battles).sort_index()
        self.models, self.nu, self.constant_ratings = tuple(elo.index), 0.0, elo.to_numpy() / ELO_PER_LOG_ODDS
        return self

    def ratings(self, prompts: Prompts) -> np.ndarray:
        return np.tile(self.constant_ratings, (len(prompts), 1))


def _fit_logistic(design: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Unpenalised logistic regression without intercept, started at 0, where columns of zeros stay."""
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-6, max_iter=1000)
    return ELO_PER_LOG_ODDS * model.fit(design, labels, sample_weight=weights).coef_[0] + INITIAL_ELO


def fit_rows(battles: pd.DataFrame) -> pd.Series:
    """Elo ratings by logistic regression on a row a battle, the label being "model_a won" [Chiang24], [RouteLLM24].

    The table is doubled, and a tie is won once by each. Without ties and with the winner always first all labels are
    the same.

    Raises
    ------
    ValueError
        From scikit-learn: only one class of labels.
    """
    models, model_a, model_b, outcome = encode_battles(battles)
    design = np.eye(len(models))[model_a] - np.eye(len(models))[model_b]
    labels = np.concatenate([outcome == 0, outcome <= 1])
    return pd.Series(_fit_logistic(np.concatenate([design, design]), labels), index=pd.Index(models, name="model"))


def fit_pivot_tables(battles: pd.DataFrame) -> pd.Series:
    """Elo ratings from three tables of pairs, as in the notebook's `compute_mle_elo` [Chiang24].

    Wins of the first, wins of the second and ties are tables of first against second models, added by label. Only
    models that had the outcome in that role stand in a table, and the sum is missing where any of them lacks. Pairs
    with a missing sum are skipped; a model without pairs keeps the initial 1000.

    Raises
    ------
    ValueError
        From scikit-learn: no pair is left, as where the winner always stands first.
    """
    table = validate_battles(battles)
    won, lost, tied = (
        pd.crosstab(part["model_a"], part["model_b"])
        for part in (table[table["winner"] == label] for label in ("model_a", "model_b", "tie"))
    )
    if tied.empty:
        tied = pd.DataFrame(0, index=won.index, columns=won.columns)
    wins = 2 * won + 2 * lost.T + (tied + tied.T)
    models = wins.index.union(wins.columns)
    wins = wins.reindex(index=models, columns=models).to_numpy(dtype=float)
    first, second = np.nonzero(np.isfinite(wins + wins.T) & ~np.eye(len(models), dtype=bool))
    design = np.eye(len(models))[first] - np.eye(len(models))[second]
    labels = np.repeat([True, False], len(first))
    weights = np.concatenate([wins[first, second], wins[second, first]])
    elo = _fit_logistic(np.concatenate([design, design]), labels, weights)
    return pd.Series(elo, index=pd.Index(models, name="model"))


def bootstrap_written_cells(battles: pd.DataFrame, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Ratings refitted on resampled battles, (n_resamples, n_models), log-odds, as `bootstrap_ratings` [Chiang24].

    Drawn are counts of the distinct (first model, second model, outcome). The same battles written otherwise are other
    cells, so that a seed draws other battles.
    """
    models, *columns = encode_battles(battles)
    cells, counts = np.unique(np.stack(columns), axis=1, return_counts=True)
    drawn = rng.multinomial(len(battles), counts / len(battles), size=n_resamples)
    fits = (fit_bradley_terry(sum_outcomes(models, *cells, weights)) for weights in drawn.astype(float))
    return np.array([fit.ratings.to_numpy() for fit in fits])


def curve_by_rows(p_strong: np.ndarray, quality_strong: np.ndarray, quality_weak: np.ndarray) -> CallCurve:
    """A call-performance curve that cuts prompts of equal score in the order of their rows; as `call_curve`."""
    place = np.argsort(np.argsort(-np.asarray(p_strong), kind="stable"))
    return call_curve(-place, quality_strong, quality_weak)
