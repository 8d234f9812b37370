"""Define what both classifiers share: a transformer encodes the prompt, and a head adds to the leaderboard.

    rating[m](q) = leaderboard[m] + output[tier of m](q)

The leaderboard is Davidson's model fitted to all battles. The head is first fitted, in seconds, to the vectors of the
untrained transformer (``train="head"`` stops there); from there the last layer or all layers are trained [Kumar22].
"""

from __future__ import annotations

import copy
import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import nn
from tqdm import tqdm

from routing.battles import canonical_order, encode_battles, hash_texts, number_texts, sum_outcomes
from routing.devices import choose_device
from routing.embeddings import (
    BUNDLED_MODEL,
    batches_to_read,
    layer_stack,
    loading,
    model_folder,
    model_revision,
    pin_model,
    use_one_thread_if_forked,
)
from routing.ratings.bradley_terry import fit_bradley_terry, rating_tiers
from routing.routers import training
from routing.routers.base import Prompts, Router, check_texts
from routing.routers.training import Batches, BattlesByPrompt, ModelTraining, RatingModel, TrainingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRAINED_PARTS = ("head", "last_layer", "all")
LOSSES = {"davidson": training.davidson_losses, "half": training.score_losses}
INFERENCE_BATCH = 64


def load_pretrained(auto_class: type, name: str, revision: str | None = None, **settings: object) -> Any:
    """Load a model by one of transformers' auto classes; code that the model brings along is never run.

    `name` is "all-MiniLM-L6-v2" (the bundled weights), a folder, or a name on the hub; `settings` override its
    configuration. FileNotFoundError or ValueError says what to do about a model that cannot be loaded.
    """
    with loading(name):
        source = str(model_folder(name) or name)
        return auto_class.from_pretrained(source, revision=revision, trust_remote_code=False, **settings)


