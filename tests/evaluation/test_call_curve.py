from __future__ import annotations

import itertools
import math
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from routing.data.benchmarks import read_gsm8k, read_mmlu, read_mt_bench
from routing.evaluation.call_curve import (
    TENTHS,
    CallCurve,
    bootstrap_metrics,
    call_curve,
    oracle_scores,
    random_apgr_range,
)


@st.composite
def benchmarks(draw, max_prompts=12):
    """(scores, quality of strong, quality of weak): scores often equal, strong better on average."""
    n_prompts = draw(st.integers(1, max_prompts))

    def column(values):
        return np.array(draw(st.lists(values, min_size=n_prompts, max_size=n_prompts)))

    scores = column(st.sampled_from([0.1, 0.2, 0.7]) | st.floats(0, 1, allow_subnormal=False))
    weak, strong = column(st.floats(0, 10, width=16)), column(st.floats(0, 10, width=16))
    strong[0] += 1 + max(0.0, (weak - strong).sum())
    return scores, strong, weak


def random_benchmark(n_prompts: int, seed: int, n_values: int = 0):
    """Right or wrong answers (0 or 1); scores that carry a little information, on `n_values` values if given."""
    rng = np.random.default_rng(seed)
    weak = (rng.random(n_prompts) < 0.5).astype(float)
    strong = (rng.random(n_prompts) < 0.9).astype(float)
    scores = rng.random(n_prompts) + 0.3 * (strong - weak)
    return (np.floor(scores * n_values) if n_values else scores), strong, weak


# --- the curve


@given(benchmarks(max_prompts=6))
@settings(max_examples=50, deadline=None)
def test_curve_is_the_mean_over_every_order_of_equal_scores(benchmark):
    scores, strong, weak = benchmark
    n_prompts = len(scores)
    qualities = []
    for order in itertools.permutations(range(n_prompts)):
        ranked = scores[list(order)]
        if (ranked[1:] <= ranked[:-1]).all():
            sent_first = (strong - weak)[list(order)]
            qualities.append((weak.sum() + np.append(0, np.cumsum(sent_first))) / n_prompts)
    expected = np.mean(qualities, axis=0)  # at 0, 1, ..., n prompts sent to the strong model

    curve = call_curve(scores, strong, weak)
    shares = np.arange(n_prompts + 1) / n_prompts
    np.testing.assert_allclose(np.interp(shares, curve.strong_share, curve.quality), expected, atol=1e-12)
    np.testing.assert_allclose(curve.pgr(shares), (expected - weak.mean()) / (strong - weak).mean(), atol=1e-9)
    np.testing.assert_allclose(curve.apgr(), np.trapezoid(curve.pgr(shares), shares), atol=1e-9)


def test_worked_example():
    curve = call_curve([0.9, 0.5, 0.5, 0.1], quality_strong=[1, 1, 0, 1], quality_weak=[0, 0, 0, 1])
    assert curve.strong_share.tolist() == [0, 0.25, 0.75, 1]
    assert curve.quality.tolist() == [0.25, 0.5, 0.75, 0.75]
    assert (curve.quality_weak, curve.quality_strong) == (0.25, 0.75)
    assert curve.recovered.tolist() == [0, 0.5, 1, 1]
    assert curve.pgr([0.125, 0.5]).tolist() == [0.25, 0.75]
    assert curve.apgr() == 0.25 * 0.25 + 0.5 * 0.75 + 0.25
    assert [curve.cpt(level) for level in (0.0, 0.25, 0.5, 0.75, 1.0)] == [0, 0.125, 0.25, 0.5, 0.75]


@given(benchmarks(), st.randoms(use_true_random=False))
def test_order_of_rows_changes_no_bit(benchmark, random):
    scores, strong, weak = benchmark
    shuffled = random.sample(range(len(scores)), len(scores))
    curve, again = call_curve(*benchmark), call_curve(scores[shuffled], strong[shuffled], weak[shuffled])
    assert np.array_equal(curve.strong_share, again.strong_share)
    assert np.array_equal(curve.quality, again.quality)
    assert (curve.apgr(), curve.cpt(0.5)) == (again.apgr(), again.cpt(0.5))


def test_order_of_rows_changes_no_bit_where_sums_are_rounded():
    rng = np.random.default_rng(0)
    scores, strong, weak = rng.integers(5, size=1000), rng.normal(1.0, size=1000), rng.normal(size=1000)
    curve = call_curve(scores, strong, weak)
    assert (curve.quality_strong, curve.quality_weak) == (math.fsum(strong) / 1000, math.fsum(weak) / 1000)
    for _ in range(20):
        shuffled = rng.permutation(1000)
        again = call_curve(scores[shuffled], strong[shuffled], weak[shuffled])
        assert np.array_equal(curve.quality, again.quality)


