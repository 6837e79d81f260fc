"""Collation of samples into one dense batch: padded images, padded targets, and the map to the original images.

Symbols: B samples, G padded boxes, H W the padded size in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from boxwright.data.transforms.sample import Sample, select
from boxwright.geometry.rounding import round_up
from boxwright.structures import Images, InputError, Targets


class BatchInfo(NamedTuple):
    """Origin of the images of a batch.

    ``indexes`` and ``image_ids`` int64 ``[B]``: position and id in the data set.
    ``original_sizes`` int64 ``[B, 2]``: height and width of the file. ``to_original`` float32 ``[B, 4]``: scale x,
    scale y, offset x, offset y with original = (network - offset) / scale; a flip makes a scale negative, and after a
    quarter turn or a mosaic there is no such map and the row is NaN.
    """

    indexes: Tensor
    image_ids: Tensor
    original_sizes: Tensor
    to_original: Tensor


class Batch(NamedTuple):
    """`Images`, `Targets` and `BatchInfo` of the same B samples."""

    images: Images
    targets: Targets
    info: BatchInfo


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Sizes that a batch is padded to.

    Images are padded to the largest in the batch, rounded up to ``multiple``, or to the smallest of ``shapes`` (height,
    width) that holds every image. Boxes are padded to the most in the batch, rounded up to ``box_multiple``, or to
    ``max_boxes`` rows. For an image with more than ``max_boxes``, ``too_many`` "error" raises InputError and
    "keep_largest" drops the smallest boxes with a warning. Proposals are padded to ``proposals`` rows, or to a multiple
    of it if a mosaic has combined more.
    """

    multiple: int = 32
    shapes: tuple[tuple[int, int], ...] | None = None
    box_multiple: int = 8
    max_boxes: int | None = None
    too_many: Literal["error", "keep_largest"] = "error"
    proposals: int = 1

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise InputError(f"pad_multiple = {self.multiple} is out of range; it must be at least 1")
        if self.shapes is not None and not all(len(shape) == 2 and min(shape) >= 1 for shape in self.shapes):
            raise InputError(f"shapes = {self.shapes} is out of range; give a height and a width of at least 1 each")
        if self.shapes is not None and len(self.shapes) == 0:
            raise InputError("shapes is empty; give one or more (height, width), or leave it out")
        if self.max_boxes is not None and self.max_boxes < 0:
            raise InputError(f"max_boxes = {self.max_boxes} is out of range; it must be at least 0")
        if self.too_many not in ("error", "keep_largest"):
            raise InputError(f'too_many = {self.too_many!r} is unknown; it must be "error" or "keep_largest"')


def collate(samples: Sequence[Sample], seeds: Sequence[int], padding: Padding) -> tuple[Batch, list[str]]:
    """Return the batch, and messages for the user. Images are padded with 0 below and to the right.

    ``seeds``, one per sample, become `Images.seeds`.
    """
    notes: list[str] = []
    if padding.max_boxes is not None:
        samples = [_within(sample, padding.max_boxes, padding.too_many, notes) for sample in samples]
    height, width = _padded_size(samples, padding)
    pixels = padded_pixels(samples, height, width)
    return (
        Batch(
            images=Images(
                pixels,
                torch.tensor([sample.size for sample in samples], dtype=torch.int64),
                torch.tensor(seeds, dtype=torch.int64),
                padded_proposals(samples, padding.proposals),
                scales_of(samples),
            ),
            targets=_targets(samples, padding, height, width),
            info=BatchInfo(
                indexes=torch.tensor([sample.index for sample in samples], dtype=torch.int64),
                image_ids=torch.tensor([sample.image_id for sample in samples], dtype=torch.int64),
                original_sizes=torch.tensor([sample.original_size for sample in samples], dtype=torch.int64),
                to_original=torch.tensor([sample.to_original for sample in samples], dtype=torch.float32),
            ),
        ),
        notes,
    )


