"""Draw a whole scene: background, objects from far to near, lighting, lens blur, sensor noise and JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from boxwright.data.scenes.config import CROWDED, LARGEST, UPRIGHT, SceneConfig
from boxwright.data.scenes.distractors import DISTRACTORS
from boxwright.data.scenes.render import Cutout, Light, blurred, draw_thing, palette, projected, shadow_of
from boxwright.data.scenes.shapes import SCENE_CLASSES, SHAPES, TYPICAL_HUES
from boxwright.data.scenes.textures import FloatImage, background, noise
from boxwright.structures import InputError

DIFFICULT_VISIBLE = 0.4
"""An object is difficult if a smaller fraction of its pixels is visible."""
DIFFICULT_SIDE = 12
"""An object is also difficult if the longer side of its visible box has fewer pixels."""
_NOBODY = -1
_TRIES = 16


class Scene(NamedTuple):
    """A drawn image and its objects; n objects, from the farthest to the nearest.

    Boxes are the tight bounds of the visible pixels. An object is difficult when less than 40% of it is visible or the
    longer side of its visible box is under 12 pixels. Every object in the image is labelled. A thing is only placed
    where each object keeps at least ``1 - hidden`` of its pixels (30% by default) and a box with a longer side of at
    least ``smallest`` pixels.
    """

    image: NDArray[np.uint8]
    """[H, W, 3] RGB."""
    boxes: NDArray[np.float32]
    """[n, 4] x1 y1 x2 y2, exclusive."""
    labels: NDArray[np.int64]
    """[n], indexes into SCENE_CLASSES."""
    masks: NDArray[np.bool_]
    """[n, H, W], the visible pixels. No pixel belongs to two objects."""
    difficult: NDArray[np.bool_]
    """[n]."""
    visible: NDArray[np.float32]
    """[n], the visible fraction of each object's pixels, in 0..1."""


@dataclass
class _Canvas:
    """The image while it is drawn: the colour and the owning object of each pixel."""

    colour: FloatImage
    owner: NDArray[np.int32]
    labels: list[int]
    pixels: list[int]


def draw_scene(seed: int, index: int, size: tuple[int, int] | None = None, config: SceneConfig | None = None) -> Scene:
    """Draw scene ``index`` of the endless set ``seed``.

    The same seed and index give the same image in any process. ``size`` is (height, width) and overrides that of the
    configuration. Raises InputError for numbers below 0 and settings out of range.
    """
    if seed < 0 or index < 0:
        raise InputError(f"scene seed {seed}, index {index}: give numbers of 0 or more")
    config = config or SceneConfig()
    config = config if size is None else replace(config, size=size)
    rng = np.random.default_rng([seed, index])
    height, width = config.size
    ground = background(rng, height, width)
    canvas = _Canvas(ground, np.full((height, width), _NOBODY, np.int32), [], [])
    light = _draw_light(rng)
    for label, pixels in _cast(rng, config):
        _put_down(canvas, label, pixels, light, config, rng)
    image = _photograph(canvas.colour, light, config, rng)
    return _annotate(image, canvas)


def _draw_light(rng: Generator) -> Light:
    angle = rng.uniform(0, 2 * np.pi)
    return Light(
        x=float(np.cos(angle)),
        y=float(np.sin(angle)),
        shadow=rng.uniform(0.2, 0.6),
        softness=rng.uniform(0.02, 0.06),
        reach=rng.uniform(0.02, 0.10),
    )


