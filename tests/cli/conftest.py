"""Fixtures of the tests of commands: a data set of scenes and a short training run."""

from pathlib import Path

import pytest

from boxwright.cli.app import main
from tests.support.command_line import RECIPE, TINY


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of eight training scenes and three validation scenes."""
    folder = tmp_path_factory.mktemp("cli") / "scenes"
    assert main(["data", "scenes", str(folder), "--train", "8", "--val", "3", "--size", "96", "96"]) == 0
    return folder


@pytest.fixture(scope="session")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training run of two steps."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", RECIPE, "--data", str(scenes), "--output", str(folder), *TINY]) == 0
    return folder
