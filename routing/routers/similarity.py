"""Similarity weighting: Bradley-Terry refitted for each prompt, on battles weighted by how similar theirs are.

The likelihood depends on weighted battles through their weighted pair counts alone. So a batch of prompts costs one
matrix product (similarities), one sum into pair counts, and one Newton solve.
"""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from routing.battles import BattleCodes, PairCounts, encode_battles, pair_codes, split_codes, sum_codes
from routing.ratings.bradley_terry import WEAKEST_PRIOR, check_converged, fit_bradley_terry, name_some, rating_tiers
from routing.ratings.newton import PairSums, count_threads, pair_sums, solve_ratings
from routing.ratings.ties import outcome_probability
from routing.routers.base import EmbeddingRouter, Prompts

BLOCK_BYTES = 1 << 26  # similarities held at once: batches are cut so that memory does not grow with prompts or battles
MAX_BATCH = 256
CACHED_ROWS = 4
DOUBLED_ROWS = 2048  # rows of battle vectors made double at a time: they stay in the processor's cache


class TierMap(NamedTuple):
    """Which tier each model is in, and which pairs of tiers met."""

    models: tuple[str, ...]
    tier: np.ndarray  # (n_models,) int
    first: np.ndarray  # (n_pairs,) the first tier of a pair
    second: np.ndarray  # (n_pairs,) the second, above the first

    def cells(self, models: tuple[str, ...], codes: np.ndarray) -> np.ndarray:
        """Return what battles given as `pair_codes` over `models` count for between tiers: (n_battles,) int64.

        ``3 * pair + outcome`` seen from the pair's first tier; ``3 * n_pairs`` where both models are of one tier.
        """
        tier = pd.Series(self.tier, index=self.models)[list(models)].to_numpy()
        first, second, outcome = split_codes(len(models), codes)
        n_tiers = int(self.tier.max()) + 1
        pair_number = np.full((n_tiers, n_tiers), len(self.first))
        pair_number[self.first, self.second] = np.arange(len(self.first))
        tier_a, tier_b, outcome = split_codes(n_tiers, pair_codes(n_tiers, tier[first], tier[second], outcome))
        return 3 * pair_number[tier_a, tier_b] + np.where(tier_a == tier_b, 0, outcome)

    def pair_sums(self, sums: np.ndarray) -> PairSums:
        """Return problems for the solver from sums over all cells, (n_problems, 3 * n_pairs + 1)."""
        outcomes = sums[:, :-1].reshape(len(sums), len(self.first), 3)
        return PairSums(self.first, self.second, np.ascontiguousarray(outcomes.transpose(2, 0, 1)))


def cosines(queries: np.ndarray, vectors: np.ndarray, precision: str) -> np.ndarray:
    """Return dot products of unit vectors, (n_queries, n_vectors) float32, computed in single or double precision."""
    if precision == "single":
        return queries @ vectors.T
    queries = queries.astype(np.float64)
    products = np.empty((len(queries), len(vectors)), dtype=np.float32)
    for begin in range(0, len(vectors), DOUBLED_ROWS):
        rows = slice(begin, begin + DOUBLED_ROWS)
        products[:, rows] = queries @ vectors[rows].astype(np.float64).T
    return products


def check_resemblance(most_similar: np.ndarray) -> None:
    """Raise if the largest cosine of a prompt of the batch is not positive."""
    if (most_similar <= 0).any():
        row = int(np.argmax(most_similar <= 0))
        raise ValueError(f"prompt {row} of the batch resembles no battle: its largest cosine is not positive")


def weigh(similarity: np.ndarray, most_similar: np.ndarray, gamma: float) -> np.ndarray:
    """Turn cosines (n_prompts, n_battles) into weights, the largest being 1, in place."""
    similarity *= np.log(gamma) / most_similar[:, None]
    similarity -= np.float32(np.log(gamma))
    return np.exp(similarity, out=similarity)


