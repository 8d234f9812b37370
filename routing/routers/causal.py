"""The causal LLM classifier: a language model predicts the label that follows the prompt.

The settings of the paper's Llama 3 8B are ``CausalLMRouter(name="meta-llama/Meta-Llama-3-8B", max_length=2048,
batch_size=1, learning_rate=1e-6, device=f"cuda:{os.environ['LOCAL_RANK']}")`` in a script that calls ``fit(battles,
checkpoints="checkpoints")`` under ``accelerate launch`` on eight devices: the paper's batch size is 8. Two processes on
a CPU are tested to end in the same weights; FSDP, which a model of this size needs, is not tested. On one device
``lora_rank=16`` trains small matrices instead of all weights [Hu22].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import torch
from torch import nn

from routing.embeddings import keep_layers, readable_beginning
from routing.routers.classifier import ClassifierRouter, load_pretrained

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class CausalLMRouter(ClassifierRouter):
    """The causal LLM classifier of RouteLLM [RouteLLM24, section 4.2] as a model whose ratings depend on the prompt.

    The vocabulary gets a label token for each tier (or model). A prompt adds to a tier's rating the logit of its label
    after the prompt: the label's row of the output embedding times the last position's state (a block between the two,
    as in a BERT, is left out). The softmax over two models' labels is then Bradley-Terry.

    `name` is any model that `AutoModelForCausalLM` takes. The default, all-MiniLM-L6-v2, runs as a decoder, which its
    weights were not made for, so that training has more to do. Other settings as `ClassifierRouter`.

    Differs from RouteLLM in:

    1. labels are tiers, and a pair is named when a prompt is routed; the original model writes a score, [[1]] to [[5]],
       of one fixed weak model's answer (`ScoreTokenRouter` in `routing.studies.order.original`);
    2. the leaderboard is a fixed part of the rating.
    """

    template: str = "{prompt}\nThe best answer is by"  # a long prompt is cut, the text around it never
    lora_rank: int = 0  # above 0: train low-rank updates of the frozen weights, and merge them in the end [Hu22]

    pads_left = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.template.count("{prompt}") != 1:
            raise ValueError(f"template is {self.template!r}; it must hold {{prompt}} once")
        if self.lora_rank and self.train != "all":
            raise ValueError(f"lora_rank is {self.lora_rank}, but only the {self.train} is trained; use train='all'")

    @property
    def labels(self) -> list[str]:
        """The token that stands for each output."""
        return [f"[[tier {number}]]" for number in range(self._n_outputs)]

    def _load_backbone(self) -> PreTrainedModel:
        from transformers import AddedToken, AutoConfig, AutoModelForCausalLM

        config = load_pretrained(AutoConfig, self.name, self.revision)
        decoder = {"is_decoder": True} if hasattr(config, "is_decoder") else {}  # makes a BERT causal
        whole = load_pretrained(AutoModelForCausalLM, self.name, self.revision, dtype=torch.float32, **decoder)
        self._tokenizer.add_tokens([AddedToken(label, normalized=False, special=True) for label in self.labels])
        whole.resize_token_embeddings(len(self._tokenizer), mean_resizing=False)
        if self.n_layers is not None:
            keep_layers(whole.base_model, self.n_layers)
        return whole.base_model

    def _tokenize(self, texts: Sequence[str]) -> list[torch.Tensor]:
        tokenizer = self._tokenizer
        before, after = tokenizer(self.template.split("{prompt}"), add_special_tokens=False)["input_ids"]
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
        before = ([] if first is None else [first]) + before
        room = self.max_length - len(before) - len(after)
        if room < 1:
            raise ValueError(f"max_length is {self.max_length}, but the template alone takes {self.max_length - room}")
        read = [readable_beginning(text, tokenizer, room) for text in texts]
        rows = tokenizer(read, add_special_tokens=False, truncation=True, max_length=room)["input_ids"]
        return [torch.tensor(before + row + after) for row in rows]

    @staticmethod
    def _pool(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return states[:, -1]  # padding is on the left

    def _parameters_to_train(self) -> list[nn.Parameter]:
        if self.lora_rank:
            return [p for name, p in self.model.backbone.named_parameters() if "lora_" in name]
        return super()._parameters_to_train()

    def _train_layers(self, *arguments: object) -> None:
        if not self.lora_rank:
            super()._train_layers(*arguments)
            return
        peft = import_module("peft")
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            config = peft.LoraConfig(r=self.lora_rank, lora_alpha=2 * self.lora_rank, target_modules="all-linear")
            self.model.backbone = peft.get_peft_model(self.model.backbone, config)
        super()._train_layers(*arguments)
        self.model.backbone = self.model.backbone.merge_and_unload()
