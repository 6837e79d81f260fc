"""A checkpoint with truncated fully connected layers, made by `boxwright weights convert`."""

from pathlib import Path

import pytest
import torch

from boxwright.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from boxwright.checkpoints.opening import load_detector
from boxwright.cli.app import main
from boxwright.detectors.build import build_detector
from boxwright.recipes import get_recipe
from boxwright.structures import Classes

CLASSES = Classes.from_names(["a", "b"])
IMAGE = torch.randint(0, 256, (3, 100, 120), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    recipe = get_recipe("faster-rcnn-fpn-small")
    torch.manual_seed(0)
    path = tmp_path / "whole.safetensors"
    save_checkpoint(path, build_detector(recipe.detector, CLASSES).state_dict(), recipe, CLASSES, {"step": 3})
    return path


def test_it_is_an_ordinary_checkpoint_with_fewer_parameters(file: Path, tmp_path: Path) -> None:
    words = ["weights", "convert", str(file), "--ranks"]
    for name, ranks in (("all", ("256", "0")), ("thin", ("8", "4"))):
        assert main([*words, *ranks, "--output", str(tmp_path / f"{name}.safetensors")]) == 0
    thin = load_checkpoint(tmp_path / "thin.safetensors")
    assert thin.recipe.detector.head.ranks == (8, 4)  # type: ignore[union-attr]
    assert thin.meta == {"step": 3, "truncated": [8, 4]}
    assert (tmp_path / "thin.safetensors").stat().st_size < file.stat().st_size - 3_000_000
    found = [load_detector(tmp_path / f"{n}.safetensors").detect(IMAGE, threshold=0.0)[0] for n in ("all", "thin")]
    (expected,) = load_detector(file).detect(IMAGE, threshold=0.0)
    torch.testing.assert_close(torch.as_tensor(found[0].scores), torch.as_tensor(expected.scores), atol=1e-4, rtol=1e-3)
    assert len(found[1].scores) > 0


def test_ranks_that_do_not_fit_are_refused(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new.safetensors"
    assert main(["weights", "convert", str(file), "--ranks", "8", "--output", str(output)]) == 2
    assert "head.ranks = (8,) for 2 fully connected layers; give one each" in capsys.readouterr().err
    assert not output.exists()
