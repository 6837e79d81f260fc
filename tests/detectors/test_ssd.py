"""SSD against torchvision with the same weights, the figures of the paper, and its options."""

import math
from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

from boxwright.anchors.priors import PriorConfig, default_boxes
from boxwright.backbones.layers.norm import L2Norm
from boxwright.backbones.mobilenet import MobileNetConfig
from boxwright.detectors.ssd import SSD, SSDConfig
from boxwright.heads.extra_maps import EXTRAS_512, ExtraConfig
from boxwright.heads.map_heads import MapHead
from boxwright.heads.postprocess import multiclass_detections
from boxwright.recipes import get_recipe
from boxwright.structures import Classes, Images, InputError, Targets
from boxwright.weights.torchvision.ssd import ssd_config, ssd_state
from tests.support.dense_cases import PLAIN_SSD
from tests.support.options import with_options


def names(count: int) -> Classes:
    return Classes.from_names([f"class {i}" for i in range(count)])


def torchvision_model(classes: int) -> nn.Module:
    """Return torchvision's SSD with random weights that spread scores and offsets."""
    torch.manual_seed(classes)
    model = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=classes + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("features.0.weight"):
                parameter.mul_(0.02)  # pixels are of the order of 100
            if "classification_head" in name:
                parameter.mul_(4)
    return model


def random_images(batch: int, side: int = 300) -> Images:
    generator = torch.Generator().manual_seed(batch)
    coarse = torch.rand((batch, 3, 12, 12), generator=generator)
    pixels = nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 255
    return Images(pixels.to(torch.uint8), torch.tensor([[side, side]] * batch))


def example_targets() -> Targets:
    """Return boxes for every map of a 300-pixel input; two of them match the same priors."""
    boxes = torch.tensor(
        [
            [[202.0, 198, 226, 222], [200, 200, 225, 223], [40, 60, 95, 110], [10, 150, 130, 260], [80, 90, 240, 260],
             [60, 50, 290, 270], [10, 15, 280, 290]],
            [[50, 60, 220, 180], [150, 20, 175, 60], *[[0, 0, 0, 0]] * 5],
        ]
    )  # fmt: skip
    valid = boxes[..., 2] > 0
    labels = torch.tensor([[0, 1, 2, 1, 0, 2, 1], [2, 0, 0, 0, 0, 0, 0]])
    no = torch.zeros_like(valid)
    return Targets(boxes, labels, valid, no, no)


@pytest.mark.parametrize(("classes", "batch"), [(3, 2), (90, 1)])
def test_detections_equal_torchvisions(classes: int, batch: int) -> None:
    theirs = torchvision_model(classes).eval()
    ours, images = SSD(ssd_config(), names(classes)).eval(), random_images(batch)
    ours.load_state_dict(ssd_state(theirs.state_dict()))
    with torch.inference_mode():
        found = ours(images)
        expected = theirs([image.float() / 255 for image in images.pixels])
    for b, reference in enumerate(expected):
        valid = found.valid[b]
        assert len(reference["scores"]) == valid.sum() > 100, "the comparison needs detections"
        torch.testing.assert_close(found.scores[b, valid], reference["scores"], atol=1e-5, rtol=1e-4)
        same = found.labels[b, valid] + 1 == reference["labels"]
        assert same.float().mean() > 0.97  # near ties may swap
        torch.testing.assert_close(found.boxes[b, valid][same], reference["boxes"][same], atol=0.05, rtol=1e-3)


@pytest.mark.parametrize(("classes", "batch"), [(3, 2), (20, 1)])
def test_losses_and_gradients_equal_torchvisions(classes: int, batch: int) -> None:
    theirs = torchvision_model(classes).train()
    ours = SSD(ssd_config(freeze_at=0), names(classes)).train()
    ours.load_state_dict(ssd_state(theirs.state_dict()))
    images = random_images(batch)
    targets = Targets(*(t if t is None else t[:batch] for t in example_targets()))
    dicts = [
        {"boxes": b[v], "labels": k[v] + 1}
        for b, k, v in zip(targets.boxes, targets.labels, targets.valid, strict=True)
    ]
    expected = theirs([image.float() / 255 for image in images.pixels], dicts)
    losses = ours(images, targets)
    for mine, reference in (("classification", "classification"), ("box", "bbox_regression")):
        torch.testing.assert_close(losses[mine], expected[reference], atol=1e-5, rtol=1e-4)

    torch.stack(list(losses.values())).sum().backward()
    sum(expected.values()).backward()
    gradients = ssd_state({name: p.grad for name, p in theirs.named_parameters()})
    assert set(gradients) == {name for name, _ in ours.named_parameters()}
    for name, parameter in ours.named_parameters():
        reference, mine = gradients[name], parameter.grad
        assert mine is not None
        assert reference.abs().max() > 0, f"{name} is not tested"
        # In the norm, and not close: where rounding takes an activation to the other side of a ReLU, or makes another
        # one the largest of a pool, whole entries differ. A wrong term would show in tenths.
        assert ((mine - reference).norm() / reference.norm()).item() < 2e-2, name


