"""Every geometric transform, and the objects it moves."""

from torch import Generator

from boxwright.data.transforms.augment import cut_to, find_window
from boxwright.data.transforms.configs import (
    AffineConfig,
    CopyPasteConfig,
    DarknetJitterConfig,
    ExpandConfig,
    FlipConfig,
    HSVJitterConfig,
    LargeScaleJitterConfig,
    LetterboxConfig,
    MinIoUCropConfig,
    MixupConfig,
    MosaicConfig,
    PhotometricConfig,
    QuarterTurnConfig,
    ResizeConfig,
    Sample,
    ScaleJitterConfig,
    Transform,
    TransformConfig,
    WarpConfig,
)
from boxwright.data.transforms.resizing import SSD_INTERPOLATIONS
from tests.support.tiny_index import painted

OBJECTS = [[5, 8, 35, 28], [50, 10, 80, 50], [10, 34, 44, 58]]


# Each geometric transform, always on, with what it may lose set to nothing that hides a mistake.
GEOMETRIC: list[TransformConfig] = [
    ResizeConfig(short=(48, 90, 133), long=180),
    LetterboxConfig(size=(101, 80)),
    LetterboxConfig(size=(200, 200)),
    WarpConfig(size=(77, 61)),
    WarpConfig(size=(120, 120), interpolations=("nearest", "corners", "lanczos", "bicubic")),
    WarpConfig(size=(120, 120), interpolations=SSD_INTERPOLATIONS),
    ScaleJitterConfig(size=(60, 90), scale=(0.5, 2.0)),
    LargeScaleJitterConfig(size=(64, 64), scale=(0.3, 2.0), fill=(0, 0, 0)),
    DarknetJitterConfig(size=(100, 120), fill=(0, 0, 0)),
    DarknetJitterConfig(size=(120, 100), method="crop", jitter=0.2, min_share=0.005),
    FlipConfig(p=1.0),
    FlipConfig(p=0.0, vertical_p=1.0),
    QuarterTurnConfig(p=1.0),
    ExpandConfig(p=1.0, ratio=(1.0, 3.0), fill=(0, 0, 0)),
    MinIoUCropConfig(),
    MinIoUCropConfig(keep="visible", min_visible=0.2),
    AffineConfig(rotate=0, shear=0, scale=(0.5, 2.0), translate=0.3, fill=(0, 0, 0)),
    AffineConfig(rotate=40, shear=10, fill=(0, 0, 0), min_visible=0),
    MosaicConfig(size=(120, 100), fill=(0, 0, 0)),
    MixupConfig(p=1.0),
    CopyPasteConfig(p=1.0),
]

MIXING = (MosaicConfig, MixupConfig, CopyPasteConfig)
"""Transforms that combine images: a label may occur several times, so a colour's bounds can cover several boxes."""

COLOUR: list[TransformConfig] = [PhotometricConfig(), HSVJitterConfig()]


def crop_by(least: float, **options: object) -> Transform:
    """Return a min-IoU crop by one sampler alone: the crop overlaps an object by ``least``."""
    config = MinIoUCropConfig(**options)  # type: ignore[arg-type]

    def apply(sample: Sample, generator: Generator) -> Sample:
        window = find_window(sample, config, least, generator)
        return sample if window is None else cut_to(sample, config, window)

    return apply


class Others:
    """The other images of a mosaic: one object of label 3, or none."""

    def __len__(self) -> int:
        return 2

    def __call__(self, index: int, /) -> Sample:
        return painted([[20, 10, 70, 40]], labels=[3]) if index else painted([])


def named(config: TransformConfig) -> str:
    return config.kind
