"""Images and targets for the tests of detectors."""

import torch
from torch import Tensor, nn

from boxwright.detectors.contract.detector import Detector
from boxwright.structures import Images, Targets

Box = tuple[float, float, float, float]


def example_images(batch: int, height: int, width: int) -> Images:
    generator = torch.Generator().manual_seed(height)
    coarse = torch.rand((batch, 3, height // 16, width // 16), generator=generator)
    pixels = nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1) * 255
    return Images(pixels.to(torch.uint8), torch.tensor([[height, width]] * batch), torch.arange(batch))


def example_targets() -> Targets:
    boxes = torch.tensor(
        [[[10.0, 12, 60, 70], [80, 30, 150, 110], [5, 90, 40, 125]], [[20.0, 20, 120, 100], [0, 0, 0, 0], [0, 0, 0, 0]]]
    )
    valid = torch.tensor([[True, True, True], [True, False, False]])
    no = torch.zeros_like(valid)
    return Targets(boxes, torch.tensor([[0, 1, 2], [1, 0, 0]]), valid, no, no)


def with_masks(targets: Targets, height: int = 128, width: int = 160) -> Targets:
    """Add a mask to each object: an ellipse in its box."""
    x1, y1, x2, y2 = targets.boxes[..., None, None].unbind(2)
    x, y = (torch.arange(width) + 0.5)[None, None, None], (torch.arange(height) + 0.5)[None, None, :, None]
    across, down = (x2 - x1).clamp(min=1) / 2, (y2 - y1).clamp(min=1) / 2
    inside = ((x - x1) / across - 1) ** 2 + ((y - y1) / down - 1) ** 2 <= 1
    return targets._replace(masks=inside & targets.valid[..., None, None])


def answering(detector: Detector, out: Tensor) -> Detector:
    """Make the network of ``detector`` return ``out`` for any input."""
    detector.outputs = lambda pixels: [out]  # type: ignore[method-assign]
    return detector


def blank_images(batch: int, height: int, width: int) -> Images:
    pixels = torch.zeros(batch, 3, height, width, dtype=torch.uint8)
    return Images(pixels, torch.tensor([[height, width]] * batch), torch.arange(batch))


def padded_targets(boxes: list[list[list[float]]], labels: list[list[int]]) -> Targets:
    """Return padded targets from ragged lists of corners and labels."""
    room = max(1, *(len(each) for each in boxes))
    padded = torch.tensor([each + [[0.0] * 4] * (room - len(each)) for each in boxes])
    valid = torch.tensor([[i < len(each) for i in range(room)] for each in boxes])
    numbers = torch.tensor([each + [0] * (room - len(each)) for each in labels])
    no = torch.zeros_like(valid)
    return Targets(padded, numbers, valid, no, no)


def relative_boxes(targets: Targets, b: int, height: int, width: int) -> list[tuple[Box, int]]:
    """Return the objects of image ``b`` in Darknet's form: centre and size in shares of the image, and label."""
    found = []
    for (x1, y1, x2, y2), label in zip(
        targets.boxes[b, targets.valid[b]].tolist(), targets.labels[b, targets.valid[b]].tolist(), strict=True
    ):
        box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        found.append((box, label))
    return found
