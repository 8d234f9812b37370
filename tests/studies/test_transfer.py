"""Effects of prompts: what a source's truth is comes back, shared and own; nothing is learned from a tested prompt."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.data.benchmarks import BenchmarkTable
from routing.evaluation.call_curve import call_curve
from routing.routers.base import BradleyTerryRouter
from routing.studies.transfer import curves, judges
from routing.studies.transfer.encoders import compare_encoders, recovered_area
from routing.studies.transfer.matrix import (
    HeadRouter,
    Texts,
    choose_learners,
    learn_ridge,
    plot_matrix,
    predict_effects,
    router_effects,
    transfer_matrix,
)
from routing.studies.transfer.sources import (
    correlation,
    noise_ceiling,
    score_residuals,
    simulate_sources,
    source_of_battles,
    source_of_scores,
)

BATTLES = pd.DataFrame(
    [
        ("one", "strong", "weak", "model_a"),
        ("one", "weak", "strong", "tie"),
        ("two", "strong", "weak", "model_b"),
        ("two", "other", "strong", "model_a"),
        ("three", "strong", "other", "tie"),
    ],
    columns=["prompt", "model_a", "model_b", "winner"],
)


def matrix_of(shared: float, own: float, learners: list[str], n_prompts: int = 1_500, n_fits: int = 2):
    sources, encode, limits = simulate_sources(1, n_prompts, shared, own)
    chosen = {name: choose_learners("quick")[name] for name in learners}
    table = transfer_matrix(sources, encode, chosen, 0, 40, {"": n_fits})
    return table, limits


@pytest.mark.parametrize(("shared", "own"), [(0.9, 0.0), (0.0, 0.9), (0.7, 0.7)])
def test_the_matrix_recovers_shared_and_own_effects(shared, own):
    table, limits = matrix_of(shared, own, ["ridge"])
    found = table.pivot(index="learned_from", columns="tested_on", values="estimate")
    np.testing.assert_allclose(found, limits.loc[found.index, found.columns], atol=0.06)
    across = found.to_numpy()[[0, 1], [1, 0]] / np.diagonal(found)
    np.testing.assert_allclose(across, shared**2 / (shared**2 + own**2), atol=0.15)
    assert (table["low"] < table["estimate"]).all() and (table["estimate"] < table["high"]).all()
    other = table[table["learned_from"] != table["tested_on"]]
    assert ((other["low"] > 0) == (shared > 0)).all()


@pytest.mark.parametrize("learner", ["similarity_weighting", "matrix_factorization", "head"])
def test_every_router_finds_what_sources_share_and_what_is_their_own(learner):
    sources, encode, limits = simulate_sources(1, 120, 1.2, 1.2)
    texts, learn = Texts.of(sources.values(), encode), choose_learners("quick")[learner]
    tests = {name: sources[name] for name in ("simulated A", "simulated B")[learner == "head" :]}  # a head takes longer
    for name, effects in predict_effects(sources["simulated A"], tests, texts, learn, 0).items():
        limit = limits.loc["simulated A", name]
        assert 0.5 * limit < correlation(effects, sources[name].effects.to_numpy()) < limit + 0.15


def test_a_tested_prompt_is_never_learned_from():
    """Both sources have the same prompts but for case and punctuation, and vectors that give each away."""
    sources, encode, _ = simulate_sources(2, 60, 0.0, 0.0)
    source = sources["simulated A"]
    shouted = {prompt: prompt.upper() + "!" for prompt in source.prompts[:40]}
    other = source_of_battles(source.battles.assign(prompt=source.battles["prompt"].replace(shouted)), ["strong"])
    back = {text: prompt for prompt, text in shouted.items()}

    def encode_both(prompts: list[str]) -> np.ndarray:
        return encode([back.get(prompt, prompt) for prompt in prompts])

    seen: list[set[str]] = []

    def learn(learned, vectors, seed):
        seen.append({prompt.upper().rstrip("!") for prompt in learned.battles["prompt"]})
        return lambda queries: queries[:, 0]

    some = source_of_scores(BenchmarkTable(pd.DataFrame({"prompt": other.prompts[:30]}), scores(30)), "strong", "weak")
    tests = {"same": other, "some": some}
    texts = Texts.of([source, *tests.values()], encode_both)
    predict_effects(source, tests, texts, learn, 0)
    everything = {prompt.upper() for prompt in source.prompts}
    assert len(seen) == 6  # five folds of the same prompts, and once without those of the benchmark
    assert sorted(len(everything - part) for part in seen[:5]) == [12] * 5
    assert set.union(*[everything - part for part in seen[:5]]) == everything
    assert seen[5] == everything - {prompt.upper().rstrip("!") for prompt in some.prompts}


def scores(n: int) -> pd.DataFrame:
    return pd.DataFrame({"strong": np.arange(n) % 3.0, "weak": 1.0})


def test_residuals_are_outcomes_minus_the_leaderboard_whoever_is_named_first():
    residual = score_residuals(BATTLES, ["strong"])
    router = BradleyTerryRouter(0.1).fit(BATTLES)
    expected = [
        router.expected_score(["x"], "strong", other)[0] for other in ("weak", "weak", "weak", "other", "other")
    ]
    np.testing.assert_allclose(residual, np.array([1, 0.5, 0, 0, 0.5]) - expected)
    swapped = BATTLES.rename(columns={"model_a": "model_b", "model_b": "model_a"})
    swapped["winner"] = swapped["winner"].map({"model_a": "model_b", "model_b": "model_a", "tie": "tie"})
    np.testing.assert_allclose(score_residuals(swapped, ["strong"]), residual, atol=1e-9)
    with pytest.raises(ValueError, match="battle 3 is of other and strong"):
        score_residuals(BATTLES, ["strong", "other"])


def test_each_collection_has_a_leaderboard_of_its_own():
    both = pd.concat([BATTLES.assign(source="x"), BATTLES.assign(source="y", winner="model_a")], ignore_index=True)
    one = score_residuals(BATTLES, ["strong"])
    np.testing.assert_allclose(score_residuals(both, ["strong"])[:5], one)


def test_a_source_has_the_effects_of_all_battles_and_learns_from_few():
    source = source_of_battles(BATTLES, ["strong"], largest=(2, 1))
    assert len(source.effects) == 2 and source.battles["prompt"].value_counts().tolist() == [1, 1]
    every = source_of_battles(BATTLES, ["strong"]).effects
    residual = score_residuals(BATTLES, ["strong"])
    assert every["two"] == pytest.approx(residual[2:4].mean())
    pd.testing.assert_series_equal(source.effects, every[source.effects.index])


def test_the_ceiling_is_the_correlation_of_the_truth(rng):
    true, prompts = rng.normal(size=3_000), np.repeat(np.arange(3_000), 3)
    observed = true[prompts] + 2 * rng.normal(size=9_000)
    means = np.bincount(prompts, observed) / 3
    assert noise_ceiling(observed, prompts) == pytest.approx(correlation(true, means), abs=0.03)
    assert np.isnan(noise_ceiling(observed[:100], np.arange(100)))


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.integers(0, 3)), min_size=2, max_size=20))
def test_a_weighted_correlation_is_that_of_repeated_rows(rows):
    x, y, counts = np.array(rows).T
    counts = counts.astype(int) + 1
    assert correlation(x, y, counts) == pytest.approx(correlation(np.repeat(x, counts), np.repeat(y, counts)), abs=1e-6)


def test_a_head_on_given_vectors_is_the_classifiers_own():
    sources, encode, _ = simulate_sources(3, 80, 1.0, 1.0)
    source = sources["simulated A"]
    vectors = encode(source.battles["prompt"].tolist())
    router = HeadRouter().fit(source.battles, vectors)
    outputs = router._outputs(source.battles["prompt"].tolist())  # by the classifier's code, from the texts
    np.testing.assert_allclose(router.ratings(vectors), router.leaderboard + outputs[:, router.model_tier], atol=1e-6)
    expected = router_effects(router, source, vectors)
    assert np.ptp(expected) > 0.05 and (expected > 0).all() and (expected < 1).all()


def test_curves_recover_what_they_were_drawn_from():
    sizes, grid = np.array([50, 100, 400, 1_600, 6_400]), np.array([200.0, 65_000.0])
    values = 0.4 * np.sqrt(sizes / (sizes + 1_000))
    np.testing.assert_allclose(
        curves.fit_saturating(sizes, values, grid), 0.4 * np.sqrt(grid / (grid + 1_000)), rtol=0.01
    )
    assert (curves.fit_saturating(sizes, -values, grid) == 0).all()
    line = 0.05 + 0.02 * np.log(sizes)
    np.testing.assert_allclose(curves.fit_logarithmic(sizes, line, grid), 0.05 + 0.02 * np.log(grid))
    assert (np.abs(curves.fit_logarithmic(sizes, 50 * line, grid)) <= 1).all()
    assert np.isnan(curves.fit_logarithmic(sizes[:1], line[:1], grid)).all()  # one size has no slope


def test_a_learning_curve_rises_to_what_the_matrix_has():
    sources, encode, limits = simulate_sources(4, 800, 0.0, 0.9)
    curve = curves.learning_curve(sources["simulated A"], encode, 0, 40, n_fits=2)
    measured = curve[curve["form"] == "measured"]
    assert measured["n"].tolist() == [50, 100, 200, 400, 640] and measured["estimate"].is_monotonic_increasing
    limit = limits.loc["simulated A", "simulated A"]
    assert measured["estimate"].iloc[-1] == pytest.approx(limit, abs=0.08)
    last = curve[curve["form"] == "saturating"].iloc[-1]
    assert 10_000 < last["n"] <= 30 * 640 and last["low"] - 0.02 < limit < last["high"] + 0.02
    assert curve[["low", "high"]].abs().max(axis=None) <= 1
    assert "rises to" in curves.plot_learning_curves(curve.assign(source="simulated A")).get_suptitle()
    far = curve.assign(n=curve["n"].replace(last["n"], 65_000), source="simulated A")
    assert "65,000" in curves.plot_learning_curves(far).get_suptitle()


@given(st.integers(0, 1_000), st.integers(3, 60))
def test_the_area_under_the_call_curve_is_a_correlation_with_ranks(seed, n):
    rng = np.random.default_rng(seed)
    gap, rank = rng.normal(size=n) + 3, rng.permutation(n)
    exact = call_curve(rank, gap, np.zeros(n)).apgr("exact")
    ranks = correlation(rank.astype(float), gap) * np.sqrt(1 - 1 / n**2)  # the deviation of n ranks, over 1/sqrt(12)
    assert curves.area_of_correlation(ranks, gap) == pytest.approx(exact, abs=1e-9)
    assert recovered_area(rank, gap, np.ones(n, dtype=int)) == pytest.approx(exact)


def judged(*verdicts: tuple[str, str, str]) -> pd.DataFrame:
    rows = []
    for number, (prompt, human, gpt4) in enumerate(verdicts):
        for judge, winner in (("human", human), ("gpt-4", gpt4)):
            if winner:
                ids = None if number % 2 else str(number)
                rows.append((prompt, "a", "b", winner, judge, ids))
    table = pd.DataFrame(rows, columns=["prompt", "model_a", "model_b", "winner", "judge", "question_id"])
    return table.assign(source="arena33k_human_and_gpt4")


def test_agreement_is_counted_over_battles_that_both_judged():
    battles = judged(
        ("Write a poem", "model_a", "model_a"),
        ("Write an email", "tie", "model_b"),
        ("Solve 3 + 4", "model_a", "model_b"),
        ("no verdict of GPT-4", "tie", ""),
    )
    table = judges.agreement_table(battles).set_index(["kind", "measure"])
    assert table.loc[("all prompts", "same verdict"), ["estimate", "n"]].tolist() == [pytest.approx(1 / 3), 3]
    assert table.loc[("all prompts", "same winner"), ["estimate", "n"]].tolist() == [0.5, 2]
    assert table.loc[("writing", "GPT-4 names a winner"), ["estimate", "n"]].tolist() == [1.0, 1]
    assert ("mathematics", "same winner") in table.index and ("code", "same winner") not in table.index
    sources = judges.judge_sources(battles)
    assert [len(source.prompts) for source in sources.values()] == [3, 3]
    estimate, low, high = judges.correlate_effects(sources, 200, 0)
    effects = [source.effects.to_numpy() for source in sources.values()]
    assert estimate == pytest.approx(np.corrcoef(*effects)[0, 1]) and low <= estimate <= high


def test_encoders_are_compared_on_the_same_prompts():
    from routing.embeddings import PromptEncoder

    sources, encode, limits = simulate_sources(5, 200, 0.0, 1.0)
    source = sources["simulated A"]
    known = set(source.prompts)

    def blind(prompts: list[str]) -> np.ndarray:
        return np.array([[1.0, len(prompt) % 7] for prompt in prompts])

    def seeing(prompts: list[str]) -> np.ndarray:
        return encode([p if p in known else source.prompts[0] for p in prompts])

    encoders = {name: PromptEncoder(call) for name, call in (("blind", blind), ("seeing", seeing))}
    gap = {"simulated A": source.effects + 0.2}
    table = compare_encoders(encoders, {"simulated A": source}, gap, 0, 30, n_fits=2)
    wide = table.pivot(index="encoder", columns="measure", values="estimate")
    assert wide.loc["seeing", "correlation"] > 0.5 * limits.iloc[0, 0] > wide.loc["blind", "correlation"]
    assert wide.loc["seeing", "APGR"] > 0.55 and (table["prompts_per_s"] > 0).all()


def test_figures_say_what_tables_hold():
    table, _ = matrix_of(0.0, 0.9, ["ridge"], n_prompts=200)
    assert "0% of the correlations" in plot_matrix(table).get_suptitle().replace("\n", " ")
    assert learn_ridge is choose_learners("full")["ridge"]
    quality = pd.DataFrame({"gpt-4-1106-preview": [9.0, 8, 7, 9], "mixtral-8x7b-instruct-v0.1": [9.0, 5, 7, 6]})
    benchmark = BenchmarkTable(pd.DataFrame({"prompt": list("abcd")}), quality)
    names = ["MT-Bench", "MMLU", "GSM8K"]
    cells = pd.DataFrame({"tested_on": names, "learner": "ridge", "learned_from": "x", "estimate": 0.1, "low": 0.0})
    curve = pd.DataFrame([("A", form, 65_000, 0.3, 0.2, 0.4) for form in curves.FORMS])
    curve.columns = ["source", "form", "n", "estimate", "low", "high"]
    needed = curves.needed_correlations(cells.assign(high=0.2), curve, dict.fromkeys(names, benchmark), "A", 0.5)
    assert needed.groupby("name").size().tolist() == [4, 4, 4] and needed["estimate"].iloc[3] == 0.6
    first = needed[needed["name"] == "MT-Bench"]["estimate"].iloc[0]
    assert first == pytest.approx(0.302 * np.sqrt(12) * 1.5 / np.std([0, 3, 0, 3]), rel=0.01)
    assert "of 3 benchmarks" in curves.plot_needed(needed).get_suptitle().replace("\n", " ")
