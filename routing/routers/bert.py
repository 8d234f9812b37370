"""The BERT classifier: an encoder makes a vector of the prompt, and a linear head rates the tiers of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from routing.embeddings import PromptEncoder, keep_layers, readable_beginning
from routing.routers.classifier import ClassifierRouter, load_pretrained


@dataclass
class BertRouter(ClassifierRouter):
    """The BERT classifier of RouteLLM [RouteLLM24, section 4.2] as a Bradley-Terry model with ratings by prompt.

    The prompt's vector is the mean of its tokens' last states, scaled to one length, as all-MiniLM-L6-v2 was trained to
    give it [Reimers19]. So ``train="head"`` takes the vectors of `PromptEncoder` and its cache, and trains in seconds.
    `name` is any encoder, such as "bert-base-uncased" or "answerdotai/ModernBERT-base"; with ``train="head"`` one that
    sentence-transformers takes. Other settings as `ClassifierRouter`.

    Differs from RouteLLM in:

    1. an output rates a tier of models, and a pair is named when a prompt is routed; there three outputs stand for
       one fixed pair (strong, tie, weak), and the probability of a tie goes to the weak model (`ThreeLabelRouter` in
       `routing.studies.order.original`);
    2. the mean of the states instead of the first token's, as the weights here are made for it;
    3. the leaderboard is a fixed part of the rating, the transformer learns what depends on the prompt.
    """

    encoder_precision: str = "auto"  # of the vectors with ``train="head"``, as in `PromptEncoder`

    def __post_init__(self) -> None:
        super().__post_init__()
        self.encoder_precision = self._encoder.precision  # by name, so that a saved router keeps it

    def _load_backbone(self) -> nn.Module:
        from transformers import AutoConfig, AutoModel

        if self.train == "head":  # `PromptEncoder` loads the model if it has to
            unused = nn.Module()
            unused.config = load_pretrained(AutoConfig, self.name, self.revision)
            return unused
        backbone = load_pretrained(AutoModel, self.name, self.revision, dtype=torch.float32)
        if hasattr(backbone, "pooler"):
            backbone.pooler = None  # made from the first token for another task
        if self.n_layers is not None:
            keep_layers(backbone, self.n_layers)
        return backbone

    def _tokenize(self, texts: Sequence[str]) -> list[torch.Tensor]:
        read = [readable_beginning(text, self._tokenizer, self.max_length) for text in texts]
        rows = self._tokenizer(read, truncation=True, max_length=self.max_length)["input_ids"]
        return [torch.tensor(row) for row in rows]

    @staticmethod
    def _pool(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        mean = (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return functional.normalize(mean, dim=1) * states.shape[2] ** 0.5  # root mean square 1

    def _untrained_vectors(self, texts: Sequence[str]) -> torch.Tensor:
        vectors = self._encoder.encode(texts)
        return torch.from_numpy(vectors * np.float32(vectors.shape[1] ** 0.5))

    @property
    def _encoder(self) -> PromptEncoder:
        settings = {"revision": self.revision, "n_layers": self.n_layers, "precision": self.encoder_precision}
        return PromptEncoder(self.name, self.max_length, device=self.device, **settings)
