"""Matrix factorization: a rating is bilinear in a vector for the model and a vector for the prompt."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch.nn import functional
from torch.utils.data import TensorDataset

from routing.battles import BattleCodes, number_texts, sum_outcomes
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.routers.base import EmbeddingRouter, Prompts

RELEASED_NOISE = 0.1  # standard deviation of what RouteLLM's code adds to every prompt vector


@dataclass
class MatrixFactorizationRouter(EmbeddingRouter):
    """The matrix factorization router of RouteLLM [RouteLLM24, section 4.2], trained on the likelihood with ties.

    ``rating[m](q) = w . (v[m] * (W e(q) + b))`` with e(q) the prompt's unit vector of `width` numbers, W of shape
    (dimension, width), and b, w and each v[m] of `dimension` numbers. The last three do not depend on the prompt, so
    ratings of a batch are one product with a (width, n_models) matrix, and those of several seeds are averaged in it.

    Training starts at the leaderboard (the ratings of a Bradley-Terry fit, the same for every prompt) and keeps the
    epoch with the best log-loss on battles of held-out prompts. So where prompts do not help, the leaderboard stays,
    which orders no prompts.

    Parameters
    ----------
    learning_rate, weight_decay, batch_size, n_epochs
        Of Adam. The paper's: 3e-4, 1e-5, 64, about 10.
    n_seeds : int
        Trainings from different random starts, on different held-out prompts, whose ratings are averaged.
    held_out_share : float
        Share of the prompts whose battles choose the epoch.
    prior_strength : float
        Of the leaderboard, as in `fit_bradley_terry`.
    early_stopping : bool
        Keep the best epoch on held-out prompts, epoch 0 (the leaderboard) among them; else the last one, as the paper.
    reference : bool
        RouteLLM's form: no b, model vectors scaled to length 1, noise on the prompt vectors while training (and
        not after it), ties dropped, all epochs.

    Notes
    -----
    Differs from RouteLLM in: ties are used and not dropped; early stopping; any pair of models can be named.
    """

    dimension: int = 128
    learning_rate: float = 3e-4
    weight_decay: float = 1e-5
    batch_size: int = 64
    n_epochs: int = 10
    n_seeds: int = 3
    held_out_share: float = 0.1
    prior_strength: float = 0.0
    seed: int = 0
    early_stopping: bool = True
    reference: bool = False

    def __post_init__(self) -> None:
        for name in ("dimension", "learning_rate", "batch_size", "n_epochs", "n_seeds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be above 0")
        if not 0 < self.held_out_share < 1:
            raise ValueError(f"held_out_share is {self.held_out_share}; it lies between 0 and 1")

    def _learn(self, codes: BattleCodes, prompts: np.ndarray, vectors: np.ndarray) -> None:
        overall = fit_bradley_terry(sum_outcomes(*codes), "davidson", self.prior_strength)
        distinct, prompt_number = number_texts(prompts)
        if len(distinct) < 2:
            raise ValueError("all battles are on one prompt; matrix factorization needs at least two to learn from")
        models = np.stack([codes.model_a, codes.model_b], axis=1)
        arrays = np.ascontiguousarray(vectors, dtype=np.float32), models, codes.outcome
        battles = TensorDataset(*map(torch.from_numpy, arrays))
        trained, curves = [], []
        for number in range(self.n_seeds):
            drawn = np.random.default_rng([self.seed, number])
            n_held_out = int(np.clip(round(self.held_out_share * len(distinct)), 1, len(distinct) - 1))
            held_out = np.isin(prompt_number, drawn.permutation(len(distinct))[:n_held_out])
            generator = torch.Generator().manual_seed(int(drawn.integers(2**63)))
            start, shape = (overall.ratings.to_numpy(), overall.tie_parameter), (self.dimension, vectors.shape[1])
            form = _Bilinear(*start, shape, self.reference, generator)
            with _one_thread():
                curve = self._train(form, TensorDataset(*battles[~held_out]), battles[held_out])
            trained.append((*form.collapse(), float(form.log_nu.detach().exp())))
            curves.append(curve.assign(seed=number))
        # (width, M), (M,) and a number
        self.prompt_product, self.constant_ratings, nu = (np.mean(part, axis=0) for part in zip(*trained, strict=True))
        self.nu = float(nu)
        self.learning_curve = pd.concat(curves, ignore_index=True)

    def _train(self, form: _Bilinear, battles: TensorDataset, held_out: tuple[torch.Tensor, ...]) -> pd.DataFrame:
        """Train in place, leave the parameters of the best epoch, and return the losses of all."""
        if self.reference:
            battles = TensorDataset(*battles[battles.tensors[-1] != 1])
        optimizer = torch.optim.Adam(form.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        curve, best = [], np.inf
        for epoch in range(self.n_epochs + 1):  # epoch 0: before training
            if epoch:
                for rows in torch.randperm(len(battles), generator=form.generator).split(self.batch_size):
                    optimizer.zero_grad()
                    form.loss(*battles[rows], training=True).backward()
                    optimizer.step()
            with torch.no_grad():
                losses = {"training": form.loss(*battles.tensors).item(), "held_out": form.loss(*held_out).item()}
            if not np.isfinite(losses["training"]):
                raise RuntimeError(f"the loss of epoch {epoch} is {losses['training']}; lower the learning rate")
            curve.append({"epoch": epoch, **losses})
            if losses["held_out"] < best or self.reference or not self.early_stopping:
                best = losses["held_out"]
                kept = {name: value.clone() for name, value in form.state_dict().items()}
        form.load_state_dict(kept)
        return pd.DataFrame(curve)

    def ratings(self, prompts: Prompts) -> np.ndarray:
        vectors = self._vectors(prompts)
        if vectors.shape[1] != len(self.prompt_product):
            known = f"this router learned on width {len(self.prompt_product)}"
            raise ValueError(f"embeddings of width {vectors.shape[1]}; {known}")
        return vectors @ self.prompt_product + self.constant_ratings

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"prompt_product": self.prompt_product, "constant_ratings": self.constant_ratings}


_training = threading.Lock()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Train on one thread: batches of 64 are too small to share, and the sums are the same on every machine.

    The number of threads belongs to the process, so one training has it at a time.
    """
    with _training:
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(n_threads)


