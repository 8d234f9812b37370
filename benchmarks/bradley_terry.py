"""Bradley-Terry on 1,670,250 real votes: ours beside evalica, arena-rank, choix and scikit-learn, in one run.

    make bench        (or, with the extra "bench" installed: python benchmarks/bradley_terry.py)

Writes results/benchmarks/bradley_terry*.{png,csv}.
"""

from __future__ import annotations

from pathlib import Path

import choix
import evalica
import jax
import matplotlib
import numpy as np
import pandas as pd
from arena_rank.models.bradley_terry import BradleyTerry
from arena_rank.utils.data_utils import PairDataset
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from timing import time_in_turn

from routing.battles import PairCounts, count_pairs, expand_counts
from routing.data.votes import read_arena_votes
from routing.ratings.bradley_terry import bootstrap_ratings, fit_bradley_terry
from routing.studies.overhead.timing import peak_memory_of, run_on_one_core
from routing.studies.plotting import plot_lines, plot_rows, save_figure, set_style

FOLDER = Path(__file__).parents[1] / "results" / "benchmarks"
EVALICA_WINNERS = {"model_a": evalica.Winner.X, "model_b": evalica.Winner.Y, "tie": evalica.Winner.Draw}


def center(ratings: pd.Series) -> pd.Series:
    return (ratings - ratings.mean()).sort_index()


def half_wins(counts: PairCounts) -> np.ndarray:
    return counts.wins + counts.ties / 2


def fit_ours(battles: pd.DataFrame) -> pd.Series:
    return fit_bradley_terry(count_pairs(battles)).ratings


def fit_evalica(battles: pd.DataFrame) -> pd.Series:
    winners = battles["winner"].map(EVALICA_WINNERS)
    result = evalica.bradley_terry(battles["model_a"], battles["model_b"], winners, tolerance=1e-10, limit=10_000)
    return np.log(result.scores)


def fit_arena_rank(battles: pd.DataFrame) -> pd.Series:
    return fit_arena_rank_dataset(PairDataset.from_pandas(battles))


def fit_arena_rank_dataset(dataset: PairDataset) -> pd.Series:
    model = BradleyTerry(n_competitors=len(dataset.competitors), ftol=0.0, gtol=1e-10)
    model.fit(dataset)
    return pd.Series(np.asarray(jax.block_until_ready(model.params["ratings"])), index=dataset.competitors)


def fit_choix(counts: PairCounts) -> pd.Series:
    return pd.Series(choix.ilsr_pairwise_dense(half_wins(counts), tol=1e-8), index=counts.models)


def fit_scikit_learn(counts: PairCounts) -> pd.Series:
    first, second = np.nonzero(half_wins(counts))
    design = np.zeros((len(first), len(counts.models)))
    design[np.arange(len(first)), first] = 1.0
    design[np.arange(len(first)), second] = -1.0
    rows = np.concatenate([design, -design])
    labels = np.repeat([1, 0], len(first))
    weights = np.tile(half_wins(counts)[first, second], 2)
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, solver="newton-cg", max_iter=1000)
    return pd.Series(model.fit(rows, labels, sample_weight=weights).coef_[0], index=counts.models)


def compare_with_peers(counts: PairCounts, battles: pd.DataFrame) -> pd.DataFrame:
    dataset = PairDataset.from_pandas(battles)
    index, positions = pd.Index(counts.models), pd.RangeIndex(len(counts.models))
    position_a, position_b = index.get_indexer(battles["model_a"]), index.get_indexer(battles["model_b"])
    winners = battles["winner"].map(EVALICA_WINNERS)

    def evalica_fit_alone() -> None:
        evalica.bradley_terry(position_a, position_b, winners, index=positions, tolerance=1e-10, limit=10_000)

    from_table = time_in_turn(
        {
            "ours": lambda: fit_ours(battles),
            "evalica": lambda: fit_evalica(battles),
            "arena-rank": lambda: fit_arena_rank(battles),
        }
    ).assign(stage="table to ratings")
    fit_alone = time_in_turn(
        {
            "ours": lambda: fit_bradley_terry(counts),
            "evalica": evalica_fit_alone,
            "arena-rank": lambda: fit_arena_rank_dataset(dataset),
            "choix": lambda: fit_choix(counts),
            "scikit-learn": lambda: fit_scikit_learn(counts),
        }
    ).assign(stage="fit of what the peer fits")
    bootstrap = time_in_turn(
        {"ours": lambda: bootstrap_ratings(counts, 1000, np.random.default_rng(0))}, repeats=3
    ).assign(stage="1,000 bootstrap refits")
    ratings = {
        "ours": center(fit_ours(battles)),
        "evalica": center(fit_evalica(battles)),
        "arena-rank": center(fit_arena_rank(battles)),
        "choix": center(fit_choix(counts)),
        "scikit-learn": center(fit_scikit_learn(counts)),
    }
    difference = {name: float((peer - ratings["ours"]).abs().max()) for name, peer in ratings.items()}
    table = pd.concat([from_table, fit_alone, bootstrap], ignore_index=True)
    ours = table[table["name"] == "ours"].set_index("stage")["median_s"]
    table["times_ours"] = table["median_s"] / table["stage"].map(ours)
    table["largest_difference_log_odds"] = table["name"].map(difference)
    return table


