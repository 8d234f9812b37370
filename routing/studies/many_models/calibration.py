"""Expected qualities against what was observed on prompts that were held out."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy.stats import norm

from routing.battles import count_pairs, encode_battles
from routing.policy.quality import win_share
from routing.ratings.bradley_terry import fit_bradley_terry


def compare_win_shares(
    learned: pd.DataFrame, held_out: pd.DataFrame, reference: str, level: float = 0.95
) -> pd.DataFrame:
    """Expected win share of every model over one of them, from some battles, and the observed one in others.

    Parameters
    ----------
    learned, held_out : DataFrame
        Battles; the ratings are Bradley-Terry's on the first (with a prior of strength 1), whoever met.
    reference : str
        Of the held-out battles those that it fought are looked at.

    Returns
    -------
    DataFrame
        A row a model that met the reference at least twice: model, expected, observed (a tie is half), low, high
        (Agresti and Coull's interval of `level` [Agresti13]), n.

    Raises
    ------
    ValueError
        A reference that fought nothing in one of the tables.
    """
    fit = fit_bradley_terry(count_pairs(learned), "davidson", prior_strength=1.0)
    expected = win_share(fit.ratings.to_frame().T, fit.tie_parameter, reference).iloc[0]
    met = held_out[(held_out["model_a"] == reference) | (held_out["model_b"] == reference)]
    if met.empty:
        raise ValueError(f"{reference} fought no battle that was held out")
    second = (met["model_a"] == reference).to_numpy()  # the other model is model_b
    score = np.where(second, encode_battles(met).outcome, 2 - encode_battles(met).outcome) / 2
    other = met["model_b"].where(second, met["model_a"]).to_numpy()
    groups = pd.Series(score).groupby(other)
    table = pd.DataFrame({"observed": groups.mean(), "n": groups.size()})
    table = table[(table["n"] > 1) & table.index.isin(expected.index)]
    z2 = norm.ppf((1 + level) / 2) ** 2
    centre = (table["observed"] * table["n"] + z2 / 2) / (table["n"] + z2)
    half = np.sqrt(z2 * centre * (1 - centre) / (table["n"] + z2))
    table = table.assign(
        expected=expected[table.index], low=(centre - half).clip(0), high=(centre + half).clip(upper=1)
    )
    return table.rename_axis("model").reset_index()[["model", "expected", "observed", "low", "high", "n"]]


def group_scores(
    expected: pd.DataFrame, quality: pd.DataFrame, n_groups: int = 10, level: float = 0.95
) -> pd.DataFrame:
    """Mean expected and mean observed score of answers in about equal groups, sorted by the expected score.

    Answers of equal expected score stay together, so there may be fewer groups.

    Parameters
    ----------
    expected, quality : DataFrame, shape (n_prompts, n_models)

    Returns
    -------
    DataFrame
        expected, observed, low, high (normal interval over prompts: the answers to one prompt are not independent), n.

    Raises
    ------
    ValueError
        Tables of other models or length.
    """
    if set(expected.columns) != set(quality.columns) or len(expected) != len(quality):
        raise ValueError(f"expected quality is {expected.shape} and quality {quality.shape}, or of other models")
    said = expected.to_numpy().ravel()
    seen = quality[list(expected.columns)].to_numpy(dtype=float).ravel()
    prompt = np.repeat(np.arange(len(expected)), expected.shape[1])
    z = norm.ppf((1 + level) / 2)
    rows = []
    group_of = pd.qcut(said, n_groups, labels=False, duplicates="drop")
    for number in np.unique(group_of):
        group = np.flatnonzero(group_of == number)
        mean = seen[group].mean()
        sums = np.bincount(prompt[group], seen[group] - mean)  # of each prompt: deviations that go together
        half = z * math.sqrt((sums**2).sum()) / len(group)
        rows.append((said[group].mean(), mean, mean - half, mean + half, len(group)))
    return pd.DataFrame(rows, columns=["expected", "observed", "low", "high", "n"])
