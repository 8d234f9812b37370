"""Make the tables and figures of notebooks 03 and 04: similarity weighting and matrix factorization."""

from __future__ import annotations

import textwrap
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.random import Generator

from routing.battles import encode_battles, number_texts
from routing.embeddings import PromptEncoder, unit_rows
from routing.evaluation.calibration import compare_log_loss, outcome_log_loss
from routing.evaluation.resampling import bootstrap_fits
from routing.ratings.bradley_terry import ELO_PER_LOG_ODDS
from routing.routers.base import BradleyTerryRouter, EmbeddingRouter, Router
from routing.routers.factorization import MatrixFactorizationRouter
from routing.routers.similarity import SimilarityRouter
from routing.studies.inputs import Study
from routing.studies.plotting import plot_lines, plot_points, plot_rows
from routing.studies.transfer.encoders import static_encoder

LEADERBOARD = "Bradley-Terry"  # the router without prompts that the others are compared with
PROMPTS, TRAINING = "95 % CI over prompts", "95 % CI over prompts and training"
VERDICTS = {
    PROMPTS: {1: "does better than", 0: "does not clearly differ from", -1: "does worse than"},
    TRAINING: {1: "significantly beats", 0: "does not significantly differ from", -1: "is significantly worse than"},
}
N_REFITS = {"smoke": 2, "quick": 0, "full": 5}  # on resampled battles, for intervals over training
N_RESAMPLES = 1_000  # of prompts
GAMMAS = {"smoke": (10, 1_000), "quick": (10, 100, 1_000, 10_000), "full": (10, 100, 1_000, 10_000)}
WIDTHS = {"smoke": (32, 384), "quick": (32, 96, 192, 384), "full": (32, 96, 192, 384)}
EPOCHS = {"smoke": 2, "quick": 10, "full": 10}  # ten is the paper's number
LEARNING_RATES = {"smoke": 3e-3, "quick": 3e-3, "full": 3e-4}  # the paper's; more on the fewer simulated battles


class Contender(NamedTuple):
    """A router fitted to the battles of a study, and the vectors of those and of the held-out battles."""

    router: Router
    vectors: np.ndarray  # (n_battles, width)
    held_out_vectors: np.ndarray  # (n_held_out, width)

    def predict(self, study: Study) -> np.ndarray:
        """Return P(a wins), P(tie), P(b wins) of the held-out battles: (n_held_out, 3)."""
        return self.router.battle_probability(study.held_out, self.held_out_vectors)


