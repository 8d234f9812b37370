from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from routing.evaluation.call_curve import call_curve
from routing.evaluation.frontier import METRICS, Frontier, bootstrap_frontier, cost_quality_frontier, upper_hull
from routing.policy.budget import MultiModelPolicy

PRICES = pd.Series({"small": 1.0, "medium": 2.0, "large": 6.0})


def measure(frontier: Frontier) -> dict[str, float]:
    return {name: metric(frontier) for name, metric in METRICS.items()}


@pytest.fixture
def benchmark(rng) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Expected and true quality, and cost, of three models on 200 prompts; what is expected is half of the truth."""
    skill = pd.DataFrame(rng.normal([0.0, 0.4, 1.0], 1.0, (200, 3)), columns=list(PRICES.index))
    quality = (skill > 0.3).astype(float)
    cost = PRICES * pd.DataFrame(rng.lognormal(0, 0.3, (200, 3)), columns=skill.columns)
    return 0.5 * skill + 0.5 * rng.normal(size=skill.shape), quality, cost


# -- points of the frontier -------------------------------------------------------------------------------------------


def test_every_point_is_what_the_policy_pays_and_scores(benchmark):
    expected, quality, cost = benchmark
    frontier = cost_quality_frontier(expected, quality, cost, PRICES)
    slopes = MultiModelPolicy(PRICES).upgrades(expected).quality_per_usd
    assert len(frontier.cost_usd) == len(slopes) + 1  # no two upgrades buy the same
    for number in (0, 1, 37, len(slopes) - 1):
        trade_off = slopes[0] * 2 if number == 0 else (slopes[number - 1] + slopes[number]) / 2
        chosen = MultiModelPolicy(PRICES, trade_off).choose(expected)
        columns = quality.columns.get_indexer(chosen)
        assert frontier.quality[number] == pytest.approx(quality.to_numpy()[range(200), columns].mean())
        assert frontier.cost_usd[number] == pytest.approx(cost.to_numpy()[range(200), columns].mean())
    assert frontier.quality[-1] == pytest.approx(
        quality.to_numpy()[range(200), expected.to_numpy().argmax(axis=1)].mean()
    )


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.9]), st.integers(0, 1), st.integers(0, 1)), min_size=1))
def test_two_models_have_the_call_performance_curve_point_by_point(rows):
    p_strong, strong, weak = np.array(rows, dtype=float).T
    frontier = cost_quality_frontier(
        pd.DataFrame({"big": p_strong, "small": 0.0}),
        pd.DataFrame({"big": strong, "small": weak}),
        pd.Series({"big": 1.0, "small": 0.0}),
    )
    curve = call_curve(p_strong, strong, weak)
    np.testing.assert_allclose(frontier.cost_usd, curve.strong_share, rtol=0, atol=1e-14)
    np.testing.assert_allclose(frontier.quality, curve.quality, rtol=0, atol=1e-14)
    if curve.quality_strong > curve.quality_weak:
        assert frontier.apgr() == pytest.approx(curve.apgr())


def test_equal_upgrades_are_one_straight_line():
    constant = pd.DataFrame({"small": [0.2] * 4, "large": [0.8] * 4})
    quality = pd.DataFrame({"small": [0.0, 0, 1, 0], "large": [1.0, 1, 1, 0]})
    frontier = cost_quality_frontier(constant, quality, pd.Series({"small": 1.0, "large": 3.0}))
    np.testing.assert_allclose([frontier.cost_usd, frontier.quality], [[1, 3], [0.25, 0.75]])


def test_permuting_models_and_prompts_changes_nothing(benchmark, rng):
    expected, quality, cost = benchmark
    frontier = cost_quality_frontier(expected, quality, cost, PRICES)
    rows, names = rng.permutation(200), ["large", "small", "medium"]
    other = cost_quality_frontier(
        expected.iloc[rows][names], quality.iloc[rows], cost.iloc[rows][names[::-1]], PRICES[names]
    )
    np.testing.assert_allclose(other.cost_usd, frontier.cost_usd)
    np.testing.assert_allclose(other.quality, frontier.quality)
    assert other.models == frontier.models


# -- what is read off it ----------------------------------------------------------------------------------------------


def test_the_oracle_recovers_everything(benchmark):
    _, quality, cost = benchmark
    oracle = cost_quality_frontier(quality, quality, cost)
    metrics = measure(oracle)
    assert metrics["quality"] == pytest.approx(quality.max(axis=1).mean())
    assert metrics["cost_share"] < 0.5 and metrics["aiq_gain"] > 0
    np.testing.assert_allclose(oracle.hull[1], np.interp(oracle.hull[0], oracle.cost_usd, oracle.quality))


def test_knowing_nothing_of_the_prompt_is_the_zero_router(benchmark):
    _, quality, cost = benchmark
    mean_cost = cost.mean()
    constant = pd.DataFrame(np.tile(quality.mean(), (200, 1)), columns=quality.columns)
    metrics = measure(cost_quality_frontier(constant, quality, mean_cost))
    assert metrics["aiq_gain"] == pytest.approx(0) and metrics["quality"] == pytest.approx(quality.mean().max())
    assert metrics["cost_share"] == pytest.approx(1)


def test_the_metrics_by_hand():
    quality = pd.DataFrame({"small": [0.0, 1.0], "large": [1.0, 0.0], "huge": [1.0, 0.5]})
    expected = pd.DataFrame({"small": [0.1, 0.9], "large": [0.6, 0.1], "huge": [0.2, 0.2]})
    frontier = cost_quality_frontier(expected, quality, pd.Series({"small": 1.0, "large": 3.0, "huge": 5.0}))
    assert frontier.models[frontier.best] == "huge" and frontier.models[frontier.cheapest] == "small"
    np.testing.assert_allclose([frontier.cost_usd, frontier.quality], [[1, 2], [0.5, 1.0]])
    assert measure(frontier) == pytest.approx(
        {
            "quality": 1.0,
            "cost_share": 1.5 / 5,  # 0.75 lies half-way up
            "aiq": (0.75 + 3 * 1.0) / 4,
            "aiq_gain": (0.75 + 3 * 1.0) / 4 - 0.625,  # the zero router rises from 0.5 to 0.75
            "apgr": ((0.75 + 3 * 1.0) / 4 - 0.5) / 0.25,
        }
    )
    assert frontier.quality_at(1.5) == 0.75 and frontier.quality_at(9.0) == 1.0
    assert frontier.cost_reaching(0.5) == 1.0 and frontier.cost_reaching(1.01) == math.inf


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=30))
def test_the_hull_is_concave_rises_and_covers_every_point(points):
    cost, quality = np.array(points, dtype=float).T
    x, y = upper_hull(cost, quality)
    assert (np.diff(x) > 0).all() and (np.diff(y) > 0).all() and (np.diff(np.diff(y) / np.diff(x)) < 0).all()
    assert (np.interp(cost, x, y) >= quality - 1e-9).all()
    assert set(zip(x, y, strict=True)) <= set(zip(cost, quality, strict=True))


def test_the_hull_agrees_with_qhull(rng):
    points = rng.random((50, 2))
    x, y = upper_hull(*points.T)
    corners = {tuple(points[vertex]) for vertex in ConvexHull(points).vertices}
    assert set(zip(x, y, strict=True)) <= corners and len(x) > 2


# -- intervals, subsets of the models ---------------------------------------------------------------------------------


def test_intervals_hold_the_truth_of_new_prompts(rng):
    def draw(n_prompts: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        skill = pd.DataFrame(rng.normal([0.0, 0.4, 1.0], 1.0, (n_prompts, 3)), columns=list(PRICES.index))
        return skill, (skill + rng.normal(size=skill.shape) > 0.3).astype(float)

    truth = measure(cost_quality_frontier(*draw(100_000), PRICES))
    expected, quality = draw(800)
    bands, metrics = bootstrap_frontier({"skilled": expected}, quality, PRICES, 200, rng, level=0.999)
    for row in metrics.itertuples():
        assert row.low <= truth[row.metric] <= row.high, row.metric
    assert ((bands["low"] <= bands["quality"]) & (bands["quality"] <= bands["high"])).all()
    assert len(bands) == 50


def test_routers_are_resampled_together(benchmark, rng):
    expected, quality, cost = benchmark
    tables = {"one": expected, "same": expected[["large", "medium", "small"]]}
    _, metrics = bootstrap_frontier(tables, quality, cost, 20, rng, PRICES)
    one, same = (part.drop(columns="router").reset_index(drop=True) for _, part in metrics.groupby("router"))
    pd.testing.assert_frame_equal(one, same)


def test_tables_that_do_not_fit_raise(benchmark, rng):
    expected, quality, cost = benchmark
    with pytest.raises(ValueError, match="no quality of large"):
        cost_quality_frontier(expected, quality[["small", "medium"]], cost)
    with pytest.raises(ValueError, match="10 rows of quality for expected quality of 3 models on 200 prompts"):
        cost_quality_frontier(expected, quality[:10], cost)
    with pytest.raises(ValueError, match="no price of medium"):
        cost_quality_frontier(expected, quality, cost[["small", "large"]])
    with pytest.raises(ValueError, match="n_resamples is 0"):
        bootstrap_frontier({"one": expected}, quality, cost, 0, rng)
