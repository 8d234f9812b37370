"""Run the numbered notebooks headless: ``python -m routing run``.

Each notebook gets a process and a kernel of its own, here or on the workers of a Dask cluster. The output folder
receives an executed copy, an HTML page that needs no network, ``index.html`` over all of them and ``manifest.json`` for
the run. A grid of parameters makes a run, with a folder of its own, for each of its points, and ``grid.csv`` over all.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path

import jinja2

from routing.files import write_atomically, write_json
from routing.runner import provenance
from routing.runner.grid import grid_points, point_name, summarise
from routing.runner.notebook import Notebook, Task, check_kernel, execute_notebook, find_notebooks, type_parameters
from routing.runner.provenance import Literal, Outcome, read_outcome

CELL_TIMEOUT_S = {"smoke": 300, "quick": 600, "full": 7200}  # the profiles
INDEX_TEMPLATE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>routing: {{ profile }}</title><style>
body { font: 15px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse } td, th { text-align: left; vertical-align: top; padding: .4em .6em }
tr { border-top: 1px solid #ccc } img { height: 7em; margin: .2em; border: 1px solid #ddd } .failed { color: #b30000 }
</style></head><body><h1>routing: profile {{ profile }}</h1>
<table><tr><th>notebook</th><th>status</th><th>seconds</th><th>figures</th></tr>
{%- for done in outcomes %}
<tr><td><a href="{{ done.name }}.html">{{ done.title }}</a><br><a href="{{ done.name }}.ipynb">{{ done.name }}.ipynb</a>
</td><td class="{{ done.status }}">{{ done.failure if done.error else done.status }}</td>
<td>{{ done.seconds | round | int }}</td><td>
{%- for figure in done.figures %}{% set file = results ~ "/" ~ done.name ~ "/" ~ figure %}
<a href="{{ file }}"><img loading="lazy" alt="{{ figure }}" src="{{ file }}"></a>
{%- endfor %}</td></tr>
{%- endfor %}
</table></body></html>
"""


def _work(task: Task, sender: Connection) -> None:
    """Body of a worker process. Ctrl-C is the parent's to handle; it ends a worker with SIGTERM."""
    signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which the kernel would inherit
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that papermill shuts its kernel down
    with suppress(KeyboardInterrupt):
        sender.send(execute_notebook(task))


def _execute_all(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, Outcome | None]]:
    """Run tasks, at most `jobs` at a time: each comes with None as it starts and with its outcome as it ends."""
    context = multiprocessing.get_context("spawn")
    waiting, running = list(tasks), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.pop(0)
                yield task, None
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(task, sender), daemon=True)
                process.start()
                sender.close()
                running[receiver] = process, task, time.perf_counter()
            for receiver in wait(list(running)):
                process, task, clock_s = running[receiver]
                try:
                    outcome = receiver.recv()
                except EOFError:
                    process.join()
                    error = f"its process ended with exit code {process.exitcode}"
                    outcome = task.outcome("failed", time.perf_counter() - clock_s, error=error)
                process.join()
                task.unfinished.unlink(missing_ok=True)
                del running[receiver]
                yield task, outcome
    finally:  # left early, by an exception or Ctrl-C
        for process, _, _ in running.values():
            process.terminate()
        for process, task, _ in running.values():
            process.join(timeout=15)
            process.kill()
            task.unfinished.unlink(missing_ok=True)


@dataclass
class PlannedRun:
    """The selected notebooks with one setting of their parameters: one output folder, one manifest."""

    name: str  # of the point of a grid; empty without one
    output: Path
    results: Path
    about: dict[str, object]  # what the manifest says besides the notebooks
    tasks: dict[str, Task]
    outcomes: dict[str, Outcome] = field(init=False)
    clock_s: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.outcomes = {name: task.pending for name, task in self.tasks.items()}

    def resume(self) -> None:
        """Take over what ended well with the same notebook, profile, parameters, package and figures."""
        for name, task in self.tasks.items():
            earlier = read_outcome(task.copy)
            if earlier and earlier == task.outcome("ok", earlier.seconds):
                self.outcomes[name] = replace(earlier, resumed=True)

    def record(self) -> None:
        """Write manifest and index; after every notebook, so that a run cut short leaves a true record."""
        notebooks = [asdict(outcome) for outcome in self.outcomes.values()]
        seconds = round(time.perf_counter() - self.clock_s, 1)
        manifest = {**self.about, "seconds": seconds, "notebooks": notebooks}
        write_json(self.output / provenance.MANIFEST, manifest)
        copies = filter(None, map(read_outcome, sorted(self.output.glob("[0-9][0-9]_*.ipynb"))))  # earlier runs' too
        place = Path(os.path.relpath(self.results, self.output)).as_posix()
        template = jinja2.Template(INDEX_TEMPLATE, autoescape=True)
        page = template.render(profile=self.about["profile"], results=place, outcomes=copies)
        write_atomically(self.output / "index.html", page)


def _plan(
    point: Mapping[str, str],
    typed: Sequence[tuple[Notebook, dict[str, Literal]]],
    texts: Mapping[str, str],
    profile: str,
    folder: Path,
    threads: int | None,
    environment: Mapping[str, object],
) -> PlannedRun:
    """The run of one point of a grid; without a grid the point is empty."""
    output = folder / point_name(point) if point else folder
    # Points of a grid are no results of the project: theirs never go where those are committed.
    results = Path("results").resolve() if profile == "full" and not point else output / "results"
    about = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "profile": profile,
        "parameters": provenance.portable_parameters({**texts, **point}),
        **environment,
    }
    tasks = {}
    for notebook, values in typed:
        package_sha256 = environment["package_sha256"]
        pending = Outcome(notebook.path.stem, notebook.title, profile, notebook.source_sha256, package_sha256, values)
        copy = output / notebook.path.name
        tasks[pending.name] = Task(notebook.path, pending, copy, results, CELL_TIMEOUT_S[profile], threads)
    return PlannedRun(point_name(point), output, results, about, tasks)


