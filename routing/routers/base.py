"""What every router is: ratings of models that depend on the prompt, and the baselines.

A router gives each model a rating (log-odds) for a prompt. Probabilities of a pair follow from the difference of
two ratings alone, so naming the pair the other way round mirrors the answer, and any two of its models can be
compared. Which of the two is "strong" is not a router's business.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import re
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, get_args, get_type_hints

import numpy as np
import pandas as pd

from routing.battles import BattleCodes, canonical_order, count_pairs, encode_battles, validate_battles
from routing.embeddings import BUNDLED_MODEL, PromptEncoder, model_folder, unit_rows
from routing.files import hash_file, write_json, write_whole
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.ratings.ties import outcome_probability

FORMAT_VERSION = 3
KEYS = {  # of ``router.json``, by its format version
    2: {"format_version", "router", "settings", "models", "tie", "sha256"},
    3: {"format_version", "router", "settings", "models", "nu", "sha256", "bytes", "checksum"},
}
ENCODER_SETTINGS = {"name": str, "max_length": int, "revision": str | None, "n_layers": int | None, "content": str}
RENAMED = {"held_out_share": "validation_share"}  # settings since version 2
LARGEST_DESCRIPTION = 2**20  # bytes of ``router.json``
ROUTERS = {  # where `load_router` finds a class; imported only when asked for
    "BradleyTerryRouter": "routing.routers.base",
    "RandomRouter": "routing.routers.base",
    "SimilarityRouter": "routing.routers.similarity",
    "MatrixFactorizationRouter": "routing.routers.factorization",
    "BertRouter": "routing.routers.bert",
    "CausalLMRouter": "routing.routers.causal",
}

Prompts = Sequence[str] | np.ndarray


class Router(ABC):
    """A Bradley-Terry model whose ratings depend on the prompt.

    Attributes
    ----------
    models : tuple of str
        In alphabetical order; set by `fit`.
    nu : float
        nu of Davidson's model of ties [Davidson70]; set by `fit`.
    """

    models: tuple[str, ...]
    nu: float

    @abstractmethod
    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Self:
        """Learn from battles; which model stands first and the order of rows change nothing, bit for bit.

        Parameters
        ----------
        battles : DataFrame
            Columns of `routing.battles`.
        embeddings : array, shape (n_battles, width), optional
            Of the battles' prompts, one row per battle; by default the router's encoder makes them.
        """

    @abstractmethod
    def ratings(self, prompts: Prompts) -> np.ndarray:
        """Ratings of every model on every prompt: (n_prompts, n_models), log-odds.

        Parameters
        ----------
        prompts : sequence of str, or array of embeddings, shape (n_prompts, width)
        """

    def margin(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        """Return the rating of model_a minus that of model_b: (n_prompts,), log-odds; it ranks the prompts of a pair.

        Raises
        ------
        RuntimeError
            The router has not been fitted.
        ValueError
            A model it does not rate, or one model against itself.
        """
        if not hasattr(self, "models"):
            raise RuntimeError(f"this {type(self).__name__} has not been fitted; call fit, or load_router")
        for model in (model_a, model_b):
            if model not in self.models:
                raise ValueError(f"{model!r} fought no battle that this router saw; it rates {', '.join(self.models)}")
        if model_a == model_b:
            raise ValueError(f"{model_a!r} against itself: name two different models")
        ratings = self.ratings(prompts)
        return ratings[:, self.models.index(model_a)] - ratings[:, self.models.index(model_b)]

    def win_probability(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        """Return P(model_a beats model_b | prompt, no tie): (n_prompts,)."""
        win, _, loss = self._outcomes(self.margin(prompts, model_a, model_b)).T
        return win / (win + loss)

    def expected_score(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        """Return P(model_a wins) + P(tie) / 2, the share of battles model_a is expected to win: (n_prompts,)."""
        win, tie, _ = self._outcomes(self.margin(prompts, model_a, model_b)).T
        return win + tie / 2

    def outcome_probability(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        """Return P(model_a wins), P(tie), P(model_b wins): (n_prompts, 3)."""
        return self._outcomes(self.margin(prompts, model_a, model_b))

    def _outcomes(self, delta: np.ndarray) -> np.ndarray:
        """Return P(a wins), P(tie), P(b wins) at rating differences (n,): (n, 3)."""
        return outcome_probability(delta, "davidson", self.nu)

    def battle_probability(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> np.ndarray:
        """P(model_a wins), P(tie), P(model_b wins) of each battle: (n_battles, 3).

        Parameters
        ----------
        battles : DataFrame
            Columns of `routing.battles`, the prompt among them; each row names its own pair.
        embeddings : array, shape (n_battles, width), optional
            Of the prompts, one row per battle.

        Raises
        ------
        ValueError
            A model that this router does not rate.
        """
        codes = encode_battles(battles)
        unknown = set(codes.models) - set(self.models)
        if unknown:
            raise ValueError(f"no battle of {', '.join(sorted(unknown))} was learned from; leave theirs out")
        ratings = self.ratings(battles["prompt"].tolist() if embeddings is None else embeddings)
        position = np.array([self.models.index(model) for model in codes.models])
        row = np.arange(len(battles))
        delta = ratings[row, position[codes.model_a]] - ratings[row, position[codes.model_b]]
        return self._outcomes(delta)

    def _arrays(self) -> dict[str, np.ndarray]:
        """What `fit` learned besides the models and the tie parameter; attributes of these names."""
        return {}

    def _settings(self) -> dict[str, Any]:
        """Return the settings as JSON holds them."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def _write_weights(self, folder: Path) -> None:  # noqa: B027
        """Write what is no array of numpy's into files of `folder`; most routers have nothing."""

    def _read_weights(self, folder: Path) -> None:  # noqa: B027
        """Read what `_write_weights` wrote, once the arrays are attributes."""

    def save(self, folder: str | Path) -> None:
        """Write the fitted router into `folder`: ``router.json``, ``arrays.npz`` and perhaps weights, no pickle.

        The folder appears whole or not at all. An encoder's folder is written as an absolute path with the sha256 of
        its content, one on a hub with its commit.

        Raises
        ------
        FileExistsError
            `folder` is there already, or another process has just saved there.
        ValueError
            The encoder is a function, which cannot be written down.
        """
        folder = Path(folder)
        if folder.exists():
            raise FileExistsError(f"{folder} is there already; remove it or choose another name")
        content = {
            "format_version": FORMAT_VERSION,
            "router": type(self).__name__,
            "settings": self._settings(),
            "models": list(self.models),
            "nu": self.nu,
        }
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with write_whole(folder, folder=True) as partial:
                np.savez(partial / "arrays.npz", **self._arrays())
                self._write_weights(partial)
                files = sorted(partial.iterdir())
                content |= {"sha256": {path.name: hash_file(path) for path in files}}
                content |= {"bytes": {path.name: path.stat().st_size for path in files}}
                write_json(partial / "router.json", content | {"checksum": _checksum(content)})
        except OSError as error:
            if folder.exists():
                raise FileExistsError(f"another process has just saved to {folder}; choose another name") from error
            raise


