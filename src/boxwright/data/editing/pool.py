"""Put the images of several splits together, each once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from boxwright.data.index import DetectionIndex
from boxwright.structures import InputError


def pool_splits(splits: Mapping[str, DetectionIndex]) -> tuple[DetectionIndex, np.ndarray, list[str]]:
    """Return an index of the images of all ``splits``, the position of the split of each, and notes for the user.

    The positions count in the order of ``splits``, int64 ``[N]``. An image file that several splits have is taken from
    the first one. Ids that repeat between splits are numbered anew. Raises ``InputError`` for a file that has other
    objects in one split than in another, since either could be right, and for splits of different classes.
    """
    names, indexes = list(splits), list(splits.values())
    if any(index.classes != indexes[0].classes for index in indexes):
        raise InputError(f"{indexes[0].root}: the splits have different classes; give all the same")
    owner = np.repeat(np.arange(len(indexes)), [len(index) for index in indexes])
    pooled = join_indexes(indexes)
    first: dict[str, int] = {}
    repeated: list[int] = []
    for i in range(len(pooled)):
        place = first.setdefault(os.path.realpath(pooled.path(i)), i)
        if place == i:
            continue
        if not same_objects(pooled, place, i):
            raise InputError(
                f"{pooled.path(i)}: is in the splits {names[owner[place]]} and {names[owner[i]]} with different "
                "objects; remove one of the entries"
            )
        repeated.append(i)
    notes = []
    if pooled.image_ids.tolist() != [number for index in indexes for number in index.image_ids.tolist()]:
        notes.append("ids repeat between the splits, so images and objects are numbered anew")
    if repeated:
        notes.append(_repeats(repeated, pooled))
        kept = np.setdiff1d(np.arange(len(pooled)), repeated)
        pooled, owner = pooled.subset(kept), owner[kept]
    return pooled, owner, notes


def join_indexes(indexes: Sequence[DetectionIndex]) -> DetectionIndex:
    """Return one index of the images of several ones of the same classes, at least one, in their order.

    Root and name are those of the first. Where an image id repeats, images and boxes are numbered from 1.
    """
    first = indexes[0]
    if len(indexes) == 1:
        return first
    paths = [
        (index.relative_path(i) if index.root == first.root else str(index.path(i).absolute())).encode(
            "utf-8", "surrogateescape"
        )
        for index in indexes
        for i in range(len(index))
    ]
    image_ids = np.concatenate([index.image_ids for index in indexes])
    annotation_ids = np.concatenate([index.annotation_ids for index in indexes])
    if len(np.unique(image_ids)) < len(image_ids):
        image_ids = np.arange(1, len(image_ids) + 1)
        annotation_ids = np.arange(1, len(annotation_ids) + 1)
    lengths = [np.diff(i.text_ends) if i.text_ends is not None else np.zeros(i.num_boxes, np.int64) for i in indexes]
    masks = any(index.has_masks for index in indexes)
    return replace(
        first,
        image_ids=image_ids,
        sizes=np.concatenate([index.sizes for index in indexes]),
        paths=np.frombuffer(b"".join(paths), dtype=np.uint8).copy(),
        path_ends=_ends([len(path) for path in paths]),
        box_ends=_ends(np.concatenate([np.diff(index.box_ends) for index in indexes])),
        xywh=np.concatenate([index.xywh for index in indexes]),
        labels=np.concatenate([index.labels for index in indexes]),
        flags=np.concatenate([index.flags for index in indexes]),
        areas=np.concatenate([index.areas for index in indexes]),
        annotation_ids=annotation_ids,
        texts=np.concatenate([index.texts for index in indexes if index.has_masks]) if masks else first.texts,
        text_ends=_ends(np.concatenate(lengths)) if masks else None,
    )


def _ends(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return where each item of a packed column ends, from 0 on, int64."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def same_objects(index: DetectionIndex, i: int, j: int) -> bool:
    """Return True if two images have equal boxes, classes, flags and masks, in the same order."""
    a, b = index.annotations(i), index.annotations(j)
    columns = ("boxes", "labels", "crowd", "difficult")
    same = all(np.array_equal(getattr(a, column), getattr(b, column)) for column in columns)
    return same and a.segmentations == b.segmentations


def _repeats(repeated: Sequence[int], pooled: DetectionIndex) -> str:
    name = pooled.path(repeated[0]).name
    if len(repeated) == 1:
        return f"1 image was in two splits ({name}) and is taken once"
    return f"{len(repeated)} images were in two splits (such as {name}) and are taken once"
