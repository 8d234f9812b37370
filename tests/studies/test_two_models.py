from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest

from routing.data.benchmarks import BenchmarkTable
from routing.data.judged import read_arena_bench
from routing.embeddings import PromptEncoder
from routing.evaluation.call_curve import bootstrap_metrics, call_curve, oracle_scores
from routing.studies.inputs import PAIR, load_study, training_sets
from routing.studies.mixtures import Mixture
from routing.studies.two_models import pairs
from routing.studies.two_models.pairs import (
    Key,
    category_table,
    commercial_points,
    compare_rules,
    cost_table,
    curve_table,
    earlier_pair,
    embedding_margins,
    evaluate_margins,
    limits_table,
    pair_quality,
    pick_published,
    plot_call_curves,
    plot_categories,
    plot_commercial,
    plot_costs,
    plot_paper_and_ours,
    similarity_table,
)


@pytest.fixture(scope="module")
def study():
    return load_study("smoke", 3)


@pytest.fixture(scope="module")
def sets(study):
    return training_sets(study, 3)


def made_up_margins(sets, rng) -> dict[Key, np.ndarray]:
    n = len(sets.evaluated["arena"]["simulated"])
    return {Key(data, name, "simulated"): rng.normal(size=n) for data in sets.battles for name in ("one", "other")}


def test_margins_are_evaluated_on_prompts_that_were_not_trained_on(study, sets, rng):
    margins = made_up_margins(sets, rng)
    table = evaluate_margins(margins, sets, study.benchmarks, 20, np.random.default_rng(1))
    quality = pair_quality(study.benchmarks["simulated"])
    for key, margin in margins.items():
        kept = sets.evaluated[key.training_data]["simulated"]
        rows = table[(table["training_data"] == key.training_data) & (table["router"] == key.router)]
        expected = call_curve(margin[kept], *(values[kept] for values in quality)).apgr()
        assert rows.set_index("metric").loc["apgr", "estimate"] == expected
    # Prompts that were learned from could say anything.
    spoiled = {
        key: np.where(sets.evaluated[key.training_data]["simulated"], margin, 1e6) for key, margin in margins.items()
    }
    pd.testing.assert_frame_equal(
        table, evaluate_margins(spoiled, sets, study.benchmarks, 20, np.random.default_rng(1))
    )


def test_routers_of_a_training_set_are_resampled_together(study, sets, rng):
    margins = {key: margin for key, margin in made_up_margins(sets, rng).items() if key.training_data == "arena"}
    table = evaluate_margins(margins, sets, study.benchmarks, 20, np.random.default_rng(1))
    scores = {key.router: margin for key, margin in margins.items()}
    together = bootstrap_metrics(scores, *pair_quality(study.benchmarks["simulated"]), 20, np.random.default_rng(1))
    pd.testing.assert_frame_equal(table[together.columns], together)


def test_curves_run_from_the_weak_model_to_the_strong(study, sets, rng):
    shares = np.linspace(0, 1, 5)
    table = curve_table(made_up_margins(sets, rng), sets, study.benchmarks, 20, rng, shares)
    assert set(table["router"]) == {"random", "one", "other", "oracle"}
    for data, kept in ((name, sets.evaluated[name]["simulated"]) for name in sets.battles):
        strong, weak = (values[kept].mean() for values in pair_quality(study.benchmarks["simulated"]))
        part = table[table["training_data"] == data]
        assert part.loc[part["strong_share"] == 0, "estimate"].to_numpy() == pytest.approx(weak)
        assert part.loc[part["strong_share"] == 1, "estimate"].to_numpy() == pytest.approx(strong)
        line = part[part["router"] == "random"]
        assert line["pgr"].to_numpy() == pytest.approx(shares)
        by_router = part.pivot(index="strong_share", columns="router", values="estimate")
        assert (by_router["oracle"] >= by_router.max(axis=1) - 1e-12).all()
        ends = part.pivot(index="strong_share", columns="router", values="high")
        assert (ends.max(axis=1) <= by_router["oracle"] + 1e-12).all()


