"""RefineDet's recipes: the paper's constants, its ablation, and modern recipes of the same network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from boxwright.backbones.count import count_multiply_adds, count_parameters
from boxwright.config.config_tree import to_tree
from boxwright.config.input_check import check_inputs
from boxwright.config.recipe import Recipe
from boxwright.data.transforms.configs import WarpConfig
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.refinedet import RefineDetConfig
from boxwright.recipes import get_recipe
from boxwright.structures import Classes, InputError
from boxwright.training.plan import make_plan

CLASSES = Classes.from_names(["a", "b", "c"])
SIZES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def settings(name: str) -> RefineDetConfig:
    config = get_recipe(name).detector
    assert isinstance(config, RefineDetConfig)
    return config


@pytest.mark.parametrize(
    ("name", "side", "batch", "length", "drops"),
    [
        ("refinedet320-vgg16", 320, 32, 120_000, (80_000, 100_000)),
        ("refinedet512-vgg16", 512, 32, 120_000, (80_000, 100_000)),
        ("refinedet320-vgg16-coco", 320, 32, 400_000, (280_000, 360_000)),
        ("refinedet512-vgg16-coco", 512, 32, 400_000, (280_000, 360_000)),
        ("refinedet320-r101-coco", 320, 32, 400_000, (280_000, 360_000)),
        ("refinedet512-r101-coco", 512, 20, 540_000, (400_000, 480_000)),
    ],
)
def test_the_papers_schedule(name: str, side: int, batch: int, length: int, drops: tuple[int, int]) -> None:
    recipe = get_recipe(name)
    plan = make_plan(recipe, 16_551)
    optimiser = to_tree(recipe)["stages"][0]["optimiser"]
    assert (plan.total, recipe.data.batch_size) == (length, batch)
    rates = [optimiser["lr"] * plan.stages[0].schedule(step) for step in (0, drops[0] - 1, drops[0], drops[1])]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])
    wanted = {"momentum": 0.9, "weight_decay": 5e-4, "bias_lr": 2.0, "decay_biases": False}
    assert {key: optimiser[key] for key in wanted} == wanted
    assert optimiser["decay_norms"] == ("r101" in name)
    train = to_tree(recipe)["data"]["train"]
    assert [t["kind"] for t in train] == ["photometric", "expand", "min_iou_crop", "warp", "flip"]
    assert train[3]["size"] == [side, side]
    post = settings(name).post
    assert (post.score_threshold, post.per_class, post.detections) == (0.01, 1000, 500)
    assert (post.nms, post.nms_iou) == (("soft_linear", 0.3) if name.endswith("coco") else ("greedy", 0.45))


def test_the_ablation_is_cumulative() -> None:
    names = ["refinedet320-vgg16", *(f"refinedet320-vgg16-no-{part}" for part in ("filtering", "two-step", "tcb"))]
    switches = [(s.floor > 0, s.two_step, s.tcb) for s in map(settings, names)]
    assert switches == [(True, True, True), (False, True, True), (False, False, True), (False, False, False)]
    recipes = [get_recipe(name) for name in names]
    expected = [recipe.source.expected for recipe in recipes]
    assert expected == [{"AP50": ap} for ap in (0.800, 0.795, 0.773, 0.762)]
    for recipe in recipes[1:]:
        same = replace(settings(recipe.name), floor=0.01, two_step=True, tcb=True)
        assert replace(recipe, name=names[0], detector=same, source=recipes[0].source) == recipes[0]
    small = [settings(name.replace("320-vgg16", "-small")) for name in names]
    assert [(s.floor > 0, s.two_step, s.tcb) for s in small] == switches


def built(recipe: Recipe) -> Detector:
    with torch.device("meta"):
        return build_detector(recipe.detector, CLASSES)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("refinedet320-vgg16", 320),
        ("refinedet512-vgg16", 512),
        ("refinedet512-r101-coco", 512),
        ("refinedet512-detnet59-coco", 512),
        ("refinedet-small", 256),
    ],
)
def test_the_modern_recipe_has_the_same_network_and_sees_as_many_images(name: str, side: int) -> None:
    paper, modern = get_recipe(name), get_recipe(f"{name}-modern")
    for recipe in (paper, modern):
        assert [t["size"] for t in to_tree(recipe)["data"]["eval"]] == [[side, side]]
    assert paper.data.batch_size == modern.data.batch_size
    assert [s.length for s in paper.stages] == [s.length for s in modern.stages]
    assert settings(name).post == settings(f"{name}-modern").post
    one, other = built(paper), built(modern)
    shapes = [{key: value.shape for key, value in network.state_dict().items()} for network in (one, other)]
    assert shapes[0] == shapes[1]
    assert to_tree(modern)["data"]["train"][3]["size"] == [side, side]


def test_sides_that_do_not_fit_are_refused_before_training() -> None:
    recipe = get_recipe("refinedet320-vgg16")
    train = tuple(WarpConfig(size=(300, 300)) if isinstance(t, WarpConfig) else t for t in recipe.data.train)
    with pytest.raises(InputError, match=r"data.train.3 makes is 300 x 300 .* multiples of 64; the nearest are 320"):
        check_inputs(built(recipe), replace(recipe.data, train=train))


class _Outputs(torch.nn.Module):
    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        return self.detector.outputs(pixels)


@pytest.mark.parametrize(
    ("name", "side", "giga", "million"),
    [
        ("refinedet320-vgg16", 320, 39.2, 33.4),
        ("refinedet-small", 256, 0.84, 1.65),
        ("refinedet-detnet-small", 256, 0.5, 1.22),
    ],
)
def test_cost(name: str, side: int, giga: float, million: float) -> None:
    detector = built(get_recipe(name))
    assert count_parameters(detector) / 1e6 == pytest.approx(million, rel=0.02)
    assert count_multiply_adds(_Outputs(detector), side) / 1e9 == pytest.approx(giga, rel=0.05)
