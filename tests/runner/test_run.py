"""The runner refuses before it runs, names what failed, resumes only what is unchanged, and stops cleanly.

A kernel takes seconds to start, so the tests that run notebooks check many things at once.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from routing.__main__ import main
from routing.files import hash_file, lock_folder
from routing.runner import run
from routing.runner.pages import hash_sources
from routing.runner.run import (
    Outcome,
    check_kernel,
    find_notebooks,
    read_notebook,
    read_outcome,
    run_notebooks,
    type_parameters,
)

PARAMETERS = 'profile = "quick"  # p\nseed = 1  # s\nresults_dir = "results"  # r\nrate = 1  # x\nnote = "n"  # t\n'
SAVE = """from pathlib import Path
folder = Path(results_dir) / "01_passes"
folder.mkdir(parents=True, exist_ok=True)
(folder / "seen.png").write_bytes(b"png")
print([profile, seed, rate, note])"""


def write_notebook(path: Path, *sources: str, parameters: str = PARAMETERS, tags: int = 1) -> Path:
    cells = [new_markdown_cell("# Who <wins>?\n\nText"), new_code_cell("import sys")]
    cells += [new_code_cell(parameters, metadata={"tags": ["parameters"]}) for _ in range(tags)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells + [new_code_cell(text) for text in sources], metadata=metadata), path)
    return path


def file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# -- refusals: nothing runs -----------------------------------------------------------------------------------------


@pytest.fixture
def no_kernel(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a notebook was about to run")

    monkeypatch.setattr(run, "_execute_all", fail)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tags": 0}, "02_b.ipynb: 0 cells are tagged 'parameters'"),
        ({"tags": 2}, "02_b.ipynb: 2 cells are tagged 'parameters'"),
        ({"parameters": "profile = 'quick'"}, "02_b.ipynb: the parameters cell lacks seed, results_dir"),
        ({"parameters": PARAMETERS + "sizes = (1, 2)"}, r"02_b.ipynb: line 6 of .* `sizes = \(1, 2\)`"),
        ({"parameters": PARAMETERS + "n = None"}, "line 6 of .* `n = None`"),
        ({"parameters": PARAMETERS + "n = seed"}, "line 6 of .* `n = seed`"),
        ({"parameters": PARAMETERS + "n = m = 1"}, "line 6 of .* `n = m = 1`"),
        ({"parameters": PARAMETERS + "n, m = 1, 2"}, "line 6 of .* `n, m = 1, 2`"),
        ({"parameters": PARAMETERS + "import os"}, "line 6 of .* `import os`"),
        ({"parameters": PARAMETERS + "n = = 1"}, "line 6 of .* `n = = 1`"),
    ],
)
def test_a_notebook_without_proper_parameters_is_refused(tmp_path, no_kernel, options, message):
    write_notebook(tmp_path / "nb" / "01_a.ipynb")
    write_notebook(tmp_path / "nb" / "02_b.ipynb", **options)
    with pytest.raises(ValueError, match=message):
        run_notebooks("smoke", tmp_path / "nb", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_parameter_must_be_known_to_every_selected_notebook(tmp_path, no_kernel):
    write_notebook(tmp_path / "nb" / "01_a.ipynb")
    write_notebook(tmp_path / "nb" / "02_b.ipynb", parameters=PARAMETERS.replace("rate", "speed"))
    with pytest.raises(ValueError, match="02_b.ipynb: .* no parameter rate; -p takes seed, speed, note"):
        run_notebooks("smoke", tmp_path / "nb", parameters={"rate": "3"}, output=tmp_path / "out")
    with pytest.raises(AssertionError, match="about to run"):  # it is enough that the selected ones know it
        run_notebooks("smoke", tmp_path / "nb", only=["01"], parameters={"rate": "3"}, output=tmp_path / "out")


def test_wrong_folders_numbers_and_profiles_are_refused(tmp_path, no_kernel):
    with pytest.raises(FileNotFoundError, match="no NN_name.ipynb"):
        run_notebooks("smoke", tmp_path / "nb")
    write_notebook(tmp_path / "nb" / "01_a.ipynb")
    with pytest.raises(ValueError, match="--only 02: no such notebook.* 01"):
        run_notebooks("smoke", tmp_path / "nb", only=["01", "02"])
    with pytest.raises(ValueError, match="profile 'fast': .*smoke, quick, full"):
        run_notebooks("fast", tmp_path / "nb")
    with pytest.raises(ValueError, match="0 jobs"):
        run_notebooks("smoke", tmp_path / "nb", jobs=0)
    with pytest.raises(ValueError, match="they would be overwritten"):
        run_notebooks("smoke", tmp_path / "nb", output=tmp_path / "nb")
    write_notebook(tmp_path / "nb" / "01_b.ipynb")
    with pytest.raises(ValueError, match="01_a.ipynb and 01_b.ipynb have the same number"):
        run_notebooks("smoke", tmp_path / "nb")
    (tmp_path / "nb" / "01_b.ipynb").unlink()
    (tmp_path / "nb" / "02_c.ipynb").write_text("{")
    with pytest.raises(ValueError, match="02_c.ipynb is not a notebook"):
        run_notebooks("smoke", tmp_path / "nb")


def test_notebooks_come_in_order_with_their_titles(tmp_path):
    for name in ("10_z", "02_y", "draft"):
        write_notebook(tmp_path / "nb" / f"{name}.ipynb")
    found = find_notebooks(tmp_path / "nb")
    assert [path.stem for path in found] == ["02_y", "10_z"]
    assert {read_notebook(path, "smoke", {}, "").title for path in found} == {"Who <wins>?"}
    assert [path.stem for path in find_notebooks(tmp_path / "nb", ["10"])] == ["10_z"]


DEFAULTS = {"profile": "quick", "seed": 1, "rate": 0.5, "note": "n", "full_table": True}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "7", 7),
        ("seed", "-7", -7),
        ("rate", "3", 3.0),
        ("rate", "1e-3", 0.001),
        ("note", "3", "3"),
        ("note", "True", "True"),
        ("full_table", "false", False),
        ("full_table", "True", True),
    ],
)
def test_a_value_takes_the_type_of_the_default(name, text, value):
    typed = type_parameters("01_a.ipynb", DEFAULTS, {name: text})[name]
    assert typed == value and type(typed) is type(value)


@pytest.mark.parametrize(("name", "text"), [("seed", "0.5"), ("rate", "fast"), ("full_table", "0"), ("full_table", "")])
def test_a_value_of_another_type_is_refused(name, text):
    with pytest.raises(ValueError, match=f"01_a.ipynb: parameter {name} is .*, not {text!r}"):
        type_parameters("01_a.ipynb", DEFAULTS, {name: text})


def test_what_the_runner_sets_cannot_be_passed():
    with pytest.raises(ValueError, match="the runner sets parameter profile; -p takes seed, rate"):
        type_parameters("01_a.ipynb", DEFAULTS, {"profile": "full"})


def test_the_kernel_is_this_interpreter():
    assert Path(check_kernel()).samefile(sys.executable)


@pytest.mark.parametrize("kind", ["another interpreter", "another environment of this interpreter", "missing"])
def test_a_kernel_of_another_environment_is_refused(tmp_path, monkeypatch, no_kernel, kind):
    write_notebook(tmp_path / "nb" / "01_a.ipynb")
    interpreter = tmp_path / "bin" / "python"
    interpreter.parent.mkdir()
    if kind != "missing":
        interpreter.symlink_to(sys.executable if "environment" in kind else "/bin/sh")
    spec = {"argv": [str(interpreter), "-f", "{connection_file}"], "display_name": "other", "language": "python"}
    (tmp_path / "kernels" / "python3").mkdir(parents=True)
    (tmp_path / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with pytest.raises(ValueError, match=f"kernel python3 runs {re.escape(str(interpreter))}, not "):
        run_notebooks("smoke", tmp_path / "nb", output=tmp_path / "out")


# -- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_passes_fails_and_resumes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("routing.runner.provenance.hash_package", lambda: "this code")  # edits to it play no part here
    monkeypatch.chdir(tmp_path)
    folder, output = Path("notebooks"), Path("runs/smoke")  # the defaults
    write_notebook(folder / "01_passes.ipynb", SAVE, "import sys\nprint(sys.executable)\n{'$a$': 1}")
    write_notebook(folder / "02_fails.ipynb", "x = 1", "\n  # note\nx / 0", "print('never')")
    options = {"parameters": {"rate": "3", "note": "3"}}
    passed, failed = run_notebooks("smoke", jobs=2, **options)

    assert (passed.status, failed.status) == ("ok", "failed")
    assert passed.figures == ("seen.png",)
    assert passed.parameters == {"rate": 3, "note": "3"}
    assert failed.failure == "02_fails failed in cell 5 (`# note`): ZeroDivisionError: division by zero"
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["[1/2] 01_passes  started", "[2/2] 02_fails  started"]
    assert re.fullmatch(r"\[1/2\] 01_passes  ok  \d+ s", next(line for line in lines if "  ok  " in line))
    assert re.fullmatch(r"\[2/2\] 02_fails  failed  \d+ s", next(line for line in lines if "  failed  " in line))
    assert "results" in lines[-2] and "index.html" in lines[-1]

    expected = {"01_passes.ipynb", "01_passes.html", "02_fails.ipynb", "02_fails.html"}
    assert file_names(output) == expected | {"index.html", "manifest.json", "results"}
    text = nbformat.read(output / "01_passes.ipynb", as_version=4)
    printed = "".join(out.get("text", "") for cell in text.cells if cell.cell_type == "code" for out in cell.outputs)
    assert printed == f"['smoke', 1, 3, '3']\n{sys.executable}\n"
    for name in ("01_passes", "02_fails"):
        page = (output / f"{name}.html").read_text()
        assert "Who &lt;wins&gt;?" in page and "<script" not in page and "<link" not in page
        assert str(tmp_path) not in (output / f"{name}.ipynb").read_text()

    index = (output / "index.html").read_text()
    assert "Who &lt;wins&gt;?" in index and 'src="results/01_passes/seen.png"' in index
    assert "ZeroDivisionError" in index and "http" not in index
    manifest = json.loads((output / "manifest.json").read_text())
    assert [entry["status"] for entry in manifest["notebooks"]] == ["ok", "failed"]
    assert manifest["parameters"] == {"rate": "3", "note": "3"}
    assert {"started", "commit", "dirty", "versions", "machine", "package_sha256", "seconds"} < set(manifest)

    before = (output / "01_passes.ipynb").read_bytes()
    (again,) = run_notebooks("smoke", only=["01"], resume=True, **options)
    assert again.resumed and "[1/1] 01_passes  done before" in capsys.readouterr().out
    assert (output / "01_passes.ipynb").read_bytes() == before
    assert "ZeroDivisionError" in (output / "index.html").read_text()  # the index keeps what was not selected


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A notebook that counts as run, and what a resumed run of it would still execute."""
    write_notebook(tmp_path / "nb" / "01_a.ipynb")
    executed = []

    def pretend(notebooks, jobs, output, results, **_):
        for pending in notebooks:
            executed.append(pending.name)
            (results / pending.name).mkdir(parents=True, exist_ok=True)
            (results / pending.name / "a.png").write_bytes(b"png")
            outcome = pending.ended("ok", results, 1.0)
            nbformat.write(new_notebook(metadata={"routing": vars(outcome)}), output / f"{pending.name}.ipynb")
            yield pending, outcome

    monkeypatch.setattr(run, "_execute_all", pretend)

    def resume(profile="smoke", **parameters) -> list[str]:
        executed.clear()
        run_notebooks(profile, tmp_path / "nb", parameters=parameters, output=tmp_path / "out", resume=True)
        return list(executed)

    assert resume() == ["01_a"]
    return resume