def test_the_rules_of_the_paper_and_of_its_code_agree_where_the_curve_is_a_line(study):
    table = compare_rules(study, 0).set_index("router")
    assert table.loc["random, in expectation"].drop("benchmark").to_dict() == pytest.approx(
        {
            "apgr_exact": 0.5,
            "apgr_trapezoid": 0.5,
            "apgr_mean_of_ten": 0.55,
            "cpt50_smallest": 0.5,
            "cpt50_routellm": 0.5,
        }
    )
    assert (table.loc["oracle", ["apgr_exact"]] > table.loc["one random router", ["apgr_exact"]]).all()


def test_the_paper_s_routers_learn_from_every_training_set(study, sets):
    fitted = pairs.fit_embedding_routers("smoke", 0, sets, PromptEncoder())
    margins = embedding_margins(fitted, study.benchmarks, PromptEncoder())
    assert len(margins) == 2 * len(sets.battles)
    strong, weak = pair_quality(study.benchmarks["simulated"])
    assert all(np.isfinite(margin).all() and len(margin) == len(strong) for margin in margins.values())
    oracle = call_curve(oracle_scores(strong, weak), strong, weak).apgr()
    assert all(call_curve(margin, strong, weak).apgr() < oracle for margin in margins.values())


def test_refits_learn_from_other_draws_and_widen_the_intervals_of_their_routers(study, sets, rng):
    first, second = pairs.refit_margins("smoke", 0, sets, study.benchmarks, PromptEncoder())
    assert set(first) == {Key(data, name, "simulated") for data in ("arena", "arena+gold")
                          for name in ("similarity_weighting", "matrix_factorization")}  # fmt: skip
    assert all((first[key] != second[key]).any() for key in first)
    margins = {**first, **{Key(data, "bert", "simulated"): rng.normal(size=100) for data in ("arena", "arena+gold")}}
    away = {key: -margin for key, margin in first.items()}
    tables = [evaluate_margins(margins, sets, study.benchmarks, 100, np.random.default_rng(1), refits=refits)
              for refits in ((), [first, away])]  # fmt: skip
    assert (tables[0]["covers"] == "prompts").all()
    covered = tables[1]["router"] != "bert"
    assert (tables[1]["covers"] == np.where(covered, "prompts and training", "prompts")).all()
    pd.testing.assert_series_equal(tables[0]["estimate"], tables[1]["estimate"])
    areas = (tables[1]["metric"] == "apgr") & covered
    before, after = (table["high"][areas] - table["low"][areas] for table in tables)
    assert (after > 0.95 * before).all() and after.sum() > 1.05 * before.sum()
    shares = tables[1][tables[1]["metric"].isin(["cpt50", "cpt80"])]
    assert shares["low"].min() >= 0 and shares["high"].max() <= 1


def test_the_noise_ceiling_is_where_one_who_knows_the_true_scores_is_measured(rng):
    true = rng.normal([[7.0], [4.0]], 1.5, (2, 20_000))
    first, again = (np.round(true + rng.normal(0, 0.8, true.shape)) for _ in range(2))
    agreement = (np.abs(first[0] - again[0]) <= 1).mean()
    table = BenchmarkTable(pd.DataFrame({"prompt": list(map(str, range(20_000)))}),
                           pd.DataFrame(dict(zip(PAIR, first, strict=True))))  # fmt: skip
    ceiling = pairs.noise_ceiling(table, [agreement]).loc[0]
    assert ceiling["noise_sd"] == pytest.approx(np.std(first[0] - again[0]), rel=0.05)
    assert ceiling["ceiling"] == pytest.approx(call_curve(true[0] - true[1], *first).apgr(), abs=0.005)
    assert ceiling["ceiling"] < ceiling["oracle_apgr"] - 0.02
    with pytest.raises(ValueError, match="agree on 10%"):
        pairs.noise_ceiling(table, [0.1])


def test_only_intervals_over_training_too_are_called_significant():
    areas = pd.DataFrame({"low": [0.51, 0.6, 0.4, 0.52], "high": [0.6, 0.7, 0.49, 0.6], "flat": [False] * 3 + [True],
                          "covers": ["prompts and training", "prompts", *["prompts and training"] * 2]})  # fmt: skip
    assert "Of 2 APGRs" in pairs.conclude(areas) and "1 are significantly better" in pairs.conclude(areas)


