"""Facts about a data set and a machine on which the choice of a recipe depends."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from boxwright.app.machine import usable_cores, usable_memory
from boxwright.data.index import DetectionIndex
from boxwright.data.masks.mask_gaps import mask_gap
from boxwright.data.transforms.network_sizes import evaluated_sizes
from boxwright.io.environment import precision_note

FEW_BOXES = 10
"""Boxes of a class below which it is called rare."""
QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)
"""Quantiles by which sizes are described: least, small, middle, large, greatest."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Facts about a training set."""

    images: int
    classes: int
    boxes: int
    rare_classes: int
    """Classes with fewer than `FEW_BOXES` boxes."""
    empty_share: float
    """Share of the images without objects."""
    most_boxes: int
    """Largest number of boxes in an image."""
    long_sides: tuple[int, ...]
    """Long sides of the images in pixels at `QUANTILES`."""
    object_sides: tuple[float, ...]
    """Sides of the objects (root of the area) relative to the long side of their image, at `QUANTILES`."""
    masks: bool
    """Every object has a mask."""
    mask_gap: str | None
    """Objects without a mask, in words, if some have one."""
    directed: str | None
    """Name of a class that a mirrored image would make wrong, such as ``arrow_left``; None without any."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """Facts about the machine and the device to train on."""

    device: str
    """Name of the device for torch, such as ``cuda:0``."""
    name: str
    """The device in words."""
    memory: int | None
    """Bytes that training may use: free memory of the GPU, or memory of the machine; None if unknown."""
    cores: int
    bf16: bool
    """The device has instructions for bf16."""

    @property
    def on_gpu(self) -> bool:
        """True for anything but the CPU."""
        return not self.device.startswith("cpu")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def data_facts(index: DetectionIndex) -> DataFacts:
    """Describe a training set of at least one image and one box. The images are not read."""
    per_image = np.diff(index.box_ends)
    counts = np.bincount(index.labels[~index.crowd], minlength=len(index.classes))
    gap = mask_gap(index) if index.has_masks else None
    return DataFacts(
        images=len(index),
        classes=len(index.classes),
        boxes=index.num_boxes,
        rare_classes=int((counts < FEW_BOXES).sum()),
        empty_share=float((per_image == 0).mean()),
        most_boxes=int(per_image.max(initial=0)),
        long_sides=tuple(int(side) for side in np.quantile(index.sizes.max(1), QUANTILES)),
        object_sides=tuple(round(float(side), 5) for side in _quantiles(relative_sides(index))),
        masks=index.has_masks and gap is None,
        mask_gap=gap,
        directed=next((name for name in index.classes.names if _is_directed(name)), None),
    )


def relative_sides(index: DetectionIndex) -> np.ndarray:
    """Return the root of each object's area by the long side of its image, float64 ``[M]``, without crowds."""
    long = np.repeat(index.sizes.max(1), np.diff(index.box_ends))[~index.crowd]
    sides = np.sqrt(evaluated_sizes(index, ()).prod(1))
    return (sides / np.maximum(long, 1))[sides > 0]


def _quantiles(values: np.ndarray) -> np.ndarray:
    return np.quantile(values, QUANTILES) if len(values) else np.zeros(len(QUANTILES))


def _is_directed(name: str) -> bool:
    words = "".join(c if c.isalpha() else " " for c in name).lower().split()
    return not {"left", "right", "leftward", "rightward"}.isdisjoint(words)


def machine_facts(device: torch.device, shared: bool = False) -> MachineFacts:
    """Describe the machine and ``device``.

    ``shared``: other processes train on GPUs of the same kind and must find the same, so memory in use is not looked
    at.
    """
    cores = usable_cores() or 1
    if device.type == "cuda":
        free, whole = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        memory: int | None = _rounded(whole if shared else free)  # a few bytes more or less must not change the choice
    elif device.type == "cpu":
        name, memory = f"{cores} core{'s' if cores != 1 else ''} of the processor", usable_memory()
    else:
        name, memory = device.type, usable_memory()
    return MachineFacts(
        device=str(device),
        name=name,
        memory=memory,
        cores=cores,
        bf16=device.type != "mps" and precision_note(device, "bf16") is None,
    )


def _rounded(size: int) -> int:
    """Round bytes down to two digits in binary, such as 6 or 8 GiB."""
    step = 2 ** max(0, math.floor(math.log2(max(size, 1))) - 2)
    return size // step * step
