"""Load RouteLLM's published checkpoints [RouteLLM24] as routers: the factorization, BERT and the causal LLM.

A checkpoint is a folder, read offline, or ``hub:owner/name[@revision]``, downloaded at one commit. Weights are read
from safetensors only, and no code of a repository runs. P(strong) is RouteLLM's; a pair named the other way round
mirrors it. The published files could not be reached where this was written; tests use small ones of the same formats.
On a connected machine (``pip install datasets``) this compares with the probabilities that RouteLLM published for
57,477 Arena prompts. Only rounding should differ, below 0.001:

    python - <<'END'
    import json
    import numpy as np
    from datasets import load_dataset
    from routing.integrations.routellm import PAIR, RouteLLMBertRouter, RouteLLMFactorizationRouter

    def load(name):
        return load_dataset(name, split="train").to_pandas()

    battles = load("lmsys/lmsys-arena-human-preference-55k")
    published = load("routellm/lmsys-arena-human-preference-55k-thresholds").set_index("id").loc[battles["id"]]
    prompts = np.array([json.loads(turns)[0] for turns in battles["prompt"]], dtype=object)
    some = slice(None, None, 100)  # slice(None) for all prompts
    bert = RouteLLMBertRouter("hub:routellm/bert_gpt4_augmented").win_probability(list(prompts[some]), *PAIR)
    print("bert", len(bert), "prompts, largest difference", np.abs(bert - published["bert"].to_numpy()[some]).max())
    long = np.array([len(prompt.strip()) >= 16 for prompt in prompts])
    vectors = np.stack(load("routellm/arena_battles_embeddings")["embeddings"])
    mf = RouteLLMFactorizationRouter("hub:routellm/mf_gpt4_augmented").win_probability(vectors, *PAIR)
    print("mf", len(mf), "prompts, largest difference", np.abs(mf - published["mf"].to_numpy()[long]).max())
    END
"""

from __future__ import annotations

import string
import warnings
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy.special import expit, logsumexp, softmax

from routing.battles import validate_battles
from routing.devices import choose_device
from routing.embeddings import batches_to_read, loading, mend_surrogates, readable_beginning
from routing.routers.base import Prompts, Router
from routing.routers.hub import fetch_files

PAIR = ("gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1")  # strong, weak: the paper's
# The model of each row of P.weight, which is alphabetical order.
FACTORIZATION_MODELS = tuple(
    """
    RWKV-4-Raven-14B alpaca-13b chatglm-6b chatglm2-6b chatglm3-6b claude-1 claude-2.0 claude-2.1 claude-instant-1
    codellama-34b-instruct deepseek-llm-67b-chat dolly-v2-12b dolphin-2.2.1-mistral-7b falcon-180b-chat fastchat-t5-3b
    gemini-pro gemini-pro-dev-api gpt-3.5-turbo-0125 gpt-3.5-turbo-0314 gpt-3.5-turbo-0613 gpt-3.5-turbo-1106
    gpt-4-0125-preview gpt-4-0314 gpt-4-0613 gpt-4-1106-preview gpt4all-13b-snoozy guanaco-33b koala-13b llama-13b
    llama-2-13b-chat llama-2-70b-chat llama-2-7b-chat llama2-70b-steerlm-chat mistral-7b-instruct
    mistral-7b-instruct-v0.2 mistral-medium mixtral-8x7b-instruct-v0.1 mpt-30b-chat mpt-7b-chat
    nous-hermes-2-mixtral-8x7b-dpo oasst-pythia-12b openchat-3.5 openchat-3.5-0106 openhermes-2.5-mistral-7b palm-2
    pplx-70b-online pplx-7b-online qwen-14b-chat qwen1.5-4b-chat qwen1.5-72b-chat qwen1.5-7b-chat
    solar-10.7b-instruct-v1.0 stablelm-tuned-alpha-7b starling-lm-7b-alpha stripedhyena-nous-7b tulu-2-dpo-70b
    vicuna-13b vicuna-33b vicuna-7b wizardlm-13b wizardlm-70b yi-34b-chat zephyr-7b-alpha zephyr-7b-beta
    """.split()
)
WEIGHTS = ("config.json", "*.safetensors", "*.safetensors.index.json")
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "sentencepiece*")
MESSAGES = ("system_ft_v5.txt", "classifier_ft_v5.txt")  # of the causal LLM, the second around the prompt
TURN = "<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>"  # of Llama 3
SCORES = ["[[1]]", "[[2]]", "[[3]]", "[[4]]", "[[5]]"]
N_NEW_TOKENS = 6  # within which the causal LLM has to write a score
BATCH_SIZE = 32


