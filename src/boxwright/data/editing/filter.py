"""Filter a data set: rename, merge and leave out classes, tiny boxes, images without objects, images by name."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from boxwright.data.editing.backgrounds import check_empty_share, has_objects, kept_backgrounds
from boxwright.data.editing.class_names import ClassChange, change_classes, merged_classes
from boxwright.data.formats.opening import DatasetFormat
from boxwright.data.formats.splits import is_held_back
from boxwright.data.formats.writing.output import new_folder
from boxwright.data.formats.writing.whole import CopyOptions, WholeDataset, read_whole, write_whole
from boxwright.data.index import DetectionIndex
from boxwright.data.packing import CROWD
from boxwright.structures import InputError


@dataclass(frozen=True, kw_only=True)
class FilterRules:
    """Content of a data set that stays, and the names that its classes get.

    ``rename``, ``drop`` and ``keep`` as in `change_classes`. ``min_size`` in pixels of the shorter side, ``min_area``
    in square pixels and ``min_share`` as a share of the image's area, all of the box in the original image: smaller
    boxes are left out, or with ``tiny="ignore"`` become crowd regions. ``match``: patterns such as ``night_*`` of file
    names or of paths below the data set; images that match none are left out. ``without_empty`` leaves out all images
    without objects. ``empty_share`` keeps as many of them, chosen by ``seed``, as make up this share of a split that is
    not held back for validation or testing. Neither: all stay, as background.

    Raises ``InputError`` for a negative size and a share out of range.
    """

    rename: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    min_size: float = 0
    min_area: float = 0
    min_share: float = 0
    tiny: Literal["drop", "ignore"] = "drop"
    match: tuple[str, ...] = ()
    without_empty: bool = False
    empty_share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("--min-size", self.min_size), ("--min-area", self.min_area)):
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} {value}: give a number of pixels of 0 or more")
        if not 0 <= self.min_share < 1:
            raise InputError(f"--min-share {self.min_share}: give a share of the image's area from 0 to below 1")
        if self.tiny not in ("drop", "ignore"):
            raise InputError(f"tiny={self.tiny!r}: tiny boxes are dropped or ignored (`drop`, `ignore`)")
        check_empty_share(self.empty_share)
        if self.without_empty and self.empty_share is not None:
            raise InputError("--without-empty and --empty-share exclude each other; give one")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: give a whole number of 0 or more")


@dataclass(frozen=True)
class ClassRow:
    """A class before and after: its new ``name``, None if it is dropped; numbers of boxes in all splits."""

    old: str
    name: str | None
    before: int
    after: int


@dataclass(frozen=True)
class SplitRow:
    """Numbers of a split before and after; ``empty`` counts images without objects."""

    images: tuple[int, int]
    boxes: tuple[int, int]
    empty: tuple[int, int]


@dataclass(frozen=True)
class FilterReport:
    """Result of filtering. ``output`` is None for a dry run."""

    output: str | None
    source_format: DatasetFormat
    format: DatasetFormat
    classes: tuple[ClassRow, ...]
    splits: dict[str, SplitRow]
    announcements: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary for JSON."""
        return asdict(self)


def filter_dataset(
    path: Path | str,
    output: Path | str,
    rules: FilterRules,
    options: CopyOptions | None = None,
    *,
    dry_run: bool = False,
) -> FilterReport:
    """Write what ``rules`` leave of the data set at ``path`` to the folder ``output``; with ``dry_run`` only count.

    Raises ``InputError`` as `boxwright.data.formats.convert.convert_dataset`, for a class that is not there, a pattern
    that no image matches, tiny boxes to ignore in YOLO, and if no class or no image is left.
    """
    options = options or CopyOptions()
    target = new_folder(output)
    read = read_whole(path, target, options)
    if rules.tiny == "ignore" and read.format == "yolo":
        raise InputError("tiny boxes to ignore: YOLO cannot mark them; use --tiny drop, or --format coco")
    first = next(iter(read.splits.values()))
    change = change_classes(first.classes, rules.rename, rules.drop, rules.keep, read.source.format)
    said = merged_classes(first.classes, change)
    filtered, marks = _filtered(read, rules, change, said)
    classes = _class_rows(first.classes.names, change, read.splits, marks)
    said += [f"no box of class {name} is left" for name in _emptied(classes)]
    splits = {name: _split_row(index, filtered.get(name)) for name, index in read.splits.items()}
    if not dry_run:
        said += write_whole(target, read.format, options, filtered).announcements
    place = None if dry_run else str(target)
    return FilterReport(place, read.source.format, read.format, classes, splits, (*read.announcements, *said))


