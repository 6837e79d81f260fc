"""Faster R-CNN against torchvision's with the same weights: detections, losses and every gradient."""

from dataclasses import replace

import pytest
import torch
import torchvision
from torch import Tensor, nn

from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.structures import Classes, Images, Targets
from boxwright.weights.torchvision.detectors import faster_rcnn_config, faster_rcnn_state
from tests.support.batches import example_images, example_targets
from tests.support.two_stage_cases import small_faster_rcnn


def torchvision_model(classes: int, size: int, **settings: object) -> nn.Module:
    """Return a model with random weights in range and spread scores, for images of ``size`` without resizing."""
    torch.manual_seed(classes)
    backbone = torchvision.models.detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, trainable_layers=5
    )  # frozen norms, as torchvision's trained models have
    model = torchvision.models.detection.FasterRCNN(backbone, classes + 1, min_size=size, max_size=4 * size, **settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("conv3.weight"):
                parameter.mul_(0.2)
        model.roi_heads.box_predictor.cls_score.weight.mul_(30)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(30)
        model.rpn.head.bbox_pred.weight.mul_(5)
    return model


def converted(model: nn.Module, classes: int, config: FasterRCNNConfig) -> Detector:
    detector = build_detector(config, Classes.from_names([f"class {i}" for i in range(classes)]))
    detector.load_state_dict(faster_rcnn_state(model.state_dict()))
    return detector


@pytest.mark.parametrize(("classes", "batch", "height", "width"), [(3, 1, 128, 192), (90, 2, 192, 192)])
def test_detections_equal_torchvisions(classes: int, batch: int, height: int, width: int) -> None:
    theirs = torchvision_model(classes, min(height, width)).eval()
    ours, images = converted(theirs, classes, faster_rcnn_config()).eval(), example_images(batch, height, width)
    with torch.inference_mode():
        found = ours(images)
        expected = theirs([image.float() / 255 for image in images.pixels])
    for b, reference in enumerate(expected):
        valid = found.valid[b]
        assert len(reference["scores"]) > 20, "the comparison needs detections"
        torch.testing.assert_close(found.scores[b, valid], reference["scores"], atol=1e-5, rtol=1e-4)
        assert (found.labels[b, valid] + 1 == reference["labels"]).float().mean() > 0.97  # near ties may swap
        same = found.labels[b, valid] + 1 == reference["labels"]
        torch.testing.assert_close(found.boxes[b, valid][same], reference["boxes"][same], atol=0.05, rtol=1e-3)


def everything_sampled(config: FasterRCNNConfig) -> FasterRCNNConfig:
    """Room for every candidate, so that random sampling has nothing to choose."""
    return replace(
        config,
        rpn=replace(config.rpn, samples=10**6, post_nms=(100, 100)),
        head=replace(config.head, samples=10**6),
    )


def test_losses_and_gradients_equal_torchvisions() -> None:
    """The sparse way through the RPN gives the gradient of the dense one, down to the first convolution."""
    theirs = torchvision_model(
        3, 128, rpn_batch_size_per_image=10**6, rpn_post_nms_top_n_train=100, box_batch_size_per_image=10**6
    ).train()
    ours = converted(theirs, 3, everything_sampled(faster_rcnn_config(freeze_at=0))).train()
    # Sides in multiples of 64: for others torchvision takes the stride of P6 for less than it is.
    images, targets = example_images(2, 128, 192), example_targets()
    dicts = [
        {"boxes": b[v], "labels": k[v] + 1}
        for b, k, v in zip(targets.boxes, targets.labels, targets.valid, strict=True)
    ]
    expected = theirs([image.float() / 255 for image in images.pixels], dicts)
    losses = ours(images, targets)
    names = {
        "rpn_objectness": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "classification": "loss_classifier",
        "box": "loss_box_reg",
    }
    for mine, reference in names.items():
        torch.testing.assert_close(losses[mine], expected[reference], atol=1e-6, rtol=1e-4)

    sum(losses.values()).backward()  # type: ignore[union-attr]
    sum(expected.values()).backward()
    gradients = faster_rcnn_state({name: p.grad for name, p in theirs.named_parameters() if p.grad is not None})
    compared = 0
    for name, parameter in ours.named_parameters():
        reference, mine = gradients[name], parameter.grad
        assert mine is not None
        scale = reference.abs().max().clamp(min=1e-12)
        assert ((mine - reference).abs().max() / scale).item() < 2e-3, name
        compared += 1
    assert compared > 60


def proposals(detector: Detector) -> Tensor:
    """Boxes ``[B, R, 4]`` that reach the second stage in training."""
    images = example_images(2, 128, 160)
    maps = detector.neck(detector.backbone(detector.normalise(images)))
    anchors = [detector.rpn.anchors.level(i, tuple(m.shape[2:]), m.device) for i, m in enumerate(maps)]
    return detector.rpn.propose(*detector.rpn(maps), anchors, images.sizes, training=True).boxes


def losses_of(detector: Detector, images: Images, targets: Targets) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in detector(images, targets).items()}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"objectness": "softmax"}, "two logits an anchor"),
        ({"objectness": "softmax", "pairing": "pairs"}, "in alternating channels"),
        ({"objectness": "softmax", "pairing": "crossed"}, "and paired wrongly for proposals"),
        ({"nms.scope": "image"}, "one NMS over all levels"),
        ({"nms.filter_first": True, "nms.min_size": 8.0}, "Caffe's order"),
        ({"assign.straddle": 0.0}, "no anchors across the border"),
        ({"convs": 2}, "the dense way"),
        ({"loss.box": "giou"}, "GIoU"),
        ({"coder.offset": 1.0, "nms.inclusive": True}, "inclusive boxes"),
        ({"loss.normalizer": "sampled", "loss.beta": 0.0}, "torchvision's divisor, plain L1"),
    ],
)
def test_every_option_of_the_rpn_changes_something_and_learns(settings: dict[str, object], why: str) -> None:
    def run(config: FasterRCNNConfig) -> tuple[list[float], list[float]]:
        torch.manual_seed(0)
        detector = build_detector(config, Classes.from_names(["a", "b", "c"]))
        nn.init.normal_(detector.rpn.objectness.weight)  # scores that differ, and boxes that overlap
        losses = detector(example_images(2, 128, 160), example_targets())
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        assert total.isfinite()
        assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
        return [v.item() for v in losses.values()], proposals(detector).flatten().tolist()

    assert run(small_faster_rcnn(settings)) != run(small_faster_rcnn()), why


