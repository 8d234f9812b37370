"""Run the numbered notebooks headless: ``python -m routing run``.

Each notebook gets a process and a kernel of its own, and everything is checked before anything runs. A run locks the
folders that it writes into, and its kernels end when it ends, however that happens.
"""

# ruff: noqa: E402

from __future__ import annotations

import sys

# jsonschema, which Jupyter loads, loads this if it can: seconds for a grammar of addresses that notebooks never need.
sys.modules.setdefault("rfc3987_syntax", None)

import ast
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import wait
from pathlib import Path

import nbformat
import psutil
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from papermill.translators import PythonTranslator
from traitlets.config import Config

from routing.files import lock_folder, write_atomically, write_json
from routing.runner import provenance
from routing.runner.pages import FRONT_PAGE, clean_copy, hash_sources, write_page, write_section

KERNEL = "python3"
QUIET_BARS = "ignore:IProgress not found"  # tqdm would rather have widgets, and warns with a local path
CELL_TIMEOUT_S = {"smoke": 300, "quick": 600, "full": 7200, "paper": 86_400}  # the profiles
COMMON_PARAMETERS = ("profile", "seed", "results_dir")  # every notebook has them
Values = dict[str, provenance.Literal]
RUNNER_PARAMETERS = ("profile", "results_dir")  # and the runner sets these


@dataclass(frozen=True)
class Outcome:
    """A notebook of a run and how it ended; stands in the metadata of the executed copy."""

    name: str
    title: str
    profile: str
    source_sha256: str  # of its cells, by `hash_sources`
    package_sha256: str
    parameters: Values  # what was passed, without ``profile`` and ``results_dir``
    status: str = "pending"  # or "ok" or "failed"
    seconds: float = 0.0
    figures: tuple[str, ...] = ()  # PNG files in the notebook's results folder
    cell: int | None = None  # the failing cell, counted from 1 over all cells of the notebook
    cell_line: str | None = None  # its first line
    error: str | None = None  # "TypeOfError: message"
    resumed: bool = False  # whether an earlier run had finished it

    @property
    def failure(self) -> str:
        """One line for a reader: which notebook, which cell, which error."""
        where = f" in cell {self.cell} (`{self.cell_line}`)" if self.cell else ""
        return f"{self.name} failed{where}: {self.error}"

    def ended(self, status: str, results: Path, seconds: float, **failure: str | int | None) -> Outcome:
        """Return how this notebook ended, with the figures that it left below `results`."""
        figures = tuple(sorted(path.name for path in (results / self.name).glob("*.png")))
        return replace(self, status=status, seconds=round(seconds, 1), figures=figures, **failure)


def read_outcome(copy: Path) -> Outcome | None:
    """Return what an executed copy says of its run; None where there is no copy that this version can read."""
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        stamp = json.loads(copy.read_text(encoding="utf-8"))["metadata"]["routing"]
        return Outcome(**{**stamp, "figures": tuple(stamp["figures"])})
    return None


def find_notebooks(folder: Path, only: Sequence[str] = ()) -> list[Path]:
    """Return the notebooks ``NN_name.ipynb`` of a folder in order, or those whose numbers are in `only`."""
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    paths = {path.name[:2]: path for path in found}
    for path in set(found) - set(paths.values()):
        raise ValueError(f"{path.name} and {paths[path.name[:2]].name} have the same number")
    if not paths:
        raise FileNotFoundError(f"no NN_name.ipynb in {folder}; run in the project's folder or give --notebooks")
    if unknown := [number for number in only if number not in paths]:
        raise ValueError(f"--only {','.join(unknown)}: no such notebook; choose from {', '.join(paths)}")
    return [path.resolve() for number, path in paths.items() if not only or number in only]


