"""Test-time augmentation: several looks at an image, at other sizes and mirrored, merged into one set of detections.

Symbols: n detections of one image, from all looks together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from boxwright.data.transforms.configs import TransformConfig
from boxwright.data.transforms.multi_scale import scaled, size_of, with_size
from boxwright.data.transforms.sample import Sample, flipped
from boxwright.detections import Detections
from boxwright.detectors.contract.detect import prepared
from boxwright.detectors.contract.detector import Detector
from boxwright.geometry.voting import box_voting
from boxwright.heads.postprocess import PostprocessConfig, suppress
from boxwright.structures import InputError

Merge: TypeAlias = Literal["nms", "voting", "soft_voting", "soft_nms"]
Found: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Boxes ``[n, 4]``, scores and labels ``[n]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewConfig:
    """One look at an image, and which of the boxes found in it count.

    ``scale``: factors (height, width) on the input size that the detector has by itself, rounded to sides that it
    takes; or ``size``: that input size outright. ``follow_image``: both are meant for images that are wider than high,
    and change places for all others. ``long_above`` and ``short_below``: only boxes count whose longer side is above,
    whose shorter side is below so many pixels of the original image: small views are for large objects, large views
    for small ones.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    size: tuple[int, int] | None = None
    follow_image: bool = False
    long_above: float | None = None
    short_below: float | None = None

    def __post_init__(self) -> None:
        if not (len(self.scale) == 2 and min(self.scale) > 0):
            raise InputError(f"view: scale = {self.scale!r} is out of range; give two factors (height, width) above 0")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise InputError(f"view: size = {self.size!r} is out of range; give a height and a width of at least 1")
        if self.size is not None and self.scale != (1.0, 1.0):
            raise InputError(f"view: size = {self.size} and scale = {self.scale} are both given; give one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class TestTimeConfig:
    """Which looks, and how their detections become one set.

    ``flip``: each view mirrored too. ``merge``, within each class: "nms" keeps the best of boxes that overlap by more
    than ``iou``; "soft_nms" lowers the scores of the others linearly; "voting" gives boxes that overlap by ``iou`` or
    more their mean, weighted by score; "soft_voting" also keeps the members of such a group at lowered scores.
    ``floor``: the two soft ways drop lowered scores below it. ``detections``: the most of an image. ``offset``: 1
    counts the last pixel as part of a box, as Caffe's tools do, in the rules of the views and in overlaps.
    """

    __test__ = False  # no test, whatever pytest thinks of the name

    views: tuple[ViewConfig, ...] = (ViewConfig(),)
    flip: bool = True
    merge: Merge = "voting"
    iou: float = 0.5
    floor: float = 0.01
    detections: int = 100
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not self.views:
            raise InputError("test-time augmentation: views is empty; give one or more")
        if self.merge not in ("nms", "voting", "soft_voting", "soft_nms"):
            raise InputError(
                f"test-time augmentation: merge = {self.merge!r} is unknown; it must be nms, voting, soft_voting or "
                "soft_nms"
            )
        if not 0 < self.iou <= 1 or not 0 < self.floor < 1 or self.detections < 1:
            raise InputError(
                f"test-time augmentation: iou = {self.iou} must lie in 0..1, floor = {self.floor} between 0 and 1, and "
                f"detections = {self.detections} must be at least 1"
            )


def _zoom(factor: float, *, long_above: float | None = None, short_below: float | None = None) -> ViewConfig:
    return ViewConfig(scale=(factor, factor), long_above=long_above, short_below=short_below)


# RefineDet's multi-scale test, from its authors' code. There the second view leaves landscape images lower than they
# are wide; the sides are in pixels of the original image and count the last pixel.
REFINEDET_320_VIEWS = (
    ViewConfig(),
    ViewConfig(scale=(0.6, 1.0), follow_image=True),
    _zoom(0.6, long_above=32),
    _zoom(1.2, short_below=160),
    _zoom(1.4, short_below=128),
    _zoom(1.6, short_below=96),
    _zoom(1.8, short_below=64),
    _zoom(2.2, short_below=32),
)
REFINEDET_320_COCO_VIEWS = (*REFINEDET_320_VIEWS, _zoom(2.0, short_below=48))
REFINEDET_512_VIEWS = (
    ViewConfig(),
    ViewConfig(scale=(0.75, 1.0), follow_image=True),
    _zoom(0.5),
    _zoom(0.75),
    _zoom(1.75, short_below=128),
    _zoom(1.5, short_below=192),
)
REFINEDET_512_COCO_VIEWS = (
    *REFINEDET_512_VIEWS,
    _zoom(1.25, short_below=224),
    _zoom(2.0, short_below=96),
    _zoom(2.25, short_below=64),
)
_REFINEDET_VOC = TestTimeConfig(views=REFINEDET_320_VIEWS, merge="voting", iou=0.45, detections=500, offset=1.0)
_REFINEDET_COCO = replace(_REFINEDET_VOC, views=REFINEDET_320_COCO_VIEWS, merge="soft_voting")

TEST_TIME: dict[str, TestTimeConfig] = {
    "flip": TestTimeConfig(),
    "multiscale": TestTimeConfig(views=tuple(_zoom(factor) for factor in (0.75, 1.0, 1.25, 1.5))),
    "refinedet-320": _REFINEDET_VOC,
    "refinedet-320-coco": _REFINEDET_COCO,
    "refinedet-512": replace(_REFINEDET_VOC, views=REFINEDET_512_VIEWS),
    "refinedet-512-coco": replace(_REFINEDET_COCO, views=REFINEDET_512_COCO_VIEWS),
}
"""Ready-made ones by name. "flip" and "multiscale" fit any detector that takes their sizes."""


def detect_augmented(
    detector: Detector,
    arrays: Sequence[np.ndarray],
    config: TestTimeConfig,
    *,
    threshold: float = 0.0,
    paths: Iterable[Path | None] | None = None,
) -> list[Detections]:
    """Detect in uint8 ``[H, W, 3]`` RGB arrays with every view of ``config``; one result each, in the same order.

    Each view is one batch of all arrays. Boxes only: masks of several views are not merged but left out.
    ``threshold``: the least score of what is merged in the end. Raises InputError where the detector cannot take the
    size of a view.
    """
    check_views(detector, config)
    found: list[list[Found]] = [[] for _ in arrays]
    samples = [detector.sample_of(array) for array in arrays]
    for view in config.views:
        for mirrored in (False, True) if config.flip else (False,):
            for number, one in _look(detector, samples, view, mirrored):
                found[number].append(_counting(one, view, config.offset))
    merged = [_merged(looks, array.shape[:2], config, threshold) for looks, array in zip(found, arrays, strict=True)]
    return [
        Detections(
            boxes=boxes.numpy(),
            scores=scores.numpy(),
            labels=labels.numpy(),
            names=detector.classes,
            size=(array.shape[0], array.shape[1]),
            path=path,
        )
        for (boxes, scores, labels), array, path in zip(merged, arrays, paths or [None] * len(arrays), strict=True)
    ]


def check_views(detector: Detector, config: TestTimeConfig) -> None:
    """InputError where a view gives images of a size that ``detector`` cannot take, before it has looked at any."""
    for view in config.views:
        for wide in (True, False) if view.follow_image else (True,):
            sizes = [size for t in _transforms(detector, view, wide) if (size := size_of(t)) is not None]
            if sizes:
                multiple = detector.preparation.pad_multiple
                height, width = (-(-side // multiple) * multiple for side in sizes[-1])
                detector.check_input(height, width, f"a test-time view of {_named(view)}")


def _named(view: ViewConfig) -> str:
    if view.size is not None:
        return f"{view.size[0]} x {view.size[1]}"
    return "scale " + " x ".join(f"{factor:g}" for factor in dict.fromkeys(view.scale))


def _transforms(detector: Detector, view: ViewConfig, wide: bool) -> tuple[TransformConfig, ...]:
    """The detector's own transforms at the size of the view."""
    turned = view.follow_image and not wide
    if view.size is not None:
        height, width = view.size
        return with_size(detector.preparation.transforms, (width, height) if turned else (height, width))
    if view.scale == (1.0, 1.0):
        return tuple(detector.preparation.transforms)
    high, broad = view.scale
    return scaled(detector.preparation.transforms, (broad, high) if turned else (high, broad), detector.input_multiple)


def _look(detector: Detector, pictures: Sequence[Sample], view: ViewConfig, mirrored: bool) -> list[tuple[int, Found]]:
    """What each image shows in one view, with the image's number. The order is of no matter."""
    looks: list[tuple[int, Found]] = []
    kinds = [view.follow_image and sample.size[1] > sample.size[0] for sample in pictures]
    for wide in sorted(set(kinds)):  # images of one batch have one size, or padding would show in a view that has none
        numbers = [number for number, kind in enumerate(kinds) if kind == wide]
        transforms = _transforms(detector, view, wide)
        samples = [pictures[number] for number in numbers]
        samples = [prepared(flipped(sample) if mirrored else sample, transforms) for sample in samples]
        looks += [(number, one[:3]) for number, one in zip(numbers, detector.detect_samples(samples), strict=True)]
    return looks


def _counting(found: Found, view: ViewConfig, offset: float) -> Found:
    """The detections that the view's rules let count."""
    boxes, scores, labels = found
    sides = boxes[:, 2:] - boxes[:, :2] + offset
    keep = torch.ones_like(scores, dtype=torch.bool)
    if view.long_above is not None:
        keep &= sides.amax(1) > view.long_above
    if view.short_below is not None:
        keep &= sides.amin(1) < view.short_below
    return boxes[keep], scores[keep], labels[keep]


def _merged(looks: Sequence[Found], size: tuple[int, ...], config: TestTimeConfig, threshold: float) -> Found:
    boxes, scores, labels = (torch.cat(parts) for parts in zip(*looks, strict=True))
    if len(boxes) == 0:
        return boxes, scores, labels
    if config.merge in ("voting", "soft_voting"):
        soft = config.merge == "soft_voting"
        boxes, scores, labels = box_voting(
            boxes, scores, labels, config.iou, soft=soft, floor=config.floor, offset=config.offset
        )
        boxes, scores, labels = boxes[: config.detections], scores[: config.detections], labels[: config.detections]
    else:
        post = PostprocessConfig(
            nms="greedy" if config.merge == "nms" else "soft_linear",
            nms_iou=config.iou,
            soft_floor=config.floor,
            detections=config.detections,
            candidates=max(len(boxes), config.detections),
            min_size=0.0,
            offset=config.offset,
            clip=False,
        )
        batch = suppress(boxes[None], scores[None], labels[None], torch.tensor([size]), post)
        boxes, scores, labels = (t[0, batch.valid[0]] for t in (batch.boxes, batch.scores, batch.labels))
    keep = scores >= threshold
    return boxes[keep], scores[keep], labels[keep]
