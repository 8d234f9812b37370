"""Define routers: ratings of models that depend on the prompt; save and load them; two baselines.

A router is a Bradley-Terry model whose ratings depend on the prompt, which is the idea of Prompt-to-Leaderboard, too
[P2L25]; models have learned vectors in EmbedLLM, as in matrix factorization here [EmbedLLM24].

The probabilities of a pair follow from the difference of two ratings (log-odds) alone. So naming the pair the other way
round mirrors the answer, any two models can be compared, and a router need not know which of them is "strong".
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import re
import unicodedata
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd

from routing.battles import BattleCodes, canonical_order, count_pairs, encode_battles, hash_texts, validate_battles
from routing.embeddings import PromptEncoder, model_folder, pin_model, unit_rows
from routing.files import hash_file, write_json, write_whole
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.ratings.ties import outcome_probability
from routing.routers.hub import fetch_router

FORMAT_VERSION = 3
DESCRIPTION = {  # what ``router.json`` holds besides its checksum
    "format_version": int,
    "router": str,
    "settings": dict,
    "models": list[str],
    "nu": float,
    "sha256": dict[str, str],
    "bytes": dict[str, int],
}
ENCODER_SETTINGS = {"name": str, "max_length": int, "revision": str | None, "n_layers": int | None, "content": str}
ENCODER_SETTINGS |= {"precision": str}
UNTIL_NOW = "float32"  # precision of encoders in routers that name none
RENAMED = {"held_out_share": "validation_share"}  # settings since version 2
LARGEST_DESCRIPTION = 2**20  # bytes of ``router.json``
ROUTERS = {  # the module of each class; some take seconds to import
    "BradleyTerryRouter": "routing.routers.base",
    "RandomRouter": "routing.routers.base",
    "SimilarityRouter": "routing.routers.similarity",
    "MatrixFactorizationRouter": "routing.routers.factorization",
    "BertRouter": "routing.routers.bert",
    "CausalLMRouter": "routing.routers.causal",
}

Prompts = Sequence[str] | np.ndarray


class Router(ABC):
    """A Bradley-Terry model whose ratings depend on the prompt."""

    models: tuple[str, ...]  # in alphabetical order; set by `fit`
    nu: float  # of Davidson's model of ties [Davidson70]; set by `fit`

    @abstractmethod
    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Self:
        """Learn from battles; swapping models and reordering rows changes nothing, bit for bit.

        `embeddings`, (n_battles, width), are of the battles' prompts; by default the router's encoder makes them.
        """

    @abstractmethod
    def ratings(self, prompts: Prompts) -> np.ndarray:
        """Return log-odds ratings, (n_prompts, n_models); prompts are strings or embeddings, (n_prompts, width)."""

    def margin(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        """Return the rating of model_a minus that of model_b, log-odds: (n_prompts,).

        RuntimeError: the router has not been fitted; ValueError: a model that it does not rate, or twice the same.
        """
        self._check_fitted()
        for model in (model_a, model_b):
            if model not in self.models:
                raise ValueError(f"this router has no rating for {model!r}; it rates {', '.join(self.models)}")
        if model_a == model_b:
            raise ValueError(f"{model_a!r} against itself: name two different models")
        ratings = self.ratings(prompts)
        return ratings[:, self.models.index(model_a)] - ratings[:, self.models.index(model_b)]

    def _check_fitted(self) -> None:
        if not hasattr(self, "models"):
            raise RuntimeError(f"this {type(self).__name__} has not been fitted; call fit, or load_router")

    def win_probability(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        """Return P(model_a beats model_b | prompt, no tie): (n_prompts,)."""
        return self.win_probability_at(self.margin(prompts, model_a, model_b))

    def win_probability_at(self, margin: np.ndarray) -> np.ndarray:
        """Return P(a beats b | no tie) at what `margin` returns, (n_prompts,)."""
        win, _, loss = self._outcomes(margin).T
        return win / (win + loss)

    def expected_score(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        """Return P(model_a wins) + P(tie) / 2: (n_prompts,)."""
        win, tie, _ = self._outcomes(self.margin(prompts, model_a, model_b)).T
        return win + tie / 2

    def outcome_probability(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        """Return P(model_a wins), P(tie), P(model_b wins): (n_prompts, 3)."""
        return self._outcomes(self.margin(prompts, model_a, model_b))

    def _outcomes(self, delta: np.ndarray) -> np.ndarray:
        """Return P(a wins), P(tie), P(b wins) at rating differences (n,): (n, 3)."""
        return outcome_probability(delta, "davidson", self.nu)

    def battle_probability(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> np.ndarray:
        """Return P(model_a wins), P(tie), P(model_b wins) of each battle: (n_battles, 3).

        `embeddings`: (n_battles, width), of the prompts. A model that this router does not rate raises ValueError.
        """
        codes = encode_battles(battles)
        if unknown := set(codes.models) - set(self.models):
            names = ", ".join(sorted(unknown))
            raise ValueError(f"this router has no rating for {names}; drop their battles, or train on some of them")
        ratings = self.ratings(battles["prompt"].tolist() if embeddings is None else embeddings)
        position = np.array([self.models.index(model) for model in codes.models])
        row = np.arange(len(battles))
        return self._outcomes(ratings[row, position[codes.model_a]] - ratings[row, position[codes.model_b]])

    def prompts_learned(self) -> np.ndarray | None:
        """Return hashes of the prompts learned from, sorted (`find_learned` compares); None where none were kept."""
        return getattr(self, "learned_prompts", None)

    def _arrays(self) -> dict[str, np.ndarray]:
        """Return the attributes, by name, that `fit` sets besides the models and nu."""
        return {}

    def _settings(self) -> dict[str, Any]:
        """Return the settings as JSON holds them."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def _write_weights(self, folder: Path) -> None:  # noqa: B027
        """Write what is no numpy array into files of `folder`; most routers have nothing."""

    def _read_weights(self, folder: Path) -> None:  # noqa: B027
        """Read what `_write_weights` wrote, once the arrays are set."""

    def save(self, folder: str | Path) -> None:
        """Write the fitted router into `folder`: ``router.json``, ``arrays.npz`` and perhaps weights, no pickle.

        The folder appears whole or not at all. An encoder is kept as its absolute path with the sha256 of its content,
        or its commit on the hub; one that is a function raises ValueError. FileExistsError: `folder` exists.
        """
        folder = Path(folder)
        if folder.exists():
            raise FileExistsError(f"{folder} is there already; remove it or choose another name")
        content = {"format_version": FORMAT_VERSION, "router": type(self).__name__, "settings": self._settings()}
        content |= {"models": list(self.models), "nu": self.nu}
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with write_whole(folder, folder=True) as partial:
                known = self.prompts_learned()
                record = {} if known is None else {"learned_prompts": known}
                np.savez(partial / "arrays.npz", **self._arrays() | record)
                self._write_weights(partial)
                files = sorted(partial.iterdir())
                content["sha256"] = {path.name: hash_file(path) for path in files}
                content["bytes"] = {path.name: path.stat().st_size for path in files}
                write_json(partial / "router.json", content | {"checksum": _checksum(content)})
        except OSError as error:
            if folder.exists():
                raise FileExistsError(f"another process has just saved to {folder}; choose another name") from error
            raise


