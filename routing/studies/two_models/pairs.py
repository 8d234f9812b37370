"""Rebuild the paper's tables: routers between a strong and a weak model, from each training set, on each benchmark.

What a router says about a benchmark is its *margin*: the rating of the strong model minus that of the weak one on each
prompt. Everything in the tables follows from margins and from the quality of the two models' answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.random import Generator
from scipy.stats import norm

from routing.battles import number_texts
from routing.data.benchmarks import BenchmarkTable
from routing.data.votes import read_mt_bench_judgements
from routing.embeddings import PromptEncoder
from routing.evaluation.call_curve import METRICS, bootstrap_metrics, call_curve, oracle_scores, random_apgr_range
from routing.routers.base import RandomRouter, Router
from routing.routers.factorization import MatrixFactorizationRouter
from routing.routers.similarity import SimilarityRouter
from routing.studies.inputs import PAIR, Study, TrainingSets, title_name
from routing.studies.mixtures import CHOSEN, CHOSEN_GAMMA, CHOSEN_TIERS, MIXTURES, N_BATTLES, draw_mixture
from routing.studies.paper import PAPER_SIMILARITY, PUBLISHED_SETS, calls_cost_usd, match_paper
from routing.studies.plotting import ROUTER_STYLES, plot_heatmaps, plot_lines, plot_rows, spell
from routing.studies.routers import LEARNING_RATES
from routing.studies.transfer.matrix import learn_ridge
from routing.studies.transfer.sources import GPT_4, source_of_battles

PRIOR = 0.1  # so weak that only a model without a win is held; the paper drops none of its 64
COMMERCIAL_ROUTERS = ("martian", "unify")  # graded on MT-Bench by RouteLLM like models
EARLIER_PAIR = ("claude-3-opus-20240229", "Meta-Llama-3-8B-Instruct-Normal")  # as the MT-Bench grades name them
RESAMPLES = {"smoke": 50, "quick": 400, "full": 1000}
N_REFITS = {"smoke": 2, "quick": 0, "full": 5}  # of the routers on embeddings, for intervals that cover training
JUDGE_AGREEMENT = (0.62, 0.84)  # lowest and highest of Arena-Bench's models, as the collection of its scores says
FLAT_MARGIN = 0.01  # log-odds: a smaller standard deviation over prompts can gain no more than 1e-5 nats per battle
LEVELS = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)  # shares of the gap whose cost is shown


class Key(NamedTuple):
    """What a margin belongs to."""

    training_data: str
    router: str
    benchmark: str


Margins = Mapping[Key, np.ndarray]
Benchmarks = Mapping[str, BenchmarkTable]


def embedding_routers(profile: str, seed: int, training_data: str = "arena") -> dict[str, Router]:
    """Return the paper's two routers on embeddings with the paper's settings, not fitted.

    With judged battles similarity weighting has the gamma and tiers that `routing.studies.mixtures` chose.
    Matrix factorization keeps its last epoch, as there: stopped early, it often stays at the leaderboard (notebook 04).
    """
    training = {"n_epochs": 2 if profile == "smoke" else 10, "learning_rate": LEARNING_RATES[profile], "n_seeds": 1}
    factorization = MatrixFactorizationRouter(prior_strength=PRIOR, early_stopping=False, seed=seed, **training)
    judged = {"gamma": CHOSEN_GAMMA, "n_tiers": CHOSEN_TIERS} if training_data in ("arena+judge", "all") else {}
    similarity = SimilarityRouter(**{"gamma": 10.0, "prior_strength": PRIOR} | judged)
    return {"similarity_weighting": similarity, "matrix_factorization": factorization}


def fit_embedding_routers(
    profile: str, seed: int, sets: TrainingSets, encoder: PromptEncoder
) -> dict[tuple[str, str], Router]:
    """Return `embedding_routers` fitted to each training set, by the set's name and the router's."""
    fitted = {}
    for training_data, battles in sets.battles.items():
        vectors = encoder.encode(battles["prompt"].tolist())
        for name, router in embedding_routers(profile, seed, training_data).items():
            fitted[training_data, name] = router.fit(battles, vectors)
    return fitted


def embedding_margins(
    fitted: Mapping[tuple[str, str], Router], benchmarks: Benchmarks, encoder: PromptEncoder
) -> dict[Key, np.ndarray]:
    """Return the margins of `fit_embedding_routers` on each benchmark: (n_prompts,)."""
    margins = {}
    for benchmark, table in benchmarks.items():
        prompts = encoder.encode(table.prompts["prompt"].tolist())
        margins |= {Key(*name, benchmark): router.margin(prompts, *PAIR) for name, router in fitted.items()}
    return margins


def refit_margins(
    profile: str, seed: int, sets: TrainingSets, benchmarks: Benchmarks, encoder: PromptEncoder
) -> list[dict[Key, np.ndarray]]:
    """Return margins as `embedding_margins`, `N_REFITS` times, of routers that learn from other draws of prompts.

    Each time training prompts are drawn with replacement, with all their battles, and seeds differ. Of the sets with
    judged battles, which take minutes, there is similarity weighting alone, on the benchmarks that the paper shows
    with them.
    """
    refits = []
    for refit in range(1, N_REFITS[profile] + 1):
        margins: dict[Key, np.ndarray] = {}
        for training_data, battles in sets.battles.items():
            large = training_data in ("arena+judge", "all")
            shown = {name: table for name, table in benchmarks.items() if PUBLISHED_SETS.get(name) == training_data}
            if tested := shown if large else benchmarks:
                drawn = _resample_prompts(battles, np.random.default_rng([seed, refit, 7]))
                vectors = encoder.encode(drawn["prompt"].tolist())
                routers = embedding_routers(profile, seed + 1000 * refit, training_data)
                fitted = {(training_data, name): router.fit(drawn, vectors) for name, router in routers.items()
                          if not (large and name == "matrix_factorization")}  # fmt: skip
                margins |= embedding_margins(fitted, tested, encoder)
        refits.append(margins)
    return refits


def _resample_prompts(battles: pd.DataFrame, rng: Generator) -> pd.DataFrame:
    """Return the battles of as many prompts as there are, drawn with replacement."""
    number = number_texts(battles["prompt"].to_numpy())[1]
    times = np.bincount(rng.integers(number.max() + 1, size=number.max() + 1), minlength=number.max() + 1)
    return battles.iloc[np.repeat(np.arange(len(battles)), times[number])].reset_index(drop=True)


def pair_quality(table: BenchmarkTable) -> tuple[np.ndarray, np.ndarray]:
    """Return the quality of the answers of the strong and of the weak model of `PAIR`: two arrays, (n_prompts,)."""
    strong, weak = PAIR
    return table.quality[strong].to_numpy(), table.quality[weak].to_numpy()


def limits_table(benchmarks: Benchmarks, n_routers: int, rng: Generator) -> pd.DataFrame:
    """Return what routers are compared with on each benchmark: both qualities, oracle, 95 % range of random routers."""
    rows = []
    for name, table in benchmarks.items():
        quality = pair_quality(table)
        oracle, (low, high) = call_curve(oracle_scores(*quality), *quality), random_apgr_range(*quality, n_routers, rng)
        both = {"strong": oracle.quality_strong, "weak": oracle.quality_weak}
        reached = {"oracle_apgr": oracle.apgr(), "oracle_cpt50": oracle.cpt(0.5)}
        random = {"random_low": low, "random_high": high}
        rows.append({"benchmark": name, "prompts": len(table.quality), **both, **reached, **random})
    return pd.DataFrame(rows).set_index("benchmark")


def noise_ceiling(table: BenchmarkTable, agreements: Sequence[float] = JUDGE_AGREEMENT) -> pd.DataFrame:
    """Return the APGR at which a router that knows the true scores of `PAIR` would be measured, given a noisy judge.

    `agreements` are shares of prompts on which two judgements of one answer, in whole points, differ by at most one.
    With normal noise their difference then has the deviation 1.5 / z((1 + agreement) / 2), and so has the noise in the
    gap between two answers. If the true gaps are distributed as the observed ones, but narrower, then
    ceiling = 1/2 + (oracle_apgr - 1/2) sqrt(reliability), with reliability = 1 - noise_sd^2 / var(gap), and the oracle
    the one that knows the observed scores. ValueError: more noise than there is variance.
    """
    quality = pair_quality(table)
    noise_sd = 1.5 / norm.ppf((1 + np.asarray(agreements)) / 2)
    reliability = 1 - noise_sd**2 / np.var(quality[0] - quality[1])
    if (reliability < 0).any():
        raise ValueError(f"two judgements that agree on {min(agreements):.0%} vary more than the gaps; check the table")
    oracle = call_curve(oracle_scores(*quality), *quality).apgr()
    ceiling = 0.5 + (oracle - 0.5) * np.sqrt(reliability)
    columns = {"agreement": agreements, "noise_sd": noise_sd, "reliability": reliability}
    return pd.DataFrame({**columns, "oracle_apgr": oracle, "ceiling": ceiling})


def evaluate_margins(
    margins: Margins, sets: TrainingSets, benchmarks: Benchmarks, n_resamples: int, rng: Generator,
    metrics: Mapping[object, Callable[..., float]] = METRICS, baselines: bool = False, refits: Sequence[Margins] = (),
) -> pd.DataFrame:  # fmt: skip
    """Return `bootstrap_metrics` of every margin on the prompts that its training set leaves, and what it belongs to.

    Routers of one training set and benchmark are resampled together: differences are paired. `baselines` adds "random"
    in expectation and the "oracle". Column flat: whether the router says nearly the same of every prompt, as the
    leaderboard does; column covers: what the interval is over, "prompts and training" for routers of `refits`.
    """
    tables = []
    for data, benchmark in dict.fromkeys((key.training_data, key.benchmark) for key in margins):
        kept = sets.evaluated[data][benchmark]
        quality = [values[kept] for values in pair_quality(benchmarks[benchmark])]
        scores = {key.router: margin[kept] for key, margin in margins.items() if (key[0], key[2]) == (data, benchmark)}
        if baselines:
            scores = {"random": np.zeros(kept.sum()), **scores, "oracle": oracle_scores(*quality)}
        again = [{key.router: margin[kept] for key, margin in refit.items() if (key[0], key[2]) == (data, benchmark)}
                 for refit in refits]  # fmt: skip
        table = bootstrap_metrics(scores, *quality, n_resamples, rng, metrics=metrics, refits=again)
        shares = table["metric"].astype(str).str.startswith("cpt")
        table.loc[shares, ["low", "high"]] = table.loc[shares, ["low", "high"]].clip(0, 1)
        trained = table["router"].isin(again[0] if again else ())
        table["covers"] = np.where(trained, "prompts and training", "prompts")
        flat = [name for name, score in scores.items() if name != "random" and np.std(score) < FLAT_MARGIN]
        tables.append(table.assign(training_data=data, benchmark=benchmark, flat=table["router"].isin(flat)))
    return pd.concat(tables, ignore_index=True)


def curve_table(
    margins: Margins, sets: TrainingSets, benchmarks: Benchmarks, n_resamples: int, rng: Generator,
    shares: np.ndarray, refits: Sequence[Margins] = (),
) -> pd.DataFrame:  # fmt: skip
    """Return call-performance curves: strong_share, estimate, low, high (quality), pgr (of the estimate).

    A band is that of the recovered gap, drawn between the two models' quality on all prompts, and cut at the oracle.
    """
    metrics = {share: lambda curve, share=share: float(curve.pgr(share)) for share in shares}
    table = evaluate_margins(margins, sets, benchmarks, n_resamples, rng, metrics, baselines=True, refits=refits)
    table = table.rename(columns={"metric": "strong_share"}).drop(columns="n_excluded").assign(pgr=table["estimate"])
    columns = ["estimate", "low", "high"]
    for (data, benchmark), rows in table.groupby(["training_data", "benchmark"]).groups.items():
        kept = sets.evaluated[data][benchmark]
        strong, weak = (values[kept].mean() for values in pair_quality(benchmarks[benchmark]))
        part = weak + table.loc[rows, columns] * (strong - weak)
        best = part.loc[table.loc[rows, "router"] == "oracle", "estimate"]  # by share, as each router's rows
        table.loc[rows, columns] = part.assign(high=np.minimum(part["high"], np.resize(best, len(part))))
    return table


def cost_table(
    margins: Margins, sets: TrainingSets, benchmarks: Benchmarks, n_resamples: int, rng: Generator,
    levels: Sequence[float] = LEVELS,
) -> pd.DataFrame:  # fmt: skip
    """Return what recovering a share of the gap (pgr) costs at the paper's prices, of "random" routing too.

    Columns are strong_share (the CPT at that level), low, high, usd_per_1000, usd_low, usd_high (per 1,000 calls), and
    saving: the share of strong calls of random routing over the router's, the paper's cost-saving ratio.
    """
    metrics = {level: lambda curve, level=level: curve.cpt(level) for level in levels}
    table = evaluate_margins(margins, sets, benchmarks, n_resamples, rng, metrics, baselines=True)
    table = table[table["router"] != "oracle"].drop(columns="n_excluded")
    table = table.rename(columns={"metric": "pgr", "estimate": "strong_share"})
    for share, usd in (("strong_share", "usd_per_1000"), ("low", "usd_low"), ("high", "usd_high")):
        table[usd] = 1000 * calls_cost_usd(table[share].to_numpy())
    return table.assign(saving=table["pgr"] / table["strong_share"]).reset_index(drop=True)


def similarity_table(sets: TrainingSets, benchmarks: Benchmarks, encoder: PromptEncoder) -> pd.DataFrame:
    """Return how similar a benchmark's prompts are to those of each training set: the mean of each highest cosine.

    Prompts trained on are left out. Columns are benchmark, training_data, similarity, battles, paper (may be missing).
    """
    known = {name: encoder.encode(table["prompt"].unique().tolist()) for name, table in sets.battles.items()}
    rows = []
    for benchmark, table in benchmarks.items():
        queries = encoder.encode(table.prompts["prompt"].tolist())
        for name, vectors in known.items():
            kept = queries[sets.evaluated[name][benchmark]]
            blocks = np.split(kept, range(1024, len(kept), 1024))
            highest = np.concatenate([(block @ vectors.T).max(axis=1) for block in blocks])
            rows.append((benchmark, name, float(highest.mean()), len(sets.battles[name])))
    table = pd.DataFrame(rows, columns=["benchmark", "training_data", "similarity", "battles"])
    return table.merge(PAPER_SIMILARITY, how="left", on=["benchmark", "training_data"])


def category_table(margins: Margins, table: BenchmarkTable) -> pd.DataFrame:
    """Return the mean score_gap of `PAIR` on MT-Bench and the mean margin of each router trained on votes.

    Indexed by category, the largest gap first.
    """
    trained = {key.router: margin for key, margin in margins.items() if (key[0], key[2]) == ("arena", "MT-Bench")}
    gap = table.quality[PAIR[0]] - table.quality[PAIR[1]]
    means = pd.DataFrame({"score_gap": gap, **trained}).groupby(table.prompts["category"].array).mean()
    return means.rename_axis("category").sort_values("score_gap", ascending=False)


def compare_rules(study: Study, seed: int) -> pd.DataFrame:
    """Return APGR and CPT50 of random routing and the oracle by the rules of the paper's text and RouteLLM's code."""
    rows = []
    for name, table in study.benchmarks.items():
        quality = pair_quality(table)
        drawn = RandomRouter(seed).fit(study.battles).margin(table.prompts["prompt"].tolist(), *PAIR)
        scores = {"random, in expectation": 0 * drawn, "one random router": drawn, "oracle": oracle_scores(*quality)}
        for router, score in scores.items():
            curve = call_curve(score, *quality)
            areas = {f"apgr_{rule}": curve.apgr(rule) for rule in ("exact", "trapezoid", "mean_of_ten")}
            shares = {f"cpt50_{rule}": curve.cpt(0.5, rule) for rule in ("smallest", "routellm")}
            rows.append({"benchmark": name, "router": router, **areas, **shares})
    return pd.DataFrame(rows)


def mixture_areas(
    sources: pd.DataFrame, benchmarks: Benchmarks, encoder: PromptEncoder, n_resamples: int, rng: Generator,
    n_draws: int = 1, n_battles: int = N_BATTLES,
) -> pd.DataFrame:  # fmt: skip
    """Return APGR of similarity weighting (gamma 10, ten tiers) trained on each of `MIXTURES`: everything tried.

    Also of ridge regression of a battle's score on the prompt's vector, learned from `CHOSEN`, as in notebook 10.
    `sources` as `load_sources` gives them. For reporting alone: the choice was made before these figures were looked
    at. Columns are mixture, benchmark, estimate (of the first draw), low, high (95 %: prompts, and several draws).
    """
    queries = {name: encoder.encode(table.prompts["prompt"].tolist()) for name, table in benchmarks.items()}
    draws: list[dict[str, dict[str, np.ndarray]]] = [{name: {} for name in benchmarks} for _ in range(n_draws)]
    for (name, mixture), draw in product(MIXTURES.items(), draws):
        battles = draw_mixture(sources, mixture, n_battles, rng).reset_index(drop=True)
        router = SimilarityRouter(10.0, 10, PRIOR).fit(battles, encoder.encode(battles["prompt"].tolist()))
        for benchmark, vectors in queries.items():
            if set(PAIR) <= set(router.models):
                draw[benchmark][name] = router.margin(vectors, *PAIR)
        if name == CHOSEN:
            source = source_of_battles(battles, GPT_4, largest=(n_battles, n_battles))
            predict = learn_ridge(source, encoder.encode(source.battles["prompt"].tolist()), 0)
            for benchmark, vectors in queries.items():
                draw[benchmark][f"{name}, ridge"] = predict(vectors)
    tables = []
    for benchmark, table in benchmarks.items():
        every = [draw[benchmark] for draw in draws]
        metrics = bootstrap_metrics(
            every[0], *pair_quality(table), n_resamples, rng, refits=every if n_draws > 1 else ()
        )
        tables.append(metrics[metrics["metric"] == "apgr"].assign(benchmark=benchmark))
    return pd.concat(tables, ignore_index=True).rename(columns={"router": "mixture"}).drop(columns="metric")


def plot_mixture_areas(table: pd.DataFrame) -> Figure:
    """Draw the table of `mixture_areas`, one panel per benchmark."""
    n_better = (table["low"] > 0.5).sum()
    title = f"{n_better} of {len(table)} have a 95 % CI above random routing"
    label = "APGR (95 % CI; random: 0.5)"
    return plot_rows(table.rename(columns={"mixture": "name"}), label, title, reference=0.5, panel="benchmark")


def pick_published(margins: Margins) -> dict[Key, np.ndarray]:
    """Return the margins that the paper's figures show: one training set per benchmark ("arena+gold" for others)."""
    return {key: margin for key, margin in margins.items() if key[0] == PUBLISHED_SETS.get(key.benchmark, "arena+gold")}


