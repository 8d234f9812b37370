"""Sharded similarity weighting equals the one-machine router, for any shards and workers, also while workers die."""

from __future__ import annotations

from dataclasses import replace

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.distributed import Client, LocalCluster

from routing.cluster.counts import PATIENT, embedding_column, read_battles
from routing.cluster.similarity import ShardedSimilarityRouter
from routing.data.tables import NAME_COLUMNS
from routing.embeddings import PromptEncoder
from routing.routers.similarity import SimilarityRouter
from tests.cluster.test_counts import kill_a_busy_worker, make_battles, write_shards
from tests.conftest import QUESTIONS, QUICK_START, embed

ENCODER = PromptEncoder(embed, cache=False)


@pytest.fixture(scope="module")
def battles() -> pd.DataFrame:
    return make_battles()


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return embed([f"query {number}" for number in range(60)])


@pytest.fixture(scope="module")
def expected(battles, queries) -> np.ndarray:
    return SimilarityRouter(n_tiers=4, precision="double", encoder=ENCODER).fit(battles).ratings(queries)


@pytest.mark.parametrize(
    ("settings", "n_shards"),
    [
        ({"n_tiers": 4}, 1),
        ({"n_tiers": 3, "ties": "half"}, 5),
        ({"n_tiers": None, "prior_strength": 0.5, "gamma": 30.0}, 8),
    ],
)
def test_ratings_are_those_of_one_machine(client, battles, queries, settings, n_shards):
    sharded = dd.from_pandas(battles.sample(frac=1, random_state=2, ignore_index=True), npartitions=n_shards)
    router = ShardedSimilarityRouter(encoder=ENCODER, **settings).fit(sharded, client=client)
    one = SimilarityRouter(encoder=ENCODER, precision="double", **settings).fit(battles)
    assert len(router.shards) == n_shards and router.models == one.models and router.nu == one.nu
    np.testing.assert_array_equal(router.model_tier, one.model_tier)
    np.testing.assert_allclose(router.ratings(queries), one.ratings(queries), rtol=0, atol=1e-9)
    np.testing.assert_allclose(router.ratings(QUESTIONS), one.ratings(QUESTIONS), rtol=0, atol=1e-9)
    pair = router.models[0], router.models[-1]
    np.testing.assert_allclose(
        router.win_probability(queries, *pair), 1 - router.win_probability(queries, *pair[::-1]), atol=1e-12
    )


def test_single_precision_differs_by_rounding_only(client, battles, queries, expected):
    sharded = dd.from_pandas(battles, npartitions=3)
    router = ShardedSimilarityRouter(n_tiers=4, precision="single", encoder=ENCODER).fit(sharded, client=client)
    np.testing.assert_allclose(router.ratings(queries), expected, rtol=0, atol=1e-6)


def test_embeddings_may_stand_beside_the_prompts(client, battles, queries, expected, tmp_path):
    with_vectors = battles.assign(embedding=embedding_column(embed(battles["prompt"].tolist())))
    columns = ("prompt", *NAME_COLUMNS, "embedding")
    sharded = read_battles(str(write_shards(tmp_path / "shards", with_vectors.iloc[:600])), columns)
    with_vectors.iloc[600:].to_parquet(tmp_path / "more.parquet")
    router = ShardedSimilarityRouter(n_tiers=4).fit(sharded.partitions[[0, 2, 3, 5]], client=client)
    alone = router.ratings(queries)
    before = list(router.shards)
    router.add(read_battles(str(tmp_path / "more.parquet"), columns))
    kept = pd.concat([with_vectors.iloc[n * 100 : (n + 1) * 100] for n in (0, 2, 3, 5)] + [with_vectors.iloc[600:]])
    one = SimilarityRouter(n_tiers=4, precision="double", encoder=ENCODER).fit(kept)
    # The text formats carry 10 to 17 digits of each number, Parquet its bits.
    np.testing.assert_allclose(router.ratings(queries), one.ratings(queries), rtol=0, atol=1e-6)
    assert np.abs(alone - router.ratings(queries)).max() > 1e-3
    assert router.shards[:4] == before  # what was there is untouched