def _filtered(
    read: WholeDataset, rules: FilterRules, change: ClassChange, said: list[str]
) -> tuple[dict[str, DetectionIndex], dict[str, np.ndarray]]:
    """Return the splits that are left, and a mask of the boxes of each split of the source that stay."""
    chosen = _chosen_images(read, rules.match)
    filtered: dict[str, DetectionIndex] = {}
    marks: dict[str, np.ndarray] = {}
    ignored = dropped = 0
    for name, index in read.splits.items():
        labels = np.array(change.labels, dtype=np.int32)[index.labels] if index.num_boxes else index.labels
        tiny = _tiny(index, rules) & (labels >= 0)
        staying = labels >= 0 if rules.tiny == "ignore" else (labels >= 0) & ~tiny
        ignoring = tiny if rules.tiny == "ignore" else np.zeros_like(tiny)
        flags = index.flags | ignoring * np.uint8(CROWD)
        changed = replace(index, labels=labels, flags=flags.astype(np.uint8), classes=change.classes)
        changed = changed.select_boxes(staying)
        images = chosen[name] & _with_backgrounds(changed, chosen[name], rules, name)
        within = np.repeat(images, np.diff(index.box_ends))
        marks[name] = staying & within
        ignored += int((ignoring & within).sum())
        dropped += int((tiny & ~staying & within).sum())
        if images.any():
            filtered[name] = changed.subset(np.flatnonzero(images))
        else:
            said.append(f"split {name}: no image is left, so it is left out")
    if not filtered:
        raise InputError("no image is left in any split; choose another --match, or keep images without objects")
    if dropped:
        said.append(f"{dropped} tiny boxes are left out, so their objects become background")
    if ignored:
        said.append(
            f"{ignored} tiny boxes become crowd regions, which training and evaluation ignore"
            if read.format == "coco"
            else f"{ignored} tiny boxes become difficult ones, which evaluation ignores and most recipes train on"
        )
    return filtered, marks


def _chosen_images(read: WholeDataset, patterns: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return a mask of the images of each split that match one of the patterns, or of all without patterns."""
    chosen: dict[str, np.ndarray] = {}
    unused = dict.fromkeys(patterns)
    for name, index in read.splits.items():
        chosen[name] = np.full(len(index), not patterns)
        for i in range(len(index)) if patterns else ():
            path = index.relative_path(i)
            fitting = [p for p in patterns if fnmatch.fnmatchcase(path, p) or fnmatch.fnmatchcase(Path(path).name, p)]
            chosen[name][i] = bool(fitting)
            for pattern in fitting:
                unused.pop(pattern, None)
    if unused:
        example = next(index.relative_path(0) for index in read.splits.values() if len(index))
        raise InputError(f"--match {next(iter(unused))}: matches no image; one is {example}")
    return chosen


def _tiny(index: DetectionIndex, rules: FilterRules) -> np.ndarray:
    """Return a mask of the boxes that are too small, bool ``[M]``; crowd regions are none."""
    width, height = index.xywh[:, 2], index.xywh[:, 3]
    image_areas = index.sizes.astype(np.float64).prod(axis=1)
    least = np.maximum(rules.min_area, rules.min_share * np.repeat(image_areas, np.diff(index.box_ends)))
    small = (np.minimum(width, height) < rules.min_size) | (width * height < least)
    return small & ~index.crowd


def _with_backgrounds(index: DetectionIndex, chosen: np.ndarray, rules: FilterRules, split: str) -> np.ndarray:
    """Return a mask of the images to keep with regard to those without objects, bool ``[N]``."""
    empty = ~has_objects(index)
    if rules.without_empty:
        return ~empty
    if rules.empty_share is None or is_held_back(split):
        return np.ones(len(index), dtype=bool)
    kept = np.ones(len(index), dtype=bool)
    kept[chosen] = kept_backgrounds(empty[chosen], rules.empty_share, rules.seed)
    return kept


def _class_rows(
    names: tuple[str, ...],
    change: ClassChange,
    splits: Mapping[str, DetectionIndex],
    marks: Mapping[str, np.ndarray],
) -> tuple[ClassRow, ...]:
    before = sum(np.bincount(index.labels, minlength=len(names)) for index in splits.values())
    after = sum(np.bincount(index.labels[marks[s]], minlength=len(names)) for s, index in splits.items())
    return tuple(
        ClassRow(name, change.classes.names[label] if label >= 0 else None, int(b), int(a))
        for name, label, b, a in zip(names, change.labels, np.asarray(before), np.asarray(after), strict=True)
    )


def _emptied(rows: tuple[ClassRow, ...]) -> list[str]:
    """Return the new classes that had boxes and have none any more."""
    names = dict.fromkeys(row.name for row in rows if row.name is not None)
    totals = {n: (sum(r.before for r in rows if r.name == n), sum(r.after for r in rows if r.name == n)) for n in names}
    return [name for name, (before, after) in totals.items() if before and not after]


def _split_row(before: DetectionIndex, after: DetectionIndex | None) -> SplitRow:
    def numbers(index: DetectionIndex | None) -> tuple[int, int, int]:
        return (0, 0, 0) if index is None else (len(index), index.num_boxes, int((~has_objects(index)).sum()))

    images, boxes, empty = zip(numbers(before), numbers(after), strict=True)
    return SplitRow(images, boxes, empty)
