"""Readers of judged comparisons on small files of the published forms, on faulty ones, and on the real data."""

from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.battles import PairCounts, count_pairs, swap_battles
from routing.data import judged
from routing.data.benchmarks import read_gsm8k, read_mmlu, read_mt_bench
from routing.data.sources import FOLDER
from routing.data.votes import read_arena55k, read_arena_votes
from tests.conftest import battle_tables
from tests.data.test_votes import CORE, rows, write_csv

needs_data = pytest.mark.skipif(not os.environ.get("ROUTING_DATA"), reason="ROUTING_DATA is not set")
LONG = "Tell me of ten animals."


def turns(*texts):
    return json.dumps(texts)


def joined(folder, judgements, prompts):
    """Write a dataset of two files; judgements as (question_id, model_a, model_b, winner, ...)."""
    write_csv(folder / "judgements.csv", **judgements)
    write_csv(folder / "prompts.csv", **prompts)
    return folder


def both_orders(question, pairs):
    """Columns of verdicts; `pairs` are (shown first, shown second, winner)."""
    first, second, winner = zip(*pairs, strict=True)
    return {"question_id": [question] * len(pairs), "model_a": first, "model_b": second, "winner": winner}


# ------------------------------------------------------------------------------------------------ small files
def test_elobench_joins_prompts_and_leaves_out_what_overlaps_with_an_evaluation(tmp_path):
    verdicts = {
        "question_id": ["q1", "q2", "q1"],
        "model_a": ["x", "x", "y"],
        "model_b": ["y", "y", "x"],
        "winner": ["tie (bothbad)", "model_a", "model_b"],
        "experiment": ["e"] * 3,
    }
    prompts = {
        "question_id": ["q2", "q1"],
        "source": ["Quora", "Quora"],
        "prompt": ["evaluated", "free"],
        "eval_overlap": ["mtbench:exact:85", None],
    }
    table = judged.read_elobench(joined(tmp_path, verdicts, prompts))
    assert list(table.columns) == judged.COLUMNS
    assert rows(table, ["prompt", *CORE]) == [("free", "x", "y", "tie"), ("free", "y", "x", "model_b")]
    assert set(table["source"]) == {"elobench_gpt4_battles"} and set(table["weight"]) == {1.0}
    with pytest.raises(ValueError, match="row 1: question q2 is not in prompts.csv"):
        judged.read_elobench(joined(tmp_path, verdicts, {name: column[1:] for name, column in prompts.items()}))


def test_both_orders_weigh_half_each_and_one_order_alone_is_left_out(tmp_path):
    pairs = [("gpt-4", "y", "model_a"), ("y", "gpt-4", "tie"), ("y", "z", "model_a"), ("z", "gpt-4", "model_b")]
    prompts = {"question_id": [1], "prompt": [turns("first", "then")], "lang": ["en"], "eval_overlap": [None]}
    table = judged.read_oasst(joined(tmp_path, both_orders(1, pairs), prompts))
    assert rows(table, ["prompt", *CORE, "weight"]) == [
        ("first\nthen", "gpt-4-0314", "y", "model_a", 0.5),
        ("first\nthen", "y", "gpt-4-0314", "tie", 0.5),
    ]


def test_a_judge_that_always_answers_for_the_first_says_nothing(tmp_path):
    pairs = [(a, b, "model_a") for a in "xyz" for b in "xyz" if a != b]
    columns = both_orders("vicuna-3", pairs) | {"prompt": [turns(LONG)] * 6, "eval_overlap": [None] * 6}
    table = judged.read_vicuna80(write_csv(tmp_path / "judgements.csv", **columns))
    counts = count_pairs(table, table["weight"].to_numpy())
    np.testing.assert_array_equal(counts.wins, counts.wins.T)
    assert counts.n_battles == 3


