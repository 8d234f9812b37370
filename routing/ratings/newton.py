"""Newton's method for Bradley-Terry ratings, for many weightings of the same pairs at once.

One solver serves the single fit, the position effect, the bootstrap (a problem per resample) and similarity weighting
(a problem per prompt): they differ only in the outcomes of each pair.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from routing.battles import PairCounts
from routing.ratings.ties import OutcomeTerms, davidson_terms, half_win_terms, rao_kupper_terms

MAX_ITERATIONS = 1000  # about one for each unit of the largest log-odds, and five more
ONE_THREAD_BELOW = 400  # models; threads that share a smaller matrix mostly wait for each other
STEP_TOLERANCE = 1e-8  # Newton converges quadratically: the step after one this small is below rounding
LONGEST_STEP = 10.0  # of any parameter; where the likelihood is nearly flat Newton's own may be of any length
LARGEST_NOISE = 1e-4  # the largest step that rounding alone may cause

_TERMS = {"davidson": davidson_terms, "rao_kupper": rao_kupper_terms}


class PairSums(NamedTuple):
    """Outcomes of the pairs that met, for one or many weightings of the same battles at once."""

    first: np.ndarray  # (n_pairs,) index of the first model
    second: np.ndarray  # (n_pairs,) of the second; each (first, second) stands once
    outcomes: np.ndarray  # (3, n_problems, n_pairs) battles the first won, ties, battles the second won
    position: np.ndarray | None = None  # (n_pairs,) what the position effect is multiplied with; None: no such effect

    def counts(self, models: tuple[str, ...], problem: int) -> PairCounts:
        """Return one problem as the pair counts of `models`; the inverse of `pair_sums`."""
        wins, ties = np.zeros((2, len(models), len(models)))
        wins[self.first, self.second], ties[self.first, self.second], lost = self.outcomes[:, problem]
        wins[self.second, self.first] = lost
        return PairCounts(models, wins, ties + ties.T)


def pair_sums(counts: PairCounts) -> PairSums:
    """Return the pairs of `counts` that met, the lower index first, and their outcomes as one problem."""
    met = np.flatnonzero(np.triu(counts.battles) > 0)
    outcomes = np.array([part.ravel()[met] for part in (counts.wins, counts.ties, counts.wins.T)])
    return PairSums(*np.divmod(met, len(counts.models)), outcomes[:, None, :])


class NewtonResult(NamedTuple):
    """Penalised maximum-likelihood estimates of a batch of problems."""

    ratings: np.ndarray  # (n_problems, n_models) log-odds, each row of mean 0
    position_effect: np.ndarray  # (n_problems,) log-odds; 0 where the pairs have no position
    tie_parameter: np.ndarray  # (n_problems,) log nu or tau; 0 where there is none
    n_iterations: int
    converged: np.ndarray  # (n_problems,) bool
    least_settled: np.ndarray  # (n_problems,) index of the model whose rating rounding moves most
    pairs: PairSums  # what was solved: the pairs, then perhaps the battles that regularise the tie parameter
    terms: OutcomeTerms  # of these at the estimates


def _gradient(
    pairs: PairSums, n_models: int, by_delta: np.ndarray, by_tie: np.ndarray | None = None, sign: float = -1.0
) -> np.ndarray:
    """Return sums over pairs of derivatives (n_problems, n_pairs) by (ratings, position effect, tie parameter).

    A derivative by delta counts for the first model of its pair, and `sign` times for the second.
    """
    problem, size = n_models * np.arange(len(by_delta))[:, None], n_models * len(by_delta)
    first, second = (np.bincount((problem + model).ravel(), by_delta.ravel(), size) for model in pairs[:2])
    parts = [(first + sign * second).reshape(-1, n_models)]
    if pairs.position is not None:
        parts.append(by_delta @ pairs.position[:, None])
    if by_tie is not None:
        parts.append(by_tie.sum(axis=1, keepdims=True))
    return np.concatenate(parts, axis=1)


def quadratic_form(
    pairs: PairSums,
    n_models: int,
    by_delta: np.ndarray,
    cross: np.ndarray | None = None,
    by_tie: np.ndarray | None = None,
) -> np.ndarray:
    """Return sums over pairs of second-order terms by (ratings, position effect, tie parameter).

    `by_delta`, `cross` and `by_tie`, each (n_problems, n_pairs), belong to delta twice, delta and the tie parameter,
    and the tie parameter twice. The result has shape (n_problems, size, size), with size up to n_models + 2.
    """
    size = n_models + (pairs.position is not None) + (by_tie is not None)
    cells = np.zeros((len(by_delta), size * size))
    cells[:, pairs.first * size + pairs.second] = -by_delta
    cells[:, pairs.second * size + pairs.first] -= by_delta
    matrix = cells.reshape(-1, size, size)
    np.einsum("pii->pi", matrix)[:, :n_models] -= matrix[:, :n_models, :n_models].sum(axis=2)
    if pairs.position is not None:
        column = _gradient(
            pairs, n_models, by_delta * pairs.position, None if cross is None else cross * pairs.position
        )
        matrix[:, n_models] = matrix[:, :, n_models] = column
    if by_tie is not None:
        matrix[:, -1] = matrix[:, :, -1] = _gradient(pairs, n_models, cross, by_tie)
    return matrix


def information(
    pairs: PairSums, terms: OutcomeTerms, n_models: int, has_tie: bool, prior_strength: float
) -> np.ndarray:
    """Return the negative Hessian by (ratings, position effect, tie parameter), (n_problems, size, size).

    Regular although only differences of ratings count: the model with the most information is held in place.
    """
    parts = (terms.curvature, terms.cross_curvature, terms.tie_curvature)[: 3 if has_tie else 1]
    matrix = quadratic_form(pairs, n_models, *((pairs.outcomes * part).sum(axis=0) for part in parts))
    diagonal, problem = np.einsum("pii->pi", matrix), np.arange(len(matrix))
    held = diagonal[:, :n_models].argmax(axis=1)
    most = diagonal[problem, held] + prior_strength
    if prior_strength:
        matrix[:, :n_models, :n_models] -= prior_strength / n_models
        diagonal[:, : n_models + (pairs.position is not None)] += prior_strength
    diagonal[problem, held] += np.where(most > 0, most, 1.0)
    return matrix


_linear_algebra = functools.cache(ThreadpoolController)
_inside, _limits, _lock = 0, None, threading.Lock()


@contextmanager
def few_threads(n_models: int) -> Iterator[None]:
    """Keep small linear algebra of the whole process on one thread, from the first that enters to the last to leave."""
    global _inside, _limits
    small = n_models < ONE_THREAD_BELOW
    with _lock:
        if small and _inside == 0:
            _limits = _linear_algebra().limit(limits=1, user_api="blas")
        _inside += small
    try:
        yield
    finally:
        with _lock:
            _inside -= small
            if small and _inside == 0:
                _limits.restore_original_limits()


def count_threads() -> int:
    """Return the number of threads that matrix products use now."""
    pools = _linear_algebra().info()
    return max((pool["num_threads"] for pool in pools if pool["user_api"] == "blas"), default=1)


def solve_ratings(
    pairs: PairSums,
    n_models: int,
    ties: str = "half",
    prior_strength: float = 0.0,
    prior: np.ndarray | None = None,
    start: np.ndarray | None = None,
    tie_parameter: float | None = None,
) -> NewtonResult:
    """Maximise the penalised log-likelihood of each problem by Newton's method with step halving.

    The objective is the log-likelihood minus ``prior_strength / 2 * (sum((ratings - prior)**2) + position_effect**2)``,
    plus that of `prior_strength` battles between equal models, a third of them ties, where a tie parameter is
    estimated. That a maximum exists has to be known beforehand, so with "davidson" and "rao_kupper" each problem has a
    tie or there is a prior; the largest outcome is about 1, give or take 100 orders; and "drop" is solved as "half",
    without the ties. A problem that has converged is left alone, so its answer does not depend on which others are
    solved with it. It has once its step is below 1e-8 (relative to the largest rating above 1, and to tau), or below
    what rounding alone causes; and it has not where that exceeds 1e-4.

    `prior` and `start`, (n_models,) of mean 0, are the prior's mean, by default 0, and the ratings to start from, by
    default that mean; `tie_parameter` is log nu or tau where it is known and not to be estimated.
    """
    has_tie = ties in _TERMS and tie_parameter is None
    n_problems, has_position = pairs.outcomes.shape[1], pairs.position is not None
    if has_tie and prior_strength:  # battles of a model against itself, so that the ratings do not enter
        outcomes = np.pad(pairs.outcomes, ((0, 0), (0, 0), (0, 1)), constant_values=prior_strength / 3)
        position = np.append(pairs.position, 0.0) if has_position else None
        pairs = PairSums(np.append(pairs.first, 0), np.append(pairs.second, 0), outcomes, position)
    center = np.zeros(n_models + has_position + has_tie)  # by ratings, position effect, tie parameter
    center[:n_models] = 0.0 if prior is None else prior
    penalty = np.where(np.arange(len(center)) < n_models + has_position, prior_strength, 0.0)
    at = np.tile(center, (n_problems, 1))
    at[:, :n_models] = center[:n_models] if start is None else start
    if has_tie:  # the value that fits the share of ties between equal models
        odds = 2 * pairs.outcomes[1].sum(axis=1) / pairs.outcomes[[0, 2]].sum(axis=(0, 2))
        at[:, -1] = np.log(odds) if ties == "davidson" else np.log1p(odds)
    known = np.full((n_problems, 1), 0.0 if tie_parameter is None else tie_parameter)

    def evaluate(at: np.ndarray) -> tuple[OutcomeTerms, np.ndarray]:
        delta, tie = at[:, pairs.first] - at[:, pairs.second], at[:, -1:] if has_tie else known
        if has_position:
            delta += at[:, [n_models]] * pairs.position
        terms = _TERMS[ties](delta, tie) if ties in _TERMS else half_win_terms(delta)
        fit = (pairs.outcomes * terms.log_probability).sum(axis=(0, 2))
        return terms, fit - (penalty / 2 * (at - center) ** 2).sum(axis=1)

    epsilon = np.finfo(float).eps
    slack = epsilon * pairs.outcomes.sum(axis=(0, 2))  # the rounding of log-probabilities near 0
    converged, unsettled = np.zeros(n_problems, dtype=bool), np.zeros(n_problems, dtype=np.int64)
    with few_threads(n_models), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        terms, value = evaluate(at)
        for iteration in range(1, MAX_ITERATIONS + 1):  # noqa: B007 (the count is returned)
            flows = [pairs.outcomes * slope for slope in (terms.slope, terms.tie_slope)[: 1 + has_tie]]
            gradient = _gradient(pairs, n_models, *(flow.sum(axis=0) for flow in flows)) - penalty * (at - center)
            rounding = epsilon * _gradient(pairs, n_models, *(np.abs(flow).sum(axis=0) for flow in flows), sign=1.0)
            curvature = information(pairs, terms, n_models, has_tie, prior_strength)
            try:
                solved = np.linalg.solve(curvature, np.stack([gradient, rounding], axis=2))
            except np.linalg.LinAlgError:  # weights too far apart for the digits of a float
                break
            step, noise = solved[..., 0], np.abs(solved[..., 1])
            step[:, :n_models] -= step[:, :n_models].mean(axis=1, keepdims=True)
            step[converged] = 0.0
            unsettled = np.where(converged, unsettled, noise[:, :n_models].argmax(axis=1))
            unit = np.tile(np.maximum(np.abs(at).max(axis=1, keepdims=True), 1.0), len(center))
            if has_tie and ties == "rao_kupper":
                unit[:, -1] = at[:, -1]
            size, noise = np.abs(step / unit).max(axis=1), (noise / unit).max(axis=1)
            step *= np.minimum(1.0, LONGEST_STEP / np.maximum(np.abs(step).max(axis=1), LONGEST_STEP))[:, None]
            for halving in range(42):
                new = at + step
                new_terms, new_value = evaluate(new)
                worse = ~(new_value >= value - 1e-12 * np.abs(value) - slack)  # NaN where tau is not above 0
                if not worse.any():
                    break
                step[worse] *= 0.5 if halving < 40 else 0.0
            at, terms, value = new, new_terms, new_value
            converged |= (size <= np.maximum(STEP_TOLERANCE, 4 * noise)) & (noise <= LARGEST_NOISE)
            if converged.all():
                break
    ratings = at[:, :n_models] - at[:, :n_models].mean(axis=1, keepdims=True)
    effect, tie = at[:, n_models] if has_position else np.zeros(n_problems), at[:, -1] if has_tie else known[:, 0]
    return NewtonResult(ratings, effect, tie, iteration, converged, unsettled, pairs, terms)
