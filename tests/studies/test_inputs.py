from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.battles import count_pairs
from routing.data.judged import READERS, overlaps
from routing.evaluation.call_curve import call_curve
from routing.routers.base import BradleyTerryRouter
from routing.routers.similarity import SimilarityRouter
from routing.studies.cross_validation import Candidate, assign_folds, cross_validated_margin, nested_margin
from routing.studies.inputs import (
    PAIR,
    draw_gold,
    load_study,
    load_tasks,
    score_by_category,
    select_data,
    training_sets,
)
from routing.studies.mixtures import N_BATTLES
from routing.studies.paper import compare_with_paper, read_paper_tables, write_comparison
from tests.conftest import embed
from tests.routers.test_base import battles  # noqa: F401 (battles is a fixture)


@given(st.lists(st.text(max_size=3), min_size=4, max_size=60), st.integers(0, 2**32 - 1))
def test_folds_never_split_a_group_and_are_balanced(groups, seed):
    n_groups = len(set(groups))
    if n_groups < 3:
        with pytest.raises(ValueError, match="n_folds is 3"):
            assign_folds(np.array(groups, dtype=object), 3, np.random.default_rng(seed))
        return
    folds = assign_folds(np.array(groups, dtype=object), 3, np.random.default_rng(seed))
    table = pd.DataFrame({"group": groups, "fold": folds})
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    sizes = table.drop_duplicates("group")["fold"].value_counts()
    assert len(sizes) == 3 and sizes.max() - sizes.min() <= 1


class Memory(BradleyTerryRouter):
    """Remembers how it was fitted: the rating of "ant" is the number of battles learned from."""

    seen: list[set[str]] = []

    def fit(self, battles, embeddings=None):  # noqa: F811
        super().fit(battles)
        self.constant_ratings = np.array([float(len(battles)), 0, 0, 0])
        Memory.seen.append(set(battles["prompt"]))
        assert len(embeddings) == len(battles)
        return self


def test_no_prompt_is_rated_by_a_router_that_learned_from_it(battles):  # noqa: F811
    Memory.seen = []
    vectors = embed(battles["prompt"].tolist())
    folds = assign_folds(battles["prompt"].to_numpy(), 4, np.random.default_rng(0))
    margin = cross_validated_margin(Candidate(Memory, vectors), battles, folds, "ant", "bee")
    for fold in range(4):
        assert not Memory.seen[fold] & set(battles["prompt"][folds == fold])
        assert (margin[folds == fold] == (folds != fold).sum()).all()


def gold_battles(rng: np.random.Generator, n: int = 400) -> tuple[pd.DataFrame, np.ndarray]:
    """Battles that the first coordinate decides and the second does not."""
    vectors = np.concatenate([rng.normal(size=(n, 2)), np.full((n, 1), 2.0)], axis=1)
    gain = vectors[:, 0] + 0.5 + 0.3 * rng.normal(size=n)
    winner = np.where(gain > 0.5, "model_b", np.where(gain > -0.5, "tie", "model_a"))
    prompts = [f"prompt {number}" for number in range(n)]
    return pd.DataFrame({"prompt": prompts, "model_a": "ant", "model_b": "bee", "winner": winner}), vectors


def test_the_choice_is_made_without_the_prompts_it_is_judged_on(rng):
    table, vectors = gold_battles(rng)
    folds = assign_folds(table["prompt"].to_numpy(), 3, rng)

    def make():
        return SimilarityRouter(gamma=1e4, n_tiers=None, prior_strength=1.0, ties="half")

    blind = vectors * [0.0, 1.0, 1.0]
    candidates = {"blind": Candidate(make, blind), "seeing": Candidate(make, vectors)}
    margin, chosen = nested_margin(candidates, table, folds, "bee", "ant", rng)
    assert chosen == ["seeing"] * 3
    expected = cross_validated_margin(candidates["seeing"], table, folds, "bee", "ant")
    np.testing.assert_array_equal(margin, expected)
    won = table["winner"].map({"model_b": 1.0, "tie": 0.5, "model_a": 0.0}).to_numpy()
    assert call_curve(margin, won, 1 - won).apgr() > 0.9


def test_a_simulated_study_holds_prompts_out_and_repeats():
    study, again = load_study("smoke", 1), load_study("smoke", 1)
    assert not set(study.battles["prompt"]) & set(study.held_out["prompt"])
    assert not set(study.battles["prompt"]) & set(study.benchmarks["simulated"].prompts["prompt"])
    pd.testing.assert_frame_equal(study.battles, again.battles)
    assert (study.held_out_prompts["prompt"] == study.held_out["prompt"]).all()
    assert study.data == "simulated" and set(PAIR) <= set(study.benchmarks["simulated"].models)
    with pytest.raises(ValueError, match="profile is 'fast'; use one of smoke, quick, full"):
        load_study("fast", 0)


