"""Own prompts: files of scores, the choice of lambda and threshold, the shuffled control, numbers of other modules."""

from __future__ import annotations

import os
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from routing.commands import own_prompts
from routing.commands.choice import RatedPrompts, rate_prompts
from routing.commands.own_files import read_prompts, read_scores
from routing.commands.own_prompts import OwnPrompts, find_options, measure_choices, report, split_prompts
from routing.evaluation.call_curve import bootstrap_metrics
from routing.policy.quality import win_share
from routing.routers.base import BradleyTerryRouter, Router

MODELS = ["ant", "bee", "cat"]


class Table(Router):
    """A router that rates prompts "0", "1", ... by the rows of a table."""

    def __init__(self, rating: np.ndarray, models=tuple(MODELS)) -> None:
        self.table, self.models, self.nu = rating, models, 0.5

    def fit(self, battles, embeddings=None):
        raise NotImplementedError

    def ratings(self, prompts):
        return self.table[[int(prompt) for prompt in prompts]]


def make(seed: int, n: int, n_models: int = 3, per_prompt: bool = False) -> OwnPrompts:
    """Random ratings and scores on a coarse grid, so that values are equal, priced by model or by prompt."""
    rng, models = np.random.default_rng(seed), MODELS[:n_models]
    router = Table(rng.integers(-3, 4, (n, n_models)) / 2, tuple(models))
    prices = pd.DataFrame({"usd_per_call": rng.permutation([0.001, 0.004, 0.01][:n_models])}, models)
    if per_prompt:
        prices = pd.DataFrame({"usd_per_million_input": prices.iloc[:, 0] * 1e5, "usd_per_million_output": 1.0})
    rated = rate_prompts(router, [str(number) for number in range(n)], prices)
    quality = pd.DataFrame(rng.integers(0, 3, (n, n_models)) / 2, columns=models)
    return OwnPrompts(rated, quality, rated.price_usd * rng.choice([0.5, 1, 2], (n, n_models)))


@given(st.integers(0, 10**6), st.integers(1, 25), st.integers(2, 3), st.booleans(), st.floats(0, 1))
@example(8806, 14, 3, True, 1.0)  # slopes that differ by rounding alone
@example(91382, 20, 3, False, 0.5)
def test_a_wish_is_met_as_well_as_any_lambda_or_threshold_meets_it(seed, n, n_models, per_prompt, part):
    own = make(seed, n, n_models, per_prompt)
    rows = np.arange(n)

    def reach(option: str, value: float) -> dict[str, float]:
        chosen = own.rated.choose(option, value)
        place = own.quality.columns.get_indexer(chosen)
        tables = {"budget": own.cost_usd, "quality": own.quality, "price": own.rated.price_usd}
        means = {name: table.to_numpy()[rows, place].mean() for name, table in tables.items()}
        return means | {"strong_share": (chosen == own.rated.strong).mean()}

    share, price = own.rated.win_share.to_numpy(), own.rated.price_usd.to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = (share[:, :, None] - share[:, None, :]) / (price[:, :, None] - price[:, None, :])
    corners = np.unique(np.concatenate([[0.0], slopes[np.isfinite(slopes) & (slopes >= 0)]]))
    # Slopes that are equal but for rounding are one corner, where the cheaper model is taken, as just above it.
    corners = corners[np.diff(corners, append=np.inf) > 1e-9 * corners]
    grid = {"lambda": np.concatenate([[0.0], (corners[1:] + corners[:-1]) / 2, corners[-1:] + 1])}
    if n_models == 2 and own.rated.pair is not None:
        grid["threshold"] = np.append(own.rated.p_strong, 1.1)
    everything = {option: [reach(option, value) for value in values] for option, values in grid.items()}
    for wish, side in (("budget", "most"), ("strong_share", "most"), ("quality", "least")):
        if own.rated.strong is None:
            continue
        tried = [numbers[wish] for numbers in everything["lambda"]]
        limit = min(tried) + part * (max(tried) - min(tried))
        limit += 1e-9 if side == "most" else -1e-9  # so that rounding decides nothing
        for option, value in find_options(own.rated, own.cost_usd, own.quality, wish, limit).items():
            met = [n for n in everything[option] if (n[wish] <= limit if side == "most" else n[wish] >= limit)]
            reached, spent = reach(option, value), [numbers["price"] for numbers in met]
            assert reached[wish] <= limit if side == "most" else reached[wish] >= limit
            assert reached["price"] == pytest.approx(max(spent) if side == "most" else min(spent), rel=1e-9, abs=1e-15)


