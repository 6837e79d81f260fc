"""Trace masks to polygons, and join several polygons to one. Pure numpy."""

from __future__ import annotations

import numpy as np


def outlines(mask: np.ndarray) -> list[list[float]]:
    """Trace the outer outlines of a bool mask ``[H, W]`` along the pixels' edges, a polygon per 4-connected region.

    Polygons list the corners clockwise in image coordinates. Holes are filled.
    """
    padded = np.pad(mask.astype(bool), 1)
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # One directed step along each pixel edge between inside and outside, with the inside on its right.
    for (dy, dx), (start, end) in (
        ((-1, 0), ((0, 0), (0, 1))),  # above a top row: to the right
        ((0, 1), ((0, 1), (1, 1))),  # right of a last column: down
        ((1, 0), ((1, 1), (1, 0))),  # below a bottom row: to the left
        ((0, -1), ((1, 0), (0, 0))),  # left of a first column: up
    ):
        for y, x in np.argwhere(padded & ~np.roll(padded, (-dy, -dx), axis=(0, 1))).tolist():
            following.setdefault((y + start[0], x + start[1]), []).append((y + end[0], x + end[1]))
    polygons: list[list[float]] = []
    while following:
        corners = _walk(following)
        x, y = np.array(corners, dtype=np.float64)[:, ::-1].T - 1  # the padding
        if x @ np.roll(y, -1) - y @ np.roll(x, -1) > 0:  # outlines of holes have the other direction
            polygons.append(np.stack([x, y], axis=1).ravel().tolist())
    return polygons


def one_polygon(polygons: list[list[float]]) -> list[float] | None:
    """Join several flat polygons to one by lines without area, each to those before it."""
    usable = [np.asarray(p, dtype=np.float64).reshape(-1, 2) for p in polygons if len(p) >= 6]
    if not usable:
        return None
    joined, *others = sorted(usable, key=len, reverse=True)
    for other in others:
        distances = ((joined[:, None] - other[None]) ** 2).sum(axis=2)
        at, by = np.unravel_index(int(distances.argmin()), distances.shape)
        loop = np.concatenate([other[by:], other[: by + 1]])  # once around, from the near point back to it
        joined = np.concatenate([joined[: at + 1], loop, joined[at:]])
    return joined.ravel().tolist()


def _walk(following: dict[tuple[int, int], list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """Remove one closed outline from the steps and return it without the points on straight lines."""
    start = next(iter(following))
    path = [start]
    point, heading = start, (0, 0)
    while True:
        choices = following[point]
        # Where two regions touch at a corner, turn right, so that each keeps its own outline.
        right = (point[0] + heading[1], point[1] - heading[0])
        step = right if len(choices) > 1 and right in choices else choices[0]
        choices.remove(step)
        if not choices:
            del following[point]
        turned = (step[0] - point[0], step[1] - point[1])
        if turned == heading:
            path[-1] = step
        else:
            path.append(step)
        point, heading = step, turned
        if point == start:
            break
    return path[:-1]