@given(benchmarks())
def test_only_the_order_of_scores_counts(benchmark):
    scores, strong, weak = benchmark
    ranks = np.unique(scores, return_inverse=True)[1]
    for same_order in (ranks, np.exp(ranks), -1.0 / (1 + ranks)):
        transformed = call_curve(same_order, strong, weak)
        assert np.array_equal(transformed.quality, call_curve(scores, strong, weak).quality)


@given(benchmarks())
def test_constant_scores_give_the_straight_line_exactly(benchmark):
    _, strong, weak = benchmark
    curve = call_curve(np.full(len(strong), 0.3), strong, weak)
    assert (curve.apgr(), curve.apgr("trapezoid")) == (0.5, pytest.approx(0.5, abs=1e-15))
    assert curve.apgr("mean_of_ten") == pytest.approx(0.55)
    for level in (0.0, 0.2, 0.5, 0.8, 1.0):
        assert curve.cpt(level) == curve.pgr(level) == level


@given(benchmarks())
def test_reversed_scores_recover_the_rest(benchmark):
    scores, strong, weak = benchmark
    curve, reverse = call_curve(scores, strong, weak), call_curve(-scores, strong, weak)
    np.testing.assert_allclose(reverse.apgr(), 1 - curve.apgr(), atol=1e-9)
    np.testing.assert_allclose(reverse.pgr(1 - curve.strong_share), 1 - curve.recovered, atol=1e-9)


@given(benchmarks())
def test_a_data_set_written_twice_has_the_same_curve(benchmark):
    once, twice = call_curve(*benchmark), call_curve(*(np.tile(column, 2) for column in benchmark))
    np.testing.assert_allclose(twice.strong_share, once.strong_share, atol=1e-12)
    np.testing.assert_allclose(twice.quality, once.quality, atol=1e-12)


@given(benchmarks())
def test_no_router_is_above_the_oracle_at_any_share(benchmark):
    scores, strong, weak = benchmark
    router, oracle = call_curve(scores, strong, weak), call_curve(oracle_scores(strong, weak), strong, weak)
    shares = np.union1d(router.strong_share, oracle.strong_share)
    assert (oracle.pgr(shares) >= router.pgr(shares) - 1e-9).all()


@given(benchmarks(), st.floats(0, 1))
def test_cpt_is_the_first_share_that_reaches_the_level(benchmark, level):
    curve = call_curve(*benchmark)
    share = curve.cpt(level)
    np.testing.assert_allclose(curve.pgr(share), level, atol=1e-6)
    earlier = curve.strong_share[curve.strong_share < share]
    assert (curve.pgr(earlier) < level).all()


def test_random_order_recovers_half_on_average():
    _, strong, weak = random_benchmark(50, seed=0)
    rng = np.random.default_rng(1)
    apgr = [call_curve(rng.random(50), strong, weak).apgr() for _ in range(1000)]
    assert abs(np.mean(apgr) - 0.5) < 4 * np.std(apgr) / math.sqrt(1000)


# --- the released measures, written as RouteLLM's code computes them


def routellm_metrics(scores: np.ndarray, strong: np.ndarray, weak: np.ndarray):
    """APGR, CPT(50 %) and CPT(80 %) from 11 thresholds at the deciles of the scores."""
    _, thresholds = pd.qcut(scores, 10, retbins=True)
    points = []
    for threshold in thresholds:
        sent = scores > threshold if threshold == thresholds[-1] else scores >= threshold
        points.append((sent.mean(), np.where(sent, strong, weak).mean()))
    share, accuracy = np.array(sorted(points)).T
    gap = strong.mean() - weak.mean()
    area = np.trapezoid(accuracy, share)
    return (area - weak.mean()) / gap, *(np.interp(x * gap + weak.mean(), accuracy, share) for x in (0.5, 0.8))


@pytest.mark.parametrize("seed", range(5))
def test_released_measures(seed):
    benchmark = random_benchmark(500, seed)
    curve = call_curve(*benchmark)
    ours = curve.apgr("trapezoid"), curve.cpt(0.5, "routellm"), curve.cpt(0.8, "routellm")
    np.testing.assert_allclose(ours, routellm_metrics(*benchmark), atol=1e-9)


