"""Steps of detection for people: from an image in any form to a batch, and from a batch of detections to one result
per image, in pixels of the original.

Symbols: B images, D detections of a batch's row, n detections of one image, m the side of a mask.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torchvision import tv_tensors

from boxwright.data.addresses import address_reason
from boxwright.data.images import read_image
from boxwright.data.loading.collate import padded_pixels, padded_proposals, scales_of
from boxwright.data.pixels import image_to_array
from boxwright.data.transforms.configs import TransformConfig, build_transform
from boxwright.data.transforms.sample import Sample
from boxwright.geometry.boxes import have_area
from boxwright.geometry.original import in_original
from boxwright.geometry.paste import InstanceMasks, PasteConfig, paste_masks
from boxwright.geometry.rounding import round_up
from boxwright.structures import DetectionBatch, Images, InputError

ImageSource: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor
"""An image as a person has it: a path, a PIL image, or uint8 ``[H, W, 3]``, ``[H, W]`` or (a tensor) ``[3, H, W]``."""


class Found(NamedTuple):
    """Detections of one image on the CPU, in pixels of the original image.

    ``boxes`` ``[n, 4]``, ``scores`` and ``labels`` ``[n]``; ``masks``: probabilities ``[n, m, m]`` within the boxes, or
    None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None

    def pasted(self, size: tuple[int, int], paste: PasteConfig | None) -> InstanceMasks | None:
        """Paste the masks into an image of ``size`` (height, width)."""
        if self.masks is None:
            return None
        return paste_masks(self.masks.numpy(), self.boxes.numpy(), size, paste)


def pixels_of(source: ImageSource) -> np.ndarray:
    """Return uint8 ``[H, W, 3]`` RGB pixels; a file's and a PIL image's EXIF orientation is applied.

    Raises InputError for a file that cannot be read, or an array of another type or shape.
    """
    if isinstance(source, (str, os.PathLike)):
        return read_image(source)
    if not isinstance(source, (np.ndarray, Tensor, Image.Image)):
        reason = address_reason(str(source)) if isinstance(source, int) else None  # the number of a camera
        forms = "a path, a PIL image, an array or a tensor"
        raise InputError(reason or f"an image of type {type(source).__name__}; give {forms}")
    if isinstance(source, Image.Image):
        return image_to_array(source)
    array = source.detach().cpu().numpy() if isinstance(source, Tensor) else source
    if isinstance(source, Tensor) and array.ndim == 3:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        form = "[3, H, W]" if isinstance(source, Tensor) else "[H, W, 3] or [H, W]"
        raise InputError(
            f"an image of type {array.dtype} and shape {tuple(source.shape)}; give uint8 values in 0..255 as {form}"
        )
    return array


def sample_of(array: np.ndarray) -> Sample:
    """Wrap a uint8 ``[H, W, 3]`` RGB array as a sample without annotations."""
    height, width = array.shape[:2]
    if min(height, width) == 0:
        raise InputError(f"an image of {width} x {height} pixels; give images with at least one pixel")
    none = torch.zeros(0, dtype=torch.bool)
    return Sample(
        image=tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)),
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        crowd=none,
        difficult=none,
        original_size=(height, width),
    )


def prepared(sample: Sample, transforms: Sequence[TransformConfig]) -> Sample:
    """Apply the ``transforms`` of a detector to a sample."""
    return build_transform(transforms)(sample, Generator().manual_seed(0))


def batch_of(samples: Sequence[Sample], multiple: int) -> Images:
    """Pad prepared samples to one batch whose sides are multiples of ``multiple``."""
    sizes = [sample.size for sample in samples]
    height, width = (round_up(max(side), multiple) for side in zip(*sizes, strict=True))
    pixels = padded_pixels(samples, height, width)
    return Images(pixels, torch.tensor(sizes), proposals=padded_proposals(samples, 1), scales=scales_of(samples))


def found_in(batch: DetectionBatch, samples: Sequence[Sample], threshold: float = 0.0) -> list[Found]:
    """Map the detections of a batch of ``samples`` back, also from mirrored samples, clipped to the original images.

    Detections below ``threshold``, and boxes that clipping leaves without area, are dropped.
    """
    to_original = torch.tensor([sample.to_original for sample in samples], dtype=torch.float32)
    return unbatched(batch, to_original, torch.tensor([sample.original_size for sample in samples]), threshold)


def unbatched(batch: DetectionBatch, to_original: Tensor, sizes: Tensor, threshold: float = 0.0) -> list[Found]:
    """Split a batch into the detections of each image, in pixels of the originals.

    ``to_original`` ``[B, 4]`` and ``sizes`` ``[B, 2]``: see :func:`~boxwright.geometry.original.in_original`.
    """
    boxes, scores, labels = (t.cpu() for t in (batch.boxes.float(), batch.scores.float(), batch.labels))
    masks = None if batch.masks is None else batch.masks.float().cpu()
    original = in_original(boxes, to_original, sizes)
    keep = batch.valid.cpu() & (scores >= threshold) & have_area(original)
    found = []
    for i, own in enumerate(keep):
        mask = None if masks is None else _upright(masks[i, own], to_original[i])
        found.append(Found(original[i, own], scores[i, own], labels[i, own], mask))
    return found


def _upright(masks: Tensor, to_original: Tensor) -> Tensor:
    """Masks of the original image from those of a sample that may be mirrored."""
    mirrored = [axis for axis, scale in ((1, to_original[1]), (2, to_original[0])) if scale < 0]
    return masks.flip(mirrored) if mirrored else masks
