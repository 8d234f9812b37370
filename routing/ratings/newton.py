"""Newton's method for Bradley-Terry ratings, for many weightings of the same pairs at once.

One solver serves the single fit, the bootstrap (a problem a resample) and similarity weighting (a problem a
prompt): they differ only in the counts of each pair.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from routing.battles import PairCounts
from routing.ratings.ties import OutcomeTerms, davidson_terms, half_win_terms, rao_kupper_terms

MAX_ITERATIONS = 100
ONE_THREAD_BELOW = 400  # models; threads that share a smaller matrix mostly wait for each other
STEP_TOLERANCE = 1e-8  # Newton converges quadratically: the step after one this small is below rounding


class PairSums(NamedTuple):
    """Outcomes of the pairs that met, for one or many weightings of the same battles at once."""

    first: np.ndarray  # (n_pairs,) index of the first model
    second: np.ndarray  # (n_pairs,) index of the second model, above the first
    outcomes: np.ndarray  # (3, n_problems, n_pairs) battles the first won, ties, battles the second won


def pair_sums(counts: PairCounts) -> PairSums:
    """The pairs of `counts` that met, and their outcomes, as one problem."""
    first, second = np.nonzero(np.triu(counts.battles))
    outcomes = np.stack([counts.wins[first, second], counts.ties[first, second], counts.wins[second, first]])
    return PairSums(first, second, outcomes[:, None, :])


class NewtonResult(NamedTuple):
    """Maximum-likelihood ratings of a batch of problems."""

    ratings: np.ndarray  # (n_problems, n_models) log-odds, each row of mean 0
    tie: np.ndarray  # (n_problems,) tie parameter as in `tie_models`, 0 where there is none
    n_iterations: int
    converged: np.ndarray  # (n_problems,) bool


def outcome_terms(pairs: PairSums, ratings: np.ndarray, tie: np.ndarray, ties: str) -> OutcomeTerms:
    """Log-probabilities and derivatives at `ratings` (n_problems, n_models) and `tie` (n_problems,)."""
    delta = ratings[:, pairs.first] - ratings[:, pairs.second]  # (B, P)
    if ties == "davidson":
        return davidson_terms(delta, tie[:, None])
    if ties == "rao_kupper":
        return rao_kupper_terms(delta, tie[:, None])
    return half_win_terms(delta)


def laplacian(pairs: PairSums, weights: np.ndarray, n_models: int) -> np.ndarray:
    """Sum over pairs of weight times (e_i - e_j)(e_i - e_j)': (n_problems, n_models, n_models)."""
    matrix = np.zeros((len(weights), n_models, n_models))
    matrix[:, pairs.first, pairs.second] = -weights
    matrix[:, pairs.second, pairs.first] = -weights
    diagonal = np.arange(n_models)
    matrix[:, diagonal, diagonal] = -matrix.sum(axis=2)
    return matrix


def divergence(pairs: PairSums, flows: np.ndarray, n_models: int) -> np.ndarray:
    """Sum over pairs of flow times (e_i - e_j): (n_problems, n_models)."""
    matrix = np.zeros((len(flows), n_models, n_models))
    matrix[:, pairs.first, pairs.second] = flows
    matrix[:, pairs.second, pairs.first] = -flows
    return matrix.sum(axis=2)


def information(
    pairs: PairSums, terms: OutcomeTerms, n_models: int, has_tie: bool, prior_strength: float
) -> np.ndarray:
    """Negative Hessian by (ratings, tie), made regular along the direction (1, ..., 1) that no battle sees."""
    theta = laplacian(pairs, (pairs.outcomes * terms.curvature).sum(axis=0), n_models)
    diagonal = np.arange(n_models)
    scale = theta[:, diagonal, diagonal].mean(axis=1) + prior_strength
    theta[:, diagonal, diagonal] += prior_strength
    theta += np.where(scale > 0, scale, 1.0)[:, None, None] / n_models
    if not has_tie:
        return theta
    full = np.zeros((len(theta), n_models + 1, n_models + 1))
    full[:, :n_models, :n_models] = theta
    cross = divergence(pairs, (pairs.outcomes * terms.cross_curvature).sum(axis=0), n_models)
    full[:, :n_models, n_models] = full[:, n_models, :n_models] = cross
    full[:, n_models, n_models] = (pairs.outcomes * terms.tie_curvature).sum(axis=(0, 2))
    return full


