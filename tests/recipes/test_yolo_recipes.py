"""The recipes of YOLOv1 and YOLOv2 have the constants of the papers and of the cfg files."""

from dataclasses import replace

import pytest

from boxwright.config.recipe import Recipe, scaled_lr
from boxwright.data.transforms.configs import DarknetJitterConfig, HSVJitterConfig
from boxwright.data.transforms.multi_scale import MultiScaleConfig
from boxwright.detectors.yolov1 import YOLOv1Config
from boxwright.detectors.yolov2 import RegionLossConfig, YOLOv2Config
from boxwright.recipes import get_recipe
from boxwright.training.plan import make_plan

VOC = 16_551  # images of VOC 2007 + 2012 trainval


def rates(recipe: Recipe, epochs: list[float]) -> list[float]:
    """Return the learning rate after each of ``epochs`` epochs of VOC."""
    plan, lr = make_plan(recipe, VOC), scaled_lr(recipe.stages[0].optimiser, recipe.data.batch_size)
    return [lr * plan.stages[0].schedule(round(e * VOC / 64)) for e in epochs]


def test_yolov1_is_the_papers() -> None:
    """§2.2: 135 epochs in batches of 64; 0.01 for 75 epochs, then 30 at 0.001 and 30 at 0.0001."""
    recipe = get_recipe("yolov1")
    assert recipe.data.batch_size == 64
    assert make_plan(recipe, VOC).total == -(-135 * VOC // 64)
    assert rates(recipe, [0, 10, 74.9, 75.1, 104.9, 105.1]) == pytest.approx([1e-3, 1e-2, 1e-2, 1e-3, 1e-3, 1e-4])
    optimiser = recipe.stages[0].optimiser
    assert (optimiser.momentum, optimiser.weight_decay, optimiser.decay_biases) == (0.9, 5e-4, False)  # type: ignore[union-attr]
    assert recipe.data.train[0] == DarknetJitterConfig(size=(448, 448), method="crop", jitter=0.2, min_share=0.005)
    assert recipe.data.train[1] == HSVJitterConfig(hue=0.1, saturation=1.5, value=1.5)
    loss = YOLOv1Config().loss
    assert recipe.detector == YOLOv1Config()
    assert (loss.coord_scale, loss.noobject_scale, loss.object_scale, loss.class_scale) == (5, 0.5, 1, 1)


def test_yolov2_is_the_papers() -> None:
    """§3: 160 epochs at 0.001, a tenth after 60 and 90; §2: another size of 320 to 608 every 10 batches."""
    recipe = get_recipe("yolov2")
    assert make_plan(recipe, VOC).total == -(-160 * VOC // 64)
    assert rates(recipe, [0, 59.9, 60.1, 89.9, 90.1]) == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5])
    assert recipe.data.multi_scale == MultiScaleConfig(low=320, high=608, step=32, every=10)
    assert recipe.detector == YOLOv2Config()
    assert not RegionLossConfig().favour_small, "that came after the paper"
    assert get_recipe("yolov2-544").data.eval[0].size == (544, 544)  # type: ignore[union-attr]


def test_yolov2_of_the_cfg_files() -> None:
    recipe = get_recipe("yolov2-voc")
    plan = make_plan(recipe, VOC)
    assert plan.total == 80_200
    schedule = plan.stages[0].schedule
    assert [schedule(s) for s in (0, 500, 1000, 39_999, 40_000, 60_000)] == pytest.approx([0, 0.5**4, 1, 1, 0.1, 0.01])
    assert recipe.data.multi_scale is not None
    sizes = [recipe.data.multi_scale.size_at(0, batch, 80_200) for batch in range(80_000, 80_200)]
    assert set(sizes) == {608}
    assert make_plan(get_recipe("yolov2-coco"), VOC).total == 500_200
    tiny = make_plan(get_recipe("yolov2-tiny"), VOC).stages[0].schedule
    assert [tiny(s) for s in (0, 50, 98, 100, 20_000, 30_000)] == pytest.approx([0.1, 0.1, 0.1, 1, 0.1, 0.01], rel=1e-3)


@pytest.mark.parametrize(
    ("paper", "modern"),
    [
        ("yolov1", "yolov1-modern"),
        ("yolov1-small", "yolov1-small-modern"),
        ("yolov2-voc", "yolov2-modern"),
        ("yolov2-small", "yolov2-small-modern"),
    ],
)
def test_modern_recipes_differ_in_training_data_alone(paper: str, modern: str) -> None:
    one, other = (get_recipe(name) for name in (paper, modern))
    assert one.stages[0].length == other.stages[0].length or one.stages[0].unit == "steps"
    assert replace(other.data, train=one.data.train, multi_scale=one.data.multi_scale) == one.data
