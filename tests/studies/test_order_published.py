"""What is said of others' publications is counted from tables whose answers are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from routing.battles import PairCounts
from routing.studies.order.published import (
    SKIPPED,
    audit_published,
    count_first_of_best,
    read_both_games,
    same_tier_share,
    same_tier_shares,
)
from routing.studies.simulated.arena import simulate_arena

PAIR = ("gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1")


def test_the_share_within_a_tier_counts_battles_of_nearly_equal_models():
    wins = np.array([[0, 5, 80, 80], [5, 0, 80, 80], [20, 20, 0, 10], [20, 20, 10, 0]], dtype=float)
    counts = PairCounts(("a", "b", "c", "d"), wins, np.zeros((4, 4)))
    assert same_tier_share(counts, 2) == pytest.approx(30 / 430)
    assert same_tier_share(counts, 1) == 1 and same_tier_share(counts, 4) == 0 == same_tier_share(counts)


def test_about_a_quarter_of_all_arena_votes_is_within_a_tier(rng):
    arena = simulate_arena(0)
    shares = same_tier_shares(arena.sample_battles(arena.sample_prompts(30, rng), 400, rng), 4)
    assert list(shares) == ["the battles here", "all Arena votes"] and 0.24 < shares["all Arena votes"] < 0.26


def test_the_first_of_equally_good_models_gets_the_label():
    quality = pd.DataFrame({"x": [1.0, 1.0, 0.0, 0.0], "y": [1.0, 0.0, 1.0, 0.0], "z": [0.0, 0.0, 1.0, 0.0]})
    assert count_first_of_best(quality) == {"tied": 0.75, "model": "x", "labelled": 0.75, "alone": 0.25}


def test_the_letters_of_the_second_game_are_turned_round():
    rows = [("base", "x", "model_a"), ("base", "x", "tie"), ("x", "base", "model_b"), ("x", "base", "model_b")]
    verdicts = pd.DataFrame(rows, columns=["model_a", "model_b", "winner"])
    assert read_both_games(verdicts, "base") == {"first": 0.75, "second": 1.0, "misread": 0.0}


def test_the_audit_labels_what_was_published_and_what_was_measured(rng):
    arena = simulate_arena(0)
    battles = arena.sample_battles(arena.sample_prompts(30, rng), 900, rng)
    table = audit_published(battles, np.array([0.0, np.log(3.0)]), PAIR, real=False)
    assert list(table) == ["finding", "published", "measured here", "source"] and table.notna().all(axis=None)
    assert "spans 0.500 to 0.750 on 2" in table["measured here"][0]
    assert (table["measured here"].iloc[2:] == SKIPPED).all() and (table["source"] != "").all()