def test_released_cpt_is_not_the_smallest_share_where_the_curve_turns():
    gains = np.repeat([0, 0, 0, 1, -1, 0, 1, 0, 0, 0], 10)  # PGR 0.5 at the shares 0.35, 0.45 and 0.65
    curve = call_curve(-np.arange(100), gains > 0, gains < 0)
    assert curve.cpt(0.5) == pytest.approx(0.35)
    assert curve.cpt(0.5, rule="routellm") > 0.44


def test_trapezoid_and_mean_of_ten_differ_by_half_a_tenth():
    curve = call_curve(*random_benchmark(500, seed=3))
    assert curve.apgr("mean_of_ten") - curve.apgr("trapezoid") == pytest.approx(0.05)
    np.testing.assert_allclose(curve.apgr("mean_of_ten"), np.mean([curve.pgr(s / 10) for s in range(1, 11)]))


# --- random routers


def test_random_range_has_the_exact_spread_of_a_permutation():
    _, strong, weak = random_benchmark(400, seed=0)
    gain, position = strong - weak, np.arange(400)
    exact_variance = position.var() * 400 * gain.var(ddof=1) / 400**2 / gain.sum() ** 2
    low, high = random_apgr_range(strong, weak, 20_000, np.random.default_rng(0))
    half_width = norm.ppf(0.975) * math.sqrt(exact_variance)
    np.testing.assert_allclose([low, high], [0.5 - half_width, 0.5 + half_width], atol=0.04 * half_width)


def test_random_range_holds_the_routers_that_are_random():
    _, strong, weak = random_benchmark(72, seed=1)
    low, high = random_apgr_range(strong, weak, 5000, np.random.default_rng(0), level=0.8)
    rng = np.random.default_rng(1)
    inside = [low <= call_curve(rng.random(72), strong, weak).apgr() <= high for _ in range(2000)]
    assert np.mean(inside) == pytest.approx(0.8, abs=0.04)


def test_random_range_does_not_depend_on_the_order_of_rows():
    _, strong, weak = random_benchmark(50, seed=2)
    ranges = [
        random_apgr_range(q[0], q[1], 100, np.random.default_rng(0))
        for q in ([strong, weak], [strong[::-1], weak[::-1]])
    ]
    assert ranges[0] == ranges[1]


# --- bootstrap


def test_bootstrap_is_call_curve_on_the_drawn_rows():
    scores, strong, weak = random_benchmark(60, seed=0, n_values=8)
    order = np.lexsort((scores, weak, strong))  # the order rows are drawn in
    scores, strong, weak = scores[order], strong[order], weak[order]
    routers = {"tied": scores, "flat": np.zeros(60)}
    table = bootstrap_metrics(routers, strong, weak, 200, np.random.default_rng(5), level=0.9, reference="flat")

    rng = np.random.default_rng(5)
    drawn = [rng.integers(60, size=60) for _ in range(200)]
    curves = {
        name: [call_curve(score[rows], strong[rows], weak[rows]) for rows in drawn] for name, score in routers.items()
    }
    measures = {
        "apgr": lambda curve: curve.apgr(),
        "apgr_trapezoid": lambda curve: curve.apgr("trapezoid"),
        "cpt50": lambda curve: curve.cpt(0.5),
        "cpt80": lambda curve: curve.cpt(0.8),
    }
    assert table["router"].tolist() == ["tied"] * 4 + ["flat"] * 4
    assert table["metric"].tolist() == [*measures, *measures]
    assert (table["n_excluded"] == 0).all()
    for row in table.itertuples():
        measure = measures[row.metric]
        values = np.array([measure(curve) for curve in curves[row.router]])
        differences = values - [measure(curve) for curve in curves["flat"]]
        assert row.estimate == measure(call_curve(routers[row.router], strong, weak))
        np.testing.assert_allclose([row.low, row.high], np.quantile(values, [0.05, 0.95]), atol=1e-9)
        np.testing.assert_allclose(
            [row.difference_low, row.difference_high], np.quantile(differences, [0.05, 0.95]), atol=1e-9
        )


def test_bootstrap_does_not_depend_on_the_order_of_rows_or_routers():
    scores, strong, weak = random_benchmark(80, seed=0, n_values=5)
    other = random_benchmark(80, seed=1)[0]
    shuffled = np.random.default_rng(0).permutation(80)
    table = bootstrap_metrics({"one": scores, "two": other}, strong, weak, 50, np.random.default_rng(1))
    again = bootstrap_metrics(
        {"two": other[shuffled], "one": scores[shuffled]},
        strong[shuffled],
        weak[shuffled],
        50,
        np.random.default_rng(1),
    )
    keys = ["router", "metric"]
    pd.testing.assert_frame_equal(
        table.sort_values(keys, ignore_index=True), again.sort_values(keys, ignore_index=True), check_exact=True
    )


