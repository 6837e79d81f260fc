"""Whether the images that a recipe makes fit the detector that it trains, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

from boxwright.data.transforms import (
    DarknetJitterConfig,
    FlipConfig,
    HSVJitterConfig,
    LargeScaleJitterConfig,
    LetterboxConfig,
    MosaicConfig,
    PhotometricConfig,
    QuarterTurnConfig,
    TransformConfig,
    WarpConfig,
)
from boxwright.detectors.detector import Detector
from boxwright.structures import InputError
from boxwright.training.recipe import DataConfig


def check_inputs(detector: Detector, data: DataConfig) -> None:
    """InputError, with the setting and the nearest valid value, where ``detector`` cannot take what ``data`` makes."""
    for side in data.multi_scale.all_sizes if data.multi_scale is not None else ():
        detector.check_input(side, side, "a size of data.multi_scale")
    if data.fixed_size is not None:
        detector.check_input(*data.fixed_size, "data.fixed_size")
        return
    for shape in data.shapes or ():
        detector.check_input(*shape, "an entry of data.shapes")
    if data.shapes:
        return
    for name, transforms in (("data.train", data.train), ("data.eval", data.eval)):
        made = fixed_output(transforms)
        if made is not None:
            where, size = made
            height, width = (-(-side // data.pad_multiple) * data.pad_multiple for side in size)
            padded = (
                "" if (height, width) == size else f", padded to multiples of data.pad_multiple = {data.pad_multiple},"
            )
            detector.check_input(height, width, f"what {name}.{where} makes{padded}")
        elif detector.input_size is not None:
            height, width = detector.input_size
            raise InputError(
                f"{name} makes images of many sizes, but this detector takes exactly {height} x {width}; "
                f'end it with {{kind = "warp", size = [{height}, {width}]}}, or a letterbox'
            )
        elif data.pad_multiple % detector.input_multiple:
            raise InputError(
                f"data.pad_multiple = {data.pad_multiple}: this detector needs sides in multiples of "
                f"{detector.input_multiple}; set it to {detector.input_multiple}"
            )


def fixed_output(transforms: Sequence[TransformConfig]) -> tuple[int, tuple[int, int]] | None:
    """Which transform gives all images one (height, width), and which; None where sizes differ."""
    found = None
    for place, transform in enumerate(transforms):
        match transform:
            case LetterboxConfig(size=size) | WarpConfig(size=size) | LargeScaleJitterConfig(size=size):
                found = place, size
            case DarknetJitterConfig(size=size):
                found = place, size
            case MosaicConfig(size=size, p=1.0):
                found = place, size
            case FlipConfig() | PhotometricConfig() | HSVJitterConfig():
                pass
            case QuarterTurnConfig():
                found = found if found is not None and found[1][0] == found[1][1] else None
            case _:
                found = None
    return found
