"""Bradley-Terry ratings from pair counts: maximum likelihood, its uncertainty, and tiers.

Model i beats model j with probability sigma(theta_i - theta_j) [BradleyTerry52]; ties as in `tie_models`.
The likelihood of a battle table depends on it through its pair counts alone, so the fit works on pairs,
never on rows: 129 models and 1.67 million votes are 3,460 numbers of each outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components
from scipy.special import xlogy
from scipy.stats import norm

from routing.battles import PairCounts
from routing.ratings.newton import (
    PairSums,
    divergence,
    information,
    laplacian,
    outcome_terms,
    pair_sums,
    solve_linear,
    solve_ratings,
)
from routing.ratings.ties import TIE_MODELS, OutcomeTerms, outcome_probability

ELO_PER_LOG_ODDS = 400 / np.log(10)


@dataclass(frozen=True)
class BradleyTerryFit:
    """Ratings of every model, with what is needed to judge them.

    Attributes
    ----------
    ratings : Series, shape (n_models,)
        Log-odds, mean 0, indexed by model.
    covariance : array, shape (n_models, n_models)
        Sandwich covariance of the ratings [White82]: right also where the model is not.
    ties : str
        How ties were treated, one of `TIE_MODELS`.
    tie_parameter : float
        nu of Davidson's model, log-threshold of the Rao-Kupper model; for "half" and "drop" the share of ties.
    log_likelihood : float
        Of all battles with their three outcomes, in nats; "half" and "drop" predict the share of ties.
    """

    ratings: pd.Series
    covariance: np.ndarray
    ties: str
    tie_parameter: float
    log_likelihood: float
    n_battles: float
    n_iterations: int
    converged: bool

    @property
    def tie(self) -> float:
        """The tie parameter, by its short name."""
        return self.tie_parameter

    def _rating(self, model: str) -> float:
        if model not in self.ratings.index:
            raise ValueError(
                f"no rating of model {model!r}; there are {len(self.ratings)}: {_some(self.ratings.index)}"
            )
        return float(self.ratings[model])

    def elo(self, anchor: str = "mixtral-8x7b-instruct-v0.1", anchor_elo: float = 1114.0) -> pd.Series:
        """Ratings in Elo points (400 for odds of ten to one), moved so that `anchor` stands at `anchor_elo`."""
        return (ELO_PER_LOG_ODDS * (self.ratings - self._rating(anchor)) + anchor_elo).rename("rating_elo")

    def interval(self, level: float = 0.95) -> pd.DataFrame:
        """Normal confidence interval of each rating, columns ``low`` and ``high``, log-odds."""
        width = norm.ppf((1 + level) / 2) * np.sqrt(np.diagonal(self.covariance))
        return pd.DataFrame({"low": self.ratings - width, "high": self.ratings + width})

    def outcome_probability(self, model_a: str, model_b: str) -> np.ndarray:
        """P(a wins), P(tie), P(b wins): shape (3,)."""
        return outcome_probability(self._rating(model_a) - self._rating(model_b), self.ties, self.tie_parameter)

    def win_probability(self, model_a: str, model_b: str) -> float:
        """P(a wins) given that one of the two wins."""
        win, _, loss = self.outcome_probability(model_a, model_b)
        return float(win / (win + loss))


def _some(names, limit: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def check_estimable(counts: PairCounts, ties: str) -> None:
    """Raise unless finite maximum-likelihood ratings exist: every split of the models has wins both ways [Ford57]."""
    models = np.array(counts.models, dtype=object)
    remedy = "leave them out, or give a prior (prior_strength=0.1, say)"
    played = counts.wins + counts.wins.T + (0 if ties == "drop" else counts.ties)
    n_groups, group = connected_components(played, directed=False)
    if n_groups > 1:
        smallest = models[group == np.argmin(np.bincount(group))]
        raise ValueError(
            f"the models fall into {n_groups} groups that never met, so that their ratings cannot be compared."
            f" One group: {_some(smallest)}; {remedy}"
        )
    beaten = counts.wins + (0 if ties == "drop" else counts.ties)
    n_groups, group = connected_components(beaten, directed=True, connection="strong")
    if n_groups > 1:
        ends = []  # groups that only won or only lost; in an acyclic graph of groups there are at least two
        for number in range(n_groups):
            inside = group == number
            won, lost = beaten[np.ix_(inside, ~inside)].sum(), beaten[np.ix_(~inside, inside)].sum()
            if won == 0 or lost == 0:
                ends.append((inside.sum(), _some(models[inside]), "lost" if won == 0 else "won"))
        _, names, what = min(ends)
        raise ValueError(
            f"{names} {what} every battle against the other models, so that no finite rating is the likeliest; {remedy}"
        )


def _check_ties(counts: PairCounts, ties: str) -> None:
    if ties not in TIE_MODELS:
        raise ValueError(f"ties is {ties!r}; use one of {', '.join(TIE_MODELS)}")
    if counts.n_battles == 0:
        raise ValueError("the pair counts hold no battle")
    if ties != "half" and not counts.wins.any():
        raise ValueError(f"all battles are ties, of which ties={ties!r} learns nothing; use ties='half'")


def _solved_as(counts: PairCounts, ties: str) -> tuple[str, bool]:
    """The likelihood to maximise, and whether it has a tie parameter: without ties the likeliest one is 0."""
    has_tie = ties in ("davidson", "rao_kupper") and bool(counts.ties.any())
    return (ties if has_tie else "half"), has_tie


def _drop_ties(counts: PairCounts) -> PairCounts:
    return PairCounts(counts.models, counts.wins, np.zeros_like(counts.ties))


def fit_bradley_terry(counts: PairCounts, ties: str = "half", prior_strength: float = 0.0) -> BradleyTerryFit:
    """Maximum-likelihood ratings of the models of `counts`.

    Parameters
    ----------
    counts : PairCounts
    ties : {"half", "davidson", "rao_kupper", "drop"}
        What a tie means, see `tie_models`.
    prior_strength : float
        Precision of a normal prior at 0 on each rating; 0 for none. With a prior, models that lost or won
        everything have finite ratings.

    Raises
    ------
    ValueError
        No battles or only ties, groups of models that never met, models that won or lost everything, a negative
        prior; the message names the models.
    RuntimeError
        Newton's method did not converge.
    """
    _check_ties(counts, ties)
    if not prior_strength >= 0:
        raise ValueError(f"prior_strength is {prior_strength}; it is a precision, 0 or more")
    if prior_strength == 0:
        check_estimable(counts, ties)
    n_models = len(counts.models)
    solved_as, has_tie = _solved_as(counts, ties)
    pairs = pair_sums(_drop_ties(counts) if ties == "drop" else counts)
    result = solve_ratings(pairs, n_models, solved_as, prior_strength)
    if not result.converged.all():
        raise RuntimeError(
            f"Newton's method did not converge in {result.n_iterations} iterations; a prior"
            " (prior_strength=0.1, say) makes the problem better conditioned"
        )
    terms = outcome_terms(pairs, result.ratings, result.tie, solved_as)
    log_likelihood = float((pairs.outcomes * terms.log_probability).sum())
    tie_parameter = float(np.exp(result.tie[0])) if solved_as == "davidson" else float(result.tie[0])
    if not has_tie:
        n_ties = counts.ties.sum() / 2
        tie_parameter = n_ties / counts.n_battles
        delta = result.ratings[0][:, None] - result.ratings[0][None, :]
        log_likelihood = float(-(counts.wins * np.logaddexp(0, -delta)).sum())
        log_likelihood += float(xlogy(n_ties, tie_parameter) + xlogy(counts.n_battles - n_ties, 1 - tie_parameter))
    return BradleyTerryFit(
        ratings=pd.Series(result.ratings[0], index=pd.Index(counts.models, name="model"), name="rating"),
        covariance=_sandwich(pairs, terms, n_models, has_tie, prior_strength),
        ties=ties,
        tie_parameter=tie_parameter,
        log_likelihood=log_likelihood,
        n_battles=counts.n_battles,
        n_iterations=result.n_iterations,
        converged=True,
    )


def _sandwich(pairs: PairSums, terms: OutcomeTerms, n_models: int, has_tie: bool, prior_strength: float) -> np.ndarray:
    """A^-1 B A^-1 of the ratings; A: information, B: sum over battles of score times score'."""
    curvature = information(pairs, terms, n_models, has_tie, prior_strength)
    scores = laplacian(pairs, (pairs.outcomes * terms.slope**2).sum(axis=0), n_models)[0]
    if has_tie:
        cross = divergence(pairs, (pairs.outcomes * terms.slope * terms.tie_slope).sum(axis=0), n_models)[0]
        corner = (pairs.outcomes * terms.tie_slope**2).sum()
        scores = np.block([[scores, cross[:, None]], [cross[None, :], corner]])
    half = solve_linear(curvature[0], scores)
    covariance = solve_linear(curvature[0], half.T)[:n_models, :n_models]
    return (covariance + covariance.T) / 2


