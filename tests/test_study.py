from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_router import battles, embed  # noqa: F401 (battles is a fixture)

from routing.cross_validation import assign_folds, cross_validated_lead
from routing.router import BradleyTerryRouter
from routing.study import PAIR, load_study


@given(st.lists(st.text(max_size=3), min_size=4, max_size=60), st.integers(0, 2**32 - 1))
def test_folds_never_split_a_group_and_are_balanced(groups, seed):
    n_groups = len(set(groups))
    if n_groups < 3:
        with pytest.raises(ValueError, match="n_folds is 3"):
            assign_folds(np.array(groups), 3, np.random.default_rng(seed))
        return
    folds = assign_folds(np.array(groups), 3, np.random.default_rng(seed))
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
    extra = battles[:7].assign(prompt="extra")
    lead = cross_validated_lead(Memory, battles, vectors, folds, "ant", "bee", also=(extra, vectors[:7]))
    for fold in range(4):
        assert not Memory.seen[fold] & set(battles["prompt"][folds == fold])
        assert "extra" in Memory.seen[fold]
        assert (lead[folds == fold] == (folds != fold).sum() + 7).all()


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
    assert len(study.battles) + len(study.held_out) == 9_761
    assert not set(study.battles["prompt"]) & set(study.held_out["prompt"])
    assert [len(table.prompts) for table in study.benchmarks.values()] == [72, 14_037, 1_307]


def test_real_data_that_is_missing_is_not_replaced(monkeypatch, tmp_path):
    monkeypatch.setenv("ROUTING_DATA", str(tmp_path))
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match="dataset arena55k"):
        load_study("full", 0)
