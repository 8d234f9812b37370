"""Training a transformer under a rating head with Hugging Face's Trainer, which a kill cannot spoil.

`train_model` leaves a checkpoint every so many steps. Called again with the same folder it goes on from the last whole
one and ends in the weights of a training that was never broken off: initial weights, batches and dropout follow from
the seed, and a checkpoint holds the state of all of them. On several devices, and with FSDP or DeepSpeed, accelerate's
own configuration decides (``accelerate launch``).
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from routing.routers.lessons import Lessons
from routing.routers.prompt_batches import LessonBatches
from routing.routers.rating_model import RatingModel

BattleLoss = Callable[[torch.Tensor, torch.Tensor, Lessons], torch.Tensor]


@dataclass(frozen=True)
class TrainingPlan:
    """How `train_model` trains; the fields of the routers."""

    learning_rate: float  # of the transformer
    head_learning_rate: float
    weight_decay: float
    warmup_share: float  # of the steps, in which the rates rise; they fall linearly after it
    max_grad_norm: float
    accumulation: int  # batches a step
    checkpoint_steps: int  # steps between two looks at the held-out battles, each with a checkpoint
    early_stopping: bool  # whether the step that is kept is the best one on the held-out battles, or the last one
    bfloat16: bool
    seed: int
    on_cpu: bool


class _RatingTrainer(Trainer):
    loss_is_scaled_for_ga = False  # a mean over each batch

    def __init__(self, plan: TrainingPlan, battle_loss: BattleLoss, held_out: LessonBatches, **settings) -> None:
        self.plan, self.battle_loss, self.held_out = plan, battle_loss, held_out
        super().__init__(**settings)
        lessons = self.train_dataset.lessons
        self.battles_per_prompt = len(lessons.outcome) / len(lessons.prompts)

    def _losses(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of each battle of a batch, and its outputs."""
        inputs = dict(inputs)
        lessons = Lessons((), *(inputs.pop(name) for name in ("prompt", "tiers", "offset", "outcome")))
        outputs = model(**inputs)
        return self.battle_loss(outputs, self.accelerator.unwrap_model(model).log_nu, lessons), outputs

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        losses, outputs = self._losses(model, inputs)
        # Over the battles that as many prompts have on average, so that each battle weighs the same in every batch.
        loss = losses.sum() / (self.battles_per_prompt * len(outputs))
        if not torch.isfinite(loss):
            raise RuntimeError(
                f"the loss is {loss.item()} after {self.state.global_step} steps; nothing is saved of it. Lower"
                f" learning_rate ({self.plan.learning_rate}) or head_learning_rate ({self.plan.head_learning_rate})"
            )
        return (loss, outputs) if return_outputs else loss

    def held_out_losses(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses of the held-out battles, summed over each prompt's, and the number of its battles: (n_prompts,)."""
        model = self.model_wrapped
        model.eval()
        sums, counts = [], []
        with torch.no_grad(), self.accelerator.autocast():
            for number in range(len(self.held_out)):
                inputs = self._prepare_inputs(self.held_out[number])
                losses, outputs = self._losses(model, inputs)
                counts.append(torch.bincount(inputs["prompt"], minlength=len(outputs)).cpu())
                sums.append(torch.bincount(inputs["prompt"], losses.double(), minlength=len(outputs)).cpu())
        model.train()
        return torch.cat(sums), torch.cat(counts)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        sums, counts = self.held_out_losses()
        metrics = {f"{metric_key_prefix}_loss": (sums.sum() / counts.sum()).item()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
            groups = []
            for in_head, rate in ((True, self.plan.head_learning_rate), (False, self.plan.learning_rate)):
                for decays in (True, False):  # matrices do; biases and scales do not
                    parameters = [
                        p
                        for name, p in trained.items()
                        if name.startswith("head.") == in_head and (p.ndim > 1) == decays
                    ]
                    decay = self.plan.weight_decay if decays else 0.0
                    groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
            self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]], fused=True)
        return self.optimizer


@contextmanager
def _own_random_state() -> Iterator[None]:
    """The Trainer seeds every global generator; afterwards they are as they were."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; its ``trainer_state.json`` comes last."""
    for path in sorted(folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: -int(path.name.split("-")[-1])):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            return str(path)
        except (OSError, ValueError):
            continue
    return None


def _fingerprint(model: nn.Module, lessons: LessonBatches, plan: TrainingPlan) -> str:
    """What a training is: its first weights, its batches and its plan."""
    digest = hashlib.sha256(repr(plan).encode())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            digest.update(f"{name} {tuple(parameter.shape)}".encode())
            digest.update(parameter.detach().cpu().numpy().tobytes())
    for batch in lessons.batches:
        digest.update(np.asarray(batch, dtype=np.int64).tobytes())
    for column in (lessons.lessons.prompt, lessons.lessons.tiers, lessons.lessons.offset, lessons.lessons.outcome):
        digest.update(column.numpy().tobytes())
    return digest.hexdigest()


