"""Mixup of two images with the boxes of both (Zhang et al., arXiv 1710.09412; for detection arXiv 1902.04103 §3.1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from boxwright.data.transforms.field_types import Size
from boxwright.data.transforms.mixing.joining import joined
from boxwright.data.transforms.sample import Sample, chance, placed, resized, uniform
from boxwright.fields import Share, config


@config
class MixupConfig:
    """Blend the image with another of the data set, and keep the objects of both.

    The other image is drawn evenly and prepared by the transforms that stand before this one, with random numbers of
    its own. After transforms that make one size both cover the canvas. Otherwise the canvas is that of the first image,
    and the other lies at its top left, shrunk if it is larger; beside it the first image stays as it is. (The paper
    takes a canvas that holds both, and blends with black beside them.) All objects count fully, however faint their
    image is.
    """

    kind: Literal["mixup"] = "mixup"
    p: Share = 0.5
    """Probability of a blend."""
    alpha: Annotated[float, Field(gt=0.5, allow_inf_nan=False)] = 1.5
    """The weight of the image is drawn from Beta(alpha, alpha): 1.5 in the paper; 32 is nearly always a half."""

    fixed: ClassVar[bool] = False

    def output_size(self, height: int, width: int) -> Size | None:
        """Return the size of the image, which does not change."""
        return height, width

    def object_scale(self, height: int, width: int) -> tuple[float, float] | None:
        """Return 1, since objects keep their size."""
        return 1.0, 1.0


def mixup(sample: Sample, config: MixupConfig, generator: Generator, other: Callable[[], Sample]) -> Sample:
    """Blend the image with ``other()``, with the probability of the configuration."""
    if not chance(generator, config.p):
        return sample
    (height, width), source = sample.size, other()
    scale = min(1.0, height / source.size[0], width / source.size[1])
    rows, columns = max(1, round(source.size[0] * scale)), max(1, round(source.size[1] * scale))
    source = resized(source, rows, columns)
    weight = symmetric_beta(generator, config.alpha)
    first, second = sample.image.as_subclass(Tensor), source.image.as_subclass(Tensor)
    blend = torch.lerp(second.float(), first[:, :rows, :columns].float(), weight)
    whole = not (first.is_floating_point() or second.is_floating_point())
    pixels = first.clone() if whole else first.float().clone()
    pixels[:, :rows, :columns] = blend.round() if whole else blend
    return joined([sample, placed(source, top=0, left=0, height=height, width=width)], pixels)


def symmetric_beta(generator: Generator, alpha: float) -> float:
    """Draw from Beta(alpha, alpha), alpha above 1/2, from two uniform numbers (Ulrich 1984)."""
    radius = math.sqrt(1 - uniform(generator, 0.0, 1.0) ** (2 / (2 * alpha - 1)))
    return 0.5 + 0.5 * radius * math.cos(2 * math.pi * uniform(generator, 0.0, 1.0))
