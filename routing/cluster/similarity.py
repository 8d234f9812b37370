"""Similarity weighting past one machine: the battles stay on the workers of a Dask cluster, prompts come to them.

A shard is the unit vectors of its battles' prompts and what each battle counts for between models. It says nothing of
tiers, so it stays as it is when new battles move them; the map from models to tiers goes out with each batch of
prompts. A batch costs two passes over the shards, the highest cosine and then the weighted sums, and one Newton solve.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import cloudpickle
import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from dask.distributed import Client, Future

from routing.battles import PAIR_COLUMNS, encode_battles, pair_codes
from routing.cluster.counts import PAIR_TABLE, encode_partition, gather, naming, tabulate_partition, untabulate
from routing.embeddings import unit_rows
from routing.routers.similarity import (
    BLOCK_BYTES,
    MAX_BATCH,
    SimilarityRouter,
    TierMap,
    check_resemblance,
    cosines,
    row_keys,
    sum_runs,
)

HELD_BYTES = 2 * BLOCK_BYTES  # of cosines that a worker holds for one batch; two batches are under way


class Shard(NamedTuple):
    """Battles of one partition as a worker holds them, sorted by what they count for between models."""

    models: tuple[str, ...]
    vectors: np.ndarray  # (n_battles, width) float32, unit rows
    codes: np.ndarray  # (n_runs,) `pair_codes` over models, each once, ascending
    starts: np.ndarray  # (n_runs,) where each code's battles begin
    counts: pd.DataFrame  # as `tabulate_partition` makes it


def make_shard(battles: pd.DataFrame, encoder: bytes | None) -> Shard:
    """Make a partition's shard; its vectors are the column ``embedding`` or, with a pickled encoder, of the prompts."""
    if len(battles) == 0:
        return Shard((), np.zeros((0, 0), dtype=np.float32), *np.zeros((2, 0), dtype=np.int64), PAIR_TABLE)
    if encoder is not None:
        vectors = encode_partition(battles, encoder)
    with naming(battles):
        codes = encode_battles(battles)
        if encoder is None and "embedding" not in battles.columns:
            raise ValueError("the battle table lacks column embedding; add it, or let the router encode the prompts")
        if encoder is None:
            vectors = unit_rows(_stack(battles["embedding"])).astype(np.float32, copy=False)
    battle_codes = pair_codes(len(codes.models), *codes[1:])
    order = np.lexsort((row_keys(vectors), battle_codes))
    present, starts = np.unique(battle_codes[order], return_index=True)
    return Shard(codes.models, vectors[order], present, starts, tabulate_partition(battles))


def _stack(column: pd.Series) -> np.ndarray:
    """Return a column of vectors, as `embedding_column` makes it, as a matrix (n_battles, width)."""
    lists = pa.chunked_array(pa.array(column)).combine_chunks() if isinstance(column.dtype, pd.ArrowDtype) else None
    if lists is None or lists.null_count or len(pc.unique(pc.list_value_length(lists))) != 1:
        raise ValueError(
            "column embedding does not hold one vector of the same length for each battle; make it with"
            " routing.cluster.counts.embedding_column"
        )
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def shard_cosines(shard: Shard, queries: np.ndarray, precision: str) -> np.ndarray:
    """Return, as the first pass, cosines of a batch with the shard's battles, (n_prompts, n_battles)."""
    return cosines(queries, shard.vectors, precision)


def describe_shard(shard: Shard) -> tuple[pd.DataFrame, int, int]:
    """Return the shard's pair counts, its number of battles and the width of its vectors."""
    return shard.counts, *shard.vectors.shape


def highest(*parts: np.ndarray) -> np.ndarray:
    """Return the highest value of each prompt over cosines or over earlier results: (n_prompts,)."""
    return np.max([part.max(axis=1) if part.ndim == 2 else part for part in parts], axis=0)


def shard_sums(
    shard: Shard, similarity: np.ndarray, most_similar: np.ndarray, gamma: float, tiers: TierMap
) -> np.ndarray:
    """Return, as the second pass, weights summed into the cells of pairs of tiers, (n_prompts, 3 * n_pairs + 1)."""
    check_resemblance(most_similar)
    sums = np.zeros((len(similarity), 3 * len(tiers.first) + 1))
    runs = sum_runs(similarity, most_similar, gamma, shard.starts)
    cells = tiers.cells(shard.models, shard.codes)
    order = np.argsort(cells, kind="stable")
    present, starts = np.unique(cells[order], return_index=True)
    sums[:, present] = np.add.reduceat(runs[:, order], starts, axis=1)
    return sums


