"""Imports point down: a module may use its own package, and those on lower floors, and nothing else of ours."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "boxwright"

FLOORS: list[set[str]] = [
    {"structures", "geometry", "drawing", "detections"},
    {"anchors", "backbones", "necks", "data"},
    {"heads"},
    {"detectors"},
    {"evaluation", "weights"},
    {"training"},
    {"app", "recipes"},
    {"__main__", "__init__"},  # and cli*.py
]
# On one floor, who may still look sideways: pictures of detections are drawn, everything knows the shared values.
SIDEWAYS = {
    ("geometry", "structures"),
    ("drawing", "structures"),
    ("detections", "structures"),
    ("detections", "drawing"),
    ("detections", "geometry"),
    ("app", "recipes"),
    ("__main__", "cli"),
}
MODULES = sorted(SOURCE.rglob("*.py"))


def part(dotted: str) -> str:
    """``boxwright.data.coco`` belongs to ``data``; ``boxwright`` itself to ``__init__``."""
    names = dotted.split(".")
    return names[1] if len(names) > 1 else "__init__"


def floor(name: str) -> int:
    if name.startswith("cli"):
        return len(FLOORS)
    for number, parts in enumerate(FLOORS, start=1):
        if name in parts:
            return number
    raise AssertionError(f"{name} stands on no floor; add it to the table above")


def imports(path: Path) -> set[str]:
    """Our own modules that a file imports, anywhere in it, also inside functions and for types."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "boxwright"}
    return {name for name in found if name == "boxwright" or name.startswith("boxwright.")}


@pytest.mark.parametrize("path", MODULES, ids=[str(p.relative_to(SOURCE)) for p in MODULES])
def test_imports_point_down(path: Path) -> None:
    mine = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for name in imports(path):
        theirs = part(name)
        if theirs == "__init__" and name == "boxwright":
            continue  # `from boxwright import x` is judged by x
        if theirs == "__version__" or theirs == mine or (mine, theirs) in SIDEWAYS:
            continue
        if mine.startswith("cli") and theirs.startswith("cli"):
            continue
        assert floor(theirs) < floor(mine), f"{mine} (floor {floor(mine)}) imports {name} (floor {floor(theirs)})"


def test_no_circle_within_a_package() -> None:
    graph = {}
    for path in MODULES:
        dotted = ".".join(("boxwright", *path.relative_to(SOURCE).with_suffix("").parts))
        if path.name != "__init__.py":
            graph[dotted] = {name for name in top_level_imports(path) if name != dotted}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join((*trail, name))}"
        if name in done or name not in graph:
            return
        for other in graph[name]:
            visit(other, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def top_level_imports(path: Path) -> set[str]:
    """Imports that run when the module is loaded, except those made for types only."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("boxwright."):
            # A package's own file only gathers names; what counts is the module that a name comes from.
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in inside if (SOURCE.parent / Path(*name.split("."))).with_suffix(".py").is_file()}
            found |= modules or {node.module or ""}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("boxwright.")}
    return found
