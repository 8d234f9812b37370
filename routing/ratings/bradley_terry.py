"""Bradley-Terry ratings from pair counts: maximum likelihood, whether it exists, its uncertainty, and tiers.

Model i beats model j with probability sigma(theta_i - theta_j) [BradleyTerry52]; ties as in `ties`.
The likelihood of a battle table depends on it through its pair counts alone, so the fit works on pairs,
never on rows: 129 models and 1.67 million votes are 3,460 numbers of each outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.linalg import lu_factor, lu_solve
from scipy.sparse.csgraph import NegativeCycleError, bellman_ford, connected_components
from scipy.special import ndtri

from routing.battles import PairCounts
from routing.ratings import newton
from routing.ratings.newton import NewtonResult, PairSums, pair_sums, solve_ratings
from routing.ratings.ties import TIE_MODELS, expected_score, fit_tie_share, outcome_probability

ELO_PER_LOG_ODDS = 400 / np.log(10)
WEAKEST_PRIOR = 1e-10  # per battle; a weaker one is lost in rounding


def half_width(variance: np.ndarray, level: float) -> np.ndarray:
    """Return half the width of normal confidence intervals at `level`, strictly between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it is a probability between 0 and 1, such as 0.95")
    return ndtri((1 + level) / 2) * np.sqrt(variance)


@dataclass(frozen=True)
class BradleyTerryFit:
    """Ratings of every model, with what is needed to judge them.

    The sandwich covariance [White82] is right also where the model is not. Where all outcomes between two groups of
    models are alike (all ties, say), they show no spread, and the outcomes that the model expects stand in their
    place. So after one tie two equal ratings have the variance of the inverse information, not 0.
    """

    ratings: pd.Series  # (n_models,) log-odds, mean 0, indexed by model
    covariance: np.ndarray  # (n_models, n_models) of the ratings
    ties: str  # one of `TIE_MODELS`
    tie_parameter: float  # as in `routing.ratings.ties`; 0 where nothing was tied and there was no prior
    log_likelihood: float  # nats, of all battles with their three outcomes, as `outcome_probability` predicts them
    n_battles: float
    n_iterations: int
    converged: bool

    @property
    def tie(self) -> float:
        """The tie parameter, by its short name."""
        return self.tie_parameter

    def _rating(self, model: str) -> float:
        if model not in self.ratings.index:
            known = f"{len(self.ratings)}: {name_some(self.ratings.index)}"
            raise ValueError(f"no rating of model {model!r}; there are {known}")
        return float(self.ratings[model])

    def elo(self, anchor: str = "mixtral-8x7b-instruct-v0.1", anchor_elo: float = 1114.0) -> pd.Series:
        """Return ratings in Elo points (400 for odds of ten to one), moved so that `anchor` stands at `anchor_elo`."""
        return (ELO_PER_LOG_ODDS * (self.ratings - self._rating(anchor)) + anchor_elo).rename("rating_elo")

    def interval(self, level: float = 0.95) -> pd.DataFrame:
        """Return the normal confidence interval of each rating, columns ``low`` and ``high``, log-odds."""
        width = half_width(np.diagonal(self.covariance), level)
        return pd.DataFrame({"low": self.ratings - width, "high": self.ratings + width})

    def outcome_probability(self, model_a: str, model_b: str) -> np.ndarray:
        """Return P(a wins), P(tie), P(b wins): shape (3,)."""
        return outcome_probability(self._rating(model_a) - self._rating(model_b), self.ties, self.tie_parameter)

    def win_probability(self, model_a: str, model_b: str) -> float:
        """Return P(a wins) given that one of the two wins; NaN where all battles are ties and the models equal."""
        win, _, loss = self.outcome_probability(model_a, model_b)
        return float(win / (win + loss)) if win + loss > 0 else np.nan

    def expected_score(self, model_a: str, model_b: str) -> float:
        """Return P(a wins) + P(tie) / 2: the share of battles that a is expected to win, a tie being half a win."""
        return float(expected_score(self._rating(model_a) - self._rating(model_b), self.ties, self.tie_parameter))


