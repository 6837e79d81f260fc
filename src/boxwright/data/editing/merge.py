"""Merge several data sets into one, with their classes unified by name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.data.editing.class_names import ClassChange, alike, change_classes, merged_classes
from boxwright.data.editing.groups import groups_of_copies
from boxwright.data.editing.pool import join_indexes, same_objects
from boxwright.data.formats.opening import DatasetFormat, detect_format
from boxwright.data.formats.splits import split_rank
from boxwright.data.formats.writing.output import new_folder
from boxwright.data.formats.writing.whole import CopyOptions, WholeDataset, read_whole, write_whole
from boxwright.data.index import DetectionIndex
from boxwright.structures import Classes, InputError

_MOST_NAMED = 5


@dataclass(frozen=True)
class MergedClass:
    """A class of the new data set, and the boxes that each of the data sets adds, in the order in which they are given.

    Those of images that were taken from an earlier data set are not counted.
    """

    name: str
    boxes: tuple[int, ...]


@dataclass(frozen=True)
class MergedSplit:
    """Numbers of a split: images of each of the data sets, images and boxes of the new one."""

    sources: tuple[int, ...]
    images: int
    boxes: int


@dataclass(frozen=True)
class MergeReport:
    """Result of merging. ``sources``: the data sets as named in ``announcements``; ``output`` None for a dry run."""

    output: str | None
    format: DatasetFormat
    sources: tuple[str, ...]
    splits: dict[str, MergedSplit]
    classes: tuple[MergedClass, ...]
    announcements: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary for JSON."""
        return asdict(self)


def merge_datasets(
    paths: Sequence[Path | str],
    output: Path | str,
    renames: Sequence[str] = (),
    options: CopyOptions | None = None,
    *,
    dry_run: bool = False,
) -> MergeReport:
    """Write the data sets at ``paths`` as one to the folder ``output``; with ``dry_run`` only count.

    Splits of one name are put together, and classes of one name become one. ``renames``, "old=new" each, apply to the
    classes of all data sets. Classes are in the order in which they appear, with the category id of their first data
    set, or the next free one where another class has it. The format is that of the data sets, or COCO if they have
    several and ``options`` name none. An image that is in several data sets, byte for byte, is taken once per split if
    its objects agree, else each time, with a note.

    Raises ``InputError`` as `boxwright.data.formats.convert.convert_dataset`, for fewer than two data sets, for one
    that is given twice, and for a class to rename that none of them has.
    """
    options = options or CopyOptions()
    _check_paths(paths)
    target = new_folder(output)
    formats: list[DatasetFormat] = list(dict.fromkeys([detect_format(path) for path in paths]))
    said: list[str] = []
    if options.format is None and len(formats) > 1:
        said.append(f"the formats differ ({', '.join(formats)}), so coco is written; --format names another")
    to: DatasetFormat = options.format or (formats[0] if len(formats) == 1 else "coco")
    options = replace(options, format=to)
    reads = [read_whole(path, target, options) for path in paths]
    sources = _names_of(paths)
    said += [f"{source}: {text}" for source, read in zip(sources, reads, strict=True) for text in read.announcements]
    united, change = _united(reads, renames, to)
    said += merged_classes(united, change)
    relabelled = [_relabelled(read, united, change) for read in reads]
    said += _class_notes(sources, reads, relabelled, change.classes)
    merged, owners, repeats = _merged(sources, relabelled)
    said += repeats
    splits = {name: _split_counts(name, relabelled, index) for name, index in merged.items()}
    if not dry_run:
        said += write_whole(target, to, options, merged).announcements
    place = None if dry_run else str(target)
    return MergeReport(place, to, sources, splits, _class_counts(merged, owners, len(reads)), tuple(said))


def _check_paths(paths: Sequence[Path | str]) -> None:
    if len(paths) < 2:
        raise InputError(
            f"{len(paths)} data set{'' if len(paths) == 1 else 's'} to merge: give two or more; to rewrite one use "
            "`boxwright data filter` or `boxwright data convert`"
        )
    first: dict[str, Path | str] = {}
    for path in paths:
        other = first.setdefault(os.path.realpath(os.path.expanduser(path)), path)
        if other is not path:
            raise InputError(f"{path}: is given twice; give each data set once")


def _names_of(paths: Sequence[Path | str]) -> tuple[str, ...]:
    """Return a short name for each data set: that of its folder or file, or the path where it is not unique."""
    names = [Path(path).name or str(path) for path in paths]
    return tuple(str(p) if names.count(name) > 1 else name for name, p in zip(names, paths, strict=True))


def _united(
    reads: Sequence[WholeDataset], renames: Sequence[str], format: DatasetFormat
) -> tuple[Classes, ClassChange]:
    """Return the classes of all data sets, and what they become by renaming."""
    ids: dict[str, int] = {}
    for read in reads:
        classes = _classes_of(read)
        for name, number in zip(classes.names, classes.ids, strict=True):
            if name not in ids:
                ids[name] = number if number not in ids.values() else max(ids.values()) + 1
    united = Classes(tuple(ids), tuple(ids.values()))
    return united, change_classes(united, renames, (), (), format)


def _classes_of(read: WholeDataset) -> Classes:
    return next(iter(read.splits.values())).classes


