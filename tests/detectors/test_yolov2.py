"""YOLOv2: its loss against loops, its decoding and stacking against computed values."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from boxwright.backbones.darknet import DarknetConfig
from boxwright.detectors.yolov2 import (
    YOLOv2,
    YOLOv2Config,
    stack_cells,
)
from boxwright.recipes.yolov2 import VOC_ANCHORS_2017
from boxwright.structures import Classes, InputError
from tests.support.batches import (
    answering,
    blank_images,
    example_images,
    example_targets,
    padded_targets,
    relative_boxes,
)
from tests.support.options import with_options
from tests.support.region_by_hand import region_pulls
from tests.support.yolo_cases import SMALL_YOLOV2

CLASSES = Classes.from_names(["disc", "bar", "ring"])
TINY = DarknetConfig(variant="tiny_v2", out_levels=(5,))


# Two in one cell of one shape (the later wins), two in one cell of other shapes, one larger than every anchor.
CROWDED = padded_targets(
    [
        [[33, 35, 60, 62], [34, 36, 62, 60], [70, 70, 90, 92], [65, 66, 95, 95], [2, 2, 150, 120]],
        [[100, 40, 150, 60], [0, 0, 31, 31]],
        [],
    ],
    [[0, 1, 2, 0, 1], [2, 1], []],
)


@pytest.mark.parametrize("seen", [0, 12_799, 12_800])
@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"match": "prediction"},
        {"favour_small": True, "rescore": False},
        {"coord": 2.0, "object": 3.0, "noobject": 0.7, "quiet": 0.3},
    ],
)
def test_loss_and_gradient_are_those_of_the_rules(seen: int, rules: dict[str, Any]) -> None:
    height, width, (rows, columns) = 128, 160, (4, 5)
    paths = {"coord": "loss.coord_scale", "object": "loss.object_scale", "noobject": "loss.noobject_scale",
             "match": "assign.match", "quiet": "assign.quiet", "favour_small": "loss.favour_small",
             "rescore": "loss.rescore"}  # fmt: skip
    config = with_options(SMALL_YOLOV2, {paths[key]: value for key, value in rules.items()})
    detector = YOLOv2(config, CLASSES)
    detector.seen.fill_(seen)
    anchors = list(SMALL_YOLOV2.anchors)
    torch.manual_seed(seen)
    out = torch.randn(3, len(anchors) * 8, rows, columns, requires_grad=True)
    # Predictors that see an object well: rule 1's exception must be in the comparison.
    with torch.no_grad():
        out[0, :4, 2, 2] = torch.tensor([0.0, 0.0, -0.1, -0.1])
        out[1, :4, 0, 0] = torch.tensor([-0.1, 0.1, 0.0, 0.0])
    losses = answering(detector, out)(blank_images(3, height, width), CROWDED)
    torch.stack(list(losses.values())).sum().backward()
    expected = [
        region_pulls(out[b].detach().numpy(), relative_boxes(CROWDED, b, height, width), anchors, seen, **rules)
        for b in range(3)
    ]
    for name, value in losses.items():
        assert value.item() == pytest.approx(sum(each[name] for each, _ in expected) / 3, rel=1e-5, abs=1e-6), name
    assert out.grad is not None
    np.testing.assert_allclose(out.grad * 3, np.stack([g for _, g in expected]), atol=2e-6, rtol=1e-4)
    assert (losses["prior"].item() > 0) == (seen < 12_800)


def test_the_exception_of_rule_1_matters_in_that_comparison() -> None:
    """A predictor without an object that overlaps one by more than 0.6 gets no gradient of its objectness."""
    detector = YOLOv2(SMALL_YOLOV2, CLASSES)
    out = torch.zeros(1, 24, 4, 5)
    out[0, 2:4] = -5
    out[0, :4, 1, 1] = torch.tensor([0.0, 0.0, math.log(1.7), math.log(1.3)])  # anchor 0 sees it, anchor 1 fits it
    out.requires_grad_(True)
    objects = padded_targets([[[21.0, 27, 75, 69]]], [[0]])
    answering(detector, out)(blank_images(1, 128, 160), objects)["objectness"].backward()
    assert out.grad is not None
    slope = out.grad[0].unflatten(0, (3, 8))[:, 4]
    assert slope[0, 1, 1] == 0
    assert slope[1, 1, 1] < 0, "the owner is pulled up"
    assert (slope > 0).sum() == 3 * 4 * 5 - 2


def test_only_training_counts_images_and_ends_the_prior() -> None:
    detector = YOLOv2(with_options(SMALL_YOLOV2, {"loss.prior_images": 3}), CLASSES)
    images, targets = example_images(2, 128, 160), example_targets()
    assert detector.eval()(images, targets)["prior"] > 0
    assert int(detector.seen) == 0
    detector.train()
    priors = [detector(images, targets)["prior"].item() for _ in range(3)]
    assert priors[0] > 0
    assert priors[1] > 0, "the third image is in this batch"
    assert priors[2] == 0
    assert int(detector.seen) == 6
    assert "seen" in detector.state_dict(), "a resumed run goes on counting"


def test_only_the_first_thirty_objects_and_no_specks() -> None:
    specks = [[20.0 * (i % 8), 15.0 * (i // 8), 20.0 * (i % 8) + 18, 15.0 * (i // 8) + 13] for i in range(40)]
    many = padded_targets([specks], [[0] * 40])
    out = torch.randn(1, 24, 4, 5)
    detector = answering(YOLOv2(SMALL_YOLOV2, CLASSES), out)
    images, first = blank_images(1, 128, 160), padded_targets([specks[:30]], [[0] * 30])
    capped, thirty = detector(images, many), detector(images, first)
    for name in capped:
        torch.testing.assert_close(capped[name], thirty[name])
    open_ended = answering(YOLOv2(with_options(SMALL_YOLOV2, {"assign.most_objects": None}), CLASSES), out)
    assert open_ended(images, many)["box"] != capped["box"]
    thin = padded_targets([[[10.0, 10, 10.1, 90]]], [[0]])  # 0.0006 of the width
    assert detector(images, thin)["box"] == 0


def test_difficult_objects_and_crowds() -> None:
    images, targets = example_images(2, 128, 160), example_targets()
    torch.manual_seed(0)
    detector = YOLOv2(SMALL_YOLOV2, CLASSES).eval()
    wary = YOLOv2(with_options(SMALL_YOLOV2, {"assign.difficult": False}), CLASSES).eval()
    wary.load_state_dict(detector.state_dict())
    hard = targets._replace(difficult=targets.valid)
    assert detector(images, hard)["box"] == detector(images, targets)["box"] > 0
    assert wary(images, hard)["box"] == 0
    assert detector(images, targets._replace(crowd=targets.valid))["box"] == 0


def test_decoding() -> None:
    """One cell of a 13 x 13 map, with values computed by the paper's formula in float64."""
    config = replace(SMALL_YOLOV2, anchors=VOC_ANCHORS_2017)
    out = torch.zeros(1, 40, 13, 13)
    out[0, 8:12, 4, 6] = torch.tensor([0.3, -0.2, 0.1, -0.4])  # the second anchor
    boxes = YOLOv2(config, CLASSES).predictions(out).boxes.reshape(13, 13, 5, 4)
    x1, y1, x2, y2 = (boxes[4, 6, 1] / 416).tolist()
    found = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
    assert found == pytest.approx((0.505726, 0.342320, 0.271426, 0.206739), abs=2e-6)