def test_what_cannot_be_reached_says_what_can():
    own = make(0, 20)
    for wish, limit in (("budget", 1e-9), ("quality", 7.0)):
        with pytest.raises(ValueError, match=f"--{wish}"):
            find_options(own.rated, own.cost_usd, own.quality, wish, limit)
    free = RatedPrompts(own.rated.rating, own.rated.win_share, own.rated.price_usd * 0, None, None)
    with pytest.raises(ValueError, match="expensive"):
        find_options(free, own.cost_usd, own.quality, "strong_share", 0.5)


def test_the_shuffled_control_is_the_mean_over_all_orders(rng):
    own = make(1, 40)
    chosen = own.rated.choose("lambda", 20.0)
    found = measure_choices(own, chosen, "bee", 20, rng).set_index("metric")["estimate"]
    place = own.quality.columns.get_indexer(chosen)
    drawn = [own.quality.to_numpy()[np.arange(40), rng.permutation(place)].mean() for _ in range(4_000)]
    assert found["shuffled"] == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(len(drawn)))
    assert found["over_shuffled"] == pytest.approx(found["quality"] - found["shuffled"])
    assert found["over_best"] == pytest.approx(found["quality"] - own.quality["bee"].mean())


def test_equal_ratings_have_nothing_above_the_shuffled_control(monkeypatch, rng):
    monkeypatch.setattr(own_prompts, "N_RESAMPLES", 20)
    own = make(2, 30, 2)
    router = BradleyTerryRouter()
    router.models, router.nu, router.constant_ratings = ("ant", "bee"), 0.5, np.array([0.3, -0.3])
    prices = pd.DataFrame({"usd_per_call": [0.01, 0.001]}, ["ant", "bee"])
    constant = rate_prompts(router, [str(number) for number in range(30)], prices)
    numbers, _ = report(
        OwnPrompts(constant, own.quality, constant.price_usd), np.ones(30, bool), None, "win share", rng
    )
    assert numbers.loc[numbers["metric"] == "over_shuffled", "estimate"].abs().max() < 1e-12


def test_a_pair_has_the_numbers_of_the_call_curve(monkeypatch):
    monkeypatch.setattr(own_prompts, "N_RESAMPLES", 30)
    own = make(5, 60, 2)
    strong, weak = own.rated.pair
    quality = own.quality.assign(**{strong: own.quality[strong] + 0.3})
    own = OwnPrompts(own.rated, quality, own.cost_usd)
    numbers, lines = report(own, np.ones(60, bool), ("strong_share", 0.3), "win share", np.random.default_rng(0))
    found = numbers[numbers["router"] == "router"].set_index("metric")["estimate"]
    expected = bootstrap_metrics(
        {"router": own.rated.p_strong}, quality[strong], quality[weak], 5, np.random.default_rng()
    )
    for metric, value in expected.set_index("metric")["estimate"].items():
        assert found[f"calls_{metric}"] == value
    assert any("--threshold" in line and "--lambda" in line and "win share per dollar" in line for line in lines)
    worse = OwnPrompts(own.rated, quality.assign(**{strong: 0.0}), own.cost_usd)
    numbers, lines = report(worse, np.ones(60, bool), None, "win share", np.random.default_rng(0))
    assert not numbers["metric"].str.startswith("calls_").any() and any("not defined" in line for line in lines)


def test_a_split_chooses_on_one_part_and_measures_on_the_other(monkeypatch):
    monkeypatch.setattr(own_prompts, "N_RESAMPLES", 5)
    own, to_choose = make(7, 50), np.arange(50) < 20
    found = [report(own, to_choose, ("budget", 0.004), "win share", np.random.default_rng(0))[0]]
    changed = OwnPrompts(own.rated, own.quality.add(to_choose.astype(float), axis=0), own.cost_usd)
    found.append(report(changed, to_choose, ("budget", 0.004), "win share", np.random.default_rng(0))[0])
    pd.testing.assert_frame_equal(
        *found
    )  # scores of the prompts to choose on play no part, as no quality was asked for
    options = find_options(own.rated.select(to_choose), own.cost_usd[to_choose], None, "budget", 0.004)
    assert f"--lambda {options['lambda']!r}" in set(found[0]["router"])


@given(st.lists(st.sampled_from("a b c A! d e f g".split()), min_size=2, max_size=12), st.integers(0, 9))
def test_equal_prompts_are_not_split(prompts, seed):
    if len(set(map(str.lower, prompts))) < 2 or set(prompts) <= {"a", "A!"}:
        return
    chosen = split_prompts(prompts, 0.5, seed)
    assert 0 < chosen.sum() < len(prompts)
    for first, second in product(range(len(prompts)), repeat=2):
        if prompts[first].strip("!").lower() == prompts[second].strip("!").lower():
            assert chosen[first] == chosen[second]
    with pytest.raises(ValueError, match="split"):
        split_prompts(["x", "X!"], 0.5, 0)


