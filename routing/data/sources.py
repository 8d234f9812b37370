"""Where the data comes from: what is published where, where it lies on this machine, and how it is fetched.

A dataset is looked for in this order:

1. the folder that the environment variable ``ROUTING_DATA`` names,
2. an installed package that carries it (the Arena votes lie in `leaderbot`),
3. the cache: the folder in ``ROUTING_CACHE``, else the platform's cache folder.

Nothing is downloaded on the way. What is in none of them raises, and the message says which command or whose
page has it. `fetch` downloads into the cache, continues a download that was cut, and moves a file to its name
only once its sha256 is the one in ``registry.csv``. So what is read is what was published, byte for byte.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pandas as pd
import pooch
import requests
from tqdm import tqdm

BASE_ADDRESS = "https://raw.githubusercontent.com"
_TIMEOUT_S = 30
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Dataset:
    """What is known of a dataset beyond its files in the registry."""

    prefix: str = ""  # start of the published paths that the short layout, <dataset>/<rest of the path>, leaves out
    package: str = ""  # an installed package that carries the published files
    collected: tuple[tuple[str, ...], ...] = ()  # alternatives: files that hold the whole dataset in another form
    origin: str = ""  # where a person gets it, when the registry has no file of it


DATASETS = {
    "votes": Dataset(prefix="leaderbot/data/", package="leaderbot"),
    "votes_by_category": Dataset(
        collected=(("votes/chatbotarena_by_category.json",),),
        origin="take notebooks/experimental/category_specific_data.json from"
        " https://github.com/suquark/leaderbot/tree/206afbce329a1a4b15fc088ddd5b1890d4a24b11",
    ),
    "clean_battles": Dataset(
        collected=(("votes/clean_battle_20240814_public.json",),),
        origin="take clean_battle_20240814_public.json from https://storage.googleapis.com/arena_external_data/public/",
    ),
    "arena55k": Dataset(
        collected=(("arena55k/train.csv",), ("arena55k/train.csv.gz",)),
        origin="log in and take train.csv from"
        " https://huggingface.co/datasets/lmsys/lmsys-arena-human-preference-55k (it asks for your own account)",
    ),
    "arena140k": Dataset(
        collected=(("arena140k/battles.csv.gz",),),
        origin="take https://huggingface.co/datasets/lmarena-ai/arena-human-preference-140k and write its columns"
        " id, model_a, model_b, winner, and the tags if wanted, as CSV",
    ),
    "judges": Dataset(collected=(("judges/human_vs_llm_judges.csv.gz",),)),
    "llmbar": Dataset(
        collected=(("judges/llmbar_both_orders.csv.gz",),),
        origin="clone https://github.com/princeton-nlp/LLMBar and give its folder Dataset/LLMBar to the reader, or put"
        " the table of its results",
    ),
    "alpaca_eval": Dataset(collected=(("alpaca_eval/judgements.csv.gz",),)),
    "routellm": Dataset(prefix="routellm/evals/"),
    "mt_bench": Dataset(
        collected=(("mt_bench/single_judgements.csv.gz",),),
        origin="give the reader a gpt-4_single.jsonl as https://github.com/lm-sys/FastChat writes it; for several,"
        " collect them in one table",
    ),
    "routerbench": Dataset(collected=(("routerbench/arc_challenge.csv.gz", "routerbench/mbpp.csv.gz"),)),
    "llmrouter": Dataset(collected=(("llmrouter/train.csv.gz", "llmrouter/test.csv.gz"),)),
}


@functools.cache
def registry() -> pd.DataFrame:
    """The published files: dataset, repository, commit, path, bytes, sha256."""
    with resources.files("routing.data").joinpath("registry.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def datasets() -> tuple[str, ...]:
    """The names of all datasets."""
    return tuple(DATASETS)


def published_files(dataset: str) -> pd.DataFrame:
    """The rows of `registry` for one dataset; none where the owner does not let others download it."""
    _known([dataset])
    table = registry()
    return table[table["dataset"] == dataset].reset_index(drop=True)


def cache_folder() -> Path:
    """Where fetched files lie, as ``<dataset>/<published path>``."""
    return Path(os.environ.get("ROUTING_CACHE") or pooch.os_cache("routing"))


@dataclass(frozen=True)
class _Found:
    where: str  # "ROUTING_DATA", the name of a package, or "cache"
    files: tuple[tuple[Path, str | None], ...]  # path, and the sha256 it must have where one is published

    def damaged(self) -> tuple[str, ...]:
        """One line for each file whose bytes are not the published ones."""
        hashes = ((path, expected, pooch.file_hash(str(path))) for path, expected in self.files if expected)
        return tuple(
            f"{path} has the sha256 {actual}, not {expected}" for path, expected, actual in hashes if actual != expected
        )


def _find(name: str) -> _Found | None:
    known, rows = DATASETS[name], published_files(name)
    published = tuple(zip(rows["path"], rows["sha256"], strict=True))
    layouts = [tuple((f"{name}/{path}", sha256) for path, sha256 in published)] if published else []
    if known.prefix:
        layouts.append(tuple((f"{name}/{path.removeprefix(known.prefix)}", sha256) for path, sha256 in published))
    layouts += [tuple((path, None) for path in paths) for paths in known.collected]

    places = [("cache", cache_folder(), layouts)]
    package = importlib.util.find_spec(known.package) if known.package else None  # finds it without importing it
    if package is not None and package.origin is not None:
        places.insert(0, (known.package, Path(package.origin).parent.parent, [published]))
    if os.environ.get("ROUTING_DATA"):
        folder = Path(os.environ["ROUTING_DATA"])
        if not folder.is_dir():
            raise NotADirectoryError(f"ROUTING_DATA names {folder}, which is not a folder; correct it or unset it")
        places.insert(0, ("ROUTING_DATA", folder, layouts))

    for where, folder, alternatives in places:
        for layout in alternatives:
            found = _Found(where, tuple((folder / path, sha256) for path, sha256 in layout))
            if all(path.is_file() for path, _ in found.files):
                # Another release of the package may carry other votes; then the next place is asked.
                if where != known.package or not found.damaged():
                    return found
    return None


def find_files(dataset: str, path: Path | str | None = None) -> tuple[Path, ...]:
    """The files that hold a dataset.

    Parameters
    ----------
    dataset : str
        One of `datasets`.
    path : path, optional
        The reader's own copy instead: a file, or a folder, which stands for all files below it.

    Raises
    ------
    FileNotFoundError
        The dataset is in none of the places; the message says how to get it.
    ValueError
        An unknown dataset, or a file whose sha256 is not the published one.
    """
    _known([dataset])
    if path is not None:
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        below = sorted((file for file in path.rglob("*") if file.is_file()), key=Path.as_posix)
        return tuple(below) if path.is_dir() else (path,)
    found = _find(dataset)
    if found is None:
        raise FileNotFoundError(_how_to_get(dataset))
    if damaged := found.damaged():
        remedy = "remove it" if found.where == "ROUTING_DATA" else f"run `python -m routing data fetch {dataset}`"
        raise ValueError(f"{damaged[0]}; {remedy}")
    return tuple(file for file, _ in found.files)


def _how_to_get(name: str) -> str:
    rows = published_files(name)
    if rows.empty:
        target = DATASETS[name].collected[0][0]
        return (
            f"dataset {name} is not on this machine and cannot be fetched for you: {DATASETS[name].origin};"
            f" put it at $ROUTING_DATA/{target}"
        )
    targets = (cache_folder() / name / path for path in rows["path"])
    missing = next(index for index, target in enumerate(targets) if not target.is_file())
    row = rows.iloc[missing]
    return (
        f"dataset {name} is not on this machine ({len(rows)} files, {rows['bytes'].sum():,} bytes). Missing is"
        f" {row['path']}, sha256 {row['sha256']}, published at {_address(row)}."
        f" Get it with `python -m routing data fetch {name}`, or let ROUTING_DATA name a folder that has it"
    )


def _address(row: pd.Series, base: str = BASE_ADDRESS) -> str:
    return f"{base}/{row['repository']}/{row['commit']}/{row['path']}"


def _known(names: Iterable[str]) -> None:
    unknown = [name for name in names if name not in DATASETS]
    if unknown:
        raise ValueError(f"unknown dataset {', '.join(unknown)}; known are {', '.join(DATASETS)}")


def status(names: Iterable[str] | None = None) -> pd.DataFrame:
    """Where each dataset is: columns dataset, files, bytes, found.

    `found` is "ROUTING_DATA", the name of a package, "cache", "missing", or "damaged" where a sha256 is wrong.
    Files and bytes of a missing dataset are those that would be fetched (0 where that is not allowed).
    """
    names = datasets() if names is None else tuple(names)
    _known(names)
    lines = []
    for name in names:
        found = _find(name)
        if found is None:
            rows = published_files(name)
            lines.append((name, len(rows), int(rows["bytes"].sum()), "missing"))
        else:
            n_bytes = sum(path.stat().st_size for path, _ in found.files)
            lines.append((name, len(found.files), n_bytes, "damaged" if found.damaged() else found.where))
    return pd.DataFrame(lines, columns=["dataset", "files", "bytes", "found"])


def fetch(names: Iterable[str] | None = None, progress: bool = True, base_address: str = BASE_ADDRESS) -> pd.DataFrame:
    """Download what is missing into the cache, and give the `status` afterwards.

    Parameters
    ----------
    names : iterable of str, optional
        Default: every dataset that may be fetched.
    progress : bool
        Show one bar over all bytes, where the output is a terminal.
    base_address : str
        What ``/<repository>/<commit>/<path>`` is appended to; another mirror may stand here.

    Raises
    ------
    ValueError
        An unknown name; a download with the wrong sha256 (it is deleted).
    FileNotFoundError
        A dataset named here that only its owner's page gives; the message says which.
    ConnectionError
        Offline, refused, not found, or cut; what has come is kept, and the next call continues it.
    """
    chosen = datasets() if names is None else tuple(names)
    _known(chosen)
    pending = []
    for name in chosen:
        found = _find(name)
        if found is not None and (found.where == "ROUTING_DATA" or not found.damaged()):
            find_files(name)  # raises for a damaged file in ROUTING_DATA, which would hide what was fetched
            continue
        rows = published_files(name)
        if rows.empty and names is not None:
            raise FileNotFoundError(_how_to_get(name))
        for _, row in rows.iterrows():
            target = cache_folder() / name / row["path"]
            if not target.is_file() or pooch.file_hash(str(target)) != row["sha256"]:
                pending.append((row, target))
    total = int(sum(row["bytes"] for row, _ in pending))
    with tqdm(total=total, unit="B", unit_scale=True, disable=None if progress and total else True) as bar:
        for row, target in pending:
            bar.set_description(target.name)
            _download(row, target, base_address, bar)
    return status(chosen)


def _download(row: pd.Series, target: Path, base_address: str, bar: tqdm) -> None:
    # pooch.retrieve downloads to a new random name each time, so it can never continue; hence the two steps here.
    address = _address(row, base_address)
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _transfer(address, part, int(row["bytes"]), bar)
    except requests.RequestException as error:
        raise ConnectionError(f"could not download {address} to {target}: {error}; run it again to continue") from error
    actual = pooch.file_hash(str(part))
    if actual != row["sha256"]:
        part.unlink()
        raise ValueError(
            f"{address} has the sha256 {actual}, expected {row['sha256']}; the download was deleted and {target}"
            " not written"
        )
    os.replace(part, target)


def _transfer(address: str, part: Path, n_bytes: int, bar: tqdm) -> None:
    """Bring `part` to its full size, from where an earlier transfer was cut."""
    offset = part.stat().st_size if part.exists() else 0
    if offset >= n_bytes:  # all came but the move, or the rest of something else: the sha256 tells
        bar.update(n_bytes)
        return
    headers = {"Accept-Encoding": "identity"}  # a range of a compressed stream could not be continued
    if offset:
        headers["Range"] = f"bytes={offset}-"
    with requests.get(address, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        response.raise_for_status()
        continued = response.status_code == requests.codes.partial_content  # else the server sends all of it again
        bar.update(offset if continued else 0)
        with part.open("ab" if continued else "wb") as file:
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
    if part.stat().st_size < n_bytes:
        raise requests.ConnectionError(f"cut after {part.stat().st_size} of {n_bytes} bytes")
