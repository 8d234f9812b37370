"""A first-answer term in Bradley-Terry: what standing first is worth, apart from how good the models are.

With ``delta = rating_a - rating_b + effect``, where a's answer was shown first, outcomes follow Davidson's model
[Davidson70]; the term is that of order effects in paired comparisons [DavidsonBeaver77]. It is the one estimate here
that depends on how battles were shown, and so on which model stands in column model_a: swapping all rows of a table
turns the sign of the effect and leaves the ratings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import linprog

from routing.battles import encode_battles, sum_outcomes
from routing.ratings.bradley_terry import (
    WEAKEST_PRIOR,
    BradleyTerryFit,
    estimate,
    explain_missing,
    find_estimable,
    half_width,
    name_some,
)
from routing.ratings.newton import PairSums, quadratic_form


@dataclass(frozen=True)
class PositionEffectFit(BradleyTerryFit):
    """Ratings, and what being shown first adds to them; probabilities that name no place leave it out."""

    position_effect: float  # log-odds added to the rating of the model shown first; above 0 the first is favoured
    position_variance: float  # sandwich variance of the effect

    def position_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the normal confidence interval of the effect, log-odds."""
        width = half_width(self.position_variance, level)
        return float(self.position_effect - width), float(self.position_effect + width)


def fit_position_effect(battles: pd.DataFrame, prior_strength: float = 0.0) -> PositionEffectFit:
    """Fit ratings together with the effect of being shown first by maximum likelihood, ties by Davidson's model.

    In `battles`, columns of `routing.battles`, model_a was shown first; tables in canonical order have lost this.
    `prior_strength` is as in `fit_bradley_terry`; the effect has the same prior as a rating.

    Raises
    ------
    ValueError
        As `encode_battles`, and where no finite estimate exists without a prior: as `fit_bradley_terry`; or the order
        of display is settled by the models, so that their ratings and the effect cannot be separated; or battles too
        one-sided for finite ratings and effect. The message names models.
    RuntimeError
        As `fit_bradley_terry`.
    """
    if not 0 <= prior_strength < np.inf:
        raise ValueError(f"prior_strength is {prior_strength}; it is a precision, finite and 0 or more")
    models, model_a, model_b, outcome = encode_battles(battles)
    n_models = len(models)
    cells = np.bincount((model_a * n_models + model_b) * 3 + outcome, minlength=3 * n_models**2).reshape(-1, 3)
    met = np.flatnonzero(cells.any(axis=1))
    pairs = PairSums(*np.divmod(met, n_models), cells[met].T[:, None].astype(float), np.ones(len(met)))
    has_tie = bool(prior_strength > 0 or (outcome == 1).any())
    if prior_strength <= WEAKEST_PRIOR * len(battles):
        if not find_estimable(pairs, n_models, has_tie)[0]:
            raise ValueError(explain_missing(sum_outcomes(models, model_a, model_b, outcome), "davidson"))
        _check_finite(pairs, models, has_tie)
    result, covariance, log_likelihood = estimate(pairs, models, "davidson" if has_tie else "half", prior_strength)
    return PositionEffectFit(
        ratings=pd.Series(result.ratings[0], index=pd.Index(models, name="model"), name="rating"),
        covariance=covariance[:-1, :-1],
        ties="davidson",
        tie_parameter=float(np.exp(result.tie_parameter[0])) if has_tie else 0.0,
        log_likelihood=log_likelihood,
        n_battles=float(len(battles)),
        n_iterations=result.n_iterations,
        converged=True,
        position_effect=float(result.position_effect[0]),
        position_variance=float(covariance[-1, -1]),
    )


def _check_finite(pairs: PairSums, models: tuple[str, ...], has_tie: bool) -> None:
    """Raise ValueError unless ratings and effect can be separated and are finite, by the condition of `find_estimable`.

    With the effect it is no question of graphs but a linear programme: look for the direction (d, g, s) of ratings,
    effect and 2 log nu that takes most from no observed outcome, where ``d_i - d_j + g`` stands for ``d_i - d_j``.
    """
    prior, n_models, ones = "give a prior (prior_strength=0.1, say)", len(models), np.ones((1, len(pairs.first)))
    if np.linalg.matrix_rank(quadratic_form(pairs, n_models, ones)[0], hermitian=True) < n_models:
        raise ValueError(
            "the effect of standing first cannot be told from the ratings: which of two models stands first is settled"
            f" by the models ({name_some(models)}); show at least one pair both ways round, or {prior}"
        )
    won, tied, lost = pairs.outcomes[:, 0] > 0
    if not (won.any() and lost.any()):
        word = "always" if won.any() else "never"
        raise ValueError(f"the first answer {word} won, so that no finite effect fits; {prior}")
    identity = np.eye(n_models)
    delta = np.column_stack([identity[pairs.first] - identity[pairs.second], np.ones(len(won)), np.zeros(len(won))])
    tie = np.append(np.zeros(n_models + 1), 1.0)
    wins = np.concatenate([delta[won], -delta[lost]])
    gains = np.concatenate([wins, delta[tied] + tie, tie - delta[tied], *([wins - tie] if has_tie else [])])
    limits = np.repeat([1.0, 0.0], len(gains))
    found = linprog(-gains.sum(axis=0), np.concatenate([gains, -gains]), limits, bounds=(None, None)).x
    if (gains @ found).sum() > 0.5:  # 0, or by the scale of the limits at least 1
        gained = found[:n_models]
        rising, falling = (name_some(np.array(models)[gained == end]) for end in (gained.max(), gained.min()))
        raise ValueError(
            f"battles this one-sided have no finite ratings and effect of highest likelihood: {rising} can rise"
            f" above {falling} together with the effect for ever; leave models out, or {prior}"
        )
