"""Transformers under a rating head: loaded, cut to their first layers, or run from their last layer alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from routing.embeddings import BUNDLED_MODEL, bundled_model_folder, hash_folder


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' report on weights that a file lacks or has too many of: heads of other tasks."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _load(make: Callable, name: str, revision: str | None, **settings: object) -> object:
    """``make.from_pretrained`` with the bundled weights under their name, and one kind of error."""
    source = bundled_model_folder() if name == BUNDLED_MODEL else name
    try:
        with _quiet():
            return make.from_pretrained(str(source), revision=revision, **settings)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise FileNotFoundError(
            f"model {name}: no such folder with a model, and it could not be had from the Hugging Face hub ({reason})."
            f" Give the folder of a transformers model, fetch it once while connected (hf download {name}), or use"
            f" {BUNDLED_MODEL}, which needs no network."
        ) from error


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model: the bundled one's name, a folder, or a name on the hub.

    Raises
    ------
    FileNotFoundError
        It is not there and cannot be fetched; the message says what to do.
    """
    return _load(AutoTokenizer, name, revision)


def load_config(name: str, revision: str | None = None) -> PretrainedConfig:
    """The configuration of a model; names and errors as `load_tokenizer`."""
    return _load(AutoConfig, name, revision)


def load_model(make: Callable, name: str, revision: str | None = None, **config: object) -> PreTrainedModel:
    """A model in float32 by one of transformers' auto classes; `config` overrides its configuration.

    Raises
    ------
    FileNotFoundError
        As `load_tokenizer`.
    """
    model = _load(make, name, revision, dtype=torch.float32, **config)
    model.config.use_cache = False  # nothing is generated
    return model


def model_revision(name: str, revision: str | None = None) -> str:
    """What weights a name stands for: the hash of a folder's files, or the commit of a model on the hub."""
    if name == BUNDLED_MODEL:
        return hash_folder(bundled_model_folder())
    if Path(name).is_dir():
        return hash_folder(Path(name))
    return load_config(name, revision)._commit_hash


def layer_stack(backbone: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds a transformer's layers, and its attribute of that name: the longest list of modules."""
    stacks = [
        (parent, name)
        for parent in backbone.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList)
    ]
    if not stacks:
        raise ValueError(f"{type(backbone).__name__} has no list of layers; it can be trained whole only (train='all')")
    return max(stacks, key=lambda stack: len(getattr(*stack)))


def keep_layers(backbone: PreTrainedModel, n_layers: int) -> None:
    """Leave only the first layers, in place."""
    parent, name = layer_stack(backbone)
    layers = getattr(parent, name)
    if not 1 <= n_layers <= len(layers):
        raise ValueError(f"n_layers is {n_layers}; {type(backbone).__name__} has {len(layers)} layers")
    setattr(parent, name, layers[:n_layers])
    backbone.config.num_hidden_layers = n_layers


class _PassOn(nn.Module):
    def forward(self, *args: object, inputs_embeds: torch.Tensor, **settings: object) -> torch.Tensor:
        return inputs_embeds


@contextmanager
def last_layer_only(backbone: PreTrainedModel) -> Iterator[None]:
    """Within it the model is its last layer: what it is given as ``inputs_embeds`` are the states below that layer."""
    parent, name = layer_stack(backbone)
    layers, embeddings = getattr(parent, name), getattr(backbone, "embeddings", None)
    setattr(parent, name, layers[-1:])
    backbone.config.num_hidden_layers = 1
    if embeddings is not None:  # BERT adds positions to what it is given; a Llama does not
        backbone.embeddings = _PassOn()
    try:
        yield
    finally:
        setattr(parent, name, layers)
        backbone.config.num_hidden_layers = len(layers)
        if embeddings is not None:
            backbone.embeddings = embeddings


@contextmanager
def states_below_last(backbone: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Within it, each run of the model adds the states that its last layer was given: (B, T, width)."""
    caught: list[torch.Tensor] = []
    last = getattr(*layer_stack(backbone))[-1]
    hook = last.register_forward_pre_hook(lambda layer, inputs: caught.append(inputs[0]))
    try:
        yield caught
    finally:
        hook.remove()


def has_bfloat16(device: str) -> bool:
    """Whether a device computes in bfloat16 faster than in float32."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device == "cpu" and supported is not None and supported()
