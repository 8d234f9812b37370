"""Evaluate probabilities: log-loss on held-out battles, and predicted against observed frequencies."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri

from routing.evaluation.call_curve import check_columns, refuse_rows
from routing.evaluation.resampling import check_level, wilson_interval


class LogLoss(NamedTuple):
    """Mean negative log-likelihood of held-out outcomes, in nats, with its standard error over battles."""

    mean: float
    standard_error: float


def outcome_log_loss(probability: np.ndarray, outcome: np.ndarray) -> LogLoss:
    """Return the log-loss of P(model_a wins), P(tie), P(model_b wins), (n_battles, 3), on the outcomes, (n_battles,).

    Outcomes are 0 model_a won, 1 tie, 2 model_b won, as `encode_battles` gives them. ValueError: wrong shapes, fewer
    than 2 battles, or a row (it is named) with no probabilities, an unknown outcome, or one that had probability 0.
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
    """Return predicted and observed frequencies in bins of equal width over [0, 1]: a reliability plot's points.

    `probability` of an event and whether it `happened`, bool, have shape (n,). One row per bin that is not empty:
    bin_low, bin_high (a bin holds its lower edge, the last one also 1), n, predicted (mean probability), observed
    (share that happened), observed_low, observed_high (Wilson interval of `level`).
    """
    (probability,) = check_columns(probability=probability)
    happened = np.asarray(happened)
    if happened.shape != probability.shape or happened.dtype != bool:
        expected = f"one boolean for each of {len(probability)} probabilities"
        raise ValueError(f"happened is {happened.dtype} of shape {happened.shape}, expected {expected}")
    refuse_rows((probability < 0) | (probability > 1), "probability", probability, "lies outside [0, 1]")
    if n_bins < 1:
        raise ValueError(f"n_bins is {n_bins}; use at least 1")
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
    """Compare the log-losses of several predictions of the same battles with that of `reference`, one of them.

    One row per prediction: name, log_loss, standard_error, gain (nats per battle that it is better than the
    reference), low, high (normal interval of the gain, paired over battles), n. Arrays as `outcome_log_loss`.
    """
    check_level(level)
    if reference not in probabilities:
        raise ValueError(f"reference {reference!r} is none of {', '.join(probabilities)}")
    outcome = np.asarray(outcome)
    rows = np.arange(len(outcome))
    z = ndtri((1 + level) / 2)
    base = np.log(np.asarray(probabilities[reference], dtype=float)[rows, outcome])
    table = []
    for name, probability in probabilities.items():
        loss = outcome_log_loss(probability, outcome)
        gains = np.sort(np.log(np.asarray(probability, dtype=float)[rows, outcome]) - base)
        gain, error = gains.mean(), gains.std(ddof=1) / math.sqrt(len(gains))
        table.append((name, loss.mean, loss.standard_error, gain, gain - z * error, gain + z * error, len(gains)))
    return pd.DataFrame(table, columns=["name", "log_loss", "standard_error", "gain", "low", "high", "n"])
