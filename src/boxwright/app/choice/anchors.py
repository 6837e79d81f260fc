"""Anchors for the boxes of a data set: how many boxes they can find, and anchors that find more.

The sizes keep their steps from level to level, so that each level still has the objects that its map can see. Only
their scale and the aspect ratios follow the data. Detectors with a list of anchors in place of levels get k-means ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from boxwright.anchors.generator import AnchorConfig
from boxwright.anchors.kmeans import kmeans_anchors, shape_iou
from boxwright.backbones.count import built_of_shapes
from boxwright.config.input_check import FITS
from boxwright.config.recipe import Recipe
from boxwright.data.index import DetectionIndex
from boxwright.data.transforms.network_sizes import evaluated_sizes
from boxwright.detectors.build import DetectorConfig, build_detector
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.detectors.mask_rcnn import MaskRCNNConfig
from boxwright.detectors.retinanet import RetinaNetConfig
from boxwright.detectors.yolov3 import YOLOv3Config

MOST_BOXES = 20_000
"""Boxes that are compared, evenly spread over the data set."""
ENOUGH = 0.95
"""Share of the boxes with an anchor of their shape from which the anchors of the recipe stay."""
GAIN = 0.02
"""Share of the boxes that other anchors must bring more."""
SCALES = tuple(2 ** (step / 4) for step in range(-8, 9))
"""Factors on the sizes that are tried."""


@dataclass(frozen=True, kw_only=True)
class AnchorFit:
    """The anchors of a recipe on a data set."""

    recipe: Recipe
    """The recipe, with other anchors if they are better."""
    recall: float | None
    """Share of the boxes that have an anchor of their shape: an IoU of 0.5 at one centre. None without anchors."""
    before: float | None
    """The same for the anchors that the recipe had."""
    smallest: float | None
    """Side in pixels of the smallest anchor."""
    too_small: float
    """Share of the boxes that are so much smaller than the smallest anchor that it does not fit them."""

    @property
    def changed(self) -> bool:
        """True if the recipe has got other anchors."""
        return self.recall is not None and self.before is not None and self.recall > self.before


def fit_anchors(recipe: Recipe, index: DetectionIndex) -> AnchorFit:
    """Compare the anchors of ``recipe`` with the boxes of ``index`` at the size of its input, and fit better ones.

    Anchors stay if they have a shape for `ENOUGH` of the boxes, or if others would add less than `GAIN`.
    """
    boxes = network_boxes(recipe, index)
    shapes = anchor_shapes(recipe.detector, index)
    if not len(shapes) or not len(boxes):
        return AnchorFit(recipe=recipe, recall=None, before=None, smallest=None, too_small=0.0)
    before = recall_of(boxes, shapes)
    found = recipe
    if before < ENOUGH:
        changed = replace(recipe, detector=_fitted(recipe.detector, boxes))
        after = recall_of(boxes, anchor_shapes(changed.detector, index))
        if after >= before + GAIN:
            found, shapes = changed, anchor_shapes(changed.detector, index)
    smallest = float(np.sqrt(shapes.prod(1)).min())
    return AnchorFit(
        recipe=found,
        recall=recall_of(boxes, shapes),
        before=before,
        smallest=smallest,
        too_small=float((boxes.prod(1) < FITS * smallest**2).mean()),
    )


def network_boxes(recipe: Recipe, index: DetectionIndex) -> np.ndarray:
    """Return width and height of the boxes in the network's input, float64 ``[M, 2]``, at most `MOST_BOXES`."""
    boxes = evaluated_sizes(index, recipe.data.eval)
    boxes = boxes[(boxes > 0).all(1)]
    return boxes[:: max(1, -(-len(boxes) // MOST_BOXES))]


def anchor_shapes(config: DetectorConfig, index: DetectionIndex) -> np.ndarray:
    """Return width and height of the anchors of a detector, ``[A, 2]``; empty if it matches none by overlap."""
    detector = built_of_shapes(lambda: build_detector(config, index.classes))
    return np.array(detector.anchor_shapes(), dtype=np.float64).reshape(-1, 2)


def recall_of(boxes: np.ndarray, shapes: np.ndarray) -> float:
    """Return the share of ``boxes`` ``[M, 2]`` that one of ``shapes`` ``[A, 2]`` fits."""
    parts = np.array_split(boxes, 1 + len(boxes) // 5_000)
    return float(np.concatenate([shape_iou(part, shapes).max(1) >= FITS for part in parts]).mean())


def _fitted(config: DetectorConfig, boxes: np.ndarray) -> DetectorConfig:
    """Return the detector with anchors for ``boxes``; itself if its anchors are of another kind."""
    match config:
        case RetinaNetConfig():
            return replace(config, anchors=_scaled(config.anchors, boxes))
        case FasterRCNNConfig() | MaskRCNNConfig():
            return replace(config, rpn=replace(config.rpn, anchors=_scaled(config.rpn.anchors, boxes)))
        case YOLOv3Config():
            count = len(config.anchors)
            if len(np.unique(boxes, axis=0)) < count:
                return config
            shapes = kmeans_anchors(boxes, count).shapes
            return replace(config, anchors=tuple((round(w, 1), round(h, 1)) for w, h in shapes.tolist()))
        case _:
            return config


def _scaled(config: AnchorConfig, boxes: np.ndarray) -> AnchorConfig:
    """Return the anchors with the scale and the aspect ratios that fit most boxes; of equals, those changed least."""
    if config.shapes is not None:
        return config
    tall = boxes[:, 1] / boxes[:, 0] if config.ratio == "h/w" else boxes[:, 0] / boxes[:, 1]
    count = len(config.ratios)
    quantiles = np.quantile(tall, [(i + 0.5) / count for i in range(count)])
    measured = tuple(round(float(np.clip(value, 0.1, 10.0)), 2) for value in quantiles)
    choices = [config.ratios] + ([measured] if len(set(measured)) == count else [])
    tried = [
        replace(
            config,
            sizes=tuple(tuple(round(size * scale, 2) for size in level) for level in config.sizes),
            ratios=ratios,
        )
        for scale, ratios in product(sorted(SCALES, key=lambda scale: abs(np.log(scale))), choices)
    ]
    return max(tried, key=lambda anchors: round(recall_of(boxes, _shapes(anchors)), 3))


def _shapes(config: AnchorConfig) -> np.ndarray:
    sides = np.array([size for level in config.sizes for size in level])[:, None]
    ratios = np.array(config.ratios)[None]
    tall, wide = sides * np.sqrt(ratios), sides / np.sqrt(ratios)
    width, height = (wide, tall) if config.ratio == "h/w" else (tall, wide)
    return np.stack([width.reshape(-1), height.reshape(-1)], 1)
