"""Data sets of coloured images in any format and any splits, which can be compared image by image."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from boxwright.data.formats.coco.writer import write_coco
from boxwright.data.formats.opening import open_splits
from boxwright.data.formats.voc.writer import write_voc
from boxwright.data.formats.yolo.writer import write_yolo
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.structures import Classes
from tests.support.dataset_files import write_drawn

CLASSES = ("ant", "bee", "cow")

Content = Mapping[str, Sequence[str]]
"""The class of each object of an image, by the name of the file."""


def many(count: int, pattern: str = "{:02d}.png") -> dict[str, list[str]]:
    """Name ``count`` images: every second one has ants, every third two bees, every tenth a cow, some have nothing."""
    return {
        pattern.format(i): ["ant"] * (i % 2 == 0) + ["bee"] * 2 * (i % 3 == 0) + ["cow"] * (i % 10 == 0)
        for i in range(count)
    }


def write_labelled(
    folder: Path, splits: Mapping[str, Content], format: str = "coco", polygons: bool = False, classes=CLASSES
) -> Path:
    """Write a data set of drawn images of 60x40 with a box for each name of a class, 10 pixels apart."""
    indexes = {}
    for split, images in splits.items():
        records = []
        for number, (name, labels) in enumerate(images.items(), start=1):
            boxes = [[10.0 * k, 5.0, 10.0 * k + 8, 20.0 + k] for k in range(len(labels))]
            records.append(
                ImageRecord(
                    path=write_drawn(folder.parent / f"drawn_{folder.name}" / split / name),
                    image_id=number,
                    height=40,
                    width=60,
                    boxes=boxes,
                    labels=[classes.index(label) for label in labels],
                    segmentations=[[[x1, y1, x2, y1, x2, y2]] for x1, y1, x2, y2 in boxes] if polygons else None,
                )
            )
        indexes[split] = DetectionIndex.build(Classes.from_names(list(classes)), records, name=split)
    {"coco": write_coco, "voc": write_voc, "yolo": write_yolo}[format](folder, indexes)
    return folder


def objects_by_image(folder: Path) -> dict[bytes, list[tuple[str, tuple[int, ...], object]]]:
    """Return class, box and mask of the objects of each image of a data set, by the bytes of the image file."""
    found = {}
    for index in open_splits(folder).values():
        for i in range(len(index)):
            rows = index.annotations(i)
            masks = rows.segmentations or [None] * len(rows.labels)
            found[index.path(i).read_bytes()] = [
                (index.classes.names[label], tuple(round(v) for v in box), mask)
                for label, box, mask in zip(rows.labels, rows.boxes.tolist(), masks, strict=True)
            ]
    return found


def names_by_split(folder: Path) -> dict[str, list[str]]:
    """Return the sorted names of the images of each split."""
    return {
        split: sorted(os.path.basename(index.relative_path(i)) for i in range(len(index)))
        for split, index in open_splits(folder).items()
    }
