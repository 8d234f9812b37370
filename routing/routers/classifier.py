"""What both classifiers are: a transformer that reads the prompt, and a head that adds to the leaderboard.

    rating[m](q) = leaderboard[m] + output[tier of m](q)

The leaderboard is Davidson's model fitted to all battles. The head is first fitted to the vectors of the untrained
transformer, which takes seconds (`train="head"` stops there); then the last layer, or all of it, is trained on from
that point [Kumar22].
"""

from __future__ import annotations

import copy
import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import nn

from routing.battles import canonical_order, encode_battles, sum_outcomes
from routing.embeddings import BUNDLED_MODEL, batches_to_read
from routing.ratings.bradley_terry import fit_bradley_terry, rating_tiers
from routing.routers.base import Prompts, Router, check_texts
from routing.routers.lessons import Lessons, gather_lessons
from routing.routers.prompt_batches import LessonBatches, batches_to_train
from routing.routers.rating_head import choose_head, davidson_losses, score_losses
from routing.routers.training import RatingModel, TrainingPlan, train_model
from routing.routers.transformer import has_bfloat16, last_layer_only, layer_stack, model_revision

TRAINED_PARTS = ("head", "last_layer", "all")
LOSSES = {"davidson": davidson_losses, "half": score_losses}


@dataclass
class ClassifierRouter(Router):
    """A transformer trained on battles.

    Parameters
    ----------
    name : str
        "all-MiniLM-L6-v2" (the bundled weights), the folder of a transformers model, or its name on the hub.
    train : {"all", "last_layer", "head"}
        What is trained: the whole transformer, its last layer, or the head alone. Below the last layer states are
        then computed once.
    n_tiers : int or None
        Outputs of the head: one for each tier of models, split by the leaderboard; None: one for each model.
    ties : {"half", "davidson"}
        Trained on battles' expected scores, a tie being half a win, or on the likelihood of their three outcomes.
    n_layers : int or None
        Leave only the first layers of the transformer.
    max_length : int
        Tokens of a prompt; longer ones are cut.
    n_epochs : int
        Times each prompt is seen.
    batch_size, accumulation : int
        Prompts in a batch, each with all its battles; batches in a step.
    learning_rate, head_learning_rate, weight_decay, warmup_share, max_grad_norm
        Of AdamW. Rates rise over the first `warmup_share` of the steps and fall linearly over the rest.
    held_out_share : float
        Share of the prompts that layers are not trained on; the loss of their battles is the learning curve.
    early_stopping : bool
        Keep the step that does best on the held-out battles, or the head alone where no step is surely better than
        it. Otherwise the last step is kept, as RouteLLM does.
    checkpoint_steps : int
        Steps between two looks at the held-out battles; each leaves a checkpoint.
    prior_strength : float
        Of the leaderboard, as in `fit_bradley_terry`.
    seed : int
    device : str
        As torch names it. On one that has bfloat16 the transformer computes in it.
    revision : str, optional
        Of a model on the hub.

    Attributes
    ----------
    curve : float array, shape (n_looks, 3)
        step, mean training loss since the last look, loss of the held-out battles; each missing where not looked at.
    n_trained : int
        Parameters trained.
    """

    name: str = BUNDLED_MODEL
    train: str = "all"
    n_tiers: int | None = 10
    ties: str = "half"
    n_layers: int | None = None
    max_length: int = 128
    n_epochs: int = 1
    batch_size: int = 16
    accumulation: int = 1
    learning_rate: float = 3e-5
    head_learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    max_grad_norm: float = 1.0
    held_out_share: float = 0.1
    early_stopping: bool = True
    checkpoint_steps: int = 100
    prior_strength: float = 0.1
    seed: int = 0
    device: str = "cpu"
    revision: str | None = None

    pads_left = False  # whether prompts end, or begin, where the padding is not

    def __post_init__(self) -> None:
        if self.train not in TRAINED_PARTS:
            raise ValueError(f"train is {self.train!r}; use one of {', '.join(TRAINED_PARTS)}")
        if self.ties not in LOSSES:
            raise ValueError(f"ties is {self.ties!r}; use one of {', '.join(LOSSES)}")
        for name in ("n_epochs", "batch_size", "accumulation", "checkpoint_steps", "learning_rate", "max_length"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be above 0")
        if not 0 < self.held_out_share < 1:
            raise ValueError(f"held_out_share is {self.held_out_share}; it lies between 0 and 1")

    # -- what a kind of classifier decides --------------------------------------------------------------------------
    @abstractmethod
    def _load_backbone(self) -> nn.Module:
        """The untrained transformer, with `n_layers` layers."""

    @abstractmethod
    def _tokenize(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Token numbers of each text, (T,) int64, at most `max_length`."""

    @staticmethod
    @abstractmethod
    def _pool(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The vector of each prompt from the states of its tokens: (B, T, width) -> (B, width)."""

    def _untrained_vectors(self, texts: Sequence[str]) -> torch.Tensor:
        """Vectors of the untrained transformer: (n_texts, width) float32."""
        return self.model.run(self._tokenize(texts), self.model.vectors, self.device, self.pads_left)

    @property
    def _n_outputs(self) -> int:
        return int(self.model_tier.max()) + 1

    def _battle_losses(self, outputs: torch.Tensor, log_nu: torch.Tensor, lessons: Lessons) -> torch.Tensor:
        """Loss of each battle; `outputs`: (n_prompts, n_outputs)."""
        return LOSSES[self.ties](outputs, log_nu, lessons)

    def _prior_outputs(self, lessons: Lessons) -> torch.Tensor:
        """Outputs of a head that knows nothing of the prompt: (n_outputs,)."""
        return torch.zeros(self._n_outputs)

    @cached_property
    def base_revision(self) -> str:
        """What weights the untrained transformer has."""
        return model_revision(self.name, self.revision)

    # -- learning ---------------------------------------------------------------------------------------------------
    def fit(
        self,
        battles: pd.DataFrame,
        embeddings: np.ndarray | None = None,
        *,
        start: ClassifierRouter | None = None,
        checkpoints: Path | None = None,
    ) -> Self:
        """Learn from battles; which model stands first and the order of rows change nothing, bit for bit.

        Parameters
        ----------
        embeddings : array of str, shape (n_battles,), optional
            The battles' prompts once more; a classifier reads the text itself.
        start : ClassifierRouter, optional
            A fitted one to go on from: its transformer and tiers. The leaderboard is fitted to all `battles`; a model
            that `start` has not seen joins the tier of nearest mean rating. The head is fitted to the vectors of that
            transformer, and layers are trained on, on the prompts that `start` did not learn from and as many of the
            others, drawn at random, so that these are not forgotten. A head alone is fitted to all again.
        checkpoints : Path, optional
            A folder for checkpoints: a fit that was broken off goes on from there. Removed when the fit is done.

        Raises
        ------
        FileNotFoundError
            The model is not there and cannot be fetched.
        RuntimeError
            The loss is not finite.
        ValueError
            Battles without prompts or on one prompt alone; another `start` than of this class and model.
        """
        if "prompt" not in battles.columns:
            raise ValueError(f"a {type(self).__name__} learns from prompts: the battle table lacks column prompt")
        if embeddings is not None and not np.array_equal(embeddings, battles["prompt"].to_numpy()):
            raise ValueError(f"a {type(self).__name__} reads prompts, no vectors; leave embeddings out")
        codes = encode_battles(ordered := canonical_order(battles.reset_index(drop=True)))
        overall = fit_bradley_terry(sum_outcomes(*codes), "davidson", self.prior_strength)
        self.models, self.nu, self.leaderboard = codes.models, overall.tie_parameter, overall.ratings.to_numpy()
        self.model_tier = self._split_tiers(overall.ratings, start)
        lessons = gather_lessons(codes, ordered["prompt"].to_numpy(), self.leaderboard, self.model_tier)
        if len(lessons.prompts) < 2:
            raise ValueError("all battles are on one prompt; a classifier needs at least two to learn from")
        learned = _hash_texts(lessons.prompts)
        if start is not None:
            chosen = self._prompts_to_go_on_with(start, learned)
            lessons = lessons.part(chosen)
        self._learn(lessons, start, checkpoints)
        self.learned_prompts = np.unique(learned)
        return self

    def _split_tiers(self, ratings: pd.Series, start: ClassifierRouter | None) -> np.ndarray:
        """The tier of each model: (n_models,)."""
        if start is None:
            if self.n_tiers is None:
                return np.arange(len(ratings))
            return rating_tiers(ratings, min(self.n_tiers, ratings.nunique())).to_numpy()
        known = pd.Series(start.model_tier, index=start.models).reindex(ratings.index)
        centre = ratings.groupby(known).mean()  # of each tier
        nearest = np.abs(ratings.to_numpy()[:, None] - centre.to_numpy()).argmin(axis=1)
        return known.fillna(pd.Series(centre.index[nearest], index=ratings.index)).to_numpy(dtype=np.int64)

    def _prompts_to_go_on_with(self, start: ClassifierRouter, learned: np.ndarray) -> np.ndarray:
        """Those that `start` did not learn from and as many others, ascending; for a head alone all."""
        if type(start) is not type(self) or (start.name, start.n_layers) != (self.name, self.n_layers):
            raise ValueError(f"start is a {type(start).__name__} of {start.name}; go on from one of the same kind")
        if self.train == "head":
            return np.arange(len(learned))
        new = ~np.isin(learned, start.learned_prompts)
        rng = np.random.default_rng([self.seed, 2])
        again = rng.permutation(np.flatnonzero(~new))[: new.sum()]
        return np.sort(np.concatenate([np.flatnonzero(new), again]))

    def _learn(self, lessons: Lessons, start: ClassifierRouter | None, checkpoints: Path | None) -> None:
        n_prompts = len(lessons.prompts)
        rng = np.random.default_rng([self.seed, 1])
        n_held_out = int(np.clip(round(self.held_out_share * n_prompts), 1, n_prompts - 1))
        held_out = np.isin(np.arange(n_prompts), rng.permutation(n_prompts)[:n_held_out])
        parts = lessons.part(np.flatnonzero(~held_out)), lessons.part(np.flatnonzero(held_out))
        learned_from = lessons if self.train == "head" else parts[0]
        if start is None or self.train == "head":
            self.model = self._build_model()
            vectors = self._untrained_vectors(learned_from.prompts)
        else:
            self.model = copy.deepcopy(start.model)
            rows = self._tokenize(learned_from.prompts)
            vectors = self.model.run(rows, self.model.vectors, self.device, self.pads_left)
        prior = self._prior_outputs(learned_from)

        def losses(outputs: torch.Tensor, some: Lessons) -> torch.Tensor:
            return self._battle_losses(outputs + prior, self.model.log_nu, some)

        self.model.cpu()
        weight, constant = choose_head(vectors, learned_from, losses, self._n_outputs, rng)
        self.model.head.weight.copy_(weight)
        self.output_offset = (prior + constant).numpy()
        self.n_trained, self.curve = self.model.head.weight.numel(), np.empty((0, 3))
        if self.train != "head":
            self._train_layers(*parts, rng, checkpoints)

    def _build_model(self) -> RatingModel:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)  # transformers draws what a file lacks, such as rows for new tokens
            backbone = self._load_backbone()
            head = nn.Linear(backbone.config.hidden_size, self._n_outputs, bias=False)
        nn.init.zeros_(head.weight)
        log_nu = float(np.log(self.nu)) if self.nu > 0 else -np.inf
        model = RatingModel(backbone, self._pool, head, log_nu)
        return model.requires_grad_(False).eval()

    def _train_layers(self, training: Lessons, held_out: Lessons, rng: np.random.Generator, checkpoints) -> None:
        """Train the last layer or all layers, with the head."""
        whole = self.train == "all"
        for parameter in self._parameters_to_train():
            parameter.requires_grad_(True)
        self.model.head.requires_grad_(True)
        self.model.log_nu.requires_grad_(self.ties == "davidson" and self.nu > 0)
        self.n_trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        offset = torch.from_numpy(self.output_offset).float()

        def battle_loss(outputs: torch.Tensor, log_nu: torch.Tensor, lessons: Lessons) -> torch.Tensor:
            return self._battle_losses(outputs + offset.to(outputs.device), log_nu, lessons)

        tokens = [self._tokenize(part.prompts) for part in (training, held_out)]
        lengths = [np.array([len(row) for row in rows]) for rows in tokens]
        order = [batch for _ in range(self.n_epochs) for batch in batches_to_train(lengths[0], self.batch_size, rng)]
        on_cpu = torch.device(self.device).type == "cpu"
        fixed = batches_to_read(lengths[1], self.batch_size, on_cpu)
        rows = tokens if whole else [self.model.states_below_last(part, self.device, self.pads_left) for part in tokens]
        names = {item.name for item in fields(self)}
        plan = TrainingPlan(
            **{item.name: getattr(self, item.name) for item in fields(TrainingPlan) if item.name in names},
            bfloat16=has_bfloat16(self.device),
            on_cpu=on_cpu,
        )
        with nullcontext() if whole else last_layer_only(self.model.backbone):
            curve = train_model(
                self.model,
                LessonBatches(training, rows[0], order, self.pads_left),
                LessonBatches(held_out, rows[1], fixed, self.pads_left),
                battle_loss,
                plan,
                checkpoints,
            )
        self.curve = curve.to_numpy()
        self.nu = float(self.model.log_nu.exp())

    def _parameters_to_train(self) -> list[nn.Parameter]:
        """Those of the transformer that are trained."""
        backbone = self.model.backbone
        return list((backbone if self.train == "all" else getattr(*layer_stack(backbone))[-1]).parameters())

    @property
    def learning_curve(self) -> pd.DataFrame:
        """Losses while layers were trained, nats a battle: step (0: the head alone), training, held_out."""
        return pd.DataFrame(self.curve, columns=["step", "training", "held_out"])

    # -- rating -----------------------------------------------------------------------------------------------------
    def _outputs(self, prompts: Prompts) -> np.ndarray:
        """The head's outputs: (n_prompts, n_outputs) float64. Equal prompts are read once."""
        check_texts(prompts)
        if not hasattr(self, "models"):
            raise RuntimeError(f"this {type(self).__name__} has not been fitted; call fit, or load_router")
        distinct = sorted(dict.fromkeys(prompts))
        if not distinct:
            return np.empty((0, len(self.output_offset)))
        if self.train == "head":
            with torch.no_grad():
                outputs = self.model.cpu().head(self._untrained_vectors(distinct))
        else:
            outputs = self.model.run(self._tokenize(distinct), self.model, self.device, self.pads_left)
        row = {prompt: number for number, prompt in enumerate(distinct)}
        return outputs.double().numpy()[[row[prompt] for prompt in prompts]] + self.output_offset

    def ratings(self, prompts: Prompts) -> np.ndarray:
        outputs = self._outputs(prompts)
        return self.leaderboard + outputs[:, self.model_tier]

    # -- saving -----------------------------------------------------------------------------------------------------
    def _arrays(self) -> dict[str, np.ndarray]:
        names = ("leaderboard", "model_tier", "output_offset", "learned_prompts", "curve", "n_trained")
        return {name: np.asarray(getattr(self, name)) for name in names} | {
            "base_sha256": np.asarray(self.base_revision)
        }

    def _changed(self) -> dict[str, torch.Tensor]:
        """The weights that training changed, by name."""
        if self.train == "all":
            return dict(self.model.state_dict())
        kept = {id(p) for p in (self.model.head.weight, self.model.log_nu)}
        kept |= {id(p) for p in self._parameters_to_train()} if self.train == "last_layer" else set()
        return {name: p.detach() for name, p in self.model.named_parameters() if id(p) in kept}

    def _write_weights(self, folder: Path) -> None:
        safetensors.torch.save_file(
            {name: value.cpu().contiguous() for name, value in self._changed().items()}, folder / "weights.safetensors"
        )

    def _read_weights(self, folder: Path) -> None:
        if str(self.base_sha256) != self.base_revision:
            raise ValueError(
                f"{folder} was trained on other weights of {self.name} than those that are here; train it again"
            )
        self.model = self._build_model()
        weights = safetensors.torch.load_file(folder / "weights.safetensors")
        if set(weights) != set(self._changed()):
            raise ValueError(f"{folder}/weights.safetensors holds other weights than a {type(self).__name__} has")
        self.model.load_state_dict(weights, strict=False)


def _hash_texts(texts: Sequence[str]) -> np.ndarray:
    """64 bits of the sha256 of each text: what a router remembers of its prompts."""
    digests = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8] for text in texts)
    return np.frombuffer(b"".join(digests), dtype=np.uint64)
