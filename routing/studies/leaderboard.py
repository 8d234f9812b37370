"""Make the tables and figures of notebook 01: the leaderboard, win shares, models of ties, online Elo, tiers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.random import Generator
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from routing.battles import PairCounts, encode_battles
from routing.data.sources import find_files
from routing.data.votes import CLEAN_BATTLES, check_clean_battles
from routing.evaluation.resampling import wilson_interval
from routing.ratings.bradley_terry import ELO_PER_LOG_ODDS, BradleyTerryFit, rating_tiers
from routing.ratings.ties import outcome_probability
from routing.studies.inputs import PAIR
from routing.studies.plotting import plot_heatmaps, plot_lines, plot_points, plot_rows, spell

# bootstrap refits; random orders of rows; of so many of the votes
SIZES = {"smoke": (20, 2, 50_000), "quick": (1000, 5, 1_670_250), "full": (1000, 10, 1_670_250)}
PUBLISHED = CLEAN_BATTLES
GAPS_ELO = [0, 25, 50, 75, 100, 150, 200, 250, 300, 400, np.inf]
METHODS = {"maximum likelihood": {"color": "C0", "marker": "o"}}
METHODS["online Elo, one mark per order of rows"] = {"color": "C1", "marker": "|"}


def online_elo(battles: pd.DataFrame, step_elo: float = 4.0, start_elo: float = 1000.0) -> pd.Series:
    """Return the Elo rating of each model after the battles in the order of their rows [Elo78].

    After each battle both ratings move by ``step_elo * (score - expected score)``, in opposite directions; a tie scores
    one half. The defaults are those of the Chatbot Arena notebook [Chiang24]. Raises as `encode_battles`.
    """
    models, model_a, model_b, outcome = encode_battles(battles)
    elo = [start_elo] * len(models)
    for a, b, score in zip(model_a.tolist(), model_b.tolist(), (1 - outcome / 2).tolist(), strict=True):
        change = step_elo * (score - 1 / (1 + 10 ** ((elo[b] - elo[a]) / 400)))
        elo[a] += change
        elo[b] -= change
    return pd.Series(elo, index=pd.Index(models, name="model"), name="rating_elo")


def check_published_votes(counts: PairCounts) -> str:
    """Say that LMSYS's file of single votes has these counts, or is not here; ValueError where it has others."""
    try:
        (path,) = find_files("clean_battles")
    except FileNotFoundError:
        return "clean_battle_20240814_public.json is not on this machine; the packaged counts are used as they are"
    return check_clean_battles(path, counts, PUBLISHED)


def rank_models(fit: BradleyTerryFit) -> pd.DataFrame:
    """Return rating_elo, low, high (95 %), tier (of ten) and rank by model, strongest first."""
    shift = fit.elo() - ELO_PER_LOG_ODDS * fit.ratings
    table = pd.DataFrame({"rating_elo": fit.elo()}).join((ELO_PER_LOG_ODDS * fit.interval()).add(shift, axis=0))
    table = table.assign(tier=rating_tiers(fit.ratings, 10)).sort_values("rating_elo", ascending=False, kind="stable")
    return table.assign(rank=np.arange(1, len(table) + 1)).rename_axis("model")


def plot_leaderboard(table: pd.DataFrame) -> Figure:
    """Draw the table of `rank_models`; the models of the paper and every sixth are named."""
    paper = table.index.isin(PAIR)
    shown = table.assign(name=np.where(paper | (table["rank"] % 6 == 1), table.index, ""))
    shown = pd.concat([shown[paper], shown[~paper]])  # names that come first keep their place
    title = f"The paper's two models lie {abs(table.loc[list(PAIR), 'rating_elo'].diff().iloc[1]):.0f} Elo points apart"
    return plot_points(shown, "rank", "rating_elo", ("rank", "rating (Elo points, 95 %)"), title, name="name")


