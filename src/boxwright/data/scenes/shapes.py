"""The ten classes of drawn scenes, each a function that draws a random instance.

A class is determined by its shape alone (the outline and what is inside). The parts only name tones. The
renderer draws the colours of each instance, mostly near the hue of its class. Things of no class have any colour.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from boxwright.data.scenes.outlines import (
    Part,
    arc,
    box,
    ellipse,
    mirror,
    polygon,
    smooth,
    stroke,
    turned,
)
from boxwright.structures import Classes


def mug(rng: Generator) -> list[Part]:
    """A mug from slightly above: dark mouth, one round handle, a band."""
    top, foot, height = 0.55, rng.uniform(0.40, 0.55), rng.uniform(0.60, 0.80)
    lip = rng.uniform(0.12, 0.2)
    handle = arc(top * 0.9, 0.0, rng.uniform(0.36, 0.46), height * 0.55, -1.75, 1.75)
    side = np.concatenate([polygon((top, -height), (foot, height)), arc(0, height, foot, lip * 0.8, 0, np.pi / 2, 8)])
    start = rng.uniform(0.35, 0.55)
    edges = [(start, 0.0, np.pi), (start + rng.uniform(0.08, 0.25), np.pi, 0.0)]
    band = [arc(0, (2 * d - 1) * height, top + (foot - top) * d, lip * 0.8, a, b, 12) for d, a, b in edges]
    return [
        Part(stroke(handle, rng.uniform(0.13, 0.18)), "body"),
        Part(mirror(side), "body"),
        Part(np.concatenate(band), "trim"),
        Part(ellipse(0, -height, top, lip), "light"),
        Part(ellipse(0, -height + 0.01, top * 0.87, lip * 0.72), "dark"),
    ]


def key(rng: Generator) -> list[Part]:
    """A door key: ring-shaped bow, straight shaft, two to four bits on one side of the tip."""
    radius, shaft = rng.uniform(0.36, 0.46), rng.uniform(0.075, 0.11)
    centre = -1 + radius
    bow = ellipse(centre, 0, radius, radius * rng.uniform(0.85, 1.15))
    parts = [Part(box(centre, -shaft, 1.0, shaft), "body"), Part(bow, "body")]
    bits = int(rng.integers(2, 5))
    pitch = rng.uniform(0.17, 0.21)
    for i in range(bits):
        x = 1.0 - i * pitch
        parts.append(Part(box(x - pitch * 0.62, 0, x, shaft + rng.uniform(0.16, 0.34)), "body"))
    collar = centre + radius + 0.05
    parts.append(Part(box(collar, -shaft * 1.7, collar + 0.09, shaft * 1.7), "trim"))
    parts.append(Part(ellipse(centre, 0, radius * 0.72), "trim"))
    parts.append(Part(ellipse(centre, 0, radius * rng.uniform(0.48, 0.58)), "cut"))
    return parts


def leaf(rng: Generator) -> list[Part]:
    """A leaf: pointed blade with a toothed or lobed rim, midrib, paired veins and a stalk."""
    width, bend, teeth = rng.uniform(0.42, 0.6), rng.uniform(-0.2, 0.2), int(rng.integers(5, 9))
    t = np.linspace(0, 1, 61)
    rim = width * np.sin(np.pi * t ** rng.uniform(0.65, 0.95)) ** 0.85
    rim *= 1 - rng.uniform(0.08, 0.24) * (1 - (t * teeth) % 1.0) * (t < 0.96)
    y = 0.62 - 1.62 * t
    spine = bend * (t - 0.3) ** 2
    blade = np.concatenate([np.stack([spine + rim, y], 1), np.stack([spine - rim, y], 1)[::-1]])
    stalk = stroke(np.stack([bend * np.linspace(0.4, 0.1, 6), np.linspace(1.0, 0.55, 6)], 1), 0.09)
    parts = [Part(stalk, "dark"), Part(blade, "body")]
    parts.append(Part(stroke(np.stack([spine, y], 1), np.linspace(0.09, 0.02, 61)), "light"))
    for i in range(8, 50, 42 // int(rng.integers(4, 6))):
        reach = rim[i] * 0.8
        for side in (-1, 1):
            vein = [(spine[i], y[i]), (spine[i] + side * reach * 0.9, y[i] - reach * 0.62)]
            parts.append(Part(stroke(vein, 0.045), "light"))
    return parts


def gear(rng: Generator) -> list[Part]:
    """A toothed wheel with a bore, and either a raised ring or a circle of holes."""
    teeth, root = int(rng.integers(8, 13)), rng.uniform(0.72, 0.8)
    step = 2 * np.pi / teeth
    angles, radii = [], []
    for i in range(teeth):
        angles += [(i + f) * step for f in (0.0, 0.27, 0.36, 0.64, 0.73)]
        radii += [root, root, 1.0, 1.0, root]
    a, r = np.array(angles), np.array(radii)
    parts = [Part(np.stack([r * np.cos(a), r * np.sin(a)], 1), "body")]
    bore = rng.uniform(0.17, 0.26)
    if rng.random() < 0.5:
        parts += [Part(ellipse(0, 0, root * 0.8), "dark"), Part(ellipse(0, 0, root * 0.72), "trim")]
        parts.append(Part(ellipse(0, 0, bore * 1.5), "light"))
    else:
        holes = int(rng.integers(4, 7))
        for angle in np.arange(holes) * 2 * np.pi / holes:
            parts.append(Part(ellipse(0.5 * np.cos(angle), 0.5 * np.sin(angle), 0.125, n=18), "cut"))
        parts.append(Part(ellipse(0, 0, bore * 1.35), "trim"))
    parts.append(Part(ellipse(0, 0, bore), "cut"))
    return parts


def bottle(rng: Generator) -> list[Part]:
    """A bottle: cap, slim neck, shoulders, a label and a long gloss."""
    wide, neck = rng.uniform(0.30, 0.40), rng.uniform(0.10, 0.14)
    shoulder, slope = rng.uniform(-0.25, 0.05), rng.uniform(0.15, 0.35)
    bulge = (neck + (wide - neck) * 0.45, shoulder - slope * 0.45)
    side = polygon((neck, -0.85), (neck, shoulder - slope), bulge, (wide, shoulder), (wide, 0.9), (wide * 0.9, 1.0))
    label, end = shoulder + rng.uniform(0.15, 0.25), rng.uniform(0.65, 0.8)
    return [
        Part(mirror(side), "body"),
        Part(box(-wide, label, wide, end), "light"),
        Part(box(-wide, label + 0.06, wide, label + 0.14), "trim"),
        Part(ellipse(0, (label + end) / 2 + 0.05, wide * 0.42, min(wide * 0.42, (end - label) * 0.28)), "trim"),
        Part(box(-neck * 1.35, -1.0, neck * 1.35, -0.78), "trim"),
        Part(box(-wide * 0.78, shoulder + 0.02, -wide * 0.6, label), "light"),
    ]


def starfish(rng: Generator) -> list[Part]:
    """A starfish: five soft arms that bend a little, knobs along each."""
    waist, bend = rng.uniform(0.26, 0.36), rng.uniform(-0.25, 0.25)
    corners, knobs = [], []
    for i in range(5):
        middle = i * 2 * np.pi / 5 + rng.uniform(-0.12, 0.12)
        reach = rng.uniform(0.88, 1.0)
        for angle, radius in ((-0.63, waist), (-0.13, 0.72), (0.0, 1.0), (0.13, 0.72)):
            radius *= 1.0 if angle == -0.63 else reach
            where = middle + angle + bend * radius**2
            corners.append((radius * np.cos(where), radius * np.sin(where)))
        for radius in (0.28, 0.48, 0.67):
            where = middle + bend * radius**2
            knobs.append(ellipse(radius * np.cos(where), radius * np.sin(where), 0.085 - 0.05 * radius, n=12))
    parts = [Part(smooth(corners, 5), "body")]
    parts += [Part(knob, "light") for knob in knobs]
    parts.append(Part(ellipse(0, 0, 0.12, n=16), "trim"))
    return parts


def umbrella(rng: Generator) -> list[Part]:
    """An open umbrella from the side: scalloped canopy in panels, thin shaft, hooked handle."""
    panels, rise = int(rng.integers(4, 6)), rng.uniform(0.70, 0.9)
    hem, shaft = rng.uniform(-0.1, 0.02), rng.uniform(0.07, 0.1)
    hook = rng.uniform(0.13, 0.17)
    handle = np.concatenate([polygon((0, -0.3), (0, 0.4), (0, 0.78)), arc(hook, 0.8, hook, hook, np.pi, 0.0, 12)])
    parts = [
        Part(stroke(handle, shaft), "dark"),
        Part(stroke([(0, hem - rise - 0.14), (0, hem - rise + 0.1)], 0.07), "dark"),
    ]
    edges = np.cos(np.linspace(np.pi, 0, panels + 1))
    for i in range(panels):
        left, right = edges[i], edges[i + 1]
        t = np.linspace(0, np.pi / 2, 10)
        rib_out = np.stack([left * np.sin(t), hem - rise * np.cos(t)], 1)
        rib_back = np.stack([right * np.sin(t), hem - rise * np.cos(t)], 1)[::-1]
        across = np.linspace(0, 1, 9)[1:-1]
        scallop = np.stack([left + (right - left) * across, hem - 0.14 * np.sin(np.pi * across)], 1)
        parts.append(Part(np.concatenate([rib_out, scallop, rib_back]), "body" if i % 2 else "trim"))
        parts.append(Part(stroke(rib_out, 0.03), "dark"))
    return parts


def scissors(rng: Generator) -> list[Part]:
    """Open scissors: two crossed blades on a rivet, two ring handles."""
    spread, ring = rng.uniform(0.2, 0.42), rng.uniform(0.25, 0.31)
    blades: list[Part] = []
    rings: list[Part] = []
    cuts: list[Part] = []
    for side in (-1, 1):
        angle = side * spread
        blade = polygon((-0.11, 0.1), (-0.1, -0.5), (side * 0.03, -1.08), (0.1, -0.5), (0.11, 0.1))
        shank = stroke([(0, 0), (-side * 0.03, 0.3), (-side * 0.02, 0.55)], 0.15)
        centre = (side * -0.04, 0.72)
        blades.append(Part(turned(blade, angle), "light" if side < 0 else "body"))
        rings.append(Part(turned(shank, angle), "trim"))
        rings.append(Part(turned(ellipse(*centre, ring * 0.95, ring * 1.15), angle), "trim"))
        cuts.append(Part(turned(ellipse(*centre, ring * 0.55, ring * 0.75), angle), "cut"))
    return [*blades, *rings, *cuts, Part(ellipse(0, 0, 0.09, n=16), "dark")]


def fish(rng: Generator) -> list[Part]:
    """A fish from the side: pointed body, forked tail, fins, eye, gill and bands."""
    depth, tail = rng.uniform(0.34, 0.5), rng.uniform(0.34, 0.5)
    t = np.linspace(0, 1, 24)
    x = -1 + 1.55 * t
    rise = depth * np.sin(np.pi * t**0.75) ** 0.8 + 0.07 * t
    body = np.concatenate([np.stack([x, -rise], 1), np.stack([x, rise], 1)[::-1]])
    fork = polygon((0.42, -0.08), (1.0, -tail), (0.8, 0.0), (1.0, tail), (0.42, 0.08))
    high = rng.uniform(0.2, 0.32)
    back = polygon((-0.4, -depth * 0.8), (-0.15, -depth - high), (0.3, -depth * 0.5 - high * 0.4), (0.25, -depth * 0.4))
    belly = polygon((-0.2, depth * 0.8), (0.05, depth + 0.2), (0.2, depth * 0.5))
    parts = [Part(fork, "trim"), Part(back, "trim"), Part(belly, "trim"), Part(body, "body")]
    for i in range(11, 21, int(rng.integers(3, 5))):
        band = [(x[i], -rise[i] * 0.9), (x[i] + 0.06, 0), (x[i], rise[i] * 0.9)]
        parts.append(Part(stroke(band, 0.08), "light"))
    gill = arc(-0.72, 0, 0.26, depth * 0.75, -1.0, 1.0, 10)
    parts.append(Part(stroke(gill, 0.05), "dark"))
    parts += [
        Part(ellipse(-0.72, -depth * 0.25, 0.1, n=16), "light"),
        Part(ellipse(-0.72, -depth * 0.25, 0.055, n=12), "dark"),
    ]
    return parts


def mushroom(rng: Generator) -> list[Part]:
    """A mushroom: domed cap with spots, gills under its rim, a thick stem that swells at the foot."""
    rise, brim, stem = rng.uniform(0.75, 0.95), rng.uniform(0.14, 0.22), rng.uniform(0.2, 0.3)
    foot = rng.uniform(0.75, 0.95)
    side = np.array(
        [(stem * 0.85, -0.1), (stem, 0.3), (stem * 1.35, foot - 0.15), (stem * 1.1, foot), (0.0, foot + 0.04)]
    )
    dome = np.concatenate([arc(0, -0.05, 0.95, rise, np.pi, 2 * np.pi, 24), arc(0, -0.05, 0.95, brim, 0, np.pi, 16)])
    parts = [Part(mirror(side), "light"), Part(dome, "body"), Part(ellipse(0, 0.0, 0.8, brim * 0.75), "dark")]
    parts.append(Part(mirror(side[:3] * [0.95, 1.0]), "light"))
    ring = rng.uniform(0.22, 0.34)
    parts.append(
        Part(polygon((-stem, ring), (stem, ring), (stem * 1.6, ring + 0.14), (-stem * 1.6, ring + 0.14)), "trim")
    )
    for angle, reach in ((-2.6, 0.62), (-2.05, 0.72), (-1.5, 0.4), (-1.1, 0.74), (-0.5, 0.62)):
        spot = rng.uniform(0.07, 0.14)
        x, y = reach * np.cos(angle + rng.uniform(-0.15, 0.15)), -0.08 + rise * reach * np.sin(angle)
        parts.append(Part(ellipse(x, y, spot, spot * 0.8, n=16), "trim"))
    return parts


SHAPES: dict[str, Callable[[Generator], list[Part]]] = {
    "bottle": bottle,
    "fish": fish,
    "gear": gear,
    "key": key,
    "leaf": leaf,
    "mug": mug,
    "mushroom": mushroom,
    "scissors": scissors,
    "starfish": starfish,
    "umbrella": umbrella,
}
"""Functions that draw the classes, in label order."""

TYPICAL_HUES = {
    "mushroom": 0.0,
    "fish": 0.6,
    "key": 1.1,
    "starfish": 1.65,
    "leaf": 2.2,
    "bottle": 2.8,
    "gear": 3.4,
    "mug": 4.0,
    "scissors": 4.65,
    "umbrella": 5.3,
}
"""Hue in 0..6 (red 0, green 2, blue 4) of most instances of a class; see `SceneConfig.typical`."""

SCENE_CLASSES = Classes.from_names(tuple(SHAPES))
"""Classes of all drawn scenes."""
