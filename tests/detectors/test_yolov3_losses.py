"""The losses of YOLOv3 against the rules of Darknet written out as loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from boxwright.detectors.yolov3 import YOLOv3, YOLOv3Config
from boxwright.geometry.boxes import box_iou
from boxwright.heads.yolo_scales import YOLOScalesConfig
from boxwright.structures import Targets
from tests.support.options import with_options
from tests.support.yolo_cases import MODERN_YOLOV3, PLAIN_YOLOV3, small_yolov3

TINY = replace(
    PLAIN_YOLOV3,
    backbone=replace(PLAIN_YOLOV3.backbone, out_levels=(4, 5)),
    scales=YOLOScalesConfig(channels=(8, 16), style="tiny"),
    anchors=((10.0, 14.0), (23.0, 27.0), (37.0, 58.0), (81.0, 82.0), (135.0, 169.0), (344.0, 319.0)),
    masks=((1, 2, 3), (3, 4, 5)),
)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Compute the IoU of two boxes given by centre and size."""
    width = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    height = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def cross_entropy(logit: float, target: float) -> float:
    return max(logit, 0.0) - logit * target + math.log1p(math.exp(-abs(logit)))


def spelled_out(maps: list[np.ndarray], truths: list[list[tuple]], config: YOLOv3Config, side: tuple[int, int]):
    """Apply Darknet's rules by loops over predictors and objects.

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
    """Return objects in the input; every third has the centre of the one before, another class and nearly its size."""
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
    """Compute the losses of raw maps."""
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
    detector = small_yolov3(config)
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
    """Return raw maps of zeros and one object: 36 x 52 pixels with its centre at (44, 45), in an input of 128 x 96."""
    detector = small_yolov3(with_options(PLAIN_YOLOV3, changes))
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
    plain = losses_of(small_yolov3(), maps, targets)
    weights = {"loss.box_weight": 2.0, "loss.class_weight": 5.0}
    weighted = losses_of(small_yolov3(with_options(PLAIN_YOLOV3, weights)), maps, targets)
    for name, factor in (("box", 2), ("objectness", 1), ("classification", 5)):
        torch.testing.assert_close(weighted[name], plain[name] * factor)
    shared = losses_of(small_yolov3(with_options(PLAIN_YOLOV3, {"loss.normaliser": "positives"})), maps, targets)
    torch.testing.assert_close(shared["box"], plain["box"] * 2 / 3)


def test_difficult_and_crowd_objects() -> None:
    maps = [torch.randn(1, 24, 96 // s, 128 // s) for s in (8, 16, 32)]
    targets = as_targets([[(0.4, 0.5, 0.5, 0.5, 0)]], (96, 128))
    nothing = as_targets([[]], (96, 128))
    hard = targets._replace(difficult=targets.valid)
    assert float(losses_of(small_yolov3(), maps, hard)["box"]) > 0
    skipping = small_yolov3(with_options(PLAIN_YOLOV3, {"assign.difficult": False}))
    torch.testing.assert_close(losses_of(skipping, maps, hard), losses_of(skipping, maps, nothing))

    crowd = targets._replace(crowd=targets.valid)
    shaded, plain = losses_of(small_yolov3(), maps, crowd), losses_of(small_yolov3(), maps, nothing)
    assert shaded["box"] == 0
    assert shaded["objectness"] < plain["objectness"], "predictors within the crowd are left alone"
    unaware = losses_of(small_yolov3(with_options(PLAIN_YOLOV3, {"assign.crowd_ignore": None})), maps, crowd)
    torch.testing.assert_close(unaware, plain)


def test_aligned_assignment_has_several_predictors_of_an_object() -> None:
    config = with_options(MODERN_YOLOV3, {"assign.topk": 5, "loss.normaliser": "positives"})
    detector = small_yolov3(config)
    targets = as_targets([[(0.4, 0.5, 0.5, 0.5, 0)], []], (96, 128))
    maps = [torch.zeros(2, 24, 96 // s, 128 // s, requires_grad=True) for s in (8, 16, 32)]
    losses = losses_of(detector, maps, targets)
    losses["classification"].backward()
    assigned = sum(int((m.grad[:, 5::8] != 0).sum()) for m in maps if m.grad is not None)
    assert assigned == 5
    assert 0 < losses["box"] < 2
    empty = losses_of(detector, maps, as_targets([[], []], (96, 128)))
    assert empty["box"] == 0
