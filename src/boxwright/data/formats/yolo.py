"""YOLO: a ``data.yaml`` with class names and split folders, and one text file per image with a line per object.

A line is ``class cx cy w h`` for a box or ``class x1 y1 x2 y2 x3 y3 ...`` for a polygon, all fractions of the image's
width and height. The text file of ``images/train/a.jpg`` is ``labels/train/a.txt``; without a folder ``images`` in its
path it is beside the image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from boxwright.data.formats.parsing import parse_yaml
from boxwright.data.formats.places import (
    ImageTransfer,
    place_image,
    split_name,
    split_rank,
    unique_names,
    write_text_file,
)
from boxwright.data.formats.problems import ProblemLog, box_defect
from boxwright.data.images import image_size, is_image_name
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.masks.contours import one_polygon, outlines
from boxwright.data.masks.masks import Segmentation, rasterise
from boxwright.structures import Classes, InputError

_OTHER_KEYS = ("path", "names", "nc", "download", "roboflow", "yaml_file", "kpt_shape", "flip_idx", "channels")
_NOT_A_FRACTION = 1.5  # boxes may extend slightly over the edge; larger numbers are pixels, not fractions


@dataclass(frozen=True)
class YoloLayout:
    """Content of a ``data.yaml``; ``splits`` holds the image files of each split."""

    file: Path
    root: Path
    classes: Classes
    splits: dict[str, list[Path]]


def find_yolo(path: Path) -> Path | None:
    """Return the data.yaml at a path: the file itself, or the only YAML file of a folder with class names, or None."""
    if path.is_file():
        return path if path.suffix.lower() in (".yaml", ".yml") else None
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in (".yaml", ".yml"))
    found = [p for p in files if _names_classes(p)]
    preferred = [p for p in found if p.stem in ("data", "dataset")]
    if len(found) > 1 and len(preferred) != 1:
        raise InputError(
            f"{path}: {', '.join(p.name for p in found)} all describe YOLO data sets; give the path of one"
        )
    return (preferred or found or [None])[0]


def load_yolo(file: Path, log: ProblemLog | None = None) -> YoloLayout:
    """Read a data.yaml and list its images. Raises ``InputError`` naming the key and a remedy.

    With a lenient ``log``, a split whose images are not found is noted and left out.
    """
    log = log or ProblemLog()
    content = parse_yaml(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: a data.yaml holds `names`, `train` and `val`; this one holds none of them")
    classes = _classes(file, content)
    root = _root(file, content)
    splits: dict[str, list[Path]] = {}
    for key, value in content.items():
        if not isinstance(key, str) or key in _OTHER_KEYS or value in (None, "", []):
            continue
        name = split_name(key)
        if name not in ("train", "val", "test") and not (isinstance(value, str) and (root / value).is_dir()):
            continue  # a setting of another tool: a key with another name is a split only if its folder exists
        entries = value if isinstance(value, list) else [value]
        if not all(isinstance(entry, str) for entry in entries):
            raise InputError(f"{file}, key `{key}`: give a folder, a .txt list of images, or a list of those")
        splits[name] = [image for entry in entries for image in _images(file, root, key, entry, log)]
    if not splits:
        raise InputError(f"{file}: none of the keys `train`, `val`, `test` names images; add at least one")
    ordered = dict(sorted(splits.items(), key=lambda item: split_rank(item[0])))
    return YoloLayout(file, root, classes, ordered)


def read_yolo(
    layout: YoloLayout, splits: Iterable[str] | None = None, log: ProblemLog | None = None
) -> dict[str, DetectionIndex]:
    """Read the splits of a YOLO data set: those in ``splits``, or all.

    Image sizes are read from the images' headers. An image without a text file has no objects. Annotation and image ids
    count from 1 in each split. Raises ``InputError`` naming file and line for a class out of range, a line that is
    neither box nor polygon, numbers that are not fractions, and an image that cannot be opened.
    """
    own_log = log or ProblemLog()
    indexes: dict[str, DetectionIndex] = {}
    for split in layout.splits if splits is None else splits:
        images = layout.splits[split]
        with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 4)) as pool:
            sizes = list(pool.map(_size_or_error, images))
        records: list[ImageRecord] = []
        labelled = 0
        for number, (path, size) in enumerate(zip(images, sizes, strict=True), start=1):
            if isinstance(size, InputError):
                own_log.refuse("bad-image", path, "", str(size).removeprefix(f"{path}: "))
                continue
            record = ImageRecord(path=path, image_id=number, height=size[0], width=size[1])
            labels = label_file(path)
            if labels.is_file():
                labelled += 1
                _read_labels(labels, record, layout.classes, own_log)
            records.append(record)
        if images and not labelled:
            own_log.correct(
                "no-labels", "error", layout.file, f"split {split}",
                f"none of {len(images)} images has a label file; the first was looked for at {label_file(images[0])}",
            )  # fmt: skip
        indexes[split] = DetectionIndex.build(layout.classes, records, root=layout.root, name=split)
    if log is None:
        own_log.announce()
    return indexes


def label_file(image: Path) -> Path:
    """Return the label file of an image: the last folder ``images`` in its path becomes ``labels``."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _read_labels(file: Path, record: ImageRecord, classes: Classes, log: ProblemLog) -> None:
    """Fill a record from its label file."""
    boxes: list[tuple[float, float, float, float]] = []
    labels: list[int] = []
    segmentations: list[Segmentation | None] = []
    seen: dict[tuple[str, ...], int] = {}
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        log.refuse("unreadable", file, f"byte {error.start}", "is not UTF-8 text; save the file as UTF-8")
        return
    for number, line in enumerate(lines, start=1):
        if not (fields := tuple(line.split())):
            continue
        place = f"line {number}"
        if fields in seen:
            log.note("duplicate-box", "warning", file, place, f"repeats line {seen[fields]}; remove one of them")
        seen.setdefault(fields, number)
        row = _parse_line(file, place, fields, len(classes), log)
        if row is None:
            continue
        label, values = row
        box, segmentation = _shape(values, record.height, record.width)
        if box_defect(log, file, place, box, record.height, record.width):
            boxes.append(box)
            labels.append(label)
            segmentations.append(segmentation)
    record.boxes, record.labels = boxes, labels
    record.segmentations = segmentations if any(segmentations) else None


