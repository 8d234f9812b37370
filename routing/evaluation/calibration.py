"""Evaluate probabilities: log-loss on held-out battles, and predicted against observed frequencies."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from routing.evaluation.call_curve import check_columns, refuse_rows
from routing.evaluation.resampling import check_level, wilson_interval


class LogLoss(NamedTuple):
    """Mean negative log-likelihood of held-out outcomes, in nats, with its standard error over battles."""

    mean: float
    standard_error: float


def outcome_log_loss(probability: np.ndarray, outcome: np.ndarray) -> LogLoss:
    """Return the log-loss of (model_a wins, tie, model_b wins) probabilities on the outcomes that happened.

    Parameters
    ----------
    probability : float array, shape (n_battles, 3)
        P(model_a wins), P(tie), P(model_b wins), each row summing to 1.
    outcome : int array, shape (n_battles,)
        0 model_a won, 1 tie, 2 model_b won, as `encode_battles` gives them.

    Raises
    ------
    ValueError
        Wrong shapes, fewer than 2 battles, rows that are no probabilities, an unknown outcome, or one that had
        probability 0, which makes the loss infinite; the message names the row.
    """
    probability, outcome = np.asarray(probability, dtype=float), np.asarray(outcome)
    n_battles = len(outcome)
    if outcome.ndim != 1 or probability.shape != (n_battles, 3) or n_battles < 2:
        raise ValueError(
            f"probability has shape {probability.shape} and outcome {outcome.shape},"
            " expected (n_battles, 3) and (n_battles,) with at least 2 battles"
        )
    sound = (probability >= 0).all(axis=1) & np.isclose(probability.sum(axis=1), 1, rtol=0, atol=1e-5)
    refuse_rows(~sound, "probability", probability, "are not three numbers of at least 0 that sum to 1")
    refuse_rows(~np.isin(outcome, (0, 1, 2)), "outcome", outcome, "is none of 0, 1, 2")
    happened = probability[np.arange(n_battles), outcome.astype(np.int64)]
    refuse_rows(happened == 0, "probability", probability, "give 0 to what happened: the log-loss is infinite")
    losses = np.sort(-np.log(happened))  # sorted: sums do not depend on the order of rows
    return LogLoss(float(losses.mean()), float(losses.std(ddof=1) / math.sqrt(n_battles)))


def calibration_table(
    probability: np.ndarray, happened: np.ndarray, n_bins: int = 10, level: float = 0.95
) -> pd.DataFrame:
    """Return predicted and observed frequencies in bins of equal width: the points of a reliability plot.

    Parameters
    ----------
    probability : float array, shape (n,)
        Predicted probability of an event, in [0, 1]; for example ``outcome_probability(...)[:, 0]``.
    happened : bool array, shape (n,)
        Whether the event happened; for example ``outcome == 0``.
    n_bins : int
        Number of bins over [0, 1]; those that hold nothing are left out.

    Returns
    -------
    DataFrame
        One row per bin: bin_low, bin_high (the bin holds its lower edge, the last one also 1), n, predicted (mean
        probability), observed (share that happened), observed_low, observed_high (Wilson interval of `level`).

    Raises
    ------
    ValueError
        Probabilities outside [0, 1], fewer than 1 bin, or `happened` not one boolean per probability.
    """
    (probability,) = check_columns(probability=probability)
    happened = np.asarray(happened)
    if happened.shape != probability.shape or happened.dtype != bool:
        raise ValueError(
            f"happened is {happened.dtype} of shape {happened.shape}, expected one boolean for each of"
            f" {len(probability)} probabilities"
        )
    refuse_rows((probability < 0) | (probability > 1), "probability", probability, "lies outside [0, 1]")
    if n_bins < 1:
        raise ValueError(f"n_bins is {n_bins}; it has to be at least 1")
    order = np.argsort(probability)
    probability, happened = probability[order], happened[order]
    edges = np.arange(n_bins + 1) / n_bins
    starts = np.append(np.searchsorted(probability, edges[:-1]), len(probability))
    table = []
    for low, high, start, stop in zip(edges[:-1], edges[1:], starts[:-1], starts[1:], strict=True):
        if stop > start:
            n_happened, n_rows = int(happened[start:stop].sum()), int(stop - start)
            interval = wilson_interval(n_happened, n_rows, level)
            table.append((low, high, n_rows, probability[start:stop].mean(), n_happened / n_rows, *interval))
    names = ["bin_low", "bin_high", "n", "predicted", "observed", "observed_low", "observed_high"]
    return pd.DataFrame(table, columns=names)


def compare_log_loss(
    probabilities: dict[str, np.ndarray], outcome: np.ndarray, reference: str, level: float = 0.95
) -> pd.DataFrame:
    """Compare the log-loss of several predictions of the same battles with that of one of them.

    Parameters
    ----------
    probabilities : dict of float arrays, shape (n_battles, 3)
        As `outcome_log_loss`.
    outcome : int array, shape (n_battles,)
    reference : str
        The one that the others are compared with.

    Returns
    -------
    DataFrame
        One row per prediction: name, log_loss, standard_error, gain (nats per battle that it is better than the
        reference), low, high (normal interval of the gain, paired over battles), n.

    Raises
    ------
    ValueError
        As `outcome_log_loss`, or an unknown reference.
    """
    check_level(level)
    if reference not in probabilities:
        raise ValueError(f"reference {reference!r} is none of {', '.join(probabilities)}")
    outcome = np.asarray(outcome)
    rows = np.arange(len(outcome))
    z = norm.ppf((1 + level) / 2)
    base = np.log(np.asarray(probabilities[reference], dtype=float)[rows, outcome])
    table = []
    for name, probability in probabilities.items():
        loss = outcome_log_loss(probability, outcome)
        gains = np.sort(np.log(np.asarray(probability, dtype=float)[rows, outcome]) - base)
        gain, error = gains.mean(), gains.std(ddof=1) / math.sqrt(len(gains))
        table.append((name, loss.mean, loss.standard_error, gain, gain - z * error, gain + z * error, len(gains)))
    return pd.DataFrame(table, columns=["name", "log_loss", "standard_error", "gain", "low", "high", "n"])
