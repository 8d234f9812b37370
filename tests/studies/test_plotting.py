"""Figures are the same bytes for the same input, carry their numbers, and say what data they show."""

from __future__ import annotations

import subprocess
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from routing.studies import routers
from routing.studies.plotting import (
    DATA_LABEL,
    ROUTER_STYLES,
    label_line_ends,
    plot_bars,
    plot_heatmaps,
    plot_lines,
    plot_points,
    plot_rows,
    save_figure,
    write_number,
)

TABLE = pd.DataFrame({"calls": [0.0, 0.5, 1.0], "quality": [1 / 3, 2 / 3, 1.0], "n": [1, 2, 3]})


def draw() -> Figure:
    figure = Figure()
    axes = figure.subplots()
    axes.plot(TABLE["calls"], TABLE["quality"], **ROUTER_STYLES["bert"])
    axes.set(title="A third, then two", xlabel="calls", ylabel=r"quality $\theta$")
    return figure


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        figure = draw()
        save_figure(figure, TABLE, "curve", tmp_path / folder, "simulated")
    pictures = [(tmp_path / folder / "curve.png").read_bytes() for folder in ("first", "second")]
    assert pictures[0] == pictures[1]
    assert b"matplotlib" not in pictures[0].lower()  # no version in the metadata
    save_figure(figure, TABLE, "again", tmp_path, "simulated")
    assert (tmp_path / "again.png").read_bytes() == pictures[0]  # saving a figure does not change it


def test_the_csv_holds_what_is_plotted(tmp_path):
    save_figure(draw(), TABLE, "curve", tmp_path, "real")
    text = (tmp_path / "curve.csv").read_bytes().decode()
    assert text == "calls,quality,n\n0,0.3333333333,1\n0.5,0.6666666667,2\n1,1,3\n"
    np.testing.assert_allclose(pd.read_csv(tmp_path / "curve.csv"), TABLE, rtol=1e-9)


def test_a_named_index_is_written_and_a_filtered_one_is_not(tmp_path):
    ratings = pd.Series([0.5], index=pd.Index(["gpt"], name="model"), name="rating").to_frame()
    save_figure(draw(), ratings, "named", tmp_path, "real")
    assert (tmp_path / "named.csv").read_text() == "model,rating\ngpt,0.5\n"
    save_figure(draw(), TABLE[TABLE["n"] == 2], "filtered", tmp_path, "real")
    assert (tmp_path / "filtered.csv").read_text().splitlines()[0] == "calls,quality,n"


def test_the_corner_says_which_data_once(tmp_path):
    figure = draw()
    save_figure(figure, TABLE, "curve", tmp_path, "real")
    real = (tmp_path / "curve.png").read_bytes()
    save_figure(figure, TABLE, "curve", tmp_path, "simulated")
    labels = [text.get_text() for text in figure.texts if text.get_gid() == DATA_LABEL]
    assert labels == ["data: simulated"]
    assert real != (tmp_path / "curve.png").read_bytes()


def test_the_corner_label_lies_below_the_axes(tmp_path):
    figure = draw()
    save_figure(figure, TABLE, "curve", tmp_path, "real")
    label = next(text for text in figure.texts if text.get_gid() == DATA_LABEL)
    axes_bottom = figure.axes[0].get_tightbbox().ymin
    assert 0 <= label.get_window_extent().ymin < label.get_window_extent().ymax <= axes_bottom


@pytest.mark.parametrize("name", ["a/b", "a\\b", "..", "a.png", "", "a b"])
def test_a_name_is_a_plain_word(tmp_path, name):
    with pytest.raises(ValueError, match="figure name"):
        save_figure(draw(), TABLE, name, tmp_path, "real")


def test_what_a_figure_cannot_show_is_refused(tmp_path):
    with pytest.raises(ValueError, match="curve: the table behind it is empty"):
        save_figure(draw(), TABLE.iloc[:0], "curve", tmp_path, "real")
    with pytest.raises(ValueError, match="curve: the table's index has labels but no name"):
        save_figure(draw(), TABLE.set_axis(["a", "b", "c"], axis=0), "curve", tmp_path, "real")
    with pytest.raises(ValueError, match="data is 'made up'"):
        save_figure(draw(), TABLE, "curve", tmp_path, "made up")
    assert list(tmp_path.iterdir()) == []


def test_labels_at_line_ends_do_not_touch_and_keep_their_order():
    figure, axis = plt.subplots()
    axis.set(xlim=(0, 1), ylim=(0, 1))
    heights = [0.5, 0.501, 0.2, 0.502]
    label_line_ends(axis, [(1.0, y, f"line {y}", "k") for y in heights])
    figure.canvas.draw()
    boxes = {text.get_text(): text.get_window_extent() for text in axis.texts}
    ordered = [boxes[f"line {y}"] for y in sorted(heights)]
    assert all(below.ymax <= above.ymin for below, above in zip(ordered, ordered[1:], strict=False))
    (alone,) = axis.transData.transform([(1.0, 0.2)])
    assert abs((boxes["line 0.2"].ymin + boxes["line 0.2"].ymax) / 2 - alone[1]) < 3
    plt.close(figure)


ROWS = pd.DataFrame({"name": ["bert", "model x"] * 2, "kind": ["old"] * 2 + ["new"] * 2, "estimate": [1.0, 2, 3, 4]})
ROWS = ROWS.assign(low=ROWS["estimate"] - 0.5, high=ROWS["estimate"] + 0.5)


def marks(axis) -> list[tuple[float, float]]:
    """Return x and y of each mark, from left to right."""
    return sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines if line.get_marker() != "None")


