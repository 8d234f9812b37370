"""Extrapolate how well effects of prompts are predicted, and say what that allows a router: notebook 10."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from routing.data.benchmarks import BenchmarkTable
from routing.evaluation.resampling import bootstrap_fits
from routing.studies.cross_validation import assign_folds
from routing.studies.inputs import PAIR
from routing.studies.paper import read_paper_tables
from routing.studies.plotting import plot_lines, plot_rows
from routing.studies.transfer.matrix import N_FOLDS, Learner, Texts, learn_ridge
from routing.studies.transfer.sources import Encode, Source, correlation

HALVES = np.logspace(0, 7, 141)  # prompts at which a saturating curve's square is half of its limit
PAPER_BATTLES = (65_000, 109_000)  # people's, and the published ones of the judge
NEEDED, REACHED = "needed for the paper's best APGR", "reached here, the best cell"
FARTHEST = 30  # curves are drawn up to so many times the prompts that were learned from
GRID = np.unique([*np.logspace(np.log10(50), np.log10(PAPER_BATTLES[1]), 40).round(), *PAPER_BATTLES])


def fit_saturating(sizes: np.ndarray, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Fit ``c sqrt(n / (n + h))``, 0 <= c <= 1, by least squares, and return it at `grid` [Daetwyler08].

    So grows the correlation of a linear predictor whose many coefficients are estimated from n noisy values.
    """
    basis = np.sqrt(sizes / (sizes + HALVES[:, None]))  # (n_halves, n_sizes)
    limit = np.clip(basis @ values / (basis**2).sum(axis=1), 0, 1)
    best = ((values - limit[:, None] * basis) ** 2).sum(axis=1).argmin()
    return limit[best] * np.sqrt(grid / (grid + HALVES[best]))


