"""How a rating difference becomes a win, a tie or a loss: the four treatments of ties.

With ``delta = rating_a - rating_b``, ``sigma`` the logistic function and one tie parameter each:

============  ==========================================================================================
half          a tie is half a win for each, so that P(a) + P(tie) / 2 = sigma(delta). Where the ties fall is
              not part of the likelihood of the ratings; afterwards they get Davidson's form, P(tie)^2
              proportional to P(a) P(b). tie_parameter: P(tie) between equal models
drop          ties are left out: P(a given no tie) = sigma(delta). tie_parameter: the share of ties
davidson      P(a), P(tie), P(b) proportional to exp(delta/2), nu, exp(-delta/2); tie_parameter: nu [Davidson70]
rao_kupper    P(a) = sigma(delta - tau), P(b) = sigma(-delta - tau), the rest is a tie; tie_parameter: the
              threshold tau, above 0 [RaoKupper67]
============  ==========================================================================================

Every likelihood is concave in the ratings and log nu, or the ratings and tau, so a local maximum is the maximum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, log_expit, xlogy

TIE_MODELS = ("half", "davidson", "rao_kupper", "drop")


class OutcomeTerms(NamedTuple):
    """Log-probabilities of (a wins, tie, b wins) and their derivatives; the first axis is the outcome.

    All have shape (3, ..., n_pairs) or broadcast to it. Curvatures are the negative second derivatives. Differences
    from 1 are computed as the probability of the complement, so that rare outcomes keep their relative precision.
    """

    log_probability: np.ndarray
    slope: np.ndarray  # by delta
    curvature: np.ndarray  # by delta twice
    tie_slope: np.ndarray  # by log nu or tau
    tie_curvature: np.ndarray  # by log nu or tau twice
    cross_curvature: np.ndarray  # by both


def half_win_terms(delta: np.ndarray) -> OutcomeTerms:
    """Return the terms of P(a) = sigma(delta), where a tie is half a win for each model."""
    smaller = np.exp(-np.abs(delta))  # one exponential serves all; it cannot overflow
    large = 1 / (1 + smaller)
    small, ahead, log_larger = smaller * large, delta >= 0, -np.log1p(smaller)
    p, q = np.where(ahead, large, small), np.where(ahead, small, large)
    log_win, log_loss = log_larger + np.minimum(delta, 0), log_larger - np.maximum(delta, 0)
    log_p = np.array([log_win, (log_win + log_loss) / 2, log_loss])
    none = np.zeros((1,) * log_p.ndim)
    return OutcomeTerms(log_p, np.array([q, (q - p) / 2, -p]), (large * small)[None], none, none, none)


def davidson_terms(delta: np.ndarray, log_nu: np.ndarray) -> OutcomeTerms:
    """Return the terms of Davidson's model, a multinomial logit with values (delta/2, log nu, -delta/2)."""
    logits = np.array([delta / 2, np.broadcast_to(log_nu, delta.shape), -delta / 2])
    logits -= logits.max(axis=0)
    odds = np.exp(logits)
    total = odds.sum(axis=0)
    p_win, p_tie, p_loss = odds / total
    decided, margin = p_win + p_loss, (p_win - p_loss) / 2
    return OutcomeTerms(
        logits - np.log(total),
        np.array([p_loss + p_tie / 2, -margin, -(p_win + p_tie / 2)]),
        (p_win * p_loss + p_tie * decided / 4)[None],
        np.array([-p_tie, decided, -p_tie]),
        (p_tie * decided)[None],
        (-p_tie * margin)[None],
    )


def rao_kupper_terms(delta: np.ndarray, threshold: np.ndarray) -> OutcomeTerms:
    """Return the terms of the Rao-Kupper model, an ordered logit with thresholds at plus and minus `threshold`.

    P(tie) = sigma(u) sigma(v) (1 - exp(-2 threshold)) with u = threshold + delta, v = threshold - delta.
    """
    u, v = threshold + delta, threshold - delta
    at_u, at_v, past_u, past_v = expit(u), expit(v), expit(-u), expit(-v)
    bend_u, bend_v = at_u * past_u, at_v * past_v
    none = np.zeros_like(delta)
    widen = 2 / np.expm1(2 * threshold) + none
    narrow = 1 / np.sinh(threshold) ** 2 + none
    return OutcomeTerms(
        np.stack([log_expit(-v), log_expit(u) + log_expit(v) + np.log(-np.expm1(-2 * threshold)), log_expit(-u)]),
        np.stack([at_v, past_u - past_v, -at_u]),
        np.stack([bend_v, bend_u + bend_v, bend_u]),
        np.stack([-at_v, past_u + past_v + widen, -at_u]),
        np.stack([bend_v, bend_u + bend_v + narrow, bend_u]),
        np.stack([-bend_v, bend_u - bend_v, bend_u]),
    )