@pytest.mark.parametrize(
    ("recipe", "classes", "parameters", "priors"),
    [
        ("ssd300-voc", 20, 26_285_486, 8732),
        ("ssd300-coco", 80, 34_305_206, 8732),
        ("ssd512-voc", 20, 27_188_676, 24_564),
        ("ssd512-coco", 80, 36_038_196, 24_564),
    ],
)
def test_published_sizes(recipe: str, classes: int, parameters: int, priors: int) -> None:
    config = get_recipe(recipe).detector
    assert isinstance(config, SSDConfig)
    with torch.device("meta"):
        detector = SSD(config, names(classes))
        deltas, logits = detector.outputs(torch.empty(1, 3, *config.size))
    assert sum(p.numel() for p in detector.parameters()) == parameters
    assert (deltas.shape, logits.shape) == ((1, priors, 4), (1, priors, classes + 1))


CPU = torch.device("cpu")


def test_offsets_by_the_papers_variances() -> None:
    """Prior cxcywh (.5, .5, .2, .4), object (.45, .40, .65, .80): offsets (2.5, 2.5, 0, 0)."""
    coder = SSD(PLAIN_SSD, names(2)).coder
    prior, box = torch.tensor([40.0, 30, 60, 70]), torch.tensor([45.0, 40, 65, 80])
    offsets = coder.encode(prior, box)
    torch.testing.assert_close(offsets, torch.tensor([2.5, 2.5, 0, 0]))
    torch.testing.assert_close(coder.decode(prior, offsets), box)


def losses_by_hand(detector: SSD, images: Images, targets: Targets) -> dict[str, float]:
    """Compute equation 1 by loops over the priors."""
    maps = detector.maps(detector.normalise(images))
    deltas, logits = detector.predict(maps)
    shapes = [(fmap.shape[2], fmap.shape[3]) for fmap in maps]
    priors = default_boxes(detector.config.priors, shapes, detector.config.size, CPU)
    matches = detector.match(targets, priors, [len(priors)])
    classification = box = 0.0
    for b in range(len(deltas)):
        log_p = logits[b].log_softmax(-1)
        positives = matches.positive[b].nonzero().flatten().tolist()
        for i in positives:
            truth = matches.truth[b, i]
            classification -= log_p[i, targets.labels[b, truth]].item()
            gap = (deltas[b, i] - detector.coder.encode(priors[i], targets.boxes[b, truth])).abs()
            box += sum(x * x / 2 if x < 1 else x - 0.5 for x in gap.tolist())
        background = sorted((-log_p[matches.negative[b], -1]).tolist(), reverse=True)
        classification += sum(background[: 3 * len(positives)])
    total = int(matches.positive.sum())
    return {"classification": classification / total, "box": box / total}


def small_batch() -> tuple[Images, Targets]:
    images = Images(random_images(2, 160).pixels[:, :, :128], torch.tensor([[128, 160]] * 2))
    targets = example_targets()
    return images, targets._replace(boxes=targets.boxes * torch.tensor([160, 128, 160, 128]) / 300)


def test_losses_are_the_papers_equation() -> None:
    torch.manual_seed(0)
    detector = SSD(PLAIN_SSD, names(3)).eval()
    images, targets = small_batch()
    with torch.no_grad():
        losses = {name: value.item() for name, value in detector(images, targets).items()}
        assert losses == pytest.approx(losses_by_hand(detector, images, targets), rel=1e-4)


