"""RetinaNet against torchvision and detectron2 with the same weights, and its options on small tables."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from boxwright.anchors.generator import AnchorConfig, AnchorGenerator
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.pixels import IMAGENET_255_BGR
from boxwright.detectors.retinanet import RetinaNet, RetinaNetConfig, RetinaNetLossConfig, octave_anchors
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.necks.fpn import FPNConfig
from boxwright.structures import Classes, Images, InputError, Level, Targets
from boxwright.weights.torchvision.detectors import retinanet_config, retinanet_state
from tests.support.batches import example_images, example_targets
from tests.support.dense_cases import small_retinanet


def names(count: int) -> Classes:
    return Classes.from_names([f"class {i}" for i in range(count)])


def build(config: RetinaNetConfig, classes: int = 3) -> RetinaNet:
    detector = build_detector(config, names(classes))
    assert isinstance(detector, RetinaNet)
    return detector


def torchvision_model(version: int, classes: int, size: int) -> nn.Module:
    """Return a model with random weights in range and spread scores, for images of ``size`` without resizing."""
    torch.manual_seed(classes)
    settings = {"min_size": size, "max_size": 4 * size}
    if version == 1:
        resnet = torchvision.models.resnet50(norm_layer=FrozenBatchNorm2d)  # as torchvision's trained model has them
        backbone = torchvision.models.detection.backbone_utils._resnet_fpn_extractor(
            resnet, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)
        )
        model = torchvision.models.detection.RetinaNet(backbone, classes, **settings)
    else:
        model = torchvision.models.detection.retinanet_resnet50_fpn_v2(
            weights=None, weights_backbone=None, num_classes=classes, trainable_backbone_layers=5, **settings
        )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if version == 1 and name.endswith("conv3.weight"):
                parameter.mul_(0.2)
            if "_head.conv" in name and name.endswith("weight") and parameter.dim() == 4:
                parameter.mul_(3)
        model.head.classification_head.cls_logits.weight.mul_(10 if version == 1 else 4)
        model.head.regression_head.bbox_reg.weight.mul_(3 if version == 1 else 1)
    return model


def converted(model: nn.Module, version: int, classes: int) -> RetinaNet:
    detector = build(retinanet_config(version, freeze_at=0), classes)  # type: ignore[arg-type]
    detector.load_state_dict(retinanet_state(model.state_dict()))
    return detector


# Sides in multiples of 128: for others torchvision takes the strides of P6 and P7 for less than they are.
@pytest.mark.parametrize(
    ("version", "classes", "batch", "height", "width"),
    [(1, 3, 1, 128, 256), (1, 91, 2, 256, 256), (2, 20, 2, 128, 128)],
)
def test_detections_equal_torchvisions(version: int, classes: int, batch: int, height: int, width: int) -> None:
    theirs = torchvision_model(version, classes, min(height, width)).eval()
    ours, images = converted(theirs, version, classes).eval(), example_images(batch, height, width)
    with torch.inference_mode():
        found = ours(images)
        expected = theirs([image.float() / 255 for image in images.pixels])
    for b, reference in enumerate(expected):
        valid = found.valid[b]
        assert len(reference["scores"]) > 20, "the comparison needs detections"
        torch.testing.assert_close(found.scores[b, valid], reference["scores"], atol=1e-5, rtol=1e-4)
        same = found.labels[b, valid] == reference["labels"]
        assert same.float().mean() > 0.97  # near ties may swap
        close = torch.isclose(found.boxes[b, valid], reference["boxes"], atol=0.05, rtol=1e-3).all(1)
        assert (close & same).float().mean() > 0.97


@pytest.mark.filterwarnings("ignore:Changing trainable_backbone_layers")
@pytest.mark.parametrize(("version", "classes"), [(1, 3), (2, 20)])
def test_losses_and_gradients_equal_torchvisions(version: int, classes: int) -> None:
    """Return the targets of an image with three objects and of one without."""
    # In float64 and on the very same pixels: rounding flips a few ReLUs, and each flip is a step in some gradient.
    theirs = torchvision_model(version, classes, 128).double().train()
    ours = converted(theirs, version, classes).double().train()
    targets = Targets(*(torch.cat([t[:1], torch.zeros_like(t[:1])]) for t in example_targets() if t is not None))
    dicts = [
        {"boxes": b[v], "labels": k[v]} for b, k, v in zip(targets.boxes, targets.labels, targets.valid, strict=True)
    ]
    images = example_images(2, 128, 256 // version)
    floats = [image.double() / 255 for image in images.pixels]
    pixels = theirs.transform(floats)[0].tensors
    ours.normalise = lambda images: pixels  # type: ignore[method-assign]
    expected, losses = theirs(floats, dicts), ours(images, targets)
    for mine, reference in {"classification": "classification", "box": "bbox_regression"}.items():
        torch.testing.assert_close(losses[mine].double(), expected[reference], atol=1e-6, rtol=1e-5)

    sum(losses.values()).backward()  # type: ignore[union-attr]
    sum(expected.values()).backward()
    gradients = retinanet_state({name: p.grad for name, p in theirs.named_parameters() if p.grad is not None})
    parameters = dict(ours.named_parameters())
    assert set(parameters) == set(gradients)
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        assert ((parameter.grad - gradients[name]).norm() / gradients[name].norm()).item() < 1e-5, name


def test_old_files_and_chosen_labels_on_import() -> None:
    theirs = torchvision_model(1, 5, 128)
    state = theirs.state_dict()
    old = {}
    for key, value in state.items():
        parts = key.split(".")
        if "_head.conv." in key:  # conv.1.0.weight was conv.2.weight
            parts = [*parts[:3], str(2 * int(parts[3])), parts[5]]
        elif "_blocks." in key and "extra" not in key:
            parts.remove("0") if parts[3] != "0" else parts.pop(4)
        old[".".join(parts)] = value
    assert set(old) != set(state)
    ours = retinanet_state(state)
    assert {k: v.sum() for k, v in retinanet_state(old).items()} == {k: v.sum() for k, v in ours.items()}

    chosen = retinanet_state(state, labels=[4, 1])
    bias = torch.arange(45.0)  # nine anchors of five columns
    assert retinanet_state(state | {"head.classification_head.cls_logits.bias": bias}, [4, 1])[
        "head.scores.bias"
    ].tolist()[:4] == [4, 1, 9, 6]
    build(retinanet_config(), 2).load_state_dict(chosen)
    with pytest.raises(InputError, match=r"labels 1\.\.5 do not all lie in 0\.\.4"):
        retinanet_state(state, labels=[1, 5])
    with pytest.raises(InputError, match=r"the first is 'roi_heads\.x'"):
        retinanet_state({"roi_heads.x": bias})


def test_parameter_counts() -> None:
    """The paper's network with the affine parameters of its norms, and the count that torchvision states."""
    with torch.device("meta"):
        paper = build(RetinaNetConfig(), 80)
        theirs = build(retinanet_config(freeze_at=0), 91)
    assert sum(p.numel() for p in paper.parameters()) == 37_968_692
    assert sum(p.numel() for p in theirs.parameters()) == 34_014_999


