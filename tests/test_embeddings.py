"""Prompts to unit vectors: what a vector may depend on, and what the cache does when things go wrong."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing import embeddings as encode
from routing.embeddings import (
    BUNDLED_MODEL,
    CHARACTERS_READ,
    LEAST_FILLED,
    PromptEncoder,
    batches_to_read,
    bundled_model_folder,
    encode_without_torch,
    readable_beginning,
    unit_rows,
)
from routing.files import cache_folder
from tests.conftest import link_bundled_model


def letter_vectors(texts: list[str]) -> np.ndarray:
    """A small encoder: each vector depends on its own text alone, and texts that differ have other vectors."""
    return np.array([[1.0, len(text), *(sum(map(ord, text[start::3])) for start in range(3))] for text in texts])


def tilted_vectors(texts: list[str]) -> np.ndarray:
    """An encoder whose vectors depend on the process and the moment."""
    return letter_vectors(texts) + np.random.default_rng([os.getpid(), time.time_ns()]).random((len(texts), 5))


def wide_vectors(texts: list[str]) -> np.ndarray:
    return np.sin(letter_vectors(texts)[:, -1:] + np.arange(500.0))


def fail_to_encode(texts: list[str]) -> np.ndarray:
    raise AssertionError(f"{len(texts)} prompts were encoded that the cache should hold")


class Recorder:
    """An encoder that keeps the batches it is given."""

    def __init__(self, encoder=letter_vectors):
        self.encoder = encoder
        self.batches = []

    def __call__(self, texts):
        self.batches.append(texts)
        return self.encoder(texts)

    @property
    def texts(self):
        return [text for batch in self.batches for text in batch]


def cache_file(folder: Path) -> Path:
    (path,) = folder.glob("*.sqlite")
    return path


# Rows of unit length


@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e200, 5e-324])
def test_unit_rows_have_length_one_and_keep_their_direction(scale):
    rows = unit_rows(np.array([[3.0, 4.0], [-1.0, 0.0]]) * scale)
    np.testing.assert_allclose(rows, [[0.6, 0.8], [-1.0, 0.0]], rtol=1e-15)


def test_unit_rows_keep_float32_and_make_integers_float64():
    assert unit_rows(np.full((2, 3), 3e38, dtype=np.float32)).dtype == np.float32
    np.testing.assert_allclose(unit_rows(np.array([[3, 4]])), [[0.6, 0.8]], rtol=1e-15)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_unit_rows_names_the_row_without_direction(bad):
    with pytest.raises(ValueError, match="row 1 is zero or not finite"):
        unit_rows(np.array([[1.0, 2.0], [0.0, bad], [0.0, 0.0]]))
    with pytest.raises(ValueError, match=r"a matrix.*shape \(3,\)"):
        unit_rows(np.ones(3))


# Prompts to vectors


def test_each_distinct_prompt_is_encoded_once_in_batches_of_like_length():
    prompts = ["bb", "a", "dddd", "a", "ccc", "bb", ""]
    encoder = PromptEncoder(recorder := Recorder(), batch_size=2)
    vectors = encoder.encode(prompts)
    assert recorder.batches == [["dddd", "ccc"], ["bb", "a"], [""]]
    assert vectors.dtype == np.float32 and vectors.flags.writeable
    np.testing.assert_allclose(vectors, unit_rows(letter_vectors(prompts)), rtol=1e-6)
    assert np.array_equal(vectors[0], vectors[5]) and np.array_equal(vectors[1], vectors[3])


def test_order_of_prompts_changes_no_bit():
    def padded(texts):  # as a model that sees how far its batch is padded
        return letter_vectors(texts) + 0.01 * max(map(len, texts)) + 0.001 * len(texts)

    rng = np.random.default_rng(0)
    prompts = ["".join(rng.choice(list("abc "), size)) for size in rng.integers(0, 6, 60)]
    shuffle = rng.permutation(len(prompts))
    encoder = PromptEncoder(padded, batch_size=7)
    shuffled = encoder.encode([prompts[row] for row in shuffle])
    assert np.array_equal(encoder.encode(prompts)[shuffle], shuffled)


def test_no_prompts_give_no_rows_of_the_right_width():
    assert PromptEncoder(letter_vectors).encode([]).shape == (0, 5)


@settings(max_examples=40, deadline=None)
@given(prompts=st.lists(st.text(st.characters(exclude_categories=())), min_size=1, max_size=8))
def test_any_text_is_encoded_and_cached(tmp_path_factory, prompts):
    folder = tmp_path_factory.mktemp("cache")
    vectors = PromptEncoder(recorder := Recorder(), cache=folder, revision="1").encode(prompts)
    assert all(text.encode() for text in recorder.texts if text), "a lone surrogate reached the encoder"
    for prompt, vector in zip(prompts, vectors, strict=True):
        if not any("\ud800" <= character <= "\udfff" for character in prompt):
            np.testing.assert_allclose(vector, unit_rows(letter_vectors([prompt]))[0], rtol=1e-6)
    again = PromptEncoder(fail_to_encode, cache=folder, revision="1").encode(prompts[::-1])
    assert np.array_equal(again[::-1], vectors)


def test_lone_surrogates_are_replaced_and_pairs_joined():
    PromptEncoder(recorder := Recorder()).encode(["a\ud800b", "a?b", "\ud83d\ude00"])
    assert sorted(recorder.texts) == ["a?b", "a\ufffdb", "\U0001f600"]


@pytest.mark.parametrize("bad", [None, float("nan"), 3, b"bytes"])
def test_prompt_that_is_no_string_is_named(bad):
    with pytest.raises(ValueError, match=r"prompt 2 is .* not a string"):
        PromptEncoder(letter_vectors).encode(["a", "b", bad])


def test_one_string_is_no_list_of_prompts_but_a_column_is():
    with pytest.raises(ValueError, match="one string"):
        PromptEncoder(letter_vectors).encode("why?")
    column = pd.Series(["a", "b"], index=[7, 3])
    assert np.array_equal(
        PromptEncoder(letter_vectors).encode(column), PromptEncoder(letter_vectors).encode(["a", "b"])
    )


@pytest.mark.parametrize("rows", [np.ones(2), np.ones((3, 4)), np.ones((2, 0))])
def test_wrong_shape_from_a_callable_is_refused(rows):
    with pytest.raises(ValueError, match=r"encoder <lambda> returned shape .* for 2 prompts"):
        PromptEncoder(lambda texts: rows).encode(["a", "b"])


def test_vector_without_direction_names_the_prompt_and_is_not_cached(tmp_path):
    encoder = PromptEncoder(lambda texts: [[len(text), 0] for text in texts], cache=tmp_path, revision="1")
    with pytest.raises(ValueError, match="the vector of prompt 1 is zero"):
        encoder.encode(["long", "", "longer", ""])
    assert PromptEncoder(lambda texts: [[1, 1]], cache=tmp_path, revision="1").encode([""])[0, 1] > 0.7


@pytest.mark.parametrize("settings_", [{"max_length": 2}, {"batch_size": 0}, {"revision": "main"}])
def test_settings_that_mean_nothing_are_refused(settings_):
    with pytest.raises(ValueError, match=next(iter(settings_))):
        PromptEncoder(**settings_)


def test_progress_bar_counts_what_is_not_cached(tmp_path, capfd):
    encoder = PromptEncoder(letter_vectors, cache=tmp_path, revision="1")
    encoder.encode(["a", "b"])
    assert capfd.readouterr().err == ""  # no terminal, no bar
    encoder.encode(["a", "b", "c", "c"], progress=True)
    assert "1/1" in capfd.readouterr().err
    encoder.encode(["a", "b", "c"], progress=True)
    assert capfd.readouterr().err == ""


# The cache


def test_cached_prompts_are_not_encoded_again(tmp_path):
    prompts = [f"prompt {number}" for number in range(2500)]  # more than one query takes
    first = PromptEncoder(letter_vectors, cache=tmp_path, revision="1").encode(prompts[:2400])
    recorder = Recorder()
    both = PromptEncoder(recorder, cache=tmp_path, revision="1").encode(prompts)
    assert sorted(recorder.texts) == sorted(prompts[2400:])
    assert np.array_equal(both[:2400], first)


def test_nothing_is_shared_across_revision_length_or_without_cache(tmp_path):
    PromptEncoder(letter_vectors, cache=tmp_path, revision="one/1").encode(["a"])
    for other in ({"revision": "one 1"}, {"revision": "one/1", "max_length": 64}, {"revision": None}):
        PromptEncoder(recorder := Recorder(), cache=tmp_path, **other).encode(["a"])
        assert recorder.texts == ["a"]
    assert len(list(tmp_path.iterdir())) == 3  # one without a revision leaves no file
    PromptEncoder(recorder := Recorder(), cache=False, revision="1").encode(["a"])
    assert recorder.texts == ["a"]


def test_the_vector_stored_first_is_the_one_given(tmp_path):
    encoder = PromptEncoder(tilted_vectors, cache=tmp_path, revision="1")
    first = encoder.encode(["a"])
    assert np.array_equal(encoder.encode(["b", "a"])[1:], first)

    stored = []

    def overtaken(texts):  # another process stores its vectors while this one still computes
        stored.append(encoder.encode(texts))
        return tilted_vectors(texts)

    late = PromptEncoder(overtaken, cache=tmp_path, revision="1").encode(["c"])
    assert np.array_equal(late, stored[0]) and np.array_equal(encoder.encode(["c"]), stored[0])


def test_a_changed_width_asks_for_a_new_revision(tmp_path):
    PromptEncoder(letter_vectors, cache=tmp_path, revision="1").encode(["a"])
    with pytest.raises(ValueError, match=r"widths 5, 500 .*new revision"):
        PromptEncoder(wide_vectors, cache=tmp_path, revision="1").encode(["a", "b"])


def test_cache_lies_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.delenv("ROUTING_CACHE", raising=False)
    assert "routing" in str(cache_folder())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ROUTING_CACHE", "~/here")
    PromptEncoder(letter_vectors, revision="letters/one 1").encode(["a"])
    assert cache_file(tmp_path / "here" / "embeddings").name.startswith("letters_one_1-128-")
    PromptEncoder(letter_vectors, revision="1", cache="~/there").encode(["a"])
    assert cache_file(tmp_path / "there")


def damage_file(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"garbage garbage garbage")


def cut_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20_000])


def damage_rows(change: str):
    def damage(path: Path) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute(f"UPDATE vectors SET {change} WHERE rowid = 2")
        connection.close()

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        damage_file,
        cut_file,
        damage_rows("vector = zeroblob(2000)"),
        damage_rows("vector = substr(vector, 1, 6)"),
        damage_rows("vector = 'text'"),
        damage_rows("vector = CAST(X'0000C07F' || substr(vector, 5) AS BLOB)"),  # not a number
    ],
)
def test_a_damaged_cache_is_named_once_and_done_without(tmp_path, damage):
    encoder = PromptEncoder(wide_vectors, cache=tmp_path, revision="1")
    prompts = [str(number) for number in range(200)]
    vectors = encoder.encode(prompts)
    damage(path := cache_file(tmp_path))
    with pytest.warns(RuntimeWarning, match=f"{path} cannot be used .*Delete the file.*ROUTING_CACHE") as caught:
        assert np.array_equal(encoder.encode(prompts), vectors)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert np.array_equal(encoder.encode(prompts), vectors)  # without another warning, which would be an error


def test_a_cache_that_cannot_be_written_is_named_once_and_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "below", Path("/proc/nowhere")):
        encoder = PromptEncoder(letter_vectors, cache=folder, revision="1")
        with pytest.warns(RuntimeWarning, match=f"{folder}.* cannot be used"):
            first = encoder.encode(["a"])
        assert np.array_equal(encoder.encode(["a"]), first)


def test_a_full_disk_loses_no_vector(tmp_path):
    encoder = PromptEncoder(wide_vectors, cache=tmp_path, revision="1")
    encoder.encode(["a"])
    with sqlite3.connect(path := cache_file(tmp_path)) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()
    connect = sqlite3.connect

    def connect_to_full_disk(*arguments, **settings):
        connection = connect(*arguments, **settings)
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sqlite3, "connect", connect_to_full_disk)
        with pytest.warns(RuntimeWarning, match=f"{path} cannot be used .*full"):
            vectors = encoder.encode([str(number) for number in range(200)])
    np.testing.assert_allclose(vectors, unit_rows(wide_vectors([str(n) for n in range(200)])), atol=1e-6)


def test_a_cache_that_stays_locked_is_named_and_done_without(tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "LOCK_TIMEOUT_S", 0.05)
    encoder = PromptEncoder(letter_vectors, cache=tmp_path, revision="1")
    vectors = encoder.encode(["a"])
    connection = sqlite3.connect(cache_file(tmp_path), isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    with pytest.warns(RuntimeWarning, match=f"{cache_file(tmp_path)} cannot be used .*locked"):
        assert np.array_equal(encoder.encode(["a"]), vectors)
    connection.close()


def encode_together(encoder, prompts, barrier, queue):
    barrier.wait()
    queue.put(encoder.encode(prompts))


def test_two_processes_fill_one_cache_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    prompts = [f"prompt {number}" for number in range(400)]
    encoder = PromptEncoder(tilted_vectors, cache=tmp_path, revision="1", batch_size=5)
    barrier, queue = context.Barrier(2), context.Queue()
    processes = [context.Process(target=encode_together, args=(encoder, prompts, barrier, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    first, second = queue.get(timeout=60), queue.get(timeout=60)
    for process in processes:
        process.join()
    assert np.array_equal(first, second)
    assert np.array_equal(PromptEncoder(fail_to_encode, cache=tmp_path, revision="1").encode(prompts), first)


def test_threads_share_an_encoder(tmp_path):
    encoder = PromptEncoder(tilted_vectors, cache=tmp_path, revision="1", batch_size=5)
    prompts = [f"prompt {number}" for number in range(50)]
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(encoder.encode, [prompts] * 4)
    assert all(np.array_equal(first, other) for other in others)


def test_process_killed_while_writing_leaves_whole_batches(tmp_path):
    prompts = [f"prompt {number:05}" for number in range(5000)]
    encoder = PromptEncoder(wide_vectors, cache=tmp_path, revision="1", batch_size=500)
    encoder.encode(prompts[:500])
    journal = Path(f"{cache_file(tmp_path)}-journal")
    process = multiprocessing.get_context("spawn").Process(target=encoder.encode, args=(prompts[500:],))
    process.start()
    # SQLite keeps a journal for as long as a transaction is open: the moment to strike.
    while process.is_alive():
        if journal.exists():
            os.kill(process.pid, signal.SIGSTOP)
            if journal.exists():
                break
            os.kill(process.pid, signal.SIGCONT)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert journal.exists(), "the process was not killed in the middle of a transaction"

    recorder = Recorder(wide_vectors)
    vectors = PromptEncoder(recorder, cache=tmp_path, revision="1").encode(prompts)
    np.testing.assert_allclose(vectors, unit_rows(wide_vectors(prompts)), atol=1e-6)
    assert len(recorder.texts) < len(prompts) and len(recorder.texts) % 500 == 0


# The real model


@pytest.fixture(scope="module")
def no_network():
    def refuse(*arguments, **keywords):
        raise OSError("no network in this test")

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        monkeypatch.setattr(socket.socket, "connect", refuse)
        yield


@pytest.fixture(scope="module")
def minilm(no_network):
    encoder = PromptEncoder(cache=False)
    encoder.encode(["load", "the model"])
    return encoder


def test_minilm_puts_paraphrases_close(minilm):
    prompts = [
        "How do I reverse a list in Python?",
        "What is the way to turn a Python list around?",
        "Write a poem about the sea in winter.",
    ]
    vectors = minilm.encode(prompts)
    assert vectors.shape == (3, 384)
    same, other, unrelated = vectors @ vectors[0]
    assert same == pytest.approx(1, abs=1e-6)
    assert other > 0.7 and unrelated < 0.2


def test_minilm_agrees_with_sentence_transformers(minilm):
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(bundled_model_folder()), device="cpu", local_files_only=True)
    peer.max_seq_length = 128
    prompts = ["", "hi", "Wie spät ist es?", "数学", "\x00", "word " * 40, "long and longer " * 500, "x" * 5000]
    expected = peer.encode(prompts, normalize_embeddings=True)
    np.testing.assert_allclose(minilm.encode(prompts), expected, atol=1e-5)
    np.testing.assert_allclose(np.vstack([minilm.encode([prompt]) for prompt in prompts]), expected, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(text=st.text(st.characters(exclude_categories=()), max_size=40), repeats=st.integers(1, 40))
def test_one_prompt_is_encoded_without_torch_as_among_others_with_it(minilm, text, repeats):
    prompt = text * repeats
    for encoder in (minilm, PromptEncoder(max_length=9, cache=False)):
        others = encoder.encode([prompt, f"{prompt} another"])
        alone = unit_rows(encode_without_torch(prompt, encoder.max_length)[None])
        np.testing.assert_allclose(alone[0], others[0], atol=2e-6)


def test_minilm_cuts_at_the_maximum_length(minilm):
    eight = PromptEncoder(max_length=8, cache=False)
    whole, longer, other = "one two three four five six", "one two three four five six seven eight", "one two three"
    vectors = eight.encode([whole, longer, other])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)  # six words and two special tokens
    assert vectors[0] @ vectors[2] < 0.99
    assert minilm.encode([whole]) @ minilm.encode([longer]).T < 0.99
    with pytest.raises(ValueError, match="max_length is 513.* at most 512 tokens"):
        PromptEncoder(max_length=513, cache=False).encode(["a"])


def test_loaded_encoder_travels_without_its_model(tmp_path):
    encoder = PromptEncoder(link_bundled_model(tmp_path / "minilm"), cache=False)
    encoder.encode(["load", "the model"])
    content = pickle.dumps(encoder)
    assert len(content) < 1000 and pickle.loads(content) == encoder
    assert "_model" in vars(encoder) and "_model" not in vars(pickle.loads(content))


@pytest.mark.parametrize("settings", [{}, {"n_layers": 4, "max_length": 9}, {"precision": "bfloat16"}])
def test_the_bundled_model_is_computed_as_sentence_transformers_computes_its_folder(tmp_path, settings):
    prompts = ["", "hi", "Wie spät ist es?", "\ud800 数学", "word " * 40, "long and longer " * 500, "x" * 5000]
    folder = link_bundled_model(tmp_path / "minilm")
    ours, peer = (PromptEncoder(name, cache=False, **settings) for name in (BUNDLED_MODEL, folder))
    vectors, expected = ours.encode(prompts), peer.encode(prompts)
    assert "_model" in vars(peer) and "_model" not in vars(ours)
    if "precision" in settings:
        assert (vectors * expected).sum(axis=1).min() > 0.9999
    else:
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_folder_is_known_by_its_content(minilm, tmp_path):
    folders = [link_bundled_model(tmp_path / place / "minilm") for place in ("here", "there", "changed")]
    (folders[2] / "modules.json").unlink()
    (folders[2] / "modules.json").write_text((folders[0] / "modules.json").read_text() + "\n")
    here, there, changed = (PromptEncoder(folder, cache=tmp_path / "cache") for folder in folders)
    vectors = here.encode(["a prompt"])
    np.testing.assert_allclose(vectors, minilm.encode(["a prompt"]), atol=1e-6)
    assert np.array_equal(there.encode(["a prompt"]), vectors) and "_model" not in vars(there)
    changed.encode(["a prompt"])
    assert "_model" in vars(changed)


def test_missing_model_says_what_to_do(no_network, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"model nobody/nothing: .*{BUNDLED_MODEL}, which needs no network"):
        PromptEncoder("nobody/nothing").encode(["a"])
    with pytest.raises(FileNotFoundError, match="hf download sentence-transformers/nothing"):
        PromptEncoder("nothing", cache=False).encode(["a"])
    with pytest.raises(FileNotFoundError, match="folder .*nothing is missing or empty"):
        PromptEncoder(tmp_path / "nothing").encode(["a"])


def test_hub_model_is_pinned_to_the_commit_that_keys_its_vectors(monkeypatch, tmp_path):
    import huggingface_hub
    import sentence_transformers

    asked, loaded = [], []
    load_folder = sentence_transformers.SentenceTransformer

    def resolve(repository, revision):
        asked.append((repository, revision))
        return huggingface_hub.ResolvedRevision(resolved=f"commit of {revision}", initial=revision)

    def load(repository, device, revision, trust_remote_code):
        assert trust_remote_code is False
        loaded.append((repository, revision))
        return load_folder(str(bundled_model_folder()), device=device)

    monkeypatch.setattr(huggingface_hub, "resolve_revision", resolve)
    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", load)
    for revision in ("old", "new", "new"):
        PromptEncoder("some-model", revision=revision, cache=tmp_path).encode(["a"])
    assert asked == [("sentence-transformers/some-model", revision) for revision in ("old", "new", "new")]
    assert loaded == [("sentence-transformers/some-model", f"commit of {revision}") for revision in ("old", "new")]


def test_a_model_s_own_code_is_never_run_and_nobody_is_asked(tmp_path, monkeypatch):
    """Neither a configuration's classes nor a module of sentence-transformers; the same for the classifiers."""
    from transformers import AutoModel

    from routing.routers.classifier import load_pretrained

    monkeypatch.setattr("builtins.input", fail_to_encode)
    link_bundled_model(tmp_path)
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    modules = json.loads((tmp_path / "modules.json").read_text())
    (tmp_path / "modules.json").unlink()
    (tmp_path / "modules.json").write_text(json.dumps([*modules, modules[0] | {"idx": 9, "type": "own.Own"}]))
    with pytest.raises(ValueError, match="never run"):
        PromptEncoder(tmp_path, cache=False).encode(["a"])
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (tmp_path / "config.json").write_text(json.dumps(config | own))
    for load in (PromptEncoder(tmp_path, cache=False).encode, lambda _: load_pretrained(AutoModel, str(tmp_path))):
        with pytest.raises(ValueError, match="never run"):
            load(["a"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_encodes_after_its_parent_has_on_two_threads(minilm):
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = minilm.encode(["a prompt of the parent", "word " * 100])
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=lambda: queue.put(minilm.encode(["a prompt of the parent", "word " * 100])))
        child.start()
        np.testing.assert_allclose(queue.get(timeout=60), expected, atol=1e-6)
        child.join(60)
        assert torch.get_num_threads() == 2
    finally:
        child.kill()
        torch.set_num_threads(n_threads)


@pytest.mark.parametrize("max_length", [3, 128])
@settings(max_examples=15, deadline=None)
@given(
    pieces=st.lists(
        st.one_of(
            st.text(max_size=40),
            st.sampled_from(["word ", "x" * 150, " " * 700, "\n\n", "\u4e2d\u6587", "e\u0301", "it's 3.14, no?! "]),
        ),
        min_size=1,
        max_size=12,
    ),
    repeats=st.integers(1, 100),
)
def test_what_is_read_of_a_long_prompt_has_the_tokens_of_all_of_it(minilm, max_length, pieces, repeats):
    tokenizer, text = minilm._model.tokenizer, "".join(pieces * repeats)[: CHARACTERS_READ - 1]
    read = readable_beginning(text, tokenizer, max_length)
    tokens = [tokenizer(t, truncation=True, max_length=max_length)["input_ids"] for t in (read, text)]
    assert tokens[0] == tokens[1] and text.startswith(read)


@pytest.mark.parametrize("text", ["word " * 2_000_000, "x" * 10_000_000, " " * 10_000_000, "\u4e2d" * 5_000_000])
def test_a_prompt_of_ten_megabytes_costs_no_more_than_the_tokens_used(minilm, text):
    begin = time.process_time()
    vectors = minilm.encode([text, text[: CHARACTERS_READ // 2]])
    assert time.process_time() - begin < 5  # 15 s for all of it
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


def test_model_without_a_length_to_set_is_refused(minilm, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding

    static = SentenceTransformer(modules=[StaticEmbedding(minilm._model.tokenizer, embedding_dim=4)], device="cpu")
    static.save(str(tmp_path / "static"))
    with pytest.raises(ValueError, match="max_length cannot be set"):
        PromptEncoder(tmp_path / "static", cache=False).encode(["a"])


def test_torch_is_imported_only_to_encode_and_loading_writes_nothing_to_a_log(minilm, tmp_path, capfd):
    PromptEncoder(cache=tmp_path).encode(["a prompt", "another"])
    assert capfd.readouterr() == ("", "")
    script = (
        f"import sys; from routing.embeddings import PromptEncoder; encoder = PromptEncoder(cache={str(tmp_path)!r})\n"
        "for prompts in (['a prompt', 'another'], ['a prompt', 'one more']):\n"
        "    print(encoder.encode(prompts).shape, {'torch', 'transformers'} & sys.modules.keys())"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output == "(2, 384) set()\n" * 2


def test_layers_above_the_last_one_kept_are_left_out(tmp_path):
    """The mean over tokens of that layer's hidden states, as transformers gives them."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = bundled_model_folder()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    texts = ["Name the capital of France.", "Prove that there are infinitely many primes, in two ways."]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**tokens, output_hidden_states=True).hidden_states[4]
    mask = tokens["attention_mask"][:, :, None]
    expected = unit_rows(((states * mask).sum(dim=1) / mask.sum(dim=1)).numpy())
    fourth = PromptEncoder(n_layers=4, cache=tmp_path)
    np.testing.assert_allclose(fourth.encode(texts), expected, atol=1e-6)
    assert not np.allclose(PromptEncoder(cache=tmp_path).encode(texts), expected, atol=0.1)
    np.testing.assert_array_equal(PromptEncoder(n_layers=4, cache=tmp_path).encode(texts), fourth.encode(texts))


def test_layers_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="n_layers is 7; BertModel has 6 layers"):
        PromptEncoder(n_layers=7, cache=False).encode(["text"])
    with pytest.raises(ValueError, match="a callable has none"):
        PromptEncoder(len, n_layers=2)


# Batches

LENGTHS = st.lists(st.integers(0, 50), max_size=60)


@given(LENGTHS, st.integers(1, 9), st.booleans(), st.integers(1, 200))
def test_each_text_is_read_once_the_longest_first(lengths, size, on_cpu, tokens):
    batches = batches_to_read(np.array(lengths, dtype=int), size, on_cpu, tokens)
    read = np.concatenate([np.empty(0, dtype=int), *batches])
    np.testing.assert_array_equal(read, sorted(range(len(lengths)), key=lambda text: -lengths[text]))
    assert all(1 <= len(batch) <= size for batch in batches)
    assert all(len(batch) == 1 or len(batch) * lengths[batch[0]] <= tokens or not on_cpu for batch in batches)
    for batch, following in zip(batches, batches[1:], strict=False):  # no batch ends without a reason
        short = lengths[following[0]] < LEAST_FILLED * lengths[batch[0]]
        large = (len(batch) + 1) * lengths[batch[0]] > tokens
        assert len(batch) == size or (on_cpu and (short or large))


@given(LENGTHS, st.integers(1, 9))
def test_on_a_processor_little_is_padding(lengths, size):
    for batch in batches_to_read(np.array(lengths, dtype=int), size, on_cpu=True):
        assert min(lengths[text] for text in batch) >= LEAST_FILLED * max(lengths[text] for text in batch)


def test_short_prompts_are_not_encoded_beside_long_ones(monkeypatch):
    read = []
    monkeypatch.setattr(PromptEncoder, "_call", lambda encoder, rows: read.append(rows) or np.ones((len(rows), 3)))
    encoder = PromptEncoder(cache=False)
    encoder.encode(["Say hello.", "word " * 90, "word " * 100, "Say hallo."])
    assert [[len(row) for row in batch] for batch in read] == [[102, 92], [6, 5]]


# Devices and precision


def test_precisions_share_no_cache_and_old_caches_stay_those_of_float32(tmp_path):
    single, half = (PromptEncoder(cache=tmp_path, precision=precision) for precision in ("float32", "bfloat16"))
    assert "bfloat16" in half._cache_file.name
    assert single._cache_file.name == f"all-MiniLM-L6-v2-128-{single._cache_file.name[-31:]}"
    with pytest.raises(ValueError, match="precision is 'int8'"):
        PromptEncoder(precision="int8")


@pytest.mark.parametrize("faster", [True, False])
def test_the_precision_is_the_processor_s_and_travels_with_the_encoder(faster, monkeypatch):
    monkeypatch.setattr("routing.embeddings.processor_has_bfloat16", lambda: faster)
    encoder = PromptEncoder()
    assert encoder.precision == ("bfloat16" if faster else "float32")
    monkeypatch.setattr("routing.embeddings.processor_has_bfloat16", lambda: not faster)
    assert pickle.loads(pickle.dumps(encoder)) == encoder


def test_bfloat16_gives_nearly_the_vectors_of_float32(minilm):
    rng = np.random.default_rng(0)
    words = "how can a list of numbers in python be sorted, and why is the sea blue in winter".split()
    prompts = [" ".join(rng.choice(words, size)) for size in range(1, 25)]
    half = PromptEncoder(cache=False, precision="bfloat16").encode(prompts)
    single = minilm.encode(prompts)
    cosines = (half * single).sum(axis=1)
    assert cosines.min() >= 0.9999 and not np.array_equal(half, single)


def test_a_single_prompt_is_kept_with_the_vectors_of_the_precision_it_was_made_in(tmp_path):
    single, half = (PromptEncoder(cache=tmp_path, precision=precision) for precision in ("float32", "bfloat16"))
    alone = half.encode(["Why is the sea blue?"])
    assert alone.tobytes() == single.encode(["Why is the sea blue?"]).tobytes()
    together = half.encode(["Why is the sea blue?", "Sort a list."])
    assert 0.9999 < float(together[0] @ alone[0]) and not np.array_equal(together[0], alone[0])


def test_an_instruction_that_the_model_is_saved_with_is_given(tmp_path):
    from sentence_transformers import SentenceTransformer

    folder = link_bundled_model(tmp_path / "instructed")
    (folder / "config_sentence_transformers.json").unlink(missing_ok=True)
    settings = {"prompts": {"query": "Represent this question: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    peer = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    peer.max_seq_length = 128
    prompts = ["Why is the sea blue?", "Sort a list."]
    encoder = PromptEncoder(folder, cache=False, precision="float32")
    np.testing.assert_allclose(encoder.encode(prompts), peer.encode(prompts, normalize_embeddings=True), atol=1e-6)
