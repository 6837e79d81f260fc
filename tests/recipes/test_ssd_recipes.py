"""SSD's recipes have the constants of the authors' code."""

import pytest
import torch

from boxwright.detectors.build import build_detector
from boxwright.detectors.ssd import SSDConfig
from boxwright.recipes import get_recipe
from boxwright.structures import Classes
from boxwright.training.optimisation.optimiser import build_optimiser
from boxwright.training.plan import make_plan
from tests.support.options import with_options


@pytest.mark.parametrize(
    ("name", "total", "drops"),
    [
        ("ssd300-voc", 120_000, (80_000, 100_000)),
        ("ssd512-voc", 120_000, (80_000, 100_000)),
        ("ssd300-coco", 400_000, (280_000, 360_000)),
        ("ssd512-coco", 400_000, (280_000, 360_000)),
    ],
)
def test_schedules(name: str, total: int, drops: tuple[int, int]) -> None:
    recipe = get_recipe(name)
    plan = make_plan(recipe, 16_551)
    rates = [1e-3 * plan.stages[0].schedule(step) for step in (0, drops[0] - 1, drops[0], drops[1])]
    assert (plan.total, recipe.data.batch_size) == (total, 32)
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])


def test_biases_learn_twice_as_fast_and_do_not_decay() -> None:
    recipe = get_recipe("ssd300-voc")
    with torch.device("meta"):
        detector = build_detector(recipe.detector, Classes.from_names(["a"]))
    groups = build_optimiser(recipe.stages[0].optimiser, detector, 32).param_groups
    rates = {p: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    for name, parameter in detector.named_parameters():
        assert rates[parameter] == ((2e-3, 0.0) if name.endswith("bias") else (1e-3, 5e-4)), name


@pytest.mark.parametrize("name", ["ssd300-voc", "ssd512-coco", "ssd-small"])
def test_the_chain_of_augmentation(name: str) -> None:
    recipe = get_recipe(name)
    assert isinstance(recipe.detector, SSDConfig)
    kinds = [config.kind for config in recipe.data.train]
    assert kinds == ["photometric", "expand", "min_iou_crop", "warp", "flip"]
    assert recipe.data.train[3].size == recipe.data.eval[0].size == recipe.detector.size  # type: ignore[union-attr]
    assert len(recipe.data.train[3].interpolations) == 5  # type: ignore[union-attr]
    assert recipe.data.pad_multiple == 1


def test_the_small_ones_are_one_network() -> None:
    """The networks are equal, except that a head with sigmoid scores has no column for background."""
    paper, modern = (get_recipe(name).detector for name in ("ssd-small", "ssd-small-modern"))
    assert isinstance(modern, SSDConfig)
    with torch.device("meta"):
        one, other = (
            build_detector(config, Classes.from_names(["a", "b"]))
            for config in (paper, with_options(modern, {"loss.classification": "softmax"}))
        )
    shapes = [[(name, p.shape) for name, p in detector.named_parameters()] for detector in (one, other)]
    assert shapes[0] == shapes[1]