def name_some(names, limit: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


# -- whether a finite estimate exists ---------------------------------------------------------------------------------


def _all_reachable(graphs: np.ndarray) -> np.ndarray:
    """Return which graphs (n_graphs, n, n) lead from their first node to all others: (n_graphs,) bool."""
    reached = np.zeros(graphs.shape[:2], dtype=bool)
    reached[:, 0] = True
    while True:
        wider = reached | (graphs & reached[:, :, None]).any(axis=1)
        if (wider == reached).all():
            return reached.all(axis=1)
        reached = wider


def _outcome_graphs(pairs: PairSums, n_models: int) -> np.ndarray:
    """Return who beat whom and who tied whom in each problem: (2, n_problems, n_models, n_models) of bool."""
    there, back = pairs.first * n_models + pairs.second, pairs.second * n_models + pairs.first
    graphs = np.zeros((2, pairs.outcomes.shape[1], n_models**2), dtype=bool)
    for graph, onward, reverse in zip(graphs, (0, 1), (2, 1), strict=True):
        graph[:, there] = pairs.outcomes[onward] > 0
        graph[:, back] |= pairs.outcomes[reverse] > 0
    return graphs.reshape(2, -1, n_models, n_models)


def _wins_outnumber_ties(won: np.ndarray, tied: np.ndarray) -> bool:
    """Say whether some closed chain of results holds more wins than ties; every model is reachable from the first."""
    if (won & won.T).any():
        return True
    try:
        bellman_ford(np.where(won, -1.0, np.where(tied, 1.0, 0.0)), indices=0)
    except NegativeCycleError:
        return True
    return False


def find_estimable(pairs: PairSums, n_models: int, has_tie: bool) -> np.ndarray:
    """Return which problems have finite maximum-likelihood estimates: (n_problems,) bool.

    There is none if, and only if, the parameters can move in some direction (d, s) for ever without any observed
    outcome becoming less likely; d_i is what theta_i gains, and s what 2 log nu or tau does. In both models of ties a
    win of i over j asks for ``d_i - d_j >= max(s, 0)`` and a tie for ``|d_i - d_j| <= s``; elsewhere s = 0. By scale:

    - s = 0: only equal gains are left if, and only if, the graph of "beat or tied" is strongly connected [Ford57].
    - s = 1: these difference constraints have a solution unless the graph with an edge of length -1 for each win and
      edges of length 1 both ways for each tie has a cycle of negative length: a closed chain of more wins than ties.
    - s = -1 takes that nothing was tied; then nu or tau is 0, and the rest is s = 0.
    """
    won, tied = _outcome_graphs(pairs, n_models)
    beaten = won | tied
    found = _all_reachable(beaten) & _all_reachable(beaten.swapaxes(1, 2))
    for number in np.flatnonzero(found & has_tie & tied.any(axis=(1, 2))):
        found[number] = _wins_outnumber_ties(won[number], tied[number])
    return found


def explain_missing(counts: PairCounts, ties: str) -> str:
    """Say why pair counts that `find_estimable` refuses have no finite estimate, naming models, and what to do."""
    models, prior = np.array(counts.models, dtype=object), "give a prior (prior_strength=0.1, say)"
    if ties != "half" and not counts.wins.any():
        reason = "which ties='drop' leaves out" if ties == "drop" else f"so the tie parameter of {ties!r} is infinite"
        return f"all battles are ties, {reason}; {prior}"
    beaten = (counts.wins > 0) | ((counts.ties > 0) & (ties != "drop"))  # scipy takes a tiny weight for none
    n_groups, group = connected_components(beaten, directed=False)
    if n_groups > 1:
        smallest = name_some(models[group == np.argmin(np.bincount(group))])
        return (
            f"the models fall into {n_groups} groups that never met, so that their ratings cannot be compared."
            f" One group: {smallest}; leave it out, or {prior}"
        )
    n_groups, group = connected_components(beaten, directed=True, connection="strong")
    if n_groups == 1:
        unbeaten, winless = (name_some(models[~(counts.wins > 0).any(axis=axis)]) for axis in (0, 1))
        return (
            f"{unbeaten} never lost and {winless} never won, and no circle of results holds more wins than ties, so"
            f" that the likelihood rises for ever as ratings and tie parameter grow together; {prior}"
        )
    ends = []  # groups that only won or only lost; in an acyclic graph of groups there are at least two
    for inside in np.arange(n_groups)[:, None] == group:
        won, lost = beaten[inside][:, ~inside].any(), beaten[~inside][:, inside].any()
        if not (won and lost):
            ends.append((inside.sum(), name_some(models[inside]), "won" if won else "lost"))
    _, names, what = min(ends)
    return (
        f"{names} {what} every battle against the other models, so that no finite rating is the likeliest;"
        f" leave it out, or {prior}"
    )


# -- the fit ----------------------------------------------------------------------------------------------------------


def check_converged(result: NewtonResult, models: tuple[str, ...], what: str = "") -> None:
    """Raise RuntimeError, naming a model, unless every problem converged; `what` says of what the problems are."""
    if not result.converged.all():
        failed = int(np.argmin(result.converged))
        raise RuntimeError(
            f"the rating of {models[result.least_settled[failed]]}{what and f' in {what} {failed}'} cannot be told in"
            " the digits of a float: its battles weigh too little next to those of other models; leave it out, or give"
            " a stronger prior"
        )


def fit_bradley_terry(counts: PairCounts, ties: str = "half", prior_strength: float = 0.0) -> BradleyTerryFit:
    """Fit ratings to pair counts by maximum likelihood, with or without a prior; `ties` is one of `TIE_MODELS`.

    `prior_strength` is the precision of a normal prior at 0 on each rating, 0 for none, and the number of battles
    between equal models, a third of them ties, that regularise a tie parameter by adding
    ``prior_strength * (log P(tie) + 2 log P(win)) / 3`` at delta = 0 to the log-likelihood. With a prior, every table
    has a finite estimate: models that lost or won everything, groups that never met, ties alone.

    Raises
    ------
    ValueError
        No battles, a prior that is negative or not finite; or no finite estimate, or none but for a prior too weak for
        the digits of a float. The message names the models and says why (they never met, won everything, ...).
    RuntimeError
        Weights so far apart that a rating, which is named, is lost in rounding.
    """
    if ties not in TIE_MODELS:
        raise ValueError(f"ties is {ties!r}; use one of {', '.join(TIE_MODELS)}")
    if not 0 <= prior_strength < np.inf:
        raise ValueError(f"prior_strength is {prior_strength}; it is a precision, finite and 0 or more")
    if not counts.battles.any():
        raise ValueError("the pair counts hold no battle")
    pairs = pair_sums(counts)
    exponent = int(np.frexp(max(pairs.outcomes.max(), prior_strength))[1])  # of any scale: the largest becomes 0.5 to 1
    everything, prior = np.ldexp(pairs.outcomes, -exponent), float(np.ldexp(prior_strength, -exponent))
    pairs = pairs._replace(outcomes=everything if ties != "drop" else everything * [[[1.0]], [[0.0]], [[1.0]]])
    has_tie = ties in ("davidson", "rao_kupper") and bool(prior > 0 or counts.ties.any())
    if prior <= WEAKEST_PRIOR * everything.sum() and not find_estimable(pairs, len(counts.models), has_tie)[0]:
        weak = f"prior_strength is {prior_strength}, too little for the digits of a float, and without one "
        raise ValueError((weak if prior_strength else "") + explain_missing(counts, ties))
    result, covariance, log_likelihood = estimate(pairs, counts.models, ties if has_tie else "half", prior)
    (tie_parameter,) = np.exp(result.tie_parameter) if ties == "davidson" else result.tie_parameter
    if not has_tie:
        delta = result.ratings[0][pairs.first] - result.ratings[0][pairs.second]
        tie_parameter, log_likelihood = fit_tie_share(delta, everything[:, 0], ties)
    with np.errstate(over="ignore"):
        covariance, log_likelihood = np.ldexp(covariance, -exponent), float(np.ldexp(log_likelihood, exponent))
    return BradleyTerryFit(
        ratings=pd.Series(result.ratings[0], index=pd.Index(counts.models, name="model"), name="rating"),
        covariance=covariance,
        ties=ties,
        tie_parameter=float(tie_parameter),
        log_likelihood=log_likelihood,
        n_battles=counts.n_battles,
        n_iterations=result.n_iterations,
        converged=True,
    )


def _outcomes_alike(pairs: PairSums, n_models: int) -> np.ndarray:
    """Return which pairs lie between groups of models with all outcomes between them alike: (n_pairs,) bool.

    That is, groups that no decided battle links, or of which one won every battle against the other.
    """
    (won,), (tied,) = _outcome_graphs(pairs, n_models)
    decided, beaten = won | won.T, won | tied
    if _all_reachable(np.stack([decided, beaten, beaten.T])).all():
        return np.zeros(len(pairs.first), dtype=bool)
    groups = connected_components(decided)[1], connected_components(beaten, connection="strong")[1]
    return np.any([group[pairs.first] != group[pairs.second] for group in groups], axis=0)


def estimate(
    pairs: PairSums, models: tuple[str, ...], ties: str, prior_strength: float
) -> tuple[NewtonResult, np.ndarray, float]:
    """Solve one problem; return also the covariance A^-1 B A^-1 of ratings and position effect, and log-likelihood.

    `ties` is "half" where no tie parameter is estimated; A is the information, B the sum of score times score'.
    """
    n_models, has_tie = len(models), ties != "half"
    with newton.few_threads(n_models):
        result = solve_ratings(pairs, n_models, ties, prior_strength)
        check_converged(result, models)
        terms = result.terms
        curvature = newton.information(result.pairs, terms, n_models, has_tie, prior_strength)[0]
        outcomes = result.pairs.outcomes.copy()
        outcomes[..., len(pairs.first) :] = 0.0  # the prior of the tie parameter is no battle
        log_likelihood = float((outcomes * terms.log_probability).sum())
        alike = _outcomes_alike(result.pairs, n_models)
        if alike.any():
            expected = outcomes.sum(axis=0) * np.exp(terms.log_probability)
            if not has_tie:
                expected[1] = 0.0
            outcomes = np.where(alike, expected, outcomes)
        products = (terms.slope**2, terms.slope * terms.tie_slope, terms.tie_slope**2)[: 3 if has_tie else 1]
        squares = ((outcomes * part).sum(axis=0) for part in products)
        scores = newton.quadratic_form(result.pairs, n_models, *squares)[0]
        factors = lu_factor(curvature)
        covariance = lu_solve(factors, lu_solve(factors, scores).T)
    covariance[:n_models] -= covariance[:n_models].mean(axis=0)
    covariance[:, :n_models] -= covariance[:, :n_models].mean(axis=1, keepdims=True)
    size = n_models + (pairs.position is not None)
    covariance = (covariance[:size, :size] + covariance[:size, :size].T) / 2
    np.fill_diagonal(covariance, np.maximum(np.diagonal(covariance), 0.0))
    return result, covariance, log_likelihood


# -- bootstrap --------------------------------------------------------------------------------------------------------


class Resampling(NamedTuple):
    """What every block of bootstrap resamples starts from; made by `prepare_resampling`."""

    models: tuple[str, ...]
    pairs: PairSums  # one problem: the counts themselves
    ties: str
    prior_strength: float
    start: np.ndarray  # (n_models,) the ratings of the counts

    def blocks(self, n_resamples: int, rng: np.random.Generator) -> list[tuple[int, np.random.SeedSequence]]:
        """Return the number of resamples and the seed of each block.

        A block has a seed of its own, so that blocks may be drawn in any order and in any process.
        """
        size = int(np.clip(16_000_000 // max(self.pairs.outcomes.size, len(self.models) ** 2), 1, 64))  # <= 128 MB each
        begins = range(0, n_resamples, size)
        seeds = rng.bit_generator.seed_seq.spawn(len(begins))
        return [(min(size, n_resamples - begin), seed) for begin, seed in zip(begins, seeds, strict=True)]

    def draw(self, size: int, seed: np.random.SeedSequence) -> PairSums:
        """Draw a block of resamples as problems for the solver."""
        cells = self.pairs.outcomes[:, 0, :].T.ravel()
        n_drawn = round(cells.sum())  # without the ties where these are dropped
        drawn = np.random.default_rng(seed).multinomial(n_drawn, cells / cells.sum(), size=size).astype(float)
        return self.pairs._replace(outcomes=np.ascontiguousarray(drawn.reshape(size, -1, 3).transpose(2, 0, 1)))


def prepare_resampling(counts: PairCounts, ties: str = "half", prior_strength: float = 0.0) -> Resampling:
    """Fit what resamples start from, and check that `counts` can be resampled; as `bootstrap_ratings`."""
    fit = fit_bradley_terry(counts, ties, prior_strength)
    n_battles = round(counts.n_battles)
    if abs(n_battles - counts.n_battles) > 1e-9 * n_battles:
        raise ValueError(f"the counts add up to {counts.n_battles} battles; only whole battles can be drawn again")
    kept = counts if ties != "drop" else PairCounts(counts.models, counts.wins, np.zeros_like(counts.ties))
    return Resampling(counts.models, pair_sums(kept), ties, prior_strength, fit.ratings.to_numpy())


def resample_ratings(resampling: Resampling, size: int, seed: np.random.SeedSequence) -> np.ndarray:
    """Return the ratings of one block of resamples, (size, n_models), NaN where there is no finite estimate."""
    models, _, ties, prior_strength, start = resampling
    problems, n_models = resampling.draw(size, seed), len(models)
    has_tie = (prior_strength > 0) | problems.outcomes[1].any(axis=1) & (ties in ("davidson", "rao_kupper"))
    found = find_estimable(problems, n_models, has_tie.any()) if prior_strength == 0 else np.ones(size, dtype=bool)
    rated = np.full((size, n_models), np.nan)
    for solved_as, rows in ((ties, found & has_tie), ("half", found & ~has_tie)):  # without ties nu and tau are 0
        if rows.any():
            part = problems._replace(outcomes=problems.outcomes[:, rows])
            result = solve_ratings(part, n_models, solved_as, prior_strength, start=start)
            check_converged(result, models, "resample")
            rated[rows] = result.ratings
    return rated


def join_resamples(resampling: Resampling, blocks: list[tuple], rated: list[np.ndarray]) -> np.ndarray:
    """Return what `resample_ratings` gave for `blocks` as one array; ValueError for resamples without an estimate."""
    together = np.concatenate([np.empty((0, len(resampling.models))), *rated])
    missing = np.isnan(together[:, 0])
    if missing.any():
        number = int(np.argmax(missing))
        block, row = divmod(number, blocks[0][0])  # only the last block may be smaller
        reason = explain_missing(resampling.draw(*blocks[block]).counts(resampling.models, row), resampling.ties)
        share = f"{missing.sum()} of {len(missing)}"
        raise ValueError(f"{share} resamples have no finite ratings: in resample {number} {reason}")
    return together


def bootstrap_ratings(
    counts: PairCounts, n_resamples: int, rng: np.random.Generator, ties: str = "half", prior_strength: float = 0.0
) -> np.ndarray:
    """Refit ratings on resampled battles: (n_resamples, n_models), log-odds, each row of mean 0.

    Battles are drawn with replacement. As (a, b, a wins) and (b, a, b wins) are one and the same outcome here,
    the draw with a given seed does not depend on how the battles were written. Blocks of resamples draw from
    children of the generator's seed (`SeedSequence.spawn`): a second call with the same generator draws anew.

    Raises
    ------
    ValueError
        Counts that do not add up to a whole number of battles, and as `fit_bradley_terry`. Resamples without a finite
        estimate, which a prior gives them: the message says how many of all, and what is wrong with the first.
    """
    resampling = prepare_resampling(counts, ties, prior_strength)
    blocks = resampling.blocks(n_resamples, rng)
    return join_resamples(resampling, blocks, [resample_ratings(resampling, *block) for block in blocks])


# -- tiers ------------------------------------------------------------------------------------------------------------


def rating_tiers(ratings: pd.Series, n_tiers: int) -> pd.Series:
    """Split models into tiers, 0 the strongest: the split into runs of ratings with the least squared deviation.

    Exact dynamic programming over the sorted ratings, as in RouteLLM [RouteLLM24]. Equal ratings share a tier.

    Raises
    ------
    ValueError
        A rating that is not finite, or fewer different ratings than tiers.
    """
    finite = np.isfinite(ratings.to_numpy(dtype=float))
    if not finite.all():
        raise ValueError(f"no finite rating of {name_some(ratings.index[~finite])}")
    values, inverse, weight = np.unique(-ratings.to_numpy(dtype=float), return_inverse=True, return_counts=True)
    n_values = len(values)
    if not 1 <= n_tiers <= n_values:
        raise ValueError(f"n_tiers is {n_tiers}; with {n_values} different ratings it is between 1 and {n_values}")
    values = values - values.mean()
    sums = np.concatenate([np.zeros((3, 1)), np.cumsum([weight * values**k for k in range(3)], axis=1)], axis=1)
    size, total, square = sums[:, None, :] - sums[:, :, None]  # each (begin, end), of values[begin:end]
    deviation = np.where(size > 0, square - total**2 / np.maximum(size, 1), np.inf)  # squared, from their mean
    best, cuts = np.append(0.0, np.full(n_values, np.inf)), []
    for _ in range(n_tiers):
        reached = best[:, None] + deviation
        cuts.append(reached.argmin(axis=0))
        best = reached.min(axis=0)
    tiers, end = np.empty(n_values, dtype=np.int64), n_values
    for tier, cut in reversed(list(enumerate(cuts))):
        tiers[cut[end] : end] = tier
        end = cut[end]
    return pd.Series(tiers[inverse], index=ratings.index, name="tier")
