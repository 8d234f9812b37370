"""The front page shows each notebook's question and figure; copies for reading hold nothing of the machine."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from routing.runner import pages
from routing.studies.plotting import save_figure


def png(width: int, height: int = 40) -> str:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


def executed(*outputs, source: str = "x", count: int | None = 1, **metadata):
    cells = [new_markdown_cell("# T\n\n**Question.** Is a < b\nhere?\n\n**In.** nothing"), new_code_cell("  \n")]
    cells.append(new_code_cell(source, execution_count=count, outputs=list(outputs), metadata=metadata))
    return new_notebook(cells=cells, metadata={"routing": {"status": "ok"}})


def test_a_copy_keeps_outputs_and_drops_what_is_of_the_machine():
    text = f"  1%|\r 99%|\rdone in {Path.cwd()}/results and {Path.home()}/x\n"
    table = new_output("execute_result", data={"text/plain": f"'{Path.cwd()}'", "text/html": "<b>1</b>"})
    shown = new_output("display_data", data={"image/png": png(1600)})
    warning = new_output("stream", name="stderr", text="UserWarning: old")
    notebook = executed(new_output("stream", text=text), warning, table, shown, execution={"shell": "12:00"})
    copy = pages.clean_copy(notebook)
    first, (kept,) = copy.cells[0], copy.cells[1:]
    assert first.source.startswith("# T") and "execution" not in kept.metadata
    assert [output.output_type for output in kept.outputs] == ["stream", "execute_result", "display_data"]
    assert kept.outputs[0].text == "done in ./results and ~/x\n"
    assert kept.outputs[1].data == {"text/plain": "'.'", "text/html": "<b>1</b>"}
    image = Image.open(io.BytesIO(base64.b64decode(kept.outputs[2].data["image/png"])))
    assert image.size == (pages.WIDTH_PX, 25)
    assert copy.metadata == notebook.metadata
    assert notebook.cells[2].outputs[0].text == text  # the original stays


@pytest.mark.parametrize("fault", ["not run", "error", "size"])
def test_a_copy_that_nobody_should_read_is_refused(fault, monkeypatch):
    failed = [new_output("error", ename="E", evalue="e", traceback=[])] if fault == "error" else []
    monkeypatch.setattr(pages, "MAX_BYTES", 100 if fault == "size" else pages.MAX_BYTES)
    with pytest.raises(ValueError, match="bytes, more than 100" if fault == "size" else "`model.fit"):
        pages.clean_copy(executed(*failed, source="model.fit()\ny", count=None if fault == "not run" else 1))


def test_a_section_has_question_front_figure_and_title(tmp_path):
    for name in ("a_first", "b_front"):
        figure, axis = plt.subplots()
        axis.plot([1, 2])
        figure.suptitle(f"Title of\n{name}")
        save_figure(figure, pd.DataFrame({"x": [1, 2]}), name, tmp_path, "simulated")
        plt.close(figure)
    notebook = executed(source='save_figure(plot(table), table, "b_front", run.folder, data=d)', tags=["front"])
    nbformat.write(notebook, tmp_path / "01_t.ipynb")
    figures = ["a_first.png", "b_front.png"]
    section = pages.write_section(tmp_path / "01_t.ipynb", "T & t", "ok", tmp_path, "results/01_t", figures)
    assert '<a href="01_t.html">T &amp; t</a>' in section and "Is a &lt; b here?" in section
    assert 'alt="Title of b_front" src="results/01_t/b_front.png"' in section
    assert '<a href="results/01_t/a_first.png">a_first</a>' in section and "failed" not in section
    assert 'class="failed">cell 3 &lt;' in pages.write_section(
        tmp_path / "01_t.ipynb", "T", "cell 3 <", tmp_path, "r", []
    )
