"""Copy-paste: objects of another image, cut out by their masks (Ghiasi et al., arXiv 2012.07177)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from boxwright.data.transforms.field_types import Interval, Size
from boxwright.data.transforms.mixing.joining import joined
from boxwright.data.transforms.sample import (
    Sample,
    chance,
    flipped,
    integer,
    placed,
    resized,
    select,
    shrunk_to,
    uniform,
)
from boxwright.fields import Count, NotNegative, Share, config
from boxwright.structures import InputError


@config
class CopyPasteConfig:
    """Paste objects of another image of the data set, cut out by their masks, at a random scale and position.

    The other image is drawn evenly and prepared by the transforms that stand before this one, with random numbers of
    its own. Of its objects except crowds a random number is pasted, 1 to ``most``. The objects below lose the covered
    part of their mask and box, and are dropped if too little is left. Masks are read for this transform also where the
    detector trains on boxes alone. An image without objects to paste changes nothing.
    """

    kind: Literal["copy_paste"] = "copy_paste"
    p: Share = 0.5
    """Probability of pasting."""
    most: Count = 10
    """Largest number of pasted objects."""
    scale: Interval = (0.5, 1.5)
    """Range of the factor on the other image's size."""
    flip: Share = 0.5
    """Probability that the pasted objects are mirrored left for right."""
    without_masks: Literal["skip", "boxes"] = "skip"
    """Treatment of an object without a mask: "skip" never pastes it, and refuses a data set without any mask; "boxes"
    pastes the whole content of its box."""
    min_visible: Share = 0.1
    """Smallest part that must remain, or the object is dropped: of the mask of a covered object, and of the box of a
    pasted one that reaches over the image's edge."""
    min_size: NotNegative = 2.0
    """Shortest side of such an object's remaining box in pixels, or it is dropped."""

    fixed: ClassVar[bool] = False

    def output_size(self, height: int, width: int) -> Size | None:
        """Return the size of the image, which does not change."""
        return height, width

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return None: that of pasted objects is random."""

    @property
    def uses_masks(self) -> bool:
        """Return True: objects are cut out by their masks."""
        return True

    @property
    def needs_masks(self) -> bool:
        """Return True if nothing can be pasted in a data set without masks."""
        return self.without_masks == "skip"


def copy_paste(sample: Sample, config: CopyPasteConfig, generator: Generator, other: Callable[[], Sample]) -> Sample:
    """Paste objects of ``other()``, with the probability of the configuration."""
    if not chance(generator, config.p):
        return sample
    source = other()
    if sample.masks is None and config.needs_masks:
        raise InputError(
            "transform 'copy_paste' needs masks, and the images have none; set without_masks = \"boxes\" to paste "
            "whole boxes, or leave the transform out"
        )
    chosen = _chosen(source, config, generator)
    if not chosen.any():
        return sample
    cut_out = _laid(select(_with_masks(source), chosen), sample.size, config, generator)
    assert cut_out.masks is not None
    over = cut_out.masks.any(0)  # [H, W]
    below = _covered(_with_masks(sample), over, config)
    pixels = torch.where(over, cut_out.image.as_subclass(Tensor), sample.image.as_subclass(Tensor))
    pasted = joined([below, cut_out], pixels)
    return pasted if sample.masks is not None else replace(pasted, masks=None)


def _chosen(source: Sample, config: CopyPasteConfig, generator: Generator) -> Tensor:
    """Draw the objects to paste, bool ``[n]``."""
    usable = ~source.crowd
    if config.needs_masks and source.with_mask is not None:
        usable = usable & source.with_mask
    places = usable.nonzero().squeeze(1)
    chosen = torch.zeros_like(usable)
    if len(places):
        count = 1 + integer(generator, min(config.most, len(places)))
        chosen[places[torch.randperm(len(places), generator=generator)[:count]]] = True
    return chosen


def _with_masks(sample: Sample) -> Sample:
    """Return the sample with masks; without any, each is its filled box."""
    if sample.masks is not None:
        return sample
    height, width = sample.size
    x1, y1, x2, y2 = sample.boxes.round().unbind(1)
    x, y = torch.arange(width), torch.arange(height)
    columns = (x >= x1[:, None]) & (x < x2[:, None])  # [n, W]
    rows = (y >= y1[:, None]) & (y < y2[:, None])  # [n, H]
    return replace(sample, masks=rows[:, :, None] & columns[:, None, :])


def _laid(source: Sample, size: Size, config: CopyPasteConfig, generator: Generator) -> Sample:
    """Scale and mirror the image of the pasted objects, and lay it on a canvas of ``size`` at random."""
    factor = uniform(generator, *config.scale)
    height, width = source.size
    source = resized(source, max(1, round(height * factor)), max(1, round(width * factor)))
    if chance(generator, config.flip):
        source = flipped(source)
    # A smaller image lies wholly on the canvas, a larger one covers it wholly.
    top, left = (
        integer(generator, max(room - side, 0) + 1) - integer(generator, max(side - room, 0) + 1)
        for side, room in zip(source.size, size, strict=True)
    )
    laid = placed(
        source,
        top=top,
        left=left,
        height=size[0],
        width=size[1],
        min_visible=config.min_visible,
        min_size=config.min_size,
    )
    assert laid.masks is not None
    return select(laid, laid.masks.flatten(1).any(1))


def _covered(sample: Sample, over: Tensor, config: CopyPasteConfig) -> Sample:
    """Take the pixels ``over`` from masks and boxes; drop the objects of which too little is left."""
    assert sample.masks is not None
    before = sample.masks.flatten(1).sum(1)
    masks = sample.masks & ~over
    after = masks.flatten(1).sum(1)
    touched = after < before
    boxes = torch.where(touched[:, None], shrunk_to(sample.boxes, masks), sample.boxes)
    enough = sample.crowd | (after >= config.min_visible * before)
    kept = (after > 0) & enough & ((boxes[:, 2:] - boxes[:, :2]) >= config.min_size).all(1)
    return select(replace(sample, boxes=boxes, masks=masks), ~touched | kept)
