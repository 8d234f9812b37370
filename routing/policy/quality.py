"""From preference to quality: ratings as something that can be weighed against a price.

A rating says who is better, in log-odds of no unit of its own. Two ways to a quality:

- the expected win share against a reference model or against the pool, which needs nothing but the ratings;
- a benchmark's score, by an increasing map learned on prompts whose scores are known (`QualityMap`).

A model that joins after training is rated by its battles against the models that are rated already (`rate_new_model`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from routing.ratings.ties import expected_score

POOL = "pool"
BLOCK_CELLS = 1 << 22  # pairs of models over prompts held at once


def _finite(ratings: pd.DataFrame) -> np.ndarray:
    values = ratings.to_numpy(dtype=float)
    at_fault = ~np.isfinite(values)
    if at_fault.any():
        row, column = np.argwhere(at_fault)[0]
        raise ValueError(f"ratings, row {row}, model {ratings.columns[column]}: {values[row, column]} is not finite")
    return values


def win_share(ratings: pd.DataFrame, nu: float = 0.0, reference: str = POOL) -> pd.DataFrame:
    """The share of battles each model is expected to win, a tie counting half: DataFrame, (n_prompts, n_models).

    Parameters
    ----------
    ratings : DataFrame, shape (n_prompts, n_models)
        Log-odds, a column a model.
    nu : float
        nu of Davidson's model [Davidson70], as `Router.nu`.
    reference : str
        The opponent, which has 0.5 against itself; or "pool": the mean over all other models.

    Raises
    ------
    ValueError
        A rating that is not finite, an unknown reference, or a pool of one.
    """
    values = _finite(ratings)
    n_models = values.shape[1]
    if reference != POOL:
        if reference not in ratings.columns:
            raise ValueError(f"no reference {reference!r}; use pool or one of {', '.join(ratings.columns)}")
        margin = values - values[:, [ratings.columns.get_loc(reference)]]
        return pd.DataFrame(expected_score(margin, "davidson", nu), ratings.index, ratings.columns)
    if n_models < 2:
        raise ValueError("a pool needs at least two models")
    share = np.empty_like(values)
    size = max(1, BLOCK_CELLS // n_models**2)
    for begin in range(0, len(values), size):
        block = values[begin : begin + size]
        against = expected_score(block[:, :, None] - block[:, None, :], "davidson", nu)  # (B, M, M), 0.5 against itself
        # Sorted, so that the order of the models cannot change a sum.
        share[begin : begin + size] = (np.sort(against, axis=2).sum(axis=2) - 0.5) / (n_models - 1)
    return pd.DataFrame(share, ratings.index, ratings.columns)


@dataclass
class QualityMap:
    """An increasing map from ratings to a benchmark's score in [0, 1], one for all models.

    So it never reorders the models of a prompt: it says what a margin is worth. Fit it on prompts that neither the
    router learned from nor the policy is judged on.

    Parameters
    ----------
    kind : {"logistic", "isotonic"}
        Two numbers (for few prompts), or any steps that increase (for many).
    """

    kind: Literal["logistic", "isotonic"] = "logistic"

    def __post_init__(self) -> None:
        if self.kind not in ("logistic", "isotonic"):
            raise ValueError(f"unknown kind {self.kind!r}; use logistic or isotonic")

    def fit(self, ratings: pd.DataFrame, quality: pd.DataFrame) -> QualityMap:
        """Learn from ratings and scores of the same prompts and models, DataFrames of shape (n_prompts, n_models).

        Raises
        ------
        ValueError
            A model without a score, tables of other length, ratings that are not finite, scores outside [0, 1], or,
            for the logistic map, better scores at lower ratings.
        """
        from sklearn.isotonic import IsotonicRegression  # here, because loading it takes a second of `route`'s start
        from sklearn.linear_model import LogisticRegression

        unscored = [model for model in ratings.columns if model not in quality.columns]
        if unscored or len(ratings) != len(quality):
            missing = f"no score of {', '.join(unscored)}" if unscored else f"{len(quality)} rows of scores"
            raise ValueError(f"{missing} for ratings of {ratings.shape[1]} models on {len(ratings)} prompts")
        rating, score = _finite(ratings).ravel(), quality[list(ratings.columns)].to_numpy(dtype=float).ravel()
        outside = ~((score >= 0) & (score <= 1))
        if outside.any():
            row, column = divmod(int(np.argmax(outside)), ratings.shape[1])
            raise ValueError(
                f"score of {ratings.columns[column]}, row {row}: {score[row * ratings.shape[1] + column]} is outside"
                " [0, 1]; scale it first"
            )
        order = np.lexsort((score, rating))  # so that the order of models and prompts changes nothing
        rating, score = rating[order], score[order]
        if self.kind == "isotonic":
            self._map = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(rating, score).predict
            return self
        # A score of 0.7 is 0.7 of a right answer and 0.3 of a wrong one.
        model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
        rows, labels = np.tile(rating, 2)[:, None], np.repeat([1, 0], len(rating))
        model.fit(rows, labels, sample_weight=np.concatenate([score, 1 - score]))
        if not model.coef_[0, 0] > 0:
            raise ValueError("scores do not rise with the ratings, so no increasing map can be learned from them")
        self._map = lambda values: model.predict_proba(values[:, None])[:, 1]
        return self

    def predict(self, ratings: pd.DataFrame) -> pd.DataFrame:
        """Expected score of each model on each prompt, as `ratings`: (n_prompts, n_models)."""
        if not hasattr(self, "_map"):
            raise RuntimeError("this QualityMap has not been fitted; call fit")
        values = _finite(ratings)
        return pd.DataFrame(self._map(values.ravel()).reshape(values.shape), ratings.index, ratings.columns)


def rate_new_model(
    opponent_ratings: np.ndarray,
    outcome: np.ndarray,
    nu: float,
    prior_rating: float = 0.0,
    prior_strength: float = 1.0,
) -> float:
    """The rating of a model that was not trained on, from its battles against models that are rated; log-odds.

    It maximizes the likelihood of Davidson's model [Davidson70], the opponents' ratings on each battle's prompt kept,
    with a normal prior. So without battles it is the prior (a rating from elsewhere, such as a public leaderboard,
    less the mean of the pool there), and with many it is what they say.

    Parameters
    ----------
    opponent_ratings : float array, shape (n_battles,)
        Rating of the opponent on the battle's prompt.
    outcome : int array, shape (n_battles,)
        0 the new model won, 1 tie, 2 the opponent won.
    prior_strength : float
        Precision of the prior, above 0; 1 is worth about four battles against an equal.

    Raises
    ------
    ValueError
        Arrays of other length, an unknown outcome, a rating that is not finite, or a strength that is not above 0.
    """
    opponents, outcome = np.asarray(opponent_ratings, dtype=float), np.asarray(outcome)
    if opponents.ndim != 1 or opponents.shape != outcome.shape:
        raise ValueError(
            f"opponent_ratings have shape {opponents.shape} and outcome {outcome.shape}; give one a battle"
        )
    if not np.isin(outcome, (0, 1, 2)).all():
        raise ValueError("outcome holds something besides 0, 1 and 2")
    if not (np.isfinite(opponents).all() and math.isfinite(prior_rating)):
        raise ValueError("a rating is not finite")
    if not (prior_strength > 0 and math.isfinite(prior_strength)):
        raise ValueError(f"prior_strength is {prior_strength}; it is a precision, above 0")

    def slope(rating: float) -> float:
        # d log P / d rating of Davidson's model is the share won minus the share expected.
        expected = expected_score(rating - opponents, "davidson", nu)
        return math.fsum(1 - outcome / 2 - expected) - prior_strength * (rating - prior_rating)

    # Beyond, the prior outweighs all battles: from the last opponent on, their slope falls as exp(-distance / 2).
    slack = 2 * (math.log((1 + nu / 2) * (len(opponents) + 1)) - math.log(prior_strength))
    reach = np.abs(opponents - prior_rating).max(initial=0.0) + max(slack, 0.0) + 1.0
    return float(brentq(slope, prior_rating - reach, prior_rating + reach, xtol=1e-12))
