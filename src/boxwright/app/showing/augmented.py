"""Draw training images as a recipe augments them: ``boxwright data augment``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from boxwright.app.requests.data import AugmentRequest
from boxwright.app.splits import choose_split
from boxwright.data.formats.opening import find_source, open_dataset
from boxwright.data.index import DetectionIndex
from boxwright.data.loading.loader import transforms_use_masks
from boxwright.data.loading.sampler import Pick, sample_seed
from boxwright.data.transforms.configs import TransformConfig, build_transform
from boxwright.data.transforms.sample import Sample, SampleSource
from boxwright.drawing import draw_boxes
from boxwright.io.images import save_image
from boxwright.io.text import printable
from boxwright.recipes import resolve_recipe
from boxwright.structures import InputError

CELL, GAP, LINE = 360, 10, 24
"""Sides in pixels of an image on the sheet, of the space between two, and of a line of text."""


def show_augmented(data: Path, request: AugmentRequest) -> Path:
    """Draw images of the training split, each as annotated and in several random versions, and return the sheet.

    The versions are made by the transforms ``data.train`` of the recipe. The seed chooses the images and the random
    numbers. Raises InputError for what does not fit, as training does.
    """
    if request.output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(
            f"{request.output}: the sheet is written as .png or .jpg; give a name with one of these suffixes"
        )
    for name, value in (("--count", request.count), ("--versions", request.versions)):
        if value < 1:
            raise InputError(f"{name} {value}: should be at least 1")
    recipe = resolve_recipe(request.recipe, request.config, request.sets)
    source = find_source(data)
    split = choose_split(data, source.splits, request.split, ("train",), absent=source.absent)
    index = open_dataset(data, split, not request.voc_zero_based)
    if len(index) == 0:
        raise InputError(f"{data}: the split {split} has no image; choose another with --split")
    rows = augmented(index, recipe.data.train, request.count, request.versions, request.seed, recipe.data.masks)
    output = request.output.expanduser()
    output.parent.mkdir(parents=True, exist_ok=True)
    save_image(_sheet(rows, index), output)
    return output


def augmented(
    index: DetectionIndex, transforms: tuple[TransformConfig, ...], count: int, versions: int, seed: int, masks: bool
) -> list[list[Sample]]:
    """Return ``count`` random images of ``index``: each as in its file, then in ``versions`` random versions.

    ``masks``: read the masks, if there are any, also where no transform uses them.
    """
    used = transforms_use_masks(transforms, index)
    fetch = SampleSource(index, used or (masks and index.has_masks))
    transform = build_transform(transforms, fetch=fetch)
    chosen = np.random.default_rng(seed).choice(len(index), size=min(count, len(index)), replace=False)
    rows = []
    for i in sorted(chosen.tolist()):
        numbers = [sample_seed(seed, Pick(i, epoch, i), "transform") for epoch in range(versions)]
        made = [transform(fetch(i), torch.Generator().manual_seed(number)) for number in numbers]
        rows.append([fetch(i), *made])
    return rows


def _sheet(rows: list[list[Sample]], index: DetectionIndex) -> Image.Image:
    """Draw a row for each image: its file name and annotations, then its versions with their sizes."""
    drawn = [[_drawn(sample, index) for sample in row] for row in rows]
    heights = [LINE + GAP + max(image.height for image in images) for images in drawn]
    sheet = Image.new("RGB", ((CELL + GAP) * len(rows[0]) + GAP, sum(heights) + GAP), (246, 247, 249))
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(14), GAP
    for row, images, height in zip(rows, drawn, heights, strict=True):
        for column, (sample, image) in enumerate(zip(row, images, strict=True)):
            left = GAP + column * (CELL + GAP)
            size = f"{sample.size[1]} x {sample.size[0]}, {len(sample)} objects"
            name = Path(index.relative_path(sample.index)).name
            text = printable(f"{name if len(name) <= 24 else name[:23] + '…'}: {size}" if column == 0 else size)
            draw.text((left, top + 3), text, fill=(27, 31, 36), font=font)
            sheet.paste(image, (left + (CELL - image.width) // 2, top + LINE))
        top += height
    return sheet


def _drawn(sample: Sample, index: DetectionIndex) -> Image.Image:
    """Draw one image with its boxes, and its masks if they are read, in a cell of the sheet."""
    height, width = sample.size
    scale = min(CELL / height, CELL / width)
    small = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = sample.image.as_subclass(torch.Tensor).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels).resize(small, Image.Resampling.LANCZOS)
    masks = None
    if sample.masks is not None and len(sample):
        shown = [Image.fromarray(mask.numpy()).resize(small, Image.Resampling.NEAREST) for mask in sample.masks]
        masks = np.stack([np.asarray(mask) for mask in shown])
    boxes = sample.boxes.numpy() * np.array([small[0] / width, small[1] / height] * 2)
    return draw_boxes(
        image,
        boxes,
        sample.labels.numpy(),
        index.classes.names,
        masks=masks,
        crowd=sample.crowd.numpy(),
        difficult=sample.difficult.numpy(),
    )
