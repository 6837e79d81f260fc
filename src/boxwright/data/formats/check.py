"""Report all defects of a data set with file and position: those of the annotations, then those of each decoded image.

An *error* makes training or evaluation wrong (an unreadable image, a box without area, an image in two splits). A
*warning* may do so (an id 0, exact duplicates, a class without objects). *Info* is worth knowing.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.data.formats.checks.outside import outside_files
from boxwright.data.formats.checks.similar import SeenImage, note_similar
from boxwright.data.formats.checks.sizes import WrongSize
from boxwright.data.formats.opening import Source, find_source, read_source, whole_splits
from boxwright.data.formats.problems import Problem, ProblemLog
from boxwright.data.formats.strays import find_strays
from boxwright.data.images import image_header, read_image
from boxwright.data.index import DetectionIndex
from boxwright.data.masks.mask_gaps import mask_gap
from boxwright.data.similarity.thumbnails import thumbnail
from boxwright.structures import InputError

SMALL, LARGE = 32.0**2, 96.0**2
"""COCO's bounds of small, medium and large objects, in square pixels of the original image."""

_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "PNG": {".png"},
    "BMP": {".bmp", ".dib"},
    "GIF": {".gif"},
    "TIFF": {".tif", ".tiff"},
    "WEBP": {".webp"},
}


@dataclass(frozen=True)
class SplitSummary:
    """Summary of a split.

    ``sizes`` counts small, medium and large objects by COCO's bounds on ``area``. ``side_percentiles`` are percentiles
    of the square root of the area of the boxes, in pixels.
    """

    images: int
    boxes: int
    images_without_objects: int
    crowd: int
    difficult: int
    masks: int
    classes: dict[str, int]
    sizes: dict[str, int]
    side_percentiles: dict[str, float]


@dataclass
class CheckReport:
    """Result of a check. ``ok`` is false if any problem is an error; the exit code of the command follows it."""

    path: str
    format: str
    problems: list[Problem] = field(default_factory=list)
    splits: dict[str, SplitSummary] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Return True if no problem is an error."""
        return self.count("error") == 0

    def count(self, severity: str) -> int:
        """Return the number of problems of one severity."""
        return sum(problem.severity == severity for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary for JSON."""
        return {
            "path": self.path,
            "format": self.format,
            "ok": self.ok,
            "counts": {severity: self.count(severity) for severity in ("error", "warning", "info")},
            "problems": [problem.to_dict() for problem in self.problems],
            "splits": {name: asdict(summary) for name, summary in self.splits.items()},
        }


@dataclass(frozen=True)
class _Inspection:
    """Result of hashing and decoding one image file."""

    error: InputError | None = None
    missing: bool = False
    digest: str = ""
    size: tuple[int, int] = (0, 0)
    orientation: int | None = None
    format: str = ""
    thumbnail: np.ndarray | None = None


def check_dataset(path: Path | str, voc_one_based: bool = True, workers: int | None = None) -> CheckReport:
    """Read the data set at ``path`` and decode all its images, collecting every defect instead of stopping at one.

    ``workers`` threads decode (default: one per core, at most 8). Raises ``InputError`` only if there is no data set.
    """
    log = ProblemLog(lenient=True)
    source = find_source(path, log)
    report = CheckReport(str(source.path), source.format)
    indexes = _read_all(source, log, voc_one_based)
    for name, index in indexes.items():
        report.splits[name] = summarise(index)
        _check_annotations(name, index, log)
    _check_classes(indexes, log, source)
    _check_outside(source, indexes, log)
    strays = find_strays(source, indexes, log)
    seen = _check_images(indexes, strays, log, workers or min(8, os.cpu_count() or 1))
    note_similar(source.path, indexes, seen, log)
    order = {"error": 0, "warning": 1, "info": 2}
    report.problems = sorted(
        log.problems, key=lambda problem: order[problem.severity]
    )  # stable: keeps the order within a severity
    return report