def test_each_row_has_its_estimate_its_interval_and_its_value():
    figure = plot_rows(ROWS, "label", "A title", reference={"truth": 2.5}, group="kind")
    (axis,) = figure.axes
    assert [x for x, _ in marks(axis)] == [1, 2, 3, 4]
    assert [y for _, y in marks(axis)] == [0.25, -0.75, -0.25, -1.25]  # the second of a group stands lower
    assert {tuple(line.get_xdata()) for line in axis.lines} >= {(0.5, 1.5), (1.5, 2.5), (2.5, 3.5), (3.5, 4.5)}
    assert [text.get_text() for text in axis.texts] == ["1", "2", "3", "4"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["BERT", "model x"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["truth", "old", "new"]


def test_a_row_without_estimate_shows_its_text_alone():
    table = ROWS.assign(text=["raises", "b", "c", "d"])
    table.loc[0, ["estimate", "low", "high"]] = np.nan
    (axis,) = plot_rows(table, "label", "A title", group="kind", panel=None).axes
    assert [text.get_text() for text in axis.texts] == ["raises", "b", "c", "d"]
    assert np.isnan(marks(axis)).any(axis=1).sum() == 1


def test_each_panel_shows_its_own_rows_and_lines():
    figure = plot_rows(ROWS, "label", "A title", panel="kind")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["old", "new"]
    assert [[x for x, _ in marks(axis)] for axis in figure.axes] == [[1, 2], [3, 4]]
    figure = plot_lines(ROWS.assign(x=[0, 1, 0, 1]), "x", "estimate", ("x", "y"), "A title", panel="kind")
    assert [axis.lines[0].get_ydata().tolist() for axis in figure.axes] == [[1, 2], [3, 4]]


def test_lines_carry_their_names_and_bands_do_not_squash_them():
    table = ROWS.assign(x=[0, 1, 0, 1], low=-100.0)
    (axis,) = plot_lines(table, "x", "estimate", ("x", "y"), "A title", by="kind").axes
    assert [line.get_ydata().tolist() for line in axis.lines] == [[1, 2], [3, 4]]
    assert [text.get_text() for text in axis.texts] == ["old", "new"] and len(axis.collections) == 2
    assert -5 < axis.get_ylim()[0] < 1


def test_bars_are_whole_and_only_wide_parts_carry_numbers():
    table = pd.DataFrame({"name": "judge", "answer": list("abcd"), "estimate": [40.0, 30.4, 0.6, 29.0]})
    (axis,) = plot_bars(table, "share (%)", "A title", by="answer").axes
    np.testing.assert_allclose([bar.get_x() for bar in axis.patches], [0, 40, 70.4, 71])
    assert [text.get_text() for text in axis.texts] == ["40", "30.4", "", "29"]


def test_names_of_points_do_not_lie_on_each_other():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(60, 2)), columns=["x", "y"]).assign(name=[f"model {n}" for n in range(60)])
    figure = plot_points(table, "x", "y", ("x", "y"), "A title", name="name", equal=True)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert 10 < len(boxes) < 60
    assert not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])


def test_heat_maps_share_a_scale_and_calibration_its_styles():
    matrices = {name: pd.DataFrame([[0.0, 1], [2, 3]], index=list("ab"), columns=list("cd")) for name in ("one", "two")}
    figure = plot_heatmaps(matrices, "value", "A title", vmin=0, vmax=9)
    assert [axis.collections[0].get_clim() for axis in figure.axes[:2]] == [(0, 9), (0, 9)]
    table = pd.DataFrame({"predicted": [0.2, 0.8], "observed": [0.3, 0.7], "observed_low": 0.1, "observed_high": 0.9})
    axes = routers.plot_calibration({"bert": table, "random": table}).axes
    assert [axis.lines[0].get_color() for axis in axes] == [ROUTER_STYLES[name]["color"] for name in ("bert", "random")]


def test_numbers_carry_no_exponent_of_rounding_errors():
    assert [write_number(value) for value in (1e-17, -1e-16, 0.12345, 12_345.6)] == ["0", "0", "0.123", "12,346"]
    axis = plot_rows(ROWS.assign(estimate=[0, 1e-17, 0, 0], low=0, high=0), "label", "A title").axes[0]
    assert np.ptp(axis.get_xlim()) > 0.01


def test_legend_lies_below_the_axes_and_above_the_corner_label(tmp_path):
    names = [f"a rather long name of a line {number}" for number in range(6)]
    table = pd.DataFrame({"name": "x", "kind": names, "estimate": range(6)})
    figure = plot_rows(table, "label", "A title", group="kind")
    save_figure(figure, table, "legend", tmp_path, "simulated")
    label = next(text for text in figure.texts if text.get_gid() == DATA_LABEL).get_window_extent()
    legend = figure.legends[0].get_window_extent()
    assert label.y1 <= legend.y0 < legend.y1 <= figure.axes[0].get_tightbbox().y0 + 1
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1


def test_no_two_routers_share_a_colour_a_marker_or_a_line():
    for key in ("color", "marker", "linestyle"):
        assert len({style[key] for style in ROUTER_STYLES.values()}) == len(ROUTER_STYLES)
    assert set(ROUTER_STYLES) == {
        "random", "bradley_terry", "similarity_weighting", "matrix_factorization", "bert", "causal_llm", "oracle"
    }  # fmt: skip


def test_the_style_needs_no_font_that_matplotlib_lacks():
    from matplotlib.font_manager import findfont

    assert matplotlib.get_data_path() in findfont(matplotlib.rcParams["font.family"][0], fallback_to_default=False)


def test_importing_touches_no_backend():
    code = "import matplotlib, routing.studies.plotting; assert matplotlib.get_backend(auto_select=False) is None"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": ""})
