"""Rate a model that joins after training: how many battles it takes until its rating is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from routing.battles import count_pairs, encode_battles
from routing.evaluation.resampling import paired_bootstrap
from routing.policy.quality import rate_new_model
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.studies.plotting import plot_lines

STARTS = ("leaderboard", "average model")


def new_model_errors(
    battles: pd.DataFrame,
    new_models: Sequence[str],
    leaderboard: pd.Series,
    n_battles: Sequence[int],
    n_draws: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Return the error of a new model's rating against the number of its battles, from two starting points.

    Each new model is left out of the ratings, which are those of the other models' battles. Half of its own battles,
    drawn at random, gives the rating that is taken for the truth; from the other half come the first few. The other
    models tell how the leaderboard's scale becomes that of the ratings (a line), and how much a start weighs against
    battles: its precision is one over the mean square by which it misses their ratings.

    Parameters
    ----------
    battles : DataFrame
        Columns of `routing.battles`.
    new_models : sequence of str
        Models to leave out, one at a time.
    leaderboard : Series of model to log-odds
        Ratings from elsewhere, of the new models and of some of the others, on any scale.
    n_battles : sequence of int
        Numbers of battles; 0 is the start alone.
    n_draws : int
        Of the halves and of the first few battles, for each new model.

    Returns
    -------
    DataFrame
        start ("leaderboard" or "average model"), battles, error (root mean square over new models and draws, log-odds),
        low, high (95 % over resampled new models).

    Raises
    ------
    ValueError
        A new model with fewer than twice as many battles as needed, or without a place on the leaderboard; or a
        leaderboard that has not three of the other models.
    """
    squares = []  # (new_model, start, battles, mean squared error over draws)
    for new_model in new_models:
        if new_model not in leaderboard.index:
            raise ValueError(f"{new_model} has no place on the leaderboard")
        own = (battles["model_a"] == new_model) | (battles["model_b"] == new_model)
        if own.sum() < 2 * max(n_battles):
            raise ValueError(f"{new_model} has {own.sum()} battles; {2 * max(n_battles)} are needed")
        others = fit_bradley_terry(count_pairs(battles[~own]), "davidson", prior_strength=1.0)
        opponents, outcome = _against(battles[own], new_model, others.ratings)
        known = leaderboard.index.intersection(others.ratings.index)
        if len(known) < 3:
            raise ValueError(f"the leaderboard has {len(known)} of the models that {new_model} met; 3 are needed")
        line = np.polynomial.Polynomial.fit(leaderboard[known], others.ratings[known], 1)
        miss = others.ratings[known] - line(leaderboard[known])
        starts = [(line(leaderboard[new_model]), 1 / (miss**2).mean()), (0.0, 1 / (others.ratings**2).mean())]
        errors = np.zeros((n_draws, len(STARTS), len(n_battles)))
        for draw in range(n_draws):
            order = rng.permutation(len(outcome))
            aside, first = order[: len(order) // 2], order[len(order) // 2 :]
            truth = rate_new_model(opponents[aside], outcome[aside], others.tie_parameter)
            for row, start in enumerate(starts):
                for column, n in enumerate(n_battles):
                    seen = first[:n]
                    rating = rate_new_model(opponents[seen], outcome[seen], others.tie_parameter, *start)
                    errors[draw, row, column] = rating - truth
        squares.append((errors**2).mean(axis=0))
    squares = np.array(squares)  # (n_models, n_starts, n_counts)
    low, high, _ = paired_bootstrap(
        lambda counts: np.sqrt(np.tensordot(counts, squares, 1) / len(squares)), len(squares), 1000, rng
    )
    index = pd.MultiIndex.from_product([STARTS, n_battles], names=["start", "battles"])
    columns = {"error": np.sqrt(squares.mean(axis=0)), "low": low, "high": high}
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()}, index).reset_index()


def _against(battles: pd.DataFrame, new_model: str, ratings: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return the opponent's rating in each battle of a new model, and the outcome: 0 it won, 1 tie, 2 it lost."""
    outcome = encode_battles(battles).outcome
    is_first = (battles["model_a"] == new_model).to_numpy()
    opponent = battles["model_b"].where(is_first, battles["model_a"])
    rated = opponent.isin(ratings.index).to_numpy()  # a model that met the new one alone has no rating
    return ratings[opponent[rated]].to_numpy(), np.where(is_first, outcome, 2 - outcome)[rated]


def plot_new_models(table: pd.DataFrame) -> Figure:
    """Draw the error of a new model's rating against the number of its battles; `table` as `new_model_errors`."""
    few = table[table["battles"] == 10].set_index("start")["error"]
    title = f"A leaderboard to start from saves {few.iloc[1] - few.iloc[0]:.2f} log-odds of error after 10 battles"
    labels = ("battles of the new model", "error of its rating (log-odds, RMS)")
    figure = plot_lines(table, "battles", "error", labels, title, by="start")
    counts = table["battles"].unique()
    figure.axes[0].set_xscale("symlog", linthresh=counts[counts > 0].min(), linscale=0.5)
    figure.axes[0].set_xticks(counts, counts.astype(str))
    figure.axes[0].set_xlim(left=-0.5)
    figure.axes[0].minorticks_off()
    return figure