def summarise(index: DetectionIndex) -> SplitSummary:
    """Count images, boxes, masks and sizes of one split."""
    per_image = np.diff(index.box_ends)
    per_class = np.bincount(index.labels, minlength=len(index.classes)).tolist()
    areas = index.areas
    sides = np.sqrt(index.xywh[:, 2] * index.xywh[:, 3])
    points = (0, 5, 25, 50, 75, 95, 100)
    percentiles = np.percentile(sides, points).round(1).tolist() if len(sides) else []
    return SplitSummary(
        images=len(index),
        boxes=index.num_boxes,
        images_without_objects=int((per_image == 0).sum()),
        crowd=int(index.crowd.sum()),
        difficult=int(index.difficult.sum()),
        masks=int(index.with_mask.sum()),
        classes=dict(zip(index.classes.names, per_class, strict=True)),
        sizes={
            "small": int((areas < SMALL).sum()),
            "medium": int(((areas >= SMALL) & (areas < LARGE)).sum()),
            "large": int((areas >= LARGE).sum()),
        },
        side_percentiles={str(p): v for p, v in zip(points, percentiles, strict=False)},
    )


def _read_all(source: Source, log: ProblemLog, voc_one_based: bool) -> dict[str, DetectionIndex]:
    """Read all splits that can be read; note the others as problems."""
    names = whole_splits(source)
    # VOC's splits are read together: they share files, and the defects of a file are reported once.
    groups = [names] if source.format == "voc" else [[name] for name in names]
    indexes: dict[str, DetectionIndex] = {}
    for group in groups:
        try:
            indexes.update(read_source(source, group, log, voc_one_based))
        except InputError as error:
            file, place, message = _position(error)
            if file is None:
                file = source.layout[group[0]] if isinstance(source.layout, dict) else source.path
            split = "" if source.format == "voc" else f"split {group[0]}"
            log.note("unreadable", "error", file, ", ".join(filter(None, (split, place))), message)
    return indexes


def _position(error: InputError) -> tuple[Path | None, str, str]:
    """Return the file that a message begins with, the place in it and the rest; no file if it begins otherwise."""
    text = str(error)
    for end in (i for i, letter in enumerate(text) if letter == ":" and text[i : i + 2] == ": "):
        name, _, place = text[:end].partition(", ")
        for path, inside in ((Path(text[:end]), ""), (Path(name), place)):
            if path.is_absolute() and os.path.exists(path):  # False for a text that is no path
                return path, inside, text[end + 2 :]
    return None, "", text


def _check_annotations(name: str, index: DetectionIndex, log: ProblemLog) -> None:
    """Note defects that concern several boxes: duplicates, missing masks, images without objects."""
    for i in range(len(index)):
        rows = slice(int(index.box_ends[i]), int(index.box_ends[i + 1]))
        seen: dict[tuple[float, ...], int] = {}
        for row, (box, label) in enumerate(zip(index.xywh[rows].tolist(), index.labels[rows].tolist(), strict=True)):
            first = seen.setdefault((label, *box), row)
            if first != row:
                ids = index.annotation_ids[rows]
                log.note(
                    "duplicate-box", "warning", index.path(i), f"annotation id {ids[row]}",
                    f"repeats annotation id {ids[first]} ({index.classes.names[label]}); remove one of them",
                )  # fmt: skip
    if gap := mask_gap(index):
        message = f"{gap}; training fills their boxes, and masks cannot be evaluated: add the masks"
        log.note("no-mask", "warning", index.root, f"split {name}", message)
    empty = int((np.diff(index.box_ends) == 0).sum())
    if empty:
        message = f"{empty} of {len(index)} images have no objects; they serve as background"
        log.note("no-objects", "info", index.root, f"split {name}", message)


def _check_classes(indexes: dict[str, DetectionIndex], log: ProblemLog, source: Source) -> None:
    """Note classes without objects, and splits whose classes differ."""
    first = next(iter(indexes.values()), None)
    for name, index in indexes.items():
        counts = np.bincount(index.labels, minlength=len(index.classes))
        absent = [n for n, count in zip(index.classes.names, counts, strict=True) if not count]
        if absent and len(index):
            training = name in ("train", "all")
            shown = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
            log.note(
                "class-without-objects", "warning" if training else "info", source.path, f"split {name}",
                f"no object of {shown}" + ("; it cannot be learned" if training else ""),
            )  # fmt: skip
        if first is not None and index.classes != first.classes:
            differing = ", ".join(sorted(set(index.classes.names) ^ set(first.classes.names))) or "their ids or order"
            message = f"its classes differ from those of {first.name} ({differing}); give all splits the same classes"
            log.note("classes-differ", "error", source.path, f"split {name}", message)


def _check_outside(source: Source, indexes: dict[str, DetectionIndex], log: ProblemLog) -> None:
    """Note the entries that name files outside the data set, unless the reader has done so."""
    if not any(problem.kind == "image-outside" for problem in log.problems):
        for found in outside_files(source, indexes):
            log.note("image-outside", "warning", found.path, found.place, str(found))


