"""Write a data set as YOLO."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from boxwright.data.formats.splits import split_rank
from boxwright.data.formats.writing.output import ImageTransfer, place_image, unique_names, write_text_file
from boxwright.data.index import DetectionIndex
from boxwright.data.masks.contours import one_polygon, outlines
from boxwright.data.masks.masks import Segmentation, rasterise


def write_yolo(
    folder: Path | str, splits: Mapping[str, DetectionIndex], images: ImageTransfer = "copy", masks: bool = True
) -> list[str]:
    """Write ``data.yaml``, ``images/SPLIT/`` and ``labels/SPLIT/``.

    Returns one sentence for each kind of content that is lost. Objects with a mask become polygons unless ``masks`` is
    false: several polygons are joined by lines without area, and holes of run-length masks are filled. Crowd regions
    are left out, since a detector would train on them as on objects. With ``images="none"`` the images must already be
    in ``images/SPLIT``.
    """
    root = Path(folder).absolute()
    names, renamed = unique_names(splits, one_folder=False)
    announcements = [f"{renamed} images were renamed, because two had the same name"] if renamed else []
    for split, index in splits.items():
        lost = _Lost(split)
        for i in range(len(index)):
            place_image(index.path(i), image_folder(root, split) / names[split][i], images)
            stem = os.path.splitext(names[split][i])[0]
            write_text_file(root / "labels" / split / f"{stem}.txt", _lines(index, i, masks, lost))
        announcements += lost.sentences(index)
        if split not in ("train", "val", "test"):
            announcements.append(
                f"{split}: other YOLO tools read train, val and test only; rename its key in data.yaml"
            )
    first = next(iter(splits.values()), None)
    content: dict[str, Any] = {split: f"images/{split}" for split in sorted(splits, key=split_rank)}
    content["names"] = dict(enumerate(first.classes.names)) if first is not None else {}
    write_text_file(root / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return announcements


def image_folder(folder: Path | str, split: str) -> Path:
    """Return the folder in which `write_yolo` puts the images of a split."""
    return Path(folder) / "images" / split


@dataclass
class _Lost:
    """Counts of the contents of a split that YOLO cannot hold."""

    split: str
    crowds: int = 0
    difficult: int = 0
    joined: int = 0
    traced: int = 0
    dropped_masks: int = 0
    moved: float = 0.0

    def sentences(self, index: DetectionIndex) -> list[str]:
        """Return one sentence for each kind of loss."""
        losses = (
            (self.crowds, f"{self.crowds} crowd regions are left out, because YOLO cannot mark them"),
            (self.difficult, f"{self.difficult} difficult boxes become ordinary ones"),
            (self.joined, f"{self.joined} objects of several polygons are joined into one each"),
            (self.traced, f"{self.traced} run-length masks become outlines, their holes filled"),
            (self.dropped_masks, f"the masks of {self.dropped_masks} objects are left out"),
            (self.moved > 0.5, f"boxes become those of the polygons, moving sides by up to {self.moved:.1f} pixels"),
            (
                index.classes.ids != tuple(range(1, len(index.classes) + 1)),
                f"category ids {min(index.classes.ids, default=0)}..{max(index.classes.ids, default=0)} become "
                f"0..{len(index.classes) - 1}",
            ),
        )
        return [f"{self.split}: {sentence}" for happened, sentence in losses if happened]


def _lines(index: DetectionIndex, i: int, masks: bool, lost: _Lost) -> str:
    """Return the text of an image's label file."""
    height, width = index.size(i)
    rows = index.annotations(i)
    xywh = index.xywh[index.box_ends[i] : index.box_ends[i + 1]].tolist()
    segmentations = rows.segmentations or [None] * len(xywh)
    lines: list[str] = []
    for k, ((x, y, w, h), segmentation) in enumerate(zip(xywh, segmentations, strict=True)):
        if rows.crowd[k]:
            lost.crowds += 1
            continue
        lost.difficult += bool(rows.difficult[k])
        values = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
        if segmentation is not None and not masks:
            lost.dropped_masks += 1
        elif segmentation is not None and (polygon := _polygon(segmentation, height, width, lost)):
            values = [v / (height if n % 2 else width) for n, v in enumerate(polygon)]
            sides = (
                min(polygon[0::2]) - x,
                min(polygon[1::2]) - y,
                max(polygon[0::2]) - x - w,
                max(polygon[1::2]) - y - h,
            )
            lost.moved = max(lost.moved, *(abs(s) for s in sides))
        lines.append(" ".join([str(rows.labels[k]), *(_number_text(v) for v in values)]) + "\n")
    return "".join(lines)


def _polygon(segmentation: Segmentation, height: int, width: int, lost: _Lost) -> list[float] | None:
    """Convert a segmentation to the single polygon of a YOLO line; None for an empty mask."""
    if isinstance(segmentation, dict):
        lost.traced += 1
        polygons = outlines(rasterise(segmentation, height, width))
    else:
        polygons = segmentation
        lost.joined += len(polygons) > 1
    return one_polygon(polygons)


def _number_text(value: float) -> str:
    """Return ten decimals without trailing zeros, which is 1e-6 pixel in an image of 10,000 pixels."""
    return f"{value:.10f}".rstrip("0").rstrip(".")
