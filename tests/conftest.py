"""Fixtures and strategies that several test files share."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

# Two test processes share two cores: more threads than that only wait for each other. Set before numpy loads.
for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(threads, "1")
sys.modules.setdefault("rfc3987_syntax", None)  # as `routing.runner.run` does: 2 s for a grammar that nothing needs

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from routing.battles import WINNERS, clean_name
from routing.embeddings import bundled_model_folder

settings.register_profile("routing", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("routing")

WIDTH = 8  # of the vectors of `embed`
QUESTIONS = ["What is a prime?", "", "Écris un poème.", "def f(x):\n  return x" * 50]


def embed(prompts: list[str]) -> np.ndarray:
    """A vector that depends on the text alone, with a positive first coordinate, so that all prompts are alike."""
    seeds = [np.frombuffer(hashlib.sha256(prompt.encode()).digest(), dtype=np.uint32) for prompt in prompts]
    vectors = np.array([np.random.default_rng(seed).normal(size=WIDTH) for seed in seeds]).reshape(-1, WIDTH)
    vectors[:, 0] = 4
    return vectors.astype(np.float32)


@st.composite
def battle_tables(draw, n_models: int = 5, max_rows: int = 30) -> pd.DataFrame:
    """Any battle table of up to `n_models` models in which each meets the next, either way won."""
    names = st.text(min_size=1, max_size=6).map(clean_name).filter(bool)  # `encode_battles` warns of "A" and "a"
    names = draw(st.lists(names, min_size=2, max_size=n_models, unique_by=str.casefold))
    index = st.integers(0, len(names) - 1)
    pairs = st.tuples(index, index).filter(lambda pair: pair[0] != pair[1])
    rows = draw(st.lists(st.tuples(pairs, st.sampled_from(WINNERS)), min_size=1, max_size=max_rows))
    rows += [((i, i + 1), "model_a") for i in range(len(names) - 1)]
    rows += [((i, i + 1), "model_b") for i in range(len(names) - 1)]
    return pd.DataFrame(
        {
            "prompt": [f"prompt {number % 7}" for number in range(len(rows))],
            "model_a": [names[a] for (a, _), _ in rows],
            "model_b": [names[b] for (_, b), _ in rows],
            "winner": [winner for _, winner in rows],
        }
    )


def link_bundled_model(folder: Path) -> Path:
    """Make a folder with links to the files of all-MiniLM-L6-v2, and return it."""
    for source in bundled_model_folder().rglob("*"):
        if source.is_file():
            link = folder / source.relative_to(bundled_model_folder())
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest tests: one of half a minute at the end leaves the other process idle."""
    items.sort(key=lambda item: item.path.name not in ("test_notebooks.py", "test_readme.py"))


@pytest.fixture(scope="session", autouse=True)
def float32_everywhere():
    """Encode in float32 on every processor: vectors are compared with those of other code."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("routing.embeddings.processor_has_bfloat16", lambda: False)
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240626)


QUICK_START = {"distributed.worker.multiprocessing-method": "forkserver"}  # of workers, after each kill too


@pytest.fixture(scope="session")
def cluster():
    """Two worker processes of one thread, each watched by a nanny that starts it again; shared by all tests."""
    import dask
    from dask.distributed import LocalCluster

    from routing.cluster.counts import PATIENT

    with (
        dask.config.set(PATIENT | QUICK_START),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit="1.5GB") as local,
    ):
        yield local


@pytest.fixture
def client(cluster):
    """A client of the shared cluster, once both workers are there (an earlier test may have killed one)."""
    from dask.distributed import Client

    with Client(cluster) as connected:
        connected.wait_for_workers(2, timeout=60)
        yield connected
