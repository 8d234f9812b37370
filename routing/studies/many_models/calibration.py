"""Compare expected qualities with what was observed on held-out prompts."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import norm

from routing.battles import count_pairs, encode_battles
from routing.data.benchmarks import BenchmarkTable
from routing.embeddings import PromptEncoder
from routing.evaluation.resampling import wilson_interval
from routing.policy.quality import QualityMap, win_share
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.routers.similarity import SimilarityRouter
from routing.studies.cross_validation import assign_folds
from routing.studies.inputs import RoutingTask
from routing.studies.plotting import plot_lines, plot_points


def compare_win_shares(
    learned: pd.DataFrame, held_out: pd.DataFrame, reference: str, level: float = 0.95
) -> pd.DataFrame:
    """Return the expected win share of every model over a reference, from some battles, and the observed in others.

    Parameters
    ----------
    learned, held_out : DataFrame
        Battles; the ratings are Bradley-Terry's on the first (with a prior of strength 1), whoever met.
    reference : str
        Of the held-out battles, those of this model count.

    Returns
    -------
    DataFrame
        One row per model that met the reference at least twice: model, expected, observed (a tie is half), low, high
        (`wilson_interval`), n.

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
    low, high = wilson_interval(table["observed"] * table["n"], table["n"], level)
    table = table.assign(expected=expected[table.index], low=low, high=high)
    return table.rename_axis("model").reset_index()[["model", "expected", "observed", "low", "high", "n"]]


def group_scores(
    expected: pd.DataFrame, quality: pd.DataFrame, n_groups: int = 10, level: float = 0.95
) -> pd.DataFrame:
    """Return mean expected and mean observed score of answers in about equal groups, sorted by the expected score.

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


def map_ratings(task: RoutingTask, encoder: PromptEncoder, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.Series]:
    """Turn ratings into scores by three ways, and compare them on the test prompts.

    A router is trained on battles on half of the training prompts, the maps on the scores of the other half.

    Returns
    -------
    table : DataFrame
        way ("logistic", "isotonic", "win share, not mapped"), and the columns of `group_scores`.
    error : Series of way to float
        Mean squared error of the expected score.
    """
    half = assign_folds(task.train.prompts["prompt"].to_numpy(), 2, rng)
    learn, mapped = task.train.select(half == 0), task.train.select(half == 1)
    battles = pd.concat([learn.battles(a, b) for a in learn.models for b in learn.models if a < b])
    router = SimilarityRouter(n_tiers=None, prior_strength=1.0, encoder=encoder).fit(battles)

    def rate(part: BenchmarkTable) -> pd.DataFrame:
        return pd.DataFrame(router.ratings(part.prompts["prompt"].tolist()), columns=list(router.models))

    rated, queried = rate(mapped), rate(task.test)
    ways = {kind: QualityMap(kind).fit(rated, mapped.quality).predict(queried) for kind in ("logistic", "isotonic")}
    ways["win share, not mapped"] = win_share(queried, router.nu)
    truth = task.test.quality[list(router.models)]
    table = pd.concat({way: group_scores(values, truth) for way, values in ways.items()}, names=["way"])
    error = {way: float(((values.to_numpy() - truth.to_numpy()) ** 2).mean()) for way, values in ways.items()}
    return table.reset_index(level=0), pd.Series(error)


def plot_win_shares(table: pd.DataFrame, reference: str) -> Figure:
    """Draw expected against observed win shares on held-out prompts; `table` as `compare_win_shares`."""
    miss = (table["expected"] - table["observed"]).abs()
    title = f"Win shares of {len(table)} models over {reference} are off by {miss.mean():.3f} on held-out prompts"
    labels = (f"expected win share over {reference}", "observed on held-out prompts (95 %)")
    shown = table.assign(name=table["model"].where(miss >= miss.nlargest(2).min(), ""))
    return plot_points(shown, "expected", "observed", labels, title, name="name", equal=True)


def plot_quality_maps(table: pd.DataFrame, error: pd.Series) -> Figure:
    """Draw expected against observed mean score, one line per way to expect it; tables as `map_ratings`."""
    title = f"Calibration cuts the squared error from {error['win share, not mapped']:.3f} to {error['logistic']:.3f}"
    figure = plot_lines(
        table, "expected", "observed", ("expected score", "observed mean score (95 %)"), title, by="way"
    )
    figure.axes[0].axline((0.5, 0.5), slope=1, color="0.7", zorder=0)
    return figure