def test_arena_hard_leaves_out_guided_entries_and_counts_a_repeated_pair_once(tmp_path):
    pair = [("gpt-4-0314", "llama3_1_8b", "model_a"), ("llama3_1_8b", "gpt-4-0314", "model_b")]
    again = [("gpt-4-0314", "Meta-Llama-3.1-8B-Instruct", "tie"), ("Meta-Llama-3.1-8B-Instruct", "gpt-4-0314", "tie")]
    guided = [("gpt-4-0314", "gpt-4o_guided", "model_b"), ("gpt-4o_guided", "gpt-4-0314", "model_a")]
    columns = both_orders("h", pair + again + guided)
    columns |= {"judge": ["gpt-4o", "gpt-4o (batch)"] * 3, "strength": [1] * 6, "source": ["fork"] * 6}
    prompts = {"question_id": ["h"], "prompt": [turns(LONG)], "eval_overlap": [None]}
    table = judged.read_arena_hard(joined(tmp_path, columns, prompts))
    assert set(table["model_a"]) | set(table["model_b"]) == {"gpt-4-0314", "llama-3.1-8b-instruct"}
    assert len(table) == 4 and table["weight"].sum() == 1 and set(table["judge"]) == {"gpt-4o"}


def test_four_judges_take_the_prompts_of_the_other_file(tmp_path):
    pairs = [("bard", "claude-1", "model_a"), ("claude-1", "bard", "model_b")]
    asked = write_csv(
        tmp_path / "questions.csv",
        **both_orders("vicuna-1", pairs),
        prompt=[turns(LONG)] * 2,
        eval_overlap=[None, None],
    )
    judgements = {name: column * 2 for name, column in both_orders("vicuna-1", pairs).items()}
    judgements = {name: list(column) for name, column in judgements.items()} | {"judge": ["bard"] * 2 + ["gpt-4"] * 2}
    table = judged.read_four_judges(write_csv(tmp_path / "judgements.csv", **judgements), asked)
    assert set(table["prompt"]) == {LONG} and table["judge"].tolist() == ["bard"] * 2 + ["gpt-4-0314"] * 2
    assert table["weight"].tolist() == [0.5] * 4


def test_arena33k_gives_people_and_the_judge_on_the_same_battle(tmp_path):
    path = write_csv(
        tmp_path / "battles.csv",
        question_id=["a", "b", "c"],
        model_a=["x"] * 3,
        model_b=["y"] * 3,
        prompt=[turns(text) for text in ("one", "two", "three")],
        winner_human=["model_a", "tie (bothbad)", "model_b"],
        winner_gpt4=["model_b", None, "model_b"],
        eval_overlap=[None, None, "mtbench:exact:81"],
    )
    assert rows(judged.read_arena33k(path), ["question_id", "judge", "winner"]) == [
        ("a", "human", "model_a"),
        ("b", "human", "tie"),
        ("a", "gpt-4", "model_b"),
    ]


MARKS = {"model_a": (1, 0, 0), "model_b": (0, 1, 0), "tie": (0, 0, 1)}


def drawn_by_outcome(path, winners, **columns):
    marks = np.array([MARKS[winner] for winner in winners]).T
    base = {
        "id": np.arange(len(winners)),
        "model_a": ["x"] * len(winners),
        "model_b": ["y"] * len(winners),
        "prompt": [turns(f"{LONG} {number}") for number in range(len(winners))],
        "sampling": ["left_win"] * len(winners),
        "eval_overlap": [None] * len(winners),
    }
    return write_csv(
        path, **(base | columns), **dict(zip(("winner_model_a", "winner_model_b", "winner_tie"), marks, strict=True))
    )


def test_battles_drawn_by_outcome_get_the_shares_of_the_votes(tmp_path):
    votes = PairCounts(("x", "y"), np.array([[0.0, 6e6], [1e6, 0.0]]), np.array([[0.0, 3e6], [3e6, 0.0]]))
    winners = ["model_a"] * 10 + ["model_b"] * 10 + ["tie"]
    table = judged.read_arena55k_more(drawn_by_outcome(tmp_path / "more.csv", winners), votes)
    shares = table.groupby("winner")["weight"].sum() / table["weight"].sum()
    np.testing.assert_allclose(shares[["model_a", "tie", "model_b"]], [0.6, 0.3, 0.1], atol=1e-5)
    assert table["weight"].sum() == pytest.approx(21) and not table["random_sample"].any()
    overlap = drawn_by_outcome(tmp_path / "more.csv", winners, eval_overlap=["gsm8k:exact"] + [None] * 20)
    assert 0 not in judged.read_arena55k_more(overlap, votes)["question_id"].tolist()


