"""A dry run says what a run would do, refuses what it would refuse, and writes nothing."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from boxwright.cli.app import main
from boxwright.config.config_tree import to_tree
from boxwright.recipes import resolve_recipe
from tests.support.command_line import RECIPE, TINY, fails, json_output


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "data"
    counts = ["--train", "6", "--val", "2", "--test", "0", "--size", "64", "64"]
    assert main(["data", "scenes", str(folder), *counts]) == 0
    return folder


def test_a_dry_run_says_what_the_run_does(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = ["train", RECIPE, "--data", str(scenes), "--output", str(run), *TINY, "--metric", "AP50"]
    assert main([*words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert not run.exists()
    assert "input in pixels, height x width: training 96 x 96, validation 96 x 96" in text
    assert "AP50 decides which is best" in text
    assert f"to be written into {run}: best.safetensors" in text
    told, _, recipe = text.partition("with this recipe:")
    assert tomllib.loads(recipe)["data"]["batch_size"] == 4
    values = json_output(capsys, *words, "--dry-run", "--json")
    assert isinstance(values, dict)
    assert not run.exists()
    assert values["steps"] == 2
    assert values["done"] == 0
    assert values["images"] == {"train": 6, "validation": 2}
    assert values["stages"] == [{"name": "train", "steps": 2}]
    assert f"{values['parameters']:,} parameters, {values['learning']:,} of them learn" in told
    assert main(words) == 0
    captured = capsys.readouterr().err
    assert all(line in captured for line in values["notes"])
    assert json.loads((run / "recipe.json").read_text()) == values["recipe"]
    written = {path.name for path in run.iterdir()}
    assert set(values["files"]) == written

    before = {path: path.read_bytes() for path in run.iterdir()}
    resume = ["train", "--data", str(scenes), "--resume", str(run), "--device", "cpu", "--epochs", "+2"]
    values = json_output(capsys, *resume, "--dry-run", "--json")
    assert isinstance(values, dict)
    assert values["stages"] == [{"name": "train", "steps": 2}, {"name": "extension 1", "steps": 3}]
    assert (values["done"], values["steps"]) == (2, 5)
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    assert "holds a run already" in fails(capsys, *words, "--dry-run")


def test_a_dry_run_refuses_what_the_run_refuses(scenes: Path, tmp_path: Path, capsys) -> None:
    words = ["train", RECIPE, "--data", scenes, "--output", tmp_path / "run", "--device", "cpu", "--dry-run"]
    assert "did you mean 'starfish'" in fails(capsys, *words, "--metric", "starfsh")
    assert "absent.safetensors" in fails(capsys, *words, "--weights", "absent.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_without_validation_there_is_no_best(scenes: Path, tmp_path: Path, capsys) -> None:
    words = ["train", RECIPE, "--data", scenes, "--output", tmp_path / "run", *TINY, "--no-val", "--dry-run", "--json"]
    values = json_output(capsys, *words)
    assert isinstance(values, dict)
    assert (values["images"]["validation"], values["input"]["validation"]) == (0, None)
    assert not {"best.safetensors", "ap.png", "validation.csv"} & set(values["files"])
    assert values["recipe"]["seed"] == to_tree(resolve_recipe(RECIPE))["seed"]
