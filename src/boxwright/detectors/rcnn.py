"""R-CNN: a convolutional network on a warped crop of every proposal, SVMs on its features, box regression.

Girshick, Donahue, Darrell, Malik: Rich feature hierarchies for accurate object detection and semantic segmentation,
arXiv 1311.2524.

Symbols: B images, K classes, R proposals and S sampled windows of an image, D7 length of fc7, D5 length of pool5.

Training has three stages (§2.3, appendix C). The network is fine-tuned to classify windows, with background as a class.
Then an SVM per class is fitted on fc7 with mined negatives, and a box regression per class on pool5. The first stage
is trained by gradients; the others are fits (:mod:`boxwright.detectors.rcnn_fits`). Until its SVMs are fitted the
detector scores by the softmax, and until its regression is fitted it keeps the boxes as proposed.

Departures: a step samples a few windows from each image of its batch, where the paper samples the whole set; scores are
the sigmoid of a margin, because scores lie in 0..1; boxes are regressed before NMS; the mean of the pixels is one
colour (:mod:`boxwright.geometry.pooling.region_warp`). On backbones other than VGG and ZF, the mean of the last map
replaces fc7, and that map averaged to ``cells`` x ``cells`` replaces pool5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.anchors.coder import BoxCoder
from boxwright.anchors.matching.matcher import Matcher
from boxwright.anchors.sampler import BalancedSampler
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.vgg import VGGConfig
from boxwright.data.index import DetectionIndex
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.fitting import FitConfig, Fitting
from boxwright.detectors.contract.pixels import IMAGENET, PixelConfig
from boxwright.detectors.rcnn_fits import BoxFitting, SVMFitting
from boxwright.fields import Count, Finite, PositiveShare, Share, config
from boxwright.geometry.indexing import take_rows
from boxwright.geometry.pooling.region_warp import RegionWarpConfig, warp_regions
from boxwright.heads.class_rows import of_layer
from boxwright.heads.postprocess import PostprocessConfig, best_candidates, suppress
from boxwright.heads.regions.classifier import take_classifier
from boxwright.heads.regions.crop_layers import CropLayers, LayersConfig, MeanConfig
from boxwright.heads.regions.fits.svm import SVMFitConfig
from boxwright.heads.regions.levels import only_level
from boxwright.heads.regions.proposals import Proposals, given_proposals
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets


@config
class WindowConfig:
    """Windows of a fine-tuning step (§2.3: 32 objects and 96 background windows of all images)."""

    count: Count = 8
    """Windows of each image."""
    positive_fraction: PositiveShare = 0.25
    """Largest share of objects among them."""
    positives: Literal["overlap", "truth"] = "overlap"
    """"overlap": windows with an IoU of ``positive_iou`` or more are objects. "truth": annotated boxes alone, as for
    the SVMs (appendix B)."""
    positive_iou: Share = 0.5
    """Minimum IoU of an object."""
    negative_iou: Share = 0.5
    """Windows with a lower IoU are background; the paper's is ``positive_iou``."""
    add_truth: bool = True
    """Add the annotated boxes to the windows."""
    crowd_ignore: Share | None = 0.7
    """Ignore background of which a crowd region covers more than this share; None keeps it."""

    def __post_init__(self) -> None:
        if self.positives == "truth" and not self.add_truth:
            raise InputError('windows.positives = "truth" needs windows.add_truth = true: nothing would be positive')


# The released code keeps the best 100 windows of each class, which makes 2000 for VOC's twenty classes.
PAPER_POST = PostprocessConfig(score_threshold=0.0, nms_iou=0.3, per_class=100, detections=2000)


@config
class RCNNConfig:
    """Parts of the detector. Defaults are the paper's, on VGG-16."""

    kind: Literal["rcnn"] = "rcnn"
    """Name of the detector in recipes."""
    backbone: BackboneConfig = field(default_factory=lambda: VGGConfig(out_levels=(5,)))
    """Backbone with one level, which runs on crops."""
    warp: RegionWarpConfig = RegionWarpConfig()
    """Crops of the proposals (§2.1)."""
    layers: LayersConfig | MeanConfig = LayersConfig()
    """Layers on the map of a crop."""
    windows: WindowConfig = WindowConfig()
    """Windows of fine-tuning."""
    score: Literal["svm", "softmax"] = "svm"
    """Score by the margins of the SVMs, or by the softmax of fine-tuning without any SVM."""
    regress: bool = True
    """Regress the boxes (appendix C)."""
    clamp: Finite | None = math.log(1000.0 / 16)
    """Upper bound of dw and dh before the exponential; None for none."""
    post: PostprocessConfig = PAPER_POST
    """Score threshold, NMS and number of detections."""
    pixels: PixelConfig = IMAGENET
    """Pixel normalisation."""
    difficult: bool = True
    """Train on boxes marked difficult, as the released code does."""
    chunk: Count = 128
    """Crops of an image that run through the network at once: bounds the memory and changes nothing else."""


