"""Make the picture at the head of the README from a finished demo: ``python docs/_picture.py demo``.

The first scenes of the demo's test split, which served neither to train the detector nor to choose it, with the boxes
that it found at the threshold that the demo advises. Scenes are not chosen by how well they went.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image

from boxwright import load_detector
from boxwright.data import open_dataset
from boxwright.drawing import draw_boxes

TARGET = Path(__file__).with_name("images") / "detections.jpg"
COLUMNS, ROWS, SIDE, GAP, MOST_BYTES = 4, 2, 280, 5, 120_000


def compose(demo: Path, target: Path = TARGET) -> Path:
    """Write the picture, smaller than ``MOST_BYTES``."""
    threshold = json.loads((demo / "demo.json").read_text(encoding="utf-8")).get("threshold", 0.5)
    detector = load_detector(demo / "run", "cpu")
    index = open_dataset(demo / "scenes", "test")
    size = (COLUMNS * (SIDE + GAP) - GAP, ROWS * (SIDE + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    for i in range(min(COLUMNS * ROWS, len(index))):
        (found,) = detector.detect(index.path(i), threshold=threshold)
        scale = SIDE / max(found.size)
        with Image.open(index.path(i)) as scene:
            picture = scene.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        picture = draw_boxes(picture, found.boxes * scale, found.labels, found.names.names, found.scores)
        sheet.paste(picture, ((i % COLUMNS) * (SIDE + GAP), (i // COLUMNS) * (SIDE + GAP)))
    target.parent.mkdir(parents=True, exist_ok=True)
    for quality in range(88, 40, -4):
        sheet.save(target, quality=quality, optimize=True, progressive=True)
        if target.stat().st_size < MOST_BYTES:
            break
    return target


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the folder of a finished demo, as: python docs/_picture.py demo")
    print(compose(Path(sys.argv[1])))
