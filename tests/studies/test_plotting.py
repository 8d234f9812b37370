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

from routing.studies.plotting import DATA_LABEL, ROUTER_STYLES, label_line_ends, save_figure, set_style

TABLE = pd.DataFrame({"calls": [0.0, 0.5, 1.0], "quality": [1 / 3, 2 / 3, 1.0], "n": [1, 2, 3]})


@pytest.fixture(autouse=True)
def styled():
    with matplotlib.rc_context():
        set_style()
        yield


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
