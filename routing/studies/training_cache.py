"""Keep trained routers and their ratings on disk by content, so that notebooks share a training that takes minutes.

A training is identified by all that its result depends on: class, settings and first weights of the router, battles in
any order, the training it goes on from, sources, and versions of the libraries. Change any and it is trained again.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import threading
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from routing.battles import canonical_order
from routing.files import cache_folder, hash_file, hash_table, locked, write_atomically, write_json, write_whole
from routing.routers.base import Prompts, Router, load_router

_parsing = threading.Lock()  # in two threads at once ast.parse may raise SystemError
LIBRARIES = ("numpy", "scipy", "torch", "transformers", "accelerate")


def hash_sources(module: str) -> str:
    """Return the sha256 of the sources of a module of this package and of all it imports from it, however deep."""
    waiting, sources = [module], {}
    while waiting:
        name = waiting.pop()
        if name in sources:
            continue
        sources[name] = Path(importlib.util.find_spec(name).origin).read_bytes()
        with _parsing:
            tree = ast.parse(sources[name])
        for node in ast.walk(tree):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            waiting += [name for name in names if name and name.startswith("routing.")]
    hashes = [f"{name} {hashlib.sha256(sources[name]).hexdigest()}\n" for name in sorted(sources)]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


class RatedRouter(Router):
    """A fitted router's ratings of certain prompts, to be queried like the router itself; what `Training.rate` gives.

    `training_seconds` is what the fit took (without the one it went on from), `rating_seconds` what the ratings took.
    """

    def __init__(self, models: tuple[str, ...], nu: float, rows: dict[str, np.ndarray]) -> None:
        self.models, self.nu, self._rows = models, nu, rows
        self.training_seconds = self.rating_seconds = 0.0

    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Self:
        raise TypeError("ratings that were made before cannot be fitted again; make another Training")

    def ratings(self, prompts: Prompts) -> np.ndarray:
        if unknown := [prompt for prompt in prompts if prompt not in self._rows]:
            raise ValueError(f"{len(unknown)} of the prompts were not rated, as {unknown[0][:60]!r}; rate them first")
        return np.array([self._rows[prompt] for prompt in prompts]).reshape(-1, len(self.models))


@dataclass(frozen=True, eq=False)
class Training:
    """A router and the battles it learns from; trained when its result is first needed, and never twice."""

    router: Router  # not fitted; its `fit` takes `start` and `checkpoints`, as a `ClassifierRouter`'s does
    battles: pd.DataFrame
    start: Training | None = None  # whose fitted router this one goes on from
    folder: Path | None = None  # of the cache; default ``trainings`` in `cache_folder`

    @cached_property
    def key(self) -> str:
        """sha256 of all that the trained router depends on."""
        content = {
            "router": type(self.router).__qualname__,
            "settings": {item.name: getattr(self.router, item.name) for item in fields(self.router)},
            "weights": getattr(self.router, "base_revision", None),
            "battles": hash_table(canonical_order(self.battles)),
            "start": self.start and self.start.key,
            "sources": hash_sources(type(self.router).__module__),
            "versions": {name: metadata.version(name) for name in LIBRARIES},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def entry(self) -> Path:
        """The folder of this training in the cache."""
        return (self.folder or cache_folder() / "trainings") / f"{type(self.router).__name__}-{self.key[:24]}"

    @cached_property
    def fitted(self) -> Router:
        """The fitted router, from the cache or trained now; a training that was stopped goes on where it was.

        A process that needs what another one is training just now waits for it. Raises as `load_router`.
        """
        if not (self.entry / "router").exists():
            start = None if self.start is None else self.start.fitted
            self.entry.mkdir(parents=True, exist_ok=True)
            with locked(self.entry):
                if not (self.entry / "router").exists():  # as it did before another process was waited for
                    begin = time.perf_counter()
                    self.router.fit(self.battles, start=start, checkpoints=self.entry / "checkpoints")
                    write_json(self.entry / "training.json", {"seconds": time.perf_counter() - begin})
                    self.router.save(self.entry / "router")
        return load_router(self.entry / "router")

    def rate(self, *prompts: Sequence[str]) -> RatedRouter:
        """Return ratings of all models on lists of prompts, each from the cache or rated now.

        Raises RuntimeError where those in the cache are damaged; the message names the file.
        """
        parts = [self._rate(list(dict.fromkeys(some))) for some in prompts]
        rows = {prompt: row for texts, part in parts for prompt, row in zip(texts, part["ratings"], strict=True)}
        _, first = parts[0]
        rated = RatedRouter(tuple(first["models"].tolist()), float(first["nu"]), rows)
        rated.training_seconds = json.loads((self.entry / "training.json").read_text(encoding="utf-8"))["seconds"]
        rated.rating_seconds = sum(float(part["seconds"]) for _, part in parts)
        return rated

    def _rate(self, texts: list[str]) -> tuple[list[str], dict[str, np.ndarray]]:
        hashes = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        path = self.entry / f"ratings-{hashlib.sha256(b''.join(hashes)).hexdigest()[:24]}.npz"
        checksum = path.with_suffix(".sha256")
        if not checksum.exists():
            router = self.fitted
            with locked(self.entry):  # two that rate at once would each replace what the other's checksum is of
                if not checksum.exists():
                    begin = time.perf_counter()
                    ratings = router.ratings(texts)
                    seconds = time.perf_counter() - begin
                    with write_whole(path) as partial, partial.open("wb") as file:
                        np.savez(file, models=np.array(router.models), nu=router.nu, ratings=ratings, seconds=seconds)
                    write_atomically(checksum, hash_file(path))
        try:
            if hash_file(path) != checksum.read_text(encoding="utf-8"):
                raise ValueError("its sha256 differs")
            with np.load(path, allow_pickle=False) as stored:
                return texts, {name: stored[name] for name in stored.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            remedy = f"delete {self.entry} to train again"
            raise RuntimeError(f"the ratings {path} are damaged ({error}); {remedy}") from error
