"""Train a transformer under a linear head on battles, resuming from checkpoints after a kill.

    rating[m](q) = leaderboard[m] + (W (h(q) - mean of h))[tier of m]

h(q) is the transformer's vector of the prompt. The leaderboard, a Bradley-Terry fit to all battles, stays as it is; the
head adds to it one output for each tier of models (or each model).
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from routing.battles import BattleCodes, number_texts
from routing.devices import choose_device, processor_has_bfloat16
from routing.files import lock_folder, write_json

N_FOLDS = 5
PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)  # strongest first, for vectors of root mean square 1


BattleLoss = Callable[[torch.Tensor, torch.Tensor, "BattlesByPrompt"], torch.Tensor]  # of outputs, log nu, battles


class BattlesByPrompt(NamedTuple):
    """Battles grouped by distinct prompt, which a transformer encodes once, however many battles it has."""

    prompts: tuple[str, ...]
    prompt: torch.Tensor  # (n_battles,) int64, index into prompts, ascending
    tiers: torch.Tensor  # (n_battles, 2) int64, tier of the first and the second model
    offset: torch.Tensor  # (n_battles,) float32, leaderboard rating of the first minus that of the second
    outcome: torch.Tensor  # (n_battles,) int64: 0 first won, 1 tie, 2 second won

    def part(self, chosen: np.ndarray) -> BattlesByPrompt:
        """Return the battles of some prompts; `chosen`: indices into `prompts`, ascending."""
        place = torch.full((len(self.prompts),), -1)
        place[torch.as_tensor(chosen)] = torch.arange(len(chosen))
        rows = place[self.prompt] >= 0
        prompts = tuple(self.prompts[number] for number in chosen.tolist())
        return BattlesByPrompt(prompts, place[self.prompt[rows]], *(column[rows] for column in self[2:]))

    def to(self, device: torch.device) -> BattlesByPrompt:
        """Return the same battles on a device."""
        return BattlesByPrompt(self.prompts, *(column.to(device) for column in self[1:]))


def gather_by_prompt(
    codes: BattleCodes, prompts: np.ndarray, leaderboard: np.ndarray, model_tier: np.ndarray
) -> BattlesByPrompt:
    """Group battles in canonical order by prompt, alphabetically.

    `prompts`: (n_battles,) str; `leaderboard`, log-odds, and `model_tier`: (n_models,).
    """
    distinct, number = number_texts(prompts)
    rows = np.argsort(number, kind="stable")
    sides = np.stack([codes.model_a, codes.model_b], axis=1)[rows]
    difference = leaderboard[sides[:, 0]] - leaderboard[sides[:, 1]]
    columns = number[rows], model_tier[sides], difference.astype(np.float32), codes.outcome[rows]
    return BattlesByPrompt(tuple(distinct), *(torch.from_numpy(column) for column in columns))


def _pair_margins(outputs: torch.Tensor, battles: BattlesByPrompt) -> torch.Tensor:
    """Return each battle's rating difference, (n_battles,); outputs: (n_prompts, n_tiers)."""
    added = outputs[battles.prompt[:, None], battles.tiers]  # (n_battles, 2)
    return battles.offset + added[:, 0] - added[:, 1]


def davidson_losses(outputs: torch.Tensor, log_nu: torch.Tensor, battles: BattlesByPrompt) -> torch.Tensor:
    """Return the negative log-likelihood of each battle's outcome, (n_battles,), in nats [Davidson70].

    `outputs`: (n_prompts, n_tiers), added to the leaderboard; `log_nu`, (), is minus infinity if no battle was tied.
    """
    margin = _pair_margins(outputs, battles)
    logits = torch.stack([margin / 2, log_nu.expand_as(margin), -margin / 2], dim=1)
    return functional.cross_entropy(logits, battles.outcome, reduction="none")


