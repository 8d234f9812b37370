"""The embedded arena: its truth is what it says, its votes follow it, and its prompts can be told apart."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from routing.battles import WINNERS, count_pairs, validate_battles
from routing.data.votes import read_arena_votes
from routing.embeddings import PromptEncoder
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.ratings.ties import outcome_probability
from routing.studies.simulated.arena import (
    DIFFICULTIES,
    PRICES_USD_PER_MILLION,
    SimulatedArena,
    draw_prompts,
    read_parts,
    simulate_arena,
)

STRONG, WEAK = "gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"


@pytest.fixture(scope="module")
def arena() -> SimulatedArena:
    return simulate_arena(seed=1)


@pytest.fixture(scope="module")
def prompts(arena: SimulatedArena) -> pd.DataFrame:
    return arena.sample_prompts(2000, np.random.default_rng(2))


def every_kind() -> pd.DataFrame:
    kinds = [(topic, difficulty) for topic in read_parts()["templates"] for difficulty in DIFFICULTIES]
    return pd.DataFrame(kinds, columns=["topic", "difficulty"])


def fingerprint() -> str:
    """A hash of all that an arena gives for one seed."""
    arena, rng = simulate_arena(seed=5), np.random.default_rng(6)
    prompts = arena.sample_prompts(300, rng)
    battles = arena.sample_battles(prompts, 1000, rng, first_answer_bias=0.3)
    benchmark = arena.sample_benchmark(prompts, rng)
    numbers = [arena.ratings(prompts), benchmark.quality.to_numpy(), benchmark.cost_usd.to_numpy()]
    text = prompts.to_csv() + battles.to_csv()
    return hashlib.sha256(text.encode() + b"".join(array.tobytes() for array in numbers)).hexdigest()


# ---------------------------------------------------------------------------------------------------- the prompts
def test_all_prompts_that_can_be_drawn_are_distinct_and_number_thousands():
    with pytest.raises(ValueError, match="distinct prompts can be drawn") as error:
        draw_prompts(10**6, np.random.default_rng(0))
    limit = int(re.search(r"between 1 and (\d+)", str(error.value)).group(1))
    prompts = draw_prompts(limit, np.random.default_rng(0))
    assert limit >= 5000
    assert prompts["prompt"].nunique() == limit
    with pytest.raises(ValueError, match=f"n_prompts is {limit + 1}"):
        draw_prompts(limit + 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="n_prompts is 0"):
        draw_prompts(0, np.random.default_rng(0))


def test_a_seed_draws_the_prompts_it_always_drew():
    text = draw_prompts(1000, np.random.default_rng(0)).to_csv()
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "b00a3cb3707bfaf7"


def test_every_slot_has_its_words_and_every_list_its_slot():
    slots = {
        slot
        for levels in read_parts()["templates"].values()
        for level in levels.values()
        for text in level
        for slot in re.findall(r"{(\w+)}", text)
    }
    assert slots == set(read_parts()["words"])
    for name, words in read_parts()["words"].items():
        assert len(set(words)) == len(words) > 1, name
        assert all(words), name


@pytest.mark.parametrize("n_prompts", [1, 23, 100, 2400])
def test_topics_and_difficulties_are_balanced(n_prompts: int):
    prompts = draw_prompts(n_prompts, np.random.default_rng(3))
    counts = (
        prompts.groupby(["topic", "difficulty"]).size().reindex(pd.MultiIndex.from_frame(every_kind()), fill_value=0)
    )
    assert len(prompts) == n_prompts == counts.sum()
    assert counts.max() - counts.min() <= 1


def test_prompts_read_as_text_of_realistic_length(prompts: pd.DataFrame):
    length = prompts["prompt"].str.len()
    assert length.min() < 30 and 80 < length.median() < 200 and length.max() > 350
    assert not prompts["prompt"].str.contains(r"[{}|]|  |\.\.|\?\.", regex=True).any()
    assert prompts["prompt"].str.match(r"""^[A-Z{"]""").all()
    assert prompts["prompt"].str.match(r""".*[.?!"']$""", flags=re.DOTALL).all()


def test_an_encoder_tells_topic_and_difficulty():
    from sklearn.linear_model import LogisticRegression

    prompts = draw_prompts(420, np.random.default_rng(4))
    embeddings = PromptEncoder(cache=False).encode(prompts["prompt"].tolist())
    train, held_out = slice(0, 300), slice(300, None)
    for column, accuracy in (("topic", 0.95), ("difficulty", 0.75)):
        classifier = LogisticRegression(C=10.0, max_iter=1000).fit(embeddings[train], prompts[column][train])
        assert classifier.score(embeddings[held_out], prompts[column][held_out]) >= accuracy, column


# ------------------------------------------------------------------------------------------------------ the truth
def test_ratings_average_to_those_of_the_real_votes(arena: SimulatedArena):
    real = fit_bradley_terry(read_arena_votes(), ties="davidson")
    expected = real.ratings[list(arena.models)]
    np.testing.assert_allclose(arena.ratings(every_kind()).mean(axis=0), expected - expected.mean(), atol=1e-8)
    assert arena.nu == pytest.approx(real.tie_parameter, abs=1e-8)
    assert len(arena.models) == 12 and {STRONG, WEAK} <= set(arena.models)
    strongest, weakest = real.ratings.rank(pct=True)[list(arena.models)].agg(["max", "min"])
    assert strongest > 0.95 and weakest < 0.05


def test_topic_offsets_average_to_zero_and_have_the_spread_asked_for(arena: SimulatedArena):
    np.testing.assert_allclose(arena.topic_offsets.mean(axis=1), 0, atol=1e-14)
    wide = np.concatenate([simulate_arena(seed, topic_spread=2.0).topic_offsets.ravel() for seed in range(5)])
    n_topics = len(arena.topics)
    assert wide.std() == pytest.approx(2.0 * np.sqrt(1 - 1 / n_topics), rel=0.1)
    same_everywhere = simulate_arena(1, topic_spread=0.0).ratings(every_kind()).reshape(n_topics, len(DIFFICULTIES), -1)
    np.testing.assert_array_equal(same_everywhere, np.broadcast_to(same_everywhere[:1], same_everywhere.shape))


def test_models_are_further_apart_on_harder_prompts(arena: SimulatedArena):
    kinds = every_kind()
    ratings = arena.ratings(kinds)
    gap = pd.Series(ratings[:, arena.models.index(STRONG)] - ratings[:, arena.models.index(WEAK)])
    by_difficulty = gap.groupby(kinds["difficulty"]).mean()
    assert by_difficulty["easy"] < by_difficulty["medium"] < by_difficulty["hard"]


def test_outcome_probability_is_davidsons(arena: SimulatedArena, prompts: pd.DataFrame):
    theta = arena.ratings(prompts)
    a, b = theta[:, arena.models.index(STRONG)], theta[:, arena.models.index(WEAK)]
    weights = np.stack([np.exp(a), arena.nu * np.exp((a + b) / 2), np.exp(b)], axis=1)
    expected = weights / weights.sum(axis=1, keepdims=True)
    probability = arena.outcome_probability(prompts, STRONG, WEAK)
    np.testing.assert_allclose(probability, expected, rtol=1e-12)
    np.testing.assert_array_equal(arena.outcome_probability(prompts, WEAK, STRONG), probability[:, ::-1])
    np.testing.assert_array_equal(
        arena.outcome_probability(prompts, [STRONG] * len(prompts), [WEAK] * len(prompts)), probability
    )


def test_first_answer_bias_is_added_to_the_log_odds_of_the_first(arena: SimulatedArena, prompts: pd.DataFrame):
    fair = arena.outcome_probability(prompts, WEAK, STRONG)
    biased = arena.outcome_probability(prompts, WEAK, STRONG, first_answer_bias=0.7)
    shift = np.log(biased[:, 0] / biased[:, 2]) - np.log(fair[:, 0] / fair[:, 2])
    np.testing.assert_allclose(shift, 0.7, atol=1e-12)
    np.testing.assert_allclose(biased[:, 1] / np.sqrt(biased[:, 0] * biased[:, 2]), arena.nu, rtol=1e-12)


# ------------------------------------------------------------------------------------------------- what is sampled
@pytest.mark.parametrize("first_answer_bias", [0.0, 0.8])
def test_outcome_frequencies_follow_the_truth(first_answer_bias: float):
    arena = simulate_arena(seed=7, n_models=3)
    prompts = draw_prompts(4, np.random.default_rng(8))
    battles = arena.sample_battles(prompts, 48_000, np.random.default_rng(9), first_answer_bias)
    statistic = degrees_of_freedom = 0
    for (prompt, model_a, model_b), group in battles.groupby(["prompt", "model_a", "model_b"]):
        asked = prompts[prompts["prompt"] == prompt]
        expected = len(group) * arena.outcome_probability(asked, model_a, model_b, first_answer_bias)[0]
        observed = group["winner"].value_counts().reindex(WINNERS, fill_value=0).to_numpy()
        statistic += ((observed - expected) ** 2 / expected).sum()
        degrees_of_freedom += 2
    assert degrees_of_freedom == 4 * 6 * 2
    assert 0.001 < chi2.sf(statistic, degrees_of_freedom) < 0.999


def test_battles_use_prompts_pairs_and_orders_evenly(arena: SimulatedArena, prompts: pd.DataFrame):
    battles = arena.sample_battles(prompts, 5000, np.random.default_rng(10))
    pd.testing.assert_frame_equal(validate_battles(battles), battles)
    uses = battles["prompt"].value_counts()
    assert len(battles) == 5000 and len(uses) == 2000 and set(uses) == {2, 3}
    shown = battles.groupby(["model_a", "model_b"]).size()
    expected = 5000 / (12 * 11)
    assert len(shown) == 12 * 11
    assert 0.001 < chi2.sf(((shown - expected) ** 2 / expected).sum(), len(shown) - 1) < 0.999


def test_votes_look_like_the_arenas_and_the_prompt_matters(arena: SimulatedArena, prompts: pd.DataFrame):
    rng = np.random.default_rng(11)
    train, held_out = (arena.sample_battles(prompts, 20_000, rng) for _ in range(2))
    outcome = held_out["winner"].map(WINNERS.index).to_numpy()
    assert 0.25 < np.mean(outcome == WINNERS.index("tie")) < 0.35
    assert abs(np.mean(outcome == 0) - np.mean(outcome == 2)) < 0.03

    fit = fit_bradley_terry(count_pairs(train), ties="davidson")
    delta = fit.ratings[held_out["model_a"]].to_numpy() - fit.ratings[held_out["model_b"]].to_numpy()
    prompt_free = outcome_probability(delta, "davidson", fit.tie_parameter)
    asked = prompts.set_index("prompt").loc[held_out["prompt"]]
    truth = arena.outcome_probability(asked, held_out["model_a"], held_out["model_b"])
    row = np.arange(len(outcome))
    assert np.log(truth[row, outcome]).mean() - np.log(prompt_free[row, outcome]).mean() > 0.05


def test_benchmark_follows_ratings_and_prices(arena: SimulatedArena, prompts: pd.DataFrame):
    benchmark = arena.sample_benchmark(prompts, np.random.default_rng(12))
    assert benchmark.models == arena.models
    assert set(np.unique(benchmark.quality)) == {0.0, 1.0}
    accuracy = benchmark.quality.mean()
    assert np.corrcoef(accuracy, arena.mean_ratings)[0, 1] > 0.95
    assert 0.7 < accuracy[STRONG] < 0.9 and 0.5 < accuracy[WEAK] < accuracy[STRONG] - 0.08  # as on MMLU, roughly
    by_difficulty = benchmark.quality.groupby(prompts["difficulty"]).mean().mean(axis=1)
    assert by_difficulty["easy"] > by_difficulty["medium"] > by_difficulty["hard"]

    input_tokens = prompts["prompt"].str.len() / 4
    for model, (input_price, output_price) in PRICES_USD_PER_MILLION.items():
        expected = (input_tokens.mean() * input_price + 264 * output_price) / 1e6
        assert benchmark.cost_usd[model].mean() == pytest.approx(expected, rel=0.06), model
        assert (benchmark.cost_usd[model] > input_tokens * input_price / 1e6).all()


def test_same_seed_gives_the_same_arena_in_another_process():
    code = "from tests.studies.test_simulated import fingerprint; print(fingerprint())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONHASHSEED": "12345",
            "OPENBLAS_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == fingerprint()


def test_other_seeds_give_other_arenas(arena: SimulatedArena):
    other = simulate_arena(seed=2)
    np.testing.assert_array_equal(other.mean_ratings, arena.mean_ratings)
    assert np.abs(other.topic_offsets - arena.topic_offsets).min() > 0


# --------------------------------------------------------------------------------------------------------- failures
@pytest.mark.parametrize("n_models", [1, 13])
def test_number_of_models_out_of_range(n_models: int):
    with pytest.raises(ValueError, match=f"n_models is {n_models}; it has to be from 2 to 12"):
        simulate_arena(0, n_models=n_models)


def test_few_models_keep_the_pair(arena: SimulatedArena):
    assert set(simulate_arena(0, n_models=2).models) == {STRONG, WEAK}


def test_bad_input_names_what_is_wrong(arena: SimulatedArena, prompts: pd.DataFrame):
    rng = np.random.default_rng(13)
    with pytest.raises(ValueError, match="row 3, column topic: 'astrology' is none of coding"):
        arena.ratings(prompts.assign(topic=prompts["topic"].where(prompts.index != 3, "astrology")))
    with pytest.raises(ValueError, match="lack column difficulty"):
        arena.sample_benchmark(prompts[["prompt", "topic"]], rng)
    with pytest.raises(ValueError, match="no model 'gpt-5' in the arena"):
        arena.outcome_probability(prompts, STRONG, "gpt-5")
    with pytest.raises(ValueError, match="1 models for 2000 prompts"):
        arena.outcome_probability(prompts, [STRONG], WEAK)
    with pytest.raises(ValueError, match="cannot sample 0 battles over 2000 prompts"):
        arena.sample_battles(prompts, 0, rng)
    with pytest.raises(ValueError, match="cannot sample 5 battles over 0 prompts"):
        arena.sample_battles(prompts.iloc[:0], 5, rng)
