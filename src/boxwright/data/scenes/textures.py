"""Backgrounds: ten procedural families, each ``(rng, height, width) -> float32 [H, W, 3]`` in 0..1, before lighting.

All lengths scale with the shorter side, so a larger scene shows the same textures in more detail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from boxwright.data.scenes.outlines import box, ellipse, smooth, stroke, turned

FloatImage = NDArray[np.floating[Any]]
"""A map [H, W] or colours [H, W, 3], in 0..1."""


def random_colour(rng: Generator, dull: float = 1.0, hue: float | None = None) -> FloatImage:
    """Draw an RGB colour in 0..1: any colour, or a saturated one near ``hue`` in 0..6.

    ``dull`` below 1 lowers the saturation.
    """
    value = rng.uniform(0.3 if hue is None else 0.45, 0.95)
    saturation = rng.uniform(0.05 if hue is None else 0.45, 0.9) * dull
    hue = rng.random() * 6 if hue is None else (hue + rng.normal(0, 0.2)) % 6
    wave = np.clip([abs(hue - 3) - 1, 2 - abs(hue - 2), 2 - abs(hue - 4)], 0, 1)  # the pure hue
    return (value * (1 - saturation * (1 - wave))).astype(np.float32)


def noise(rng: Generator, height: int, width: int, cells: float, octaves: int = 4, fade: float = 0.5) -> FloatImage:
    """Draw value noise in 0..1, with ``cells`` bumps along the shorter side.

    Each octave is twice as fine and ``fade`` times as strong as the one before.
    """
    total = np.zeros((height, width), np.float32)
    weight, short = 1.0, min(height, width)
    for _ in range(octaves):
        rows, columns = max(2, round(cells * height / short)), max(2, round(cells * width / short))
        if max(rows, columns) > max(height, width):
            break
        grid = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
        total += weight * np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
        weight, cells = weight * fade, cells * 2
    low, high = total.min(), total.max()
    return (total - low) / max(float(high - low), 1e-6)


def ramp(level: FloatImage, *colours: FloatImage) -> FloatImage:
    """Colour a map in 0..1 by interpolating between evenly spaced colours."""
    at = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(level, at, [c[k] for c in colours]) for k in range(3)], axis=-1).astype(np.float32)


def turned_grid(rng: Generator, height: int, width: int, right: bool = False) -> tuple[FloatImage, FloatImage]:
    """Return coordinates u, v in units of the shorter side, rotated by a random angle.

    With ``right`` the angle is close to a multiple of 90 degrees.
    """
    angle = rng.normal(0, 0.12) + (rng.integers(2) * np.pi / 2) if right else rng.uniform(0, np.pi)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / min(height, width)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * x + s * y + rng.uniform(3, 4), c * y - s * x + rng.uniform(3, 4)


def clouds(rng: Generator, height: int, width: int) -> FloatImage:
    """Soil, plaster or sky: fractal noise through a ramp of colours."""
    level = noise(rng, height, width, rng.uniform(2, 6), 6, rng.uniform(0.45, 0.75))
    return ramp(level, *(random_colour(rng, 0.6) for _ in range(int(rng.integers(2, 5)))))


def wood(rng: Generator, height: int, width: int) -> FloatImage:
    """Planks with growth rings along the grain."""
    u, v = turned_grid(rng, height, width)
    planks = v * rng.uniform(2, 5)
    plank = np.floor(planks).astype(int)
    shift = rng.uniform(0, 9, 64)[plank % 64].astype(np.float32)
    warp = noise(rng, height, width, 3, 3)
    rings = np.sin((v * rng.uniform(25, 60) + 6 * warp + shift + np.sin(u * 3 + shift)) * 2)
    level = 0.5 + 0.3 * rings + 0.4 * (noise(rng, height, width, 30, 2) - 0.5)
    level += rng.uniform(-0.2, 0.2, 64)[plank % 64]
    seam = np.abs(planks - plank - 0.5) > 0.485
    base = random_colour(rng, 0.6)
    return ramp(np.clip(level, 0, 1), base * 0.6, np.minimum(base * 1.15, 1)) * np.where(seam, 0.45, 1.0)[..., None]


def bricks(rng: Generator, height: int, width: int) -> FloatImage:
    """Bricks or tiles in mortar, each with its own shade."""
    u, v = turned_grid(rng, height, width, right=True)
    long, row = rng.uniform(3, 7), rng.uniform(5, 12)
    rows = v * row
    line = np.floor(rows).astype(int)
    columns = u * long + (line % 2) * (0.5 if rng.random() < 0.7 else 0.0)
    cell = np.floor(columns).astype(int)
    shade = rng.uniform(0.7, 1.2, 997)[(line * 37 + cell) % 997]
    joint = rng.uniform(0.03, 0.09)
    mortar = (np.abs(columns - cell - 0.5) > 0.5 - joint * long / row) | (np.abs(rows - line - 0.5) > 0.5 - joint)
    shade *= 0.8 + 0.4 * noise(rng, height, width, 20, 3)
    face, bed = random_colour(rng, 0.6), random_colour(rng, 0.2)
    return np.where(
        mortar[..., None], bed * (0.8 + 0.3 * noise(rng, height, width, 40, 1))[..., None], face * shade[..., None]
    )


def fabric(rng: Generator, height: int, width: int) -> FloatImage:
    """Woven cloth with checks or stripes and soft folds."""
    u, v = turned_grid(rng, height, width)
    first, second, third = (random_colour(rng, 0.8) for _ in range(3))
    count = rng.uniform(2, 9)
    across = (np.sin(u * count * 6.28) > rng.uniform(-0.4, 0.6)).astype(np.float32)
    along = (np.sin(v * count * 6.28) > rng.uniform(-0.4, 0.6)).astype(np.float32) * (rng.random() < 0.6)
    cloth = first + (second - first) * (0.6 * across)[..., None] + (third - first) * (0.4 * along)[..., None]
    threads = min(height, width) / rng.uniform(2.5, 5)
    weave = 1 + 0.12 * np.sin(u * threads * 6.28) * np.sin(v * threads * 6.28)
    return cloth * (weave * (0.7 + 0.5 * noise(rng, height, width, 3, 3)))[..., None]


def backdrop(rng: Generator, height: int, width: int) -> FloatImage:
    """Studio backdrop: a gradient with out-of-focus lights."""
    u, v = turned_grid(rng, height, width)
    level = (u - u.min()) / float(np.ptp(u))
    sheet = ramp(level, random_colour(rng, 0.7), random_colour(rng, 0.7))
    for _ in range(int(rng.integers(0, 7))):
        reach = rng.uniform(0.03, 0.15)
        far = np.hypot(u - rng.uniform(u.min(), u.max()), v - rng.uniform(v.min(), v.max()))
        spot = np.clip((reach - far) / (0.25 * reach) + 0.5, 0, 1) * rng.uniform(0.15, 0.5)
        sheet = sheet + (random_colour(rng) - sheet) * spot[..., None]
    return sheet * (0.93 + 0.14 * noise(rng, height, width, 60, 2))[..., None]


Outline = Callable[[float], np.ndarray]


def _scatter(rng: Generator, ground: FloatImage, count: int, draw: Outline, sizes: tuple[float, float]) -> FloatImage:
    """Scatter polygons over a ground, the lower ones darker.

    ``draw(size in pixels)`` returns one polygon around the origin.
    """
    height, width = ground.shape[:2]
    sheet = Image.fromarray((np.clip(ground, 0, 1) * 255).astype(np.uint8)).resize((width * 2, height * 2))
    pen = ImageDraw.Draw(sheet)
    palette = [random_colour(rng, 0.6) for _ in range(3)]
    for i in range(count):
        shape = draw(2 * min(height, width) * rng.uniform(*sizes))
        shape = turned(shape, rng.uniform(0, 6.28)) + rng.random(2) * (2 * width, 2 * height)
        depth = 0.45 + 0.55 * i / count
        colour = palette[int(rng.integers(3))] * (depth * rng.uniform(0.75, 1.25) * 255)
        pen.polygon(shape.ravel().tolist(), fill=tuple(int(c) for c in np.clip(colour, 0, 255)))
    return np.asarray(sheet.reduce(2), np.float32) / 255


def grass(rng: Generator, height: int, width: int) -> FloatImage:
    """Overlapping blades, needles and twigs."""

    def blade(size: float) -> np.ndarray:
        x = np.linspace(-1, 1, 6)
        return stroke(np.stack([size * x, size * rng.uniform(-0.4, 0.4) * x**2], 1), size * np.linspace(0.16, 0.02, 6))

    return _scatter(rng, clouds(rng, height, width) * 0.4, 260, blade, (0.05, 0.16))


def pebbles(rng: Generator, height: int, width: int) -> FloatImage:
    """Gravel of round stones."""

    def stone(size: float) -> np.ndarray:
        angle = np.arange(6) * np.pi / 3
        radius = size * rng.uniform(0.7, 1.1, 6)
        return smooth(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), 4)

    field = _scatter(rng, clouds(rng, height, width) * 0.4, 260, stone, (0.015, 0.055))
    return field * (0.75 + 0.5 * noise(rng, height, width, 40, 2))[..., None]


def terrazzo(rng: Generator, height: int, width: int) -> FloatImage:
    """Angular chips in a pale binder."""

    def chip(size: float) -> np.ndarray:
        angle = np.sort(rng.uniform(0, 6.28, 5))
        return np.stack([size * np.cos(angle), size * np.sin(angle)], 1)

    return _scatter(
        rng,
        ramp(noise(rng, height, width, 8), random_colour(rng, 0.3), random_colour(rng, 0.3)),
        170,
        chip,
        (0.006, 0.035),
    )


def papers(rng: Generator, height: int, width: int) -> FloatImage:
    """Desk with overlapping sheets, cards and round mats."""

    def sheet(size: float) -> np.ndarray:
        if rng.random() < 0.2:
            return ellipse(0, 0, size * 0.6)
        return box(-size, -size * rng.uniform(0.3, 0.8), size, size * 0.6)

    desk = wood(rng, height, width) if rng.random() < 0.5 else clouds(rng, height, width)
    return _scatter(rng, desk, int(rng.integers(5, 14)), sheet, (0.1, 0.35))


def water(rng: Generator, height: int, width: int) -> FloatImage:
    """Ripples of water or sand: waves distorted by noise."""
    u, v = turned_grid(rng, height, width)
    bend = noise(rng, height, width, rng.uniform(2, 5), 3)
    wave = np.sin((v + 0.25 * bend + 0.03 * np.sin(u * 9)) * rng.uniform(40, 110))
    level = np.clip(0.45 + 0.25 * wave + 0.5 * (noise(rng, height, width, 4, 4) - 0.5), 0, 1)
    return ramp(level, *(random_colour(rng, 0.6) for _ in range(3)))


TEXTURES: tuple[Callable[[Generator, int, int], FloatImage], ...] = (
    clouds,
    wood,
    bricks,
    fabric,
    backdrop,
    grass,
    pebbles,
    terrazzo,
    papers,
    water,
)
"""The families of textures, drawn with equal probability."""


def background(rng: Generator, height: int, width: int) -> FloatImage:
    """Draw a background of one family; in a third of the images two families meet at a soft or sharp edge."""
    ground = TEXTURES[int(rng.integers(len(TEXTURES)))](rng, height, width)
    if rng.random() < 0.33:
        other = TEXTURES[int(rng.integers(len(TEXTURES)))](rng, height, width)
        u, _ = turned_grid(rng, height, width)
        edge = np.quantile(u, rng.uniform(0.25, 0.75)) + 0.05 * noise(rng, height, width, 4, 2)
        mix = np.clip((u - edge) * (150 if rng.random() < 0.7 else 6), 0, 1)[..., None]
        ground = ground * (1 - mix) + other * mix
    return np.clip(ground, 0, 1).astype(np.float32)
