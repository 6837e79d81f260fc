"""Drawn images with the structure of photographs, different for each seed, and copies of them that were changed."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps


def photograph(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """Draw an image of soft ground, a few shapes and fine texture."""
    rng = np.random.default_rng(seed)
    ground = Image.fromarray(rng.integers(40, 200, (6, 8, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    draw = ImageDraw.Draw(ground)
    for _ in range(8):
        x, y = rng.integers(0, width - 20), rng.integers(0, height - 20)
        w, h = rng.integers(20, width // 3), rng.integers(20, height // 3)
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)((int(x), int(y), int(x + w), int(y + h)), fill=colour)
    noise = rng.normal(0, 6, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(ground) + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, quality: int = 40) -> Image.Image:
    """Return the image after it was saved as a JPEG of low quality."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Cut shares of the sides off an image."""
    w, h = image.size
    return image.crop((round(left * w), round(top * h), round((1 - right) * w), round((1 - bottom) * h)))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "encoded again": encoded,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR),
    "twice the size": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC),
    "stretched to a square": lambda image: image.resize((200, 200), Image.Resampling.BILINEAR),
    "lighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "cut all round": lambda image: cropped(image, 0.04, 0.04, 0.04, 0.04),
    "cut on one side": lambda image: cropped(image, 0.07, 0, 0, 0),
    "cut at a corner": lambda image: cropped(image, 0, 0.05, 0.06, 0),
    "mirrored": ImageOps.mirror,
    "mirrored, small, dark and encoded": lambda image: encoded(
        ImageEnhance.Brightness(ImageOps.mirror(image).resize((160, 120))).enhance(0.7)
    ),
}
"""Changes that leave an image a near-duplicate of what it was."""
