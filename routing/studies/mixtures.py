"""Combine people's battles with judged ones: what "arena+judge" is, and how that was chosen.

Sources differ in what is compared (AlpacaEval has 68 pairs a prompt, EloBench seven), and a judge likes some models
more than people do. Pooled as they are, a prompt's neighbours change the source, and with it the mean rating of a pair,
which says nothing about the prompt. So a mixture says what weighs alike, and whether outcomes are *matched*: within
each source and judge every pair of models gets the shares of outcomes that one leaderboard of all sources predicts.
What then remains of a source is on which prompts a model does better than it does on average.

The rule by which the mixture and the settings of similarity weighting are chosen, written before any benchmark was
looked at:

1. A fifth of the prompts, by normalised text, is held out of all sources; of each source up to `MOST_PROMPTS` of them.
2. A benchmark is a source that no router has learned from. So each source with at least `FEWEST_PROMPTS` held-out
   prompts is left out of a candidate in turn, and `prompt_correlation` measured on its held-out battles. The mean over
   these sources, every one counting alike, is the candidate's score. Benchmarks take no part.
3. First the mixtures of `MIXTURES` are compared with the paper's settings (gamma 10, ten tiers), then `SETTINGS` on the
   best of them. The highest score is taken; nothing is tried after a benchmark was looked at.

The choice is not blind in the strict sense. The score of step 2 was changed three times before any benchmark was looked
at, and that EloBench alone does well on MT-Bench was known from an earlier trial. First the rule saw a part of the
prompts and took "all, each prompt alike, matched"; ``benchmarks/mixtures.py`` applies it to all that is learned from,
and what that gives stands here. The script tabulates afterwards what every mixture reaches on the benchmarks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import softmax

from routing.battles import PairCounts, canonical_order, count_pairs
from routing.data.judged import HUMAN, READERS, judged_battles, match_outcomes, normalise_texts, overlaps
from routing.embeddings import PromptEncoder
from routing.evaluation.resampling import paired_bootstrap
from routing.ratings.bradley_terry import fit_bradley_terry, rating_tiers
from routing.ratings.ties import outcome_probability
from routing.routers.base import Prompts, Router
from routing.routers.similarity import SimilarityRouter
from routing.studies.cross_validation import assign_folds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PEOPLE = "arena55k"
N_BATTLES = 60_000  # drawn by weight; the paper has 65,000 of people and 120,000 of its judge
MOST_PROMPTS, FEWEST_PROMPTS = 600, 80  # held-out ones of a source
PRIOR = 0.1  # of the leaderboards, so weak that only a model without a win is held
SOURCE_TITLES = {
    PEOPLE: "Arena (people)",
    "arena55k_more": "Arena (drawn by outcome)",
    "arena33k_human_and_gpt4": "Arena (people and GPT-4)",
    "alpaca_eval": "AlpacaEval",
    "arena_hard_v01": "Arena-Hard",
    "elobench_gpt4_battles": "EloBench",
    "oasst_gpt4_pairs": "OASST",
    "vicuna80_gpt4_pairs": "Vicuna-80",
    "vicuna80_four_judges": "Vicuna-80, four judges",
}
CERTAIN = 1e4  # votes that a predicted share of outcomes counts for


class Mixture(NamedTuple):
    """Which battles are drawn, and how often."""

    sources: tuple[str, ...]
    alike: str = "prompt"  # what weighs alike: each "battle", "prompt" or "source"
    matched: bool = True  # whether outcomes of a source are matched to the leaderboard of all


EVERY = (PEOPLE, *READERS)
JUDGES = tuple(name for name in READERS if name not in ("arena55k_more", "arena33k_human_and_gpt4"))
MIXTURES = {
    "people alone": Mixture((PEOPLE, "arena55k_more")),
    "all, as they are": Mixture(EVERY, "battle", False),
    "all, each prompt alike": Mixture(EVERY, "prompt", False),
    "all, each source alike": Mixture(EVERY, "source", False),
    "all, each battle alike, matched": Mixture(EVERY, "battle"),
    "all, each prompt alike, matched": Mixture(EVERY, "prompt"),
    "all, each source alike, matched": Mixture(EVERY, "source"),
    "judges alone, each source alike, matched": Mixture(JUDGES, "source"),
    "EloBench alone, matched": Mixture(("elobench_gpt4_battles",)),
}
SETTINGS = [
    (gamma, n_tiers) for n_tiers in (5, 10, 20) for gamma in (10.0, 100.0, 1_000.0) if (gamma, n_tiers) != (10, 10)
]
CHOSEN, CHOSEN_GAMMA, CHOSEN_TIERS = "all, each battle alike, matched", 10.0, 10  # by the rule


def load_sources(people: pd.DataFrame, tested: Iterable[str]) -> pd.DataFrame:
    """Return people's battles and all judged ones in one table, without the prompts of `tested`."""
    columns = ["prompt", "model_a", "model_b", "winner", "source", "judge", "weight"]
    arena = people.assign(source=PEOPLE, judge=HUMAN, weight=1.0)
    table = pd.concat([arena[columns], judged_battles()[columns]], ignore_index=True)
    return table[~overlaps(table["prompt"], tested)].reset_index(drop=True)


