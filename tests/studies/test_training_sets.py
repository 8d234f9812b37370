from __future__ import annotations

import os

import numpy as np
import pytest

from routing.battles import count_pairs
from routing.studies.inputs import PAIR, load_study
from routing.studies.training_sets import draw_gold, training_sets


def test_gold_prompts_are_drawn_with_their_repetitions(rng):
    prompts = np.array([f"prompt {number % 50}" for number in range(70)])
    mask = draw_gold(prompts, 10, rng)
    assert len(set(prompts[mask])) == 10
    assert not set(prompts[mask]) & set(prompts[~mask])


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
def test_the_real_training_sets():
    sets = training_sets(load_study("full", 0), 0)
    assert list(sets.battles) == ["arena", "arena+judge", "arena+gold", "all"]
    n_arena, n_judge, n_gold, n_all = (len(table) for table in sets.battles.values())
    assert n_judge - n_arena == 62_779 and n_gold - n_arena >= 1_500
    assert n_all == n_judge + n_gold - n_arena
    assert len(set(sets.battles["arena+gold"]["prompt"])) - len(set(sets.battles["arena"]["prompt"])) == 1_500
    assert list(sets.inputs) == ["alpaca_eval"]