@functools.cache
def _linear_algebra() -> ThreadpoolController:
    return ThreadpoolController()


def solve_linear(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`np.linalg.solve`, on one thread where the matrices are small."""
    with _linear_algebra().limit(limits=1 if matrix.shape[-1] < ONE_THREAD_BELOW else None, user_api="blas"):
        return np.linalg.solve(matrix, right)


def solve_ratings(
    pairs: PairSums,
    n_models: int,
    ties: str = "half",
    prior_strength: float = 0.0,
    prior: np.ndarray | None = None,
    start: np.ndarray | None = None,
    tie: float | None = None,
) -> NewtonResult:
    """Newton's method with step halving, for many weightings of the same pairs at once.

    Maximises the log-likelihood less ``prior_strength / 2 * sum((ratings - prior)**2)``.
    A problem that has converged is left alone, so its answer does not depend on which others are solved with it.

    Parameters
    ----------
    pairs : PairSums
        Outcomes of shape (3, n_problems, n_pairs).
    ties : one of `TIE_MODELS`
        "drop" is solved as "half": leave the ties out of `pairs` beforehand.
    prior_strength : float
        Precision of the normal prior on each rating, in the currency of battles.
    prior : array, shape (n_models,), optional
        Mean of that prior, itself of mean 0. Default: 0.
    start : array, shape (n_models,), optional
        Ratings to start from, of mean 0. Default: the mean of the prior.
    tie : float, optional
        A known tie parameter; by default it is estimated with the ratings.

    Notes
    -----
    Memory is that of about ten arrays (n_problems, n_pairs) and three (n_problems, n_models, n_models).
    """
    n_problems = pairs.outcomes.shape[1]
    has_tie = ties in ("davidson", "rao_kupper") and tie is None
    prior = np.zeros(n_models) if prior is None else prior
    ratings = np.tile(prior if start is None else start, (n_problems, 1))
    tie = np.full(n_problems, 0.0 if tie is None else tie)
    if has_tie:  # the value that fits the share of ties between equal models
        share = np.clip(pairs.outcomes[1].sum(axis=1) / pairs.outcomes.sum(axis=(0, 2)), 1e-9, 1 - 1e-9)
        tie = np.log(2 * share / (1 - share)) if ties == "davidson" else np.log((1 + share) / (1 - share))

    def objective(terms: OutcomeTerms, ratings: np.ndarray) -> np.ndarray:
        fit = (pairs.outcomes * terms.log_probability).sum(axis=(0, 2))
        return fit - prior_strength / 2 * ((ratings - prior) ** 2).sum(axis=1)

    terms = outcome_terms(pairs, ratings, tie, ties)
    value = objective(terms, ratings)
    converged = np.zeros(n_problems, dtype=bool)
    for iteration in range(1, MAX_ITERATIONS + 1):  # noqa: B007 (the count is returned)
        gradient = divergence(pairs, (pairs.outcomes * terms.slope).sum(axis=0), n_models)
        gradient -= prior_strength * (ratings - prior)
        if has_tie:
            tie_gradient = (pairs.outcomes * terms.tie_slope).sum(axis=(0, 2))
            gradient = np.concatenate([gradient, tie_gradient[:, None]], axis=1)
        curvature = information(pairs, terms, n_models, has_tie, prior_strength)
        try:
            step = solve_linear(curvature, gradient[..., None])[..., 0]
        except np.linalg.LinAlgError:  # a separated problem ran off to infinity
            break
        step[converged] = 0.0
        size = np.abs(step).max(axis=1)
        length = np.ones(n_problems)
        for _ in range(40):
            new_ratings = ratings + length[:, None] * step[:, :n_models]
            new_tie = tie + length * step[:, n_models] if has_tie else tie
            inside = new_tie > 0 if has_tie and ties == "rao_kupper" else np.ones(n_problems, dtype=bool)
            new_terms = outcome_terms(pairs, new_ratings, np.where(inside, new_tie, tie), ties)
            new_value = objective(new_terms, new_ratings)
            worse = ~inside | ~(new_value >= value - 1e-12 * np.abs(value))
            if not worse.any():
                break
            length[worse] /= 2
        ratings, tie, terms, value = new_ratings, new_tie, new_terms, new_value
        converged |= size < STEP_TOLERANCE
        if converged.all():
            break
    return NewtonResult(ratings - ratings.mean(axis=1, keepdims=True), tie, iteration, converged)
