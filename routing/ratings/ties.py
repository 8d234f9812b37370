"""How a rating difference becomes a win, a tie or a loss: the four treatments of ties.

With ``delta = rating_a - rating_b``, ``sigma`` the logistic function and one tie parameter ``tie``:

============  ==========================================================================================
half          a tie is half a win for each; the tie parameter (the share of ties) is estimated apart
drop          ties are left out; otherwise as half
davidson      P(a), P(tie), P(b) proportional to exp(delta/2), nu, exp(-delta/2); tie = log nu  [Davidson70]
rao_kupper    P(a) = sigma(delta - tie), P(b) = sigma(-delta - tie), the rest is a tie; tie > 0  [RaoKupper67]
============  ==========================================================================================

Every likelihood is concave in (ratings, tie), so Newton's method finds its one maximum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, log_expit

TIE_MODELS = ("half", "davidson", "rao_kupper", "drop")


class OutcomeTerms(NamedTuple):
    """Log-probabilities of (a wins, tie, b wins) and their derivatives; the first axis is the outcome.

    All have shape (3, ..., n_pairs) or broadcast to it. Curvatures are the negative second derivatives.
    """

    log_probability: np.ndarray
    slope: np.ndarray  # by delta
    curvature: np.ndarray  # by delta twice
    tie_slope: np.ndarray  # by the tie parameter
    tie_curvature: np.ndarray  # by the tie parameter twice
    cross_curvature: np.ndarray  # by both


def half_win_terms(delta: np.ndarray) -> OutcomeTerms:
    """Terms of the win probability ``sigma(delta)`` when a tie is half a win for each model."""
    smaller = np.exp(-np.abs(delta))  # one exponential serves all three; it cannot overflow
    p = np.where(delta >= 0, 1.0, smaller) / (1 + smaller)
    log_larger = -np.log1p(smaller)
    log_win, log_loss = log_larger + np.minimum(delta, 0), log_larger - np.maximum(delta, 0)
    none = np.zeros((1,) * (delta.ndim + 1))
    return OutcomeTerms(
        np.stack([log_win, (log_win + log_loss) / 2, log_loss]),
        np.stack([1 - p, 0.5 - p, -p]),
        (p * (1 - p))[None],
        none,
        none,
        none,
    )


def davidson_terms(delta: np.ndarray, tie: np.ndarray) -> OutcomeTerms:
    """Terms of Davidson's model, a multinomial logit with values (delta/2, log nu, -delta/2)."""
    logits = np.stack([delta / 2, np.broadcast_to(tie, delta.shape), -delta / 2])
    logits = logits - logits.max(axis=0)
    log_p = logits - np.log(np.exp(logits).sum(axis=0))
    p_win, p_tie, p_loss = np.exp(log_p)
    lead = (p_win - p_loss) / 2
    return OutcomeTerms(
        log_p,
        np.stack([0.5 - lead, -lead, -0.5 - lead]),
        ((p_win + p_loss) / 4 - lead**2)[None],
        np.stack([-p_tie, 1 - p_tie, -p_tie]),
        (p_tie * (1 - p_tie))[None],
        (-p_tie * lead)[None],
    )


def rao_kupper_terms(delta: np.ndarray, tie: np.ndarray) -> OutcomeTerms:
    """Terms of the Rao-Kupper model, an ordered logit with thresholds at plus and minus `tie`.

    P(tie) = sigma(u) sigma(v) (1 - exp(-2 tie)) with u = tie + delta, v = tie - delta.
    """
    u, v = tie + delta, tie - delta
    at_u, at_v = expit(u), expit(v)
    bend_u, bend_v = at_u * (1 - at_u), at_v * (1 - at_v)
    none = np.zeros_like(delta)
    widen = 2 / np.expm1(2 * tie) + none
    narrow = 1 / np.sinh(tie) ** 2 + none
    return OutcomeTerms(
        np.stack([log_expit(-v), log_expit(u) + log_expit(v) + np.log(-np.expm1(-2 * tie)), log_expit(-u)]),
        np.stack([at_v, at_v - at_u, -at_u]),
        np.stack([bend_v, bend_u + bend_v, bend_u]),
        np.stack([-at_v, 2 - at_u - at_v + widen, -at_u]),
        np.stack([bend_v, bend_u + bend_v + narrow, bend_u]),
        np.stack([-bend_v, bend_u - bend_v, bend_u]),
    )


def outcome_probability(delta: np.ndarray, ties: str, tie: float) -> np.ndarray:
    """P(a wins), P(tie), P(b wins) at rating differences `delta`.

    Parameters
    ----------
    delta : float array, any shape
        Rating of a less rating of b, log-odds.
    ties : one of `TIE_MODELS`
    tie : float
        nu of Davidson's model, log-threshold of the Rao-Kupper model, share of ties for "half" and "drop".

    Returns
    -------
    float array, shape ``delta.shape + (3,)``; naming the pair the other way round reverses the last axis.
    """
    delta = np.asarray(delta, dtype=float)
    if ties == "davidson":
        win, draw, loss = (
            np.exp(delta / 2 - abs(delta) / 2),
            tie * np.exp(-abs(delta) / 2),
            np.exp(-delta / 2 - abs(delta) / 2),
        )
        total = (win + loss) + draw
        return np.stack([win / total, draw / total, loss / total], axis=-1)
    if ties == "rao_kupper":
        win, loss = expit(delta - tie), expit(-delta - tie)
        return np.stack([win, expit(tie + delta) * expit(tie - delta) * -np.expm1(-2 * tie), loss], axis=-1)
    decided = 1 - tie
    return np.stack([decided * expit(delta), np.full(delta.shape, tie), decided * expit(-delta)], axis=-1)
