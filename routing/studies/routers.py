"""Make the tables and figures of notebooks 03 and 04: similarity weighting and matrix factorization."""

from __future__ import annotations

import textwrap
import timeit
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from routing.battles import encode_battles
from routing.evaluation.calibration import compare_log_loss, outcome_log_loss
from routing.ratings.bradley_terry import ELO_PER_LOG_ODDS
from routing.routers.base import BradleyTerryRouter
from routing.routers.factorization import MatrixFactorizationRouter
from routing.routers.similarity import SimilarityRouter
from routing.studies.inputs import Study
from routing.studies.plotting import plot_lines, plot_points, plot_rows

LEADERBOARD = "Bradley-Terry"  # the router without prompts that the others are compared with
VERDICTS = {1: "significantly beats", 0: "does not significantly differ from", -1: "is significantly worse than"}
GAMMAS = {"smoke": (10, 1_000), "quick": (10, 100, 1_000, 10_000), "full": (10, 100, 1_000, 10_000)}
EPOCHS = {"smoke": 2, "quick": 10, "full": 10}  # ten is the paper's number
LEARNING_RATES = {"smoke": 3e-3, "quick": 3e-3, "full": 3e-4}  # the paper's; more on the fewer simulated battles


def compare_on_held_out(study: Study, predicted: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return `compare_log_loss` of predictions for held-out battles: estimate is the gain over the leaderboard.

    `predicted` has P(a wins), P(tie), P(b wins) by name, (n_battles, 3); the truth is added where it is simulated.
    """
    every = {LEADERBOARD: BradleyTerryRouter().fit(study.battles).battle_probability(study.held_out), **predicted}
    if study.arena is not None:
        pairs = study.held_out["model_a"].tolist(), study.held_out["model_b"].tolist()
        every["the truth"] = study.arena.outcome_probability(study.held_out_prompts, *pairs)
    table = compare_log_loss(every, encode_battles(study.held_out).outcome, LEADERBOARD)
    return table.rename(columns={"gain": "estimate"})


def plot_gains(losses: pd.DataFrame, router: str) -> Figure:
    """Draw the gains of `compare_on_held_out`; the title is about the row `router`."""
    row = losses.set_index("name").loc[router]
    verdict = VERDICTS[int(row["low"] > 0) - int(row["high"] < 0)]
    title = f"On held-out prompts {router} {verdict} the leaderboard"
    shown = losses[losses["name"] != LEADERBOARD]
    return plot_rows(shown, "gain over the leaderboard (nats per battle, 95 %)", title, reference=0.0)


def find_neighbours(
    router: SimilarityRouter, encode: Callable[[list[str]], np.ndarray], prompts: Sequence[str], n: int = 5
) -> pd.DataFrame:
    """Return prompt, neighbour, weight of the `n` battles' prompts that weigh most, and the median_weight of all."""
    rows = []
    for prompt, weights in zip(prompts, router.weights(encode(list(prompts))), strict=True):
        nearest = pd.Series(weights, index=router.battle_prompts).groupby(level=0).first().nlargest(n)
        rows += [(prompt, neighbour, weight, np.median(weights)) for neighbour, weight in nearest.items()]
    return pd.DataFrame(rows, columns=["prompt", "neighbour", "weight", "median_weight"])


def plot_neighbours(table: pd.DataFrame) -> Figure:
    """Draw the weights of `find_neighbours`, below each prompt those of its neighbours."""
    rows = []
    for number, (prompt, part) in enumerate(table.groupby("prompt", sort=False)):
        rows.append((f"for: {textwrap.shorten(prompt, 60, placeholder=' …')}", np.nan))
        for neighbour, weight in zip(part["neighbour"], part["weight"], strict=True):  # spaces keep equal texts apart
            rows.append((textwrap.shorten(neighbour, 60, placeholder=" …") + number * " ", weight))
    title = f"Next to the most similar prompt the median battle still weighs {table['median_weight'].median():.2f}"
    shown = pd.DataFrame(rows, columns=["name", "estimate"])
    return plot_rows(shown, "weight in the fit (most similar prompt: 1)", title)


def count_effective_battles(
    battles: pd.DataFrame, vectors: np.ndarray, queries: np.ndarray, n_tiers: int
) -> pd.DataFrame:
    """Return the effective number of battles by gamma: median, low and high (80 % of queries), share of all."""
    rows = []
    for gamma in (1, 10, 100, 1_000, 10_000, 100_000):
        counted = SimilarityRouter(gamma, n_tiers).fit(battles, vectors).effective_battles(queries)
        rows.append((gamma, *np.quantile(counted, [0.5, 0.1, 0.9]), np.median(counted) / len(battles)))
    return pd.DataFrame(rows, columns=["gamma", "median", "low", "high", "share"])


def plot_effective_battles(table: pd.DataFrame) -> Figure:
    """Draw the table of `count_effective_battles`."""
    title = f"At γ = 10 the fit of a prompt still uses {table.set_index('gamma')['share'][10]:.0%} of all battles"
    labels = ("γ, the base of the weights", "effective battles (median, 80 % of prompts)")
    return plot_lines(table, "gamma", "median", labels, title, log_x=True)


def search_settings(
    battles: pd.DataFrame, vectors: np.ndarray, validation: np.ndarray, n_tiers: int, gammas: Sequence[int]
) -> pd.DataFrame:
    """Return the log-loss of similarity weighting on the rows `validation`, by gamma, tiers (0: none) and prior."""
    outcome = encode_battles(battles[validation]).outcome
    rows = []
    for tiers, prior in ((n_tiers, 0.0), (n_tiers, 1.0), (None, 1.0), (None, 10.0)):
        setting = f"{f'{tiers} tiers' if tiers else 'all models'}, prior {prior:g}"
        for gamma in gammas:
            router = SimilarityRouter(float(gamma), tiers, prior).fit(battles[~validation], vectors[~validation])
            loss = outcome_log_loss(router.battle_probability(battles[validation], vectors[validation]), outcome)
            rows.append((setting, gamma, tiers or 0, prior, loss.mean))
    return pd.DataFrame(rows, columns=["setting", "gamma", "tiers", "prior", "log_loss"])


def plot_settings(grid: pd.DataFrame) -> Figure:
    """Draw the table of `search_settings`."""
    best = grid.loc[grid["log_loss"].idxmin()]
    title = f"Validation prefers γ = {best['gamma']:,} with {best['setting']}"
    labels = ("γ, the base of the weights", "validation log-loss (nats per battle)")
    return plot_lines(grid, "gamma", "log_loss", labels, title, by="setting", log_x=True)


def plot_categories(scores: pd.DataFrame) -> Figure:
    """Draw predicted and observed scores of `score_by_kind`."""
    agreement = scores[["predicted", "observed"]].corr(method="spearman").iloc[0, 1]
    title = f"Predicted and observed scores of categories have a rank correlation of {agreement:.2f}"
    parts = {"predicted from battles": scores[["group"]].assign(estimate=scores["predicted"])}
    observed = scores[["group", "observed", "low", "high"]].rename(columns={"observed": "estimate"})
    parts["observed on the benchmark, 95 %"] = observed
    shown = pd.concat(parts, names=["value"]).reset_index("value").rename(columns={"group": "name"})
    return plot_rows(shown, "score of the strong model against the weak one (a tie is half)", title, group="value")


def time_batches(rate: Callable[[np.ndarray], object], vectors: np.ndarray) -> pd.DataFrame:
    """Return prompts_per_s (median of five), low and high (slowest and fastest) of `rate` by batch size."""
    rows = []
    for size in (1, 16, 64, 256):
        batch = np.resize(vectors, (size, vectors.shape[1]))
        seconds = timeit.repeat(partial(rate, batch), number=1, repeat=5)
        rows.append((size, *(size / np.quantile(seconds, [0.5, 1, 0]))))
    return pd.DataFrame(rows, columns=["batch", "prompts_per_s", "low", "high"])


def plot_batches(table: pd.DataFrame) -> Figure:
    """Draw the table of `time_batches`."""
    title = f"Batches of {table['batch'].iloc[-1]} rate {table['prompts_per_s'].iloc[-1]:,.0f} prompts per second"
    return plot_lines(table, "batch", "prompts_per_s", ("prompts in a batch", "prompts per second"), title, log_x=True)


def plot_learning_curve(curve: pd.DataFrame) -> Figure:
    """Draw a router's ``learning_curve``: mean and range over seeds of training and validation loss."""
    losses = curve.rename(columns={"held_out": "validation"})
    losses = losses.melt(["seed", "epoch"], ["training", "validation"], "part")
    table = losses.groupby(["part", "epoch"], sort=False)["value"].agg(loss="mean", low="min", high="max").reset_index()
    validation = table[table["part"] == "validation"].set_index("epoch")["loss"]
    best = validation.idxmin()
    title = f"Validation loss is lowest after {best} epochs" if best else "Validation loss rises from the first epoch"
    labels = ("epoch (0: the leaderboard)", "log-loss (nats per battle; band: all seeds)")
    return plot_lines(table, "epoch", "loss", labels, title, by="part")


def map_models(router: MatrixFactorizationRouter, vectors: np.ndarray) -> pd.DataFrame:
    """Return model, first, second (components that prompts change), rating_elo, explained (share), farthest first."""
    form = router.prompt_product - router.prompt_product.mean(axis=1, keepdims=True)
    _, strength, right = np.linalg.svd(form * vectors.std(axis=0)[:, None], full_matrices=False)
    mean_rating = router.ratings(vectors).mean(axis=0) * ELO_PER_LOG_ODDS
    table = pd.DataFrame({"model": router.models, "first": right[0] * strength[0], "second": right[1] * strength[1]})
    table = table.assign(rating_elo=mean_rating, explained=(strength[:2] ** 2).sum() / (strength**2).sum())
    return table.loc[(table["first"] ** 2 + table["second"] ** 2).sort_values(ascending=False).index]


def plot_model_map(table: pd.DataFrame) -> Figure:
    """Draw the table of `map_models`; the models farthest out are named."""
    title = f"Two components explain {table['explained'].iloc[0]:.0%} of the prompt-dependent variance"
    labels, color = ("first component", "second component"), ("rating_elo", "mean rating (Elo points)")
    return plot_points(table, "first", "second", labels, title, name="model", color=color)


def plot_calibration(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw predicted against observed frequency: the `calibration_table` of each router, by name in `ROUTER_STYLES`."""
    table = pd.concat(tables, names=["router", ""]).reset_index("router")
    table = table.rename(columns={"observed_low": "low", "observed_high": "high"})
    agree = table["predicted"].between(table["low"], table["high"]).mean()
    labels = ("predicted probability that model a wins", "observed share (95 %)")
    title = f"{agree:.0%} of the bins agree with what was observed"
    figure = plot_lines(table, "predicted", "observed", labels, title, by="router")
    figure.axes[0].plot([0, 1], [0, 1], color="0.7", zorder=0)
    return figure
