"""Imports point down: a module may use its own package and what lies below it, and no modules form a circle."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "boxwright"

# From the lowest floor to the highest. A package imports only those on floors below and those left of it on its own.
FLOORS = [
    ["structures", "fields", "io"],
    ["geometry", "drawing", "detections", "precision"],
    ["backbones", "necks"],
    ["anchors", "data"],
    ["evaluation", "heads"],
    ["detectors"],
    ["weights", "config"],
    ["checkpoints"],
    ["recipes", "training"],
    ["report", "app"],
    ["cli"],
    ["testing", "__init__", "__main__"],
]
RANKS = {name: rank for rank, name in enumerate(name for floor in FLOORS for name in floor)}
MODULES = sorted(SOURCE.rglob("*.py"))


def dotted(path: Path) -> str:
    """Name of the module in a file; a package's own file is the package."""
    names = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


NAMES = {dotted(path) for path in MODULES}


def package(name: str) -> str:
    """``boxwright.data.coco`` belongs to ``data``; ``boxwright`` itself to ``__init__``."""
    names = name.split(".")
    return names[1] if len(names) > 1 else "__init__"


def imports(path: Path) -> set[str]:
    """Our own modules that a file imports anywhere in it, also inside functions and for types only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            # A package's own file only gathers names; what counts is the module that a name comes from.
            modules = inside & NAMES
            found |= modules if len(modules) == len(inside) else modules | {node.module or ""}
    return found & NAMES


@pytest.mark.parametrize("path", MODULES, ids=[str(p.relative_to(SOURCE)) for p in MODULES])
def test_imports_point_down(path: Path) -> None:
    mine = package(dotted(path))
    for name in imports(path):
        theirs = package(name)
        if theirs == mine or name == "boxwright":  # the package itself: its version
            continue
        assert RANKS[theirs] < RANKS[mine], f"{mine} imports {name}, which lies above it"


def test_no_circle_between_modules() -> None:
    graph = {dotted(path): imports(path) - {dotted(path), "boxwright"} for path in MODULES}
    del graph["boxwright"]  # loads its names on first use
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join((*trail, name))}"
        if name in done:
            return
        for other in sorted(graph[name]):
            visit(other, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_each_floor_has_a_package() -> None:
    assert {package(name) for name in NAMES} | {"__main__"} == set(RANKS) | {"__init__"}
