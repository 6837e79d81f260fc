"""Read COCO results files of any tool, and evaluate detections in one call."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boxwright.data.formats.parsing import parse_json, shown
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

    A COCO dict whose ``annotations`` have scores is read too. Category ids are those of the data set. An entry with
    only a mask gets the box around it. For "segm" every entry needs a run-length mask; None reads masks if every entry
    has one. Ids that are text are read as numbers. Raises InputError with the file and the entry's number, counted
    from 0, and for results of `boxwright detect` whose ids are not those of the data set.
    """
    path = Path(path)
    entries = _read_entries(path)
    if iou_type is None:
        iou_type = "segm" if entries and all(_has_run_lengths(entry) for entry in entries) else "bbox"
    known_images = {int(index.image_id(i)) for i in range(len(index))}
    label_of_category = {category: label for label, category in enumerate(index.classes.ids)}
    masks: list[dict[str, Any]] = []
    image_ids, labels = np.zeros(len(entries), np.int64), np.zeros(len(entries), np.int64)
    scores, boxes = np.zeros(len(entries)), np.zeros((len(entries), 4))
    _check_numbering(path, index)
    for number, entry in enumerate(entries):
        try:
            _read_ids(entry)
            defect = _defect(entry, known_images, label_of_category, iou_type)
            if defect is None:
                image_ids[number], labels[number] = entry["image_id"], label_of_category[entry["category_id"]]
                scores[number] = entry["score"]
                boxes[number] = entry["bbox"] if entry.get("bbox") else box_of_mask(entry["segmentation"])
        except (TypeError, ValueError) as error:
            defect = f"cannot be read ({error}); write it as COCO results have it"
        if defect is not None:
            raise InputError(f"{path}: entry {number} {defect}")
        if iou_type == "segm":
            masks.append(entry["segmentation"])
    return DetectionColumns(image_ids, boxes, scores, labels, masks if iou_type == "segm" else None)


def _read_entries(path: Path) -> list[Any]:
    content = parse_json(path)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        content = content["annotations"]
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
        if not isinstance(image, dict) or image.get("id") not in files:
            continue
        name, expected = Path(str(image.get("path") or image.get("file_name"))).name, files[image["id"]]
        if name != expected:
            raise InputError(
                f"{path}: its image id {image['id']} is {name} ({beside.name}), that of the data set is {expected}; "
                "the images are numbered differently: save detections for this with `boxwright evaluate --save`"
            )


def _read_ids(entry: Any) -> None:
    """Replace ids that are text by the whole numbers that they mean."""
    for key in ("image_id", "category_id"):
        value = entry.get(key) if isinstance(entry, dict) else None
        if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value):
            entry[key] = int(value)


def _defect(entry: Any, known_images: set[int], label_of_category: dict[int, int], iou_type: IouType) -> str | None:
    if not isinstance(entry, dict):
        return f"is {type(entry).__name__}, not an object with image_id, category_id, bbox and score"
    missing = [key for key in ("image_id", "category_id", "score") if key not in entry]
    if missing:
        return f"has no {' and no '.join(missing)}; every detection needs them"
    for key in ("image_id", "category_id"):
        if isinstance(entry[key], bool) or not isinstance(entry[key], int | float):
            return f"has {key} {shown(entry[key])}; it must be a number, as in the data set"
    if entry["image_id"] not in known_images:
        return f"is of image id {shown(entry['image_id'])}, which is not in the data set; give the same split"
    if entry["category_id"] not in label_of_category:
        ids = sorted(label_of_category)
        known = ", ".join(map(str, ids[:10])) + (" ..." if len(ids) > 10 else "")
        return f"has category id {shown(entry['category_id'])}; the data set has {known}"
    if not _is_number(entry["score"]):
        return f"has score {shown(entry['score'])}; it must be a finite number"
    box = entry.get("bbox")
    if box:
        if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
            return f"has bbox {shown(box)}; it must be four finite numbers, x y width height"
        if box[2] < 0 or box[3] < 0:
            return f"has bbox {shown(box)} with a negative width or height; it must be x y width height"
    is_mask = _has_run_lengths(entry)
    if iou_type == "segm" and not is_mask:
        return "has no run-length mask in segmentation (size and counts); which is needed to score masks"
    if not box and not is_mask:
        return "has neither bbox nor a run-length mask"
    return None


def _has_run_lengths(entry: Any) -> bool:
    mask = entry.get("segmentation") if isinstance(entry, dict) else None
    return isinstance(mask, dict) and {"size", "counts"} <= mask.keys()


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of floats
        return False
