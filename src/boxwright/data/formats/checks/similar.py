"""Report near-duplicate images: those of two splits, which make metrics too good, and those within a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from boxwright.data.formats.problems import ProblemLog
from boxwright.data.formats.splits import is_held_back
from boxwright.data.index import DetectionIndex
from boxwright.data.similarity.search import find_similar

_MOST_NAMED = 3


@dataclass(frozen=True)
class SeenImage:
    """A decoded image: its entries in the splits, the digest of the file, and its thumbnail, uint8 ``[64, 64]``."""

    path: Path
    places: list[tuple[str, int]]
    digest: str
    thumbnail: np.ndarray


def note_similar(data: Path, indexes: Mapping[str, DetectionIndex], seen: Sequence[SeenImage], log: ProblemLog) -> None:
    """Note near-duplicates, one line for each pair of splits and each split; exact copies are reported elsewhere."""
    unique = _by_content(seen)
    found = find_similar(np.stack([image.thumbnail for image in unique])) if unique else None
    if found is None or not found.pairs:
        return
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(found.groups.tolist()):
        groups[group].append(i)
    splits_of = [{split for split, _ in image.places} for image in unique]
    names = list(indexes)
    for n, first in enumerate(names):
        for second in names[n + 1 :]:
            judged, other = (first, second) if is_held_back(first) and not is_held_back(second) else (second, first)
            leaks = [leak for group in groups.values() for leak in _leaks(group, splits_of, judged, other)]
            if leaks:
                _note_leak(data, indexes, unique, sorted(leaks), judged, other, log)
    for name in names:
        within = [[i for i in group if name in splits_of[i]] for group in groups.values()]
        if within := [group for group in within if len(group) > 1]:
            _note_within(indexes[name], unique, sorted(within), name, log)


def _by_content(seen: Sequence[SeenImage]) -> list[SeenImage]:
    """Take exact copies together: one image with the entries of all."""
    unique: dict[str, SeenImage] = {}
    for image in seen:
        first = unique.setdefault(image.digest, replace(image, places=[]))
        first.places.extend(image.places)
    return list(unique.values())


def _leaks(group: list[int], splits_of: list[set[str]], judged: str, other: str) -> list[tuple[int, int]]:
    """Return each image of a group that is in the split ``judged``, with another one that is in ``other``."""
    twins = [i for i in group if other in splits_of[i]][:2]
    pairs = [(i, [twin for twin in twins if twin != i][:1]) for i in group if judged in splits_of[i]]
    return [(i, twin[0]) for i, twin in pairs if twin]


def _note_leak(
    data: Path,
    indexes: Mapping[str, DetectionIndex],
    unique: Sequence[SeenImage],
    leaks: list[tuple[int, int]],
    judged: str,
    other: str,
    log: ProblemLog,
) -> None:
    """Note the images of the split ``judged`` that have a near-duplicate in ``other``."""
    index = indexes[judged]
    row, twin = _row(unique[leaks[0][0]], judged), _row(unique[leaks[0][1]], other)
    others = [index.path(_row(unique[i], judged)) for i, _ in leaks[1:]]
    message = f"is a near-duplicate of {indexes[other].path(twin)} in split {other}"
    if others:
        verb = "so is 1 more" if len(others) == 1 else f"so are {len(others)} more"
        message += f", and {verb} of the {len(index)} images of {judged}: {_named(others)}"
    message += (
        f"; they make the metrics of {judged} too good. Remove them from one of the splits, or divide the images anew "
        f"with `boxwright data split {data} --output NEW --near-duplicates`"
    )
    place = f"split {judged}, image id {index.image_id(row)}"
    log.note("similar-images", "warning", index.path(row), place, message)


def _row(image: SeenImage, split: str) -> int:
    """Return the position of an image in a split."""
    return next(row for name, row in image.places if name == split)


def _note_within(
    index: DetectionIndex, unique: Sequence[SeenImage], groups: list[list[int]], name: str, log: ProblemLog
) -> None:
    """Note the images of a split that are near-duplicates of each other."""
    count = sum(map(len, groups))
    first = [[index.path(_row(unique[i], name)).name for i in group[:2]] for group in groups[:_MOST_NAMED]]
    pairs = [" and ".join(names) for names in first]
    left = len(groups) - _MOST_NAMED
    more = f"; and {left} more group{'s' if left > 1 else ''}" if left > 0 else ""
    log.note(
        "similar-images", "info", index.root, f"split {name}",
        f"{count} of {len(index)} images are near-duplicates of another one: {'; '.join(pairs)}{more}. They teach "
        "little that is new; keep them in one split",
    )  # fmt: skip


def _named(paths: Sequence[Path]) -> str:
    """Return the names of the first files and the number of the others."""
    names = ", ".join(path.name for path in paths[:_MOST_NAMED])
    return names + (f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else "")
