"""A small data set in memory, and pycocotools as the reference of its metrics."""

from __future__ import annotations

import contextlib
import copy
import io
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from boxwright.evaluation import DetectionColumns
from boxwright.structures import Classes


class FakeAnnotations(NamedTuple):
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray


@dataclass
class FakeIndex:
    """The part of a DetectionIndex that evaluation uses, over a COCO dict with ``difficult`` in its annotations."""

    dataset: dict[str, Any]

    def __post_init__(self) -> None:
        categories = self.dataset["categories"]
        self.classes = Classes(tuple(c["name"] for c in categories), tuple(c["id"] for c in categories))

    def to_coco(self) -> dict[str, Any]:
        return self.dataset

    def __len__(self) -> int:
        return len(self.dataset["images"])

    def image_id(self, i: int) -> int:
        return self.dataset["images"][i]["id"]

    def size(self, i: int) -> tuple[int, int]:
        image = self.dataset["images"][i]
        return image["height"], image["width"]

    def annotations(self, i: int) -> FakeAnnotations:
        mine = [a for a in self.dataset["annotations"] if a["image_id"] == self.image_id(i)]
        boxes = np.array([a["bbox"] for a in mine], dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([self.classes.ids.index(a["category_id"]) for a in mine], dtype=np.int64)
        crowd = np.array([bool(a.get("iscrowd", 0)) for a in mine], dtype=bool)
        difficult = np.array([bool(a.get("difficult", 0)) for a in mine], dtype=bool)
        return FakeAnnotations(boxes, labels, crowd, difficult)


class Oracle(NamedTuple):
    """Results of pycocotools: the twelve metrics (-1 where undefined) and its arrays."""

    stats: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray


def run_pycocotools(
    truth: dict[str, Any],
    detections: list[dict[str, Any]],
    iou_type: str = "bbox",
    limits: tuple[int, ...] = (1, 10, 100),
    use_categories: bool = True,
) -> Oracle:
    """Score with pycocotools, without output and without changing the arguments."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = copy.deepcopy({"info": {}, **truth})
        gt.createIndex()
        evaluator = COCOeval(gt, gt.loadRes(copy.deepcopy(detections)), iou_type)
        evaluator.params.maxDets = list(limits)
        evaluator.params.useCats = int(use_categories)
        evaluator.evaluate()
        evaluator.accumulate()
        if limits[-1] == 100:
            evaluator.summarize()
    arrays = (np.asarray(evaluator.eval[name]) for name in ("precision", "recall", "scores"))
    return Oracle(np.asarray(evaluator.stats), *arrays)


def two_squares() -> FakeIndex:
    """Return two images and two classes with sparse ids out of order. Image 5 has a cat and a dog, image 3 a dog."""
    boxes = [(5, 9, [10, 10, 40, 40]), (5, 4, [60, 60, 20, 20]), (3, 4, [0, 0, 100, 100])]
    return FakeIndex(
        {
            "images": [{"id": 5, "height": 120, "width": 120}, {"id": 3, "height": 100, "width": 100}],
            "categories": [{"id": 9, "name": "cat"}, {"id": 4, "name": "dog"}],
            "annotations": [
                {"id": n, "image_id": i, "category_id": c, "bbox": b, "area": float(b[2] * b[3]), "iscrowd": 0}
                for n, (i, c, b) in enumerate(boxes)
            ],
        }
    )


def random_case(seed: int, masks: bool = False) -> tuple[FakeIndex, list[dict[str, Any]]]:
    """Return objects and detections with difficult cases: crowds, ties, duplicates, wrong classes, no id 0, 130 boxes.

    Coordinates are multiples of 4 for some seeds, so that equal overlaps and overlaps exactly at a threshold occur.
    """
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(90, 200, 2))
    grid = float(rng.choice([0.01, 4.0]))
    categories = [{"id": 3 * k + 1, "name": f"class {k}"} for k in rng.permutation(rng.integers(1, 6))]
    categories = [{**category, "id": int(category["id"])} for category in categories]
    images = [{"id": int(7 * n), "height": height, "width": width} for n in rng.permutation(rng.integers(2, 8))]
    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []

    def snapped(box: np.ndarray) -> list[float]:
        x, y, w, h = (float(round(v / grid) * grid) for v in box)
        return [x, y, max(w, grid), max(h, grid)]

    def category() -> int:
        return int(rng.choice([c["id"] for c in categories]))

    def found(image_id: int, category_id: int, box: list[float]) -> None:
        score = float(round(rng.random(), int(rng.choice([1, 6]))))
        entry: dict[str, Any] = {"image_id": image_id, "category_id": category_id, "score": score}
        if masks:
            entry["segmentation"] = rle_of([diamond(box)], height, width)
        else:
            entry["bbox"] = box
        detections.append(entry)

    for image in images:
        for _ in range(rng.integers(0, 10)):
            sides = np.exp(rng.uniform(np.log(3), np.log(150), 2))
            box = snapped(np.concatenate([rng.uniform(0, 0.8, 2) * (width, height), sides]))
            crowd = bool(rng.random() < 0.15)
            annotation = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": category(), "bbox": box}
            annotation |= {"area": float(box[2] * box[3] * rng.choice([1.0, 0.6])), "iscrowd": int(crowd)}
            if masks:
                noise = np.asfortranarray(rng.random((height, width)) < 0.3, dtype=np.uint8)
                annotation["segmentation"] = text_rle(mask_tools.encode(noise)) if crowd else [diamond(box)]
            annotations.append(annotation)
            for _ in range(rng.choice([0, 1, 1, 2, 8])):
                shift = rng.normal(0, 0.08, 4) * np.array(box[2:] * 2) * rng.choice([0, 1, 1])
                wrong = rng.random() < 0.2
                found(image["id"], category() if wrong else annotation["category_id"], snapped(np.array(box) + shift))
        if rng.random() < 0.2:  # more than the limit of 100
            for _ in range(130):
                box = snapped(np.concatenate([rng.uniform(0, 50, 2), rng.uniform(3, 40, 2)]))
                found(image["id"], categories[0]["id"], box)
    return FakeIndex({"images": images, "annotations": annotations, "categories": categories}), detections


def diamond(box: list[float]) -> list[float]:
    """Return a polygon inside a box ``x y w h``."""
    x, y, w, h = box
    return [x, y + h / 2, x + w / 2, y, x + w, y + h / 2, x + w / 2, y + h]


def rle_of(polygons: list[list[float]], height: int, width: int) -> dict[str, Any]:
    """Return polygons as one run-length mask with text counts, as in results files."""
    return text_rle(mask_tools.merge(mask_tools.frPyObjects(polygons, height, width)))


def text_rle(rle: dict[str, Any]) -> dict[str, Any]:
    """Return the same mask with its counts as text."""
    return {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode()}


def as_columns(index: FakeIndex, detections: list[dict[str, Any]]) -> DetectionColumns:
    """Return a results list as columns, with boxes unchanged."""
    masks = [d["segmentation"] for d in detections] if detections and "segmentation" in detections[0] else None
    return DetectionColumns(
        np.array([d["image_id"] for d in detections], dtype=np.int64),
        np.array([d.get("bbox", [0, 0, 0, 0]) for d in detections], dtype=np.float64).reshape(-1, 4),
        np.array([d["score"] for d in detections], dtype=np.float64),
        np.array([index.classes.ids.index(d["category_id"]) for d in detections], dtype=np.int64),
        masks,
    )
