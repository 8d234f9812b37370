from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from routing.battles import canonical_order, encode_battles
from routing.ratings.ties import davidson_terms, outcome_probability
from routing.routers.training import (
    Batches,
    BattlesByPrompt,
    batches_to_train,
    choose_head,
    davidson_losses,
    fit_head,
    gather_by_prompt,
    pad_rows,
    score_losses,
)


def some_battles(rng: np.random.Generator, n: int = 60, n_prompts: int = 20, ties: bool = True) -> BattlesByPrompt:
    prompt = np.sort(np.concatenate([np.arange(n_prompts), rng.integers(n_prompts, size=n - n_prompts)]))
    first = rng.integers(3, size=n)
    tiers = np.stack([first, (first + rng.integers(1, 3, size=n)) % 3], axis=1)
    outcome = rng.integers(3, size=n) if ties else 2 * rng.integers(2, size=n)
    offset = torch.from_numpy(rng.normal(size=n).astype(np.float32))
    T = torch.from_numpy
    return BattlesByPrompt(tuple(f"p{k}" for k in range(n_prompts)), T(prompt), T(tiers), offset, T(outcome))


def test_losses_are_davidson_s(rng):
    battles = some_battles(rng)
    outputs = torch.from_numpy(rng.normal(size=(20, 3)))
    added = outputs.numpy()[battles.prompt.numpy()[:, None], battles.tiers.numpy()]
    lead = battles.offset.numpy() + added[:, 0] - added[:, 1]
    outcome, rows = battles.outcome.numpy(), np.arange(60)
    log_nu = torch.tensor(np.log(0.7))
    expected = -davidson_terms(lead, np.log(0.7)).log_probability[outcome, rows]
    np.testing.assert_allclose(davidson_losses(outputs, log_nu, battles), expected, rtol=1e-6)
    p = outcome_probability(lead, "davidson", 0.7)
    score, y = p[:, 0] + p[:, 1] / 2, 1 - outcome / 2
    expected = -(y * np.log(score) + (1 - y) * np.log(1 - score))
    np.testing.assert_allclose(score_losses(outputs, log_nu, battles), expected, rtol=1e-6)


@pytest.mark.parametrize("loss", [davidson_losses, score_losses])
def test_no_ties_is_a_tie_parameter_of_zero(loss, rng):
    battles = some_battles(rng, ties=False)
    losses = loss(torch.zeros(20, 3), torch.tensor(-np.inf), battles)
    won = battles.outcome.numpy() == 0
    expected = np.log1p(np.exp(np.where(won, -1, 1) * battles.offset.numpy()))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_the_head_is_scikit_learn_s_logistic_regression(rng):
    """One pair, no ties, no leaderboard: the difference of the two rows is a penalised logistic regression."""
    n, width, penalty = 200, 5, 0.1
    vectors, won = rng.normal(size=(n, width)), rng.random(n) < 0.6
    T = torch.from_numpy
    battles = BattlesByPrompt(
        (), torch.arange(n), torch.tensor([[0, 1]]).expand(n, 2), torch.zeros(n), T(np.where(won, 0, 2))
    )
    weight = fit_head(
        T(vectors), 2, lambda out: davidson_losses(out, torch.tensor(-np.inf), battles).mean(), penalty
    ).numpy()
    # penalty/2 (|w0|^2 + |w1|^2) is penalty/4 |w0 - w1|^2 where w0 = -w1, as it is at the minimum
    peer = LogisticRegression(C=2 / (n * penalty), fit_intercept=False, tol=1e-10).fit(vectors, won)
    np.testing.assert_allclose(weight[0] - weight[1], peer.coef_[0], atol=1e-4)
    np.testing.assert_allclose(weight[0], -weight[1], atol=1e-6)


def test_a_battle_within_a_tier_moves_nothing(rng):
    battles = some_battles(rng)
    within = BattlesByPrompt(
        battles.prompts, battles.prompt, battles.tiers[:, :1].expand(-1, 2), battles.offset, battles.outcome
    )
    weight = fit_head(
        torch.randn(20, 4), 3, lambda out: davidson_losses(out, torch.tensor(0.0), within).mean(), penalty=0.1
    )
    assert (weight == 0).all()


