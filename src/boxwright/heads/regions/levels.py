"""Check of the levels that a two-stage detector without a pyramid reads."""

from __future__ import annotations

from collections.abc import Sequence

from boxwright.structures import InputError, Level


def only_level(detector: str, levels: Sequence[Level], remedy: str = "") -> Level:
    """Return the only one of a backbone's ``levels``. Raises InputError if there are more, see :func:`at_most`."""
    return at_most(1, detector, levels, remedy)[0]


def at_most(count: int, detector: str, levels: Sequence[Level], remedy: str = "") -> list[Level]:
    """Return a backbone's ``levels``.

    Raises InputError that names ``detector`` and ends with ``remedy`` if there are more than ``count``.
    """
    if len(levels) > count:
        maps, some = ("one map", "one") if count == 1 else (f"at most {count} maps", str(count))
        raise InputError(
            f"{detector} reads {maps}, but the backbone gives {', '.join(level.name for level in levels)}; set "
            f"detector.backbone.out_levels to {some} of them{remedy}"
        )
    return list(levels)
