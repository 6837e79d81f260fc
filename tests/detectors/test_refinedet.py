"""RefineDet: its numbers, and what its modules may and may not take from each other."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from boxwright.anchors.generator import AnchorConfig, with_sides_within
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.refinedet import Outputs, RefineDet, RefineDetConfig, RefineDetHeadConfig
from boxwright.geometry.boxes import box_iou, xyxy_to_cxcywh
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.structures import Classes, Images, InputError, Targets
from tests.support.batches import example_images, example_targets
from tests.support.dense_cases import small_refinedet, small_refinedet_detnet, small_refinedet_vgg
from tests.support.options import with_options

CLASSES = Classes.from_names(["disc", "bar", "ring"])
CPU = torch.device("cpu")


def small_resnet_config() -> RefineDetConfig:
    backbone = ResNetConfig(depth=50, blocks=(1, 1, 1, 1), width=8, out_levels=(3, 4, 5))
    return small_refinedet(
        **{"backbone": backbone, "top": "residual", "top_channels": (8, 32), "l2_scales": (None,) * 4, "head.block": 8}
    )


def built(config: RefineDetConfig, spread: float = 0.0) -> RefineDet:
    torch.manual_seed(0)
    detector = RefineDet(config, CLASSES)
    if spread:
        for conv in (*detector.arm.convs, *detector.odm.convs):
            nn.init.normal_(conv.weight, std=spread)  # type: ignore[arg-type]
    return detector.eval()


def grid(detector: RefineDet, side: int) -> tuple[Tensor, list[int]]:
    """Anchors of a square input and their number on each level."""
    shapes = [(side // stride, side // stride) for stride in detector.anchors.strides]
    counts = [h * w * a for (h, w), a in zip(shapes, detector.anchors.per_cell, strict=True)]
    return detector.anchors(shapes, CPU), counts


def random_outputs(anchors: int, batch: int = 2, arm_scale: float = 0.5) -> Outputs:
    """As heads might give them, each a leaf of its own."""
    generator = torch.Generator().manual_seed(7)

    def draw(columns: int, scale: float) -> Tensor:
        return (torch.randn(batch, anchors, columns, generator=generator) * scale).requires_grad_()

    return Outputs(draw(4, arm_scale), draw(2, 2.0), draw(4, 1.0), draw(len(CLASSES) + 1, 2.0))


def targets_of(rows: list[list[list[float]]]) -> Targets:
    """Boxes of each image, padded; labels count up."""
    most = max(len(r) for r in rows)
    boxes, valid = torch.zeros(len(rows), most, 4), torch.zeros(len(rows), most, dtype=torch.bool)
    labels = torch.zeros(len(rows), most, dtype=torch.int64)
    for i, row in enumerate(rows):
        for j, box in enumerate(row):
            boxes[i, j], valid[i, j], labels[i, j] = torch.tensor(box), True, j % len(CLASSES)
    no = torch.zeros_like(valid)
    return Targets(boxes, labels, valid, no, no)


TARGETS = targets_of([[[4, 4, 40, 36], [20, 24, 60, 58], [3, 40, 18, 62]], [[10, 8, 30, 60]]])


def losses_of(detector: RefineDet, out: Outputs, targets: Targets, side: int = 64) -> dict[str, Tensor]:
    anchors, counts = grid(detector, side)
    return detector.losses(targets, out, anchors, counts)


# Numbers of the paper and its code.


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


# The losses against a slow reading of the rules.


def slow_match(iou: Tensor, port: bool) -> list[int]:
    """Ground truth of each anchor, -1 for none: by IoU at or above a half, over which objects take one anchor each."""
    best, truth = iou.max(0)
    match = [int(t) if b >= 0.5 else -1 for b, t in zip(best, truth, strict=True)]
    if port:  # each its best; of two that meet, the later one stays
        for row in range(len(iou)):
            match[int(iou[row].argmax())] = row
        return match
    left = iou.clone()
    for _ in range(len(iou)):  # the best pair of all, again and again
        row, column = divmod(int(left.argmax()), iou.shape[1])
        match[column] = row
        left[row], left[:, column] = -1, -1
    return match


def slow_encode(reference: Tensor, box: Tensor) -> Tensor:
    size, wanted = reference[2:] - reference[:2], box[2:] - box[:2]
    centre = (box[:2] + box[2:] - reference[:2] - reference[2:]) / 2
    return torch.cat([centre / size / 0.1, torch.log(wanted / size) / 0.2])


def slow_module(
    logits: Tensor, deltas: Tensor, references: Tensor, kept: Tensor, labels: Tensor, port: bool
) -> tuple[Tensor, Tensor]:
    """Classification and box loss of one module over the batch; background is the last logit.

    ``kept``: anchors that the filter lets pass. The port lets it take positives, which then may be mined.
    """
    positives, classification, regression = 0, [torch.zeros(())], [torch.zeros(())]
    for b in range(len(logits)):
        boxes = TARGETS.boxes[b, TARGETS.valid[b]].double()
        match = slow_match(box_iou(boxes, references[b]), port)
        log_probability = logits[b] - torch.logsumexp(logits[b], -1, keepdim=True)
        positive = [truth >= 0 and (not port or bool(kept[b, i])) for i, truth in enumerate(match)]
        rest = []
        for i, truth in enumerate(match):
            ce = -log_probability[i, labels[b, truth] if truth >= 0 else -1]
            if positive[i]:
                classification.append(ce)
                error = (deltas[b, i] - slow_encode(references[b, i], boxes[truth])).abs()
                regression.append(torch.where(error < 1, error**2 / 2, error - 0.5).sum())
            elif port or kept[b, i]:
                rest.append(ce)
        positives += sum(positive)
        classification += sorted(rest, key=Tensor.item, reverse=True)[: 3 * sum(positive)]
    return torch.stack(classification).sum() / max(positives, 1), torch.stack(regression).sum() / max(positives, 1)


@pytest.mark.parametrize(("floor", "port"), [(0.0, False), (0.01, False), (0.3, False), (0.01, True), (0.3, True)])
def test_losses_and_gradients_equal_a_slow_reading_of_the_rules(floor: float, port: bool) -> None:
    options = {"filtered": "positives", "assign.forced": "parallel"} if port else {}
    detector = built(small_refinedet(floor=floor, **options))
    anchors, counts = grid(detector, 64)
    assert counts == [192, 48, 12, 3]
    out = random_outputs(len(anchors))
    losses = losses_of(detector, out, TARGETS)

    slow = Outputs(*(t.detach().double().requires_grad_() for t in out))
    refined = detector.coder.decode(anchors.double(), slow.arm_deltas.detach())
    objectness = slow.arm_logits.detach().softmax(-1)[..., 0]
    everything = torch.ones_like(objectness, dtype=torch.bool)
    arm = slow_module(
        slow.arm_logits, slow.arm_deltas, anchors.double().expand(2, -1, -1), everything, TARGETS.labels * 0, port
    )
    odm = slow_module(slow.odm_logits, slow.odm_deltas, refined, objectness >= floor, TARGETS.labels, port)
    for mine, expected in zip(losses.values(), (*arm, *odm), strict=True):
        assert expected > 0
        torch.testing.assert_close(mine.double(), expected, rtol=1e-4, atol=1e-6)
    torch.stack(list(losses.values())).sum().backward()
    torch.stack([*arm, *odm]).sum().backward()
    for mine, expected in zip(out, slow, strict=True):
        assert mine.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(mine.grad.double(), expected.grad, rtol=1e-3, atol=1e-6)


# What may flow where.


def test_the_loss_of_the_second_module_does_not_reach_the_first() -> None:
    detector = built(small_refinedet())
    anchors, _ = grid(detector, 64)
    out = random_outputs(len(anchors))
    losses = losses_of(detector, out, TARGETS)
    second = losses["odm_classification"] + losses["odm_box"]
    arm = torch.autograd.grad(second, [out.arm_deltas, out.arm_logits], allow_unused=True, retain_graph=True)
    assert all(g is None or (g == 0).all() for g in arm)
    odm = torch.autograd.grad(second, [out.odm_deltas, out.odm_logits])
    assert all(g.abs().sum() > 0 for g in odm)


def test_in_the_network_only_shared_maps_learn_from_both() -> None:
    detector = built(small_refinedet(), spread=0.1).train()
    losses = detector(example_images(2, 128, 192), example_targets())
    (losses["odm_classification"] + losses["odm_box"]).backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in detector.arm.parameters())
    first = next(detector.backbone.parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0
    assert all(p.grad is not None for part in (detector.tcb, detector.odm) for p in part.parameters())  # type: ignore[union-attr]


def test_without_filter_and_refinement_targets_are_those_of_raw_anchors() -> None:
    """With no offsets and no floor the ODM sees what a plain SSD would."""
    full, plain = built(small_refinedet(floor=0.0)), built(small_refinedet(floor=0.0, two_step=False))
    anchors, _ = grid(full, 64)
    out = random_outputs(len(anchors))
    still = out._replace(arm_deltas=torch.zeros_like(out.arm_deltas))
    for name, value in losses_of(full, still, TARGETS).items():
        torch.testing.assert_close(value, losses_of(plain, still, TARGETS)[name])
    assert losses_of(full, out, TARGETS)["odm_box"] != losses_of(plain, out, TARGETS)["odm_box"]
    torch.testing.assert_close(plain.refined(anchors, out)[1], anchors)


def with_objectness(out: Outputs, rows: Tensor, logit: float) -> Outputs:
    """ARM logits of ``rows`` bool ``[B, A]`` set so that their objectness is ``sigmoid(logit)``."""
    logits = torch.where(rows.unsqueeze(-1), torch.tensor([logit, 0.0]), out.arm_logits.detach())
    return out._replace(arm_logits=logits.requires_grad_())


def odm_matches(detector: RefineDet, out: Outputs) -> tuple[Tensor, Tensor]:
    """Positive and negative anchors of the ODM before filtering."""
    anchors, _ = grid(detector, 64)
    matches = detector.odm_matcher(detector.refined(anchors, out), TARGETS.boxes, TARGETS.valid, TARGETS.crowd)
    return matches.positive, matches.negative


def test_a_positive_stays_whatever_the_first_module_thinks_of_it() -> None:
    detector = built(small_refinedet())
    out = random_outputs(255)
    positive, _ = odm_matches(detector, out)
    sure = with_objectness(out, positive, 50.0)
    doubted = with_objectness(out, positive, -50.0)
    for name in ("odm_classification", "odm_box"):
        mine = losses_of(detector, doubted, TARGETS)[name]
        torch.testing.assert_close(
            mine, losses_of(detector, doubted._replace(arm_logits=sure.arm_logits), TARGETS)[name]
        )
    losses_of(detector, doubted, TARGETS)["odm_classification"].backward()
    assert doubted.odm_logits.grad is not None
    assert (doubted.odm_logits.grad.abs().sum(-1) > 0)[positive].all()


def test_the_port_drops_doubted_positives_instead() -> None:
    caffe, port = built(small_refinedet()), built(small_refinedet(filtered="positives"))
    out = random_outputs(255)
    positive, negative = odm_matches(port, out)
    all_positive = losses_of(caffe, out, TARGETS)
    doubted = with_objectness(out, positive, -50.0)
    nothing = losses_of(port, doubted, TARGETS)
    assert nothing["odm_box"] == nothing["odm_classification"] == 0, "no positives, no hard negatives"
    assert all_positive["odm_box"] > 0
    # Negatives are not filtered: one that the ARM is sure of is mined if it is the hardest.
    clear = with_objectness(out, negative, -50.0)
    for detector, mined in ((port, True), (caffe, False)):
        logits = clear.odm_logits.detach().clone()
        row = int(negative[0].nonzero()[0])
        logits[0, row] = torch.tensor([20.0, 0, 0, 0])
        hard = clear._replace(odm_logits=logits.requires_grad_())
        losses_of(detector, hard, TARGETS)["odm_classification"].backward()
        assert hard.odm_logits.grad is not None
        assert (hard.odm_logits.grad[0, row].abs().sum() > 0) == mined


def test_a_filtered_negative_is_never_mined() -> None:
    detector = built(small_refinedet())
    out = random_outputs(255)
    _, negative = odm_matches(detector, out)
    row = int(negative[0].nonzero()[3])
    one = torch.zeros_like(negative)
    one[0, row] = True
    for logit, mined in ((-4.6, False), (-4.5, True)):  # sigmoid .00995 and .01099 about the floor of .01
        doubted = with_objectness(out, one, logit)
        logits = doubted.odm_logits.detach().clone()
        logits[0, row] = torch.tensor([30.0, 0, 0, 0])  # the largest loss of all
        doubted = doubted._replace(odm_logits=logits.requires_grad_())
        losses_of(detector, doubted, TARGETS)["odm_classification"].backward()
        assert doubted.odm_logits.grad is not None
        assert (doubted.odm_logits.grad[0, row].abs().sum() > 0) == mined


def test_a_batch_without_objects_has_no_loss() -> None:
    detector = built(small_refinedet())
    for targets in (targets_of([[], []]), TARGETS._replace(valid=torch.zeros_like(TARGETS.valid))):
        out = random_outputs(255)
        losses = losses_of(detector, out, targets)
        assert all(value == 0 for value in losses.values())
        torch.stack(list(losses.values())).sum().backward()
        assert all(t.grad is not None and (t.grad == 0).all() for t in out)


def test_negatives_of_images_without_objects_on_request() -> None:
    detector = built(small_refinedet(**{"loss.min_negatives": 16}))
    losses = losses_of(detector, random_outputs(255), targets_of([[], []]))
    assert losses["arm_objectness"] > 0
    assert losses["odm_classification"] > 0
    assert losses["arm_box"] == losses["odm_box"] == 0


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


def test_crowd_and_difficult_boxes() -> None:
    out = random_outputs(255)
    crowd, difficult = TARGETS._replace(crowd=TARGETS.valid), TARGETS._replace(difficult=TARGETS.valid)
    detector, strict = built(small_refinedet()), built(small_refinedet(**{"assign.difficult": False}))
    assert losses_of(detector, out, crowd)["odm_box"] == losses_of(strict, out, difficult)["odm_box"] == 0
    assert losses_of(detector, out, difficult)["odm_box"] > 0


# Structure.


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
        ({"assign.arm_iou": (0.3, 0.7)}, "must rise"),
        (
            {"backbone": replace(small_refinedet_vgg(), out_levels=(3, 5, 6))},
            "maps C3 and C5 have strides 4 and 16; a transfer block joins",
        ),
    ],
)
def test_slips_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        built(small_refinedet(**changes))
