"""Choose a model for each prompt: by a threshold between two, by expected quality and prices among any number.

Two models: a prompt goes to the strong one if and only if P(strong wins | prompt) >= threshold [RouteLLM24]. Which
model is "strong" is named at each call and never remembered.

Any number: at a trade-off of lambda (quality per dollar) a prompt goes to the model of highest

    value = expected quality - lambda * price

The models that are best at some lambda are the corners of the upper hull of a prompt's points (price, quality). All
prompts start at their cheapest model; going from corner to corner is an upgrade. Of all upgrades of all prompts those
that buy most quality per dollar come first. However far one goes, at a trade-off, a budget or a quality, the upgrades
bought are the first so many of this one order, which is the cost-quality frontier; lambda is what the last dollar buys.
Two models are the case of at most one upgrade per prompt: with prices 1 and 0, and qualities p_strong and 0, lambda is
the threshold and the budget is the share of strong calls.

Models are identified by name, so their order changes nothing. Of models of equal value the cheaper one is taken, and
of equal price too the first by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pandas as pd

Prices = Mapping[str, float] | pd.Series | pd.DataFrame
CHARACTERS_PER_TOKEN = 4.0  # English
OUTPUT_TOKENS = 264.0  # mean length of an answer [RouteLLM24]
BLOCK_ROWS = 1024
ROUNDING = 1e-12  # relative; of a sum over prompts


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
    """Return the name of the model that each prompt goes to: (n_prompts,) of str.

    A prompt goes to `strong` if ``p_strong >= threshold``, where `p_strong`, (n_prompts,), is P(strong wins | prompt).
    The threshold is any number but NaN: above 1 nothing goes there. Raises ValueError for a probability that is NaN or
    outside [0, 1] (the message names the row), a threshold that is NaN, or one name for both models.
    """
    if math.isnan(threshold):
        raise ValueError("the threshold is NaN; take one from calibrate_threshold")
    if strong == weak:
        raise ValueError(f"strong and weak are both {strong!r}; routing needs two different models")
    return np.where(_check_probability(p_strong) >= threshold, strong, weak)


def calibrate_threshold(p_strong: np.ndarray, strong_share: float) -> float:
    """Return the threshold that sends as many of these prompts to the strong model as `strong_share` allows.

    Prompts of equal probability go the same way, so not every share can be reached. The result has the largest share
    that can be reached and is not above `strong_share`. The threshold is the lowest probability that still goes to the
    strong model. Where even the prompts of highest probability are too many (always at share 0) it is just above the
    maximum; at share 1 it is the minimum.

    Differs from RouteLLM in: its threshold is the quantile 1 - `strong_share`, which exceeds the share wherever
    probabilities are equal there.

    `p_strong`, (n_prompts,), is P(strong wins | prompt) on a sample of the prompts to come; `strong_share` lies in
    [0, 1]. Raises ValueError for another share, or a probability that is NaN or outside [0, 1], with its row.
    """
    p_strong = _check_probability(p_strong)
    if not 0 <= strong_share <= 1:
        raise ValueError(f"strong_share is {strong_share}; a share lies in [0, 1]")
    values, counts = np.unique(p_strong, return_counts=True)
    shares = counts[::-1].cumsum()[::-1] / len(p_strong)  # shares[k]: sent to the strong model at threshold values[k]
    within = np.flatnonzero(shares <= strong_share)
    return float(values[within[0]]) if len(within) else float(np.nextafter(values[-1], np.inf))


def price_per_call(
    prices: pd.DataFrame, output_tokens: float | Mapping[str, float], input_tokens: float | np.ndarray
) -> pd.Series | pd.DataFrame:
    """Return the dollars that a call costs, from prices per token and expected lengths.

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
    Series (one price per model), or DataFrame (one row per prompt) where `input_tokens` is an array.

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

    No assignment beats `bound`, not even one that splits prompts: the highest mean quality within the budget, or the
    lowest mean cost of the quality. This one differs from it by less than one upgrade of one prompt.
    """

    models: np.ndarray  # (n_prompts,) of str
    mean_quality: float  # expected
    mean_cost_usd: float  # per call
    bound: float


@dataclass(frozen=True, eq=False)
class MultiModelPolicy:
    """Send each prompt to the model of highest expected quality minus `quality_per_usd` times price.

    Parameters
    ----------
    prices : mapping or Series of model to float, or DataFrame, shape (n_prompts, n_models)
        Dollars per call: one price per model, or one for each prompt and model. Models without a quality are left out.
    quality_per_usd : float
        lambda, the expected quality that a dollar has to buy. 0 takes the best model at any price; below 0 the more
        expensive of two models of equal quality is preferred.

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
        """Return the name of the model that each prompt goes to: (n_prompts,)."""
        models, expected, price = self.align(quality)
        chosen = np.empty(len(expected), dtype=np.int64)
        for rows in row_blocks(len(expected)):
            cost = price if price.ndim == 1 else price[rows]
            value = expected[rows] - self.quality_per_usd * cost
            at_best = value == value.max(axis=1, keepdims=True)
            chosen[rows] = np.where(at_best, cost, np.inf).argmin(axis=1)  # of the cheapest the first by name
        return np.array(models, dtype=object)[chosen]

    def upgrades(self, quality: pd.DataFrame) -> Upgrades:
        """Return all upgrades from every prompt's cheapest model to its best: what `choose` does at every trade-off."""
        return walk_hulls(*self.align(quality))

    def best_within(self, quality: pd.DataFrame, budget_usd: float) -> Assignment:
        """Assign models with the best expected quality at a mean cost of at most `budget_usd` per call.

        Upgrades are bought until one is too expensive; then the model of one prompt is replaced, by the one that fits
        what is left and gains most. So the budget is never exceeded (except by rounding, 1e-12 of it), a single prompt
        gets the best model within the budget, and a batch gets the optimum of the linear programme except for one
        upgrade of one prompt.

        Raises also for a budget below the mean price of each prompt's cheapest model; the message gives it.
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
            row, model = _best_replacement(expected, price, chosen, left)
            chosen[row] = model
        return Assignment(np.array(models, dtype=object)[chosen], *_means(expected, price, chosen), bound)

    def cheapest_reaching(self, quality: pd.DataFrame, mean_quality: float) -> Assignment:
        """Assign models with the lowest mean cost at which the expected quality is at least `mean_quality`.

        Raises also for a quality that even the best model of each prompt does not reach; the message gives that.
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
        """Return the policy that spends as much as it can on this sample within a mean of `budget_usd` per call.

        Which to use: `best_within` for a batch that is known as a whole, whose budget it never exceeds; this one for a
        stream, whose prompts are sent one by one. Its lambda is fixed, so the mean cost of the prompts to come differs
        from the budget by chance (`forecast_cost` says how far) and by how much they differ from the sample's: take
        one of recent prompts, and take another when these change. Prompts of equal quality go the same way, so that
        less may be spent than by `best_within` on the same sample. Raises as `best_within`.
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

    def forecast_cost(self, quality: pd.DataFrame, n_prompts: int, level: float = 0.95) -> tuple[float, float]:
        """Return the interval of the mean price of the next `n_prompts` prompts of a stream: low and high, dollars.

        The normal interval from this sample of at least two of its prompts, of the chance in both. Raises also for
        fewer than one prompt to come, or a level outside 0 to 1.
        """
        models, expected, price = self.align(quality)
        if len(expected) < 2 or n_prompts < 1 or not 0 < level < 1:
            raise ValueError(f"{len(expected)} prompts to judge {n_prompts} by at level {level}; need 2, 1 and a share")
        paid = _paid(price, pd.Index(models).get_indexer(self.choose(quality)))
        half = NormalDist().inv_cdf((1 + level) / 2) * paid.std(ddof=1) * math.sqrt(1 / len(paid) + 1 / n_prompts)
        return float(paid.mean() - half), float(paid.mean() + half)

    def align(self, quality: pd.DataFrame) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """Return names in alphabetical order; in it quality, (n_prompts, n_models), and prices, (n_models,) or so."""
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


def _paid(price: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the price of the model chosen for each prompt: (n_prompts,)."""
    return price[chosen] if price.ndim == 1 else price[np.arange(len(chosen)), chosen]


