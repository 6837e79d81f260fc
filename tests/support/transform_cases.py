"""Every geometric transform, and the objects it moves."""

from boxwright.data.transforms.configs import (
    DarknetJitterConfig,
    ExpandConfig,
    FlipConfig,
    LargeScaleJitterConfig,
    LetterboxConfig,
    MinIoUCropConfig,
    MosaicConfig,
    QuarterTurnConfig,
    ResizeConfig,
    Sample,
    ScaleJitterConfig,
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
    LetterboxConfig(size=(200, 200), enlarge=False),
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
    MinIoUCropConfig(whole=False),
    MinIoUCropConfig(whole=False, keep="visible", min_visible=0.2),
    MosaicConfig(size=(120, 100), fill=(0, 0, 0)),
]


class Others:
    """The other images of a mosaic: one object of label 3, or none."""

    def __len__(self) -> int:
        return 2

    def __call__(self, index: int, /) -> Sample:
        return painted([[20, 10, 70, 40]], labels=[3]) if index else painted([])


def named(config: TransformConfig) -> str:
    return config.kind
