"""Reference losses of YOLOv1 and YOLOv2, written as loops over single values.

Both follow the order in which the authors' code visits an image, and record for each output the scale and target of its
gradient. A later rule overwrites an earlier one. A pull of ``scale`` towards ``target`` has the loss ``scale / 2 *
(target - value)^2``; for classes under a softmax it is ``scale`` times the log loss.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Box = tuple[float, float, float, float]
"""Centre, width and height as shares of the image."""


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def overlap(a: Box, b: Box) -> float:
    """Return the IoU of two boxes."""
    sides = []
    for centre, length in ((0, 2), (1, 3)):
        low = max(a[centre] - a[length] / 2, b[centre] - b[length] / 2)
        high = min(a[centre] + a[length] / 2, b[centre] + b[length] / 2)
        if high <= low:
            return 0.0
        sides.append(high - low)
    shared = sides[0] * sides[1]
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def region_pulls(
    raw: np.ndarray, truths: list[tuple[Box, int]], anchors: list[tuple[float, float]], seen: int, **rules: Any
) -> tuple[dict[str, float], np.ndarray]:
    """Return the losses of one image and their gradient for a map ``raw`` ``[a * (5 + K), H, W]``."""
    per_anchor, height, width = len(raw) // len(anchors), raw.shape[1], raw.shape[2]
    classes = per_anchor - 5
    pulls: dict[tuple[int, int, int, str], tuple[float, float]] = {}
    class_pulls: dict[tuple[int, int, int], int] = {}

    def value(n: int, row: int, column: int, slot: int) -> float:
        return float(raw[n * per_anchor + slot, row, column])

    def predicted(n: int, row: int, column: int) -> Box:
        x, y, w, h = (value(n, row, column, slot) for slot in range(4))
        return (
            (column + sigmoid(x)) / width,
            (row + sigmoid(y)) / height,
            math.exp(w) * anchors[n][0] / width,
            math.exp(h) * anchors[n][1] / height,
        )

    def pull_box(n: int, row: int, column: int, box: Box, scale: float) -> None:
        pulls[n, row, column, "x"] = (scale, box[0] * width - column)
        pulls[n, row, column, "y"] = (scale, box[1] * height - row)
        pulls[n, row, column, "w"] = (scale, math.log(box[2] * width / anchors[n][0]))
        pulls[n, row, column, "h"] = (scale, math.log(box[3] * height / anchors[n][1]))

    for row in range(height):
        for column in range(width):
            for n in range(len(anchors)):
                best = max((overlap(predicted(n, row, column), box) for box, _ in truths), default=0.0)
                if best <= rules.get("quiet", 0.6):
                    pulls[n, row, column, "o"] = (rules.get("noobject", 1.0), 0.0)
                if seen < 12_800:
                    anchor = (anchors[n][0] / width, anchors[n][1] / height)
                    centre = ((column + 0.5) / width, (row + 0.5) / height)
                    pull_box(n, row, column, (*centre, *anchor), 0.01)
    owners = set()
    for box, label in truths:
        row, column = math.floor(box[1] * height), math.floor(box[0] * width)
        fits = []
        for n in range(len(anchors)):
            size = (anchors[n][0] / width, anchors[n][1] / height)
            if rules.get("match") == "prediction":
                size = predicted(n, row, column)[2:]
            fits.append(overlap((0, 0, size[0], size[1]), (0, 0, box[2], box[3])))
        n = int(np.argmax(fits))
        factor = 2 - box[2] * box[3] if rules.get("favour_small") else 1.0
        pull_box(n, row, column, box, rules.get("coord", 1.0) * factor)
        goal = overlap(predicted(n, row, column), box) if rules.get("rescore", True) else 1.0
        pulls[n, row, column, "o"] = (rules.get("object", 5.0), goal)
        class_pulls[n, row, column] = label
        owners.add((n, row, column))

    losses = {"box": 0.0, "objectness": 0.0, "classification": 0.0, "prior": 0.0}
    gradient = np.zeros_like(raw, dtype=np.float64)
    for (n, row, column, slot), (scale, target) in pulls.items():
        index = "xywho".index(slot)
        number = value(n, row, column, index)
        slope = 1.0
        if slot in "xyo":
            number = sigmoid(number)
            slope = number * (1 - number)
        name = "objectness" if slot == "o" else "box" if (n, row, column) in owners else "prior"
        losses[name] += scale / 2 * (target - number) ** 2
        gradient[n * per_anchor + index, row, column] = -scale * (target - number) * slope
    for (n, row, column), label in class_pulls.items():
        start = n * per_anchor + 5
        logits = raw[start : start + classes, row, column].astype(np.float64)
        share = np.exp(logits - logits.max())
        share /= share.sum()
        losses["classification"] -= math.log(share[label])
        gradient[start : start + classes, row, column] = share - np.eye(classes)[label]
    return losses, gradient


def detection_pulls(
    out: np.ndarray, truths: list[tuple[Box, int]], grid: int, each: int, rescore: bool = True
) -> tuple[dict[str, float], np.ndarray]:
    """Return the losses of one image and their gradient for the flat vector ``out``. Of several objects in a cell the
    first is used.
    """
    cells = grid * grid
    classes = len(out) // cells - 5 * each
    first_confidence, first_box = cells * classes, cells * (classes + each)
    pulls = {first_confidence + i: (0.5, 0.0) for i in range(cells * each)}
    kinds: dict[int, str] = {}
    taken = set()
    for box, label in truths:
        row, column = math.floor(box[1] * grid), math.floor(box[0] * grid)
        cell = row * grid + column
        if cell in taken or min(box[2:]) < 0.005:
            continue
        taken.add(cell)
        for c in range(classes):
            pulls[cell * classes + c] = (1.0, float(c == label))
        overlaps, errors = [], []
        for j in range(each):
            at = first_box + 4 * (cell * each + j)
            x, y, w, h = (float(v) for v in out[at : at + 4])
            seen = ((column + x) / grid, (row + y) / grid, w * w, h * h)
            overlaps.append(overlap(seen, box))
            errors.append(math.sqrt(sum((a - b) ** 2 for a, b in zip(seen, box, strict=True))))
        j = int(np.argmax(overlaps)) if max(overlaps) > 0 else int(np.argmin(errors))
        pulls[first_confidence + cell * each + j] = (1.0, overlaps[j] if rescore else 1.0)
        wanted = (box[0] * grid - column, box[1] * grid - row, math.sqrt(box[2]), math.sqrt(box[3]))
        for slot in range(4):
            at = first_box + 4 * (cell * each + j) + slot
            pulls[at] = (5.0, wanted[slot])
            kinds[at] = "box"
    losses = {"box": 0.0, "confidence": 0.0, "classification": 0.0}
    gradient = np.zeros(len(out))
    for at, (scale, target) in pulls.items():
        name = kinds.get(at, "classification" if at < first_confidence else "confidence")
        losses[name] += scale / 2 * (target - float(out[at])) ** 2
        gradient[at] = -scale * (target - float(out[at]))
    return losses, gradient
