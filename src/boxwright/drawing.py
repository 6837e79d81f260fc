"""Draw boxes, labels and masks onto an image with Pillow.

Lines and text scale with the image, from a thumbnail of 300 pixels to a photograph of 40 megapixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from boxwright.io.text import printable
from boxwright.structures import InputError

Rectangle = tuple[float, float, float, float]


class Masks(Protocol):
    """Masks ``[H, W]`` produced one after the other, so that they need not be in memory together."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return n, H, W."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...


_GOLDEN_ANGLE = 137.50776  # degrees; keeps the hues of any number of classes apart
_TONES = ((0.72, 0.17), (0.56, 0.20), (0.86, 0.13), (0.46, 0.16), (0.66, 0.10))  # OKLCH lightness, chroma: in turn
_MASK_OPACITY = 0.42
_LONGEST_NAME = 200  # characters that are measured to fit a name into the image


@lru_cache(maxsize=1024)
def class_colour(label: int) -> tuple[int, int, int]:
    """Return the sRGB colour of a label, 0..255 each: constant, and distant in OKLCH from those of near labels."""
    lightness, chroma = _TONES[label % len(_TONES)]
    hue = math.radians(25.0 + label * _GOLDEN_ANGLE)
    while True:  # reduce chroma until the colour exists in sRGB
        rgb = _oklch_to_linear(lightness, chroma, hue)
        if all(-1e-4 <= channel <= 1.0001 for channel in rgb):
            red, green, blue = (_gamma(channel) for channel in rgb)
            return red, green, blue
        chroma *= 0.95


def draw_boxes(
    image: Image.Image,
    boxes: np.ndarray | Sequence[Sequence[float]],
    labels: np.ndarray | Sequence[int],
    names: Sequence[str],
    scores: np.ndarray | Sequence[float] | None = None,
    masks: np.ndarray | Masks | None = None,
    crowd: np.ndarray | Sequence[bool] | None = None,
    difficult: np.ndarray | Sequence[bool] | None = None,
    scale: float = 1.0,
) -> Image.Image:
    """Return a copy of ``image`` in RGB with the boxes drawn.

    ``boxes`` ``[n, 4]`` are x1 y1 x2 y2 in the image's pixels, exclusive; ``labels`` ``[n]`` index ``names``;
    ``scores`` ``[n]`` in 0..1 are written beside the names; ``masks`` bool ``[n, H, W]`` are drawn translucent;
    boxes whose ``crowd`` or ``difficult`` flag is set are dashed. Labels stay inside the image. The sizes of
    lines and text follow that of the image, times ``scale``. Raises ``InputError`` for unequal lengths or mask sizes.
    """
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    classes = np.asarray(labels, dtype=np.int64).reshape(-1)
    count = len(corners)
    for what, values in (
        ("labels", classes),
        ("scores", scores),
        ("masks", masks),
        ("crowd", crowd),
        ("difficult", difficult),
    ):
        if values is not None and len(values) != count:
            raise InputError(f"{count} boxes but {len(values)} {what}; give one for each box")
    if not np.isfinite(corners).all():
        worst = int(np.flatnonzero(~np.isfinite(corners).all(axis=1))[0])
        raise InputError(f"box {worst} is {corners[worst].tolist()}; a box that is not finite cannot be drawn")
    canvas = image.convert("RGB")
    if canvas is image:
        canvas = image.copy()
    if masks is not None and count:
        canvas = _lay_masks(canvas, masks, classes)
    dashed = np.zeros(count, dtype=bool)
    for flags in (crowd, difficult):
        if flags is not None:
            dashed |= np.asarray(flags, dtype=bool)

    draw = ImageDraw.Draw(canvas)
    width = line_width(canvas.size, scale)
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    for i in np.argsort(-areas, kind="stable").tolist():  # large boxes first, so that they do not hide small ones
        _draw_outline(draw, canvas.size, corners[i], class_colour(int(classes[i])), width, bool(dashed[i]))
    ranks = np.zeros(count) if scores is None else -np.asarray(scores, dtype=np.float64)
    taken: list[Rectangle] = []
    for i in np.argsort(ranks, kind="stable").tolist():  # the best score gets the best position
        label = int(classes[i])
        text = printable(names[label][:_LONGEST_NAME]) if 0 <= label < len(names) else f"class {label}"
        if scores is not None:
            text = f"{text} {float(scores[i]):.2f}"
        taken.append(_draw_label(draw, canvas.size, corners[i], text, class_colour(label), scale, taken))
    return canvas


def line_width(size: tuple[int, int], scale: float = 1.0) -> int:
    """Return the line width of boxes in pixels for an image of (width, height)."""
    return max(1, round(scale * math.sqrt(size[0] * size[1]) / 280))


def font_size(size: tuple[int, int], scale: float = 1.0) -> int:
    """Return the text height of labels in pixels for an image of (width, height)."""
    return max(10, round(scale * math.sqrt(size[0] * size[1]) / 42))


@lru_cache(maxsize=64)
def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(height)


