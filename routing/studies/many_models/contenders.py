"""Compare routers as choosers among N models: learned from battles, from scores, published, and controls that see less.

A router's gain over the best constant model has two parts that a control separates: its own choices, given to other
prompts at random, keep each model's share of the calls (and so the cost) and lose what reading the prompt buys. Given
to other prompts of the same task they keep what recognising the task buys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.random import Generator
from sklearn.base import clone

from routing.data.benchmarks import BenchmarkTable
from routing.embeddings import PromptEncoder
from routing.evaluation.resampling import paired_bootstrap
from routing.policy.quality import win_share
from routing.routers.base import BradleyTerryRouter, Router
from routing.routers.bert import BertRouter
from routing.routers.factorization import MatrixFactorizationRouter
from routing.routers.similarity import SimilarityRouter
from routing.studies.inputs import RoutingTask
from routing.studies.many_models.model_sets import short_name
from routing.studies.many_models.regression import (
    align_scores,
    choice_scores,
    choice_shares,
    known_tasks,
    regression_ideas,
    task_weights,
)
from routing.studies.plotting import plot_lines, plot_rows, spell

BATTLES = {"smoke": 300, "quick": 6_000, "full": 20_000}  # at most, of all pairs of models on all training prompts
GAMMAS = (10.0, 1e3, 1e5)
LABELLED = {"quick": (50, 150, 500), "full": (100, 300, 1_000, 3_000)}  # training prompts
BY_SCORES = ("k-means, 16 clusters, both", "kernel ridge, α = 10, both")
PAYS = {  # measures of the conclusion, as its figure names them
    "over_constant": "gain over the best constant",
    "over_shuffled": "gain over shuffled choices",
    "over_task": "gain above the task",
    "share_of_gap": "share of the gap to the oracle",
    "dollars_saved": "dollars saved at equal quality",
}
KNOWN_TASK = "best model of each task, with hindsight"
# Test accuracies in % as quoted from tables 1 and 2 of [RouterDC24], not rerun: in and out of distribution
PUBLISHED = {
    "voting [published]": (54.37, np.nan),
    "CosineClassifier [published]": (54.22, np.nan),
    "ZOOTER [published]": (53.97, np.nan),
    "LoraRetriever [published]": (55.77, 43.50),
    "RouterDC [published]": (58.54, 45.85),
}


def draw_battles(table: BenchmarkTable, n_battles: int, rng: Generator) -> pd.DataFrame:
    """Return at most so many battles of random pairs of models on random prompts, none twice; equal scores tie."""
    pairs = np.array(list(combinations(range(len(table.models)), 2)))
    row, pair = np.divmod(rng.permutation(len(table.prompts) * len(pairs))[:n_battles], len(pairs))
    first, second = pairs[pair].T
    quality, names = table.quality.to_numpy(), np.array(table.models, dtype=object)
    sign = np.sign(quality[row, first] - quality[row, second]).astype(int)
    winner = np.array(["model_b", "tie", "model_a"], dtype=object)[sign + 1]
    prompts = table.prompts["prompt"].to_numpy()[row]
    return pd.DataFrame({"prompt": prompts, "model_a": names[first], "model_b": names[second], "winner": winner})


def expect_win_share(router: Router, prompts: Sequence[str]) -> pd.DataFrame:
    """Return the expected win share against the pool of every model that a router rates: (n_prompts, n_models)."""
    return win_share(pd.DataFrame(router.ratings(list(prompts)), columns=list(router.models)), router.nu)


def choose_gamma(train: BenchmarkTable, battles: pd.DataFrame, encoder: PromptEncoder, rng: Generator) -> float:
    """Return the one of `GAMMAS` with which similarity weighting chooses best on a held-out fifth of the training."""
    prompts = train.prompts["prompt"]
    held_out = prompts.isin(rng.permutation(prompts.unique())[: len(prompts) // 5])
    learned, judged = battles[~battles["prompt"].isin(prompts[held_out])], train.select(held_out)
    weights = task_weights(known_tasks(judged.prompts))(np.ones(len(judged.prompts)))

    def score(gamma: float) -> float:
        router = SimilarityRouter(gamma, None, 1.0, encoder=encoder).fit(learned)
        return weights @ choice_scores(expect_win_share(router, judged.prompts["prompt"]), judged.quality)

    return max(GAMMAS, key=score)


def battle_routers(encoder: PromptEncoder, gamma: float, seed: int) -> dict[str, Router]:
    """Return RouteLLM's routers that train in seconds, not fitted; ratings are of models, not of tiers."""
    factorization = {"batch_size": 512, "learning_rate": 3e-3, "n_seeds": 1, "prior_strength": 1.0, "seed": seed}
    return {
        "bradley_terry": BradleyTerryRouter(),
        "similarity_weighting": SimilarityRouter(gamma, None, 1.0, encoder=encoder),
        "matrix_factorization": MatrixFactorizationRouter(**factorization, encoder=encoder),
        "bert": BertRouter(train="head", n_tiers=None, seed=seed),
    }


