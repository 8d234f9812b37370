"""Rate a model that joins after training: how many battles it takes until its rating is known."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.random import Generator

from routing.battles import count_pairs, encode_battles, swap_battles
from routing.evaluation.resampling import paired_bootstrap
from routing.policy.quality import rate_new_model
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.studies.plotting import plot_lines

STARTS = ("leaderboard", "average model")


def new_model_errors(
    battles: pd.DataFrame, new_models: Sequence[str], leaderboard: pd.Series, n_battles: Sequence[int], n_draws: int,
    rng: Generator,
) -> pd.DataFrame:  # fmt: skip
    """Return the error of a new model's rating against the number of its battles, from two starting points.

    Each new model is left out of the ratings, which are those of the other models' battles. Half of its own battles,
    drawn `n_draws` times, gives the rating that is taken for the truth; from the other half come the first `n_battles`
    (0 is the start alone). The other models tell how the leaderboard's scale, which may be any, becomes that of the
    ratings (a line), and how much a start weighs against battles: its precision is one over the mean square by which it
    misses their ratings.

    The columns are start, battles, error (root mean square over new models and draws, log-odds), low, high (95 % over
    resampled new models). A ValueError names a new model with fewer than twice as many battles as needed, without a
    place on the leaderboard, or with fewer than three of the others there.
    """
    squares = np.empty((len(new_models), len(STARTS), len(n_battles)))  # means over draws
    for number, name in enumerate(new_models):
        if name not in leaderboard.index:
            raise ValueError(f"{name} has no place on the leaderboard")
        is_second = (battles["model_b"] == name).to_numpy()
        is_own = is_second | (battles["model_a"] == name).to_numpy()
        if is_own.sum() < 2 * max(n_battles):
            raise ValueError(f"{name} has {is_own.sum()} battles; {2 * max(n_battles)} are needed")
        others = fit_bradley_terry(count_pairs(battles[~is_own]), "davidson", prior_strength=1.0)
        known = leaderboard.index.intersection(others.ratings.index)
        if len(known) < 3:
            raise ValueError(f"the leaderboard has {len(known)} of the models that {name} met; 3 are needed")
        own = swap_battles(battles[is_own], is_second[is_own])
        own = own[own["model_b"].isin(others.ratings.index)]  # a model that met the new one alone has no rating
        opponents, outcome = others.ratings[own["model_b"]].to_numpy(), encode_battles(own).outcome
        line = np.polynomial.Polynomial.fit(leaderboard[known], others.ratings[known], 1)
        miss = others.ratings[known] - line(leaderboard[known])
        starts = [(line(leaderboard[name]), 1 / (miss**2).mean()), (0.0, 1 / (others.ratings**2).mean())]
        errors = np.empty((n_draws, *squares.shape[1:]))
        for draw in range(n_draws):
            order = rng.permutation(len(outcome))
            aside, first = np.split(order, [len(order) // 2])
            truth = rate_new_model(opponents[aside], outcome[aside], others.tie_parameter)
            for (row, start), (column, n) in product(enumerate(starts), enumerate(n_battles)):
                seen = first[:n]
                rating = rate_new_model(opponents[seen], outcome[seen], others.tie_parameter, *start)
                errors[draw, row, column] = rating - truth
        squares[number] = (errors**2).mean(axis=0)

    def root_mean(counts: np.ndarray) -> np.ndarray:
        return np.sqrt(np.tensordot(counts, squares, 1) / len(squares))

    low, high, _ = paired_bootstrap(root_mean, len(squares), 1000, rng)
    index = pd.MultiIndex.from_product([STARTS, n_battles], names=["start", "battles"])
    columns = {"error": np.sqrt(squares.mean(axis=0)), "low": low, "high": high}
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()}, index).reset_index()


def plot_new_models(table: pd.DataFrame) -> Figure:
    """Draw the error of a new model's rating against the number of its battles; `table` as `new_model_errors`."""
    few = table[table["battles"] == 10].set_index("start")["error"]
    title = f"A leaderboard to start from saves {few.iloc[1] - few.iloc[0]:.2f} log-odds of error after 10 battles"
    labels = ("battles of the new model", "error of its rating (log-odds, RMS)")
    figure = plot_lines(table, "battles", "error", labels, title, by="start")
    counts = table["battles"].unique()
    axis = figure.axes[0]
    axis.set_xscale("symlog", linthresh=counts[counts > 0].min(), linscale=0.5)
    axis.set_xticks(counts, counts.astype(str))
    axis.set_xlim(left=-0.5)
    axis.minorticks_off()
    return figure