def earlier_pair(margins: Margins, table: BenchmarkTable, n_resamples: int, rng: Generator) -> pd.DataFrame:
    """Route Claude 3 Opus and Llama 3 8B, the other pair of the paper's first versions, by margins for `PAIR`.

    Their quality is GPT-4's mean grade of both turns, in the first repository that has all. Columns are training_data,
    router, metric (as the paper measures), estimate, low, high, paper (may be missing).
    """
    grades = read_mt_bench_judgements()
    grades = grades[grades["public_model"] & (grades["judge"] == "gpt-4") & grades["model"].isin(EARLIER_PAIR)]
    scores = grades.groupby(["model", "repository", "question_id"])["score"].agg(["mean", "size"])
    scores = scores.loc[scores["size"] == 2, "mean"].unstack().reindex(columns=table.prompts["question_id"]).dropna()
    quality = scores.groupby(level="model").first().loc[list(EARLIER_PAIR)].to_numpy()
    names = {f"{key[0]}/{key[1]}": margin for key, margin in margins.items() if key.benchmark == "MT-Bench"}
    ours = bootstrap_metrics(names, *quality, n_resamples, rng)
    ours[["training_data", "router"]] = ours["router"].str.split("/", expand=True)
    both = match_paper(ours.assign(benchmark="MT-Bench"), "claude-3-opus", "llama-3-8b")
    return both[["training_data", "router", "metric", "estimate", "low", "high", "paper"]]


