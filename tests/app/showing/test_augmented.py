"""Sheets of augmented images: the versions are those of the recipe's transforms, and bad requests are named."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxwright.app.requests.data import AugmentRequest
from boxwright.app.showing.augmented import CELL, GAP, LINE, augmented, show_augmented
from boxwright.cli.app import main
from boxwright.data.formats.coco.writer import write_coco
from boxwright.data.transforms.configs import CopyPasteConfig, FlipConfig
from boxwright.structures import InputError
from tests.support.tiny_index import write_index

RECIPE = "faster-rcnn-detnet-small-fpn"


def test_each_image_comes_as_annotated_and_in_versions(tmp_path: Path) -> None:
    index = write_index(tmp_path)
    rows = augmented(index, (FlipConfig(p=0.5),), count=13, versions=6, seed=3, masks=False)
    assert [row[0].index for row in rows] == list(range(13))
    mirrored = 0
    for plain, *versions in rows:
        assert plain.boxes.tolist() == index.annotations(plain.index).boxes.tolist()
        assert len(versions) == 6
        for version in versions:
            flips = np.array_equal(version.image.flip(2), plain.image)
            assert flips or np.array_equal(version.image, plain.image)
            mirrored += flips
    assert 20 < mirrored < 58  # of 78
    again = augmented(index, (FlipConfig(p=0.5),), count=13, versions=6, seed=3, masks=False)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(chain(*rows), chain(*again), strict=True))
    pasted = augmented(index, (CopyPasteConfig(p=1.0),), count=13, versions=2, seed=0, masks=False)
    assert sum(len(version) for _, *versions in pasted for version in versions) > 2 * index.num_boxes


def test_the_command_writes_a_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, sheet = tmp_path / "coco", tmp_path / "new" / "sheet.png"
    write_coco(data, {"train": write_index(tmp_path, sizes=((40, 60),))})
    words = ["data", "augment", str(data), "--recipe", RECIPE, "--set", "data.train.+=mixup", "--count", "2"]
    assert main([*words, "--versions", "3", "--output", str(sheet)]) == 0
    assert f"wrote {sheet}" in capsys.readouterr().out
    with Image.open(sheet) as image:
        assert image.size == (4 * (CELL + GAP) + GAP, 2 * (CELL * 2 // 3 + LINE + GAP) + GAP)  # of 60 x 40
    assert main([*words[:-4], "--set", "data.train.+=mixpu"]) == 2
    assert "did you mean 'mixup'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (AugmentRequest(recipe=RECIPE, output=Path("sheet.gif")), "sheet.gif: the sheet is written as .png or .jpg"),
        (AugmentRequest(recipe=RECIPE, count=0), "--count 0: should be at least 1"),
        (AugmentRequest(recipe=RECIPE, versions=0), "--versions 0: should be at least 1"),
        (AugmentRequest(recipe="faster"), "faster"),
    ],
)
def test_a_bad_request_is_named(request_: AugmentRequest, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        show_augmented(tmp_path, request_)
