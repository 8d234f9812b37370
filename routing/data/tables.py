"""Files as tables: CSV, TSV, JSON and Parquet; names and prompts are text, whatever they look like.

A model may be called 7, None or nan. So the columns of `TEXT_COLUMNS` are never guessed at, and only an empty cell is a
missing value. Of a CSV file each row must have as many fields as the header; empty rows at the end are left out.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import pandas as pd

from routing.battles import PAIR_COLUMNS, clean_name, quote

NAME_COLUMNS = (*PAIR_COLUMNS, "winner")
PRICE_COLUMNS = ("usd_per_call", "usd_per_million_input", "usd_per_million_output")
TEXT_COLUMNS = {"prompt", *NAME_COLUMNS, "model", *PRICE_COLUMNS, "question", "eval_prompt"}
TEXT_COLUMNS |= {"instruction", "generator_1", "generator_2"}  # of AlpacaEval
KINDS = {".csv": "CSV", ".tsv": "TSV", ".parquet": "Parquet"} | dict.fromkeys((".json", ".jsonl", ".ndjson"), "JSON")
READ_ERRORS = (ValueError, OSError, EOFError, ImportError, RuntimeError, zlib.error, lzma.LZMAError)
_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair is legal in JSON, but stands for no character
_OPEN = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_AS_WRITTEN = {"keep_default_na": False, "na_values": [""], "low_memory": False, "encoding": "utf-8-sig"}


@contextmanager
def blame(place: object, errors: type[Exception] | tuple[type[Exception], ...] = ValueError) -> Iterator[None]:
    """Turn one of these errors in the block into a ValueError that begins with the place at fault."""
    try:
        yield
    except errors as error:
        raise ValueError(f"{place}: {error}") from error


def file_kind(name: str) -> str | None:
    """Return the format that a file's name tells (a value of `KINDS`), None for another file."""
    path = PurePath(name)
    return KINDS.get((PurePath(path.stem) if path.suffix in _OPEN else path).suffix.lower())


def check_columns(found: Iterable[str], wanted: Iterable[str], path: Path) -> None:
    """Raise ValueError naming the file, the columns it lacks, and those it has."""
    found = list(map(str, found))
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(f"{path}: lacks {quote(', '.join(missing))}; it has {quote(', '.join(found))}")