def _cast(rng: Generator, config: SceneConfig) -> list[tuple[int, float]]:
    """Draw labels (-1 for a distractor) and sizes in pixels, from far to near.

    Large things are mostly behind small ones.
    """
    side = min(config.size)
    high = config.common[1] * side
    low = max(config.common[0] * side, config.smallest)
    cast: list[tuple[int, float]] = []
    objects = 0 if rng.random() < config.empty else int(rng.integers(config.objects[0], config.objects[1] + 1))
    for _ in range(objects):
        tail = rng.random()
        if tail < 0.06:
            ends = (min(config.smallest * 1.1, low), low)
        elif tail < 0.10:
            ends = (high, LARGEST * side)
        else:
            ends = (low, high)
        cast.append((int(rng.integers(len(SHAPES))), float(np.exp(rng.uniform(*np.log(ends))))))
    distractors = int(rng.integers(config.distractors[0], config.distractors[1] + 1))
    cast += [(_NOBODY, float(np.exp(rng.uniform(*np.log((low * 0.6, high * 0.8)))))) for _ in range(distractors)]
    nearness = [pixels * np.exp(rng.normal(0, 0.4)) for _, pixels in cast]
    return [cast[i] for i in np.argsort(nearness)[::-1]]


def _put_down(canvas: _Canvas, label: int, pixels: float, light: Light, config: SceneConfig, rng: Generator) -> None:
    """Draw a thing and place it where no object is occluded too much; leave it out after `_TRIES` failures."""
    behind = canvas.colour.mean(axis=(0, 1))
    if label == _NOBODY:
        parts, colours = DISTRACTORS[int(rng.integers(len(DISTRACTORS)))](rng), palette(rng, behind)
    else:
        name = SCENE_CLASSES.names[label]
        hue = TYPICAL_HUES[name] if rng.random() < config.typical else None
        parts, colours = SHAPES[name](rng), palette(rng, behind, hue)
    thing = draw_thing(projected(parts, pixels, rng, UPRIGHT), pixels, colours, light, rng)
    if rng.random() < config.blur:
        thing = blurred(thing, rng)
    limit = config.hidden * rng.random()  # so that strong occlusion is rarer than slight occlusion
    crowd = rng.random() < CROWDED
    for _ in range(_TRIES):
        top, left = _somewhere(canvas, thing, crowd, rng)
        if _fits(canvas, thing, top, left, label >= 0, limit, config.smallest):
            _paint(canvas, thing, top, left, label, light)
            return


