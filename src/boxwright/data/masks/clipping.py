"""Cut polygons to their image.

A point is an x y pair of floats, an edge a pair of points.
"""

from __future__ import annotations

from itertools import pairwise

Point = tuple[float, float]
Edge = tuple[Point, Point]


def cut_polygon(polygon: list[float], height: int, width: int) -> list[list[float]]:
    """Return the parts of a flat polygon that lie in its image, those with an area.

    Sutherland and Hodgman's algorithm gives one polygon, whose parts are joined by edges along the border that are run
    through once in each direction. They have no area, but would widen the bounds, so the parts are taken apart there.
    """
    points = list(zip(polygon[0::2], polygon[1::2], strict=True))
    borders = ((0, 0.0, 1), (0, float(width), -1), (1, 0.0, 1), (1, float(height), -1))
    for axis, bound, sign in borders:
        points = _beside(points, axis, bound, sign)
    edges = [(start, end) for start, end in pairwise([*points[-1:], *points]) if start != end]
    cancelled = False
    for axis, bound, _ in borders:
        along = [edge for edge in edges if edge[0][axis] == bound == edge[1][axis]]
        if len({edge[0][1 - axis] < edge[1][1 - axis] for edge in along}) == 2:
            cancelled = True
            edges = [edge for edge in edges if edge not in along] + _net(along, 1 - axis)
    rings = _rings(edges) if cancelled else [points]
    return [[v for point in ring for v in point] for ring in rings if _has_area(ring)]


def _beside(points: list[Point], axis: int, bound: float, sign: int) -> list[Point]:
    """Return the part of a polygon on one side of a line parallel to an axis."""
    kept: list[Point] = []
    for start, end in pairwise([*points[-1:], *points]):
        inside = (sign * (start[axis] - bound) >= 0, sign * (end[axis] - bound) >= 0)
        if inside[0] != inside[1]:
            share = (bound - start[axis]) / (end[axis] - start[axis])
            crossing = [a + share * (b - a) for a, b in zip(start, end, strict=True)]
            crossing[axis] = bound
            kept.append((crossing[0], crossing[1]))
        if inside[1]:
            kept.append(end)
    return kept


def _net(edges: list[Edge], axis: int) -> list[Edge]:
    """Return what is left of edges along one line, parallel to ``axis``, after opposite ones cancel."""
    stops = sorted({point for edge in edges for point in edge}, key=lambda point: point[axis])
    left: list[Edge] = []
    for low, high in pairwise(stops):
        forward = sum(start[axis] <= low[axis] and end[axis] >= high[axis] for start, end in edges)
        back = sum(end[axis] <= low[axis] and start[axis] >= high[axis] for start, end in edges)
        left += [(low, high)] * (forward - back) + [(high, low)] * (back - forward)
    return left


def _rings(edges: list[Edge]) -> list[list[Point]]:
    """Link edges, of which as many end in each point as begin there, to closed polygons."""
    following: dict[Point, list[Point]] = {}
    for start, end in edges:
        following.setdefault(start, []).append(end)
    rings: list[list[Point]] = []
    for first, ends in following.items():
        while ends:
            ring = [first]
            while (point := following[ring[-1]].pop()) != first:
                ring.append(point)
            rings.append(ring)
    return rings


def _has_area(ring: list[Point]) -> bool:
    return len(ring) >= 3 and all(max(p[axis] for p in ring) > min(p[axis] for p in ring) for axis in (0, 1))