def commercial_points(scores: Mapping[str, np.ndarray], table: BenchmarkTable) -> pd.DataFrame:
    """Return at which strong_share each router first has the score of a commercial one; missing where it never has."""
    grades = read_mt_bench_judgements()
    graded = grades[grades["question_id"].isin(table.prompts["question_id"])].groupby(["model", "question_id"])
    means = graded["score"].mean().groupby("model").mean()  # one lacks a turn; that question counts with the other
    rows = []
    for (name, wanted), (router, score) in product(means[list(COMMERCIAL_ROUTERS)].items(), scores.items()):
        curve = call_curve(score, *pair_quality(table))
        level = (wanted - curve.quality_weak) / (curve.quality_strong - curve.quality_weak)
        reached = level <= curve.recovered.max()
        rows.append((name, wanted, router, curve.cpt(max(level, 0.0)) if reached else np.nan))
    return pd.DataFrame(rows, columns=["commercial", "score", "router", "strong_share"])


OURS, PAPER = "here", "the paper"
FLAT = "equals the leaderboard"
GREY = {"color": "0.7", "marker": "o", "linestyle": ":"}
SOURCES = {
    OURS: {"color": "C0", "marker": "o"},
    FLAT: GREY,
    PAPER: {"color": "0.15", "marker": "D", "markerfacecolor": "none"},
}
LINES = {name: {**style, "marker": ""} for name, style in ROUTER_STYLES.items()}
LINES |= {f"{name}: {FLAT}": {**GREY, "marker": ""} for name in ROUTER_STYLES}


