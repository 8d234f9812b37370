from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.battles import (
    PairCounts,
    canonical_order,
    clean_name,
    count_pairs,
    expand_counts,
    number_texts,
    quote,
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


# -- names and labels -------------------------------------------------------------------------------------------------

UNSEEN = ["x ", " x", "\u00a0x", "x\u200b", "\ufeffx", "x\u00ad", "x\ufe0f", "\tx\r"]


@pytest.mark.parametrize("name", UNSEEN)
def test_what_nobody_sees_makes_no_other_model(name):
    table = THREE.assign(model_b=["x", "y", "z"], model_a=["y", name, "x"])
    assert count_pairs(table).models == ("x", "y", "z")
    for function in (validate_battles, swap_battles, canonical_order):
        assert {*function(table)["model_a"], *function(table)["model_b"]} == {"x", "y", "z"}
    with pytest.raises(ValueError, match="row 0, column model_a: .* meets itself"):
        count_pairs(THREE.assign(model_a=[name, "y", "x"], model_b=["x", "x", "z"]))


def test_accents_written_in_two_ways_are_one_name():
    assert clean_name("E\u0301cureuil\u00a0 7b") == clean_name("\u00c9cureuil 7b") == "\u00c9cureuil 7b"
    assert count_pairs(THREE.assign(model_a=["e\u0301", "\u00e9", "\u00e9"])).models == ("x", "y", "z", "\u00e9")


@given(st.text())
def test_a_clean_name_stays_as_it_is(name):
    assert clean_name(clean_name(name)) == clean_name(name)


def test_models_that_differ_in_case_are_two_and_said_to_be():
    with pytest.warns(UserWarning, match="'X' and 'x'"):
        assert count_pairs(THREE.assign(model_a=["y", "X", "x"], model_b=["x", "y", "z"])).models == (
            "X",
            "x",
            "y",
            "z",
        )


@pytest.mark.parametrize(
    ("winner", "expected"),
    [
        (["tie (bothbad)", "both_bad", "model_a"], "tta"),
        (["Model_A", " model_b ", "TIE"], "abt"),
        (["A", "B", "tie"], "abt"),
        (["a", "b", "both_bad"], "abt"),
        (["y", "tie", "x"], "ata"),
        (["x", "y ", "z"], "bbb"),
        ([1, 0, 0], "abb"),
        ([1.0, 0.5, 0.0], "atb"),
        (["1", "0.50", "0"], "atb"),
        (pd.Categorical(["A", "B", "A"]), "aba"),
    ],
)
def test_a_column_of_winners_may_hold_any_one_kind_of_label(winner, expected):
    names = {"a": "model_a", "t": "tie", "b": "model_b"}
    plain = THREE.assign(winner=[names[letter] for letter in expected])
    pd.testing.assert_frame_equal(validate_battles(THREE.assign(winner=winner)), plain)
    pd.testing.assert_frame_equal(swap_battles(THREE.assign(winner=winner)), swap_battles(plain))
    np.testing.assert_array_equal(count_pairs(THREE.assign(winner=winner)).wins, count_pairs(plain).wins)


@pytest.mark.parametrize(
    ("winner", "fact"),
    [
        ([1, 2, 0], "row 1, column winner: unknown label 2; use model_a"),
        (["A", "model_b", "B"], "row 1, column winner: unknown label 'model_b'"),
        (["1", "tie", "0"], "row 1, column winner: unknown label 'tie'"),
        (["y", "z", "x"], "row 1, column winner: unknown label 'z'"),
        ([True, False, True], "row 0, column winner: unknown label True"),
        (["tie", "tie", "x" * 500 + "\x1b"], r"row 2, column winner: unknown label 'x{197}\.\.\.'"),
        (["tie", "tie", "\x1b[2J"], r"row 2, column winner: unknown label '\\x1b\[2J'"),
    ],
)
def test_an_unknown_label_is_refused_with_its_row(winner, fact):
    with pytest.raises(ValueError, match=fact):
        count_pairs(THREE.assign(winner=winner))


def test_a_label_that_can_be_read_in_two_ways_is_refused():
    letters = table(("p", "A", "B", "A"), ("q", "B", "A", "A"))
    with pytest.raises(ValueError, match="row 1, column winner: 'A' can be read in two ways"):
        count_pairs(letters)
    assert count_pairs(letters.iloc[:1]).wins.tolist() == [[0, 1], [0, 0]]
    with pytest.raises(ValueError, match="row 0, column winner: '1' can be read in two ways"):
        count_pairs(table(("p", "0", "1", "1")))
    with pytest.raises(ValueError, match="column winner: unknown label"):  # of which the second is no tie
        count_pairs(table(("p", "tie", "x", "tie"), ("q", "x", "tie", "x")))
    # The labels of this package keep their meaning whatever the models are called.
    assert count_pairs(table(("p", "model_b", "model_a", "model_a"))).wins.tolist() == [[0, 0], [1, 0]]


def test_quoted_text_is_short_and_has_no_control_characters():
    assert quote("caf\u00e9 \x1b[31m\u202e\n") == r"caf\u00e9 \x1b[31m\u202e\n".replace(r"\u00e9", "\u00e9")
    assert len(quote("\x00" * 1_000)) == len(quote("x" * 10**7)) == 200 and quote("x" * 200) == "x" * 200


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
