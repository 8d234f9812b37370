"""The paper's tables: routers between a strong and a weak model, learned from each training set, on each benchmark.

What a router says of a benchmark is its *lead*: the rating of the strong model less that of the weak one on each
prompt. Everything in the tables follows from leads and from the quality of the two models' answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from routing.data.benchmarks import BenchmarkTable
from routing.data.votes import read_mt_bench_judgements
from routing.embeddings import PromptEncoder
from routing.evaluation.call_curve import METRICS, CallCurve, bootstrap_metrics, call_curve, oracle_scores
from routing.routers.base import Router
from routing.routers.factorization import MatrixFactorizationRouter
from routing.routers.similarity import SimilarityRouter
from routing.studies.inputs import PAIR
from routing.studies.paper import PUBLISHED_SETS, calls_cost_usd, read_paper_tables
from routing.studies.training_sets import TrainingSets

PRIOR = 0.1  # so little that only a model without a win is held; the paper drops none of its 64
COMMERCIAL_ROUTERS = ("martian", "unify")  # graded on MT-Bench by RouteLLM like models
EARLIER_PAIR = ("claude-3-opus-20240229", "Meta-Llama-3-8B-Instruct-Normal")  # as the MT-Bench grades name them
RATES = {"full": 3e-4}  # of matrix factorization: the paper's, on as many battles; elsewhere ten times as much


class Key(NamedTuple):
    """What a lead belongs to."""

    training_data: str
    router: str
    benchmark: str


Leads = Mapping[Key, np.ndarray]


def embedding_routers(profile: str, seed: int) -> dict[str, Router]:
    """The paper's two routers on embeddings with the paper's settings, not yet fitted.

    Matrix factorization keeps its last epoch, as there. Stopped early, it often stays at the leaderboard on real
    battles (notebook 04), which says the same of every prompt and so routes none.
    """
    factorization = MatrixFactorizationRouter(
        learning_rate=RATES.get(profile, 3e-3),
        n_epochs=2 if profile == "smoke" else 10,
        n_seeds=1,
        early_stopping=False,
        prior_strength=PRIOR,
        seed=seed,
    )
    return {
        "similarity_weighting": SimilarityRouter(gamma=10.0, prior_strength=PRIOR),
        "matrix_factorization": factorization,
    }


def embedding_leads(
    profile: str, seed: int, sets: TrainingSets, benchmarks: Mapping[str, BenchmarkTable], encoder: PromptEncoder
) -> dict[Key, np.ndarray]:
    """Leads of `embedding_routers`, learned from each training set, on each benchmark."""
    queries = {name: encoder.encode(table.prompts["prompt"].tolist()) for name, table in benchmarks.items()}
    leads = {}
    for training_data, battles in sets.battles.items():
        vectors = encoder.encode(battles["prompt"].tolist())
        for name, router in embedding_routers(profile, seed).items():
            router.fit(battles, vectors)
            for benchmark, prompts in queries.items():
                leads[Key(training_data, name, benchmark)] = router.margin(prompts, *PAIR)
    return leads


def pair_quality(table: BenchmarkTable) -> tuple[np.ndarray, np.ndarray]:
    """Quality of the answers of the strong and of the weak model of `PAIR`: two arrays, (n_prompts,)."""
    strong, weak = PAIR
    return table.quality[strong].to_numpy(), table.quality[weak].to_numpy()


def evaluate_leads(
    leads: Leads,
    sets: TrainingSets,
    benchmarks: Mapping[str, BenchmarkTable],
    n_resamples: int,
    rng: np.random.Generator,
    metrics: Mapping = METRICS,
    baselines: bool = False,
) -> pd.DataFrame:
    """Metrics of every lead with intervals over the prompts that its training set leaves to evaluate.

    Routers of one training set and benchmark are resampled together, so that their differences are paired.

    Parameters
    ----------
    metrics : mapping of name to function
        As in `bootstrap_metrics`.
    baselines : bool
        Add "random" in expectation and the "oracle" to each training set and benchmark.

    Returns
    -------
    DataFrame with columns training_data, benchmark, and those of `bootstrap_metrics`
    """
    tables = []
    for training_data, benchmark in dict.fromkeys((key.training_data, key.benchmark) for key in leads):
        kept = sets.evaluated[training_data][benchmark]
        quality = [values[kept] for values in pair_quality(benchmarks[benchmark])]
        here = (training_data, benchmark)
        scores = {key.router: lead[kept] for key, lead in leads.items() if (key.training_data, key.benchmark) == here}
        if baselines:
            scores = {"random": np.zeros(kept.sum()), **scores, "oracle": oracle_scores(*quality)}
        table = bootstrap_metrics(scores, *quality, n_resamples, rng, metrics=metrics)
        tables.append(table.assign(training_data=training_data, benchmark=benchmark))
    return pd.concat(tables, ignore_index=True)


def curve_table(
    leads: Leads,
    sets: TrainingSets,
    benchmarks: Mapping[str, BenchmarkTable],
    n_resamples: int,
    rng: np.random.Generator,
    shares: np.ndarray,
) -> pd.DataFrame:
    """Call-performance curves with bands: quality at each share of calls to the strong model.

    A band is that of the recovered gap, drawn between the two models' quality on all prompts: what a resample does to
    the models themselves is not in it.

    Returns
    -------
    DataFrame
        training_data, benchmark, router, strong_share, estimate, low, high (quality), pgr (of the estimate).
    """
    metrics = {share: lambda curve, share=share: float(curve.pgr(share)) for share in shares}
    table = evaluate_leads(leads, sets, benchmarks, n_resamples, rng, metrics, baselines=True)
    table = table.rename(columns={"metric": "strong_share"}).drop(columns="n_excluded")
    table["pgr"] = table["estimate"]
    for (training_data, benchmark), rows in table.groupby(["training_data", "benchmark"]).groups.items():
        kept = sets.evaluated[training_data][benchmark]
        strong, weak = (values[kept].mean() for values in pair_quality(benchmarks[benchmark]))
        for column in ("estimate", "low", "high"):
            table.loc[rows, column] = weak + table.loc[rows, column] * (strong - weak)
    return table


def cost_table(
    leads: Leads,
    sets: TrainingSets,
    benchmarks: Mapping[str, BenchmarkTable],
    levels: Sequence[float],
    n_resamples: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """What recovering a share of the gap costs at the paper's prices, and how much less than at random.

    Returns
    -------
    DataFrame
        training_data, benchmark, router ("random" too), pgr, strong_share (the CPT at that level), low, high (of the
        share), usd_per_1000, usd_low, usd_high (per 1,000 calls), saving: share of strong calls that random routing
        needs over the router's, the paper's cost-saving ratio.
    """
    metrics = {level: lambda curve, level=level: curve.cpt(level) for level in levels}
    table = evaluate_leads(leads, sets, benchmarks, n_resamples, rng, metrics, baselines=True)
    table = table[table["router"] != "oracle"].drop(columns="n_excluded")
    table = table.rename(columns={"metric": "pgr", "estimate": "strong_share"})
    for share, usd in (("strong_share", "usd_per_1000"), ("low", "usd_low"), ("high", "usd_high")):
        table[usd] = 1000 * calls_cost_usd(table[share].to_numpy())
    return table.assign(saving=table["pgr"] / table["strong_share"]).reset_index(drop=True)


def similarity_table(
    sets: TrainingSets, benchmarks: Mapping[str, BenchmarkTable], encoder: PromptEncoder
) -> pd.DataFrame:
    """How near a benchmark's prompts are to those learned from: the mean of each one's greatest cosine.

    Prompts that were learned from are left out, as in every other figure.

    Returns
    -------
    DataFrame with columns benchmark, training_data, similarity
    """
    known = {name: encoder.encode(table["prompt"].unique().tolist()) for name, table in sets.battles.items()}
    rows = []
    for benchmark, table in benchmarks.items():
        queries = encoder.encode(table.prompts["prompt"].tolist())
        for name, vectors in known.items():
            nearest = highest_similarity(queries[sets.evaluated[name][benchmark]], vectors)
            rows.append((benchmark, name, float(nearest.mean())))
    return pd.DataFrame(rows, columns=["benchmark", "training_data", "similarity"])


def measure_both_ways(scores: Mapping[str, np.ndarray], strong: np.ndarray, weak: np.ndarray) -> pd.DataFrame:
    """Where the paper's words and the released code measure differently: every rule on the same curves.

    Returns
    -------
    DataFrame, a row a router: apgr_exact, apgr_trapezoid, apgr_mean_of_ten, cpt50_smallest, cpt50_released
    """

    def measure(curve: CallCurve) -> dict[str, float]:
        areas = {f"apgr_{rule}": curve.apgr(rule) for rule in ("exact", "trapezoid", "mean_of_ten")}
        return areas | {f"cpt50_{rule}": curve.cpt(0.5, rule) for rule in ("smallest", "released")}

    rows = {name: measure(call_curve(score, strong, weak)) for name, score in scores.items()}
    return pd.DataFrame(rows).T.rename_axis("router").reset_index()


def highest_similarity(queries: np.ndarray, known: np.ndarray, block: int = 1024) -> np.ndarray:
    """Greatest cosine of each query with any of the known unit vectors: (n_queries,)."""
    parts = [queries[begin : begin + block] @ known.T for begin in range(0, len(queries), block)]
    return np.concatenate([part.max(axis=1) for part in parts])


def pick_published(leads: Leads) -> dict[Key, np.ndarray]:
    """The leads that the paper's figures show: of each benchmark one training set ("arena+gold" for another)."""
    return {
        key: lead for key, lead in leads.items() if key.training_data == PUBLISHED_SETS.get(key.benchmark, "arena+gold")
    }