def _name_flat(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with routers that equal the leaderboard named so."""
    return table.assign(router=table["router"].where(~table["flat"], table["router"] + f": {FLAT}"))


def plot_paper_and_ours(table: pd.DataFrame, random_ranges: Mapping[str, tuple[float, float]]) -> Figure:
    """Draw APGR of the paper and here, one row per training set and router; grey: the range of one random router."""
    flat = table["flat"] if "flat" in table else pd.Series(False, index=table.index)
    name = table["training_data"] + ": " + table["router"].map(spell)
    shown = table.assign(name=name, source=np.where(flat, FLAT, OURS))
    printed = shown.dropna(subset="paper")
    title = f"{((table['low'] > 0.5) & ~flat).sum()} of {(~flat).sum()} routers have a 95 % CI above random routing"
    if len(printed):
        n_inside = printed["paper"].between(printed["low"], printed["high"]).sum()
        title = f"{n_inside} of {len(printed)} APGRs of the paper are inside the interval found here"
        shown = pd.concat([shown, printed.assign(source=PAPER, estimate=printed["paper"], low=np.nan, high=np.nan)])
    label = "APGR (11-point trapezoid, 95 % CI)"
    figure = plot_rows(shown, label, title, reference=0.5, group="source", panel="benchmark", styles=SOURCES)
    for axis, name in zip(figure.axes, table["benchmark"].unique(), strict=True):
        if name in random_ranges:
            axis.axvspan(*random_ranges[name], color="0.92", zorder=0)
    return figure


def conclude(areas: pd.DataFrame) -> str:
    """Return in one sentence which APGRs of `evaluate_margins` differ significantly from random order.

    That is where an interval over prompts and training excludes 0.5; others are not counted.
    """
    tested = areas[(areas["covers"] == "prompts and training") & ~areas["flat"]]
    counts = (tested["low"] > 0.5).sum(), (tested["high"] < 0.5).sum()
    return (
        f"Of {len(tested)} APGRs with intervals over prompts and training, {counts[0]} are significantly better than"
        f" random order and {counts[1]} significantly worse."
    )


def plot_categories(table: pd.DataFrame) -> Figure:
    """Draw score gap and margins by category, as `category_table`; each column is coloured by its ranks."""
    gap, *routers = table.columns
    agreement = table.corr("spearman")[gap]
    names = ["score gap\n(points of 10)", *(f"{spell(name)}\ncorrelation {agreement[name]:.2f}" for name in routers)]
    n_against = (agreement[routers] < 0).sum()
    title = f"{n_against} of {len(routers)} routers trained on votes rank categories against the judge"
    scale = {"annot": table, "fmt": ".3f", "cmap": "viridis", "xticklabels": names, "linewidths": 0.5}
    return plot_heatmaps({"": table.rank()}, "rank among the categories", title, **scale)


def _draw_curves(table: pd.DataFrame, title: str, **settings: object) -> Figure:
    shown = _name_flat(table).assign(calls=100 * table["strong_share"])
    shown.loc[shown["router"].isin(["random", "oracle"]), ["low", "high"]] = np.nan
    labels = ("calls to the strong model (%)", "mean score (1-10)")
    return plot_lines(shown, "calls", "estimate", labels, title, by="router", styles=LINES, **settings)


def plot_call_curves(table: pd.DataFrame) -> Figure:
    """Draw the table of `curve_table`, one panel per benchmark."""
    trained = table[~table["router"].isin(["random", "oracle"]) & ~table["flat"]]
    areas = trained.groupby(["benchmark", "router"])["pgr"].mean()  # of equally spaced shares
    benchmark, router = areas.idxmax()
    most = f"{areas.max():.0%} of the gap on average, the most of all routers"
    title = f"On {title_name(benchmark)}, {spell(router)} recovers {most}"
    panels = table["benchmark"] + ", trained on " + table["training_data"]
    figure = _draw_curves(table.assign(panel=panels), title, panel="panel")
    for axis, name in zip(figure.axes, table["benchmark"].unique(), strict=True):
        axis.set_ylabel("mean score (1-10)" if name in ("MT-Bench", "Arena-Bench") else "right answers (share)")
    return figure


def plot_costs(table: pd.DataFrame) -> Figure:
    """Draw dollars per 1,000 calls against the share of the gap recovered, one panel per benchmark, as `cost_table`."""
    shown = _name_flat(table).assign(gap=100 * table["pgr"], low=table["usd_low"], high=table["usd_high"])
    saving = table.loc[table["pgr"] == 0.5, "saving"].max()
    title = f"To recover half of the gap, random routing needs up to {saving:.2f} times the strong calls of a router"
    labels = ("gap recovered (%)", "dollars per 1,000 calls")
    styles = {name: style for name, style in LINES.items() if name.endswith(FLAT)}
    return plot_lines(shown, "gap", "usd_per_1000", labels, title, by="router", panel="benchmark", styles=styles)


def plot_commercial(curves: pd.DataFrame, points: pd.DataFrame) -> Figure:
    """Draw where call-performance curves of MT-Bench reach the scores of commercial routers, as `commercial_points`."""
    lowest = points.loc[points["strong_share"].idxmin()]
    router, commercial = spell(lowest["router"]), lowest["commercial"]
    title = f"Routing by {router} reaches the score of {commercial} with {lowest['strong_share']:.0%} strong calls"
    wanted = points.groupby("commercial")["score"].first()
    figure = _draw_curves(curves, title, reference={f"{name}: {score:.2f}": score for name, score in wanted.items()})
    for row in points.dropna().itertuples():
        style = {"marker": "D", "color": "black", **ROUTER_STYLES.get(row.router, {}), "linestyle": ""}
        figure.axes[0].plot(100 * row.strong_share, row.score, **style, zorder=3)
    return figure