def detectron2_config() -> RetinaNetConfig:
    return RetinaNetConfig(
        backbone=ResNetConfig(depth=50, stride_in_1x1=True, norm="frozen_bn", out_levels=(3, 4, 5)),
        loss=RetinaNetLossConfig(beta=0.0, normalizer="average"),
        pixels=IMAGENET_255_BGR,
    )


def detectron2_name(key: str) -> str:
    """Return our name of a tensor of detectron2's RetinaNet."""
    parts = key.split(".")
    if key.startswith("backbone.fpn_"):
        kind, level = parts[1][4:-1], parts[1][-1]
        return f"neck.{kind}.P{level}.conv.{parts[2]}"
    if key.startswith("backbone.top_block"):
        return f"neck.extra.{parts[2].upper()}.conv.{parts[3]}"
    if key.startswith("head."):
        layer = {"cls_score": "scores", "bbox_pred": "deltas"}.get(parts[1])
        if layer is not None:
            return f"head.{layer}.{parts[2]}"
        subnet = "class_subnet" if parts[1] == "cls_subnet" else "box_subnet"
        return f"head.{subnet}.layers.{int(parts[2]) // 2}.conv.{parts[3]}"
    body = parts[2:]
    place = ["backbone"] if body[0] == "stem" else ["backbone", f"layer{int(body[0][3:]) - 1}", body[1]]
    conv, last = body[-3] if body[-2] == "norm" else body[-2], body[-1]
    normed = body[-2] == "norm"
    if conv == "shortcut":
        return ".".join([*place, "downsample", "1" if normed else "0", last])
    return ".".join([*place, f"bn{conv[-1]}" if normed else conv, last])


