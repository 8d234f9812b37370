from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from routing.policy.budget import BLOCK_ROWS, MultiModelPolicy, calibrate_threshold, price_per_call, route_pair

NAMES = ["gemma", "gpt-4", "llama", "mistral", "yi"]
# Few distinct values, so that equal qualities, prices and values are common.
GRID = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
PRICES = st.sampled_from([0.5, 1.0, 2.0, 4.0])
PROBABILITIES = st.lists(GRID | st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=20)


@st.composite
def problems(draw) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Quality and price of up to 6 prompts and 5 models; half the time a price a model, repeated."""
    n_prompts, n_models = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    table = [draw(st.lists(GRID, min_size=n_models, max_size=n_models)) for _ in range(n_prompts)]
    one = draw(st.booleans())
    rows = [draw(st.lists(PRICES, min_size=n_models, max_size=n_models)) for _ in range(1 if one else n_prompts)]
    rows = rows * n_prompts if one else rows
    return pd.DataFrame(table, columns=NAMES[:n_models]), pd.DataFrame(rows, columns=NAMES[:n_models])


def costs_of(prices: pd.DataFrame, chosen: np.ndarray) -> np.ndarray:
    return np.array([prices[name].iloc[row] for row, name in enumerate(chosen)])


def random_problem(rng: np.random.Generator, n_prompts: int, n_models: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    names = [f"model-{number}" for number in range(n_models)]
    quality = pd.DataFrame(rng.random((n_prompts, n_models)), columns=names)
    return quality, pd.DataFrame(rng.lognormal(size=(n_prompts, n_models)), columns=names)


def solve(quality: pd.DataFrame, prices: pd.DataFrame, objective: pd.DataFrame, rows: list, bounds: list):
    """The linear programme over shares of each prompt for each model; `rows` . shares <= `bounds`."""
    n_prompts, n_models = quality.shape
    one_model = np.kron(np.eye(n_prompts), np.ones(n_models))
    done = linprog(objective.to_numpy().ravel(), rows, bounds, one_model, np.ones(n_prompts), bounds=(0, 1))
    assert done.status == 0, done.message
    return done.fun


# -- expected quality less lambda times price -------------------------------------------------------------------------


def test_the_trade_off_by_hand():
    quality = pd.DataFrame({"large": [0.9, 0.9], "medium": [0.8, 0.5], "small": [0.5, 0.4]})
    prices = {"large": 0.010, "medium": 0.004, "small": 0.001}
    for trade_off, chosen in [(0, ["large", "large"]), (20, ["medium", "large"]), (60, ["medium", "small"])]:
        assert MultiModelPolicy(prices, trade_off).choose(quality).tolist() == chosen
    assert MultiModelPolicy(prices, 1000).choose(quality).tolist() == ["small", "small"]


@given(problems(), st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0]))
def test_the_choice_has_the_greatest_value_then_the_least_price_then_the_first_name(problem, trade_off):
    quality, prices = problem
    chosen = MultiModelPolicy(prices, trade_off).choose(quality)
    for row, name in enumerate(chosen):
        ranks = [(-(quality[m][row] - trade_off * prices[m][row]), prices[m][row], m) for m in quality]
        assert name == min(ranks)[2]


@given(problems(), st.floats(0, 2), st.randoms(use_true_random=False))
def test_permuting_the_models_permutes_the_answer_and_nothing_else(problem, trade_off, random):
    quality, prices = problem
    permuted = random.sample(list(quality), quality.shape[1])
    other_prices = prices[random.sample(list(prices), prices.shape[1])]
    budget = float(prices.min(axis=1).mean() + trade_off)
    one, other = MultiModelPolicy(prices, trade_off), MultiModelPolicy(other_prices, trade_off)
    assert (one.choose(quality) == other.choose(quality[permuted])).all()
    for method, wanted in [("best_within", budget), ("cheapest_reaching", float(quality.max(axis=1).mean()))]:
        answer, again = getattr(one, method)(quality, wanted), getattr(other, method)(quality[permuted], wanted)
        assert (answer.models == again.models).all()
        assert answer.mean_quality == again.mean_quality and answer.mean_cost_usd == again.mean_cost_usd
        assert answer.bound == again.bound
    calibrated, again = one.with_budget(quality, budget), other.with_budget(quality[permuted], budget)
    assert calibrated.quality_per_usd == again.quality_per_usd


@given(problems(), st.randoms(use_true_random=False))
def test_permuting_the_prompts_permutes_the_choice(problem, random):
    quality, prices = problem
    order = random.sample(range(len(quality)), len(quality))
    budget = float(prices.mean(axis=1).mean())
    one = MultiModelPolicy(prices).with_budget(quality, budget)
    other = MultiModelPolicy(prices.iloc[order]).with_budget(quality.iloc[order], budget)
    assert (one.choose(quality)[order] == other.choose(quality.iloc[order])).all()


# -- the walk along the hulls -----------------------------------------------------------------------------------------


@given(problems())
def test_any_number_of_upgrades_is_a_choice_at_some_trade_off(problem):
    quality, prices = problem
    policy = MultiModelPolicy(prices)
    walk = policy.upgrades(quality)
    slopes = walk.quality_per_usd
    assert (np.diff(slopes) <= 0).all() and (slopes > 0).all()
    for trade_off in [*((slopes[:-1] + slopes[1:]) / 2)[np.diff(slopes) < 0], 0.0, slopes.max(initial=0) * 2 + 1]:
        bought = walk.choice(int((slopes > trade_off).sum()))
        assert (np.array(walk.models)[bought] == MultiModelPolicy(prices, trade_off).choose(quality)).all()


def test_blocks_of_prompts_change_nothing(rng):
    quality, prices = random_problem(rng, BLOCK_ROWS + 50, 4)
    whole = MultiModelPolicy(prices, 0.3)
    tail = MultiModelPolicy(prices[BLOCK_ROWS:], 0.3)
    assert (whole.choose(quality)[BLOCK_ROWS:] == tail.choose(quality[BLOCK_ROWS:])).all()
    walk, part = whole.upgrades(quality), tail.upgrades(quality[BLOCK_ROWS:])
    late = walk.row >= BLOCK_ROWS
    assert (walk.row[late] - BLOCK_ROWS == part.row).all() and (walk.after[late] == part.after).all()


# -- budgets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_prompts", [1, 7, 60])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.8])
def test_a_budget_is_spent_as_a_linear_programme_would(rng, n_prompts, place):
    quality, prices = random_problem(rng, n_prompts, 5)
    least, most = prices.min(axis=1).mean(), costs_of(prices, quality.idxmax(axis=1)).mean()
    budget = least + place * (most - least)
    answer = MultiModelPolicy(prices).best_within(quality, budget)
    best = -solve(quality, prices, -quality, [prices.to_numpy().ravel()], [budget * n_prompts]) / n_prompts
    assert answer.bound == pytest.approx(best, rel=1e-9)
    assert answer.mean_cost_usd <= budget * (1 + 1e-9)
    assert answer.mean_quality == pytest.approx(
        quality.to_numpy()[range(n_prompts), quality.columns.get_indexer(answer.models)].mean()
    )
    assert answer.bound - 1 / n_prompts < answer.mean_quality <= answer.bound + 1e-12


def test_whole_models_come_close_to_the_best_integer_answer(rng):
    quality, prices = random_problem(rng, 40, 5)
    budget = float(prices.min(axis=1).mean() * 1.5)
    answer = MultiModelPolicy(prices).best_within(quality, budget)
    one_model = LinearConstraint(np.kron(np.eye(40), np.ones(5)), 1, 1)
    within = LinearConstraint(prices.to_numpy().ravel()[None], ub=budget * 40)
    done = milp(-quality.to_numpy().ravel(), constraints=[one_model, within], integrality=1, bounds=Bounds(0, 1))
    assert answer.mean_quality <= -done.fun / 40 + 1e-9 <= answer.bound + 2e-9
    assert answer.mean_quality > -done.fun / 40 - 0.005


def test_one_prompt_gets_the_best_model_it_can_pay_even_off_the_hull():
    quality = pd.DataFrame({"small": [0.5], "medium": [0.55], "large": [0.9]})
    policy = MultiModelPolicy({"small": 0.001, "medium": 0.009, "large": 0.010})
    assert policy.best_within(quality, 0.0095).models.tolist() == ["medium"]
    assert policy.best_within(quality, 0.0010).models.tolist() == ["small"]
    assert policy.best_within(quality, 0.0100).models.tolist() == ["large"]


@given(problems(), st.floats(0, 1))
def test_a_calibrated_trade_off_keeps_to_the_budget_and_leaves_no_cheaper_upgrade(problem, place):
    quality, prices = problem
    budget = float(prices.min(axis=1).mean() * (1 - place) + prices.max(axis=1).mean() * place)
    policy = MultiModelPolicy(prices).with_budget(quality, budget)
    spent = costs_of(prices, policy.choose(quality)).mean()
    assert spent <= budget * (1 + 1e-9)
    slopes = policy.upgrades(quality).quality_per_usd
    further = slopes[slopes < policy.quality_per_usd]
    if len(further):  # at the next trade-off the sample would be over the budget
        next_policy = MultiModelPolicy(prices, float(np.nextafter(further.max() * (1 - 1e-9), 0)))
        assert costs_of(prices, next_policy.choose(quality)).mean() > budget


@pytest.mark.parametrize("place", [0.0, 0.4, 0.9])
def test_a_quality_is_reached_at_the_cost_of_a_linear_programme(rng, place):
    quality, prices = random_problem(rng, 30, 5)
    policy = MultiModelPolicy(prices)
    low = policy.best_within(quality, prices.min(axis=1).mean()).mean_quality
    wanted = float(low + place * (quality.max(axis=1).mean() - low))
    answer = policy.cheapest_reaching(quality, wanted)
    least = solve(quality, prices, prices, [-quality.to_numpy().ravel()], [-wanted * 30]) / 30
    assert answer.bound == pytest.approx(least, rel=1e-9)
    assert answer.mean_quality >= wanted - 1e-9 and answer.mean_cost_usd >= answer.bound - 1e-12
    assert answer.mean_cost_usd - answer.bound < prices.max().max() / 30


def test_a_fixed_trade_off_holds_the_budget_over_a_stream(rng):
    quality, prices = random_problem(rng, 4_000, 5)
    price = prices.mean()
    policy = MultiModelPolicy(price).with_budget(quality[:1_000], float(price.min() * 0.7 + price.max() * 0.3))
    covered = []
    for begin in range(1_000, 4_000, 200):
        low, high = policy.forecast_cost(quality[:1_000], 200)
        spent = price[policy.choose(quality[begin : begin + 200])].mean()
        covered.append(low <= spent <= high)
        assert spent == pytest.approx((low + high) / 2, rel=0.2)
    assert np.mean(covered) > 0.8
    assert np.diff(policy.forecast_cost(quality[:1_000], 20_000)) < np.diff(policy.forecast_cost(quality[:1_000], 200))
    for sample, n_prompts, level in ((1, 5, 0.95), (9, 0, 0.95), (9, 5, 1.0)):
        with pytest.raises(ValueError, match=f"{sample} prompts to judge {n_prompts} by at level {level}"):
            policy.forecast_cost(quality[:sample], n_prompts, level)


# -- two models -------------------------------------------------------------------------------------------------------


def pair_policy(trade_off: float) -> MultiModelPolicy:
    return MultiModelPolicy({"big": 1.0, "small": 0.0}, trade_off)


def pair_quality(p_strong: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"big": p_strong, "small": 0.0})


@given(PROBABILITIES, GRID | st.floats(0, 1.5))
def test_two_models_are_routed_as_by_the_threshold(p_strong, threshold):
    # A prompt at the threshold goes to the strong model, one of equal value to the cheaper: the number just below.
    chosen = pair_policy(math.nextafter(threshold, -math.inf)).choose(pair_quality(p_strong))
    assert (chosen == route_pair(p_strong, threshold, "big", "small")).all()


@given(PROBABILITIES, st.floats(0, 2), st.floats(0.001, 10))
def test_any_prices_of_two_models_are_a_threshold(p_strong, trade_off, price):
    quality = pd.DataFrame({"big": p_strong, "small": 0.5})
    chosen = MultiModelPolicy({"big": price + 0.5, "small": 0.5}, trade_off).choose(quality)
    sent = [p for p, name in zip(p_strong, chosen, strict=True) if name == "big"]
    assert (chosen == route_pair(p_strong, min(sent, default=2.0), "big", "small")).all()


@given(PROBABILITIES.filter(min), GRID | st.floats(0, 1) | st.fractions(0, 1, max_denominator=30).map(float))
def test_a_share_of_two_models_is_calibrated_as_the_threshold(p_strong, share):
    quality = pair_quality(p_strong)
    by_threshold = route_pair(p_strong, calibrate_threshold(p_strong, share), "big", "small")
    by_budget = pair_policy(0.0).with_budget(quality, share).choose(quality)
    n_threshold, n_budget = (int((chosen == "big").sum()) for chosen in (by_threshold, by_budget))
    assert n_threshold <= n_budget <= share * len(p_strong) * (1 + 1e-9)  # the budget holds up to rounding
    if n_threshold == n_budget:
        assert (by_threshold == by_budget).all()


# -- prices and failures ----------------------------------------------------------------------------------------------


def test_prices_per_token_by_hand():
    prices = pd.DataFrame({"usd_per_million_input": [10, 0.5], "usd_per_million_output": [30, 1.5]}, ["big", "small"])
    assert price_per_call(prices, 200, 100).to_dict() == pytest.approx({"big": 0.007, "small": 0.00035})
    table = price_per_call(prices, {"small": 100, "big": 200}, np.array([100.0, 0.0]))
    assert table["big"].tolist() == pytest.approx([0.007, 0.006])
    assert table["small"].tolist() == pytest.approx([0.0002, 0.00015])
    with pytest.raises(ValueError, match="no expected output tokens for big"):
        price_per_call(prices, {"small": 100}, 1)
    with pytest.raises(ValueError, match="lack column usd_per_million_output"):
        price_per_call(prices[["usd_per_million_input"]], 1, 1)
    with pytest.raises(ValueError, match="input_tokens is negative"):
        price_per_call(prices, 1, np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="model small: -1.5; a price"):
        price_per_call(prices * np.array([[1, 1], [1, -1]]), 1e6, 0)


QUALITY = pd.DataFrame({"a": [0.5, 0.6], "b": [0.7, math.nan]})


@pytest.mark.parametrize(
    ("prices", "quality", "message"),
    [
        ({"a": 1.0}, QUALITY, "no price of b; prices are given of a"),
        ({"a": 1.0, "b": 2.0}, QUALITY, "quality, row 1, model b: nan is not finite"),
        (pd.DataFrame({"a": [1.0], "b": [2.0]}), QUALITY, "prices have 1 rows and quality 2"),
        ({"a": 1.0}, QUALITY[["a", "a"]], "a model is named twice"),
        ({"a": 1.0}, QUALITY[["a"]][:0], "at least one prompt"),
    ],
)
def test_bad_tables_raise_naming_the_model_and_the_row(prices, quality, message):
    with pytest.raises(ValueError, match=message):
        MultiModelPolicy(prices).choose(quality)


def test_bad_prices_and_wishes_raise():
    with pytest.raises(ValueError, match="prices, model b: nan; a price is finite"):
        MultiModelPolicy({"a": 1.0, "b": math.nan})
    with pytest.raises(ValueError, match="prices, row 1, model a: -1.0"):
        MultiModelPolicy(pd.DataFrame({"a": [1.0, -1.0]}))
    with pytest.raises(ValueError, match="named twice: a"):
        MultiModelPolicy(pd.Series([1.0, 2.0], ["a", "a"]))
    with pytest.raises(ValueError, match="quality_per_usd is nan"):
        MultiModelPolicy({"a": 1.0}, math.nan)
    policy, quality = MultiModelPolicy({"a": 1.0, "b": 2.0, "c": 9.0}), QUALITY.fillna(0.5)
    for budget in (0.99, math.nan):
        with pytest.raises(ValueError, match=f"the budget is {budget} dollars a call; the cheapest models cost 1"):
            policy.best_within(quality, budget)
        with pytest.raises(ValueError, match="the budget is"):
            policy.with_budget(quality, budget)
    with pytest.raises(ValueError, match="mean_quality is 0.7; the best model of each prompt reaches 0.65"):
        policy.cheapest_reaching(quality, 0.7)
