"""What a run was: code, parameters, data in, files out, and where it ran.

A notebook opens with `start_run`, says which data it uses with `Run.record_input`, writes into `Run.folder` and
closes with `Run.finish`, which leaves ``manifest.json`` next to the figures. The manifest names no path and no
host of the machine, so that it can be committed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pandas as pd

import routing
from routing.files import hash_file, hash_table, write_json

Literal = bool | int | float | str  # what a notebook's parameter may be

MANIFEST = "manifest.json"
DATA_KINDS = ("real", "simulated")
PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "torch", "transformers")
PACKAGE_FOLDER = Path(routing.__file__).parent


def check_data_kind(data: str) -> str:
    """Return `data` if it is one of `DATA_KINDS`; ValueError otherwise."""
    if data not in DATA_KINDS:
        raise ValueError(f"data is {data!r}; choose {' or '.join(map(repr, DATA_KINDS))}")
    return data


def hash_package() -> str:
    """Return the sha256 over the names and contents of this package's modules and tables."""
    digest = hashlib.sha256()
    for path in sorted(path for path in PACKAGE_FOLDER.rglob("*") if path.suffix in (".py", ".csv", ".toml")):
        digest.update(f"{path.relative_to(PACKAGE_FOLDER).as_posix()} {hash_file(path)}\n".encode())
    return digest.hexdigest()


def describe_code(folder: Path = PACKAGE_FOLDER) -> dict[str, str | bool | None]:
    """Return the git commit that the package in `folder` is checked out at, and whether anything differs from it.

    Both are None but in a checkout of this project, where the package is tracked and lies next to ``pyproject.toml``.
    Changes below ``results/`` and ``runs/``, which a run makes itself, do not count.
    """

    def git(*arguments: str) -> list[str]:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()

    unknown = {"commit": None, "dirty": None}
    try:
        (top,) = git("rev-parse", "--show-toplevel")
        project = tomllib.loads((folder.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
        if project != "routing" or not Path(top).samefile(folder.parent) or not git("ls-files", "--", "__init__.py"):
            return unknown
        excluded = ":(top)", ":(top,exclude)results", ":(top,exclude)runs"
        lines = git("status", "--porcelain=v2", "--branch", "--", *excluded)
    except (OSError, subprocess.CalledProcessError, tomllib.TOMLDecodeError, KeyError):
        return unknown
    commit = next(line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid "))
    return {"commit": None if commit == "(initial)" else commit, "dirty": any(line[0] != "#" for line in lines)}


def count_cpus() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_environment() -> dict[str, object]:
    """Return code, versions and machine, as every manifest records them."""
    versions = {"python": platform.python_version(), "routing": routing.__version__}
    torch = sys.modules.get("torch")  # a process that never imported it has used no accelerator
    device = torch.cuda.get_device_name(0) if torch and torch.cuda.is_available() else "cpu"
    machine = {"platform": f"{platform.system()} {platform.machine()}", "cpu_count": count_cpus(), "device": device}
    versions |= {name: metadata.version(name) for name in PACKAGES}
    return {**describe_code(), "package_sha256": hash_package(), "versions": versions, "machine": machine}


def portable_parameters(parameters: Mapping[str, object]) -> dict[str, Literal]:
    """Return the parameters with absolute paths cut to their last part; ValueError names one that is no literal."""
    for name, value in parameters.items():
        if not isinstance(value, Literal):
            raise ValueError(f"parameter {name} is {value!r}; parameters are bool, int, float or str")
    return {
        name: Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
        for name, value in parameters.items()
    }


@dataclass
class Run:
    """One notebook's run; made by `start_run`."""

    name: str
    folder: Path  # where its figures and tables belong
    parameters: dict[str, Literal]
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)  # name to {"sha256", "data"}
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock_s: float = field(default_factory=time.perf_counter)

    def record_input(self, name: str, source: Path | pd.DataFrame | str, data: str) -> None:
        """Record which data this run uses, "real" or "simulated"; the same name again replaces the earlier record.

        `source` is the file, the table itself, or its sha256 (64 hexadecimal digits). Raises ValueError for another
        string or kind of data, FileNotFoundError for a file that is not there.
        """
        if isinstance(source, pd.DataFrame):
            sha256 = hash_table(source)
        elif isinstance(source, Path):
            sha256 = hash_file(source)
        elif re.fullmatch(r"[0-9a-f]{64}", source):
            sha256 = source
        else:
            raise ValueError(f"input {name}: {source!r} is no sha256; give a Path, a table or 64 hexadecimal digits")
        self.inputs[name] = {"sha256": sha256, "data": check_data_kind(data)}

    def finish(self) -> None:
        """Write the manifest: parameters, hashes of inputs and of the folder's files, environment, seconds taken.

        Raises ValueError where no input was recorded: a result has to say its data.
        """
        if not self.inputs:
            raise ValueError(f"run {self.name} recorded no input; call record_input with the data it used")
        manifest = self.folder / MANIFEST
        files = sorted(path for path in self.folder.rglob("*") if path.is_file() and path != manifest)
        content = {
            "name": self.name,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self.clock_s, 2),
            "parameters": self.parameters,
            "inputs": self.inputs,
            "outputs": {path.relative_to(self.folder).as_posix(): hash_file(path) for path in files},
        }
        write_json(manifest, content | describe_environment())


def start_run(name: str, parameters: Mapping[str, object], results_dir: str | Path) -> Run:
    """Start the run of a notebook, named without its ending; its folder is ``results_dir/name``.

    An earlier manifest there is removed with the outputs that it lists: an aborted run leaves no manifest, and no
    figure outlives the code that drew it. Raises ValueError for another form of name, or a parameter that is not a
    bool, int, float or string.
    """
    if not re.fullmatch(r"\d\d_\w+", name):
        raise ValueError(f"run name {name!r}: use the notebook's, such as '01_bradley_terry'")
    recorded = portable_parameters(parameters)
    folder = Path(results_dir) / name
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / MANIFEST
    if manifest.exists():
        root = folder.resolve()
        for output in json.loads(manifest.read_text(encoding="utf-8"))["outputs"]:
            if (path := (root / output).resolve()).is_relative_to(root):
                path.unlink(missing_ok=True)
        manifest.unlink()
    return Run(name, folder, recorded)
