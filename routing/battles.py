"""The battle table and its pair counts: what every estimator here is fitted to.

A table of battles has the columns model_a and model_b, the models whose answers to one prompt were shown first and
second; winner, which is "model_a", "tie" or "model_b" (other usual labels are understood); and, but for counts and
ratings, prompt, a string. Which model stands first says how a battle was shown, never who is better. So everything
that is fitted starts from `canonical_order` or `count_pairs`, which are the same, bit for bit, whichever way round a
battle is written and in whatever order the rows stand.
"""

from __future__ import annotations

import hashlib
import unicodedata
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

PAIR_COLUMNS = ("model_a", "model_b")
WINNERS = ("model_a", "tie", "model_b")
BOTH_BAD = ("tie (bothbad)", "both_bad")  # ties too
_TIES = dict.fromkeys(("tie", *BOTH_BAD), 1)
_LABELS = (
    "model_a, tie (or tie (bothbad), both_bad) and model_b in the whole column; or A, tie and B; or the winning model's"
    " name and tie; or the score of model_a: 1, 0.5 and 0"
)


def clean_name(name: str) -> str:
    """Return a name without what nobody sees: one space per run of white space, no format characters, NFC."""
    if not name.isascii():
        ignored = (c for c in name if unicodedata.category(c) != "Cf" and not "\ufe00" <= c <= "\ufe0f")
        name = unicodedata.normalize("NFC", "".join(ignored))
    return " ".join(name.split())


def warn_of_case(names: Iterable[str]) -> None:
    """Warn of names that differ only in case: they are kept as two, though one model may be meant."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            warnings.warn(f"models '{quote(other)}' and '{quote(name)}' differ only in case", stacklevel=2)


def quote(text: object, limit: int = 200) -> str:
    """Return a text as a message may show it: control characters escaped, cut to about `limit` characters."""
    text = str(text)
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:limit])
    return shown if len(text) <= limit and len(shown) <= limit else shown[: limit - 3] + "..."


class BattleCodes(NamedTuple):
    """A validated battle table as integers."""

    models: tuple[str, ...]  # sorted names
    model_a: np.ndarray  # (n_battles,) int64, index into models
    model_b: np.ndarray  # (n_battles,) int64, index into models
    outcome: np.ndarray  # (n_battles,) int64: 0 model_a won, 1 tie, 2 model_b won


def encode_battles(battles: pd.DataFrame) -> BattleCodes:
    """Check a battle table and turn its names, cleaned, and its labels into integers; warn as `warn_of_case`.

    ValueError for a missing column, no rows, a missing value, an unknown or ambiguous winner label, or a model against
    itself; the message names the column and the first row at fault (counted from 0).
    """
    return _encode(battles)[0]


def _encode(battles: pd.DataFrame) -> tuple[BattleCodes, bool]:
    """Return the codes, and whether names and labels stand in the table as they should."""
    missing = [name for name in (*PAIR_COLUMNS, "winner") if name not in battles.columns]
    if missing:
        found = quote(", ".join(map(str, battles.columns)))
        raise ValueError(f"the battle table lacks column {', '.join(missing)}; it has {found}")
    if len(battles) == 0:
        raise ValueError("the battle table has no rows")
    sides, clean = [], True
    for column in PAIR_COLUMNS:
        codes, names = pd.factorize(battles[column])
        _refuse(battles, column, codes < 0, "no model name (missing value)")
        cleaned = [clean_name(name) if isinstance(name, str) else "" for name in names]
        nameless = np.array([not name for name in cleaned])[codes]
        _refuse(battles, column, nameless, "a model name is a non-empty string, not {}")
        sides.append((codes, cleaned))
        clean &= cleaned == list(names)
    if "prompt" in battles.columns:
        _refuse(battles, "prompt", battles["prompt"].isna().to_numpy(), "no prompt (missing value)")
    models = tuple(sorted({*sides[0][1], *sides[1][1]}))
    warn_of_case(models)
    position = {name: index for index, name in enumerate(models)}
    model_a, model_b = (np.array([position[n] for n in names], dtype=np.int64)[codes] for codes, names in sides)
    _refuse(battles, "model_a", model_a == model_b, "{} meets itself; a battle needs two different models")
    outcome, standard = _read_winners(battles, position, model_a, model_b)
    return BattleCodes(models, model_a, model_b, outcome), clean and standard


def _refuse(battles: pd.DataFrame, column: str, at_fault: np.ndarray, reason: str) -> None:
    if at_fault.any():
        row = int(np.argmax(at_fault))
        value = battles[column].iloc[row]
        shown = f"'{quote(value)}'" if isinstance(value, str) else quote(value)
        raise ValueError(f"battle table, row {row}, column {column}: {reason.format(shown)}")


def _read_winners(
    battles: pd.DataFrame, position: Mapping[str, int], model_a: np.ndarray, model_b: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Return the outcome of each battle, by the one kind of label that the whole column holds; and if it is ours."""
    codes, labels = pd.factorize(battles["winner"])
    _refuse(battles, "winner", codes < 0, "no winner (missing value)")
    texts = [clean_name(str(label)) for label in labels]

    def look_up(table: Mapping, keys: list) -> np.ndarray:
        return np.array([table.get(key, -1) for key in keys], dtype=np.int64)[codes]

    words = [text.casefold() for text in texts]
    ours = look_up({"model_a": 0, "model_b": 2} | _TIES, words)
    if (ours >= 0).all():
        return ours, set(labels) <= set(WINNERS)
    named, tied = look_up(position, texts), look_up(_TIES, words)
    by_name = np.select([(tied >= 0) & (named >= 0), named == model_a, named == model_b], [-1, 0, 2], tied)
    scores = [float(text) if text.replace(".", "", 1).isdecimal() else None for text in texts]
    rules = [ours, look_up({"a": 0, "b": 2} | _TIES, words), by_name, look_up({1.0: 0, 0.5: 1, 0.0: 2}, scores)]
    fitting = [outcome for outcome in rules if (outcome >= 0).all()]
    if not fitting:
        nearest = max(rules, key=lambda outcome: np.count_nonzero(outcome >= 0))
        _refuse(battles, "winner", nearest < 0, f"unknown label {{}}; use {_LABELS}")
    for other in fitting[1:]:
        reason = "{} can be read in two ways, of which one is a model's name; use model_a, tie and model_b"
        _refuse(battles, "winner", other != fitting[0], reason)
    return fitting[0], False