def test_arena_bench_is_a_benchmark_of_the_pair(tmp_path):
    names = ["gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1", "claude-2"]
    path = write_csv(
        tmp_path / "scores.csv",
        question_id=[q for q in "abc" for _ in names],
        prompt=[turns(q) for q in "abc" for _ in names],
        model=names * 3,
        score=[9, 7, 5, 8, None, 5, 10, 10, None],
        eval_overlap=[None] * 9,
    )
    table = judged.read_arena_bench(path)
    assert table.prompts["prompt"].tolist() == ["a", "c"] and table.models == tuple(names[:2])
    np.testing.assert_array_equal(table.quality, [[9, 7], [10, 10]])


# ---------------------------------------------------------------------------------------------------- weights
def shares(battles, weights):
    counts = count_pairs(battles, weights)
    return counts, counts.wins / np.where(counts.battles > 0, counts.battles, 1)


@given(battle_tables(), st.integers(0, 2**32 - 1))
def test_matched_outcomes_keep_each_pairs_weight_and_do_not_depend_on_the_order(table, seed):
    rng = np.random.default_rng(seed)
    counts = count_pairs(table)
    n = len(counts.models)
    wins, ties = rng.uniform(1, 100, (2, n, n)) * (1 - np.eye(n))
    target = PairCounts(counts.models, wins, ties + ties.T)
    before = rng.uniform(0.1, 2, len(table))
    weights = judged.match_outcomes(table, target, before)
    np.testing.assert_allclose(count_pairs(table, weights).battles, count_pairs(table, before).battles)
    swapped = judged.match_outcomes(swap_battles(table, rng.random(len(table)) < 0.5), target, before)
    np.testing.assert_allclose(swapped, weights)


def test_matched_outcomes_are_the_targets_where_every_outcome_occurred(rng):
    table = pd.DataFrame({"model_a": "x", "model_b": "y", "winner": ["model_a"] * 90 + ["tie"] * 5 + ["model_b"] * 5})
    target = PairCounts(("x", "y"), np.array([[0, 2e7], [1e7, 0]]), np.array([[0, 1e7], [1e7, 0]]))
    counts, won = shares(table, judged.match_outcomes(table, target))
    np.testing.assert_allclose([won[0, 1], won[1, 0]], [0.5, 0.25], atol=1e-5)
    with pytest.raises(ValueError, match="lack z"):
        judged.match_outcomes(table.assign(model_a="z"), target)


# -------------------------------------------------------------------------------------------------- real data
@needs_data
@pytest.mark.parametrize(
    "source, n_rows, n_prompts, n_models",
    [  # rows of the README less flagged rows; pairs judged in one order, guided entries and short prompts left out
        ("elobench_gpt4_battles", 73_261, 10_756, 28),
        ("oasst_gpt4_pairs", 2 * 18_599, 952, 7),
        ("arena_hard_v01", 49_634, 500, 41),
        ("vicuna80_gpt4_pairs", 4_344, 78, 8),
        ("vicuna80_four_judges", 4 * 1_560, 78, 5),
        ("arena33k_human_and_gpt4", 2_007 + 1_934, 1_772, 8),
        ("arena55k_more", 11_307, 10_958, 64),
        ("alpaca_eval", 54_730, 805, 69),
    ],
)
def test_real_sources(source, n_rows, n_prompts, n_models):
    table = judged.READERS[source]()
    names = {*table["model_a"], *table["model_b"]}
    assert (len(table), table["prompt"].nunique(), len(names)) == (n_rows, n_prompts, n_models)
    assert not any(name.endswith("_guided") for name in names) and set(table["winner"]) == {"model_a", "tie", "model_b"}
    orders = table.groupby(["question_id", "judge", "model_a", "model_b"], sort=False)["winner"].first()
    if source == "oasst_gpt4_pairs":  # its README: the orders agree on 13,469 of 18,599 pairs
        mirrored = orders.map({"model_a": "model_b", "model_b": "model_a", "tie": "tie"})
        mirrored.index = mirrored.index.set_names(["question_id", "judge", "model_b", "model_a"])
        assert (orders == mirrored.reorder_levels(orders.index.names).reindex(orders.index)).sum() == 2 * 13_469
        assert (table["winner"] == "model_a").mean() == pytest.approx(0.49, abs=0.005)
    if source == "elobench_gpt4_battles":  # 13,367 with gpt-4-1106-preview before the flagged rows go, 151 of Mixtral
        strong = table[["model_a", "model_b"]].eq("gpt-4-1106-preview").any(axis=1)
        mixtral = table[["model_a", "model_b"]].eq("mixtral-8x7b-instruct-v0.1").any(axis=1)
        assert 13_350 <= strong.sum() <= 13_367 and (strong & mixtral).sum() == 151


