"""Dependencies point one way: the walk over all imports, and what a user's import may load."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each layer may import those below it; what shares a layer may not import each other.
LAYERS = [
    {"files", "devices"},
    {"battles", "embeddings"},
    {"ratings", "data", "runner"},
    {"routers", "policy", "upstream"},
    {"evaluation", "cluster", "integrations"},
    {"order_audit", "commands"},
    {"studies"},
]
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path for path in (ROOT / "routing").rglob("*.py") if path.parent != ROOT / "routing" / "__pycache__")


def area(module: str) -> str:
    """The part of the package that a dotted name belongs to: "" for the package itself."""
    return (module.split(".") + [""])[1]


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(path) for path in MODULES}


def imported(tree: ast.AST) -> set[str]:
    """Dotted names that a module imports from the package, in functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= inside if node.module == "routing" else (inside & NAMES or {node.module})
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.split(".")[0] == "routing"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    own = path.relative_to(ROOT / "routing").parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return
    assert own in LAYER_OF, f"{own} has no place in the order; give it one in LAYERS and in the documents"
    for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
        other = area(name)
        if other not in LAYER_OF or other == own:
            continue  # the package's own face: its version
        assert LAYER_OF[other] < LAYER_OF[own], f"{path.name} imports {name}, which stands above or beside it"


def test_no_modules_import_each_other_in_a_circle():
    graph = {module_name(path): imported(ast.parse(path.read_text(encoding="utf-8"))) for path in MODULES}
    TopologicalSorter(graph).prepare()  # raises a CycleError that names the circle


def test_the_command_line_imports_no_study():
    names = imported(ast.parse((ROOT / "routing" / "__main__.py").read_text(encoding="utf-8")))
    assert not {name for name in names if area(name) == "studies"}
