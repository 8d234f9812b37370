"""Evaluate a router on one's own prompts, with a score of each model's answer, and choose its trade-off there.

Frontiers, curves and intervals are those of `routing.evaluation`. The shuffled control gives the router's own
choices to the same prompts in random order: it calls each model as often, so what the router has above it comes from
telling prompts apart. The numbers of the control are expectations over all orders, not of one draw.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from routing.battles import quote
from routing.commands.choice import RatedPrompts
from routing.evaluation.call_curve import bootstrap_metrics
from routing.evaluation.frontier import bootstrap_frontier, cost_quality_frontier, upper_hull
from routing.evaluation.resampling import paired_bootstrap
from routing.files import write_whole
from routing.policy.budget import ROUNDING, MultiModelPolicy, Prices, calibrate_threshold
from routing.routers.base import normalise_text

N_BUDGETS = 400  # points of each curve
N_RESAMPLES = 1000
CLOSE = 1e-9  # relative; trade-offs that differ by less do so by rounding
COLUMNS = ["router", "metric", "strong_share", "cost_usd", "estimate", "low", "high"]


def split_prompts(prompts: Sequence[str], share: float, seed: int) -> np.ndarray:
    """Return which prompts are to choose on, (n_prompts,) bool: about `share` of the texts, drawn by `seed`.

    Prompts of equal normalised text stay together. Raises ValueError where one part would be empty.
    """
    texts, number = np.unique([normalise_text(prompt) for prompt in prompts], return_inverse=True)
    n_chosen = round(share * len(texts))
    if not 0 < n_chosen < len(texts):
        raise ValueError(f"a split of {len(texts)} different prompts at {share} leaves a part without any")
    return np.isin(number, np.random.default_rng(seed).permutation(len(texts))[:n_chosen])


def choose_trade_off(
    expected: pd.DataFrame, prices: Prices, reached: pd.DataFrame, limit: float, side: Literal["most", "least"] = "most"
) -> MultiModelPolicy:
    """Return the policy whose choices have a mean of `reached` of at most, or of at least, `limit` on these prompts.

    Of those it is the one that spends most ("most"), or least ("least"). `reached`, (n_prompts, n_models), holds costs
    for a budget, scores for a quality, or 1 for one model and 0 elsewhere for its share of calls; other parameters as
    of `MultiModelPolicy`. Raises ValueError, which says what can be reached, where no policy is within the limit.
    """
    policy = MultiModelPolicy(prices)
    models, values, price = policy.align(expected)
    upgrades, rows = policy.upgrades(expected), np.arange(len(values))
    slopes = upgrades.quality_per_usd
    # No trade-off lies between slopes that differ by rounding alone: they are bought together.
    apart = np.append(slopes[1:] < slopes[:-1] * (1 - CLOSE), True)[: len(slopes)]
    ends = np.append(0, np.flatnonzero(apart) + 1)

    def means(table: np.ndarray) -> np.ndarray:
        table = np.broadcast_to(table, values.shape)
        climbed = np.append(0.0, upgrades.differences(table).cumsum())[ends]
        return (table[rows, upgrades.start].sum() + climbed) / len(rows)

    path = means(reached[list(models)].to_numpy(dtype=float))
    slack = ROUNDING * max(1e-300, abs(limit))
    within = np.flatnonzero(path <= limit + slack if side == "most" else path >= limit - slack)
    if not len(within):
        nearest = path.min() if side == "most" else path.max()
        raise ValueError(f"at {side} {limit:.6g} was asked for; the router's choices reach {nearest:.6g}")
    return policy.with_budget(expected, means(price)[within[-1] if side == "most" else within[0]])


def choose_threshold(
    p_strong: np.ndarray, reached: pd.DataFrame, limit: float, side: Literal["most", "least"]
) -> float:
    """Return the threshold for `routing.policy.route_pair`, as `choose_trade_off`; `reached`: strong and weak model."""
    strong, weak = reached.columns
    expected = pd.DataFrame({strong: p_strong, weak: 0.0})
    unit = choose_trade_off(expected, {strong: 1.0, weak: 0.0}, reached.reset_index(drop=True), limit, side)
    return calibrate_threshold(p_strong, float((p_strong > unit.quality_per_usd).mean()))


@dataclass(frozen=True, eq=False)
class OwnPrompts:
    """Rated prompts with the truth: tables of shape (n_prompts, n_models), of the same models."""

    rated: RatedPrompts
    quality: pd.DataFrame  # score of each answer
    cost_usd: pd.DataFrame  # dollars that it cost

    def select(self, mask: np.ndarray) -> OwnPrompts:
        """Return the same at the prompts at which `mask`, (n_prompts,) bool, is true."""
        tables = (table[mask].reset_index(drop=True) for table in (self.quality, self.cost_usd))
        return OwnPrompts(self.rated.select(mask), *tables)


def find_options(
    rated: RatedPrompts, cost_usd: pd.DataFrame, quality: pd.DataFrame | None, wish: str, limit: float
) -> dict[str, float]:
    """Return "threshold", for two models, and "lambda" of `RatedPrompts.choose` that meet a wish on these prompts.

    `wish` is "strong_share", "budget", "quality", or one of both options, which is returned as it is. A value found has
    as few digits as make the same choices here. Raises as `choose_trade_off`.
    """
    if wish in ("lambda", "threshold"):
        return {wish: limit}
    if wish == "strong_share" and rated.strong is None:
        raise ValueError("no candidate is the most expensive one in every column of prices, so none is the strong one")
    share = pd.DataFrame({model: float(model == rated.strong) for model in rated.win_share}, rated.win_share.index)
    reached = {"strong_share": share, "budget": cost_usd, "quality": quality}[wish]
    side = "least" if wish == "quality" else "most"
    found, fault = {}, None
    for option in ["lambda"] if rated.pair is None else ["threshold", "lambda"]:
        try:
            if option == "threshold":
                found[option] = choose_threshold(rated.p_strong, reached[rated.pair], limit, side)
            else:
                policy = choose_trade_off(rated.win_share, rated.price_usd, reached, limit, side)
                found[option] = policy.quality_per_usd
        except ValueError as error:  # a threshold may send every call to the strong model, a lambda of 0 not always
            fault = error
    if not found:
        raise ValueError(f"--{wish.replace('_', '-')}: {fault}")
    for option, exact in found.items():
        choices = rated.choose(option, exact)
        rounded = (float(f"{exact:.{digits}g}") for digits in range(3, 18))
        found[option] = next(value for value in rounded if (rated.choose(option, value) == choices).all())
    return found


def measure_choices(
    own: OwnPrompts, chosen: np.ndarray, best: str, n_resamples: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Return what choices of models by name, (n_prompts,), reach: estimate, low, high (95 % over prompts) by metric.

    The metrics are quality, cost_usd, shuffled (quality of the shuffled control), over_shuffled and over_best, quality
    minus that of the control and of the single model `best`.
    """
    place, rows = own.quality.columns.get_indexer(chosen), np.arange(len(chosen))
    score, cost = own.quality.to_numpy(), own.cost_usd.to_numpy()
    single = own.quality.columns.get_loc(best)

    def measure(weights: np.ndarray) -> np.ndarray:
        n = weights.sum()
        shares, means = np.bincount(place, weights, score.shape[1]) / n, weights @ score / n
        reached, control = weights @ score[rows, place] / n, shares @ means
        return np.array([reached, weights @ cost[rows, place] / n, control, reached - control, reached - means[single]])

    low, high, _ = paired_bootstrap(measure, len(rows), n_resamples, rng)
    numbers = {"estimate": measure(np.ones(len(rows))), "low": low, "high": high}
    metrics = ["quality", "cost_usd", "shuffled", "over_shuffled", "over_best"]
    return pd.DataFrame({"metric": metrics, **numbers})


