from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given

from routing.battles import swap_battles
from routing.studies.elo import online_elo
from tests.conftest import battle_tables


def test_a_worked_example():
    battles = pd.DataFrame({"model_a": ["x", "x"], "model_b": ["y", "y"], "winner": ["model_a", "tie"]})
    after_one = 1000 + 32 * 0.5
    expected = 1 / (1 + 10 ** ((2000 - 2 * after_one) / 400))
    assert online_elo(battles, step_elo=32)["x"] == pytest.approx(after_one + 32 * (0.5 - expected))


@given(battle_tables())
def test_points_are_conserved_and_exchange_does_not_matter(battles):
    ratings = online_elo(battles)
    assert ratings.mean() == pytest.approx(1000)
    pd.testing.assert_series_equal(ratings, online_elo(swap_battles(battles)))


def test_the_order_of_rows_matters():
    battles = pd.DataFrame({"model_a": ["x", "y"], "model_b": ["y", "x"], "winner": ["model_a", "model_a"]})
    assert online_elo(battles)["x"] != online_elo(battles[::-1])["x"]