def test_bootstrap_differences_are_paired():
    scores, strong, weak = random_benchmark(500, seed=0)
    nearly = scores + 0.01 * np.random.default_rng(0).random(500)
    routers = {"one": scores, "nearly": nearly, "one again": scores}
    table = bootstrap_metrics(routers, strong, weak, 100, np.random.default_rng(1), reference="one")
    table = table[table["metric"] == "apgr"].set_index("router")
    assert (table.loc["one again", ["difference", "difference_low", "difference_high"]] == 0).all()
    widths = table["difference_high"] - table["difference_low"], table["high"] - table["low"]
    assert widths[0]["nearly"] < 0.2 * widths[1]["nearly"]


def test_refits_add_their_variance_to_that_of_the_prompts():
    rng = np.random.default_rng(0)
    scores, strong, weak = random_benchmark(400, seed=0)
    routers, area = {"one": scores, "fixed": rng.random(400)}, {"apgr": CallCurve.apgr}
    refits = [{"one": scores + rng.normal(0, 3, 400)} for _ in range(5)]
    areas = np.array([call_curve(refit["one"], strong, weak).apgr() for refit in refits])
    plain = bootstrap_metrics(routers, strong, weak, 3000, np.random.default_rng(1), metrics=area, reference="fixed")
    wide = bootstrap_metrics(
        routers, strong, weak, 3000, np.random.default_rng(1), metrics=area, reference="fixed", refits=refits
    )
    sd = [(table["high"] - table["low"]).to_numpy() / (2 * 1.96) for table in (plain, wide)]
    assert sd[1][0] == pytest.approx(np.hypot(sd[0][0], areas.std(ddof=1)), rel=0.08)
    assert sd[1][1] == pytest.approx(sd[0][1], rel=0.08)
    pd.testing.assert_series_equal(plain["estimate"], wide["estimate"])
    with pytest.raises(ValueError, match="one training"):
        bootstrap_metrics(routers, strong, weak, 10, rng, refits=refits[:1])


def test_bootstrap_intervals_cover_the_truth():
    # Scores 0 to 4; the strong model gains with probability rising in the score.
    def draw_prompts(n_prompts, rng):
        scores = rng.integers(5, size=n_prompts)
        gain = rng.choice([-1.0, 0.0, 1.0], size=n_prompts, p=[0.1, 0.4, 0.5])
        helped = rng.random(n_prompts) < scores / 8
        return scores, np.where(helped, 1.0, gain > 0), np.where(helped, 0.0, gain < 0)

    rng = np.random.default_rng(0)
    truth = call_curve(*draw_prompts(1_000_000, rng)).apgr()
    covered = 0
    for _ in range(100):
        scores, strong, weak = draw_prompts(150, rng)
        table = bootstrap_metrics({"r": scores}, strong, weak, 100, rng, 0.9, metrics={"apgr": CallCurve.apgr})
        covered += table["low"][0] <= truth <= table["high"][0]
    assert 80 <= covered <= 98


def test_resamples_without_a_gap_are_left_out_and_counted():
    strong, weak = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0, 0.0])
    table = bootstrap_metrics({"r": np.arange(4.0)}, strong, weak, 400, np.random.default_rng(0))
    draws = itertools.product(range(4), repeat=4)
    expected = np.mean([(strong - weak)[list(rows)].sum() <= 0 for rows in draws])  # 0.367 of all resamples
    assert table["n_excluded"][0] / 400 == pytest.approx(expected, abs=0.08)
    assert np.isfinite(table[["estimate", "low", "high"]].to_numpy()).all()


# --- bad input


def test_no_gap_raises():
    curve = call_curve([0.1, 0.9], quality_strong=[0, 1], quality_weak=[1, 1])
    assert curve.quality.tolist() == [1.0, 1.0, 0.5]
    for measure in (CallCurve.apgr, lambda curve: curve.cpt(0.5), lambda curve: curve.pgr(0.5)):
        with pytest.raises(ValueError, match="mean quality, 0.5, is not above the weak model's, 1,"):
            measure(curve)
    with pytest.raises(ValueError, match="no gap to recover"):
        random_apgr_range([0, 1], [1, 0], 10, np.random.default_rng(0))
    with pytest.raises(ValueError, match="in none of 1 resamples"):  # seed 11 draws the losing prompt twice
        bootstrap_metrics({"r": [0, 1]}, [2, 0], [0, 1], 1, np.random.default_rng(11))