class _CheckpointRouter(Router):
    nu = 0.0  # ratings give no tie a probability

    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Self:
        raise TypeError(f"a {type(self).__name__} holds published weights and is not trained; train another router")

    def save(self, folder: str | Path) -> None:
        raise TypeError(f"a {type(self).__name__} is not saved again; load it from where it was loaded from")

    def _outcomes(self, delta: np.ndarray) -> np.ndarray:
        return np.stack([expit(delta), np.zeros(len(delta)), expit(-delta)], axis=1)  # of infinite differences too


class RouteLLMFactorizationRouter(_CheckpointRouter):
    """Rate 64 models by RouteLLM's factorization: ``theta_m(q) = c . (p_m / |p_m| * W e(q))``.

    `win_probability` is P(a beats b | no tie), since tied battles were left out of its training. `source` is a folder
    with ``model.safetensors``, or ``hub:routellm/mf_gpt4_augmented[@revision]``. `encoder` gives text-embedding-3-small
    of prompts, (n_prompts, 1536); without it embeddings, of OpenAI's length 1, are given as prompts.
    """

    models = FACTORIZATION_MODELS

    def __init__(self, source: str | Path, encoder: Callable[[list[str]], np.ndarray] | None = None) -> None:
        path = _open(source, ("model.safetensors",), "model.safetensors") / "model.safetensors"
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file ({error}); download it again") from error
        names = ("P.weight", "text_proj.0.weight", "classifier.0.weight")
        vectors, projection, classifier = found = [tensors.get(name, torch.empty(0)) for name in names]
        dim, width = vectors.shape[-1], projection.shape[-1]  # 128, 1536
        shapes = (len(self.models), dim), (dim, width), (1, dim)
        for name, tensor, shape in zip(names, found, shapes, strict=True):
            if tensor.shape != shape or tensor.dtype != torch.float32 or not tensor.isfinite().all():
                seen = f"{tensor.dtype} of shape {tuple(tensor.shape)}" if name in tensors else "missing"
                raise ValueError(f"{path}: {name} is {seen}; RouteLLM's is float32 of shape {shape}, all finite")
        lengths = vectors.double().norm(dim=1, keepdim=True).clamp_min(1e-12)
        self.encoder, self._projection = encoder, projection.double().numpy()  # (128, 1536)
        self._weights = (classifier.double() * vectors.double() / lengths).numpy()  # (64, 128)

    def ratings(self, prompts: Prompts) -> np.ndarray:
        n_prompts, width = len(prompts), self._projection.shape[1]
        if not isinstance(prompts, np.ndarray):
            if self.encoder is None:
                raise ValueError(f"give embeddings, (n_prompts, {width}), as prompts, or encoder=, list[str] -> array")
            prompts = np.asarray(self.encoder(_check_texts(prompts)))
        if prompts.shape != (n_prompts, width) or not np.isfinite(prompts).all():
            raise ValueError(f"embeddings of shape {prompts.shape}; expected {(n_prompts, width)}, all finite")
        return prompts.astype(np.float64) @ self._projection.T @ self._weights.T


