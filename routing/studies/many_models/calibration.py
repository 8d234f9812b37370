"""Compare expected qualities with what was observed on held-out prompts."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.random import Generator
from scipy.stats import norm

from routing.battles import count_pairs, encode_battles, swap_battles
from routing.data.benchmarks import BenchmarkTable
from routing.embeddings import PromptEncoder
from routing.evaluation.resampling import wilson_interval
from routing.policy.quality import QualityMap, win_share
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.routers.similarity import SimilarityRouter
from routing.studies.cross_validation import assign_folds
from routing.studies.inputs import RoutingTask
from routing.studies.many_models.regression import align_scores
from routing.studies.plotting import plot_lines, plot_points


def compare_win_shares(learned: pd.DataFrame, held_out: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return the expected win share of every model over a reference, from some battles, and the observed in others.

    The ratings are Bradley-Terry's with a prior of strength 1, whoever met. One row per model that met the reference
    at least twice: model, expected, observed (a tie is half), low, high (95 %, `wilson_interval`), n. A reference
    without a held-out battle raises a ValueError.
    """
    fit = fit_bradley_terry(count_pairs(learned), "davidson", prior_strength=1.0)
    expected = win_share(fit.ratings.to_frame().T, fit.tie_parameter, reference).iloc[0]
    met = held_out[(held_out["model_a"] == reference) | (held_out["model_b"] == reference)]
    if met.empty:
        raise ValueError(f"{reference} fought no battle that was held out")
    met = swap_battles(met, (met["model_b"] == reference).to_numpy())  # the other one is model_b
    groups = pd.Series(encode_battles(met).outcome / 2).groupby(met["model_b"].to_numpy())
    table = pd.DataFrame({"observed": groups.mean(), "n": groups.size()})
    table = table[(table["n"] > 1) & table.index.isin(expected.index)]
    low, high = wilson_interval(table["observed"] * table["n"], table["n"])
    table = table.assign(expected=expected[table.index], low=low, high=high)
    return table.rename_axis("model").reset_index()[["model", "expected", "observed", "low", "high", "n"]]


def group_scores(expected: pd.DataFrame, quality: pd.DataFrame, n_groups: int = 10) -> pd.DataFrame:
    """Return mean expected and mean observed score of answers in about equal groups, sorted by the expected score.

    Both tables are (n_prompts, n_models). Answers of equal expected score stay together, so there may be fewer groups.
    The columns are expected, observed, low, high (95 % normal interval over prompts, as the answers to one prompt are
    not independent), n. Raises as `align_scores`.
    """
    tables = align_scores(expected, quality)
    said, seen = (table.ravel() for table in tables)
    prompt = np.indices(tables[0].shape)[0].ravel()
    group_of = pd.qcut(said, n_groups, labels=False, duplicates="drop")
    rows = []
    for number in np.unique(group_of):
        group = group_of == number
        mean = seen[group].mean()
        sums = np.bincount(prompt[group], seen[group] - mean)  # of each prompt: deviations that go together
        half = norm.ppf(0.975) * math.sqrt((sums**2).sum()) / group.sum()
        rows.append((said[group].mean(), mean, mean - half, mean + half, group.sum()))
    return pd.DataFrame(rows, columns=["expected", "observed", "low", "high", "n"])


def map_ratings(task: RoutingTask, encoder: PromptEncoder, rng: Generator) -> tuple[pd.DataFrame, pd.Series]:
    """Turn ratings into scores by three ways, and compare them on the test prompts.

    A router is trained on battles on half of the training prompts, the maps on the scores of the other half. Returns
    the columns of `group_scores` with way ("logistic", "isotonic", "win share, not mapped"), and the mean squared error
    of the expected score by way.
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
    labels = ("expected score", "observed mean score (95 %)")
    figure = plot_lines(table, "expected", "observed", labels, title, by="way")
    figure.axes[0].axline((0.5, 0.5), slope=1, color="0.7", zorder=0)
    return figure
