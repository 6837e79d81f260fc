"""YOLOv3 against the published numbers, and its loss against the rules of Darknet's code written out as loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from boxwright.backbones.detnet import DetNetConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.build import build_detector
from boxwright.detectors.yolov3 import YOLOv3, YOLOv3Config
from boxwright.geometry.boxes import box_iou
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.yolo_scales import SpatialPyramidPooling, YOLOScalesConfig
from boxwright.recipes import RECIPES
from boxwright.structures import Classes, Images, InputError, Targets
from tests.support.options import with_options
from tests.support.yolo_cases import MODERN_YOLOV3, PLAIN_YOLOV3

NAMES = Classes.from_names(["disc", "bar", "ring"])

TINY = replace(
    PLAIN_YOLOV3,
    backbone=replace(PLAIN_YOLOV3.backbone, out_levels=(4, 5)),
    scales=YOLOScalesConfig(channels=(8, 16), style="tiny"),
    anchors=((10.0, 14.0), (23.0, 27.0), (37.0, 58.0), (81.0, 82.0), (135.0, 169.0), (344.0, 319.0)),
    masks=((1, 2, 3), (3, 4, 5)),
)


def small(config: YOLOv3Config = PLAIN_YOLOV3, classes: Classes = NAMES) -> YOLOv3:
    torch.manual_seed(0)
    detector = build_detector(config, classes)
    assert isinstance(detector, YOLOv3)
    return detector


# --- the network ---


def floats(name: str, classes: int) -> int:
    """Numbers that a weights file of the recipe's detector holds, for so many classes."""
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
def test_as_many_numbers_as_the_published_files(name: str, classes: int, file_bytes: int) -> None:
    assert 20 + 4 * floats(name, classes) == file_bytes


