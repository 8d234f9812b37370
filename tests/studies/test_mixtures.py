"""Mixtures of sources: what weighs alike, that draws follow the weights, and that a judge's taste is taken out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from routing.battles import count_pairs, swap_battles
from routing.data.judged import read_arena55k_more
from routing.data.votes import read_arena_votes
from routing.routers.base import BradleyTerryRouter
from routing.routers.similarity import SimilarityRouter
from routing.studies import mixtures
from routing.studies.mixtures import Mixture, draw_mixture, mixture_weights, prompt_correlation

MODELS = ("ant", "bee", "cat")
STRENGTH = dict(zip(MODELS, (1.0, 0.0, -1.0), strict=True))


def source_battles(rng, name, taste, n_prompts=60, n_pairs=6, where=0.0):
    """Battles of one judge who adds `taste` to the rating of ant; prompts lie around `where`, and sign(x) adds to ant.

    Returns the battles and the prompts' vectors, one a battle.
    """
    x = rng.normal(size=n_prompts)
    prompt = np.repeat(np.arange(n_prompts), n_pairs)
    sides = np.array([rng.permutation(3)[:2] for _ in prompt])
    rating = np.array([STRENGTH[model] for model in MODELS]) + np.outer(np.sign(x)[prompt] + taste, [1, 0, 0])
    gap = np.subtract(*(rating[np.arange(len(prompt)), sides[:, side]] for side in (0, 1)))
    names = np.array(MODELS)[sides]
    table = pd.DataFrame({"prompt": [f"{name} {number}" for number in prompt], "model_a": names[:, 0]})
    won = np.where(rng.random(len(prompt)) < expit(gap), "model_a", "model_b")
    table = table.assign(model_b=names[:, 1], winner=won, source=name, judge="judge", weight=1.0)
    vectors = np.stack([0.3 * x, np.full_like(x, where), np.ones_like(x)], axis=1)[prompt]
    return table, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def two_sources(rng):
    """One source likes ant, the other does not; their prompts lie apart."""
    parts = [source_battles(rng, "fond", 2.0, 250, 8, 1.0), source_battles(rng, "cool", -2.0, 250, 8, -1.0)]
    return pd.concat([part[0] for part in parts], ignore_index=True), np.concatenate([part[1] for part in parts])


@pytest.fixture
def table(rng):
    parts = [source_battles(rng, "few", 0.0, 10, 30)[0], source_battles(rng, "many", 0.0, 50, 3)[0]]
    return pd.concat(parts, ignore_index=True)


def test_what_weighs_alike(table):
    def totals(alike, by):
        weights = pd.Series(mixture_weights(table, Mixture(("few", "many"), alike, False)))
        return weights.groupby(by).sum()

    np.testing.assert_allclose(totals("source", table["source"]), 1)
    np.testing.assert_allclose(totals("prompt", table["prompt"]), 1)
    assert (mixture_weights(table, Mixture(("many",), "battle", False))[table["source"] == "few"] == 0).all()
    with pytest.raises(ValueError, match="no battle is of nobody"):
        mixture_weights(table, Mixture(("nobody",)))


@pytest.mark.parametrize("alike", ["battle", "prompt", "source"])
def test_matched_outcomes_leave_sources_and_pairs_their_weight(table, alike):
    before, after = (
        pd.Series(mixture_weights(table, Mixture(("few", "many"), alike, matched))) for matched in (False, True)
    )
    pairs = [table["source"], table[["model_a", "model_b"]].min(axis=1), table[["model_a", "model_b"]].max(axis=1)]
    np.testing.assert_allclose(after.groupby(pairs).sum(), before.groupby(pairs).sum())


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.integers(1, 700))
def test_a_draw_takes_each_battle_as_often_as_it_weighs_whatever_the_order(seed, n_battles):
    rng = np.random.default_rng(seed)
    table = source_battles(rng, "one", 0.0, 12, 4)[0].assign(weight=lambda part: rng.uniform(0.1, 3, len(part)))
    table["prompt"] = [f"prompt {number}" for number in range(len(table))]
    mixture = Mixture(("one",), "battle", False)
    drawn = draw_mixture(table, mixture, n_battles, np.random.default_rng(5))
    expected = n_battles * table["weight"] / table["weight"].sum()
    times = drawn.index.value_counts().reindex(table.index, fill_value=0)
    assert len(drawn) == n_battles and (np.abs(times - expected) < 1 + 1e-6).all()
    swapped = swap_battles(table, rng.random(len(table)) < 0.5)
    shuffled = table.assign(**swapped).sample(frac=1, random_state=seed)
    again = draw_mixture(shuffled, mixture, n_battles, np.random.default_rng(5))
    pd.testing.assert_frame_equal(drawn, again)


def test_matching_takes_a_judges_taste_out_and_leaves_what_prompts_change(rng):
    table, vectors = two_sources(rng)
    x = vectors[:, 0] / vectors[:, 2]
    found = {}
    for matched in (False, True):
        drawn = draw_mixture(table, Mixture(("fond", "cool"), "battle", matched), 6_000, np.random.default_rng(1))
        router = SimilarityRouter(1e12, None, 0.1).fit(drawn, vectors[drawn.index])
        margin = router.margin(vectors, "ant", "bee")
        fond = (table["source"] == "fond").to_numpy()
        taste = margin[fond].mean() - margin[~fond].mean()
        effect = np.mean(
            [np.subtract(*(margin[part & (np.sign(x) == s)].mean() for s in (1, -1))) for part in (fond, ~fond)]
        )
        found[matched] = taste, effect
    assert found[False][0] > 1.5 and abs(found[True][0]) < 0.3  # the truth: 4 before shrinkage, and none
    assert found[True][1] > 0.5  # the truth: 2 before shrinkage


def test_the_correlation_and_the_gain_are_those_of_effects(rng):
    table, vectors = source_battles(rng, "one", 0.0, 300, 10)
    fresh, queries = source_battles(rng, "one", 0.0, 200, 10)
    held_out = mixtures.add_leaderboard(fresh, table)
    seeing = SimilarityRouter(1e12, None, 0.1).fit(table, vectors)
    blind = SimilarityRouter(1e12, None, 0.1).fit(table, vectors[rng.permutation(len(vectors))])
    routers = {"leaderboard": BradleyTerryRouter().fit(table), "seeing": seeing, "blind": blind}
    effects = {name: mixtures.prompt_effect(router, held_out, queries) for name, router in routers.items()}
    found = {name: prompt_correlation(effect, held_out) for name, effect in effects.items()}
    assert found["leaderboard"] == 0 and found["seeing"] > abs(found["blind"]) + 0.1
    gains = mixtures.gains_by_source(effects, held_out, 200, rng).set_index("router")
    assert gains.loc["seeing", "low"] > 0 and gains["estimate"].idxmax() == "seeing"
    np.testing.assert_allclose(gains.loc["leaderboard", ["estimate", "low", "high"]].astype(float), 0, atol=1e-12)
    assert (gains["n_prompts"] == 200).all()
    stranger = held_out.replace({"model_a": {"ant": "stranger"}, "model_b": {"ant": "stranger"}})
    effect = mixtures.prompt_effect(seeing, stranger, queries)
    ant = (held_out[["model_a", "model_b"]] == "ant").any(axis=1)
    assert (effect[ant] == 0).all() and (effect[~ant] == effects["seeing"][~ant]).all()
    assert "1 of 3" in mixtures.plot_gains_by_source(gains.reset_index()).get_suptitle()


def test_held_out_prompts_are_in_no_source_and_have_an_expected_score(table, rng):
    twin = table[table["source"] == "few"].assign(source="many", prompt=lambda part: part["prompt"].str.upper() + "!")
    both = pd.concat([table, twin], ignore_index=True)
    learned, held_out = mixtures.hold_out(both, rng)
    texts = [set(mixtures.normalise_texts(part["prompt"])) for part in (learned, held_out)]
    assert not texts[0] & texts[1] and held_out["expected"].between(0, 1).all()
    assert len(count_pairs(held_out).models) == 3


@pytest.mark.skipif("ROUTING_DATA" not in os.environ, reason="needs the real data")
def test_weights_of_battles_drawn_by_outcome_restore_ties_where_a_pair_has_some():
    table = mixtures.describe_weights(read_arena55k_more(), read_arena_votes()).set_index("battles")
    drawn, weighted, votes = (table.loc[name] for name in ("as drawn", "weighted", "all votes"))
    assert drawn["ties"] == pytest.approx(0.03, abs=0.005) and votes["ties"] == pytest.approx(0.32, abs=0.01)
    assert drawn["ties"] < weighted["ties"] < votes["ties"]
    assert drawn["within_tier"] == pytest.approx(weighted["within_tier"])  # a pair keeps what it weighs
    assert drawn["gpt-3.5-turbo-0613"] == pytest.approx(0.5, abs=0.01)


def test_shares_of_weighted_battles_are_sums_of_weights():
    battles = pd.DataFrame({"model_a": ["a", "a", "b"], "model_b": ["b", "b", "c"], "weight": [1.0, 3.0, 4.0]})
    battles["winner"] = ["model_a", "tie", "model_b"]
    votes = count_pairs(pd.concat([battles] * 3 + [swap_battles(battles, np.ones(3, dtype=bool))]))
    table = mixtures.describe_weights(battles, votes, 3).set_index("battles")
    assert table.loc["as drawn", "ties"] == pytest.approx(1 / 3) and table.loc["weighted", "ties"] == 3 / 8
    assert table.loc["weighted", "a"] == (1 + 3 / 2) / 4 and (table["within_tier"] == 0).all()
    assert (mixtures.describe_weights(battles, votes, 1)["within_tier"] == 1).all()


def test_what_is_chosen_is_what_the_rule_takes_from_the_committed_table():
    tried = pd.read_csv(Path(__file__).parents[2] / "results" / "benchmarks" / "mixtures.csv")
    chosen = mixtures.CHOSEN, mixtures.CHOSEN_GAMMA, mixtures.CHOSEN_TIERS
    assert mixtures.best_candidate(tried) == chosen
    assert set(tried["mixture"]) == set(mixtures.MIXTURES) and not {"MT-Bench", "MMLU"} & set(tried["left_out"])


class Sighted:
    """An encoder of prompts that knows their vectors."""

    def __init__(self, table, vectors):
        self.vectors = dict(zip(table["prompt"], vectors, strict=True))

    def encode(self, prompts):
        return np.array([self.vectors[prompt] for prompt in prompts])


def test_the_rule_finds_the_mixture_that_carries_over(rng, monkeypatch):
    monkeypatch.setattr(mixtures, "FEWEST_PROMPTS", 20)
    parts = {name: source_battles(rng, name, taste, 150, 8, where)
             for name, taste, where in (("fond", 2.0, 1.0), ("cool", -2.0, -1.0), ("fair", 0.0, 0.0))}  # fmt: skip
    noise = source_battles(rng, "noise", 0.0, 150, 8)
    parts["noise"] = noise[0].sample(frac=1, random_state=1).assign(prompt=noise[0]["prompt"].to_numpy()), noise[1]
    table = pd.concat([part[0] for part in parts.values()], ignore_index=True)
    vectors = np.concatenate([part[1] for part in parts.values()])
    candidates = {"noise": Mixture(("noise",)), "good": Mixture(("fond", "cool", "fair"), "prompt")}
    tried = mixtures.choose_mixture(table, Sighted(table, vectors), rng, candidates, [(1_000.0, None)], 2_000)
    assert mixtures.best_candidate(tried)[0] == "good" and len(tried) == 3 * 4
    assert set(tried["left_out"]) == set(parts)
    figure = mixtures.plot_mixtures(tried)
    assert "good" in figure.get_suptitle()