def _means(expected: np.ndarray, price: np.ndarray, chosen: np.ndarray) -> tuple[float, float]:
    """Return mean quality and mean price of a choice; exact sums, so that the order of prompts changes no bit."""
    n_prompts = len(chosen)
    return math.fsum(expected[np.arange(n_prompts), chosen]) / n_prompts, math.fsum(_paid(price, chosen)) / n_prompts


def _separate(quality_per_usd: np.ndarray, n_bought: int) -> tuple[int, float]:
    """Return a trade-off between the first `n_bought` upgrades and the rest; fewer if equal ones would be parted."""
    n_upgrades = len(quality_per_usd)
    if n_bought == n_upgrades:
        return n_bought, float(quality_per_usd[-1] / 2) if n_upgrades else 0.0
    n_bought = int(np.searchsorted(-quality_per_usd, -quality_per_usd[n_bought]))
    below = float(quality_per_usd[n_bought])
    if n_bought == 0:
        return 0, 2 * below
    above = float(quality_per_usd[n_bought - 1])
    return n_bought, min(below + (above - below) / 2, math.nextafter(above, -math.inf))


def _best_replacement(expected: np.ndarray, price: np.ndarray, chosen: np.ndarray, left_usd: float) -> tuple[int, int]:
    """Return the prompt and the model that gain most for at most `left_usd` more; the first of the cheapest."""
    best = (0.0, 0.0, 0, int(chosen[0]))
    for block in row_blocks(len(chosen)):
        table, now = price if price.ndim == 1 else price[block], chosen[block, None]
        extra = table - (price[now] if price.ndim == 1 else np.take_along_axis(table, now, axis=1))
        gain = expected[block] - np.take_along_axis(expected[block], now, axis=1)
        np.copyto(gain, -np.inf, where=extra > left_usd)
        most = np.flatnonzero(gain == gain.max())
        row, model = divmod(int(most[extra.ravel()[most].argmin()]), gain.shape[1])
        found = float(gain[row, model]), -float(extra[row, model])
        if found > best[:2]:
            best = (*found, block.start + row, model)
    return best[2:]


