"""Groups of images that stay in one split: by a pattern of their names, exact copies, near-duplicates."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from boxwright.data.index import DetectionIndex
from boxwright.data.splitting import group_numbers
from boxwright.structures import InputError


def groups_of_names(index: DetectionIndex, pattern: str) -> tuple[np.ndarray, list[str]]:
    """Number the images by what a regular expression finds in their names, int64 ``[N]``, with notes for the user.

    The key of an image is what the brackets of ``pattern`` hold where it is first found, or all that it matches if it
    has none. It is searched in the name of the file, or, if it has a ``/``, in the path below the data set. An image in
    whose name it is not found is a group of its own.

    Raises ``InputError`` for a pattern that is no regular expression, one that is found in no name, and one that puts
    all images into one group.
    """
    expression = _compiled(pattern)
    names = [index.relative_path(i) for i in range(len(index))]
    if "/" not in pattern:
        names = [name.rpartition("/")[2] for name in names]
    found = [expression.search(name) for name in names]
    missed = [name for name, match in zip(names, found, strict=True) if match is None]
    if len(missed) == len(names):
        where = "path below the data set" if "/" in pattern else "name"
        raise InputError(f"--group-by {pattern}: is found in no {where} of the {len(names)} images, such as {names[0]}")
    keys = [
        name if match is None else (match.groups() or (match[0],)) for name, match in zip(names, found, strict=True)
    ]
    numbers = group_numbers(keys)
    count = int(numbers.max()) + 1
    if count == 1 and len(names) > 1:
        key = ", ".join(repr(part) for part in keys[0])
        raise InputError(
            f"--group-by {pattern}: finds {key} in all {len(names)} images, such as {names[0]}, so they are one group; "
            "put brackets around what differs between the groups"
        )
    notes = [f"by --group-by, the {len(names)} images are {_groups(numbers)}"]
    if count == len(names):
        notes = [f"--group-by {pattern}: every image is a group of its own, so it keeps none together"]
    elif missed:
        verb = "1 image does" if len(missed) == 1 else f"{len(missed)} images do"
        notes.append(f"{verb} not match --group-by {pattern}, such as {missed[0]}; each is a group of its own")
    return numbers, notes


def groups_of_copies(paths: Sequence[Path]) -> tuple[np.ndarray, list[str]]:
    """Number image files by their content, int64 ``[N]``, with notes for the user. Few files have to be read."""
    sizes: defaultdict[int, list[int]] = defaultdict(list)
    for i, path in enumerate(paths):
        sizes[path.stat().st_size].append(i)
    keys: list[object] = list(range(len(paths)))
    for rows in sizes.values():
        for i in rows if len(rows) > 1 else ():
            with open(paths[i], "rb") as file:
                keys[i] = hashlib.file_digest(file, "sha256").digest()
    numbers = group_numbers(keys)
    return numbers, _note_copies(numbers, "exact copies")


def groups_of_similar(paths: Sequence[Path]) -> tuple[np.ndarray, list[str]]:
    """Number image files so that near-duplicates have one number, int64 ``[N]``, with notes for the user.

    Raises ``InputError`` for an image that cannot be read.
    """
    from boxwright.data.similarity.search import find_similar
    from boxwright.data.similarity.thumbnails import read_thumbnails

    numbers = find_similar(read_thumbnails(paths)).groups
    return numbers, _note_copies(numbers, "near-duplicates") or ["no near-duplicates were found"]


def joined_groups(*numberings: np.ndarray) -> np.ndarray:
    """Number images so that those which share a number in any of the numberings, each int ``[N]``, share one."""
    parent = list(range(len(numberings[0])))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for numbers in numberings:
        first: dict[int, int] = {}
        for i, number in enumerate(numbers.tolist()):
            a, b = root(first.setdefault(number, i)), root(i)
            parent[max(a, b)] = min(a, b)
    return group_numbers([root(i) for i in range(len(parent))])


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        hint = "; for any text write .* instead of *" if pattern.startswith("*") else ""
        raise InputError(f"--group-by {pattern}: is no regular expression: {error}{hint}") from None


def _groups(numbers: np.ndarray) -> str:
    """Say how many groups there are, and their sizes."""
    sizes = np.bincount(numbers)
    low, high = int(sizes.min()), int(sizes.max())
    of = f"{low} to {high}" if low < high else f"{low}"
    return f"{len(sizes)} groups of {of} image{'' if high == 1 else 's'}"


def _note_copies(numbers: np.ndarray, what: str) -> list[str]:
    sizes = np.bincount(numbers)
    several = sizes[sizes > 1]
    if not len(several):
        return []
    groups = "1 group" if len(several) == 1 else f"{len(several)} groups"
    largest = "" if len(several) == 1 else f", the largest of {several.max()}"
    return [f"{several.sum()} images are {what} of another one and stay together, in {groups}{largest}"]
