from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from routing.battles import canonical_order, count_pairs, encode_battles, swap_battles
from routing.embeddings import PromptEncoder, unit_rows
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.routers import similarity
from routing.routers.base import load_router
from routing.routers.similarity import SimilarityRouter, cosines, sum_runs
from tests.conftest import QUESTIONS, embed
from tests.routers.test_base import ENCODER, battles  # noqa: F401 (battles is a fixture)


def fit_rows(router: SimilarityRouter, table: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    """Tier ratings by scikit-learn's logistic regression on weighted rows, a tie being half a win for each."""
    codes = encode_battles(table)
    n_tiers = len(router.tier_ratings)
    tier_a, tier_b = router.model_tier[codes.model_a], router.model_tier[codes.model_b]
    design = np.eye(n_tiers)[tier_a] - np.eye(n_tiers)[tier_b]  # a battle within a tier: a row of zeros
    won = 1 - codes.outcome / 2
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=10_000, solver="newton-cg")
    labels = np.repeat([1, 0], len(won))
    model.fit(np.tile(design, (2, 1)), labels, sample_weight=np.concatenate([weights * won, weights * (1 - won)]))
    return model.coef_[0] - model.coef_[0].mean()


@pytest.mark.parametrize("n_tiers", [2, 3, None])
def test_ratings_equal_a_logistic_regression_for_each_prompt(battles, n_tiers):  # noqa: F811
    router = SimilarityRouter(gamma=10.0, n_tiers=n_tiers, ties="half", encoder=ENCODER).fit(battles)
    train, queries = (embed(list(texts)).astype(float) for texts in (battles["prompt"], QUESTIONS))
    cosine = (queries @ train.T) / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(train, axis=1)
    weights = 10.0 ** (1 + cosine / cosine.max(axis=1, keepdims=True))  # as RouteLLM computes them
    expected = np.stack([fit_rows(router, battles, row) for row in weights])
    np.testing.assert_allclose(router.ratings(QUESTIONS), expected[:, router.model_tier], atol=1e-6)


def test_weights_are_the_paper_s_but_for_a_factor(battles):  # noqa: F811
    router = SimilarityRouter(gamma=10.0, n_tiers=2, encoder=ENCODER).fit(battles)
    queries = router._vectors(QUESTIONS)
    cosine = queries @ router.battle_vectors.T
    expected = 10.0 ** (1 + cosine / cosine.max(axis=1, keepdims=True))
    np.testing.assert_allclose(router.weights(queries) * 100, expected, rtol=1e-5)
    assert router.weights(queries).max() == pytest.approx(1)


def test_equal_weights_give_the_leaderboard_of_the_models(battles):  # noqa: F811
    router = SimilarityRouter(gamma=1.0, n_tiers=None, ties="half", encoder=ENCODER).fit(battles)
    leaderboard = fit_bradley_terry(count_pairs(battles)).ratings
    np.testing.assert_allclose(router.ratings(QUESTIONS), np.tile(leaderboard, (4, 1)), atol=1e-6)


def test_a_strong_prior_keeps_the_global_ratings(battles):  # noqa: F811
    router = SimilarityRouter(gamma=1e6, n_tiers=None, prior_strength=1e9, encoder=ENCODER).fit(battles)
    np.testing.assert_allclose(router.ratings(QUESTIONS), np.tile(router.tier_ratings, (4, 1)), atol=1e-6)


def test_battles_within_a_tier_say_nothing(battles):  # noqa: F811
    router = SimilarityRouter(gamma=10.0, n_tiers=2, ties="half", encoder=ENCODER).fit(battles)
    ordered = canonical_order(battles)
    codes = encode_battles(ordered)
    within = router.model_tier[codes.model_a] == router.model_tier[codes.model_b]
    assert 0 < within.sum() < len(battles)
    pairs = router._weighted_pairs(router._vectors(QUESTIONS))
    weights = router.weights(router._vectors(QUESTIONS))
    assert router.battle_cells.max() == 3 * len(router.tier_first)  # where they lie
    np.testing.assert_allclose(
        pairs.outcomes.sum(axis=(0, 2)), weights[:, : (~within).sum()].sum(axis=1, dtype=float), rtol=1e-6
    )


