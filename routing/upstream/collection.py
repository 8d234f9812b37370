"""Bring every table by one command: what lies where, what a download brings, and the tables made of published files.

Datasets come in three kinds. Files of ``registry.csv`` are read as published. Those of ``upstream.csv`` are downloaded
to ``published/`` in the cache, `routing.upstream.builders` makes of them the table that is read, and ``tables.csv``
says what it must hold; after that ``published/`` may be removed. Those with an `address` in ``datasets.toml`` are one
file, or the Parquet files of a data set on the Hugging Face Hub; where its owner asks for an account, ``HF_TOKEN``
holds a token of yours.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import os
from collections.abc import Callable, Iterable
from hashlib import sha256
from importlib import resources
from pathlib import Path

import pandas as pd
import pooch
from tqdm import tqdm

from routing.data import sources
from routing.data.sources import BASE_ADDRESS, datasets, published_address, published_files
from routing.data.votes import check_clean_battles, read_arena_votes
from routing.files import cache_folder, hash_file, locked, write_atomically, write_whole
from routing.upstream.builders import BUILDERS, Tables
from routing.upstream.prompt_overlap import Flag, evaluation_questions, overlap_flag

READ_LIMIT_S = 60  # without a byte of a large file
PARQUET = "/parquet/"  # in an address of the Hub that lists Parquet files


def _read(name: str) -> pd.DataFrame:
    with resources.files("routing.upstream").joinpath(name).open(encoding="utf-8") as file:
        return pd.read_csv(file)


@functools.cache
def upstream() -> pd.DataFrame:
    """Return the files that tables are built from: dataset, repository, commit, path, bytes, sha256."""
    return _read("upstream.csv")


@functools.cache
def expected_tables() -> pd.DataFrame:
    """Return what builders must give: dataset, path below ``ROUTING_DATA``, rows, and sha256 of the CSV text."""
    return _read("tables.csv")


def _chosen(names: Iterable[str] | None) -> tuple[str, ...]:
    names = [name for name, known in datasets().items() if not known.get("on_request")] if names is None else names
    return tuple(name for name in names if published_files(name) is not None)  # raises for an unknown one


def _rows(name: str, base_address: str = BASE_ADDRESS) -> pd.DataFrame:
    """Return the published files of a dataset: those of the two CSV files, or the one whose address is known."""
    known = datasets()[name]
    if "address" in known:
        return pd.DataFrame([known]).reindex(columns=["address", "bytes", "sha256"])
    table = published_files(name)
    table = upstream()[upstream()["dataset"] == name].reset_index(drop=True) if table.empty else table
    return table.assign(address=[published_address(row, base_address) for _, row in table.iterrows()])


def plan(names: Iterable[str] | None = None) -> pd.DataFrame:
    """Return every file of the download of datasets: dataset, address, bytes, licence, account, found.

    `account` is the page whose terms a reader accepts first, if any; `found` is where the dataset is already, as in
    `routing.data.sources.status`: only missing and damaged ones are downloaded. Names as `fetch`.
    """
    parts = []
    for name in _chosen(names):
        known, found = datasets()[name], sources.status([name])["found"].item()
        about = {"licence": known["licence"], "account": known.get("account", ""), "found": found}
        parts.append(_rows(name)[["address", "bytes"]].assign(dataset=name, **about))
    return pd.concat(parts, ignore_index=True)[["dataset", "address", "bytes", "licence", "account", "found"]]


def status(names: Iterable[str] | None = None) -> pd.DataFrame:
    """Return `routing.data.sources.status` with two columns more: `bring`, how to get what is not here, and `licence`.

    Files and bytes of a missing dataset are those of its download.
    """
    names = tuple(datasets() if names is None else names)
    table = sources.status(names).assign(bring="", licence=[datasets()[name]["licence"] for name in names])
    for row, (name, found) in enumerate(zip(names, table["found"], strict=True)):
        if found in ("missing", "damaged"):
            files, account = _rows(name), datasets()[name].get("account")
            terms = f", an account: accept the terms of {account} and set HF_TOKEN to a token of yours"
            table.loc[row, "bring"] = f"python -m routing data fetch {name}{terms if account else ''}"
            table.loc[row, ["files", "bytes"]] = len(files), int(files["bytes"].sum())
    return table


def fetch(names: Iterable[str] | None = None, progress: bool = True, base_address: str = BASE_ADDRESS) -> pd.DataFrame:
    """Download what is missing into the cache, build the tables that are collected from it, and return `status`.

    By default every dataset but those that ``datasets.toml`` marks `on_request`. A dataset that cannot be downloaded
    does not keep the next one from coming, and several processes may fetch at once. `base_address` and `progress` are
    those of `routing.data.sources.fetch`.

    Raises ValueError for an unknown name, or a file or table that is not the published one; ConnectionError, at the
    end, for all that could not be downloaded: the message names file, address and remedy.
    """
    chosen, failures = _chosen(names), []
    for name in chosen:
        try:
            if not published_files(name).empty:
                sources.fetch([name], progress, base_address)
            elif sources.status([name])["found"].item() == "missing":
                (_build if name in BUILDERS else _download_large)(name, progress, base_address)
        except ConnectionError as error:
            failures.append(str(error))
    if failures:
        raise ConnectionError("\n".join(failures))
    return status(chosen)


# ------------------------------------------------------------------------------------------------ tables to be built
def published_folder() -> Path:
    """Return the folder in the cache that holds published files as ``<repository>/<commit>/<path>``."""
    return cache_folder() / "published"


def _published_path(row: pd.Series, folder: Path) -> Path:
    return folder / row["repository"] / row["commit"] / row["path"]


def _build(name: str, progress: bool, base_address: str) -> None:
    rows, folder = _rows(name, base_address), published_folder()
    for _, row in tqdm([*rows.iterrows()], unit="file", desc=name, disable=None if progress else True):
        path = _published_path(row, folder)
        if not path.is_file() or hash_file(path) != row["sha256"]:
            sources.download(row, row["address"], path)
    sources.fetch(["routellm"], progress, base_address)  # prompts of the evaluations are flagged
    tables = make_tables(name, folder)
    for place, table in tables.items():
        (expected,) = expected_tables()[expected_tables()["path"] == place].itertuples()
        if (len(table), sha256(table_text(table)).hexdigest()) != (expected.rows, expected.sha256):
            raise ValueError(
                f"{name}: {place} was built with {len(table)} rows that are not the {expected.rows} expected"
            )
    for place, table in tables.items():
        (cache_folder() / place).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cache_folder() / place, gzip.compress(table_text(table), mtime=0))


def make_tables(name: str, folder: Path, flag: Flag | None = None) -> Tables:
    """Build a collection's tables, by path below ``ROUTING_DATA``, from the published files below a folder.

    `flag` marks prompts of the evaluations, by default those in RouteLLM's files. Raises ValueError, with the
    collection's name, where the files are not what its builder expects.
    """
    files = [_published_path(row, folder) for _, row in upstream()[upstream()["dataset"] == name].iterrows()]
    try:
        tables = BUILDERS[name](files, flag or _evaluation_flag())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name} could not be built from the published files in {folder}: {reason}") from error
    places = {Path(place).name: place for place in datasets()[name]["collected"][0]}
    return {places[file]: table for file, table in tables.items()}


@functools.cache
def _evaluation_flag() -> Flag:
    return overlap_flag(evaluation_questions())


def table_text(table: pd.DataFrame) -> bytes:
    """Return the CSV text of a table as it is written before compression."""
    return table.to_csv(index=False, lineterminator="\n").encode()


# ------------------------------------------------------------------------------------------------------- large files
def _download_large(name: str, progress: bool, base_address: str) -> None:
    known = datasets()[name]
    place = cache_folder() / known["collected"][0][0]
    place.parent.mkdir(parents=True, exist_ok=True)
    with locked(place.parent):  # another process may be bringing it
        if place.is_file():
            return
        if known.get("check"):
            sources.fetch(["votes"], progress, base_address)  # what it is compared with
        parts = [known["address"]]
        if PARQUET in known["address"]:
            parts = _ask(known["address"], place, lambda token: _listed(known["address"], token))
        for number, part in reversed([*enumerate(parts)]):  # the first one, by which the dataset is found, comes last
            _stream(part, place.with_stem(place.stem.replace("0", str(number))) if number else place, known, progress)


def _listed(address: str, token: dict[str, str]) -> list[str]:
    answer = io.BytesIO()
    pooch.HTTPDownloader(headers=token, timeout=READ_LIMIT_S)(address, answer, None)
    return json.loads(answer.getvalue())


def _stream(address: str, place: Path, known: dict, progress: bool) -> None:
    with write_whole(place) as partial:
        bar = tqdm(unit="B", unit_scale=True, desc=place.name, disable=None) if progress else False

        def download(token: dict[str, str]) -> None:
            pooch.HTTPDownloader(progressbar=bar, headers=token, timeout=READ_LIMIT_S)(address, str(partial), None)

        _ask(address, place, download)
        if known.get("check") == "counts":
            try:
                check_clean_battles(partial, read_arena_votes())
            except ValueError as error:
                raise ValueError(f"{address}: {error}; {place} was not written") from error
        if "sha256" in known and (actual := hash_file(partial)) != known["sha256"]:
            raise ValueError(f"{address} has the sha256 {actual}, expected {known['sha256']}; {place} was not written")


def _ask(address: str, place: Path, ask: Callable[[dict[str, str]], object]) -> object:
    """Return what `ask` does with the reader's token; ConnectionError, with a remedy, where it fails."""
    token = os.environ.get("HF_TOKEN") if address.startswith("https://huggingface.co/") else None
    try:
        return ask({"Authorization": f"Bearer {token}"} if token else {})
    except (OSError, ValueError) as error:  # those of requests, by which pooch downloads, are OSErrors
        code = getattr(getattr(error, "response", None), "status_code", 0)
        page = address.split("/resolve/")[0].split(PARQUET)[0].replace("/api/", "/")
        remedy = f"look for it at {page}" if code == 404 else "run it again"
        if code in (401, 403):
            remedy = f"log in at {page}, accept its terms and set HF_TOKEN to a token of yours"
        raise ConnectionError(f"could not download {address}: {error}; {remedy}, or put it at {place}") from error
