"""Second stages on one map: fully connected layers (VGG-16, ZF), or the backbone's own last stages (ResNet, DetNet).

Symbols: B images, R regions an image, P cells of the pooled side, C channels, K foreground classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from boxwright.backbones.build import BackboneConfig
from boxwright.backbones.detnet import DetNetConfig, detnet_stages
from boxwright.backbones.layers.blocks import ResidualStage, build_stage, initialise
from boxwright.backbones.layers.norm import stage_norm
from boxwright.backbones.resnet import ResNetConfig, resnet_stages
from boxwright.fields import Count, Fraction, config
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.heads.regions.box_head import BoxHead, BoxHeadConfig, PooledConfig, PooledHead, predictors
from boxwright.structures import InputError

PAPER_POST = PostprocessConfig(nms_iou=0.3)
"""NMS of py-faster-rcnn."""


@config
class LayersHeadConfig(BoxHeadConfig):
    """fc6 and fc7 of VGG-16 or ZF with dropout, on 7 x 7 cells (ZF: 6 x 6)."""

    kind: Literal["layers"] = "layers"
    """Kind of head."""
    pooling: RoIPoolingConfig = RoIPoolingConfig(method="pool", inclusive=True)
    """RoI pooling, Caffe's (Fast R-CNN §2.1)."""
    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (4096, 4096)
    """Widths of fc6 and fc7."""
    dropout: Fraction = 0.5
    """Dropout after each of them in training."""
    samples: Count = 128
    """Regions that the loss samples from each image (py-faster-rcnn)."""
    post: PostprocessConfig = PAPER_POST
    """Score threshold, NMS and number of detections."""


@config
class StageHeadConfig(PooledConfig):
    """The stages of a ResNet or DetNet above the map, run on each region, then global average pooling."""

    kind: Literal["stages"] = "stages"
    """Kind of head."""
    pooling: RoIPoolingConfig = RoIPoolingConfig(size=14)
    """RoI pooling."""
    stride: Literal[1, 2] | None = None
    """Stride of the first stage; None for the backbone's own: 2 in a ResNet, on 14 x 14 cells. 1 with
    ``pooling.size`` 7 does the same at a quarter of the cost of stride 1 on 14 x 14 cells (Mask R-CNN, appendix)."""
    samples: Count = 128
    """Regions that the loss samples from each image."""
    post: PostprocessConfig = PAPER_POST
    """Score threshold, NMS and number of detections."""


class StageHead(PooledHead[StageHeadConfig]):
    """Residual stages on each region (ResNet, appendix A). Their tensors are named as in the backbone."""

    def __init__(self, config: StageHeadConfig, backbone: BackboneConfig, channels: int, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.stages = nn.ModuleDict()
        kept, stages = stages_above(backbone)
        if config.stride is not None:
            stages[0] = replace(stages[0], stride=config.stride)
        for stage in stages:
            norm = stage_norm(kept.norm, stage.number, kept.freeze_at)
            self.stages[f"layer{stage.number - 1}"] = build_stage(channels, stage, norm, kept.stride_in_1x1)
            channels = stage.out
        initialise(self.stages, kept.zero_init_residual)
        self.scores, self.deltas = predictors(channels, num_classes, config.class_agnostic)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``[B, R, P, P, C]`` to logits ``[B, R, K + 1]`` and deltas ``[B, R, K or 1, 4]``, both float32."""
        x = self.features(pooled)
        return self.scores(x).float(), self.deltas(x).float().unflatten(-1, (-1, 4))

    def pretrained_parts(self) -> list[nn.Module]:
        """Return the stages."""
        return [self.stages]

    def features(self, pooled: Tensor) -> Tensor:
        """Compute the inputs of the last two layers, ``[B, R, C]``."""
        x = pooled.flatten(0, 1).permute(0, 3, 1, 2)
        for stage in self.stages.values():
            x = stage(x)
        return x.mean((2, 3)).reshape(pooled.shape[0], pooled.shape[1], -1)


def stages_above(config: BackboneConfig) -> tuple[ResNetConfig | DetNetConfig, list[ResidualStage]]:
    """Return ``config`` and its stages above its last output level. Raises InputError if there are none."""
    what = config.kind
    if isinstance(config, ResNetConfig | DetNetConfig):
        top = max(config.out_levels)
        what = f"{config.kind} up to stage {top}"
        every = resnet_stages(config) if isinstance(config, ResNetConfig) else detnet_stages(config)
        if above := [stage for stage in every if stage.number > top]:
            return config, above
    raise InputError(
        f"detector.head.kind = stages needs a resnet or detnet with stages above its last level, but the backbone is "
        f"{what}; set detector.backbone.out_levels=[4], or detector.head.kind=layers"
    )


def build_region_head(
    config: LayersHeadConfig | StageHeadConfig, backbone: BackboneConfig, channels: int, num_classes: int
) -> BoxHead | StageHead:
    """Build the head that ``config`` describes on a map of ``channels`` of the network ``backbone``."""
    if isinstance(config, StageHeadConfig):
        return StageHead(config, backbone, channels, num_classes)
    return BoxHead(config, channels, num_classes)