def test_prompts_in_batches_are_rated_as_in_one(battles, monkeypatch):  # noqa: F811
    router = SimilarityRouter(n_tiers=2, encoder=ENCODER).fit(battles)
    queries = embed([f"prompt {n}" for n in range(40)])
    whole = router.ratings(queries)
    monkeypatch.setattr(similarity, "MAX_BATCH", 7)
    np.testing.assert_allclose(router.ratings(queries), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": 0.5}, "gamma is 0.5"),
        ({"prior_strength": -1}, "precision"),
        ({"ties": "drop"}, "'davidson' or 'half'"),
        ({"precision": "half"}, "'single' or 'double'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SimilarityRouter(**settings)


def test_a_prompt_that_resembles_nothing_is_named(battles):  # noqa: F811
    router = SimilarityRouter(n_tiers=2, encoder=ENCODER).fit(battles)
    opposite = -router.battle_vectors.mean(axis=0, keepdims=True)
    with pytest.raises(ValueError, match="prompt 0 of the batch resembles no battle"):
        router.ratings(opposite)


def test_weights_that_underflow_are_refused_but_for_a_prior(battles):  # noqa: F811
    """Seen from this prompt, battles of the other kind weigh 10 ** -99: the models of one kind never met the others."""
    kind = battles["prompt"].str[-1].isin(list("01234")).to_numpy()
    vectors = np.where(kind[:, None], [0.1, 1.0], [0.1, -1.0])
    names = battles["model_a"] + battles["model_b"]
    apart = battles[(names.isin(["antbee", "beeant"]).to_numpy() == kind)]
    query = np.array([[0.25, 1.0]])
    router = SimilarityRouter(n_tiers=None, gamma=1e50).fit(apart, vectors[apart.index])
    with pytest.raises(ValueError, match="prompt 0 of the batch resembles some battles so little.*prior"):
        router.ratings(query)
    held = SimilarityRouter(n_tiers=None, gamma=1e50, prior_strength=1.0).fit(apart, vectors[apart.index])
    assert np.abs(held.ratings(query)).max() < 10


def split_rows(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two halves, of which the second alone knows one of the models."""
    newcomer = table["model_a"].iloc[0]
    late = (table["model_a"] == newcomer) | (table["model_b"] == newcomer) | (np.arange(len(table)) % 3 == 0)
    return table[~late], table[late]


@pytest.mark.parametrize("settings", [{"n_tiers": 2}, {"n_tiers": None, "prior_strength": 0.5}])
def test_battles_added_give_the_router_fitted_to_all_bit_for_bit(battles, tmp_path, settings):  # noqa: F811
    before, after = split_rows(battles)
    assert set(after["model_a"]) - set(before["model_a"]) - set(before["model_b"])
    whole = SimilarityRouter(encoder=ENCODER, **settings).fit(battles)
    exchanged = swap_battles(after.sample(frac=1, random_state=1))
    grown = SimilarityRouter(encoder=ENCODER, **settings).fit(before).add(exchanged)
    SimilarityRouter(encoder=PromptEncoder(), **settings).fit(before, embed(before["prompt"].tolist())).save(
        tmp_path / "router"
    )
    loaded = load_router(tmp_path / "router").add(after, embed(after["prompt"].tolist()))
    one_by_one = SimilarityRouter(encoder=ENCODER, **settings).fit(before)
    for row in range(0, len(after), 40):
        one_by_one.add(after.iloc[row : row + 40])
    for router in (grown, loaded, one_by_one):
        assert router.models == whole.models and router.nu == whole.nu
        for name, array in whole._arrays().items():
            np.testing.assert_array_equal(getattr(router, name), array, err_msg=name)
        np.testing.assert_array_equal(router.ratings(embed(QUESTIONS)), whole.ratings(embed(QUESTIONS)))
    assert list(grown.battle_prompts) == list(whole.battle_prompts)


def test_battles_that_cannot_be_added_change_nothing(battles):  # noqa: F811
    router = SimilarityRouter(n_tiers=None, encoder=ENCODER).fit(battles)
    before = router.ratings(QUESTIONS)
    lost = pd.DataFrame({"prompt": ["p"], "model_a": ["newcomer"], "model_b": router.models[0], "winner": "model_b"})
    with pytest.raises(ValueError, match="newcomer lost every battle"):
        router.add(lost)
    with pytest.raises(ValueError, match="embeddings of width 3; this router learned on width"):
        router.add(lost, np.ones((1, 3)))
    with pytest.raises(RuntimeError, match="call fit before add"):
        SimilarityRouter(encoder=ENCODER).add(lost)
    np.testing.assert_array_equal(router.ratings(QUESTIONS), before)
    assert "newcomer" not in router.models


def test_in_double_precision_neither_batches_nor_the_order_of_rows_move_a_rating(rng):
    vectors = unit_rows(rng.normal(size=(3000, 384)).astype(np.float32) + 0.1)
    queries = vectors[:40] + np.float32(0.02)
    most = cosines(queries, vectors, "double").max(axis=1)
    exact = queries.astype(float) @ vectors.astype(float).T
    np.testing.assert_array_equal(cosines(queries, vectors, "double"), exact.astype(np.float32))
    shuffled = rng.permutation(3000)
    whole = sum_runs(cosines(queries, vectors, "double"), most, 10.0, np.array([0]))
    parts = [
        sum_runs(cosines(queries, vectors[rows], "double"), most, 10.0, np.array([0]))
        for rows in np.array_split(shuffled, 7)
    ]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-12)
    alone = [
        sum_runs(cosines(q[None], vectors, "double"), m[None], 10.0, np.array([0]))
        for q, m in zip(queries, most, strict=True)
    ]
    np.testing.assert_allclose(np.concatenate(alone), whole, rtol=1e-12)


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_bit_of_a_sum(threads, rng, monkeypatch):
    cosine = rng.uniform(0.1, 1, size=(11, 500)).astype(np.float32)
    arguments = cosine, cosine.max(axis=1), 10.0, np.array([0, 3, 200, 201])
    alone = sum_runs(*arguments)
    monkeypatch.setattr("routing.routers.similarity.count_threads", lambda: threads)
    np.testing.assert_array_equal(sum_runs(*arguments), alone)
    expected = np.add.reduceat(similarity.weigh(cosine.copy(), arguments[1], 10.0).astype(float), arguments[3], axis=1)
    np.testing.assert_allclose(alone, expected, rtol=1e-12)
