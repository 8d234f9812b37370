from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.data.benchmarks import BenchmarkTable
from routing.studies.inputs import PAIR
from routing.studies.two_models import gold_labels
from routing.studies.two_models.gold_labels import (
    LABEL_RULES,
    add_surface,
    cross_validate_gold,
    evaluate_gold,
    label_battles,
    learn_few_labels,
    surface_features,
    transfer_gold,
)

KINDS = ("telling", "telling nothing")


@pytest.fixture(autouse=True)
def one_gamma(monkeypatch):
    monkeypatch.setattr(gold_labels, "GAMMAS", (1e4,))  # the kinds of vectors are what is chosen among here


def benchmark(rng: np.random.Generator, n: int = 240) -> tuple[BenchmarkTable, dict[str, np.ndarray]]:
    """Prompts on which the weak model is often wrong where the first of three coordinates is large."""
    hidden = rng.uniform(-1, 1, n)
    strong = (rng.random(n) < 0.9).astype(float)
    weak = (rng.random(n) < 0.5 - 0.45 * hidden).astype(float)
    telling = np.stack([hidden, rng.normal(size=n) * 0.1, np.ones(n)], axis=1)
    nothing = np.stack([rng.normal(size=n), rng.normal(size=n), np.ones(n)], axis=1)
    prompts = pd.DataFrame({"prompt": [f"prompt {number}" for number in range(n)], "subject": np.arange(n) % 8})
    table = BenchmarkTable(prompts, pd.DataFrame({PAIR[0]: strong, PAIR[1]: weak}))
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (telling, nothing)]
    return table, dict(zip(KINDS, unit, strict=True))


def test_rules_for_a_label():
    table = BenchmarkTable(
        pd.DataFrame({"prompt": ["both", "strong only", "weak only", "none"]}),
        pd.DataFrame({PAIR[0]: [1.0, 1, 0, 0], PAIR[1]: [1.0, 0, 1, 0]}),
    )
    assert [label_battles(table, rule)["winner"].tolist() for rule in LABEL_RULES] == [
        ["tie", "model_a", "model_b", "tie"],
        ["model_b", "model_a", "model_b", "model_b"],
        ["model_b", "model_a", "model_b", "model_a"],
    ]
    with pytest.raises(ValueError, match="unknown label rule 'lenient'; use one of gain, strict, weak wrong"):
        label_battles(table, "lenient")


def test_cross_validation_takes_what_tells_and_beats_random(rng):
    table, seen = benchmark(rng)
    vectors = {kind: {"b": rows} for kind, rows in seen.items()}
    first, second = cross_validate_gold("b", table, vectors, rng, n_repeats=2)
    assert first.chosen.startswith("telling, ") and np.isfinite(first.margin).all()
    results = evaluate_gold([first, second], {"b": table}, 50, rng).set_index("metric")
    assert results.loc["apgr", "low"] > 0.5
    assert results.loc["apgr", "low"] < results.loc["apgr", "estimate"] < results.loc["apgr", "high"]
    alone = [evaluate_gold([item], {"b": table}, 20, rng).set_index("metric") for item in (first, second)]
    mean = np.mean([part.loc["apgr", "estimate"] for part in alone])
    assert results.loc["apgr", "estimate"] == pytest.approx(mean)


def test_few_labels_rate_only_other_prompts(rng):
    table, seen = benchmark(rng)
    labelled = rng.random(len(table.prompts)) < 0.5
    few, by_subject = learn_few_labels("b", table, {kind: {"b": rows} for kind, rows in seen.items()}, labelled, rng)
    for item in (few, by_subject):
        np.testing.assert_array_equal(np.isnan(item.margin), labelled)
        assert item.chosen.startswith("telling, ")
    assert few.labels == f"{labelled.sum()} labels"
    # Only the labels were seen: other answers to the other prompts change nothing.
    changed = table.quality.copy()
    changed[~labelled] = 1 - changed[~labelled]
    vectors = {kind: {"b": rows} for kind, rows in seen.items()}
    one, other = (
        learn_few_labels("b", BenchmarkTable(table.prompts, quality), vectors, labelled, np.random.default_rng(0))[0]
        for quality in (table.quality, changed)
    )
    np.testing.assert_array_equal(one.margin, other.margin)


def test_what_is_transferred_to_a_benchmark_was_not_trained_on_it(rng):
    (source, known), (target, asked) = benchmark(rng), benchmark(rng, 60)
    vectors = {kind: {"source": known[kind], "target": asked[kind]} for kind in KINDS}
    vectors["telling and surface"] = vectors["telling nothing"]
    margins = transfer_gold({"source": source}, "target", vectors, rng)
    assert [item.labels for item in margins] == [f"other benchmarks, {rule}" for rule in LABEL_RULES]
    assert all("surface" not in item.chosen and len(item.margin) == 60 for item in margins)
    results = evaluate_gold(margins, {"target": target}, 50, rng)
    by_rule = results[results["metric"] == "apgr"].set_index("labels")["estimate"]
    assert (by_rule > 0.5).all()
    # The same labels without their prompts' vectors say nothing.
    blind = {kind: {**by, "target": np.ones_like(by["target"]) / np.sqrt(3)} for kind, by in vectors.items()}
    results = evaluate_gold(transfer_gold({"source": source}, "target", blind, rng), {"target": target}, 50, rng)
    assert results.loc[results["metric"] == "apgr", "estimate"].to_numpy() == pytest.approx(0.5)


def test_surface_features_count_what_is_there():
    (row,) = np.expm1(surface_features(["Tom has 1,200 eggs. He sells 3.5 a day = ?\nWhy?"]))
    assert row == pytest.approx([47, 12, 2, 1200, 1, 3, 1, 47 / 12])
    assert surface_features([]).shape == (0, 8)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=8), st.floats(0.1, 2))
def test_any_text_has_a_surface(prompts, weight):
    vectors = np.tile([1.0, 0.0], (len(prompts), 1))
    joined = add_surface(vectors, prompts, weight)
    assert joined.dtype == np.float32 and joined.shape == (len(prompts), 10)
    np.testing.assert_allclose(np.linalg.norm(joined, axis=1), 1, rtol=1e-5)


def test_the_weight_is_the_length_of_the_features_beside_the_vector():
    prompts = ["Add 2 and 3.", "Why is the sky blue? Explain it to a child.", "x = 7\ny = 12", "Hello there"]
    joined = add_surface(np.tile([1.0, 0.0], (4, 1)), prompts, 0.5)
    beside = joined[:, 2:] / joined[:, :1]
    assert (beside**2).sum(axis=1).mean() == pytest.approx(0.25, rel=1e-5)
