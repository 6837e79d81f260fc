"""Curves that drawn things are made of, as polygons in the unit square.

Points are float64 ``[n, 2]`` (x, y), y downwards, roughly within -1..1; the renderer scales, rotates and shears them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]
Tone = Literal["body", "trim", "dark", "light", "cut"]


class Part(NamedTuple):
    """One filled polygon of a thing. ``tone`` selects its colour; "cut" is a hole through the parts before it."""

    points: Points
    tone: Tone


def ellipse(cx: float, cy: float, rx: float, ry: float | None = None, n: int = 36, turn: float = 0.0) -> Points:
    """Return an ellipse, rotated by ``turn`` radians; a circle without ``ry``."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    x, y = rx * np.cos(angle), (rx if ry is None else ry) * np.sin(angle)
    return np.stack([cx + x * np.cos(turn) - y * np.sin(turn), cy + x * np.sin(turn) + y * np.cos(turn)], axis=1)


def arc(cx: float, cy: float, rx: float, ry: float, start: float, stop: float, n: int = 20) -> Points:
    """Return an open arc from angle ``start`` to ``stop`` (radians, clockwise in the image)."""
    angle = np.linspace(start, stop, n)
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], axis=1)


def box(x1: float, y1: float, x2: float, y2: float) -> Points:
    """Return a rectangle."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=np.float64)


def polygon(*corners: tuple[float, float]) -> Points:
    """Return a polygon from its corners."""
    return np.array(corners, dtype=np.float64)


def stroke(path: ArrayLike, width: float | ArrayLike) -> Points:
    """Return the outline of a stroke along ``path`` [n, 2]; ``width`` is one number, or one per point."""
    line = np.asarray(path, dtype=np.float64)
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    half = np.broadcast_to(np.asarray(width, dtype=np.float64) / 2, len(line))[:, None]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * half
    return np.concatenate([line + across, (line - across)[::-1]])


def smooth(corners: ArrayLike, per_corner: int = 8) -> Points:
    """Return a closed Catmull-Rom curve through ``corners`` [n, 2]."""
    p1 = np.asarray(corners, dtype=np.float64)[:, None]
    p0, p2, p3 = np.roll(p1, 1, axis=0), np.roll(p1, -1, axis=0), np.roll(p1, -2, axis=0)
    t = np.linspace(0, 1, per_corner, endpoint=False)[None, :, None]
    curve = p1 + 0.5 * t * ((p2 - p0) + t * ((2 * p0 - 5 * p1 + 4 * p2 - p3) + t * (3 * (p1 - p2) + p3 - p0)))
    return curve.reshape(-1, 2)


def mirror(half: Points) -> Points:
    """Close a profile by its mirror image in the y axis; ``half`` is the right side, from top to bottom."""
    return np.concatenate([half, (half * [-1.0, 1.0])[::-1]])


def turned(points: Points, angle: float, about: tuple[float, float] = (0.0, 0.0)) -> Points:
    """Rotate points by ``angle`` radians about a centre."""
    c, s = np.cos(angle), np.sin(angle)
    return (points - about) @ np.array([[c, s], [-s, c]]) + about
