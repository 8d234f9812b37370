"""How far the place of an answer decides a judgement, and what that does to ratings (`position_effect`).

Tables of judgements are those of `read_human_and_judges` and `read_llmbar`; simulated ones have the same columns and
a first-answer bias that is known.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from routing.battles import count_pairs
from routing.evaluation.resampling import wilson_interval
from routing.ratings.bradley_terry import ELO_PER_LOG_ODDS, fit_bradley_terry
from routing.ratings.position_effect import PositionEffectFit, fit_position_effect
from routing.studies.simulated.arena import SimulatedArena

TERMS = {False: "without the term", True: "with the term"}
PLACES = {"model_a": "first", "model_b": "second"}
BOTH_ORDERS = ("right in both orders", "the first answer both times", "the second answer both times", "wrong in both")


def simulate_judges(
    arena: SimulatedArena,
    biases: Mapping[str, float],
    prompts: pd.DataFrame,
    n_battles: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Battles in order of display, each judge's own, with columns judge and those of `routing.battles`.

    Parameters
    ----------
    biases : mapping of str to float
        By judge, log-odds added to the rating of the model shown first.
    """
    parts = [arena.sample_battles(prompts, n_battles, rng, bias).assign(judge=name) for name, bias in biases.items()]
    return pd.concat(parts, ignore_index=True)


