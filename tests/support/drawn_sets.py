"""Data sets of coloured rectangles on grey, in any format, whose boxes can be found again in the pixels."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from boxwright.data.formats.coco.writer import write_coco
from boxwright.data.formats.opening import open_splits
from boxwright.data.formats.voc.writer import write_voc
from boxwright.data.formats.yolo.writer import write_yolo
from boxwright.data.index import DetectionIndex
from boxwright.data.packing import ImageRecord
from boxwright.structures import Classes

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230)}

Object = tuple[str, int, int, int, int]
"""Name of a class, and the corners of a rectangle, the ends exclusive. Names that are no colour are drawn in red."""


def draw(path: Path, objects: Sequence[Object], size: tuple[int, int] = (60, 40), shade: int | None = None) -> Path:
    """Write a grey image, ``size`` width and height, with a rectangle for each object; a name has its own grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = zlib.crc32(path.name.encode()) if shade is None else shade
    image = Image.new("RGB", size, tuple(60 + (code >> bits) % 60 for bits in (0, 8, 16)))
    for name, *box in objects:
        image.paste(COLOURS.get(name, COLOURS["red"]), tuple(box))
    image.save(path)
    return path


def write_set(
    folder: Path,
    format: str,
    splits: Mapping[str, Mapping[str, Sequence[Object]]],
    classes: Sequence[str] = tuple(COLOURS),
    size: tuple[int, int] = (60, 40),
    polygons: bool = False,
) -> Path:
    """Write a data set: the objects of each image by file name and split. ``polygons`` gives each object a mask."""
    indexes: dict[str, DetectionIndex] = {}
    for split, images in splits.items():
        records = [
            ImageRecord(
                path=draw(folder.parent / f"drawn_{folder.name}" / split / name, objects, size),
                image_id=number,
                height=size[1],
                width=size[0],
                boxes=[box for _, *box in objects],
                labels=[list(classes).index(name) for name, *_ in objects],
                segmentations=[[[x1, y1, x2, y1, x2, y2, x1, y2]] for _, x1, y1, x2, y2 in objects]
                if polygons
                else None,
            )
            for number, (name, objects) in enumerate(images.items(), start=1)
        ]
        indexes[split] = DetectionIndex.build(Classes.from_names(tuple(classes)), records, name=split)
    {"coco": write_coco, "voc": write_voc, "yolo": write_yolo}[format](folder, indexes)
    return folder


def found_objects(path: Path) -> dict[str, list[int]]:
    """Return the corners of the visible part of each colour in an image."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    found = {}
    for name, colour in COLOURS.items():
        ys, xs = np.nonzero(np.abs(pixels - colour).max(axis=2) < 40)
        if len(xs):
            found[name] = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
    return found


def read_set(folder: Path) -> dict[str, dict[str, list[tuple[str, list[float]]]]]:
    """Return the objects of a data set as it is read: class and corners, by file name and split."""
    return {
        split: {
            index.path(i).name: [
                (index.classes.names[label], [round(float(v), 3) for v in box])
                for label, box in zip(index.annotations(i).labels, index.annotations(i).boxes, strict=True)
            ]
            for i in range(len(index))
        }
        for split, index in open_splits(folder).items()
    }