def test_vectors_that_are_not_finite_are_found(rng):
    battles, vectors = some_battles(rng), torch.full((20, 4), torch.nan)
    with pytest.raises(RuntimeError, match="loss of the head is not finite"):
        fit_head(vectors, 3, lambda out: davidson_losses(out, torch.tensor(0.0), battles).mean(), 0.1)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_the_penalty_is_chosen_over_folds_whatever_the_size_of_vectors(scale, rng):
    """A clear signal is used, shuffled labels are not; outputs do not depend on the vectors' unit."""
    n = 300
    vectors = torch.from_numpy(rng.normal(size=(n, 6)) + 4.0)
    signal = vectors[:, 0].numpy() - 4 + 0.3 * rng.normal(size=n) > 0
    outputs = []
    for won in (signal, rng.permutation(signal)):
        outcome = torch.from_numpy(np.where(won, 0, 2))
        pair = torch.tensor([[0, 1]]).expand(n, 2)
        battles = BattlesByPrompt(tuple(map(str, range(n))), torch.arange(n), pair, torch.zeros(n), outcome)
        weight, constant = choose_head(
            vectors * scale, battles, lambda out, some: davidson_losses(out, torch.tensor(-np.inf), some), 2, rng
        )
        outputs.append((vectors * scale @ weight.T + constant).numpy())
    lead, noise = (out[:, 0] - out[:, 1] for out in outputs)
    assert ((lead > 0) == signal).mean() > 0.9
    assert np.abs(noise).max() < 1.0
    assert abs(lead.mean()) < 1e-6  # what a head adds has mean 0: the leaderboard stays the mean rating


def test_gathered_battles_hold_every_battle_once_under_its_prompt():
    from tests.tiny_models import worded_battles

    table = worded_battles(50)
    ordered = canonical_order(table)
    codes = encode_battles(ordered)
    battles = gather_by_prompt(codes, ordered["prompt"].to_numpy(), np.array([0.3, 0.1, -0.4]), np.array([0, 1, 1]))
    assert battles.prompts == tuple(sorted(set(table["prompt"])))
    found = sorted(
        (battles.prompts[p], round(float(o), 4), int(w))
        for p, o, w in zip(battles.prompt, battles.offset, battles.outcome, strict=True)
    )
    ratings = dict(zip(codes.models, [0.3, 0.1, -0.4], strict=True))
    number = {"model_a": 0, "tie": 1, "model_b": 2}
    expected = sorted(
        (b.prompt, round(ratings[b.model_a] - ratings[b.model_b], 4), number[b.winner]) for b in ordered.itertuples()
    )
    assert found == expected
    some = battles.part(np.array([1, 4]))
    assert some.prompts == (battles.prompts[1], battles.prompts[4])
    assert len(some.outcome) == sum(b.prompt in some.prompts for b in ordered.itertuples())


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 99))
def test_each_prompt_is_in_one_batch_beside_others_of_its_length(lengths, size, seed):
    batches = batches_to_train(np.array(lengths), size, np.random.default_rng(seed))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert sorted(map(len, batches), reverse=True)[: len(lengths) // size] == [size] * (len(lengths) // size)
    wasted = sum(max(lengths[k] for k in b) * len(b) - sum(lengths[k] for k in b) for b in batches)
    assert wasted <= size * max(lengths)  # sorted: spreads of the batches add up to at most the whole spread


@pytest.mark.parametrize("left", [False, True])
def test_padding_keeps_every_row(left):
    rows = [torch.tensor([5, 6, 7]), torch.tensor([8])]
    inputs = pad_rows(rows, left)
    for row, ids, mask in zip(rows, inputs["input_ids"], inputs["attention_mask"], strict=True):
        assert torch.equal(ids[mask.bool()], row)
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1] if left else [1, 0, 0]]
    assert ("position_ids" in inputs) == left


def test_a_batch_has_the_battles_of_its_prompts(rng):
    battles = some_battles(rng)
    rows = [torch.full((k % 3 + 1,), k) for k in range(20)]
    batches = Batches(battles, rows, [np.array([7, 2]), np.array([0])], left=False)
    inputs, some = batches.load(0, torch.device("cpu"))
    assert some.prompts == ("p2", "p7")
    for place, prompt in enumerate((2, 7)):
        inside, there = some.prompt == place, battles.prompt == prompt
        assert torch.equal(some.offset[inside], battles.offset[there])
        assert torch.equal(some.tiers[inside], battles.tiers[there])
        assert torch.equal(some.outcome[inside], battles.outcome[there])
        assert (inputs["input_ids"][place][inputs["attention_mask"][place].bool()] == prompt).all()
