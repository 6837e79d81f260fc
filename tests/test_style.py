"""The rules of style that a program can check: first lines of docstrings, lengths of files, sizes of folders."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "boxwright"
FILES = sorted(path for folder in ("src", "tests", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py"))
RIDDLE = re.compile(r"(What|Which|Who|Whose|Whether|Where|How|That|Why)\b")
# One file per paper, or one literal table per family: a reader looks for one of them by name.
LARGE_FOLDERS = {"detectors", "recipes"}


def docstrings(path: Path) -> list[tuple[int, str]]:
    """Line and text of every docstring in a file, those under fields and constants included."""
    scopes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bodies = [statement for scope in ast.walk(tree) if isinstance(scope, scopes) for statement in scope.body]
    values = [statement.value for statement in bodies if isinstance(statement, ast.Expr)]
    constants = [value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    return [(constant.lineno, str(constant.value).strip()) for constant in constants]


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_docstrings_say_what_a_thing_is(path: Path) -> None:
    """ "Run NMS per class", not "What becomes of the boxes": a first line that can be read on its own."""
    riddles = [(line, text.splitlines()[0]) for line, text in docstrings(path) if text and RIDDLE.match(text)]
    assert not riddles


def undocumented_fields(path: Path) -> list[str]:
    """Fields of configurations without a docstring under them; ``kind`` explains itself."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [d.id for d in getattr(node, "decorator_list", []) if isinstance(d, ast.Name)]
        if not isinstance(node, ast.ClassDef) or "config" not in names:
            continue
        for field, below in zip(node.body, [*node.body[1:], None], strict=True):
            documented = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if documented or not isinstance(field, ast.AnnAssign) or "ClassVar" in ast.unparse(field.annotation):
                continue
            if (name := ast.unparse(field.target)) != "kind":
                found.append(f"{node.name}.{name}")
    return found


def test_every_option_says_what_it_is() -> None:
    assert not [name for path in FILES if path.is_relative_to(SOURCE) for name in undocumented_fields(path)]


def test_files_are_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    pages = {path for path in FILES if path.parent == SOURCE / "detectors"}
    assert not {str(path): count for path, count in lengths.items() if count > (300 if path in pages else 400)}


def test_folders_are_small() -> None:
    folders = {path.parent for path in SOURCE.rglob("*.py")}
    counts = {folder: sum(path.name != "__init__.py" for path in folder.glob("*.py")) for folder in folders}
    crowded = {str(folder.relative_to(SOURCE)): count for folder, count in counts.items() if count > 12}
    assert set(crowded) <= LARGE_FOLDERS, crowded
