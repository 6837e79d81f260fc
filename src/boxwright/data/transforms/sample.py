"""Sample of the transforms, and the basic operations of geometry: select, resize, place, flip, rotate.

Symbols: n boxes, H W the current size of the image in pixels. Boxes are float32 ``x1 y1 x2 y2``, ``x2 y2`` exclusive.
Every function returns a new sample and leaves its argument unchanged. Masks and proposals follow the boxes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from PIL.Image import Resampling
from torch import Generator, Tensor
from torch.nn.functional import interpolate
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from boxwright.data.formats.checks.sizes import WrongSize
from boxwright.data.images import read_image
from boxwright.data.transforms.field_types import Fill, Interpolation, Levels
from boxwright.data.transforms.linear import opencv_linear, stepped_linear
from boxwright.structures import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from boxwright.data.index import DetectionIndex
    from boxwright.data.proposals.files import ProposalSet

NO_WAY_BACK = (math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image with its annotations, in pixels of the current image.

    ``image`` uint8 ``[3, H, W]`` RGB; ``boxes`` float32 ``[n, 4]``; ``labels`` int64 ``[n]``; ``crowd`` and
    ``difficult`` bool ``[n]``; ``masks`` bool ``[n, H, W]`` or None; ``proposals`` float32 ``[p, 4]``, best first, or
    None. ``with_mask`` bool ``[n]`` is false for an object whose mask is only its filled box; None counts as all true.
    ``index`` is the position in the data set, ``original_size`` the height and width of the file. ``to_original`` is
    scale x, scale y, offset x, offset y with original = (current - offset) / scale; NaN after an operation without such
    a map (quarter turn, mosaic).
    """

    image: tv_tensors.Image
    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    difficult: Tensor
    masks: Tensor | None = None
    proposals: Tensor | None = None
    with_mask: Tensor | None = None
    index: int = -1
    image_id: int = -1
    original_size: tuple[int, int] = (0, 0)
    to_original: tuple[float, float, float, float] = (1.0, 1.0, 0.0, 0.0)

    @property
    def size(self) -> tuple[int, int]:
        """Return the current height and width."""
        return self.image.shape[-2], self.image.shape[-1]

    def __len__(self) -> int:
        return len(self.boxes)


class Fetch(Protocol):
    """Access to the whole data set for transforms that mix images: ``len()`` and one untouched sample by position."""

    def __len__(self) -> int: ...

    def __call__(self, index: int, /) -> Sample: ...


