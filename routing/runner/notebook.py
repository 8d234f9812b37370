"""One notebook: found, checked, and executed headless into a copy and a page.

Everything is checked before anything runs, because papermill would carry on: it only warns about a parameter that a
notebook does not have, and without a tagged cell it injects the parameters where the defaults then overwrite them.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import nbformat
import papermill
from jupyter_client.manager import KernelManager
from nbclient.exceptions import CellTimeoutError
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from routing.files import write_atomically
from routing.runner import provenance
from routing.runner.provenance import Literal, Outcome

KERNEL = "python3"
START_TIMEOUT_S = 120
QUIET_BARS = "ignore:IProgress not found"
COMMON_PARAMETERS = ("profile", "seed", "results_dir")  # every notebook has them
RUNNER_PARAMETERS = ("profile", "results_dir")  # and these the runner sets
ADDED_TAGS = {"injected-parameters", "papermill-error-cell-tag"}  # cells that papermill adds to an executed copy

# The lab template without its scripts, all of which are fetched from the network.
SCRIPT_BLOCKS = ("html_head_js", "jupyter_widgets", "html_head_js_mathjax", "html_head_js_mermaidjs")
PAGE_TEMPLATE = "{% extends 'lab/index.html.j2' %}" + "".join(
    f"{{% block {name} %}}{{% endblock %}}" for name in SCRIPT_BLOCKS
)


@dataclass(frozen=True)
class Notebook:
    """A notebook to run, read and checked."""

    path: Path
    title: str
    source_sha256: str
    defaults: dict[str, Literal]  # the parameters cell


@dataclass(frozen=True)
class Task:
    """What a worker process needs to run one notebook."""

    path: Path
    pending: Outcome  # all that is known beforehand, the parameters among it
    copy: Path  # the executed notebook
    results: Path  # holds the folder of the notebook's figures
    cell_timeout_s: int
    threads: int | None  # of the numerical libraries; None leaves it to them

    @property
    def unfinished(self) -> Path:
        return self.copy.with_name(f".{self.copy.stem}.partial.ipynb")

    def outcome(self, status: str, seconds: float, **failure: str | int | None) -> Outcome:
        figures = tuple(sorted(path.name for path in (self.results / self.copy.stem).glob("*.png")))
        return replace(self.pending, status=status, seconds=round(seconds, 1), figures=figures, **failure)


def read_parameters(notebook: nbformat.NotebookNode, name: str) -> dict[str, Literal]:
    """The names and defaults in the one cell tagged ``parameters``.

    Raises
    ------
    ValueError
        No such cell or several, a line in it that is not ``name = literal`` (bool, int, float, str), or one of
        `COMMON_PARAMETERS` missing.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"{name}: {len(cells)} cells are tagged 'parameters'; tag exactly one")
    source, line = cells[0].source, 1
    defaults: dict[str, Literal] = {}
    try:
        for statement in ast.parse(source).body:
            line = statement.lineno
            (target,) = statement.targets
            defaults[target.id] = ast.literal_eval(statement.value)
            if not isinstance(defaults[target.id], Literal):
                raise ValueError
    except (AttributeError, ValueError, SyntaxError) as error:
        line = getattr(error, "lineno", line)
        text = source.splitlines()[line - 1].strip()
        raise ValueError(f"{name}: line {line} of the parameters cell is `{text}`; write `name = literal`") from None
    missing = [common for common in COMMON_PARAMETERS if common not in defaults]
    if missing:
        raise ValueError(f"{name}: the parameters cell lacks {', '.join(missing)}")
    return defaults