@pytest.mark.skipif("ROUTING_DATA" not in os.environ, reason="needs the real data")
def test_the_real_study():
    study = load_study("full", 0)
    assert 9_700 < len(study.battles) + len(study.held_out) < 9_761  # those on a benchmark's prompt are left out
    assert not set(study.battles["prompt"]) & set(study.held_out["prompt"])
    assert [len(table.prompts) for table in study.benchmarks.values()] == [72, 14_037, 1_307, 293]


def test_real_data_that_is_missing_is_not_replaced(monkeypatch, tmp_path):
    monkeypatch.setenv("ROUTING_DATA", str(tmp_path))
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match="dataset arena55k"):
        load_study("full", 0)


def test_the_paper_s_tables_are_there():
    table = read_paper_tables().set_index(["table", "benchmark", "training_data", "router"])
    assert table.loc[("1", "MT-Bench", "arena+judge", "matrix_factorization"), "apgr"] == 0.802
    assert table.loc[("2", "MMLU", "none", "random"), "cpt50"] == pytest.approx(0.5007)


def test_each_figure_gets_its_verdict():
    ours = pd.DataFrame(
        [
            ("MMLU", "arena", "similarity_weighting", "apgr_trapezoid", 0.50, 0.49, 0.51),  # the paper: 0.473
            ("MMLU", "arena", "similarity_weighting", "cpt50", 0.60, 0.57, 0.63),  # 55.82
            ("MMLU", "arena", "similarity_weighting", "cpt80", 0.80, 0.78, 0.82),  # 80.25
            ("MMLU", "all", "similarity_weighting", "cpt80", 0.80, 0.78, 0.82),
            ("MMLU", "arena", "similarity_weighting", "apgr", 0.50, 0.49, 0.51),
        ],
        columns=["benchmark", "training_data", "router", "metric", "estimate", "low", "high"],
    )
    both = compare_with_paper(ours, *PAIR)
    assert both["verdict"].tolist() == ["better", "worse", "inside the interval", "not in the paper"]
    assert both["difference"].iloc[0] == pytest.approx(0.027)


def test_the_comparison_is_written_with_every_cell(tmp_path):
    metrics = {"apgr_trapezoid": (0.50, 0.49, 0.51), "cpt50": (0.60, 0.57, 0.63), "cpt80": (0.80, 0.78, 0.82)}
    ours = pd.DataFrame(
        [("MMLU", data, "similarity_weighting", metric, *values)
         for data in ("arena", "all") for metric, values in metrics.items()],
        columns=["benchmark", "training_data", "router", "metric", "estimate", "low", "high"],
    )  # fmt: skip
    write_comparison(compare_with_paper(ours, *PAIR), "real", tmp_path / "tables")
    table = pd.read_csv(tmp_path / "tables" / "paper_vs_ours.csv").set_index(["training_data", "metric"])
    assert len(table) == 6
    assert table["difference_from_paper"].notna().tolist() == [True, True, False, False, False, False]
    text = (tmp_path / "tables" / "paper_vs_ours.md").read_text(encoding="utf-8")
    assert (
        "| 0.473; 0.500 [0.490, 0.510], better | 55.8; 60.0 [57.0, 63.0], worse | 80.2; 80.0 [78.0, 82.0], inside"
        in text
    )
    assert (
        "| MMLU | all | similarity weighting | 0.500 [0.490, 0.510] | 60.0 [57.0, 63.0] | 80.0 [78.0, 82.0] |  |  |"
        in text
    )


def test_scores_by_category_are_means_with_intervals():
    study = load_study("smoke", 1)
    table = study.benchmarks["simulated"]
    n = len(table.prompts)
    predicted = np.tile([0.5, 0.2, 0.3], (n, 1))
    categories = score_by_category(study.benchmarks, {"simulated": predicted}).set_index("group")
    assert set(categories.index) == {f"simulated: {topic}" for topic in table.prompts["topic"]}
    np.testing.assert_allclose(categories["predicted"], 0.6)
    topic = table.prompts["topic"].iloc[0]
    rows = (table.prompts["topic"] == topic).to_numpy()
    gain = (table.quality[PAIR[0]] - table.quality[PAIR[1]])[rows]
    wins = np.where(gain > 0, 1.0, np.where(gain < 0, 0.0, 0.5))
    kind = categories.loc[f"simulated: {topic}"]
    assert kind["n"] == rows.sum() and kind["observed"] == pytest.approx(wins.mean())
    half = 1.959964 * wins.std(ddof=1) / np.sqrt(rows.sum())
    assert (kind["low"], kind["high"]) == pytest.approx((wins.mean() - half, wins.mean() + half))