def leaderboard_counts(battles: pd.DataFrame, weights: np.ndarray) -> PairCounts:
    """Return the shares of outcomes that one rating per model predicts for every pair, as counts to match."""
    fit = fit_bradley_terry(count_pairs(battles, weights), "davidson", PRIOR)
    ratings = fit.ratings.to_numpy()
    probability = outcome_probability(np.subtract.outer(ratings, ratings), "davidson", fit.tie_parameter) * CERTAIN
    across = 1 - np.eye(len(ratings))
    ties = probability[..., 1] * across
    return PairCounts(tuple(fit.ratings.index), probability[..., 0] * across, (ties + ties.T) / 2)


def describe_weights(battles: pd.DataFrame, votes: PairCounts, n_tiers: int = 10) -> pd.DataFrame:
    """Compare battles drawn by outcome, before and after their column weight, with all votes of the same models.

    Rows are "as drawn", "weighted" and "all votes"; columns are battles, ties and within_tier (shares; tiers by the
    ratings on the votes), and the mean score (a tie is half) of each model that has a tenth of the battles.
    """
    drawn = count_pairs(battles)
    place = np.array([votes.models.index(name) for name in drawn.models])
    square = np.ix_(place, place)
    same = PairCounts(drawn.models, votes.wins[square], votes.ties[square])
    tier = rating_tiers(fit_bradley_terry(same, "davidson", PRIOR).ratings, n_tiers).to_numpy()
    shown = pd.concat([battles["model_a"], battles["model_b"]]).value_counts()
    shown = shown.index[shown >= len(battles) / 10]
    rows = []
    weighted = count_pairs(battles, battles["weight"].to_numpy())
    for name, counts in (("as drawn", drawn), ("weighted", weighted), ("all votes", same)):
        met = counts.wins + counts.wins.T + counts.ties
        score = pd.Series((counts.wins + counts.ties / 2).sum(axis=1) / met.sum(axis=1), index=counts.models)
        shares = {"ties": counts.ties.sum(), "within_tier": met[tier[:, None] == tier].sum()}
        shares = {key: value / met.sum() for key, value in shares.items()}
        rows.append({"battles": name, "n": len(battles) if counts is not same else met.sum() / 2} | shares
                    | score[shown].to_dict())  # fmt: skip
    return pd.DataFrame(rows)


def mixture_weights(table: pd.DataFrame, mixture: Mixture) -> np.ndarray:
    """Return the weight of each battle in a mixture, 0 for those of other sources: (n_battles,)."""
    chosen = table["source"].isin(mixture.sources).to_numpy()
    if not chosen.any():
        raise ValueError(f"no battle is of {', '.join(mixture.sources)}; the table has {set(table['source'])}")
    weights = table["weight"].where(chosen, 0.0)
    if mixture.alike != "battle":
        weights = weights / weights.groupby([table["source"], table["prompt"]]).transform("sum").where(chosen, 1.0)
    if mixture.alike == "source":
        weights = weights / weights.groupby(table["source"]).transform("sum").where(chosen, 1.0)
    weights = weights.to_numpy(copy=True)
    if mixture.matched:
        target = leaderboard_counts(table[chosen], weights[chosen])
        for _, rows in table[chosen].groupby(["source", "judge"]).groups.items():
            weights[rows] = match_outcomes(table.loc[rows], target, weights[rows])
    return weights


