from __future__ import annotations

import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from routing.embeddings import PromptEncoder
from routing.evaluation.call_curve import bootstrap_metrics, call_curve, oracle_scores
from routing.studies.inputs import PAIR, load_study
from routing.studies.training_sets import training_sets
from routing.studies.two_models.figures import plot_kinds
from routing.studies.two_models.pairs import (
    Key,
    commercial_points,
    cost_table,
    curve_table,
    earlier_pair,
    embedding_leads,
    evaluate_leads,
    highest_similarity,
    measure_both_ways,
    other_pairs,
    pair_quality,
    pick_published,
    similarity_table,
)


@pytest.fixture(scope="module")
def study():
    return load_study("smoke", 3)


@pytest.fixture(scope="module")
def sets(study):
    return training_sets(study, 3)


def made_up_leads(sets, rng) -> dict[Key, np.ndarray]:
    n = len(sets.evaluated["arena"]["simulated"])
    return {Key(data, name, "simulated"): rng.normal(size=n) for data in sets.battles for name in ("one", "other")}


def test_leads_are_judged_on_prompts_that_were_not_learned_from(study, sets, rng):
    leads = made_up_leads(sets, rng)
    table = evaluate_leads(leads, sets, study.benchmarks, 20, np.random.default_rng(1))
    quality = pair_quality(study.benchmarks["simulated"])
    for key, lead in leads.items():
        kept = sets.evaluated[key.training_data]["simulated"]
        rows = table[(table["training_data"] == key.training_data) & (table["router"] == key.router)]
        expected = call_curve(lead[kept], *(values[kept] for values in quality)).apgr()
        assert rows.set_index("metric").loc["apgr", "estimate"] == expected
    # Prompts that were learned from could say anything.
    spoiled = {key: np.where(sets.evaluated[key.training_data]["simulated"], lead, 1e6) for key, lead in leads.items()}
    pd.testing.assert_frame_equal(table, evaluate_leads(spoiled, sets, study.benchmarks, 20, np.random.default_rng(1)))


def test_routers_of_a_training_set_are_resampled_together(study, sets, rng):
    leads = {key: lead for key, lead in made_up_leads(sets, rng).items() if key.training_data == "arena"}
    table = evaluate_leads(leads, sets, study.benchmarks, 20, np.random.default_rng(1))
    scores = {key.router: lead for key, lead in leads.items()}
    together = bootstrap_metrics(scores, *pair_quality(study.benchmarks["simulated"]), 20, np.random.default_rng(1))
    pd.testing.assert_frame_equal(table[together.columns], together)


def test_curves_run_from_the_weak_model_to_the_strong(study, sets, rng):
    shares = np.linspace(0, 1, 5)
    table = curve_table(made_up_leads(sets, rng), sets, study.benchmarks, 20, rng, shares)
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


def test_both_ways_of_measuring_agree_where_the_curve_is_a_line():
    strong, weak = np.ones(50), np.zeros(50)
    table = measure_both_ways({"random": np.zeros(50)}, strong, weak).set_index("router")
    assert table.loc["random"].to_dict() == pytest.approx(
        {
            "apgr_exact": 0.5,
            "apgr_trapezoid": 0.5,
            "apgr_mean_of_ten": 0.55,
            "cpt50_smallest": 0.5,
            "cpt50_released": 0.5,
        }
    )


def test_the_highest_similarity_is_that_of_the_nearest(rng):
    queries, known = (rng.normal(size=(n, 5)) for n in (7, 11))
    queries, known = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, known))
    expected = [max(float(query @ other) for other in known) for query in queries]
    np.testing.assert_allclose(highest_similarity(queries, known, block=3), expected)


def test_the_paper_s_routers_learn_from_every_training_set(study, sets):
    leads = embedding_leads("smoke", 0, sets, study.benchmarks, PromptEncoder())
    assert len(leads) == 2 * len(sets.battles)
    strong, weak = pair_quality(study.benchmarks["simulated"])
    assert all(np.isfinite(lead).all() and len(lead) == len(strong) for lead in leads.values())
    oracle = call_curve(oracle_scores(strong, weak), strong, weak).apgr()
    assert all(call_curve(lead, strong, weak).apgr() < oracle for lead in leads.values())


@pytest.mark.skipif("ROUTING_DATA" not in os.environ, reason="needs the real data")
def test_other_pairs_are_public_models_that_one_kind_of_judge_graded_in_full(rng):
    ids = load_study("full", 0).benchmarks["MT-Bench"].prompts["question_id"].tolist()
    table = other_pairs(rng.normal(size=len(ids)), ids)
    models = set(table["strong"]) | set(table["weak"])
    assert {*PAIR, "claude-3-opus-20240229"} <= models and not {"martian", "unify"} & models
    assert (table["strong_score"] > table["weak_score"]).all()
    close = table["strong_score"] - table["weak_score"] < 0.1
    assert close.any() and table.loc[close, "apgr"].isna().all() and table["apgr"].notna().mean() > 0.6
    assert len(table) == len(models) * (len(models) - 1) // 2


@pytest.mark.skipif("ROUTING_DATA" not in os.environ, reason="needs the real data")
def test_the_earlier_pair_and_the_commercial_routers(rng):
    table = load_study("full", 0).benchmarks["MT-Bench"]
    n = len(table.prompts)
    leads = {Key("arena+judge", "bert", "MT-Bench"): np.zeros(n), Key("arena", "bert", "MMLU"): np.zeros(5)}
    earlier = earlier_pair(leads, table, 20, rng).set_index("metric")
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
    leads = made_up_leads(sets, rng)
    table = cost_table(leads, sets, study.benchmarks, (0.5, 0.8), 20, rng)
    assert set(table["router"]) == {"random", "one", "other"}
    line = table[table["router"] == "random"]
    np.testing.assert_allclose(line["strong_share"], line["pgr"])
    np.testing.assert_allclose(line["saving"], 1)
    # 95 + 264 tokens a call at $24.7 and $0.24 per million.
    expected = 359e-3 * (line["pgr"] * 24.7 + (1 - line["pgr"]) * 0.24)
    np.testing.assert_allclose(line["usd_per_1000"], expected)
    assert (table["low"] <= table["strong_share"] + 1e-12).all() and (table["usd_low"] <= table["usd_high"]).all()


def test_similarity_to_training_leaves_gold_prompts_out(study, sets):
    table = similarity_table(sets, study.benchmarks, PromptEncoder()).set_index("training_data")["similarity"]
    assert (table < 1).all() and table["arena+gold"] > table["arena"]


def test_the_published_training_set_of_each_benchmark(sets, rng):
    leads = {
        Key(data, "bert", name): np.zeros(1)
        for data in ("arena", "arena+judge", "arena+gold")
        for name in ("MMLU", "GSM8K", "simulated")
    }
    picked = pick_published(leads)
    assert {key.benchmark: key.training_data for key in picked} == {
        "MMLU": "arena+gold", "GSM8K": "arena+judge", "simulated": "arena+gold"
    }  # fmt: skip


def test_the_figure_of_kinds_says_how_routers_agree_with_judges():
    judged = pd.Series([3.0, 2.0, 1.0], index=["math", "coding", "writing"])
    table = pd.DataFrame({"judged_gain": judged, "agrees": judged**3, "opposes": -judged})
    figure = plot_kinds(table, "title")
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert [name.split()[-1] for name in names[1:]] == ["1.00", "-1.00"]
    shown = [float(text.get_text()) for text in figure.axes[0].texts]
    assert shown == table.to_numpy().ravel().tolist()
    plt.close(figure)