def _parse_line(
    file: Path, place: str, fields: tuple[str, ...], num_classes: int, log: ProblemLog
) -> tuple[int, list[float]] | None:
    """Parse one line into class and fractions; None if it has a defect, which is noted."""
    try:
        values = [float(text) for text in fields]
    except ValueError:
        log.refuse(
            "bad-line", file, place, f"`{' '.join(fields)[:80]}` contains something other than numbers; correct it"
        )
        return None
    label, values = values[0], values[1:]
    if not label.is_integer() or not 0 <= label < num_classes:
        last = num_classes - 1
        log.refuse("unknown-category", file, place, f"class {fields[0]} is not one of 0..{last}; correct it or `names`")
        return None
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        log.refuse(
            "bad-line", file, place,
            f"{len(fields)} numbers; a box takes 5 (class cx cy w h), a polygon 1 and an even number of at least 6",
        )  # fmt: skip
        return None
    if any(abs(v) > _NOT_A_FRACTION for v in values if math.isfinite(v)):
        log.refuse(
            "not-normalised", file, place,
            f"{max(values, key=abs):g} is not a fraction of the image; divide x by its width and y by its height",
        )  # fmt: skip
        return None
    return int(label), values


def _shape(
    values: list[float], height: int, width: int
) -> tuple[tuple[float, float, float, float], Segmentation | None]:
    """Return the corners in pixels, and the polygon if the line holds one."""
    if len(values) == 4:
        cx, cy, w, h = values
        return ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height), None
    polygon = [v * (height if i % 2 else width) for i, v in enumerate(values)]
    x, y = polygon[0::2], polygon[1::2]
    return (min(x), min(y), max(x), max(y)), [polygon]


def _size_or_error(path: Path) -> tuple[int, int] | InputError:
    try:
        return image_size(path)
    except InputError as error:
        return error


def _names_classes(file: Path) -> bool:
    """Return True if a YAML file looks like a data.yaml; one that does not parse counts if its text has the keys."""
    try:
        content = parse_yaml(file)
    except InputError:
        text = file.read_text(encoding="utf-8", errors="replace")
        return "names:" in text and "train:" in text
    if not isinstance(content, dict) or "names" not in content:
        return False
    folders = (v for v in content.values() if isinstance(v, str))
    return any(k in content for k in ("train", "val", "test")) or any((file.parent / f).is_dir() for f in folders)


def _classes(file: Path, content: dict[Any, Any]) -> Classes:
    """Return the classes in ``names``, a list or a mapping from 0..K-1."""
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise InputError(f"{file}, key `names`: the keys must be 0 to {len(names) - 1} without a gap")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise InputError(f"{file}, key `names`: give the class names as a list, or as a mapping from 0, 1, ...")
    count = content.get("nc", len(names))
    if count != len(names):
        raise InputError(f"{file}: nc is {count} but `names` has {len(names)} names; correct one of them")
    try:
        return Classes.from_names([str(name) for name in names])
    except InputError as error:
        raise InputError(f"{file}, key `names`: {error}") from None


def _root(file: Path, content: dict[Any, Any]) -> Path:
    """Return the folder that split entries are relative to: ``path`` if it exists, else the folder of the file.

    A relative ``path`` is often relative to the data folder of another tool. Then the data is in the file's own folder.
    """
    folder = file.absolute().parent
    value = content.get("path")
    if isinstance(value, str) and value:
        root = Path(os.path.normpath(folder / value))
        if root.is_dir():
            return root
    return folder


def _images(file: Path, root: Path, key: str, entry: str, log: ProblemLog) -> list[Path]:
    """List the images of one entry of a split: a folder with its subfolders, or a text file with a path per line."""
    # Roboflow writes ../train/images for a folder beside the data.yaml.
    shortened = entry.removeprefix("../")
    candidates = [
        Path(os.path.normpath(base / e)) for e in (entry, shortened) for base in (root, file.absolute().parent)
    ]
    place = next((c for c in candidates if c.exists()), None)
    if place is None:
        looked = ", ".join(str(c) for c in dict.fromkeys(candidates))
        log.refuse("no-folder", file, f"key `{key}`", f"{entry} does not exist (looked for {looked}); correct the path")
        return []
    if place.is_dir():
        return sorted(p for p in place.rglob("*") if is_image_name(p) and p.is_file())
    images: list[Path] = []
    for line in place.read_text(encoding="utf-8-sig").splitlines():
        if line.strip():
            path = Path(line.strip())
            bases = (place.parent, root)
            found = (Path(os.path.normpath(base / path)) for base in bases)
            images.append(next((p for p in found if p.is_file()), Path(os.path.normpath(bases[0] / path))))
    return images


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