def _check_images(
    indexes: dict[str, DetectionIndex], strays: list[Path], log: ProblemLog, workers: int
) -> list[SeenImage]:
    """Decode every image once, compare it with its annotations and find exact copies; decode the strays."""
    seen: list[SeenImage] = []
    uses: defaultdict[Path, list[tuple[str, int]]] = defaultdict(list)
    for name, index in indexes.items():
        for i in range(len(index)):
            uses[index.path(i)].append((name, i))
    reported = {problem.file for problem in log.problems if problem.kind == "bad-image"}
    copies: defaultdict[str, list[tuple[str, Path, int]]] = defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of metadata; what matters is reported below
        with ThreadPoolExecutor(workers) as pool:
            for path, found in zip(strays, pool.map(_inspect, strays), strict=True):
                _check_file(path, "not annotated", found, log, stray=True)
            for (path, places), found in zip(uses.items(), pool.map(_inspect, uses), strict=True):
                if found.digest:
                    copies[found.digest] += [(name, path, indexes[name].image_id(i)) for name, i in places]
                if found.thumbnail is not None:
                    seen.append(SeenImage(path, places, found.digest, found.thumbnail))
                if str(path) not in reported:
                    _check_image(path, places, found, indexes, log)
    for group in copies.values():
        _check_copies(group, log)
    return seen


def _inspect(path: Path) -> _Inspection:
    """Hash and decode one image; called in threads, since Pillow and hashlib release the interpreter lock."""
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        reason = (
            "there is no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        )
        return _Inspection(InputError(f"{path}: {reason}; restore it, or remove it from the annotations"), missing=True)
    try:
        pixels = read_image(path)
    except InputError as error:
        return _Inspection(error, digest=digest)
    form, turn = image_header(path)
    return _Inspection(None, False, digest, pixels.shape[:2], turn, form, thumbnail(pixels))


def _check_image(
    path: Path,
    places: list[tuple[str, int]],
    found: _Inspection,
    indexes: dict[str, DetectionIndex],
    log: ProblemLog,
) -> None:
    """Compare the size of an image file with its annotations, and note differences."""
    name, i = places[0]
    if not _check_file(path, f"split {name}, image id {indexes[name].image_id(i)}", found, log):
        return
    for name, i in places:
        stated = indexes[name].size(i)
        if stated == found.size:
            continue
        message = str(WrongSize(path, stated, found.size))
        log.note("wrong-size", "error", path, f"split {name}, image id {indexes[name].image_id(i)}", message)


def _check_file(path: Path, place: str, found: _Inspection, log: ProblemLog, stray: bool = False) -> bool:
    """Note defects of an image file and return True if it can be read. A stray image only gives warnings."""
    if found.error is not None:
        message = str(found.error).removeprefix(f"{path}: ")
        kind = "missing-image" if found.missing else "damaged-image"
        log.note(kind, "warning" if stray else "error", path, place, message)
        return False
    if _turned(found):
        log.note("exif-orientation", "info", path, place, f"EXIF orientation {found.orientation} is applied when read")
    elif found.orientation not in (None, 1):
        message = f"EXIF orientation {found.orientation} does not exist; the image is read as stored"
        log.note("exif-orientation", "warning", path, place, message)
    if path.suffix.lower() not in _SUFFIXES.get(found.format, {path.suffix.lower()}):
        log.note(
            "wrong-suffix", "info", path, place, f"holds {found.format} data despite its suffix; it is read as such"
        )
    return True


def _turned(found: _Inspection) -> bool:
    """Return True if the EXIF orientation moves any pixel."""
    return found.orientation in range(2, 9)


def _check_copies(group: Iterable[tuple[str, Path, int]], log: ProblemLog) -> None:
    """Note images of the same content: a warning within a split, an error in two splits."""
    (first_split, first, first_id), *others = group
    seen = {first_split: (first, first_id)}
    for split, path, image_id in others:
        place = f"split {split}, image id {image_id}"
        if split in seen:
            original, original_id = seen[split]
            message = f"is an exact copy of {original} (image id {original_id}) in the same split; remove one"
            log.note("duplicate-image", "warning", path, place, message)
            continue
        message = f"is also in split {first_split} as {first} (image id {first_id}); remove it from one of the splits"
        log.note("shared-image", "error", path, place, message)
        seen[split] = (path, image_id)