def test_stacking_cells() -> None:
    x = torch.arange(64.0).reshape(1, 4, 4, 4)
    darknet = stack_cells(x, 2)[0].flatten(1)
    assert darknet[:5].tolist() == [
        [0, 2, 4, 6], [16, 18, 20, 22], [32, 34, 36, 38], [48, 50, 52, 54], [1, 3, 5, 7]
    ]  # fmt: skip
    assert sorted(darknet.flatten().tolist()) == list(range(64))


def float_count(config: YOLOv2Config, classes: int) -> int:
    with torch.device("meta"):
        detector = YOLOv2(config, Classes.from_names([str(i) for i in range(classes)]))
    return sum(t.numel() for t in detector.state_dict().values() if t.is_floating_point())


@pytest.mark.parametrize(
    ("config", "classes", "floats"),
    [
        (YOLOv2Config(), 20, 67_158_109),
        (with_options(YOLOv2Config(), {"head.narrow": 64}), 20, 50_676_061),
        (with_options(YOLOv2Config(), {"head.narrow": 64}), 80, 50_983_561),
        (with_options(YOLOv2Config(backbone=TINY), {"head.convs": (), "head.passthrough": None}), 20, 15_867_885),
        (
            with_options(YOLOv2Config(backbone=TINY), {"head.convs": (), "head.passthrough": None, "head.merged": 512}),
            80,
            11_237_145,
        ),
    ],
)
def test_numbers_of_the_published_networks(config: YOLOv2Config, classes: int, floats: int) -> None:
    """Number of floats in the weight files of the five cfgs, with the statistics of batch norms."""
    assert float_count(config, classes) == floats