def router_class(name: str) -> type[Router]:
    """The class of this name, one of `ROUTERS`, imported when it is asked for: some take seconds."""
    return getattr(importlib.import_module(ROUTERS[name]), name)


def load_router(folder: str | Path) -> Router:
    """Load the router that `Router.save` wrote into `folder`, every part of it checked; no code of its is run.

    Raises
    ------
    FileNotFoundError
        No router there, or not all of it.
    ValueError
        A file of another version, of an unknown router, or changed since it was written; another encoder than the
        router was trained with.
    """
    if isinstance(folder, str) and folder.startswith("hub:"):
        folder = importlib.import_module("routing.routers.sharing").fetch_router(folder)
    folder = Path(folder)
    description = folder / "router.json"
    for path in (description, folder / "arrays.npz"):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: {folder} holds no saved router")
    content = _read_description(description)
    for name, sha256 in content["sha256"].items():
        _check_file(folder / name, sha256, content.get("bytes", {}).get(name))
    make = router_class(content["router"])
    router = make(**_checked_settings(make, content["settings"], description))
    router.models, router.nu = tuple(content["models"]), content.get("nu", content.get("tie"))
    for name, array in _read_arrays(folder / "arrays.npz").items():
        if hasattr(make, name) or name in vars(router):
            raise ValueError(f"{folder / 'arrays.npz'} holds {name!r}, which is no array of a {make.__name__}")
        setattr(router, name, array)
    router._read_weights(folder)
    return router


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_description(path: Path) -> dict[str, Any]:
    """Return the content of ``router.json``, checked but for the settings."""

    def expect(condition: bool, fault: str) -> None:
        if not condition:
            raise ValueError(f"{path} is damaged: {fault}; copy it again, or train the router again")

    expect(path.stat().st_size <= LARGEST_DESCRIPTION, f"it has more than {LARGEST_DESCRIPTION} bytes")
    _check_place(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no description of a router: {error!r}") from error
    if type(version) is not int or version not in KEYS:
        raise ValueError(
            f"{path} has format version {version}, this package reads {' and '.join(map(str, KEYS))}; use the version"
            " of the package that wrote it, or train the router again"
        )
    expect(set(content) == KEYS[version], f"its keys are {', '.join(content)}")
    checksum = content.pop("checksum", None)
    expect(version < 3 or checksum == _checksum(content), "its checksum differs")
    name, models, nu = content["router"], content["models"], content.get("nu", content.get("tie"))
    if not isinstance(name, str) or name not in ROUTERS:
        raise ValueError(f"{path}: unknown router {name!r}; known are {', '.join(ROUTERS)}")
    named = isinstance(models, list) and all(isinstance(model, str) and model.strip() for model in models)
    expect(named and len(models) > 1 and models == sorted(set(models)), "models are no sorted list of distinct names")
    expect(_fits(nu, float), f"nu is {nu!r}")
    hashes, sizes = content["sha256"], content.get("bytes", content["sha256"])
    expect(isinstance(hashes, dict) and isinstance(sizes, dict) and set(hashes) == set(sizes), "it lists no files")
    for file, sha256 in hashes.items():
        expect(re.fullmatch(r"\w[\w-]*\.(npz|safetensors)", file) is not None, f"it lists a file {file!r}")
        expect(isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256) is not None, f"sha256 of {file}")
    expect("arrays.npz" in hashes and isinstance(content["settings"], dict), "arrays or settings are missing")
    return content


