"""Every swap of order on every router: ours do not change by a bit, and the audit finds each fault of RouteLLM."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.battles import count_pairs
from routing.order_audit import (
    audit_order,
    bootstrap_decisions,
    calls_at_share,
    decisions_changed,
    reorder_battles,
)
from routing.routers.base import ROUTERS, BradleyTerryRouter
from routing.studies.leaderboard import online_elo
from routing.studies.order.original import (
    EloRouter,
    FixedPairRouter,
    OriginalSimilarityRouter,
    TiesToWeakRouter,
    curve_by_rows,
    fit_pivot_tables,
    fit_rows,
)
from routing.studies.simulated.arena import simulate_arena
from tests.conftest import QUESTIONS, battle_tables
from tests.routers.test_base import ENCODER, MAKERS, every_router, with_another_prompt

WRITTEN = ["all rows", "winner first", "strong first", "random half", "canonical", "rows shuffled"]
NAMED = ["pair at construction", "pair when asked"]
PAIR = ("gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1")


@pytest.fixture(scope="module")
def battles() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    arena = simulate_arena(0)
    return arena.sample_battles(arena.sample_prompts(60, rng), 800, rng)


def audit(make, battles: pd.DataFrame, **options) -> pd.DataFrame:
    return audit_order(make, battles, QUESTIONS, PAIR, **options).set_index("swap")


# --- ours


@every_router
@settings(max_examples=4)
@given(table=battle_tables(max_rows=12), seed=st.integers(0, 2**32 - 1))
def test_no_swap_changes_any_router(make, table, seed):
    table = with_another_prompt(table)
    pair = count_pairs(table).models[:2]
    rng = np.random.default_rng(seed)
    quality = rng.integers(0, 3, len(QUESTIONS)) + 3.0, rng.integers(0, 3, len(QUESTIONS)).astype(float)
    audited = audit_order(lambda *_: make(), table, QUESTIONS, pair, quality=quality, seed=seed)
    assert audited["swap"].tolist() == [*WRITTEN, *NAMED, "tied scores"]
    assert (audited["raised"] == "").all()
    assert (audited["largest_change"] == 0.0).all()
    assert (audited["decisions_changed"].dropna() == 0.0).all() and audited["decisions_changed"].notna().sum() == 8


@every_router
@settings(max_examples=4)
@given(table=battle_tables(max_rows=12))
def test_the_swapped_pair_has_the_complement(make, table):
    router = make().fit(with_another_prompt(table))
    strong, weak = router.models[:2]
    p, other = (router.win_probability(QUESTIONS, *pair) for pair in ((strong, weak), (weak, strong)))
    np.testing.assert_allclose(other, 1 - p, rtol=0, atol=1e-12)


@settings(max_examples=15)
@given(table=battle_tables(), seed=st.integers(0, 2**32 - 1))
def test_reordering_keeps_every_battle(table, seed):
    counts = count_pairs(table)
    for name, written in reorder_battles(table, np.random.default_rng(seed)).items():
        after = count_pairs(written)
        np.testing.assert_array_equal(after.wins, counts.wins, err_msg=name)
        assert written["prompt"].tolist() == table["prompt"].iloc[written.index].tolist()


def test_orders_are_what_they_are_called(battles):
    written = reorder_battles(battles, np.random.default_rng(0))
    assert list(written) == WRITTEN
    assert (written["all rows"]["model_a"] == battles["model_b"]).all()
    assert not (written["winner first"]["winner"] == "model_b").any()
    assert (written["canonical"]["model_a"] < written["canonical"]["model_b"]).all()
    strong_first = written["strong first"].groupby(["model_a", "model_b"]).size()
    assert (PAIR in strong_first.index) and (PAIR[::-1] not in strong_first.index)
    assert 0.4 < (written["random half"]["model_a"] == battles["model_a"]).mean() < 0.6
    assert not written["rows shuffled"].index.equals(battles.index)


# --- each swap finds the released fault

RELEASED = {
    "overwritten rows": (
        lambda s, w: OriginalSimilarityRouter(s, w, n_tiers=4, encoder=ENCODER),
        [*WRITTEN[:5], *NAMED],
    ),
    "fixed pair": (lambda s, w: FixedPairRouter(MAKERS["similarity over models"](), s, w), NAMED),
    "ties to the weak": (lambda s, w: TiesToWeakRouter(BradleyTerryRouter()), NAMED),
    "pivot tables": (lambda s, w: EloRouter(fit_pivot_tables), ["winner first", "strong first", "canonical"]),
    "one class": (lambda s, w: EloRouter(fit_rows), ["winner first"]),
    "online updates": (lambda s, w: EloRouter(online_elo), ["canonical", "rows shuffled"]),
}


@pytest.mark.parametrize(("make", "found"), RELEASED.values(), ids=RELEASED)
def test_the_audit_finds_what_was_released(battles, make, found):
    if make is RELEASED["one class"][0]:
        battles = battles[battles["winner"] != "tie"]
    audited = audit(make, battles)
    at_fault = (audited["largest_change"] > 1e-5) | (audited["raised"] != "")
    assert at_fault[at_fault].index.tolist() == found


def test_every_swap_finds_a_released_fault_and_every_router_is_audited():
    """So no swap above passes by finding nothing anywhere, and no router is left out of it."""
    found = {swap for _, swaps in RELEASED.values() for swap in swaps}
    assert found == {*WRITTEN, *NAMED}  # "tied scores": `test_only_an_evaluation_by_rows_sees_the_rows`
    classifiers = {"BertRouter", "CausalLMRouter"}  # in test_classifier.py, on models of a few thousand parameters
    assert set(ROUTERS) == {type(make()).__name__ for make in MAKERS.values()} | classifiers


@settings(max_examples=4)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_properties_above_fail_on_the_released_similarity_router(battles, seed):
    """Not on one lucky table: on any draw of its battles."""
    drawn = battles.sample(400, random_state=seed)
    table = pd.concat([drawn, battles.groupby("model_a").head(20), battles.groupby("model_b").head(20)])
    audited = audit(RELEASED["overwritten rows"][0], table.reset_index(drop=True), seed=seed)
    assert (audited.loc[[*WRITTEN[:5], *NAMED], "largest_change"] > 1e-5).all()
    router = RELEASED["overwritten rows"][0](*PAIR).fit(table)
    p, other = (router.win_probability(QUESTIONS, *pair) for pair in (PAIR, PAIR[::-1]))
    assert np.abs(p + other - 1).min() > 1e-12


def test_decisions_follow_the_change(battles):
    changed = audit(RELEASED["fixed pair"][0], battles)["decisions_changed"]
    assert changed["pair when asked"] == 1.0 and changed["all rows"] == 0.0


def test_what_a_swap_raises_is_told(battles):
    raised = audit(RELEASED["pivot tables"][0], battles)["raised"]
    assert raised["winner first"].startswith("ValueError: Found array with 0 sample")
    with pytest.raises(ValueError, match="no rating for 'nobody'"):
        audit_order(lambda *_: BradleyTerryRouter(), battles, QUESTIONS, ("nobody", PAIR[1]))


def test_only_an_evaluation_by_rows_sees_the_rows(battles):
    prompts = [f"question {number}" for number in range(80)]
    rng = np.random.default_rng(0)
    quality = rng.integers(0, 2, 80) + 0.4, rng.integers(0, 2, 80).astype(float)

    def change(**options) -> float:
        table = audit_order(lambda *_: MAKERS["random"](), battles, prompts, PAIR, quality=quality, **options)
        return table.set_index("swap").loc["tied scores", "largest_change"]

    assert change() == 0.0
    assert change(make_curve=curve_by_rows) > 1e-3


def test_embeddings_follow_their_battles(battles):
    vectors = np.random.default_rng(0).normal(size=(len(battles), 8)) + 3
    audited = audit_order(lambda *_: MAKERS["similarity over tiers"](), battles, vectors[:5], PAIR, embeddings=vectors)
    assert (audited["largest_change"] == 0.0).all()


# --- decisions


def test_calls_at_share_by_hand():
    p = np.array([0.2, 0.9, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(calls_at_share(p, 0.2), [0, 1, 0, 0, 0])
    np.testing.assert_allclose(calls_at_share(p, 0.4), [0, 1, 1 / 3, 1 / 3, 1 / 3])
    np.testing.assert_allclose(calls_at_share(p, 1.0), 1)
    assert decisions_changed(p, p[::-1], 0.2) == pytest.approx(2 / 5)
    shares = np.array([0.2, 0.4, 1.0])
    np.testing.assert_array_equal(calls_at_share(p, shares), [calls_at_share(p, share) for share in shares])
    np.testing.assert_array_equal(
        decisions_changed(p, p[::-1], shares), [decisions_changed(p, p[::-1], share) for share in shares]
    )


@given(
    p=st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.8]), min_size=1, max_size=20), share=st.floats(0, 1), data=st.data()
)
def test_calls_keep_to_the_share_and_see_no_order(p, share, data):
    p = np.array(p)
    order = np.array(data.draw(st.permutations(range(len(p)))))
    calls = calls_at_share(p, share)
    assert calls.mean() == pytest.approx(share, abs=1e-12)
    np.testing.assert_array_equal(calls_at_share(p[order], share), calls[order])
    assert ((calls >= 0) & (calls <= 1)).all()


def test_the_interval_of_decisions_holds_the_truth(rng):
    p_one = rng.random(400)
    p_other = np.clip(p_one + 0.05 * rng.normal(size=400), 0, 1)
    large_one = rng.random(200_000)
    truth = decisions_changed(large_one, np.clip(large_one + 0.05 * rng.normal(size=200_000), 0, 1), 0.5)
    table = bootstrap_decisions(p_one, p_other, np.array([0.5]), 200, rng)
    assert table.loc[0, "low"] < truth < table.loc[0, "high"] < 3 * truth
    assert table.loc[0, "estimate"] == decisions_changed(p_one, p_other, 0.5)


@pytest.mark.parametrize("share", [np.nan, -0.1, 1.1, 95, np.array([0.5, np.nan])])
def test_a_share_that_is_none_raises(share):
    with pytest.raises(ValueError, match="strong_share is"):
        decisions_changed(np.array([0.1, 0.9]), np.array([0.9, 0.1]), share)
