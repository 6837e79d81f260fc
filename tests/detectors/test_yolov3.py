"""YOLOv3 against the published sizes: its network, boxes, detections and refusals."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from boxwright.backbones.detnet import DetNetConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.build import build_detector
from boxwright.detectors.yolov3 import YOLOv3, YOLOv3Config
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.yolo_scales import SpatialPyramidPooling, YOLOScalesConfig
from boxwright.recipes import RECIPES
from boxwright.structures import Classes, Images, InputError
from tests.support.options import with_options
from tests.support.yolo_cases import PLAIN_YOLOV3, small_yolov3


def floats(name: str, classes: int) -> int:
    """Count the floats in a weights file of the recipe's detector for ``classes`` classes."""
    with torch.device("meta"):
        detector = build_detector(RECIPES[name].detector, Classes.from_names([f"c{i}" for i in range(classes)]))
    state = detector.state_dict()
    return sum(v.numel() for k, v in state.items() if not k.endswith("num_batches_tracked"))


@pytest.mark.parametrize(
    ("name", "classes", "file_bytes"),
    [
        ("yolov3", 80, 248_007_048),
        ("yolov3", 20, 246_714_648),
        ("yolov3-spp", 80, 252_209_544),
        ("yolov3-tiny", 80, 35_434_956),
    ],
)
def test_as_many_floats_as_the_published_files(name: str, classes: int, file_bytes: int) -> None:
    assert 20 + 4 * floats(name, classes) == file_bytes