def _add_references(study: Study, predicted: Mapping[str, np.ndarray], battles: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return predictions of the leaderboard fitted to `battles`, those given, and, where it is simulated, the truth."""
    every = {LEADERBOARD: BradleyTerryRouter().fit(battles).battle_probability(study.held_out), **predicted}
    if study.arena is not None:
        pairs = study.held_out["model_a"].tolist(), study.held_out["model_b"].tolist()
        every["the truth"] = study.arena.outcome_probability(study.held_out_prompts, *pairs)
    return every


def compare_on_held_out(
    study: Study, predicted: Mapping[str, np.ndarray], refitted: pd.DataFrame | None = None, seed: int = 0
) -> pd.DataFrame:
    """Return `compare_log_loss` of predictions for held-out battles: estimate is the gain over the leaderboard.

    `predicted` has P(a wins), P(tie), P(b wins) by name, (n_battles, 3); the truth is added where it is simulated.
    low and high (95 %) are of resampled prompts and, given `refitted` by `refit_gains`, of training too, as column
    covers says. Gains that only rounding errors make are 0. KeyError for a name that `refitted` lacks.
    """
    every, outcome = _add_references(study, predicted, study.battles), encode_battles(study.held_out).outcome
    table = compare_log_loss(every, outcome, LEADERBOARD).rename(columns={"gain": "estimate"})
    logs = np.log([probability[np.arange(len(outcome)), outcome] for probability in every.values()])
    _, prompt = number_texts(study.held_out["prompt"])
    gains = np.apply_along_axis(lambda gain: np.bincount(prompt, gain), 1, logs - logs[0]).T  # (n_prompts, n_names)
    n_battles = np.bincount(prompt)
    shifts = np.zeros((2, len(table)))  # the same twice: no training
    if refitted is not None:
        shifts = (refitted - refitted.mean())[table["name"].tolist()].to_numpy()
    _, (low, high, _) = bootstrap_fits(
        lambda counts, fit: counts @ gains / (counts @ n_battles) + shifts[fit],
        len(shifts), len(gains), N_RESAMPLES, np.random.default_rng([seed, 9]),
    )  # fmt: skip
    table = table.assign(low=low, high=high, covers=PROMPTS if refitted is None else TRAINING)
    return table.assign(**{name: table[name].round(9) + 0.0 for name in ("estimate", "low", "high")})


def refit_gains(study: Study, contenders: Mapping[str, Contender], n_fits: int, rng: Generator) -> pd.DataFrame:
    """Return the mean gain of each router over the leaderboard, both refitted to battles of resampled prompts.

    One row per fit, one column per name, with the leaderboard (0) and, where it is simulated, the truth. All are
    refitted to the same draws; one that lacks a model of the study is drawn again.
    """
    _, prompt = number_texts(study.battles["prompt"])
    n_prompts, outcome = prompt.max() + 1, encode_battles(study.held_out).outcome
    models = set(study.battles[["model_a", "model_b"]].to_numpy().ravel())
    gains = []
    while len(gains) < n_fits:
        counts = np.bincount(rng.integers(n_prompts, size=n_prompts), minlength=n_prompts)
        rows = np.repeat(np.arange(len(prompt)), counts[prompt])
        battles = study.battles.iloc[rows].reset_index(drop=True)
        if set(battles[["model_a", "model_b"]].to_numpy().ravel()) < models:
            continue
        predicted = {}
        for name, (router, vectors, held_out_vectors) in contenders.items():
            again = replace(router).fit(battles, vectors[rows])
            predicted[name] = again.battle_probability(study.held_out, held_out_vectors)
        table = compare_log_loss(_add_references(study, predicted, battles), outcome, LEADERBOARD)
        gains.append(table.set_index("name")["gain"])
    return pd.DataFrame(gains).reset_index(drop=True)


def compare_contenders(study: Study, contenders: Mapping[str, Contender], n_fits: int, seed: int) -> pd.DataFrame:
    """Return `compare_on_held_out` of fitted routers, with intervals over prompts and training from `n_fits` refits.

    Without refits the intervals are over prompts alone.
    """
    refitted = refit_gains(study, contenders, n_fits, np.random.default_rng([seed, 10])) if n_fits else None
    return compare_on_held_out(study, {name: c.predict(study) for name, c in contenders.items()}, refitted, seed)


def _judge_gain(losses: pd.DataFrame, router: str) -> tuple[pd.Series, str]:
    row = losses.set_index("name").loc[router]
    verdict = VERDICTS[row["covers"]][int(row["low"] > 0) - int(row["high"] < 0)]
    return row, f"On held-out prompts {router} {verdict} the leaderboard"


def describe_gain(losses: pd.DataFrame, router: str) -> str:
    """Say in a sentence what `compare_on_held_out` found on the row `router`."""
    row, finding = _judge_gain(losses, router)
    interval = f"{row['covers']} {row['low']:+.4f} to {row['high']:+.4f}"
    return f"{finding}: its gain is {row['estimate']:+.4f} nats per battle ({interval})."


def plot_gains(losses: pd.DataFrame, router: str) -> Figure:
    """Draw the gains of `compare_on_held_out`; the title is about the row `router`, the label says what is covered."""
    _, title = _judge_gain(losses, router)
    return _draw_gains(losses[losses["name"] != LEADERBOARD], title)


def _draw_gains(losses: pd.DataFrame, title: str) -> Figure:
    label = f"gain over the leaderboard (nats per battle)\n{losses['covers'].iloc[0]}"
    shown = losses.assign(text=losses["estimate"].map("{:+.4f}".format))
    return plot_rows(shown, label, title, reference=0.0)


def embed_study(study: Study, profile: str) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], str]:
    """Return vectors of a study's battles and of those held out, by encoder, and what is skipped or missing."""
    encoders, missing = {"MiniLM": PromptEncoder()}, "skipped in this profile: a static encoder"
    if profile != "smoke":
        try:
            encoders["static encoder (wordllama)"], missing = static_encoder(), ""
        except ModuleNotFoundError:
            missing = "skipped, as the package wordllama is not installed: a static encoder"
    texts = study.battles["prompt"].tolist(), study.held_out["prompt"].tolist()
    return {name: tuple(map(encoder.encode, texts)) for name, encoder in encoders.items()}, missing


def project_vectors(vectors: np.ndarray, others: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both sets of unit vectors in the first `width` principal components of `vectors`, again of length 1.

    Components are not centred: those keep cosines best, and all of them change none.
    """
    _, axes = np.linalg.eigh(vectors.T.astype(float) @ vectors)  # the largest come last
    axes = axes[:, ::-1][:, :width]
    return unit_rows(vectors @ axes), unit_rows(others @ axes)


def compare_widths(
    study: Study, embeddings: Mapping[str, tuple[np.ndarray, np.ndarray]], router: EmbeddingRouter, profile: str,
    seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Compare one router on embeddings of several widths, as `compare_contenders`, with the column width.

    `embeddings` are vectors of the battles and of those held out, by the encoder's name; of the first encoder also
    their projections to `WIDTHS`.
    """
    first, (vectors, others) = next(iter(embeddings.items()))
    full = vectors.shape[1]
    every = {
        f"{first}, {width} of {full} components": project_vectors(vectors, others, width)
        for width in WIDTHS[profile]
        if width < full
    }
    every |= {f"{name}, all {parts[0].shape[1]} numbers": parts for name, parts in embeddings.items()}
    contenders = {name: Contender(replace(router).fit(study.battles, v), v, o) for name, (v, o) in every.items()}
    table = compare_contenders(study, contenders, N_REFITS[profile], seed)
    table["width"] = [contenders[name].vectors.shape[1] if name in contenders else 0 for name in table["name"]]
    return table[table["width"] > 0].reset_index(drop=True)


def plot_widths(table: pd.DataFrame) -> Figure:
    """Draw the gains of `compare_widths`."""
    change, least, most = np.ptp(table["estimate"]), table["width"].min(), table["width"].max()
    title = f"From {least} to {most} numbers per prompt, the gain changes by at most {change:.4f} nats per battle"
    return _draw_gains(table, title)


def weigh_by_hand() -> tuple[pd.DataFrame, float]:
    """Return the weights of three battles for a prompt, and P(a beats b), by `SimilarityRouter` in two dimensions.

    The prompt's vector is (1, 0). Columns are prompt, winner, cosine, weight (as a share of the largest).
    """
    vectors, query = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), np.array([[1.0, 0.0]])
    battles = pd.DataFrame({"model_a": "a", "model_b": "b", "prompt": ["same", "similar", "unrelated"]})
    battles["winner"] = ["model_a", "model_b", "model_a"]
    router = SimilarityRouter(gamma=10.0, n_tiers=None, ties="half").fit(battles, vectors)
    weights = pd.Series(router.weights(query)[0], index=router.battle_prompts)
    table = battles[["prompt", "winner"]].assign(cosine=vectors @ query[0], weight=battles["prompt"].map(weights))
    return table, float(router.win_probability(query, "a", "b")[0])


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
    rows: dict[str, float] = {}
    for prompt, part in table.groupby("prompt", sort=False):
        texts = {f"for: {prompt}": np.nan} | dict(zip(part["neighbour"], part["weight"], strict=True))
        for text, weight in texts.items():
            name = textwrap.shorten(text, 60, placeholder=" …")
            while name in rows:  # spaces keep texts apart that begin alike
                name += " "
            rows[name] = weight
    title = f"Next to the most similar prompt the median battle still weighs {table['median_weight'].median():.2f}"
    shown = pd.DataFrame({"name": list(rows), "estimate": list(rows.values())})
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
    """Draw predicted and observed scores of `score_by_category`."""
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
    epochs = f"{best} epoch{'s' * (best > 1)}"
    title = f"Validation loss is lowest after {epochs}" if best else "Validation loss rises from the first epoch"
    labels = ("epoch (0: the leaderboard)", "log-loss (nats per battle; band: all seeds)")
    return plot_lines(table, "epoch", "loss", labels, title, by="part")


def multiply_by_hand(w: np.ndarray, v: np.ndarray, matrix: np.ndarray) -> MatrixFactorizationRouter:
    """Return a router of models 1, 2, ... with these parameters, w (d,), v (M, d), W (d, width), and b = 0."""
    router = MatrixFactorizationRouter(dimension=len(w))
    router.models, router.nu = tuple(f"model {number}" for number in range(1, len(v) + 1)), 0.0
    router.prompt_product, router.constant_ratings = matrix.T @ (w * v).T, np.zeros(len(v))
    return router


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
    figure = plot_lines(table, "predicted", "observed", labels, title, by="router", panel="router")
    for axis in figure.axes:
        axis.plot([0, 1], [0, 1], color="0.7", zorder=0)
    return figure
