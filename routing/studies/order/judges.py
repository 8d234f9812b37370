"""Measure how far the position of an answer decides a judgement, and what that does to ratings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.random import Generator
from pandas.api.typing import SeriesGroupBy

from routing.battles import count_pairs
from routing.data.votes import read_arena140k, read_human_and_judges, read_llmbar
from routing.evaluation.resampling import wilson_interval
from routing.ratings.bradley_terry import ELO_PER_LOG_ODDS, fit_bradley_terry
from routing.ratings.position_effect import PositionEffectFit, fit_position_effect
from routing.studies.plotting import plot_bars, plot_rows
from routing.studies.simulated.arena import SimulatedArena

TERMS = {False: "without the term", True: "with the term"}
PLACES = {"model_a": "first", "model_b": "second"}
TRUTH = "truth"
STYLES = {TERMS[False]: {"color": "C3", "marker": "X"}, TERMS[True]: {"color": "C0", "marker": "o"}}
STYLES[TRUTH] = {"color": "black", "marker": "|"}
BIASES = {f"a judge of bias {bias:+.1f}": bias for bias in (0.0, 0.3, -0.5, 1.9)}  # log-odds for the first answer
PEOPLE = "people, 2025"
BOTH_ORDERS = ("right in both orders", "the first answer both times", "the second answer both times", "wrong in both")


def alike_prompts(arena: SimulatedArena, n_prompts: int = 1) -> pd.DataFrame:
    """Return prompts of the difficulty whose slope is 1: without topics, their ratings are the mean ratings."""
    return pd.DataFrame({"prompt": ["?"] * n_prompts, "topic": arena.topics[0], "difficulty": "medium"})


def simulate_judges(arena: SimulatedArena, biases: Mapping[str, float], n_battles: int, rng: Generator) -> pd.DataFrame:
    """Draw each judge's battles in order of display; `biases`, by judge, are log-odds added to the first's rating."""
    sampled = {name: arena.sample_battles(alike_prompts(arena), n_battles, rng, bias) for name, bias in biases.items()}
    return pd.concat([table.assign(judge=name) for name, table in sampled.items()], ignore_index=True)


def simulate_both_orders(
    arena: SimulatedArena, biases: Mapping[str, float], n_items: int, rng: Generator
) -> pd.DataFrame:
    """Query judges who never say tie about the same two answers in both orders; columns are those of `read_llmbar`."""
    items, prompts = arena.sample_battles(alike_prompts(arena), n_items, rng), alike_prompts(arena, n_items)
    parts = []
    for name, bias in biases.items():
        odds = []
        for added in (0.0, bias, -bias):  # the truth; output 1 shown first; output 2 shown first
            win, _, loss = arena.outcome_probability(prompts, items["model_a"], items["model_b"], added).T
            odds.append(win / (win + loss))
        says_one = rng.random((2, n_items)) < odds[1:]
        part = {"label": odds[0] < 0.5, "winner_unswapped": ~says_one[0], "winner_swapped": ~says_one[1]}
        table = pd.DataFrame({column: 1 + values.astype(np.int64) for column, values in part.items()})
        parts.append(table.assign(judge=name, item=np.arange(n_items)))
    return pd.concat(parts, ignore_index=True)


def load_judges(profile: str, arena: SimulatedArena, rng: Generator) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return battles by judge, people's votes of 2025, and answers in both orders.

    "full" reads real ones; else judges with `BIASES` are simulated on `arena`, without topics and votes of 2025.
    """
    if profile == "full":
        both = read_llmbar()
        both = both[(both["protocol"] == "Vanilla") & (both["round"] == 0)]
        return read_human_and_judges(), read_arena140k().assign(judge=PEOPLE), both
    judged = simulate_judges(arena, BIASES, 4_000, rng)
    return judged, judged.head(0), simulate_both_orders(arena, BIASES, 500, rng)


def _share(count: int, total: int) -> tuple[float, float, float]:
    """Return a share with its 95 % Wilson interval."""
    return count / total, *wilson_interval(count, total)


