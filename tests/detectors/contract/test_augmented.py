"""Test-time augmentation with detectors whose detections are known, and with a real one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from boxwright.data.transforms.configs import LetterboxConfig, ResizeConfig, TransformConfig, WarpConfig
from boxwright.detections import Detections
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.augmented import TEST_TIME, TestTimeConfig, ViewConfig, check_views, detect_augmented
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import IMAGENET
from boxwright.detectors.contract.preparation import Preparation
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets
from tests.support.two_stage_cases import small_faster_rcnn

CLASSES = Classes.from_names(["red", "green", "blue"])


class Known(Detector):
    """Finds the given boxes, relative to the image, with scores by input size; records its input sizes."""

    def __init__(
        self,
        boxes: Sequence[Sequence[float]],
        transforms: tuple[TransformConfig, ...],
        scores: dict[tuple[int, int], float] | None = None,
    ) -> None:
        super().__init__(None, CLASSES, IMAGENET)
        self.relative = torch.tensor(boxes)
        self.preparation = Preparation(transforms=tuple(transforms), pad_multiple=1)
        self.scores = scores or {}
        self.seen: list[tuple[int, int, int]] = []

    def class_rows(self) -> dict[str, Tensor]:
        return {}

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        return []

    def forward(self, images: Images, targets: Targets | None = None) -> DetectionBatch:
        count, _, height, width = images.pixels.shape
        self.check_input(height, width)
        self.seen.append((count, height, width))
        boxes = (self.relative * torch.tensor([width, height, width, height])).expand(count, -1, -1)
        shape = boxes.shape[:2]
        score = torch.full(shape, self.scores.get((height, width), 0.5))
        return DetectionBatch(boxes, score, torch.zeros(shape, dtype=torch.int64), torch.ones(shape, dtype=torch.bool))


class Painted(Known):
    """Finds what is painted in red, green and blue."""

    def forward(self, images: Images, targets: Targets | None = None) -> DetectionBatch:
        count, _, height, width = images.pixels.shape
        self.seen.append((count, height, width))
        boxes, valid = torch.zeros(count, 3, 4), torch.zeros(count, 3, dtype=torch.bool)
        for b in range(count):
            for k in range(3):
                rows, columns = torch.nonzero(images.pixels[b, k] > 127, as_tuple=True)
                if len(rows):
                    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                    boxes[b, k], valid[b, k] = torch.tensor(found), True
        score = torch.full((count, 3), self.scores.get((height, width), 0.5))
        return DetectionBatch(boxes, score * valid, torch.arange(3).expand(count, -1), valid)


def painted(height: int, width: int, **boxes: tuple[int, int, int, int]) -> np.ndarray:
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    for name, (x1, y1, x2, y2) in boxes.items():
        pixels[y1:y2, x1:x2, CLASSES.names.index(name)] = 255
    return pixels


def rows(found: Detections) -> list[list[float]]:
    return [[*map(float, box), round(float(score), 4)] for box, score in zip(found.boxes, found.scores, strict=True)]


WARP = (WarpConfig(size=(64, 64)),)
LETTERBOX = (LetterboxConfig(size=(64, 64)),)


@pytest.mark.parametrize("transforms", [WARP, LETTERBOX, (ResizeConfig(short=(64,), long=200),)])
@pytest.mark.parametrize("name", ["flip", "multiscale"])
def test_boxes_from_all_views_meet_in_the_original(transforms: tuple[TransformConfig, ...], name: str) -> None:
    """Odd sizes and objects off the centre: a box that comes back mirrored or shifted would be a second one."""
    images = [
        painted(61, 97, red=(10, 20, 50, 40), blue=(60, 5, 95, 30)),
        painted(90, 70),
        painted(80, 80, red=(0, 0, 9, 9)),
    ]
    detector = Painted([], transforms)
    found = detect_augmented(detector, images, TEST_TIME[name])
    assert [found[i].labels.tolist() for i in range(3)] == [[0, 2], [], [0]]
    assert found[0].size == (61, 97)
    np.testing.assert_allclose(found[0].boxes, [[10, 20, 50, 40], [60, 5, 95, 30]], atol=1.0)
    np.testing.assert_allclose(found[2].boxes, [[0, 0, 9, 9]], atol=1.0)
    assert len(detector.seen) == len(TEST_TIME[name].views) * 2


def test_one_view_without_a_flip_is_plain_detection() -> None:
    torch.manual_seed(0)
    detector = build_detector(small_faster_rcnn(), CLASSES)
    for parameter_name, parameter in detector.named_parameters():
        if parameter_name.endswith(("scores.weight", "deltas.weight", "objectness.weight")):
            nn.init.normal_(parameter, std=0.3)
    detector.preparation = replace(detector.preparation, transforms=(ResizeConfig(short=(96,), long=160),))
    images = [np.random.default_rng(i).integers(0, 255, (70 + i, 90, 3), dtype=np.uint8) for i in range(2)]
    plain = detector.detect_arrays(images, threshold=0.2)
    paths = [Path("a.png"), None]
    alone = detect_augmented(
        detector, images, TestTimeConfig(flip=False, merge="nms", iou=1.0), threshold=0.2, paths=paths
    )
    for one, other in zip(plain, alone, strict=True):
        assert len(one) > 5
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-4)
        np.testing.assert_allclose(one.scores, other.scores)
        assert one.labels.tolist() == other.labels.tolist()
    assert [found.path for found in alone] == paths

    # With the mirrored image among the views, a mirrored image gives the mirrored result.
    both = detect_augmented(detector, images, TEST_TIME["flip"])
    mirrored = detect_augmented(detector, [image[:, ::-1] for image in images], TEST_TIME["flip"])
    for one, other in zip(both, mirrored, strict=True):
        width = one.size[1]
        back = other.boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
        np.testing.assert_allclose(np.sort(one.scores), np.sort(other.scores), atol=1e-5)
        key, other_key = np.lexsort(one.boxes.T.round(1)), np.lexsort(back.T.round(1))
        np.testing.assert_allclose(one.boxes[key], back[other_key], atol=1e-2)


class Shifted(Known):
    """One box at 64 x 64, its neighbour at other sizes. In an original of 100 x 100 they are (10, 10, 50, 50) and
    (20, 10, 60, 50): their IoU is 30 / 50 = 0.6."""

    def forward(self, images: Images, targets: Targets | None = None) -> DetectionBatch:
        self.relative = torch.tensor([[0.1, 0.1, 0.5, 0.5] if images.pixels.shape[-1] == 64 else [0.2, 0.1, 0.6, 0.5]])
        return super().forward(images)


TWO = (ViewConfig(), ViewConfig(scale=(2.0, 2.0)))
MEAN = [(0.6 * 10 + 0.8 * 20) / 1.4, 10.0, (0.6 * 50 + 0.8 * 60) / 1.4, 50.0]


@pytest.mark.parametrize(
    ("changes", "expected", "why"),
    [
        ({"merge": "nms", "iou": 0.5}, [[20, 10, 60, 50, 0.8]], "the better one stays"),
        ({"merge": "nms", "iou": 0.7}, [[20, 10, 60, 50, 0.8], [10, 10, 50, 50, 0.6]], "too far apart"),
        ({"merge": "voting", "iou": 0.5}, [[*MEAN, 0.8]], "mean by score, the best score"),
        ({"merge": "voting", "iou": 0.7}, [[20, 10, 60, 50, 0.8], [10, 10, 50, 50, 0.6]], "two groups"),
        ({"merge": "soft_voting", "iou": 0.5}, [[*MEAN, 0.8], [10, 10, 50, 50, 0.24]], "0.6 * (1 - 0.6) stays"),
        ({"merge": "soft_voting", "iou": 0.5, "floor": 0.3}, [[*MEAN, 0.8]], "unless that is too little"),
        ({"merge": "soft_nms", "iou": 0.3}, [[20, 10, 60, 50, 0.8], [10, 10, 50, 50, 0.24]], "0.6 * (1 - 0.6) too"),
        ({"merge": "soft_nms", "iou": 0.3, "floor": 0.3}, [[20, 10, 60, 50, 0.8]], "below the floor"),
        ({"merge": "nms", "iou": 0.7, "detections": 1}, [[20, 10, 60, 50, 0.8]], "the most of an image"),
        ({"merge": "voting", "iou": 0.7, "detections": 1}, [[20, 10, 60, 50, 0.8]], "the most of an image"),
    ],
)
def test_merging(changes: dict[str, Any], expected: list[list[float]], why: str) -> None:
    detector = Shifted([[0.0] * 4], WARP, scores={(64, 64): 0.6, (128, 128): 0.8})
    (found,) = detect_augmented(detector, [painted(100, 100)], TestTimeConfig(views=TWO, flip=False, **changes))
    got = rows(found)
    assert len(got) == len(expected), why
    np.testing.assert_allclose(got, expected, atol=1e-3, err_msg=why)


def test_the_threshold_is_for_what_was_merged() -> None:
    detector = Shifted([[0.0] * 4], WARP, scores={(64, 64): 0.6, (128, 128): 0.8})
    config = TestTimeConfig(views=TWO, flip=False, iou=0.5)
    (found,) = detect_augmented(detector, [painted(100, 100)], config, threshold=0.7)
    np.testing.assert_allclose(found.boxes, [MEAN], atol=1e-3)  # the box of 0.6 has still voted


@pytest.mark.parametrize(
    ("rule", "offset", "kept", "why"),
    [
        ({}, 0.0, [0, 1, 2, 3], "no rule"),
        ({"long_above": 31.9}, 0.0, [1, 2, 3], "the longer side counts"),
        ({"long_above": 32.0}, 0.0, [2, 3], "more than, not as much as"),
        ({"long_above": 32.0}, 1.0, [1, 2, 3], "the last pixel is part of the box"),
        ({"short_below": 20.0}, 0.0, [0, 1], "the shorter side counts"),
        ({"short_below": 20.0}, 1.0, [0], "20 with its last pixel is not below 20"),
        ({"short_below": 64.0, "long_above": 31.0}, 0.0, [1, 2], "both rules"),
    ],
)
def test_a_view_keeps_exactly_the_boxes_its_rule_says(
    rule: dict[str, Any], offset: float, kept: list[int], why: str
) -> None:
    """In an image of 200 x 100 pixels: 10 x 16, 32 x 19, 40 x 50 and 100 x 80."""
    sides = [(10, 16), (32, 19), (40, 50), (100, 80)]
    boxes = [[0.1, 0.05, 0.1 + w / 200, 0.05 + h / 100] for w, h in sides]
    config = TestTimeConfig(views=(ViewConfig(**rule),), merge="nms", iou=1.0, offset=offset, flip=False)
    (found,) = detect_augmented(Known(boxes, WARP), [painted(100, 200)], config)
    got = {(round(float(x2 - x1)), round(float(y2 - y1))) for x1, y1, x2, y2 in found.boxes}
    assert got == {sides[k] for k in kept}, why


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [
        ("refinedet-320", 320, [320, (192, 320), 192, 384, 448, 512, 576, 704]),
        ("refinedet-320-coco", 320, [320, (192, 320), 192, 384, 448, 512, 576, 704, 640]),
        ("refinedet-512", 512, [512, (384, 512), 256, 384, 896, 768]),
        ("refinedet-512-coco", 512, [512, (384, 512), 256, 384, 896, 768, 640, 1024, 1152]),
    ],
)
def test_refinedets_views_have_its_sizes(name: str, side: int, expected: list[int | tuple[int, int]]) -> None:
    detector = Known([[0.1, 0.1, 0.2, 0.2]], (WarpConfig(size=(side, side)),))
    detector.input_multiple = 64
    detector.preparation = replace(detector.preparation, pad_multiple=64)
    detect_augmented(detector, [painted(30, 50), painted(50, 30), painted(40, 40)], TEST_TIME[name])
    sizes = [size if isinstance(size, tuple) else (size, size) for size in expected]
    all_seen: list[tuple[int, int, int]] = []
    for height, width in sizes:
        # The aspect pass takes landscape images by themselves; the others, square ones too, stand upright in it.
        apart = [(2, width, height), (1, height, width)] if height != width else [(3, height, width)]
        all_seen += apart * 2  # and mirrored
    assert detector.seen == all_seen


RULES = {
    "refinedet-320-coco": {192: (32, None), 384: (None, 160), 448: (None, 128), 512: (None, 96), 576: (None, 64)}
    | {704: (None, 32), 640: (None, 48)},
    "refinedet-512-coco": {896: (None, 128), 768: (None, 192), 640: (None, 224), 1024: (None, 96), 1152: (None, 64)},
}


@pytest.mark.parametrize("name", list(RULES))
def test_refinedets_views_have_its_rules(name: str) -> None:
    side = 320 if "320" in name else 512
    for view in TEST_TIME[name].views:
        square = view.scale[0] == view.scale[1]
        expected = RULES[name].get(round(view.scale[0] * side), (None, None)) if square else (None, None)
        assert (view.long_above, view.short_below) == expected
    config = TEST_TIME[name]
    assert (config.flip, config.merge, config.iou, config.offset) == (True, "soft_voting", 0.45, 1.0)
    voc = TEST_TIME[name.removesuffix("-coco")]
    assert voc.merge == "voting"
    assert voc.views == config.views[: len(voc.views)]


def test_sizes_that_a_detector_cannot_take_are_refused_before_detection() -> None:
    rigid = Known([[0.0] * 4], (WarpConfig(size=(300, 300)),))
    rigid.input_size = (300, 300)
    check_views(rigid, TEST_TIME["flip"])
    with pytest.raises(InputError, match=r"a test-time view of scale 0.75 is 225 x 225 .* exactly 300 x 300"):
        detect_augmented(rigid, [painted(30, 30)], TEST_TIME["multiscale"])
    coarse = Known([[0.0] * 4], WARP)
    coarse.input_multiple = 32
    with pytest.raises(InputError, match=r"a test-time view of 100 x 128 is 100 x 128 .* nearest are 96 x 128"):
        check_views(coarse, TestTimeConfig(views=(ViewConfig(size=(100, 128)),)))
    with pytest.raises(InputError, match=r"a test-time view of 128 x 100 is .* nearest are 128 x 96"):
        check_views(coarse, TestTimeConfig(views=(ViewConfig(size=(128, 100), follow_image=True),)))
    free = Known([[0.0] * 4], (ResizeConfig(),))
    with pytest.raises(InputError, match="no size to replace"):
        check_views(free, TestTimeConfig(views=(ViewConfig(size=(96, 128)),)))
    with pytest.raises(InputError, match="one factor for both"):
        check_views(free, TEST_TIME["refinedet-320"])
    assert rigid.seen == coarse.seen == free.seen == []


def test_a_size_outright_turns_with_the_image() -> None:
    detector = Known([[0.0, 0.0, 1.0, 1.0]], WARP)
    config = TestTimeConfig(views=(ViewConfig(size=(96, 128), follow_image=True),), flip=False)
    found = detect_augmented(detector, [painted(20, 40), painted(40, 20)], config)
    assert sorted(detector.seen) == [(1, 96, 128), (1, 128, 96)]
    assert [one.boxes.tolist() for one in found] == [[[0, 0, 40, 20]], [[0, 0, 20, 40]]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ViewConfig(scale=(0.0, 1.0)), r"scale.0 = 0.0: should be greater than 0"),
        (lambda: ViewConfig(size=(0, 10)), r"size.0 = 0: should be"),
        (lambda: ViewConfig(size=(10, 10), scale=(2.0, 2.0)), "both given"),
        (lambda: TestTimeConfig(views=()), "views is empty"),
        (lambda: TestTimeConfig(merge=cast(Any, "mean")), "merge = 'mean': should be"),
        (lambda: TestTimeConfig(iou=0.0), "iou = 0.0: should be greater than 0"),
        (lambda: TestTimeConfig(floor=0.0), "floor = 0.0"),
        (lambda: TestTimeConfig(detections=0), "detections = 0"),
    ],
)
def test_bad_settings_are_named(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
