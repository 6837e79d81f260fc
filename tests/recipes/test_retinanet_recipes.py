"""RetinaNet's recipes have the constants of the paper, and each ablation changes one of them."""

import pytest
import torch

from boxwright.config.config_tree import leaf_paths, to_tree
from boxwright.detectors.retinanet import RetinaNet, RetinaNetConfig
from boxwright.recipes import get_recipe
from boxwright.recipes.retinanet import ALPHA_RECIPES, ANCHOR_RECIPES, GAMMA_RECIPES, R50_600
from boxwright.structures import Classes
from boxwright.training.plan import make_plan

CLASSES = Classes.from_names(["a", "b", "c"])


def differences(one: object, other: object) -> set[str]:
    """Return the dotted keys whose values differ; a table of another kind counts once."""
    a, b = to_tree(one), to_tree(other)
    found = set()
    for path in sorted(set(leaf_paths(a)) | set(leaf_paths(b)), key=len):
        if any(path[: len(seen.split("."))] == tuple(seen.split(".")) for seen in found):
            continue
        x, y = a, b
        for key in path:
            x, y = (t[int(key)] if isinstance(t, list) else t.get(key) for t in (x, y))
            if x is None or y is None or not isinstance(x, type(y)):
                break
        if x != y and not (isinstance(x, dict) and isinstance(y, dict)):
            found.add(".".join(path))
    return found


def detector_of(name: str) -> RetinaNetConfig:
    config = get_recipe(name).detector
    assert isinstance(config, RetinaNetConfig)
    return config


def test_the_recipe_is_the_papers() -> None:
    """§4.1 and §5; warm-up, longest side and beta are Detectron's."""
    recipe = get_recipe("retinanet-r50-fpn")
    (stage,) = recipe.stages
    plan = make_plan(recipe, 118_287)
    rates = [stage.optimiser.lr * plan.stages[0].schedule(s) for s in (0, 500, 60_000, 80_000)]
    assert (plan.total, recipe.data.batch_size) == (90_000, 16)
    assert rates == pytest.approx([0.01 / 3, 0.01, 0.001, 0.0001])
    tree = to_tree(recipe)
    assert tree["stages"][0]["optimiser"]["momentum"] == 0.9
    assert tree["stages"][0]["optimiser"]["weight_decay"] == 1e-4
    resize, flip = tree["data"]["train"]
    assert (resize["kind"], resize["short"], resize["long"]) == ("resize", [800], 1333)
    assert (flip["kind"], flip["p"], flip["vertical_p"]) == ("flip", 0.5, 0.0)
    detector = tree["detector"]
    assert (detector["loss"]["gamma"], detector["loss"]["alpha"], detector["head"]["prior"]) == (2.0, 0.25, 0.01)
    assert (detector["assign"]["positive_iou"], detector["assign"]["negative_iou"], detector["loss"]["normalizer"]) == (
        0.5,
        0.4,
        "batch",
    )
    assert (detector["head"]["convs"], detector["head"]["norm"], detector["neck"]["channels"]) == (4, "none", 256)
    assert (detector["post"]["score_threshold"], detector["post"]["candidates"]) == (0.05, 1000)
    assert (detector["post"]["nms_iou"], detector["post"]["detections"]) == (0.5, 100)
    assert (detector["backbone"]["norm"], detector["backbone"]["freeze_at"]) == ("frozen_bn", 2)


@pytest.mark.parametrize(
    ("name", "strides"),
    [("retinanet-r50-fpn", [8, 16, 32, 64, 128]), ("retinanet-detnet59-fpn", [8, 16, 16, 16, 32])],
)
def test_levels(name: str, strides: list[int]) -> None:
    with torch.device("meta"):
        levels = RetinaNet(detector_of(name), CLASSES).neck.levels
    assert [level.name for level in levels] == ["P3", "P4", "P5", "P6", "P7"]
    assert [level.stride for level in levels] == strides


def test_ablations_change_nothing_else() -> None:
    assert len(GAMMA_RECIPES) == len(ALPHA_RECIPES) == len(ANCHOR_RECIPES) == 7
    allowed = {"name", "source.section"}
    for recipe in GAMMA_RECIPES + ALPHA_RECIPES:
        changed = {key for key in differences(R50_600, recipe) if not key.startswith("source.")} - allowed
        assert changed <= {"detector.loss.gamma", "detector.loss.alpha"}, recipe.name
    for recipe in ANCHOR_RECIPES:
        changed = {key for key in differences(R50_600, recipe) if not key.startswith("source.")} - allowed
        assert all(key.startswith("detector.anchors.") for key in changed), recipe.name
    half = "retinanet-r50-600-gamma-0.5"
    assert (detector_of(half).loss.gamma, detector_of(half).loss.alpha) == (0.5, 0.5)
    assert get_recipe(half).source.expected == {"AP": 0.329, "AP50": 0.517, "AP75": 0.352}
    assert detector_of("retinanet-r50-600-alpha-0.999").loss.alpha == 0.999


@pytest.mark.parametrize(("name", "count"), [("1x1", 1), ("2x1", 2), ("1x3", 3), ("3x3", 9), ("4x3", 12)])
def test_anchors_a_cell(name: str, count: int) -> None:
    anchors = detector_of(f"retinanet-r50-600-anchors-{name}").anchors
    assert [len(sizes) * len(anchors.ratios) for sizes in anchors.sizes] == [count] * 5