@dataclass
class ShardedSimilarityRouter(SimilarityRouter):
    """`SimilarityRouter` whose battles are spread over the workers of a Dask cluster.

    Its ratings are those of the one-machine router with the same settings, to 1e-9 in double precision, the default
    here, whatever the number of shards and workers; in single precision they differ by rounding (1e-7 of a cosine).
    A lost worker's shards are made again from what they were read from, and a worker short of memory keeps some on
    disk. Like the cluster it lives on, such a router cannot be saved to a folder.
    """

    precision: str = "double"

    def fit(self, battles: dd.DataFrame, *, client: Client) -> Self:
        """Fit to sharded battles, such as `read_battles` gives; each partition becomes a shard.

        With a column ``embedding`` (a vector each row) prompts are not encoded; else each worker loads the router's
        encoder once. Raises as `SimilarityRouter.fit`; the message names the shard.
        """
        return self._take([], battles, client)

    def add(self, battles: dd.DataFrame) -> Self:
        """Make the router that of all shards, old and further ones, which may bring further models.

        The shards that are there stay untouched; if it raises, nothing changes.
        """
        if not hasattr(self, "shards"):
            raise RuntimeError("this ShardedSimilarityRouter has not been fitted; call fit before add")
        return self._take(self.shards, battles, self.client)

    def publish(self, name: str) -> None:
        """Keep the shards on the cluster under a name, also when this client is gone; an older one is replaced."""
        self.client.publish_dataset(list(self.shards), name=name, override=True)

    def fit_published(self, name: str, client: Client) -> Self:
        """Return the router of the shards that `publish` left on the cluster; nothing is read or encoded again."""
        return self._take(client.get_dataset(name), None, client)

    def _take(self, known: list[Future], battles: dd.DataFrame | None, client: Client) -> Self:
        made = []
        if battles is not None:
            encoder = None if "embedding" in battles.columns else cloudpickle.dumps(self.encoder)
            made = client.compute([dask.delayed(make_shard)(part, encoder) for part in battles.to_delayed()])
        shards = [*known, *made]
        described = gather(client, client.map(describe_shard, shards))
        filled = [number for number, (_, size, _) in enumerate(described) if size]
        if not filled:
            raise ValueError("the shards hold no battle")
        shards, described = [shards[number] for number in filled], [described[number] for number in filled]
        tables, sizes, widths = zip(*described, strict=True)
        if len(set(widths)) > 1:
            raise ValueError(f"the shards' embeddings have widths {', '.join(map(str, sorted(set(widths))))}")
        renewed = copy.copy(self)
        renewed._rate_tiers(untabulate(pd.concat(tables).groupby(list(PAIR_COLUMNS)).sum().reset_index()))
        renewed.client, renewed.shards, renewed.n_battles, renewed.width = client, shards, sum(sizes), widths[0]
        vars(self).update(vars(renewed))
        return self

    @property
    def _width(self) -> int:
        return self.width

    def tier_level_ratings(self, vectors: np.ndarray) -> np.ndarray:
        """Return ratings of the tiers on prompts given as unit vectors: (n_prompts, n_tiers), log-odds."""
        vectors = self._check_width(np.asarray(vectors))
        room = HELD_BYTES * len(self.client.nthreads())
        batch = int(np.clip(room // (4 * self.n_battles), 1, MAX_BATCH))
        rated = np.empty((len(vectors), len(self.tier_ratings)))
        batches = [slice(begin, begin + batch) for begin in range(0, len(vectors), batch)]
        submitted = [self._submit(vectors[rows]) for rows in batches[:1]]
        for number, rows in enumerate(batches):  # one batch is solved here while the workers are at the next
            submitted += [self._submit(vectors[later]) for later in batches[number + 1 : number + 2]]
            summed = gather(self.client, submitted.pop(0))
            self._check_underflow(summed[:, self.met_cells])
            rated[rows] = self._solve(self._tiers.pair_sums(summed))
        return rated

    def _submit(self, vectors: np.ndarray) -> Future:
        """Sum over all battles for a batch of prompts, (n_prompts, 3 * n_pairs + 1), as a future."""
        submit = self.client.submit
        queries = submit(np.asarray, vectors)
        similarity = [submit(shard_cosines, shard, queries, self.precision) for shard in self.shards]
        most_similar = submit(highest, *[submit(highest, part) for part in similarity])
        tiers = submit(TierMap, *self._tiers)
        pairs = zip(self.shards, similarity, strict=True)
        return submit(sum, [submit(shard_sums, *pair, most_similar, self.gamma, tiers) for pair in pairs])

    def _resemble(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError("the weights of single battles stay on the workers; look at them on one machine")

    def save(self, folder: str | Path) -> None:
        raise NotImplementedError("a sharded router lives on its cluster; publish it, or save the one-machine router")