def test_maps_heads_and_detections_equal_detectron2s(shared_golden: Path) -> None:
    loader = importlib.util.spec_from_file_location("golden_fill", shared_golden / "fill.py")
    assert loader is not None
    assert loader.loader is not None
    fill = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(fill)
    case = shared_golden / "d2_retinanet_r50_fpn"
    spec = json.loads((case / "spec.json").read_text())
    reference = np.load(case / "outputs.npz")
    weights = fill.state_dict(json.loads((case / "keys.json").read_text()), spec["seed"], spec["gains"])
    detector = build(detectron2_config(), 80).eval()
    state = {detectron2_name(key): torch.from_numpy(np.asarray(value)) for key, value in weights.items()}
    left = detector.load_state_dict(state, strict=False)
    assert left.missing_keys == ["average_positives"], left
    assert not left.unexpected_keys
    entry = spec["images"][0]  # the one that is not resized
    image = fill.image(spec["seed"], entry["height"], entry["width"], entry["index"])
    images = Images(torch.from_numpy(image).permute(2, 0, 1)[None], torch.tensor([image.shape[:2]]))
    with torch.inference_mode():
        maps = detector.neck(detector.backbone(detector.normalise(images)))
        logits, deltas = detector.head(maps)
        found = detector(images)
    for level, value in zip(detector.neck.levels, maps, strict=True):
        name = f"img0/features/{level.name.lower()}"
        meta = spec["outputs"][name]
        got = fill.pick(value.numpy(), meta["step"])
        np.testing.assert_allclose(got, reference[name].reshape(-1), atol=meta["atol"], rtol=meta["rtol"], err_msg=name)
    for kind, outputs, size in (("cls_logits", logits, 80), ("bbox_deltas", deltas, 4)):
        for level, value, fmap in zip(detector.neck.levels, outputs, maps, strict=True):
            name = f"img0/head/{kind}_{level.name.lower()}"
            meta = spec["outputs"][name]
            raw = value.reshape(1, *fmap.shape[2:], 9 * size).permute(0, 3, 1, 2)
            got = fill.pick(raw.numpy(), meta["step"])
            np.testing.assert_allclose(
                got, reference[name].reshape(-1), atol=meta["atol"], rtol=meta["rtol"], err_msg=name
            )
    boxes, scores, labels = found.boxes[0], found.scores[0], found.labels[0]
    expected = torch.from_numpy(reference["img0/dets"])  # class, score, box; without boxes that clipping left empty
    near = (scores[:, None] - expected[:, 1]).abs() < 5e-4
    near &= (boxes[:, None] - expected[:, 2:]).abs().amax(-1) < 0.05
    near &= labels[:, None] == expected[:, 0]
    assert len(expected) > 50
    assert near.any(0).float().mean() > 0.95  # we clip before NMS as torchvision does, they afterwards


