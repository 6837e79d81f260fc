"""Anchor shapes for a data set as a network sees it: what ``boxwright data anchors`` does."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from boxwright.anchors.kmeans import kmeans_anchors
from boxwright.data.formats.opening import open_splits
from boxwright.data.index import DetectionIndex
from boxwright.data.transforms.network_sizes import Resize, network_sizes
from boxwright.structures import InputError

CELL = 32
"""Side in pixels of the cells that YOLOv2 counts its anchors in."""


@dataclass(frozen=True, kw_only=True)
class AnchorRequest:
    """What was asked for. ``size``: (height, width) of the network's input, for all ways to ``resize`` but "keep"."""

    data: Path
    count: int
    size: tuple[int, int] | None = None
    resize: Resize = "letterbox"
    split: str | None = None
    distance: Literal["iou", "euclid"] = "iou"
    update: Literal["mean", "median"] = "mean"
    restarts: int = 10
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class AnchorReport:
    """``anchors``: (width, height) in pixels of the network's input by rising area; ``counts``: the boxes of each;
    ``mean_iou`` of a box with its best anchor; ``boxes`` that took part; ``left_out``, those with a side below one
    pixel; ``settings``: what to give to ``boxwright train`` as ``--set``, with anchors in "pixels" (YOLOv3) and in
    "cells" (YOLOv2)."""

    data: str
    split: str
    size: tuple[int, int] | None
    resize: Resize
    boxes: int
    left_out: int
    anchors: list[tuple[float, float]]
    counts: list[int]
    mean_iou: float
    settings: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report as a person reads it."""
        where = "the pictures' own pixels" if self.size is None else f"{self.size[0]} x {self.size[1]} ({self.resize})"
        rows = [f"{w:8.1f} x {h:<8.1f} {n:>9,}" for (w, h), n in zip(self.anchors, self.counts, strict=True)]
        return [
            f"{self.split}: {len(self.anchors)} anchors for {self.boxes:,} boxes in {where}"
            + (f"; {self.left_out:,} smaller than a pixel are left out" if self.left_out else ""),
            f"mean IoU {self.mean_iou:.4f}",
            f"{'width':>8} x {'height':<8} {'boxes':>9}",
            *rows,
            "in pixels, as YOLOv3 counts them:",
            f"  --set {shlex.quote(self.settings['pixels'])}",
            f"in cells of {CELL} pixels, as YOLOv2 counts them:",
            f"  --set {shlex.quote(self.settings['cells'])}",
        ]


def find_anchors(request: AnchorRequest) -> AnchorReport:
    """Cluster the boxes of a split. Raises ``InputError`` for what does not fit, such as more anchors than boxes."""
    size = request.size
    if request.resize == "keep" and size is not None:
        raise InputError(
            '--resize keep leaves pictures at their own size; leave --size out, or resize with "letterbox"'
        )
    if request.resize != "keep":
        size = size or (416, 416)
        if min(size) < 1:
            raise InputError(f"--size {size[0]} {size[1]}: height and width must be at least 1 pixel")
    index = _chosen_split(request.data, request.split)
    boxes = network_sizes(index, size, request.resize)
    seen = boxes[(boxes >= 1).all(1)]
    try:
        found = kmeans_anchors(
            seen, request.count, request.seed, request.restarts, request.distance, update=request.update
        )
    except InputError as error:
        raise InputError(f"{request.data}, split {index.name}: {error}") from error
    pixels = [(round(w, 1), round(h, 1)) for w, h in found.shapes.tolist()]
    cells = [(round(w / CELL, 4), round(h / CELL, 4)) for w, h in found.shapes.tolist()]
    return AnchorReport(
        data=str(request.data),
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


def _chosen_split(path: Path, split: str | None) -> DetectionIndex:
    """The split that was named, else train, else the only one."""
    splits = open_splits(path)
    if split is None:
        split = "train" if "train" in splits or len(splits) > 1 else next(iter(splits))
    if split not in splits:
        raise InputError(f"{path}: has no split '{split}'; it has {', '.join(splits)}; name one with --split")
    return splits[split]


def _setting(anchors: list[tuple[float, float]]) -> str:
    return "detector.anchors=[" + ", ".join(f"[{w:g}, {h:g}]" for w, h in anchors) + "]"
