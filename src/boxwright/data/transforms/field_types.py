"""Types that the configurations of several transforms share, with their ranges."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from boxwright.fields import Count, Positive, PositiveShare

Size = tuple[Count, Count]
"""Height and width in pixels."""

_Level = Annotated[int | float, Field(ge=0, le=255)]
Fill = tuple[_Level, _Level, _Level]
"""RGB colour of the pixels outside the image, 0..255 each. A fraction counts where levels are fractions."""

Levels = Literal["whole", "fractions"]
"""Grey levels of a resized image: rounded to whole numbers, or kept as fractions in four times the memory. Darknet,
torchvision, DetNet_pytorch, Detectron and py-faster-rcnn keep fractions."""

Interpolation = Literal[
    "bilinear", "aliased", "opencv", "pillow", "corners", "nearest", "bicubic", "aliased_bicubic", "area", "lanczos",
    "lanczos4",
]  # fmt: skip
"""Method of resizing.

"bilinear", "bicubic" and "lanczos" are antialiased; "pillow" is Pillow's bilinear method, whose levels are whole.
"aliased", "aliased_bicubic" and "lanczos4" are OpenCV's linear, cubic and Lanczos methods, which are not antialiased;
Caffe's detectors and DetNet_pytorch were trained with them. "opencv" is its linear method on whole levels, to the bit.
"corners" is Darknet's bilinear method: without antialiasing, the corner pixels keep their positions.
"""

MEAN = (124, 116, 104)
"""ImageNet mean colour in RGB: a neutral filling for networks that subtract it."""

CAFFE_MEAN = (123, 117, 104)
"""Mean colour in RGB that the networks trained in Caffe subtract (SSD, RefineDet)."""


def _increasing(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"({pair[0]:g}, {pair[1]:g}) should be two increasing numbers")
    return pair


Interval = Annotated[tuple[Positive, Positive], AfterValidator(_increasing)]
"""Two increasing numbers above 0 that a factor is drawn between."""

ShareInterval = Annotated[tuple[PositiveShare, PositiveShare], AfterValidator(_increasing)]
"""Two increasing numbers in (0, 1]."""