def run_notebooks(
    profile: str,
    folder: Path = Path("notebooks"),
    only: Sequence[str] = (),
    parameters: Mapping[str, str] | None = None,
    jobs: int = 1,
    output: Path | None = None,
    resume: bool = False,
    grid: Mapping[str, Sequence[str]] | None = None,
    cluster: str | None = None,
) -> list[Outcome]:
    """Run notebooks; give each one's outcome; leave copies, pages, index and manifest in the output folder.

    A notebook that fails does not stop the others.

    Parameters
    ----------
    profile : "smoke", "quick" or "full"
        Passed to every notebook; sets the time limit of a cell. Figures go to ``results`` below the output
        folder, in profile "full" to ``results`` in the current folder, where they are committed.
    folder, only : Path, sequence of str
        Where ``NN_name.ipynb`` are, and the two-digit numbers of those to run (default: all).
    parameters : mapping of str to str, optional
        Values as typed; every selected notebook must have each of them.
    jobs : int
        Notebooks at a time; the processors are shared out between them.
    output : Path, optional
        Default ``runs/<profile>``.
    resume : bool
        Skip what ended well with the same notebook, profile, parameters, package and figures. Data are not compared.
    grid : mapping of str to sequence of str, optional
        Values of parameters; the notebooks are run with every combination, each in a folder of the output folder
        named after it. ``grid.csv`` says how every notebook ended.
    cluster : str, optional
        Where to run instead of here, as in `routing.runner.cluster.connect`.

    Raises
    ------
    ValueError, FileNotFoundError
        Before anything runs: as `find_notebooks`, `type_parameters`, `grid_points`, `check_kernel` and `connect`.
    """
    if profile not in CELL_TIMEOUT_S:
        raise ValueError(f"profile {profile!r}: use {', '.join(CELL_TIMEOUT_S)}")
    if jobs < 1:
        raise ValueError(f"{jobs} jobs: at least 1")
    if cluster and jobs > 1:
        raise ValueError("--jobs is of this machine; on a cluster each thread of a worker runs one notebook")
    texts = parameters or {}
    notebooks = find_notebooks(folder, only)
    points = grid_points(grid or {}, texts)
    typed = [[(n, type_parameters(n, {**texts, **point})) for n in notebooks] for point in points]
    check_kernel()
    output = (output or Path("runs") / profile).resolve()
    if output == folder.resolve():
        raise ValueError(f"--output {folder} is where the notebooks are; they would be overwritten")

    threads = max(1, provenance.count_cpus() // jobs) if jobs > 1 else None
    environment = provenance.describe_environment()
    with ExitStack() as stack:
        execute = partial(_execute_all, jobs=jobs)
        if cluster:
            from routing.runner.cluster import connect, execute_on_cluster

            execute = partial(execute_on_cluster, client=stack.enter_context(connect(cluster)))
        runs = []
        for point, values in zip(points, typed, strict=True):
            runs.append(_plan(point, values, texts, profile, output, threads, environment))
            runs[-1].output.mkdir(parents=True, exist_ok=True)
            if resume:
                runs[-1].resume()
        _execute_runs(runs, execute, "sent" if cluster else "started")
    outcomes = [outcome for run in runs for outcome in run.outcomes.values()]
    if grid:
        table = summarise(points, [list(run.outcomes.values()) for run in runs])
        write_atomically(output / "grid.csv", table.to_csv(index=False, lineterminator="\n"))
        print(f"grid:    {os.path.relpath(output / 'grid.csv')}", flush=True)
    else:
        print(f"figures: {os.path.relpath(runs[0].results)}", flush=True)
        print(f"index:   {os.path.relpath(output / 'index.html')}", flush=True)
    return outcomes


def _execute_runs(
    runs: Sequence[PlannedRun],
    execute: Callable[[Sequence[Task]], Iterator[tuple[Task, Outcome | None]]],
    beginning: str,
) -> None:
    """Execute what is pending in all runs, print how it goes, and record each outcome in its run."""
    planned = [(run, name, task) for run in runs for name, task in run.tasks.items()]
    label = {
        task.copy: f"[{place}/{len(planned)}] {' '.join(filter(None, (name, run.name)))}"
        for place, (run, name, task) in enumerate(planned, 1)
    }
    run_of = {task.copy: run for run, _, task in planned}
    for run in runs:
        run.record()
        for name, outcome in run.outcomes.items():
            if outcome.resumed:
                print(f"{label[run.tasks[name].copy]}  done before  {outcome.seconds:.0f} s", flush=True)
    todo = [task for run, name, task in planned if run.outcomes[name].status == "pending"]
    with closing(execute(todo)) as events:
        for task, outcome in events:
            if outcome:
                run_of[task.copy].outcomes[outcome.name] = outcome
                run_of[task.copy].record()
            ending = f"{outcome.status}  {outcome.seconds:.0f} s" if outcome else beginning
            print(f"{label[task.copy]}  {ending}", flush=True)
