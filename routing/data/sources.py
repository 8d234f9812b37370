"""Where the data comes from: what is published where, where it lies on this machine, and how it is downloaded.

A dataset is looked for in the folder that ``ROUTING_DATA`` names, then in an installed package that carries it (the
Arena votes lie in `leaderbot`), then in the cache, as ``<dataset>/<published path>``. `fetch` downloads into the cache,
and writes a file only when its sha256 is the one in ``registry.csv``: what is read is what was published.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import os
import threading
import tomllib
from collections.abc import Iterable
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pooch
from tqdm import tqdm

from routing.files import cache_folder, hash_file, write_atomically

BASE_ADDRESS = "https://raw.githubusercontent.com"
TIME_LIMIT_S = 300  # for one file; the largest has 4.2 MB
FOLDER = resources.files("routing.data")


@functools.cache
def registry() -> pd.DataFrame:
    """Return the published files: dataset, repository, commit, path, bytes, sha256."""
    return pd.read_csv(io.StringIO(FOLDER.joinpath("registry.csv").read_text(encoding="utf-8")))


@functools.cache
def datasets() -> dict[str, dict]:
    """Return what is known about each dataset beyond its files in `registry`; ``datasets.toml`` explains the keys."""
    return tomllib.loads(FOLDER.joinpath("datasets.toml").read_text(encoding="utf-8"))


def published_files(dataset: str) -> pd.DataFrame:
    """Return the rows of `registry` for one dataset; none where the owner does not let others download it."""
    if dataset not in datasets():
        raise ValueError(f"unknown dataset {dataset}; choose from {', '.join(datasets())}")
    return registry()[registry()["dataset"] == dataset].reset_index(drop=True)


class _Found(NamedTuple):
    where: str  # "ROUTING_DATA", the name of a package, "cache", or "missing"
    files: tuple[tuple[Path, str | None], ...] = ()  # path, and the sha256 it must have where one is published

    def damage(self) -> str:
        """Say which file's bytes are not the published ones; empty where all are."""
        for path, expected in self.files:
            if expected and (actual := hash_file(path)) != expected:
                return f"{path} has the sha256 {actual}, not {expected}"
        return ""


def _find(name: str) -> _Found:
    rows, known = published_files(name), datasets()[name]
    published = tuple(zip(rows["path"], rows["sha256"], strict=True))
    prefixes = "", known.get("prefix", "")
    layouts = [[(f"{name}/{path.removeprefix(prefix)}", sha256) for path, sha256 in published] for prefix in prefixes]
    layouts += [[(path, None) for path in paths] for paths in known.get("collected", [])]
    places = [("cache", cache_folder(), layouts)]
    package = importlib.util.find_spec(known["package"]) if "package" in known else None  # finds it, does not import it
    if package is not None and package.origin is not None:
        places.insert(0, (known["package"], Path(package.origin).parent.parent, [published]))
    if os.environ.get("ROUTING_DATA"):
        folder = Path(os.environ["ROUTING_DATA"]).expanduser()
        if not folder.is_dir():
            raise NotADirectoryError(f"ROUTING_DATA names {folder}, which is not a folder; correct it or unset it")
        places.insert(0, ("ROUTING_DATA", folder, layouts))
    for where, folder, alternatives in places:
        for layout in alternatives:
            found = _Found(where, tuple((folder / path, sha256) for path, sha256 in layout))
            if found.files and all(path.is_file() for path, _ in found.files):
                if where != known.get("package") or not found.damage():  # another release may carry other votes
                    return found
    return _Found("missing")


def find_files(dataset: str, path: Path | str | None = None) -> tuple[Path, ...]:
    """Return the files that hold a dataset; with `path` the reader's own copy, a file or all files below a folder.

    Raises FileNotFoundError, which says how to get it, where the dataset is in none of the places, ValueError for an
    unknown dataset or a file whose sha256 is not the published one.
    """
    rows = published_files(dataset)
    if path is not None:
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        return tuple(sorted(filter(Path.is_file, path.rglob("*")), key=Path.as_posix)) if path.is_dir() else (path,)
    found = _find(dataset)
    if not found.files:
        raise FileNotFoundError(_how_to_get(dataset, rows))
    if damage := found.damage():
        remedy = "remove it" if found.where == "ROUTING_DATA" else f"run `python -m routing data fetch {dataset}`"
        raise ValueError(f"{damage}; {remedy}")
    return tuple(file for file, _ in found.files)