def sum_runs(similarity: np.ndarray, most_similar: np.ndarray, gamma: float, starts: np.ndarray) -> np.ndarray:
    """Sum weights over the runs of battles that begin at `starts`: (n_prompts, n_runs) float64.

    On as many threads as the matrix product before it; a prompt's sums do not depend on them.
    """
    sums = np.empty((len(similarity), len(starts)))

    def sum_rows(begin: int) -> None:  # a few rows at a time stay in the processor's cache
        rows = slice(begin, begin + CACHED_ROWS)
        weights = weigh(similarity[rows].copy(), most_similar[rows], gamma)
        sums[rows] = np.add.reduceat(weights, starts, axis=1, dtype=np.float64)

    blocks = range(0, len(similarity), CACHED_ROWS)
    with ThreadPoolExecutor(count_threads() if len(blocks) > 1 else 1) as pool:
        list(pool.map(sum_rows, blocks))
    return sums


def row_keys(vectors: np.ndarray) -> np.ndarray:
    """Return a hash of each float32 row, (n_rows,) uint64, so that the order of rows can depend on content alone."""
    multipliers = np.random.default_rng(0).integers(1, 2**63, size=vectors.shape[1], dtype=np.uint64) | np.uint64(1)
    keys = np.empty(len(vectors), dtype=np.uint64)
    for begin in range(0, len(vectors), DOUBLED_ROWS):
        bits = np.ascontiguousarray(vectors[begin : begin + DOUBLED_ROWS]).view(np.uint32)
        keys[begin : begin + DOUBLED_ROWS] = (bits * multipliers).sum(axis=1, dtype=np.uint64)  # modulo 2**64
    return keys