def _in_percent(table: pd.DataFrame) -> pd.DataFrame:
    """Return shares by judge as the primitives of plotting take them, in percent."""
    percent = 100 * table[["share", "low", "high"]].rename(columns={"share": "estimate"})
    return table.assign(name=table["judge"], **percent)


def mean_interval(values: SeriesGroupBy) -> pd.DataFrame:
    """Return estimate (the mean), low and high (95 % of the mean) of each group."""
    mean, width = values.mean(), 1.96 * values.std() / np.sqrt(values.size())
    return pd.DataFrame({"estimate": mean, "low": mean - width, "high": mean + width})


def first_answer_shares(battles: pd.DataFrame) -> pd.DataFrame:
    """Return judge, place ("first", "second"), share of all battles that it won, low, high (95 %), n_battles."""
    rows = [
        (judge, place, *_share((part["winner"] == label).sum(), len(part)), len(part))
        for judge, part in battles.groupby("judge", sort=False)
        for label, place in PLACES.items()
    ]
    return pd.DataFrame(rows, columns=["judge", "place", "share", "low", "high", "n_battles"])


def plot_places(table: pd.DataFrame) -> Figure:
    """Draw the table of `first_answer_shares`."""
    first = table[table["place"] == "first"].set_index("judge")["share"]
    title = f"With {first.idxmax()} as judge, the answer shown first wins {first.max():.1%} of battles"
    shown = _in_percent(table).assign(place="the " + table["place"] + " answer won")
    return plot_rows(shown, "share of all battles (%, 95 %); the rest are ties", title, group="place")


def both_order_shares(answers: pd.DataFrame) -> pd.DataFrame:
    """Return judge, answer (one of `BOTH_ORDERS`), share of the items, low, high (95 %), n_items.

    `answers` are those of `read_llmbar`; a row that lacks one is left out.
    """
    table = answers.dropna(subset=["winner_unswapped", "winner_swapped"])
    one, other = table["winner_unswapped"], table["winner_swapped"]
    kinds = [one == table["label"], one == 1, one == 2]
    kind = np.where(one == other, np.where(kinds[0], 0, 3), np.where(kinds[1], 1, 2))
    rows = []
    for judge, part in pd.Series(kind).groupby(table["judge"].to_numpy(), sort=False):
        for number, name in enumerate(BOTH_ORDERS):
            rows.append((judge, name, *_share((part == number).sum(), len(part)), len(part)))
    return pd.DataFrame(rows, columns=["judge", "answer", "share", "low", "high", "n_items"])


def plot_both_orders(table: pd.DataFrame) -> Figure:
    """Draw the table of `both_order_shares`."""
    moved = table[table["answer"].isin(BOTH_ORDERS[1:3])].groupby("judge", sort=False)["share"].sum()
    title = f"Queried in both orders, {moved.idxmax()} contradicts itself on {moved.max():.0%} of the items"
    return plot_bars(_in_percent(table), f"share of items (%), 95 % interval of {BOTH_ORDERS[0]}", title, by="answer")


def compare_rankings(battles: pd.DataFrame) -> pd.DataFrame:
    """Return what the first-answer term finds and what it changes, by judge, on battles as they were displayed.

    Columns are judge, effect, low, high (log-odds, 95 %), largest_shift_elo (of a rating, with the term instead of
    without), spread_ratio (standard deviation of ratings with the term over that without), ranks_changed (models).
    """
    rows = []
    for judge, part in battles.groupby("judge", sort=False):
        fit, plain = fit_position_effect(part), fit_bradley_terry(count_pairs(part), "davidson").ratings
        row = dict(zip(("effect", "low", "high"), (fit.position_effect, *fit.position_interval()), strict=True))
        row["largest_shift_elo"] = (fit.ratings - plain).abs().max() * ELO_PER_LOG_ODDS
        row["spread_ratio"] = fit.ratings.std() / plain.std()
        rows.append({"judge": judge, **row, "ranks_changed": int((fit.ratings.rank() != plain.rank()).sum())})
    return pd.DataFrame(rows)


def plot_effects(table: pd.DataFrame) -> Figure:
    """Draw the first-answer effects of `compare_rankings`."""
    widest = table.loc[table["spread_ratio"].idxmax()]
    title = f"With {widest['judge']} as judge, the term spreads ratings {widest['spread_ratio']:.2f} times as far"
    shown = table.rename(columns={"judge": "name", "effect": "estimate"})
    return plot_rows(shown, "effect of being shown first (log-odds, 95 %)", title, reference=0.0)


