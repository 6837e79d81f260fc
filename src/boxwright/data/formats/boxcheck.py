"""The one rule for which boxes are usable, and what is said about the others."""

from __future__ import annotations

import math
from pathlib import Path

from boxwright.data.formats.problems import ProblemLog

_SLACK = 1.0  # pixels a box may reach over the edge unremarked: formats count from 0 or 1, and annotation tools round


def box_defect(
    log: ProblemLog,
    file: Path | str,
    place: str,
    corners: tuple[float, float, float, float],
    height: int,
    width: int,
) -> bool:
    """Whether a box, x1 y1 x2 y2 in pixels of its image, can be used; notes in ``log`` what is wrong with it.

    A box without area, with a number that is not finite, or wholly outside its image is left out. A box that reaches
    over the edge is kept as it is.
    """
    x1, y1, x2, y2 = corners
    text = f"box {x1:.6g} {y1:.6g} {x2:.6g} {y2:.6g}"
    if not all(math.isfinite(v) for v in corners):
        log.put_right("bad-box", "error", file, place, f"{text} has a number that is not finite; left out")
        return False
    if x2 <= x1 or y2 <= y1:
        log.put_right("no-area", "error", file, place, f"{text} has no area; left out")
        return False
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        log.put_right("outside", "error", file, place, f"{text} lies outside its {width}x{height} image; left out")
        return False
    if x1 < -_SLACK or y1 < -_SLACK or x2 > width + _SLACK or y2 > height + _SLACK:
        log.note("over-edge", "warning", file, place, f"{text} reaches over the edge of its {width}x{height} image")
    return True