@needs_data
def test_real_battles_drawn_by_outcome():
    table = judged.read_arena55k_more()
    assert (table["winner"] == "tie").mean() == pytest.approx(0.03, abs=0.005)
    votes, sides = read_arena_votes(), ["gpt-4-1106-preview", "gpt-4-0613"]
    pair = table[table["model_a"].isin(sides) & table["model_b"].isin(sides)]
    i, j = (votes.models.index(name) for name in sides)
    weighted = count_pairs(pair, pair["weight"].to_numpy())
    odds = weighted.wins[1, 0] / weighted.wins[0, 1]  # names in alphabetical order
    assert odds == pytest.approx(votes.wins[i, j] / votes.wins[j, i], rel=0.02)
    assert abs(np.log(odds)) > abs(np.log(count_pairs(pair).wins[1, 0] / count_pairs(pair).wins[0, 1]))


@needs_data
def test_real_arena_bench():
    table = judged.read_arena_bench()
    strong, weak = (table.quality[name] for name in ("gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"))
    assert len(table.prompts) == 293 and (weak >= strong).sum() == 96 and (weak > strong).sum() == 27
    assert (strong.mean(), weak.mean()) == pytest.approx((8.87, 6.54), abs=0.025)


@needs_data
def test_no_prompt_of_a_benchmark_is_in_the_judged_battles():
    benchmarks = {
        "MT-Bench": read_mt_bench(decontaminate=False),
        "MMLU": read_mmlu(decontaminate=False),
        "GSM8K": read_gsm8k(decontaminate=False),
        "Arena-Bench": judged.read_arena_bench(),
    }
    every = judged.judged_battles()
    kept = judged.judged_battles(benchmarks=benchmarks)
    assert 0 < len(every) - len(kept) < 1_000
    tested = pd.concat([table.prompts["prompt"] for table in benchmarks.values()])
    assert not judged.overlaps(kept["prompt"], tested).any()


def test_every_name_is_mapped_once_and_to_a_name_that_is_kept():
    table = pd.read_csv(str(FOLDER / "model_names.csv"), keep_default_na=False)
    assert not table.duplicated(["source", "name"]).any() and (table != "").all(axis=None)
    assert not set(table["model"]) & set(table.loc[table["source"] == "any", "name"])
    assert set(table["source"]) <= {"any", "arena_bench_v1", *judged.READERS}


@needs_data
def test_mapped_names_are_the_arenas():
    table = pd.read_csv(str(FOLDER / "model_names.csv"), keep_default_na=False)
    arena = {*read_arena_votes().models, *read_arena55k()["model_a"], "gpt-3.5-turbo-0301"}
    assert set(table["model"]) <= arena


def test_texts_are_the_same_whatever_their_case_and_punctuation():
    assert judged.overlaps(["What's 2 + 2?", "Other"], ["WHATS 2+2"]).tolist() == [True, False]
    with pytest.raises(ValueError, match="no source nothing; choose from elobench"):
        judged.judged_battles(["nothing"])