class _PairRouter(_CheckpointRouter):
    """Rate one pair by +/- logit P(strong) / 2, from labels for its outcomes: those of the strong model come first."""

    n_strong_labels: ClassVar[int]
    n_tie_labels: ClassVar[int] = 0

    def __init__(self, pair: tuple[str, str]) -> None:
        if len(set(pair)) != 2:
            raise ValueError(f"pair is {pair}; name two different models, the strong one first")
        self.strong, self.models = pair[0], tuple(sorted(pair))

    @abstractmethod
    def _label_logits(self, texts: list[str]) -> np.ndarray:
        """Return logits of the labels, (n_prompts, n_labels)."""

    def _read(self, prompts: Prompts) -> tuple[np.ndarray, np.ndarray]:
        """Return logit P(strong), (n_prompts,), and P(strong wins), P(tie), P(weak wins), (n_prompts, 3)."""
        logits = self._label_logits(_check_texts(prompts))
        if np.isnan(logits).any():
            raise ValueError(f"prompt {int(np.isnan(logits).any(axis=1).argmax())}: the checkpoint's weights give NaN")
        strong, tied = self.n_strong_labels, self.n_tie_labels
        margin = logsumexp(logits[:, :strong], axis=1) - logsumexp(logits[:, strong:], axis=1)
        parts = np.split(softmax(logits, axis=1), [strong, strong + tied], axis=1)
        return margin, np.stack([part.sum(axis=1) for part in parts], axis=1)

    def ratings(self, prompts: Prompts) -> np.ndarray:
        half = self._read(prompts)[0] / 2
        return np.stack([half if model == self.strong else -half for model in self.models], axis=1)

    def outcome_probability(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        self.margin([], model_a, model_b)  # checks the names
        outcome = self._read(prompts)[1]
        return outcome if model_a == self.strong else outcome[:, ::-1]

    def expected_score(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        return self.outcome_probability(prompts, model_a, model_b) @ [1, 0.5, 0]

    def battle_probability(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> np.ndarray:
        battles = validate_battles(battles)
        if unknown := {*battles["model_a"], *battles["model_b"]} - set(self.models):
            raise ValueError(f"the router has no rating for {', '.join(sorted(unknown))}; drop those battles")
        outcome = self._read(battles["prompt"].tolist() if embeddings is None else embeddings)[1]
        return np.where((battles["model_a"] == self.strong).to_numpy()[:, None], outcome, outcome[:, ::-1])


class RouteLLMBertRouter(_PairRouter):
    """Rate one pair by RouteLLM's BERT: XLM-RoBERTa with the labels strong wins, tie, weak wins.

    `win_probability` of the strong model is RouteLLM's P(strong) = 1 - P(tie) - P(weak wins): ties count for the weak
    model, whichever is named first. `outcome_probability` gives the three labels. `source` is a folder with the model
    and its tokenizer, or ``hub:routellm/bert_gpt4_augmented[@revision]``; `pair` says what the strong and the weak
    model are called, as the checkpoint holds no names.
    """

    n_strong_labels, n_tie_labels = 1, 1

    def __init__(self, source: str | Path, pair: tuple[str, str] = PAIR, device: str = "auto") -> None:
        super().__init__(pair)
        folder = _open(source, (*WEIGHTS, *TOKENIZER), "config.json")
        self._model = _load_model("XLMRobertaForSequenceClassification", folder, torch.float32)
        self._model.to(choose_device(device))
        self._tokenizer = _load("AutoTokenizer", folder)
        if self._model.config.num_labels != 3:
            raise ValueError(f"{folder} has {self._model.config.num_labels} labels; RouteLLM's has 3")

    def _label_logits(self, texts: list[str]) -> np.ndarray:
        config, tokenizer = self._model.config, self._tokenizer
        length = min(tokenizer.model_max_length, config.max_position_embeddings - config.pad_token_id - 1)
        texts = [readable_beginning(text, tokenizer, length) for text in texts]
        rows = tokenizer(texts, truncation=True, max_length=length)["input_ids"] if texts else []
        logits = np.empty((len(rows), 3))
        for batch in batches_to_read(
            np.array([len(row) for row in rows]), BATCH_SIZE, self._model.device.type == "cpu"
        ):
            inputs = tokenizer.pad({"input_ids": [rows[number] for number in batch]}, return_tensors="pt")
            with torch.no_grad():
                logits[batch] = self._model(**inputs.to(self._model.device)).logits.cpu().numpy()
        return logits


class RouteLLMCausalRouter(_PairRouter):
    """Rate one pair by RouteLLM's causal LLM, Llama 3 8B, which writes a score of the weak model's answer.

    `win_probability` of the strong model is RouteLLM's P(strong) = 1 - P(score >= 4), over the tokens [[1]] to [[5]]
    where it first writes one. A prompt for which six tokens hold none has P(strong) = 1, as in RouteLLM, with a
    warning. There are no ties. Prompts are cut at the model's length, which RouteLLM does not do.

    `source` is a folder, or ``hub:routellm/causal_llm_gpt4_augmented[@revision]``: weights (16 GB, bfloat16) whose last
    five token embeddings are the scores, and two text files of messages. `tokenizer` is the folder of Meta's tokenizer
    of Llama 3 8B or, for an account that accepted Meta's licence, ``hub:meta-llama/Meta-Llama-3-8B[@revision]``.
    """

    n_strong_labels = 3

    def __init__(
        self, source: str | Path, tokenizer: str | Path, pair: tuple[str, str] = PAIR, device: str = "auto"
    ) -> None:
        super().__init__(pair)
        if device == "auto" and choose_device() == "cpu":
            raise RuntimeError("torch sees no accelerator; device='cpu' takes 16 GB of memory and seconds per prompt")
        folder = _open(source, (*WEIGHTS, *MESSAGES), "config.json", *MESSAGES)
        self._system, self._question = ((folder / name).read_text(encoding="utf-8") for name in MESSAGES)
        if [name for _, name, *_ in string.Formatter().parse(self._question) if name is not None] != ["question"]:
            raise ValueError(f"{folder / MESSAGES[1]} has to hold {{question}} once, and no other field")
        self._tokenizer = _load("AutoTokenizer", _open(tokenizer, TOKENIZER, "tokenizer.json"))
        self._tokenizer.add_tokens(SCORES, special_tokens=True)
        self._first_score = len(self._tokenizer) - len(SCORES)
        self._model = _load_model("LlamaForCausalLM", folder, torch.bfloat16)
        self._model.to(choose_device(device))
        n_rows, n_tokens = self._model.get_output_embeddings().weight.shape[0], len(self._tokenizer)
        if n_rows != n_tokens:
            raise ValueError(f"{folder} has {n_rows} token embeddings, {tokenizer} with five scores {n_tokens} tokens")

    def _label_logits(self, texts: list[str]) -> np.ndarray:
        logits = np.tile([0.0, 0.0, 0.0, -np.inf, -np.inf], (len(texts), 1))  # P(strong) = 1
        for number, text in enumerate(texts):
            tokens = torch.tensor([self._tokenize(text)], device=self._model.device)
            options = {"max_new_tokens": N_NEW_TOKENS, "do_sample": False, "pad_token_id": self._tokenizer.eos_token_id}
            options |= {"output_scores": True, "return_dict_in_generate": True}
            written = self._model.generate(tokens, attention_mask=torch.ones_like(tokens), **options)
            places = (written.sequences[0, tokens.shape[1] :] >= self._first_score).nonzero()
            if len(places):
                logits[number] = written.scores[int(places[0])][0, self._first_score :].float().cpu().numpy()
        if unscored := np.flatnonzero(np.isneginf(logits[:, -1])).tolist():
            warnings.warn(f"no score was written for prompts {unscored}; their P(strong) is 1", stacklevel=5)
        return logits

    def _tokenize(self, text: str) -> list[int]:
        length = self._model.config.max_position_embeddings - N_NEW_TOKENS
        question = self._question.format(question=readable_beginning(text, self._tokenizer, length))
        turns = [TURN.format(role="system", text=self._system.strip()), TURN.format(role="user", text=question.strip())]
        tokens = self._tokenizer("".join(turns), verbose=False)["input_ids"]
        return tokens if len(tokens) <= length else tokens[: length - 1] + tokens[-1:]  # the turn's end stays


def _check_texts(prompts: Prompts) -> list[str]:
    """Return prompts as text that tokenizers take."""
    wrong = 0 if isinstance(prompts, str) else next((n for n, p in enumerate(prompts) if not isinstance(p, str)), None)
    if wrong is not None:
        raise ValueError(f"prompts are no list of strings: number {wrong} is {prompts[wrong]!r:.200}")
    return [mend_surrogates(prompt) for prompt in prompts]


def _open(source: str | Path, patterns: tuple[str, ...], *required: str) -> Path:
    """Return the folder of a checkpoint; from a hub, files that match `patterns` at one commit."""
    folder = fetch_files(str(source), patterns) if str(source).startswith("hub:") else Path(source)
    for name in required:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing; give a folder that holds it, or hub:owner/name")
    return folder


def _load(name: str, folder: Path, **settings: object) -> Any:
    """Load what a class of transformers makes of a folder; nothing is fetched, and no code in it is run."""
    kind = getattr(transformers, name)
    try:
        with loading(folder):
            return kind.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **settings)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} is no {name}: {' '.join(str(error).split())[:200]}") from error


def _load_model(name: str, folder: Path, dtype: torch.dtype) -> transformers.PreTrainedModel:
    """Load a model from safetensors that hold all of its weights; none is drawn at random instead."""
    model, found = _load(name, folder, dtype=dtype, use_safetensors=True, output_loading_info=True)
    if found["missing_keys"]:
        raise ValueError(f"{folder} lacks weights of a {name}: {', '.join(sorted(found['missing_keys'])[:5])}")
    return model.eval()