def compare_win_shares(counts: PairCounts, fit: BradleyTerryFit) -> pd.DataFrame:
    """Return battles, observed and predicted share that model_a won (a tie: half) of each pair, best models first."""
    order = np.argsort(-fit.ratings.to_numpy(), kind="stable")
    share = (counts.wins + counts.ties / 2) / np.where(counts.battles > 0, counts.battles, np.nan)
    predicted = expit(np.subtract.outer(fit.ratings.to_numpy(), fit.ratings.to_numpy()))
    matrices = {"battles": counts.battles, "observed": share, "predicted": predicted}
    pairs = pd.MultiIndex.from_product([fit.ratings.index[order]] * 2, names=["model_a", "model_b"])
    return pd.DataFrame({name: m[np.ix_(order, order)].ravel() for name, m in matrices.items()}, pairs).reset_index()


def select_busiest(pairs: pd.DataFrame, n_models: int = 25) -> pd.DataFrame:
    """Return the rows of `compare_win_shares` between the models with the most battles."""
    busiest = pairs.groupby("model_a")["battles"].sum().nlargest(n_models).index
    return pairs[pairs["model_a"].isin(busiest) & pairs["model_b"].isin(busiest)].reset_index(drop=True)


def _matrix(pairs: pd.DataFrame, column: str) -> pd.DataFrame:
    names = pairs["model_a"].unique()
    return pairs.pivot(index="model_a", columns="model_b", values=column).loc[names, names]


def plot_battle_counts(pairs: pd.DataFrame) -> Figure:
    """Draw how often each pair met."""
    title = f"Even the {pairs['model_a'].nunique()} busiest models met unevenly"
    return plot_heatmaps({"": _matrix(pairs, "battles")}, "battles", title, cmap="viridis")


def plot_win_shares(pairs: pd.DataFrame) -> Figure:
    """Draw observed and predicted win shares of the row's model."""
    matrices = {name: _matrix(pairs, name) for name in ("observed", "predicted")}
    title = "One rating per model reproduces the win shares of all pairs"
    return plot_heatmaps(matrices, "win share", title, cmap="RdBu", vmin=0.1, vmax=0.9)


def ties_by_gap(counts: PairCounts, fits: Mapping[str, BradleyTerryFit]) -> pd.DataFrame:
    """Return the share of ties by the rating gap of a pair: observed (with Wilson's interval) and of each model.

    Gaps are of the fit "half"; of the models, "drop" stands for a constant share. Columns are ties (which of them),
    battles, gap_elo (mean of the bin), share, low, high.
    """
    first, second = np.nonzero(np.triu(counts.battles))
    battles = counts.battles[first, second]
    gaps = {name: fit.ratings.to_numpy()[first] - fit.ratings.to_numpy()[second] for name, fit in fits.items()}
    gap_elo = np.abs(gaps.pop("half")) * ELO_PER_LOG_ODDS
    sums = {"battles": battles, "gap_elo": gap_elo * battles, "observed": counts.ties[first, second]}
    for name, gap in gaps.items():
        sums[name] = outcome_probability(gap, name, fits[name].tie_parameter)[:, 1] * battles
    table = pd.DataFrame(sums).groupby(pd.cut(gap_elo, GAPS_ELO, include_lowest=True), observed=True).sum()
    means = table.div(table["battles"], axis=0).assign(battles=table["battles"])
    long = means.melt(["battles", "gap_elo"], var_name="ties", value_name="share")
    low, high = wilson_interval(table["observed"], table["battles"])
    return long.join(pd.DataFrame({"low": low, "high": high}))


def plot_ties(table: pd.DataFrame, fits: Mapping[str, BradleyTerryFit]) -> Figure:
    """Draw the shares of `ties_by_gap`."""
    best = max(fits, key=lambda name: fits[name].log_likelihood)
    title = f"Ties get rarer as models differ; the {spell(best)} model predicts them best"
    styles = {"observed": {"color": "black", "marker": "o", "linestyle": "none"}}
    shown, labels = table.replace({"ties": {"drop": "constant share"}}), ("rating gap (Elo points)", "share of ties")
    return plot_lines(shown, "gap_elo", "share", labels, title, by="ties", styles=styles)


