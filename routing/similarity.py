"""Similarity weighting: Bradley-Terry refitted for each prompt, on battles weighted by how similar theirs are.

The likelihood of a weighted battle table depends on it through the weighted pair counts alone. So a batch of prompts
costs one matrix product (similarities), one sum into pair counts, and one Newton solve for the whole batch; no row of
battles is ever seen by a solver.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from routing.battles import BattleCodes, sum_outcomes
from routing.bradley_terry import check_estimable, fit_bradley_terry, rating_tiers
from routing.rating_solver import PairSums, pair_sums, solve_ratings
from routing.router import EmbeddingRouter, Prompts

BLOCK_BYTES = 1 << 26  # similarities held at once: batches are cut so that memory does not grow with prompts or battles
MAX_BATCH = 256
CACHED_ROWS = 4


@dataclass
class SimilarityRouter(EmbeddingRouter):
    """The similarity-weighted ranking of RouteLLM [RouteLLM24, section 4.2].

    A battle on prompt q' has weight ``gamma ** (1 + S(q, q'))`` for prompt q, where S is the cosine similarity over
    the greatest one that any battle's prompt has with q. Ratings are those of tiers of models: models of a tier share
    one, as most pairs of models have too few battles.

    Parameters
    ----------
    gamma : float
        Base of the weights; 1 weighs all battles alike.
    n_tiers : int or None
        Tiers of models, split by the ratings on all battles. None: a tier for each model.
    prior_strength : float
        Precision of a normal prior at the ratings on all battles, in battles as similar as the most similar one.
        Without it ratings are the paper's; with it a prompt that resembles few battles keeps the global ratings.
    ties : {"davidson", "half"}
        Davidson's model with nu as estimated on all battles, or, as RouteLLM, half a win for each.

    Notes
    -----
    Equivalent to RouteLLM's router. Differs from it in:

    1. a battle between models of one tier says nothing about tiers and enters as nothing; there it becomes a battle
       against an opponent rated 0, so that the fit depends on which model stands first;
    2. the pair is named when a prompt is routed, not when the router is made;
    3. tiers minimise the squared deviation of their members, as the paper says; there the unweighted sum of variances;
    4. Newton's method to convergence; there scikit-learn's default tolerance.
    """

    gamma: float = 10.0
    n_tiers: int | None = 10
    prior_strength: float = 0.0
    ties: str = "davidson"

    def __post_init__(self) -> None:
        if not self.gamma >= 1:
            raise ValueError(f"gamma is {self.gamma}; it is 1 or more, so that similar battles weigh more")
        if not self.prior_strength >= 0:
            raise ValueError(f"prior_strength is {self.prior_strength}; it is a precision, 0 or more")
        if self.ties not in ("davidson", "half"):
            raise ValueError(f"ties is {self.ties!r}; use 'davidson' or 'half'")

    def _learn(self, codes: BattleCodes, prompts: np.ndarray, vectors: np.ndarray) -> None:
        overall = fit_bradley_terry(sum_outcomes(*codes), "davidson", self.prior_strength)
        self.tie = overall.tie
        n_models = len(codes.models)
        n_tiers = n_models if self.n_tiers is None else min(self.n_tiers, overall.ratings.nunique())
        tiers = np.arange(n_models) if self.n_tiers is None else rating_tiers(overall.ratings, n_tiers).to_numpy()
        tier_a, tier_b = tiers[codes.model_a], tiers[codes.model_b]
        within = tier_a == tier_b
        names = tuple(f"tier {number}" for number in range(n_tiers))
        counts = sum_outcomes(names, tier_a[~within], tier_b[~within], codes.outcome[~within])
        if self.prior_strength == 0:
            check_estimable(counts, self.ties)
        self.model_tier = tiers

        # Battles sorted by what they count for, so that a sum into pair counts is a sum over runs of columns.
        pairs = pair_sums(counts)
        self.tier_first, self.tier_second = pairs.first, pairs.second
        pair_number = np.zeros((n_tiers, n_tiers), dtype=np.int64)
        pair_number[pairs.first, pairs.second] = np.arange(len(pairs.first))
        outcome = np.where(tier_a > tier_b, 2 - codes.outcome, codes.outcome)
        cell = 3 * pair_number[np.minimum(tier_a, tier_b), np.maximum(tier_a, tier_b)] + outcome
        cell[within] = 3 * len(pairs.first)  # the last cell: battles that say nothing about tiers
        self.tier_ratings = np.zeros(n_tiers)
        self.tier_ratings = self._solve(pairs)[0]
        order = np.argsort(cell, kind="stable")
        self.battle_prompts = prompts[order]  # for looking at the weights; not saved, as ratings do not need them
        self.battle_vectors, self.battle_cells = np.ascontiguousarray(vectors[order], dtype=np.float32), cell[order]

    def _arrays(self) -> dict[str, np.ndarray]:
        names = (
            "model_tier",
            "tier_ratings",
            "tier_first",
            "tier_second",
            "battle_vectors",
            "battle_cells",
        )
        return {name: getattr(self, name) for name in names}

    def ratings(self, prompts: Prompts) -> np.ndarray:
        return self.tier_level_ratings(self._vectors(prompts))[:, self.model_tier]

    def tier_level_ratings(self, vectors: np.ndarray) -> np.ndarray:
        """Ratings of the tiers on prompts given as unit vectors: (n_prompts, n_tiers), log-odds."""
        vectors = np.asarray(vectors, dtype=np.float32)
        n_battles, n_tiers = len(self.battle_vectors), len(self.tier_ratings)
        if vectors.shape[1] != self.battle_vectors.shape[1]:
            raise ValueError(
                f"embeddings of width {vectors.shape[1]}; this router learned on width {self.battle_vectors.shape[1]}"
            )
        # Two arrays of n_tiers x n_tiers a prompt are what Newton's method holds beside the similarities.
        batch = int(np.clip(BLOCK_BYTES // (4 * n_battles + 64 * n_tiers**2), 1, MAX_BATCH))
        rated = np.empty((len(vectors), n_tiers))
        for begin in range(0, len(vectors), batch):
            rated[begin : begin + batch] = self._solve(self._weighted_pairs(vectors[begin : begin + batch]))
        return rated

    def weights(self, vectors: np.ndarray) -> np.ndarray:
        """Weight of each battle for each prompt, the greatest being 1: (n_prompts, n_battles).

        Sorted as `battle_prompts`, the prompts of the battles.

        Equal to ``gamma ** (1 + S)`` but for a factor that cancels where there is no prior.
        """
        return self._weigh(vectors @ self.battle_vectors.T)

    def effective_battles(self, vectors: np.ndarray) -> np.ndarray:
        """How many equally weighted battles each prompt's fit is worth, (sum w)^2 / sum w^2: (n_prompts,)."""
        weights = self.weights(vectors).astype(float)
        return weights.sum(axis=1) ** 2 / (weights**2).sum(axis=1)

    def _weigh(self, similarity: np.ndarray) -> np.ndarray:
        """Turn cosines into weights, in place."""
        most_similar = similarity.max(axis=1, keepdims=True)
        if (most_similar <= 0).any():
            row = int(np.argmax(most_similar <= 0))
            raise ValueError(f"prompt {row} of the batch resembles no battle: its greatest cosine is not positive")
        similarity *= np.log(self.gamma) / most_similar
        similarity -= np.float32(np.log(self.gamma))
        return np.exp(similarity, out=similarity)

    def _weighted_pairs(self, vectors: np.ndarray) -> PairSums:
        """Weighted outcomes of every pair of tiers that met, for a batch of prompts."""
        present, starts = np.unique(self.battle_cells, return_index=True)
        similarity = vectors @ self.battle_vectors.T  # (B, N) float32
        sums = np.empty((len(vectors), len(present)))
        for begin in range(0, len(vectors), CACHED_ROWS):  # a few rows at a time stay in the processor's cache
            rows = slice(begin, begin + CACHED_ROWS)
            sums[rows] = np.add.reduceat(self._weigh(similarity[rows]), starts, axis=1, dtype=np.float64)
        n_pairs = len(self.tier_first)
        outcomes = np.zeros((len(vectors), 3 * n_pairs + 1))
        outcomes[:, present] = sums
        outcomes = outcomes[:, :-1].reshape(len(vectors), n_pairs, 3)
        return PairSums(self.tier_first, self.tier_second, np.ascontiguousarray(outcomes.transpose(2, 0, 1)))

    def _solve(self, pairs: PairSums) -> np.ndarray:
        """Ratings of the tiers in each problem, starting from (and, with a prior, drawn to) those on all battles."""
        result = solve_ratings(
            pairs,
            len(self.tier_ratings),
            self.ties if self.tie > 0 else "half",
            self.prior_strength,
            prior=self.tier_ratings,
            start=self.tier_ratings,
            tie=float(np.log(self.tie)) if self.tie > 0 else None,
        )
        if not result.converged.all():
            raise RuntimeError(
                f"the ratings of prompt {int(np.argmin(result.converged))} of the batch did not converge; a lower gamma"
                " or a prior (prior_strength=1, say) makes the problem better conditioned"
            )
        return result.ratings