def test_the_spatial_pyramid_is_three_pools_side_by_side() -> None:
    x = torch.randn(2, 3, 7, 9)
    expected = torch.cat([*(F.max_pool2d(x, k, 1, k // 2) for k in (13, 9, 5)), x], dim=1)
    assert torch.equal(SpatialPyramidPooling()(x), expected)


def test_each_scale_predicts_on_its_own_grid_from_fine_to_coarse() -> None:
    detector = small()
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
    detector = small(replace(PLAIN_YOLOV3, backbone=backbone))
    assert detector.input_multiple == strides[-1]
    maps = detector.outputs(torch.zeros(1, 3, 64, 64))
    assert [m.shape[-1] for m in maps] == [64 // s for s in strides]


def test_a_prior_starts_from_the_anchors() -> None:
    detector = small(with_options(PLAIN_YOLOV3, {"scales.prior": 0.1})).eval().requires_grad_(False)
    maps = detector.outputs(torch.rand(1, 3, 64, 64))
    raw = torch.cat([m.permute(0, 2, 3, 1).reshape(-1, 8) for m in maps])
    assert float(raw[:, 4].sigmoid().mean()) == pytest.approx(0.1, abs=0.02)
    assert float(raw[:, :4].abs().max()) < 0.5
    assert (small(PLAIN_YOLOV3).eval().outputs(torch.rand(1, 3, 64, 64))[0].abs() > 1).any()


def test_running_statistics_may_follow_faster() -> None:
    def momenta(config: YOLOv3Config) -> set[float | None]:
        return {m.momentum for m in small(config).modules() if isinstance(m, nn.BatchNorm2d)}

    assert momenta(PLAIN_YOLOV3) == {0.01}
    assert momenta(replace(PLAIN_YOLOV3, norm_momentum=0.1)) == {0.1}


# --- boxes ---


def test_decode_is_the_papers_equation() -> None:
    """52 x 52 cells, cell (10, 20), anchor 10 x 13 of a 416 x 416 input."""
    detector = small()
    grid = detector.grid([(52, 52), (26, 26), (13, 13)], torch.device("cpu"))
    index = (20 * 52 + 10) * 3
    t = torch.tensor([0.3, -0.2, 0.1, -0.4])
    x1, y1, x2, y2 = (detector.decode(t, grid.anchors[index], grid.cell[index]) / 416).tolist()
    expected = [0.203355, 0.393272, 0.026567, 0.020948]
    assert [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1] == pytest.approx(expected, abs=1e-6)


def test_reach_lets_a_centre_leave_its_cell() -> None:
    detector = small(replace(PLAIN_YOLOV3, reach=2.0))
    anchor, cell = torch.tensor([8.0, 8, 24, 24]), torch.tensor([16.0])
    far = detector.decode(torch.tensor([50.0, -50, 0, 0]), anchor, cell)
    assert far.tolist() == pytest.approx([24, -8, 40, 8])


# --- the loss ---


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """IoU of two boxes given by centre and size."""
    width = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    height = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def cross_entropy(logit: float, target: float) -> float:
    return max(logit, 0.0) - logit * target + math.log1p(math.exp(-abs(logit)))


def spelled_out(maps: list[np.ndarray], truths: list[list[tuple]], config: YOLOv3Config, side: tuple[int, int]):
    """Darknet's rules, one predictor and one object at a time.

    ``maps``: ``[B, a * (5 + K), H, W]`` of each scale; ``truths``: for each image (x, y, w, h, class), as shares of the
    input's ``side`` (height, width). Returns what the rules add to each output, which is the negative gradient, and
    the sums of the three losses that have this gradient.
    """
    height, width = side
    deltas = [np.zeros_like(m) for m in maps]
    sums = {"box": 0.0, "objectness": 0.0, "classification": 0.0}
    for level, out in enumerate(maps):
        mask, delta = config.masks[level], deltas[level]
        rows, columns = out.shape[2:]
        size = out.shape[1] // len(mask)
        for image, objects in enumerate(truths):
            wanted = {}  # predictor -> objectness target, or None where nothing is asked of it
            for slot, anchor in enumerate(mask):
                for j in range(rows):
                    for i in range(columns):
                        x, y, w, h = out[image, slot * size : slot * size + 4, j, i]
                        box = (
                            (i + sigmoid(x)) / columns, (j + sigmoid(y)) / rows,
                            math.exp(w) * config.anchors[anchor][0] / width,
                            math.exp(h) * config.anchors[anchor][1] / height,
                        )  # fmt: skip
                        best = max((overlap(box, o[:4]) for o in objects), default=0.0)
                        wanted[slot, j, i] = None if best > config.assign.ignore_iou else 0.0
            boxes, classes = {}, {}
            for x, y, w, h, label in objects:
                fit = [overlap((0, 0, w, h), (0, 0, aw / width, ah / height)) for aw, ah in config.anchors]
                owner = int(np.argmax(fit))
                if owner not in mask:
                    continue
                slot, j, i = mask.index(owner), int(y * rows), int(x * columns)
                aw, ah = config.anchors[owner]
                target = (x * columns - i, y * rows - j, math.log(w * width / aw), math.log(h * height / ah))
                boxes[slot, j, i] = (target, 2 - w * h)  # a later object takes the place of an earlier one
                wanted[slot, j, i] = 1.0
                classes.setdefault((slot, j, i), set()).add(label)  # but its class only joins
            for (slot, j, i), target in wanted.items():
                o = out[image, slot * size + 4, j, i]
                if target is not None:
                    delta[image, slot * size + 4, j, i] = target - sigmoid(o)
                    sums["objectness"] += cross_entropy(o, target)
            for (slot, j, i), (target, weight) in boxes.items():
                for n in range(4):
                    t = out[image, slot * size + n, j, i]
                    delta[image, slot * size + n, j, i] = weight * (target[n] - (sigmoid(t) if n < 2 else t))
                    part = cross_entropy(t, target[n]) if n < 2 else (t - target[n]) ** 2 / 2
                    sums["box"] += weight * part
            for (slot, j, i), labels in classes.items():
                for k in range(size - 5):
                    c = out[image, slot * size + 5 + k, j, i]
                    delta[image, slot * size + 5 + k, j, i] = float(k in labels) - sigmoid(c)
                    sums["classification"] += cross_entropy(c, float(k in labels))
    return deltas, sums


def random_objects(generator: np.random.Generator, count: int, classes: int) -> list[tuple]:
    """Objects within the input; every third sits where its predecessor does, with another class and almost its size."""
    objects: list[tuple] = []
    for n in range(count):
        if n % 3 == 2:
            x, y, w, h, label = objects[-1]
            objects.append((x, y, w * 1.02, h * 0.98, (label + 1) % classes))
            continue
        w, h = np.exp(generator.uniform(-3.5, -0.7, 2))
        x, y = generator.uniform(w / 2, 1 - w / 2), generator.uniform(h / 2, 1 - h / 2)
        objects.append((float(x), float(y), float(w), float(h), int(generator.integers(classes))))
    return objects


def as_targets(truths: list[list[tuple]], side: tuple[int, int]) -> Targets:
    height, width = side
    rows = max(map(len, truths)) + 1  # one of padding
    boxes, labels = torch.zeros(len(truths), rows, 4), torch.zeros(len(truths), rows, dtype=torch.int64)
    valid = torch.zeros(len(truths), rows, dtype=torch.bool)
    for b, objects in enumerate(truths):
        for g, (x, y, w, h, label) in enumerate(objects):
            boxes[b, g] = torch.tensor(
                [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
            )
            labels[b, g], valid[b, g] = label, True
    no = torch.zeros_like(valid)
    return Targets(boxes, labels, valid, no, no)


def losses_of(detector: YOLOv3, maps: list[torch.Tensor], targets: Targets) -> dict[str, torch.Tensor]:
    """The losses of given raw maps."""
    raw = [m.permute(0, 2, 3, 1).reshape(len(m), -1, 5 + len(detector.classes)) for m in maps]
    grid = detector.grid([(m.shape[2], m.shape[3]) for m in maps], torch.device("cpu"))
    return detector.losses(torch.cat(raw, 1), grid, targets)


@pytest.mark.parametrize(
    ("masks", "ignore_iou"),
    [
        (((0, 1, 2), (3, 4, 5), (6, 7, 8)), 0.5),
        (((0, 1, 2), (3, 4, 5), (6, 7, 8)), 0.7),
        (TINY.masks, 0.5),  # anchor 3 twice, 0 nowhere: the released YOLOv3-tiny
    ],
)
def test_loss_and_gradient_are_darknets(masks: tuple, ignore_iou: float) -> None:
    side = (96, 128)
    generator = np.random.default_rng(1)
    config = with_options(PLAIN_YOLOV3, {"masks": masks, "assign.ignore_iou": ignore_iou})
    if len(masks) == 2:
        config = with_options(TINY, {"assign.ignore_iou": ignore_iou})
    detector = small(config)
    strides = [level.stride for level in detector.backbone.levels]
    shapes = [(2, len(m) * 8, side[0] // s, side[1] // s) for m, s in zip(masks, strides, strict=True)]
    arrays = [generator.normal(0, 0.7, shape) for shape in shapes]
    truths = [random_objects(generator, 11, 3), random_objects(generator, 5, 3)]
    # Let one predictor of each anchor see the first object, which only one owns: the ignore rule then has work to do.
    x, y, w, h, _ = truths[0][0]
    for (_, _, rows, columns), array, mask in zip(shapes, arrays, masks, strict=True):
        for slot, anchor in enumerate(mask):
            aw, ah = config.anchors[anchor]
            place = np.array([x * columns % 1, y * rows % 1])
            cell = array[0, slot * 8 : slot * 8 + 8, int(y * rows), int(x * columns)]
            cell[:4] = [*np.log(place / (1 - place)), math.log(w * side[1] / aw), math.log(h * side[0] / ah)]
    deltas, sums = spelled_out(arrays, truths, config, side)

    maps = [torch.tensor(a, dtype=torch.float32, requires_grad=True) for a in arrays]
    losses = losses_of(detector, maps, as_targets(truths, side))
    for name, expected in sums.items():
        assert losses[name].item() == pytest.approx(expected / 2, rel=1e-4), name
    torch.stack(list(losses.values())).sum().backward()
    for fmap, delta in zip(maps, deltas, strict=True):
        assert fmap.grad is not None
        np.testing.assert_allclose(fmap.grad.numpy() * 2, -delta, atol=2e-4)
    assert sum(int((d[:, 4::8] == 0).sum()) for d in deltas) > 0, "the ignore rule had something to do"


def one_predictor(**changes: object) -> tuple[YOLOv3, list[torch.Tensor], Targets]:
    """Raw zeros but for one predictor, and the object that it owns: 36 x 52 at the centre (44, 45) of 128 x 96."""
    detector = small(with_options(PLAIN_YOLOV3, changes))
    maps = [torch.zeros(1, 24, 96 // s, 128 // s) for s in (8, 16, 32)]
    for m in maps:
        m.requires_grad_()
    return detector, maps, as_targets([[(44 / 128, 45 / 96, 36 / 128, 52 / 96, 2)]], (96, 128))


OWNER = (1, 0, 45 // 16, 44 // 16)  # scale, slot of anchor 3 (30 x 61), row, column


def test_the_papers_squared_error_of_the_centre() -> None:
    detector, maps, targets = one_predictor(**{"loss.box": "squared"})
    losses_of(detector, maps, targets)["box"].backward()
    scale, slot, j, i = OWNER
    grad = maps[scale].grad
    assert grad is not None
    weight = 2 - 36 * 52 / (96 * 128)
    expected = [0.25 * (0.5 - (44 / 16 - i)), 0.25 * (0.5 - (45 / 16 - j)), -math.log(36 / 30), -math.log(52 / 61)]
    found = grad[0, slot * 8 : slot * 8 + 4, j, i] / weight
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_losses_of_the_decoded_box(kind: str) -> None:
    detector, maps, targets = one_predictor(**{"loss.box": kind, "loss.small_weight": False})
    box_loss = losses_of(detector, maps, targets)["box"]
    box_loss.backward()
    loss = box_loss.item()
    scale, slot, j, i = OWNER
    predicted = torch.tensor([[40.0 - 15, 40 - 30.5, 40 + 15, 40 + 30.5]])  # the anchor itself, in the cell's centre
    iou = float(box_iou(predicted, targets.boxes[0, :1]))
    if kind == "iou":
        assert loss == pytest.approx(1 - iou, abs=1e-5)
    assert loss >= 1 - iou - 1e-5
    grad = maps[scale].grad
    assert grad is not None
    assert (grad[0, slot * 8 : slot * 8 + 4, j, i] != 0).all()
    assert int((grad != 0).sum()) == 4, "no other predictor learns a box"


def test_objectness_may_learn_the_overlap() -> None:
    detector, maps, targets = one_predictor(**{"loss.object_target": "iou"})
    losses_of(detector, maps, targets)["objectness"].backward()
    scale, slot, j, i = OWNER
    predicted = torch.tensor([[40.0 - 15, 40 - 30.5, 40 + 15, 40 + 30.5]])
    iou = float(box_iou(predicted, targets.boxes[0, :1]))
    grad = maps[scale].grad
    assert grad is not None
    assert float(grad[0, slot * 8 + 4, j, i]) == pytest.approx(0.5 - iou, abs=1e-5)


def test_weights_and_normalisers() -> None:
    truths = [[(0.3, 0.4, 0.2, 0.3, 0), (0.7, 0.6, 0.3, 0.2, 1)], [(0.5, 0.5, 0.6, 0.6, 2)]]
    targets = as_targets(truths, (96, 128))
    maps = [torch.randn(2, 24, 96 // s, 128 // s) for s in (8, 16, 32)]
    plain = losses_of(small(), maps, targets)
    weights = {"loss.box_weight": 2.0, "loss.class_weight": 5.0}
    weighted = losses_of(small(with_options(PLAIN_YOLOV3, weights)), maps, targets)
    for name, factor in (("box", 2), ("objectness", 1), ("classification", 5)):
        torch.testing.assert_close(weighted[name], plain[name] * factor)
    shared = losses_of(small(with_options(PLAIN_YOLOV3, {"loss.normaliser": "positives"})), maps, targets)
    torch.testing.assert_close(shared["box"], plain["box"] * 2 / 3)


def test_difficult_and_crowd_objects() -> None:
    maps = [torch.randn(1, 24, 96 // s, 128 // s) for s in (8, 16, 32)]
    targets = as_targets([[(0.4, 0.5, 0.5, 0.5, 0)]], (96, 128))
    nothing = as_targets([[]], (96, 128))
    hard = targets._replace(difficult=targets.valid)
    assert float(losses_of(small(), maps, hard)["box"]) > 0
    skipping = small(with_options(PLAIN_YOLOV3, {"assign.difficult": False}))
    torch.testing.assert_close(losses_of(skipping, maps, hard), losses_of(skipping, maps, nothing))

    crowd = targets._replace(crowd=targets.valid)
    shaded, plain = losses_of(small(), maps, crowd), losses_of(small(), maps, nothing)
    assert shaded["box"] == 0
    assert shaded["objectness"] < plain["objectness"], "predictors within the crowd are left alone"
    unaware = losses_of(small(with_options(PLAIN_YOLOV3, {"assign.crowd_ignore": None})), maps, crowd)
    torch.testing.assert_close(unaware, plain)


def test_aligned_assignment_teaches_several_predictors_of_an_object() -> None:
    config = with_options(MODERN_YOLOV3, {"assign.topk": 5, "loss.normaliser": "positives"})
    detector = small(config)
    targets = as_targets([[(0.4, 0.5, 0.5, 0.5, 0)], []], (96, 128))
    maps = [torch.zeros(2, 24, 96 // s, 128 // s, requires_grad=True) for s in (8, 16, 32)]
    losses = losses_of(detector, maps, targets)
    losses["classification"].backward()
    taught = sum(int((m.grad[:, 5::8] != 0).sum()) for m in maps if m.grad is not None)
    assert taught == 5
    assert 0 < losses["box"] < 2
    empty = losses_of(detector, maps, as_targets([[], []], (96, 128)))
    assert empty["box"] == 0


# --- detections ---


def wide(config: YOLOv3Config = PLAIN_YOLOV3) -> YOLOv3:
    detector = small(config)
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
        detector = small(replace(PLAIN_YOLOV3, **changes))  # type: ignore[arg-type]
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


# --- bad input ---


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
        small(replace(PLAIN_YOLOV3, **changes))


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
        small()(images)
