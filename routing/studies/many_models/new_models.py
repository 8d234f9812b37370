"""A model that joins after training: how many battles it takes until its rating is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from routing.battles import count_pairs, encode_battles
from routing.policy.quality import rate_new_model
from routing.ratings.bradley_terry import fit_bradley_terry

STARTS = ("leaderboard", "average model")


def newcomer_errors(
    battles: pd.DataFrame,
    newcomers: Sequence[str],
    leaderboard: pd.Series,
    n_battles: Sequence[int],
    n_draws: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Error of a newcomer's rating against the number of its battles, with and without a leaderboard to start from.

    Each newcomer is left out of the ratings, which are those of the other models' battles. Half of its own battles,
    drawn at random, gives the rating that is taken for the truth; from the other half come the first few. The other
    models tell how the leaderboard's scale becomes that of the ratings (a line), and how much a start weighs against
    battles: its precision is one over the mean square by which it misses their ratings.

    Parameters
    ----------
    battles : DataFrame
        Columns of `routing.battles`.
    newcomers : sequence of str
        Models to leave out, one at a time.
    leaderboard : Series of model to log-odds
        Ratings from elsewhere, of the newcomers and of some of the others, on any scale.
    n_battles : sequence of int
        Numbers of battles; 0 is the start alone.
    n_draws : int
        Of the halves and of the first few battles, for each newcomer.

    Returns
    -------
    DataFrame
        start ("leaderboard" or "average model"), battles, error (root mean square over newcomers and draws, log-odds),
        low, high (central 95 % over resampled newcomers).

    Raises
    ------
    ValueError
        A newcomer with fewer than twice as many battles as asked for, or without a place on the leaderboard; or a
        leaderboard that has not three of the other models.
    """
    squares = []  # (newcomer, start, battles, mean squared error over draws)
    for newcomer in newcomers:
        if newcomer not in leaderboard.index:
            raise ValueError(f"{newcomer} has no place on the leaderboard")
        own = (battles["model_a"] == newcomer) | (battles["model_b"] == newcomer)
        if own.sum() < 2 * max(n_battles):
            raise ValueError(f"{newcomer} has {own.sum()} battles; {2 * max(n_battles)} are needed")
        others = fit_bradley_terry(count_pairs(battles[~own]), "davidson", prior_strength=1.0)
        opponents, outcome = _against(battles[own], newcomer, others.ratings)
        known = leaderboard.index.intersection(others.ratings.index)
        if len(known) < 3:
            raise ValueError(f"the leaderboard has {len(known)} of the models that {newcomer} met; 3 are needed")
        line = np.polynomial.Polynomial.fit(leaderboard[known], others.ratings[known], 1)
        miss = others.ratings[known] - line(leaderboard[known])
        starts = [(line(leaderboard[newcomer]), 1 / (miss**2).mean()), (0.0, 1 / (others.ratings**2).mean())]
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
    squares = np.array(squares)  # (n_newcomers, n_starts, n_counts)
    drawn = rng.integers(len(squares), size=(1000, len(squares)))
    low, high = np.sqrt(np.quantile(squares[drawn].mean(axis=1), [0.025, 0.975], axis=0))
    mean = np.sqrt(squares.mean(axis=0))
    return pd.DataFrame(
        [
            (start, n, mean[row, column], low[row, column], high[row, column])
            for row, start in enumerate(STARTS)
            for column, n in enumerate(n_battles)
        ],
        columns=["start", "battles", "error", "low", "high"],
    )


def _against(battles: pd.DataFrame, newcomer: str, ratings: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Rating of the opponent in each of a newcomer's battles, and the outcome: 0 it won, 1 tie, 2 the opponent won."""
    outcome = encode_battles(battles).outcome
    is_first = (battles["model_a"] == newcomer).to_numpy()
    opponent = battles["model_b"].where(is_first, battles["model_a"])
    rated = opponent.isin(ratings.index).to_numpy()  # a model that met the newcomer alone has no rating
    return ratings[opponent[rated]].to_numpy(), np.where(is_first, outcome, 2 - outcome)[rated]