def expect_from_battles(
    task: RoutingTask, encoder: PromptEncoder, profile: str, seed: int, rng: Generator
) -> tuple[dict[str, dict[str, pd.DataFrame]], float]:
    """Return expected win shares by part and router, learned from battles of a task's training prompts, and gamma."""
    battles = draw_battles(task.train, BATTLES[profile], rng)
    gamma = choose_gamma(task.train, battles, encoder, rng)
    routers = {name: router.fit(battles) for name, router in battle_routers(encoder, gamma, seed).items()}
    expected = {
        part: {name: expect_win_share(router, table.prompts["prompt"]) for name, router in routers.items()}
        for part, table in task.parts.items()
    }
    return expected, gamma


def best_constant(train: BenchmarkTable) -> str:
    """Return the best single model on the training prompts, by the mean over tasks where these are part of them."""
    task = train.prompts["task"] if "task" in train.prompts else np.zeros(len(train.prompts))
    return train.models[int(np.argmax(task_weights(np.asarray(task))(np.ones(len(task))) @ train.quality.to_numpy()))]


def single_score(task: RoutingTask) -> float:
    """Return what `best_constant` scores on the test prompts, by the mean over tasks where these are part of them."""
    quality, labels = task.test.quality[best_constant(task.train)], task.test.prompts.get("task")
    return float(quality.mean() if labels is None else quality.groupby(labels).mean().mean())


def compare_choices(
    expected: Mapping[str, pd.DataFrame], table: BenchmarkTable, constant: str, n_resamples: int, rng: Generator
) -> pd.DataFrame:
    """Return what routers that take the model expected to be best score, and what they gain over controls.

    Columns router, measure, estimate, low, high (95 %, paired over prompts). Measures are score, over_constant (the
    model `constant` for all prompts), over_shuffled (its own choices on prompts at random), over_task (at random within
    the task, where prompts have column task, by whose mean all is then measured) and share_of_gap (of the way from the
    constant to the oracle). Controls are expectations over all permutations, not draws.
    """
    models = sorted(table.models)
    shares = {name: choice_shares(align_scores(some, table.quality)[0]) for name, some in expected.items()}
    true = table.quality[models].to_numpy(dtype=float)
    tasks = table.prompts["task"].to_numpy() if "task" in table.prompts else np.zeros(len(true))
    weigh, member = task_weights(tasks), np.array([tasks == name for name in np.unique(tasks)], dtype=float)
    fixed = [true[:, models.index(constant)], true.max(axis=1)]
    scored = np.column_stack([*fixed, *((share * true).sum(axis=1) for share in shares.values())])

    def measure(counts: np.ndarray) -> np.ndarray:
        weight = weigh(counts)
        single, oracle, *scores = weight @ scored
        by_task = member * weight  # (n_tasks, n_prompts)
        mass = by_task.sum(axis=1, keepdims=True)
        means = by_task @ true / np.where(mass > 0, mass, 1)
        rows = []
        for score, share in zip(scores, shares.values(), strict=True):
            calls = by_task @ share  # by task and model, sums to 1
            shuffled, within = calls.sum(axis=0) @ (weight @ true), (calls * means).sum()
            gap = (score - single) / (oracle - single) if oracle > single else np.nan
            rows.append((score, score - single, score - shuffled, score - within, gap))
        return np.round(rows, 12) + 0.0  # what only rounding errors make is no gain

    low, high, _ = paired_bootstrap(measure, len(true), n_resamples, rng)
    measures = ["score", "over_constant", "over_shuffled", "over_task", "share_of_gap"]
    index = pd.MultiIndex.from_product([list(shares), measures], names=["router", "measure"])
    columns = {"estimate": measure(np.ones(len(true))), "low": low, "high": high}
    found = pd.DataFrame({name: values.ravel() for name, values in columns.items()}, index).reset_index()
    return found if len(member) > 1 else found[found["measure"] != "over_task"].reset_index(drop=True)


