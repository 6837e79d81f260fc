"""Region proposal network on a feature pyramid (Faster R-CNN §3.1; FPN §4.1).

Symbols: B images, A anchors over the pyramid, a anchors in a cell, C channels, S sampled anchors, R proposals.

The proposals carry no gradient, and the loss reads only a few hundred sampled anchors. In training the dense head
therefore runs without a graph, and the cells of the sampled anchors are computed again with one. Outputs and gradients
equal those of a dense backward pass, at a fraction of its time and memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.anchors.generator import AnchorConfig, AnchorGenerator
from boxwright.anchors.matching.matcher import Matcher
from boxwright.anchors.sampler import BalancedSampler, Choice
from boxwright.fields import Count, Fraction, NotNegative, Positive, PositiveShare, Share, config
from boxwright.geometry.boxes import clip_boxes
from boxwright.geometry.constants import constant
from boxwright.geometry.indexing import take_rows
from boxwright.geometry.nms import nms
from boxwright.geometry.pooling.feature_table import FeatureTable, patch_rows
from boxwright.heads.losses import box_regression_loss
from boxwright.heads.regions.configs import CoderConfig, RegionLossConfig
from boxwright.heads.regions.proposals import Proposals
from boxwright.structures import InputError, Level, Targets


@config
class RPNAssignConfig:
    """Labels of the anchors in training (Faster R-CNN §3.1.2)."""

    positive_iou: Share = 0.7
    """Anchors with this IoU or more with an object are positive."""
    negative_iou: Share = 0.3
    """Anchors with a lower IoU with every object are negative; those between are ignored."""
    low_quality: bool = True
    """Make the best anchors of each object positive whatever their IoU."""
    crowd_ignore: Share | None = 0.7
    """Ignore negatives of which a crowd region covers more than this share; None keeps them."""
    straddle: NotNegative | None = None
    """Pixels that an anchor may cross the image border by. None keeps all anchors (FPN §5.1, torchvision, detectron2),
    0 drops those that cross (Faster R-CNN §3.3)."""


@config
class RPNLossConfig(RegionLossConfig):
    """Faster R-CNN eq. 1."""

    beta: NotNegative = 1 / 9
    """Difference at which smooth L1 turns linear."""


@config
class RPNCoderConfig(CoderConfig):
    """Faster R-CNN eq. 2, without normalised targets."""

    weights: tuple[Positive, Positive, Positive, Positive] = (1.0, 1.0, 1.0, 1.0)
    """Factors of dx, dy, dw, dh."""


@config
class ProposalNMSConfig:
    """Conventions of the step from scored anchors to proposals, in which published code differs."""

    scope: Literal["level", "image"] = "level"
    """Run NMS, and keep the best ``pre_nms``, per pyramid level (FPN) or per image (one map, DetNet_pytorch)."""
    filter_first: bool = False
    """Drop small boxes before the best ``pre_nms`` are taken (Caffe) instead of after."""
    inclusive: bool = False
    """Suppress at IoU >= threshold (Caffe on a CPU) instead of >."""
    min_size: NotNegative = 1e-3
    """Shortest side of a proposal in pixels."""
    score_threshold: Fraction = 0.0
    """Minimum objectness, 0..1, before NMS (torchvision's MobileNet: 0.05)."""


@config
class RPNConfig:
    """Constants of Faster R-CNN §3.1 and §3.3 with the settings that papers and code on FPN share."""

    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    """Anchor boxes by pyramid level."""
    channels: Count | None = None
    """Width of the hidden convolution; None for the width of the pyramid."""
    convs: Count = 1
    """Number of hidden 3x3 convolutions."""
    objectness: Literal["sigmoid", "softmax"] = "sigmoid"
    """One logit an anchor, or a softmax over background and object (the paper, Caffe)."""
    pairing: Literal["blocks", "pairs", "crossed"] = "blocks"
    """Channel order of the softmax: all background then all object ("blocks", Caffe), alternating ("pairs"), or pairs
    in training and channel i against i + a for proposals ("crossed", a defect that DetNet_pytorch's weights need)."""
    assign: RPNAssignConfig = RPNAssignConfig()
    """Labels of the anchors."""
    samples: Count = 256
    """Anchors that the loss samples from each image (§3.1.3)."""
    positive_fraction: PositiveShare = 0.5
    """Largest share of positives among them."""
    loss: RPNLossConfig = RPNLossConfig()
    """Objectness and box loss."""
    coder: RPNCoderConfig = RPNCoderConfig()
    """Box deltas."""
    pre_nms: tuple[Count, Count] = (2000, 1000)
    """Best anchors that enter NMS, (training, inference), per level or image as ``nms.scope`` says."""
    post_nms: tuple[Count, Count] = (1000, 1000)
    """Proposals kept per image, (training, inference)."""
    nms_iou: PositiveShare = 0.7
    """IoU above which NMS drops the lower-scored proposal."""
    nms: ProposalNMSConfig = ProposalNMSConfig()
    """Conventions of NMS."""


PAPER_RPN = RPNConfig(
    anchors=AnchorConfig(sizes=((128, 256, 512),), centre="cell"),
    channels=512,
    assign=RPNAssignConfig(straddle=0.0),
    pre_nms=(12_000, 6_000),
    post_nms=(2_000, 300),
    nms=ProposalNMSConfig(min_size=16.0, filter_first=True),
)
"""Faster R-CNN §3.1, §3.3, on one map: nine anchors, those across the border left out of training; 2000 proposals in
training, 300 at test."""


class RPN(nn.Module):
    """One head, shared by all levels: 3x3 convolution, ReLU, objectness and box offsets of each anchor."""

    def __init__(self, config: RPNConfig, levels: Sequence[Level]) -> None:
        super().__init__()
        self.config = config
        self.anchors = AnchorGenerator(config.anchors, levels)
        if len(set(self.anchors.per_cell)) != 1 or len({level.channels for level in levels}) != 1:
            raise InputError(
                f"the RPN's head is shared, so all levels need as many anchors a cell (here "
                f"{self.anchors.per_cell}) and as many channels (here {[level.channels for level in levels]})"
            )
        channels, cell = levels[0].channels, self.anchors.per_cell[0]
        hidden = config.channels or channels
        logits = cell * (2 if config.objectness == "softmax" else 1)
        widths = [channels] + [hidden] * config.convs
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.objectness = nn.Conv2d(hidden, logits, 1)
        self.deltas = nn.Conv2d(hidden, cell * 4, 1)
        for layer in (*self.convs, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        assign = config.assign
        self.coder = config.coder.build()
        self.matcher = Matcher(
            positive=assign.positive_iou,
            negative=assign.negative_iou,
            low_quality=assign.low_quality,
            crowd_ignore=assign.crowd_ignore,
            offset=config.coder.offset,
        )
        self.sampler = BalancedSampler(count=config.samples, positive_fraction=config.positive_fraction)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Apply the head to maps ``[B, C, H, W]``: logits ``[B, H * W, a or 2a]`` and deltas ``[B, H * W * a, 4]``."""
        weight = torch.cat([self.objectness.weight, self.deltas.weight])
        bias = torch.cat([self.objectness.bias, self.deltas.bias])  # type: ignore[list-item]
        split = self.objectness.out_channels
        logits, deltas = [], []
        for fmap in maps:
            for conv in self.convs:
                fmap = F.relu(conv(fmap), inplace=True)
            out = F.conv2d(fmap, weight, bias).permute(0, 2, 3, 1).flatten(1, 2).float()  # [B, H * W, a * 5]
            logits.append(out[..., :split])
            deltas.append(out[..., split:].reshape(out.shape[0], -1, 4))
        return logits, deltas

    def anchors_of(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the anchors of each of ``maps``, ``[H * W * a, 4]``."""
        return self.anchors.by_level([(m.shape[2], m.shape[3]) for m in maps], maps[0].device)

    @torch.no_grad()
    def proposals(self, maps: Sequence[Tensor], sizes: Tensor, training: bool) -> Proposals:
        """Propose regions from ``maps``, computed without a graph; ``training`` chooses between the two counts."""
        logits, deltas = self([fmap.detach() for fmap in maps])
        return self.propose(logits, deltas, self.anchors_of(maps), sizes, training)

    def losses(
        self,
        maps: Sequence[Tensor],
        sizes: Tensor,
        targets: Targets,
        usable: Tensor,
        seeds: Tensor,
        table: FeatureTable | None = None,
    ) -> dict[str, Tensor]:
        """Compute both losses from ``maps``. ``table`` holds the same maps; it is built here if not given."""
        anchors = torch.cat(self.anchors_of(maps))
        choice, target = self.choose(anchors, targets, usable, sizes, seeds)
        table = FeatureTable.from_maps(maps, self.anchors.strides) if table is None else table
        return self.loss(table, maps, anchors, choice, target)

    def scores(self, logits: Tensor, proposing: bool) -> Tensor:
        """Compute the foreground logit of each anchor, ``[B, n, a or 2a] -> [B, n * a]``."""
        if self.config.objectness == "softmax":
            cell = logits.shape[-1] // 2
            pairing = self.config.pairing
            if pairing == "blocks":
                logits = logits[..., cell:] - logits[..., :cell]
            elif pairing == "crossed" and proposing:
                half = logits[..., 1::2]  # the channel read as foreground, against its partner in a softmax over halves
                other = logits.roll(cell, dims=-1)[..., 1::2]
                logits = half - other
            else:
                logits = logits[..., 1::2] - logits[..., 0::2]
        return logits.flatten(1)

    @torch.no_grad()
    def propose(
        self, logits: list[Tensor], deltas: list[Tensor], anchors: list[Tensor], sizes: Tensor, training: bool
    ) -> Proposals:
        """Select the best boxes of each image by NMS, clipped to it: ``post_nms``, or all anchors if fewer."""
        config = self.config
        before, after = (pair[0 if training else 1] for pair in (config.pre_nms, config.post_nms))
        scores = [self.scores(level, proposing=True) for level in logits]
        if config.nms.scope == "image":
            scores, deltas, anchors = [torch.cat(scores, 1)], [torch.cat(deltas, 1)], [torch.cat(anchors)]
        taken = [self._best(s, d, a, sizes, before) for s, d, a in zip(scores, deltas, anchors, strict=True)]
        room = max(score.shape[1] for _, score in taken)
        boxes = torch.stack([F.pad(box, (0, 0, 0, room - box.shape[1])) for box, _ in taken], dim=1)
        ranked = torch.stack([F.pad(s, (0, room - s.shape[1]), value=-torch.inf) for _, s in taken], dim=1)
        batch, levels = ranked.shape[:2]

        keep = min(room, after)
        extended = boxes + constant([0, 0, config.coder.offset, config.coder.offset], boxes.device)
        threshold = math.nextafter(config.nms_iou, 0.0) if config.nms.inclusive else config.nms_iou
        index, valid = nms(extended.flatten(0, 1), ranked.flatten(0, 1), threshold, keep)  # each level by itself
        boxes = take_rows(boxes.flatten(0, 1), index).reshape(batch, levels * keep, 4)
        ranked = ranked.flatten(0, 1).gather(1, index).masked_fill(~valid, -torch.inf).reshape(batch, levels * keep)
        score, order = ranked.topk(min(after, levels * keep), dim=1)
        return Proposals(take_rows(boxes, order), score, score > -torch.inf)

    def _best(
        self, scores: Tensor, deltas: Tensor, anchors: Tensor, sizes: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """Return boxes ``[B, n, 4]`` and scores ``[B, n]`` of a level's best anchors; small ones score -inf."""
        count = min(count, scores.shape[1])
        if self.config.nms.filter_first:
            boxes = clip_boxes(self.coder.decode(anchors, deltas), sizes, self.config.coder.offset)
            score, index = self._without_poor(boxes, scores).topk(count, dim=1)
            return take_rows(boxes, index), score
        score, index = scores.topk(count, dim=1)
        chosen = take_rows(deltas, index)
        boxes = clip_boxes(self.coder.decode(anchors[index], chosen), sizes, self.config.coder.offset)
        return boxes, self._without_poor(boxes, score)

    def _without_poor(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """Return the logits, minus infinity for boxes that are too small or score too low."""
        sides = boxes[..., 2:] - boxes[..., :2] + self.config.coder.offset
        poor = (sides < self.config.nms.min_size).any(-1)
        if self.config.nms.score_threshold > 0:
            poor = poor | (scores.sigmoid() < self.config.nms.score_threshold)
        return scores.masked_fill(poor, -torch.inf)

    @torch.no_grad()
    def choose(
        self, anchors: Tensor, targets: Targets, usable: Tensor, sizes: Tensor, seeds: Tensor
    ) -> tuple[Choice, Tensor]:
        """Sample anchors ``[A, 4]`` for the loss, and return their target boxes ``[B, S, 4]`` too."""
        allowed = None
        if self.config.assign.straddle is not None:
            low = (anchors[:, :2] >= -self.config.assign.straddle).all(-1)
            edge = sizes.flip(-1).unsqueeze(1) + self.config.assign.straddle
            high = anchors[:, 2:] < edge if self.config.coder.offset else anchors[:, 2:] <= edge  # last pixel; end
            allowed = low & high.all(-1)  # [B, A]
        matches = self.matcher(anchors, targets.boxes, usable, targets.crowd & targets.valid, allowed)
        choice = self.sampler(matches, seeds, salt=1)
        return choice, take_rows(targets.boxes, matches.truth.gather(1, choice.chosen))

    def loss(
        self, table: FeatureTable, maps: Sequence[Tensor], anchors: Tensor, choice: Choice, target: Tensor
    ) -> dict[str, Tensor]:
        """Compute objectness and box loss of the sampled anchors (Faster R-CNN eq. 1, in the usual form)."""
        config, cell = self.config, self.anchors.per_cell[0]
        out = self._sampled_outputs(table, choice.chosen // cell) if config.convs == 1 else None
        if out is None:
            logits, deltas = self(maps)
            score = torch.cat([self.scores(level, proposing=False) for level in logits], 1).gather(1, choice.chosen)
            delta = take_rows(torch.cat(deltas, 1), choice.chosen)
        else:
            split = self.objectness.out_channels
            slot = choice.chosen % cell  # [B, S]
            each = self.scores(out[..., :split].flatten(0, 1).unsqueeze(1), proposing=False)  # [B * S, a]
            score = each.reshape(*slot.shape, cell).gather(2, slot.unsqueeze(-1)).squeeze(-1)
            delta = out[..., split:].unflatten(-1, (cell, 4))
            delta = delta.gather(2, slot[..., None, None].expand(-1, -1, 1, 4)).squeeze(2)
        bce = F.binary_cross_entropy_with_logits(score, choice.positive.float(), reduction="none")
        box = box_regression_loss(
            delta, anchors[choice.chosen], target, choice.positive, self.coder, config.loss.box, config.loss.beta
        )
        if config.loss.normalizer == "fixed":
            total: Tensor | int = config.samples * score.shape[0]
        else:
            total = choice.valid.sum().clamp(min=1)
        return {
            "rpn_objectness": torch.where(choice.valid, bce, 0.0).sum() / total,
            "rpn_box": config.loss.box_weight * box / total,
        }

    def _sampled_outputs(self, table: FeatureTable, cell_index: Tensor) -> Tensor:
        """Compute the head at single cells of the pyramid, ``[B, S] -> [B, S, a * 5]``, with a gradient."""
        level = torch.zeros_like(cell_index)
        start = 0
        within = cell_index
        for number, (height, width) in enumerate(table.shapes):
            here = cell_index >= start
            level = torch.where(here, number, level)
            within = torch.where(here, cell_index - start, within)
            start += height * width
        _, _, width, _ = table.constants(level)
        conv = self.convs[0]
        assert isinstance(conv, nn.Conv2d)
        patches = patch_rows(table, level, within // width, within % width)  # [B, S, 9 * C] in order dy, dx, channel
        hidden = F.relu(F.linear(patches, conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias))
        weight = torch.cat([self.objectness.weight, self.deltas.weight]).flatten(1)
        bias = torch.cat([self.objectness.bias, self.deltas.bias])  # type: ignore[list-item]
        return F.linear(hidden, weight, bias).float()
