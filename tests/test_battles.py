from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.battles import (
    PairCounts,
    canonical_order,
    count_pairs,
    expand_counts,
    number_texts,
    swap_battles,
    validate_battles,
)
from tests.conftest import battle_tables


def table(*rows: tuple[str, str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["prompt", "model_a", "model_b", "winner"])


THREE = table(("p", "y", "x", "model_a"), ("q", "x", "y", "tie"), ("r", "x", "z", "model_b"))


def exchanged_and_shuffled(data: st.DataObject, battles: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(battles), max_size=len(battles))))
    order = np.array(data.draw(st.permutations(range(len(battles)))))
    return swap_battles(battles, mask).iloc[order], order


def test_counts_of_a_worked_example():
    counts = count_pairs(THREE)
    assert counts.models == ("x", "y", "z")
    np.testing.assert_array_equal(counts.wins, [[0, 0, 0], [1, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(counts.ties, [[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert counts.n_battles == 3


@given(battle_tables(), st.data())
def test_counts_and_canonical_table_do_not_see_exchange_or_order(battles, data):
    weights = np.array(data.draw(st.lists(st.floats(0, 10), min_size=len(battles), max_size=len(battles))))
    other, order = exchanged_and_shuffled(data, battles)
    for first, second in (
        (count_pairs(battles), count_pairs(other)),
        (count_pairs(battles, weights), count_pairs(other, weights[order])),
    ):
        assert first.models == second.models
        assert first.wins.tobytes() == second.wins.tobytes()
        assert first.ties.tobytes() == second.ties.tobytes()
    pd.testing.assert_frame_equal(
        canonical_order(battles).reset_index(drop=True), canonical_order(other).reset_index(drop=True)
    )


@given(battle_tables())
def test_swapping_twice_gives_the_table_back_and_once_the_mirror(battles):
    swapped = swap_battles(battles)
    assert (swapped["model_a"] == battles["model_b"]).all()
    pd.testing.assert_frame_equal(swap_battles(swapped), validate_battles(battles))


@given(battle_tables())
def test_a_duplicate_counts_as_weight_two(battles):
    doubled = count_pairs(pd.concat([battles, battles]))
    weighted = count_pairs(battles, np.full(len(battles), 2.0))
    np.testing.assert_array_equal(doubled.wins, weighted.wins)
    np.testing.assert_array_equal(doubled.ties, weighted.ties)


@given(battle_tables(), st.integers(0, 2**32 - 1))
def test_expanding_inverts_counting(battles, seed):
    counts = count_pairs(battles)
    again = count_pairs(expand_counts(counts, np.random.default_rng(seed)))
    assert again.models == counts.models
    np.testing.assert_array_equal(again.wins, counts.wins)
    np.testing.assert_array_equal(again.ties, counts.ties)


def test_names_as_categories_are_ordered_as_text():
    categories = THREE.astype({"model_a": pd.CategoricalDtype(["y", "x"]), "model_b": "category"})
    pd.testing.assert_frame_equal(canonical_order(categories), canonical_order(THREE))


def test_canonical_order_keeps_index_labels_to_carry_rows_along():
    ordered = canonical_order(THREE[::-1])
    assert ordered.index.tolist() == [0, 1, 2]
    assert ordered["prompt"].tolist() == ["p", "q", "r"]
    ordered = canonical_order(THREE.set_index(pd.Index(["u", "v", "w"])).iloc[[2, 0, 1]])
    assert ordered.index.tolist() == ["u", "v", "w"]
    assert (ordered["model_a"] < ordered["model_b"]).all()


@pytest.mark.parametrize(
    ("battles", "message"),
    [
        (THREE.drop(columns="winner"), r"lacks column winner; it has prompt, model_a, model_b"),
        (THREE.iloc[:0], "no rows"),
        (THREE.assign(winner=["model_a", "left", "tie"]), r"row 1, column winner: unknown label 'left'"),
        (THREE.assign(winner=["model_a", None, "tie"]), r"row 1, column winner: no winner"),
        (THREE.assign(model_b=["x", "y", np.nan]), r"row 2, column model_b: no model name"),
        (THREE.assign(model_a=["x", " ", "z"]), r"row 1, column model_a: a model name is a non-empty string"),
        (THREE.assign(model_b=["x", "x", "z"]), r"row 1, column model_a: 'x' meets itself"),
        (THREE.assign(prompt=["p", None, "r"]), r"row 1, column prompt: no prompt"),
        (THREE.assign(model_a=[1, 2, 3]), r"row 0, column model_a: a model name is a non-empty string, not 1"),
    ],
)
@pytest.mark.parametrize("function", [validate_battles, count_pairs, canonical_order, swap_battles])
def test_bad_tables_are_refused_with_row_and_column(function, battles, message):
    with pytest.raises(ValueError, match=message):
        function(battles)


@pytest.mark.parametrize("weights", [[1, 1], [1, -1, 1], [1, np.nan, 1], [1, np.inf, 1]])
def test_bad_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weight"):
        count_pairs(THREE, np.array(weights, dtype=float))


def test_bad_masks_are_refused():
    with pytest.raises(ValueError, match="3 booleans"):
        swap_battles(THREE, np.array([0, 1, 1]))


@pytest.mark.parametrize(
    ("wins", "ties", "message"),
    [
        ([[0, -1], [0, 0]], np.zeros((2, 2)), r"wins\[x, y\] is -1"),
        ([[0, np.nan], [0, 0]], np.zeros((2, 2)), r"wins\[x, y\] is nan"),
        ([[0, 1], [0, 2]], np.zeros((2, 2)), "y against itself"),
        (np.zeros((2, 2)), [[0, 1], [2, 0]], "ties are not symmetric: x, y"),
        (np.zeros((3, 3)), np.zeros((2, 2)), r"wins has shape \(3, 3\)"),
    ],
)
def test_bad_counts_are_refused_with_the_models(wins, ties, message):
    with pytest.raises(ValueError, match=message):
        PairCounts(("x", "y"), np.array(wins, dtype=float), np.array(ties, dtype=float))


def test_expanding_fractions_is_refused():
    with pytest.raises(ValueError, match=r"x against y: 0.5 is not a whole number"):
        expand_counts(PairCounts(("x", "y"), np.array([[0, 0.5], [0, 0]]), np.zeros((2, 2))), np.random.default_rng(0))


def test_one_long_text_does_not_make_all_long():
    texts = ["b", "a" * 1_000_000, "b", "c"] * 500
    distinct, number = number_texts(pd.Series(texts))
    assert distinct.tolist() == ["a" * 1_000_000, "b", "c"]
    assert [distinct[place] for place in number] == texts
    assert distinct.nbytes + number.nbytes < 100_000  # beside the texts themselves