@pytest.mark.skipif("ROUTING_DATA" not in os.environ, reason="needs the real data")
def test_arena_bench_has_its_noise_ceiling_below_the_oracle():
    table = pairs.noise_ceiling(read_arena_bench())
    assert table["ceiling"].tolist() == pytest.approx([0.8139, 0.8507], abs=1e-3)


@pytest.mark.skipif("ROUTING_DATA" not in os.environ, reason="needs the real data")
def test_the_earlier_pair_and_the_commercial_routers(rng):
    table = load_study("full", 0).benchmarks["MT-Bench"]
    n = len(table.prompts)
    margins = {Key("arena+judge", "bert", "MT-Bench"): np.zeros(n), Key("arena", "bert", "MMLU"): np.zeros(5)}
    earlier = earlier_pair(margins, table, 20, rng).set_index("metric")
    assert earlier["estimate"].to_dict() == pytest.approx({"apgr_trapezoid": 0.5, "cpt50": 0.5, "cpt80": 0.8})
    assert earlier.loc["apgr_trapezoid", "paper"] == 0.618
    points = commercial_points({"random": np.zeros(n), "oracle": oracle_scores(*pair_quality(table))}, table)
    assert points.groupby("commercial")["score"].first().round(2).to_dict() == {"martian": 8.46, "unify": 8.89}
    shares = points.pivot(index="commercial", columns="router", values="strong_share")
    gap = pair_quality(table)[0].mean() - pair_quality(table)[1].mean()
    level = (points.groupby("commercial")["score"].first() - pair_quality(table)[1].mean()) / gap
    np.testing.assert_allclose(shares["random"], level)
    assert (shares["oracle"] < shares["random"]).all()


def test_costs_are_those_of_the_calls_that_recover_a_share(study, sets, rng):
    margins = made_up_margins(sets, rng)
    table = cost_table(margins, sets, study.benchmarks, 20, rng, (0.5, 0.8))
    assert set(table["router"]) == {"random", "one", "other"}
    line = table[table["router"] == "random"]
    np.testing.assert_allclose(line["strong_share"], line["pgr"])
    np.testing.assert_allclose(line["saving"], 1)
    # 95 + 264 tokens a call at $24.7 and $0.24 per million.
    expected = 359e-3 * (line["pgr"] * 24.7 + (1 - line["pgr"]) * 0.24)
    np.testing.assert_allclose(line["usd_per_1000"], expected)
    assert (table["low"] <= table["strong_share"] + 1e-12).all() and (table["usd_low"] <= table["usd_high"]).all()


def test_similarity_to_training_leaves_gold_prompts_out(study, sets):
    encoder = PromptEncoder()
    table = similarity_table(sets, study.benchmarks, encoder).set_index("training_data")
    assert (table["similarity"] < 1).all() and table.loc["arena+gold", "similarity"] > table.loc["arena", "similarity"]
    queries = encoder.encode(study.benchmarks["simulated"].prompts["prompt"].tolist())
    known = encoder.encode(study.battles["prompt"].tolist())
    assert table.loc["arena", "similarity"] == pytest.approx((queries @ known.T).max(axis=1).mean(), rel=1e-6)
    assert table["battles"].to_dict() == {name: len(battles) for name, battles in sets.battles.items()}


def test_the_published_training_set_of_each_benchmark(sets, rng):
    margins = {
        Key(data, "bert", name): np.zeros(1)
        for data in ("arena", "arena+judge", "arena+gold")
        for name in ("MMLU", "GSM8K", "simulated")
    }
    picked = pick_published(margins)
    assert {key.benchmark: key.training_data for key in picked} == {
        "MMLU": "arena+gold", "GSM8K": "arena+judge", "simulated": "arena+gold"
    }  # fmt: skip


