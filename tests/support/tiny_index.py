"""Small images with painted objects for the tests of transforms and loaders."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors

from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.transforms.sample import Sample
from boxwright.structures import Classes

COLOURS = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], dtype=torch.uint8)
"""Label k is painted in colour k, so a test can see whether a box, its label and its pixels still belong together."""


def painted(boxes: list[list[int]], height: int = 60, width: int = 90, labels: list[int] | None = None) -> Sample:
    """Return a black image with one filled rectangle per box, and its mask. Odd labels are crowds, labels from 2 on are
    difficult.
    """
    labels = list(range(len(boxes))) if labels is None else labels
    image = torch.zeros((3, height, width), dtype=torch.uint8)
    masks = torch.zeros((len(boxes), height, width), dtype=torch.bool)
    for (x1, y1, x2, y2), label, mask in zip(boxes, labels, masks, strict=True):
        image[:, y1:y2, x1:x2] = COLOURS[label][:, None, None]
        mask[y1:y2, x1:x2] = True
    label = torch.tensor(labels, dtype=torch.int64)
    return Sample(
        image=tv_tensors.Image(image),
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=label,
        crowd=label % 2 == 1,
        difficult=label >= 2,
        masks=masks,
        original_size=(height, width),
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def write_index(
    folder: Path, count: int = 13, sizes: tuple[tuple[int, int], ...] = ((40, 60), (60, 40))
) -> DetectionIndex:
    """Write noise images with 0..3 rectangles each and a polygon per box; id 100 + i, sizes (height, width) in turn."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(count):
        height, width = sizes[i % len(sizes)]
        path = folder / f"picture {i}.png"
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
        corner = rng.integers(0, 20, (i % 4, 2))
        boxes = np.concatenate([corner, corner + rng.integers(4, 18, corner.shape)], axis=1).astype(np.float64)
        records.append(
            ImageRecord(
                path=path,
                image_id=100 + i,
                height=height,
                width=width,
                boxes=boxes,
                labels=rng.integers(0, 3, len(boxes)),
                crowd=np.arange(len(boxes)) == 2,
                segmentations=[[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes.tolist()],
            )
        )
    return DetectionIndex.build(Classes.from_names(["red", "green", "blue"]), records, root=folder)