class SampleSource:
    """Read the samples of an index from their files; implements `Fetch`."""

    def __init__(self, index: DetectionIndex, masks: bool = False, proposals: ProposalSet | None = None) -> None:
        """Take ``proposals`` of the images of ``index``, in its order."""
        if masks and not index.has_masks:
            raise InputError(
                f"{index.root}: masks are needed but the data set has none; "
                "give data with masks, or train a detector of boxes, whose recipe has data.masks = false"
            )
        self.index = index
        self.masks = masks
        self.proposals = proposals

    def __len__(self) -> int:
        return len(self.index)

    def __call__(self, index: int, /) -> Sample:
        """Return the sample at a position, with boxes clipped to the image and without boxes of no area.

        Raises InputError naming the file if the image cannot be used.
        """
        path, size = self.index.path(index), self.index.size(index)
        pixels = read_image(path)
        if pixels.shape[:2] != size:
            wrong = WrongSize(path, size, pixels.shape[:2])
            raise InputError(f"{path}: {wrong}; `boxwright data check` lists all defects")
        rows = self.index.annotations(index)
        drawn = [segmentation is not None for segmentation in rows.segmentations or []]
        sample = Sample(
            image=tv_tensors.Image(torch.from_numpy(np.require(pixels, requirements="W")).permute(2, 0, 1)),
            boxes=torch.tensor(rows.boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(rows.labels, dtype=torch.int64),
            crowd=torch.tensor(rows.crowd, dtype=torch.bool),
            difficult=torch.tensor(rows.difficult, dtype=torch.bool),
            masks=torch.tensor(self.index.masks(index), dtype=torch.bool) if self.masks else None,
            proposals=None if self.proposals is None else torch.tensor(self.proposals.of(index)),
            with_mask=torch.tensor(drawn, dtype=torch.bool) if self.masks else None,
            index=index,
            image_id=int(self.index.image_id(index)),
            original_size=(int(size[0]), int(size[1])),
        )
        # Annotations may extend over the edge of the image; they are clipped here.
        return placed(sample, top=0, left=0, height=size[0], width=size[1])


# Random numbers, all from the generator of the sample.


def uniform(generator: Generator, low: float, high: float) -> float:
    """Draw a number in [low, high)."""
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


def integer(generator: Generator, count: int) -> int:
    """Draw one of 0..count-1."""
    return int(torch.randint(count, (), generator=generator))


def chance(generator: Generator, probability: float) -> bool:
    """Return True with the given probability; never at 0, always at 1."""
    return uniform(generator, 0.0, 1.0) < probability


# Operations on geometry.


def select(sample: Sample, keep: Tensor) -> Sample:
    """Keep only the annotations where ``keep``, bool ``[n]``, is true."""
    if bool(keep.all()):
        return sample
    return replace(
        sample,
        boxes=sample.boxes[keep],
        labels=sample.labels[keep],
        crowd=sample.crowd[keep],
        difficult=sample.difficult[keep],
        masks=None if sample.masks is None else sample.masks[keep],
        with_mask=None if sample.with_mask is None else sample.with_mask[keep],
    )


def resized(
    sample: Sample,
    height: int,
    width: int,
    interpolation: Interpolation = "bilinear",
    levels: Levels = "whole",
    scale: float | None = None,
) -> Sample:
    """Resize the sample, with an own factor for each axis. Masks take the nearest pixel.

    ``scale``: the factor of both axes for pixels and boxes, where that is not the ratio of the whole sides.
    """
    old_height, old_width = sample.size
    if (height, width) == (old_height, old_width) and scale in (None, 1.0):
        return sample
    sx, sy = (width / old_width, height / old_height) if scale is None else (scale, scale)
    kx, ky, ox, oy = sample.to_original
    return replace(
        sample,
        image=_resized_image(sample.image, height, width, interpolation, levels, scale),
        # Rounding may move an edge beyond the last pixel.
        boxes=clipped(sample.boxes * sample.boxes.new_tensor([sx, sy, sx, sy]), height, width),
        masks=None if sample.masks is None else _resized_masks(sample.masks, height, width),
        proposals=_moved(sample.proposals, (sx, sy), (0, 0), height, width),
        to_original=(kx * sx, ky * sy, ox * sx, oy * sy),
    )


def _resized_image(
    image: tv_tensors.Image, height: int, width: int, how: Interpolation, levels: Levels, scale: float | None
) -> tv_tensors.Image:
    whole = not image.is_floating_point()
    if levels == "fractions" or scale is not None:
        made = _resized_fractions(image.as_subclass(Tensor).float(), height, width, how, scale)
        return tv_tensors.Image(made.round().clamp(0, 255).to(torch.uint8) if whole and levels == "whole" else made)
    # Antialiased if the method supports it, so that shrinking averages pixels and does not skip them. "aliased",
    # "aliased_bicubic" and "lanczos4" are OpenCV's, which SSD trained with; "corners" is Darknet's.
    match how:
        case "bilinear" | "bicubic":
            resized_image = F.resize(image, [height, width], InterpolationMode(how), antialias=True)
        case "opencv":
            resized_image = opencv_linear(image.as_subclass(Tensor), height, width)
        case "aliased":
            resized_image = F.resize(image, [height, width], InterpolationMode.BILINEAR, antialias=False)
        case "aliased_bicubic":
            resized_image = F.resize(image, [height, width], InterpolationMode.BICUBIC, antialias=False)
        case "corners":
            pixels = image.as_subclass(Tensor)[None].float()
            blended = interpolate(pixels, (height, width), mode="bilinear", align_corners=True)[0]
            resized_image = blended.round().to(torch.uint8)
        case "lanczos4":
            resized_image = _lanczos4(image.as_subclass(Tensor), height, width)
        case "nearest":
            resized_image = F.resize(image, [height, width], InterpolationMode.NEAREST_EXACT)
        case "area" | "lanczos" | "pillow":  # torchvision has these for PIL images only
            method = {"area": Resampling.BOX, "lanczos": Resampling.LANCZOS, "pillow": Resampling.BILINEAR}[how]
            resized_image = F.pil_to_tensor(F.to_pil_image(image).resize((width, height), method))
    return tv_tensors.Image(resized_image)


def _resized_fractions(pixels: Tensor, height: int, width: int, how: Interpolation, scale: float | None) -> Tensor:
    """Resize float ``[3, H, W]`` by a method that has fractions, see ``resizing.FRACTIONAL``."""
    if scale is not None:
        return stepped_linear(pixels, height, width, 1 / scale)
    if how in ("aliased", "corners"):
        return interpolate(pixels[None], (height, width), mode="bilinear", align_corners=how == "corners")[0]
    return F.resize(pixels, [height, width], InterpolationMode(how), antialias=True)


def _lanczos4(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize ``[3, H, W]`` by a Lanczos window of eight taps at any scale, with repeated edges."""
    out = pixels.float()
    for axis, length in ((1, height), (2, width)):
        old = out.shape[axis]
        centre = (torch.arange(length) + 0.5) * (old / length) - 0.5
        taps = centre.floor()[:, None] + torch.arange(-3, 5)  # [length, 8]
        distance = centre[:, None] - taps
        weights = torch.sinc(distance) * torch.sinc(distance / 4)
        weights = weights / weights.sum(1, keepdim=True)
        places = taps.long().clamp(0, old - 1)
        shape = (length, 1) if axis == 1 else (length,)
        parts = (weights[:, k].reshape(shape) * out.index_select(axis, places[:, k]) for k in range(8))
        out = sum(parts, start=torch.zeros(()))
    return out.round().clamp(0, 255).to(torch.uint8)


def _resized_masks(masks: Tensor, height: int, width: int) -> Tensor:
    if len(masks) == 0:
        return masks.new_zeros((0, height, width))
    return F.resize_image(masks.to(torch.uint8), [height, width], InterpolationMode.NEAREST_EXACT).to(torch.bool)


def placed(
    sample: Sample,
    *,
    top: int,
    left: int,
    height: int,
    width: int,
    fill: Fill | None = (0, 0, 0),
    min_visible: float = 0.0,
    min_size: float = 0.0,
) -> Sample:
    """Place the sample on a canvas of another size with its corner at ``left``, ``top``: pads, or crops if negative.

    Outside the image the canvas has the colour ``fill``, or repeats the image's edge if that is None. Boxes are clipped
    to the canvas; with masks, a box that was cut also shrinks to the rest of its mask. An annotation is dropped if
    nothing is left of it, if a side is shorter than ``min_size`` pixels, or if less than ``min_visible`` of its box's
    area is left. The last rule does not apply to crowds, whose rest must be ignored rather than trained as background.
    Proposals are clipped, and dropped if nothing is left of them.
    """
    if (top, left, height, width) == (0, 0, *sample.size):
        moved, masks = sample.boxes, sample.masks
    else:
        moved = sample.boxes + sample.boxes.new_tensor([left, top, left, top])
        masks = None if sample.masks is None else _window(sample.masks, top, left, height, width)
    boxes = clipped(moved, height, width)
    if masks is not None and sample.masks is not None:
        cut = (boxes != moved).any(1) & sample.masks.flatten(1).any(1)
        boxes = torch.where(cut[:, None], shrunk_to(boxes, masks), boxes)
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    before = (moved[:, 2:] - moved[:, :2]).clamp(min=0).prod(1)
    enough = sample.crowd | (sides.prod(1) >= min_visible * before)
    kx, ky, ox, oy = sample.to_original
    canvas = sample.image.as_subclass(Tensor)
    if (top, left, height, width) != (0, 0, *sample.size):
        if fill is None:
            canvas = _repeated(canvas, top, left, height, width)
        else:
            canvas = _window(canvas, top, left, height, width, fill)
    whole = replace(
        sample,
        image=tv_tensors.Image(canvas),
        boxes=boxes,
        masks=masks,
        proposals=_moved(sample.proposals, (1, 1), (left, top), height, width),
        to_original=(kx, ky, ox + left, oy + top),
    )
    return select(whole, enough & (sides > 0).all(1) & (sides >= min_size).all(1))


def _window(
    planes: Tensor, top: int, left: int, height: int, width: int, fill: Sequence[float] | None = None
) -> Tensor:
    """Cut a window out of ``[c, H, W]``; outside it has zeros or one ``fill`` value per plane."""
    window = planes.new_zeros((len(planes), height, width))
    if fill is not None and any(fill):
        window += planes.new_tensor(fill)[:, None, None]
    y1, x1 = max(top, 0), max(left, 0)
    y2, x2 = min(top + planes.shape[1], height), min(left + planes.shape[2], width)
    if y1 < y2 and x1 < x2:
        window[:, y1:y2, x1:x2] = planes[:, y1 - top : y2 - top, x1 - left : x2 - left]
    return window


def _repeated(planes: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """Cut a window out of ``[c, H, W]``; outside it has the nearest pixel of the edge."""
    rows = (torch.arange(height) - top).clamp(0, planes.shape[1] - 1)
    columns = (torch.arange(width) - left).clamp(0, planes.shape[2] - 1)
    return planes[:, rows][:, :, columns]


def clipped(boxes: Tensor, height: int, width: int) -> Tensor:
    """Clip boxes to the canvas."""
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def _moved(
    boxes: Tensor | None, scale: tuple[float, float], shift: tuple[float, float], height: int, width: int
) -> Tensor | None:
    """Scale, shift and clip proposals to the canvas; drop those without area."""
    if boxes is None:
        return None
    moved = clipped(boxes * boxes.new_tensor([*scale, *scale]) + boxes.new_tensor([*shift, *shift]), height, width)
    return moved[(moved[:, 2:] > moved[:, :2]).all(1)]


def _mirrored(boxes: Tensor, height: int, width: int, vertical: bool) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([x1, height - y2, x2, height - y1] if vertical else [width - x2, y1, width - x1, y2], 1)


def _quarter_turned(boxes: Tensor, width: int) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([y1, width - x2, y2, width - x1], 1)


def mask_bounds(masks: Tensor) -> Tensor:
    """Return the tight boxes ``[n, 4]`` around masks ``[n, H, W]``; zeros for an empty mask."""
    bounds = []
    for lines in (masks.any(1), masks.any(2)):  # columns [n, W], then rows [n, H]
        numbers = lines.to(torch.uint8)
        first = numbers.argmax(1)
        last = lines.shape[1] - numbers.flip(1).argmax(1)
        some = lines.any(1)
        bounds.append((first * some, last * some))
    (x1, x2), (y1, y2) = bounds
    return torch.stack([x1, y1, x2, y2], 1).to(torch.float32)


def shrunk_to(boxes: Tensor, masks: Tensor) -> Tensor:
    """Clip boxes to the bounds of their masks."""
    bounds = mask_bounds(masks)
    return torch.cat([torch.maximum(boxes[:, :2], bounds[:, :2]), torch.minimum(boxes[:, 2:], bounds[:, 2:])], 1)


def flipped(sample: Sample, vertical: bool = False) -> Sample:
    """Mirror the sample left for right, or upside down."""
    height, width = sample.size
    kx, ky, ox, oy = sample.to_original
    if vertical:
        image, back = F.vertical_flip(sample.image), (kx, -ky, ox, height - oy)
    else:
        image, back = F.horizontal_flip(sample.image), (-kx, ky, width - ox, oy)
    given = sample.proposals
    return replace(
        sample,
        image=tv_tensors.Image(image),
        boxes=_mirrored(sample.boxes, height, width, vertical),
        masks=None if sample.masks is None else sample.masks.flip(1 if vertical else 2),
        proposals=None if given is None else _mirrored(given, height, width, vertical),
        to_original=back,
    )


def turned(sample: Sample, quarters: int) -> Sample:
    """Rotate the sample anticlockwise by quarter turns."""
    for _ in range(quarters % 4):
        _, width = sample.size
        given = sample.proposals
        sample = replace(
            sample,
            image=tv_tensors.Image(torch.rot90(sample.image.as_subclass(Tensor), 1, (1, 2))),
            boxes=_quarter_turned(sample.boxes, width),
            masks=None if sample.masks is None else torch.rot90(sample.masks, 1, (1, 2)),
            proposals=None if given is None else _quarter_turned(given, width),
            to_original=NO_WAY_BACK,
        )
    return sample
