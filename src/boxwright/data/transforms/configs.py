"""Transforms of a recipe: a tuple of configurations is built into one function of a sample and its generator.

A new transform is a configuration and a function in a file of its own, a member of `TransformConfig` and a case of
`_apply`. A configuration states its effect on sizes, so that no other code depends on its kind:

* ``fixed``: True if all results have one size.
* ``output_size(height, width)``: the size of the result for an image of that size; None if it is random.
* ``object_scale(height, width)``: the factors on an object's height and width; None if they are random.

Every random choice comes from the generator passed with the sample, so a sample depends only on that
generator's seed, in any worker. The transforms run in the order given. A transform
that combines images draws others evenly from the whole data set: a mosaic as they are in their files, mixup and
copy-paste after the transforms that stand before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias, assert_never

from torch import Generator

from boxwright.data.transforms.affine import AffineConfig, affine
from boxwright.data.transforms.augment import (
    ExpandConfig,
    FlipConfig,
    MinIoUCropConfig,
    QuarterTurnConfig,
    expand,
    flip,
    min_iou_crop,
    quarter_turn,
)
from boxwright.data.transforms.colour import HSVJitterConfig, PhotometricConfig, hsv_jitter, photometric
from boxwright.data.transforms.custom.transform import CustomConfig, custom
from boxwright.data.transforms.jitter import DarknetJitterConfig, darknet_jitter
from boxwright.data.transforms.mixing.copy_paste import CopyPasteConfig, copy_paste
from boxwright.data.transforms.mixing.mixup import MixupConfig, mixup
from boxwright.data.transforms.mixing.mosaic import MosaicConfig, mosaic
from boxwright.data.transforms.resizing import (
    LargeScaleJitterConfig,
    LetterboxConfig,
    ResizeConfig,
    ScaleJitterConfig,
    WarpConfig,
    large_scale_jitter,
    letterbox,
    resize,
    scale_jitter,
    warp,
)
from boxwright.data.transforms.sample import Fetch, Sample, SampleSource, integer
from boxwright.structures import InputError

__all__ = [
    "AffineConfig",
    "CopyPasteConfig",
    "CustomConfig",
    "DarknetJitterConfig",
    "ExpandConfig",
    "Fetch",
    "FlipConfig",
    "HSVJitterConfig",
    "LargeScaleJitterConfig",
    "LetterboxConfig",
    "MinIoUCropConfig",
    "MixupConfig",
    "MosaicConfig",
    "PhotometricConfig",
    "QuarterTurnConfig",
    "ResizeConfig",
    "Sample",
    "SampleSource",
    "ScaleJitterConfig",
    "Transform",
    "TransformConfig",
    "WarpConfig",
    "build_transform",
    "without_mixing",
]

TransformConfig: TypeAlias = (
    ResizeConfig
    | LetterboxConfig
    | WarpConfig
    | ScaleJitterConfig
    | LargeScaleJitterConfig
    | DarknetJitterConfig
    | FlipConfig
    | QuarterTurnConfig
    | AffineConfig
    | ExpandConfig
    | MinIoUCropConfig
    | PhotometricConfig
    | HSVJitterConfig
    | MosaicConfig
    | MixupConfig
    | CopyPasteConfig
    | CustomConfig
)
Transform: TypeAlias = Callable[[Sample, Generator], Sample]
MIXING = (MosaicConfig, MixupConfig, CopyPasteConfig)
"""Transforms that combine images."""


def build_transform(configs: Sequence[TransformConfig], fetch: Fetch | None = None) -> Transform:
    """Return a function that applies the transforms in order. It can be pickled for workers that are not forked.

    ``fetch`` gives the other images of the transforms that combine images. Raises InputError if it is needed and
    missing, or a custom transform cannot be loaded.
    """
    for config in configs:
        if isinstance(config, CustomConfig):
            config.load()  # here, before any image is read, and not first in a worker
    mixing = [config.kind for config in configs if isinstance(config, MIXING)]
    if fetch is None and mixing:
        raise InputError(
            f"transform {mixing[0]!r} needs the other images of the data set; pass fetch=SampleSource(index)"
        )
    return partial(_apply_all, configs=tuple(configs), fetch=fetch)


def without_mixing(configs: Sequence[TransformConfig]) -> tuple[TransformConfig, ...]:
    """Return the transforms without those that combine images.

    A mosaic of all images also makes their size, so a letterbox of that size takes its place.
    """
    kept: list[TransformConfig] = []
    for config in configs:
        if isinstance(config, MosaicConfig) and config.fixed:
            kept.append(LetterboxConfig(size=config.size, fill=config.fill))
        elif not isinstance(config, MIXING):
            kept.append(config)
    return tuple(kept)


def _apply_all(
    sample: Sample, generator: Generator, *, configs: tuple[TransformConfig, ...], fetch: Fetch | None
) -> Sample:
    for position, config in enumerate(configs):
        sample = _apply(sample, config, generator, fetch, partial(_other, configs[:position], generator, fetch))
    return sample


def _other(before: tuple[TransformConfig, ...], generator: Generator, fetch: Fetch | None) -> Sample:
    """Draw an image of the data set, and apply the transforms ``before`` the one that combines it."""
    assert fetch is not None  # checked by build_transform
    return _apply_all(fetch(integer(generator, len(fetch))), generator, configs=before, fetch=fetch)


def _apply(
    sample: Sample, config: TransformConfig, generator: Generator, fetch: Fetch | None, other: Callable[[], Sample]
) -> Sample:
    match config:
        case ResizeConfig():
            return resize(sample, config, generator)
        case LetterboxConfig():
            return letterbox(sample, config)
        case WarpConfig():
            return warp(sample, config, generator)
        case ScaleJitterConfig():
            return scale_jitter(sample, config, generator)
        case LargeScaleJitterConfig():
            return large_scale_jitter(sample, config, generator)
        case DarknetJitterConfig():
            return darknet_jitter(sample, config, generator)
        case FlipConfig():
            return flip(sample, config, generator)
        case QuarterTurnConfig():
            return quarter_turn(sample, config, generator)
        case AffineConfig():
            return affine(sample, config, generator)
        case ExpandConfig():
            return expand(sample, config, generator)
        case MinIoUCropConfig():
            return min_iou_crop(sample, config, generator)
        case PhotometricConfig():
            return photometric(sample, config, generator)
        case HSVJitterConfig():
            return hsv_jitter(sample, config, generator)
        case MosaicConfig():
            assert fetch is not None  # checked by build_transform
            return mosaic(sample, config, generator, fetch)
        case MixupConfig():
            return mixup(sample, config, generator, other)
        case CopyPasteConfig():
            return copy_paste(sample, config, generator, other)
        case CustomConfig():
            return custom(sample, config, generator)
        case _:
            assert_never(config)
