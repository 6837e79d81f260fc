"""Recipes at another input size."""

from dataclasses import replace
from typing import Any

import pytest

from boxwright.config.input_check import check_inputs
from boxwright.config.input_size import with_input_size
from boxwright.config.recipe import Recipe
from boxwright.data.config import DataConfig
from boxwright.data.transforms.multi_scale import size_of
from boxwright.data.transforms.resizing import ResizeConfig
from boxwright.detectors.build import build_detector
from boxwright.recipes import RECIPES, resolve_recipe
from boxwright.structures import Classes, InputError

FIXED = ("ssd", "yolov1")


def sizes(transforms: Any) -> list[Any]:
    """Sizes of the transforms: short sides and long side, or height and width."""
    return [(*t.short, t.long) if isinstance(t, ResizeConfig) else size_of(t) for t in transforms if sized(t)]


def sized(transform: Any) -> bool:
    return isinstance(transform, ResizeConfig) or size_of(transform) is not None


def without_sizes(recipe: Recipe) -> Any:
    return replace(recipe, data=DataConfig(train=(), eval=()))


@pytest.mark.parametrize(
    ("name", "size", "train", "evaluated"),
    [
        ("retinanet-small", 320, [(320, 320)], [(320, 320)]),
        ("faster-rcnn-detnet-small-fpn", 300, [(300, 300)], [(300, 300)]),
        ("retinanet-small", (480, 640), [(480, 640)], [(480, 640)]),
        ("faster-rcnn-r50-fpn", 400, [(400, 666)], [(400, 666)]),  # 1333 / 800 * 400
        ("faster-rcnn-r50-fpn", (480, 640), [(480, 640)], [(480, 640)]),
        ("faster-rcnn-r50-fpn", (640, 480), [(480, 640)], [(480, 640)]),
        ("rfcn-r101-voc-multi-scale", 300, [(200, 250, 300, 350, 400, 666)], [(300, 500)]),
        ("retinanet-r50-fpn-modern", 400, [(512, 512)], [(400, 666)]),  # 1024 in training for 800
        ("refinedet320-vgg16", 512, [(512, 512)], [(512, 512)]),
        ("yolov3-small-modern", 416, [(416, 416), (416, 416)], [(416, 416)]),
    ],
)
def test_sizes_of_all_transforms_change(name: str, size: Any, train: list[Any], evaluated: list[Any]) -> None:
    before = RECIPES[name]
    after = with_input_size(before, size)
    assert sizes(after.data.train) == train
    assert sizes(after.data.eval) == evaluated
    assert without_sizes(after) == without_sizes(before)
    assert [t.kind for t in after.data.train] == [t.kind for t in before.data.train]


def test_several_sizes_of_training_change_in_proportion() -> None:
    before = RECIPES["yolov3-608"].data
    after = with_input_size(RECIPES["yolov3-608"], 304).data
    assert before.multi_scale is not None
    assert after.multi_scale is not None
    assert (before.multi_scale.low, before.multi_scale.high, before.multi_scale.last_size) == (320, 608, 608)
    assert (after.multi_scale.low, after.multi_scale.high, after.multi_scale.last_size) == (160, 320, 320)
    assert after.multi_scale.step == 32
    assert sizes(after.eval) == [(304, 304)]
    assert sizes(after.train) == [(224, 224)]  # 416 / 608 * 304 = 208, in a multiple of 32
    with pytest.raises(InputError, match=r"several sizes, which are square; .*data.multi_scale=none"):
        with_input_size(RECIPES["yolov3-608"], (320, 640))


def test_sizes_of_batches_hold_the_images() -> None:
    recipe = resolve_recipe("faster-rcnn-r50-fpn", sets=["data.fixed_size=[1344, 1344]"])
    assert with_input_size(recipe, 400).data.fixed_size == (672, 672)
    recipe = resolve_recipe("faster-rcnn-r50-fpn", sets=["data.shapes=[[800, 1344], [1344, 800]]"])
    assert with_input_size(recipe, 500).data.shapes == ((512, 864), (864, 512))


@pytest.mark.parametrize("name", ["ssd300-voc", "ssd-small", "ssdlite320-mobilenet-v2", "yolov1-small"])
def test_a_detector_of_one_size_is_refused(name: str) -> None:
    recipe = RECIPES[name]
    side = size_of(recipe.data.eval[-1])
    assert side is not None
    with pytest.raises(
        InputError, match=f"--size: {name} takes images of {side[0]} x {side[1]} only, .*refinedet-small"
    ):
        with_input_size(recipe, 352)
    assert with_input_size(recipe, side[0]) == recipe


def test_a_recipe_that_resizes_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"evaluates images at their own size; end data\.eval with a resize"):
        with_input_size(resolve_recipe("faster-rcnn-r50-fpn", sets=["data.eval=[]"]), 320)


@pytest.mark.parametrize("name", [name for name, r in RECIPES.items() if r.detector.kind not in FIXED])
def test_every_other_recipe_changes(name: str) -> None:
    recipe = with_input_size(RECIPES[name], 384)
    last = sizes(recipe.data.eval)[-1]
    assert last[0] == 384
    assert with_input_size(recipe, 384) == recipe


@pytest.mark.parametrize("name", ["retinanet-small", "refinedet-small-modern", "yolov2-small", "yolov3-small"])
def test_detectors_take_the_size(name: str) -> None:
    recipe = with_input_size(RECIPES[name], 320)
    detector = build_detector(recipe.detector, Classes.from_names(["a"]))
    check_inputs(detector, recipe.data)
