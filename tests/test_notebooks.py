"""Every notebook keeps the house rules and runs from top to bottom in profile "smoke"."""

from __future__ import annotations

import ast
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from papermill.translators import PythonTranslator

from routing.runner.pages import FRONT_TAG
from routing.runner.run import KERNEL, read_parameters

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
MAX_LINES, MAX_WIDTH = 25, 110  # of a code cell
PARAMETER_LINE = re.compile(r"[a-z_][a-z0-9_]* = \S.*  # \S.*")
# Deletes what the notebook before it left, as "%reset -f" does without its seconds of garbage collection.
FORGET = "for name in set(get_ipython().user_ns) - set(get_ipython().user_ns_hidden): del get_ipython().user_ns[name]"
ABSOLUTE_PATH = re.compile(
    r"(?<![\w./:])/(?:home|Users|root|tmp|var|mnt|opt|usr|data|content|work|workspace)/|\b[A-Za-z]:\\"
)


def find_faults(path: Path) -> list[str]:
    """What in a notebook breaks the rules, each fault as one line; an empty list for a good one."""
    text = path.read_text(encoding="utf-8")
    ids = [cell.get("id") for cell in json.loads(text)["cells"]]
    if None in ids or len(set(ids)) < len(ids):
        return ["cells need ids, each its own"]
    notebook = nbformat.reads(text, as_version=4)
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        return [f"not a valid notebook: {error.message}"]
    return [*_parameter_faults(notebook, path.name), *_leftover_faults(notebook), *_shape_faults(notebook)]


def _parameter_faults(notebook: NotebookNode, name: str) -> list[str]:
    try:
        read_parameters(notebook, name)
    except ValueError as error:
        return [str(error)]
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    return [
        f"parameters: `{line}` is not `name = literal  # help`"
        for line in cell.source.splitlines()
        if not PARAMETER_LINE.fullmatch(line)
    ]


def _leftover_faults(notebook: NotebookNode) -> list[str]:
    faults = []
    if notebook.metadata.get("kernelspec", {}).get("name") != KERNEL:
        faults.append(f"the kernel is not {KERNEL}")
    extra = set(notebook.metadata) - {"kernelspec", "language_info"}
    if extra:
        faults.append(f"metadata of a run: {', '.join(sorted(extra))}")
    for number, cell in enumerate(notebook.cells, 1):
        tags = set(cell.metadata.get("tags", [])) - {"parameters", FRONT_TAG}
        if tags or set(cell.metadata) - {"tags"}:
            faults.append(f"cell {number} has metadata of a run: {', '.join(sorted({*cell.metadata, *tags}))}")
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None):
            faults.append(f"cell {number} has outputs or an execution count")
        if ABSOLUTE_PATH.search(cell.source):
            faults.append(f"cell {number} holds an absolute path")
    return faults


def _shape_faults(notebook: NotebookNode) -> list[str]:
    faults = []
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not re.match(r"# \S", first.source):
        faults.append("the first cell is no markdown with a title")
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    lengths = [sum(bool(line.strip()) for line in source.splitlines()) for source in code]
    if not 8 <= len(code) <= 20:
        faults.append(f"{len(code)} code cells, not 8 to 20")
    if lengths and statistics.median(lengths) > 8:
        faults.append(f"the median code cell has {statistics.median(lengths):g} lines, more than 8")
    faults += [f"a code cell has {length} lines, more than {MAX_LINES}" for length in lengths if length > MAX_LINES]
    wide = [line for source in code for line in source.splitlines() if len(line) > MAX_WIDTH]
    faults += [f"a line has {len(line)} characters, more than {MAX_WIDTH}: {line[:40]}" for line in wide]
    try:
        nodes = [node for source in code for node in ast.walk(ast.parse(source))]
    except SyntaxError as error:
        return [*faults, f"a code cell is not plain Python: {error.text and error.text.strip()}"]
    functions = [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if len(functions) > 2:
        faults.append(f"{len(functions)} functions, more than 2: {', '.join(functions)}")
    faults += [f"a class: {node.name}" for node in nodes if isinstance(node, ast.ClassDef)]
    return faults


# -- the checker itself ---------------------------------------------------------------------------------------------

PARAMETERS = 'profile = "quick"  # smoke, quick or full\nseed = 1  # of all draws\nresults_dir = "results"  # figures'


def good_notebook() -> NotebookNode:
    cells = [new_markdown_cell("# A question"), new_code_cell("import json")]
    cells.append(new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}))
    cells += [new_code_cell(f"x = {number}\nhttps = 'https://example.org/data/x'") for number in range(8)]
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


def faults_of(notebook: NotebookNode, folder: Path) -> list[str]:
    path = folder / "01_a.ipynb"
    path.write_text(nbformat.v4.writes_json(notebook), encoding="utf-8")  # unlike nbformat.write, mends nothing
    return find_faults(path)


def test_a_good_notebook_has_no_faults(tmp_path):
    assert faults_of(good_notebook(), tmp_path) == []