def router_class(name: str) -> type[Router]:
    """Return the class of this name, one of `ROUTERS`; imports its module."""
    return getattr(importlib.import_module(ROUTERS[name]), name)


def load_router(folder: str | Path) -> Router:
    """Load and check the router that `Router.save` wrote into `folder`; no code of its author is run.

    FileNotFoundError: there is no router, or not all of it. ValueError: a file of another version or of an unknown
    router, one changed since it was written, and another encoder than the router was trained with.
    """
    if isinstance(folder, str) and folder.startswith("hub:"):
        folder = fetch_router(folder)
    folder = Path(folder)
    description = folder / "router.json"
    _check_file(description)
    content = _read_description(description)
    for name, sha256 in content["sha256"].items():
        _check_file(folder / name, sha256, content["bytes"].get(name))
    make = router_class(content["router"])
    router = make(**_checked_settings(make, content["settings"], description))
    router.models, router.nu = tuple(content["models"]), content["nu"]
    for name, array in _read_arrays(folder / "arrays.npz").items():
        if hasattr(make, name) or name in vars(router):
            raise ValueError(f"{folder / 'arrays.npz'} holds {name!r}, which is no array of a {make.__name__}")
        if name in ("constant_ratings", "leaderboard", "model_tier") and np.shape(array) != (len(router.models),):
            fault = f"{name} of shape {np.shape(array)} for {len(router.models)} models"
            raise ValueError(f"{folder / 'arrays.npz'} holds {fault}; copy it again, or train the router again")
        setattr(router, name, array)
    router._read_weights(folder)
    return router


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_description(path: Path) -> dict[str, Any]:
    """Return the content of ``router.json``, checked but for the settings."""

    def expect(condition: object, fault: str) -> None:
        if not condition:
            raise ValueError(f"{path} is damaged: {fault}; copy it again, or train the router again")

    expect(path.stat().st_size <= LARGEST_DESCRIPTION, f"it has more than {LARGEST_DESCRIPTION} bytes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no description of a router: {error!r}") from error
    if type(version) is not int or version not in (2, FORMAT_VERSION):
        raise ValueError(
            f"{path} has format version {version}, this package reads 2 and {FORMAT_VERSION}; use the version of the"
            " package that wrote it, or train the router again"
        )
    checksum = content.pop("checksum", None)
    if version == 2:  # without sizes and checksum, and nu had another name
        content |= {"nu": content.pop("tie", None), "bytes": {}}
    else:
        expect(checksum == _checksum(content), "its checksum differs")
    expect(set(content) == set(DESCRIPTION), f"its keys are {', '.join(content)}")
    for name, hint in DESCRIPTION.items():
        expect(_fits(content[name], hint), f"{name} is {content[name]!r}")
    models, hashes = content["models"], content["sha256"]
    if content["router"] not in ROUTERS:
        raise ValueError(f"{path}: unknown router {content['router']!r}; known are {', '.join(ROUTERS)}")
    expect(len(models) > 1 and all(map(str.strip, models)), f"models are {models}")
    expect(models == sorted(set(models)), f"models are no sorted list of distinct names: {models}")
    expect(version == 2 or set(content["bytes"]) == set(hashes), "it lists sizes of other files than hashes")
    for file, sha256 in hashes.items():
        expect(re.fullmatch(r"\w[\w-]*\.(npz|safetensors)", file), f"it lists a file {file!r}")
        expect(re.fullmatch("[0-9a-f]{64}", sha256), f"sha256 of {file} is {sha256!r}")
    expect("arrays.npz" in hashes, "it lists no arrays.npz")
    return content


