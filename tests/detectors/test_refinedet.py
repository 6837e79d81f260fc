"""The structure of RefineDet, the sizes of its networks and anchors, and its detections."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from boxwright.anchors.generator import AnchorConfig, with_sides_within
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.refinedet import Outputs, RefineDet, RefineDetConfig, RefineDetHeadConfig
from boxwright.geometry.boxes import xyxy_to_cxcywh
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.structures import Classes, Images, InputError
from tests.support.batches import example_images, example_targets
from tests.support.dense_cases import small_refinedet, small_refinedet_detnet, small_refinedet_vgg
from tests.support.options import with_options
from tests.support.refinedet_cases import (
    CLASSES,
    built,
    grid,
    random_outputs,
    targets_of,
    with_objectness,
)


def small_resnet_config() -> RefineDetConfig:
    backbone = ResNetConfig(depth=50, blocks=(1, 1, 1, 1), width=8, out_levels=(3, 4, 5))
    return small_refinedet(
        **{"backbone": backbone, "top": "residual", "top_channels": (8, 32), "l2_scales": (None,) * 4, "head.block": 8}
    )


@pytest.mark.parametrize(("classes", "parameters"), [(20, 34_440_884), (80, 36_100_484)])
def test_parameters_of_the_vgg_networks(classes: int, parameters: int) -> None:
    with torch.device("meta"):
        detector = RefineDet(RefineDetConfig(), Classes.from_names([f"class {i}" for i in range(classes)]))
    assert sum(p.numel() for p in detector.parameters()) == parameters
    assert detector.input_multiple == detector.preparation.pad_multiple == 64


@pytest.mark.parametrize(("side", "total"), [(320, 6375), (512, 16320)])
def test_number_of_anchors(side: int, total: int) -> None:
    with torch.device("meta"):
        detector = RefineDet(RefineDetConfig(), CLASSES)
    anchors, counts = grid(detector, side)
    assert len(anchors) == sum(counts) == total
    if side == 320:
        share = xyxy_to_cxcywh(anchors) / side
        first = [[0.0125, 0.0125, 0.1, 0.1], [0.0125, 0.0125, 0.141421, 0.070711], [0.0125, 0.0125, 0.070711, 0.141421]]
        torch.testing.assert_close(share[:3], torch.tensor(first), atol=1e-6, rtol=0)
        torch.testing.assert_close(share[-2], torch.tensor([0.9, 0.9, 1.131371, 0.565685]), atol=1e-6, rtol=0)
        assert ((with_sides_within(anchors, side, side) - anchors).abs() > 1e-3).any(1).sum() == 50


def test_two_steps_of_decoding() -> None:
    detector = built(small_refinedet())
    anchor = torch.tensor([[0.4, 0.3, 0.6, 0.7]])  # centre .5 .5, size .2 .4
    arm, odm = torch.tensor([[[1, -0.5, 0.5, -1]]]), torch.tensor([[[0.2, 0.2, -0.2, 0.4]]])
    refined = detector.refined(anchor, Outputs(arm, arm, odm, odm))
    expected = torch.tensor([[[0.52, 0.48, 0.2210342, 0.3274923]]])
    torch.testing.assert_close(xyxy_to_cxcywh(refined), expected, atol=1e-6, rtol=0)
    final = xyxy_to_cxcywh(detector.coder.decode(refined, odm))
    torch.testing.assert_close(final, torch.tensor([[[0.5244, 0.4865, 0.2124, 0.3548]]]), atol=1e-4, rtol=0)


def test_a_filtered_anchor_is_found_as_nothing() -> None:
    config = small_refinedet(
        post=PostprocessConfig(score_threshold=0.01, nms_iou=0.99, candidates=2000, detections=2000)
    )
    detector = built(config)
    anchors, _ = grid(detector, 64)
    out = random_outputs(len(anchors), batch=1)
    rows = torch.zeros(1, len(anchors), dtype=torch.bool)
    rows[0, 100] = True
    images = Images(torch.zeros(1, 3, 64, 64), torch.tensor([[64, 64]]))
    box = detector.coder.decode(detector.refined(anchors, out), out.odm_deltas)[0, 100].clamp(0, 64)
    counts = []
    for logit in (-4.5, -4.6):
        found = detector.detections(images, with_objectness(out, rows, logit), anchors)
        here = (found.boxes[0] - box).abs().amax(-1) < 1e-3
        counts.append(int((here & found.valid[0]).sum()))
    assert counts[0] >= 1
    assert counts[1] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"assign.arm_iou": (0.7, 0.3)},
        {"assign.odm_iou": (0.6, 0.4)},
        {"assign.forced": "parallel"},
        {"assign.arm": "atss"},
        {"filtered": "positives", "floor": 0.3},
        {"floor": 0.4},
        {"two_step": False},
        {"tcb": False},
        {"loss.negative_ratio": 1.0},
        {"loss.box": ("giou", "ciou")},
        {"loss.box_weight": (2.0, 0.5)},
        {"l2_eps": "root", "l2_scales": (10.0, 8.0, 10.0, 10.0)},
        {"head.block": 8},
        {"head.norm": "none"},
        {"head.start": "glorot"},
        {"clip_sides": True},
        {"coder.weights": (1.0, 1.0, 1.0, 1.0)},
        {"top": "residual"},
    ],
    ids=str,
)
def test_every_option_changes_something_and_learns(changes: dict[str, object]) -> None:
    images = example_images(2, 128, 192)
    # The first two objects of the first image have the same best anchor.
    targets = targets_of([[[10, 12, 60, 70], [11, 13, 60, 70], [80, 30, 150, 110]], [[20, 20, 120, 100]]])

    def run(config: RefineDetConfig) -> list[float]:
        detector = built(config, spread=0.0 if "head.start" in changes else 0.1).train()
        losses = detector(images, targets)
        torch.stack(list(losses.values())).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())
        return [v.item() for v in losses.values()]

    assert run(small_refinedet(**changes)) != run(small_refinedet())


def test_resnet_and_detnet_have_no_l2_norm_and_blocks_before_their_heads() -> None:
    cases = ((small_resnet_config(), [8, 16, 32, 64]), (small_refinedet_detnet(), [8, 16, 16, 16]))
    for config, strides in cases:
        detector = built(config, spread=0.1)
        assert detector.anchors.strides == strides
        assert detector.input_multiple == strides[-1], "the levels say so"
        deconvolutions = [m for m in detector.modules() if isinstance(m, nn.ConvTranspose2d)]
        assert len(deconvolutions) == sum(a != b for a, b in pairwise(strides))
        losses = detector.train()(example_images(2, 128, 192), example_targets())
        torch.stack(list(losses.values())).sum().backward()
        assert all(p.grad is not None for p in detector.parameters())


def test_transfer_blocks_double_the_maps() -> None:
    detector = built(small_refinedet())
    assert detector.tcb is not None
    with torch.inference_mode():
        sources = detector.sources(torch.zeros(1, 3, 64, 128))
        assert [f.shape[1:] for f in detector.tcb(sources)] == [(16, 8, 16), (16, 4, 8), (16, 2, 4), (16, 1, 2)]


def test_both_modules_read_normalised_maps_and_the_backbone_goes_on_from_plain_ones() -> None:
    detector = built(small_refinedet(**{"head.norm": "none", "backbone": replace(small_refinedet_vgg(), norm="none")}))
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        plain, sources = detector.backbone(pixels), detector.sources(pixels)
        lengths = [s.square().sum(1).sqrt() for s in sources]
        torch.testing.assert_close(lengths[0], torch.full_like(lengths[0], 10.0))
        torch.testing.assert_close(lengths[1], torch.full_like(lengths[1], 8.0))
        assert torch.equal(sources[2], plain[2])


@pytest.mark.parametrize(
    ("how", "part", "expected"),
    [
        ("caffe", "heads", (3 / (256 * 9)) ** 0.5),
        ("glorot", "heads", (6 / (256 * 9 + 3 * 8 * 9)) ** 0.5),
        ("caffe", "deconvolution", (3 / (256 * 4)) ** 0.5),
    ],
)
def test_xavier_in_its_two_meanings(how: str, part: str, expected: float) -> None:
    head = RefineDetHeadConfig(start=how)  # type: ignore[arg-type]
    config = RefineDetConfig(backbone=small_refinedet_vgg(), top_channels=(16, 32), head=head)
    detector = built(config)
    assert detector.tcb is not None
    layer = detector.odm.convs[0] if part == "heads" else next(detector.tcb.up[0].children())
    assert layer.weight.abs().max().item() == pytest.approx(expected, rel=0.02)  # type: ignore[union-attr, operator]
    assert (layer.bias == 0).all()  # type: ignore[union-attr]


def test_layers_before_a_norm_start_from_a_gaussian_as_in_the_code() -> None:
    resnet = ResNetConfig(depth=18, blocks=(1, 1, 1, 1), width=32, out_levels=(3, 4, 5))
    config = RefineDetConfig(
        backbone=resnet,
        top="residual",
        top_channels=(64, 256),
        l2_scales=(None,) * 4,
        head=RefineDetHeadConfig(norm="bn", channels=128),
    )
    for how, lateral in (("caffe", 0.01), ("paper", (1 / (64 * 9)) ** 0.5)):
        detector = built(with_options(config, {"head.start": how}))  # type: ignore[arg-type]
        assert detector.tcb is not None
        assert detector.top is not None
        assert detector.top.conv2.weight.std().item() == pytest.approx(0.01, rel=0.05)  # type: ignore[union-attr]
        assert detector.tcb.lateral[0][0][0].weight.std().item() == pytest.approx(lateral, rel=0.05)  # type: ignore


@pytest.mark.parametrize(("height", "width", "near"), [(100, 128, "128 x 128"), (320, 300, "320 x 320")])
def test_sides_that_do_not_divide_are_refused(height: int, width: int, near: str) -> None:
    detector = built(small_refinedet())
    with pytest.raises(InputError, match=f"needs multiples of 64; the nearest are {near}"):
        detector(example_images(1, height, width))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"l2_scales": (10.0, 8.0)}, "give one, or none, for each of the maps C4, C5, C6, C7"),
        ({"anchors": AnchorConfig(sizes=((32,), (64,)))}, "anchors.sizes has 2 entries but the pyramid has 4 levels"),
        ({"floor": 1.0}, "floor = 1.0: should be less than 1"),
        ({"loss.negative_ratio": 0.0}, "negative_ratio = 0.0: should be greater than 0"),
        ({"head.channels": 4}, "channels = 4: should be greater than or equal to 8"),
        ({"assign.arm_iou": (0.3, 0.7)}, r"negative = 0\.7: must not be above positive = 0\.3"),
        (
            {"backbone": replace(small_refinedet_vgg(), out_levels=(3, 5, 6))},
            "maps C3 and C5 have strides 4 and 16; a transfer block joins",
        ),
    ],
)
def test_slips_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        built(small_refinedet(**changes))
