"""Draw one thing: map its parts by a random projection, fill them with colours, shade and blur them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from boxwright.data.scenes.outlines import Part, Points
from boxwright.data.scenes.textures import FloatImage, noise, random_colour


@dataclass(frozen=True, slots=True)
class Light:
    """Light source of a scene: ``x, y`` is the unit vector towards it, ``shadow`` the strength of shadows in 0..1."""

    x: float
    y: float
    shadow: float
    softness: float
    """Blur of the edge of the shadow, as a fraction of the thing's size."""
    reach: float
    """Length of the shadow as a fraction of the thing's size."""


@dataclass(frozen=True, slots=True)
class Cutout:
    """A drawn thing on its own small canvas of ``[h, w]`` pixels."""

    colour: FloatImage
    """[h, w, 3] in 0..1, not multiplied by ``alpha``."""
    alpha: FloatImage
    """[h, w] opacity in 0..1, after blur."""
    solid: NDArray[np.bool_]
    """[h, w] the thing's own pixels before blur, which make its mask."""
    size: float
    """Longer side of the thing in pixels."""


def projected(parts: list[Part], size: float, rng: Generator, upright: float = 0.0) -> list[Part]:
    """Rotate, mirror, stretch and shear the parts at random, with a slight perspective.

    A fraction ``upright`` of things is rotated by at most 40 degrees, the others by any angle. The resulting outline
    starts at 0, 0 and its longer side is ``size`` pixels.
    """
    turn = 0.7 if rng.random() < upright else np.pi
    angle, stretch = rng.uniform(-turn, turn), np.exp(rng.normal(0, 0.1))
    c, s = np.cos(angle), np.sin(angle)
    local = np.diag([stretch * (1 if rng.random() < 0.5 else -1), 1 / stretch])
    linear = np.array([[c, -s], [s, c]]) @ np.array([[1, rng.uniform(-0.16, 0.16)], [0, 1]]) @ local
    tilt = rng.uniform(-0.14, 0.14, 2)

    def place(points: Points) -> Points:
        flat = points @ linear.T
        return flat / (1 + flat @ tilt)[:, None]

    moved = [Part(place(part.points), part.tone) for part in parts]
    outline = np.concatenate([part.points for part in moved if part.tone != "cut"])
    low, high = outline.min(0), outline.max(0)
    scale = size / max(high - low)
    return [Part((part.points - low) * scale, part.tone) for part in moved]


def palette(rng: Generator, avoid: FloatImage, hue: float | None = None) -> dict[str, FloatImage]:
    """Draw the colours of one instance: body, trim, a darker and a lighter shade of the body.

    The body is near ``hue``, or has any colour if that is None. It is drawn again, up to three times, if it is too
    close to ``avoid``, the colour behind it.
    """
    body = random_colour(rng, hue=hue)
    for _ in range(3):
        if np.abs(body - avoid).max() > 0.3:
            break
        body = random_colour(rng, hue=hue)
    trim = random_colour(rng)
    for _ in range(3):
        if np.abs(trim - body).max() > 0.3:
            break
        trim = random_colour(rng)
    light = body + (rng.uniform(0.45, 0.8)) * (1 - body)
    return {"body": body, "trim": trim, "dark": body * rng.uniform(0.2, 0.45), "light": light.astype(np.float32)}


def draw_thing(parts: list[Part], size: float, colours: dict[str, FloatImage], light: Light, rng: Generator) -> Cutout:
    """Draw a thing of ``size`` pixels from its `projected` parts, in focus and shaded by the light of the scene."""
    corner = np.concatenate([part.points for part in parts if part.tone != "cut"]).max(0)
    margin = 2
    width, height = (int(np.ceil(v)) + 2 * margin for v in corner)
    fine = 4 if size < 64 else 2  # small things have thinner parts and need more samples per pixel
    cover = Image.new("L", (width * fine, height * fine), 0)
    paint = Image.new("RGB", cover.size, _rgb(colours["body"]))
    cover_pen, paint_pen = ImageDraw.Draw(cover), ImageDraw.Draw(paint)
    for part in parts:
        points = ((part.points + margin) * fine).ravel().tolist()
        cover_pen.polygon(points, fill=0 if part.tone == "cut" else 255)
        if part.tone != "cut":
            paint_pen.polygon(points, fill=_rgb(colours[part.tone]))
    cover, paint = cover.reduce(fine), paint.reduce(fine)
    alpha = np.asarray(cover, np.float32) / 255
    colour = np.asarray(paint, np.float32) / 255
    colour = colour * _material(rng, height, width)[..., None] * _relief(cover, size, light, rng)[..., None]
    # Thin parts of small things never cover half a pixel. A lower threshold keeps them in the mask.
    return Cutout(np.clip(colour, 0, 1), alpha, alpha >= (0.5 if size > 32 else 0.35), size)