def _check_file(path: Path, sha256: str | None = None, size: int | None = None) -> None:
    """Check place, size and hash of a router's file; a link may lead to the blobs of the hub's cache only."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {path.parent} holds no saved router, or not all of it")
    folder = path.parent.resolve()
    if path.resolve().parent not in (folder, folder.parent.parent / "blobs"):
        raise ValueError(f"{path} is a link that leads out of the router's folder; replace it by the file itself")
    if size not in (None, path.stat().st_size) or (sha256 is not None and sha256 != hash_file(path)):
        raise ValueError(f"{path} is not the file that was saved (its size or sha256 differs); train it again")


def _fits(value: object, hint: Any) -> bool:
    """Return whether a value from JSON is of a type; numbers are finite and not negative."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (list, dict):
        items = value.values() if type(value) is dict else value
        return type(value) is kind and all(_fits(item, parts[-1]) for item in items)
    if parts:
        return any(_fits(value, part) for part in parts)
    allowed = (int, float) if hint is float else (hint,)
    return type(value) in allowed and (type(value) not in (int, float) or 0 <= value < math.inf)


def _checked_settings(make: type[Router], settings: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return settings from JSON as a router's class takes them."""
    hints = get_type_hints(make) | {"encoder": dict}
    known = {item.name: hints[item.name] for item in fields(make)}
    settings = {name if name in known else RENAMED.get(name, name): value for name, value in settings.items()}
    if "encoder_precision" in known:
        settings = {"encoder_precision": UNTIL_NOW} | settings
    settings.pop("accumulation", None)  # of trainings until version 0.2; it changes no answer
    for types, values in ((known, settings), (ENCODER_SETTINGS, settings.get("encoder", {}))):
        for name, value in values.items():
            if name not in types or not _fits(value, types[name]):
                raise ValueError(f"{path}: {name} = {value!r} is no setting of a {make.__name__}; train it again")
    if "encoder" not in settings:
        return settings
    given = {"precision": UNTIL_NOW} | settings["encoder"]
    encoder = PromptEncoder(**{name: value for name, value in given.items() if name != "content"})
    content, folder = settings["encoder"].get("content"), model_folder(encoder.name)
    if content is not None and folder is not None and encoder.content != content:
        raise ValueError(
            f"{path}: the encoder {folder} has changed since the router was trained (sha256 {encoder.content}, then"
            f" {content}); bring the old one back, or train the router again"
        )
    return settings | {"encoder": encoder}


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` as `numpy.savez` writes it: not compressed, so no larger than the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its arrays are larger than the file")
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, KeyError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} holds no arrays of a router: {error}") from error


@dataclass
class EmbeddingRouter(Router):
    """A router that sees each prompt as a unit vector from its encoder."""

    encoder: PromptEncoder = field(default_factory=PromptEncoder, kw_only=True)
    _unhashed: ClassVar[tuple[np.ndarray, ...]] = ()  # prompts learned from since the last call of `prompts_learned`

    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Self:
        vectors = self._battle_vectors(battles, embeddings)
        codes = encode_battles(ordered := canonical_order(battles.reset_index(drop=True)))
        self.models = codes.models
        self._learn(codes, ordered["prompt"].to_numpy(), vectors[ordered.index])
        vars(self).pop("learned_prompts", None)
        self._unhashed = (ordered["prompt"].to_numpy(),)
        return self

    def _remember(self, prompts: pd.Series) -> None:
        """Keep further prompts that were learned from, unless those before are not known."""
        if self._unhashed or super().prompts_learned() is not None:
            self._unhashed = (*self._unhashed, prompts.to_numpy())

    def prompts_learned(self) -> np.ndarray | None:
        if self._unhashed:  # not in `fit`, which is often called for one look at its ratings
            hashes = [hash_texts(map(normalise_text, prompts)) for prompts in self._unhashed]
            known = getattr(self, "learned_prompts", np.array([], dtype=np.uint64))
            self.learned_prompts, self._unhashed = np.unique(np.concatenate([known, *hashes])), ()
        return super().prompts_learned()

    def _battle_vectors(self, battles: pd.DataFrame, embeddings: np.ndarray | None) -> np.ndarray:
        """Return unit vectors of the battles' prompts, given or encoded: (n_battles, width)."""
        if "prompt" not in battles.columns:
            raise ValueError(f"the battle table lacks column prompt, which a {type(self).__name__} learns from")
        if embeddings is None:
            return self.encoder.encode(validate_battles(battles)["prompt"].tolist())
        vectors = unit_rows(embeddings)
        if len(vectors) != len(battles):
            raise ValueError(f"{len(vectors)} embeddings for {len(battles)} battles; give one per battle")
        return vectors

    @abstractmethod
    def _learn(self, codes: BattleCodes, prompts: np.ndarray, vectors: np.ndarray) -> None:
        """Fit to battles in canonical order; `vectors`: (n_battles, width), unit rows."""

    def _vectors(self, prompts: Prompts) -> np.ndarray:
        """Return unit vectors of prompts: (n_prompts, width)."""
        if isinstance(prompts, np.ndarray) and prompts.ndim == 2:
            return unit_rows(prompts)
        return self.encoder.encode(prompts)

    def _settings(self) -> dict[str, Any]:
        encoder = self.encoder
        if callable(encoder.name):
            raise ValueError("this router's encoder is a function, which cannot be saved; use a model's name")
        kept = {"max_length": encoder.max_length, "n_layers": encoder.n_layers, "content": encoder.content}
        kept["precision"] = encoder.precision  # so that prompts are encoded as the battles were, anywhere
        return super()._settings() | {"encoder": kept | pin_model(encoder.name, encoder.content)}


def normalise_text(text: str) -> str:
    """Return the words of a text in lower case, without punctuation; a text without words as it is."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())) or text.strip()


def find_learned(router: Router, prompts: Sequence[str]) -> np.ndarray | None:
    """Return which prompts the router learned from, (n_prompts,) bool, by normalised text (of a classifier by text).

    None where it cannot be told: the router kept no record of its prompts.
    """
    known = router.prompts_learned()
    if known is None:
        return None
    return np.isin(hash_texts(prompts), known) | np.isin(hash_texts(map(normalise_text, prompts)), known)


def check_texts(prompts: Prompts) -> int:
    """Return the number of prompts."""
    if isinstance(prompts, str):
        raise ValueError("prompts is one string; give a list of prompts")
    return len(prompts)


@dataclass
class BradleyTerryRouter(Router):
    """The leaderboard as a router: the same ratings for every prompt. What a prompt-aware router has to beat."""

    prior_strength: float = 0.0  # as in `fit_bradley_terry`: with 0, battles without a finite estimate are an error

    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Self:
        fit = fit_bradley_terry(count_pairs(battles), "davidson", self.prior_strength)
        self.models, self.nu, self.constant_ratings = (
            tuple(fit.ratings.index),
            fit.tie_parameter,
            fit.ratings.to_numpy(),
        )
        return self

    def ratings(self, prompts: Prompts) -> np.ndarray:
        return np.tile(self.constant_ratings, (check_texts(prompts), 1))

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"constant_ratings": self.constant_ratings}


@dataclass
class RandomRouter(Router):
    """Standard normal ratings drawn for each prompt and model, always the same for the same text.

    nu is that of equal models with the battles' share of ties, after adding one battle of which a third is a tie.
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
