"""The second stage on pooled regions: classify, and refine the box (Fast R-CNN §2.3; FPN §4.2 for the two layers).

Symbols: B images, R regions an image, K foreground classes, P cells of the pooled side, C channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import field
from itertools import pairwise
from typing import Annotated, Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from boxwright.anchors.coder import Coder
from boxwright.anchors.matching.matcher import Matcher, Matches
from boxwright.anchors.sampler import BalancedSampler, Choice
from boxwright.backbones.layers.norm import ConvNormAct, OptionalNorm
from boxwright.fields import Count, CountOrZero, Fraction, PositiveShare, Share, config
from boxwright.geometry.indexing import take_rows
from boxwright.geometry.pooling.feature_table import FeatureTable
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig, pool_regions
from boxwright.heads.class_rows import SHARED, grouped_rows
from boxwright.heads.class_weights import ClassWeights
from boxwright.heads.losses import box_regression_losses
from boxwright.heads.postprocess import PostprocessConfig, best_candidates, box_factor, suppress
from boxwright.heads.regions.classifier import take_classifier
from boxwright.heads.regions.configs import CoderConfig, RegionLossConfig
from boxwright.heads.regions.fits.target_statistics import TargetStatistics
from boxwright.heads.regions.proposals import Proposals
from boxwright.structures import DetectionBatch, InputError, Targets


@config
class RegionAssignConfig:
    """Labels of the regions in training (Fast R-CNN §2.3)."""

    positive_iou: Share = 0.5
    """Regions with this IoU or more with an object are positive."""
    negative_iou: Share = 0.5
    """Regions with a lower IoU with every object are background."""
    negative_floor: Share = 0.0
    """Background regions need at least this IoU with an object (Fast R-CNN: 0.1)."""
    crowd_ignore: Share | None = 0.7
    """Ignore background of which a crowd region covers more than this share; None keeps it."""
    add_truth: bool = True
    """Add the ground-truth boxes to the regions (Caffe, torchvision, detectron2; not tf-faster-rcnn)."""


@config
class RegionConfig:
    """Constants that second stages share: Fast R-CNN §2.3, with the settings that papers and code on FPN agree on."""

    class_agnostic: bool = False
    """Predict one box for all classes instead of one per class."""
    assign: RegionAssignConfig = RegionAssignConfig()
    """Labels of the regions."""
    samples: Count = 512
    """Regions that the loss samples from each image."""
    positive_fraction: PositiveShare = 0.25
    """Largest share of positives among them."""
    loss: RegionLossConfig = RegionLossConfig()
    """Classification and box loss."""
    coder: CoderConfig = CoderConfig()
    """Box deltas."""
    post: PostprocessConfig = field(default_factory=PostprocessConfig)
    """Score threshold, NMS and number of detections."""


@config
class PooledConfig(RegionConfig):
    """Constants of second stages that pool features of each region."""

    pooling: RoIPoolingConfig = field(default_factory=RoIPoolingConfig)
    """RoI pooling."""


@config
class BoxHeadConfig(PooledConfig):
    """Fully connected layers on the pooled cells (FPN §4.2), after 3x3 convolutions if there are any."""

    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (1024, 1024)
    """Widths of the fully connected layers."""
    ranks: tuple[CountOrZero, ...] = ()
    """Rank of each of these layers after truncated SVD (Fast R-CNN §3.1), 0 for a whole layer; empty for all whole."""
    dropout: Fraction = 0.0
    """Dropout after each of these layers in training (VGG-16: 0.5)."""
    convs: CountOrZero = 0
    """Number of 3x3 convolutions before them (torchvision's second Faster R-CNN: 4)."""
    conv_channels: Annotated[int, Field(ge=8, multiple_of=8)] = 256
    """Width of the convolutions."""
    norm: OptionalNorm = "none"
    """Norm after each convolution. A live batch norm takes its statistics over all sampled regions."""

    def __post_init__(self) -> None:
        if self.ranks and len(self.ranks) != len(self.hidden):
            raise InputError(
                f"head.ranks = {self.ranks} for {len(self.hidden)} fully connected layers; give one each, 0 leaves one "
                "whole"
            )
        if self.norm != "none" and self.convs == 0:
            raise InputError(f"head.norm = {self.norm!r} stands after convolutions, and head.convs = 0; leave it out")


Features = TypeVar("Features")
AnyRegionConfig = TypeVar("AnyRegionConfig", bound=RegionConfig)
AnyPooledConfig = TypeVar("AnyPooledConfig", bound=PooledConfig)


class RegionSample(NamedTuple):
    """Regions of a training step: ``boxes`` ``[B, S, 4]``, their target ``labels`` (K is background) and
    ``target`` boxes, ``positive`` and ``valid`` bool ``[B, S]``; ``truth`` int64 ``[B, S]``: the ground-truth row each
    is matched to. Balanced samples have their positives first."""

    boxes: Tensor
    labels: Tensor
    target: Tensor
    positive: Tensor
    valid: Tensor
    truth: Tensor

    def take(self, choice: Choice) -> RegionSample:
        """Select the rows of ``choice``."""
        return RegionSample(
            take_rows(self.boxes, choice.chosen),
            self.labels.gather(1, choice.chosen),
            take_rows(self.target, choice.chosen),
            choice.positive,
            choice.valid,
            self.truth.gather(1, choice.chosen),
        )


class RegionHead(nn.Module, ABC, Generic[AnyRegionConfig, Features]):
    """A second stage: RoI sampling, losses and post-processing. Subclasses add the layers.

    ``Features`` is the type of its input: the table of a pyramid, or R-FCN's score maps. ``statistics`` holds
    the mean and deviation of box offsets for a detector that measures them on its training set, else None.
    """

    def __init__(self, config: AnyRegionConfig, num_classes: int) -> None:
        super().__init__()
        self.statistics: TargetStatistics | None = None
        self.config, self.num_classes = config, num_classes
        self.class_weights = ClassWeights()
        assign = config.assign
        self.coder = config.coder.build()
        self.matcher = Matcher(
            positive=assign.positive_iou,
            negative=assign.negative_iou,
            negative_floor=assign.negative_floor,
            crowd_ignore=assign.crowd_ignore,
            offset=config.coder.offset,
        )
        self.sampler = BalancedSampler(count=config.samples, positive_fraction=config.positive_fraction)

    @abstractmethod
    def predict(self, features: Features, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits ``[B, R, K + 1]`` and deltas ``[B, R, K or 1, 4]``, float32, of regions ``[B, R, 4]``."""

    def losses(
        self, features: Features, proposals: Proposals, targets: Targets, usable: Tensor, seeds: Tensor
    ) -> dict[str, Tensor]:
        """Sample regions and compute their losses (Fast R-CNN §2.3)."""
        sample = self.choose(proposals, targets, usable, seeds)
        return self.loss(*self.predict(features, sample.boxes), sample)

    def detect(
        self, features: Features, proposals: Proposals, sizes: Tensor, scales: Tensor | None = None
    ) -> DetectionBatch:
        """Classify and refine all proposals, then run NMS within each class."""
        return self.detections(*self.predict(features, proposals.boxes), proposals, sizes, scales)

    def class_rows(self) -> dict[str, Tensor]:
        """Class of each row of the layers that tell classes apart, see ``boxwright.heads.class_rows``."""
        foreground = torch.arange(self.num_classes)
        rows = grouped_rows(self, "scores", torch.arange(self.num_classes + 1))
        if not self.config.class_agnostic:
            rows |= grouped_rows(self, "deltas", foreground)
        if self.statistics is not None:
            length = len(self.statistics.get_buffer("mean"))
            index = foreground if length == self.num_classes else torch.full((length,), SHARED)
            rows |= {"statistics.mean": index, "statistics.std": index}
        return rows

    @torch.no_grad()
    def candidates(self, proposals: Proposals, targets: Targets, usable: Tensor) -> tuple[RegionSample, Matches]:
        """Return all candidate regions with their targets: the proposals and, with ``add_truth``, the ground truth.

        ``valid`` marks those that are positive or background.
        """
        boxes, valid = proposals.boxes, proposals.valid
        if self.config.assign.add_truth:
            boxes = torch.cat([boxes, targets.boxes], dim=1)
            valid = torch.cat([valid, usable], dim=1)
        matches = self.matcher(boxes, targets.boxes, usable, targets.crowd & targets.valid, allowed=valid)
        labels = matches.labels(targets)
        sample = RegionSample(
            boxes,
            torch.where(matches.positive, labels, self.num_classes),
            matches.boxes(targets),
            matches.positive,
            matches.positive | matches.negative,
            matches.truth,
        )
        return sample, matches

    @torch.no_grad()
    def choose(self, proposals: Proposals, targets: Targets, usable: Tensor, seeds: Tensor) -> RegionSample:
        """Sample regions for the loss from the proposals and, with ``add_truth``, the ground truth itself."""
        everything, matches = self.candidates(proposals, targets, usable)
        return everything.take(self.sampler(matches, seeds, salt=2))

    def losses_of_each(self, logits: Tensor, deltas: Tensor, sample: RegionSample) -> tuple[Tensor, Tensor]:
        """Compute log loss and own-class box loss of each region, ``[B, S]`` each; 0 where not valid."""
        entropy = F.cross_entropy(logits.flatten(0, 1), sample.labels.flatten(), reduction="none")
        entropy = self.class_weights(entropy.reshape(sample.labels.shape), sample.labels)
        entropy = torch.where(sample.valid, entropy, 0.0)
        own = torch.zeros_like(sample.labels) if self.config.class_agnostic else sample.labels
        own = own.clamp(max=deltas.shape[2] - 1)  # background rows read any class; the mask drops them
        delta = deltas.gather(2, own[..., None, None].expand(-1, -1, 1, 4)).squeeze(2)
        kind, beta, coder = self.config.loss.box, self.config.loss.beta, self.coder_of(own)
        box = box_regression_losses(delta, sample.boxes, sample.target, sample.positive, coder, kind, beta)
        return entropy, box

    def coder_of(self, columns: Tensor) -> Coder:
        """Return the coder of the deltas at ``columns`` ``[B, R]``: class indexes, or all 0."""
        return self.coder if self.statistics is None else self.statistics.coder(self.coder, columns)

    def loss(self, logits: Tensor, deltas: Tensor, sample: RegionSample) -> dict[str, Tensor]:
        """Compute the log loss of all sampled regions and the box loss of positives (Fast R-CNN eq. 1)."""
        entropy, box = self.losses_of_each(logits, deltas, sample)
        return self.total(entropy, box, sample.valid)

    def total(self, entropy: Tensor, box: Tensor, counted: Tensor) -> dict[str, Tensor]:
        """Reduce the losses of each region, both ``[B, S]``, to scalars; ``counted`` marks the sampled regions."""
        if self.config.loss.normalizer == "fixed":
            total: Tensor | int = self.config.samples * len(counted)
        else:
            total = counted.sum().clamp(min=1)
        return {"classification": entropy.sum() / total, "box": self.config.loss.box_weight * box.sum() / total}

    @torch.no_grad()
    def detections(
        self, logits: Tensor, deltas: Tensor, proposals: Proposals, sizes: Tensor, scales: Tensor | None = None
    ) -> DetectionBatch:
        """Compute softmax scores and refined boxes, then run NMS within each class."""
        classes = self.num_classes
        scores = logits.softmax(-1)[..., :classes]  # [B, R, K]
        scores = torch.where(proposals.valid.unsqueeze(-1), scores, 0.0)
        score, index = best_candidates(scores.flatten(1), self.config.post)
        region, label = index // classes, index % classes
        reference = take_rows(proposals.boxes, region)
        agnostic = self.config.class_agnostic
        row, column = (region, torch.zeros_like(label)) if agnostic else (index, label)
        delta = take_rows(deltas.flatten(1, 2), row)
        coder, post = self.coder_of(column), self.config.post
        if scales is not None and post.original_from == "decoding":
            factor = box_factor(scales)
            boxes = coder.decode(reference / factor, delta) * factor
        else:
            boxes = coder.decode(reference, delta)
        return suppress(boxes, score, label, sizes, post, scales)


def linear_of(inputs: int, outputs: int, rank: int) -> nn.Linear | nn.Sequential:
    """Build a linear layer; with a rank above 0, two without an activation between them, the first without bias."""
    if rank == 0:
        return nn.Linear(inputs, outputs)
    largest = min(inputs, outputs)
    if rank > largest:
        raise InputError(f"rank {rank} of a layer from {inputs} to {outputs}: 1 to {largest}, or 0 for a whole one")
    return nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs))


class PooledHead(RegionHead[AnyPooledConfig, FeatureTable]):
    """A second stage whose layers run on RoI-pooled features."""

    def pretrained_parts(self) -> list[nn.Module]:
        """Return the submodules that a pretrained backbone's weights initialise, with its names in each."""
        return []

    def take_classifier(self, state: Mapping[str, Tensor]) -> int:
        """Start from layers of a pretrained network's classifier, and return their number: 0 without such layers."""
        return 0

    def pool(self, table: FeatureTable, boxes: Tensor) -> Tensor:
        """Pool the features of regions ``[B, R, 4]``: ``[B, R, P, P, C]``."""
        return pool_regions(table, boxes, self.config.pooling)

    def predict(self, features: FeatureTable, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Pool, then apply the layers."""
        return self(self.pool(features, boxes))


class BoxHead(PooledHead[BoxHeadConfig]):
    """Optional convolutions, fully connected layers, then class logits (background last) and box deltas."""

    def __init__(self, config: BoxHeadConfig, channels: int, num_classes: int) -> None:
        super().__init__(config, num_classes)
        planes = [channels] + [config.conv_channels] * config.convs
        self.convs = nn.ModuleList(
            ConvNormAct(a, b, 3, norm=config.norm, act=nn.ReLU(inplace=True)) for a, b in pairwise(planes)
        )
        for module in self.convs.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        widths = [planes[-1] * config.pooling.size**2, *config.hidden]
        ranks = config.ranks or (0,) * len(config.hidden)
        self.layers = nn.ModuleList(linear_of(a, b, rank) for (a, b), rank in zip(pairwise(widths), ranks, strict=True))
        for layer in self.layers.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.scores, self.deltas = predictors(widths[-1], num_classes, config.class_agnostic)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``[B, R, P, P, C]`` to logits ``[B, R, K + 1]`` and deltas ``[B, R, K or 1, 4]``, both float32."""
        x = pooled.flatten(2)
        if len(self.convs):
            maps = pooled.flatten(0, 1).permute(0, 3, 1, 2)  # [B * R, C, P, P], channels-last
            for conv in self.convs:
                maps = conv(maps)
            x = maps.permute(0, 2, 3, 1).reshape(*pooled.shape[:2], -1)
        for layer in self.layers:
            x = F.relu(layer(x), inplace=True)
            if self.config.dropout > 0:
                x = F.dropout(x, self.config.dropout, self.training)
        deltas = self.deltas(x).float()
        return self.scores(x).float(), deltas.unflatten(-1, (-1, 4))

    def take_classifier(self, state: Mapping[str, Tensor]) -> int:
        """Start from fc6 and fc7 of a VGG's or ZF's classifier as far as they fit, and return the number of layers.

        Takes none if the head has convolutions, because its layers then read other features.
        """
        return 0 if len(self.convs) else take_classifier(self.layers, state, self.config.pooling.size)


def predictors(channels: int, num_classes: int, class_agnostic: bool) -> tuple[nn.Linear, nn.Linear]:
    """Build the layers of class logits and box deltas, initialised as in Fast R-CNN §2.3."""
    scores = nn.Linear(channels, num_classes + 1)
    deltas = nn.Linear(channels, 4 if class_agnostic else 4 * num_classes)
    for layer, std in ((scores, 0.01), (deltas, 0.001)):
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    return scores, deltas