@dataclass
class ClassifierRouter(TrainingSettings, Router):
    """A transformer trained on battles; `fit` sets ``n_trained``, the number of parameters that were trained."""

    name: str = BUNDLED_MODEL  # as in `load_pretrained`
    train: str = "all"  # "all" layers, the "last_layer", or the "head" alone
    n_tiers: int | None = 10  # outputs of the head, one for each tier of the leaderboard; None: one for each model
    ties: str = "half"  # train on scores, a tie being half a win; "davidson": on the three outcomes
    n_layers: int | None = None  # keep only the first layers of the transformer
    max_length: int = 128  # tokens of a prompt; longer ones are cut
    prior_strength: float = 0.1  # of the leaderboard, as in `fit_bradley_terry`
    revision: str | None = None  # of a model on the hub

    pads_left = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("train", TRAINED_PARTS), ("ties", LOSSES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(known)}")
        if self.max_length < 1:
            raise ValueError(f"max_length is {self.max_length}; use a value above 0")

    @abstractmethod
    def _load_backbone(self) -> nn.Module:
        """Load the untrained transformer, with `n_layers` layers."""

    @abstractmethod
    def _tokenize(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Return the token ids of each text, (T,) int64, at most `max_length`."""

    @staticmethod
    @abstractmethod
    def _pool(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the vector of each prompt, (B, width), from its tokens' states, (B, T, width)."""

    def _untrained_vectors(self, texts: Sequence[str]) -> torch.Tensor:
        """Return vectors of the untrained transformer: (n_texts, width) float32."""
        return self._run(self.model.vectors, texts)

    @property
    def _n_outputs(self) -> int:
        return int(self.model_tier.max()) + 1

    def _battle_losses(self, outputs: torch.Tensor, log_nu: torch.Tensor, battles: BattlesByPrompt) -> torch.Tensor:
        """Return the loss of each battle at `outputs`, (n_prompts, n_outputs)."""
        return LOSSES[self.ties](outputs, log_nu, battles)

    def _prior_outputs(self, battles: BattlesByPrompt) -> torch.Tensor:
        """Return the outputs that no prompt changes: (n_outputs,)."""
        return torch.zeros(self._n_outputs)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer  # takes seconds, and a trained head on cached vectors does without

        return load_pretrained(AutoTokenizer, self.name, self.revision)

    @cached_property
    def base_revision(self) -> str:
        """The untrained transformer's `model_revision`."""
        return model_revision(self.name, self.revision)

    def fit(
        self,
        battles: pd.DataFrame,
        embeddings: np.ndarray | None = None,
        *,
        start: ClassifierRouter | None = None,
        checkpoints: str | Path | None = None,
    ) -> Self:
        """Learn from battles; swapping models and reordering rows changes nothing, bit for bit.

        `embeddings`, if given, must be the prompts: a classifier encodes them itself. A fit that was stopped resumes
        from its folder of `checkpoints`, as `ModelTraining.run` does.

        Transformer and tiers may come from `start`, a fitted classifier of the same class and model. A model new to it
        joins the tier of nearest mean rating. Leaderboard and head are fitted again, and layers are trained further on
        the prompts that `start` did not learn from and as many of the others, drawn so that these are not forgotten.

        Raises ValueError for battles without prompts or on one prompt alone. Other errors as `load_pretrained` and
        `ModelTraining.run`.
        """
        if "prompt" not in battles.columns:
            raise ValueError(f"the battle table lacks column prompt, which a {type(self).__name__} learns from")
        if embeddings is not None and not np.array_equal(embeddings, battles["prompt"].to_numpy()):
            raise ValueError(f"a {type(self).__name__} encodes the prompts itself; leave embeddings out")
        codes = encode_battles(ordered := canonical_order(battles.reset_index(drop=True)))
        overall = fit_bradley_terry(sum_outcomes(*codes), "davidson", self.prior_strength)
        self.models, self.nu, self.leaderboard = codes.models, overall.tie_parameter, overall.ratings.to_numpy()
        self.model_tier = self._split_tiers(overall.ratings, start)
        gathered = training.gather_by_prompt(codes, ordered["prompt"].to_numpy(), self.leaderboard, self.model_tier)
        if len(gathered.prompts) < 2:
            raise ValueError("all battles are on one prompt; a classifier needs at least two")
        learned = hash_texts(gathered.prompts)
        if start is not None:
            gathered = gathered.part(self._prompts_to_go_on_with(start, learned))
        self._learn(gathered, start, checkpoints)
        self.learned_prompts = np.unique(learned)
        return self

    def _split_tiers(self, ratings: pd.Series, start: ClassifierRouter | None) -> np.ndarray:
        """Return the tier of each model: (n_models,)."""
        if start is None:
            if self.n_tiers is None:
                return np.arange(len(ratings))
            return rating_tiers(ratings, min(self.n_tiers, ratings.nunique())).to_numpy()
        known = pd.Series(start.model_tier, index=start.models).reindex(ratings.index)
        centre = ratings.groupby(known).mean()  # of each tier
        nearest = np.abs(ratings.to_numpy()[:, None] - centre.to_numpy()).argmin(axis=1)
        return known.fillna(pd.Series(centre.index[nearest], index=ratings.index)).to_numpy(dtype=np.int64)

    def _prompts_to_go_on_with(self, start: ClassifierRouter, learned: np.ndarray) -> np.ndarray:
        """Return the prompts new to `start` and as many others, ascending; for a head alone all."""
        if type(start) is not type(self) or (start.name, start.n_layers) != (self.name, self.n_layers):
            raise ValueError(f"start is a {type(start).__name__} of {start.name}; use one of the same class and model")
        if self.train == "head":
            return np.arange(len(learned))
        new = ~np.isin(learned, start.learned_prompts)
        rng = np.random.default_rng([self.seed, 2])
        again = rng.permutation(np.flatnonzero(~new))[: new.sum()]
        return np.sort(np.concatenate([np.flatnonzero(new), again]))

    def _learn(self, battles: BattlesByPrompt, start: ClassifierRouter | None, checkpoints: str | Path | None) -> None:
        """Fit the head, then train layers if any."""
        n_prompts = len(battles.prompts)
        rng = np.random.default_rng([self.seed, 1])
        n_validation = int(np.clip(round(self.validation_share * n_prompts), 1, n_prompts - 1))
        validates = np.isin(np.arange(n_prompts), rng.permutation(n_prompts)[:n_validation])
        parts = battles.part(np.flatnonzero(~validates)), battles.part(np.flatnonzero(validates))
        learned = battles if self.train == "head" else parts[0]
        if start is None or self.train == "head":
            self.model = self._build_model()
            vectors = self._untrained_vectors(learned.prompts)
        else:
            self.model = copy.deepcopy(start.model)
            vectors = self._run(self.model.vectors, learned.prompts)
        prior = self._prior_outputs(learned)
        self.model.cpu()

        def losses(outputs: torch.Tensor, some: BattlesByPrompt) -> torch.Tensor:
            return self._battle_losses(outputs + prior, self.model.log_nu, some)

        weight, constant = training.choose_head(vectors, learned, losses, self._n_outputs, rng)
        self.model.head.weight.copy_(weight)
        self.output_offset = (prior + constant).numpy()
        self.n_trained, self.curve = weight.numel(), np.empty((0, 3))
        if self.train != "head":
            self._train_layers(*parts, rng, checkpoints and Path(checkpoints))

    def _build_model(self) -> RatingModel:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)  # of weights that the file lacks, such as rows for new tokens
            backbone = self._load_backbone()
            head = nn.Linear(backbone.config.hidden_size, self._n_outputs, bias=False)
        backbone.config.use_cache = False
        nn.init.zeros_(head.weight)
        log_nu = math.log(self.nu) if self.nu > 0 else -math.inf
        return RatingModel(backbone, self._pool, head, log_nu).requires_grad_(False).eval()

    def _train_layers(
        self,
        learned: BattlesByPrompt,
        validation: BattlesByPrompt,
        rng: np.random.Generator,
        checkpoints: Path | None,
    ) -> None:
        """Train the last layer or all layers, with the head."""
        for parameter in [*self._parameters_to_train(), self.model.head.weight]:
            parameter.requires_grad_(True)
        self.model.log_nu.requires_grad_(self.ties == "davidson" and self.nu > 0)
        self.n_trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        offset = torch.from_numpy(self.output_offset).float()

        def battle_loss(outputs: torch.Tensor, log_nu: torch.Tensor, battles: BattlesByPrompt) -> torch.Tensor:
            return self._battle_losses(outputs + offset.to(outputs.device), log_nu, battles)

        seen, unseen = self._tokenize(learned.prompts), self._tokenize(validation.prompts)
        epochs = [training.batches_to_train(_lengths(seen), self.batch_size, rng) for _ in range(self.n_epochs)]
        order = list(itertools.chain.from_iterable(epochs))
        on_cpu = choose_device(self.device).startswith("cpu")
        fixed = batches_to_read(_lengths(unseen), self.batch_size, on_cpu)
        batches = (
            Batches(learned, seen, order, self.pads_left),
            Batches(validation, unseen, fixed, self.pads_left),
        )
        self.curve = ModelTraining(self.model, *batches, battle_loss, self).run(checkpoints)
        self.nu = float(self.model.log_nu.exp())

    def _parameters_to_train(self) -> list[nn.Parameter]:
        """Return the transformer's parameters to train."""
        backbone = self.model.backbone
        return list((backbone if self.train == "all" else getattr(*layer_stack(backbone))[-1]).parameters())

    @property
    def learning_curve(self) -> pd.DataFrame:
        """Losses in nats per battle as `ModelTraining.run` returns them: step, training, validation."""
        return pd.DataFrame(self.curve, columns=["step", "training", "validation"])

    def _run(self, function: Callable[..., torch.Tensor], texts: Sequence[str]) -> torch.Tensor:
        """Return the result of the model, or of its `vectors`, for each text: (n_texts, n)."""
        use_one_thread_if_forked()
        device = choose_device(self.device)
        self.model.to(device).eval()
        tokens = self._tokenize(texts)
        parts: dict[int, torch.Tensor] = {}
        bar = tqdm(total=len(tokens), desc="encode prompts", unit="prompt", disable=None)
        with torch.no_grad(), training.bfloat16_where_faster(device), bar:
            for batch in batches_to_read(_lengths(tokens), INFERENCE_BATCH, device.startswith("cpu")):
                inputs = training.pad_rows([tokens[number] for number in batch], self.pads_left)
                outputs = function(**{name: value.to(device) for name, value in inputs.items()})
                parts |= zip(batch.tolist(), outputs.float().cpu(), strict=True)
                bar.update(len(batch))
        return torch.stack([parts[number] for number in range(len(tokens))])

    def _outputs(self, prompts: Prompts) -> np.ndarray:
        """Return the head's outputs, (n_prompts, n_outputs) float64; equal prompts are encoded once."""
        check_texts(prompts)
        self._check_fitted()
        distinct, number = number_texts(np.array(list(prompts), dtype=object))
        if not len(distinct):
            return np.empty((0, len(self.output_offset)))
        if self.train == "head":
            with torch.no_grad():
                outputs = self.model.cpu().head(self._untrained_vectors(distinct))
        else:
            outputs = self._run(self.model, distinct)
        return outputs.double().numpy()[number] + self.output_offset

    def ratings(self, prompts: Prompts) -> np.ndarray:
        outputs = self._outputs(prompts)
        return self.leaderboard + outputs[:, self.model_tier]

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | pin_model(self.name, self.base_revision) | {"device": "auto"}  # where it is loaded

    def _arrays(self) -> dict[str, np.ndarray]:
        names = "leaderboard model_tier output_offset learned_prompts curve n_trained"
        arrays = {name: np.asarray(getattr(self, name)) for name in names.split()}
        return arrays | {"base_sha256": np.asarray(self.base_revision)}

    def _changed(self) -> dict[str, torch.Tensor]:
        """Return the weights that training changed, by name."""
        if self.train == "all":
            return dict(self.model.state_dict())
        kept = {id(p) for p in (self.model.head.weight, self.model.log_nu)}
        kept |= {id(p) for p in self._parameters_to_train()} if self.train == "last_layer" else set()
        return {name: p.detach() for name, p in self.model.named_parameters() if id(p) in kept}

    def _write_weights(self, folder: Path) -> None:
        weights = {name: value.cpu().contiguous() for name, value in self._changed().items()}
        safetensors.torch.save_file(weights, folder / "weights.safetensors")

    def _read_weights(self, folder: Path) -> None:
        if str(self.base_sha256) != self.base_revision:
            raise ValueError(
                f"{folder} was trained on {self.name} with sha256 {self.base_sha256}, which now has"
                f" {self.base_revision}; restore it, or train the router again"
            )
        self.model = self._build_model()
        weights = safetensors.torch.load_file(folder / "weights.safetensors")
        if set(weights) != set(self._changed()):
            raise ValueError(f"{folder}/weights.safetensors does not hold the weights of a {type(self).__name__}")
        self.model.load_state_dict(weights, strict=False)


def _lengths(rows: Sequence[torch.Tensor]) -> np.ndarray:
    return np.array([len(row) for row in rows])