def plot_dropped_ties(table: pd.DataFrame) -> Figure:
    """Draw ratings with ties as half wins (column half) against those without ties (column drop), in Elo points."""
    title = f"Without ties ratings spread {np.polyfit(table['half'], table['drop'], 1)[0]:.2f} times as far"
    labels = ("ties as half wins (Elo points)", "ties dropped (Elo points)")
    return plot_points(table, "half", "drop", labels, title, equal=True)


def plot_errors(table: pd.DataFrame) -> Figure:
    """Draw standard errors in Elo points: the closed form's (column sandwich) against the bootstrap's."""
    ratio = (table["bootstrap"] / table["sandwich"]).median()
    title = f"Resampling gives {ratio:.2f} times the standard error of the closed form (median)"
    labels = ("closed-form standard error (Elo points)", "bootstrap standard error (Elo points)")
    return plot_points(table, "sandwich", "bootstrap", labels, title, equal=True)


def fit_by_regression(counts: PairCounts) -> pd.Series:
    """Return ratings (log-odds, mean 0) by scikit-learn's logistic regression; a tie is half a win for each.

    There is one weighted row per pair and outcome: for comparison with `fit_bradley_terry`.
    """
    wins = counts.wins + counts.ties / 2
    first, second = np.nonzero(wins)
    design = np.eye(len(wins))[first] - np.eye(len(wins))[second]
    labels = np.repeat([1, 0], len(first))
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, solver="newton-cg")
    model.fit(np.concatenate([design, -design]), labels, sample_weight=np.tile(wins[first, second], 2))
    return pd.Series(model.coef_[0] - model.coef_[0].mean(), index=counts.models)


def compare_orders(votes: pd.DataFrame, ranked: pd.DataFrame, n_orders: int, rng: Generator) -> pd.DataFrame:
    """Return name, method, estimate, low, high (Elo points): as `ranked` by `rank_models`, and online Elo.

    Online Elo sees the rows in random orders, and has the mean of `ranked`.
    """
    likelihood, online = METHODS
    parts = [ranked.assign(method=likelihood)]
    for _ in range(n_orders):
        elo = online_elo(votes.iloc[rng.permutation(len(votes))], start_elo=ranked["rating_elo"].mean())
        parts.append(elo.to_frame().assign(method=online))
    table = pd.concat(parts).rename_axis("name").rename(columns={"rating_elo": "estimate"})
    return table.reset_index()[["name", "method", "estimate", "low", "high"]]


def plot_orders(table: pd.DataFrame) -> Figure:
    """Draw about 15 of the models of `compare_orders`, from the strongest to the weakest."""
    online = table[table["low"].isna()].groupby("name")["estimate"]
    title = f"The order of rows alone moves online Elo by {(online.max() - online.min()).median():.0f} points"
    names = table["name"].unique()
    shown = table[table["name"].isin(names[:: max(1, len(names) // 15)])].assign(text="")
    return plot_rows(shown, "rating (Elo points, 95 %)", title, group="method", styles=METHODS)


def plot_tiers(table: pd.DataFrame) -> Figure:
    """Draw mean and range of the ratings in each tier of `rank_models`, and name its best model."""
    tiers = table.reset_index().groupby("tier")
    shown = tiers["rating_elo"].agg(estimate="mean", low="min", high="max")
    shown["text"] = [f"{len(part)} models, best {part['model'].iloc[0]}" for _, part in tiers]
    shown["name"] = [f"tier {tier}" for tier in shown.index]
    title = "Ten tiers: " + " and ".join(f"{model} in tier {table['tier'][model]}" for model in PAIR)
    return plot_rows(shown, "rating (Elo points): mean and range", title)
