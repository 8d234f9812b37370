"""Run a function in a fresh process on one core, so that nothing else is measured, and read the peak memory."""

from __future__ import annotations

import os
import pickle
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from routing.runner.provenance import PACKAGE_FOLDER

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "RAYON_NUM_THREADS")
STATUS = Path("/proc/self/status")  # Linux


def run_on_one_core(function: Callable, *arguments: Any) -> Any:
    """Return ``function(*arguments)`` from a fresh process whose numerical libraries have one thread each.

    The function is of a module that can be imported, not of a script; it, arguments and result are pickled. Raises
    RuntimeError where the process failed; the message ends in its error.
    """
    path = os.pathsep.join([str(PACKAGE_FOLDER.parent), sys.path[0]])  # the second is the folder of a script
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": path}
    with tempfile.TemporaryDirectory() as folder:
        call, result = Path(folder, "call"), Path(folder, "result")
        call.write_bytes(pickle.dumps((function, arguments)))
        command = [sys.executable, "-m", "routing.studies.overhead.timing", str(call), str(result)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["it was killed, possibly because memory ran out"])[-1]
            raise RuntimeError(f"{function.__name__} in its own process failed ({done.returncode}): {reason}")
        return pickle.loads(result.read_bytes())


def peak_memory_mib() -> float:
    """Return the most memory that this process has held at once: resident MiB."""
    if STATUS.exists():  # there getrusage also counts what the process that started this one held
        return int(re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def peak_memory_of(function: Callable, *arguments: Any) -> float:
    """Call the function, and return `peak_memory_mib`; for `run_on_one_core`."""
    function(*arguments)
    return peak_memory_mib()


if __name__ == "__main__":
    wanted, given = pickle.loads(Path(sys.argv[1]).read_bytes())
    Path(sys.argv[2]).write_bytes(pickle.dumps(wanted(*given)))