def _check_place(path: Path) -> None:
    """Check that a file of a router's folder is no link to elsewhere, but to the blobs of the hub's cache."""
    folder = path.parent.resolve()
    if path.resolve().parent not in (folder, folder.parent.parent / "blobs"):
        raise ValueError(f"{path} is a link that leads out of the router's folder; do not use it")


def _check_file(path: Path, sha256: str, size: int | None) -> None:
    """Check place, size and hash of one file of a router."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {path.parent} holds no whole router; train it again")
    _check_place(path)
    if size not in (None, path.stat().st_size) or hash_file(path) != sha256:
        raise ValueError(f"{path} is not the file that was saved (its size or sha256 differs); train it again")


def _fits(value: object, hint: Any) -> bool:
    """Return whether a value from JSON is of a setting's type; numbers are finite and not negative."""
    if args := get_args(hint):
        return any(_fits(value, part) for part in args)
    allowed = (int, float) if hint is float else (hint,)
    return type(value) in allowed and (type(value) not in (int, float) or 0 <= value < math.inf)


def _checked_settings(make: type[Router], settings: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the settings of a router as its class takes them."""
    hints = get_type_hints(make)
    known = {item.name: hints[item.name] for item in fields(make)}
    settings = {name if name in known else RENAMED.get(name, name): value for name, value in settings.items()}
    encoder = settings.pop("encoder", None) if "encoder" in known else None
    if not isinstance(encoder, dict | None):
        raise ValueError(f"{path}: the encoder's settings are {encoder!r}; train the router again")
    parts = [(settings, known)] + ([] if encoder is None else [(encoder, ENCODER_SETTINGS)])
    for values, types in parts:
        for name, value in values.items():
            if name not in types or not _fits(value, types[name]):
                raise ValueError(f"{path}: {name} = {value!r} is no setting of a {make.__name__}; train it again")
    if encoder is None:
        return settings
    content = encoder.pop("content", None)
    made = PromptEncoder(**encoder)
    folder = model_folder(made.name)
    if content is not None and folder is not None and made.content != content:
        raise ValueError(
            f"{path}: the encoder {folder} has changed since the router was trained (sha256 {made.content}, then"
            f" {content}); bring the old one back, or train the router again"
        )
    return settings | {"encoder": made}


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` as `numpy.savez` writes it: not compressed, so no larger than the file."""
    total = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{entry.filename} is compressed")
                with archive.open(entry) as stream:
                    if np.lib.format.read_magic(stream) != (1, 0):
                        raise ValueError(f"{entry.filename} is no array of format 1.0")
                    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                    size = math.prod(shape) * dtype.itemsize + stream.tell()
                total += size
                if dtype.hasobject or size != entry.file_size or total > path.stat().st_size:
                    raise ValueError(f"{entry.filename} holds objects, or is of another size than it says")
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} holds no arrays of a router: {error}") from error