def source(index: int, text: str) -> Callable[[NotebookNode], None]:
    return lambda notebook: notebook.cells[index].update(source=text)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda nb: nb.cells[2].metadata.clear(), "0 cells are tagged"),
        (lambda nb: nb.cells[3].metadata.update(tags=["parameters"]), "2 cells are tagged"),
        (source(2, PARAMETERS + "\nn = 3"), "`n = 3` is not `name = literal  # help`"),
        (source(2, PARAMETERS + "\nn = (1, 2)  # pair"), r"line 4 of the parameters cell is `n = \(1, 2\)  # pair`"),
        (source(2, 'profile = "quick"  # p'), "lacks seed, results_dir"),
        (lambda nb: nb.cells[4].outputs.append(new_output("stream", text="1")), "cell 5 has outputs"),
        (lambda nb: nb.cells[4].update(execution_count=1), "cell 5 has outputs or an execution count"),
        (lambda nb: nb.cells[4].metadata.update(papermill={}), "cell 5 has metadata of a run: papermill"),
        (lambda nb: nb.cells[4].metadata.update(tags=["injected-parameters"]), "cell 5 .* injected-parameters"),
        (lambda nb: nb.metadata.update(papermill={}), "metadata of a run: papermill"),
        (lambda nb: nb.metadata.kernelspec.update(name="conda"), "the kernel is not python3"),
        (lambda nb: nb.cells[4].pop("id"), "cells need ids"),
        (lambda nb: nb.cells[4].update(id=nb.cells[5].id), "cells need ids, each its own"),
        (lambda nb: nb.cells[4].update(colour="red"), "not a valid notebook"),
        (lambda nb: nb.cells.pop(0), "no markdown with a title"),
        (source(0, "Some text"), "no markdown with a title"),
        (lambda nb: nb.cells.__delitem__(slice(3, 6)), "7 code cells, not 8 to 20"),
        (lambda nb: nb.cells.extend(new_code_cell("x") for _ in range(11)), "21 code cells"),
        (lambda nb: [cell.update(source="x\n\n" * 9) for cell in nb.cells[3:]], "median code cell has 9 lines"),
        (source(4, "x\n" * 26), "has 26 lines, more than 25"),
        (source(4, "class Router:\n    pass"), "a class: Router"),
        (source(4, "def f(): pass\ndef g(): pass\ndef h(): pass"), "3 functions, more than 2: f, g, h"),
        (source(4, "x = 1  #" + 103 * "-"), "a line has 111 characters"),
        (source(4, "%matplotlib inline"), "not plain Python: %matplotlib inline"),
        (source(4, "open('/home/me/votes.csv')"), "cell 5 holds an absolute path"),
        (source(4, r"open('C:\\votes.csv')"), "cell 5 holds an absolute path"),
    ],
)
def test_each_fault_is_found(tmp_path, spoil, fault):
    notebook = good_notebook()
    spoil(notebook)
    faults = faults_of(notebook, tmp_path)
    assert len(faults) == 1 and re.search(fault, faults[0]), faults


# -- the notebooks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_keeps_the_rules(path):
    assert find_faults(path) == []


@pytest.fixture(scope="module")
def kernel():
    """A kernel for all notebooks that this process runs, as to start one and import what they need takes seconds."""
    manager = KernelManager(kernel_name=KERNEL, transport_encryption="auto")
    yield manager
    manager.shutdown_kernel(now=True)


def check_results(name: str, results: Path) -> None:
    """A run left figures, the numbers of each, and a manifest that lists them."""
    figures = sorted(figure.name for figure in results.glob("*.png"))
    assert figures, "no figure"
    for figure in figures:
        assert len((results / figure).with_suffix(".csv").read_text(encoding="utf-8").splitlines()) > 1, figure
    manifest = json.loads((results / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["name"] == name
    assert manifest["parameters"]["profile"] == "smoke"
    assert set(figures) <= set(manifest["outputs"])


@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.stem)
def test_the_notebook_runs_and_leaves_figures_with_their_numbers(path, tmp_path, kernel):
    notebook = nbformat.read(path, as_version=4)
    place = next(place for place, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    values = {"profile": "smoke", "results_dir": str(tmp_path)}
    notebook.cells.insert(place + 1, new_code_cell(PythonTranslator.codify(values)))
    notebook.cells.insert(0, new_code_cell(FORGET))
    client = NotebookClient(notebook, km=kernel, startup_timeout=120, timeout=300)
    client.execute()
    client.kc.stop_channels()
    check_results(path.stem, tmp_path / path.stem)


def test_papermill_alone_runs_the_first_notebook_from_any_folder(tmp_path):
    command = [sys.executable, "-m", "papermill", str(NOTEBOOKS[0]), "out.ipynb"]
    command += ["-p", "profile", "smoke", "-k", KERNEL, "--no-progress-bar"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_results(NOTEBOOKS[0].stem, tmp_path / "runs" / "notebook" / NOTEBOOKS[0].stem)
