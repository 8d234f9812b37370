"""Rewrite what original code does with the order of two models, so that it can be measured; nothing here is for use.

Each has one fault of RouteLLM's code [RouteLLM24] or of the notebook behind the Chatbot Arena's leaderboard [Chiang24],
and is otherwise as sound as the rest of the package, so that the fault alone makes the difference. Only
`OriginalSimilarityRouter` has two, and `curve_at_quantiles`, RouteLLM's evaluation, depends on no order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.random import Generator
from scipy.special import expit, logit, softmax
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from routing.battles import count_pairs, encode_battles, sum_outcomes, validate_battles
from routing.embeddings import PromptEncoder
from routing.evaluation.call_curve import CallCurve, call_curve
from routing.ratings.bradley_terry import ELO_PER_LOG_ODDS, fit_bradley_terry
from routing.routers.base import Prompts, Router
from routing.routers.bert import BertRouter
from routing.routers.causal import CausalLMRouter
from routing.routers.similarity import SimilarityRouter
from routing.routers.training import BattlesByPrompt

FOUR_BATTLES = pd.DataFrame({
    "model_a": ["gpt-4", "claude", "gpt-4", "mixtral"],
    "model_b": ["mixtral", "llama", "claude", "llama"],
    "winner": ["model_a", "model_b", "model_a", "model_b"],
})  # fmt: skip
FOUR_TIERS = {"gpt-4": "strong", "claude": "strong", "mixtral": "weak", "llama": "weak"}
OPPONENT = "an opponent rated 0"
TIER_NAME = "tier {:02d}".format
INITIAL_ELO = 1000.0


def write_design(battles: pd.DataFrame, tiers: Mapping[str, str], overwrite: bool) -> pd.DataFrame:
    """Return the design row of each battle: columns strong and weak, and whether model_a won.

    `overwrite` is RouteLLM's ``row[tier_a] = 1; row[tier_b] = -1``; else a battle within a tier adds up to zeros.
    """
    rows = pd.DataFrame(0, index=battles.index, columns=["strong", "weak"])
    for row, battle in battles.iterrows():
        for side, entry in (("model_a", 1), ("model_b", -1)):
            tier = tiers[battle[side]]
            rows.loc[row, tier] = entry if overwrite else rows.loc[row, tier] + entry
    return rows.assign(model_a_won=battles["winner"] == "model_a")


def fit_design(rows: pd.DataFrame) -> float:
    """Return P(strong beats weak) from the rows of `write_design`; ratings have a normal prior of precision 1."""
    model = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10)
    theta = model.fit(rows[["strong", "weak"]], rows["model_a_won"]).coef_[0]
    return float(expit(theta[0] - theta[1]))


def overwrite_rows(battles: pd.DataFrame, tiers: pd.Series) -> pd.DataFrame:
    """Return battles of models as battles of tiers, the way RouteLLM's design matrix has them [RouteLLM24].

    Within a tier the second write, ``row[tier_b] = -1``, erases the first, and "model_a won" has log-odds ``-rating``:
    the tier met an opponent rated 0, and won where model_b did. `tiers` has a whole number per model; rows are kept.
    """
    table = validate_battles(battles)
    first, second = (table[side].map(tiers).map(TIER_NAME) for side in ("model_a", "model_b"))
    return table.assign(model_a=first.where(first != second, OPPONENT), model_b=second)


def variance_tiers(ratings: pd.Series, n_tiers: int) -> pd.Series:
    """Return the tier of each model, 0 the strongest, with the least sum of variances within tiers [RouteLLM24].

    `rating_tiers` has the squared deviation, as the paper says. A variance counts no models: middle tiers are large.
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
class OriginalSimilarityRouter(Router):
    """RouteLLM's similarity-weighted router, with its tiers and its two faults of order [RouteLLM24].

    Rows are overwritten (`overwrite_rows`), and the pair `strong`, `weak` is scored, whichever is queried. A tie, there
    two rows of half the weight, is half a win for each. Other parameters are those of `SimilarityRouter`.
    """

    strong: str
    weak: str
    gamma: float = 10.0
    n_tiers: int = 10
    prior_strength: float = 0.0
    encoder: PromptEncoder = field(default_factory=PromptEncoder, kw_only=True)

    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Self:
        """Fit to battles in the order in which they are stored."""
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
    """A router whose answers a subclass changes."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Self:
        self.router.fit(battles, embeddings)
        self.models, self.nu = self.router.models, self.router.nu
        return self

    def ratings(self, prompts: Prompts) -> np.ndarray:
        return self.router.ratings(prompts)


class FixedPairRouter(_Wrapper):
    """Score the pair it was made with, whichever is queried, as RouteLLM's matrix factorization does (its issue 79)."""

    def __init__(self, router: Router, strong: str, weak: str) -> None:
        super().__init__(router)
        self.strong, self.weak = strong, weak

    def margin(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        return super().margin(prompts, self.strong, self.weak)


class TiesToWeakRouter(_Wrapper):
    """Give the tie to the second model named, the weak one, as RouteLLM's P(strong) = 1 - P(tie) - P(weak) does."""

    def win_probability(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        return self.router.outcome_probability(prompts, model_a, model_b)[:, 0]

    def outcome_probability(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        p_strong = self.win_probability(prompts, model_a, model_b)
        return np.stack([p_strong, np.zeros_like(p_strong), 1 - p_strong], axis=1)


class _FixedLabels:
    """Logits of labels in place of ratings, P(strong) = 1 - P(labels that are the weak model's), whichever is queried.

    A tie counts for whichever model is called weak. Here all battles are trained on, and the model that the leaderboard
    rates higher is the strong one.
    """

    n_labels: ClassVar[int]
    result_labels: ClassVar[tuple[int, int, int]]  # of: the strong model won, a tie, the weak model won
    weak_from: ClassVar[int]  # this label and those after it are the weak model's

    @property
    def _n_outputs(self) -> int:
        return self.n_labels

    def _targets(self, battles: BattlesByPrompt) -> torch.Tensor:
        result = torch.where(battles.offset >= 0, battles.outcome, 2 - battles.outcome)
        return torch.tensor(self.result_labels, device=result.device)[result]

    def _battle_losses(self, outputs: torch.Tensor, log_nu: torch.Tensor, battles: BattlesByPrompt) -> torch.Tensor:
        return functional.cross_entropy(outputs[battles.prompt], self._targets(battles), reduction="none")

    def _prior_outputs(self, battles: BattlesByPrompt) -> torch.Tensor:
        counts = torch.bincount(self._targets(battles), minlength=self.n_labels)
        return ((counts + 0.5) / counts.sum()).log()

    def ratings(self, prompts: Prompts) -> np.ndarray:
        raise TypeError(f"a {type(self).__name__} knows results of one pair, and rates no models")

    def margin(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        """Log-odds of P(strong) for the model named first, whichever it is."""
        return logit(softmax(self._outputs(prompts), axis=1)[:, : self.weak_from].sum(axis=1))

    def outcome_probability(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        p_strong = self.win_probability(prompts, model_a, model_b)
        return np.stack([p_strong, np.zeros_like(p_strong), 1 - p_strong], axis=1)


@dataclass
class ThreeLabelRouter(_FixedLabels, BertRouter):
    """The original BERT: labels strong, tie and weak, P(strong) = 1 - P(tie) - P(weak). Parameters as `BertRouter`."""

    n_labels = 3
    result_labels = (0, 1, 2)
    weak_from = 1


@dataclass
class ScoreTokenRouter(_FixedLabels, CausalLMRouter):
    """The original causal LLM: the weak answer's score as a token, P(strong) = 1 - P(score of 4 or 5).

    A judge scored the answers there. A battle has no scores, so a loss of the weak model is written [[1]], a tie [[4]]
    (as good, which is enough) and a win [[5]]. Parameters as `CausalLMRouter`.
    """

    n_labels = 5
    result_labels = (0, 3, 4)
    weak_from = 3

    @property
    def labels(self) -> list[str]:
        return [f"[[{score}]]" for score in range(1, 6)]


class EloRouter(Router):
    """Make a router of a function from battles to Elo points by model, so that `audit_order` can audit it."""

    def __init__(self, fit_elo: Callable[[pd.DataFrame], pd.Series]) -> None:
        self.fit_elo = fit_elo

    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Self:
        elo = self.fit_elo(battles).sort_index()
        self.models, self.nu, self.constant_ratings = tuple(elo.index), 0.0, elo.to_numpy() / ELO_PER_LOG_ODDS
        return self

    def ratings(self, prompts: Prompts) -> np.ndarray:
        return np.tile(self.constant_ratings, (len(prompts), 1))


def _fit_logistic(design: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return Elo points by unpenalised logistic regression, started at 0, where columns of zeros stay."""
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-6, max_iter=1000)
    return ELO_PER_LOG_ODDS * model.fit(design, labels, sample_weight=weights).coef_[0] + INITIAL_ELO


def fit_rows(battles: pd.DataFrame) -> pd.Series:
    """Return Elo ratings by logistic regression on one row per battle, labelled "model_a won" [Chiang24], [RouteLLM24].

    The table is doubled, and a tie is won once by each. Without ties and with the winner always first all labels are
    the same, and scikit-learn raises a ValueError.
    """
    models, model_a, model_b, outcome = encode_battles(battles)
    design = np.eye(len(models))[model_a] - np.eye(len(models))[model_b]
    labels = np.concatenate([outcome == 0, outcome <= 1])
    return pd.Series(_fit_logistic(np.concatenate([design, design]), labels), index=pd.Index(models, name="model"))


def fit_pivot_tables(battles: pd.DataFrame) -> pd.Series:
    """Return Elo ratings from three tables of pairs, as in the notebook's `compute_mle_elo` [Chiang24].

    Wins of the first, wins of the second and ties are added by label. Only models that had the outcome in that role are
    in a table; pairs missing in one are skipped, and a model without pairs keeps the initial 1000. Where no pair is
    left, as where the winner is always first, scikit-learn raises a ValueError.
    """
    table = validate_battles(battles)
    parts = (table[table["winner"] == label] for label in ("model_a", "model_b", "tie"))
    won, lost, tied = (pd.crosstab(part["model_a"], part["model_b"]) for part in parts)
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


def bootstrap_written_cells(battles: pd.DataFrame, n_resamples: int, rng: Generator) -> np.ndarray:
    """Return ratings refitted to resampled battles, as `bootstrap_ratings`, but of ordered cells [Chiang24].

    Counts of (first model, second model, outcome) are drawn; swapped, these are other cells, and a seed draws others.
    """
    models, *columns = encode_battles(battles)
    cells, counts = np.unique(np.stack(columns), axis=1, return_counts=True)
    drawn = rng.multinomial(len(battles), counts / len(battles), size=n_resamples)
    fits = (fit_bradley_terry(sum_outcomes(models, *cells, weights)) for weights in drawn.astype(float))
    return np.array([fit.ratings.to_numpy() for fit in fits])


def curve_by_rows(p_strong: np.ndarray, quality_strong: np.ndarray, quality_weak: np.ndarray) -> CallCurve:
    """Return the call-performance curve of a naive top-k cut: prompts of equal score are cut in the order of rows."""
    place = np.argsort(np.argsort(-np.asarray(p_strong), kind="stable"))
    return call_curve(-place, quality_strong, quality_weak)


def curve_at_quantiles(p_strong: np.ndarray, quality_strong: np.ndarray, quality_weak: np.ndarray) -> CallCurve:
    """Return the call-performance curve cut at deciles of the score, as RouteLLM's evaluation does [RouteLLM24]."""
    cuts = np.quantile(p_strong, np.linspace(1, 0, 11))[:, None]
    to_strong = np.asarray(p_strong) >= cuts  # (11, n_prompts)
    to_strong[0] = p_strong > cuts[0]
    share, kept = np.unique(to_strong.mean(axis=1), return_index=True)
    quality = np.sort(np.where(to_strong, quality_strong, quality_weak), axis=1)  # sums do not depend on row order
    return CallCurve(share, quality.mean(axis=1)[kept])