def compare_published(task: RoutingTask, compared: pd.DataFrame, n_resamples: int, rng: Generator) -> pd.DataFrame:
    """Return accuracy in % on RouterDC's split, published rows among them: name, part, estimate, low, high.

    `compared` has the scores of our routers, as `compare_choices` gives them, with column task. `KNOWN_TASK` is the
    score of the best model of each task, found with hindsight: the most that recognising the task alone can reach.
    """
    rows, constant = [], best_constant(task.train)
    for number, table in enumerate(task.parts.values()):
        name = ("in distribution", "out of distribution")[number]
        ours = compared[compared["task"].str.startswith("RouterDC") & (compared["measure"] == "score")]
        ours = ours[(ours["task"].str.endswith(", out of distribution") == bool(number)) & (ours["router"] != "oracle")]
        means = table.quality.groupby(table.prompts["task"].to_numpy()).transform("mean")
        fixed = pd.DataFrame(0.0, means.index, means.columns).assign(**{constant: 1.0})
        known = compare_choices(
            {KNOWN_TASK: means, f"always {short_name(constant)}": fixed}, table, constant, n_resamples, rng
        )
        for found in (ours, known[known["measure"] == "score"]):
            percent = 100 * found[["estimate", "low", "high"]]
            rows.append(percent.assign(name=found["router"], part=name))
        published = {router: values[number] for router, values in PUBLISHED.items() if not np.isnan(values[number])}
        rows.append(pd.DataFrame({"name": published.keys(), "part": name, "estimate": published.values()}))
    return pd.concat(rows, ignore_index=True)[["name", "part", "estimate", "low", "high"]]


def compare_labels(
    task: RoutingTask, encoders: Mapping[str, PromptEncoder], profile: str, gamma: float, seed: int, n_resamples: int,
    rng: Generator,
) -> pd.DataFrame:  # fmt: skip
    """Return scores on the test prompts after learning from fewer prompts, by battles or by scores of the same prompts.

    Columns prompts, labels ("one battle" or "all scores" per prompt, or "many battles": at most `BATTLES`), router,
    score, low, high (95 %).
    """
    train, prompts = task.train, task.train.prompts["prompt"].to_numpy()
    encoded = {name: encoder.encode([*prompts, *task.test.prompts["prompt"]]) for name, encoder in encoders.items()}
    vectors = np.hstack(list(encoded.values())) / np.sqrt(len(encoded))
    weigh = task_weights(np.asarray(task.test.prompts.get("task", np.zeros(len(task.test.prompts)))))
    order, found = rng.permutation(len(prompts)), {}
    for size in (*(n for n in LABELLED[profile] if n < len(prompts)), len(prompts)):
        part = train.select(np.isin(np.arange(len(prompts)), order[:size]))
        every = draw_battles(part, BATTLES[profile], rng)
        for labels, battles in {"one battle": every.drop_duplicates("prompt"), "many battles": every}.items():
            routers = battle_routers(encoders["last"], gamma, seed)
            for name in ("similarity_weighting", "bert"):
                expected = expect_win_share(routers[name].fit(battles), task.test.prompts["prompt"])
                found[size, labels, name] = choice_scores(expected, task.test.quality)
        ideas, seen = regression_ideas(size, tasks=False), np.sort(order[:size])
        for name in BY_SCORES:
            regressor = clone(ideas[name][1]).fit(vectors[seen], train.quality.to_numpy()[seen])
            expected = pd.DataFrame(regressor.predict(vectors[len(prompts) :]), columns=list(train.models))
            found[size, "all scores", name.rsplit(",", 1)[0]] = choice_scores(expected, task.test.quality)
    scores = np.column_stack(list(found.values()))
    low, high, _ = paired_bootstrap(lambda n: weigh(n) @ scores, len(scores), n_resamples, rng)
    table = pd.DataFrame(list(found), columns=["prompts", "labels", "router"])
    return table.assign(score=weigh(np.ones(len(scores))) @ scores, low=low, high=high)


def plot_gains(table: pd.DataFrame) -> Figure:
    """Draw each router's gain over the best constant and over its shuffled choices, by task; `compare_choices`."""
    parts = {"over_constant": "over the best constant model", "over_shuffled": "over its own choices, shuffled"}
    shown = table[table["measure"].isin(parts) & (table["router"] != "oracle")]
    low = shown.loc[shown["measure"] == "over_constant", "low"]
    title = f"{(low > 0).sum()} of {len(low)} have a 95 % CI above the best constant model"
    shown = shown.assign(name=shown["router"], part=shown["measure"].map(parts), text="")
    label = "gain in mean score (95 % CI over prompts)"
    return plot_rows(shown, label, title, group="part", panel="task", reference=0.0)