def _mt_bench_scores(question_ids: Sequence[int], judge: str) -> pd.DataFrame:
    """Mean of two turns of every public model, (n_models, n_questions), that a judge graded in full."""
    grades = read_mt_bench_judgements()
    grades = grades[grades["public_model"] & (grades["judge"] == judge)]
    scores = grades.groupby(["model", "repository", "question_id"])["score"].agg(["mean", "size"]).reset_index()
    scores = scores[scores["question_id"].isin(question_ids) & (scores["size"] == 2)]
    scores = scores.pivot_table(index=["model", "repository"], columns="question_id", values="mean")
    return scores.reindex(columns=question_ids).dropna().groupby(level="model").first()


def other_pairs(lead: np.ndarray, question_ids: Sequence[int], judge: str = "gpt-4") -> pd.DataFrame:
    """APGR on MT-Bench of one router for every pair of other models, without learning anything about them.

    The router's lead for its own pair orders the questions, as in the paper's table 4. Scores are those of public
    models that `judge` graded in full; a model that several repositories graded counts with the first by name. That
    judge's version may differ between repositories.

    Parameters
    ----------
    lead : float array, shape (n_questions,)
    question_ids : sequence of int
        Of MT-Bench, as `read_mt_bench` gives them.

    Returns
    -------
    DataFrame
        strong, weak, strong_score, weak_score, apgr (missing where the strong model is not surely better, at 95 % over
        questions: of a gap that may be none no share can be recovered); a row a pair of models.
    """
    scores = _mt_bench_scores(question_ids, judge).drop(index=list(COMMERCIAL_ROUTERS), errors="ignore")
    rows = []
    for strong in scores.index:
        for weak in scores.index:
            q_strong, q_weak = scores.loc[strong].to_numpy(), scores.loc[weak].to_numpy()
            gain = q_strong - q_weak
            if gain.mean() > 0:
                sure = gain.mean() > norm.ppf(0.975) * gain.std(ddof=1) / np.sqrt(len(gain))
                apgr = call_curve(lead, q_strong, q_weak).apgr() if sure else np.nan
                rows.append((strong, weak, q_strong.mean(), q_weak.mean(), apgr))
    return pd.DataFrame(rows, columns=["strong", "weak", "strong_score", "weak_score", "apgr"])