@dataclass
class EmbeddingRouter(Router):
    """A router that sees a prompt as a unit vector.

    Parameters
    ----------
    encoder : PromptEncoder
        Turns strings into vectors, where strings are given.
    """

    encoder: PromptEncoder = field(default_factory=PromptEncoder, kw_only=True)

    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Self:
        vectors = self._battle_vectors(battles, embeddings)
        ordered = canonical_order(battles.reset_index(drop=True))
        codes = encode_battles(ordered)
        self.models = codes.models
        self._learn(codes, ordered["prompt"].to_numpy(), vectors[ordered.index])
        return self

    def _battle_vectors(self, battles: pd.DataFrame, embeddings: np.ndarray | None) -> np.ndarray:
        """Unit vectors of battles' prompts, (n_battles, width): those given, or by the router's encoder."""
        if "prompt" not in battles.columns:
            raise ValueError(f"a {type(self).__name__} learns from prompts: the battle table lacks column prompt")
        if embeddings is None:
            return self.encoder.encode(validate_battles(battles)["prompt"].tolist())
        vectors = unit_rows(embeddings)
        if len(vectors) != len(battles):
            raise ValueError(f"{len(vectors)} embeddings for {len(battles)} battles; give one a battle")
        return vectors

    @abstractmethod
    def _learn(self, codes: BattleCodes, prompts: np.ndarray, vectors: np.ndarray) -> None:
        """Fit to battles in canonical order; `vectors`: (n_battles, width), unit rows."""

    def _vectors(self, prompts: Prompts) -> np.ndarray:
        """Unit vectors of prompts: (n_prompts, width)."""
        if isinstance(prompts, np.ndarray) and prompts.ndim == 2:
            return unit_rows(prompts)
        return self.encoder.encode(prompts)

    def _settings(self) -> dict[str, Any]:
        encoder = self.encoder
        if callable(encoder.name):
            raise ValueError("this router's encoder is a function, which no file can hold; use a model's name")
        folder = None if encoder.name == BUNDLED_MODEL else model_folder(encoder.name)
        on_hub = model_folder(encoder.name) is None
        written = {
            "name": str(encoder.name if folder is None else folder.absolute()),
            "max_length": encoder.max_length,
            "revision": encoder.content if on_hub else None,
            "n_layers": encoder.n_layers,
            "content": encoder.content,
        }
        return super()._settings() | {"encoder": written}


def check_texts(prompts: Prompts) -> int:
    if isinstance(prompts, str):
        raise ValueError("prompts is one string; give a list of prompts")
    return len(prompts)


@dataclass
class BradleyTerryRouter(Router):
    """The leaderboard as a router: the same ratings for every prompt. What a prompt-aware router has to beat.

    Parameters
    ----------
    prior_strength : float
        As in `fit_bradley_terry`. 0 is maximum likelihood, and battles without a finite estimate are an error.
    """

    prior_strength: float = 0.0

    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Self:
        counts = count_pairs(battles)
        fit = fit_bradley_terry(counts, "davidson", self.prior_strength)
        self.models, self.nu, self.constant_ratings = counts.models, fit.tie_parameter, fit.ratings.to_numpy()
        return self

    def ratings(self, prompts: Prompts) -> np.ndarray:
        return np.tile(self.constant_ratings, (check_texts(prompts), 1))

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"constant_ratings": self.constant_ratings}


@dataclass
class RandomRouter(Router):
    """Ratings drawn at random for each prompt and model: standard normal, always the same for the same text.

    nu is that of equal models with the share of ties of the battles, one battle a third of which is a tie added.

    Parameters
    ----------
    seed : int
    """

    seed: int = 0

    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Self:
        counts = count_pairs(battles)
        self.models, n_ties = counts.models, counts.ties.sum() / 2
        self.nu = float(2 * (n_ties + 1 / 3) / (counts.wins.sum() + 2 / 3))
        return self

    def ratings(self, prompts: Prompts) -> np.ndarray:
        drawn = np.empty((check_texts(prompts), len(self.models)))
        for row, prompt in enumerate(prompts):
            content = prompt.tobytes() if isinstance(prompt, np.ndarray) else prompt.encode("utf-8", "surrogatepass")
            digest = hashlib.sha256(content).digest()
            generator = np.random.default_rng([self.seed, *np.frombuffer(digest, dtype=np.uint32)])
            drawn[row] = generator.standard_normal(len(self.models))
        return drawn
