"""Online Elo: ratings updated battle by battle, and so dependent on the order of the rows.

Kept to show what maximum likelihood cures. Nothing in the package is fitted with it.
"""

from __future__ import annotations

import pandas as pd

from routing.battles import encode_battles


def online_elo(battles: pd.DataFrame, step_elo: float = 4.0, start_elo: float = 1000.0) -> pd.Series:
    """Elo rating of each model after the battles in the order in which they stand [Elo78].

    After each battle both ratings move by ``step_elo * (score - expected score)``, in opposite directions; a
    tie scores one half. The defaults are those of the LMSYS Chatbot Arena notebook [Chiang24].

    Raises
    ------
    ValueError
        As `encode_battles`.
    """
    models, model_a, model_b, outcome = encode_battles(battles)
    rating_elo = [start_elo] * len(models)
    for a, b, score in zip(model_a.tolist(), model_b.tolist(), (1 - outcome / 2).tolist(), strict=True):
        expected = 1 / (1 + 10 ** ((rating_elo[b] - rating_elo[a]) / 400))
        change = step_elo * (score - expected)
        rating_elo[a] += change
        rating_elo[b] -= change
    return pd.Series(rating_elo, index=pd.Index(models, name="model"), name="rating_elo")