def test_an_anchor_that_touches_the_edge_does_not_cross_it() -> None:
    within = torch.tensor([[0.0, 0, 32, 32], [96, 64, 128, 96], [60, 60, 100, 96], [97, 60, 129, 90], [-1, 0, 40, 40]])
    none = torch.zeros(1, 5, dtype=torch.bool)
    targets = Targets(within.unsqueeze(0), torch.zeros(1, 5, dtype=torch.int64), ~none, none, none)
    sizes, seeds = torch.tensor([[96, 128]]), torch.tensor([1])
    for offset, expected in ((0.0, [0, 1, 2]), (1.0, [0])):  # inclusive boxes cross it where they end at 128 or 96
        detector = build_detector(
            small_faster_rcnn({"assign.straddle": 0.0, "coder.offset": offset}), Classes.from_names(["a"])
        )
        choice, _ = detector.rpn.choose(within, targets, targets.valid, sizes, seeds)
        assert sorted(choice.chosen[choice.positive].tolist()) == expected


def test_sparse_and_dense_objectness_agree() -> None:
    """One hidden convolution goes the sparse way, the general code the dense way: the same losses and gradients."""
    torch.manual_seed(0)
    detector = build_detector(small_faster_rcnn(), Classes.from_names(["a", "b", "c"]))
    images, targets = example_images(2, 128, 160), example_targets()
    results = []
    for convs in (1, 99):  # the general code runs for any number but 1, on the layers there are
        detector.rpn.config = replace(detector.rpn.config, convs=convs)
        detector.zero_grad()
        losses = detector(images, targets)
        torch.stack(list(losses.values())).sum().backward()
        results.append((losses, [p.grad.clone() for p in detector.parameters() if p.grad is not None]))
    (sparse, sparse_gradients), (dense, dense_gradients) = results
    for name in sparse:
        torch.testing.assert_close(sparse[name], dense[name])
    for mine, reference in zip(sparse_gradients, dense_gradients, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-3)


def test_difficult_boxes_are_left_out_on_request() -> None:
    targets = example_targets()
    difficult = targets._replace(difficult=targets.valid)
    detector = build_detector(replace(small_faster_rcnn(), difficult=False), Classes.from_names(["a", "b", "c"]))
    images = example_images(2, 128, 160)
    assert losses_of(detector, images, difficult)["box"] == 0
    assert losses_of(detector, images, targets)["box"] > 0


def test_crowd_boxes_are_never_positive() -> None:
    targets = example_targets()
    detector = build_detector(small_faster_rcnn(), Classes.from_names(["a", "b", "c"]))
    assert losses_of(detector, example_images(2, 128, 160), targets._replace(crowd=targets.valid))["box"] == 0


def test_background_is_the_last_column_on_import() -> None:
    state = {
        "backbone.fpn.layer_blocks.0.0.weight": torch.zeros(1, 1, 3, 3),
        "roi_heads.box_head.fc6.weight": torch.zeros(2, 4),
        "roi_heads.box_predictor.cls_score.weight": torch.tensor([[9.0], [1], [2]]),
        "roi_heads.box_predictor.cls_score.bias": torch.tensor([9.0, 1, 2]),
        "roi_heads.box_predictor.bbox_pred.weight": torch.arange(12.0).unsqueeze(1),
        "roi_heads.box_predictor.bbox_pred.bias": torch.arange(12.0),
    }
    ours = faster_rcnn_state(state)
    assert ours["head.scores.bias"].tolist() == [1, 2, 9]
    assert ours["head.deltas.bias"].tolist() == list(range(4, 12))
