"""A user's own files for `route` and `evaluate`: prices, prompts with scores, prompts on standard input."""

from __future__ import annotations

import difflib
import io
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
import pandas as pd

from routing.battles import clean_name, quote, warn_of_case
from routing.data.tables import PRICE_COLUMNS, check_columns, read_table

if TYPE_CHECKING:
    from routing.data.benchmarks import BenchmarkTable

COST = "|total_cost"  # behind a model's name: the column of what its answers cost, as RouterBench calls it
NO_PROMPT = "no prompt: give one as an argument, or one a line on standard input"


def near(name: str, known: Iterable[str]) -> str:
    """Return a hint at the most similar of the known names, or nothing."""
    by_case = {other.casefold(): other for other in known}
    found = difflib.get_close_matches(name.casefold(), by_case, 1)
    return f" (but for '{quote(by_case[found[0]])}')" if found else ""


def read_prices(path: Path, models: Sequence[str]) -> pd.DataFrame:
    """Read the prices of these models in dollars, a row per model; those of other models are passed over.

    Columns ``usd_per_call``, or ``usd_per_million_input`` and ``usd_per_million_output``; the file names the models in
    column ``model``. Raises ValueError or OSError for other columns, a model named twice or not at all, or a price that
    is no number of at least 0.
    """
    table = read_table(path, ["model"])
    wanted = list(PRICE_COLUMNS[:1] if "usd_per_call" in table.columns else PRICE_COLUMNS[1:])
    if not set(wanted) <= set(table.columns):
        raise ValueError(
            f"{path}: needs column usd_per_call, or usd_per_million_input and usd_per_million_output; it has"
            f" {quote(', '.join(table.columns))}"
        )
    names = table["model"].fillna("").map(clean_name)
    at_fault = (names == "") | names.duplicated()
    if at_fault.any():
        row = at_fault.idxmax()
        reason = f"'{quote(names[row])}' is named twice" if names[row] else "no model name"
        raise ValueError(f"{path}, row {row}, column model: {reason}")
    warn_of_case(names)
    unpriced = [name + near(name, names) for name in models if name not in set(names)]
    if unpriced:
        listed = quote(", ".join(unpriced))
        raise ValueError(f"{path}: no price for {listed}; add them, or name those to choose from with --models")
    table = table[wanted].set_axis(names).loc[list(models)]
    prices = table.apply(pd.to_numeric, errors="coerce").astype(float)
    for model, column in np.argwhere(~(prices.ge(0) & np.isfinite(prices)).to_numpy())[:1]:
        where, found = f"model {quote(models[model])}, column {wanted[column]}", quote(table.iat[model, column])
        raise ValueError(f"{path}, {where}: {found} is no price in dollars")
    return prices


def read_scores(path: Path, known: Sequence[str], renamed: Mapping[str, str] | None = None) -> BenchmarkTable:
    """Read prompts with a score in a column for each of two or more of the `known` models; others are passed over.

    Columns ``<model>|total_cost``, for all of these models or none, hold what each answer cost in dollars. `renamed` as
    in `read_table`. Raises ValueError or OSError; the message names file, row and column.
    """
    from routing.data.benchmarks import BenchmarkTable  # not needed by `route`, which starts sooner without

    table = read_table(path, ["prompt"], renamed)
    table.columns = table.columns.map(clean_name)
    models = [model for model in known if model in table.columns]
    if len(models) < 2:
        rated, found = quote(", ".join(known)), quote(", ".join(table.columns))
        raise ValueError(f"{path}: needs a column of scores for two of the router's models ({rated}); it has {found}")
    priced = [model + COST for model in models if model + COST in table.columns]
    if priced:
        check_columns(table.columns, [model + COST for model in models], path)
    numbers = table[models + priced].apply(pd.to_numeric, errors="coerce").astype(float)
    faults = ~np.isfinite(numbers)
    faults[priced] |= numbers[priced] < 0
    faults.insert(0, "prompt", table["prompt"].fillna("").str.strip() == "")
    for row, column in np.argwhere(faults.to_numpy())[:1]:
        name = faults.columns[column]
        found = "it is empty" if column == 0 else f"{quote(table[name].iloc[row], 40)} is no number to use here"
        raise ValueError(f"{path}, row {row}, column {quote(name)}: {found}; mend or leave out the row")
    if table.empty:
        raise ValueError(f"{path} holds no prompt")
    costs = numbers[priced].set_axis(models, axis=1) if priced else None
    return BenchmarkTable(table[["prompt"]], numbers[models], costs)


def read_prompts(path: Path) -> list[str]:
    """Read the prompts of a table, or of a ``.txt`` with one a line; blank ones are left out, none is a ValueError."""
    if path.suffix == ".txt":
        prompts = path.read_text(encoding="utf-8-sig").split("\n")
    else:
        prompts = read_table(path, ["prompt"])["prompt"].dropna().tolist()
    if not (found := [prompt for prompt in prompts if prompt.strip()]):
        raise ValueError(f"{path} holds no prompt")
    return found


def read_lines(
    stream: TextIO | None, as_json: bool, warn: Callable[[object], None] | None = None
) -> Iterator[list[str]]:
    r"""Yield the prompts of standard input in blocks, as they come; a line ends at \n alone.

    A line that is no text or no JSON raises ValueError, or is given to `warn` and taken for a blank one.
    """
    if stream is None:
        raise ValueError(f"{NO_PROMPT} (which is closed)")
    if stream.isatty():
        print("routing: waiting for prompts, one a line; Ctrl-D ends them", file=sys.stderr)
    binary = stream.buffer if hasattr(stream, "buffer") else io.BytesIO(stream.read().encode())
    parts, numbers = [], itertools.count(1)

    def read(line: bytes) -> str:
        try:
            return _read_line(line, next(numbers), as_json)
        except ValueError as error:
            if warn is None:
                raise
            warn(error)
            return ""

    while chunk := binary.read1(1 << 16):
        parts.append(chunk)
        if b"\n" in chunk:
            *lines, rest = b"".join(parts).split(b"\n")
            yield [read(line) for line in lines]
            parts = [rest]
    if rest := b"".join(parts):
        yield [read(rest)]


def _read_line(line: bytes, number: int, as_json: bool) -> str:
    try:
        text = line.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8")
        if not as_json or not text.strip():
            return text
        record = json.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input, line {number}: it is not UTF-8 ({error.reason}); convert it") from error
    except ValueError as error:
        raise ValueError(f"standard input, line {number}: it is not JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
        raise ValueError(f'standard input, line {number}: expected an object {{"prompt": "..."}}')
    return record["prompt"]
