"""Example images of a report, drawn with their annotations and with the detections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from boxwright.data.images import read_image
from boxwright.data.index import DetectionIndex
from boxwright.detections import Detections
from boxwright.drawing import draw_boxes
from boxwright.evaluation.columns import DetectionColumns

_SHORT_SIDE = 512  # smaller images are enlarged before drawing, so that their labels are readable
_LABEL_SCALE = 1.7  # the page shows images at about half their size


@dataclass(frozen=True, slots=True)
class Example:
    """One image drawn twice, with the number of its objects and of the detections."""

    name: str
    truth: Image.Image
    found: Image.Image
    objects: int
    detections: int


def choose_examples(index: DetectionIndex, found: DetectionColumns, threshold: float, count: int = 12) -> list[Example]:
    """Draw ``count`` images at even distances in ``index`` with the detections that reach the score ``threshold``.

    The choice does not depend on the detections, so that it shows typical images.
    """
    positions = np.unique(np.linspace(0, len(index) - 1, min(count, len(index))).round().astype(int)).tolist()
    rows_by_image = found.rows_by_image([index.image_id(i) for i in positions])
    examples = []
    for i, rows in zip(positions, rows_by_image, strict=True):
        kept = rows[found.scores[rows] >= threshold]
        detections = Detections(
            found.corners[kept], found.scores[kept], found.labels[kept], index.classes, index.size(i)
        )
        examples.append(draw_example(index, i, detections))
    return examples


def draw_example(index: DetectionIndex, position: int, found: Detections) -> Example:
    """Draw the image at ``position`` in the data set with its annotations, and again with the detections."""
    image = Image.fromarray(read_image(index.path(position)))
    scale = max(1.0, _SHORT_SIDE / min(image.size))
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    truth, names = index.annotations(position), index.classes.names
    drawn = draw_boxes(
        image,
        truth.boxes * scale,
        truth.labels,
        names,
        crowd=truth.crowd,
        difficult=truth.difficult,
        scale=_LABEL_SCALE,
    )
    return Example(
        name=index.path(position).name,
        truth=drawn,
        found=draw_boxes(image, found.boxes * scale, found.labels, names, scores=found.scores, scale=_LABEL_SCALE),
        objects=int((~truth.crowd).sum()),
        detections=len(found),
    )