def read_parameters(notebook: nbformat.NotebookNode, name: str) -> Values:
    """Return the names and defaults in the one cell tagged ``parameters``, one a line; ValueError for others."""
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"{name}: {len(cells)} cells are tagged 'parameters'; tag exactly one")
    defaults: Values = {}
    for number, line in enumerate(cells[0].source.splitlines(), 1):
        try:
            for statement in ast.parse(line).body:
                (target,) = statement.targets
                defaults[target.id] = ast.literal_eval(statement.value)
                if not isinstance(defaults[target.id], provenance.Literal):
                    raise ValueError
        except (AttributeError, ValueError, SyntaxError):
            text = f"is `{line.strip()}`; write `name = literal`"
            raise ValueError(f"{name}: line {number} of the parameters cell {text}") from None
    if missing := [common for common in COMMON_PARAMETERS if common not in defaults]:
        raise ValueError(f"{name}: the parameters cell lacks {', '.join(missing)}")
    return defaults


def type_parameters(name: str, defaults: Values, texts: Mapping[str, str]) -> Values:
    """Return values from the command line as the types of a notebook's defaults: "3" stays a string where one is."""
    settable = {key: value for key, value in defaults.items() if key not in RUNNER_PARAMETERS}
    typed: Values = {}
    for key, text in texts.items():
        if key not in settable:
            reason = "the runner sets" if key in RUNNER_PARAMETERS else "the notebook has no"
            raise ValueError(f"{name}: {reason} parameter {key}; -p takes {', '.join(settable)}")
        kind = type(settable[key])
        try:
            typed[key] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise ValueError(f"{name}: parameter {key} is {kind.__name__}, not {text!r}") from None
    return typed


def read_notebook(path: Path, profile: str, texts: Mapping[str, str], package_sha256: str) -> Outcome:
    """Read and check a notebook and its parameters, and return it as pending; ValueError names what is wrong."""
    try:
        node = nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        raise ValueError(f"{path.name} is not a notebook: {error}") from None
    headings = [cell.source for cell in node.cells if cell.cell_type == "markdown" and cell.source.startswith("# ")]
    title = headings[0].split("\n")[0].removeprefix("#").strip() if headings else path.stem
    values = type_parameters(path.name, read_parameters(node, path.name), texts)
    return Outcome(path.stem, title, profile, hash_sources(node), package_sha256, values)


def check_kernel() -> str:
    """Return the interpreter that the kernel will run; ValueError where it is of another environment than this one."""
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


def execute_notebook(
    pending: Outcome, folder: Path, output: Path, results: Path, cell_timeout_s: int, threads: int | None
) -> None:
    """Run one notebook of `folder`, numerical libraries on so many threads; write its page and copy, failed or not."""
    package = str(provenance.PACKAGE_FOLDER.parent)  # the kernel gets the package that the manifest describes
    for name, first, mark in [("PYTHONPATH", package, os.pathsep), ("PYTHONWARNINGS", QUIET_BARS, ",")]:
        os.environ[name] = mark.join(filter(None, [first, os.environ.get(name)]))
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # of files that are read in a moment
    if threads:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    shown_results = results.relative_to(Path.cwd()) if results.is_relative_to(Path.cwd()) else results
    profile = pending.profile
    if profile == "paper":  # the notebooks of "full", on the paper's battles
        profile, os.environ["ROUTING_BATTLES"] = "full", "paper"
    values = {**pending.parameters, "profile": profile, "results_dir": str(shown_results)}
    notebook = nbformat.read(folder / f"{pending.name}.ipynb", as_version=4)
    cells = list(notebook.cells)
    for cell in cells:
        cell.metadata.pop("execution", None)
    tagged = next(place for place, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", []))
    notebook.cells.insert(tagged + 1, nbformat.v4.new_code_cell(PythonTranslator.codify(values)))
    encrypted = Config(KernelManager={"transport_encryption": "auto"})  # else the kernel warns of plain TCP
    limits = {"startup_timeout": 120, "timeout": cell_timeout_s}
    clock_s, failure = time.perf_counter(), {}
    try:
        NotebookClient(notebook, kernel_name=KERNEL, config=encrypted, **limits).execute()
    except Exception as error:  # of a cell, a cell past its time, or a kernel that died; the other notebooks still run
        kind, text = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", error)
        failure["error"] = f"{kind}: {text}".strip().split("\n")[0]
        for number, cell in enumerate(cells, 1):
            if "execution" in cell.metadata:  # it has started; the last one failed
                failure |= {"cell": number, "cell_line": cell.source.strip().split("\n")[0]}
    if pending.profile == "full" and not failure:
        try:
            copy = clean_copy(notebook)
            copy.metadata["routing"] = {"source_sha256": pending.source_sha256}
            write_atomically(results / pending.name / f"{pending.name}.ipynb", nbformat.writes(copy))
            provenance.record_output(results / pending.name / f"{pending.name}.ipynb")
        except ValueError as error:
            failure["error"] = str(error)
    outcome = pending.ended("failed" if failure else "ok", results, time.perf_counter() - clock_s, **failure)
    notebook.metadata.update(title=outcome.title, routing=asdict(outcome))
    write_atomically(output / f"{pending.name}.html", write_page(notebook))
    write_atomically(output / f"{pending.name}.ipynb", nbformat.writes(notebook))


def stop_on_signals() -> None:
    """Let SIGTERM and SIGHUP (a scheduler's stop, a closed terminal) end this process as Ctrl-C does."""
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]  # as of nohup

    def stop(*_: object) -> None:
        if numbers:  # only once: a second signal must not disturb the end
            numbers.clear()
            raise KeyboardInterrupt

    for number in tuple(numbers):
        signal.signal(number, stop)