def test_the_spatial_pyramid_is_three_pools_side_by_side() -> None:
    x = torch.randn(2, 3, 7, 9)
    expected = torch.cat([*(F.max_pool2d(x, k, 1, k // 2) for k in (13, 9, 5)), x], dim=1)
    assert torch.equal(SpatialPyramidPooling()(x), expected)


def test_each_scale_predicts_on_its_own_grid_from_fine_to_coarse() -> None:
    detector = small_yolov3()
    maps = detector.outputs(torch.zeros(1, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(1, 24, 8, 12), (1, 24, 4, 6), (1, 24, 2, 3)]


@pytest.mark.parametrize(
    ("backbone", "strides"),
    [
        (DetNetConfig(depths=(1, 1, 1, 1, 1), width=8, out_levels=(3, 4, 6)), [8, 16, 16]),
        (ResNetConfig(depth=18, width=8, out_levels=(3, 4, 5)), [8, 16, 32]),
    ],
)
def test_other_backbones_bring_their_own_strides(backbone: DetNetConfig | ResNetConfig, strides: list[int]) -> None:
    detector = small_yolov3(replace(PLAIN_YOLOV3, backbone=backbone))
    assert detector.input_multiple == strides[-1]
    maps = detector.outputs(torch.zeros(1, 3, 64, 64))
    assert [m.shape[-1] for m in maps] == [64 // s for s in strides]


def test_a_prior_starts_from_the_anchors() -> None:
    detector = small_yolov3(with_options(PLAIN_YOLOV3, {"scales.prior": 0.1})).eval().requires_grad_(False)
    maps = detector.outputs(torch.rand(1, 3, 64, 64))
    raw = torch.cat([m.permute(0, 2, 3, 1).reshape(-1, 8) for m in maps])
    assert float(raw[:, 4].sigmoid().mean()) == pytest.approx(0.1, abs=0.02)
    assert float(raw[:, :4].abs().max()) < 0.5
    assert (small_yolov3(PLAIN_YOLOV3).eval().outputs(torch.rand(1, 3, 64, 64))[0].abs() > 1).any()


def test_running_statistics_may_follow_faster() -> None:
    def momenta(config: YOLOv3Config) -> set[float | None]:
        return {m.momentum for m in small_yolov3(config).modules() if isinstance(m, nn.BatchNorm2d)}

    assert momenta(PLAIN_YOLOV3) == {0.01}
    assert momenta(replace(PLAIN_YOLOV3, norm_momentum=0.1)) == {0.1}


def test_decode_is_the_papers_equation() -> None:
    """52 x 52 cells, cell (10, 20), anchor 10 x 13 of a 416 x 416 input."""
    detector = small_yolov3()
    grid = detector.grid([(52, 52), (26, 26), (13, 13)], torch.device("cpu"))
    index = (20 * 52 + 10) * 3
    t = torch.tensor([0.3, -0.2, 0.1, -0.4])
    x1, y1, x2, y2 = (detector.decode(t, grid.anchors[index], grid.cell[index]) / 416).tolist()
    expected = [0.203355, 0.393272, 0.026567, 0.020948]
    assert [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1] == pytest.approx(expected, abs=1e-6)


def test_reach_lets_a_centre_leave_its_cell() -> None:
    detector = small_yolov3(replace(PLAIN_YOLOV3, reach=2.0))
    anchor, cell = torch.tensor([8.0, 8, 24, 24]), torch.tensor([16.0])
    far = detector.decode(torch.tensor([50.0, -50, 0, 0]), anchor, cell)
    assert far.tolist() == pytest.approx([24, -8, 40, 8])


def wide(config: YOLOv3Config = PLAIN_YOLOV3) -> YOLOv3:
    detector = small_yolov3(config)
    for scale in detector.scales.scales:
        nn.init.normal_(scale.get_submodule("predict").weight, std=0.5)  # type: ignore[arg-type]
    return detector.eval()


@torch.inference_mode()
def test_taking_the_best_predictors_first_changes_nothing() -> None:
    post = PostprocessConfig(score_threshold=0.3, nms_iou=0.45, detections=100, candidates=4000)
    pixels = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    images = Images(pixels, torch.tensor([[96, 128], [96, 128]]))
    every = wide(replace(PLAIN_YOLOV3, post=post))(images)
    few = wide(replace(PLAIN_YOLOV3, post=replace(post, candidates=800)))(images)
    assert every.valid.sum() > 20
    torch.testing.assert_close(every, few)


@torch.inference_mode()
def test_objectness_first_then_every_class_or_the_best() -> None:
    """One predictor with objectness 0.5 and class probabilities 0.9, 0.8, 0.01."""
    raw = torch.full((1, 3 * (12 * 16 + 6 * 8 + 3 * 4), 8), -20.0)
    raw[0, 100] = torch.tensor([0.0, 0, 0, 0, 0, math.log(9), math.log(4), -math.log(99)])
    sizes = torch.tensor([[96, 128]])

    def scores(**changes: object) -> list[float]:
        detector = small_yolov3(replace(PLAIN_YOLOV3, **changes))  # type: ignore[arg-type]
        grid = detector.grid([(12, 16), (6, 8), (3, 4)], torch.device("cpu"))
        found = detector.detections(raw, grid, sizes)
        return found.scores[found.valid].tolist()

    post = PostprocessConfig(score_threshold=0.004, nms_iou=0.45)
    assert scores(post=post) == pytest.approx([0.45, 0.4, 0.005], abs=1e-4)
    assert scores(post=replace(post, score_threshold=0.006)) == pytest.approx([0.45, 0.4])
    assert scores(post=post, multi_label=False) == pytest.approx([0.45])
    assert scores(post=post, class_threshold=0.05) == pytest.approx([0.45, 0.4])
    assert scores(post=post, class_threshold=0.8, multi_label=False) == pytest.approx([0.45])
    assert scores(post=post, object_threshold=0.5) == []
    assert scores(post=post, object_threshold=0.49, multi_label=False) == pytest.approx([0.45])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": ((0, 1, 2), (3, 4, 5))}, r"masks has 2 entries but the backbone gives 3 levels \(C3, C4, C5\)"),
        ({"scales": YOLOScalesConfig(channels=(8, 16))}, "scales.channels has 2 entries"),
        ({"masks": ((0, 1, 2), (3, 4, 5), (6, 7, 9))}, r"outside 0\.\.8"),
    ],
)
def test_scales_that_disagree_are_named(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        small_yolov3(replace(PLAIN_YOLOV3, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"assign.ignore_iou": 0.0}, "ignore_iou"),
        ({"scales.prior": 1.0}, "prior"),
        ({"norm_momentum": 0.0}, "norm_momentum"),
        ({"object_threshold": 1.0}, "object_threshold"),
        ({"class_threshold": -0.1}, "class_threshold"),
        ({"reach": 0.5}, "reach"),
        ({"assign.method": "aligned", "assign.also_above": 0.3}, "also_above"),
        ({"assign.method": "aligned", "assign.topk": 0}, "topk"),
    ],
)
def test_values_out_of_range_are_named(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_options(PLAIN_YOLOV3, changes)


def test_sides_must_be_multiples_of_the_coarsest_stride() -> None:
    images = Images(torch.zeros(1, 3, 100, 128, dtype=torch.uint8), torch.tensor([[100, 128]]))
    with pytest.raises(InputError, match="multiples of 32; the nearest are 96 x 128"):
        small_yolov3()(images)