def number_texts(texts: np.ndarray | pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return distinct texts in alphabetical order, and each text's number among them: (n_distinct,), (n_texts,).

    As objects: an array of numpy's own strings would give each the length of the longest.
    """
    return np.unique(np.asarray(texts, dtype=object), return_inverse=True)


def hash_texts(texts: Iterable[str]) -> np.ndarray:
    """Return 64 bits of the sha256 of each text, (n_texts,) uint64: what a router remembers of its prompts."""
    digests = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8] for text in texts)
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def validate_battles(battles: pd.DataFrame) -> pd.DataFrame:
    """Return the battle columns of a table, checked as by `encode_battles`, with cleaned names and labels of `WINNERS`.

    Other columns are left out, because nothing here knows how they change when the two models do.
    """
    codes, as_written = _encode(battles)
    table = battles[[name for name in ("prompt", *PAIR_COLUMNS, "winner") if name in battles.columns]].copy()
    if as_written:
        return table
    names = np.array(codes.models, dtype=object)
    outcome = np.array(WINNERS, dtype=object)[codes.outcome]
    return table.assign(model_a=names[codes.model_a], model_b=names[codes.model_b], winner=outcome)


def swap_battles(battles: pd.DataFrame, mask: np.ndarray | None = None) -> pd.DataFrame:
    """Swap the two models in the rows of `mask`, (n_battles,) of bool (default: all)."""
    table = validate_battles(battles)
    mask = np.ones(len(table), dtype=bool) if mask is None else np.asarray(mask)
    if mask.shape != (len(table),) or mask.dtype != bool:
        raise ValueError(f"mask must be {len(table)} booleans, one per battle, not {mask.dtype} of shape {mask.shape}")
    return _swap(table, mask)


def _swap(table: pd.DataFrame, mask: np.ndarray) -> pd.DataFrame:
    mirrored = table["winner"].map({"model_a": "model_b", "tie": "tie", "model_b": "model_a"})
    return table.assign(
        model_a=table["model_a"].where(~mask, table["model_b"]),
        model_b=table["model_b"].where(~mask, table["model_a"]),
        winner=table["winner"].where(~mask, mirrored),
    )


def canonical_order(battles: pd.DataFrame) -> pd.DataFrame:
    """Return the battles with every pair in one orientation (alphabetical) and the rows in one order.

    Swapping models or shuffling rows beforehand changes nothing in the result but its index. The index
    labels of the input are kept, so that what belongs to a row (an embedding, a weight) can be carried along.
    """
    table = validate_battles(battles)
    categories = table.select_dtypes("category").columns  # each column's have an order of their own
    table = table.astype(dict.fromkeys(categories, "str"))
    oriented = _swap(table, (table["model_a"] > table["model_b"]).to_numpy(dtype=bool))
    keys = [*PAIR_COLUMNS, "winner", *(["prompt"] if "prompt" in table.columns else [])]
    return oriented.sort_values(keys, kind="stable")


@dataclass(frozen=True)
class PairCounts:
    """Hold how often each model beat each other one.

    ValueError for wrong shapes, names that are repeated, a count that is negative or not finite, ties that are not
    symmetric, or a model against itself; the message names the models.
    """

    models: tuple[str, ...]
    wins: np.ndarray  # (n_models, n_models) float: how many battles (or their weight) i won against j
    ties: np.ndarray  # (n_models, n_models) float, symmetric: how many battles of i and j were ties

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", tuple(self.models))
        n_models = len(self.models)
        if len(set(self.models)) != n_models:
            repeated = sorted({name for name in self.models if self.models.count(name) > 1})
            raise ValueError(f"pair counts: a model is named twice: {', '.join(repeated)}")
        for kind in ("wins", "ties"):
            counts = np.asarray(getattr(self, kind), dtype=float)
            if counts.shape != (n_models, n_models):
                raise ValueError(f"pair counts: {kind} has shape {counts.shape}, expected {(n_models, n_models)}")
            bad = ~np.isfinite(counts) | (counts < 0)
            if bad.any():
                i, j = np.argwhere(bad)[0]
                cell = f"{kind}[{self.models[i]}, {self.models[j]}]"
                raise ValueError(f"pair counts: {cell} is {counts[i, j]}; counts are finite and not negative")
            if np.diagonal(counts).any():
                name = self.models[int(np.flatnonzero(np.diagonal(counts))[0])]
                raise ValueError(f"pair counts: {kind} has battles of {name} against itself")
            counts.setflags(write=False)
            object.__setattr__(self, kind, counts)
        if not np.array_equal(self.ties, self.ties.T):
            i, j = np.argwhere(self.ties != self.ties.T)[0]
            both = f"{self.ties[i, j]} and {self.ties[j, i]}"
            raise ValueError(f"pair counts: ties are not symmetric: {self.models[i]}, {self.models[j]}: {both}")

    @property
    def battles(self) -> np.ndarray:
        """Battles of each pair, (n_models, n_models), symmetric."""
        return self.wins + self.wins.T + self.ties

    @property
    def n_battles(self) -> float:
        """All battles, each counted once."""
        return float(self.wins.sum() + self.ties.sum() / 2)


def count_pairs(battles: pd.DataFrame, weights: np.ndarray | None = None) -> PairCounts:
    """Sum a battle table into pair counts, models in alphabetical order.

    `weights`, (n_battles,), by default 1: a row of weight 2 counts as two equal rows. ValueError as `encode_battles`,
    and for weights that are negative, not finite or not one a row.
    """
    codes = encode_battles(battles)
    if weights is not None:
        weights = np.asarray(weights, dtype=float)
        if weights.shape != (len(battles),):
            raise ValueError(f"weights have shape {weights.shape}, expected ({len(battles)},): one per battle")
        bad = ~np.isfinite(weights) | (weights < 0)
        if bad.any():
            row = int(np.argmax(bad))
            raise ValueError(f"weight of row {row} is {weights[row]}; weights are finite and not negative")
    return sum_outcomes(*codes, weights)


def pair_codes(n_models: int, model_a: np.ndarray, model_b: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """Return what each battle counts for as one integer, whichever way round it is written: (n_battles,) int64.

    ``3 * (low * n_models + high) + outcome``, where `low` is the smaller of the two models' indices and the outcome is
    seen from it; arguments as the fields of `BattleCodes`.
    """
    pair = np.minimum(model_a, model_b) * n_models + np.maximum(model_a, model_b)
    return pair * 3 + np.where(model_a > model_b, 2 - outcome, outcome)


def split_codes(n_models: int, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two models and the outcome that `pair_codes` made one integer of; three arrays (n_battles,)."""
    pair, outcome = np.divmod(codes, 3)
    return *np.divmod(pair, n_models), outcome


def sum_outcomes(models: tuple[str, ...], *fields: np.ndarray | None) -> PairCounts:
    """Sum battles that are integers already; arguments as the fields of `BattleCodes`, then perhaps the weights."""
    return sum_codes(models, pair_codes(len(models), *fields[:3]), *fields[3:])


def sum_codes(models: tuple[str, ...], codes: np.ndarray, weights: np.ndarray | None = None) -> PairCounts:
    """Sum battles given as `pair_codes` into pair counts."""
    n_models = len(models)
    if weights is not None:
        # A sum of floats depends on its order. Sorted within each cell, it cannot depend on the order of rows.
        order = np.lexsort((weights, codes))
        codes, weights = codes[order], weights[order]
    counts = np.bincount(codes, weights, minlength=3 * n_models**2).reshape(n_models, n_models, 3).astype(float)
    return PairCounts(models, counts[..., 0] + counts[..., 2].T, counts[..., 1] + counts[..., 1].T)


def expand_counts(counts: PairCounts, rng: np.random.Generator) -> pd.DataFrame:
    """Return one row for each counted battle, in random order, each pair randomly either way round.

    The inverse of `count_pairs`, for what needs a table. ValueError for counts that are not whole numbers.
    """
    names = np.array(counts.models, dtype=object)
    tables = []
    for count, label in ((counts.wins, "model_a"), (np.triu(counts.ties), "tie")):
        if (count % 1 != 0).any():
            i, j = np.argwhere(count % 1 != 0)[0]
            raise ValueError(f"{names[i]} against {names[j]}: {count[i, j]} is not a whole number")
        first, second = np.repeat(np.argwhere(count), count[count > 0].astype(np.int64), axis=0).T
        tables.append(pd.DataFrame({"model_a": names[first], "model_b": names[second], "winner": label}))
    battles = pd.concat(tables, ignore_index=True)
    battles = battles.iloc[rng.permutation(len(battles))].reset_index(drop=True)
    return swap_battles(battles, rng.random(len(battles)) < 0.5)
