"""A recipe whose images the detector cannot take is refused before any training, with the nearest valid value."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from boxwright.config.input_check import check_anchors, check_inputs, fixed_output
from boxwright.data.config import DataConfig
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.transforms.configs import (
    FlipConfig,
    LetterboxConfig,
    MosaicConfig,
    QuarterTurnConfig,
    ResizeConfig,
    ScaleJitterConfig,
    TransformConfig,
    WarpConfig,
)
from boxwright.data.transforms.multi_scale import MultiScaleConfig
from boxwright.data.transforms.network_sizes import evaluated_sizes
from boxwright.geometry.paste import PasteConfig
from boxwright.structures import InputError
from boxwright.training.loop import train
from tests.support.toys import CLASSES, Toy, toy_index, toy_recipe


def toy(multiple: int = 1, size: tuple[int, int] | None = None) -> Toy:
    built = Toy(None, CLASSES)
    built.input_multiple, built.input_size = multiple, size
    return built


def data(*transforms: object, **settings: object) -> DataConfig:
    return DataConfig(train=transforms, eval=transforms, **settings)  # type: ignore[arg-type]


SQUARE = LetterboxConfig(size=(320, 320))
ANY = ResizeConfig(short=(300,), long=500)


@pytest.mark.parametrize(
    ("transforms", "size"),
    [
        ((SQUARE,), (320, 320)),
        ((ANY, WarpConfig(size=(300, 300)), FlipConfig()), (300, 300)),
        ((SQUARE, ANY), None),
        ((ScaleJitterConfig(size=(320, 320)),), None),  # "within" a size is no size
        ((MosaicConfig(size=(320, 320)),), (320, 320)),
        ((MosaicConfig(size=(320, 320), p=0.5),), None),
        ((WarpConfig(size=(300, 400)), QuarterTurnConfig()), None),
        ((SQUARE, QuarterTurnConfig()), (320, 320)),
        ((), None),
    ],
)
def test_which_transforms_give_one_size(transforms: tuple, size: tuple[int, int] | None) -> None:
    found = fixed_output(transforms)
    assert (found and found[1]) == size


@pytest.mark.parametrize(
    ("detector", "settings", "message"),
    [
        (toy(64), data(WarpConfig(size=(300, 400))), "train.0 makes, padded to multiples of .* 32, is 320 x 416"),
        (toy(64), data(LetterboxConfig(size=(544, 640))), "multiples of 64; the nearest are 576 x 640"),
        (toy(64), data(ANY), "data.pad_multiple = 32: .* set it to 64"),
        (toy(32), data(ANY, fixed_size=(500, 512)), "data.fixed_size is 500 x 512 .* the nearest are 512 x 512"),
        (toy(32), data(ANY, shapes=((512, 512), (512, 530))), "an entry of data.shapes is 512 x 530"),
        (
            toy(64),
            data(ANY, pad_multiple=64, multi_scale=MultiScaleConfig(low=320, high=400, step=32)),
            "a size of data.multi_scale is 352 x 352 .* the nearest are 384 x 384",
        ),
        (
            toy(1, (300, 300)),
            data(ANY, multi_scale=MultiScaleConfig(sizes=(300,), last=5, last_size=512)),
            "a size of data.multi_scale is 512 x 512 .* exactly 300 x 300",
        ),
        (toy(1, (300, 300)), data(ANY), "takes exactly 300 x 300; end it with"),
        (toy(1, (300, 300)), data(WarpConfig(size=(300, 300))), r"padded to .* 320 x 320 .* takes exactly 300 x 300"),
    ],
)
def test_refuses_with_the_nearest_valid_value(detector: Toy, settings: DataConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_inputs(detector, settings)


@pytest.mark.parametrize(
    ("detector", "settings"),
    [
        (toy(64), data(WarpConfig(size=(320, 448)))),
        (toy(64), data(ANY, pad_multiple=128)),
        (toy(1, (300, 300)), data(WarpConfig(size=(300, 300)), pad_multiple=1)),
        (toy(1, (300, 300)), data(ANY, fixed_size=(300, 300))),
        (toy(), data(ANY)),
    ],
)
def test_takes_what_fits(detector: Toy, settings: DataConfig) -> None:
    check_inputs(detector, settings)


def test_training_does_not_begin(tmp_path: Path) -> None:
    def build(config: object, classes: object) -> Toy:
        return toy(64)

    index = toy_index(tmp_path / "data", 4)
    recipe = toy_recipe()
    recipe = replace(recipe, data=replace(recipe.data, train=(WarpConfig(size=(96, 64)),), pad_multiple=32))
    with pytest.raises(InputError, match=re.escape("the nearest are 128 x 64")):
        train(recipe, index, None, tmp_path / "run", device="cpu", build=build)
    assert not (tmp_path / "run").exists()


def test_masks_are_asked_for_and_are_there(tmp_path: Path) -> None:
    built = toy()
    built.paste = PasteConfig()
    with pytest.raises(InputError, match=r"data\.masks = false, but this detector trains on masks"):
        check_inputs(built, data(SQUARE))
    check_inputs(built, data(SQUARE, masks=True))
    index, recipe = toy_index(tmp_path / "toys", 3), toy_recipe()
    recipe = replace(recipe, data=replace(recipe.data, masks=True))
    with pytest.raises(InputError, match=r"the data set has none; give data with masks"):
        train(recipe, index, None, tmp_path / "run", device="cpu", build=lambda *_: built)
    assert not (tmp_path / "run").exists()


class Anchored(Toy):
    """Knows shapes."""

    shapes: tuple[tuple[float, float], ...] = ()

    def anchor_shapes(self) -> list[tuple[float, float]]:
        return list(self.shapes)


@pytest.mark.parametrize(
    ("shapes", "outcome"),
    [
        ((), None),
        (((16, 16), (32, 32)), None),
        (((32, 14), (300, 300)), "WARNING: 67 % of the boxes have no anchor .* 16 to 32 pixels .* 21 to 300"),
        (((300, 300),), "error"),
    ],
)
def test_anchors_are_compared_with_the_boxes_at_the_size_of_the_input(
    shapes: tuple[tuple[float, float], ...], outcome: str | None, tmp_path: Path
) -> None:
    boxes = [[0, 0, 16, 16], [0, 0, 8, 8], [10, 10, 26, 18]]  # doubled by the letterbox
    index = DetectionIndex.build(
        CLASSES,
        [ImageRecord(path=tmp_path / "a.png", image_id=1, height=32, width=32, boxes=boxes, labels=[0, 1, 0])],
        root=tmp_path,
    )
    detector = Anchored(None, CLASSES)
    detector.shapes = shapes
    settings = data(LetterboxConfig(size=(64, 64)))
    if outcome == "error":
        with pytest.raises(InputError, match=r"no anchor overlaps any box by an IoU of 0.5.*boxwright data anchors"):
            check_anchors(detector, index, settings)
    elif outcome is None:
        assert check_anchors(detector, index, settings) is None
    else:
        assert re.match(outcome, check_anchors(detector, index, settings) or "")


@pytest.mark.parametrize(
    ("transforms", "sizes"),
    [
        ((ResizeConfig(short=(64, 96), long=200),), [[32, 32], [16, 8]]),  # the first of several short sides
        ((QuarterTurnConfig(), LetterboxConfig(size=(64, 64))), [[32, 32], [16, 8]]),
        ((ScaleJitterConfig(size=(96, 96)),), [[16, 16], [8, 4]]),
    ],
)
def test_anchors_are_also_compared_where_evaluation_has_random_transforms(
    transforms: tuple[TransformConfig, ...], sizes: list[list[int]], tmp_path: Path
) -> None:
    record = ImageRecord(
        path=tmp_path / "a.png", image_id=1, height=32, width=32, boxes=[[0, 0, 16, 16], [0, 0, 8, 4]], labels=[0, 1]
    )
    index = DetectionIndex.build(CLASSES, [record], root=tmp_path)
    assert evaluated_sizes(index, transforms).tolist() == sizes
    detector = Anchored(None, CLASSES)
    detector.shapes = ((300, 300),)
    with pytest.raises(InputError, match="no anchor overlaps any box"):
        check_anchors(detector, index, data(*transforms))
