"""Fetch files and saved routers from the Hugging Face Hub, all of one commit.

Nothing is fetched unless a hub is named. The client is `huggingface_hub` with its own settings: HF_ENDPOINT, HF_TOKEN,
HF_HOME, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def parse_hub_name(name: str) -> tuple[str, str | None]:
    """Split ``hub:owner/name[@revision]`` into the repository and the revision, None where none is named."""
    match = re.fullmatch(r"hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name, re.ASCII)
    if match is None:
        raise ValueError(f"{name!r} names no repository on a hub; write hub:owner/name or hub:owner/name@revision")
    return match[1], match[2]


def fetch_files(name: str, patterns: Sequence[str]) -> Path:
    """Download the files of ``hub:owner/name[@revision]`` that match `patterns`; return their folder, named by commit.

    The revision (default branch) is resolved to its commit once; every file is of that commit. A name of another form
    raises ValueError, one that cannot be downloaded FileNotFoundError with the reason.
    """
    repository, revision = parse_hub_name(name)
    with explained(FileNotFoundError, f"{name} could not be downloaded", "the name, the revision"):
        return Path(client().snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))


@contextmanager
def explained(kind: type[OSError], failed: str, checked: str) -> Iterator[None]:
    """Raise an error of one kind for all that the client raises, some of it of the HTTP library that it uses."""
    try:
        yield
    except Exception as error:
        reason, hint = " ".join(str(error).split())[:200], "a private repository needs a token (hf auth login)"
        raise kind(f"{failed} ({reason}). Check {checked} and the network; {hint}.") from error


def client(token: str | None = None) -> Any:
    """Make a client of the hub that shows progress on a terminal only."""
    from huggingface_hub import HfApi  # only hub names need it
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    return HfApi(token=token)


def fetch_router(name: str) -> Path:
    """Download the router ``hub:owner/name[@revision]``; return its folder, which `load_router` checks and reads.

    Only ``router.json``, the files that it lists and the model card come, all of one commit. Raises as `fetch_files`,
    and a ValueError where ``router.json`` lists anything but plain file names.
    """
    first = fetch_files(name, ["router.json"])
    _, files = read_shared(first, name)
    return fetch_files(f"hub:{parse_hub_name(name)[0]}@{first.name}", files)


def read_shared(folder: Path, name: object) -> tuple[dict, list[str]]:
    """Return ``router.json``, and the names of a shared router's files: none leads elsewhere or is a pattern."""
    path = folder / "router.json"
    if not path.is_file():
        raise FileNotFoundError(f"{name} holds no saved router: router.json is missing")
    try:
        description = dict(json.loads(path.read_text(encoding="utf-8")))
        listed = list(description["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"router.json of {name} is no description of a router: {error!r}") from error
    for file in listed:
        if not re.fullmatch(r"\w[\w.-]*", str(file), re.ASCII):
            raise ValueError(f"router.json of {name} lists {file!r}, which is no plain file name; do not use it")
    return description, ["router.json", "README.md", *listed]
