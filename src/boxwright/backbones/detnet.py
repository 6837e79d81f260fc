"""DetNet-59 (Li et al. 2018, arXiv 1804.06215): a backbone whose last stages keep stride 16 and dilate.

Stages 2 to 4 are ResNet-50's. Stages 5 and 6 stay at stride 16 and at the width of stage 4, with dilated bottlenecks;
each opens with a block B, whose shortcut has a 1x1 projection although no shape changes, followed by blocks A.
Multiply-adds of the ImageNet classifier at 224: 4.846 G with v1 strides (the paper's 4.8 G), 5.000 G with v1.5;
18,372,648 parameters.

Departures: none by default. The public PyTorch port (guoruoqian/DetNet_pytorch) puts the stride into the 3x3 (v1.5);
its keys differ from ours only in the name of block B's shortcut: ``extra_conv`` there, ``downsample`` here.
"""

from __future__ import annotations

from typing import Literal

from boxwright.backbones.layers.blocks import ResidualBackbone, ResidualStage, check_levels, check_zero_init
from boxwright.backbones.layers.norm import Norm
from boxwright.fields import Channels, Count, CountOrZero, config


@config
class DetNetConfig:
    """A DetNet; the defaults are the paper's DetNet-59 (fig. 2)."""

    kind: Literal["detnet"] = "detnet"
    depths: tuple[Count, Count, Count, Count, Count] = (3, 4, 6, 3, 3)
    """Blocks in stages 2 to 6."""
    width: Channels = 64
    """Channels of the stem; stages 2 to 6 have 4, 8, 16, 16 and 16 times as many."""
    stride_in_1x1: bool = True
    """Stride in the first 1x1 convolution of a bottleneck (v1, as the paper counts its cost), not in the 3x3 (v1.5)."""
    projections: tuple[bool, bool] = (True, True)
    """Open stage 5, stage 6 with block B; ``(True, False)`` is the paper's ablation DetNet-59-NoProj."""
    dilation: Count = 2
    """Dilation of the 3x3 convolutions in stages 5 and 6; 1 is the ablation without dilation."""
    norm: Norm = "bn"
    """Normalisation. ``frozen_bn`` needs loaded weights; train from scratch with ``bn`` or ``gn``."""
    freeze_at: CountOrZero = 0
    """Leading stages that are not trained: 0 none, 1 the stem, 2 the stem and stage 2 (usual when fine-tuning)."""
    zero_init_residual: bool = False
    """Initialise the last norm of each block to zero, so that the block starts as its shortcut."""
    out_levels: tuple[Count, ...] = (2, 3, 4, 5, 6)
    """Stages whose maps are returned. Stages above the last one are not built."""

    def __post_init__(self) -> None:
        check_zero_init(self.zero_init_residual, self.norm)
        check_levels(self.out_levels, self.freeze_at, 6)


def build_detnet(config: DetNetConfig) -> ResidualBackbone:
    """Build the network of ``config`` with initial weights."""
    return ResidualBackbone(
        config.width,
        detnet_stages(config),
        norm=config.norm,
        stride_in_1x1=config.stride_in_1x1,
        out_levels=config.out_levels,
        freeze_at=config.freeze_at,
        zero_init_residual=config.zero_init_residual,
    )


def detnet_stages(config: DetNetConfig) -> list[ResidualStage]:
    """Return stages 2 to 6."""
    stages = []
    for number, blocks in enumerate(config.depths, start=2):
        kept = number >= 5  # stride and width of stage 4 are kept
        mid = config.width * 2 ** min(number - 2, 2)
        stages.append(
            ResidualStage(
                number=number,
                block="bottleneck",
                blocks=blocks,
                mid=mid,
                out=mid * 4,
                stride=1 if number == 2 or kept else 2,
                dilation=config.dilation if kept else 1,
                project=kept and config.projections[number - 5],
            )
        )
    return stages