def test_anchor_sides() -> None:
    """P3 at its corner: ratio h/w 0.5, 1, 2 at 32 pixels; the next sizes are 40.3 and 50.8."""
    config = octave_anchors()
    assert config.sizes[0] == pytest.approx((32, 40.3175, 50.7968), abs=1e-4)
    levels = [Level(f"P{i}", 2**i, 256) for i in range(3, 8)]
    boxes = AnchorGenerator(config, levels).level(0, (1, 1), torch.device("cpu"))
    sides = boxes[:, 2:] - boxes[:, :2]
    expected = torch.tensor([[45.2548, 22.6274], [32, 32], [22.6274, 45.2548]])
    torch.testing.assert_close(sides[:3], expected, atol=1e-4, rtol=0)
    ratio_outer = AnchorGenerator(replace(config, order="ratio"), levels).level(0, (1, 1), torch.device("cpu"))
    torch.testing.assert_close(ratio_outer.reshape(3, 3, 4).transpose(0, 1).reshape(9, 4), boxes)


def test_scores_start_at_the_prior() -> None:
    detector = build(RetinaNetConfig(backbone=ResNetConfig(depth=18, width=8, out_levels=(3, 4, 5))))
    assert detector.head.scores.bias is not None
    assert detector.head.scores.bias[0].item() == pytest.approx(-4.59512, abs=1e-5)


def one_row(*boxes: list[float]) -> Targets:
    valid = torch.ones(1, len(boxes), dtype=torch.bool)
    return Targets(torch.tensor([boxes]), torch.zeros_like(valid, dtype=torch.int64), valid, ~valid, ~valid)


@pytest.mark.parametrize(
    ("rule", "positive", "negative", "counted"),
    [
        ("none", [1, 0, 0, 0], [0, 0, 1, 1], 1),
        ("gap", [1, 1, 0, 0], [0, 0, 1, 1], 3),
        ("any", [1, 1, 1, 0], [0, 0, 0, 1], 3),
    ],
)
def test_low_quality_rules(rule: str, positive: list[int], negative: list[int], counted: int) -> None:
    """Three objects whose best anchors overlap them by 0.6, 0.45 and 0.3, and an anchor far away.

    Detectron counts best anchors before it takes those below the gap back.
    """
    detector = build(small_retinanet(**{"assign.low_quality": rule, "loss.normalizer": "batch_plus_images"}))
    anchors = torch.tensor([[0.0, 0, 10, 10], [100, 0, 110, 10], [200, 0, 210, 10], [300, 0, 310, 10]])
    targets = one_row([0, 0, 10, 6], [100, 0, 110, 4.5], [200, 0, 210, 3])
    matches, counts = detector.match(anchors, [4], targets)
    assert matches.positive.int().tolist() == [positive]
    assert matches.negative.int().tolist() == [negative]
    assert counts.tolist() == [counted]


@pytest.mark.parametrize(
    ("normalizer", "shares"),
    [
        ("batch", [1 / 6, 1 / 6, 1 / 6]),
        ("batch_plus_images", [1 / 9, 1 / 9, 1 / 9]),
        ("image", [1 / 12, 1 / 6, 1 / 3]),
        ("image_mean", [1 / 12, 1 / 6, 1 / 3]),
        ("average", [1 / 90.6] * 3),
    ],
)
def test_divisors(normalizer: str, shares: list[float]) -> None:
    """Images with 4, 2 and 0 positives."""
    detector = build(small_retinanet(**{"loss.normalizer": normalizer})).train()
    torch.testing.assert_close(detector.image_factors(torch.tensor([4, 2, 0])), torch.tensor(shares))


def test_the_moving_average_is_kept_and_moves_in_training_only() -> None:
    detector = build(small_retinanet(**{"loss.normalizer": "average"}))
    images, targets = example_images(2, 128, 160), example_targets()
    detector.eval()(images, targets)
    assert detector.state_dict()["average_positives"] == 100
    detector.train()(images, targets)
    first = detector.state_dict()["average_positives"].clone()
    assert 90 < first < 100
    twin = build(small_retinanet(**{"loss.normalizer": "average"}))
    twin.load_state_dict(detector.state_dict())
    assert twin.average_positives == first
    assert "average_positives" not in build(small_retinanet()).state_dict()


def losses_of(config: RetinaNetConfig, targets: Targets | None = None) -> dict[str, float]:
    torch.manual_seed(0)
    detector = build(config)
    nn.init.normal_(detector.head.scores.weight, std=0.3)
    nn.init.normal_(detector.head.deltas.weight, std=0.3)
    losses = detector(example_images(2, 128, 160), targets or example_targets())
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())
    return {name: value.item() for name, value in losses.items()}


