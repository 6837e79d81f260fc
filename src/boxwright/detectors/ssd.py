"""SSD: one network, one pass, default boxes on maps of falling size.

Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg: SSD: Single Shot MultiBox Detector, arXiv 1512.02325; on MobileNets with
separable layers (SSDLite): Sandler et al., arXiv 1801.04381 §6.2.

Symbols: B images, K classes, C columns of logits (K + 1 with background last, or K), A default boxes (priors) over all
maps, a of them in a cell, n on one map.

Where paper and the authors' Caffe code differ the defaults are the code's, since the published figures came from it: a
prior matches at an IoU of 0.5 exactly (paper: above), objects take their own prior in the order of their overlap, the
centres are apart by a step (paper: by 1 / f_k). What ports do otherwise is an option each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from boxwright.anchors.atss import ATSSMatcher
from boxwright.anchors.bipartite import BipartiteMatcher
from boxwright.anchors.coder import BoxCoder
from boxwright.anchors.matcher import Matches
from boxwright.anchors.priors import PriorConfig, default_boxes
from boxwright.anchors.sampler import hard_negatives
from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.layers.norm import ConvNormAct, L2Norm, OptionalNorm, make_norm, set_norm_eps
from boxwright.backbones.vgg import VGGConfig
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import CAFFE_SSD, PixelConfig
from boxwright.detectors.contract.preparation import Preparation
from boxwright.geometry.boxes import pair_iou
from boxwright.geometry.indexing import take_rows
from boxwright.heads.class_rows import tiled_rows, under
from boxwright.heads.dense import flatten_map
from boxwright.heads.losses import BoxLoss, box_regression_loss, dense_focal_loss, softmax_cross_entropy
from boxwright.heads.postprocess import PostprocessConfig, multiclass_detections
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraConfig:
    """One more map (§3, figure 2): a 1x1 convolution to ``hidden`` channels and a ``kernel`` x ``kernel`` one to
    ``out``, each with ReLU."""

    hidden: int
    out: int
    kernel: int = 3
    stride: int = 2
    padding: int = 1


# conv8_2 to conv11_2, and to conv12_2 (§3.1, §3.2).
EXTRAS_300 = (
    ExtraConfig(hidden=256, out=512),
    ExtraConfig(hidden=128, out=256),
    ExtraConfig(hidden=128, out=256, stride=1, padding=0),
    ExtraConfig(hidden=128, out=256, stride=1, padding=0),
)
EXTRAS_512 = (
    ExtraConfig(hidden=256, out=512),
    ExtraConfig(hidden=128, out=256),
    ExtraConfig(hidden=128, out=256),
    ExtraConfig(hidden=128, out=256),
    ExtraConfig(hidden=128, out=256, kernel=4, stride=1),
)

SSD_POST = PostprocessConfig(score_threshold=0.01, nms_iou=0.45, per_class=400, detections=200, clip=False)


@dataclass(frozen=True, kw_only=True)
class SSDConfig:
    """The paper's constants; the defaults are SSD300 with VGG-16 on VOC (§2.2, §3.1).

    ``size``: height and width of the input, which is fixed. ``extras``: the maps after the backbone's levels.
    ``l2_scale``: start of the L2 norm's scale on the first map, which only the head reads (§3.1; None for no norm);
    ``l2_eps``: where its 1e-10 is added, see :class:`L2Norm`. ``separable``: SSDLite, every convolution of extras and
    heads but the 1x1 ones depthwise, with ReLU6. ``norm``: in the extras, and between the halves of separable heads;
    ``norm_eps`` is what its batch norms add to a variance (torchvision's SSDLite: 1e-3).
    ``start``: new layers are drawn as Caffe's xavier (by fan-in) or torch's ("glorot", by fan-in and fan-out: ports).
    ``matching``: "ssd" by IoU after a bipartite stage, ``forced`` says which one, see :class:`BipartiteMatcher`; or
    "atss" with ``topk`` candidates on each map. ``positive_iou``: IoU of a match, ``inclusive`` whether itself will do.
    ``negative_iou``: a prior that overlaps an object by this much is no negative; None for ``positive_iou``.
    ``difficult``: whether boxes marked difficult are trained on (Caffe on VOC; amdegroot's port leaves them out).
    ``classification``: "softmax" over the positives and ``negative_ratio`` times as many of the hardest negatives
    (§2.2), at least ``min_negatives`` (paper: 0, so an image without objects teaches nothing); "focal" or
    "quality_focal", sigmoids over all priors with ``alpha`` and ``gamma``, the latter against the box's IoU.
    ``box_loss``: "smooth_l1" of the offsets (``beta`` 1), or an overlap loss. ``box_weight``: alpha of eq. 1.
    Both losses are divided by the matches in the whole batch, as Caffe does on each GPU; by 1 where there are none.
    ``weights``: inverse variances of the offsets, .1 and .2. ``clamp``: bound of the log of a side (torchvision).
    """

    kind: Literal["ssd"] = "ssd"
    size: tuple[int, int] = (300, 300)
    backbone: BackboneConfig = field(default_factory=lambda: VGGConfig(depth=16, fc="reduced", out_levels=(4, 6)))
    extras: tuple[ExtraConfig, ...] = EXTRAS_300
    l2_scale: float | None = 20.0
    l2_eps: Literal["sum", "root"] = "sum"
    separable: bool = False
    norm: OptionalNorm = "none"
    norm_eps: float = 1e-5
    start: Literal["caffe", "glorot"] = "caffe"
    priors: PriorConfig = field(default_factory=PriorConfig)
    matching: Literal["ssd", "atss"] = "ssd"
    forced: Literal["greedy", "parallel"] = "greedy"
    topk: int = 9
    positive_iou: float = 0.5
    inclusive: bool = True
    negative_iou: float | None = None
    difficult: bool = True
    classification: Literal["softmax", "focal", "quality_focal"] = "softmax"
    negative_ratio: float = 3.0
    min_negatives: int = 0
    alpha: float | None = 0.25
    gamma: float = 2.0
    box_loss: BoxLoss = "smooth_l1"
    beta: float = 1.0
    box_weight: float = 1.0
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    clamp: float | None = None
    pixels: PixelConfig = CAFFE_SSD
    post: PostprocessConfig = SSD_POST

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise InputError(f"size = {self.size}: a height and a width in pixels, such as (300, 300)")
        if self.negative_ratio <= 0 or self.min_negatives < 0:
            raise InputError(
                f"negative_ratio = {self.negative_ratio} must be above 0 and min_negatives = {self.min_negatives} not "
                "below it"
            )
        if not 0 < self.positive_iou < 1:
            raise InputError(f"positive_iou = {self.positive_iou}: an IoU between 0 and 1, such as 0.5")


class SSD(Detector):
    """Backbone, extra maps, and on each map one convolution that predicts offsets and logits."""

    def __init__(self, config: SSDConfig, classes: Classes) -> None:
        super().__init__(config, classes, config.pixels)
        self.backbone = build_backbone(config.backbone)
        levels = self.backbone.levels
        scale = config.l2_scale
        self.l2 = nn.Identity() if scale is None else L2Norm(levels[0].channels, scale, config.l2_eps)
        self.extras = nn.ModuleList()
        channels = [level.channels for level in levels]
        for extra in config.extras:
            self.extras.append(extra_layers(channels[-1], extra, config))
            channels.append(extra.out)
        self._check_maps(config, len(channels))
        self.columns = len(classes) + (config.classification == "softmax")
        self.heads = nn.ModuleList(
            MapHead(width, cell, self.columns, config)
            for width, cell in zip(channels, config.priors.per_cell, strict=True)
        )
        set_norm_eps(self.extras, config.norm_eps)
        set_norm_eps(self.heads, config.norm_eps)
        self._initialise()
        self.coder = BoxCoder(weights=config.weights, clamp=config.clamp)
        self.matcher = build_matcher(config)
        self.input_size, self.preparation = config.size, Preparation(pad_multiple=1)

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Two losses with ``targets``, detections without."""
        height, width = images.pixels.shape[-2:]
        self.check_input(height, width)
        maps = self.maps(self.normalise(images))
        deltas, logits = self.predict(maps)
        shapes = [(fmap.shape[2], fmap.shape[3]) for fmap in maps]
        priors = default_boxes(self.config.priors, shapes, self.config.size, deltas.device)
        if targets is None:
            probabilities = logits.softmax(-1)[..., :-1] if self.columns > len(self.classes) else logits.sigmoid()
            boxes = self.coder.decode(priors, deltas)
            return multiclass_detections(probabilities, boxes, images.sizes, self.config.post)
        counts = [h * w * cell for (h, w), cell in zip(shapes, self.config.priors.per_cell, strict=True)]
        return self._losses(targets, deltas, logits, priors, counts)

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """See :class:`Detector`."""
        return [shape for cell in self.config.priors.shapes for shape in cell]

    def class_rows(self) -> dict[str, Tensor]:
        """Class of each row of the layers that tell classes apart."""
        rows: dict[str, Tensor] = {}
        for i, head in enumerate(self.heads):
            assert isinstance(head, MapHead)
            rows |= under(f"heads.{i}", head.class_rows())
        return rows

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Offsets ``[B, A, 4]`` and logits ``[B, A, C]``."""
        return list(self.predict(self.maps(pixels)))

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """What the heads read: the backbone's levels, the first one normed, and the extra maps."""
        maps = list(self.backbone(pixels))
        fmap = maps[-1]
        maps[0] = self.l2(maps[0])  # the network itself goes on from the plain map
        for extra in self.extras:
            fmap = extra(fmap)
            maps.append(fmap)
        return maps

    def predict(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Offsets ``[B, A, 4]`` and logits ``[B, A, C]`` of all maps, in float32."""
        pairs = [head(fmap) for head, fmap in zip(self.heads, maps, strict=True)]
        return torch.cat([deltas for deltas, _ in pairs], dim=1), torch.cat([logits for _, logits in pairs], dim=1)

    def _losses(
        self, targets: Targets, deltas: Tensor, logits: Tensor, priors: Tensor, counts: list[int]
    ) -> dict[str, Tensor]:
        """Equation 1: both sums over the number of matched priors."""
        config, background = self.config, len(self.classes)
        with torch.no_grad():
            matches = self.match(targets, priors, counts)
            own = take_rows(targets.labels.unsqueeze(-1), matches.truth).squeeze(-1)
            labels = torch.where(matches.positive, own, background)  # [B, A]
            target = take_rows(targets.boxes, matches.truth)
        if config.classification == "softmax":
            ce = softmax_cross_entropy(logits, labels)
            hard = hard_negatives(ce.detach(), matches, config.negative_ratio, minimum=config.min_negatives)
            classification = torch.where(matches.positive | hard, ce, 0.0).sum()
        else:
            labels = torch.where(matches.positive | matches.negative, labels, -1)
            quality = None
            if config.classification == "quality_focal":
                quality = pair_iou(self.coder.decode(priors, deltas.detach()), target)
            classification = dense_focal_loss(logits, labels, config.alpha, config.gamma, quality)
        box = box_regression_loss(deltas, priors, target, matches.positive, self.coder, config.box_loss, config.beta)
        total = matches.positive.sum().clamp(min=1)
        return {"classification": classification / total, "box": config.box_weight * box / total}

    def match(self, targets: Targets, priors: Tensor, counts: list[int]) -> Matches:
        """The object of each prior ``[A, 4]``; ``counts``: priors on each map."""
        usable = targets.valid & ~targets.crowd
        if not self.config.difficult:
            usable = usable & ~targets.difficult
        crowd = targets.crowd & targets.valid
        if isinstance(self.matcher, ATSSMatcher):
            return self.matcher(priors, counts, targets.boxes, usable, crowd)
        return self.matcher(priors, targets.boxes, usable, crowd)

    def _check_maps(self, config: SSDConfig, maps: int) -> None:
        """InputError where priors and maps disagree, or an extra map would have no cells."""
        if maps != len(config.priors.ratios):
            levels = ", ".join(level.name for level in self.backbone.levels)
            raise InputError(
                f"priors.ratios has {len(config.priors.ratios)} entries but there are {maps} maps, the backbone's "
                f"levels ({levels}) and {len(config.extras)} extras; give ratios, a size and a step for each"
            )
        last = self.backbone.levels[-1]
        sides = [math.ceil(side / last.stride) for side in config.size]
        for i, extra in enumerate(config.extras):
            sides = [(side + 2 * extra.padding - extra.kernel) // extra.stride + 1 for side in sides]
            if min(sides) < 1:
                raise InputError(
                    f"extras.{i} would make a map without cells from an input of {config.size[0]} x {config.size[1]}; "
                    f"use {i} extras or a larger size"
                )

    @torch.no_grad()
    def _initialise(self) -> None:
        """Fresh weights for what no backbone's file brings; sigmoids start at a probability of .01 (RetinaNet §4.1)."""
        for layer in (*self.extras.modules(), *self.heads.modules()):
            if isinstance(layer, nn.Conv2d):
                draw(layer.weight, self.config.start)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for head in self.heads:
            assert isinstance(head, MapHead)
            if not head.separable:  # offsets and logits as the two convolutions that they are in the paper
                for part in head.predict.weight.unflatten(0, (-1, 4 + self.columns)).split([4, self.columns], dim=1):
                    draw(part, self.config.start)
            if self.config.classification != "softmax":
                head.logit_bias.fill_(-math.log(99))


class MapHead(nn.Module):
    """Offsets and logits of the priors on one map, by a 3x3 convolution or by a separable one for each (SSDLite).

    The paper's two convolutions are one here, which reads the map once: for every prior 4 offsets, then C logits.
    """

    def __init__(self, channels: int, per_cell: int, columns: int, config: SSDConfig) -> None:
        super().__init__()
        self.columns, self.separable = columns, config.separable
        if config.separable:
            self.deltas, self.scores = (
                nn.Sequential(depthwise(channels, 1, config.norm), nn.Conv2d(channels, per_cell * values, 1))
                for values in (4, columns)
            )
        else:
            self.predict = nn.Conv2d(channels, per_cell * (4 + columns), 3, padding=1)

    def forward(self, fmap: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, channels, h, w]`` to offsets ``[B, n, 4]`` and logits ``[B, n, C]``, in float32."""
        if self.separable:
            return flatten_map(self.deltas(fmap), 4), flatten_map(self.scores(fmap), self.columns)
        out = flatten_map(self.predict(fmap), 4 + self.columns)
        return out[..., :4], out[..., 4:]

    def class_rows(self) -> dict[str, Tensor]:
        """Class of each row of the layers that tell classes apart."""
        columns = torch.arange(self.columns)
        if self.separable:
            return tiled_rows(self, "scores.1", columns)
        return tiled_rows(self, "predict", columns, shared=4)

    @property
    def logit_bias(self) -> Tensor:
        """The part of the bias that belongs to logits, ``[a, C]``."""
        bias = self.scores[1].bias if self.separable else self.predict.bias
        assert isinstance(bias, Tensor)
        return bias.unflatten(0, (-1, self.columns + (0 if self.separable else 4)))[:, -self.columns :]


def draw(weight: Tensor, start: Literal["caffe", "glorot"]) -> None:
    """Xavier's uniform numbers for a weight ``[..., inputs, h, w]``."""
    cells = weight.shape[-2] * weight.shape[-1]
    fan_in, fan_out = weight.shape[-3] * cells, weight.shape[:-3].numel() * cells
    bound = math.sqrt(3 / fan_in if start == "caffe" else 6 / (fan_in + fan_out))
    nn.init.uniform_(weight, -bound, bound)


def build_matcher(config: SSDConfig) -> BipartiteMatcher | ATSSMatcher:
    """The assignment that ``config`` names."""
    if config.matching == "atss":
        return ATSSMatcher(topk=config.topk)
    least = np.float32(config.positive_iou)
    if not config.inclusive:
        least = np.nextafter(least, np.float32(1))  # above the threshold is the same as from the next number on
    return BipartiteMatcher(positive=float(least), negative=config.negative_iou, strategy=config.forced)


def depthwise(channels: int, stride: int, norm: str) -> ConvNormAct:
    """A 3x3 convolution of each channel by itself."""
    return ConvNormAct(channels, channels, 3, stride, norm=norm, act=nn.ReLU6(inplace=True), groups=channels)


def extra_layers(inputs: int, extra: ExtraConfig, config: SSDConfig) -> nn.Sequential:
    """The layers of one extra map."""
    norm = config.norm
    if config.separable:
        if (extra.kernel, extra.padding) != (3, 1):
            raise InputError(f"extras: separable layers have a kernel of 3 and a padding of 1, not {extra}")
        return nn.Sequential(
            ConvNormAct(inputs, extra.hidden, 1, norm=norm, act=nn.ReLU6(inplace=True)),
            depthwise(extra.hidden, extra.stride, norm),
            ConvNormAct(extra.hidden, extra.out, 1, norm=norm, act=nn.ReLU6(inplace=True)),
        )
    bias = norm == "none"
    return nn.Sequential(
        ConvNormAct(inputs, extra.hidden, 1, norm=norm, act=nn.ReLU(inplace=True)),
        nn.Conv2d(extra.hidden, extra.out, extra.kernel, extra.stride, extra.padding, bias=bias),
        make_norm(norm, extra.out),
        nn.ReLU(inplace=True),
    )