def test_shards_with_new_models_are_added_as_if_they_had_been_there(client, battles, queries, expected):
    has_ant = (battles["model_a"] == "ant") | (battles["model_b"] == "ant")
    router = ShardedSimilarityRouter(n_tiers=4, encoder=ENCODER)
    router.fit(dd.from_pandas(battles[~has_ant], npartitions=2), client=client)
    assert "ant" not in router.models
    more = dd.from_pandas(battles, npartitions=3)
    more = more[(more["model_a"] == "ant") | (more["model_b"] == "ant")]
    router.add(dd.concat([more, more[more["winner"] == "nobody"]], interleave_partitions=True))  # some shards are empty
    np.testing.assert_allclose(router.ratings(queries), expected, rtol=0, atol=1e-9)


def test_what_is_wrong_is_said_and_changes_nothing(client, battles, queries, expected):
    router = ShardedSimilarityRouter(n_tiers=4, encoder=ENCODER).fit(dd.from_pandas(battles, 2), client=client)
    wide = battles.assign(embedding=embedding_column(np.ones((len(battles), 3))))
    with pytest.raises(ValueError, match="embeddings have widths 3, 8"):
        router.add(dd.from_pandas(wide, npartitions=1))
    lists = [[1.0] * (2 + number % 2) for number in range(len(battles))]
    uneven = battles.assign(embedding=pd.array(lists, dtype=wide["embedding"].dtype))
    with pytest.raises(ValueError, match="column embedding does not hold one vector of the same length"):
        router.add(dd.from_pandas(uneven, npartitions=1))
    with pytest.raises(ValueError, match="embeddings of width 3; this router learned on width 8"):
        router.ratings(np.ones((2, 3)))
    with pytest.raises(ValueError, match="prompt 1 of the batch resembles no battle"):
        router.ratings(np.stack([queries[0], -queries[0]]))
    with pytest.raises(RuntimeError, match="call fit before add"):
        ShardedSimilarityRouter().add(dd.from_pandas(battles, npartitions=1))
    with pytest.raises(NotImplementedError, match="publish it"):
        replace(router, encoder=PromptEncoder()).save("nowhere")
    np.testing.assert_allclose(router.ratings(queries), expected, rtol=0, atol=1e-9)


def test_workers_killed_while_they_make_or_weigh_shards_lose_nothing(client, battles, queries, expected, monkeypatch):
    monkeypatch.setattr("routing.cluster.similarity.MAX_BATCH", 4)  # many batches, so that one is under way
    sharded = dd.from_pandas(battles, npartitions=6)
    with kill_a_busy_worker(client) as killed:
        router = ShardedSimilarityRouter(n_tiers=4, encoder=ENCODER).fit(sharded, client=client)
    assert killed
    client.wait_for_workers(2, timeout=60)
    with kill_a_busy_worker(client) as killed_again:
        ratings = router.ratings(queries)
    assert killed_again
    np.testing.assert_allclose(ratings, expected, rtol=0, atol=1e-9)


def test_a_new_client_finds_the_shards_that_were_published(cluster, client, battles, queries, expected, monkeypatch):
    first = Client(cluster, set_as_default=False)
    router = ShardedSimilarityRouter(n_tiers=4, encoder=ENCODER).fit(dd.from_pandas(battles, 3), client=first)
    router.publish("battles")
    first.close()
    monkeypatch.setattr("routing.cluster.similarity.make_shard", None)  # nothing is made again
    again = ShardedSimilarityRouter(n_tiers=4).fit_published("battles", client)
    np.testing.assert_allclose(again.ratings(queries), expected, rtol=0, atol=1e-9)
    client.unpublish_dataset("battles")


def test_a_worker_short_of_memory_keeps_shards_on_disk(battles, queries, expected):
    # A target of 50 kB, and a limit that the process itself stays far below, as Dask would pause it.
    room = {"distributed.worker.memory.target": 0.0000125, "distributed.worker.memory.spill": False}
    options = {"n_workers": 1, "threads_per_worker": 1, "memory_limit": "4GB", "dashboard_address": "127.0.0.1:0"}
    with dask.config.set(PATIENT | QUICK_START | room), LocalCluster(**options) as small, Client(small) as client:
        router = ShardedSimilarityRouter(n_tiers=4, encoder=ENCODER)
        ratings = router.fit(dd.from_pandas(battles, npartitions=6), client=client).ratings(queries)
        (on_disk,) = client.run(lambda dask_worker: dask_worker.data.spilled_total.disk).values()
    assert on_disk > 10_000
    np.testing.assert_allclose(ratings, expected, rtol=0, atol=1e-9)
