"""Checkpoints, run folders and recipes of earlier versions load, and a run goes on to the same end."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from boxwright.checkpoints.checkpoint import load_checkpoint, load_train_state
from boxwright.checkpoints.opening import load_detector
from boxwright.config.reading import recipe_from_tree
from boxwright.data.formats.opening import open_splits
from boxwright.recipes import RECIPES
from boxwright.training.loop import train

FOLDER = Path(__file__).parents[1] / "fixtures" / "first_layout"
OLD_RECIPES = json.loads((FOLDER / "recipes.json").read_text(encoding="utf-8"))
LAST_LOSSES = {"loss": 1.6715096235275269, "loss_classification": 0.30579590797424316, "loss_box": 1.3657137155532837}
"""Losses of step 6 of the same run uninterrupted, in the version that wrote the folder."""


@pytest.mark.parametrize("name", OLD_RECIPES)
def test_an_old_recipe_is_the_shipped_one(name: str) -> None:
    assert recipe_from_tree(OLD_RECIPES[name]) == RECIPES[name]


def test_there_is_an_old_recipe_of_each_kind() -> None:
    assert {tree["detector"]["kind"] for tree in OLD_RECIPES.values()} == {r.detector.kind for r in RECIPES.values()}


def test_an_old_checkpoint_detects() -> None:
    detector = load_detector(FOLDER / "refinedet.safetensors")
    state = load_checkpoint(FOLDER / "refinedet.safetensors").state
    assert all(torch.equal(value, state[name]) for name, value in detector.state_dict().items())
    (found,) = detector.detect(FOLDER / "data" / "val" / "0.png", threshold=0.0)
    assert found.names.names == ("blue", "red")
    assert len(found) > 0


def test_an_old_run_goes_on_to_the_same_end(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "run", tmp_path / "run")
    shutil.copytree(FOLDER / "data", tmp_path / "data")
    splits = open_splits(tmp_path / "data")
    assert load_train_state(tmp_path / "run" / "last.train")["step"] == 3
    result = train(None, splits["train"], splits["val"], tmp_path / "run", device="cpu", log="quiet", resume=True)
    assert result.steps == 6
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "validation"][-1]
    assert last["step"] == 6
    for name, value in LAST_LOSSES.items():
        assert last[name] == pytest.approx(value, rel=1e-3), name
