"""Transform of the user's own, from another package.

Symbols: n boxes, H W the size of the image in pixels.
"""

from __future__ import annotations

import json
import traceback
from dataclasses import field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor
from torchvision import tv_tensors

from boxwright.data.transforms.custom.entry_point import custom_transform, describe_custom
from boxwright.data.transforms.field_types import Size
from boxwright.data.transforms.sample import NO_WAY_BACK, Sample
from boxwright.fields import config
from boxwright.structures import InputError


@config
class CustomConfig:
    """Apply a transform of the user's own, which another package offers as an entry point.

    The group is ``boxwright.transforms``. The object that the entry point names is called with ``options`` as keyword
    arguments and returns a callable ``transform(sample, generator) -> sample`` of
    :class:`~boxwright.data.transforms.sample.Sample`. The size of the image must stay.
    """

    kind: Literal["custom"] = "custom"
    name: str
    """Name of the entry point."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments: numbers, texts, true or false, lists and tables."""

    fixed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        try:
            json.dumps(self.options, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"options = {self.options}: {error}; give numbers, texts, true or false, lists and tables"
            ) from None

    def output_size(self, height: int, width: int) -> Size | None:
        """Return the size of the image, which stays."""
        return height, width

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return None: what it does is not known."""

    def load(self) -> None:
        """Find and make the transform. Raises InputError if it cannot be had."""
        custom_transform(self.name, json.dumps(self.options, sort_keys=True))


def custom(sample: Sample, config: CustomConfig, generator: Generator) -> Sample:
    """Apply the transform to a copy of the sample. Raises InputError if it fails, or returns what is no such sample."""
    transform = custom_transform(config.name, json.dumps(config.options, sort_keys=True))
    try:
        made = transform(_copied(sample), generator)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(
            f"{describe_custom(config.name)} failed on the image id {sample.image_id}: {type(error).__name__}: "
            f"{error} ({where.filename}, line {where.lineno})"
        ) from error
    if wrong := _fault(made, sample):
        raise InputError(
            f"{describe_custom(config.name)}, image id {sample.image_id}: {wrong}; see docs/augmentation.md"
        )
    return replace(
        made,
        image=tv_tensors.Image(made.image),
        index=sample.index,
        image_id=sample.image_id,
        original_size=sample.original_size,
        to_original=NO_WAY_BACK,
    )


def _copied(sample: Sample) -> Sample:
    """Return a sample whose tensors may be written in place."""
    values = {name: value.clone() for name, value in vars(sample).items() if isinstance(value, Tensor)}
    return replace(sample, **values)


def _fault(made: Any, given: Sample) -> str | None:
    """Return what is wrong with a transformed sample, None if nothing is."""
    if not isinstance(made, Sample):
        return f"it returned {type(made).__name__}, not a Sample"
    (height, width), n = given.size, made.boxes.shape[0] if made.boxes.ndim else 0
    expected: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "image": ((3, height, width), given.image.dtype),
        "boxes": ((n, 4), torch.float32),
        "labels": ((n,), torch.int64),
        "crowd": ((n,), torch.bool),
        "difficult": ((n,), torch.bool),
    }
    if given.masks is not None:
        expected["masks"] = ((n, height, width), torch.bool)
    if given.with_mask is not None:
        expected["with_mask"] = ((n,), torch.bool)
    if given.proposals is not None:
        expected["proposals"] = (tuple(given.proposals.shape), torch.float32)
    for name, (shape, dtype) in expected.items():
        value = getattr(made, name)
        if not isinstance(value, Tensor):
            return f"{name} is {type(value).__name__}, not a tensor"
        if tuple(value.shape) != shape or value.dtype != dtype:
            return f"{name} is {value.dtype} {list(value.shape)}, and should be {dtype} {list(shape)}"
    if n and not (made.boxes.isfinite().all() and (made.boxes[:, 2:] > made.boxes[:, :2]).all()):
        return "a box has no area, or is not finite; leave such objects out"
    if n and (made.labels < 0).any():
        return f"label {int(made.labels.min())} is no class; labels are indexes from 0"
    if n and ((made.boxes < -0.01) | (made.boxes > torch.tensor([width, height] * 2) + 0.01)).any():
        return f"a box lies outside the image of {height} x {width} pixels (height x width); clip it"
    return None
