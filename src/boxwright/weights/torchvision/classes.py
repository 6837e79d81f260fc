"""Which columns of a torchvision head stand for which classes.

torchvision counts labels from 1, with 0 for background, and COCO's by their ids: 91 columns, of which 11 were never
trained. A column is therefore never taken for its number among those in use.
"""

from __future__ import annotations

from boxwright.structures import Classes, InputError
from boxwright.weights.common.class_names import COCO, VOC

COCO_COLUMNS = 91


def columns_of_classes(columns: int, classes: Classes | None, background: bool) -> tuple[Classes, list[int]]:
    """The classes of a head with ``columns``, and the column of each.

    ``background``: whether column 0 is background (softmax), or any category (RetinaNet). Without ``classes`` 91
    columns are COCO's, 21 VOC's, and others are named by their label, ``class_1``, ... With them, there are as many as
    columns without the first, or (RetinaNet) as columns; else COCO's names tell their columns, or their ids are the
    labels. InputError where none is so.
    """
    first = 1 if background else 0
    if classes is None:
        if columns == COCO_COLUMNS:
            return COCO, list(COCO.ids)
        if columns == len(VOC) + 1:
            return VOC, list(range(1, columns))
        labels = list(range(first, columns))
        return Classes(tuple(f"class_{label}" for label in labels), tuple(labels)), labels
    if len(classes) == columns - 1:
        return classes, list(range(1, columns))
    if len(classes) == columns and not background:
        return classes, list(range(columns))
    if columns == COCO_COLUMNS and set(classes.names) <= set(COCO.names):
        return classes, [COCO.ids[COCO.names.index(name)] for name in classes.names]
    known = set(COCO.ids) if columns == COCO_COLUMNS else set(range(1, columns))
    if set(classes.ids) <= known:
        return classes, list(classes.ids)
    raise InputError(
        f"{len(classes)} classes do not fit a head of {columns} columns: give {columns - 1}, in the order of its "
        "labels from 1, or classes whose ids are these labels"
    )


def columns_to_export(classes: Classes) -> tuple[list[int], int]:
    """The label of each class in an exported head, and its number of columns: COCO's ids for COCO's classes, else 1
    and up."""
    if classes.names == COCO.names:
        return list(COCO.ids), COCO_COLUMNS
    return list(range(1, len(classes) + 1)), len(classes) + 1
