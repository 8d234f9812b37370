"""From expected quality and prices to a choice among any number of models.

At a trade-off of lambda (quality per dollar) a prompt goes to the model of greatest

    value = expected quality - lambda * price

which is also how a budget is best spent and a quality reached at least cost, lambda being what the last dollar buys
(`routing.policy.hulls`). Two models are the case in which each prompt has at most one upgrade: with prices 1 and 0, and
qualities p_strong and 0, of the strong and the weak model, lambda is the threshold of `route_pair` and the budget is
the share of strong calls.

Models are told apart by name, so their order changes nothing. Of models of equal value the cheaper one is taken, and
of equal price too the first by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from routing.policy.hulls import ROUNDING, Upgrades, row_blocks, walk_hulls

Prices = Mapping[str, float] | pd.Series | pd.DataFrame
CHARACTERS_PER_TOKEN = 4.0  # English
OUTPUT_TOKENS = 264.0  # mean length of an answer [RouteLLM24]


def price_per_call(
    prices: pd.DataFrame, output_tokens: float | Mapping[str, float], input_tokens: float | np.ndarray
) -> pd.Series | pd.DataFrame:
    """Dollars that a call costs, from prices per token and expected lengths.

    Parameters
    ----------
    prices : DataFrame, indexed by model
        Columns ``usd_per_million_input`` and ``usd_per_million_output``.
    output_tokens : float, or mapping of model to float
        Expected length of an answer.
    input_tokens : float, or float array, shape (n_prompts,)
        Length of the prompt: the expected one, or that of each prompt.

    Returns
    -------
    Series (a price a model), or DataFrame (a row a prompt) where `input_tokens` is an array.

    Raises
    ------
    ValueError
        A column that is missing, a model without an expected length, or a number that is negative or not finite.
    """
    missing = [name for name in ("usd_per_million_input", "usd_per_million_output") if name not in prices.columns]
    if missing:
        raise ValueError(
            f"the prices lack column {', '.join(missing)}; they have {', '.join(map(str, prices.columns))}"
        )
    if isinstance(output_tokens, Mapping):
        unknown = [model for model in prices.index if model not in output_tokens]
        if unknown:
            raise ValueError(f"no expected output tokens for {', '.join(unknown)}")
        output_tokens = np.array([output_tokens[model] for model in prices.index], dtype=float)
    lengths = np.asarray(input_tokens, dtype=float)
    for name, tokens in (("input_tokens", lengths), ("output_tokens", np.asarray(output_tokens, dtype=float))):
        if not (np.isfinite(tokens) & (tokens >= 0)).all():
            raise ValueError(f"{name} is negative or not finite; it is a number of tokens")
    input_usd = prices["usd_per_million_input"].to_numpy(dtype=float) * lengths[..., None]
    usd = (input_usd + prices["usd_per_million_output"].to_numpy(dtype=float) * output_tokens) / 1e6
    priced = pd.Series(usd, prices.index) if lengths.ndim == 0 else pd.DataFrame(usd, columns=prices.index)
    _check_prices(priced)
    return priced


def _check_prices(prices: pd.Series | pd.DataFrame) -> None:
    values = prices.to_numpy(dtype=float)
    at_fault = ~(np.isfinite(values) & (values >= 0))
    if at_fault.any():
        *row, model = np.argwhere(at_fault)[0]
        names = prices.index if prices.ndim == 1 else prices.columns
        where = f"row {row[0]}, " if row else ""
        raise ValueError(
            f"prices, {where}model {names[model]}: {values[(*row, model)]}; a price is finite, 0 or more, in dollars"
        )


@dataclass(frozen=True)
class Assignment:
    """A model for each prompt of a batch.

    Attributes
    ----------
    models : str array, shape (n_prompts,)
    mean_quality : float
        Expected.
    mean_cost_usd : float
    bound : float
        What no assignment can better, not even one that splits prompts: the greatest mean quality within the budget,
        or the least mean cost of the quality. It is off by less than one upgrade of one prompt.
    """

    models: np.ndarray
    mean_quality: float
    mean_cost_usd: float
    bound: float


@dataclass(frozen=True, eq=False)
class MultiModelPolicy:
    """Sends each prompt to the model of greatest expected quality less `quality_per_usd` times price.

    Parameters
    ----------
    prices : mapping or Series of model to float, or DataFrame, shape (n_prompts, n_models)
        Dollars a call: a price a model, or one for each prompt and model. Models that no quality is asked for are
        left out.
    quality_per_usd : float
        lambda, the expected quality that a dollar has to buy. 0 takes the best model at any price. (Below 0 it
        prefers the dearer model; only `pair_trade_off` of threshold 0 needs that.)

    In all methods `quality` is a DataFrame, shape (n_prompts, n_models), with the models as columns: the expected
    quality of each model's answer, in any unit.

    Raises
    ------
    ValueError
        In all methods: a model without a price, a price that is negative or not finite, no prompt, a quality that is
        not finite, or tables of other length; the message names the model and the row.
    """

    prices: Prices
    quality_per_usd: float = 0.0

    def __post_init__(self) -> None:
        prices = self.prices if isinstance(self.prices, pd.DataFrame) else pd.Series(self.prices, dtype=float)
        if not math.isfinite(self.quality_per_usd):
            raise ValueError(f"quality_per_usd is {self.quality_per_usd}; the trade-off is a finite number")
        names = prices.columns if prices.ndim == 2 else prices.index
        if not names.is_unique:
            raise ValueError(f"prices: a model is named twice: {', '.join(names[names.duplicated()].unique())}")
        _check_prices(prices)
        object.__setattr__(self, "prices", prices)

    def choose(self, quality: pd.DataFrame) -> np.ndarray:
        """The name of the model that each prompt goes to: (n_prompts,)."""
        models, expected, price = self.align(quality)
        chosen = np.empty(len(expected), dtype=np.int64)
        for rows in row_blocks(len(expected)):
            cost = price if price.ndim == 1 else price[rows]
            value = expected[rows] - self.quality_per_usd * cost
            at_best = value == value.max(axis=1, keepdims=True)
            chosen[rows] = np.where(at_best, cost, np.inf).argmin(axis=1)  # of the cheapest the first by name
        return np.array(models, dtype=object)[chosen]

    def upgrades(self, quality: pd.DataFrame) -> Upgrades:
        """The way from every prompt's cheapest model to its best: what `choose` does at every trade-off."""
        return walk_hulls(*self.align(quality))

    def best_within(self, quality: pd.DataFrame, budget_usd: float) -> Assignment:
        """The best expected quality of these prompts at a mean cost of at most `budget_usd` a call.

        Upgrades are bought until one is too dear; then the one exchange of a model is made that fits what is left and
        gains most. So the budget is never exceeded (but by rounding, 1e-12 of it), a single prompt gets the best model
        that it can pay, and a batch gets the optimum of the linear programme but for one upgrade of one prompt.

        Raises
        ------
        ValueError
            Also a budget below the mean price of each prompt's cheapest model; the message gives it.
        """
        models, expected, price = self.align(quality)
        upgrades = walk_hulls(models, expected, price)
        n_prompts, limit = len(expected), budget_usd * (1 + ROUNDING)
        n_bought = upgrades.within(price, budget_usd)
        chosen = upgrades.choice(n_bought)
        bound, spent = _means(expected, price, chosen)
        if n_bought < len(upgrades.row):
            left = (limit - spent) * n_prompts
            bound += left / n_prompts * upgrades.quality_per_usd[n_bought]
            row, model = _best_exchange(expected, price, chosen, left)
            chosen[row] = model
        return Assignment(np.array(models, dtype=object)[chosen], *_means(expected, price, chosen), bound)

    def cheapest_reaching(self, quality: pd.DataFrame, mean_quality: float) -> Assignment:
        """The least mean cost at which these prompts have an expected quality of at least `mean_quality`.

        Raises
        ------
        ValueError
            Also a quality that even the best model of each prompt does not reach; the message gives that.
        """
        models, expected, price = self.align(quality)
        upgrades = walk_hulls(models, expected, price)
        n_prompts = len(expected)
        start, _ = _means(expected, price, upgrades.start)
        reached = np.append(start, start + upgrades.differences(expected).cumsum() / n_prompts)
        wanted = mean_quality - ROUNDING * max(1.0, abs(mean_quality))
        if not reached[-1] >= wanted:
            raise ValueError(
                f"mean_quality is {mean_quality:.6g}; the best model of each prompt reaches {reached[-1]:.6g}"
            )
        n_bought = int(np.argmax(reached >= wanted))
        chosen = upgrades.choice(n_bought)
        achieved, bound = _means(expected, price, chosen)
        costs = np.append(0.0, upgrades.differences(price)) / n_prompts
        if n_bought:
            share = np.clip((wanted - reached[n_bought - 1]) / (reached[n_bought] - reached[n_bought - 1]), 0, 1)
            bound -= (1 - share) * costs[n_bought]
        return Assignment(np.array(models, dtype=object)[chosen], *_means(expected, price, chosen), float(bound))

    def with_budget(self, quality: pd.DataFrame, budget_usd: float) -> MultiModelPolicy:
        """The policy that spends as much as it can on this sample without exceeding a mean of `budget_usd` a call.

        Prompts of equal quality go the same way, so that less may be spent than on the same sample with `best_within`.
        Raises as `best_within`.
        """
        models, expected, price = self.align(quality)
        upgrades = walk_hulls(models, expected, price)
        n_bought = upgrades.within(price, budget_usd)
        while True:
            n_bought, trade_off = _separate(upgrades.quality_per_usd, n_bought)
            policy = replace(self, quality_per_usd=trade_off)
            spent = _means(expected, price, pd.Index(models).get_indexer(policy.choose(quality)))[1]
            if n_bought == 0 or spent <= budget_usd * (1 + ROUNDING):
                return policy
            n_bought -= 1  # trade-offs so close that rounding lets one more upgrade through

    def with_share(self, quality: pd.DataFrame, model: str, share: float) -> MultiModelPolicy:
        """The policy that sends to `model`, and those as dear or dearer, at most this share of the sample's prompts.

        Of the shares that can be reached it takes the greatest. With two models and `model` the stronger it decides
        as `calibrate_threshold` and `route_pair`.

        Raises
        ------
        ValueError
            Also a share outside [0, 1] or below that of the prompts for which no model is cheaper than `model`.
        """
        models, expected, price = self.align(quality)
        if model not in models:
            raise ValueError(f"no quality of {model!r} is given, only of {', '.join(models)}")
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}; a share of prompts lies in [0, 1]")
        upgrades = walk_hulls(models, expected, price)
        dear = np.broadcast_to(price >= price[..., [models.index(model)]], expected.shape)
        n_always = int(dear[np.arange(len(dear)), upgrades.start].sum())
        if n_always / len(dear) > share:
            raise ValueError(
                f"share is {share}; for {n_always} of {len(dear)} prompts no model is cheaper than {model}"
            )
        to_dear = dear[upgrades.row, upgrades.after] & ~dear[upgrades.row, upgrades.before]
        shares = (n_always + np.arange(1, to_dear.sum() + 1)) / len(dear)
        n_sent = int(np.searchsorted(shares, share, side="right"))
        return replace(self, quality_per_usd=_separate(upgrades.quality_per_usd[to_dear], n_sent)[1])

    def align(self, quality: pd.DataFrame) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """Names in alphabetical order; in it quality (n_prompts, n_models) and prices, (n_models,) or as quality."""
        if not isinstance(quality, pd.DataFrame) or quality.size == 0:
            raise ValueError("quality is a table of at least one prompt (rows) and one model (columns)")
        models = tuple(sorted(quality.columns))
        if len(set(models)) < len(models):
            raise ValueError("quality: a model is named twice")
        priced = self.prices.columns if self.prices.ndim == 2 else self.prices.index
        unpriced = [model for model in models if model not in priced]
        if unpriced:
            raise ValueError(f"no price of {', '.join(unpriced)}; prices are given of {', '.join(map(str, priced))}")
        if self.prices.ndim == 2 and len(self.prices) != len(quality):
            raise ValueError(f"prices have {len(self.prices)} rows and quality {len(quality)}; give one a prompt")
        names = list(models)
        expected = (quality if names == list(quality.columns) else quality[names]).to_numpy(dtype=float)
        at_fault = ~np.isfinite(expected)
        if at_fault.any():
            row, column = np.argwhere(at_fault)[0]
            raise ValueError(f"quality, row {row}, model {models[column]}: {expected[row, column]} is not finite")
        return models, expected, self.prices[names].to_numpy(dtype=float)