def earlier_pair(
    leads: Leads, table: BenchmarkTable, n_resamples: int, rng: np.random.Generator, judge: str = "gpt-4"
) -> pd.DataFrame:
    """Claude 3 Opus and Llama 3 8B, the other pair of the paper's first versions, routed by leads for `PAIR`.

    Returns
    -------
    DataFrame
        training_data, router, metric (as the paper measures), estimate, low, high, paper (missing where there is none).
    """
    scores = _mt_bench_scores(table.prompts["question_id"].tolist(), judge)
    quality = [scores.loc[name].to_numpy() for name in EARLIER_PAIR]
    of_benchmark = {key: lead for key, lead in leads.items() if key.benchmark == "MT-Bench"}
    names = {f"{key.training_data}/{key.router}": lead for key, lead in of_benchmark.items()}
    ours = bootstrap_metrics(names, *quality, n_resamples, rng)
    ours[["training_data", "router"]] = ours["router"].str.split("/", expand=True)
    paper = read_paper_tables().rename(columns={"apgr": "apgr_trapezoid"})
    paper = paper[(paper["strong"] == "claude-3-opus") & (paper["weak"] == "llama-3-8b")]
    keys = ["training_data", "router"]
    paper = paper.melt(keys, ["cpt50", "cpt80", "apgr_trapezoid"], "metric", "paper")
    ours = ours[ours["metric"].isin(paper["metric"])].merge(paper, how="left", on=[*keys, "metric"])
    return ours[[*keys, "metric", "estimate", "low", "high", "paper"]]


def commercial_points(scores: Mapping[str, np.ndarray], table: BenchmarkTable) -> pd.DataFrame:
    """Share of calls to the strong model at which each router first has the MT-Bench score of a commercial one.

    Returns
    -------
    DataFrame with columns commercial, score, router, strong_share (missing where the curve never gets there)
    """
    grades = read_mt_bench_judgements()
    grades = grades[grades["question_id"].isin(table.prompts["question_id"])]
    rows = []
    for name in COMMERCIAL_ROUTERS:  # the published grades of one lack a turn; its question counts with the other
        wanted = float(grades[grades["model"] == name].groupby("question_id")["score"].mean().mean())
        for router, score in scores.items():
            curve = call_curve(score, *pair_quality(table))
            level = (wanted - curve.quality_weak) / (curve.quality_strong - curve.quality_weak)
            reached = level <= curve.recovered.max()
            rows.append((name, wanted, router, curve.cpt(max(level, 0.0)) if reached else np.nan))
    return pd.DataFrame(rows, columns=["commercial", "score", "router", "strong_share"])