def _work(pending: Outcome, options: Mapping[str, object]) -> None:
    """Run a notebook in a worker process; end it, and all that it started, on SIGTERM or when the parent is gone."""
    signal.signal(signal.SIGINT, lambda *_: None)  # the parent's to handle; not SIG_IGN, which a kernel would inherit
    stop_on_signals()
    runtime = os.environ["JUPYTER_RUNTIME_DIR"] = tempfile.mkdtemp()  # kernels' connection files
    thread = threading.Thread(target=execute_notebook, args=[pending], kwargs=options, daemon=True)
    try:
        thread.start()
        while thread.is_alive() and multiprocessing.parent_process().is_alive():
            thread.join(timeout=0.1)  # a signal that another thread receives does not end the wait
    finally:
        shutil.rmtree(runtime, ignore_errors=True)
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        os._exit(1)  # before the thread takes the end of its kernel for the notebook's; the copy says how that ended


def _execute_all(
    notebooks: Sequence[Outcome], jobs: int, output: Path, results: Path, **options: object
) -> Iterator[tuple[Outcome, Outcome | None]]:
    """Run notebooks, at most `jobs` at a time: each comes with None as it starts and with its outcome as it ends."""
    options |= {"output": output, "results": results}
    context, waiting, running = multiprocessing.get_context("spawn"), list(notebooks), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                pending = waiting.pop(0)
                yield pending, None
                (output / f"{pending.name}.ipynb").unlink(missing_ok=True)  # of an earlier run
                process = context.Process(target=_work, args=(pending, options), daemon=True)
                process.start()
                running[process.sentinel] = process, pending, time.perf_counter()
            for sentinel in wait(list(running), timeout=0.5):  # so that a signal is seen, as in `_work`
                process, pending, clock_s = running.pop(sentinel)
                process.join()
                error = f"its process ended with exit code {process.exitcode}"
                dead = pending.ended("failed", results, time.perf_counter() - clock_s, error=error)
                yield pending, read_outcome(output / f"{pending.name}.ipynb") or dead
    finally:  # left early, by an exception or Ctrl-C
        for process, _, _ in running.values():
            process.terminate()
        for process, _, _ in running.values():
            process.join(timeout=15)
            process.kill()


