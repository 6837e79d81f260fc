"""The values that pass between all parts: batches, targets, dense detections, pyramid levels, class names.

Symbols: B images, G padded ground-truth boxes, D detections per image, H W pixels of the padded network input.
Boxes everywhere are float32 ``x1 y1 x2 y2`` in absolute pixels, ``x2 y2`` exclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class InputError(ValueError):
    """Bad input from outside. The message names the file or value, the place in it, and the remedy."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a feature pyramid: ``stride`` in input pixels, ``channels`` of its map."""

    name: str
    stride: int
    channels: int


@dataclass(frozen=True, slots=True)
class Classes:
    """Foreground classes in label order: label ``k`` is ``names[k]``, and ``ids[k]`` in the data set's own files."""

    names: tuple[str, ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.ids):
            raise InputError(f"{len(self.names)} class names but {len(self.ids)} category ids; give one id per name")
        for what, values in (("class name", self.names), ("category id", self.ids)):
            repeated = sorted({str(v) for v in values if values.count(v) > 1})
            if repeated:
                raise InputError(f"{what} {', '.join(repeated)} appears more than once; each class needs its own")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_names(cls, names: list[str] | tuple[str, ...]) -> Classes:
        """Classes with the ids 1, 2, ... that COCO files made from VOC or YOLO data carry."""
        return cls(tuple(names), tuple(range(1, len(names) + 1)))


def constant(values: Sequence[Any], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """A small tensor of plain numbers on ``device`` that nobody waits for.

    ``torch.tensor(values, device="cuda")`` copies from ordinary memory and waits; from pinned memory it need not.
    """
    if device.type != "cuda" or torch.compiler.is_compiling():
        return torch.tensor(values, dtype=dtype, device=device)
    return torch.tensor(values, dtype=dtype).pin_memory().to(device, non_blocking=True)


class Images(NamedTuple):
    """A padded batch of RGB images.

    ``pixels`` is ``[B, 3, H, W]``, uint8 or float in 0..255, padded at the bottom and right (any value);
    ``sizes`` is int64 ``[B, 2]``, the true height and width of each image inside the padding;
    ``seeds`` is int64 ``[B]``, from which an image's random samples (anchors, RoIs) are drawn, so that they depend
    on neither the device, nor the number of processes, nor what was drawn before. None: drawn from torch's state.
    ``proposals`` is float32 ``[B, P, 4]``, boxes given from outside, best first, for detectors that find none of their
    own; rows without area are padding. None where nobody asked for them.
    """

    pixels: Tensor
    sizes: Tensor
    seeds: Tensor | None = None
    proposals: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Images:
        """The batch on another device."""
        return Images._make(None if t is None else t.to(device, non_blocking=non_blocking) for t in self)


class Targets(NamedTuple):
    """Padded ground truth: rows where ``valid`` is false are padding and hold zeros.

    ``boxes`` float32 ``[B, G, 4]``; ``labels`` int64 ``[B, G]`` in 0..K-1; ``valid``, ``crowd`` and ``difficult``
    bool ``[B, G]``; ``masks`` bool ``[B, G, H, W]`` or None where the data set has none or nobody asked.
    G may be 0 and an image may have no valid row.
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor
    crowd: Tensor
    difficult: Tensor
    masks: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Targets:
        """The targets on another device."""
        dense = [t.to(device, non_blocking=non_blocking) for t in self[:5] if t is not None]
        masks = None if self.masks is None else self.masks.to(device, non_blocking=non_blocking)
        return Targets(dense[0], dense[1], dense[2], dense[3], dense[4], masks)


class DetectionBatch(NamedTuple):
    """Detections of a batch with a fixed number of rows, in pixels of the network's input, sorted by score.

    ``boxes`` float32 ``[B, D, 4]``; ``scores`` float32 ``[B, D]`` in 0..1; ``labels`` int64 ``[B, D]``; ``valid`` bool
    ``[B, D]``. Rows where ``valid`` is false hold zeros. ``masks``: mask probabilities ``[B, D, m, m]`` or None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor
    masks: Tensor | None = None
