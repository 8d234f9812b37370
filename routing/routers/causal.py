"""The causal LLM classifier: a language model reads the prompt and says which label comes next.

Any causal model of transformers is trained by the same code. The paper's Llama 3 8B has the settings

    CausalLMRouter(name="meta-llama/Meta-Llama-3-8B", max_length=2048, batch_size=1, learning_rate=1e-6, n_epochs=1,
                   device=f"cuda:{os.environ['LOCAL_RANK']}", template="...")

A script that calls ``fit(battles, checkpoints="checkpoints")`` runs on all devices with ``accelerate launch``, as
``accelerate config`` has set it up: eight batches of one prompt are then a step of the paper's batch size, 8. Two
processes on a CPU are known to train together and to end in the same weights; FSDP, which a model of this size
takes, was not tried. On one device ``lora_rank=16`` trains small matrices beside the frozen weights instead [Hu22].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import nn
from transformers import AddedToken, AutoConfig, AutoModelForCausalLM, PreTrainedModel

from routing.embeddings import keep_layers, readable_beginning
from routing.routers.classifier import ClassifierRouter, load_pretrained


@dataclass
class CausalLMRouter(ClassifierRouter):
    """The causal LLM classifier of RouteLLM [RouteLLM24, section 4.2] as a model whose ratings depend on the prompt.

    A label for each tier (or model) is added to the vocabulary as a token. What a prompt adds to a tier's rating is
    the logit of its label after the prompt: the label's row of the output embedding times the last position's state,
    the only position and the only rows that are computed. The softmax over two models' labels is then Bradley-Terry.

    `name` is any model that `AutoModelForCausalLM` takes. The default, all-MiniLM-L6-v2, runs as a decoder: each token
    sees only those before it, and none of its weights was made for that, so that training has more to do. Other
    settings as `ClassifierRouter`.

    Notes
    -----
    Differs from RouteLLM in:

    1. labels are tiers, and a pair is named when a prompt is routed; the original model writes a score, [[1]] to [[5]],
       of one fixed weak model's answer (`ScoreTokenRouter` in `routing.studies.order.original_classifiers`);
    2. the leaderboard is a fixed part of the rating.

    Where a block lies between the last state and the output embedding, as in a BERT, it is left out.
    """

    template: str = "{prompt}\nThe best answer is by"  # a long prompt is cut, the text around it never
    lora_rank: int = 0  # above 0: train matrices of this rank beside the frozen ones, and merge them in the end [Hu22]

    pads_left = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.template.count("{prompt}") != 1:
            raise ValueError(f"template is {self.template!r}; it has to hold {{prompt}} once")
        if self.lora_rank and self.train != "all":
            raise ValueError(f"lora_rank is {self.lora_rank}, but only the {self.train} is trained; use train='all'")

    @property
    def labels(self) -> list[str]:
        """The token that stands for each output."""
        return [f"[[tier {number}]]" for number in range(self._n_outputs)]

    def _load_backbone(self) -> PreTrainedModel:
        # A BERT sees only what stands before when it is told that it is a decoder.
        config = load_pretrained(AutoConfig, self.name, self.revision)
        decoder = {"is_decoder": True} if hasattr(config, "is_decoder") else {}
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