@pytest.mark.parametrize(
    ("changes", "differs", "why"),
    [
        ({"assign.method": "atss"}, {"classification", "box"}, "other positives"),
        ({"assign.positive_iou": 0.7}, {"classification", "box"}, "fewer positives"),
        ({"assign.negative_iou": 0.1}, {"classification"}, "fewer negatives"),
        ({"loss.gamma": 0.0}, {"classification"}, "cross-entropy"),
        ({"loss.gamma": 0.5, "loss.alpha": 0.5}, {"classification"}, "table 1b"),
        ({"loss.alpha": None}, {"classification"}, "no balance"),
        ({"loss.classification": "quality_focal"}, {"classification"}, "IoU as the target"),
        ({"loss.box": "giou"}, {"box"}, "of the decoded box"),
        ({"loss.beta": 0.0}, {"box"}, "plain L1"),
        ({"loss.box_weight": 2.0}, {"box"}, "weight"),
        ({"coder.weights": (10.0, 10.0, 5.0, 5.0)}, {"box"}, "scaled targets"),
        ({"loss.normalizer": "image"}, {"classification", "box"}, "by image"),
    ],
)
def test_every_training_option_changes_its_loss(changes: dict[str, object], differs: set[str], why: str) -> None:
    plain, changed = losses_of(small_retinanet()), losses_of(small_retinanet(**changes))
    assert {name for name in plain if plain[name] != changed[name]} == differs, why


def test_image_mean_divides_the_box_loss_by_its_coordinates() -> None:
    image, mean = (
        losses_of(small_retinanet(**{"loss.normalizer": "image"})),
        losses_of(small_retinanet(**{"loss.normalizer": "image_mean"})),
    )
    assert mean["box"] == pytest.approx(image["box"] / 4)
    assert mean["classification"] == pytest.approx(image["classification"])


def test_ignored_crowd_and_difficult_boxes() -> None:
    targets = example_targets()
    crowd = losses_of(small_retinanet(), targets._replace(crowd=targets.valid))
    shaded = losses_of(small_retinanet(**{"assign.crowd_ignore": None}), targets._replace(crowd=targets.valid))
    assert crowd["box"] == shaded["box"] == 0
    assert crowd["classification"] < shaded["classification"], "anchors under a crowd are no background"
    difficult = targets._replace(difficult=targets.valid)
    assert losses_of(small_retinanet(**{"assign.difficult": False}), difficult)["box"] == 0
    assert losses_of(small_retinanet(), difficult)["box"] > 0


def test_the_top_level_may_have_a_threshold_of_its_own() -> None:
    """Detectron's threshold of 0 gives every image detections."""
    images = example_images(2, 128, 160)
    with torch.inference_mode():
        high = PostprocessConfig(score_threshold=0.9, candidates=100, detections=20)
        assert not build(small_retinanet(post=high)).eval()(images).valid.any()
        assert build(small_retinanet(post=high, top_threshold=0.0)).eval()(images).valid.any(1).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss.gamma": -1.0}, "gamma = -1.0: should be greater than or equal to 0"),
        ({"loss.alpha": 1.0}, "alpha = 1.0: should be less than 1"),
        ({"top_threshold": 2.0}, "top_threshold = 2.0"),
        ({"post": PostprocessConfig(per_class=10)}, "post.per_class = 10: RetinaNet counts candidates by level"),
        ({"anchors": octave_anchors(bases=(16, 32))}, "anchors.sizes has 2 entries but the pyramid has 5 levels"),
        ({"neck": FPNConfig(channels=16, extra="conv_c")}, r"6 levels \(P3, P4, P5, P6, P7, P8\)"),
        ({"anchors": AnchorConfig(sizes=((8,), (8,), (8,), (8,), (8, 9)))}, "as many anchors a cell"),
    ],
)
def test_what_cannot_be_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(small_retinanet(**changes))
