"""YOLOv3's recipes hold the constants of Darknet's cfg files; a modern recipe trains the same network."""

from dataclasses import replace

import pytest
import torch

from boxwright.backbones.count import count_parameters
from boxwright.config.recipe import Recipe, SGDConfig, scaled_lr
from boxwright.data.transforms.configs import DarknetJitterConfig, HSVJitterConfig, LetterboxConfig
from boxwright.data.transforms.multi_scale import MultiScaleConfig
from boxwright.detectors.build import build_detector
from boxwright.detectors.yolov3 import YOLOv3, YOLOv3Config
from boxwright.recipes import get_recipe
from boxwright.structures import Classes
from boxwright.training.plan import make_plan


def built(recipe: Recipe) -> YOLOv3:
    with torch.device("meta"):
        detector = build_detector(recipe.detector, Classes.from_names(["a", "b"]))
    assert isinstance(detector, YOLOv3)
    return detector


@pytest.mark.parametrize("name", ["yolov3", "yolov3-608", "yolov3-spp", "yolov3-tiny"])
def test_training_is_that_of_the_cfg_files(name: str) -> None:
    """batch=64, learning_rate=.001, burn_in=1000, max_batches=500200, steps=400000,450000, jitter=.3, random=1."""
    recipe = get_recipe(name)
    assert isinstance(recipe.detector, YOLOv3Config)
    plan = make_plan(recipe, 117_264)
    assert plan.total == 500_200
    optimiser = recipe.stages[0].optimiser
    assert isinstance(optimiser, SGDConfig)
    assert (optimiser.momentum, optimiser.weight_decay) == (0.9, 5e-4)
    assert not optimiser.decay_norms
    assert not optimiser.decay_biases
    lr = scaled_lr(optimiser, recipe.data.batch_size)
    at = {0: 0.0, 500: 1e-3 / 16, 1000: 1e-3, 399_999: 1e-3, 400_000: 1e-4, 450_000: 1e-5}
    assert [lr * plan.stages[0].schedule(step) for step in at] == pytest.approx(list(at.values()))
    assert recipe.data.train[0] == DarknetJitterConfig(size=(416, 416), jitter=0.3)
    assert recipe.data.train[1] == HSVJitterConfig(hue=0.1, saturation=1.5, value=1.5)
    assert recipe.data.multi_scale == MultiScaleConfig(low=320, high=608, every=10, last=200, last_size=608)
    side = 608 if name in ("yolov3-608", "yolov3-spp") else 416
    assert recipe.data.eval == (LetterboxConfig(size=(side, side)),)
    assert recipe.detector.assign.ignore_iou == 0.7
    post = recipe.detector.post
    assert (post.score_threshold, recipe.detector.object_threshold, post.nms_iou) == (0.005, 0.005, 0.45)
    assert recipe.detector.multi_label


def test_the_tiny_masks_are_those_that_its_weights_were_trained_with() -> None:
    detector = get_recipe("yolov3-tiny").detector
    assert isinstance(detector, YOLOv3Config)
    assert detector.masks == ((1, 2, 3), (3, 4, 5))


@pytest.mark.parametrize("name", ["yolov3-modern", "yolov3-tiny-modern", "yolov3-small-modern"])
def test_a_modern_recipe_trains_the_same_network(name: str) -> None:
    paper, modern = get_recipe(name.removesuffix("-modern")).detector, get_recipe(name).detector
    assert isinstance(paper, YOLOv3Config)
    assert isinstance(modern, YOLOv3Config)
    assert replace(modern.scales, prior=None) == paper.scales, "only the initial objectness differs"
    for part in ("backbone", "anchors", "masks", "pixels", "post"):
        assert getattr(paper, part) == getattr(modern, part), part
    assert get_recipe(name.removesuffix("-modern")).data.eval == get_recipe(name).data.eval
    assert paper.assign.method == "best"
    assert modern.assign.method == "aligned"


def test_detnet_takes_the_place_of_darknet() -> None:
    detector = built(get_recipe("yolov3-detnet59"))
    assert [level.stride for level in detector.backbone.levels] == [8, 16, 16]
    assert detector.input_multiple == 16
    assert count_parameters(detector) < count_parameters(built(get_recipe("yolov3")))


def test_the_small_network_is_the_papers_but_for_its_size() -> None:
    paper = get_recipe("yolov3-small")
    assert isinstance(paper.detector, YOLOv3Config)
    plain = replace(paper.detector, backbone=YOLOv3Config().backbone, scales=YOLOv3Config().scales, norm_momentum=None)
    assert replace(plain, anchors=YOLOv3Config().anchors, assign=YOLOv3Config().assign) == YOLOv3Config()
