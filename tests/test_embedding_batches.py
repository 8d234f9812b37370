from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from routing.embeddings import LEAST_FILLED, PromptEncoder, batches_to_read

LENGTHS = st.lists(st.integers(0, 50), max_size=60)


@given(LENGTHS, st.integers(1, 9), st.booleans())
def test_each_text_is_read_once_the_longest_first(lengths, size, on_cpu):
    batches = batches_to_read(np.array(lengths, dtype=int), size, on_cpu)
    read = np.concatenate([np.empty(0, dtype=int), *batches])
    np.testing.assert_array_equal(read, sorted(range(len(lengths)), key=lambda text: -lengths[text]))
    assert all(1 <= len(batch) <= size for batch in batches)
    for batch, following in zip(batches, batches[1:], strict=False):  # no batch ends without a reason
        short = lengths[following[0]] < LEAST_FILLED * lengths[batch[0]]
        assert len(batch) == size or (on_cpu and short)


@given(LENGTHS, st.integers(1, 9))
def test_on_a_processor_little_is_padding(lengths, size):
    for batch in batches_to_read(np.array(lengths, dtype=int), size, on_cpu=True):
        assert min(lengths[text] for text in batch) >= LEAST_FILLED * max(lengths[text] for text in batch)


def test_short_prompts_are_not_encoded_beside_long_ones(monkeypatch):
    read = []
    monkeypatch.setattr(
        PromptEncoder, "_encode_with_model", lambda encoder, texts: read.append(texts) or np.ones((len(texts), 3))
    )
    long, short = ["word " * n for n in (90, 100)], ["Say hello.", "Say hallo."]
    PromptEncoder(cache=False).encode([short[0], *long, short[1]])
    assert [sorted(batch) for batch in read] == [sorted(long), sorted(short)]
    read.clear()
    PromptEncoder(cache=False, device="cuda").encode([*short, *long])
    assert [len(batch) for batch in read] == [4]
