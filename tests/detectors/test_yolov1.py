"""YOLOv1: its loss against loops, the layout of its output, its locally connected layer, its published networks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from boxwright.anchors.matching.cell_assignment import CellAssignConfig
from boxwright.backbones.darknet import DarknetConfig
from boxwright.backbones.layers.local import LocalLayer
from boxwright.detectors.yolov1 import YOLOv1, YOLOv1Config, YOLOv1HeadConfig
from boxwright.structures import Classes, Images, InputError
from tests.support.batches import answering, blank_images, example_images, padded_targets, relative_boxes
from tests.support.options import with_options
from tests.support.region_by_hand import detection_pulls
from tests.support.yolo_cases import SMALL_YOLOV1, SMALL_YOLOV1_MODERN

CLASSES = Classes.from_names(["disc", "bar", "ring"])
GRID = SMALL_YOLOV1.grid
LENGTH = GRID * GRID * (3 + 5 * 2)
# Apart from each other, one across most of the image, one too thin to be assigned.
OBJECTS = padded_targets(
    [
        [[33, 35, 60, 62], [70, 70, 95, 92], [2, 2, 150, 150], [120, 10, 120.5, 40]],
        [[100, 40, 158, 60]],
        [],
    ],
    [[0, 1, 2, 0], [1], []],
)


@pytest.mark.parametrize("rescore", [True, False])
def test_loss_and_gradient_are_those_of_the_rules(rescore: bool) -> None:
    detector = YOLOv1(with_options(SMALL_YOLOV1, {"loss.rescore": rescore}), CLASSES)
    torch.manual_seed(1)
    out = (torch.randn(3, LENGTH) * 0.6).requires_grad_(True)
    losses = answering(detector, out)(blank_images(3, 160, 160), OBJECTS)
    torch.stack(list(losses.values())).sum().backward()
    expected = [
        detection_pulls(out[b].detach().numpy(), relative_boxes(OBJECTS, b, 160, 160), GRID, 2, rescore)
        for b in range(3)
    ]
    for name, value in losses.items():
        assert value.item() == pytest.approx(sum(each[name] for each, _ in expected) / 3, rel=1e-5), name
    assert out.grad is not None
    np.testing.assert_allclose(out.grad * 3, np.stack([g for _, g in expected]), atol=2e-6, rtol=1e-4)


def test_boxes_that_touch_nothing_are_chosen_by_their_error() -> None:
    """All outputs are 0 and boxes have no size, as in a new network."""
    out = torch.zeros(1, LENGTH)
    out[0, -200:].view(25, 2, 4)[:, 1, :2] = 0.4
    out.requires_grad_(True)
    objects = padded_targets([[[33.0, 35, 60, 62]]], [[0]])  # its centre is 0.45, 0.52 of a cell from the cell's corner
    answering(YOLOv1(SMALL_YOLOV1, CLASSES), out)(blank_images(1, 160, 160), objects)["box"].backward()
    assert out.grad is not None
    slope = out.grad[0, -200:].view(25, 2, 4)
    assert (slope != 0).any(-1).nonzero().tolist() == [[6, 1]]
    _, expected = detection_pulls(out[0].detach().numpy(), relative_boxes(objects, 0, 160, 160), GRID, 2)
    np.testing.assert_allclose(slope.flatten(), expected[-200:], atol=1e-6)


def test_one_object_a_cell_drawn_anew_for_each_seed() -> None:
    pair = padded_targets([[[33.0, 35, 60, 62], [40, 36, 50, 60]]], [[0, 1]])
    torch.manual_seed(2)
    out = torch.randn(1, LENGTH)
    detector = answering(YOLOv1(SMALL_YOLOV1, CLASSES), out)
    objects = relative_boxes(pair, 0, 160, 160)
    either = [detection_pulls(out[0].numpy(), order, GRID, 2)[0]["box"] for order in (objects, objects[::-1])]
    assert either[0] != pytest.approx(either[1])
    found = [
        detector(blank_images(1, 160, 160)._replace(seeds=torch.tensor([s])), pair)["box"].item() for s in range(20)
    ]
    first = [value == pytest.approx(either[0], rel=1e-5) for value in found]
    second = [value == pytest.approx(either[1], rel=1e-5) for value in found]
    assert all(a != b for a, b in zip(first, second, strict=True))
    assert 3 < sum(first) < 17


def test_flat_layout_is_darknets() -> None:
    """K = 20, S = 7: class c of cell i at 20 i + c, confidences from 980, boxes from 1078 (or 1127 with three)."""
    classes = Classes.from_names([str(i) for i in range(20)])
    out = torch.arange(49 * 35.0).unsqueeze(0)
    for each, first in ((2, 1078), (3, 1127)):
        detector = YOLOv1(replace(SMALL_YOLOV1, grid=7, boxes=each), classes)
        found = detector.predictions(out[:, : 49 * (20 + 5 * each)])
        assert found.classes[0, 30, 4] == 20 * 30 + 4
        assert found.confidence[0, 30, 1] == 980 + each * 30 + 1
        assert found.coded[0, 30, 1].tolist() == [first + 4 * (each * 30 + 1) + slot for slot in range(4)]


def test_cells_layout_is_the_papers_tensor() -> None:
    found = YOLOv1(with_options(SMALL_YOLOV1, {"head.layout": "cells"}), CLASSES).predictions(
        torch.arange(float(LENGTH)).unsqueeze(0)
    )
    assert found.coded[0, 7, 1].tolist() == [7 * 13 + 5 + slot for slot in range(4)]
    assert found.confidence[0, 7, 1] == 7 * 13 + 9
    assert found.classes[0, 7].tolist() == [7 * 13 + 10 + c for c in range(3)]


def test_both_layouts_say_the_same() -> None:
    flat, cells = YOLOv1(SMALL_YOLOV1, CLASSES), YOLOv1(with_options(SMALL_YOLOV1, {"head.layout": "cells"}), CLASSES)
    vector = torch.randn(1, LENGTH)
    parts = cells.predictions(vector)
    other = torch.cat([parts.classes.flatten(1), parts.confidence.flatten(1), parts.coded.flatten(1)], dim=1)
    torch.testing.assert_close(flat.predictions(other), parts)


def test_decoding() -> None:
    out = torch.zeros(1, LENGTH)
    out[0, -200:].view(25, 2, 4)[7, 1] = torch.tensor([0.25, 0.5, 0.5, -0.3])  # cell: row 1, column 2
    box = YOLOv1(SMALL_YOLOV1, CLASSES).predictions(out).boxes[0, 7, 1]
    # Centre (2.25, 1.5) cells of 32 pixels; sides 0.25 and 0.09 of 160 pixels, whatever the sign of the root.
    assert box.tolist() == pytest.approx([72 - 20, 48 - 7.2, 72 + 20, 48 + 7.2], abs=1e-4)


def test_local_layer_is_a_convolution_where_all_places_share_their_weights() -> None:
    torch.manual_seed(0)
    layer, x = LocalLayer(5, 4, 3, 6), torch.randn(2, 5, 3, 6)
    shared = torch.randn(4, 5, 3, 3)
    with torch.no_grad():
        layer.weight.copy_(shared.reshape(1, 4, 45).expand(18, -1, -1))
        layer.bias.copy_(torch.arange(4.0)[:, None, None].expand(4, 3, 6))
    torch.testing.assert_close(layer(x), F.conv2d(x, shared, torch.arange(4.0), padding=1), atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        layer.weight[7] = 0
    assert (layer(x)[:, :, 1, 1] == torch.arange(4.0)).all(), "place 7 is row 1, column 1"


@pytest.mark.parametrize(
    ("config", "floats"),
    [
        (YOLOv1Config(), 271_703_550),
        (YOLOv1Config(backbone=DarknetConfig(variant="yolov1", out_levels=(6,)), boxes=3,
                      head=YOLOv1HeadConfig(hidden=(), local=256)), 197_328_243),
        (YOLOv1Config(backbone=DarknetConfig(variant="yolov1_fast", norm="none", out_levels=(6,)),
                      head=YOLOv1HeadConfig(hidden=(256, 4096))), 45_089_374),
        (YOLOv1Config(backbone=DarknetConfig(variant="yolov1_tiny", out_levels=(6,)),
                      head=YOLOv1HeadConfig(hidden=())), 27_099_950),
    ],
    ids=["2015", "2016 local", "2015 tiny", "tiny v1"],
)  # fmt: skip
def test_numbers_of_the_published_networks(config: YOLOv1Config, floats: int) -> None:
    """Number of floats in the weight files for VOC, with the statistics of batch norms."""
    with torch.device("meta"):
        detector = YOLOv1(config, Classes.from_names([str(i) for i in range(20)]))
    assert detector.input_size == (448, 448)
    assert sum(t.numel() for t in detector.state_dict().values() if t.is_floating_point()) == floats


def test_the_input_is_one_size() -> None:
    detector = YOLOv1(SMALL_YOLOV1, CLASSES).eval()
    with pytest.raises(InputError, match=r"is 128 x 160 pixels .* takes exactly 160 x 160"):
        detector(example_images(1, 128, 160))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": 0}, "grid = 0: should be greater than or equal to 1"),
        ({"head.dropout": 1.0}, "dropout = 1.0: should be less than 1"),
        ({"norm_momentum": 0.0}, "norm_momentum = 0.0: should be greater than 0"),
    ],
)
def test_bad_configurations(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_options(SMALL_YOLOV1, change)
    with pytest.raises(InputError, match=r"radius = 0\.4: should be greater than or equal to 0\.5"):
        CellAssignConfig(method="near", radius=0.4)


@pytest.mark.parametrize("layout", ["flat", "cells"])
def test_start_size(layout: str) -> None:
    config = with_options(SMALL_YOLOV1, {"head.layout": layout, "head.start_size": 0.25})
    detector = YOLOv1(config, CLASSES)
    boxes = detector.predictions(detector.output.bias.detach().unsqueeze(0)).boxes[0]
    torch.testing.assert_close(boxes[7, 0], torch.tensor([80.0 - 20, 48 - 20, 80 + 20, 48 + 20]))
    assert (boxes[..., 2:] - boxes[..., :2] == 40).all()


@pytest.mark.parametrize("layout", ["flat", "cells"])
def test_a_start_as_cells_is_a_convolution(layout: str) -> None:
    """The outputs of a cell come from its position of the last map, with the same weights everywhere."""
    torch.manual_seed(0)
    detector = YOLOv1(with_options(SMALL_YOLOV1_MODERN, {"head.layout": layout}), CLASSES).eval()
    features = torch.randn(2, 16, 5, 5)

    def said(features: torch.Tensor) -> torch.Tensor:
        found = detector.predictions(detector.output(features.flatten(1)))
        return torch.cat([found.classes, found.confidence, found.coded.flatten(2)], dim=2)  # [B, S * S, K + 5n]

    one = said(features)
    torch.testing.assert_close(said(features.roll((1, 2), dims=(2, 3))).unflatten(1, (5, 5)).roll((-1, -2), (1, 2)),
                               one.unflatten(1, (5, 5)))  # fmt: skip
    changed = features.clone()
    changed[:, :, 1, 2] += 1
    assert (said(changed) != one).any(-1).any(0).nonzero().flatten().tolist() == [7]
    with pytest.raises(InputError, match=r"needs no hidden layer, not \(32,\), and"):
        YOLOv1(with_options(SMALL_YOLOV1_MODERN, {"head.hidden": (32,)}), CLASSES)
    with pytest.raises(InputError, match=r"a map of 3 x 3 positions before the last layer, not 6 x 6"):
        YOLOv1(replace(SMALL_YOLOV1_MODERN, grid=3, cell=64), CLASSES)


def test_near_cells_share_an_object_and_one_cell_has_two() -> None:
    """The modern assignment adds predictors. Before training both predictors of a cell have the same IoU."""
    detector = YOLOv1(SMALL_YOLOV1_MODERN, CLASSES)
    out = detector.output.bias.detach().repeat(1, 1)
    coded = detector.predictions(out).coded
    coded[0, :, 1, 2:] = 0.25**0.5 / 2  # a quarter of the side: the second predictors are small
    near = padded_targets([[[41.0, 41, 81, 81]]], [[1]])  # centre (61, 61), cells around the corner (64, 64)
    wanted = detector.assign(detector.predictions(out).boxes, near, torch.zeros(1, dtype=torch.int64))
    assert wanted.positive[0].nonzero().tolist() == [[6, 0], [7, 0], [11, 0], [12, 0]]
    assert wanted.occupied[0].nonzero().flatten().tolist() == [6, 7, 11, 12]
    two = padded_targets([[[41.0, 41, 81, 81], [56, 56, 66, 66]]], [[1, 2]])
    wanted = detector.assign(detector.predictions(out).boxes, two, torch.zeros(1, dtype=torch.int64))
    assert wanted.positive[0, 6].tolist() == [True, True]
    assert wanted.truth[0, 6].tolist() == two.boxes[0].tolist()
    assert wanted.classes[0, 6].tolist() == [0, 0.5, 0.5], "a cell with two classes learns both"


def test_quiet_predictors_are_not_background() -> None:
    detector = YOLOv1(SMALL_YOLOV1_MODERN, CLASSES)
    out = detector.output.bias.detach().repeat(1, 1)
    objects = padded_targets([[[60.0, 28, 100, 68]]], [[1]])  # exactly what cell 7 (row 1, column 2) says
    wanted = detector.assign(detector.predictions(out).boxes, objects, torch.zeros(1, dtype=torch.int64))
    assert wanted.iou[0, 7, 0] == pytest.approx(1.0)
    assert not wanted.background[0, 7].any(), "the second predictor says the same, but owns nothing"
    assert wanted.background[0, 20].all()


@pytest.mark.parametrize(("cut", "expected"), [(True, [1.0, 0.8]), (False, [1.5, 0.8])])
def test_scores_above_one_are_cut_unless_the_option_says_not(cut: bool, expected: list[float]) -> None:
    detector = YOLOv1(with_options(SMALL_YOLOV1, {"clip_scores": cut}), CLASSES).eval()
    out = torch.zeros(1, detector.output.out_features)
    parts = detector.predictions(out)
    for cell, score in ((0, 1.5), (24, 0.8)):  # the values are views of the vector
        parts.classes[0, cell, 0] = score
        parts.confidence[0, cell, 0] = 1.0
        parts.coded[0, cell, 0] = torch.tensor([0.5, 0.5, 0.4, 0.4])
    found = detector.detections(
        detector.predictions(out), Images(torch.zeros(1, 3, 160, 160), torch.tensor([[160, 160]]))
    )
    assert found.scores[0, found.valid[0]].tolist() == pytest.approx(expected)
