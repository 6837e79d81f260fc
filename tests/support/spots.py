"""Images with a bright spot, a function that finds it in place of a model, and runs of `boxwright detect` with it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from boxwright.app.detection.batches import BatchRunner
from boxwright.app.detection.predict import Prediction, PredictSummary
from boxwright.app.detection.results import ResultFolder
from boxwright.app.detection.sources import find_sources
from boxwright.detections import Detections
from boxwright.structures import Classes

CLASSES = Classes(("spot", "other"), (7, 9))


def spot_image(x: int, y: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A white square of 10 pixels at x, y on grey."""
    image = Image.new("RGB", size, (90, 90, 90))
    image.paste((255, 255, 255), (x, y, x + 10, y + 10))
    return image


def find_spot(images: list[np.ndarray], classes: Classes = CLASSES) -> list[Detections]:
    found = []
    for pixels in images:
        rows, columns = np.nonzero(pixels.min(axis=2) > 200)
        boxes = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]] if len(rows) else []
        scores, labels = np.full(len(boxes), 0.75), np.zeros(len(boxes))
        found.append(Detections(np.array(boxes), scores, labels, classes, pixels.shape[:2]))
    return found


def run(
    sources, output: Path, detect=find_spot, settings=None, batch_size=2, classes=CLASSES, **options
) -> PredictSummary:
    runner = BatchRunner(detect, torch.device("cpu"), batch_size)
    overwrite = options.pop("overwrite", False)
    folder = ResultFolder(output, settings or {"threshold": 0.5}, overwrite)
    return Prediction(runner, classes, folder, **options).run(find_sources(sources, recursive=True))
