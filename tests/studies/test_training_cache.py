from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

from routing.battles import swap_battles
from routing.routers import base as router_module
from routing.routers.base import ROUTERS, BradleyTerryRouter
from routing.studies.training_cache import Training, hash_sources
from tests.routers.test_base import battles  # noqa: F401 (a fixture)

PROMPTS = [f"question {number}" for number in range(5)]


@dataclass
class CountingRouter(BradleyTerryRouter):
    """A leaderboard that counts its trainings, and is lifted by the router that it goes on from."""

    n_fits = 0

    def fit(self, battles, embeddings=None, start=None, checkpoints=None):  # noqa: F811
        CountingRouter.n_fits += 1
        super().fit(battles)
        if start is not None:
            self.constant_ratings = self.constant_ratings + 1 + start.constant_ratings
        return self


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    monkeypatch.setitem(ROUTERS, "CountingRouter", __name__)
    monkeypatch.setattr(CountingRouter, "n_fits", 0)


def test_a_training_is_done_once_and_its_ratings_are_the_router_s(battles, tmp_path):  # noqa: F811
    plain = CountingRouter(prior_strength=0.1).fit(battles)
    for table in (battles, swap_battles(battles).sample(frac=1, random_state=1)):
        rated = Training(CountingRouter(prior_strength=0.1), table, folder=tmp_path).rate(PROMPTS, PROMPTS[:2])
        assert rated.models == plain.models and rated.nu == plain.nu
        assert rated.ratings(PROMPTS).tobytes() == plain.ratings(PROMPTS).tobytes()
        np.testing.assert_array_equal(rated.margin(PROMPTS, "ant", "bee"), plain.margin(PROMPTS, "ant", "bee"))
    assert CountingRouter.n_fits == 2  # the plain one and the first of the trainings
    assert rated.training_seconds > 0 and rated.rating_seconds > 0
    with pytest.raises(ValueError, match="1 of the prompts were not rated, as 'new'"):
        rated.ratings(["new"])
    with pytest.raises(TypeError, match="cannot be fitted again"):
        rated.fit(battles)


def test_of_two_that_need_a_training_one_trains_and_the_other_waits(battles, tmp_path):  # noqa: F811
    def rate(_: int) -> bytes:
        training = Training(CountingRouter(prior_strength=0.1), battles, folder=tmp_path)
        return training.rate(PROMPTS).ratings(PROMPTS).tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(rate, range(4)))) == 1
    assert CountingRouter.n_fits == 1
    (entry,) = tmp_path.iterdir()
    assert not list(entry.glob(".*"))


def test_whatever_a_result_depends_on_is_in_the_key(battles, tmp_path, monkeypatch):  # noqa: F811
    one = Training(CountingRouter(prior_strength=0.1), battles, folder=tmp_path)
    keys = {
        one.key,
        Training(CountingRouter(prior_strength=0.2), battles).key,
        Training(BradleyTerryRouter(prior_strength=0.1), battles).key,
        Training(CountingRouter(prior_strength=0.1), battles[1:]).key,
        Training(CountingRouter(prior_strength=0.1), battles, start=one).key,
    }
    monkeypatch.setattr("routing.studies.training_cache.hash_sources", lambda module: "changed")
    keys.add(Training(CountingRouter(prior_strength=0.1), battles).key)
    assert len(keys) == 6


def test_it_goes_on_from_another_training(battles, tmp_path):  # noqa: F811
    start = Training(CountingRouter(prior_strength=0.1), battles, folder=tmp_path)
    more = Training(CountingRouter(prior_strength=0.1), battles, start, tmp_path).rate(PROMPTS)
    np.testing.assert_allclose(more.ratings(PROMPTS), 2 * start.rate(PROMPTS).ratings(PROMPTS) + 1)


def test_the_sources_are_those_of_all_imports(tmp_path, monkeypatch):
    before = hash_sources("routing.routers.base")
    assert before == hash_sources(router_module.__name__) != hash_sources("routing.routers.similarity")
    read = type(tmp_path).read_bytes  # a module imported by a module that the router imports
    monkeypatch.setattr(type(tmp_path), "read_bytes", lambda path: read(path) + b"#" * (path.name == "newton.py"))
    assert hash_sources("routing.routers.base") != before


def test_damaged_ratings_are_never_served(battles, tmp_path):  # noqa: F811
    training = Training(CountingRouter(prior_strength=0.1), battles, folder=tmp_path)
    training.rate(PROMPTS)
    (path,) = training.entry.glob("ratings-*.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match=r"ratings-.*npz are damaged \(its sha256 differs\); delete"):
        training.rate(PROMPTS)
    (training.entry / "router" / "arrays.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is not the file that was saved"):
        Training(CountingRouter(prior_strength=0.1), battles, folder=tmp_path).fitted  # noqa: B018