def draw_mixture(table: pd.DataFrame, mixture: Mixture, n_battles: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return `n_battles` battles of a mixture, each as often as its weight says, rounded up or down at random.

    Drawn at equal distances along the weights in canonical order, so that every pair and outcome keeps its share. The
    index is the table's.
    """
    ordered = canonical_order(table)
    return ordered.iloc[_draw_places(table.loc[ordered.index].reset_index(drop=True), mixture, n_battles, rng)]


def _draw_places(ordered: pd.DataFrame, mixture: Mixture, n_battles: int, rng: np.random.Generator) -> np.ndarray:
    reach = np.cumsum(mixture_weights(ordered, mixture))
    places = (rng.random() + np.arange(n_battles)) * (reach[-1] / n_battles)
    return np.searchsorted(reach, places, side="right").clip(max=len(reach) - 1)


def hold_out(
    table: pd.DataFrame, rng: np.random.Generator, most_prompts: int = MOST_PROMPTS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the battles to learn from, and those on held-out prompts, which no text of the first repeats.

    The latter are as `add_leaderboard` gives them, with the leaderboards of the battles to learn from.
    """
    outside = assign_folds(np.array(normalise_texts(table["prompt"]), dtype=object), 5, rng) == 0
    learned, held_out = table[~outside].reset_index(drop=True), table[outside]
    few = held_out[["source", "prompt"]].drop_duplicates().sample(frac=1, random_state=rng)
    held_out = held_out.merge(few.groupby("source").head(most_prompts), on=["source", "prompt"])
    return learned, add_leaderboard(held_out, learned)


def add_leaderboard(held_out: pd.DataFrame, learned: pd.DataFrame) -> pd.DataFrame:
    """Return held-out battles with gap and nu (Davidson) of the leaderboard of their source and judge, and score.

    The leaderboards are fitted to the battles `learned`; battles of models that are not on them are left out. Columns
    added: gap (log-odds, model_a's rating less model_b's), nu, expected (score of model_a), score (win 1, tie 1/2).
    """
    parts = []
    for (source, judge), part in held_out.groupby(["source", "judge"], sort=False):
        same = learned[(learned["source"] == source) & (learned["judge"] == judge)]
        fit = fit_bradley_terry(count_pairs(same, same["weight"].to_numpy()), "davidson", PRIOR)
        gap = part["model_a"].map(fit.ratings) - part["model_b"].map(fit.ratings)
        parts.append(part.assign(gap=gap, nu=fit.tie_parameter).dropna(subset="gap"))
    table = pd.concat(parts, ignore_index=True)
    probability = _davidson(table["gap"].to_numpy(), table["nu"].to_numpy())
    score = table["winner"].map({"model_a": 1.0, "tie": 0.5, "model_b": 0.0})
    return table.assign(expected=probability[:, 0] + probability[:, 1] / 2, score=score)


def _davidson(gap: np.ndarray, nu: np.ndarray) -> np.ndarray:
    """Return P(a wins), P(tie), P(b wins) of each battle with a nu of its own: (n_battles, 3)."""
    return softmax(np.stack([gap / 2, np.log(nu), -gap / 2], axis=1), axis=1)


def prompt_effect(router: Router, held_out: pd.DataFrame, prompts: Prompts) -> np.ndarray:
    """Return what each battle's prompt adds to a router's margin, (n_battles,): its margin less the mean over prompts.

    0 where the router does not know both models. `prompts` are those of the battles, as vectors or texts.
    """
    _, first, number = np.unique(held_out["prompt"].to_numpy(dtype=object), return_index=True, return_inverse=True)
    effect = router.ratings(prompts[first] if isinstance(prompts, np.ndarray) else [prompts[row] for row in first])
    effect = np.append(effect - effect.mean(axis=0), np.zeros((len(effect), 1)), axis=1)  # the last: an unknown model
    position = {name: place for place, name in enumerate(router.models)}
    sides = np.array([held_out[side].map(position).fillna(-1) for side in ("model_a", "model_b")], dtype=int)
    return np.where((sides >= 0).all(axis=0), effect[number, sides[0]] - effect[number, sides[1]], 0.0)


def prompt_correlation(effect: np.ndarray, held_out: pd.DataFrame) -> float:
    """Return the correlation of predicted and observed prompt effects; 0 for a router that sees none.

    Predicted is the `prompt_effect`, observed the score less the expected one; battles count by their weight.
    """
    y, weight = (held_out["score"] - held_out["expected"]).to_numpy(), held_out["weight"].to_numpy()
    if np.abs(effect).max() < 1e-9:  # log-odds: rounding errors of a mean
        return 0.0
    squares = (weight * effect**2).sum() * (weight * y**2).sum()
    return float((weight * effect * y).sum() / np.sqrt(squares))


def gains_by_source(
    effects: Mapping[str, np.ndarray], held_out: pd.DataFrame, n_resamples: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Return what prompts gain each router over the leaderboard of each source, in nats per battle.

    A router's prediction is the source's own leaderboard plus the router's `prompt_effect`: how the judges of a source
    rate models on average is known from there, and only what the prompt adds is tested. Intervals (95 %) are over
    prompts, whose battles stay together. The columns are source, router, estimate, low, high, n_prompts, n_battles.
    """
    rows = []
    outcome = (2 - 2 * held_out["score"]).to_numpy(dtype=int)
    nu, gap = held_out["nu"].to_numpy(), held_out["gap"].to_numpy()
    happened = np.arange(len(held_out)), outcome
    base = np.log(_davidson(gap, nu)[happened])
    gains = np.stack([np.log(_davidson(gap + effect, nu)[happened]) - base for effect in effects.values()], axis=1)
    for source, places in held_out.groupby("source", sort=False).indices.items():
        number = np.unique(held_out["prompt"].to_numpy(dtype=object)[places], return_inverse=True)[1]
        weight = held_out["weight"].to_numpy()[places]
        sums = np.stack([np.bincount(number, weight * column) for column in (*gains[places].T, 1.0)], axis=1)

        def mean(counts: np.ndarray, sums: np.ndarray = sums) -> np.ndarray:
            total = counts @ sums
            return total[:-1] / total[-1]

        low, high, _ = paired_bootstrap(mean, len(sums), n_resamples, rng)
        for router, *values in zip(effects, mean(np.ones(len(sums))), low, high, strict=True):
            rows.append((source, router, *values, len(sums), len(places)))
    return pd.DataFrame(rows, columns=["source", "router", "estimate", "low", "high", "n_prompts", "n_battles"])


def plot_gains_by_source(table: pd.DataFrame) -> Figure:
    """Draw the table of `gains_by_source`: a row per source, a mark per router."""
    from routing.studies.plotting import plot_rows  # figures alone need it, not what loads battles

    better = (table["low"] > 0).sum()
    title = (
        f"Prompts improve on the leaderboard, with a 95 % CI over prompts above 0, in {better} of {len(table)} cases"
    )
    shown = table.assign(name=table["source"].replace(SOURCE_TITLES), text="")
    return plot_rows(
        shown,
        "gain over each source's leaderboard (nats per battle, 95 % CI over prompts)",
        title,
        reference=0.0,
        group="router",
    )


def choose_mixture(
    table: pd.DataFrame,
    encoder: PromptEncoder,
    rng: np.random.Generator,
    mixtures: Mapping[str, Mixture] = MIXTURES,
    settings: list[tuple[float, int | None]] = SETTINGS,
    n_battles: int = N_BATTLES // 2,
) -> pd.DataFrame:
    """Return everything that the rule tried: mixture, gamma, tiers (0: none), source left out, estimate, score."""
    learned, held_out = hold_out(table, rng)
    learned = learned.loc[canonical_order(learned).index].reset_index(drop=True)
    distinct, number = np.unique(learned["prompt"].to_numpy(dtype=object), return_inverse=True)
    vectors = encoder.encode(distinct.tolist())
    tests = {source: part for source, part in held_out.groupby("source") if part["prompt"].nunique() >= FEWEST_PROMPTS}
    queries = {source: encoder.encode(part["prompt"].tolist()) for source, part in tests.items()}
    drawn: dict[tuple[str, str], np.ndarray] = {}
    tried: list[pd.DataFrame] = []

    def measure(name: str, gamma: float, n_tiers: int | None) -> None:
        scores = dict.fromkeys(tests, 0.0)
        for source in tests:
            rest = mixtures[name]._replace(sources=tuple(set(mixtures[name].sources) - {source}))
            if not rest.sources:
                continue
            if (name, source) not in drawn:
                drawn[name, source] = _draw_places(learned, rest, n_battles, rng)
            places = drawn[name, source]
            router = SimilarityRouter(gamma, n_tiers, PRIOR).fit(learned.iloc[places], vectors[number[places]])
            effect = prompt_effect(router, tests[source], queries[source])
            scores[source] = prompt_correlation(effect, tests[source])
        part = pd.DataFrame({"left_out": scores.keys(), "estimate": scores.values()})
        tried.append(part.assign(mixture=name, gamma=gamma, tiers=n_tiers or 0, score=np.mean(list(scores.values()))))

    for name in mixtures:
        measure(name, 10.0, 10)
    best = max(tried, key=lambda part: part["score"].iloc[0])["mixture"].iloc[0]
    for gamma, n_tiers in settings:
        measure(best, gamma, n_tiers)
    return pd.concat(tried, ignore_index=True)


def best_candidate(tried: pd.DataFrame) -> tuple[str, float, int]:
    """Return mixture, gamma and tiers of the highest score in a table of `choose_mixture`."""
    row = tried.loc[tried["score"].idxmax()]
    return row["mixture"], float(row["gamma"]), int(row["tiers"])


def plot_mixtures(tried: pd.DataFrame) -> Figure:
    """Draw the scores of `choose_mixture` with the range over the sources left out."""
    from routing.studies.plotting import plot_rows  # figures alone need it, not what loads battles

    names = tried["mixture"] + [f", γ = {row.gamma:g}, {row.tiers} tiers" for row in tried.itertuples()]
    groups = tried.groupby(names, sort=False)
    shown = groups.agg(estimate=("score", "first"), low=("estimate", "min"), high=("estimate", "max"))
    title = f"The rule takes: {best_candidate(tried)[0]}"
    label = "correlation of predicted and observed prompt effects\n(mean and range over sources left out)"
    return plot_rows(shown.rename_axis("name").reset_index(), label, title, reference=0.0)