def test_inputs_are_multiples_of_32() -> None:
    detector = YOLOv2(SMALL_YOLOV2, CLASSES).eval()
    with pytest.raises(InputError, match=r"multiples of 32; the nearest are 128 x 160"):
        detector(example_images(1, 128, 176)._replace(pixels=torch.zeros(1, 3, 120, 150, dtype=torch.uint8)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.passthrough": "C3"}, r"the backbone gives C4, C5; name one before the last \(C5\)"),
        ({"head.passthrough": "C5"}, "name one before the last"),
        ({"head.narrow": 6}, "a multiple of 4 channels, but C4 gives 6"),
        ({"anchors": ()}, r"anchors = \(\): should have at least 1 item"),
        ({"anchors": ((1.0, 0.0),)}, r"anchors.0.1 = 0.0: should be greater than 0"),
        ({"reach": 0.5}, "reach = 0.5: should be greater than or equal to 1"),
        ({"assign.quiet": 2.0}, "quiet = 2.0: should be less than or equal to 1"),
        ({"assign.fit": 0.5}, "fit = 0.5: should be greater than or equal to 1"),
        ({"assign.most_objects": 0}, "most_objects = 0: should be greater than or equal to 1"),
    ],
)
def test_bad_configurations(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        YOLOv2(with_options(SMALL_YOLOV2, change), CLASSES)


def test_a_wider_reach_and_more_owners() -> None:
    """With the modern assignment nearby cells also have an object, and can predict a box at its centre."""
    changes = {"reach": 2.0, "assign.method": "near", "loss.box": "giou", "loss.prior_images": 0}
    wide = with_options(SMALL_YOLOV2, changes)
    detector = YOLOv2(wide, CLASSES)
    out = torch.zeros(1, 24, 4, 5)
    objects = padded_targets(
        [[[40.0, 40, 72, 72]]], [[0]]
    )  # centre (56, 56): cell 1, 1, the nearest corner is (64, 64)
    owners = detector.matcher(detector.predictions(out).boxes / 32, objects.boxes / 32, objects.valid, (4, 5))[
        1
    ].reshape(4, 5, 3)
    assert owners.any(-1).nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    leaf = out.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([leaf], lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        sum(answering(detector, leaf)(blank_images(1, 128, 160), objects).values()).backward()  # type: ignore[union-attr]
        optimiser.step()
    boxes = detector.predictions(leaf.detach()).boxes.reshape(4, 5, 3, 4)[owners]
    torch.testing.assert_close(boxes, objects.boxes[0].expand_as(boxes), atol=1.5, rtol=0)


def test_one_predictor_takes_the_object_it_overlaps_most() -> None:
    config = with_options(SMALL_YOLOV2, {"anchors": ((1.0, 1.0),), "assign.method": "near"})
    matcher = YOLOv2(config, CLASSES).matcher
    truth = torch.tensor([[[0.2, 0.2, 1.2, 1.2], [0.1, 0.1, 0.7, 0.7]]])
    seen = torch.tensor([[[0.1, 0.1, 0.8, 0.8], [0.9, 0.0, 2.0, 1.0], [0.0, 0.9, 1.0, 2.0], [1.0, 1.0, 2.0, 2.0]]])
    owner, positive = matcher(seen, truth, torch.ones(1, 2, dtype=torch.bool), (2, 2))
    assert positive.tolist() == [[True, True, True, True]]
    assert owner.tolist() == [[1, 0, 0, 0]]
