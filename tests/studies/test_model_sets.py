from __future__ import annotations

import pandas as pd
import pytest

from routing.evaluation.frontier import cost_quality_frontier
from routing.policy.budget import MultiModelPolicy
from routing.studies.many_models.model_sets import calls_by_budget, growing_frontiers

PRICES = pd.Series({"small": 1.0, "medium": 2.0, "large": 6.0})


@pytest.fixture
def tables(rng) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Expected and true quality and cost of three models on 150 prompts."""
    skill = pd.DataFrame(rng.normal([0.0, 0.4, 1.0], 1.0, (150, 3)), columns=list(PRICES.index))
    cost = PRICES * pd.DataFrame(rng.lognormal(0, 0.3, (150, 3)), columns=skill.columns)
    return 0.5 * skill + 0.5 * rng.normal(size=skill.shape), (skill > 0.3).astype(float), cost


def test_each_number_of_models_has_the_frontier_of_those_models(tables, rng):
    expected, quality, cost = tables
    order = ["small", "large", "medium"]
    lines, areas = growing_frontiers(order, expected, quality, cost, PRICES, 30, rng, n_points=7)
    assert areas["added"].tolist() == ["large", "medium"] and areas["models"].tolist() == [2, 3]
    for count, area in zip((2, 3), areas["aiq"], strict=True):
        have = sorted(order[:count])
        frontier = cost_quality_frontier(expected[have], quality[have], cost[have], PRICES)
        part = lines[lines["models"] == count]
        assert part["quality"].tolist() == frontier.quality_at(part["usd_per_1000_calls"].to_numpy() / 1000).tolist()
        assert area == frontier.aiq(cost.mean().min(), cost.mean().max())
    assert (areas["low"] < areas["high"]).all()


def test_what_cannot_help_changes_no_number(tables, rng):
    expected, quality, cost = (
        table.assign(useless=column) for table, column in zip(tables, (-9.0, 0.0, 3.0), strict=True)
    )
    prices = pd.concat([PRICES, pd.Series({"useless": 3.0})])
    _, areas = growing_frontiers(["small", "large", "useless"], expected, quality, cost, prices, 20, rng)
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