def trace_shuffled(own: OwnPrompts) -> pd.DataFrame:
    """Return the shuffled control along the router's frontier: cost_usd, estimate (expected quality) of each point."""
    upgrades = MultiModelPolicy(own.rated.price_usd).upgrades(own.rated.win_share)
    bought = np.unique(np.linspace(0, len(upgrades.row), N_BUDGETS // 4).astype(int))
    n_prompts, n_models = own.quality.shape
    shares = np.array([np.bincount(upgrades.choice(n), minlength=n_models) for n in bought]) / n_prompts
    means = (table[list(upgrades.models)].mean().to_numpy() for table in (own.cost_usd, own.quality))
    return pd.DataFrame(dict(zip(("cost_usd", "estimate"), (shares @ mean for mean in means), strict=True)))


def evaluate(own: OwnPrompts, n_resamples: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return curves and metrics of a router, the oracle, the single models and the shuffled control: `COLUMNS`.

    Metric "quality" is mean quality at a mean cost, and for two models at a share of strong calls too. The others are
    those of `frontier.METRICS`; for two models also, as ``calls_...``, those of `call_curve.METRICS`, unless the strong
    model is no better than the weak one.
    """
    routers = {"router": own.rated.win_share, "oracle": own.quality}
    bands, metrics = bootstrap_frontier(
        routers, own.quality, own.cost_usd, n_resamples, rng, own.rated.price_usd, n_budgets=N_BUDGETS
    )
    singles = {"router": own.quality.columns, "cost_usd": own.cost_usd.mean(), "estimate": own.quality.mean()}
    curves = [bands.rename(columns={"quality": "estimate"}), pd.DataFrame(singles)]
    curves.append(trace_shuffled(own).assign(router="shuffled"))
    if own.rated.pair is not None:
        strong, weak = (own.quality[model].to_numpy() for model in own.rated.pair)
        routers["router"] = pd.DataFrame(
            dict(zip(own.rated.pair, (own.rated.p_strong, 0.0), strict=True)), own.quality.index
        )
        unit = pd.Series([1.0, 0.0], own.rated.pair)
        bands, _ = bootstrap_frontier(routers, own.quality, unit, n_resamples, rng, n_budgets=N_BUDGETS)
        curves.append(bands.rename(columns={"quality": "estimate", "cost_usd": "strong_share"}))
        if strong.mean() > weak.mean():
            scores = {"router": own.rated.p_strong, "oracle": strong - weak}
            found = bootstrap_metrics(scores, strong, weak, n_resamples, rng)
            metrics = pd.concat([metrics, found.assign(metric="calls_" + found["metric"])])
    parts = [*(curve.assign(metric="quality") for curve in curves), metrics]
    return pd.concat(parts, ignore_index=True).reindex(columns=COLUMNS)


def report(
    own: OwnPrompts, to_choose: np.ndarray, wish: tuple[str, float] | None, unit: str, rng: np.random.Generator
) -> tuple[pd.DataFrame, list[str]]:
    """Return the numbers of `evaluate` with those of the choice for a wish, and lines that say them.

    `to_choose`, (n_prompts,) bool: where the options for the wish and the best single model are found; all is measured
    on the other prompts, or where there are none on the same. Without a wish it is half of the calls for two models,
    and for more a budget midway between the cheapest and the best single model. `unit` is that of expected quality.
    """
    chosen_on, measured = own.select(to_choose), own.select(~to_choose if not to_choose.all() else to_choose)
    alone = pd.DataFrame({"usd": chosen_on.cost_usd.mean(), "score": chosen_on.quality.mean()})
    best = alone.sort_values(["score", "usd"], ascending=[False, True]).index[0]
    cheapest = alone.sort_values(["usd", "score"], ascending=[True, False]).index[0]
    if wish is None:
        first = chosen_on.cost_usd.to_numpy()[
            np.arange(to_choose.sum()), chosen_on.rated.price_usd.to_numpy().argmin(axis=1)
        ]
        half = max(alone.loc[[best, cheapest], "usd"].mean(), first.mean())
        wish = ("budget", half) if own.rated.pair is None else ("strong_share", 0.5)
    numbers = evaluate(measured, N_RESAMPLES, rng)
    by_name = numbers[numbers["metric"] != "quality"].set_index(["router", "metric"])[["estimate", "low", "high"]]

    def say(metric: str, form: str = ".3f", router: str = "router") -> str:
        return _interval(by_name.loc[(router, metric)], form)

    lines = []
    for name, model in (("best", best), ("cheapest", cheapest)):
        score, usd = measured.quality[model].mean(), measured.cost_usd[model].mean()
        lines.append(f"{name} single model: {quote(model)}, score {score:.3f}, {usd:.3g} dollars a call")
    gain, oracle = say("aiq_gain", "+.3f"), say("apgr", router="oracle").split()[0]
    lines.append(
        f"over all budgets: APGR {say('apgr')} (oracle {oracle}); AIQ {say('aiq')}, above random mixing by {gain}"
    )
    lines.append(f"cost of the best single model's score: {say('cost_share', '.0%')} of that model's")
    if own.rated.pair is not None:
        strong, weak = map(quote, own.rated.pair)
        told = f"PGR is not defined: {strong}, the more expensive model, scores no better than {weak}"
        if ("router", "calls_apgr") in by_name.index:
            metrics = {"APGR": "calls_apgr", "CPT(50%)": "calls_cpt50", "CPT(80%)": "calls_cpt80"}
            told = ", ".join(f"{name} {say(metric)}" for name, metric in metrics.items()) + " (random 0.5, 0.5, 0.8)"
        lines.append(f"by share of calls to {strong}: {told}")
    options = find_options(chosen_on.rated, chosen_on.cost_usd, chosen_on.quality, *wish)
    units = {"lambda": f"{unit} per dollar", "threshold": f"P({quote(own.rated.strong)} wins)"}
    told = " or ".join(f"--{option} {value!r} ({units[option]})" for option, value in options.items())
    lines.append(f"for {wish[0].replace('_', ' ')} {wish[1]:.6g}: {told}")
    limits = cost_quality_frontier(measured.quality, measured.quality, measured.cost_usd, measured.rated.price_usd)
    choices = {option: measured.rated.choose(option, value) for option, value in options.items()}
    for option, chosen in choices.items():
        if option != next(iter(choices)) and (chosen == next(iter(choices.values()))).all():
            continue
        found = measure_choices(measured, chosen, best, N_RESAMPLES, rng)
        numbers = pd.concat([numbers, found.assign(router=f"--{option} {options[option]!r}")], ignore_index=True)
        score, usd, control, gain, over = found[["estimate", "low", "high"]].itertuples(index=False)
        calls = [f"{quote(model)} {(chosen == model).mean():.1%}" for model in own.quality if (chosen == model).any()]
        lines += [
            f"--{option}: score {_interval(score)}, dollars a call {_interval(usd, '.3g')}; calls: {', '.join(calls)}",
            f"  minus these choices given to random prompts ({control.estimate:.3f}): {_interval(gain, '+.3f')}",
            f"  minus the best single model: {_interval(over, '+.3f')}; the oracle scores"
            f" {limits.quality_at(usd.estimate):.3f} at this cost",
        ]
    return numbers, lines


def describe(
    prompts: Sequence[str], models: Sequence[str], to_choose: np.ndarray, learned: np.ndarray | None
) -> list[str]:
    """Return lines that say what was measured on, and how many prompts the router learned from (`find_learned`)."""
    n_different = len(set(map(normalise_text, prompts)))
    repeated = "" if n_different == len(prompts) else f" ({n_different} different; intervals take rows as independent)"
    lines = [f"{len(prompts)} prompts{repeated} with scores of {len(models)} models: {quote(', '.join(models))}"]
    if to_choose.all():
        lines.append("options are chosen and measured on the same prompts, which flatters them; --split 0.5 parts them")
    else:
        lines.append(
            f"options are chosen on {to_choose.sum()} prompts; all is measured on the other {(~to_choose).sum()}"
        )
    if learned is None:
        lines.append("whether these are training prompts cannot be checked: the router keeps no record of its own")
    else:
        advice = "; leave them out, for they flatter the router" if learned.any() else ""
        lines.append(f"{learned.sum()} of them are training prompts of the router (by normalised text){advice}")
    return lines


def save(numbers: pd.DataFrame, models: Sequence[str], table: Path, figure: Path) -> list[Path]:
    """Write the numbers, and where matplotlib is installed the figure; return the files written."""
    with write_whole(table) as partial:
        numbers.to_csv(partial, index=False)
    try:
        with write_whole(figure) as partial:
            plot_evaluation(numbers, models, partial)
    except ModuleNotFoundError as error:
        warnings.warn(f'no figure: {error.name} is not installed (pip install "routing[notebooks]")', stacklevel=2)
        return [table]
    return [table, figure]


def _interval(row: Iterable[float], form: str = ".3f") -> str:
    if np.isnan(values := list(row)).any():
        return f"{format(values[0], form)} (no interval: too few prompts)" if values[0] == values[0] else "undefined"
    cells = ["never" if value == np.inf else format(value, form) for value in values]
    return f"{cells[0]} [{cells[1]}, {cells[2]}]"


def plot_evaluation(numbers: pd.DataFrame, models: Sequence[str], path: Path) -> None:
    """Draw the curves that `evaluate` returned: against the share of strong calls for a pair, else against dollars."""
    from matplotlib.figure import Figure  # only a figure needs it

    pair = numbers["strong_share"].notna().any()
    x, unit = ("strong_share", 1) if pair else ("cost_usd", 1000)
    figure = Figure((7, 4.5), layout="constrained", dpi=150)
    axis = figure.subplots()
    points = numbers[(numbers["metric"] == "quality") & numbers[x].notna()]
    ends = points[points["router"].isin(models)] if not pair else points[points["router"] == "router"].iloc[[0, -1]]
    corners = upper_hull(ends[x].to_numpy(), ends["estimate"].to_numpy())
    random = np.linspace(ends[x].min(), ends[x].max(), 200)
    axis.plot(unit * random, np.interp(random, *corners), "--", color="#949494", label="models mixed at random")
    for name, style in {"oracle": "k:", "shuffled": "C1-.", "router": "C0-"}.items():
        line = points[points["router"] == name].sort_values(x, kind="stable")
        if len(line):
            axis.plot(unit * line[x], line["estimate"], style, label=name)
    axis.fill_between(unit * line[x], line["low"].astype(float), line["high"].astype(float), alpha=0.2, linewidth=0)
    if not pair:
        axis.plot(unit * ends[x], ends["estimate"], "o", color="0.35", markersize=4)
        for row in ends.itertuples():
            axis.annotate(row.router, (unit * row.cost_usd, row.estimate), (4, -10), textcoords="offset points", size=8)
        if 0 < ends[x].min() < ends[x].max() / 20:
            axis.set_xscale("log")
    label = "share of calls to the strong model" if pair else "dollars per 1,000 calls"
    axis.set(
        xlabel=label, ylabel="mean score", title="The router (95 % band over prompts) and what it is compared with"
    )
    axis.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None}, format="png")