def resample(counts: PairCounts, n_votes: int, rng: np.random.Generator) -> PairCounts:
    """Real pair shares, another number of votes."""
    upper = np.triu(counts.ties)
    cells = np.concatenate([counts.wins.ravel(), upper.ravel()])
    drawn = rng.multinomial(n_votes, cells / cells.sum()).astype(float)
    wins, ties = drawn.reshape(2, *counts.wins.shape)
    return PairCounts(counts.models, wins, ties + ties.T)


def measure_growth(counts: PairCounts, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for n_votes in (10_000, 100_000, 1_000_000, 10_000_000):
        battles = expand_counts(resample(counts, n_votes, rng), rng)
        competitors = {"ours": lambda table=battles: count_and_fit_with_prior(table)}
        if n_votes <= 1_000_000:  # evalica on ten million rows takes minutes in all
            competitors["evalica"] = lambda table=battles: fit_evalica(table)
        times = time_in_turn(competitors, repeats=3)
        rows.append(times.assign(panel="votes (129 models), table to ratings", size=n_votes))
    for n_models in (10, 30, 100, 300, 1000):
        theta = rng.normal(size=n_models)
        p = 1 / (1 + np.exp(theta[None, :] - theta[:, None]))
        wins = rng.binomial(100, p).astype(float)
        np.fill_diagonal(wins, 0)
        dense = PairCounts([f"model-{i}" for i in range(n_models)], wins, np.zeros_like(wins))
        competitors = {"ours": lambda c=dense: fit_bradley_terry(c)}
        if n_models <= 300:  # choix factorises a dense matrix an iteration, scikit-learn holds every pair as a row
            competitors["choix"] = lambda c=dense: fit_choix(c)
        times = time_in_turn(competitors, repeats=3)
        rows.append(times.assign(panel="models (every pair met), fit alone", size=n_models))
    return pd.concat(rows, ignore_index=True)


def count_and_fit_with_prior(battles: pd.DataFrame) -> pd.Series:
    """With few votes a model may have lost all; a weak prior keeps its rating finite."""
    return fit_bradley_terry(count_pairs(battles), prior_strength=0.01).ratings


def fit_in_full() -> None:
    """Count, fit and resample all votes; for a process whose memory is measured."""
    battles = expand_counts(read_arena_votes(), np.random.default_rng(0))
    bootstrap_ratings(count_pairs(battles), 1000, np.random.default_rng(0))


def draw_peers(table: pd.DataFrame) -> Figure:
    shown = table[~table["stage"].str.contains("bootstrap")].sort_values("median_s", kind="stable")
    shown = shown.assign(estimate=shown["median_s"], low=shown["least_s"], high=shown["greatest_s"])
    ratio = table[(table["stage"] == "table to ratings") & (table["name"] == "evalica")]["times_ours"].item()
    title = f"1,670,250 votes become ratings {ratio:.0f} times as fast as with evalica"
    return plot_rows(shown, "seconds (median and range of 5)", title, panel="stage", log_x=True)


def draw_growth(table: pd.DataFrame) -> Figure:
    shown = table.assign(low=table["least_s"], high=table["greatest_s"])
    title = "Time grows with the rows only in counting, with the models only in solving"
    labels = ("size", "seconds")
    return plot_lines(shown, "size", "median_s", labels, title, by="name", panel="panel", log_x=True, log_y=True)


def main() -> None:
    import bradley_terry  # by its name, under which another process finds it

    matplotlib.use("Agg")
    set_style()
    FOLDER.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    counts = read_arena_votes()
    peers = compare_with_peers(counts, expand_counts(counts, rng))
    print(peers.to_string(index=False))
    save_figure(draw_peers(peers), peers, "bradley_terry_peers", FOLDER, data="real")
    peak = run_on_one_core(peak_memory_of, bradley_terry.fit_in_full)
    memory = pd.DataFrame({"what": ["table, counts, fit, 1,000 refits"], "peak_mib": [peak]})
    print(memory.to_string(index=False))
    memory.to_csv(FOLDER / "bradley_terry_memory.csv", index=False, float_format="%.1f", lineterminator="\n")
    growth = measure_growth(counts, rng)
    print(growth.to_string(index=False))
    save_figure(draw_growth(growth), growth, "bradley_terry_growth", FOLDER, data="simulated")


if __name__ == "__main__":
    main()
