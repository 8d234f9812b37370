"""RouteLLM's original classifiers, so that what they predict can be measured [RouteLLM24]; nothing here is for use.

Labels stand for the results of one pair, a strong model against a weak one, and P(strong) = 1 - P(labels that are the
weak model's). So the pair that is queried is ignored, and a tie counts for whichever model is called weak. Here they
are trained on all battles, the model that the leaderboard rates higher being the strong one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.special import logit, softmax
from torch.nn import functional

from routing.routers.base import Prompts
from routing.routers.bert import BertRouter
from routing.routers.causal import CausalLMRouter
from routing.routers.training import BattlesByPrompt


class _FixedLabels:
    """In place of ratings of tiers, logits of labels."""

    n_labels: ClassVar[int]
    result_labels: ClassVar[tuple[int, int, int]]  # of: the strong model won, a tie, the weak model won
    weak_from: ClassVar[int]  # this label and those after it are the weak model's

    @property
    def _n_outputs(self) -> int:
        return self.n_labels

    def _targets(self, battles: BattlesByPrompt) -> torch.Tensor:
        result = torch.where(battles.offset >= 0, battles.outcome, 2 - battles.outcome)
        return torch.tensor(self.result_labels, device=result.device)[result]

    def _battle_losses(self, outputs: torch.Tensor, log_nu: torch.Tensor, battles: BattlesByPrompt) -> torch.Tensor:
        return functional.cross_entropy(outputs[battles.prompt], self._targets(battles), reduction="none")

    def _prior_outputs(self, battles: BattlesByPrompt) -> torch.Tensor:
        counts = torch.bincount(self._targets(battles), minlength=self.n_labels)
        return ((counts + 0.5) / counts.sum()).log()

    def ratings(self, prompts: Prompts) -> np.ndarray:
        raise TypeError(f"a {type(self).__name__} knows results of one pair, and rates no models")

    def margin(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        """Log-odds of P(strong) for the model named first, whichever it is."""
        return logit(softmax(self._outputs(prompts), axis=1)[:, : self.weak_from].sum(axis=1))

    def outcome_probability(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        p_strong = self.win_probability(prompts, model_a, model_b)
        return np.stack([p_strong, np.zeros_like(p_strong), 1 - p_strong], axis=1)


@dataclass
class ThreeLabelRouter(_FixedLabels, BertRouter):
    """The original BERT: labels strong, tie and weak, P(strong) = 1 - P(tie) - P(weak). Parameters as `BertRouter`."""

    n_labels = 3
    result_labels = (0, 1, 2)
    weak_from = 1


@dataclass
class ScoreTokenRouter(_FixedLabels, CausalLMRouter):
    """The original causal LLM: the weak answer's score as a token, P(strong) = 1 - P(score of 4 or 5).

    A judge scored the answers there. A battle has no scores, so a loss of the weak model is written [[1]], a tie [[4]]
    (as good, which is enough) and a win [[5]]. Parameters as `CausalLMRouter`.
    """

    n_labels = 5
    result_labels = (0, 3, 4)
    weak_from = 3

    @property
    def labels(self) -> list[str]:
        return [f"[[{score}]]" for score in range(1, 6)]
