"""Training at several input sizes, and transforms for another size than they were written for."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from boxwright.data.transforms.configs import TransformConfig
from boxwright.data.transforms.resizing import ResizeConfig
from boxwright.structures import InputError


@dataclass(frozen=True, kw_only=True)
class MultiScaleConfig:
    """One input size for all images of a batch, and another every ``every`` batches (YOLOv2 §2: 320 to 608).

    The sizes are sides of square inputs: ``sizes``, or ``low``, ``low + step`` ... ``high``. The last ``last`` batches
    of a run have the size ``last_size``, by default the largest (Darknet: 200 batches at 608).
    """

    sizes: tuple[int, ...] | None = None
    low: int = 320
    high: int = 608
    step: int = 32
    every: int = 10
    last: int = 0
    last_size: int | None = None

    def __post_init__(self) -> None:
        _check(self.step >= 1, "step", self.step, "at least 1")
        _check(1 <= self.low <= self.high, "low", self.low, f"in 1..high = {self.high}")
        _check(self.every >= 1, "every", self.every, "at least 1 batch")
        _check(self.last >= 0, "last", self.last, "0 or more batches")
        _check(self.sizes is None or (len(self.sizes) > 0 and min(self.sizes) >= 1), "sizes", self.sizes, "positive")
        _check(self.last_size is None or self.last_size >= 1, "last_size", self.last_size, "positive")

    @property
    def choices(self) -> tuple[int, ...]:
        """The sizes that are drawn from, each as likely."""
        return self.sizes if self.sizes is not None else tuple(range(self.low, self.high + 1, self.step))

    @property
    def all_sizes(self) -> tuple[int, ...]:
        """Every size that a run can meet, rising."""
        return tuple(sorted({*self.choices, *((self._final,) if self.last else ())}))

    @property
    def _final(self) -> int:
        return max(self.choices) if self.last_size is None else self.last_size

    def size_at(self, seed: int, batch: int, batches: int | None = None) -> int:
        """The side of global batch ``batch`` (from 0) of a run of ``batches``; a function of these numbers alone.

        ``batches`` None: the end of the run is not known, and no batch is among its last.
        """
        if batches is not None and batch >= batches - self.last:
            return self._final
        packed = struct.pack("<2q", seed, batch // self.every)
        word = int.from_bytes(hashlib.blake2b(packed, digest_size=8, person=b"input size").digest(), "little")
        return self.choices[word % len(self.choices)]


def with_size(transforms: Sequence[TransformConfig], size: tuple[int, int]) -> tuple[TransformConfig, ...]:
    """The transforms with ``size`` (height, width) in the place of every fixed size.

    InputError where none has one: a short and a long side are no size.
    """
    if all(size_of(transform) is None for transform in transforms):
        kinds = ", ".join(transform.kind for transform in transforms) or "none"
        raise InputError(
            f"the transforms ({kinds}) have no size to replace by {size[0]} x {size[1]}; "
            "use a letterbox, warp, darknet_jitter or another transform with a size"
        )
    return tuple(replace(t, size=size) if size_of(t) is not None else t for t in transforms)


def check_square(transforms: Sequence[TransformConfig]) -> None:
    """InputError where no transform has a size, or one that is not square: several sizes are sides of squares."""
    with_size(transforms, (1, 1))
    for place, transform in enumerate(transforms):
        height, width = size_of(transform) or (1, 1)
        if height != width:
            raise InputError(
                f"multi_scale makes square inputs, but transform {place} ({transform.kind}) has the size "
                f"{height} x {width}; make it square, or leave multi_scale out"
            )


def scaled(
    transforms: Sequence[TransformConfig], factors: tuple[float, float], multiple: int = 1
) -> tuple[TransformConfig, ...]:
    """The transforms for an input ``factors`` (height, width) times as large.

    Sizes are rounded to multiples of ``multiple``. A short and a long side have no height and width: InputError where
    the factors differ.
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
    """The fixed size (height, width) that a transform works to, if it has one."""
    return getattr(transform, "size", None)


def _check(holds: bool, field: str, value: object, valid: str) -> None:
    if not holds:
        raise InputError(f"multi_scale.{field} = {value!r} is out of range; it must be {valid}")