def test_an_image_without_objects_teaches_nothing_unless_asked() -> None:
    torch.manual_seed(0)
    images, targets = small_batch()
    with_second = {}
    for minimum in (0, 20):
        detector = SSD(with_options(PLAIN_SSD, {"loss.min_negatives": minimum}), names(3)).eval()
        detector.load_state_dict(with_second.setdefault("state", detector.state_dict()))
        one = detector(images, targets._replace(valid=targets.valid & torch.tensor([[True], [False]])))
        alone = detector(Images(images.pixels[:1], images.sizes[:1]), Targets(*(t[:1] for t in targets[:5])))  # type: ignore[index]
        same = one["classification"].item() == pytest.approx(alone["classification"].item(), rel=1e-5)
        assert same == (minimum == 0)


def test_only_the_first_head_reads_the_normed_map() -> None:
    torch.manual_seed(0)
    detector = SSD(PLAIN_SSD, names(3)).eval()
    images, _ = small_batch()
    with torch.no_grad():
        before = detector.maps(detector.normalise(images))
        assert isinstance(detector.l2, L2Norm)
        detector.l2.weight.mul_(3)
        after = detector.maps(detector.normalise(images))
    torch.testing.assert_close(after[0], before[0] * 3)
    torch.testing.assert_close(before[0].norm(dim=1).amax(), torch.tensor(20.0))
    for one, other in zip(before[1:], after[1:], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "changes",
    [
        {"assign.forced": "parallel"},
        {"assign.positive_iou": 0.3},
        {"assign.method": "atss"},
        {"assign.method": "atss", "assign.topk": 2},
        {"assign.negative_iou": 0.1},
        {"loss.negative_ratio": 1.0},
        {"loss.min_negatives": 400},
        {"loss.classification": "focal"},
        {"loss.classification": "focal", "loss.alpha": None},
        {"loss.classification": "focal", "loss.gamma": 0.0},
        {"loss.classification": "quality_focal"},
        {"loss.box": "ciou"},
        {"loss.beta": 0.1},
        {"loss.box_weight": 2.0},
        {"coder.weights": (1.0, 1.0, 1.0, 1.0)},
        {"l2_scale": None},
        {"head.separable": True},
        {"head.start": "glorot"},
        {"head.norm": "none"},
        {"priors": replace(PLAIN_SSD.priors, clip="corners")},
    ],
    ids=str,
)
def test_every_option_changes_the_losses_and_learns(changes: dict[str, object]) -> None:
    images, targets = small_batch()

    def run(config: SSDConfig) -> list[float]:
        torch.manual_seed(0)
        detector = SSD(config, names(3))
        losses = detector(images, targets)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        assert total.isfinite()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())
        return [loss.item() for loss in losses.values()]

    earlier = {
        "assign.topk": {"assign.method": "atss"},
        "loss.alpha": {"loss.classification": "focal"},
        "loss.gamma": {"loss.classification": "focal"},
    }
    base = next((earlier[name] for name in changes if name in earlier), {})
    assert run(with_options(PLAIN_SSD, changes)) != run(with_options(PLAIN_SSD, base))  # type: ignore[arg-type]


def test_the_clamp_bounds_boxes() -> None:
    for clamp, width in ((None, 10 * math.exp(4)), (math.log(8), 80.0)):
        coder = SSD(with_options(PLAIN_SSD, {"coder.clamp": clamp}), names(2)).coder
        box = coder.decode(torch.tensor([0.0, 0.0, 10.0, 10.0]), torch.tensor([0.0, 0.0, 20.0, 0.0]))
        assert (box[2] - box[0]).item() == pytest.approx(width, rel=1e-5)


