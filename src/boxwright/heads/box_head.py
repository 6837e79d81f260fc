"""The second stage on pooled regions: classify, and refine the box (Fast R-CNN §2.3; FPN §4.2 for the two layers).

Symbols: B images, R regions an image, K foreground classes, P cells of the pooled side, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.anchors.coder import BoxCoder
from boxwright.anchors.matcher import Matcher
from boxwright.anchors.sampler import BalancedSampler
from boxwright.geometry.roi_pooling import RoIPoolingConfig
from boxwright.heads.losses import BoxLoss, box_regression_loss
from boxwright.heads.postprocess import PostprocessConfig, best_candidates, suppress
from boxwright.heads.rpn import Proposals, gather_targets
from boxwright.structures import DetectionBatch, InputError, Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxHeadConfig:
    """Fast R-CNN §2.3 with the settings that FPN papers and code share.

    ``hidden``: widths of the fully connected layers. ``class_agnostic``: one box for all classes instead of one each.
    ``positive_iou``, ``negative_iou``, ``negative_floor``: a region is positive at or above the first, background in
    [floor, negative) (Fast R-CNN had a floor of 0.1).
    ``add_truth``: ground-truth boxes join the regions in training (Caffe, torchvision, detectron2; not tf-faster-rcnn).
    ``beta``: of smooth L1: 1 (Fast R-CNN, Detectron), 1/9 (torchvision), 0 (detectron2).
    ``normalizer``: divide the sums by ``samples`` x images ("fixed") or by the regions really sampled ("sampled"); both
    count background, as all code does.
    """

    pooling: RoIPoolingConfig = field(default_factory=RoIPoolingConfig)
    hidden: tuple[int, ...] = (1024, 1024)
    class_agnostic: bool = False
    positive_iou: float = 0.5
    negative_iou: float = 0.5
    negative_floor: float = 0.0
    crowd_ignore: float | None = 0.7
    add_truth: bool = True
    samples: int = 512
    positive_fraction: float = 0.25
    box_loss: BoxLoss = "smooth_l1"
    beta: float = 1.0
    box_weight: float = 1.0
    normalizer: Literal["fixed", "sampled"] = "fixed"
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    clamp: float | None = math.log(1000.0 / 16)
    offset: float = 0.0
    post: PostprocessConfig = field(default_factory=PostprocessConfig)

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise InputError(f"head.hidden = {self.hidden}: give at least one width above 0, such as (1024, 1024)")


class RegionSample(NamedTuple):
    """Regions of a training step: ``boxes`` ``[B, S, 4]``, their target ``labels`` (K is background) and
    ``target`` boxes, ``positive`` and ``valid`` bool ``[B, S]``."""

    boxes: Tensor
    labels: Tensor
    target: Tensor
    positive: Tensor
    valid: Tensor


class BoxHead(nn.Module):
    """Fully connected layers on flattened regions, then class logits (background last) and box offsets."""

    def __init__(self, config: BoxHeadConfig, channels: int, num_classes: int) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        widths = [channels * config.pooling.size**2, *config.hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.scores = nn.Linear(widths[-1], num_classes + 1)
        self.deltas = nn.Linear(widths[-1], 4 if config.class_agnostic else 4 * num_classes)
        for layer in self.layers:
            nn.init.kaiming_uniform_(layer.weight, a=1)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        nn.init.zeros_(self.scores.bias)
        nn.init.zeros_(self.deltas.bias)
        self.coder = BoxCoder(weights=config.weights, clamp=config.clamp, offset=config.offset)
        self.matcher = Matcher(
            positive=config.positive_iou,
            negative=config.negative_iou,
            negative_floor=config.negative_floor,
            crowd_ignore=config.crowd_ignore,
            offset=config.offset,
        )
        self.sampler = BalancedSampler(count=config.samples, positive_fraction=config.positive_fraction)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, R, P, P, C]`` to logits ``[B, R, K + 1]`` and deltas ``[B, R, K or 1, 4]``, both float32."""
        x = pooled.flatten(2)
        for layer in self.layers:
            x = F.relu(layer(x), inplace=True)
        deltas = self.deltas(x).float()
        return self.scores(x).float(), deltas.unflatten(-1, (-1, 4))

    @torch.no_grad()
    def choose(self, proposals: Proposals, targets: Targets, usable: Tensor, seeds: Tensor) -> RegionSample:
        """Sample regions for the loss from the proposals and, with ``add_truth``, the ground truth itself."""
        boxes, valid = proposals.boxes, proposals.valid
        if self.config.add_truth:
            boxes = torch.cat([boxes, targets.boxes], dim=1)
            valid = torch.cat([valid, usable], dim=1)
        matches = self.matcher(boxes, targets.boxes, usable, targets.crowd & targets.valid, allowed=valid)
        choice = self.sampler(matches, seeds, salt=2)
        index = matches.truth.gather(1, choice.chosen)
        labels = gather_targets(targets.labels.unsqueeze(-1), index).squeeze(-1)
        return RegionSample(
            boxes.gather(1, choice.chosen.unsqueeze(-1).expand(-1, -1, 4)),
            torch.where(choice.positive, labels, self.num_classes),
            gather_targets(targets.boxes, index),
            choice.positive,
            choice.valid,
        )

    def loss(self, logits: Tensor, deltas: Tensor, sample: RegionSample) -> dict[str, Tensor]:
        """Log loss over all sampled regions and box loss of the positives' own class (Fast R-CNN eq. 1)."""
        batch, count = sample.labels.shape
        entropy = F.cross_entropy(logits.flatten(0, 1), sample.labels.flatten(), reduction="none").reshape(batch, count)
        own = torch.zeros_like(sample.labels) if self.config.class_agnostic else sample.labels
        own = own.clamp(max=deltas.shape[2] - 1)  # background rows read any class; the mask drops them
        delta = deltas.gather(2, own[..., None, None].expand(-1, -1, 1, 4)).squeeze(2)
        config = self.config
        box = box_regression_loss(
            delta, sample.boxes, sample.target, sample.positive, self.coder, config.box_loss, config.beta
        )
        if config.normalizer == "fixed":
            total: Tensor | int = config.samples * batch
        else:
            total = sample.valid.sum().clamp(min=1)
        return {
            "classification": torch.where(sample.valid, entropy, 0.0).sum() / total,
            "box": config.box_weight * box / total,
        }

    @torch.no_grad()
    def detections(self, logits: Tensor, deltas: Tensor, proposals: Proposals, sizes: Tensor) -> DetectionBatch:
        """Softmax scores, refined boxes, NMS within each class."""
        classes = self.num_classes
        scores = logits.softmax(-1)[..., :classes]  # [B, R, K]
        scores = torch.where(proposals.valid.unsqueeze(-1), scores, 0.0)
        score, index = best_candidates(scores.flatten(1), self.config.post)
        region, label = index // classes, index % classes
        reference = proposals.boxes.gather(1, region.unsqueeze(-1).expand(-1, -1, 4))
        column = region if self.config.class_agnostic else index
        delta = deltas.flatten(1, 2).gather(1, column.unsqueeze(-1).expand(-1, -1, 4))
        return suppress(self.coder.decode(reference, delta), score, label, sizes, self.config.post)
