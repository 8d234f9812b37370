from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from routing.evaluation.calibration import calibration_table, compare_log_loss, outcome_log_loss


def test_log_loss_of_known_probabilities():
    table = np.array([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1]])
    loss = outcome_log_loss(table, np.array([0, 2, 1]))
    losses = -np.log([0.5, 0.5, 0.8])
    assert loss.mean == pytest.approx(losses.mean())
    assert loss.standard_error == pytest.approx(losses.std(ddof=1) / math.sqrt(3))
    assert outcome_log_loss(np.full((7, 3), 1 / 3), np.arange(7) % 3).mean == pytest.approx(math.log(3))


def test_log_loss_mirrors_with_the_models_and_ignores_the_order_of_rows():
    rng = np.random.default_rng(0)
    table, outcome = rng.dirichlet(np.ones(3), size=1000), rng.integers(3, size=1000)
    assert outcome_log_loss(table[:, ::-1], 2 - outcome) == outcome_log_loss(table, outcome)
    for _ in range(20):
        shuffled = rng.permutation(1000)
        assert outcome_log_loss(table[shuffled], outcome[shuffled]) == outcome_log_loss(table, outcome)


def test_calibration_table_by_hand():
    probability = np.array([0.05, 0.0, 0.5, 0.55, 0.6, 1.0])
    happened = np.array([True, False, True, False, True, True])
    table = calibration_table(probability, happened, n_bins=5)
    assert table["bin_low"].tolist() == [0.0, 0.4, 0.6, 0.8]
    assert table["bin_high"].tolist() == [0.2, 0.6, 0.8, 1.0]
    assert table["n"].tolist() == [2, 2, 1, 1]
    np.testing.assert_allclose(table["predicted"], [0.025, 0.525, 0.6, 1.0])
    assert table["observed"].tolist() == [0.5, 0.5, 1.0, 1.0]
    z = norm.ppf(0.975)  # Wilson: centre (k + z²/2) / (n + z²)
    np.testing.assert_allclose(
        table["observed_high"] + table["observed_low"], [1, 1, *[2 * (1 + z**2 / 2) / (1 + z**2)] * 2]
    )


def test_calibration_of_true_probabilities_and_of_rows_in_another_order():
    rng = np.random.default_rng(0)
    probability = rng.random(50_000)
    happened = rng.random(50_000) < probability
    table = calibration_table(probability, happened, n_bins=20, level=0.9999)
    assert table["n"].sum() == 50_000
    assert table["predicted"].between(table["observed_low"], table["observed_high"]).all()
    shuffled = rng.permutation(50_000)
    again = calibration_table(probability[shuffled], happened[shuffled], n_bins=20, level=0.9999)
    pd.testing.assert_frame_equal(table, again, check_exact=True)


@pytest.mark.parametrize(
    ("probability", "outcome", "message"),
    [
        ([[0.5, 0.5, 0], [0.5, 0.4, 0]], [0, 1], "probability, row 1: .* sum to 1"),
        ([[0.5, 0.5, 0], [1.5, -0.5, 0]], [0, 1], "probability, row 1"),
        ([[0.5, 0.5, 0], [math.nan, 0.5, 0.5]], [0, 1], "probability, row 1"),
        ([[0.5, 0.5, 0], [0.5, 0.5, 0]], [0, 2], "probability, row 1: .* log-loss is infinite"),
        ([[0.5, 0.5, 0], [0.5, 0.5, 0]], [0, 3], "outcome, row 1: 3 is none of 0, 1, 2"),
        ([[0.5, 0.5, 0]], [0], "at least 2 battles"),
        ([[0.5, 0.5], [0.5, 0.5]], [0, 1], r"shape \(2, 2\)"),
    ],
)
def test_log_loss_refuses(probability, outcome, message):
    with pytest.raises(ValueError, match=message):
        outcome_log_loss(np.array(probability), np.array(outcome))


def test_calibration_refuses():
    with pytest.raises(ValueError, match=r"probability, row 1: 1.2 lies outside \[0, 1\]"):
        calibration_table([0.1, 1.2], np.array([True, False]))
    with pytest.raises(ValueError, match="one boolean for each of 2 probabilities"):
        calibration_table([0.1, 0.2], np.array([1, 0]))
    with pytest.raises(ValueError, match="n_bins is 0"):
        calibration_table([0.1, 0.2], np.array([True, False]), n_bins=0)


def test_gains_are_paired_over_battles():
    rng = np.random.default_rng(0)
    truth, outcome = rng.dirichlet(np.ones(3), size=4000), np.empty(4000, dtype=int)
    for row, p in enumerate(truth):
        outcome[row] = rng.choice(3, p=p)
    constant = np.full((4000, 3), 1 / 3)
    table = compare_log_loss({"constant": constant, "truth": truth}, outcome, "constant").set_index("name")
    assert table.loc["constant", ["gain", "low", "high"]].tolist() == [0, 0, 0]
    assert table.loc["truth", "gain"] == pytest.approx(math.log(3) - table.loc["truth", "log_loss"])
    expected = (truth * np.log(3 * truth)).sum(axis=1).mean()  # the mean Kullback-Leibler divergence
    assert table.loc["truth", "low"] < expected < table.loc["truth", "high"]
    with pytest.raises(ValueError, match="reference 'ours' is none of constant, truth"):
        compare_log_loss({"constant": constant, "truth": truth}, outcome, "ours")
