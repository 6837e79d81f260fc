"""Compare masks with the boxes of their objects."""

from __future__ import annotations

from typing import NamedTuple

Corners = tuple[float, float, float, float]

_SLACK = 3.0  # pixels
_SHARE = 0.04  # of the longer side


class Disagreement(NamedTuple):
    """Difference between a mask and a box.

    ``serious``: they belong to different places. A mask within its box is not, since it may be of the visible part.
    """

    serious: bool
    text: str


def disagreement(mask: Corners, box: Corners) -> Disagreement | None:
    """Describe the difference between the bounds of a mask and a box, both x1 y1 x2 y2; None if they agree.

    Tools round, and simplify polygons: sides may differ by 3 pixels, or a twenty-fifth of the longer side of the box.
    """
    apart = max(abs(m - b) for m, b in zip(mask, box, strict=True))
    if apart <= max(_SLACK, _SHARE * max(box[2] - box[0], box[3] - box[1])):
        return None
    area = max(mask[2] - mask[0], 1e-6) * max(mask[3] - mask[1], 1e-6)
    inner = _overlap(mask, box, 0) * _overlap(mask, box, 1) / area
    numbers = " ".join(f"{v:.6g}" for v in mask)
    text = f"the mask spans {numbers}, but its box {' '.join(f'{v:.6g}' for v in box)}"
    if max(mask) <= 1 < max(box):
        text += ": fractions of the image instead of pixels?"
    elif iou((mask[1], mask[0], mask[3], mask[2]), box) > 0.8:
        text += ": x and y seem to be swapped"
    return Disagreement(inner < 0.9 and iou(mask, box) < 0.5, text)


def iou(one: Corners, other: Corners) -> float:
    """Return the intersection over union of two boxes."""
    inner = _overlap(one, other, 0) * _overlap(one, other, 1)
    areas = sum(max(0.0, b[2] - b[0]) * max(0.0, b[3] - b[1]) for b in (one, other))
    return inner / (areas - inner) if areas > inner else 0.0


def _overlap(one: Corners, other: Corners, axis: int) -> float:
    return max(0.0, min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis]))
