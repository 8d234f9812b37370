"""The executed notebooks in ``results/`` are whole, of today's sources, and hold nothing of the machine."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from routing.runner.pages import MAX_BYTES, hash_sources
from tests.test_notebooks import ABSOLUTE_PATH, NOTEBOOKS

RESULTS = Path(__file__).parent.parent / "results"
SHOW = {"print", "display", "save_figure"}
SILENT = {"finish", "record_input", "set_style", "to_csv", "to_parquet", "write_comparison"}


def called(node: ast.AST) -> str | None:
    """Name of the function or method that an expression calls."""
    function = node.func if isinstance(node, ast.Call) else None
    return getattr(function, "attr", getattr(function, "id", None))


def shows_something(source: str) -> bool:
    """Whether a cell prints, draws or ends with a value whatever its data; under an ``if`` it need not."""
    body = ast.parse(source).body
    expressions = [node.value for node in body if isinstance(node, ast.Expr)]
    for block in (node for node in body if isinstance(node, ast.For | ast.With)):
        expressions += [node.value for node in block.body if isinstance(node, ast.Expr) and called(node.value) in SHOW]
    ends_with_value = bool(body) and isinstance(body[-1], ast.Expr) and called(body[-1].value) not in SILENT
    return ends_with_value or any(called(value) in SHOW for value in expressions)


def find_faults(copy: NotebookNode, source: NotebookNode) -> list[str]:
    """What is wrong with an executed copy of a notebook, each fault as one line."""
    faults = []
    if copy.metadata.get("routing", {}).get("source_sha256") != hash_sources(source):
        faults.append("made from another source than today's")
    if (size := len(nbformat.writes(copy).encode())) > MAX_BYTES:
        faults.append(f"has {size:,} bytes, more than {MAX_BYTES:,}")
    for number, cell in enumerate(copy.cells, 1):
        outputs = cell.get("outputs", [])
        if cell.cell_type == "code" and cell.execution_count is None:
            faults.append(f"cell {number} was not run")
        if cell.cell_type == "code" and not outputs and shows_something(cell.source):
            faults.append(f"cell {number} shows nothing")
        faults += [f"cell {number} has an error" for output in outputs if output.output_type == "error"]
        faults += [f"cell {number} has standard error" for output in outputs if output.get("name") == "stderr"]
        texts = [output.get("text", "") for output in outputs]
        texts += [text for output in outputs for kind, text in output.get("data", {}).items() if "image" not in kind]
        if any(ABSOLUTE_PATH.search(str(text)) for text in [cell.source, *texts]):
            faults.append(f"cell {number} holds an absolute path")
    return faults


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_executed_copy_is_whole_and_of_todays_source(path):
    copy, manifest = RESULTS / path.stem / path.name, RESULTS / path.stem / "manifest.json"
    expected = manifest.is_file() and path.name in json.loads(manifest.read_text(encoding="utf-8"))["outputs"]
    if copy.is_file() or expected:  # a run from before the copies left none
        faults = find_faults(nbformat.read(copy, as_version=4), nbformat.read(path, as_version=4))
        renew = f"python -m routing run --profile full --only {path.name[:2]}"
        assert faults == [], f"{copy.name}: renew it with `{renew}`"


# -- the checker itself ---------------------------------------------------------------------------------------------


def whole_copy() -> tuple[NotebookNode, NotebookNode]:
    """A copy without faults, and its source."""
    source = new_notebook(cells=[new_markdown_cell("# T"), new_code_cell("x = 1"), new_code_cell("print(x)")])
    copy = nbformat.from_dict(source)
    for cell in copy.cells[1:]:
        cell.execution_count = 1
    copy.cells[2].outputs = [new_output("stream", text="1")]
    copy.cells.insert(2, new_code_cell('# Parameters\nprofile = "full"', execution_count=2))
    copy.metadata["routing"] = {"source_sha256": hash_sources(source)}
    return copy, source


def append(**output) -> object:
    return lambda copy, source: copy.cells[3].outputs.append(new_output(**output))


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda copy, source: source.cells[1].update(source="x = 2"), "made from another source than today's"),
        (lambda copy, source: copy.metadata.pop("routing"), "made from another source than today's"),
        (lambda copy, source: copy.cells[1].update(execution_count=None), "cell 2 was not run"),
        (lambda copy, source: copy.cells[3].update(outputs=[]), "cell 4 shows nothing"),
        (append(output_type="error", ename="E", evalue="e", traceback=[]), "cell 4 has an error"),
        (append(output_type="stream", name="stderr", text="w"), "cell 4 has standard error"),
        (append(output_type="stream", text="in /home/me/x"), "cell 4 holds an absolute path"),
        (append(output_type="stream", text=MAX_BYTES * "x"), "bytes, more than 900,000"),
    ],
)
def test_each_fault_of_a_copy_is_found(spoil, fault):
    copy, source = whole_copy()
    assert find_faults(copy, source) == []
    spoil(copy, source)
    (found,) = find_faults(copy, source)
    assert found.endswith(fault)


@pytest.mark.parametrize(
    ("source", "shows"),
    [
        ("x = 1\nx", True),
        ("table.round(3)", True),
        ("run.finish()", False),
        ("if real:\n    print(1)", False),
        ("for x in y:\n    print(x)", True),
        ("save_figure(a, b, 'c')\nx = 1", True),
        ("import json", False),
    ],
)
def test_cells_that_must_show_something(source, shows):
    assert shows_something(source) is shows


def test_the_hash_is_of_kinds_sources_and_tags_alone():
    copy, source = whole_copy()
    assert hash_sources(nbformat.from_dict({**source, "metadata": {"a": 1}})) == hash_sources(source)
    assert hash_sources(copy) != hash_sources(source)
    tagged = nbformat.from_dict(source)
    tagged.cells[1].metadata["tags"] = ["front"]
    assert hash_sources(tagged) != hash_sources(source)
