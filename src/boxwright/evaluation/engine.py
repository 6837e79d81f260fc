"""Interface to hotcoco, the library that computes the COCO metrics.

Its arrays of precision, recall and scores equal those of pycocotools bit for bit (boxes, masks, crowds, ties, with and
without classes). It accepts columns instead of one dict per detection, and unlike pycocotools it does not lose a match
to an annotation with id 0. Its ids must not be negative. So images and categories are renumbered in ascending order of
their ids, the order in which COCO resolves ties between images, and annotations from 1.

Symbols: N images, G ground-truth objects, M detections, K classes; T IoU thresholds, R recall points, A areas,
L limits on the number of detections.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import hotcoco
import numpy as np
from numpy.typing import NDArray

from boxwright.evaluation.columns import DetectionColumns, Rle
from boxwright.structures import Classes, InputError

IouType = Literal["bbox", "segm"]

IOU_THRESHOLDS: tuple[float, ...] = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""The ten IoU thresholds of COCO, 0.50 to 0.95."""
AREAS: tuple[str, ...] = ("all", "small", "medium", "large")
"""Areas in square pixels: small to 32^2, medium to 96^2, large above. A bound belongs to both of its ranges."""


class Accumulated(NamedTuple):
    """Arrays as of pycocotools' ``accumulate``, with classes in label order, and NaN instead of -1 (no ground truth).

    ``precision`` and ``scores`` float64 ``[T, R, K, A, L]``, ``recall`` float64 ``[T, K, A, L]``. With classes pooled
    K is 1.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    scores: NDArray[np.float64]


class CocoEngine:
    """Ground truth of one data set, to score detections against."""

    def __init__(self, dataset: dict[str, Any], classes: Classes, iou_type: IouType = "bbox") -> None:
        """``dataset`` is a COCO dict: ``images``, ``annotations`` and the categories of ``classes``.

        Raises InputError for an annotation of an unknown image or category, or, for masks, without a mask.
        """
        if iou_type not in ("bbox", "segm"):
            raise InputError(f"iou_type {iou_type!r} is not known; use 'bbox' or 'segm'")
        if not len(classes):
            raise InputError("the data set has no classes; nothing can be evaluated")
        self.iou_type: IouType = iou_type
        self.num_classes = len(classes)
        images = sorted(dataset["images"], key=lambda image: image["id"])
        self.image_sizes = {image["id"]: (int(image["height"]), int(image["width"])) for image in images}
        self._sorted_images = np.array([image["id"] for image in images], dtype=np.int64)
        self._label_order = np.argsort(np.asarray(classes.ids))
        self._code_of_label = np.argsort(self._label_order) + 1
        annotations: list[dict[str, Any]] = dataset["annotations"]
        self.objects_per_class = np.zeros(len(classes), dtype=np.int64)
        self._truth = self._ground_truth(images, annotations, classes)

    def load(self, detections: DetectionColumns) -> hotcoco.COCO:
        """Convert detections to the library's form, for `run`. Raises InputError for masks it cannot read."""
        table = np.column_stack(
            [
                self._image_codes(detections.image_ids),
                detections.boxes,
                detections.scores,
                self._code_of_label[detections.labels],
            ]
        ).reshape(-1, 7)
        if self.iou_type == "bbox":
            return self._truth.load_res(table)
        masks: list[Any] = list(detections.masks or ())
        try:
            found = self._truth.load_res(table, segmentation=masks)
            if masks:  # The size class depends on the area of the mask, not on that of its box.
                area = np.asarray(hotcoco.mask.area(masks), dtype=np.float64)
                found.update_anns(ids=np.arange(1, len(masks) + 1), area=area)
        except ValueError as error:
            raise InputError(f"detections: {error}; give run-length masks as pycocotools writes them") from error
        return found

    def run(self, found: hotcoco.COCO, max_detections: Sequence[int], pool_classes: bool = False) -> Accumulated:
        """Match and accumulate; ``max_detections`` (ascending) is per image and class, or per image if pooled."""
        evaluator = hotcoco.COCOeval(self._truth, found, self.iou_type)
        evaluator.params.max_dets = [int(limit) for limit in max_detections]
        evaluator.params.use_cats = not pool_classes
        with warnings.catch_warnings():
            # The library warns that pooled classes and other limits are not the leaderboard's metrics; we label them.
            warnings.simplefilter("ignore", UserWarning)
            evaluator.evaluate()
            evaluator.accumulate()
        arrays = evaluator.eval
        assert arrays is not None
        to_labels = [0] if pool_classes else self._code_of_label - 1
        precision, recall, scores = (np.array(arrays[name]) for name in ("precision", "recall", "scores"))
        precision[precision < 0] = np.nan
        recall[recall < 0] = np.nan
        scores[np.isnan(precision)] = np.nan  # by the precision: a score may be a negative logit
        return Accumulated(precision[:, :, to_labels], recall[:, to_labels], scores[:, :, to_labels])

    def _image_codes(self, image_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._sorted_images, image_ids) + 1

    def _ground_truth(
        self, images: list[dict[str, Any]], annotations: list[dict[str, Any]], classes: Classes
    ) -> hotcoco.COCO:
        label_of_category = {category: label for label, category in enumerate(classes.ids)}
        labels = np.zeros(len(annotations), dtype=np.int64)
        boxes, area = np.zeros((len(annotations), 4)), np.zeros(len(annotations))
        crowd = np.zeros(len(annotations), dtype=bool)
        for row, annotation in enumerate(annotations):
            place = f"annotation id {annotation.get('id')}"
            if annotation["image_id"] not in self.image_sizes:
                raise InputError(f"{place}: image id {annotation['image_id']} is not among the images; correct it")
            if annotation["category_id"] not in label_of_category:
                raise InputError(f"{place}: category id {annotation['category_id']} is not a class; correct it")
            if self.iou_type == "segm" and not annotation.get("segmentation"):
                raise InputError(
                    f"{place} has no mask, so masks cannot be scored on this data set; use iou_type='bbox'"
                )
            labels[row] = label_of_category[annotation["category_id"]]
            boxes[row] = annotation["bbox"]
            crowd[row] = bool(annotation.get("iscrowd", 0))
            area[row] = annotation.get("area", boxes[row, 2] * boxes[row, 3])
        self.objects_per_class += np.bincount(labels[~crowd], minlength=len(classes))
        image_ids = np.array([annotation["image_id"] for annotation in annotations], dtype=np.int64)
        # Only numbers and masks are passed on, no names or ids.
        return hotcoco.COCO.from_arrays(
            [
                {"id": code, "height": size[0], "width": size[1]}
                for code, size in enumerate((self.image_sizes[image["id"]] for image in images), start=1)
            ],
            [{"id": code, "name": str(code)} for code in range(1, len(classes) + 1)],
            self._image_codes(image_ids),
            self._code_of_label[labels],
            boxes,
            ids=np.arange(1, len(annotations) + 1),
            area=area,
            iscrowd=crowd,
            segmentation=[annotation["segmentation"] for annotation in annotations]
            if self.iou_type == "segm"
            else None,
        )


def box_of_mask(mask: Rle) -> NDArray[np.float64]:
    """Return the box ``x y w h`` around a run-length mask."""
    return hotcoco.mask.to_bbox(mask)
