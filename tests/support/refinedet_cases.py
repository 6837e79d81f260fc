"""Small RefineDets with random outputs and targets."""

import torch
from torch import Tensor, nn

from boxwright.detectors.refinedet import Outputs, RefineDet, RefineDetConfig
from boxwright.structures import Classes, Targets

CLASSES = Classes.from_names(["disc", "bar", "ring"])


CPU = torch.device("cpu")


def built(config: RefineDetConfig, spread: float = 0.0) -> RefineDet:
    torch.manual_seed(0)
    detector = RefineDet(config, CLASSES)
    if spread:
        for conv in (*detector.arm.convs, *detector.odm.convs):
            nn.init.normal_(conv.weight, std=spread)  # type: ignore[arg-type]
    return detector.eval()


def grid(detector: RefineDet, side: int) -> tuple[Tensor, list[int]]:
    """Anchors of a square input and their number on each level."""
    shapes = [(side // stride, side // stride) for stride in detector.anchors.strides]
    counts = [h * w * a for (h, w), a in zip(shapes, detector.anchors.per_cell, strict=True)]
    return detector.anchors(shapes, CPU), counts


def random_outputs(anchors: int, batch: int = 2, arm_scale: float = 0.5) -> Outputs:
    """As heads might give them, each a leaf of its own."""
    generator = torch.Generator().manual_seed(7)

    def draw(columns: int, scale: float) -> Tensor:
        return (torch.randn(batch, anchors, columns, generator=generator) * scale).requires_grad_()

    return Outputs(draw(4, arm_scale), draw(2, 2.0), draw(4, 1.0), draw(len(CLASSES) + 1, 2.0))


def targets_of(rows: list[list[list[float]]]) -> Targets:
    """Boxes of each image, padded; labels count up."""
    most = max(len(r) for r in rows)
    boxes, valid = torch.zeros(len(rows), most, 4), torch.zeros(len(rows), most, dtype=torch.bool)
    labels = torch.zeros(len(rows), most, dtype=torch.int64)
    for i, row in enumerate(rows):
        for j, box in enumerate(row):
            boxes[i, j], valid[i, j], labels[i, j] = torch.tensor(box), True, j % len(CLASSES)
    no = torch.zeros_like(valid)
    return Targets(boxes, labels, valid, no, no)


TARGETS = targets_of([[[4, 4, 40, 36], [20, 24, 60, 58], [3, 40, 18, 62]], [[10, 8, 30, 60]]])


def losses_of(detector: RefineDet, out: Outputs, targets: Targets, side: int = 64) -> dict[str, Tensor]:
    anchors, counts = grid(detector, side)
    return detector.losses(targets, out, anchors, counts)


def with_objectness(out: Outputs, rows: Tensor, logit: float) -> Outputs:
    """ARM logits of ``rows`` bool ``[B, A]`` set so that their objectness is ``sigmoid(logit)``."""
    logits = torch.where(rows.unsqueeze(-1), torch.tensor([logit, 0.0]), out.arm_logits.detach())
    return out._replace(arm_logits=logits.requires_grad_())