def read_table(path: Path, columns: Iterable[str], renamed: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read a file, plain or compressed, that has at least these columns; its name tells the format, by default CSV.

    `renamed` maps a column's name here to that in the file. Raises OSError for a file that cannot be opened, ValueError
    with file and row where it is not what its name says, or lacks a column.
    """
    columns, renamed, kind = list(columns), renamed or {}, file_kind(path.name) or "CSV"
    with _OPEN.get(path.suffix, open)(path, "rb") as file, blame(f"{path}: cannot be read as {kind}", READ_ERRORS):
        table = parse_table(file, kind, text=TEXT_COLUMNS | {*renamed.values()})
    check_columns(table.columns, [renamed.get(name, name) for name in columns], path)
    table = table.drop(columns=set(renamed) - set(renamed.values()), errors="ignore")
    table = table.rename(columns={theirs: ours for ours, theirs in renamed.items()})
    check_columns(table.columns, columns, path)
    return table


def parse_table(
    file: BinaryIO, kind: str, columns: Collection[str] | None = None, text: Collection[str] = TEXT_COLUMNS
) -> pd.DataFrame:
    """Read an open file that can be rewound; `columns` are those wanted, of those it has, `text` those that hold text.

    Errors (`READ_ERRORS`) name the row, counted from 0, or the line, counted from 1.
    """
    if kind in ("Parquet", "JSON"):
        return (_parse_parquet if kind == "Parquet" else _parse_json)(file, columns, text)
    separator = "\t" if kind == "TSV" else ","
    header, n_rows = _check_fields(file, separator)
    kept = header if columns is None else [name for name in header if clean_name(name) in columns]
    if not kept:
        return pd.DataFrame(index=range(n_rows))
    file.seek(0)
    dtypes, wanted = {name: "str" for name in header if clean_name(name) in text}, None if columns is None else kept
    table = pd.read_csv(file, sep=separator, index_col=False, usecols=wanted, nrows=n_rows, dtype=dtypes, **_AS_WRITTEN)
    if len(table) != n_rows:
        raise ValueError(f"{len(table)} rows instead of {n_rows} are found; put quotes around text that holds quotes")
    return table.rename(columns=clean_name)


def _check_fields(file: BinaryIO, separator: str) -> tuple[list[str], int]:
    """Return the header, and how many rows there are up to the last that is not empty, each as wide as the header."""
    csv.field_size_limit(sys.maxsize)  # a prompt may be long
    decoded = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    header, n_rows, n_used = None, 0, 0
    try:
        for row in csv.reader(decoded, delimiter=separator, strict=True):
            content = "".join(row)
            filled = bool(content.strip())
            if "\0" in content:
                raise ValueError(f"row {n_rows}: it holds a NUL character; save it as UTF-8")
            if len(row) <= 1 and not filled:
                continue  # a blank line
            if header is None:
                header = row
                continue
            if filled and len(row) != len(header):
                counts = f"row {n_rows} has {len(row)} fields, the header {len(header)}"
                raise ValueError(f"{counts}; put quotes around text that holds {separator!r}")
            n_rows += 1
            n_used = n_rows if filled else n_used
    except csv.Error as error:
        raise ValueError(f"row {n_rows}: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"near row {n_rows}: it is not UTF-8 ({error.reason}); save it as UTF-8") from error
    decoded.detach()
    if header is None:
        raise ValueError("it is empty")
    if repeated := {name for name in header if name and header.count(name) > 1}:
        raise ValueError(f"a column is named twice: {quote(', '.join(sorted(repeated)))}")
    return header, n_used


def _parse_json(file: BinaryIO, columns: Collection[str] | None, text: Collection[str]) -> pd.DataFrame:
    """Read a list of JSON objects, or one object a line."""
    content, what = file.read().decode("utf-8-sig"), "line"
    numbered = ((number, line) for number, line in enumerate(content.split("\n"), start=1) if line.strip())
    if content.lstrip().startswith("["):
        numbered, what = enumerate(json.loads(content)), "record"
    records = []
    for number, record in numbered:
        with blame(f"{what} {number}"):
            record = json.loads(record) if what == "line" else record
            if not isinstance(record, dict):
                raise ValueError(f"expected a JSON object, not {quote(record, 40)}")
        records.append(record if columns is None else {name: record[name] for name in columns if name in record})
    found = [name for name in text if any(name in record for record in records)]
    texts = {name: _as_text((record.get(name) for record in records), name) for name in found}
    return pd.DataFrame(records).assign(**texts)


def _as_text(values: Iterable[Any], column: str) -> pd.Series:
    texts: list[str | None] = []
    for row, value in enumerate(values):
        if not isinstance(value, (str, int, float, type(None))) or _SURROGATE.search(str(value)):
            raise ValueError(f"row {row}, column {column}: {quote(value, 40)} is no text")
        texts.append(None if value in (None, "") or value != value else str(value))
    return pd.Series(texts, dtype="str")


def _parse_parquet(file: BinaryIO, columns: Collection[str] | None, text: Collection[str]) -> pd.DataFrame:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError("this needs pyarrow; install it, or save the table as CSV") from error

    def keep_lists(kind: pa.DataType) -> pd.ArrowDtype | None:
        """An embedding stays in the one array that it is on disk; as objects it would take twice the memory."""
        return pd.ArrowDtype(kind) if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) else None

    kept = [name for name in pq.ParquetFile(file).schema_arrow.names if columns is None or name in columns]
    file.seek(0)
    table = pq.ParquetFile(file, read_dictionary=[name for name in NAME_COLUMNS if name in kept]).read(columns=kept)
    frame = table.to_pandas(types_mapper=keep_lists)
    for name in frame.columns.intersection(list(text)):
        kind = table.schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            frame[name] = _as_text(table[name].to_pylist(), name).set_axis(frame.index)
    return frame
