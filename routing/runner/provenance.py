"""What a run was: code, parameters, data in, files out, where it ran and how it ended.

A notebook opens with `start_run`, says which data it uses with `Run.record_input`, writes into `Run.folder` and
closes with `Run.finish`, which leaves ``manifest.json`` beside the figures. The manifest names no path and no
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
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
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
    """`data`, once it is known to be one of `DATA_KINDS`; ValueError otherwise."""
    if data not in DATA_KINDS:
        raise ValueError(f"data is {data!r}; say {' or '.join(map(repr, DATA_KINDS))}")
    return data


def hash_package() -> str:
    """sha256 over the names and contents of this package's modules."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE_FOLDER.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE_FOLDER).as_posix()} {hash_file(path)}\n".encode())
    return digest.hexdigest()


def describe_code(folder: Path = PACKAGE_FOLDER) -> dict[str, str | bool | None]:
    """The git commit that `folder` is checked out at, and whether anything differs from it.

    Changes below ``results/`` and ``runs/``, which a run makes itself, do not count.

    Returns
    -------
    dict
        ``commit`` and ``dirty``; both None outside a git checkout, ``commit`` None before the first commit.
    """
    command = ["git", "-C", str(folder), "status", "--porcelain=v2", "--branch", "--"]
    command += [":(top)", ":(top,exclude)results", ":(top,exclude)runs"]
    try:
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    commit = next(line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid "))
    return {
        "commit": None if commit == "(initial)" else commit,
        "dirty": any(not line.startswith("#") for line in lines),
    }


def describe_versions() -> dict[str, str | None]:
    """Versions of Python, of this package and of what its numbers depend on; None for what is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "routing": routing.__version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def count_cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine() -> dict[str, str | int]:
    """Platform, processors, and the accelerator's name where this process has loaded torch and torch has one."""
    torch = sys.modules.get("torch")  # a process that never imported it has used no accelerator
    device = torch.cuda.get_device_name(0) if torch and torch.cuda.is_available() else "cpu"
    return {"platform": f"{platform.system()} {platform.machine()}", "cpu_count": count_cpus(), "device": device}


def describe_environment() -> dict[str, object]:
    """Code, versions and machine, as every manifest records them."""
    return {
        **describe_code(),
        "package_sha256": hash_package(),
        "versions": describe_versions(),
        "machine": describe_machine(),
    }


def portable_parameters(parameters: Mapping[str, object]) -> dict[str, Literal]:
    """The parameters with absolute paths cut to their last part.

    Raises
    ------
    ValueError
        A value that is not a bool, int, float or string, naming the parameter.
    """
    for name, value in parameters.items():
        if not isinstance(value, Literal):
            raise ValueError(f"parameter {name} is {value!r}; parameters are bool, int, float or str")
    return {
        name: Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
        for name, value in parameters.items()
    }


@dataclass
class Run:
    """One notebook's run; made by `start_run`.

    Attributes
    ----------
    name : str
    folder : Path
        Where this run's figures and tables belong.
    parameters : dict
    inputs : dict
        What `record_input` was told: name to ``{"sha256", "data"}``.
    """

    name: str
    folder: Path
    parameters: dict[str, Literal]
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock_s: float = field(default_factory=time.perf_counter)

    def record_input(self, name: str, source: Path | pd.DataFrame | str, data: str) -> None:
        """Say which data this run uses.

        Parameters
        ----------
        name : str
            What the data are called in the manifest; a name given again replaces the earlier record.
        source : Path, DataFrame or str
            The file, the table itself, or a sha256 that is already known (64 hexadecimal digits).
        data : "real" or "simulated"

        Raises
        ------
        ValueError, FileNotFoundError
            Another kind of data, a string that is no sha256, a file that is not there.
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
        """Write the manifest into the run's folder.

        It holds the parameters, hashes of the inputs and of every file in the folder, code, versions, machine and
        seconds since `start_run`.

        Raises
        ------
        ValueError
            No input was recorded: a result that does not say what data it comes from is not one.
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
            **describe_environment(),
        }
        write_json(manifest, content)


def start_run(name: str, parameters: Mapping[str, object], results_dir: str | Path) -> Run:
    """A run whose folder ``results_dir/name`` exists and holds nothing of an earlier finished run.

    What the folder's manifest lists as outputs is removed, and the manifest with it: an aborted run leaves no
    manifest, and no figure outlives the code that drew it.

    Parameters
    ----------
    name : str
        The notebook's name without its ending, such as "01_bradley_terry".
    parameters : mapping
        The notebook's parameters. Absolute paths among them are recorded by their last part alone.
    results_dir : str or Path

    Raises
    ------
    ValueError
        A name that is not two digits and words, or a parameter that is not a bool, int, float or string.
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
            path = (root / output).resolve()
            if path.is_relative_to(root):
                path.unlink(missing_ok=True)
        manifest.unlink()
    return Run(name, folder, recorded)


@dataclass(frozen=True)
class Outcome:
    """How the runner's execution of a notebook ended; stands in the metadata of the executed copy.

    Attributes
    ----------
    status : "pending", "ok" or "failed"
    parameters : dict
        What was passed, without ``profile`` and ``results_dir``.
    figures : tuple of str
        PNG files in the notebook's results folder.
    cell : int or None
        The failing cell, counted from 1 over all cells of the notebook; `cell_line` is its first line.
    error : str or None
        "TypeOfError: message".
    resumed : bool
        Whether it was found done by an earlier run.
    """

    name: str
    title: str
    profile: str
    source_sha256: str
    package_sha256: str
    parameters: dict[str, Literal]
    status: str = "pending"
    seconds: float = 0.0
    figures: tuple[str, ...] = ()
    cell: int | None = None
    cell_line: str | None = None
    error: str | None = None
    resumed: bool = False

    @property
    def failure(self) -> str:
        """One line for a reader: which notebook, which cell, which error."""
        where = f" in cell {self.cell} (`{self.cell_line}`)" if self.cell else ""
        return f"{self.name} failed{where}: {self.error}"


def read_outcome(copy: Path) -> Outcome | None:
    """What an executed copy says of its run; None where there is no copy that this version can read."""
    try:
        stamp = json.loads(copy.read_text(encoding="utf-8"))["metadata"]["routing"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    if set(stamp) != {item.name for item in fields(Outcome)}:
        return None
    return Outcome(**{**stamp, "figures": tuple(stamp["figures"])})
