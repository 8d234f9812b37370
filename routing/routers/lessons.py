"""Battles gathered by prompt: what a classifier learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from routing.battles import BattleCodes, number_texts


@dataclass(frozen=True)
class Lessons:
    """Battles, gathered by prompt, with what the leaderboard says of them.

    A transformer reads each distinct prompt once, however many battles it has.
    """

    prompts: tuple[str, ...]  # distinct
    prompt: torch.Tensor  # (n_battles,) int64, index into prompts, ascending
    tiers: torch.Tensor  # (n_battles, 2) int64, tier of the first and the second model
    offset: torch.Tensor  # (n_battles,) float32, leaderboard rating of the first less that of the second
    outcome: torch.Tensor  # (n_battles,) int64: 0 first won, 1 tie, 2 second won

    def part(self, chosen: np.ndarray) -> Lessons:
        """The battles of those prompts; `chosen`: indices into `prompts`, ascending."""
        chosen = torch.as_tensor(chosen, dtype=torch.int64)
        place = torch.full((len(self.prompts),), -1)
        place[chosen] = torch.arange(len(chosen))
        rows = place[self.prompt] >= 0
        prompts = tuple(self.prompts[number] for number in chosen.tolist())
        return Lessons(prompts, place[self.prompt[rows]], self.tiers[rows], self.offset[rows], self.outcome[rows])


def gather_lessons(codes: BattleCodes, prompts: np.ndarray, leaderboard: np.ndarray, model_tier: np.ndarray) -> Lessons:
    """The lessons of battles in canonical order; prompts in alphabetical order.

    Parameters
    ----------
    prompts : array of str, shape (n_battles,)
    leaderboard : float array, shape (n_models,)
        Log-odds.
    model_tier : int array, shape (n_models,)
    """
    distinct, number = number_texts(prompts)
    rows = np.argsort(number, kind="stable")
    sides = np.stack([codes.model_a, codes.model_b], axis=1)[rows]
    ratings = leaderboard[sides]
    return Lessons(
        tuple(distinct),
        torch.from_numpy(number[rows]),
        torch.from_numpy(model_tier[sides]),
        torch.from_numpy((ratings[:, 0] - ratings[:, 1]).astype(np.float32)),
        torch.from_numpy(codes.outcome[rows]),
    )
