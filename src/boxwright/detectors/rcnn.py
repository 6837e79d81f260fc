"""R-CNN: a convolutional network on a warped crop of every proposal, SVMs on its features, boxes regressed.

Girshick, Donahue, Darrell, Malik: Rich feature hierarchies for accurate object detection and semantic segmentation,
arXiv 1311.2524.

Symbols: B images, K classes, R proposals and S sampled windows of an image, D7 numbers of fc7, D5 of pool5.

Three stages (§2.3, appendix C): the network is fine-tuned to classify windows, background among the classes; an SVM for
each class is fitted on fc7 and mined negatives; the boxes of each class are regressed from pool5. The first is a stage
of steps by gradients, the others are fits (:mod:`boxwright.detectors.rcnn_fits`). Until its SVMs are fitted the
detector scores by the softmax, and until its regression is fitted boxes stay as proposed.

Departures: windows of a step come from the images of its batch, a few of each, where the paper draws them from the
whole set; scores are the sigmoid of a margin, because scores lie in 0..1; boxes are regressed before NMS; the mean of
the pixels is a colour (:mod:`boxwright.geometry.region_warp`). On backbones other than VGG and ZF the mean of the last
map stands for fc7, and that map, averaged to ``cells`` x ``cells``, for pool5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.anchors.coder import BoxCoder
from boxwright.anchors.matcher import Matcher
from boxwright.anchors.sampler import BalancedSampler
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.vgg import VGGConfig
from boxwright.data.index import DetectionIndex
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.fitting import FitConfig, Fitting
from boxwright.detectors.contract.pixels import IMAGENET, PixelConfig
from boxwright.detectors.rcnn_fits import BoxFitting, SVMFitting
from boxwright.geometry.indexing import take_rows
from boxwright.geometry.region_warp import RegionWarpConfig, warp_regions
from boxwright.heads.class_rows import of_layer
from boxwright.heads.postprocess import PostprocessConfig, best_candidates, suppress
from boxwright.heads.regions.proposals import Proposals, given_proposals
from boxwright.heads.regions.svm import SVMFitConfig
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowConfig:
    """The windows of an image that a step of fine-tuning takes (§2.3: 32 objects and 96 background of all images).

    ``count``: of each image, ``positive_fraction`` of them objects. ``positives``: "overlap" takes windows with an IoU
    of ``positive_iou`` or more; "truth" the annotated boxes alone, as the SVMs do (appendix B). ``negative_iou``:
    windows below it are background; the paper's is ``positive_iou``. ``add_truth``: annotated boxes are windows too.
    ``crowd_ignore``: windows of which a crowd region covers more are no background.
    """

    count: int = 8
    positive_fraction: float = 0.25
    positives: Literal["overlap", "truth"] = "overlap"
    positive_iou: float = 0.5
    negative_iou: float = 0.5
    add_truth: bool = True
    crowd_ignore: float | None = 0.7

    def __post_init__(self) -> None:
        if self.positives == "truth" and not self.add_truth:
            raise InputError('windows.positives = "truth" needs windows.add_truth = true: nothing would be positive')


@dataclass(frozen=True, slots=True, kw_only=True)
class LayersConfig:
    """pool5, fc6 and fc7 of VGG (``pool`` 2) or ZF (3): max pooling, layers of ``hidden`` units with dropout."""

    kind: Literal["layers"] = "layers"
    hidden: tuple[int, ...] = (4096, 4096)
    dropout: float = 0.5
    pool: int = 2

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1 or not 0 <= self.dropout < 1 or self.pool < 1:
            raise InputError(
                f"layers.hidden = {self.hidden}, dropout = {self.dropout}, pool = {self.pool}: give at least one width "
                "above 0, a dropout in 0..1 and below 1, and a pool of at least 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanConfig:
    """The mean of the last map, for residual networks; boxes are regressed from its ``cells`` x ``cells`` means."""

    kind: Literal["mean"] = "mean"
    cells: int = 3

    def __post_init__(self) -> None:
        if self.cells < 1:
            raise InputError(f"layers.cells = {self.cells}: must be at least 1")


def _paper_post() -> PostprocessConfig:
    # The released code keeps 100 of each class and looks no further; so many are VOC's twenty classes.
    return PostprocessConfig(score_threshold=0.0, nms_iou=0.3, per_class=100, detections=2000)


@dataclass(frozen=True, kw_only=True)
class RCNNConfig:
    """``backbone`` gives one map of a crop. ``score``: by the SVMs' margins or by the softmax of fine-tuning, which
    then is all that scores. ``regress``: whether boxes are. ``clamp``: largest dw and dh before the exponential.
    ``difficult``: whether boxes marked so are trained on (the released code does). ``chunk``: crops of an image that
    pass through the network together, which bounds memory and changes nothing else."""

    kind: Literal["rcnn"] = "rcnn"
    backbone: BackboneConfig = field(default_factory=lambda: VGGConfig(out_levels=(5,)))
    warp: RegionWarpConfig = field(default_factory=RegionWarpConfig)
    layers: LayersConfig | MeanConfig = LayersConfig()
    windows: WindowConfig = WindowConfig()
    score: Literal["svm", "softmax"] = "svm"
    regress: bool = True
    clamp: float | None = math.log(1000.0 / 16)
    post: PostprocessConfig = field(default_factory=_paper_post)
    pixels: PixelConfig = IMAGENET
    difficult: bool = True
    chunk: int = 128

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise InputError(f"detector.chunk = {self.chunk}: must be at least 1")


class RCNN(Detector):
    """See the module. SVMs and regression are buffers: part of the state, and no gradient reaches them."""

    fit_state: ClassVar[frozenset[str]] = frozenset({"svm_ready", "box_ready"})  # training changes the features
    svm_weight: Tensor
    svm_bias: Tensor
    svm_ready: Tensor
    box_weight: Tensor
    box_bias: Tensor
    box_ready: Tensor

    def __init__(self, config: RCNNConfig, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.backbone = build_backbone(config.backbone)
        levels, crop, windows, count = self.backbone.levels, config.warp.size, config.windows, len(classes)
        if len(levels) != 1 or crop % levels[-1].stride:
            raise InputError(
                f"R-CNN reads one map of a crop of {crop} pixels, but the backbone gives "
                f"{', '.join(f'{level.name} of stride {level.stride}' for level in levels)}; set "
                "detector.backbone.out_levels to one, and detector.warp.size to a multiple of its stride"
            )
        channels, side = levels[0].channels, crop // levels[0].stride
        self.fc = nn.ModuleList()
        if isinstance(config.layers, LayersConfig):
            pooled = channels * (max(side - config.layers.pool + 2, 0) // 2) ** 2
            widths = [pooled, *config.layers.hidden]
            if pooled == 0:
                raise InputError(f"detector.warp.size = {crop} leaves no cell after pool5; make it larger")
            self.fc.extend(nn.Linear(a, b) for a, b in pairwise(widths))
        else:
            pooled, widths = channels * config.layers.cells**2, [channels]
        self.scores = nn.Linear(widths[-1], count + 1)
        for layer in [*self.fc, self.scores]:
            nn.init.normal_(layer.weight, std=0.01 if layer is self.scores else (2 / layer.in_features) ** 0.5)
            nn.init.zeros_(layer.bias)
        self.register_buffer("svm_weight", torch.zeros(count, widths[-1]))
        self.register_buffer("svm_bias", torch.zeros(count))
        self.register_buffer("box_weight", torch.zeros(count, 4, pooled))
        self.register_buffer("box_bias", torch.zeros(count, 4))
        self.register_buffer("svm_ready", torch.tensor(False))
        self.register_buffer("box_ready", torch.tensor(False))
        self.coder = BoxCoder(clamp=config.clamp)
        self.matcher = Matcher(
            positive=windows.positive_iou, negative=windows.negative_iou, crowd_ignore=windows.crowd_ignore
        )
        self.sampler = BalancedSampler(count=windows.count, positive_fraction=windows.positive_fraction)

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """The loss of fine-tuning with ``targets``, detections without, both on ``images.proposals``."""
        pixels = self.normalise(images).float()
        if targets is None:
            return self._detections(pixels, images.sizes, self.proposals_of(images))
        boxes, labels, valid = self._sample(given_proposals(images), targets, self.sample_seeds(images))
        logits = self.scores(self.features(self._crops(pixels, images.sizes, boxes))[0]).float()
        entropy = F.cross_entropy(logits, labels.flatten(), reduction="none") * valid.flatten()
        return {"classification": entropy.sum() / (self.config.windows.count * len(boxes))}

    def features(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """fc7 ``[N, D7]`` and pool5 ``[N, D5]`` of crops ``[N, 3, S, S]``."""
        fmap, layers = self.backbone(crops)[0], self.config.layers
        if isinstance(layers, MeanConfig):
            return fmap.mean((2, 3)), F.adaptive_avg_pool2d(fmap, layers.cells).flatten(1)
        pooled = F.max_pool2d(fmap, layers.pool, 2).flatten(1)
        x = pooled
        for layer in self.fc:
            x = F.dropout(F.relu(layer(x)), layers.dropout, self.training)
        return x, pooled

    def proposals_of(self, images: Images) -> Proposals:
        """The given proposals; outside of graphs without the columns that are padding in every image."""
        found = given_proposals(images)
        if torch.compiler.is_compiling() or self.training:
            return found
        used = int((found.valid.any(0) * torch.arange(1, found.valid.shape[1] + 1, device=found.valid.device)).amax())
        return Proposals(*(t[:, : max(used, 1)] for t in found))

    @property
    def crowd_ignore(self) -> float | None:
        """Share of a window in a crowd region above which it is no negative; None keeps all."""
        return self.config.windows.crowd_ignore

    @property
    def difficult(self) -> bool:
        """True if objects marked difficult are trained on."""
        return self.config.difficult

    @property
    def box_features(self) -> int:
        """Length D5 of the features that boxes are regressed from."""
        return self.box_weight.shape[2]

    def usable(self, targets: Targets) -> Tensor:
        """Return the objects to train on, bool ``[B, G]``."""
        return targets.usable(self.config.difficult)

    @torch.no_grad()
    def describe(self, images: Images, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """fc7 and pool5, float32, of the windows ``[N, 4]`` of one image, in chunks."""
        if len(boxes) == 0:
            return boxes.new_zeros(0, self.svm_weight.shape[1]), boxes.new_zeros(0, self.box_weight.shape[2])
        pixels = self.normalise(images).float()
        parts = [self.features(self._crops(pixels, images.sizes, b[None])) for b in boxes.split(self.config.chunk)]
        first, second = (torch.cat(column).float() for column in zip(*parts, strict=True))
        return first, second

    def fitting(self, config: FitConfig, index: DetectionIndex, seed: int) -> Fitting:
        """See :class:`Detector`."""
        svm = isinstance(config, SVMFitConfig)
        if not (self.config.score == "svm" if svm else self.config.regress):
            setting = "detector.score = 'softmax'" if svm else "detector.regress = false"
            raise InputError(f"a stage fits {config.kind!r}, but {setting} uses none; leave the stage out")
        return SVMFitting(config, self, index, seed) if svm else BoxFitting(config, self, seed)

    def unfitted(self) -> tuple[str, ...]:
        """See :class:`Detector`."""
        svm = self.config.score == "svm" and not self.svm_ready
        return (("svm",) if svm else ()) + (("boxes",) if self.config.regress and not self.box_ready else ())

    def take_classifier(self, state: Mapping[str, Tensor]) -> int:
        """fc6 and fc7 of a VGG's or ZF's classifier, where they fit; how many did."""
        taken = 0
        for layer, name in zip(self.fc, ("0", "3"), strict=False):
            weight, bias = state.get(f"{name}.weight"), state.get(f"{name}.bias")
            if weight is None or bias is None or weight.shape != layer.weight.shape:
                break
            layer.load_state_dict({"weight": weight, "bias": bias})
            taken += 1
        return taken

    def class_rows(self) -> dict[str, Tensor]:
        """Class of each row of the layers that tell classes apart."""
        foreground = torch.arange(len(self.classes))
        fitted = dict.fromkeys(("svm_weight", "svm_bias", "box_weight", "box_bias"), foreground)
        return of_layer("scores", torch.arange(len(self.classes) + 1)) | fitted

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Scores and offsets of as many crops as selective search gives."""
        side, chunk = self.config.warp.size, self.config.chunk
        crops = pixels.new_zeros(len(pixels) * self.preparation.most_proposals, 3, side, side)
        parts = [self._judged(*self.features(part)) for part in crops.split(len(crops) if crops.is_meta else chunk)]
        return [torch.cat(column).unflatten(0, (len(pixels), -1)) for column in zip(*parts, strict=True)]

    def _crops(self, pixels: Tensor, sizes: Tensor, boxes: Tensor) -> Tensor:
        """``[B * R, 3, S, S]``, channels-last, in the type that the network computes in."""
        crops = warp_regions(pixels, sizes, boxes, self.config.warp).flatten(0, 1)
        return crops.to(self.dtype).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def _sample(self, proposals: Proposals, targets: Targets, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Windows ``[B, S, 4]``, their labels ``[B, S]`` (K is background) and whether each is one."""
        windows, usable = self.config.windows, self.usable(targets)
        boxes, allowed = proposals.boxes, proposals.valid
        if windows.add_truth:
            boxes, allowed = torch.cat([boxes, targets.boxes], 1), torch.cat([allowed, usable], 1)
        matches = self.matcher(boxes, targets.boxes, usable, targets.crowd & targets.valid, allowed)
        if windows.positives == "truth":
            proposed = torch.arange(boxes.shape[1], device=boxes.device) < proposals.boxes.shape[1]
            matches = matches._replace(positive=matches.positive & ~proposed)
        choice = self.sampler(matches, seeds, salt=2)
        truth = matches.labels(targets).gather(1, choice.chosen)
        labels = torch.where(choice.positive, truth, len(self.classes))
        return take_rows(boxes, choice.chosen), labels, choice.valid

    def _judged(self, fc7: Tensor, pool5: Tensor) -> tuple[Tensor, Tensor]:
        """Scores ``[N, K]`` in 0..1 and offsets ``[N, K, 4]``."""
        scores = self.scores(fc7).float().softmax(-1)[:, :-1]
        if self.config.score == "svm":
            margins = F.linear(fc7, self.svm_weight, self.svm_bias).float()
            scores = torch.where(self.svm_ready, margins.sigmoid(), scores)
        offsets = F.linear(pool5, self.box_weight.flatten(0, 1), self.box_bias.flatten()).float()
        return scores, offsets.unflatten(1, (-1, 4)) * (1.0 if self.config.regress else 0.0)

    @torch.no_grad()
    def _detections(self, pixels: Tensor, sizes: Tensor, proposals: Proposals) -> DetectionBatch:
        """Every window scored as every class, moved, and NMS within each class (§2.2)."""
        post, classes = self.config.post, len(self.classes)
        parts = []
        for boxes in proposals.boxes.split(self.config.chunk, 1):
            judged = self._judged(*self.features(self._crops(pixels, sizes, boxes)))
            parts.append([t.unflatten(0, boxes.shape[:2]) for t in judged])
        scores, offsets = (torch.cat(column, 1) for column in zip(*parts, strict=True))
        scores = torch.where(proposals.valid.unsqueeze(-1), scores, 0.0)  # [B, R, K]
        if post.per_class is not None:
            least = scores.topk(min(post.per_class, scores.shape[1]), dim=1).values[:, -1:]
            scores = torch.where(scores >= least, scores, 0.0)
            post = replace(post, candidates=max(post.candidates, post.per_class * classes))
        score, index = best_candidates(scores.flatten(1), post)
        delta = take_rows(offsets.flatten(1, 2), index)
        boxes = self.coder.decode(take_rows(proposals.boxes, index // classes), delta)
        return suppress(boxes, score, index % classes, sizes, post)
