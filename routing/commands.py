"""What ``python -m routing train`` and ``route`` do: a router from a user's own battles, and models for prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd

from routing.data.votes import read_table
from routing.policy.budget import MultiModelPolicy, price_per_call
from routing.policy.quality import POOL, win_share
from routing.routers.base import Router, load_router, router_class
from routing.studies.simulated.arena import CHARACTERS_PER_TOKEN, OUTPUT_TOKENS

PROMPT_WIDTH = 48  # characters of a prompt that a table shows


def train_router(battles_csv: Path, name: str, folder: Path, prior_strength: float = 1.0, seed: int = 0) -> Router:
    """Fit a router to a CSV of battles and save it.

    Parameters
    ----------
    battles_csv : Path
        Columns of `routing.battles`; "BradleyTerryRouter" needs no prompts.
    name : one of `routing.routers.base.ROUTERS`
    folder : Path
        Where the router is written; nothing may be there.
    prior_strength : float
        Of a normal prior on the ratings. With the default, 1, a model that won or lost all of its battles has a
        finite rating, and models that never met are comparable; it weighs as little as four battles of equals.
    seed : int
        Of what is drawn in training. It and `prior_strength` are for the routers that have them.

    Raises
    ------
    ValueError, OSError
        A file that is no table of battles (the message names file, column and row, the first below the header being
        0), or a folder that is there.
    """
    if folder.exists():  # before a training that may take minutes
        raise FileExistsError(f"{folder} is there already; remove it or choose another name")
    kind = router_class(name)
    settings = {"prior_strength": prior_strength, "seed": seed}
    router = kind(**{field.name: settings[field.name] for field in fields(kind) if field.name in settings})
    columns = ["model_a", "model_b", "winner"]
    battles = read_table(battles_csv, columns if name == "BradleyTerryRouter" else ["prompt", *columns])
    try:
        router.fit(battles)
    except ValueError as error:
        raise ValueError(f"{battles_csv}: {error}") from error
    router.save(folder)
    return router


def read_prices(path: Path, prompts: Sequence[str], output_tokens: float = OUTPUT_TOKENS) -> pd.Series | pd.DataFrame:
    """Dollars a call from a CSV with a row a model: a Series, or a DataFrame with a row a prompt.

    Columns ``model`` and ``usd_per_call``; or ``model``, ``usd_per_million_input`` and ``usd_per_million_output``, in
    which case a prompt's length is taken to be its characters over 4 and an answer's to be `output_tokens`.

    Raises
    ------
    ValueError, OSError
        Other columns, a model named twice or not at all, or a price that is no number of at least 0.
    """
    table = read_table(path, ["model"])
    per_call, per_token = ["usd_per_call"], ["usd_per_million_input", "usd_per_million_output"]
    wanted = per_call if "usd_per_call" in table.columns else per_token
    if not set(wanted) <= set(table.columns):
        raise ValueError(
            f"{path}: needs column usd_per_call, or usd_per_million_input and usd_per_million_output; it has"
            f" {', '.join(map(str, table.columns))}"
        )
    if table["model"].isna().any() or table["model"].duplicated().any():
        row = int(np.argmax(table["model"].isna() | table["model"].duplicated()))
        raise ValueError(f"{path}, row {row}, column model: {table['model'].iloc[row]} (missing, or named before)")
    table = table.set_index(table["model"].astype(str))
    for column in wanted:
        numbers = pd.to_numeric(table[column], errors="coerce")
        at_fault = ~(np.isfinite(numbers) & (numbers >= 0))
        if at_fault.any():
            model = at_fault.idxmax()
            raise ValueError(f"{path}, model {model}, column {column}: {table[column][model]} is no price in dollars")
        table[column] = numbers
    if wanted == per_call:
        return table["usd_per_call"].astype(float)
    lengths = np.array([len(prompt) for prompt in prompts]) / CHARACTERS_PER_TOKEN
    return price_per_call(table[per_token], output_tokens, lengths)


def rate_models(
    router: Router, prompts: Sequence[str], prices: pd.Series | pd.DataFrame, reference: str = POOL
) -> dict[str, pd.DataFrame]:
    """Rating, win probability and price of each model on each prompt: three tables, (n_prompts, n_models).

    The win probability, a tie counting half, is that against `reference`, or the mean over the other models.
    """
    if not prompts:
        raise ValueError("no prompt: give one as an argument, or one a line on standard input")
    models = list(router.models)
    ratings = pd.DataFrame(router.ratings(list(prompts)), columns=models)
    unpriced = [name for name in models if name not in (prices.columns if prices.ndim == 2 else prices.index)]
    if unpriced:
        raise ValueError(f"no price of {', '.join(unpriced)}; the router rates them, so the prices have to have them")
    priced = prices[models] if prices.ndim == 2 else pd.DataFrame([prices[models]] * len(prompts), ratings.index)
    return {
        "rating": ratings,
        "win_probability": win_share(ratings, router.nu, reference),
        "price_usd": priced.set_axis(ratings.index),
    }


def choose_models(
    rated: dict[str, pd.DataFrame], budget_usd: float | None = None, quality_per_usd: float | None = None
) -> np.ndarray:
    """Name of the model for each prompt: at most `budget_usd` a call on average, or at a trade-off.

    Raises
    ------
    ValueError
        A budget below the cheapest models, or not exactly one of the two.
    """
    if (budget_usd is None) == (quality_per_usd is None):
        raise ValueError("give a budget or a trade-off, one of the two")
    policy = MultiModelPolicy(rated["price_usd"], quality_per_usd or 0.0)
    quality = rated["win_probability"]
    return policy.choose(quality) if budget_usd is None else policy.best_within(quality, budget_usd).models


def route_prompts(
    folder: Path,
    prompts: Sequence[str],
    prices_csv: Path,
    budget_usd: float | None = None,
    quality_per_usd: float | None = None,
    output_tokens: float = OUTPUT_TOKENS,
    reference: str = POOL,
    as_json: bool = False,
) -> str:
    """What ``route`` prints: a table, or with `as_json` a JSON object a line for each prompt.

    The table has a row a model for one prompt, and for several a row a prompt with the model it goes to.
    """
    router = load_router(folder)
    rated = rate_models(router, prompts, read_prices(prices_csv, prompts, output_tokens), reference)
    chosen = choose_models(rated, budget_usd, quality_per_usd)
    if as_json:
        return "\n".join(_as_json(prompt, row, chosen[row], rated) for row, prompt in enumerate(prompts))
    if len(prompts) == 1:
        table = pd.DataFrame({name: values.iloc[0] for name, values in rated.items()}).rename_axis("model")
        table = table.sort_values("rating", ascending=False, kind="stable").reset_index()
        table["choice"] = np.where(table["model"] == chosen[0], "<-", "")
    else:
        columns = rated["rating"].columns.get_indexer(chosen)
        rows = np.arange(len(prompts))
        picked = {name: values.to_numpy()[rows, columns] for name, values in rated.items()}
        table = pd.DataFrame({"prompt": [_shorten(prompt) for prompt in prompts], "model": chosen, **picked})
    formats = {"rating": "{:+.2f}".format, "win_probability": "{:.3f}".format, "price_usd": "{:.6f}".format}
    text = table.to_string(index=False, formatters=formats)
    if len(prompts) > 1:
        means = table["win_probability"].mean(), table["price_usd"].mean()
        text += "\nmean: win probability {:.3f}, price {:.6f} dollars a call".format(*means)
    return text


def _shorten(prompt: str) -> str:
    line = " ".join(prompt.split())
    return line if len(line) <= PROMPT_WIDTH else line[: PROMPT_WIDTH - 3] + "..."


def _as_json(prompt: str, row: int, chosen: str, rated: dict[str, pd.DataFrame]) -> str:
    models = {
        model: {name: float(values[model].iloc[row]) for name, values in rated.items()}
        for model in rated["rating"].columns
    }
    return json.dumps({"prompt": prompt, "choice": chosen, "models": models}, ensure_ascii=False)
