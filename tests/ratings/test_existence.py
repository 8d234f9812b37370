"""Estimates that do not exist: a linear programme as oracle, and a certificate for those that do.

`benchmarks/existence.py` runs the same checks on 10,000 tables.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from threadpoolctl import ThreadpoolController

from routing.battles import PairCounts
from routing.ratings.bradley_terry import (
    BradleyTerryFit,
    bootstrap_ratings,
    fit_bradley_terry,
    prepare_resampling,
    resample_ratings,
)
from routing.ratings.position_effect import fit_position_effect
from routing.ratings.ties import TIE_MODELS, expected_score

NAMES = ("ant", "bee", "cat", "dog", "elk")
TIED = ("davidson", "rao_kupper")


def random_table(rng: np.random.Generator) -> PairCounts:
    """Two to five models, many cells without a battle; weights whole, of one extreme scale, or of several scales."""
    n_models = int(rng.integers(2, 6))
    kept = rng.random((2, n_models, n_models)) < rng.choice([0.2, 0.4, 0.7, 1.0], size=2)[:, None, None]
    weights = rng.integers(1, 6, kept.shape) * rng.choice([1.0, 1.0, 10.0 ** rng.uniform(-300, 285)])
    weights *= 10.0 ** rng.uniform(0, rng.choice([0, 0, 0, 3, 9, 15]), kept.shape)
    wins, ties = weights * kept
    ties = np.triu(ties, 1)
    np.fill_diagonal(wins, 0)
    return PairCounts(NAMES[:n_models], wins, ties + ties.T)


def observed(counts: PairCounts, ties: str) -> list[tuple[int, int, str, float]]:
    """Every kind of outcome that happened: (i, j, "win" of i or "tie", weight)."""
    pairs = [(i, j) for i in range(len(counts.models)) for j in range(len(counts.models)) if i != j]
    won = [(i, j, "win", counts.wins[i, j]) for i, j in pairs if counts.wins[i, j] > 0]
    tied = [(i, j, "tie", counts.ties[i, j]) for i, j in pairs if i < j and counts.ties[i, j] > 0 and ties != "drop"]
    return won + tied


def oracle_says_finite(counts: PairCounts, ties: str) -> bool:
    """Whether every direction in which no log-probability ever falls is the common shift of all ratings.

    From the log-probabilities: a log-softmax never falls where its logit gains at least what the others gain, and
    log sigma(x) never falls where x does not.
    """
    n_models, rows = len(counts.models), []
    outcomes = observed(counts, ties)
    has_tie = ties in TIED and any(kind == "tie" for _, _, kind, _ in outcomes)

    def row(i: int, j: int, by_delta: float, by_tie: float) -> None:
        rows.append(np.zeros(n_models + has_tie))
        rows[-1][i], rows[-1][j] = by_delta, -by_delta
        if has_tie:
            rows[-1][-1] = by_tie

    for i, j, kind, _ in outcomes:
        if not has_tie:  # sigma(delta), half of each for a tie
            row(i, j, 1, 0)
            if kind == "tie":
                row(i, j, -1, 0)
        elif kind == "win":
            row(i, j, *((0.5, -1) if ties == "davidson" else (1, -1)))
            if ties == "davidson":
                row(i, j, 1, 0)
        else:
            row(i, j, *((0.5, 1) if ties == "davidson" else (1, 1)))
            row(i, j, *((-0.5, 1) if ties == "davidson" else (-1, 1)))
    if not rows:
        return False
    gains = np.array(rows)
    if np.linalg.matrix_rank(gains) < n_models - 1 + has_tie:
        return False
    limits = np.repeat([1.0, 0.0], len(gains))
    best = linprog(-gains.sum(axis=0), np.concatenate([gains, -gains]), limits, bounds=(None, None))
    return -best.fun < 1e-6


def largest_imbalance(counts: PairCounts, fit: BradleyTerryFit, prior_strength: float = 0.0) -> float:
    """The gradient at a fit, over the sum of its terms' sizes, by every set of models and by the tie parameter.

    It is 0 at the maximum and nowhere else. A set of models that is far heavier than its links to the others hides
    nothing here, as each set has a sum of its own.
    """
    theta, tie = fit.ratings.to_numpy().astype(np.longdouble), np.longdouble(fit.tie_parameter)
    flows, by_tie = [], []

    def sigma(x):
        return 1 / (1 + np.exp(-x))

    for i, j, kind, weight in observed(counts, fit.ties):
        delta, weight = theta[i] - theta[j], np.longdouble(weight)
        if fit.ties == "davidson":
            total = np.exp(delta / 2) + tie + np.exp(-delta / 2)
            win, draw, loss = np.exp(delta / 2) / total, tie / total, np.exp(-delta / 2) / total
            terms = [loss + draw / 2] if kind == "win" else [loss / 2, -win / 2]
            by_tie += [-weight * draw] if kind == "win" else [weight * win, weight * loss]
        elif fit.ties == "rao_kupper":
            up, down = sigma(-(tie + delta)), sigma(-(tie - delta))
            terms = [sigma(tie - delta)] if kind == "win" else [up, -down]
            if kind == "win":
                by_tie.append(-weight * sigma(tie - delta))
            else:
                by_tie += [weight * up, weight * down, weight * 2 / np.expm1(2 * tie)]
        else:
            terms = [sigma(-delta)] if kind == "win" else [sigma(-delta) / 2, -sigma(delta) / 2]
        flows += [(i, j, weight * term) for term in terms]
    if fit.ties in TIED and prior_strength:
        draw = tie / (2 + tie) if fit.ties == "davidson" else np.tanh(tie / 2)
        won = 2 * prior_strength / 3
        if fit.ties == "davidson":
            by_tie += [-won * draw, prior_strength / 3 * (1 - draw)]
        else:
            by_tie += [-won * sigma(tie), prior_strength / 3 / np.sinh(tie)]
    sums = [by_tie] if fit.ties in TIED and tie > 0 else []
    for size in range(1, len(theta)):
        for chosen in combinations(range(len(theta)), size):
            crossing = [f if i in chosen else -f for i, j, f in flows if (i in chosen) != (j in chosen)]
            sums.append([*crossing, *(-prior_strength * theta[i] for i in chosen)])
    floor = 1e-4 * prior_strength  # of ratings near 0
    return max(float(abs(sum(s)) / (sum(map(abs, s)) + floor)) if any(s) else 0.0 for s in sums)


def check_table(counts: PairCounts, ties: str, prior_strength: float = 0.0) -> str:
    """Return "fit", "none" (rightly refused) or "rounding"; AssertionError where the answer is wrong."""
    cells = np.concatenate([counts.wins[counts.wins > 0], counts.ties[counts.ties > 0]])
    empty = len(cells) == 0
    spread = 1.0 if empty else cells.max() / cells.min()
    if prior_strength:
        prior_strength *= 1.0 if empty else cells.max()
    finite = not empty and (prior_strength > 0 or oracle_says_finite(counts, ties))
    try:
        fit = fit_bradley_terry(counts, ties, prior_strength)
    except ValueError as error:
        assert not finite, f"refused, but the estimate is finite: {error}"
        named = "no battle" if empty else "all battles are ties" if not counts.wins.any() and ties != "half" else None
        assert named in str(error) if named else any(name in str(error) for name in counts.models), error
        assert empty or "prior_strength" in str(error), error
        return "none"
    except RuntimeError as error:
        assert finite and spread > 1e9 and any(name in str(error) for name in counts.models), error
        return "rounding"
    assert finite, f"no finite estimate, but ratings {fit.ratings.tolist()}, tie parameter {fit.tie_parameter}"
    values = [*fit.ratings, *fit.interval().to_numpy().ravel(), fit.tie_parameter]
    assert np.isfinite(values).all(), values
    assert largest_imbalance(counts, fit, prior_strength) < (1e-6 if spread < 1e6 else 2e-3)
    return "fit"


def break_table(counts: PairCounts, rng: np.random.Generator) -> tuple[dict, str]:
    """A table or a setting that is no table or no setting, and what a message about it has to hold."""
    i, j = rng.permutation(len(counts.models))[:2]
    wins, ties = counts.wins.copy(), counts.ties.copy()
    kind = rng.integers(6)
    if kind == 0:
        wins[i, j] = rng.choice([np.nan, np.inf, -1.0])
    elif kind == 1:
        ties[i, j] = ties[j, i] = rng.choice([np.nan, -np.inf, -1e-300])
    elif kind == 2:
        ties[i, j] += 1 + ties[i, j]
    elif kind == 3:
        wins[i, i] = 1.0
    table = {"models": counts.models, "wins": wins, "ties": ties}
    if kind == 4:
        return table | {"prior_strength": rng.choice([np.nan, -1.0, np.inf])}, "prior_strength is"
    if kind == 5:
        return table | {"tie_model": "elo"}, "ties is 'elo'"
    return table, counts.models[i]


def check_invalid(counts: PairCounts, rng: np.random.Generator) -> None:
    """ValueError that names the fault."""
    broken, expected = break_table(counts, rng)
    with pytest.raises(ValueError) as caught:
        counts = PairCounts(broken["models"], broken["wins"], broken["ties"])
        fit_bradley_terry(counts, broken.get("tie_model", "half"), broken.get("prior_strength", 0.0))
    assert expected in str(caught.value)


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1))
def test_a_fit_is_the_maximum_or_is_refused_where_the_linear_programme_finds_none(seed):
    rng = np.random.default_rng(seed)
    counts = random_table(rng)
    for ties in TIE_MODELS:
        check_table(counts, ties)
        check_table(counts, ties, prior_strength=10 ** rng.uniform(-5, 2))
    check_invalid(counts, rng)


# -- cases that were once answered with numbers -----------------------------------------------------------------------


def pair(won: float, tied: float, lost: float) -> PairCounts:
    return PairCounts(("new", "old"), np.array([[0, won], [lost, 0.0]]), np.array([[0, tied], [tied, 0.0]]))


@pytest.mark.parametrize("ties", TIED)
@pytest.mark.parametrize(("won", "tied"), [(2, 3), (1, 1), (5, 5), (1, 9), (500, 5), (5e-5, 4e-14)])
def test_who_never_lost_but_tied_is_named(ties, won, tied):
    with pytest.raises(ValueError, match=r"new never lost and old never won.*prior_strength"):
        fit_bradley_terry(pair(won, tied, 0), ties)
    fit = fit_bradley_terry(pair(won, tied, 0), ties, prior_strength=0.1)
    assert 0 < fit.ratings["new"] < 5 and 0 < fit.tie_parameter < 100
    assert fit_bradley_terry(pair(won, tied, 0)).ratings["new"] > 0  # half a win for each: the ties hold them together


@pytest.mark.parametrize("ties", TIED)
def test_a_chain_of_more_wins_than_ties_holds_models_that_never_met_both_ways(ties):
    """ant beat bee, bee beat cat, cat tied ant: in this circle wins outnumber ties, and not with a second tie in it."""
    wins, tied = np.zeros((2, 4, 4))
    wins[0, 1] = wins[1, 2] = 1
    tied[2, 0] = tied[0, 2] = 1
    three = PairCounts(NAMES[:3], wins[:3, :3], tied[:3, :3])
    assert largest_imbalance(three, fit_bradley_terry(three, ties)) < 1e-6
    tied[2, 3] = tied[3, 2] = tied[3, 0] = tied[0, 3] = 1
    tied[2, 0] = tied[0, 2] = 0
    with pytest.raises(ValueError, match="ant, dog never lost and cat, dog never won"):
        fit_bradley_terry(PairCounts(NAMES[:4], wins, tied), ties)


@pytest.mark.parametrize("ties", TIED)
def test_only_ties_have_an_infinite_tie_parameter_but_for_a_prior(ties):
    with pytest.raises(
        ValueError, match=f"all battles are ties.*tie parameter of '{ties}' is infinite.*prior_strength"
    ):
        fit_bradley_terry(pair(0, 9, 0), ties)
    fit = fit_bradley_terry(pair(0, 9, 0), ties, prior_strength=1.0)
    assert fit.ratings.tolist() == [0, 0] and fit.outcome_probability("new", "old")[1] == pytest.approx(28 / 30)


def test_ties_of_any_weight_are_a_share_of_one(rng):
    for _ in range(60):
        tied = np.triu(10 ** rng.uniform(0, 9, (5, 5)), 1)
        counts = PairCounts(NAMES, np.zeros((5, 5)), tied + tied.T)
        assert fit_bradley_terry(counts).tie_parameter == fit_bradley_terry(counts, "drop", 1.0).tie_parameter == 1.0


@pytest.mark.parametrize("ties", TIE_MODELS)
@pytest.mark.parametrize("outcomes", [(1, 0, 0), (0, 1, 0), (0, 0, 7), (0, 30, 0)])
def test_with_a_prior_any_table_has_an_estimate(ties, outcomes):
    fit = fit_bradley_terry(pair(*outcomes), ties, prior_strength=1e-6)
    assert largest_imbalance(pair(*outcomes), fit, 1e-6) < 1e-6
    assert np.isfinite(fit.interval()).all(axis=None)


def test_a_prior_too_weak_for_floats_is_named_and_a_stronger_one_helps():
    with pytest.raises(ValueError, match=r"prior_strength is 1e-12.*new won every battle"):
        fit_bradley_terry(pair(2, 0, 0), "davidson", prior_strength=1e-12)
    assert fit_bradley_terry(pair(2, 1, 1), "davidson", prior_strength=1e-12).ratings["new"] > 0


@pytest.mark.parametrize("ties", ["half", "davidson"])
def test_identical_outcomes_do_not_make_certain(ties):
    """One tie, or a model that only tied: the interval is that of the information, not of outcomes without a spread."""
    low, high = fit_bradley_terry(pair(0, 1, 0)).interval().loc["new"]
    assert high == -low == pytest.approx(1.96 * 1, abs=0.01)  # information p(1 - p) = 1/4 of the difference; sd 2 / 2
    wins, tied = np.zeros((2, 3, 3))
    wins[0, 1] = wins[1, 0] = 400
    tied[0, 1] = tied[1, 0] = 400
    tied[2, 0] = tied[0, 2] = 4
    fit = fit_bradley_terry(PairCounts(NAMES[:3], wins, tied), ties)
    gap = np.array([1, 0, -1])
    p_decided = 1 if ties == "half" else 2 / (2 + fit.tie_parameter)
    assert gap @ fit.covariance @ gap == pytest.approx(1 / (4 * p_decided / 4), rel=0.05)
    assert fit.interval().diff(axis=1)["high"]["cat"] > 2


def test_intervals_hold_the_truth_where_ties_are_many(rng):
    """Also of tables in which the two models only tied, a fifth of all."""
    inside = []
    for _ in range(500):
        won, tied, lost = rng.multinomial(8, [0.1, 0.8, 0.1])
        if won + lost in (0, 8) or (won and lost):
            low, high = fit_bradley_terry(pair(won, tied, lost)).interval().loc["new"]
            inside.append(low <= 0 <= high)
    assert np.mean(inside) > 0.93


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1e9, 1e300])
@pytest.mark.parametrize("ties", TIE_MODELS)
def test_weights_of_any_scale_are_the_same_fit(scale, ties):
    plain, scaled = (fit_bradley_terry(pair(*(s * np.array([7, 4, 3]))), ties) for s in (1.0, scale))
    assert scaled.ratings["new"] == pytest.approx(plain.ratings["new"], abs=1e-9)
    assert scaled.tie_parameter == pytest.approx(plain.tie_parameter, rel=1e-9)
    np.testing.assert_allclose(scaled.covariance * scale, plain.covariance, rtol=1e-6)


@pytest.mark.parametrize("odds", [1e3, 1e9, 1e15])
def test_long_odds_are_a_fit(odds):
    for ties in ("half", "davidson"):
        assert np.ptp(fit_bradley_terry(pair(odds, 0, 1), ties).ratings) == pytest.approx(np.log(odds), abs=1e-7)
    fit = fit_bradley_terry(pair(odds, 2, 1), "rao_kupper")
    np.testing.assert_allclose(fit.outcome_probability("new", "old") * (odds + 3), [odds, 2, 1], rtol=1e-6)


def test_weights_too_far_apart_for_floats_name_the_model():
    wins = np.array([[0, 1e30, 0], [1e30, 0, 1], [0, 1, 0]])
    try:
        fit = fit_bradley_terry(PairCounts(NAMES[:3], wins, np.zeros((3, 3))))
    except RuntimeError as error:
        assert any(name in str(error) for name in NAMES[:3])
    else:
        assert np.abs(fit.ratings).max() < 1e-3


def test_resamples_without_an_estimate_are_counted(rng):
    """A third of the resamples lack the only win of cat; where they lack the only tie, the tie parameter is 0."""
    wins = np.array([[0, 30, 29], [30, 0, 29], [1, 1, 0.0]])
    counts = PairCounts(NAMES[:3], wins, np.zeros((3, 3)))
    with pytest.raises(
        ValueError, match=r"\d+ of 200 resamples have no finite ratings: in resample \d+ cat lost.*prior"
    ):
        bootstrap_ratings(counts, 200, rng)
    assert np.abs(bootstrap_ratings(counts, 200, rng, prior_strength=0.5)).max() < 6
    rare = pair(700, 1, 680)
    for ties in TIED:
        assert np.abs(bootstrap_ratings(rare, 200, rng, ties)).max() < 0.5


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_a_resample_is_a_fit_of_its_own(seed):
    """What `bootstrap_ratings` gives for tables of few battles, or refuses, is what a fit of each resample gives."""
    rng = np.random.default_rng(seed)
    n_models = int(rng.integers(2, 4))
    wins, tied = rng.integers(0, 3, (2, n_models, n_models)) * (1 - np.eye(n_models))
    counts = PairCounts(NAMES[:n_models], wins, np.triu(tied) + np.triu(tied).T)
    ties = str(rng.choice(TIE_MODELS))
    if not (counts.n_battles and oracle_says_finite(counts, ties)):
        return
    resampling = prepare_resampling(counts, ties)
    (block,) = resampling.blocks(8, rng)
    drawn, rated = resampling.draw(*block), resample_ratings(resampling, *block)
    for number in range(8):
        one = drawn.counts(counts.models, number)
        finite = one.n_battles > 0 and oracle_says_finite(one, ties)
        assert np.isfinite(rated[number]).all() == finite
        if finite:
            np.testing.assert_allclose(rated[number], fit_bradley_terry(one, ties).ratings, atol=1e-7)


# -- the position effect ----------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1))
def test_a_position_effect_is_the_maximum_or_is_refused(seed):
    """Where no finite maximum exists, that of ever weaker priors runs away; where one exists, theirs come to it."""
    rng = np.random.default_rng(seed)
    names = np.array(NAMES[: int(rng.integers(2, 5))])
    first, second = rng.integers(0, len(names), (2, int(rng.integers(2, 16))))
    rows = pd.DataFrame({"model_a": names[first], "model_b": names[second]}).assign(
        winner=rng.choice(["model_a", "tie", "model_b"], len(first), p=rng.dirichlet([1, 1, 1]))
    )[first != second]
    if not len(rows):
        return
    weak, weaker = (fit_position_effect(rows, prior_strength=strength) for strength in (1e-5, 1e-8))
    moved = np.abs(np.append(weaker.ratings - weak.ratings, weaker.position_effect - weak.position_effect)).max()
    try:
        fit = fit_position_effect(rows)
    except ValueError as error:
        assert any(name in str(error) for name in names) or "first answer" in str(error) or "ties" in str(error)
        assert (
            moved > 0.5
            or weaker.tie_parameter > 10 * weak.tie_parameter
            or "told from" in str(error)
            or "never met" in str(error)
        )
    else:
        assert moved < 0.1
        np.testing.assert_allclose(fit.ratings, weaker.ratings, atol=1e-3)
        assert fit.position_effect == pytest.approx(weaker.position_effect, abs=1e-3)


# -- probabilities and settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", TIE_MODELS)
def test_win_probability_and_expected_score_are_those_of_the_counts(ties):
    fit = fit_bradley_terry(pair(500, 400, 100), ties)
    np.testing.assert_allclose(fit.outcome_probability("new", "old"), [0.5, 0.4, 0.1], atol=1e-7)
    assert fit.win_probability("new", "old") == pytest.approx(500 / 600, abs=1e-7)
    assert fit.expected_score("new", "old") == pytest.approx(0.7, abs=1e-7)
    assert fit.log_likelihood == pytest.approx(500 * np.log(0.5) + 400 * np.log(0.4) + 100 * np.log(0.1))


@given(st.floats(-40, 40), st.floats(0, 1))
def test_half_a_win_for_a_tie_means_that_the_rating_is_that_of_the_score(delta, share):
    assert expected_score(delta, "half", share) == pytest.approx(1 / (1 + np.exp(-delta)), rel=1e-12)


@pytest.mark.parametrize("level", [95, 1.0, 0.0, -0.5, np.nan])
def test_a_level_is_a_probability(level):
    with pytest.raises(ValueError, match="level is"):
        fit_bradley_terry(pair(2, 1, 1)).interval(level)


@pytest.mark.parametrize(("ties", "tie"), [("half", 1.2), ("drop", -0.1), ("davidson", np.nan), ("rao_kupper", -1.0)])
def test_a_tie_parameter_out_of_range_is_refused(ties, tie):
    with pytest.raises(ValueError, match=f"tie parameter of ties='{ties}' is"):
        expected_score(0.0, ties, tie)


def test_threads_that_fit_at_once_leave_no_limit_behind():
    controller = ThreadpoolController()
    before = [library["num_threads"] for library in controller.info()]
    counts = pair(5, 2, 3)
    with ThreadPoolExecutor(8) as pool:
        fits = list(pool.map(lambda _: fit_bradley_terry(counts, "davidson"), range(100)))
    assert len({fit.ratings["new"] for fit in fits}) == 1
    assert [library["num_threads"] for library in controller.info()] == before