class _Bilinear(torch.nn.Module):
    def __init__(
        self, leaderboard: np.ndarray, nu: float, shape: tuple[int, int], reference: bool, generator: torch.Generator
    ) -> None:
        """Start at ratings (M,) and nu; `shape` is that of W, (dimension, width)."""
        super().__init__()
        self.generator, self.reference = generator, reference

        def normal(*shape: int, scale: float = 1.0) -> torch.nn.Parameter:
            return torch.nn.Parameter(scale * torch.randn(*shape, generator=generator))

        dimension, width = shape
        self.projection = normal(dimension, width, scale=width**-0.5)  # W
        self.combination = torch.nn.Parameter(torch.ones(dimension))  # w
        self.model_vectors = normal(len(leaderboard), dimension, scale=dimension**-0.5)  # v
        log_nu = torch.tensor(nu, dtype=torch.float32).log()  # minus infinity where no battle was tied
        self.log_nu = torch.nn.Parameter(log_nu, requires_grad=bool(nu > 0) and not reference)
        self.bias = torch.nn.Parameter(torch.zeros(dimension), requires_grad=not reference)  # b
        if not reference:
            # v[m] . b is the rating of m on the leaderboard, and the prompt's part starts at 0.
            direction = torch.randn(dimension, generator=generator)
            direction /= direction.norm()
            with torch.no_grad():
                self.model_vectors -= (self.model_vectors @ direction)[:, None] * direction
                self.model_vectors += torch.tensor(leaderboard, dtype=torch.float32)[:, None] * direction
                self.bias.copy_(direction)
                self.projection.zero_()

    def _model_part(self) -> torch.Tensor:
        vectors = functional.normalize(self.model_vectors, dim=1) if self.reference else self.model_vectors
        return vectors * self.combination  # (M, dimension)

    def loss(
        self, vectors: torch.Tensor, models: torch.Tensor, outcome: torch.Tensor, training: bool = False
    ) -> torch.Tensor:
        """Return the mean negative log-likelihood under Davidson's model (of decided battles for RouteLLM's form).

        `vectors` is (B, width) float32, `models` (B, 2), and `outcome` (B,): 0 first won, 1 tie, 2 second won.
        """
        if self.reference:
            vectors, models, outcome = (part[outcome != 1] for part in (vectors, models, outcome))
        if training and self.reference:
            vectors = vectors + RELEASED_NOISE * torch.randn(vectors.shape, generator=self.generator)
        hidden = vectors @ self.projection.T + self.bias  # (B, dimension)
        pair = self._model_part()[models]  # (B, 2, dimension)
        delta = ((pair[:, 0] - pair[:, 1]) * hidden).sum(dim=1)  # (B,)
        tie = torch.full_like(delta, -torch.inf) if self.reference else self.log_nu.expand_as(delta)
        return functional.cross_entropy(torch.stack([delta / 2, tie, -delta / 2], dim=1), outcome)

    def collapse(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what multiplies a prompt's vector, (width, M), and what is added, (M,); ratings of mean 0."""
        with torch.no_grad():
            model_part = self._model_part().double()
            model_part = model_part - model_part.mean(dim=0)
            return (model_part @ self.projection.double()).T.numpy(), (model_part @ self.bias.double()).numpy()
