"""Packages with entry points, installed by hand: a module and the folder of metadata that pip would write."""

import tomllib
from pathlib import Path

import pytest

from boxwright.data.transforms.custom.entry_point import GROUP, custom_transform


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, points: dict[str, str], code: str = "", package: str = "toy-rain"
) -> None:
    """Install a package of version 1.2 with one module, whose name is the package's, and entry points for transforms.

    ``points``: the object of each name, such as ``{"rain": "toy_rain:Rain"}``.
    """
    module = package.replace("-", "_")
    folder.mkdir(parents=True, exist_ok=True)
    if code:
        (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
    monkeypatch.syspath_prepend(folder)
    custom_transform.cache_clear()


def install_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the package in ``folder`` as its ``pyproject.toml`` says; its modules stay where they are."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    install(folder, monkeypatch, project["entry-points"][GROUP], package=project["name"])
