"""Find anchor shapes for a data set by k-means: ``boxwright data anchors``."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from boxwright.anchors.kmeans import kmeans_anchors
from boxwright.app.requests.data import AnchorRequest
from boxwright.app.splits import choose_split
from boxwright.data.formats.checks.sizes import image_sizes, refuse_wrong_sizes
from boxwright.data.formats.opening import find_source, open_dataset
from boxwright.data.transforms.network_sizes import Resize, network_sizes
from boxwright.structures import InputError

CELL = 32
"""Side in pixels of a grid cell, the unit of YOLOv2's anchors."""


@dataclass(frozen=True, kw_only=True)
class AnchorReport:
    """Anchors found for a split, and how well they fit its boxes."""

    data: str
    split: str
    size: tuple[int, int] | None
    """Height and width of the network's input; None if images keep their size."""
    resize: Resize
    boxes: int
    """Number of boxes that were clustered."""
    left_out: int
    """Number of boxes left out because a side is below one pixel."""
    anchors: list[tuple[float, float]]
    """Width and height in pixels of the network's input, in ascending order of area."""
    counts: list[int]
    """Number of boxes in the cluster of each anchor."""
    mean_iou: float
    """Mean IoU of a box with its best anchor."""
    settings: dict[str, str]
    """Values for ``boxwright train --set``: in "pixels" (YOLOv3) and in "cells" (YOLOv2)."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        where = (
            "pixels of the original images" if self.size is None else f"{self.size[0]} x {self.size[1]} ({self.resize})"
        )
        rows = [f"{w:8.1f} x {h:<8.1f} {n:>9,}" for (w, h), n in zip(self.anchors, self.counts, strict=True)]
        return [
            f"{self.split}: {len(self.anchors)} anchors for {self.boxes:,} boxes in {where}"
            + (f"; {self.left_out:,} smaller than a pixel left out" if self.left_out else ""),
            f"mean IoU {self.mean_iou:.4f}",
            f"{'width':>8} x {'height':<8} {'boxes':>9}",
            *rows,
            "in pixels, for YOLOv3:",
            f"  --set {shlex.quote(self.settings['pixels'])}",
            f"in cells of {CELL} pixels, for YOLOv2:",
            f"  --set {shlex.quote(self.settings['cells'])}",
        ]


def find_anchors(data: Path, request: AnchorRequest) -> AnchorReport:
    """Cluster the boxes of a split of ``data``. Raises InputError, for example for more anchors than boxes."""
    size = request.size
    if request.resize == "keep" and size is not None:
        raise InputError("--resize keep does not resize images; omit --size, or use --resize letterbox")
    if request.resize != "keep":
        size = size or (416, 416)
        if min(size) < 1:
            raise InputError(f"--size {size[0]} {size[1]}: height and width must be at least 1 pixel")
    source = find_source(data)
    split = choose_split(data, source.splits, request.split, ("train",), absent=source.absent)
    index = open_dataset(data, split, not request.voc_zero_based)
    chosen = {index.name: index}
    refuse_wrong_sizes(chosen, image_sizes(chosen, lenient=True))  # shapes need the boxes alone, not the images
    boxes = network_sizes(index, size, request.resize)
    seen = boxes[(boxes >= 1).all(1)]
    try:
        found = kmeans_anchors(
            seen, request.count, request.seed, request.restarts, request.distance, update=request.update
        )
    except InputError as error:
        raise InputError(f"{data}, split {index.name}: {error}") from error
    pixels = [(round(w, 1), round(h, 1)) for w, h in found.shapes.tolist()]
    cells = [(round(w / CELL, 4), round(h / CELL, 4)) for w, h in found.shapes.tolist()]
    return AnchorReport(
        data=str(data),
        split=index.name,
        size=size,
        resize=request.resize,
        boxes=len(seen),
        left_out=len(boxes) - len(seen),
        anchors=pixels,
        counts=found.counts.tolist(),
        mean_iou=round(found.mean_iou, 6),
        settings={"pixels": _setting(pixels), "cells": _setting(cells)},
    )


def _setting(anchors: list[tuple[float, float]]) -> str:
    return "detector.anchors=[" + ", ".join(f"[{w:g}, {h:g}]" for w, h in anchors) + "]"
