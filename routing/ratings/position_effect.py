"""A first-answer term in Bradley-Terry: what standing first is worth, apart from how good the models are.

With ``delta = rating_a - rating_b + effect``, where a's answer was shown first, outcomes follow Davidson's model
[Davidson70]; the term is that of order effects in paired comparisons [DavidsonBeaver77]. It is the one estimate here
that depends on how battles were shown, and so on which model stands in column model_a: swapping all rows of a table
turns the sign of the effect and leaves the ratings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from routing.battles import count_pairs, encode_battles
from routing.ratings.bradley_terry import check_estimable
from routing.ratings.ties import OutcomeTerms, davidson_terms

MAX_ITERATIONS = 50
STEP_TOLERANCE = 1e-9
LARGEST_RATING = 20.0  # log-odds; who gets there is on the way to infinity


@dataclass(frozen=True)
class PositionEffectFit:
    """Ratings and what the place of an answer adds to them.

    Attributes
    ----------
    ratings : Series, shape (n_models,)
        Log-odds, mean 0, indexed by model.
    position_effect : float
        Log-odds added to the rating of the model whose answer is shown first; above 0 the first answer is favoured.
    covariance : array, shape (n_models + 1, n_models + 1)
        Sandwich covariance [White82] of the ratings, then the effect.
    nu : float
        nu of Davidson's model.
    log_likelihood : float
        Nats, of all battles.
    """

    ratings: pd.Series
    position_effect: float
    covariance: np.ndarray
    nu: float
    log_likelihood: float
    n_battles: int

    def position_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Normal confidence interval of the effect, log-odds."""
        width = norm.ppf((1 + level) / 2) * np.sqrt(self.covariance[-1, -1])
        return float(self.position_effect - width), float(self.position_effect + width)

    def interval(self, level: float = 0.95) -> pd.DataFrame:
        """Normal confidence interval of each rating, columns ``low`` and ``high``, log-odds."""
        width = norm.ppf((1 + level) / 2) * np.sqrt(np.diagonal(self.covariance)[:-1])
        return pd.DataFrame({"low": self.ratings - width, "high": self.ratings + width})


class _Shown(NamedTuple):
    """Battles summed by ordered pair."""

    design: np.ndarray  # (n_pairs, n_models + 1): +1 for the first model, -1 for the second, 1 for the effect
    outcomes: np.ndarray  # (3, n_pairs): the first won, tie, the second won


