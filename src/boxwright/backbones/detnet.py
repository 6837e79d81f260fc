"""DetNet-59 (Li et al. 2018, arXiv 1804.06215): a backbone that stops striding at 16 and dilates instead.

Stages 2 to 4 are ResNet-50's. Stages 5 and 6 stay at stride 16 and at the width of stage 4, with dilated bottlenecks;
each opens with a block B, whose shortcut has a 1x1 projection although no shape changes, followed by blocks A.
Multiply-adds of the ImageNet classifier at 224: 4.846 G with v1 strides (the paper's 4.8 G), 5.000 G with v1.5;
18,372,648 parameters.

Departures: none by default. The public PyTorch port (guoruoqian/DetNet_pytorch) puts the stride into the 3x3 (v1.5);
its keys differ from ours only in the name of block B's shortcut: ``extra_conv`` there, ``downsample`` here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from boxwright.backbones.layers.blocks import ResidualBackbone, Stage, check_field, check_levels, is_int
from boxwright.backbones.layers.norm import NORMS, Norm


@dataclass(frozen=True, kw_only=True)
class DetNetConfig:
    """A DetNet; the defaults are the paper's DetNet-59 (fig. 2).

    ``depths``: blocks in stages 2 to 6. ``width``: channels of the stem; stages give 4, 8, 16, 16 and 16 times as
    many. ``stride_in_1x1``: v1 strides, as the paper counts its cost; false puts the stride into the 3x3 (v1.5), as the
    public weights have it. ``projections``: whether stage 5, stage 6 open with block B; ``(True, False)`` is the
    paper's ablation DetNet-59-NoProj. ``dilation``: of the 3x3 convolutions in stages 5 and 6; 1 is the ablation
    without. ``norm``: ``frozen_bn`` needs loaded weights; from scratch train with ``bn`` or ``gn``. ``freeze_at``:
    leading stages that do not learn: 0 none, 1 the stem, 2 stem and stage 2. ``zero_init_residual``: every block starts
    as its shortcut. ``out_levels``: stages whose maps are returned; stages above the last are not built.
    """

    kind: Literal["detnet"] = "detnet"
    depths: tuple[int, int, int, int, int] = (3, 4, 6, 3, 3)
    width: int = 64
    stride_in_1x1: bool = True
    projections: tuple[bool, bool] = (True, True)
    dilation: int = 2
    norm: Norm = "bn"
    freeze_at: int = 0
    zero_init_residual: bool = False
    out_levels: tuple[int, ...] = (2, 3, 4, 5, 6)

    def __post_init__(self) -> None:
        valid = isinstance(self.depths, tuple) and len(self.depths) == 5 and all(is_int(n, 1) for n in self.depths)
        check_field(valid, self, "depths", "five counts of at least 1, for stages 2 to 6")
        check_field(is_int(self.width, 8) and self.width % 8 == 0, self, "width", "a multiple of 8")
        two = isinstance(self.projections, tuple) and len(self.projections) == 2
        flags = two and all(type(flag) is bool for flag in self.projections)
        check_field(flags, self, "projections", "two booleans, for stages 5 and 6")
        check_field(is_int(self.dilation, 1), self, "dilation", "an int of at least 1")
        check_field(self.norm in NORMS, self, "norm", f"one of {', '.join(NORMS)}")
        frozen_zero = self.zero_init_residual and self.norm == "frozen_bn"
        check_field(not frozen_zero, self, "zero_init_residual", "false with norm = frozen_bn")
        check_levels(self, self.out_levels, self.freeze_at, 6)


def build_detnet(config: DetNetConfig) -> ResidualBackbone:
    """The network that ``config`` describes, freshly initialised."""
    return ResidualBackbone(
        config.width,
        detnet_stages(config),
        norm=config.norm,
        stride_in_1x1=config.stride_in_1x1,
        out_levels=config.out_levels,
        freeze_at=config.freeze_at,
        zero_init_residual=config.zero_init_residual,
    )


def detnet_stages(config: DetNetConfig) -> list[Stage]:
    """Stages 2 to 6."""
    stages = []
    for number, blocks in enumerate(config.depths, start=2):
        kept = number >= 5  # stride and width of stage 4 are kept
        mid = config.width * 2 ** min(number - 2, 2)
        stages.append(
            Stage(
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