def plot_published(table: pd.DataFrame) -> Figure:
    """Draw the scores on RouterDC's split, ours with intervals and published ones; columns name, part and of rows."""
    inside = table[table["part"] == table["part"].iloc[0]].set_index("name")["estimate"]
    rivals = inside[inside.index.str.contains("published")]
    title = (
        f"Only recognising the task scores {inside[KNOWN_TASK]:.1f} %, the best published router {rivals.max():.1f} %"
    )
    table = table.assign(text=table["estimate"].map("{:.1f}".format))
    return plot_rows(table, "accuracy (%, 95 %)", title, panel="part")


def plot_labels(table: pd.DataFrame) -> Figure:
    """Draw the table of `compare_labels`."""
    most = table[table["prompts"] == table["prompts"].max()].groupby("labels")["score"].max()
    title = f"From all prompts, scores teach {most['all scores']:.3f}, battles at best {most['many battles']:.3f}"
    shown = table.assign(line=table["router"].map(spell) + ", " + table["labels"])
    labels = ("training prompts", "mean score on test prompts")
    return plot_lines(shown.drop(columns=["low", "high"]), "prompts", "score", labels, title, by="line", log_x=True)


def summarize_pay(comparisons: pd.DataFrame, metrics: pd.DataFrame, router: str) -> pd.DataFrame:
    """Return when routing pays, one row per benchmark and measure of one router, with 95 % intervals.

    `comparisons` are of `compare_choices` with column task, `metrics` of `frontier_tables`; the dollars saved at the
    best single model's quality are a share of its cost, where costs are known (minus infinity: never reached).
    """
    chosen = comparisons[(comparisons["router"] == router) & comparisons["measure"].isin(PAYS)]
    saved = metrics[(metrics["router"] == router) & (metrics["metric"] == "cost_share")]
    saved = saved.assign(estimate=1 - saved["estimate"], low=1 - saved["high"], high=1 - saved["low"])
    saved["measure"] = "dollars_saved"
    return pd.concat([chosen, saved], ignore_index=True)[["task", "measure", "estimate", "low", "high"]]


def plot_pay(table: pd.DataFrame) -> Figure:
    """Draw the table of `summarize_pay`."""
    gains = table[table["measure"] == "over_constant"]
    title = f"On {(gains['low'] > 0).sum()} of {len(gains)} benchmarks routing has a 95 % CI above the best constant"
    shown = table[np.isfinite(table["estimate"]) & np.isfinite(table["low"])].assign(name=table["task"])
    shown["panel"] = shown["measure"].map(PAYS)
    return plot_rows(shown, "gain in score, or share (95 % CI over prompts)", title, panel="panel", reference=0.0)


def arena_score(accuracy: float, usd_per_1000: float, beta: float = 0.1) -> float:
    """Return RouterArena's score of a mean accuracy and cost [RouterArena25].

    ((1 + beta) A C) / (beta A + C) with C = log2(200 / cost) / log2(200 / 0.0044), cost in dollars per 1,000 queries.
    """
    cheap = np.log2(200 / usd_per_1000) / np.log2(200 / 0.0044)
    return (1 + beta) * accuracy * cheap / (beta * accuracy + cheap)


def judge_arena(table: BenchmarkTable, n_resamples: int, rng: Generator) -> pd.DataFrame:
    """Return accuracy, dollars per 1,000 queries and `arena_score` of each model, of an even mix, and of the oracle.

    The oracle takes the best answer, of equal ones the cheaper. Accuracy has its 95 % interval over prompts.
    """
    quality, cost = table.quality.to_numpy(), 1000 * table.cost_usd.to_numpy()
    best = np.lexsort((cost, -quality), axis=1)[:, 0]
    at = np.arange(len(best)), best
    taken = {name: (quality[:, column], cost[:, column]) for column, name in enumerate(table.models)}
    taken |= {"an even mix": (quality.mean(axis=1), cost.mean(axis=1)), "oracle": (quality[at], cost[at])}
    scores = np.column_stack([score for score, _ in taken.values()])
    low, high, _ = paired_bootstrap(lambda n: n @ scores / len(scores), len(scores), n_resamples, rng)
    found = pd.DataFrame({"name": list(taken), "estimate": scores.mean(axis=0), "low": low, "high": high})
    found["usd_per_1000"] = [paid.mean() for _, paid in taken.values()]
    return found.assign(arena_score=[arena_score(*row) for row in found[["estimate", "usd_per_1000"]].to_numpy()])