def _sum_as_shown(battles: pd.DataFrame) -> tuple[tuple[str, ...], _Shown]:
    models, model_a, model_b, outcome = encode_battles(battles)
    n_models = len(models)
    cells = np.bincount((model_a * n_models + model_b) * 3 + outcome, minlength=3 * n_models**2).reshape(-1, 3)
    met = np.flatnonzero(cells.any(axis=1))
    identity = np.eye(n_models)
    design = identity[met // n_models] - identity[met % n_models]
    return models, _Shown(np.column_stack([design, np.ones(len(met))]), cells[met].T.astype(float))


def _check_separable(models: tuple[str, ...], shown: _Shown) -> None:
    """Raise unless the effect can be told from the ratings."""
    ratings_alone = np.linalg.matrix_rank(shown.design[:, :-1])
    if np.linalg.matrix_rank(shown.design) == ratings_alone:
        raise ValueError(
            "the effect of standing first cannot be told from the ratings: which of two models stands first is settled"
            f" by the models ({', '.join(models[:5])}, ...); show at least one pair both ways round"
        )
    won, _, lost = shown.outcomes.sum(axis=1)
    if won == 0 or lost == 0:
        raise ValueError(f"the first answer {'never' if won == 0 else 'always'} won, so that no finite effect fits")


def fit_position_effect(battles: pd.DataFrame) -> PositionEffectFit:
    """Maximum-likelihood ratings together with the effect of being shown first, ties by Davidson's model.

    Parameters
    ----------
    battles : DataFrame
        Columns of `routing.battles`; model_a was shown first. Tables in canonical order have lost this.

    Raises
    ------
    ValueError
        As `encode_battles` and `check_estimable`; or the order of display is settled by the models, so that their
        ratings and the effect cannot be told apart; or one place won all decided battles.
    RuntimeError
        Newton's method did not converge.
    """
    models, shown = _sum_as_shown(battles)
    check_estimable(count_pairs(battles), "davidson")
    _check_separable(models, shown)
    n_models, has_tie = len(models), bool(shown.outcomes[1].any())
    total = shown.outcomes.sum()
    share = shown.outcomes[1].sum() / total
    log_nu = np.log(2 * share / (1 - share)) if has_tie else -np.inf
    parameters = np.zeros(n_models + 2)
    parameters[-1] = log_nu
    free = slice(None) if has_tie else slice(-1)

    terms, size = _terms(shown, parameters), np.inf
    for _ in range(MAX_ITERATIONS):
        gradient, curvature = _derivatives(shown, terms)
        step = np.zeros_like(parameters)
        step[free] = np.linalg.solve(curvature[free, free], gradient[free])
        size, value = np.abs(step).max(), _log_likelihood(shown, terms)
        for _ in range(40):
            after = _terms(shown, parameters + step)
            if _log_likelihood(shown, after) >= value - 1e-12 * abs(value):
                break
            step /= 2
        parameters, terms = parameters + step, after
        if size < STEP_TOLERANCE or np.abs(parameters[:-1]).max() > LARGEST_RATING:
            break
    if size >= STEP_TOLERANCE:
        raise RuntimeError(
            "battles this one-sided have no finite ratings and effect of the greatest likelihood; leave out models with"
            " few battles"
        )
    _, curvature = _derivatives(shown, terms)
    scores = _score_products(shown, terms)
    inverse = np.linalg.inv(curvature[free, free])
    covariance = (inverse @ scores[free, free] @ inverse)[: n_models + 1, : n_models + 1]
    return PositionEffectFit(
        ratings=pd.Series(
            parameters[:n_models] - parameters[:n_models].mean(), index=pd.Index(models, name="model"), name="rating"
        ),
        position_effect=float(parameters[n_models]),
        covariance=(covariance + covariance.T) / 2,
        nu=float(np.exp(parameters[-1])),
        log_likelihood=_log_likelihood(shown, terms),
        n_battles=int(total),
    )


def _terms(shown: _Shown, parameters: np.ndarray) -> OutcomeTerms:
    delta = shown.design @ parameters[:-1]
    return davidson_terms(delta, parameters[-1:])


def _log_likelihood(shown: _Shown, terms: OutcomeTerms) -> float:
    happened = shown.outcomes > 0  # without ties theirs is log 0
    return float((shown.outcomes[happened] * terms.log_probability[happened]).sum())


def _derivatives(shown: _Shown, terms: OutcomeTerms) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and negative Hessian by (ratings, effect, log nu), regular along the shift of all ratings."""
    design, outcomes = shown
    n_models = design.shape[1] - 1
    gradient = np.append(design.T @ (outcomes * terms.slope).sum(axis=0), (outcomes * terms.tie_slope).sum())
    curvature = np.empty((n_models + 2, n_models + 2))
    inner = (design.T * (outcomes * terms.curvature).sum(axis=0)) @ design
    inner[:-1, :-1] += np.trace(inner) / n_models**2
    curvature[:-1, :-1] = inner
    curvature[:-1, -1] = curvature[-1, :-1] = design.T @ (outcomes * terms.cross_curvature).sum(axis=0)
    curvature[-1, -1] = (outcomes * terms.tie_curvature).sum()
    return gradient, curvature


def _score_products(shown: _Shown, terms: OutcomeTerms) -> np.ndarray:
    """Sum over battles of score times score'."""
    size = shown.design.shape[1] + 1
    products = np.zeros((size, size))
    for outcome, slope, tie_slope in zip(shown.outcomes, terms.slope, terms.tie_slope, strict=True):
        scores = np.column_stack([shown.design * slope[:, None], tie_slope])  # (n_pairs, size)
        products += (scores.T * outcome) @ scores
    return products