@dataclass(frozen=True)
class Upgrades:
    """The upgrades from cheapest to best model, over all prompts, in the order of what a dollar buys."""

    models: tuple[str, ...]  # in alphabetical order; the arrays hold positions in it
    start: np.ndarray  # (n_prompts,), the cheapest model of each prompt
    row: np.ndarray  # (n_upgrades,), the prompt that is upgraded
    before: np.ndarray  # (n_upgrades,), the model it leaves
    after: np.ndarray  # (n_upgrades,), the model it goes to
    quality_per_usd: np.ndarray  # (n_upgrades,), gained, never increasing; equal ones in the order of the prompts

    def choice(self, n_upgrades: int) -> np.ndarray:
        """Return the model of each prompt once the first `n_upgrades` are bought: int array, shape (n_prompts,)."""
        chosen = self.start.copy()
        chosen[self.row[:n_upgrades]] = self.after[:n_upgrades]  # of a prompt that occurs twice the last one holds
        return chosen

    def within(self, price: np.ndarray, budget_usd: float) -> int:
        """Return how many upgrades a mean of `budget_usd` per call buys; below the cheapest models a ValueError."""
        prompts = np.arange(len(self.start))
        spent = math.fsum(np.broadcast_to(price, (len(prompts), len(self.models)))[prompts, self.start]) / len(prompts)
        limit = budget_usd * (1 + ROUNDING)
        if not spent <= limit:
            raise ValueError(f"the budget is {budget_usd:.6g} dollars a call; the cheapest models cost {spent:.6g}")
        costs = self.differences(price).cumsum() / len(prompts)
        return int(np.searchsorted(costs, limit - spent, side="right"))

    def differences(self, table: np.ndarray) -> np.ndarray:
        """Return what each upgrade adds of `table`, shape (n_prompts, n_models) or (n_models,): (n_upgrades,)."""
        table = np.broadcast_to(table, (len(self.start), len(self.models)))
        return table[self.row, self.after] - table[self.row, self.before]


def walk_hulls(models: tuple[str, ...], expected: np.ndarray, price: np.ndarray) -> Upgrades:
    """Return all upgrades worth buying; arguments as `MultiModelPolicy.align` returns them."""
    parts = []
    for block in row_blocks(len(expected)):
        start, row, before, after, slope = _climb(expected[block], price if price.ndim == 1 else price[block])
        parts.append((start, row + block.start, before, after, slope))
    start, row, before, after, slope = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(-slope, kind="stable")  # stable: upgrades of one prompt stay in their order
    return Upgrades(models, start, row[order], before[order], after[order], slope[order])


def _climb(expected: np.ndarray, price: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the upper hulls of a block of prompts from its cheapest to its best models, as the arrays of `Upgrades`.

    Only a model better than all cheaper ones can be a corner. Of these, all that lie below the line between their
    neighbours are removed at once, again and again until none does.
    """
    n_models = expected.shape[1]
    if price.ndim == 1:
        order = np.argsort(price, kind="stable")
        quality = np.take(expected, order, axis=1)
    else:
        order = np.argsort(price, axis=1, kind="stable")
        quality = np.take_along_axis(expected, order, axis=1)
    better = np.ones(expected.shape, dtype=bool)
    np.greater(quality[:, 1:], np.maximum.accumulate(quality, axis=1)[:, :-1], out=better[:, 1:])
    place = np.flatnonzero(better)
    row, gained = place // n_models, quality.ravel()[place]
    model = order[place - row * n_models] if price.ndim == 1 else order.ravel()[place]
    cost = price[model] if price.ndim == 1 else price[row, model]
    while True:
        extra, inside = np.diff(cost), row[1:] == row[:-1]
        slope = np.full(len(row) + 1, np.inf)  # towards each corner; of the last one also away from it
        with np.errstate(divide="ignore", invalid="ignore"):  # infinite at equal price; between prompts never used
            np.copyto(slope[1:-1], np.diff(gained) / extra, where=inside)
        kept = np.ones(len(row), dtype=bool)
        kept[:-1] = ~inside | ((slope[1:-1] <= slope[:-2]) & (extra != 0))
        if kept.all():
            upgrade = np.flatnonzero(inside)
            return model[np.append(True, ~inside)], row[upgrade], model[upgrade], model[upgrade + 1], slope[upgrade + 1]
        row, model, gained, cost = row[kept], model[kept], gained[kept], cost[kept]


def row_blocks(n_rows: int) -> Iterator[slice]:
    """Yield slices over the prompts that are worked on at once: what a block needs stays in the processor's cache."""
    return (slice(begin, min(begin + BLOCK_ROWS, n_rows)) for begin in range(0, n_rows, BLOCK_ROWS))
