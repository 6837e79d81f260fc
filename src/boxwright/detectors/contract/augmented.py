"""Test-time augmentation: detect in several views of an image, resized and mirrored, and merge the detections.

Symbols: n detections of one image, from all views together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from boxwright.data.transforms.configs import TransformConfig
from boxwright.data.transforms.multi_scale import scaled, size_of, with_size
from boxwright.data.transforms.sample import Sample, flipped
from boxwright.detections import Detections
from boxwright.detectors.contract.detect import prepared
from boxwright.detectors.contract.detector import Detector
from boxwright.fields import Count, Positive, PositiveShare, config
from boxwright.geometry.rounding import round_up
from boxwright.geometry.voting import box_voting
from boxwright.heads.postprocess import PostprocessConfig, suppress
from boxwright.structures import InputError

Merge: TypeAlias = Literal["nms", "voting", "soft_voting", "soft_nms"]
Found: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Boxes ``[n, 4]``, scores and labels ``[n]``."""


@config
class ViewConfig:
    """One view of an image, and the boxes in it that count. Small views suit large objects, large ones small."""

    scale: tuple[Positive, Positive] = (1.0, 1.0)
    """Factors (height, width) on the detector's usual input size, rounded to sides that it takes."""
    size: tuple[Count, Count] | None = None
    """Input size (height, width) in pixels, in place of ``scale``."""
    follow_image: bool = False
    """Swap the two values of ``scale`` or ``size`` for images that are not wider than high."""
    long_above: float | None = None
    """Only boxes count whose longer side is above this many pixels of the original image."""
    short_below: float | None = None
    """Only boxes count whose shorter side is below this many pixels of the original image."""

    def __post_init__(self) -> None:
        if self.size is not None and self.scale != (1.0, 1.0):
            raise InputError(f"view: size = {self.size} and scale = {self.scale} are both given; give one of them")


@config
class TestTimeConfig:
    """Views to run, and the way to merge their detections."""

    __test__: ClassVar[bool] = False  # pytest takes the name for that of a test

    views: tuple[ViewConfig, ...] = (ViewConfig(),)
    """Views of each image, one or more."""
    flip: bool = True
    """Run each view mirrored too."""
    merge: Merge = "voting"
    """Within each class: "nms" keeps the best of overlapping boxes; "soft_nms" lowers scores of the others linearly;
    "voting" replaces overlapping boxes by their mean, weighted by score; "soft_voting" also keeps them at lower scores.
    """
    iou: PositiveShare = 0.5
    """IoU from which boxes are merged; NMS merges boxes above it."""
    floor: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """The two soft methods drop lowered scores below it."""
    detections: Count = 100
    """Maximum number of detections of an image."""
    offset: float = 0.0
    """1 counts the last pixel as part of a box, as Caffe's tools do, in sides and overlaps."""

    def __post_init__(self) -> None:
        if not self.views:
            raise InputError("test-time augmentation: views is empty; give one or more")


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
"""Named configurations. "flip" and "multiscale" fit any detector that takes their sizes."""


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
    ``threshold``: the minimum score after merging. Raises InputError if the detector cannot take the
    size of a view.
    """
    check_views(detector, config)
    found: list[list[Found]] = [[] for _ in arrays]
    samples = [detector.sample_of(array) for array in arrays]
    for view in config.views:
        for mirrored in (False, True) if config.flip else (False,):
            for number, one in _detect_view(detector, samples, view, mirrored):
                found[number].append(_counting(one, view, config.offset))
    merged = [_merged(views, array.shape[:2], config, threshold) for views, array in zip(found, arrays, strict=True)]
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
    """Raise InputError if ``detector`` cannot take the image size of a view."""
    for view in config.views:
        for wide in (True, False) if view.follow_image else (True,):
            sizes = [size for t in _transforms(detector, view, wide) if (size := size_of(t)) is not None]
            if sizes:
                multiple = detector.preparation.pad_multiple
                height, width = (round_up(side, multiple) for side in sizes[-1])
                detector.check_input(height, width, f"a test-time view of {_named(view)}")


def _named(view: ViewConfig) -> str:
    if view.size is not None:
        return f"{view.size[0]} x {view.size[1]}"
    return "scale " + " x ".join(f"{factor:g}" for factor in dict.fromkeys(view.scale))


def _transforms(detector: Detector, view: ViewConfig, wide: bool) -> tuple[TransformConfig, ...]:
    """Return the detector's transforms with the size of the view."""
    turned = view.follow_image and not wide
    if view.size is not None:
        height, width = view.size
        return with_size(detector.preparation.transforms, (width, height) if turned else (height, width))
    if view.scale == (1.0, 1.0):
        return tuple(detector.preparation.transforms)
    high, broad = view.scale
    return scaled(detector.preparation.transforms, (broad, high) if turned else (high, broad), detector.input_multiple)


def _detect_view(
    detector: Detector, images: Sequence[Sample], view: ViewConfig, mirrored: bool
) -> list[tuple[int, Found]]:
    """Detect in one view of each image; pairs of the image's index and its detections, in any order."""
    results: list[tuple[int, Found]] = []
    kinds = [view.follow_image and sample.size[1] > sample.size[0] for sample in images]
    for wide in sorted(set(kinds)):  # images of one batch have one size, or padding would show in a view that has none
        numbers = [number for number, kind in enumerate(kinds) if kind == wide]
        transforms = _transforms(detector, view, wide)
        samples = [images[number] for number in numbers]
        samples = [prepared(flipped(sample) if mirrored else sample, transforms) for sample in samples]
        results += [(number, one[:3]) for number, one in zip(numbers, detector.detect_samples(samples), strict=True)]
    return results


def _counting(found: Found, view: ViewConfig, offset: float) -> Found:
    """Return the detections that count by the rules of the view."""
    boxes, scores, labels = found
    sides = boxes[:, 2:] - boxes[:, :2] + offset
    keep = torch.ones_like(scores, dtype=torch.bool)
    if view.long_above is not None:
        keep &= sides.amax(1) > view.long_above
    if view.short_below is not None:
        keep &= sides.amin(1) < view.short_below
    return boxes[keep], scores[keep], labels[keep]


def _merged(views: Sequence[Found], size: tuple[int, ...], config: TestTimeConfig, threshold: float) -> Found:
    boxes, scores, labels = (torch.cat(parts) for parts in zip(*views, strict=True))
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
