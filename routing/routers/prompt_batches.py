"""Batches of prompts of like length, each with the battles that its prompts have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from routing.routers.lessons import Lessons


def pad_rows(rows: Sequence[torch.Tensor], left: bool) -> dict[str, torch.Tensor]:
    """Rows of different length as what a transformer takes: token numbers or states, and a mask over the padding.

    Parameters
    ----------
    rows : sequence of tensor, shape (T,) int64 or (T, width) float
    left : bool
        Pad on the left, so that the last position is the prompt's. Positions are then counted from its beginning.
    """
    longest = max(map(len, rows))
    padded = rows[0].new_zeros((len(rows), longest, *rows[0].shape[1:]))
    mask = torch.zeros(len(rows), longest, dtype=torch.int64)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), None) if left else slice(len(row))
        padded[number, place], mask[number, place] = row, 1
    inputs = {"attention_mask": mask}
    if left:
        inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
    if padded.dtype.is_floating_point:
        return inputs | {"inputs_embeds": padded.float()}
    return inputs | {"input_ids": padded}


def batches_to_train(lengths: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Every prompt once, in batches of `size` (one may have fewer) and of like length, in random order.

    Prompts of equal length are also mixed.
    """
    order = rng.permutation(len(lengths))
    order = order[np.argsort(-np.asarray(lengths)[order], kind="stable")]
    batches = [order[begin : begin + size] for begin in range(0, len(order), size)]
    return [batches[number] for number in rng.permutation(len(batches))]


class LessonBatches(Dataset):
    """Batches by number, each a dict of tensors: a transformer's inputs, and the fields of `Lessons` of its prompts.

    Parameters
    ----------
    lessons : Lessons
    rows : sequence of tensor
        Of each prompt of `lessons`, as `pad_rows`.
    batches : list of int array
        Prompts of each batch.
    """

    def __init__(self, lessons: Lessons, rows: Sequence[torch.Tensor], batches: list[np.ndarray], left: bool) -> None:
        self.lessons, self.rows, self.batches, self.left = lessons, rows, batches, left
        starts = np.searchsorted(lessons.prompt.numpy(), np.arange(len(lessons.prompts) + 1))
        self._battles = [torch.arange(*ends) for ends in zip(starts[:-1], starts[1:], strict=True)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        chosen = self.batches[number]
        battles = torch.cat([self._battles[prompt] for prompt in chosen])
        sizes = torch.tensor([len(self._battles[prompt]) for prompt in chosen])
        return pad_rows([self.rows[prompt] for prompt in chosen], self.left) | {
            "prompt": torch.repeat_interleave(torch.arange(len(chosen)), sizes),
            "tiers": self.lessons.tiers[battles],
            "offset": self.lessons.offset[battles],
            "outcome": self.lessons.outcome[battles],
        }