def padded_pixels(samples: Sequence[Sample], height: int, width: int) -> Tensor:
    """Pad images with 0 to ``[B, 3, height, width]``: uint8, or float32 where one has fractions of grey levels."""
    fractions = any(sample.image.is_floating_point() for sample in samples)
    pixels = torch.zeros((len(samples), 3, height, width), dtype=torch.float32 if fractions else torch.uint8)
    for row, sample in zip(pixels, samples, strict=True):
        row[:, : sample.size[0], : sample.size[1]] = sample.image.as_subclass(Tensor)
    return pixels


def scales_of(samples: Sequence[Sample]) -> Tensor:
    """Return the scales ``[B, 2]`` of x and y from the original images; NaN where there is no map back."""
    return torch.tensor([sample.to_original[:2] for sample in samples], dtype=torch.float32).abs()


def _within(sample: Sample, most: int, too_many: str, notes: list[str]) -> Sample:
    if len(sample) <= most:
        return sample
    if too_many == "error":
        raise InputError(
            f"image {sample.image_id} (number {sample.index} of the data set) has {len(sample)} boxes but "
            f'max_boxes = {most}; raise max_boxes, or set too_many = "keep_largest" to drop the smallest'
        )
    notes.append(f"image {sample.image_id}: kept the {most} largest of {len(sample)} boxes (max_boxes = {most})")
    areas = (sample.boxes[:, 2:] - sample.boxes[:, :2]).prod(1)
    keep = torch.zeros(len(sample), dtype=torch.bool)
    keep[areas.sort(descending=True, stable=True).indices[:most]] = True
    return select(sample, keep)


def _padded_size(samples: Sequence[Sample], padding: Padding) -> tuple[int, int]:
    height, width = (max(sample.size[axis] for sample in samples) for axis in (0, 1))
    if padding.shapes is None:
        return round_up(height, padding.multiple), round_up(width, padding.multiple)
    fitting = [shape for shape in padding.shapes if shape[0] >= height and shape[1] >= width]
    if not fitting:
        largest = max(samples, key=lambda sample: max(sample.size))
        raise InputError(
            f"a batch of {height} x {width} pixels (height x width; image {largest.image_id} is "
            f"{largest.size[0]} x {largest.size[1]}) fits in none of the padded sizes "
            f"{', '.join(f'{h} x {w}' for h, w in padding.shapes)}; add a larger size or resize the images to less"
        )
    return min(fitting, key=lambda shape: shape[0] * shape[1])


def _targets(samples: Sequence[Sample], padding: Padding, height: int, width: int) -> Targets:
    count, most = len(samples), max(len(sample) for sample in samples)
    rows = padding.max_boxes if padding.max_boxes is not None else round_up(max(most, 1), padding.box_multiple)
    boxes = torch.zeros((count, rows, 4))
    labels = torch.zeros((count, rows), dtype=torch.int64)
    valid, crowd, difficult = (torch.zeros((count, rows), dtype=torch.bool) for _ in range(3))
    with_masks = all(sample.masks is not None for sample in samples)
    masks = torch.zeros((count, rows, height, width), dtype=torch.bool) if with_masks else None
    for b, sample in enumerate(samples):
        n = len(sample)
        boxes[b, :n], labels[b, :n], valid[b, :n] = sample.boxes, sample.labels, True
        crowd[b, :n], difficult[b, :n] = sample.crowd, sample.difficult
        if masks is not None and sample.masks is not None:
            masks[b, :n, : sample.size[0], : sample.size[1]] = sample.masks
    return Targets(boxes, labels, valid, crowd, difficult, masks)


def padded_proposals(samples: Sequence[Sample], rows: int) -> Tensor | None:
    """Pad proposals to ``[B, P, 4]``, P a multiple of ``rows``; None if a sample has none."""
    given = [sample.proposals for sample in samples if sample.proposals is not None]
    if len(given) < len(samples):
        return None
    padded = torch.zeros((len(given), round_up(max(1, *(len(p) for p in given)), rows), 4))
    for row, proposals in zip(padded, given, strict=True):
        row[: len(proposals)] = proposals
    return padded
