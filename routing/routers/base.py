"""What every router is: ratings of models that depend on the prompt, and the baselines.

A router gives each model a rating (log-odds) for a prompt. Probabilities of a pair follow from the difference of
two ratings alone, so naming the pair the other way round mirrors the answer, and any two of its models can be
compared. Which of the two is "strong" is not a router's business.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from routing.battles import BattleCodes, canonical_order, count_pairs, encode_battles, validate_battles
from routing.embeddings import PromptEncoder, unit_rows
from routing.files import hash_file, write_json
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.ratings.ties import outcome_probability

FORMAT_VERSION = 2
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
            Of the battles' prompts, a row a battle; by default the router's encoder makes them.
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
            Of the prompts, a row a battle.

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

    def _write_weights(self, folder: Path) -> None:  # noqa: B027
        """Write what is no array of numpy's into files of `folder`; most routers have nothing."""

    def _read_weights(self, folder: Path) -> None:  # noqa: B027
        """Read what `_write_weights` wrote, once the arrays are attributes."""

    def save(self, folder: str | Path) -> None:
        """Write the fitted router into `folder`: ``router.json``, ``arrays.npz`` and perhaps weights, no pickle.

        The folder appears whole or not at all.

        Raises
        ------
        FileExistsError
            `folder` is there already.
        ValueError
            The encoder is a function, which cannot be written down.
        """
        folder = Path(folder)
        if folder.exists():
            raise FileExistsError(f"{folder} is there already; remove it or choose another name")
        settings = {item.name: getattr(self, item.name) for item in fields(self)}
        encoder = settings.pop("encoder", None)
        if encoder is not None:
            if callable(encoder.name):
                raise ValueError("this router's encoder is a function, which no file can hold; use a model's name")
            kept = ("max_length", "revision", "n_layers")  # what vectors depend on, beside the model
            settings["encoder"] = {"name": str(encoder.name)} | {name: getattr(encoder, name) for name in kept}
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            np.savez(partial / "arrays.npz", **self._arrays())
            self._write_weights(partial)
            files = sorted(path.name for path in partial.iterdir())
            content = {
                "format_version": FORMAT_VERSION,
                "router": type(self).__name__,
                "settings": settings,
                "models": self.models,
                "tie": self.nu,
                "sha256": {name: hash_file(partial / name) for name in files},
            }
            write_json(partial / "router.json", content)
            partial.chmod(0o755)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def router_class(name: str) -> type[Router]:
    """The class of this name, one of `ROUTERS`, imported when it is asked for: some take seconds."""
    return getattr(importlib.import_module(ROUTERS[name]), name)


def load_router(folder: str | Path) -> Router:
    """The router that `Router.save` wrote into `folder`.

    Raises
    ------
    FileNotFoundError
        No router there.
    ValueError
        A file of another version, of an unknown router, or with another hash than when it was written.
    """
    folder = Path(folder)
    description, arrays = folder / "router.json", folder / "arrays.npz"
    for path in (description, arrays):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: {folder} holds no saved router")
    try:
        content = json.loads(description.read_text(encoding="utf-8"))
        version, name = content["format_version"], content["router"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{description} is no description of a router: {error}") from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{description} has format version {version}, this package reads {FORMAT_VERSION}; train the router again"
        )
    if name not in ROUTERS:
        raise ValueError(f"{description}: unknown router {name!r}; known are {', '.join(ROUTERS)}")
    for file, sha256 in content["sha256"].items():
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder / file} is missing: {folder} holds no whole router; train it again")
        if hash_file(folder / file) != sha256:
            raise ValueError(f"{folder / file} is not the file that was saved (its sha256 differs); train it again")
    settings = dict(content["settings"])
    if "encoder" in settings:
        settings["encoder"] = PromptEncoder(**settings["encoder"])
    router = router_class(name)(**settings)
    router.models, router.nu = tuple(content["models"]), content["tie"]
    with np.load(arrays, allow_pickle=False) as stored:
        for key in stored.files:
            setattr(router, key, stored[key])
    router._read_weights(folder)
    return router


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
        return self.encoder.encode(list(prompts))


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