class RCNN(Detector):
    """R-CNN. SVMs and regression are buffers: part of the state dict, without gradients."""

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
        level, windows, count = only_level("R-CNN", self.backbone.levels), config.windows, len(classes)
        crop = config.warp.size
        if crop % level.stride:
            raise InputError(
                f"detector.warp.size = {crop}, and the backbone's map has stride {level.stride}; set a multiple of its "
                "stride"
            )
        self.fc = CropLayers(config.layers, level.channels, crop // level.stride)
        width, pooled = self.fc.widths
        self.scores = nn.Linear(width, count + 1)
        for layer in [*self.fc, self.scores]:
            nn.init.normal_(layer.weight, std=0.01 if layer is self.scores else (2 / layer.in_features) ** 0.5)
            nn.init.zeros_(layer.bias)
        self.register_buffer("svm_weight", torch.zeros(count, width))
        self.register_buffer("svm_bias", torch.zeros(count))
        self.register_buffer("box_weight", torch.zeros(count, 4, pooled))
        self.register_buffer("box_bias", torch.zeros(count, 4))
        self.register_buffer("svm_ready", torch.tensor(False))
        self.register_buffer("box_ready", torch.tensor(False))
        self.post = config.post
        if self.post.per_class is not None:  # room for the best of every class
            candidates = max(self.post.candidates, self.post.per_class * count)
            self.post = replace(self.post, candidates=candidates)
        self.coder = BoxCoder(clamp=config.clamp)
        self.matcher = Matcher(
            positive=windows.positive_iou, negative=windows.negative_iou, crowd_ignore=windows.crowd_ignore
        )
        self.sampler = BalancedSampler(count=windows.count, positive_fraction=windows.positive_fraction)
        self.post = config.post
        if config.post.per_class is not None:  # all that a class keeps must pass on to NMS
            most = max(config.post.candidates, config.post.per_class * count)
            self.post = replace(config.post, candidates=most)

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Return the fine-tuning loss if ``targets`` are given, else detections; both on ``images.proposals``."""
        pixels = self.normalise(images).float()
        if targets is None:
            return self._detections(pixels, images, self.proposals_of(images))
        boxes, labels, valid = self.sample(given_proposals(images), targets, self.sample_seeds(images))
        logits = self.scores(self.features(self._crops(pixels, images.sizes, boxes))[0]).float()
        entropy = F.cross_entropy(logits, labels.flatten(), reduction="none") * valid.flatten()
        entropy = self.class_weights(entropy, labels.flatten())
        return {"classification": entropy.sum() / (self.config.windows.count * len(boxes))}

    def features(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Compute fc7 ``[N, D7]`` and pool5 ``[N, D5]`` of crops ``[N, 3, S, S]``."""
        return self.fc(self.backbone(crops)[0])

    def proposals_of(self, images: Images) -> Proposals:
        """Return the given proposals; in eager inference without the columns that are padding in every image."""
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
        """Compute fc7 and pool5, float32, of the windows ``[N, 4]`` of one image, in chunks."""
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
        """Load fc6 and fc7 of a VGG's or ZF's classifier as far as they fit; return how many did."""
        return take_classifier(self.fc, state)

    def class_rows(self) -> dict[str, Tensor]:
        """Class of each row of the layers that tell classes apart."""
        foreground = torch.arange(len(self.classes))
        fitted = dict.fromkeys(("svm_weight", "svm_bias", "box_weight", "box_bias"), foreground)
        return of_layer("scores", torch.arange(len(self.classes) + 1)) | fitted

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Return scores and box deltas of ``most_proposals`` crops."""
        side, chunk = self.config.warp.size, self.config.chunk
        crops = pixels.new_zeros(len(pixels) * self.preparation.most_proposals, 3, side, side)
        parts = [
            self.scores_and_deltas(*self.features(part)) for part in crops.split(len(crops) if crops.is_meta else chunk)
        ]
        return [torch.cat(column).unflatten(0, (len(pixels), -1)) for column in zip(*parts, strict=True)]

    def _crops(self, pixels: Tensor, sizes: Tensor, boxes: Tensor) -> Tensor:
        """Crop the boxes: ``[B * R, 3, S, S]``, channels-last, in the number format of the network."""
        crops = warp_regions(pixels, sizes, boxes, self.config.warp).flatten(0, 1)
        return crops.to(self.dtype).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def sample(self, proposals: Proposals, targets: Targets, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sample windows ``[B, S, 4]`` with labels ``[B, S]`` (K is background) and a mask of valid rows."""
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

    def scores_and_deltas(self, fc7: Tensor, pool5: Tensor) -> tuple[Tensor, Tensor]:
        """Compute scores ``[N, K]`` in 0..1 and box deltas ``[N, K, 4]``."""
        scores = self.scores(fc7).float().softmax(-1)[:, :-1]
        if self.config.score == "svm":
            margins = F.linear(fc7, self.svm_weight, self.svm_bias).float()
            scores = torch.where(self.svm_ready, margins.sigmoid(), scores)
        offsets = F.linear(pool5, self.box_weight.flatten(0, 1), self.box_bias.flatten()).float()
        return scores, offsets.unflatten(1, (-1, 4)) * (1.0 if self.config.regress else 0.0)

    @torch.no_grad()
    def _detections(self, pixels: Tensor, images: Images, proposals: Proposals) -> DetectionBatch:
        """Score every window as every class, regress its box, and run NMS within each class (§2.2)."""
        post, classes = self.post, len(self.classes)
        parts = []
        for boxes in proposals.boxes.split(self.config.chunk, 1):
            scored = self.scores_and_deltas(*self.features(self._crops(pixels, images.sizes, boxes)))
            parts.append([t.unflatten(0, boxes.shape[:2]) for t in scored])
        scores, offsets = (torch.cat(column, 1) for column in zip(*parts, strict=True))
        scores = torch.where(proposals.valid.unsqueeze(-1), scores, 0.0)  # [B, R, K]
        if post.per_class is not None:
            least = scores.topk(min(post.per_class, scores.shape[1]), dim=1).values[:, -1:]
            scores = torch.where(scores >= least, scores, 0.0)
        score, index = best_candidates(scores.flatten(1), post)
        delta = take_rows(offsets.flatten(1, 2), index)
        boxes = self.coder.decode(take_rows(proposals.boxes, index // classes), delta)
        return suppress(boxes, score, index % classes, images.sizes, post, images.scales)
