"""Line charts as SVG text: sharp at any size, no external resource, in the colours of the page around them.

Axis and text take ``currentColor`` and the CSS variable ``--grid``, so that a chart follows a dark or light page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

Place = Callable[[float, float], tuple[float, float]]
"""From a point's x and y to where it lies in the drawing."""

WIDTH, HEIGHT = 560, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 12, 42


@dataclass(frozen=True, slots=True)
class Series:
    """One line: points with a value that is not finite interrupt it."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    width: float = 1.8
    dashed: bool = False
    markers: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis: its title and, where given, its ends; otherwise they follow the data."""

    title: str
    low: float | None = None
    high: float | None = None


def line_chart(series: Sequence[Series], x: Axis, y: Axis, label: str, marks: Sequence[float] = ()) -> str:
    """An ``<svg>`` with its legend below as HTML. ``label`` describes it to a screen reader; ``marks`` are x values
    at which a dashed upright line stands. Without any finite point it says that there is nothing to show.
    """
    points = [(a, b) for s in series for a, b in zip(s.x, s.y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if not points:
        return f'<p class="empty">{escape(label)}: nothing to show.</p>'
    x_low, x_high = _ends([a for a, _ in points], x)
    y_low, y_high = _ends([b for _, b in points], y)

    def place(a: float, b: float) -> tuple[float, float]:
        across = _LEFT + (a - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT)
        down = HEIGHT - _BOTTOM - (b - y_low) / (y_high - y_low) * (HEIGHT - _TOP - _BOTTOM)
        return round(across, 1), round(down, 1)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
        *_grid(place, (x_low, x_high), (y_low, y_high), x.title, y.title),
    ]
    for mark in marks:
        if x_low <= mark <= x_high:
            (across, top), (_, bottom) = place(mark, y_high), place(mark, y_low)
            parts.append(f'<line class="mark" x1="{across}" x2="{across}" y1="{top}" y2="{bottom}"/>')
    parts += [_line(s, place) for s in series]
    parts.append("</svg>")
    return f'<div class="chartbox">{"".join(parts)}{legend(series)}</div>'


def legend(series: Sequence[Series]) -> str:
    """The names of the lines beside strokes of their colours; nothing for a single line."""
    if len(series) < 2:
        return ""
    items = "".join(
        f'<span class="key"><i style="border-top:3px {"dashed" if s.dashed else "solid"} {s.colour}"></i>'
        f"{escape(s.name)}</span>"
        for s in series
    )
    return f'<div class="legend">{items}</div>'


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values from ``low`` to ``high``, roughly ``about`` of them."""
    span = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(span))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= span * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def smooth(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """An exponential moving average without the bias towards its first value."""
    average, total, result = 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            average = weight * average + (1 - weight) * value
            total = weight * total + (1 - weight)
        result.append(average / total if total else math.nan)
    return result


def _ends(values: Sequence[float], axis: Axis) -> tuple[float, float]:
    low = min(values) if axis.low is None else axis.low
    high = max(values) if axis.high is None else axis.high
    if high <= low:
        low, high = low - 0.5, low + 0.5
    return low, high


def _grid(
    place: Place, x_ends: tuple[float, float], y_ends: tuple[float, float], x_title: str, y_title: str
) -> list[str]:
    parts = []
    for tick in ticks(*y_ends):
        (left, down), (right, _) = place(x_ends[0], tick), place(x_ends[1], tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{down}" y2="{down}"/>')
        parts.append(f'<text class="tick" x="{left - 7}" y="{down + 4}" text-anchor="end">{tick:g}</text>')
    for tick in ticks(*x_ends, about=6):
        across, down = place(tick, y_ends[0])
        parts.append(f'<line class="grid" x1="{across}" x2="{across}" y1="{_TOP}" y2="{down}"/>')
        parts.append(f'<text class="tick" x="{across}" y="{down + 17}" text-anchor="middle">{tick:g}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>')
    height = (_TOP + HEIGHT - _BOTTOM) / 2
    turned = f'transform="translate(14 {height}) rotate(-90)"'
    parts.append(f'<text class="axis" {turned} text-anchor="middle">{escape(y_title)}</text>')
    return parts


def _line(series: Series, place: Place) -> str:
    runs: list[list[str]] = [[]]
    markers = []
    for a, b in zip(series.x, series.y, strict=True):
        if not (math.isfinite(a) and math.isfinite(b)):
            runs.append([])
            continue
        across, down = place(a, b)
        runs[-1].append(f"{across},{down}")
        if series.markers:
            markers.append(f'<circle cx="{across}" cy="{down}" r="3" fill="{series.colour}"/>')
    dash = ' stroke-dasharray="6 4"' if series.dashed else ""
    style = f'fill="none" stroke="{series.colour}" stroke-width="{series.width}" stroke-linejoin="round"{dash}'
    title = f"<title>{escape(series.name)}</title>"
    lines = "".join(f'<polyline points="{" ".join(run)}" {style}>{title}</polyline>' for run in runs if len(run) > 1)
    return lines + "".join(markers)