def test_resume_runs_again_what_has_changed(tmp_path, monkeypatch, finished):
    assert finished() == []
    assert finished(rate="2") == ["01_a"]
    assert finished(rate="2") == []
    write_notebook(tmp_path / "nb" / "01_a.ipynb", "changed = True")
    assert finished(rate="2") == ["01_a"]
    (tmp_path / "out" / "results" / "01_a" / "a.png").unlink()
    assert finished(rate="2") == ["01_a"]
    monkeypatch.setattr("routing.runner.provenance.hash_package", lambda: "other code")
    assert finished(rate="2") == ["01_a"]
    assert finished("quick", rate="2") == ["01_a"]
    (tmp_path / "out" / "01_a.ipynb").write_text("{ cut sho")
    assert finished("quick", rate="2") == ["01_a"]


def test_full_results_go_where_they_are_committed(tmp_path, monkeypatch, finished):
    monkeypatch.chdir(tmp_path)
    assert finished("full") == ["01_a"]
    assert (tmp_path / "results" / "01_a" / "a.png").exists()
    assert 'src="../results/01_a/a.png"' in (tmp_path / "out" / "index.html").read_text()


def test_a_full_run_leaves_a_copy_that_names_its_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "from pathlib import Path\nfolder = Path('results/01_a')\nfolder.mkdir(parents=True)\n"
    code += "(folder / 'manifest.json').write_text('{\"outputs\": {}}')"
    write_notebook(tmp_path / "nb" / "01_a.ipynb", code)
    (outcome,) = run_notebooks("full", tmp_path / "nb", output=tmp_path / "out")
    assert outcome.status == "ok", outcome.failure
    folder = tmp_path / "results" / "01_a"
    stamp = nbformat.read(folder / "01_a.ipynb", as_version=4).metadata["routing"]
    source = hash_sources(nbformat.read(tmp_path / "nb" / "01_a.ipynb", as_version=4))
    assert stamp == {"source_sha256": source} and outcome.source_sha256 == source
    outputs = json.loads((folder / "manifest.json").read_text())["outputs"]
    assert outputs == {"01_a.ipynb": hash_file(folder / "01_a.ipynb")}