def test_bad_columns_raise():
    with pytest.raises(ValueError, match="p_strong, row 1: nan"):
        call_curve([0.1, math.nan], [1, 1], [0, 0])
    with pytest.raises(ValueError, match="quality_weak, row 0: inf"):
        oracle_scores([1, 1], [math.inf, 0])
    with pytest.raises(ValueError, match=r"p_strong \(3,\), quality_strong \(2,\)"):
        call_curve([0.1, 0.2, 0.3], [1, 1], [0, 0])
    with pytest.raises(ValueError, match="at least one row"):
        call_curve([], [], [])
    with pytest.raises(ValueError, match="scores of mine, row 1: nan"):
        bootstrap_metrics({"mine": [0.0, math.nan]}, [1, 1], [0, 0], 10, np.random.default_rng(0))


def test_unknown_options_raise():
    curve = call_curve([0.1, 0.9], [1, 1], [0, 1])
    with pytest.raises(ValueError, match="unknown APGR rule 'area'"):
        curve.apgr("area")
    with pytest.raises(ValueError, match="unknown CPT rule 'interp'"):
        curve.cpt(0.5, "interp")
    for level in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="level is"):
            curve.cpt(level)
        with pytest.raises(ValueError, match="share is"):
            curve.pgr(level)
    with pytest.raises(ValueError, match="reference 'random' is none of the routers mine"):
        bootstrap_metrics({"mine": [0, 1]}, [1, 1], [0, 0], 10, np.random.default_rng(0), reference="random")
    with pytest.raises(ValueError, match="no router"):
        bootstrap_metrics({}, [1, 1], [0, 0], 10, np.random.default_rng(0))


# --- the published benchmarks

needs_data = pytest.mark.skipif(not os.environ.get("ROUTING_DATA"), reason="ROUTING_DATA is not set")


@pytest.fixture(scope="module")
def published():
    """(quality of GPT-4, quality of Mixtral) for each benchmark, without the contaminated prompts."""
    tables = {"mt_bench": read_mt_bench(), "gsm8k": read_gsm8k(), "mmlu": read_mmlu()}
    models = ["gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"]
    return {name: table.quality[models].to_numpy().T for name, table in tables.items()}


@needs_data
@pytest.mark.parametrize(
    ("name", "n_prompts", "means", "apgr", "trapezoid", "cpt50"),
    [
        ("mt_bench", 72, (9.212, 8.281), 0.9639, 0.9543, 0.0818),
        ("gsm8k", 1307, (0.85769, 0.63734), 1.1208, 1.1146, 0.1102),
        ("mmlu", 14037, (0.80587, 0.68092), 1.2853, 1.2685, 0.0625),
    ],
)
def test_oracle_on_the_published_answers(published, name, n_prompts, means, apgr, trapezoid, cpt50):
    strong, weak = published[name]
    oracle = call_curve(oracle_scores(strong, weak), strong, weak)
    assert len(strong) == n_prompts
    assert (oracle.quality_strong, oracle.quality_weak) == pytest.approx(means, abs=6e-4)
    assert (oracle.apgr(), oracle.apgr("trapezoid"), oracle.cpt(0.5)) == pytest.approx(
        (apgr, trapezoid, cpt50), abs=6e-5
    )


@needs_data
@pytest.mark.parametrize(
    ("name", "low", "high"), [("mt_bench", 0.366, 0.634), ("gsm8k", 0.460, 0.540), ("mmlu", 0.482, 0.518)]
)
def test_range_of_one_random_router_on_the_published_answers(published, name, low, high):
    half_width = (high - low) / 2
    simulated = random_apgr_range(*published[name], 2000, np.random.default_rng(0))
    assert simulated == pytest.approx((low, high), abs=0.08 * half_width)


@needs_data
def test_released_cpt_misses_on_random_mt_bench_curves(published):
    # The curve at the 11 shares is not monotone for more than a third of random routers.
    strong, weak = published["mt_bench"]
    rng = np.random.default_rng(0)
    curves = [call_curve(rng.random(72), strong, weak) for _ in range(500)]
    assert 0.3 < np.mean([(np.diff(curve.pgr(TENTHS)) < 0).any() for curve in curves]) < 0.5
    assert max(abs(curve.cpt(0.5) - curve.cpt(0.5, "routellm")) for curve in curves) > 0.1