def _rgb(colour: FloatImage) -> tuple[int, int, int]:
    red, green, blue = (np.clip(colour, 0, 1) * 255).astype(int).tolist()
    return red, green, blue


def _material(rng: Generator, height: int, width: int) -> FloatImage:
    """Draw the brightness of a surface: mottled, sometimes striped."""
    surface = 1 + rng.uniform(0.05, 0.25) * (noise(rng, height, width, rng.uniform(3, 8), 3, 0.7) - 0.5)
    if rng.random() < 0.1:
        y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(height, width)
        angle = rng.uniform(0, np.pi)
        surface *= 1 + 0.18 * np.sign(np.sin((x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(20, 60)))
    return surface.astype(np.float32)


def _relief(cover: Image.Image, size: float, light: Light, rng: Generator) -> FloatImage:
    """Compute the brightness of a rounded rim under the light, with a gradient over the whole thing."""
    rim = max(0.06 * size, 0.7)
    height = np.asarray(cover.filter(ImageFilter.GaussianBlur(rim)), np.float32) / 255
    down, right = np.gradient(height, axis=0), np.gradient(height, axis=1)
    facing = -(right * light.x + down * light.y) * rim
    rows, columns = facing.shape
    y = np.linspace(-0.5, 0.5, rows, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, columns, dtype=np.float32)
    slope = rng.uniform(0.1, 0.35) * (x * light.x + y * light.y)
    gloss = rng.uniform(0.8, 2.2) * facing
    return 1 + np.clip(gloss, -0.55, 0.6) + slope


def blurred(thing: Cutout, rng: Generator) -> Cutout:
    """Blur the thing as if it were out of focus, or moved during the exposure."""
    moving = rng.random() < 0.5
    reach = thing.size * rng.uniform(0.012, 0.028) if not moving else thing.size * rng.uniform(0.025, 0.06)
    reach = min(max(reach, 0.5), 5.0 if not moving else 10.0)
    pad = int(np.ceil(2 * reach)) + 1
    solid = np.pad(thing.solid, pad)
    alpha = np.pad(thing.alpha, pad)
    weighted = np.concatenate(
        [np.pad(thing.colour, ((pad, pad), (pad, pad), (0, 0))) * alpha[..., None], alpha[..., None]], 2
    )
    if moving:
        angle = rng.uniform(0, np.pi)
        steps = np.linspace(-reach, reach, 2 * int(np.ceil(reach)) + 1)
        shifts = [(round(float(s * np.sin(angle))), round(float(s * np.cos(angle)))) for s in steps]
        weighted = sum((np.roll(weighted, shift, (0, 1)) for shift in shifts), np.zeros_like(weighted)) / len(shifts)
    else:
        layers = Image.fromarray((weighted * 255 + 0.5).astype(np.uint8), "RGBA")
        weighted = np.asarray(layers.filter(ImageFilter.GaussianBlur(reach)), np.float32) / 255
    alpha = weighted[..., 3]
    colour = weighted[..., :3] / np.maximum(alpha, 1e-3)[..., None]
    return replace(thing, colour=np.clip(colour, 0, 1), alpha=alpha, solid=solid)


def shadow_of(thing: Cutout, light: Light) -> tuple[FloatImage, int, int]:
    """Return the shadow, [h, w] in 0..1, and the offset of its corner from the thing's: pixels down and right."""
    soft = max(light.softness * thing.size, 0.6)
    pad = int(np.ceil(2.5 * soft))
    alpha = np.pad(thing.alpha, pad)
    layer = Image.fromarray((alpha * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(soft))
    reach = light.reach * thing.size
    strength = np.asarray(layer, np.float32) / 255 * light.shadow
    return strength, round(-light.y * reach) - pad, round(-light.x * reach) - pad
