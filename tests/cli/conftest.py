"""A data set of scenes and a short training run, which the tests of the commands share."""

from pathlib import Path

import pytest

from boxwright.cli.app import main
from tests.support.command_line import RECIPE, TINY


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight drawn scenes to train on, three to validate on."""
    folder = tmp_path_factory.mktemp("cli") / "scenes"
    assert main(["data", "scenes", str(folder), "--train", "8", "--val", "3", "--size", "96", "96"]) == 0
    return folder


@pytest.fixture(scope="session")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, made by the command."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", RECIPE, "--data", str(scenes), "--output", str(folder), *TINY]) == 0
    return folder
