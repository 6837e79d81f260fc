"""Training at several input sizes, and transforms changed to another size."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from boxwright.data.transforms.configs import TransformConfig
from boxwright.data.transforms.resizing import ResizeConfig
from boxwright.fields import Count, CountOrZero, config
from boxwright.structures import InputError


@config
class MultiScaleConfig:
    """Train at one input size for all images of a batch, and at another every few batches (YOLOv2 §2: 320 to 608).

    The sizes are sides of square inputs: ``sizes``, or ``low``, ``low + step`` ... ``high``.
    """

    sizes: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    """Sides in pixels; None for the range of ``low``, ``high`` and ``step``."""
    low: Count = 320
    """Smallest side in pixels."""
    high: Count = 608
    """Largest side in pixels."""
    step: Count = 32
    """Difference of two sides in pixels."""
    every: Count = 10
    """Batches before another size is drawn."""
    last: CountOrZero = 0
    """Batches at the end of a run that all have ``last_size`` (Darknet: 200)."""
    last_size: Count | None = None
    """Side of the last batches in pixels; None for the largest."""

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise InputError(f"low = {self.low}: should be at most high = {self.high}")

    @property
    def choices(self) -> tuple[int, ...]:
        """Return the sizes that are drawn from, evenly."""
        return self.sizes if self.sizes is not None else tuple(range(self.low, self.high + 1, self.step))

    @property
    def all_sizes(self) -> tuple[int, ...]:
        """Return every size of a run, ascending."""
        return tuple(sorted({*self.choices, *((self._final,) if self.last else ())}))

    @property
    def _final(self) -> int:
        return max(self.choices) if self.last_size is None else self.last_size

    def size_at(self, seed: int, batch: int, batches: int | None = None) -> int:
        """Return the side of batch ``batch`` (from 0) of a run of ``batches``; it depends on the arguments alone.

        With ``batches`` None the end of the run is unknown, and no batch counts as one of the last.
        """
        if batches is not None and batch >= batches - self.last:
            return self._final
        packed = struct.pack("<2q", seed, batch // self.every)
        word = int.from_bytes(hashlib.blake2b(packed, digest_size=8, person=b"input size").digest(), "little")
        return self.choices[word % len(self.choices)]


def with_size(transforms: Sequence[TransformConfig], size: tuple[int, int]) -> tuple[TransformConfig, ...]:
    """Return the transforms with every size replaced by ``size`` (height, width).

    Raises InputError if no transform has a size; the short and long side of ``resize`` do not count.
    """
    if all(size_of(transform) is None for transform in transforms):
        kinds = ", ".join(transform.kind for transform in transforms) or "none"
        raise InputError(
            f"the transforms ({kinds}) have no size to replace by {size[0]} x {size[1]}; "
            "use a letterbox, warp, darknet_jitter or another transform with a size"
        )
    return tuple(replace(t, size=size) if size_of(t) is not None else t for t in transforms)


def check_square(transforms: Sequence[TransformConfig]) -> None:
    """Raise InputError if no transform has a size, or one has a size that is not square."""
    with_size(transforms, (1, 1))
    for position, transform in enumerate(transforms):
        height, width = size_of(transform) or (1, 1)
        if height != width:
            raise InputError(
                f"multi_scale makes square inputs, but transform {position} ({transform.kind}) has the size "
                f"{height} x {width}; make it square, or leave multi_scale out"
            )


def scaled(
    transforms: Sequence[TransformConfig], factors: tuple[float, float], multiple: int = 1
) -> tuple[TransformConfig, ...]:
    """Return the transforms for an input that is larger by ``factors`` (height, width).

    Sizes are rounded to multiples of ``multiple``. Raises InputError if the factors differ and a transform keeps the
    aspect.
    """
    return tuple(_scaled(transform, factors, multiple) for transform in transforms)


def _scaled(transform: TransformConfig, factors: tuple[float, float], multiple: int) -> TransformConfig:
    if isinstance(transform, ResizeConfig):
        if factors[0] != factors[1]:
            raise InputError(
                f"factors {factors[0]:g} and {factors[1]:g} for height and width do not fit the transform 'resize', "
                "which keeps the aspect; give one factor for both"
            )
        short = tuple(max(1, round(side * factors[0])) for side in transform.short)
        return replace(transform, short=short, long=max(*short, round(transform.long * factors[0])))
    size = size_of(transform)
    if size is None:
        return transform
    height, width = (
        max(multiple, multiple * int(side * factor / multiple + 0.5))
        for side, factor in zip(size, factors, strict=True)
    )
    return replace(transform, size=(height, width))


def size_of(transform: TransformConfig) -> tuple[int, int] | None:
    """Return the setting ``size`` (height, width) of a transform, or None."""
    return getattr(transform, "size", None)