def test_categories_are_means_of_the_benchmark_and_of_routers_trained_on_votes():
    quality = pd.DataFrame({PAIR[0]: [9.0, 7.0, 8.0], PAIR[1]: [5.0, 6.0, 6.0]})
    table = BenchmarkTable(pd.DataFrame({"prompt": list("abc"), "category": ["math", "writing", "math"]}), quality)
    margins = {
        Key("arena", "bert", "MT-Bench"): np.array([1.0, 2.0, 4.0]),
        Key("arena+judge", "bert", "MT-Bench"): np.zeros(3),
        Key("arena", "bert", "MMLU"): np.zeros(9),
    }
    means = category_table(margins, table)
    assert means.to_dict("index") == {
        "math": {"score_gap": 3.0, "bert": 2.5}, "writing": {"score_gap": 1.0, "bert": 2.0}
    }  # fmt: skip


# -- figures ----------------------------------------------------------------------------------------------------------


def test_the_figure_of_categories_says_how_routers_agree_with_judges():
    gap = pd.Series([3.0, 2.0, 1.0], index=["math", "coding", "writing"])
    table = pd.DataFrame({"score_gap": gap, "agrees": gap**3, "opposes": -gap})
    figure = plot_categories(table)
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert [name.split()[-1] for name in names[1:]] == ["1.00", "-1.00"]
    shown = [float(text.get_text()) for text in figure.axes[0].texts]
    assert shown == table.to_numpy().ravel().tolist()
    assert figure.get_suptitle().startswith("1 of 2 routers")


def test_the_figure_of_the_paper_counts_what_lies_inside(rng):
    table = pd.DataFrame(
        {
            "benchmark": ["MMLU", "MMLU", "MT-Bench"], "training_data": "arena", "router": ["bert", "mf", "bert"],
            "estimate": [0.6, 0.4, 0.5], "low": [0.55, 0.3, 0.4], "high": [0.7, 0.45, 0.6], "paper": [0.6, 0.5, np.nan],
        }
    )  # fmt: skip
    figure = plot_paper_and_ours(table, {"MMLU": (0.45, 0.55)})
    assert figure.get_suptitle().startswith("1 of 2 APGRs of the paper") and len(figure.axes) == 2
    assert plot_paper_and_ours(table.assign(paper=np.nan), {}).get_suptitle().startswith("1 of 3 routers")


def test_curves_costs_and_commercial_routers_have_figures_of_their_tables(study, sets, rng):
    margins = pick_published(made_up_margins(sets, rng))
    curves = curve_table(margins, sets, study.benchmarks, 5, rng, np.linspace(0, 1, 5))
    assert len(plot_call_curves(curves).axes) == 1
    costs = cost_table(margins, sets, study.benchmarks, 5, rng)
    saving = costs.loc[costs["pgr"] == 0.5, "saving"].max()
    assert f"{saving:.2f} times" in plot_costs(costs).get_suptitle()
    points = pd.DataFrame([("martian", 8.5, "one", 0.25), ("martian", 8.5, "other", np.nan)])
    points.columns = ["commercial", "score", "router", "strong_share"]
    assert "25%" in plot_commercial(curves, points).get_suptitle()


def test_limits_are_those_of_each_benchmark(study, rng):
    limits = limits_table(study.benchmarks, 50, rng)
    assert limits.index.tolist() == ["simulated"] and limits.loc["simulated", "oracle_apgr"] > 0.5


def test_every_mixture_that_has_both_models_is_evaluated(study, rng, monkeypatch):
    mixtures = {"people": Mixture(("arena55k",)), "none of the pair": Mixture(("other",))}
    monkeypatch.setattr(pairs, "MIXTURES", mixtures)
    monkeypatch.setattr(pairs, "CHOSEN", "people")
    people = study.battles.assign(source="arena55k", judge="human", weight=1.0)
    other = people[~people[["model_a", "model_b"]].isin(PAIR).any(axis=1)].assign(source="other")
    sources = pd.concat([people, other], ignore_index=True)
    table = pairs.mixture_areas(sources, study.benchmarks, PromptEncoder(), 50, rng, 2, 500)
    assert table["mixture"].tolist() == ["people", "people, ridge"] and set(table["benchmark"]) == {"simulated"}
    assert (table["low"] <= table["estimate"]).all() and (table["estimate"] <= table["high"]).all()
    assert "of 2 have a 95 % CI" in pairs.plot_mixture_areas(table).get_suptitle()
