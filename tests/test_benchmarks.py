"""The commands in ``benchmarks/``: each explains itself, and what they set fits every recipe."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from boxwright.backbones.build import build_backbone, named_backbone
from boxwright.checkpoints.backbone_files import load_pretrained, read_card
from boxwright.config.recipe import Recipe, Stage
from boxwright.recipes import RECIPES, resolve_recipe

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
COMMANDS = sorted(path.name for path in FOLDER.glob("*.py") if "__main__" in path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_explains_itself(name: str) -> None:
    done = subprocess.run([sys.executable, str(FOLDER / name), "--help"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.parametrize("name", RECIPES)
def test_a_length_in_epochs_suits_every_recipe(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    compare = importlib.import_module("compare")
    before = RECIPES[name]
    recipe: Recipe = resolve_recipe(name, sets=compare.length(before, 12))
    ratios = []
    for old, new in zip(before.stages, recipe.stages, strict=True):
        if isinstance(old, Stage) and isinstance(new, Stage):
            assert new.unit == "epochs"
            ratios.append(new.length / old.length)
    assert recipe.stages[0].length == 12  # type: ignore[union-attr]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-2)
    epochs = sum(new.length if isinstance(new, Stage) else 1 for new in recipe.stages)
    assert recipe.validation.unit == "epochs"
    assert recipe.validation.every > epochs


@pytest.mark.parametrize("file", sorted((FOLDER / "pretrained").glob("*.safetensors")), ids=lambda file: file.stem)
def test_the_pretrained_backbones_that_are_kept(file: Path) -> None:
    """Each says what it is, and is the named backbone that its file is called by."""
    card = read_card(file)
    assert file.stat().st_size < 30_000_000
    assert card["data"]["licence"]
    assert card["top1"] > 0.5
    backbone = build_backbone(named_backbone(file.stem))
    state = load_pretrained(file).state
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in backbone.state_dict().items()
    }