def _how_to_get(name: str, rows: pd.DataFrame) -> str:
    if rows.empty:
        known = datasets()[name]
        get = f"get it with `python -m routing data fetch {name}` ({known['origin']})"
        return f"dataset {name} is not on this machine; {get}, or put it at $ROUTING_DATA/{known['collected'][0][0]}"
    row = next(row for _, row in rows.iterrows() if not (cache_folder() / name / row["path"]).is_file())
    return (
        f"dataset {name} is not on this machine ({len(rows)} files, {rows['bytes'].sum():,} bytes). Missing is"
        f" {row['path']}, sha256 {row['sha256']}, published at {published_address(row, BASE_ADDRESS)}."
        f" Get it with `python -m routing data fetch {name}`, or let ROUTING_DATA name a folder that has it"
    )


def status(names: Iterable[str] | None = None) -> pd.DataFrame:
    """Return where each dataset is: columns dataset, files, bytes, found; of a missing one what would be downloaded.

    `found` is "ROUTING_DATA", the name of a package, "cache", "missing", or "damaged" where a sha256 is wrong.
    """
    lines = []
    for name in datasets() if names is None else names:
        rows, found = published_files(name), _find(name)
        sizes = [path.stat().st_size for path, _ in found.files] if found.files else list(rows["bytes"])
        lines.append((name, len(sizes), int(sum(sizes)), "damaged" if found.damage() else found.where))
    return pd.DataFrame(lines, columns=["dataset", "files", "bytes", "found"])


def fetch(names: Iterable[str] | None = None, progress: bool = True, base_address: str = BASE_ADDRESS) -> pd.DataFrame:
    """Download what is missing of datasets, by default all, into the cache, and return the `status` afterwards.

    ``/<repository>/<commit>/<path>`` is appended to `base_address`; `progress` shows a bar, on a terminal only. Raises
    ValueError for an unknown name or a download with the wrong sha256 (which is not written), FileNotFoundError for a
    dataset that only its owner's page gives, ConnectionError for a file that is not found, is cut, or takes longer than
    `TIME_LIMIT_S`; the files before it are kept.
    """
    chosen, pending = tuple(datasets() if names is None else names), []
    for name, rows, found in [(name, published_files(name), _find(name)) for name in chosen]:
        if found.where == "ROUTING_DATA" or (found.files and not found.damage()):
            find_files(name)  # raises for a damaged file in ROUTING_DATA, which would hide what was downloaded
        elif rows.empty and names is not None:
            raise FileNotFoundError(_how_to_get(name, rows))
        else:
            targets = [(row, cache_folder() / name / row["path"]) for _, row in rows.iterrows()]
            pending += [(row, to) for row, to in targets if not to.is_file() or hash_file(to) != row["sha256"]]
    for row, target in tqdm(pending, unit="file", disable=None if progress and pending else True):
        download(row, published_address(row, base_address), target)
    return status(chosen)


def published_address(row: pd.Series, base: str) -> str:
    """Return the address of a file of the registry."""
    return f"{base}/{row['repository']}/{row['commit']}/{row['path']}"


class _Body(io.BytesIO):
    """Keeps the first `room` bytes of a download, in memory, so that nothing incomplete lies on the disk."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, chunk: bytes) -> int:
        if not self.room:
            raise EOFError("no room for more")  # ends the download
        kept = super().write(chunk[: self.room])
        self.room -= kept
        return kept


def download(row: pd.Series, address: str, target: Path) -> None:
    """Write a published file, of `row`'s bytes and sha256, to `target`; raises as `fetch`."""
    body, failure = _Body(int(row["bytes"])), [TimeoutError(f"not done within {TIME_LIMIT_S} s")]

    def transfer() -> None:
        with ExitStack() as stack:  # the downloader leaves a connection open
            hooks = {"response": lambda response, **_: stack.callback(response.close) and None}
            try:
                pooch.HTTPDownloader(headers={"Accept-Encoding": "identity"}, hooks=hooks)(address, body, None)
                failure[0] = EOFError(f"{body.room} of {row['bytes']} bytes are missing")
            except Exception as error:
                failure[0] = error

    # In a thread: a server that sends a byte now and then holds up every read and never times out.
    thread = threading.Thread(target=transfer, daemon=True)
    thread.start()
    thread.join(TIME_LIMIT_S)
    missing, body.room = body.room, 0
    if missing:
        code = getattr(getattr(failure[0], "response", None), "status_code", 0)
        remedy = "get the file elsewhere, into ROUTING_DATA" if code in (401, 403, 404, 410) else "run it again"
        raise ConnectionError(f"could not download {address} to {target}: {failure[0]}; {remedy}")
    if (actual := hashlib.sha256(body.getvalue()).hexdigest()) != row["sha256"]:
        raise ValueError(f"{address} has the sha256 {actual}, expected {row['sha256']}; {target} was not written")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, body.getvalue())
