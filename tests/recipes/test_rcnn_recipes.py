"""R-CNN's recipes: the paper's constants, the ablation of labels, and modern recipes of the same detector."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from boxwright.backbones.count import count_multiply_adds
from boxwright.config.recipe import FitStage, Recipe, Stage
from boxwright.detectors.build import build_detector
from boxwright.detectors.rcnn import RCNNConfig
from boxwright.recipes import get_recipe
from boxwright.structures import Classes
from boxwright.training.optimisation.optimiser import build_optimiser
from boxwright.training.plan import make_plan

CLASSES = Classes.from_names(["a", "b", "c"])


def detector_of(recipe: Recipe) -> RCNNConfig:
    assert isinstance(recipe.detector, RCNNConfig)
    return recipe.detector


def test_the_papers_constants() -> None:
    """R-CNN §2.3, appendices A and C."""
    recipe = get_recipe("rcnn-vgg16")
    config, tuning = detector_of(recipe), recipe.stages[0]
    assert isinstance(tuning, Stage)
    assert (config.warp.size, config.warp.context, config.warp.mode) == (224, 16, "warp")
    windows = config.windows.count * recipe.data.batch_size
    assert (windows, windows * config.windows.positive_fraction) == (128, 32)
    assert config.post.nms_iou == 0.3
    plan = make_plan(recipe, 5011)
    rates = [1e-3 * plan.stages[0].schedule(step) for step in (0, 20_000, 40_000, 60_000)]  # type: ignore[misc]
    assert rates == pytest.approx([1e-3, 1e-4, 1e-5, 1e-6])
    assert [stage.steps for stage in plan.stages] == [70_000, 2 * 5011, 5011]
    with torch.device("meta"):
        detector = build_detector(config, CLASSES)
    assert detector.get_buffer("svm_weight").shape == (3, 4096)
    assert detector.get_buffer("box_weight").shape == (3, 4, 25088)
    groups = build_optimiser(tuning.optimiser, detector, 16).param_groups
    rate_of = {id(p): group["base_lr"] for group in groups for p in group["params"]}
    rates = {name: rate_of[id(p)] for name, p in detector.named_parameters()}
    assert rates["scores.weight"] == pytest.approx(1e-2), "ten times the rest"
    assert rates["scores.bias"] == pytest.approx(2e-2), "and twenty for its biases"
    assert (rates["fc.0.weight"], rates["fc.0.bias"]) == pytest.approx((1e-3, 2e-3))


def test_networks_in_place_of_the_papers() -> None:
    shapes = {"rcnn-zf": (4096, 9216), "rcnn-r50": (2048, 8192), "rcnn-detnet59": (1024, 9216)}
    for name, (fc7, pool5) in shapes.items():
        with torch.device("meta"):
            detector = build_detector(get_recipe(name).detector, CLASSES)
        assert (detector.get_buffer("svm_weight").shape[1], detector.get_buffer("box_weight").shape[2]) == (fc7, pool5)


@pytest.mark.parametrize(
    "name", ["rcnn-vgg16", "rcnn-zf", "rcnn-r50", "rcnn-detnet59", "rcnn-small", "rcnn-detnet-small"]
)
def test_a_modern_recipe_has_the_same_detector(name: str) -> None:
    one, other = get_recipe(name), get_recipe(f"{name}-modern")
    same = replace(detector_of(other), windows=detector_of(one).windows)
    assert same == one.detector, "only its training samples differ"
    assert one.stages[0].length == other.stages[0].length  # type: ignore[union-attr]
    assert (one.data.eval, one.stages[1:]) == (other.data.eval, other.stages[1:])


@pytest.mark.parametrize("base", ["rcnn-vgg16", "rcnn-small"])
def test_answers_differ_in_labels_alone(base: str) -> None:
    recipe = get_recipe(base)
    softmax, overlap, truth = (get_recipe(f"{base}-{a}") for a in ("softmax", "svm-overlap", "tune-truth"))
    assert replace(softmax, name=base, detector=recipe.detector, stages=recipe.stages) == recipe
    assert [stage.name for stage in softmax.stages] == ["fine-tuning", "boxes"]
    assert detector_of(softmax).score == "softmax"
    assert overlap.detector == recipe.detector
    svms = overlap.stages[1]
    assert isinstance(svms, FitStage)
    assert svms.fit.kind == "svm"
    assert (svms.fit.positives, svms.fit.positive_iou, svms.fit.negative_iou) == ("overlap", 0.5, 0.5)
    assert truth.stages == recipe.stages
    windows = detector_of(truth).windows
    assert (windows.positives, windows.negative_iou) == ("truth", 0.3)


def test_small_networks_are_small() -> None:
    costs = {}
    for name in ("rcnn-small", "rcnn-detnet-small"):
        config = detector_of(get_recipe(name))
        costs[name] = count_multiply_adds(build_detector(config, CLASSES).get_submodule("backbone"), config.warp.size)
    assert max(costs.values()) < 45e6
