"""From probabilities to a choice between two models: a threshold, and the threshold that keeps to a share of calls.

A prompt goes to the strong model if and only if P(strong wins | prompt) >= threshold [RouteLLM24]. Which model is
"strong" is named at each call and never remembered, and what a tie is worth has been settled in the probability
before it comes here.
"""

from __future__ import annotations

import math

import numpy as np


def _check_probability(p_strong: np.ndarray) -> np.ndarray:
    p_strong = np.asarray(p_strong, dtype=float)
    if p_strong.ndim != 1 or len(p_strong) == 0:
        raise ValueError(f"p_strong has shape {p_strong.shape}, expected (n_prompts,) with at least one prompt")
    at_fault = ~((p_strong >= 0) & (p_strong <= 1))  # NaN compares false, so it is at fault too
    if at_fault.any():
        row = int(np.argmax(at_fault))
        raise ValueError(f"p_strong, row {row}: {p_strong[row]} is not a probability; it has to lie in [0, 1]")
    return p_strong


def route_pair(p_strong: np.ndarray, threshold: float, strong: str, weak: str) -> np.ndarray:
    """The name of the model that each prompt goes to.

    Parameters
    ----------
    p_strong : float array, shape (n_prompts,)
        P(strong wins | prompt), in [0, 1].
    threshold : float
        A prompt goes to `strong` if ``p_strong >= threshold``. Any number but NaN: above 1 nothing goes there.
    strong, weak : str
        Names of the two models.

    Returns
    -------
    str array, shape (n_prompts,)

    Raises
    ------
    ValueError
        A probability that is NaN or outside [0, 1] (the message names the row), a threshold that is NaN, or one
        name for both models.
    """
    if math.isnan(threshold):
        raise ValueError("the threshold is NaN; take one from calibrate_threshold")
    if strong == weak:
        raise ValueError(f"strong and weak are both {strong!r}; routing needs two different models")
    return np.where(_check_probability(p_strong) >= threshold, strong, weak)


def calibrate_threshold(p_strong: np.ndarray, strong_share: float) -> float:
    """The threshold that sends as many of these prompts to the strong model as `strong_share` allows.

    Prompts of equal probability go the same way, so not every share can be reached. Of the shares that can, this
    gives the largest that is not above `strong_share`: a budget is never exceeded on the sample. The threshold is
    the lowest probability that still goes to the strong model. Where even the prompts of highest probability are
    too many (always at share 0) it lies just above the maximum; at share 1 it is the minimum.

    Differs from RouteLLM in: its threshold is the quantile 1 - `strong_share`, which goes over the budget wherever
    probabilities are equal there.

    Parameters
    ----------
    p_strong : float array, shape (n_prompts,)
        P(strong wins | prompt) on a sample of the prompts to come, in [0, 1].
    strong_share : float
        Largest share of prompts for the strong model, in [0, 1].

    Raises
    ------
    ValueError
        A probability that is NaN or outside [0, 1] (the message names the row), or such a share.
    """
    p_strong = _check_probability(p_strong)
    if not 0 <= strong_share <= 1:
        raise ValueError(f"strong_share is {strong_share}; a share lies in [0, 1]")
    values, counts = np.unique(p_strong, return_counts=True)
    shares = counts[::-1].cumsum()[::-1] / len(p_strong)  # shares[k]: sent to the strong model at threshold values[k]
    within = np.flatnonzero(shares <= strong_share)
    return float(values[within[0]]) if len(within) else float(np.nextafter(values[-1], np.inf))
