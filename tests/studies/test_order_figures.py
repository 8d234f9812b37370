"""The figures of the order notebook show every row of their table, at its value and in its colour."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from routing.studies.order.figures import (
    EXCHANGES,
    STYLES,
    plot_answer_shares,
    plot_bias,
    plot_both_orders,
    plot_consequences,
    plot_decisions,
    plot_draws,
    plot_estimates,
    plot_exchanges,
    plot_naming,
)
from routing.studies.order.judges import BOTH_ORDERS
from routing.studies.plotting import save_figure, set_style

KINDS = ("released", "ours")


@pytest.fixture(autouse=True)
def styled():
    with matplotlib.rc_context():
        set_style()
        yield
    plt.close("all")


def audit_table() -> pd.DataFrame:
    rows = [(exchange, kind) for exchange in EXCHANGES for kind in KINDS]
    table = pd.DataFrame(rows, columns=["swap", "kind"]).assign(router="similarity", raised="")
    table["largest_change"] = np.where(table["kind"] == "ours", 0.0, 0.01)
    table["decisions_changed"] = np.where(table["kind"] == "ours", 0.0, 0.07)
    table.loc[2, ["largest_change", "decisions_changed", "raised"]] = [np.nan, np.nan, "ValueError: one class"]
    return table


def intervals(**columns: object) -> pd.DataFrame:
    table = pd.DataFrame(columns)
    value = np.arange(len(table)) / 10
    return table.assign(estimate=value, value=value, share=value, difference=value, low=value - 0.1, high=value + 0.1)


def color(kind: str) -> tuple:
    return matplotlib.colors.to_rgba(STYLES[kind]["color"])


def marks(axis, kind: str) -> list[float]:
    """x of the marks of a kind."""
    lines = [line for line in axis.lines if line.get_marker() == STYLES[kind]["marker"]]
    assert all(matplotlib.colors.to_rgba(line.get_color()) == color(kind) for line in lines)
    return [float(x) for line in lines for x in np.atleast_1d(line.get_xdata())]


def test_each_exchange_has_its_panel_and_ours_stands_at_zero():
    figure = plot_exchanges(audit_table(), "title")
    panels = figure.axes
    assert [axis.get_title(loc="left") for axis in panels] == list(EXCHANGES.values())
    for number, axis in enumerate(panels):
        assert marks(axis, "ours") == [0.0]
        assert marks(axis, "released") == ([] if number == 1 else [0.01])
        assert [text.get_text() for text in axis.texts] == (["raises"] if number == 1 else ["7%"])


def test_every_benchmark_has_its_panel_of_decisions():
    table = intervals(benchmark=["A", "A", "B", "B"], kind=[*KINDS, *KINDS], strong_share=0.5)
    figure = plot_decisions(table, "title")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["A", "B"]
    for axis, part in zip(figure.axes, (table[:2], table[2:]), strict=True):
        heights = [float(line.get_ydata()[0]) for line in axis.lines]
        np.testing.assert_allclose(heights, 100 * part["estimate"])


def test_draws_show_the_published_share_only_if_there_is_one():
    table = pd.DataFrame({"definition": "half", "kind": ["released"] * 3 + ["ours"], "changed": [0.02, 0.1, 0.04, 0.0]})
    for published, texts in ((None, []), (0.078, ["published: 7.8 %"])):
        axis = plot_draws(table, "title", published).axes[0]
        assert [text.get_text() for text in axis.texts] == texts
        assert marks(axis, "released") == [4.0] and marks(axis, "ours") == [0.0]  # medians
    assert [label.get_text() for label in axis.get_yticklabels()] == ["released, half", "ours, half"]


def test_consequences_have_dollars_beside_them():
    table = intervals(benchmark=["A", "A", "B"], kind=["released", "ours", "ours"], writing="all rows")
    figure = plot_consequences(table.assign(usd_per_1000=[1.5, 2.0, 3.0]), "title")
    texts = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    assert texts == [["$1.50", "$2.00", "at half the gap:"], ["$3.00", "at half the gap:"]]
    assert marks(figure.axes[0], "released") == [0.0] and marks(figure.axes[1], "ours") == [0.2]


def test_an_interval_may_lie_beside_its_estimate():
    """As percentiles of few resamples do."""
    table = intervals(benchmark=["A"], kind="ours", writing="all rows").assign(low=0.1, high=0.2, usd_per_1000=1.0)
    drawn = [line.get_xdata() for line in plot_consequences(table, "title").axes[0].lines]
    assert any(list(x) == [0.1, 0.2] for x in drawn) and any(list(np.atleast_1d(x)) == [0.0] for x in drawn)


def test_naming_draws_both_answers_in_one_order():
    table = pd.DataFrame({"form": "f", "kind": "ours", "straight": [0.8, 0.2], "mirrored": [0.7, 0.3]})
    straight, mirrored = plot_naming(table, "title").axes[0].lines
    assert straight.get_ydata().tolist() == [0.2, 0.8] and mirrored.get_ydata().tolist() == [0.3, 0.7]


def test_bias_is_drawn_in_the_colour_of_its_kind():
    table = pd.concat([intervals(router=[kind] * 2) for kind in KINDS], ignore_index=True)
    axis = plot_bias(table.assign(share=[0.0, 0.5] * 2), 0.25, "here", "title").axes[0]
    assert marks(axis, "released") == marks(axis, "ours") == [0.0, 50.0]
    assert [text.get_text() for text in axis.texts] == ["released", "ours", "here"]


def test_shares_of_both_places_stand_on_the_line_of_their_judge():
    axis = plot_answer_shares(intervals(judge=["x", "x", "y", "y"], place=["first", "second"] * 2), "title").axes[0]
    assert [text.get_text() for text in axis.texts] == ["0.0", "20.0", "10.0", "30.0"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["x", "y"]


def test_a_bar_in_four_parts_is_whole():
    table = intervals(judge=["x"] * 4, answer=BOTH_ORDERS).assign(share=[0.4, 0.3, 0.01, 0.29], low=0.0, high=1.0)
    axis = plot_both_orders(table, "title").axes[0]
    bars = [patch for patch in axis.patches if patch.get_width()]
    np.testing.assert_allclose([bar.get_x() for bar in bars], [0, 40, 70, 71], atol=1e-9)
    assert [text.get_text() for text in axis.texts] == ["40", "30", "29"]  # none where it would not fit


def test_estimates_stand_beside_the_truth():
    table = intervals(name=["x", "y"] * 2, estimate=["with"] * 2 + ["without"] * 2).assign(
        estimate=["with"] * 2 + ["without"] * 2
    )
    figure = plot_estimates(table, "label", "title", truth=pd.Series({"y": 5.0, "x": 4.0}), reference=0)
    assert figure.axes[0].lines[1].get_xdata().tolist() == [4.0, 5.0]
    assert marks(figure.axes[0], "released") == [0.0, 0.1] and marks(figure.axes[0], "ours") == [0.2, 0.3]


def test_the_figure_with_most_text_keeps_it_inside(tmp_path):
    figure = plot_exchanges(audit_table().assign(router="a router with a long name"), "title")
    save_figure(figure, audit_table(), "exchanges", tmp_path, "simulated")
    width, height = figure.canvas.get_width_height()
    for axis in figure.axes:
        box = axis.get_tightbbox()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width + 1 and box.y1 <= height