SCORES = "prompt,ant,bee,note,ant|total_cost,bee|total_cost\none,1,0,x,0.1,0.2\n,0,1,y,0.1,0.2\n"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (None, ["row 1", "prompt"]),
        ((",0,1,y", "two,high,1,y"), ["row 1", "ant", "high"]),
        ((",0,1,y", "two,,1,y"), ["row 1", "ant"]),
        (("0.1,0.2\n,0", "0.1,-2\ntwo,0"), ["row 0", r"bee\|total_cost", "-2"]),
        (("bee,note", "wasp,note"), ["ant, bee, cat", "wasp"]),
        (("bee|total", "wasp|total"), [r"bee\|total_cost"]),
        (("one,1,0,x,0.1,0.2\n,0,1,y,0.1,0.2\n", ""), ["no prompt"]),
    ],
)
def test_a_fault_in_the_scores_names_row_and_column(tmp_path, change, named):
    path = tmp_path / "scores.csv"
    path.write_text(SCORES if change is None else SCORES.replace(*change))
    for part in ("scores.csv", *named):
        with pytest.raises(ValueError, match=part):
            read_scores(path, MODELS)


def test_scores_and_prompts_are_read(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text(SCORES.replace("\n,0", "\n7,true").replace("one,1", "one,true").replace("ant,", " ant ,", 1))
    table = read_scores(path, MODELS)
    assert table.models == ("ant", "bee") and table.prompts["prompt"].tolist() == ["one", "7"]
    assert table.quality["ant"].tolist() == [1.0, 1.0] and table.cost_usd["bee"].tolist() == [0.2, 0.2]
    assert read_prompts(path) == ["one", "7"]
    (tmp_path / "prompts.txt").write_text("\ufeffone\n\n two, three\n")
    assert read_prompts(tmp_path / "prompts.txt") == ["one", " two, three"]
    (tmp_path / "prompts.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="prompts.txt"):
        read_prompts(tmp_path / "prompts.txt")


@pytest.mark.skipif("ROUTING_DATA" not in os.environ, reason="needs the published data")
def test_routerbench_has_the_numbers_of_the_notebook_of_many_models(monkeypatch):
    """Frontier, bands and metrics are those that notebook 08 computes, bit for bit, of a router that both can use."""
    from routing.studies.inputs import RoutingTask, load_tasks
    from routing.studies.many_models.model_sets import frontier_tables

    monkeypatch.setattr(own_prompts, "N_RESAMPLES", 5)
    task: RoutingTask = load_tasks("full", 0)[0]["ARC-Challenge"]
    rng = np.random.default_rng(0)
    prompts, models = task.test.prompts["prompt"].tolist(), sorted(task.test.models)
    router = Table(
        rng.normal(size=(len(prompts), len(models))) + task.train.quality[models].mean().to_numpy(), tuple(models)
    )
    numbered = [str(number) for number in range(len(prompts))]
    rated = rate_prompts(router, numbered, task.train.cost_usd[models].mean().to_frame("usd_per_call"))
    expected = win_share(pd.DataFrame(router.table, columns=models), router.nu)
    bands, metrics, singles = frontier_tables({"ARC": task}, {"ARC": {"router": expected}}, 5, np.random.default_rng(1))
    own = OwnPrompts(rated, task.test.quality[models], task.test.cost_usd[models])
    numbers, _ = report(own, np.ones(len(prompts), bool), None, "win share", np.random.default_rng(1))
    ours = numbers[numbers["router"].isin(["router", "oracle"])]
    curve = ours[ours["metric"] == "quality"].iloc[: len(bands)]
    np.testing.assert_array_equal(
        curve[["cost_usd", "estimate", "low", "high"]], bands[["cost_usd", "quality", "low", "high"]]
    )
    for row in metrics.itertuples():
        same = ours[(ours["router"] == row.router) & (ours["metric"] == row.metric) & ours["cost_usd"].isna()]
        np.testing.assert_array_equal(
            same[["estimate", "low", "high"]].to_numpy()[0], [row.estimate, row.low, row.high]
        )
    for row in singles.itertuples():
        same = numbers[numbers["router"] == row.model]
        assert same[["cost_usd", "estimate"]].to_numpy().tolist() == [[row.cost_usd, row.quality]]