def read_notebook(path: Path) -> Notebook:
    """A notebook's title, hash and parameters.

    Raises
    ------
    ValueError
        As `read_parameters`, and for a file that is no notebook.
    """
    content = path.read_bytes()
    try:
        node = nbformat.reads(content.decode(), as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        raise ValueError(f"{path.name} is not a notebook: {error}") from None
    headings = (re.match(r"#\s+(.+)", cell.source) for cell in node.cells if cell.cell_type == "markdown")
    title = next((heading.group(1).strip() for heading in headings if heading), path.stem)
    return Notebook(path.resolve(), title, hashlib.sha256(content).hexdigest(), read_parameters(node, path.name))


def find_notebooks(folder: Path, only: Sequence[str] = ()) -> list[Notebook]:
    """The notebooks ``NN_name.ipynb`` of a folder in order, or those whose numbers are in `only`.

    Raises
    ------
    FileNotFoundError
        No such notebook in the folder.
    ValueError
        A number that stands for no notebook or for two, and as `read_notebook`.
    """
    paths: dict[str, Path] = {}
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        if path.name[:2] in paths:
            raise ValueError(f"{paths[path.name[:2]].name} and {path.name} have the same number")
        paths[path.name[:2]] = path
    if not paths:
        raise FileNotFoundError(f"no NN_name.ipynb in {folder}; run in the project's folder or give --notebooks")
    unknown = [number for number in only if number not in paths]
    if unknown:
        raise ValueError(f"--only {','.join(unknown)}: no such notebook; there are {', '.join(paths)}")
    return [read_notebook(path) for number, path in paths.items() if not only or number in only]


def type_parameters(notebook: Notebook, texts: Mapping[str, str]) -> dict[str, Literal]:
    """Values from the command line as the types of the notebook's defaults.

    The default decides, not the text: "3" stays a string, "false" is a bool, where the default is one.

    Raises
    ------
    ValueError
        A name that the notebook does not have or that the runner sets, or a text that is not of the type.
    """
    settable = {name: value for name, value in notebook.defaults.items() if name not in RUNNER_PARAMETERS}
    typed: dict[str, Literal] = {}
    for name, text in texts.items():
        if name not in settable:
            reason = "the runner sets" if name in RUNNER_PARAMETERS else "it has no"
            raise ValueError(f"{notebook.path.name}: {reason} parameter {name}; -p takes {', '.join(settable)}")
        kind = type(settable[name])
        try:
            typed[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise ValueError(f"{notebook.path.name}: parameter {name} is {kind.__name__}, not {text!r}") from None
    return typed


def check_kernel() -> str:
    """The interpreter that the kernel will run; ValueError where another environment's kernelspec hides this one's."""
    manager = KernelManager(kernel_name=KERNEL)
    interpreter = manager.format_kernel_cmd()[0]
    here, there = Path(sys.executable), Path(interpreter)
    # Folders are compared too: the interpreters of two virtual environments may be links to one file.
    if not (there.exists() and here.samefile(there) and here.parent.samefile(there.parent)):
        raise ValueError(
            f"the Jupyter kernel {KERNEL} runs {interpreter}, not {sys.executable}: remove the kernelspec in"
            f" {manager.kernel_spec.resource_dir} or run `python -m ipykernel install --sys-prefix`"
        )
    return interpreter


def _find_failing_cell(executed: nbformat.NotebookNode) -> tuple[int | None, str | None]:
    """Number and first line of the last cell that started; both None where none did."""
    cells = [cell for cell in executed.cells if not ADDED_TAGS & set(cell.metadata.get("tags", []))]
    started = [number for number, cell in enumerate(cells, 1) if cell.metadata.get("papermill", {}).get("start_time")]
    if not started:
        return None, None
    return started[-1], cells[started[-1] - 1].source.strip().split("\n")[0]


def execute_notebook(task: Task) -> Outcome:
    """Run one notebook; write its executed copy and its HTML page, whether it ends well or fails."""
    package = str(provenance.PACKAGE_FOLDER.parent)  # the kernel gets the package that the manifest describes
    others = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder not in ("", package)]
    os.environ["PYTHONPATH"] = os.pathsep.join([package, *others])
    # The bars are text, which a page can show; tqdm would rather have widgets, and warns with a path of this machine.
    filters = [text for text in os.environ.get("PYTHONWARNINGS", "").split(",") if text not in ("", QUIET_BARS)]
    os.environ["PYTHONWARNINGS"] = ",".join([*filters, QUIET_BARS])
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # of files that are read in a moment
    if task.threads:
        os.environ.setdefault("OMP_NUM_THREADS", str(task.threads))
    here = Path.cwd()
    results = task.results.relative_to(here) if task.results.is_relative_to(here) else task.results
    task.copy.unlink(missing_ok=True)  # of an earlier run, whose figures this one replaces
    clock_s = time.perf_counter()
    error = None
    try:
        papermill.execute_notebook(
            task.path,
            task.unfinished,
            parameters={**task.pending.parameters, "profile": task.pending.profile, "results_dir": str(results)},
            kernel_name=KERNEL,
            progress_bar=False,
            start_timeout=START_TIMEOUT_S,
            execution_timeout=task.cell_timeout_s,
            config=Config(KernelManager={"transport_encryption": "auto"}),  # else the kernel warns of plain TCP
        )
    except PapermillExecutionError as exception:
        error = f"{exception.ename}: {exception.evalue}"
    except CellTimeoutError:
        error = f"CellTimeoutError: not done after {task.cell_timeout_s} s, the limit for a cell in this profile"
    except Exception as exception:  # a kernel that died or did not start; the other notebooks still run
        error = f"{type(exception).__name__}: {exception}"
    seconds = time.perf_counter() - clock_s

    executed = nbformat.read(task.unfinished if task.unfinished.exists() else task.path, as_version=4)
    if error is None:
        outcome = task.outcome("ok", seconds)
    else:
        cell, line = _find_failing_cell(executed)
        outcome = task.outcome("failed", seconds, cell=cell, cell_line=line, error=error.strip().split("\n")[0])
    executed.metadata.pop("papermill", None)  # it names folders of this machine; the cells keep their times
    executed.metadata.update(title=outcome.title, routing=asdict(outcome))
    page, _ = HTMLExporter(raw_template=PAGE_TEMPLATE).from_notebook_node(executed)
    write_atomically(task.copy.with_suffix(".html"), page)
    write_atomically(task.copy, nbformat.writes(executed))
    return outcome
