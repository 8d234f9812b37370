"""What a run was: code, parameters, data in, files out, and where it ran.

A notebook opens with `start_run`, says which data it uses with `Run.record_input`, writes into `Run.folder` and closes
with `Run.finish`, which leaves ``manifest.json`` next to the figures: without paths or host, so that it may be shared.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pandas as pd

import routing
from routing.devices import describe_device, processor_has_bfloat16
from routing.files import hash_file, hash_table, write_json

Literal = bool | int | float | str  # what a notebook's parameter may be

MANIFEST = "manifest.json"
PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "torch", "transformers")
PACKAGE_FOLDER = Path(routing.__file__).parent


def check_data_kind(data: str) -> str:
    """Return `data` if it is "real" or "simulated"; ValueError otherwise."""
    if data not in ("real", "simulated"):
        raise ValueError(f"data is {data!r}; choose 'real' or 'simulated'")
    return data


def hash_package() -> str:
    """Return the sha256 over the names and contents of this package's modules and tables."""
    paths = sorted(path for path in PACKAGE_FOLDER.rglob("*") if path.suffix in (".py", ".csv", ".toml"))
    lines = [f"{path.relative_to(PACKAGE_FOLDER).as_posix()} {hash_file(path)}\n" for path in paths]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def describe_code(folder: Path = PACKAGE_FOLDER) -> dict[str, str | bool | None]:
    """Return commit of the package in `folder`, and whether anything but ``results/`` and ``runs/`` differs from it.

    Both are None but in a checkout of this project, where the package is tracked and lies next to ``pyproject.toml``.
    """

    def git(*arguments: str) -> list[str]:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()

    try:
        (top,) = git("rev-parse", "--show-toplevel")
        project = tomllib.loads((folder.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
        known = project == "routing" and Path(top).samefile(folder.parent) and git("ls-files", "--", "__init__.py")
        paths = ":(top)", ":(top,exclude)results", ":(top,exclude)runs"
        lines = git("status", "--porcelain=v2", "--branch", "--", *paths) if known else []
    except (OSError, subprocess.CalledProcessError, tomllib.TOMLDecodeError, KeyError):
        lines = []
    if not lines:
        return {"commit": None, "dirty": None}
    commit = next(line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid "))
    return {"commit": None if commit == "(initial)" else commit, "dirty": any(line[0] != "#" for line in lines)}


def count_cpus() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_environment() -> dict[str, object]:
    """Return code, versions and machine, as every manifest records them."""
    versions = {"python": platform.python_version(), "routing": routing.__version__}
    device = describe_device() if "torch" in sys.modules else "cpu"  # without it no accelerator was used
    machine = {"platform": f"{platform.system()} {platform.machine()}", "cpu_count": count_cpus(), "device": device}
    machine["bfloat16"] = processor_has_bfloat16()
    versions |= {name: metadata.version(name) for name in PACKAGES}
    return {**describe_code(), "package_sha256": hash_package(), "versions": versions, "machine": machine}


def portable_parameters(parameters: Mapping[str, object]) -> dict[str, Literal]:
    """Return the parameters with absolute paths cut to their last part; ValueError names one that is no literal."""
    for name, value in parameters.items():
        if not isinstance(value, Literal):
            raise ValueError(f"parameter {name} is {value!r}; parameters are bool, int, float or str")
    paths = {name for name, value in parameters.items() if isinstance(value, str) and Path(value).is_absolute()}
    return {name: Path(value).name if name in paths else value for name, value in parameters.items()}


@dataclass
class Run:
    """One notebook's run; made by `start_run`."""

    name: str
    folder: Path  # where its figures and tables belong
    parameters: dict[str, Literal]
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)  # name to {"sha256", "data"}
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def record_input(self, name: str, source: Path | pd.DataFrame, data: str) -> None:
        """Record which file or table this run uses, "real" or "simulated"; the same name again replaces the record.

        Raises ValueError for another kind of data, FileNotFoundError for a file that is not there.
        """
        sha256 = hash_table(source) if isinstance(source, pd.DataFrame) else hash_file(source)
        self.inputs[name] = {"sha256": sha256, "data": check_data_kind(data)}

    def finish(self) -> None:
        """Write the manifest; ValueError where no input was recorded, as a result has to say its data."""
        if not self.inputs:
            raise ValueError(f"run {self.name} recorded no input; call record_input with the data it used")
        manifest = self.folder / MANIFEST
        files = sorted(path for path in self.folder.rglob("*") if path.is_file() and path != manifest)
        content = {"name": self.name, "started": self.started.isoformat(timespec="seconds")}
        content |= {
            "seconds": round((datetime.now(UTC) - self.started).total_seconds(), 2),
            "parameters": self.parameters,
        }
        outputs = {path.relative_to(self.folder).as_posix(): hash_file(path) for path in files}
        write_json(manifest, {**content, "inputs": self.inputs, "outputs": outputs, **describe_environment()})


def record_output(path: Path) -> None:
    """Add a file that was made after `Run.finish` to the manifest next to it, if there is one."""
    manifest = path.parent / MANIFEST
    if manifest.is_file():
        content = json.loads(manifest.read_text(encoding="utf-8"))
        content["outputs"] |= {path.name: hash_file(path)}
        write_json(manifest, content)


def start_run(name: str, parameters: Mapping[str, object], results_dir: str | Path) -> Run:
    """Start the run of a notebook, named without its ending; its folder is ``results_dir/name``.

    An earlier manifest there is removed with the outputs that it lists: an aborted run leaves none, and no figure
    outlives its code. Raises ValueError for another form of name, or a parameter that is no bool, int, float or string.
    """
    if not re.fullmatch(r"\d\d_\w+", name):
        raise ValueError(f"run name {name!r}: use the notebook's, such as '01_bradley_terry'")
    run = Run(name, Path(results_dir) / name, portable_parameters(parameters))
    run.folder.mkdir(parents=True, exist_ok=True)
    manifest, root = run.folder / MANIFEST, run.folder.resolve()
    if manifest.exists():
        for output in json.loads(manifest.read_text(encoding="utf-8"))["outputs"]:
            if (path := (root / output).resolve()).is_relative_to(root):
                path.unlink(missing_ok=True)
        manifest.unlink()
    return run
