"""The layout of the tests: shared helpers live in ``tests/support``, and each module has one name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
MODULES = sorted(TESTS.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Names that a file imports, modules and what is taken from them, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(TESTS)) for path in MODULES])
def test_helpers_come_from_the_support_package(path: Path) -> None:
    stems = {module.stem for module in MODULES}
    for name in imported(path):
        first, *rest = name.split(".")
        if first == "tests":
            assert rest[0] == "support", f"{name}: move what tests share to tests/support"
        else:
            assert first not in stems - {"conftest"}, f"{name}: import it by its full name, tests.support.{first}"


def test_the_path_of_imports_is_never_changed() -> None:
    """A child process gets it from ``tests.support.processes``; a changed path gives a module a second name."""
    changing = "sys" + ".path"
    assert [str(path) for path in MODULES if changing in path.read_text()] == []


def test_every_folder_is_a_package() -> None:
    folders = {path.parent for path in MODULES}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []
