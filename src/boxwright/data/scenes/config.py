"""What may be turned on a drawn scene, and its limits."""

from __future__ import annotations

from dataclasses import dataclass

from boxwright.structures import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneConfig:
    """How scenes are drawn. Lengths are fractions of the picture's shorter side unless they say pixels.

    An object's size is the longer side of its box before anything hides it. Nine in ten are log-uniform over
    ``common``, the rest fill the tails from ``smallest`` pixels up to ``largest``.
    """

    size: tuple[int, int] = (256, 256)
    """Height and width of the picture in pixels."""
    objects: tuple[int, int] = (3, 8)
    """Fewest and most objects of a scene that is not empty (a crowded scene may end with fewer: see ``hidden``)."""
    empty: float = 0.06
    """Share of scenes without any object; they keep their distractors."""
    smallest: float = 8.0
    """Smallest object in pixels: no labelled box has a longer side under it."""
    common: tuple[float, float] = (0.14, 0.40)
    """Where most sizes lie (in small pictures from ``smallest`` pixels on)."""
    largest: float = 0.75
    """Largest object."""
    distractors: tuple[int, int] = (0, 4)
    """Fewest and most things of no class."""
    typical: float = 0.8
    """Share of objects painted about the hue that is typical of their class; the others, and all distractors, have any
    colour. At 0 only form tells the classes apart."""
    upright: float = 0.9
    """Share of things that stand within 40 degrees of upright; the others are turned to any angle."""
    crowded: float = 0.1
    """Chance that a thing is put near an object on purpose, so that they hide each other."""
    hidden: float = 0.7
    """Largest part of an object, in 0..1, that other things or the picture's edge may hide. Nothing is put down where
    it would hide more of an earlier object, so no object is left in a scene without its label."""
    blur: float = 0.15
    """Chance that an object is out of focus or moving, and that the whole picture is."""
    noise: tuple[float, float] = (1.0, 7.0)
    """Range of the sensor noise's standard deviation in grey levels."""
    quality: tuple[int, int] = (55, 95)
    """Range of the JPEG quality the picture went through."""

    def __post_init__(self) -> None:
        height, width = self.size
        side = min(height, width)
        self._need(side >= 32 and max(height, width) <= 4096, "size", "height and width of 32 to 4096 pixels")
        self._need(0 <= self.objects[0] <= self.objects[1] <= 64, "objects", "0 <= fewest <= most <= 64")
        self._need(0 <= self.distractors[0] <= self.distractors[1] <= 64, "distractors", "0 <= fewest <= most <= 64")
        for name in ("empty", "blur", "crowded", "upright", "typical"):
            self._need(0 <= getattr(self, name) <= 1, name, "a share of 0 to 1")
        self._need(0 <= self.hidden <= 0.9, "hidden", "a share of 0 to 0.9")
        self._need(4 <= self.smallest <= 0.25 * side, "smallest", f"4 to {0.25 * side:g} pixels, a quarter side")
        low, high = self.common
        self._need(0 < low <= high <= self.largest, "common", "0 < low <= high <= largest")
        self._need(high * side >= self.smallest, "common", f"a high end of at least {self.smallest / side:.3f}")
        self._need(self.largest <= 1, "largest", "at most 1")
        self._need(0 <= self.noise[0] <= self.noise[1] <= 64, "noise", "0 <= low <= high <= 64")
        self._need(10 <= self.quality[0] <= self.quality[1] <= 100, "quality", "10 <= low <= high <= 100")

    def _need(self, holds: bool, name: str, wanted: str) -> None:
        if not holds:
            raise InputError(f"scene setting {name} = {getattr(self, name)}: give {wanted}")