def _gamma(channel: float) -> int:
    channel = min(1.0, max(0.0, channel))
    encoded = 12.92 * channel if channel <= 0.0031308 else 1.055 * channel ** (1 / 2.4) - 0.055
    return round(255 * encoded)


def _oklch_to_linear(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    """Convert OKLab (Björn Ottosson) in polar form to linear sRGB."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )


def _lay_masks(canvas: Image.Image, masks: np.ndarray | Masks, labels: np.ndarray) -> Image.Image:
    """Return the image with masks tinted and their edges drawn in full colour."""
    if masks.shape[1:] != (canvas.height, canvas.width):
        raise InputError(
            f"masks are {masks.shape[2]}x{masks.shape[1]} but the image is {canvas.width}x{canvas.height}; "
            "masks must have the size of the image"
        )
    pixels = np.asarray(canvas).copy()
    reach = max(1, line_width(canvas.size) // 2)
    for whole, label in zip(masks, labels, strict=True):
        mask = np.asarray(whole, dtype=bool)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            continue
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # only within the bounds of the object
        inside, patch = mask[window], pixels[window]
        colour = np.array(class_colour(int(label)), dtype=np.float32)
        patch[inside] = (patch[inside] * (1 - _MASK_OPACITY) + colour * _MASK_OPACITY).astype(np.uint8)
        padded = np.pad(inside, reach)
        core = inside.copy()
        for down, right in ((0, reach), (2 * reach, reach), (reach, 0), (reach, 2 * reach)):
            core &= padded[down : down + inside.shape[0], right : right + inside.shape[1]]
        patch[inside & ~core] = colour.astype(np.uint8)
    return Image.fromarray(pixels)


def _draw_outline(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    box: np.ndarray,
    colour: tuple[int, int, int],
    width: int,
    dashed: bool,
) -> None:
    """Draw one box, with a dark rim that keeps it visible on any background."""
    left, top = max(0, round(box[0])), max(0, round(box[1]))
    right, bottom = min(size[0], round(box[2])) - 1, min(size[1], round(box[3])) - 1  # exclusive to last pixel
    right, bottom = max(left, right), max(top, bottom)
    if left >= size[0] or top >= size[1]:
        return  # wholly outside
    rim = max(1, width // 2)
    if not dashed:
        draw.rectangle((left - rim, top - rim, right + rim, bottom + rim), outline=(16, 16, 16), width=rim)
        draw.rectangle((left, top, right, bottom), outline=colour, width=width)
        return
    step = 4 * width + 2
    for start in range(left, right + 1, 2 * step):
        end = min(start + step, right)
        draw.rectangle((start, top, end, top + width - 1), fill=colour)
        draw.rectangle((start, bottom - width + 1, end, bottom), fill=colour)
    for start in range(top, bottom + 1, 2 * step):
        end = min(start + step, bottom)
        draw.rectangle((left, start, left + width - 1, end), fill=colour)
        draw.rectangle((right - width + 1, start, right, end), fill=colour)


def _draw_label(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    box: np.ndarray,
    text: str,
    colour: tuple[int, int, int],
    scale: float,
    taken: list[Rectangle],
) -> Rectangle:
    """Draw text on a plate of the class colour, inside the image and away from other plates if possible."""
    text, font, (text_width, text_height), padding = _fit_text(draw, size, text, scale)
    plate_width, plate_height = text_width + 2 * padding, text_height + 2 * padding
    lefts = (box[0], box[2] - plate_width)
    tops = (box[1] - plate_height, box[3], box[1], box[3] - plate_height)  # above, below, then inside
    places: list[Rectangle] = []
    for y in tops:
        for x in lefts:
            left = min(max(0.0, float(round(x))), max(0.0, size[0] - plate_width))
            top = min(max(0.0, float(round(y))), max(0.0, size[1] - plate_height))
            places.append((left, top, left + plate_width, top + plate_height))
    place = next((p for p in places if not any(_overlap(p, other) for other in taken)), places[0])
    left, top, right, bottom = place
    draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)
    luminance = (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255
    ink = (0, 0, 0) if luminance > 0.5 else (255, 255, 255)
    draw.text((left + padding, top + padding), text, fill=ink, font=font, anchor="lt")
    return place


def _fit_text(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], text: str, scale: float
) -> tuple[str, ImageFont.FreeTypeFont | ImageFont.ImageFont, tuple[int, int], int]:
    """Fit text into the image, shortened if even the smallest font is too wide.

    Returns text, font, (width, height) and padding.
    """
    height = font_size(size, scale)
    while True:
        font = _font(height)
        padding = max(1, round(height * 0.18))
        room = size[0] - 2 * padding
        if draw.textlength(text, font=font) <= room or height <= 8:
            break
        height = max(8, int(height * 0.85))
    if draw.textlength(text, font=font) > room:
        while len(text) > 1 and draw.textlength(text + "…", font=font) > room:
            text = text[:-1]
        text += "…"
    # One height for all words of a font size, so that plates line up with and without descenders.
    _, top, _, bottom = draw.textbbox((0, 0), "Ágy", font=font, anchor="lt")
    return text, font, (math.ceil(draw.textlength(text, font=font)), math.ceil(bottom - top)), padding


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
