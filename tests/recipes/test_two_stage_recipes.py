"""The constants of Faster R-CNN's and R-FCN's papers, and the differences of their variants."""

from dataclasses import replace

import pytest
import torch

from boxwright.anchors.generator import AnchorGenerator
from boxwright.detectors.build import build_detector
from boxwright.recipes import RECIPES, get_recipe
from boxwright.structures import Classes, Level
from boxwright.training.plan import make_plan

VOC = Classes.from_names([f"class {i}" for i in range(20)])


def test_joint_training_is_the_authors() -> None:
    recipe = get_recipe("faster-rcnn-vgg16")
    (stage,) = recipe.stages
    schedule = make_plan(recipe, 5_011).stages[0].schedule
    assert [stage.optimiser.lr * schedule(s) for s in (0, 49_999, 50_000)] == pytest.approx([1e-3, 1e-3, 1e-4])
    assert (stage.length, recipe.data.batch_size, recipe.accumulation) == (70_000, 2, 2)
    assert (stage.optimiser.weight_decay, stage.optimiser.bias_lr) == (5e-4, 2.0)
    rpn, head = recipe.detector.rpn, recipe.detector.head
    assert (rpn.samples, rpn.positive_fraction, rpn.assign.positive_iou, rpn.assign.negative_iou) == (
        256,
        0.5,
        0.7,
        0.3,
    )
    assert (rpn.assign.straddle, rpn.nms_iou, rpn.post_nms, rpn.nms.min_size) == (0.0, 0.7, (2000, 300), 16.0)
    assert (head.samples, head.positive_fraction, head.hidden, head.dropout) == (128, 0.25, (4096, 4096), 0.5)
    assert (head.pooling.method, head.pooling.size, head.post.nms_iou) == ("pool", 7, 0.3)


def test_nine_anchors_have_the_papers_areas_and_ratios() -> None:
    anchors = AnchorGenerator(get_recipe("faster-rcnn-vgg16").detector.rpn.anchors, [Level("C5", 16, 512)])
    assert sorted({round((w * h) ** 0.5) for w, h in anchors.shapes}) == [128, 256, 512]
    assert sorted({round(h / w, 3) for w, h in anchors.shapes}) == [0.5, 1.0, 2.0]
    assert anchors.per_cell == [9]
    first = anchors([(1, 1)], torch.device("cpu"))
    assert torch.allclose((first[:, :2] + first[:, 2:]) / 2, torch.tensor(8.0)), "in the middle of the first cell"


def test_four_steps_are_the_papers() -> None:
    recipe = get_recipe("faster-rcnn-vgg16-4step")
    plan = make_plan(recipe, 5011)
    assert [s.steps for s in plan.stages] == [80_000, 40_000, 80_000, 40_000]
    assert [s.stage.schedule.milestones for s in plan.stages] == [(60_000,), (30_000,), (60_000,), (30_000,)]
    first, second, third, fourth = recipe.stages
    assert first.losses == third.losses == ("rpn_objectness", "rpn_box")
    assert second.losses == fourth.losses == ("classification", "box")
    assert (second.reset, second.proposals) == (("backbone",), "before")
    assert (third.reset, third.frozen) == (("rpn",), ("backbone",))
    assert (fourth.reset, fourth.frozen, fourth.proposals) == ((), ("backbone", "rpn"), "own")
    assert recipe.detector == get_recipe("faster-rcnn-vgg16").detector


def test_the_anchor_study_changes_anchors_alone() -> None:
    names = [name for name in RECIPES if name.startswith("faster-rcnn-vgg16-anchors-")]
    whole = get_recipe("faster-rcnn-vgg16-anchors-3x3")
    counts = {}
    for name in names:
        recipe = get_recipe(name)
        rpn = replace(recipe.detector.rpn, anchors=whole.detector.rpn.anchors)
        same = replace(recipe, name=whole.name, source=whole.source, detector=replace(recipe.detector, rpn=rpn))
        assert same == whole
        anchors = recipe.detector.rpn.anchors
        counts[name.rsplit("anchors-", 1)[1]] = (len(anchors.sizes[0]), len(anchors.ratios))
    assert counts == {
        "1x1-128": (1, 1), "1x1-256": (1, 1), "1x3-128": (1, 3), "1x3-256": (1, 3), "3x1": (3, 1), "3x3": (3, 3),
    }  # fmt: skip


def test_rfcn_is_the_papers() -> None:
    recipe = get_recipe("rfcn-r101-voc")
    (stage,) = recipe.stages
    assert (stage.length, stage.schedule.milestones, stage.optimiser.lr) == (30_000, (20_000,), 1e-3)
    assert recipe.data.batch_size == 8
    with torch.device("meta"):
        detector = build_detector(recipe.detector, VOC)
    assert [(level.name, level.stride) for level in detector.backbone.levels] == [("C4", 16), ("C5", 16)]
    assert detector.head.scores.out_channels == 49 * 21 == 1029
    assert detector.head.deltas.out_channels == 4 * 49
    assert detector.head.reduce.out_channels == 1024
    head = recipe.detector.head
    assert (head.ohem, head.samples, recipe.detector.rpn.post_nms, head.post.nms_iou) == (True, 128, (300, 300), 0.3)


def test_four_step_training_has_the_same_network() -> None:
    assert get_recipe("faster-rcnn-c4-small-4step").detector == get_recipe("faster-rcnn-c4-small").detector
