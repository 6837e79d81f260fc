"""ResNet (He et al. 2016, arXiv 1512.03385), with the strides of v1 or v1.5, and its dilated form.

ImageNet multiply-adds at 224: ResNet-50 3.858 G with v1 strides (the paper's 3.8 G), 4.089 G with v1.5.
"""

from __future__ import annotations

from typing import Literal

from boxwright.backbones.layers.blocks import ResidualBackbone, ResidualStage, StemPool, check_levels, check_zero_init
from boxwright.backbones.layers.norm import Norm, set_norm_eps
from boxwright.fields import Channels, Count, CountOrZero, Fraction, config
from boxwright.structures import InputError

DEPTHS: dict[int, tuple[Literal["basic", "bottleneck"], tuple[int, int, int, int]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
"""Table 1 of the paper: type of block, and number of blocks in stages 2 to 5."""


@config
class ResNetConfig:
    """A ResNet; the defaults are torchvision's ResNet-50."""

    kind: Literal["resnet"] = "resnet"
    depth: Literal[18, 34, 50, 101, 152] = 50
    """Number of layers: the column of table 1, which decides the type of block."""
    blocks: tuple[Count, Count, Count, Count] | None = None
    """Blocks in stages 2 to 5, for small networks; None takes those of ``depth``."""
    width: Channels = 64
    """Channels of the stem; all other widths follow."""
    stride_in_1x1: bool = False
    """Stride in the first 1x1 convolution of a bottleneck (v1: MSRA, Caffe, Detectron), not in the 3x3 (v1.5)."""
    stem_pool: StemPool = "padded"
    """Padding of the stem's max pool: ``padded`` (torchvision, Detectron) or ``ceil`` (Caffe).

    Both give maps of equal size if the sides of the input are multiples of 4. With ``ceil`` their cells lie one pixel
    of the stem further to the right and below.
    """
    norm: Norm = "bn"
    """Normalisation. ``frozen_bn`` needs loaded weights; train from scratch with ``bn`` or ``gn``."""
    norm_eps: Fraction = 1e-5
    """Constant that batch norms add to the variance; torchvision's first detectors have 0."""
    freeze_at: CountOrZero = 0
    """Leading stages that are not trained: 0 none, 1 the stem, 2 the stem and stage 2 (usual when fine-tuning)."""
    output_stride: Literal[16, 32] = 32
    """Stride of the last stage; 16 dilates stage 5 instead of striding it."""
    zero_init_residual: bool = False
    """Initialise the last norm of each block to zero, so that the block starts as its shortcut."""
    out_levels: tuple[Count, ...] = (2, 3, 4, 5)
    """Stages whose maps are returned. Stages above the last one are not built."""

    def __post_init__(self) -> None:
        if DEPTHS[self.depth][0] == "basic" and self.stride_in_1x1:
            raise InputError("stride_in_1x1 = True: must be false below depth 50")
        if DEPTHS[self.depth][0] == "basic" and self.output_stride == 16:
            raise InputError("output_stride = 16: must be 32 below depth 50")
        check_zero_init(self.zero_init_residual, self.norm)
        check_levels(self.out_levels, self.freeze_at, 5)


def build_resnet(config: ResNetConfig) -> ResidualBackbone:
    """Build the network of ``config`` with initial weights."""
    backbone = ResidualBackbone(
        config.width,
        resnet_stages(config),
        norm=config.norm,
        stride_in_1x1=config.stride_in_1x1,
        out_levels=config.out_levels,
        freeze_at=config.freeze_at,
        zero_init_residual=config.zero_init_residual,
        stem_pool=config.stem_pool,
    )
    set_norm_eps(backbone, config.norm_eps)
    return backbone


def resnet_stages(config: ResNetConfig) -> list[ResidualStage]:
    """Return stages 2 to 5."""
    block, table = DEPTHS[config.depth]
    growth = 1 if block == "basic" else 4
    dilated = config.output_stride == 16
    stages = []
    for number, blocks in enumerate(config.blocks or table, start=2):
        mid = config.width * 2 ** (number - 2)
        dilate = dilated and number == 5
        stages.append(
            ResidualStage(
                number=number,
                block=block,
                blocks=blocks,
                mid=mid,
                out=mid * growth,
                stride=1 if number == 2 or dilate else 2,
                dilation=2 if dilate else 1,
                # In v1.5 this 3x3 had the stride that dilation replaces, so it read the stride-16 map at spacing 1.
                # In v1 the 1x1 before it had the stride, so the 3x3 read every second pixel.
                opening_dilation=1 if dilate and not config.stride_in_1x1 else None,
            )
        )
    return stages