def test_an_overlap_that_boxes_reach_beyond_the_border_counts_unless_clipped() -> None:
    """Two boxes are equal within the image and differ outside it."""
    boxes = torch.tensor([[[-100.0, 0, 50, 100], [0, 0, 50, 100]]])
    scores, sizes = torch.tensor([[[0.9], [0.8]]]), torch.tensor([[100, 100]])
    for clip, kept in ((True, 1), (False, 2)):
        for per_class in (10, None):
            config = replace(PLAIN_SSD.post, nms_iou=0.45, clip=clip, per_class=per_class)
            assert multiclass_detections(scores, boxes, sizes, config).valid.sum() == kept


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"extras": PLAIN_SSD.extras[:1]},
            r"4 entries but there are 3 maps, the backbone's levels \(C4, C6\) and 1 extras",
        ),
        ({"extras": EXTRAS_512[:2], "size": (8, 40)}, None),
        (
            {"extras": (*PLAIN_SSD.extras, ExtraConfig(hidden=8, out=8, padding=0)), "priors": "five"},
            r"extras.2 would make a map without cells from an input of 128 x 160; use 2 extras or a larger size",
        ),
        (
            {"head.separable": True, "extras": (ExtraConfig(hidden=8, out=8, kernel=4),) * 2},
            "separable layers have a kernel of 3",
        ),
        ({"size": (0, 300)}, "size.0 = 0: should be greater than or equal to 1"),
        ({"assign.positive_iou": 1.0}, "positive_iou = 1.0: should be less than 1"),
        ({"loss.negative_ratio": 0.0}, "negative_ratio = 0.0: should be greater than 0"),
        ({"loss.min_negatives": -1}, "min_negatives = -1: should be"),
        ({"priors": {"steps": (8, 16)}}, "priors.steps has 2 entries for 4 maps"),
        ({"priors": {"sizes": (8, 16)}}, "priors.sizes has 2 entries and priors.ratios 4"),
        ({"priors": {"sizes": (16, 32, 56, 110, 80)}}, "must be in ascending order"),
        ({"priors": {"ratios": ((2,), (2, -3), (2, 3), (2,))}}, "should be greater than 0"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused(changes: dict[str, object], message: str | None) -> None:
    def build() -> SSD:
        given = changes.get("priors")
        if given == "five":
            five = PriorConfig(sizes=(16, 32, 56, 80, 90, 110), ratios=((2,),) * 5, steps=None)
            return SSD(replace(PLAIN_SSD, **changes | {"priors": five}), names(2))  # type: ignore[arg-type]
        if isinstance(given, dict):
            return SSD(replace(PLAIN_SSD, priors=replace(PLAIN_SSD.priors, **given)), names(2))
        return SSD(with_options(PLAIN_SSD, changes), names(2))  # type: ignore[arg-type]

    if message is None:
        assert build().input_size == changes["size"]
        return
    with pytest.raises(InputError, match=message):
        build()


def test_other_inputs_are_refused() -> None:
    detector = SSD(PLAIN_SSD, names(2)).eval()
    with pytest.raises(InputError, match=r"the input is 160 x 160 pixels .* takes exactly 128 x 160"):
        detector(random_images(1, 160))


@pytest.mark.parametrize("recipe", ["ssd300-mobilenet", "ssdlite320-mobilenet-v2"])
def test_light_backbones(recipe: str) -> None:
    config = get_recipe(recipe).detector
    assert isinstance(config, SSDConfig)
    backbone = config.backbone
    assert isinstance(backbone, MobileNetConfig)
    slim = replace(config, backbone=replace(backbone, width=0.25))
    detector = SSD(slim, names(80)).eval()
    side = config.size[0]
    with torch.inference_mode():
        maps = detector.maps(torch.zeros(1, 3, side, side))
        detections = detector(random_images(1, side))
    assert [fmap.shape[2] for fmap in maps] == [-(-side // 16), 10, 5, 3, 2, 1]
    assert detections.boxes.shape == (1, 200, 4)


@pytest.mark.parametrize(
    ("start", "offsets", "logits"),
    [("caffe", 3 / (64 * 9), 3 / (64 * 9)), ("glorot", 6 / ((64 + 16) * 9), 6 / ((64 + 84) * 9))],
)
def test_heads_start_as_two_convolutions(start: str, offsets: float, logits: float) -> None:
    """4 priors of 4 offsets and 21 logits on 64 channels: each part has the range of a layer of its own."""
    torch.manual_seed(0)
    head = SSD(with_options(PLAIN_SSD, {"head.start": start}), names(20)).heads[0]  # type: ignore[arg-type]
    assert isinstance(head, MapHead)
    rows = head.predict.weight.unflatten(0, (4, 25))
    for part, square in ((rows[:, :4], offsets), (rows[:, 4:], logits)):
        assert part.abs().max().item() == pytest.approx(math.sqrt(square), rel=0.01)
    assert head.predict.bias is not None
    assert head.predict.bias.abs().max() == 0
