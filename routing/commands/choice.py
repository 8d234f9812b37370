"""From a router, prompts and a table of prices to a choice for each prompt: what the command line does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from routing.policy.budget import CHARACTERS_PER_TOKEN, MultiModelPolicy, price_per_call, route_pair
from routing.policy.quality import win_share


def most_expensive(prices: pd.DataFrame) -> str | None:
    """Return the model (row) cheaper than none of the others in any column; None where there is no single one."""
    values = prices.to_numpy()
    above = (values[:, None] >= values).all(axis=(1, 2))
    return prices.index[above][0] if above.sum() == 1 else None


def find_pair(prices: pd.DataFrame) -> list[str] | None:
    """Return the names of two models, the more expensive one first; None for other candidates, or equal prices."""
    strong = most_expensive(prices)
    return None if strong is None or len(prices) != 2 else sorted(prices.index, key=lambda name: name != strong)


@dataclass(frozen=True, eq=False)
class RatedPrompts:
    """What a router and prices say of each model on each prompt; tables have shape (n_prompts, n_candidates)."""

    rating: pd.DataFrame  # log-odds
    win_share: pd.DataFrame  # expected, as `routing.policy.win_share`
    price_usd: pd.DataFrame  # dollars that a call is expected to cost
    strong: str | None  # the most expensive model
    p_strong: np.ndarray | None  # (n_prompts,), of two candidates P(the strong one wins | no tie)

    @property
    def pair(self) -> list[str] | None:
        """Both candidates' names as `find_pair`."""
        names = sorted(self.win_share.columns, key=lambda name: name != self.strong)
        return None if self.p_strong is None else names

    def select(self, mask: np.ndarray) -> RatedPrompts:
        """Return the same at the prompts at which `mask`, (n_prompts,) bool, is true."""
        tables = (table[mask].reset_index(drop=True) for table in (self.rating, self.win_share, self.price_usd))
        return RatedPrompts(*tables, self.strong, None if self.p_strong is None else self.p_strong[mask])

    def choose(self, option: str, value: float) -> np.ndarray:
        """Return the models, (n_prompts,), for a "threshold" of a pair, a "lambda", or a "budget" that all share.

        Raises as `MultiModelPolicy`.
        """
        if option == "threshold":
            return route_pair(self.p_strong, value, *self.pair)
        if option == "budget":
            return MultiModelPolicy(self.price_usd).best_within(self.win_share, value).models
        return MultiModelPolicy(self.price_usd, value).choose(self.win_share)

    def numbers(self, option: str) -> dict[str, np.ndarray]:
        """Return what to show, (n_prompts, n_candidates) by name; with a threshold the probability that it is about."""
        found = {name: getattr(self, name).to_numpy() for name in ("rating", "win_share", "price_usd")}
        if option == "threshold":
            columns = [self.p_strong if name == self.strong else 1 - self.p_strong for name in self.win_share.columns]
            found["win_probability"] = np.stack(columns, axis=1)
        return found


def rate_prompts(
    router: Any, prompts: Sequence[str], prices: pd.DataFrame, reference: str = "pool", output_tokens: float = 264.0
) -> RatedPrompts:
    """Rate the models that are priced on prompts; the router looks at each prompt once.

    `prices` has a row per model: ``usd_per_call``, or ``usd_per_million_input`` and ``usd_per_million_output`` for an
    answer of `output_tokens`. Win shares are against `reference`, or the mean over all other models of the router.
    """
    rating = pd.DataFrame(router.ratings(prompts), columns=list(router.models))
    share, models = win_share(rating, router.nu, reference), list(prices.index)
    if "usd_per_call" in prices.columns:
        price = pd.DataFrame(np.tile(prices["usd_per_call"], (len(prompts), 1)), columns=models)
    else:
        lengths = np.array([len(prompt) for prompt in prompts]) / CHARACTERS_PER_TOKEN
        price = price_per_call(prices, output_tokens, lengths)
    pair, p_strong = find_pair(prices), None
    if pair is not None:
        p_strong = router.win_probability_at((rating[pair[0]] - rating[pair[1]]).to_numpy())
    return RatedPrompts(rating[models], share[models], price, most_expensive(prices), p_strong)