def test_a_cell_past_its_time_and_a_dead_kernel_fail_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(run.CELL_TIMEOUT_S, "smoke", 2)
    write_notebook(tmp_path / "nb" / "01_hangs.ipynb", "import time\ntime.sleep(60)")
    write_notebook(tmp_path / "nb" / "02_dies.ipynb", "import os\nos._exit(3)")
    hung, died = run_notebooks("smoke", tmp_path / "nb", jobs=2, output=tmp_path / "out")
    where = "01_hangs failed in cell 4 (`import time`): "
    assert hung.failure.startswith(where + "CellTimeoutError: ") and "2 seconds" in hung.failure
    assert died.failure.startswith("02_dies failed in cell 4 (`import os`): DeadKernelError")


LONG = """import os, pathlib, subprocess, time
child = subprocess.Popen(["sleep", "120"])
pathlib.Path(note).write_text(f"{os.getpid()} {child.pid}")
time.sleep(120)
"""


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name)
def test_a_run_that_is_stopped_ends_its_kernel_and_frees_its_folder(tmp_path, number):
    write_notebook(tmp_path / "nb" / "01_long.ipynb", LONG)
    marker, output = tmp_path / "kernel.txt", tmp_path / "out"
    command = [sys.executable, "-m", "routing", "run", "--profile", "smoke", "--only", "1", "-p", "note", str(marker)]
    command += ["--notebooks", str(tmp_path / "nb"), "--output", str(output)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    # Tests started in the background, or by nohup, hand down that these signals are ignored, as a run would have it.
    options["preexec_fn"] = lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGHUP)]
    with subprocess.Popen(command, **options) as process:
        deadline = time.monotonic() + 240  # a busy machine takes a minute to start a kernel
        while not (marker.exists() and marker.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        started = [
            *map(int, marker.read_text().split()),
            *[child.pid for child in psutil.Process(process.pid).children()],
        ]
        with pytest.raises(ValueError, match=f"process {process.pid} .*{output}"):
            run_notebooks("smoke", tmp_path / "nb", output=output)
        # A terminal that is closed sends SIGHUP to the workers too.
        os.killpg(process.pid, number) if number == signal.SIGHUP else process.send_signal(number)
        _, errors = process.communicate(timeout=240)
    # A killed process, and the resource tracker of multiprocessing, end a moment after the parent does.
    deadline = time.monotonic() + 30
    while any(map(is_alive, started)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, started))
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert number == signal.SIGKILL or errors.endswith("routing: stopped\n")
    with lock_folder(output):
        assert file_names(output) == {"index.html", "manifest.json", ".lock"}
    assert file_names(output) == {"index.html", "manifest.json"}
    assert json.loads((output / "manifest.json").read_text())["notebooks"][0]["status"] == "pending"