def _is_surely_positive(gains: torch.Tensor, counts: torch.Tensor) -> bool:
    """Whether a mean gain over battles is above its standard error, those of a prompt being no independent ones.

    Parameters
    ----------
    gains, counts : tensor, shape (n_prompts,)
        Sum over each prompt's battles, and their number.
    """
    mean = gains.sum() / counts.sum()
    error = (gains - mean * counts).square().sum().sqrt() / counts.sum()
    return bool(mean > error)


def train_model(
    model: RatingModel,
    lessons: LessonBatches,
    held_out: LessonBatches,
    battle_loss: BattleLoss,
    plan: TrainingPlan,
    checkpoints: Path | None = None,
    callbacks: tuple[TrainerCallback, ...] = (),
) -> pd.DataFrame:
    """Train, in place, what of the model requires a gradient.

    With early stopping the step that does best on the held-out battles is kept. Where it is not better than the start
    by more than the standard error of that gain, the start stays: a few hundred held-out battles cannot tell smaller
    gains from chance, of which the best of several steps has most.

    Parameters
    ----------
    lessons : LessonBatches
        One batch a step (of `accumulation`), in this order.
    held_out : LessonBatches
    battle_loss : function (outputs, log_nu, lessons) -> losses
        Loss of each battle.
    checkpoints : Path, optional
        Where checkpoints are kept until the training is done; one that was broken off goes on from them. By default
        they lie in a temporary folder; several processes have to be given one.

    Returns
    -------
    DataFrame
        step (0: before), training (mean loss since the last such row), held_out: nats a battle; missing in a step at
        which it was not looked at.

    Raises
    ------
    RuntimeError
        The loss is not finite; the model then has the weights it had before.
    ValueError
        `checkpoints` holds those of another training.
    """
    n_steps = math.ceil(len(lessons) / plan.accumulation)
    folder = Path(checkpoints or tempfile.mkdtemp(prefix="routing-training-"))
    marker, fingerprint = folder / "training.json", _fingerprint(model, lessons, plan)
    folder.mkdir(parents=True, exist_ok=True)
    if marker.exists() and json.loads(marker.read_text(encoding="utf-8"))["training"] != fingerprint:
        raise ValueError(f"{folder} holds checkpoints of another training; name another folder or remove it")
    marker.write_text(json.dumps({"training": fingerprint}), encoding="utf-8")
    interval = min(plan.checkpoint_steps, n_steps)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=1,  # an item is a batch
        gradient_accumulation_steps=plan.accumulation,
        max_grad_norm=plan.max_grad_norm,
        warmup_steps=math.ceil(plan.warmup_share * n_steps),
        lr_scheduler_type="linear",
        train_sampling_strategy="sequential",
        eval_strategy="steps",
        save_strategy="steps",
        logging_strategy="steps",
        eval_steps=interval,
        save_steps=interval,
        logging_steps=max(1, interval // 5),
        save_total_limit=1,  # beside the best one
        load_best_model_at_end=plan.early_stopping,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        bf16=plan.bfloat16,
        use_cpu=plan.on_cpu,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
        seed=plan.seed,
    )
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    start = {name: parameter.detach().clone() for name, parameter in trained.items()}

    def restore() -> None:
        with torch.no_grad():
            for name, value in start.items():
                trained[name].copy_(value)

    with _own_random_state():
        trainer = _RatingTrainer(
            plan,
            battle_loss,
            held_out,
            model=model,
            args=arguments,
            train_dataset=lessons,
            eval_dataset=held_out,
            data_collator=lambda items: items[0],
            callbacks=list(callbacks),
        )
        trainer.remove_callback(PrinterCallback)
        first, counts = trainer.held_out_losses()
        try:
            trainer.train(resume_from_checkpoint=_last_whole_checkpoint(folder))
            kept, _ = trainer.held_out_losses()
        except BaseException:
            restore()
            if checkpoints is None:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            for name in ("forward", "_original_forward"):  # accelerate has laid its autocast over the model's own
                model.__dict__.pop(name, None)
    if plan.early_stopping and not _is_surely_positive(first - kept, counts):
        restore()
    model.eval().requires_grad_(False).to("cpu")
    if trainer.args.should_save:  # of several processes one
        shutil.rmtree(folder)
    rows: dict[int, dict[str, float]] = {0: {"held_out": (first.sum() / counts.sum()).item()}}
    for entry in trainer.state.log_history:
        names = {"loss": "training", "eval_loss": "held_out"}
        rows.setdefault(entry["step"], {}).update({names[k]: v for k, v in entry.items() if k in names})
    curve = pd.DataFrame.from_dict(rows, orient="index").rename_axis("step").reset_index()
    return curve.reindex(columns=["step", "training", "held_out"]).dropna(how="all", subset=["training", "held_out"])
