"""Things of no class: clutter that a detector must learn to ignore.

Half of them resemble a class but lack its defining part: a disc without teeth, a fish without a tail, a cup without a
handle, a cap without a stem.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from boxwright.data.scenes.outlines import Part, arc, box, ellipse, mirror, polygon, smooth, stroke


def blob(rng: Generator) -> list[Part]:
    """A pebble or a stain: an irregular closed curve."""
    n = int(rng.integers(5, 9))
    angle = np.sort(np.arange(n) * 2 * np.pi / n + rng.uniform(-0.2, 0.2, n))
    radius = rng.uniform(0.6, 1.0, n)
    rim = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return [Part(smooth(rim), "body"), Part(smooth(rim * 0.5 + rng.uniform(-0.1, 0.1, 2)), "light")]


def writing(rng: Generator) -> list[Part]:
    """A line or two of strokes that look like letters."""
    parts = []
    for row in range(int(rng.integers(1, 3))):
        x = -1.0
        while x < 1.0:
            w = rng.uniform(0.1, 0.22)
            pen = np.stack([x + w * rng.random(4), row * 0.5 + 0.34 * rng.random(4)], 1)
            parts.append(Part(stroke(pen, 0.06), "dark"))
            x += w + rng.uniform(0.04, 0.14)
    return parts


def hook(rng: Generator) -> list[Part]:
    """A bent rod: an open arc with a straight end."""
    sweep = rng.uniform(0.9, 1.5) * np.pi
    rod = np.concatenate([polygon((0.55, -1.0), (0.55, -0.4)), arc(0, 0, 0.55, 0.55, 0, sweep, 20)])
    return [Part(stroke(rod, rng.uniform(0.14, 0.24)), "body")]


def disc(rng: Generator) -> list[Part]:
    """A washer: a gear without teeth."""
    parts = [Part(ellipse(0, 0, 1.0), "body"), Part(ellipse(0, 0, 0.72), "trim")]
    return [*parts, Part(ellipse(0, 0, rng.uniform(0.2, 0.55)), "cut")]


def rod(rng: Generator) -> list[Part]:
    """A bar with banded ends: a key without bow and bits."""
    half = rng.uniform(0.06, 0.14)
    return [Part(box(-1, -half, 1, half), "body"), Part(box(-0.9, -half, -0.7, half), "trim")]


def lens(rng: Generator) -> list[Part]:
    """A plain spindle: a leaf without veins, a fish without a tail."""
    depth = rng.uniform(0.3, 0.5)
    upper, lower = arc(0, 0, 1.0, depth, np.pi, 2 * np.pi, 20), arc(0, 0, 1.0, depth, 0, np.pi, 20)
    return [Part(np.concatenate([upper, lower]), "body"), Part(ellipse(0, 0, 0.5, depth * 0.4), "trim")]


def tumbler(rng: Generator) -> list[Part]:
    """A tapered block with a band: a mug without handle and mouth."""
    top, foot = 0.6, rng.uniform(0.35, 0.5)
    side = polygon((top, -0.8), (foot, 0.8))
    return [Part(mirror(side), "body"), Part(box(-foot, 0.1, foot, 0.35), "trim")]


def dome(rng: Generator) -> list[Part]:
    """Half a disc: a cap or a canopy with nothing under it."""
    rise = rng.uniform(0.6, 1.0)
    return [Part(arc(0, 0.3, 1.0, rise, np.pi, 2 * np.pi, 24), "body"), Part(box(-0.9, 0.18, 0.9, 0.3), "trim")]


def plate(rng: Generator) -> list[Part]:
    """A triangle to hexagon with a smaller one on it: a star without arms."""
    n = int(rng.integers(3, 7))
    angle = np.arange(n) * 2 * np.pi / n
    rim = np.stack([np.cos(angle), np.sin(angle)], 1)
    return [Part(rim, "body"), Part(rim * 0.6, "trim" if rng.random() < 0.5 else "light")]


def cross(rng: Generator) -> list[Part]:
    """Two crossed bars: scissors without rings."""
    half, tilt = rng.uniform(0.09, 0.18), rng.uniform(0.3, 0.8)
    bars = [stroke([(-np.cos(a), -np.sin(a)), (np.cos(a), np.sin(a))], 2 * half) for a in (tilt, -tilt)]
    return [Part(bars[0], "body"), Part(bars[1], "trim"), Part(ellipse(0, 0, half * 0.5, n=12), "dark")]


DISTRACTORS: tuple[Callable[[Generator], list[Part]], ...] = (
    blob,
    blob,
    writing,
    writing,
    hook,
    disc,
    rod,
    lens,
    tumbler,
    dome,
    plate,
    cross,
)
"""Functions that draw clutter. One that is listed twice is drawn twice as often."""