def pair_trade_off(threshold: float) -> float:
    """The trade-off at which two models are routed as by `route_pair` at this threshold, decision by decision.

    For quality p_strong and 0, and prices 1 and 0, of the strong and the weak model. There a prompt at the threshold
    goes to the strong model; here equal value goes to the cheaper one: so it is the number just below.
    """
    return math.nextafter(threshold, -math.inf)


def _means(expected: np.ndarray, price: np.ndarray, chosen: np.ndarray) -> tuple[float, float]:
    """Mean quality and mean price of a choice; exact sums, so that the order of prompts changes no bit."""
    rows = np.arange(len(chosen))
    paid = price[chosen] if price.ndim == 1 else price[rows, chosen]
    return math.fsum(expected[rows, chosen]) / len(rows), math.fsum(paid) / len(rows)


def _separate(quality_per_usd: np.ndarray, n_bought: int) -> tuple[int, float]:
    """A trade-off between the first `n_bought` upgrades and the rest, or fewer where equal ones would be parted."""
    n_upgrades = len(quality_per_usd)
    if n_bought == n_upgrades:
        return n_bought, float(quality_per_usd[-1] / 2) if n_upgrades else 0.0
    n_bought = int(np.searchsorted(-quality_per_usd, -quality_per_usd[n_bought]))
    below = float(quality_per_usd[n_bought])
    if n_bought == 0:
        return 0, 2 * below
    above = float(quality_per_usd[n_bought - 1])
    return n_bought, min(below + (above - below) / 2, math.nextafter(above, -math.inf))


def _best_exchange(expected: np.ndarray, price: np.ndarray, chosen: np.ndarray, left_usd: float) -> tuple[int, int]:
    """The prompt and the model, within `left_usd` more than is paid now, that gain most; the first of the cheapest."""
    best = (0.0, 0.0, 0, int(chosen[0]))
    for block in row_blocks(len(chosen)):
        rows = np.arange(block.start, block.stop)
        table = np.broadcast_to(price if price.ndim == 1 else price[block], expected[block].shape)
        extra = table - np.take_along_axis(table, chosen[block, None], axis=1)
        gain = expected[block] - expected[rows, chosen[block]][:, None]
        gain[extra > left_usd] = -np.inf
        least = np.where(gain == gain.max(), extra, np.inf)
        row, model = np.unravel_index(least.argmin(), least.shape)
        found = float(gain[row, model]), -float(extra[row, model])
        if found > best[:2]:
            best = (*found, int(rows[row]), int(model))
    return best[2:]