def _relabelled(read: WholeDataset, united: Classes, change: ClassChange) -> dict[str, DetectionIndex]:
    """Return the splits of a data set with the new classes."""
    labels = np.array([change.labels[united.names.index(name)] for name in _classes_of(read).names], dtype=np.int32)
    return {
        split: replace(index, labels=labels[index.labels] if index.num_boxes else index.labels, classes=change.classes)
        for split, index in read.splits.items()
    }


def _class_notes(
    sources: Sequence[str],
    reads: Sequence[WholeDataset],
    relabelled: Sequence[Mapping[str, DetectionIndex]],
    classes: Classes,
) -> list[str]:
    """Return a sentence for each group of names that seem to mean one class, and for classes that data sets lack."""
    said = []
    groups: dict[str, list[str]] = {}
    for name in classes.names:
        groups.setdefault(alike(name) or name, []).append(name)
    for first, *others in (names for names in groups.values() if len(names) > 1):
        remedy = " ".join(f"--rename '{other}={first}'" for other in others)
        said.append(f"classes {', '.join((first, *others))} seem to mean the same but stay apart; {remedy} merges them")
    for source, read, splits in zip(sources, reads, relabelled, strict=True):
        present = {label for index in splits.values() for label in np.unique(index.labels).tolist()}
        annotated = {name for label, name in enumerate(classes.names) if label in present}
        lacking = [name for name in classes.names if name not in annotated and name not in _classes_of(read).names]
        if lacking:
            more = f" and {len(lacking) - _MOST_NAMED} more" if len(lacking) > _MOST_NAMED else ""
            said.append(
                f"{source}: has no class {', '.join(lacking[:_MOST_NAMED])}{more}; where its images show one without a "
                "box, it counts as background"
            )
    return said


def _merged(
    sources: Sequence[str], relabelled: Sequence[Mapping[str, DetectionIndex]]
) -> tuple[dict[str, DetectionIndex], dict[str, np.ndarray], list[str]]:
    """Return the splits of the new data set, the number of the data set of each image, and sentences about repeats."""
    names = sorted({split for splits in relabelled for split in splits}, key=split_rank)
    parts = {name: [(n, splits[name]) for n, splits in enumerate(relabelled) if name in splits] for name in names}
    # a split of other root folders is joined by full paths
    joined = {name: join_indexes([index for _, index in found]) for name, found in parts.items()}
    renumbered = [
        name
        for name, found in parts.items()
        if joined[name].image_ids.tolist() != [i for _, index in found for i in index.image_ids.tolist()]
    ]
    owners_of = {
        name: np.concatenate([np.repeat(n, len(index)) for n, index in found]) for name, found in parts.items()
    }
    owners = np.concatenate(list(owners_of.values()))
    rows = [(name, i) for name, index in joined.items() for i in range(len(index))]
    said = [f"{', '.join(renumbered)}: ids repeat between the data sets, so images and objects are numbered anew"]
    kept, notes = _without_repeats(sources, joined, rows, owners)
    merged = {name: joined[name].subset(kept[name]) for name in names}
    return merged, {name: owners_of[name][kept[name]] for name in names}, (said if renumbered else []) + notes


def _without_repeats(
    sources: Sequence[str], joined: Mapping[str, DetectionIndex], rows: Sequence[tuple[str, int]], owners: np.ndarray
) -> tuple[dict[str, list[int]], list[str]]:
    """Return the images of each split to keep, and sentences about those that several data sets have."""
    numbers, _ = groups_of_copies([joined[name].path(i) for name, i in rows])
    kept: dict[str, list[int]] = {name: [] for name in joined}
    first: dict[int, list[int]] = {}
    once: list[int] = []
    differing: list[int] = []
    leaking: list[int] = []
    for k, (name, i) in enumerate(rows):
        earlier = [e for e in first.get(int(numbers[k]), []) if owners[e] != owners[k]]
        first.setdefault(int(numbers[k]), []).append(k)
        same_split = [e for e in earlier if rows[e][0] == name]
        if any(same_objects(joined[name], rows[e][1], i) for e in same_split):
            once.append(k)
            continue
        kept[name].append(i)
        if same_split:
            differing.append(k)
        elif earlier:
            leaking.append(k)

    def example(found: Sequence[int]) -> str:
        name, i = rows[found[0]]
        return f"the first is {joined[name].path(i).name} of {sources[owners[found[0]]]}"

    told = (
        (once, "images are in several data sets with the same objects, and are taken once"),
        (
            differing,
            "images are in several data sets with different objects, and are taken each time, so that they train "
            "against each other; remove one of each pair",
        ),
        (
            leaking,
            "images are in different splits of several data sets, so that metrics may be too good; divide the new data "
            "set with `boxwright data split`",
        ),
    )
    return kept, [f"{len(found)} {text}; {example(found)}" for found, text in told if found]


def _split_counts(name: str, relabelled: Sequence[Mapping[str, DetectionIndex]], index: DetectionIndex) -> MergedSplit:
    return MergedSplit(
        tuple(len(splits[name]) if name in splits else 0 for splits in relabelled), len(index), index.num_boxes
    )


def _class_counts(
    merged: Mapping[str, DetectionIndex], owners: Mapping[str, np.ndarray], sources: int
) -> tuple[MergedClass, ...]:
    classes = next(iter(merged.values())).classes
    counts = np.zeros((sources, len(classes)), dtype=np.int64)
    for name, index in merged.items():
        np.add.at(counts, (np.repeat(owners[name], np.diff(index.box_ends)), index.labels), 1)
    return tuple(MergedClass(name, tuple(counts[:, k].tolist())) for k, name in enumerate(classes.names))