def test_an_outcome_is_read_back_and_an_unreadable_one_is_none(tmp_path):
    outcome = Outcome("01_bt", "Title", "smoke", "0", "1", {"seed": 1}, "ok", 2.5, ("a.png",))
    copy = tmp_path / "01_bt.ipynb"
    assert read_outcome(copy) is None
    for stamp, expected in [(vars(outcome), outcome), ({"name": "01_bt"}, None)]:
        copy.write_text(json.dumps({"metadata": {"routing": stamp}}))
        assert read_outcome(copy) == expected
    copy.write_text('{"metadata": {}}')
    assert read_outcome(copy) is None
    copy.write_text('{"metadata"')
    assert read_outcome(copy) is None


def test_a_failure_reads_as_one_line():
    outcome = Outcome("01_bt", "T", "smoke", "0", "1", {}, "failed", cell=3, cell_line="1 / 0", error="E: no")
    assert outcome.failure == "01_bt failed in cell 3 (`1 / 0`): E: no"


# -- the command line -----------------------------------------------------------------------------------------------


def test_the_exit_code_and_the_last_lines_name_what_failed(tmp_path, monkeypatch, capsys, finished):
    def fail(notebooks, jobs, results, **_):
        for pending in notebooks:
            yield pending, pending.ended("failed", results, 1.0, cell=4, cell_line="f()", error="NameError: f")

    arguments = ["run", "--profile", "smoke", "--notebooks", str(tmp_path / "nb"), "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    monkeypatch.setattr(run, "_execute_all", fail)
    assert main([*arguments, "--only", "1", "-p", "seed", "-3"]) == 1
    assert capsys.readouterr().err == "routing: 01_a failed in cell 4 (`f()`): NameError: f\n"


def test_wrong_input_is_one_line_and_exit_code_2(tmp_path, capsys):
    write_notebook(tmp_path / "01_a.ipynb")
    assert main(["run", "--notebooks", str(tmp_path), "-p", "colour", "red"]) == 2
    errors = capsys.readouterr().err
    assert re.fullmatch("routing: error: 01_a.ipynb: .* no parameter colour; -p takes seed, rate, note\n", errors)


def test_an_unexpected_error_keeps_its_traceback(monkeypatch):
    def fail(*_, **__):
        raise KeyError("bug")

    monkeypatch.setattr(run, "run_notebooks", fail)
    with pytest.raises(KeyError, match="bug"):
        main(["run"])


def test_no_command_prints_help(capsys):
    assert main([]) == 0
    assert "run the notebooks headless" in capsys.readouterr().out


def test_data_commands_print_the_tables(monkeypatch, capsys):
    import pandas as pd

    from routing.upstream import collection

    asked = []

    def fetch(names):
        asked.append(names)
        return pd.DataFrame({"dataset": names or ["all"], "found": "cache"})

    monkeypatch.setattr(collection, "fetch", fetch)
    monkeypatch.setattr(collection, "status", lambda names: pd.DataFrame({"dataset": ["votes"], "found": ["missing"]}))
    assert main(["data", "status"]) == main(["data", "fetch"]) == main(["data", "fetch", "mmlu"]) == 0
    out = capsys.readouterr().out
    assert "votes missing" in out and "mmlu" in out
    assert asked == [None, ["mmlu"]]
