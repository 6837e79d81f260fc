"""Map the columns of a torchvision head to classes.

torchvision counts labels from 1, with 0 for background, and labels COCO's classes by their ids: 91 columns, of which 11
were never trained. Therefore a column is looked up by its label and never by its rank among the used ones.
"""

from __future__ import annotations

from boxwright.structures import Classes, InputError
from boxwright.weights.common.class_names import COCO, VOC

COCO_COLUMNS = 91


def columns_of_classes(columns: int, classes: Classes | None, background: bool) -> tuple[Classes, list[int]]:
    """Return the classes of a head with ``columns`` columns, and the column of each class.

    ``background``: True where column 0 is background (softmax), False where it is an ordinary category (RetinaNet).
    Without ``classes``, 91 columns are COCO's, 21 are VOC's, and others are named by their label, ``class_1``, ... With
    ``classes``, their number is that of the columns without the first, or (RetinaNet) that of the columns; otherwise
    COCO's names select the columns, or the ids of the classes are the labels. Raises InputError where none of these
    holds.
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
    """Return the label of each class in an exported head, and its number of columns: COCO's ids for COCO's classes,
    else 1 and up.
    """
    if classes.names == COCO.names:
        return list(COCO.ids), COCO_COLUMNS
    return list(range(1, len(classes) + 1)), len(classes) + 1
