from __future__ import annotations

import pytest

from routing.runner.grid import grid_points, point_name, read_grid, summarise
from routing.runner.provenance import Outcome


def test_a_grid_is_every_combination_in_order():
    grid = read_grid(["seed=0, 1", "encoder=a/b,c"])
    assert grid == {"seed": ["0", "1"], "encoder": ["a/b", "c"]}
    points = grid_points(grid, {"rate": "2"})
    assert [tuple(point.values()) for point in points] == [("0", "a/b"), ("0", "c"), ("1", "a/b"), ("1", "c")]
    assert point_name(points[0]) == "seed=0,encoder=a_b"
    assert grid_points({}, {"rate": "2"}) == [{}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["seed"], "--grid seed: write name=value,value"),
        (["seed="], "write name=value,value"),
        (["seed=1,,2"], "write name=value,value"),
        (["2=1"], "write name=value,value"),
        (["seed=1", "seed=2"], "--grid seed is given twice"),
        (["seed=1,2,1"], "a value is given twice"),
    ],
)
def test_options_of_another_form_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        read_grid(options)


def test_points_that_would_overwrite_each_other_are_refused():
    with pytest.raises(ValueError, match="same folder name"):
        grid_points({"encoder": ["a/b", "a_b"]}, {})
    with pytest.raises(ValueError, match="same folder name"):
        grid_points({"encoder": ["mini", "Mini"]}, {})
    with pytest.raises(ValueError, match="parameter seed is given by both -p and --grid"):
        grid_points({"seed": ["1"]}, {"seed": "2"})


def test_the_summary_has_a_row_for_each_point_and_notebook():
    ok = Outcome("01_a", "A", "smoke", "", "", {"seed": 1}, status="ok", seconds=2.0)
    failed = Outcome("02_b", "B", "smoke", "", "", {"seed": 1}, status="failed", error="E: x", cell=3, cell_line="f()")
    table = summarise([{"seed": "1"}, {"seed": "2"}], [[ok, failed], [ok]])
    assert table["folder"].tolist() == ["seed=1", "seed=1", "seed=2"]
    assert table["status"].tolist() == ["ok", "failed", "ok"]
    assert table["failure"].tolist() == ["", "02_b failed in cell 3 (`f()`): E: x", ""]
