"""Estimates that do not exist: a linear programme as oracle, and a certificate for those that do.

`benchmarks/existence.py` runs the same checks on 10,000 tables.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from routing.battles import PairCounts
from routing.ratings.bradley_terry import BradleyTerryFit, fit_bradley_terry
from routing.ratings.ties import TIE_MODELS

NAMES = ("ant", "bee", "cat", "dog", "elk")
TIED = ("davidson", "rao_kupper")


def random_table(rng: np.random.Generator) -> PairCounts:
    """Two to five models, many cells without a battle; weights whole, of one extreme scale, or of several scales."""
    n_models = int(rng.integers(2, 6))
    kept = rng.random((2, n_models, n_models)) < rng.choice([0.2, 0.4, 0.7, 1.0], size=2)[:, None, None]
    weights = rng.integers(1, 6, kept.shape) * rng.choice([1.0, 1.0, 10.0 ** rng.uniform(-300, 300)])
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


@settings(max_examples=250)
@given(st.integers(0, 2**32 - 1))
def test_a_fit_is_the_maximum_or_is_refused_where_the_linear_programme_finds_none(seed):
    rng = np.random.default_rng(seed)
    counts = random_table(rng)
    for ties in TIE_MODELS:
        check_table(counts, ties)
        check_table(counts, ties, prior_strength=10 ** rng.uniform(-5, 2))
    check_invalid(counts, rng)
