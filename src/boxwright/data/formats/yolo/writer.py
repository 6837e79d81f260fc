"""Write a data set as YOLO."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from boxwright.data.formats.splits import split_rank
from boxwright.data.formats.writing.boxes import Box, BoxChanges, cut_box, reaches_over
from boxwright.data.formats.writing.names import check_splits, unique_names
from boxwright.data.formats.writing.output import ImageTransfer, Written, lost_views, place_image, write_text_file
from boxwright.data.formats.yolo.layout import OTHER_KEYS
from boxwright.data.index import DetectionIndex
from boxwright.data.masks.clipping import cut_polygon
from boxwright.data.masks.contours import one_polygon, outlines
from boxwright.data.masks.masks import Segmentation, rasterise

_PLAIN = re.compile(r"[A-Za-z](?:[A-Za-z0-9_ /-]*[A-Za-z0-9_])?")
_NOT_TEXT = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan", "inf"}
"""Words that YAML, in one of its versions, or a program that reads it, takes for a value other than text."""


def write_yolo(
    folder: Path | str,
    splits: Mapping[str, DetectionIndex],
    images: ImageTransfer = "copy",
    masks: bool = True,
    *,
    cut: bool = True,
    names: Mapping[Path, str] | None = None,
) -> Written:
    """Write ``data.yaml``, ``images/SPLIT/`` and ``labels/SPLIT/``.

    Returns one sentence for each kind of content that is lost. Objects with a mask become polygons unless ``masks`` is
    false: several polygons are joined by lines without area, and holes of run-length masks are filled. Boxes and
    polygons are cut to their image unless ``cut`` is false. Crowd regions are left out, since a detector would train on
    them as on objects. With ``images="none"`` the images must already be in ``images/SPLIT``. ``names``: file names to
    write instead of the images' own, by path. Raises InputError for a split that cannot name a folder or that has the
    name of another key.
    """
    root = Path(folder).absolute()
    check_splits(splits, taken=OTHER_KEYS)
    file_names, renamed = unique_names(splits, one_folder=False, own=names)
    written = Written(announcements=renamed)
    for split, index in splits.items():
        lost = _Lost(split)
        written.boxes[split] = 0
        for i in range(len(index)):
            place_image(index.path(i), image_folder(root, split) / file_names[split][i], images)
            stem = os.path.splitext(file_names[split][i])[0]
            lines = _lines(index, i, masks, cut, lost)
            write_text_file(root / "labels" / split / f"{stem}.txt", "".join(lines))
            written.boxes[split] += len(lines)
        written.announcements += lost.sentences(index)
        if split not in ("train", "val", "test"):
            written.announcements.append(
                f"{split}: other YOLO tools read train, val and test only; rename its key in data.yaml"
            )
    write_text_file(root / "data.yaml", _yaml(splits))
    return written


def _yaml(splits: Mapping[str, DetectionIndex]) -> str:
    """Return the text of data.yaml, every name in quotes that a YAML reader could take for another value."""
    first = next(iter(splits.values()), None)
    names = first.classes.names if first is not None else ()
    keys = [f"{_text(split)}: {_text(f'images/{split}')}\n" for split in sorted(splits, key=split_rank)]
    return "".join([*keys, "names:\n", *(f"  {label}: {_text(name)}\n" for label, name in enumerate(names))])


def _text(value: str) -> str:
    """Return a text as YAML reads it back in any of its versions."""
    if _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    return yaml.safe_dump(value, default_style='"', allow_unicode=True, width=10**9).rstrip("\n")


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
    boxes: BoxChanges = field(default_factory=BoxChanges)

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
                index.classes.ids not in (tuple(range(1, len(index.classes) + 1)), tuple(range(len(index.classes)))),
                f"category ids {min(index.classes.ids, default=0)}..{max(index.classes.ids, default=0)} become "
                f"0..{len(index.classes) - 1}",
            ),
        )
        sentences = [sentence for happened, sentence in losses if happened]
        return [f"{self.split}: {sentence}" for sentence in (*sentences, *lost_views(index), *self.boxes.sentences())]


def _lines(index: DetectionIndex, i: int, masks: bool, cut: bool, lost: _Lost) -> list[str]:
    """Return the lines of an image's label file."""
    height, width = index.size(i)
    rows = index.annotations(i)
    xywh = index.xywh[index.box_ends[i] : index.box_ends[i + 1]].tolist()
    segmentations = rows.segmentations or [None] * len(xywh)
    lines: list[str] = []
    for k, ((x, y, w, h), segmentation) in enumerate(zip(xywh, segmentations, strict=True)):
        if rows.crowd[k]:
            lost.crowds += 1
            continue
        box: Box | None = (x, y, x + w, y + h)
        over = reaches_over(box, height, width)
        box = cut_box(box, height, width) if cut else box
        polygon = None
        if box is not None and segmentation is not None and masks:
            polygon = _polygon(segmentation, height, width, cut, lost)
        values = None if box is None else _fractions(polygon or list(box), height, width, polygon is not None)
        if box is None or values is None:
            lost.boxes.vanished += 1
            continue
        if polygon is not None:
            sides = (min(polygon[0::2]), min(polygon[1::2]), max(polygon[0::2]), max(polygon[1::2]))
            lost.moved = max(lost.moved, *(abs(a - b) for a, b in zip(sides, box, strict=True)))
        lost.dropped_masks += segmentation is not None and not masks
        lost.difficult += bool(rows.difficult[k])
        lost.boxes.cut += over and cut
        lost.boxes.over_edge += over and not cut
        lines.append(" ".join([str(rows.labels[k]), *values]) + "\n")
    return lines


def _fractions(points: list[float], height: int, width: int, polygon: bool) -> list[str] | None:
    """Return a polygon, or the centre and size of a box, as fractions of the image; None for a box without area."""
    if polygon:
        return [_number_text(v / (height if n % 2 else width)) for n, v in enumerate(points)]
    x1, y1, x2, y2 = points
    values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    texts = [_number_text(v) for v in values]
    return None if "0" in texts[2:] else texts


def _polygon(segmentation: Segmentation, height: int, width: int, cut: bool, lost: _Lost) -> list[float] | None:
    """Convert a segmentation to the single polygon of a YOLO line; None if nothing of it lies in the image."""
    if isinstance(segmentation, dict):
        lost.traced += 1
        polygons = outlines(rasterise(segmentation, height, width))
    else:
        polygons = segmentation
        lost.joined += len(polygons) > 1
    if cut:
        polygons = [part for polygon in polygons for part in cut_polygon(polygon, height, width)]
    return one_polygon(polygons)


def _number_text(value: float) -> str:
    """Return ten decimals without trailing zeros, which is 1e-6 pixel in an image of 10,000 pixels."""
    return f"{value:.10f}".rstrip("0").rstrip(".")
