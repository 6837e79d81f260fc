"""Read COCO results files of any tool, and evaluate detections in one call."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boxwright.data.formats.entries.values import number, whole
from boxwright.data.formats.parsing import parse_json, shown
from boxwright.data.formats.problems import DatasetWarning
from boxwright.data.masks.masks import defect as mask_defect
from boxwright.data.masks.masks import plain
from boxwright.evaluation.coco import CocoEvaluation, CocoResult
from boxwright.evaluation.columns import DetectionColumns
from boxwright.evaluation.engine import IouType, box_of_mask
from boxwright.structures import InputError

if TYPE_CHECKING:
    from boxwright.data.index import DetectionIndex


def evaluate_detections(
    index: DetectionIndex,
    detections: str | Path | DetectionColumns | Iterable[tuple[Any, ...]],
    iou_type: IouType = "bbox",
) -> CocoResult:
    """Compute COCO metrics of a results file, columns, or tuples ``(image_id, boxes, scores, labels[, masks])``.

    The tuples are the arguments of `CocoEvaluation.update`. Raises InputError as that and `load_coco_detections` do.
    """
    evaluation = CocoEvaluation(index, iou_type)
    if isinstance(detections, str | Path):
        evaluation.extend(load_coco_detections(detections, index, iou_type))
    elif isinstance(detections, DetectionColumns):
        evaluation.extend(detections)
    else:
        for arguments in detections:
            evaluation.update(*arguments)
    return evaluation.compute()


def load_coco_detections(
    path: str | Path, index: DetectionIndex, iou_type: IouType | None = "bbox"
) -> DetectionColumns:
    """Read a results file: a JSON list of ``image_id``, ``category_id``, ``score``, ``bbox`` and/or ``segmentation``.

    A COCO dict whose ``annotations`` have scores is read too. Numbers may be text. Category ids are those of the data
    set. An entry with only a mask gets the box around it. For "segm" every entry needs a run-length mask; None reads
    masks if every entry has one. Warns of an empty file and of entries that repeat others. Raises InputError with the
    file and the entry's number, counted from 0, and for results of `boxwright detect` whose ids are not those of the
    data set.
    """
    path = Path(path)
    entries = _read_entries(path)
    if iou_type is None:
        iou_type = "segm" if entries and all(_has_run_lengths(entry) for entry in entries) else "bbox"
    _check_numbering(path, index)
    reader = _EntryReader(index, iou_type)
    masks: list[dict[str, Any]] = []
    image_ids, labels = np.zeros(len(entries), np.int64), np.zeros(len(entries), np.int64)
    scores, boxes = np.zeros(len(entries)), np.zeros((len(entries), 4))
    for position, entry in enumerate(entries):
        try:
            image_ids[position], labels[position], scores[position], boxes[position], mask = reader.read(entry)
        except _Defect as defect:
            raise InputError(f"{path}: entry {position} {defect}") from None
        if iou_type == "segm":
            assert mask is not None
            masks.append(mask)
    found = DetectionColumns(image_ids, boxes, scores, labels, masks if iou_type == "segm" else None)
    _warn_of_oddities(path, found)
    return found


def _warn_of_oddities(path: Path, found: DetectionColumns) -> None:
    """Warn of a file without detections, and of detections that stand twice and then count as false ones."""
    message = "holds no detections" if not len(found) else None
    table = np.column_stack([found.image_ids, found.labels, found.scores, found.boxes])
    if repeated := len(table) - len(np.unique(table, axis=0)):
        message = f"{repeated} of {len(table)} detections repeat others exactly, and count as false; remove them"
    if message is not None:
        warnings.warn(f"{path}: {message}", DatasetWarning, stacklevel=3)


def _read_entries(path: Path) -> list[Any]:
    content = parse_json(path)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        content = content["annotations"]
        if content and not any(isinstance(entry, dict) and "score" in entry for entry in content):
            raise InputError(
                f"{path}: an annotation file, not detections, since no annotation has a score; give a results file"
            )
    if not isinstance(content, list):
        raise InputError(
            f"{path}: not a list of detections; COCO results are a JSON list with one object per detection"
        )
    return content


def _check_numbering(path: Path, index: DetectionIndex) -> None:
    """Compare the files of the image ids with those of the data set, where we wrote them beside the results.

    `boxwright detect` numbers the images it is given, so its ids can be those of other images of the data set.
    """
    beside = path.with_name("images.json" if path.name == "detections.json" else f"{path.stem}.images.json")
    if not beside.is_file():
        return
    content = parse_json(beside)
    images = content.get("images") if isinstance(content, dict) else None
    files = {index.image_id(i): index.path(i).name for i in range(len(index))}
    for image in images if isinstance(images, list) else ():
        image_id = whole(image.get("id")) if isinstance(image, dict) else None
        if image_id is None or image_id not in files:
            continue
        name, expected = Path(str(image.get("path") or image.get("file_name"))).name, files[image_id]
        if name != expected:
            raise InputError(
                f"{path}: its image id {image_id} is {name} ({beside.name}), that of the data set is {expected}; "
                "the images are numbered differently: save detections for this with `boxwright evaluate --save`"
            )


class _Defect(ValueError):
    """Defect of an entry; the message follows its number."""


class _EntryReader:
    """Reader of the entries of a results file for one data set."""

    def __init__(self, index: DetectionIndex, iou_type: IouType) -> None:
        self.sizes = {index.image_id(i): index.size(i) for i in range(len(index))}
        self.labels = {category: label for label, category in enumerate(index.classes.ids)}
        self.iou_type = iou_type

    def read(self, entry: Any) -> tuple[int, int, float, Any, dict[str, Any] | None]:
        """Return image id, label, score, box and mask. Raises `_Defect`."""
        if not isinstance(entry, dict):
            raise _Defect(f"is {type(entry).__name__}, not an object with image_id, category_id, bbox and score")
        if missing := [key for key in ("image_id", "category_id", "score") if key not in entry]:
            raise _Defect(f"has no {' and no '.join(missing)}; every detection needs them")
        for key in ("image_id", "category_id"):
            if isinstance(entry[key], bool) or number(entry[key]) is None:
                raise _Defect(f"has {key} {shown(entry[key])}; it must be a number, as in the data set")
        image_id = whole(entry["image_id"])
        if image_id is None or image_id not in self.sizes:
            raise _Defect(
                f"is of image id {shown(entry['image_id'])}, which is not in the data set; give the same split"
            )
        category = whole(entry["category_id"])
        if category is None or category not in self.labels:
            ids = sorted(self.labels)
            listed = ", ".join(map(str, ids[:10])) + (" ..." if len(ids) > 10 else "")
            raise _Defect(f"has category id {shown(entry['category_id'])}; the data set has {listed}")
        score = number(entry["score"])
        if score is None or not math.isfinite(score):
            raise _Defect(f"has score {shown(entry['score'])}; it must be a finite number")
        mask = self._mask(entry, image_id)
        box = self._box(entry.get("bbox"))
        if box is None and mask is None:
            raise _Defect("has neither bbox nor a run-length mask")
        around = box_of_mask(mask) if box is None and mask is not None else box
        return image_id, self.labels[category], score, around, mask

    def _box(self, value: Any) -> list[float] | None:
        if value in (None, [], ""):
            return None
        box = [v for v in map(number, value) if v is not None and math.isfinite(v)] if isinstance(value, list) else []
        if len(box) != 4 or len(value) != 4:
            raise _Defect(f"has bbox {shown(value)}; it must be four finite numbers, x y width height")
        if box[2] < 0 or box[3] < 0:
            raise _Defect(f"has bbox {shown(value)} with a negative width or height; it must be x y width height")
        return box

    def _mask(self, entry: dict[str, Any], image_id: int) -> dict[str, Any] | None:
        """Return the run-length mask, checked if it is needed, since the mask API trusts it."""
        mask = entry.get("segmentation")
        if not _has_run_lengths(entry):
            if self.iou_type == "segm":
                raise _Defect("has no run-length mask in segmentation (size and counts), as scoring masks needs")
            return None
        if self.iou_type == "bbox" and entry.get("bbox"):
            return None
        mask = plain(mask)
        if (defect := mask_defect(mask, *self.sizes[image_id])) is not None:
            raise _Defect(f"has a mask that cannot be used: {defect}")
        return mask


def _has_run_lengths(entry: Any) -> bool:
    mask = entry.get("segmentation") if isinstance(entry, dict) else None
    return isinstance(mask, dict) and {"size", "counts"} <= mask.keys()