@dataclass
class SimilarityRouter(EmbeddingRouter):
    """The similarity-weighted ranking of RouteLLM [RouteLLM24, section 4.2].

    A battle on prompt q' has weight ``gamma ** (1 + S(q, q'))`` for prompt q, where S is the cosine similarity divided
    by the largest one that any battle's prompt has with q. Ratings are those of tiers of models: models of a tier share
    one, as most pairs of models have too few battles. As all weights are positive, they are finite where those of all
    battles are, which `fit` checks. A weight that underflows to 0 is an error.

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
        Davidson's model with nu as estimated on all battles, or, as RouteLLM, half a win for each. With "half" the
        rating difference is the log-odds of `expected_score`, which RouteLLM calls the win rate.
    precision : {"single", "double"}
        Of the cosines. "single" is nearly twice as fast in batches; its last bits (1e-7 of a cosine) depend on the
        processor and on how prompts are batched and battles split. With "double" the ratings do not, to 1e-9.

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
    precision: str = "single"

    def __post_init__(self) -> None:
        if not 1 <= self.gamma < np.inf:
            raise ValueError(f"gamma is {self.gamma}; it is 1 or more, so that similar battles weigh more")
        if not 0 <= self.prior_strength < np.inf:
            raise ValueError(f"prior_strength is {self.prior_strength}; it is a precision, finite and 0 or more")
        if self.ties not in ("davidson", "half"):
            raise ValueError(f"ties is {self.ties!r}; use 'davidson' or 'half'")
        if self.precision not in ("single", "double"):
            raise ValueError(f"precision is {self.precision!r}; use 'single' or 'double'")

    def _learn(self, codes: BattleCodes, prompts: np.ndarray, vectors: np.ndarray) -> None:
        self._arrange(pair_codes(len(codes.models), *codes[1:]), prompts, vectors)

    def _arrange(self, codes: np.ndarray, prompts: np.ndarray, vectors: np.ndarray) -> None:
        """Learn from battles given as `pair_codes` over `models`, in any order."""
        self._rate_tiers(sum_codes(self.models, codes))
        cells = self._tiers.cells(self.models, codes)
        # Battles sorted by what they count for, so that a sum into pair counts is a sum over runs of columns; within
        # a cell by content, so that the order in which battles came decides no bit of that sum.
        vectors = vectors.astype(np.float32, copy=False)
        order = np.lexsort((row_keys(vectors), codes, cells))
        self.battle_prompts = prompts[order]  # for looking at the weights; not saved, as ratings do not need them
        self.battle_vectors, self.battle_cells, self.battle_codes = vectors[order], cells[order], codes[order]

    def _rate_tiers(self, counts: PairCounts) -> None:
        """Fit ratings on all battles, the tiers they split the models into, and the tiers' ratings."""
        overall = fit_bradley_terry(counts, "davidson", self.prior_strength)
        self.models, self.nu = counts.models, overall.tie_parameter
        n_models = len(counts.models)
        n_tiers = n_models if self.n_tiers is None else min(self.n_tiers, overall.ratings.nunique())
        tiers = np.arange(n_models) if self.n_tiers is None else rating_tiers(overall.ratings, n_tiers).to_numpy()
        members, across = np.eye(n_tiers)[tiers], 1 - np.eye(n_tiers)  # (n_models, n_tiers), (n_tiers, n_tiers)
        wins, tied = (members.T @ number @ members * across for number in (counts.wins, counts.ties))
        pairs = pair_sums(PairCounts(map(str, range(n_tiers)), wins, tied))
        self.model_tier, self.tier_first, self.tier_second = tiers, pairs.first, pairs.second
        self.met_cells = np.flatnonzero(pairs.outcomes[:, 0].T)  # as `TierMap.cells` numbers them
        self.tier_ratings = np.zeros(n_tiers)
        self.tier_ratings = self._solve(pairs)[0]

    @property
    def _tiers(self) -> TierMap:
        return TierMap(self.models, self.model_tier, self.tier_first, self.tier_second)

    def add(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Self:
        """Learn from further battles, which may bring further models.

        Afterwards the router is the one that `fit` makes of all battles, those of before and these, bit for bit: the
        global ratings, nu and the tiers are found anew from the summed pair counts, and no earlier prompt is embedded
        or read again. If it raises, nothing changes: RuntimeError if the router has not been fitted; ValueError as
        `fit`, for the new battles or for all of them together, and for embeddings of another width.
        """
        if not hasattr(self, "battle_codes"):
            raise RuntimeError("this SimilarityRouter has not been fitted; call fit before add")
        codes = encode_battles(battles)
        vectors = self._check_width(self._battle_vectors(battles, embeddings))
        models = tuple(sorted({*self.models, *codes.models}))
        earlier, renumbered = split_codes(len(self.models), self.battle_codes), []
        for names, (model_a, model_b, outcome) in ((self.models, earlier), (codes.models, codes[1:])):
            number = pd.Index(models).get_indexer(names)
            renumbered.append(pair_codes(len(models), number[model_a], number[model_b], outcome))
        known = getattr(self, "battle_prompts", np.full(len(self.battle_codes), None))  # None: read from a file
        renewed = copy.copy(self)
        renewed.models = models
        prompts = np.concatenate([known, battles["prompt"].to_numpy(dtype=object)])
        renewed._arrange(np.concatenate(renumbered), prompts, np.concatenate([self.battle_vectors, vectors]))
        vars(self).update(vars(renewed))
        self._remember(battles["prompt"])
        return self

    def _arrays(self) -> dict[str, np.ndarray]:
        names = "model_tier tier_ratings tier_first tier_second battle_vectors battle_cells battle_codes"
        return {name: getattr(self, name) for name in names.split()}

    def ratings(self, prompts: Prompts) -> np.ndarray:
        return self.tier_level_ratings(self._vectors(prompts))[:, self.model_tier]

    def _outcomes(self, delta: np.ndarray) -> np.ndarray:
        if self.ties == "half":  # P(tie) between equal models is nu / (2 + nu)
            return outcome_probability(delta, "half", self.nu / (2 + self.nu))
        return super()._outcomes(delta)

    @property
    def _width(self) -> int:
        return self.battle_vectors.shape[1]

    def _check_width(self, vectors: np.ndarray) -> np.ndarray:
        if vectors.shape[1] != self._width:
            raise ValueError(f"embeddings of width {vectors.shape[1]}; this router learned on width {self._width}")
        return vectors.astype(np.float32, copy=False)

    def tier_level_ratings(self, vectors: np.ndarray) -> np.ndarray:
        """Return ratings of the tiers on prompts given as unit vectors: (n_prompts, n_tiers), log-odds."""
        vectors = self._check_width(vectors)
        n_battles, n_tiers = len(self.battle_vectors), len(self.tier_ratings)
        # Two arrays of n_tiers x n_tiers a prompt are what Newton's method holds next to the similarities.
        batch = int(np.clip(BLOCK_BYTES // (4 * n_battles + 64 * n_tiers**2), 1, MAX_BATCH))
        rated = np.empty((len(vectors), n_tiers))
        for begin in range(0, len(vectors), batch):
            rated[begin : begin + batch] = self._solve(self._weighted_pairs(vectors[begin : begin + batch]))
        return rated

    def weights(self, vectors: np.ndarray) -> np.ndarray:
        """Return the weights of battles, sorted as `battle_prompts`, the largest being 1: (n_prompts, n_battles).

        Equal to ``gamma ** (1 + S)`` but for a factor that cancels where there is no prior.
        """
        return weigh(*self._resemble(vectors), self.gamma)

    def effective_battles(self, vectors: np.ndarray) -> np.ndarray:
        """Return how many equally weighted battles each prompt's fit is worth, (sum w)^2 / sum w^2: (n_prompts,)."""
        weights = self.weights(vectors).astype(float)
        return weights.sum(axis=1) ** 2 / (weights**2).sum(axis=1)

    def _resemble(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return cosines with every battle's prompt, (n_prompts, n_battles), and the largest of each row."""
        similarity = cosines(vectors, self.battle_vectors, self.precision)
        most_similar = similarity.max(axis=1)
        check_resemblance(most_similar)
        return similarity, most_similar

    def _weighted_pairs(self, vectors: np.ndarray) -> PairSums:
        """Return weighted outcomes of every pair of tiers that met, for a batch of prompts."""
        present, starts = np.unique(self.battle_cells, return_index=True)
        sums = np.zeros((len(vectors), 3 * len(self.tier_first) + 1))
        sums[:, present] = sum_runs(*self._resemble(vectors), self.gamma, starts)
        self._check_underflow(sums[:, present[present < sums.shape[1] - 1]])
        return self._tiers.pair_sums(sums)

    def _check_underflow(self, sums: np.ndarray) -> None:
        """Raise where a sum of weights, (n_prompts, n_sums), is 0: it might be what keeps ratings finite."""
        if self.prior_strength <= WEAKEST_PRIOR and not sums.all():
            raise ValueError(
                f"prompt {int(np.argmin(sums.all(axis=1)))} of the batch resembles some battles so little that their"
                " weights underflow to 0; use a lower gamma or a prior (prior_strength=1, say)"
            )

    def _solve(self, pairs: PairSums) -> np.ndarray:
        """Return the tiers' ratings in each problem; they start from, and a prior draws to, those on all battles."""
        ties, log_nu = (self.ties, float(np.log(self.nu))) if self.nu > 0 else ("half", None)
        known = {"prior": self.tier_ratings, "tie_parameter": log_nu}
        result = solve_ratings(pairs, len(self.tier_ratings), ties, self.prior_strength, **known)
        tiers = [name_some(np.array(self.models)[self.model_tier == tier]) for tier in range(len(self.tier_ratings))]
        check_converged(result, tiers, "prompt")
        return result.ratings