def fit_logarithmic(sizes: np.ndarray, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Fit ``a + b log(n)`` by least squares, and return it at `grid`, in [-1, 1]: growth that never slows down.

    NaN from a single size, which has no slope.
    """
    if len(sizes) == 1:
        return np.full(len(grid), np.nan)
    centre = np.log(sizes).mean()
    apart = np.log(sizes) - centre
    return np.clip(values.mean() + apart @ values / (apart @ apart) * (np.log(grid) - centre), -1, 1)


FORMS = {"saturating": fit_saturating, "logarithmic": fit_logarithmic}


def learning_curve(
    source: Source, encode: Encode, seed: int, n_resamples: int, learn: Learner = learn_ridge, n_fits: int = 5
) -> pd.DataFrame:
    """Correlate predicted with observed effects by five folds, learning from more and more prompts of the others.

    Prompts are 50, 100, ... to all. Both `FORMS` are fitted to the correlations, in each resample anew, so their
    intervals at any number cover test prompts and training, but not that neither form may hold. The columns are form
    ("measured", or that of a curve), n (prompts learned from), estimate, low, high (95 %).
    """
    texts, observed = Texts.of([source], encode), source.effects.to_numpy()
    number = texts.index.get_indexer(source.battles["prompt"])
    most = len(observed) * (N_FOLDS - 1) // N_FOLDS
    sizes = 50 * 2 ** np.arange(20)
    sizes = np.append(sizes[sizes < 0.75 * most], most)
    predicted = np.empty((n_fits, len(sizes), len(observed)))
    for fit in range(n_fits):
        rng = np.random.default_rng([seed, fit, 6])
        folds, order = assign_folds(texts.key, N_FOLDS, rng), rng.permutation(len(observed))
        for inside in (folds == fold for fold in range(N_FOLDS)):
            others = order[~inside[order]]
            for place, size in enumerate(sizes):
                rows = np.flatnonzero(np.isin(number, others[:size]))
                values = learn(source.learn_from(rows), texts.vectors[number[rows]], fit)(texts.vectors[inside])
                predicted[fit, place, inside] = values - values.mean()

    def measure(counts: np.ndarray, fit: int) -> np.ndarray:
        return np.array([correlation(row, observed, counts) for row in predicted[fit]])

    def extend(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, *(form(sizes, values, grid) for form in FORMS.values())])

    rng, grid = np.random.default_rng([seed, 7]), GRID[GRID <= FARTHEST * most]
    mean, (low, high, _) = bootstrap_fits(measure, n_fits, len(observed), n_resamples, rng, then=extend)
    form = np.repeat(["measured", *FORMS], [len(sizes), *[len(grid)] * len(FORMS)])
    n = np.concatenate([sizes, *[grid] * len(FORMS)]).astype(int)
    return pd.DataFrame({"form": form, "n": n, "estimate": mean, "low": low, "high": high})


def plot_learning_curves(curves: pd.DataFrame) -> Figure:
    """Draw the curves of `learning_curve`, one panel per column source."""
    far = curves[(curves["form"] != "measured") & (curves["n"] == PAPER_BATTLES[0])]
    measured = curves.loc[curves["form"] == "measured", "estimate"]
    title = f"Learned from more prompts, the correlation rises to {measured.max():.2f}"
    if len(far):
        title = f"Extrapolated to 65,000 prompts, correlations stay below {far['high'].max():.2f}"
    labels = ("prompts learned from", "correlation (95 %)")
    styles = {
        "measured": {"color": "black", "marker": "o", "linestyle": ""},
        "saturating": {"color": "C0", "marker": "", "linestyle": "-"},
        "logarithmic": {"color": "C1", "marker": "", "linestyle": "--"},
    }
    return plot_lines(curves, "n", "estimate", labels, title, by="form", panel="source", styles=styles, log_x=True)


def area_of_correlation(correlations: float | np.ndarray, gap: np.ndarray) -> float | np.ndarray:
    """Return APGR where the ranks of a router's margins have a correlation with the score gap, (n_prompts,).

    ``1/2 + r s / (sqrt(12) m)`` with the gap's mean m and standard deviation s: an identity, as the area under a sum
    in the order of ranks is a covariance with them.
    """
    return 0.5 + correlations * np.std(gap) / (np.sqrt(12) * np.mean(gap))


def needed_correlations(
    matrix: pd.DataFrame, curves: pd.DataFrame, benchmarks: Mapping[str, BenchmarkTable], source: str, ceiling: float
) -> pd.DataFrame:
    """Compare what the paper's best APGR needs with what is reached on each of its benchmarks.

    Reached is the best of all learners and sources in the matrix, so a generous number. Extrapolated is what prompts of
    `source` themselves allow with 65,000 of them, divided by its noise `ceiling`, as if its effects were observed
    without noise: generous too. The columns are name (benchmark), value, estimate, low, high.
    """
    paper = read_paper_tables()
    best = paper[paper["strong"] == PAIR[0]].groupby("benchmark")["apgr"].max()
    own = curves[(curves["source"] == source) & (curves["n"] == PAPER_BATTLES[0])].set_index("form")
    rows = []
    for name, apgr in best.items():
        quality = benchmarks[name].quality
        full = area_of_correlation(1.0, (quality[PAIR[0]] - quality[PAIR[1]]).to_numpy())
        cells = matrix[matrix["tested_on"] == name]
        reached = cells.loc[cells["estimate"].idxmax()]
        rows.append((name, NEEDED, (apgr - 0.5) / (full - 0.5), np.nan, np.nan))
        rows.append((name, REACHED, *reached[["estimate", "low", "high"]]))
        for form in FORMS:
            rows.append(
                (
                    name,
                    f"within {source}, 65,000 prompts ({form})",
                    *own.loc[form, ["estimate", "low", "high"]] / ceiling,
                )
            )
    return pd.DataFrame(rows, columns=["name", "value", "estimate", "low", "high"])


def plot_needed(table: pd.DataFrame) -> Figure:
    """Draw the table of `needed_correlations`."""
    wide = table.pivot(index="name", columns="value")
    short = wide["high", REACHED] < wide["estimate", NEEDED]
    title = f"On {short.sum()} of {len(short)} benchmarks the best transfer is significantly below the paper's need"
    return plot_rows(table, "correlation with the score gap (95 %)", title, reference=0.0, group="value")
