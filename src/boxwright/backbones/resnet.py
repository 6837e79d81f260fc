"""ResNet (He et al. 2016, arXiv 1512.03385), with the strides of v1 or v1.5, and its dilated form.

ImageNet multiply-adds at 224: ResNet-50 3.858 G with v1 strides (the paper's 3.8 G), 4.089 G with v1.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from boxwright.backbones.layers.blocks import ResidualBackbone, Stage, StemPool, check_field, check_levels, is_int
from boxwright.backbones.layers.norm import NORMS, Norm, set_norm_eps

DEPTHS: dict[int, tuple[Literal["basic", "bottleneck"], tuple[int, int, int, int]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
"""Table 1 of the paper: kind of block, and blocks in stages 2 to 5."""


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """A ResNet; the defaults are torchvision's ResNet-50.

    ``depth``: row of table 1. ``blocks``: blocks in stages 2 to 5 in place of that row's, for small networks; the kind
    of block stays the row's. ``width``: channels of the stem; all others follow. ``stride_in_1x1``: the stride of a
    bottleneck sits in its first 1x1 convolution (v1: MSRA, Caffe, Detectron) or in the 3x3 (v1.5: torchvision).
    ``stem_pool``: ``padded`` (torchvision, Detectron), or ``ceil``, as Caffe's networks have it: of inputs whose sides
    divide by 4 the maps are as large, but their cells lie a pixel of the stem further to the right and below.
    ``norm``: ``frozen_bn`` needs loaded weights; from scratch train with ``bn`` or ``gn``. ``norm_eps``: what batch
    norms add to a variance: 0 in torchvision's first detectors, where some variances are smaller than the usual 1e-5.
    ``freeze_at``: leading stages that do not learn: 0 none, 1 the stem, 2 stem and stage 2 (the usual fine-tuning).
    ``output_stride``: 16 keeps stage 5 at stride 16 and dilates it instead. ``stage6_blocks``: blocks of an added
    dilated stage 6, opened by a projection; only with ``output_stride`` 16. ``zero_init_residual``: every block starts
    as its shortcut. ``out_levels``: stages whose maps are returned; stages above the last are not built.
    """

    kind: Literal["resnet"] = "resnet"
    depth: Literal[18, 34, 50, 101, 152] = 50
    blocks: tuple[int, int, int, int] | None = None
    width: int = 64
    stride_in_1x1: bool = False
    stem_pool: StemPool = "padded"
    norm: Norm = "bn"
    norm_eps: float = 1e-5
    freeze_at: int = 0
    output_stride: Literal[16, 32] = 32
    stage6_blocks: int = 0
    zero_init_residual: bool = False
    out_levels: tuple[int, ...] = (2, 3, 4, 5)

    def __post_init__(self) -> None:
        known = is_int(self.depth, 1) and self.depth in DEPTHS
        check_field(known, self, "depth", f"one of {', '.join(map(str, DEPTHS))}")
        given = self.blocks
        valid = given is None or (isinstance(given, tuple) and len(given) == 4 and all(is_int(n, 1) for n in given))
        check_field(valid, self, "blocks", "four counts of at least 1, for stages 2 to 5, or left out")
        check_field(is_int(self.width, 8) and self.width % 8 == 0, self, "width", "a multiple of 8")
        check_field(self.stem_pool in ("padded", "ceil"), self, "stem_pool", "padded or ceil")
        check_field(self.norm in NORMS, self, "norm", f"one of {', '.join(NORMS)}")
        check_field(0 <= self.norm_eps < 1, self, "norm_eps", "at least 0 and below 1")
        check_field(self.output_stride in (16, 32), self, "output_stride", "16 or 32")
        basic = DEPTHS[self.depth][0] == "basic"
        check_field(not (basic and self.stride_in_1x1), self, "stride_in_1x1", "false below depth 50")
        check_field(not (basic and self.output_stride == 16), self, "output_stride", "32 below depth 50")
        last = 0 if self.output_stride == 32 else None
        check_field(is_int(self.stage6_blocks, 0, last), self, "stage6_blocks", "0, or more with output_stride = 16")
        frozen_zero = self.zero_init_residual and self.norm == "frozen_bn"
        check_field(not frozen_zero, self, "zero_init_residual", "false with norm = frozen_bn")
        check_levels(self, self.out_levels, self.freeze_at, 6 if self.stage6_blocks else 5)


def build_resnet(config: ResNetConfig) -> ResidualBackbone:
    """The network that ``config`` describes, freshly initialised."""
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


def resnet_stages(config: ResNetConfig) -> list[Stage]:
    """Stages 2 to 5, and 6 where one is added."""
    block, table = DEPTHS[config.depth]
    growth = 1 if block == "basic" else 4
    dilated = config.output_stride == 16
    stages = []
    for number, blocks in enumerate(config.blocks or table, start=2):
        mid = config.width * 2 ** (number - 2)
        dilate = dilated and number == 5
        stages.append(
            Stage(
                number=number,
                block=block,
                blocks=blocks,
                mid=mid,
                out=mid * growth,
                stride=1 if number == 2 or dilate else 2,
                dilation=2 if dilate else 1,
                # In v1.5 the stride that dilation replaces sat in this very 3x3, which therefore read the stride-16 map
                # at spacing 1. In v1 it sat before it, so the 3x3 read every second pixel.
                opening_dilation=1 if dilate and not config.stride_in_1x1 else None,
            )
        )
    if config.stage6_blocks:
        top = stages[-1]
        stages.append(
            Stage(
                number=6, block=block, blocks=config.stage6_blocks, mid=top.mid, out=top.out, dilation=2, project=True
            )
        )
    return stages
