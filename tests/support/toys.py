"""A tiny detector and data set with everything that training needs, at milliseconds per step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.config.recipe import (
    CheckpointConfig,
    CosineConfig,
    EMAConfig,
    Recipe,
    SGDConfig,
    Stage,
    ValidationConfig,
    WarmupConfig,
)
from boxwright.data.config import DataConfig
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.proposals.files import ProposalSet
from boxwright.data.transforms.configs import FlipConfig, WarpConfig
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import IMAGENET
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.heads.class_rows import SHARED, of_layer
from boxwright.structures import Classes, DetectionBatch, Images, Targets

CLASSES = Classes.from_names(["dark", "light"])


class Toy(Detector):
    """A detector with one box per image: centre and size from the pooled image, class from a linear layer.

    Losses are means over the images of a batch. ``drop`` draws from torch's global state.
    """

    def __init__(self, config: Any, classes: Classes, drop: float = 0.2, norm: bool = True) -> None:
        super().__init__(config, classes, IMAGENET)
        self.backbone = nn.Module()
        self.backbone.conv = nn.Conv2d(3, 4, 3, stride=4, padding=1)
        self.backbone.bn = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.head = nn.Linear(4 * 16, 4 + len(classes))
        self.drop = drop
        self.calls = 0

    def class_rows(self) -> dict[str, Tensor]:
        return of_layer("head", torch.cat([torch.full((4,), SHARED), torch.arange(len(self.classes))]))

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        x = F.relu(self.backbone.bn(self.backbone.conv(pixels)))
        x = F.dropout(F.adaptive_avg_pool2d(x, 4).flatten(1), self.drop, self.training)
        return [self.head(x)]

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        self.calls += 1
        (out,) = self.outputs(self.normalise(images))
        side = torch.tensor([images.pixels.shape[-1], images.pixels.shape[-2]], device=out.device).repeat(2)
        boxes, logits = out[:, :4].sigmoid() * side, out[:, 4:]
        if targets is None:
            boxes = torch.cat([torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])], 1)
            scores, labels = logits.softmax(1).max(1)
            valid = torch.ones_like(labels, dtype=torch.bool)
            return DetectionBatch(boxes[:, None].float(), scores[:, None].float(), labels[:, None], valid[:, None])
        has = targets.valid[:, 0].float()
        box = (F.l1_loss(boxes / side, targets.boxes[:, 0] / side, reduction="none").mean(1) * has).mean()
        label = (F.cross_entropy(logits, targets.labels[:, 0], reduction="none") * has).mean()
        return {"box": box, "label": label}


def build_toy(config: Any, classes: Classes) -> Toy:
    return Toy(config, classes)


def toy_index(folder: Path, count: int, seed: int = 0, size: tuple[int, int] = (24, 32)) -> DetectionIndex:
    """Write noise images with one filled rectangle each, dark or light."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    height, width = size
    for i in range(count):
        label = int(rng.integers(2))
        x1, y1 = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
        x2, y2 = int(rng.integers(x1 + 6, width)), int(rng.integers(y1 + 6, height))
        pixels = rng.integers(90, 160, (height, width, 3), dtype=np.uint8)
        pixels[y1:y2, x1:x2] = 20 if label == 0 else 235
        path = folder / f"{seed}_{i}.png"
        Image.fromarray(pixels).save(path)
        records.append(
            ImageRecord(path=path, image_id=i + 1, height=height, width=width, boxes=[[x1, y1, x2, y2]], labels=[label])
        )
    return DetectionIndex.build(CLASSES, records, root=folder)


def toy_recipe(steps: int = 8, **changes: Any) -> Recipe:
    recipe = Recipe(
        name="toy",
        detector=FasterRCNNConfig(),
        data=DataConfig(
            train=(WarpConfig(size=(32, 32)), FlipConfig(p=0.5)),
            eval=(WarpConfig(size=(32, 32)),),
            batch_size=4,
            eval_batch_size=3,
            workers=0,
            group_by_aspect=False,
            max_boxes=2,
        ),
        stages=(
            Stage(
                length=steps,
                unit="steps",
                optimiser=SGDConfig(lr=0.05),
                schedule=CosineConfig(warmup=WarmupConfig(steps=2, factor=0.1)),
            ),
        ),
        ema=EMAConfig(decay=0.9, ramp=4),
        validation=ValidationConfig(every=4, unit="steps"),
        checkpoint=CheckpointConfig(every=1000, unit="steps"),
        log_every=3,
        clip_norm=5.0,
    )
    return replace(recipe, **changes)


def save_proposals(index: DetectionIndex, path: Path, count: int = 16) -> str:
    """Save proposals: boxes near the objects, and random boxes."""
    rng = np.random.default_rng(0)
    boxes, scores = [], []
    for i in range(len(index)):
        height, width = index.size(i)
        near = np.repeat(index.annotations(i).boxes, count // 2, 0)
        near = near + rng.normal(0, 0.08, near.shape) * (near[:, 2:] - near[:, :2]).repeat(2, 1)
        corners = np.sort(rng.random((count // 2, 2, 2)), 1).reshape(-1, 4) * [width, height, width, height]
        both = np.concatenate([near, corners]).clip(0, [width, height, width, height])
        both = both[((both[:, 2:] - both[:, :2]) > 1).all(1)]
        boxes.append(rng.permutation(both))
        scores.append(np.linspace(1, 0, len(both)))
    return str(ProposalSet.build(index, boxes, scores, "drawn").save(path))