def _somewhere(canvas: _Canvas, thing: Cutout, crowd: bool, rng: Generator) -> tuple[int, int]:
    """Draw the top left corner of a thing.

    It may be anywhere in the image, with at most an eighth of the thing outside, or in a crowd near an object's centre.
    """
    rows, columns = thing.alpha.shape
    height, width = canvas.owner.shape
    lowest, rightmost = max(round(height - 0.88 * rows), 1), max(round(width - 0.88 * columns), 1)
    if crowd and canvas.labels:
        x1, y1, x2, y2 = _bounds(canvas.owner == int(rng.integers(len(canvas.labels))))
        reach = 0.4 * (max(x2 - x1, y2 - y1) + thing.size)
        top = (y1 + y2 - rows) / 2 + reach * rng.uniform(-1, 1)
        left = (x1 + x2 - columns) / 2 + reach * rng.uniform(-1, 1)
        return min(max(round(top), -rows // 8), lowest), min(max(round(left), -columns // 8), rightmost)
    return int(rng.integers(round(-0.12 * rows), lowest)), int(rng.integers(round(-0.12 * columns), rightmost))


def _window(
    shape: tuple[int, ...], top: int, left: int, rows: int, columns: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the slices in which the image and a small canvas [rows, columns] at (top, left) overlap."""
    y1, y2 = max(top, 0), max(min(top + rows, shape[0]), 0)
    x1, x2 = max(left, 0), max(min(left + columns, shape[1]), 0)
    return (slice(y1, y2), slice(x1, x2)), (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left))


def _fits(canvas: _Canvas, thing: Cutout, top: int, left: int, labelled: bool, hidden: float, smallest: float) -> bool:
    """Return True if the thing (if it is an object) and all objects below it stay visible enough."""
    there, here = _window(canvas.owner.shape, top, left, *thing.solid.shape)
    covers = thing.solid[here]
    if labelled and (covers.sum() < (1 - hidden) * thing.solid.sum() or _longer_side(covers) < smallest):
        return False
    hit = np.unique(canvas.owner[there][covers])
    for owner in hit[hit != _NOBODY].tolist():
        left_over = canvas.owner == owner
        left_over[there] &= ~covers
        if left_over.sum() < (1 - hidden) * canvas.pixels[owner] or _longer_side(left_over) < smallest:
            return False
    return True


def _longer_side(mask: NDArray[np.bool_]) -> int:
    x1, y1, x2, y2 = _bounds(mask)
    return max(x2 - x1, y2 - y1)


def _bounds(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the tight x1 y1 x2 y2 (exclusive) of a mask; zeros for an empty one."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(ys) == 0:
        return 0, 0, 0, 0
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def _paint(canvas: _Canvas, thing: Cutout, top: int, left: int, label: int, light: Light) -> None:
    """Paint the shadow, then the colour, and record the owner of the pixels."""
    shadow, down, right = shadow_of(thing, light)
    there, here = _window(canvas.owner.shape, top + down, left + right, *shadow.shape)
    canvas.colour[there] *= (1 - shadow[here])[..., None]
    there, here = _window(canvas.owner.shape, top, left, *thing.alpha.shape)
    cover = thing.alpha[here][..., None]
    canvas.colour[there] += (thing.colour[here] - canvas.colour[there]) * cover
    owner = _NOBODY
    if label >= 0:
        owner = len(canvas.labels)
        canvas.labels.append(label)
        canvas.pixels.append(int(thing.solid.sum()))
    canvas.owner[there][thing.solid[here]] = owner


def _photograph(colour: FloatImage, light: Light, config: SceneConfig, rng: Generator) -> NDArray[np.uint8]:
    """Apply lighting, lens blur, sensor noise and JPEG compression."""
    height, width = config.size
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)
    spot_x, spot_y = light.x * rng.uniform(0.1, 0.45), light.y * rng.uniform(0.1, 0.45)
    spot = np.exp(-((x - spot_x) ** 2 + (y - spot_y) ** 2) / rng.uniform(0.1, 0.5))
    strength = rng.uniform(0.1, 0.5)
    lit = (1 - strength + 1.3 * strength * spot) * (1 - rng.uniform(0, 0.6) * (x * x + y * y))
    lit *= rng.uniform(0.85, 1.2) / float(lit.mean())  # exposure of the camera
    if rng.random() < 0.2:  # the shade of something outside the image
        lit = lit * (1 - rng.uniform(0.2, 0.45) * np.clip((noise(rng, height, width, 3, 2) - 0.5) * 8, 0, 1))
    tint = 1 + rng.uniform(-0.08, 0.08, 3)
    grey = np.clip(colour * (lit[..., None] * tint), 0, 1).astype(np.float32) ** 0.85 * 255
    image = Image.fromarray(grey.astype(np.uint8))
    if rng.random() < config.blur:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8) * min(height, width) / 256))
    grey = np.asarray(image, np.float32)
    sigma = rng.uniform(*config.noise)
    # Shot noise: brighter pixels are noisier.
    grain = rng.standard_normal(grey.shape, dtype=np.float32) * (sigma * (0.6 + 0.6 * grey / 255))
    noisy = np.clip(grey + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=int(rng.integers(config.quality[0], config.quality[1] + 1)))
    return np.array(Image.open(file))


def _annotate(image: NDArray[np.uint8], canvas: _Canvas) -> Scene:
    n = len(canvas.labels)
    masks = canvas.owner[None] == np.arange(n, dtype=np.int32)[:, None, None]
    boxes = np.array([_bounds(mask) for mask in masks], np.float32).reshape(n, 4)
    visible = masks.sum(axis=(1, 2)).astype(np.float32) / np.maximum(np.array(canvas.pixels, np.float32), 1)
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
    difficult = (visible < DIFFICULT_VISIBLE) | (longer < DIFFICULT_SIDE)
    return Scene(image, boxes, np.array(canvas.labels, np.int64), masks, difficult, visible)