def outcome_probability(delta: np.ndarray, ties: str, tie_parameter: float) -> np.ndarray:
    """Return P(a wins), P(tie), P(b wins), shape ``delta.shape + (3,)``; swapping the models reverses the last axis.

    `delta` is rating a minus rating b, log-odds, of any shape; `ties` one of `TIE_MODELS`, with its parameter as in the
    table at the top of `routing.ratings.ties`. ValueError for any other, and a parameter that is NaN, negative, or a
    share above 1.
    """
    if ties not in TIE_MODELS:
        raise ValueError(f"ties is {ties!r}; use one of {', '.join(TIE_MODELS)}")
    if not 0 <= tie_parameter <= (1 if ties in ("half", "drop") else np.inf):
        raise ValueError(
            f"the tie parameter of ties={ties!r} is {tie_parameter}; it is 0 or more, and a share at most 1"
        )
    delta = np.asarray(delta, dtype=float)
    p, q, share, half = expit(delta), expit(-delta), float(tie_parameter), np.abs(delta) / 2
    if ties == "davidson":
        win, draw, loss = np.exp(delta / 2 - half), tie_parameter * np.exp(-half), np.exp(-delta / 2 - half)
        total = (win + loss) + draw
        win, draw, loss = win / total, draw / total, loss / total
    elif ties == "rao_kupper":
        win, loss = expit(delta - tie_parameter), expit(-delta - tie_parameter)
        draw = expit(tie_parameter + delta) * expit(tie_parameter - delta) * -np.expm1(-2 * tie_parameter)
    elif ties == "drop":
        win, draw, loss = (1 - share) * p, np.full(delta.shape, share), (1 - share) * q
    else:  # P(tie)^2 = nu^2 P(a) P(b) with nu = 2 share / (1 - share), solved for P(tie) where P(a) + P(tie) / 2 = p
        root = np.sqrt((share * (p - q)) ** 2 + 4 * (1 - share) ** 2 * (p * q))
        draw = 4 * (p * q) * np.divide(share, share + root, out=np.zeros_like(p), where=share > 0)
        win, loss = np.maximum(p - draw / 2, 0), np.maximum(q - draw / 2, 0)
    return np.stack([win, draw, loss], axis=-1)


def expected_score(delta: np.ndarray, ties: str, tie_parameter: float) -> np.ndarray:
    """Return P(a wins) + P(tie) / 2 at rating differences `delta`, same shape; arguments as `outcome_probability`."""
    outcomes = outcome_probability(delta, ties, tie_parameter)
    return outcomes[..., 0] + outcomes[..., 1] / 2


def fit_tie_share(delta: np.ndarray, outcomes: np.ndarray, ties: str) -> tuple[float, float]:
    """Return the likeliest tie parameter of "half" or (any other name) "drop", and the log-likelihood in nats.

    `delta` has shape (n_pairs,), `outcomes` (3, n_pairs): battles the first of a pair won, ties, battles lost.
    """
    tied, decided = outcomes[1].sum(), outcomes[[0, 2]].sum()
    share = float(tied / (tied + decided))  # at most 1, however the sums are rounded
    if ties == "half" and 0 < share < 1:
        better, worse = expit(np.abs(delta)), expit(-np.abs(delta))
        upsets = np.where(delta > 0, outcomes[2], outcomes[0])
        gap, both, usual = better - worse, better * worse, outcomes[0] + outcomes[2] - upsets
        parts = outcomes[1] * both / 4, usual * both * worse / 2, upsets * better / 8

        def slope(share: float) -> float:
            """Return the derivative of the log-likelihood by the share, times share * (1 - share) / 16."""
            lead, rest = share * gap, (1 - share) ** 2
            root = np.sqrt(lead**2 + 4 * rest * both)
            each = rest * (parts[0] - share * parts[1] / (root + lead)) - share * parts[2] * (root + lead)
            return float((each / (root * (share + root))).sum())

        share = 1.0 if slope(1 - 1e-9) > 0 else brentq(slope, 1e-9 * share, 1 - 1e-9, xtol=1e-10 * share)
    p = outcome_probability(delta, "half" if ties == "half" else "drop", share)
    return share, float(xlogy(outcomes, p.T).sum())
