"""Settings of drawn scenes, and their limits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from boxwright.fields import PositiveShare, Share, config
from boxwright.structures import InputError

LARGEST = 0.75
"""Longer side of the largest object, as a fraction of the image's shorter side."""
UPRIGHT = 0.9
"""Probability that a thing stands within 40 degrees of upright; the others are turned to any angle."""
CROWDED = 0.1
"""Probability that a thing is put near an object on purpose, so that they occlude each other."""


@config
class SceneConfig:
    """Contents and image quality of drawn scenes.

    The size of an object is the longer side of its box without occlusion. Nine sizes in ten are log-uniform over
    ``common``; the rest fill the tails from ``smallest`` up to `LARGEST`.
    """

    size: tuple[int, int] = (256, 256)
    """Height and width of the image in pixels, 32 to 4096."""
    objects: tuple[int, int] = (3, 8)
    """Fewest and most objects of a scene that is not empty, 0 to 64. A crowded scene may end with fewer."""
    empty: Share = 0.06
    """Probability of a scene without objects; it keeps its distractors."""
    smallest: float = 8.0
    """Size of the smallest object in pixels, from 4 to a quarter of the shorter side."""
    common: tuple[PositiveShare, PositiveShare] = (0.14, 0.40)
    """Range of most sizes, as fractions of the shorter side; in small images from ``smallest`` pixels on."""
    distractors: tuple[int, int] = (0, 4)
    """Fewest and most things of no class, 0 to 64."""
    typical: Share = 0.8
    """Probability that an object has the hue of its class. The others, and all distractors, have any colour. At 0 only
    the shape tells classes apart."""
    hidden: Annotated[float, Field(ge=0, le=0.9)] = 0.7
    """Largest part of an object that other things or the image's edge may occlude, 0 to 0.9. Nothing is placed where it
    would occlude more of an earlier object, so every object in a scene has a label."""
    blur: Share = 0.15
    """Probability that an object is out of focus or moving, and that the whole image is."""
    noise: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(le=64)]] = (1.0, 7.0)
    """Range of the standard deviation of the sensor noise in grey levels, 0 to 64."""
    quality: tuple[Annotated[int, Field(ge=10)], Annotated[int, Field(le=100)]] = (55, 95)
    """Range of the JPEG quality that the image went through, 10 to 100."""

    def __post_init__(self) -> None:
        side = min(self.size)
        low, high = self.common
        self._need(side >= 32 and max(self.size) <= 4096, "size", "height and width of 32 to 4096 pixels")
        self._need(0 <= self.objects[0] <= self.objects[1] <= 64, "objects", "0 <= fewest <= most <= 64")
        self._need(0 <= self.distractors[0] <= self.distractors[1] <= 64, "distractors", "0 <= fewest <= most <= 64")
        self._need(4 <= self.smallest <= 0.25 * side, "smallest", f"4 to {0.25 * side:g} pixels, a quarter side")
        self._need(low <= high <= LARGEST, "common", f"0 < low <= high <= {LARGEST}")
        self._need(high * side >= self.smallest, "common", f"a high end of at least {self.smallest / side:.3f}")
        self._need(self.noise[0] <= self.noise[1], "noise", "two increasing numbers")
        self._need(self.quality[0] <= self.quality[1], "quality", "two increasing numbers")

    def _need(self, holds: bool, name: str, wanted: str) -> None:
        if not holds:
            raise InputError(f"{name} = {getattr(self, name)}: give {wanted}")