class Resampling(NamedTuple):
    """What every block of bootstrap resamples starts from; made by `prepare_resampling`."""

    models: tuple[str, ...]
    pairs: PairSums  # one problem: the counts themselves
    ties: str
    solved_as: str
    prior_strength: float
    start: np.ndarray  # (n_models,) the ratings of the counts

    def blocks(self, n_resamples: int, rng: np.random.Generator) -> list[tuple[int, int, np.random.SeedSequence]]:
        """Number of the first resample, number of resamples and seed of each block.

        A block has a seed of its own, so that blocks may be drawn in any order and in any process.
        """
        size = int(np.clip(16_000_000 // max(self.pairs.outcomes.size, len(self.models) ** 2), 1, 64))  # <= 128 MB each
        begins = range(0, n_resamples, size)
        seeds = rng.bit_generator.seed_seq.spawn(len(begins))
        return [(begin, min(size, n_resamples - begin), seed) for begin, seed in zip(begins, seeds, strict=True)]


def prepare_resampling(counts: PairCounts, ties: str = "half", prior_strength: float = 0.0) -> Resampling:
    """The fit that resamples start from, once it is known that `counts` can be resampled; as `bootstrap_ratings`."""
    fit = fit_bradley_terry(counts, ties, prior_strength)
    n_battles = round(counts.n_battles)
    if abs(n_battles - counts.n_battles) > 1e-9 * n_battles:
        raise ValueError(f"the counts add up to {counts.n_battles} battles; only whole battles can be drawn again")
    pairs = pair_sums(_drop_ties(counts) if ties == "drop" else counts)
    return Resampling(counts.models, pairs, ties, _solved_as(counts, ties)[0], prior_strength, fit.ratings.to_numpy())


def resample_ratings(resampling: Resampling, first: int, size: int, seed: np.random.SeedSequence) -> np.ndarray:
    """Ratings of one block of resamples, (size, n_models); `first` numbers them in messages."""
    pairs, n_models = resampling.pairs, len(resampling.models)
    cells = pairs.outcomes[:, 0, :].T.ravel()
    n_drawn = round(cells.sum())  # without the ties where these are dropped
    drawn = np.random.default_rng(seed).multinomial(n_drawn, cells / cells.sum(), size=size).astype(float)
    outcomes = np.ascontiguousarray(drawn.reshape(size, -1, 3).transpose(2, 0, 1))
    problems = PairSums(pairs.first, pairs.second, outcomes)
    result = solve_ratings(problems, n_models, resampling.solved_as, resampling.prior_strength, start=resampling.start)
    if not result.converged.all():
        failed = int(np.argmin(result.converged))
        _raise_for_resample(resampling.models, pairs, outcomes[:, failed], resampling.ties, first + failed)
    return result.ratings


def bootstrap_ratings(
    counts: PairCounts,
    n_resamples: int,
    rng: np.random.Generator,
    ties: str = "half",
    prior_strength: float = 0.0,
) -> np.ndarray:
    """Ratings refitted on resampled battles: (n_resamples, n_models), log-odds, each row of mean 0.

    Battles are drawn with replacement. As (a, b, a wins) and (b, a, b wins) are one and the same outcome here,
    the draw with a given seed does not depend on how the battles were written. Blocks of resamples draw from
    children of the generator's seed (`SeedSequence.spawn`): a second call with the same generator draws anew.

    Raises
    ------
    ValueError
        Counts that do not add up to a whole number of battles, and as `fit_bradley_terry`, also for a resample.
    """
    resampling = prepare_resampling(counts, ties, prior_strength)
    blocks = [resample_ratings(resampling, *block) for block in resampling.blocks(n_resamples, rng)]
    return np.concatenate([np.empty((0, len(counts.models))), *blocks])


def _raise_for_resample(models: tuple[str, ...], pairs: PairSums, outcomes: np.ndarray, ties: str, number: int) -> None:
    """Say why a resample has no finite ratings."""
    wins, tied = np.zeros((2, len(models), len(models)))
    wins[pairs.first, pairs.second], wins[pairs.second, pairs.first] = outcomes[0], outcomes[2]
    tied[pairs.first, pairs.second] = tied[pairs.second, pairs.first] = outcomes[1]
    try:
        check_estimable(PairCounts(models, wins, tied), ties)
    except ValueError as error:
        raise ValueError(f"in resample {number} {error}") from None
    raise RuntimeError(f"Newton's method did not converge in resample {number}; give a prior (prior_strength=0.1, say)")


def rating_tiers(ratings: pd.Series, n_tiers: int) -> pd.Series:
    """Tier of each model, 0 the strongest: the split into runs of ratings with the least squared deviation.

    Exact dynamic programming over the sorted ratings, as in RouteLLM [RouteLLM24]. Equal ratings share a tier.

    Raises
    ------
    ValueError
        A rating that is not finite, or fewer different ratings than tiers.
    """
    if not np.isfinite(ratings.to_numpy(dtype=float)).all():
        raise ValueError(f"no finite rating of {_some(ratings.index[~np.isfinite(ratings.to_numpy(dtype=float))])}")
    values, inverse, weight = np.unique(-ratings.to_numpy(dtype=float), return_inverse=True, return_counts=True)
    n_values = len(values)
    if not 1 <= n_tiers <= n_values:
        raise ValueError(f"n_tiers is {n_tiers}; with {n_values} different ratings it is between 1 and {n_values}")
    values = values - values.mean()
    size, total, square = (np.concatenate([[0.0], np.cumsum(weight * values**k)]) for k in range(3))

    def deviation(begin: np.ndarray, end: int) -> np.ndarray:
        """Squared deviation of values[begin:end] from their mean."""
        return square[end] - square[begin] - (total[end] - total[begin]) ** 2 / (size[end] - size[begin])

    best = np.full((n_tiers + 1, n_values + 1), np.inf)
    cut = np.zeros((n_tiers + 1, n_values + 1), dtype=np.int64)
    best[0, 0] = 0.0
    for tier in range(1, n_tiers + 1):
        for end in range(tier, n_values + 1):
            begin = np.arange(tier - 1, end)
            cost = best[tier - 1, begin] + deviation(begin, end)
            cut[tier, end] = begin[np.argmin(cost)]
            best[tier, end] = cost.min()
    tiers, end = np.empty(n_values, dtype=np.int64), n_values
    for tier in range(n_tiers, 0, -1):
        tiers[cut[tier, end] : end] = tier - 1
        end = cut[tier, end]
    return pd.Series(tiers[inverse], index=ratings.index, name="tier")
