from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from routing.data.benchmarks import BenchmarkTable
from routing.evaluation.call_curve import call_curve
from routing.evaluation.frontier import cost_quality_frontier
from routing.policy.budget import MultiModelPolicy
from routing.studies.inputs import RoutingTask
from routing.studies.many_models.model_sets import (
    MAIN,
    calls_by_budget,
    compare_budgets,
    frontier_tables,
    growing_frontiers,
    hold_budgets,
    order_models,
    plot_added_models,
    plot_by_hand,
    plot_call_shares,
    plot_frontiers,
    plot_two_models,
)

PRICES = pd.Series({"small": 1.0, "medium": 2.0, "large": 6.0})


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def tables(rng) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Expected and true quality and cost of three models on 150 prompts."""
    skill = pd.DataFrame(rng.normal([0.0, 0.4, 1.0], 1.0, (150, 3)), columns=list(PRICES.index))
    cost = PRICES * pd.DataFrame(rng.lognormal(0, 0.3, (150, 3)), columns=skill.columns)
    return 0.5 * skill + 0.5 * rng.normal(size=skill.shape), (skill > 0.3).astype(float), cost


@pytest.fixture
def task(tables) -> RoutingTask:
    """The true tables, the first third of which is to train on."""
    _, quality, cost = tables
    table = BenchmarkTable(pd.DataFrame({"prompt": [f"prompt {number}" for number in range(150)]}), quality, cost)
    return RoutingTask(table.select(np.arange(150) < 50), table.select(np.arange(150) >= 50))


def test_each_number_of_models_has_the_frontier_of_those_models(tables, rng):
    expected, quality, cost = tables
    order = ["small", "large", "medium"]
    areas = growing_frontiers(order, expected, quality, cost, PRICES, 30, rng)
    assert areas["added"].tolist() == ["large", "medium"] and areas["models"].tolist() == [2, 3]
    for count, area in zip((2, 3), areas["aiq"], strict=True):
        have = sorted(order[:count])
        frontier = cost_quality_frontier(expected[have], quality[have], cost[have], PRICES)
        assert area == frontier.aiq(cost.mean().min(), cost.mean().max())
    assert (areas["low"] < areas["high"]).all()


def test_what_cannot_help_changes_no_number(tables, rng):
    expected, quality, cost = (
        table.assign(useless=column) for table, column in zip(tables, (-9.0, 0.0, 3.0), strict=True)
    )
    prices = pd.concat([PRICES, pd.Series({"useless": 3.0})])
    areas = growing_frontiers(["small", "large", "useless"], expected, quality, cost, prices, 20, rng)
    assert areas.loc[0, ["aiq", "low", "high"]].tolist() == areas.loc[1, ["aiq", "low", "high"]].tolist()


def test_calls_move_from_the_cheapest_to_the_best_models_within_every_budget(tables):
    expected = tables[0]
    shares = calls_by_budget(expected, PRICES, n_budgets=25)
    assert shares.columns.tolist() == ["small", "medium", "large"]
    assert shares.sum(axis=1).to_numpy() == pytest.approx(1.0)
    assert shares.iloc[0].tolist() == [1.0, 0.0, 0.0]
    best = expected.idxmax(axis=1).value_counts(normalize=True)
    assert shares.iloc[-1].to_dict() == pytest.approx(best[shares.columns].to_dict())
    spent = 1000 * (shares * PRICES[shares.columns]).sum(axis=1)
    assert (spent <= shares.index * (1 + 1e-9)).all()
    middle = shares.index[12] / 1000
    policy = MultiModelPolicy(PRICES).with_budget(expected, middle)
    chosen = pd.Series(policy.choose(expected)).value_counts(normalize=True)
    assert shares.iloc[12].to_dict() == pytest.approx(chosen.reindex(shares.columns, fill_value=0).to_dict())


def test_models_that_cost_nothing_have_no_budgets_in_equal_ratios(tables):
    with pytest.raises(ValueError, match="cost nothing"):
        calls_by_budget(tables[0], PRICES - 1.0)


def test_models_are_added_by_what_they_add(tables):
    expected, quality, cost = tables
    twin = {"copy": "large"}  # a model that adds nothing, because it is one that is there
    tables = [pd.concat([t, t[["large"]].rename(columns={"large": "copy"})], axis=1) for t in (expected, quality, cost)]
    assert order_models(*tables, 4)[:1] == ["small"]
    assert order_models(*tables, 4)[2] == "medium" and set(order_models(*tables, 2)) <= {"small", "large", *twin}
    with pytest.raises(ValueError, match="n_models is 5; it is from 2 to 4"):
        order_models(*tables, 5)


def test_budgets_hold_at_the_prices_and_a_batch_is_no_worse_than_one_by_one(tables, task):
    expected = tables[0][50:].reset_index(drop=True)
    table = compare_budgets({"t": task}, {"t": expected}, (0.3, 1.0))
    assert (table["expected_usd"] <= table["budget_usd"] * (1 + 1e-9)).all() and len(table) == 4
    spent = table.pivot(index="budget_share", columns="method", values="expected_usd")
    assert (spent["best_within"] >= spent["with_budget"] - 1e-12).all()
    best = task.test.quality.to_numpy()[np.arange(100), expected.to_numpy().argmax(axis=1)].mean()
    assert table.loc[table["budget_share"] == 1.0, "quality"].to_numpy() == pytest.approx(best)


def test_a_budget_found_on_a_sample_holds_over_a_stream(tables, task, rng):
    expected = {"t": tables[0][50:].reset_index(drop=True)}
    table = hold_budgets({"t": task}, expected, 10, rng, (0.3, 0.6))
    assert len(table) == 2 and (table["within_5_percent"] == 1).all()
    assert (table["low"] <= table["off"]).all() and (table["off"] <= table["high"]).all()
    assert (table["forecast_low"] < table["forecast_high"]).all() and (table["forecast_high"].abs() < 0.1).all()


def test_the_figure_by_hand_marks_where_the_choice_moves():
    share, prices = pd.DataFrame({"a": [0.9], "b": [0.6], "c": [0.5]}), pd.Series({"a": 1.0, "b": 0.5, "c": 0.1})
    figure, lines = plot_by_hand(share, prices)
    slopes = MultiModelPolicy(prices).upgrades(share).quality_per_usd
    assert [line.get_xdata()[0] for line in figure.axes[0].lines[3:]] == pytest.approx(slopes.tolist())
    highest = lines.loc[lines.groupby("quality_per_usd")["value"].idxmax().to_numpy()]
    assert set(lines["model"]) == {"a", "b", "c"} and len(highest) > 0


def test_tables_of_frontiers_have_a_figure(tables, task, rng):
    expected = {"t": {MAIN: tables[0][50:].reset_index(drop=True)}}
    bands, metrics, singles = frontier_tables({"t": task}, expected, 10, rng, n_budgets=9)
    assert len(bands) == 18 and singles["model"].tolist() == list(task.test.models)
    share = metrics.set_index(["router", "metric"]).loc[(MAIN, "cost_share"), "estimate"]
    title = plot_frontiers(bands, singles, metrics).get_suptitle()
    assert (f"{share:.0%}" in title) == np.isfinite(share) and ("does not reach" in title) == np.isinf(share)
    assert "does not reach" in plot_frontiers(bands, singles, metrics.assign(estimate=np.inf)).get_suptitle()


def test_figures_say_what_their_tables_say(tables):
    areas = pd.DataFrame({"models": [2, 3, 4], "added": ["x/b", "x/c", "x/d"], "aiq": [0.5, 0.59, 0.6]})
    assert plot_added_models(areas.assign(low=0.4, high=0.7)).get_suptitle().startswith("3 of 4 models")
    shares = calls_by_budget(tables[0], PRICES, n_budgets=4).assign(rare=0.005)
    figure = plot_call_shares(shares)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["small", "medium", "large", "others"]


def test_the_frontier_of_two_models_is_drawn_on_the_curve():
    p_strong, quality = np.array([0.1, 0.4, 0.9]), pd.DataFrame({"big": [1.0, 0.0, 1.0], "small": 0.0})
    curve = call_curve(p_strong, quality["big"], quality["small"])
    expected = pd.DataFrame({"big": p_strong, "small": 0.0})
    figure, table = plot_two_models(
        curve, cost_quality_frontier(expected, quality, pd.Series({"big": 1.0, "small": 0.0}))
    )
    np.testing.assert_allclose(table["quality"], table["frontier_quality"], atol=1e-14)
    assert len(figure.axes[0].lines) == 2