def _write_index(output: Path, results: Path, profile: str) -> None:
    """Write ``index.html`` over all executed copies in the output folder, those of earlier runs too."""
    place, sections = Path(os.path.relpath(results, output)).as_posix(), []
    for copy in sorted(output.glob("[0-9][0-9]_*.ipynb")):
        if done := read_outcome(copy):
            status = done.failure if done.error else done.status
            figures = [name for name in done.figures if (results / done.name / name).is_file()]
            where = results / done.name, f"{place}/{done.name}", figures
            sections.append(write_section(copy, done.title, status, *where))
    write_atomically(output / "index.html", FRONT_PAGE.format(profile=profile, sections="\n".join(sections)))


def run_notebooks(
    profile: str, folder: Path = Path("notebooks"), only: Sequence[str] = (),
    parameters: Mapping[str, str] | None = None, jobs: int = 1, output: Path | None = None, resume: bool = False,
) -> list[Outcome]:  # fmt: skip
    """Run notebooks, at most `jobs` at a time, and return each one's outcome; one that fails does not stop the others.

    The output folder (default ``runs/<profile>``) receives executed copies, HTML pages that need no network,
    ``index.html`` and ``manifest.json``; figures go to ``results`` below it, in profile "full" in the current folder.
    `only` has the two digits of notebooks (default: all), `parameters` values as typed. `resume` skips what ended well
    with the same notebook, profile, parameters, package and figures; data are not compared. Raises ValueError or
    FileNotFoundError before anything runs for wrong input, or where another process runs notebooks into the folder.
    """
    if profile not in CELL_TIMEOUT_S:
        raise ValueError(f"profile {profile!r}: choose from {', '.join(CELL_TIMEOUT_S)}")
    if jobs < 1:
        raise ValueError(f"{jobs} jobs: give at least 1")
    clock_s, texts = time.perf_counter(), parameters or {}
    environment = provenance.describe_environment()
    notebooks = [read_notebook(p, profile, texts, environment["package_sha256"]) for p in find_notebooks(folder, only)]
    check_kernel()
    folder, output = folder.resolve(), (output or Path("runs") / profile).resolve()
    if output == folder:
        raise ValueError(f"--output {folder} is where the notebooks are; they would be overwritten")
    results = Path("results").resolve() if profile == "full" else output / "results"
    outcomes = {pending.name: pending for pending in notebooks}
    label = {name: f"[{place}/{len(notebooks)}] {name}" for place, name in enumerate(outcomes, 1)}
    about = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "profile": profile}
    about |= {"parameters": provenance.portable_parameters(texts), **environment}

    def record() -> None:
        """Write manifest and index; after every notebook, so that a run cut short leaves a true record."""
        entries = [asdict(outcome) for outcome in outcomes.values()]
        seconds = round(time.perf_counter() - clock_s, 1)
        write_json(output / provenance.MANIFEST, {**about, "seconds": seconds, "notebooks": entries})
        _write_index(output, results, profile)

    with ExitStack() as stack:
        for written in [output] if results.is_relative_to(output) else [output, results]:
            written.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock_folder(written))
        for name, pending in outcomes.items():
            earlier = read_outcome(output / f"{name}.ipynb") if resume else None
            if earlier and earlier == pending.ended("ok", results, earlier.seconds):
                outcomes[name] = replace(earlier, resumed=True)
                print(f"{label[name]}  done before  {earlier.seconds:.0f} s", flush=True)
        record()
        left = [outcome for outcome in outcomes.values() if not outcome.resumed]
        options = {"folder": folder, "output": output, "results": results, "cell_timeout_s": CELL_TIMEOUT_S[profile]}
        options["threads"] = max(1, provenance.count_cpus() // jobs) if jobs > 1 else None  # None: the libraries choose
        events = _execute_all(left, jobs, **options)
        for pending, outcome in stack.enter_context(closing(events)):
            event = f"{outcome.status}  {outcome.seconds:.0f} s" if outcome else "started"
            print(f"{label[pending.name]}  {event}", flush=True)
            if outcome:
                outcomes[pending.name] = outcome
                record()
    print(f"figures: {os.path.relpath(results)}\nindex:   {os.path.relpath(output / 'index.html')}", flush=True)
    return list(outcomes.values())
