"""Similarity weighting over 55,000 battles: ours beside RouteLLM's per-prompt logistic regression, in one run.

    make bench        (or, with the extra "bench" installed: python benchmarks/similarity.py)

Writes results/benchmarks/similarity*.{png,csv}.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from timing import time_in_turn

from routing.battles import canonical_order
from routing.data.votes import read_arena_votes
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.ratings.ties import outcome_probability
from routing.routers.similarity import SimilarityRouter
from routing.studies.overhead.timing import peak_memory_of, run_on_one_core
from routing.studies.plotting import plot_rows, save_figure, set_style

os.environ.setdefault("OPENAI_API_KEY", "none")  # routellm makes a client where it is imported; nothing is sent
from routellm.routers.similarity_weighted.utils import compute_elo_mle_with_tie  # noqa: E402

FOLDER = Path(__file__).parents[1] / "results" / "benchmarks"
N_BATTLES, N_TIERS, BATCH = 55_000, 10, 256


def make_battles(rng: np.random.Generator) -> pd.DataFrame:
    """Battles between 64 of the Arena's models, won by their real ratings."""
    fit = fit_bradley_terry(read_arena_votes(), "davidson")
    names = np.array(fit.ratings.sample(64, random_state=0).index)
    theta = fit.ratings[names].to_numpy()
    first = rng.integers(64, size=N_BATTLES)
    second = (first + rng.integers(1, 64, size=N_BATTLES)) % 64
    p = outcome_probability(theta[first] - theta[second], "davidson", fit.tie_parameter)
    outcome = (rng.random(N_BATTLES)[:, None] > p.cumsum(axis=1)[:, :2]).sum(axis=1)
    return pd.DataFrame(
        {
            "prompt": [f"prompt {number}" for number in range(N_BATTLES)],
            "model_a": names[first],
            "model_b": names[second],
            "winner": np.array(["model_a", "tie", "model_b"])[outcome],
        }
    )


def make_vectors(n_rows: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors in a cone, so that cosines are mostly positive, as those of prompts are."""
    vectors = rng.normal(size=(n_rows, width)).astype(np.float32) + 0.5
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def released_ratings(
    router: SimilarityRouter, tiers: pd.DataFrame, vectors: np.ndarray, query: np.ndarray
) -> pd.Series:
    """What RouteLLM computes for one prompt: weights as in its router, then its function over all rows."""
    similarity = vectors @ query
    weights = router.gamma ** (1 + similarity / similarity.max())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, on how the released code asks for no penalty
        return compute_elo_mle_with_tie(tiers, sample_weight=weights)


def measure(width: int, rng: np.random.Generator) -> pd.DataFrame:
    battles, vectors = make_battles(rng), make_vectors(N_BATTLES, width, rng)
    router = SimilarityRouter(n_tiers=N_TIERS, ties="half").fit(battles, vectors)
    queries = make_vectors(4 * BATCH, width, rng)

    # The peer sees each battle as we do, those within a tier, which it gets wrong, left out.
    ordered = canonical_order(battles)
    tier_of = dict(zip(router.models, router.model_tier, strict=True))
    tiers = ordered.assign(model_a=ordered["model_a"].map(tier_of), model_b=ordered["model_b"].map(tier_of))
    across = (tiers["model_a"] != tiers["model_b"]).to_numpy()
    tiers, peer_vectors = tiers[across].reset_index(drop=True), vectors[ordered.index[across]]

    elo = released_ratings(router, tiers, peer_vectors, queries[0]).sort_index().to_numpy()
    ours = router.tier_level_ratings(queries[:1])[0]
    difference = np.abs((elo - elo.mean()) / 400 * np.log(10) - ours).max()
    times = time_in_turn(
        {
            "ours, batches of 256": lambda: router.tier_level_ratings(queries),
            "matrix product alone": lambda: [
                queries[begin : begin + BATCH] @ router.battle_vectors.T for begin in range(0, len(queries), BATCH)
            ],
            "ours, one prompt": lambda: router.tier_level_ratings(queries[:1]),
            "RouteLLM, one prompt": lambda: released_ratings(router, tiers, peer_vectors, queries[0]),
        }
    )
    times["prompts"] = [len(queries), len(queries), 1, 1]
    times["prompts_per_s"] = times["prompts"] / times["median_s"]
    peer = times.set_index("name")["prompts_per_s"]["RouteLLM, one prompt"]
    return times.assign(
        width=width, times_routellm=times["prompts_per_s"] / peer, largest_difference_log_odds=difference
    )


def draw(table: pd.DataFrame) -> Figure:
    factor = table.set_index(["width", "name"])["times_routellm"][384, "ours, batches of 256"]
    title = f"Pair counts make similarity weighting {factor:.0f} times as fast as a regression for each prompt"
    shown = table.assign(estimate=table["prompts_per_s"], panel="width " + table["width"].astype(str))
    return plot_rows(shown, "prompts per second", title, panel="panel", log_x=True)


def rate_queries(n_prompts: int) -> None:
    """Fit a router and rate prompts; for a process whose memory is measured."""
    rng = np.random.default_rng(0)
    router = SimilarityRouter(n_tiers=N_TIERS).fit(make_battles(rng), make_vectors(N_BATTLES, 384, rng))
    router.tier_level_ratings(make_vectors(n_prompts, 384, rng))


def main() -> None:
    import similarity  # by its name, under which another process finds it

    matplotlib.use("Agg")
    set_style()
    FOLDER.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    table = pd.concat([measure(width, rng) for width in (384, 1536)], ignore_index=True)
    print(table.to_string(index=False))
    save_figure(draw(table), table, "similarity_throughput", FOLDER, data="simulated")
    sizes = [1, 256, 25_600]
    peaks = [run_on_one_core(peak_memory_of, similarity.rate_queries, size) for size in sizes]
    memory = pd.DataFrame({"n_prompts": sizes, "peak_mib": peaks})
    print(memory.to_string(index=False))
    memory.to_csv(FOLDER / "similarity_memory.csv", index=False, float_format="%.1f", lineterminator="\n")


if __name__ == "__main__":
    main()