def simulate_both_orders(
    arena: SimulatedArena,
    biases: Mapping[str, float],
    prompts: pd.DataFrame,
    n_items: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Judges who never say tie are asked about the same two answers in both orders; columns as `read_llmbar`.

    Returns
    -------
    DataFrame with columns judge, item, label (the better model's answer, 1 or 2), winner_unswapped, winner_swapped
    """
    items = arena.sample_battles(prompts, n_items, rng)
    by_prompt = prompts.set_index("prompt").loc[items["prompt"]].reset_index()
    parts = []
    for name, bias in biases.items():
        odds = []
        for added in (0.0, bias, -bias):  # the truth; output 1 shown first; output 2 shown first
            win, _, loss = arena.outcome_probability(by_prompt, items["model_a"], items["model_b"], added).T
            odds.append(win / (win + loss))
        says_one = rng.random((2, n_items)) < odds[1:]
        part = {"label": odds[0] < 0.5, "winner_unswapped": ~says_one[0], "winner_swapped": ~says_one[1]}
        table = pd.DataFrame({column: 1 + values.astype(np.int64) for column, values in part.items()})
        parts.append(table.assign(judge=name, item=np.arange(n_items)))
    return pd.concat(parts, ignore_index=True)


def _share(count: int, total: int) -> tuple[float, float, float]:
    """Return a share with its 95 % Wilson interval."""
    return count / total, *wilson_interval(count, total)


def first_answer_shares(battles: pd.DataFrame) -> pd.DataFrame:
    """How often the answer shown first and the one shown second won, by judge, over all battles.

    Returns
    -------
    DataFrame with columns judge, place ("first", "second"), share, low, high (95 %, Wilson), n_battles
    """
    rows = [
        (judge, place, *_share((part["winner"] == label).sum(), len(part)), len(part))
        for judge, part in battles.groupby("judge", sort=False)
        for label, place in PLACES.items()
    ]
    return pd.DataFrame(rows, columns=["judge", "place", "share", "low", "high", "n_battles"])


def both_order_shares(answers: pd.DataFrame) -> pd.DataFrame:
    """What judges answer who are asked about the same two outputs in both orders.

    Parameters
    ----------
    answers : DataFrame
        judge, label, winner_unswapped, winner_swapped, as `read_llmbar` has them: outputs, not places. A row that
        lacks an answer is left out.

    Returns
    -------
    DataFrame with columns judge, answer (one of `BOTH_ORDERS`), share, low, high (95 %, Wilson), n_items
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


def compare_rankings(battles: pd.DataFrame) -> pd.DataFrame:
    """What the first-answer term finds and what it changes, by judge, on battles as they were displayed.

    Returns
    -------
    DataFrame
        A row a judge: effect, low, high (log-odds, 95 %), largest_shift_elo (of a rating, once the term is there),
        spread_ratio (standard deviation of the ratings with the term over that without it), ranks_changed (models).
    """
    rows = []
    for judge, part in battles.groupby("judge", sort=False):
        fit = fit_position_effect(part)
        plain = fit_bradley_terry(count_pairs(part), "davidson").ratings
        shift = (fit.ratings - plain).abs().max() * ELO_PER_LOG_ODDS
        changed = int((fit.ratings.rank() != plain.rank()).sum())
        rows.append(
            (judge, fit.position_effect, *fit.position_interval(), shift, fit.ratings.std() / plain.std(), changed)
        )
    columns = ["judge", "effect", "low", "high", "largest_shift_elo", "spread_ratio", "ranks_changed"]
    return pd.DataFrame(rows, columns=columns)


def show_first(battles: pd.DataFrame, model: str) -> pd.DataFrame:
    """The battles in which `model` stands first or not at all; of the others each order of display is left."""
    return battles[battles["model_b"] != model]


def show_each_first(battles: pd.DataFrame) -> pd.DataFrame:
    """Ratings of every model from battles that always showed it first, beside those from all battles.

    Parameters
    ----------
    battles : DataFrame
        Of one judge, each pair of models displayed both ways round.

    Returns
    -------
    DataFrame
        model, term (whether the fit has a first-answer term), shift_elo (Elo points that the model stands higher than
        with the term on all battles), ranks_gained (places that it stands higher).
    """
    everything = fit_position_effect(battles).ratings
    rows = []
    for model in everything.index:
        part = show_first(battles, model)
        fits = {
            False: fit_bradley_terry(count_pairs(part), "davidson").ratings,
            True: fit_position_effect(part).ratings,
        }
        for term, ratings in fits.items():
            shift = (ratings[model] - everything[model]) * ELO_PER_LOG_ODDS
            rows.append((model, term, shift, ratings.rank()[model] - everything.rank()[model]))
    return pd.DataFrame(rows, columns=["model", "term", "shift_elo", "ranks_gained"])


def recover_known_bias(
    arena: SimulatedArena, prompts: pd.DataFrame, bias: float, model: str, n_battles: int, rng: np.random.Generator
) -> tuple[pd.DataFrame, PositionEffectFit]:
    """Ratings with and without the first-answer term beside the truth, where one model is always shown first.

    Parameters
    ----------
    arena : SimulatedArena
        Without topics, and `prompts` of the difficulty whose slope is 1, so that its mean ratings are the truth.
    bias : float
        Log-odds for the first answer.

    Returns
    -------
    table : DataFrame
        name (of a model, the best first), estimate ("without the term", "with the term"), value, low, high (95 %) and
        truth, in Elo points.
    fit : PositionEffectFit
    """
    battles = show_first(arena.sample_battles(prompts, n_battles, rng, bias), model)
    truth = pd.Series(arena.mean_ratings, index=arena.models)
    fit = fit_position_effect(battles)
    parts = []
    for name, found in ((TERMS[False], fit_bradley_terry(count_pairs(battles), "davidson")), (TERMS[True], fit)):
        table = found.interval().assign(value=found.ratings, truth=truth) * ELO_PER_LOG_ODDS
        parts.append(table.rename_axis("name").reset_index().assign(estimate=name))
    order = ["truth", "estimate"]
    return pd.concat(parts).sort_values(order, ascending=False, kind="stable").reset_index(drop=True), fit


def average_shifts(battles: pd.DataFrame) -> pd.DataFrame:
    """`show_each_first` for every judge, averaged over models.

    Returns
    -------
    DataFrame
        name (of the judge), estimate ("without the term", "with the term"), value (mean shift, Elo points), low, high
        (95 % interval of the mean over models), ranks_gained (mean).
    """
    rows = []
    for judge, part in battles.groupby("judge", sort=False):
        for term, shifts in show_each_first(part).groupby("term"):
            mean, width = shifts["shift_elo"].mean(), 1.96 * shifts["shift_elo"].std() / np.sqrt(len(shifts))
            rows.append((judge, TERMS[term], mean, mean - width, mean + width, shifts["ranks_gained"].mean()))
    return pd.DataFrame(rows, columns=["name", "estimate", "value", "low", "high", "ranks_gained"])