def test_gold_prompts_are_drawn_with_their_repetitions(rng):
    prompts = np.array([f"prompt {number % 50}" for number in range(70)])
    mask = draw_gold(prompts, 10, rng)
    assert len(set(prompts[mask])) == 10
    assert not set(prompts[mask]) & set(prompts[~mask])


def test_another_training_set_replaces_the_battles_and_an_unknown_one_is_refused():
    study = load_study("smoke", 2)
    assert select_data(study, "arena", 2) is study
    pd.testing.assert_frame_equal(
        select_data(study, "arena+gold", 2).battles, training_sets(study, 2).battles["arena+gold"]
    )
    with pytest.raises(ValueError, match=r"no training set arena\+judge of simulated data; use arena, arena\+gold"):
        select_data(study, "arena+judge", 2)


def test_gold_labels_are_never_evaluated():
    study = load_study("smoke", 2)
    sets, again = training_sets(study, 2), training_sets(study, 2)
    assert list(sets.battles) == ["arena", "arena+gold"]
    table = study.benchmarks["simulated"]
    kept = sets.evaluated["arena+gold"]["simulated"]
    learned = set(sets.battles["arena+gold"]["prompt"])
    assert not set(table.prompts["prompt"][kept]) & learned
    assert (~kept).sum() == len(table.prompts) // 3
    assert sets.evaluated["arena"]["simulated"].all()
    np.testing.assert_array_equal(kept, again.evaluated["arena+gold"]["simulated"])
    # The labels are the benchmark's own: the mean quality of the pair on the gold prompts gives the wins.
    gold = count_pairs(sets.battles["arena+gold"]).wins.sum() - count_pairs(sets.battles["arena"]).wins.sum()
    strong, weak = (table.quality[name][~kept] for name in PAIR)
    assert gold == (strong != weak).sum()


@pytest.mark.skipif("ROUTING_DATA" not in os.environ, reason="needs the real data")
def test_the_real_training_sets_learn_from_no_prompt_of_a_benchmark():
    study = load_study("full", 0)
    sets = training_sets(study, 0)
    assert list(sets.battles) == ["arena", "arena+judge", "arena+gold", "all"]
    n_arena, n_judge, n_gold, n_all = (len(table) for table in sets.battles.values())
    assert n_judge == N_BATTLES and n_gold - n_arena >= 1_500 and n_all == n_judge + n_gold - n_arena
    assert len(set(sets.battles["arena+gold"]["prompt"])) - len(set(sets.battles["arena"]["prompt"])) == 1_500
    for training_data, learned in sets.battles.items():
        evaluated = sets.evaluated[training_data]
        tested = [table.prompts["prompt"][evaluated[benchmark]] for benchmark, table in study.benchmarks.items()]
        assert not overlaps(pd.concat(tested), learned["prompt"]).any(), training_data
    assert not overlaps(sets.held_out["prompt"], sets.battles["all"]["prompt"]).any()
    assert set(sets.held_out["source"]) == {"arena55k", *READERS}
    assert all(kept.mean() > 0.85 for masks in sets.evaluated.values() for kept in masks.values())


def test_tasks_are_simulated_for_smoke_and_never_instead_of_real_ones(tmp_path, monkeypatch):
    tasks, inputs = load_tasks("smoke", 0)
    task = tasks["simulated"]
    assert list(task.train.quality) == list(task.test.quality) and task.test.cost_usd is not None and inputs
    assert not set(task.train.prompts["prompt"]) & set(task.test.prompts["prompt"])
    monkeypatch.setenv("ROUTING_DATA", str(tmp_path))
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match="routerbench"):
        load_tasks("full", 0)
    with pytest.raises(ValueError, match="profile is 'all'"):
        load_tasks("all", 0)


@pytest.mark.skipif("ROUTING_DATA" not in os.environ, reason="no real data")
def test_real_tasks_are_split_as_published():
    tasks, _ = load_tasks("full", 0)
    sizes = {name: (len(task.train.prompts), len(task.test.prompts)) for name, task in tasks.items()}
    mixtures = {"LLMRouter": (5608, 500), "RouterDC": (5935, 9408)}
    assert sizes == {"ARC-Challenge": (1019, 437), "MBPP": (299, 128)} | mixtures
    assert {name: list(task.parts) for name, task in tasks.items() if task.ood} == {"RouterDC": ["test", "ood"]}
    assert len(tasks["RouterDC"].ood.prompts) == 2_717  # of 2,881, without those in JavaScript
    assert tasks["LLMRouter"].test.quality.mean().max() == pytest.approx(0.5626, abs=5e-5)
    assert tasks["LLMRouter"].test.quality.max(axis=1).mean() == pytest.approx(0.7434, abs=5e-5)
    assert tasks["ARC-Challenge"].test.prompts["prompt"].str.len().max() < 1200  # no worked examples
