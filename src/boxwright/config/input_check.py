"""Check before training that a recipe's images fit its detector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from boxwright.anchors.kmeans import shape_iou
from boxwright.data.config import DataConfig
from boxwright.data.index import DetectionIndex
from boxwright.data.transforms.configs import TransformConfig
from boxwright.data.transforms.network_sizes import evaluated_sizes
from boxwright.detectors.contract.capabilities import TakesProposals
from boxwright.detectors.contract.detector import Detector
from boxwright.geometry.rounding import round_up
from boxwright.structures import InputError

FITS = 0.5
"""Minimum IoU of an anchor that fits a box, as for positives of SSD and RetinaNet."""


def check_inputs(detector: Detector, data: DataConfig) -> None:
    """Raise InputError, with the option and the nearest valid value, if ``detector`` cannot take ``data``'s images."""
    if detector.gives_masks and not data.masks:
        raise InputError("data.masks = false, but this detector trains on masks; set it true, with data that has masks")
    if isinstance(detector, TakesProposals) and data.proposals is None:
        raise InputError(
            "data.proposals is not set, but this detector finds no proposals of its own; make files of them with "
            "`boxwright proposals` and set data.proposals.train and data.proposals.val"
        )
    for side in data.multi_scale.all_sizes if data.multi_scale is not None else ():
        detector.check_input(side, side, "a size of data.multi_scale")
    if data.fixed_size is None:
        for shape in data.shapes or ():
            detector.check_input(*shape, "an entry of data.shapes")
        if data.shapes:
            return
        _check_made(detector, "data.train", data.train, data.pad_multiple)
    check_eval_input(detector, data)


def check_eval_input(detector: Detector, data: DataConfig) -> None:
    """Raise InputError if ``detector`` cannot take the images of validation and inference."""
    if data.fixed_size is not None:
        detector.check_input(*data.fixed_size, "data.fixed_size")
    else:
        _check_made(detector, "data.eval", data.eval, data.pad_multiple)


def _check_made(detector: Detector, name: str, transforms: Sequence[TransformConfig], multiple: int) -> None:
    made = fixed_output(transforms)
    if made is not None:
        where, size = made
        height, width = (round_up(side, multiple) for side in size)
        padded = "" if (height, width) == size else f", padded to multiples of data.pad_multiple = {multiple},"
        detector.check_input(height, width, f"what {name}.{where} makes{padded}")
    elif detector.input_size is not None:
        height, width = detector.input_size
        raise InputError(
            f"{name} makes images of many sizes, but this detector takes exactly {height} x {width}; "
            f'end it with {{kind = "warp", size = [{height}, {width}]}}, or a letterbox'
        )
    elif multiple % detector.input_multiple:
        raise InputError(
            f"data.pad_multiple = {multiple}: this detector needs sides in multiples of "
            f"{detector.input_multiple}; set it to {detector.input_multiple}"
        )


def fixed_output(transforms: Sequence[TransformConfig]) -> tuple[int, tuple[int, int]] | None:
    """Return the position of the transform that gives all images one size, and (height, width) of the results.

    None where the sizes of the results differ.
    """
    found = None
    for position, transform in enumerate(transforms):
        before = found[1] if found is not None else (1, 1)
        size = transform.output_size(*before)
        if transform.fixed and size is not None:
            found = position, size
        elif size != before:
            found = None
    return found


def check_anchors(detector: Detector, index: DetectionIndex, data: DataConfig) -> str | None:
    """Compare the anchors with the boxes of the training set, at the size that is evaluated.

    An anchor fits a box if it reaches an IoU of 0.5 at the centre of the box. Raises InputError if no box has a fitting
    anchor. Returns a warning to print if most boxes have none, else None.
    """
    shapes = np.array(detector.anchor_shapes())
    boxes = evaluated_sizes(index, data.eval)
    boxes = boxes[(boxes > 0).all(1)]
    if len(shapes) == 0 or len(boxes) == 0:
        return None
    best = np.concatenate([shape_iou(part, shapes).max(1) for part in np.array_split(boxes, 1 + len(boxes) // 10_000)])
    fitting = float((best >= FITS).mean())
    if fitting >= 0.5:
        return None
    sides, anchors = np.sqrt(boxes.prod(1)), np.sqrt(shapes.prod(1))
    found = (
        f"the boxes of the training set have sides of {sides.min():.0f} to {sides.max():.0f} pixels in the network's "
        f"input (half of them below {np.median(sides):.0f}), the anchors {anchors.min():.0f} to {anchors.max():.0f}"
    )
    remedy = f"`boxwright data anchors {index.root}` finds anchors for them; or change the size of the input"
    if fitting == 0:
        raise InputError(f"no anchor overlaps any box by an IoU of {FITS}, even on its centre: {found}; {remedy}")
    return f"WARNING: {100 * (1 - fitting):.0f} % of the boxes have no anchor of their shape: {found}; {remedy}"