def score_losses(outputs: torch.Tensor, log_nu: torch.Tensor, battles: BattlesByPrompt) -> torch.Tensor:
    """Return the cross-entropy, in nats, of each battle's score (win 1, tie 1/2) and P(win) + P(tie) / 2 of Davidson.

    nu is one number although ties are rarer on some prompts; the ratings that minimise this loss still give the right
    expected score, on which a choice between two models depends. Arguments as `davidson_losses`.
    """
    margin = _pair_margins(outputs, battles)
    half_tie = (log_nu - math.log(2)).expand_as(margin)
    logit = torch.logaddexp(margin / 2, half_tie) - torch.logaddexp(-margin / 2, half_tie)
    return functional.binary_cross_entropy_with_logits(logit, 1 - battles.outcome.to(margin) / 2, reduction="none")


def fit_head(
    vectors: torch.Tensor,
    n_outputs: int,
    loss: Callable[[torch.Tensor], torch.Tensor],
    penalty: float,
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the W that minimises ``loss(vectors @ W.T) + penalty / 2 * |W|^2``: (n_outputs, width) float64.

    L-BFGS from `start` or 0; for a loss convex in the outputs, (n_prompts, n_outputs), the minimum is unique.
    RuntimeError: the loss is not finite.
    """
    vectors = vectors.double()  # (n_prompts, width)
    weight = torch.zeros(n_outputs, vectors.shape[1], dtype=torch.float64) if start is None else start.clone()
    weight.requires_grad_()
    optimizer = torch.optim.LBFGS([weight], max_iter=300, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(vectors @ weight.T) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    value = optimizer.step(closure)
    if not (torch.isfinite(value) and torch.isfinite(weight).all()):
        raise RuntimeError("the loss of the head is not finite; remove prompts whose vectors are not finite")
    return weight.detach()


def choose_head(
    vectors: torch.Tensor,
    battles: BattlesByPrompt,
    loss: Callable[[torch.Tensor, BattlesByPrompt], torch.Tensor],
    n_outputs: int,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit the head with the penalty that does best over folds of the prompts; a head of 0 if none improves on it.

    Penalties are tried, strongest first, until two in a row do worse. `vectors`: (n_prompts, width); `loss`: of each
    battle. Outputs are ``vectors @ weight.T + constant`` with weight, (n_outputs, width), and constant, (n_outputs,).
    """
    n_prompts = len(battles.prompts)
    fold = rng.permutation(np.arange(n_prompts) % min(N_FOLDS, n_prompts))
    centre, scale = vectors.mean(dim=0), vectors.square().mean().sqrt()
    scaled = (vectors - centre).double() / scale
    parts = []
    for number in range(fold.max() + 1):
        learned, judged = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        parts.append((learned, battles.part(learned), judged, battles.part(judged)))
    weights = [torch.zeros(n_outputs, vectors.shape[1], dtype=torch.float64)] * len(parts)
    best, penalty, n_worse = math.inf, math.inf, 0
    for tried in (math.inf, *PENALTIES):  # infinity: a head of 0
        value = 0.0
        for number, (learned, seen, judged, unseen) in enumerate(parts):
            if tried < math.inf:
                weights[number] = fit_head(
                    scaled[learned], n_outputs, lambda out, part=seen: loss(out, part).mean(), tried, weights[number]
                )
            value += float(loss(scaled[judged] @ weights[number].T, unseen).sum())
        if value < best:
            best, penalty, n_worse = value, tried, 0
        elif (n_worse := n_worse + 1) == 2:
            break
    weight = torch.zeros_like(weights[0])
    if penalty < math.inf:
        weight = fit_head(scaled, n_outputs, lambda out: loss(out, battles).mean(), penalty)
    weight = weight / scale
    return weight, -(weight @ centre.double())


def pad_rows(rows: Sequence[torch.Tensor], left: bool) -> dict[str, torch.Tensor]:
    """Return a transformer's inputs, (B, T), from the token ids of prompts; on the left, positions skip the padding."""
    side = "left" if left else "right"
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side)
    inputs = {"attention_mask": mask, "input_ids": pad_sequence(rows, batch_first=True, padding_side=side)}
    return inputs | ({"position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)} if left else {})


def batches_to_train(lengths: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Put every prompt in one batch of `size` (the last may be smaller) with others of like length, in random order."""
    order = rng.permutation(len(lengths))
    order = order[np.argsort(-np.asarray(lengths)[order], kind="stable")]
    batches = [order[begin : begin + size] for begin in range(0, len(order), size)]
    return [batches[number] for number in rng.permutation(len(batches))]


@dataclass(frozen=True)
class Batches:
    """Batches of prompts, each with all the battles of its prompts."""

    battles: BattlesByPrompt
    tokens: Sequence[torch.Tensor]  # of each prompt, (T,) int64
    numbers: Sequence[np.ndarray]  # prompts of each batch
    left: bool  # as `pad_rows`

    def load(self, number: int, device: torch.device) -> tuple[dict[str, torch.Tensor], BattlesByPrompt]:
        """Return the transformer's inputs of a batch, and its battles."""
        chosen = np.sort(self.numbers[number])
        inputs = pad_rows([self.tokens[prompt] for prompt in chosen], self.left)
        return {name: value.to(device) for name, value in inputs.items()}, self.battles.part(chosen).to(device)


def bfloat16_where_faster(device: torch.device | str) -> torch.autocast:
    """Return a context that computes in bfloat16 on a device where this is faster than float32."""
    kind = torch.device(device).type
    faster = torch.cuda.is_bf16_supported() if kind == "cuda" else kind == "cpu" and processor_has_bfloat16()
    return torch.autocast(kind, torch.bfloat16, enabled=faster)


class RatingModel(nn.Module):
    """A transformer, `pool` (states, (B, T, width) float32, and mask to vectors, (B, width)), and a linear head.

    Training starts at `log_nu`; minus infinity, where there are no ties, is not trained.
    """

    def __init__(self, backbone: nn.Module, pool: Callable[..., torch.Tensor], head: nn.Linear, log_nu: float) -> None:
        super().__init__()
        self.backbone, self.pool, self.head = backbone, pool, head
        self.log_nu = nn.Parameter(torch.tensor(log_nu, dtype=torch.float32), requires_grad=math.isfinite(log_nu))
        self._no_split_modules = getattr(backbone, "_no_split_modules", None)  # how FSDP wraps it

    def vectors(self, attention_mask: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
        """Return the prompts' vectors: (B, width) float32."""
        states = self.backbone(attention_mask=attention_mask, **inputs).last_hidden_state  # (B, T, width)
        return self.pool(states.float(), attention_mask)

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Return what each prompt adds to the leaderboard: (B, n_outputs) float32."""
        vectors = self.vectors(**inputs)
        with torch.autocast(vectors.device.type, enabled=False):  # ratings are small differences of the outputs
            return self.head(vectors)


@dataclass(kw_only=True)
class TrainingSettings:
    """Settings of `ModelTraining`, which both classifiers have."""

    n_epochs: int = 1  # times each prompt is seen
    batch_size: int = 16  # prompts, each with all its battles
    learning_rate: float = 3e-5  # of AdamW: rises over the first steps, then falls linearly
    head_learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup_share: float = 0.1  # of the steps
    max_grad_norm: float = 1.0
    validation_share: float = 0.1  # of the prompts, on which no layer is trained
    early_stopping: bool = True  # keep the best step on the validation battles; False: the last one, as RouteLLM does
    checkpoint_steps: int = 100  # between two validations, each of which leaves a checkpoint
    seed: int = 0
    device: str = "auto"  # as torch names it; "auto": as `choose_device`

    def __post_init__(self) -> None:
        for name in ("n_epochs", "batch_size", "checkpoint_steps", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; use a value above 0")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share is {self.validation_share}; use a value between 0 and 1")


@dataclass
class ModelTraining:
    """The training, in place, of the parameters of a model that require a gradient."""

    model: RatingModel
    training: Batches  # in the order of the steps
    validation: Batches
    battle_loss: BattleLoss
    settings: TrainingSettings

    def run(self, checkpoints: Path | None = None) -> np.ndarray:
        """Train, and return the learning curve, (n_validations, 3), in nats per battle.

        Its columns are step (0: before), training loss (mean since the last validation) and validation loss.

        Run again with the same folder of checkpoints (by default a temporary one, removed in the end), a training that
        was stopped resumes, and ends in the same weights as one that never was, bit for bit. Under ``accelerate
        launch`` all processes share a step's batches and the folder.

        Early stopping keeps the best step on the validation battles, or the start if the gain is not above its standard
        error: a few hundred battles cannot tell smaller gains from chance, and the best of several steps is luckiest.

        RuntimeError: a loss is not finite (the model keeps the weights it had). ValueError: the checkpoints are of
        another training, or another process trains with them.
        """
        model, self.fingerprint = self.model, self._fingerprint()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        start = [parameter.detach().clone() for parameter in trained]
        keeps = False
        with ExitStack() as stack:
            folder = checkpoints or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="routing-training-")))
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(torch.random.fork_rng())  # the global random generators stay as they were
            stack.callback(random.setstate, random.getstate())
            stack.callback(np.random.set_state, np.random.get_state())
            self._prepare()
            if self.accelerator.is_main_process:
                stack.enter_context(lock_folder(folder))
            try:
                first, counts = self.validate()
                curve = self.take_steps(folder, first_loss=(first.sum() / counts.sum()).item())
                gains = first - self.validate()[0]
                gain = gains.sum() / counts.sum()
                # A prompt's battles are not independent, so the error is that of sums over prompts.
                error = (gains - gain * counts).square().sum().sqrt() / counts.sum()
                keeps = not self.settings.early_stopping or bool(gain > error)
            finally:
                self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)  # the model's own `forward` again
                if not keeps:
                    with torch.no_grad():
                        for parameter, value in zip(trained, start, strict=True):
                            parameter.copy_(value)
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                shutil.rmtree(folder)
        model.eval().requires_grad_(False).to("cpu")
        return np.array(curve)

    def _prepare(self) -> None:
        """Make the optimizer, place it and the model on the device, and seed dropout."""
        from accelerate import Accelerator  # both take seconds, and a fitted router does without
        from transformers import get_linear_schedule_with_warmup

        settings, battles = self.settings, self.training.battles
        on_cpu = choose_device(settings.device).startswith("cpu")
        self.accelerator = Accelerator(cpu=on_cpu, step_scheduler_with_optimizer=False)
        self.n_steps = math.ceil(len(self.training.numbers) / self.accelerator.num_processes)  # of a batch per process
        self.battles_per_prompt = len(battles.outcome) / len(battles.prompts)
        self.log_nu = self.model.log_nu
        groups = []
        for name, parameter in self.model.named_parameters():
            rate = settings.head_learning_rate if name.startswith("head.") else settings.learning_rate
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0  # not of biases and scales
            if parameter.requires_grad:
                groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
        optimizer = torch.optim.AdamW(groups, fused=True)
        n_warmup = math.ceil(settings.warmup_share * self.n_steps)
        schedule = get_linear_schedule_with_warmup(optimizer, n_warmup, self.n_steps)
        self.model, self.optimizer, self.schedule = self.accelerator.prepare(self.model, optimizer, schedule)
        torch.manual_seed(settings.seed + self.accelerator.process_index)

    def _fingerprint(self) -> str:
        """Return a hash of the training's first weights, batches and settings."""
        columns = [column.numpy() for column in self.training.battles[1:]]
        weights = [p.detach().cpu().numpy() for p in self.model.parameters() if p.requires_grad]
        digest = hashlib.sha256(f"{self.settings} on {choose_device(self.settings.device)}".encode())
        for array in [*columns, *weights, *self.training.numbers]:
            digest.update(f"{array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    def take_steps(self, folder: Path, first_loss: float) -> list[tuple[int, float, float]]:
        """Take the steps since the last checkpoint, end in the step to keep, and return the learning curve."""
        curve, best, losses = [(0, math.nan, first_loss)], 0, []
        whole = {int(path.parent.name[5:]): path for path in folder.glob("step-*/progress.json")}
        done = max(whole, default=0)
        if done:
            progress = json.loads(whole[done].read_text(encoding="utf-8"))
            if progress["training"] != self.fingerprint:
                raise ValueError(f"{folder} holds checkpoints of another training; remove it or choose another")
            curve, best = progress["curve"], progress["best"]
            self.accelerator.load_state(str(whole[done].parent))
        hide = None if self.accelerator.is_main_process else True
        for step in tqdm(range(done + 1, self.n_steps + 1), "train", self.n_steps, initial=done, disable=hide):
            losses.append(self.take_step(step))
            if step % self.settings.checkpoint_steps == 0 or step == self.n_steps:
                sums, counts = self.validate()
                curve.append((step, sum(losses) / len(losses), (sums.sum() / counts.sum()).item()))
                losses.clear()
                best = min(curve[1:], key=lambda row: row[2])[0]
                self.save(folder, step, best, curve)
        if self.settings.early_stopping and best != self.n_steps:
            self.accelerator.load_state(str(folder / f"step-{best}"))
        return curve

    def take_step(self, step: int) -> float:
        """Take one step, counted from 1; return its mean loss in nats per battle."""
        n_processes = self.accelerator.num_processes
        batches = np.arange(len(self.training.numbers))[(step - 1) * n_processes : step * n_processes]
        own = np.resize(batches, n_processes)[self.accelerator.process_index]  # in the last step some may come twice
        losses, battles = self.battle_losses(self.training, own)
        # Divided by what these prompts have on average, so that a battle weighs the same in every batch.
        loss = losses.sum() / (self.battles_per_prompt * len(battles.prompts))
        if not torch.isfinite(loss):
            raise RuntimeError(
                f"the loss is {loss.item()} after {step - 1} steps; lower learning_rate"
                f" ({self.settings.learning_rate}) or head_learning_rate ({self.settings.head_learning_rate})"
            )
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return self.accelerator.reduce(loss.detach(), "mean").item()

    def battle_losses(self, batches: Batches, number: int) -> tuple[torch.Tensor, BattlesByPrompt]:
        """Return the loss of each battle of a batch, and the battles."""
        inputs, battles = batches.load(number, self.accelerator.device)
        with bfloat16_where_faster(self.accelerator.device):
            outputs = self.model(**inputs)
        return self.battle_loss(outputs, self.log_nu, battles), battles

    def validate(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum and the number of the losses of each validation prompt's battles: (n_prompts,)."""
        self.model.eval()
        sums, counts = [], []
        with torch.no_grad():
            for number in range(len(self.validation.numbers)):
                losses, battles = self.battle_losses(self.validation, number)
                prompt, losses = battles.prompt.cpu(), losses.cpu().double()  # MPS has no double precision
                sums.append(torch.bincount(prompt, losses, minlength=len(battles.prompts)))
                counts.append(torch.bincount(prompt, minlength=len(battles.prompts)))
        self.model.train()
        return torch.cat(sums), torch.cat(counts)

    def save(self, folder: Path, step: int, best: int, curve: list[tuple[int, float, float]]) -> None:
        """Write a checkpoint, its progress last, and remove all earlier ones but the best."""
        self.accelerator.save_state(str(folder / f"step-{step}"))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            progress = {"training": self.fingerprint, "best": best, "curve": curve}
            write_json(folder / f"step-{step}" / "progress.json", progress)
            for path in folder.glob("step-*"):
                if path.name not in (f"step-{step}", f"step-{best}"):
                    shutil.rmtree(path)