def show_first(battles: pd.DataFrame, model: str) -> pd.DataFrame:
    """Return the battles in which `model` is shown first or not at all."""
    return battles[battles["model_b"] != model]


def show_each_first(battles: pd.DataFrame) -> pd.DataFrame:
    """Compare the rating of every model from battles that always showed it first with that from all of one judge.

    Columns are model, term (whether the fit has it), shift_elo (to the rating with the term on all), ranks_gained.
    """
    everything = fit_position_effect(battles).ratings
    rows = []
    for model in everything.index:
        part = show_first(battles, model)
        for term, fit in enumerate((fit_bradley_terry(count_pairs(part), "davidson"), fit_position_effect(part))):
            ratings = fit.ratings
            shift = (ratings[model] - everything[model]) * ELO_PER_LOG_ODDS
            rows.append((model, bool(term), shift, ratings.rank()[model] - everything.rank()[model]))
    return pd.DataFrame(rows, columns=["model", "term", "shift_elo", "ranks_gained"])


def recover_known_bias(
    arena: SimulatedArena, bias: float, model: str, n_battles: int, rng: Generator
) -> tuple[pd.DataFrame, PositionEffectFit]:
    """Fit ratings with and without the first-answer term where one model is always shown first and the truth is known.

    `arena` has no topics, and `bias` is in log-odds. Returns name (of a model, the best first), fit (as in `STYLES`),
    estimate, low, high (95 %) in Elo points, and the fit with the term.
    """
    battles = show_first(arena.sample_battles(alike_prompts(arena), n_battles, rng, bias), model)
    truth = pd.Series(arena.mean_ratings, index=arena.models)
    fit = fit_position_effect(battles)
    parts = [pd.DataFrame({"estimate": truth * ELO_PER_LOG_ODDS}).assign(fit=TRUTH)]
    for name, found in ((TERMS[False], fit_bradley_terry(count_pairs(battles), "davidson")), (TERMS[True], fit)):
        parts.append((found.interval().assign(estimate=found.ratings) * ELO_PER_LOG_ODDS).assign(fit=name))
    best_first = truth.sort_values(ascending=False, kind="stable").index
    table = pd.concat([part.loc[best_first] for part in parts]).rename_axis("name").reset_index()
    return table[["name", "fit", "estimate", "low", "high"]], fit


def plot_known_bias(table: pd.DataFrame, model: str) -> Figure:
    """Draw the table of `recover_known_bias`; the title is about the `model` that was always shown first."""
    found = table[table["name"] == model].set_index("fit")["estimate"]
    off = found[TERMS[False]] - found[TRUTH]
    title = f"Without the term, a model that is always shown first is off by {off:+.0f} Elo points"
    return plot_rows(table.assign(text=""), "rating (Elo points, 95 %)", title, group="fit", styles=STYLES)


def average_shifts(battles: pd.DataFrame) -> pd.DataFrame:
    """Return the means of `show_each_first` over models, by judge.

    Columns are name (of the judge), fit (of `TERMS`), estimate, low, high (Elo points, 95 % over models), ranks_gained.
    """
    parts = {judge: show_each_first(part) for judge, part in battles.groupby("judge", sort=False)}
    shifts = pd.concat(parts, names=["name"]).assign(fit=lambda table: table["term"].map(TERMS))
    by_fit = shifts.groupby(["name", "fit"], sort=False)
    return mean_interval(by_fit["shift_elo"]).assign(ranks_gained=by_fit["ranks_gained"].mean()).reset_index()


def plot_shifts(table: pd.DataFrame) -> Figure:
    """Draw the table of `average_shifts`."""
    worst = table.loc[table["estimate"].abs().idxmax()]
    title = f"With {worst['name']} as judge, always being shown first adds {worst['estimate']:.0f} Elo points"
    label = "shift of the model shown first only (Elo points, 95 % over models)"
    return plot_rows(table, label, title, group="fit", styles=STYLES, reference=0.0)
