"""VGG (Simonyan and Zisserman 2015, arXiv 1409.1556), and its reduced form for SSD and RefineDet.

A stage is a run of 3x3 convolutions between two max pools. Level ``Cn`` is the map of stage n after its last ReLU and
before its pool, so ``C1`` to ``C5`` have the strides 1, 2, 4, 8, 16 (conv4_3 of VGG-16 is ``C4``). In the reduced form
(DeepLab; SSD §3, arXiv 1512.02325) fc6 and fc7 are convolutions of 1024 channels, and fc7's map is the level ``C6``.

Module names are torchvision's: ``features.0``, ``features.2``, ...; besides these ``fc6`` and ``fc7``. VGG-16 as a
classifier has 138,357,544 parameters and 15.47 G multiply-adds at 224; its convolutions have 14,714,688.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.backbones.layers.blocks import check_levels
from boxwright.backbones.layers.norm import OptionalNorm, conv_norm, make_norm, stage_norm
from boxwright.backbones.layers.pooling import HalvingMaxPool2d
from boxwright.backbones.layers.recompute import can_recompute, recomputed_conv_relu
from boxwright.fields import Channels, Count, CountOrZero, config
from boxwright.structures import InputError, Level

DEPTHS: dict[int, tuple[int, int, int, int, int]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Convolutions in stages 1 to 5: columns A, B, D and E of the paper's table 1."""


@config
class VGGConfig:
    """A VGG; the defaults are torchvision's ``vgg16`` without its classifier."""

    kind: Literal["vgg"] = "vgg"
    depth: Literal[11, 13, 16, 19] = 16
    """Number of layers with weights, of which three belong to the classifier."""
    norm: OptionalNorm = "none"
    """Normalisation. ``none`` is the paper's network; train from scratch with ``bn``."""
    width: Channels = 64
    """Channels of stage 1; stages 2 to 5 have 2, 4, 8 and 8 times as many, fc6 and fc7 16 times."""
    fc: Literal["none", "reduced"] = "none"
    """``reduced`` adds fc6 and fc7 as convolutions, which are stage 6 (SSD §3)."""
    fc6_dilation: Count = 6
    """Dilation of fc6: 6 in SSD, 3 in RefineDet."""
    pool5: Literal["3x3s1", "2x2s2"] = "3x3s1"
    """Size and stride of the pool before fc6: ``3x3s1`` in SSD; ``2x2s2`` in RefineDet, where ``C6`` has stride 32."""
    ceil_mode: bool = True
    """Round the size of the 2x2 pools' maps up (75 to 38), as Caffe does, not down as torchvision does.

    A map of stride ``s`` then has ``ceil(H / s)`` rows. Both agree where the strides divide the input.
    """
    freeze_at: CountOrZero = 0
    """Leading stages that are not trained (Fast R-CNN §4.5 freezes 2)."""
    out_levels: tuple[Count, ...] = (3, 4, 5)
    """Stages whose maps are returned. Stages above the last one are not built."""

    def __post_init__(self) -> None:
        if self.fc == "none" and self.pool5 != "3x3s1":
            raise InputError(f"pool5 = {self.pool5!r}: must be left out without fc = reduced")
        if self.fc == "none" and self.fc6_dilation != 6:
            raise InputError(f"fc6_dilation = {self.fc6_dilation}: must be left out without fc = reduced")
        check_levels(self.out_levels, self.freeze_at, 5 if self.fc == "none" else 6, first=1)
        if self.fc == "reduced" and 6 not in self.out_levels:
            raise InputError(
                f"out_levels = {self.out_levels!r}: must be stages that end with 6, where fc = reduced adds it"
            )


class _Stage(NamedTuple):
    """Indices of stage ``number`` in ``features``: its convolutions, and the pool after them if one is built."""

    number: int
    convs: tuple[int, ...]
    pool: int | None


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, and fc6 and fc7 as convolutions in the reduced form.

    ``levels`` states what ``forward`` returns, in that order. The first ``freeze_at`` stages are not trained and their
    batch norms are frozen; autograd records nothing there.
    """

    def __init__(self, config: VGGConfig) -> None:
        super().__init__()
        self._stages, self.features, channels = _features(config)
        reduced = 6 in config.out_levels
        stride6 = 32 if config.pool5 == "2x2s2" else 16
        self.ceil_mode = config.ceil_mode
        self._wanted = config.out_levels
        self.levels: tuple[Level, ...] = tuple(
            Level("C6", stride6, config.width * 16)
            if n == 6
            else Level(f"C{n}", 2 ** (n - 1), config.width * min(2 ** (n - 1), 8))
            for n in config.out_levels
        )
        self._reduced = reduced
        if reduced:
            norm, wide, dilation = stage_norm(config.norm, 6, config.freeze_at), config.width * 16, config.fc6_dilation
            self.fc6 = nn.Conv2d(channels, wide, 3, padding=dilation, dilation=dilation)
            self.fc6_norm = make_norm(norm, wide)
            self.fc7 = nn.Conv2d(wide, wide, 1)
            self.fc7_norm = make_norm(norm, wide)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        self._freeze(config.freeze_at)

    def _freeze(self, freeze_at: int) -> None:
        for stage in self._stages[:freeze_at]:
            for index in stage.convs:
                self.features[index].requires_grad_(False)
                self.features[index + 1].requires_grad_(False)  # its norm, or a ReLU without parameters
        if freeze_at == 6:
            for module in (self.fc6, self.fc6_norm, self.fc7, self.fc7_norm):
                module.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of normalised images ``[B, 3, H, W]``: one ``[B, C, H / stride, W / stride]`` a level."""
        features: list[Tensor] = []
        for stage in self._stages:
            x = self._convs(x, stage)
            if stage.number in self._wanted:
                x = F.relu_(x)
                features.append(x)
                if stage.pool is not None:
                    x = self.features[stage.pool](x)
            else:
                # ReLU after the pool gives the same values and gradients as before it, on a quarter of the elements.
                assert stage.pool is not None
                x = F.relu_(self.features[stage.pool](x))
        if self._reduced:
            x = F.relu_(conv_norm(x, self.fc6, self.fc6_norm))
            x = F.relu_(conv_norm(x, self.fc7, self.fc7_norm))
            features.append(x)
        return features

    def _convs(self, x: Tensor, stage: _Stage) -> Tensor:
        """Apply the convolutions of ``stage``, all but the last followed by ReLU."""
        first, *more = stage.convs
        conv = self.features[first]
        assert isinstance(conv, nn.Conv2d)
        if stage.number == 1 and more and isinstance(self.features[first + 1], nn.ReLU) and can_recompute(x, conv):
            x = recomputed_conv_relu(x, conv, lambda fmap: self._conv(fmap, more[0]))
            first, *more = more
        else:
            x = self._conv(x, first)
        for index in more:
            x = self._conv(F.relu_(x), index)
        return x

    def _conv(self, x: Tensor, index: int) -> Tensor:
        """Apply the convolution at ``index`` of ``features`` and its norm, if it has one, without its ReLU."""
        conv, norm = self.features[index], self.features[index + 1]
        assert isinstance(conv, nn.Conv2d)
        return conv(x) if isinstance(norm, nn.ReLU) else conv_norm(x, conv, norm)


def _features(config: VGGConfig) -> tuple[list[_Stage], nn.Sequential, int]:
    """Build the stages up to the last output level.

    Returns them, their modules under torchvision's indices, and the channels of the last one.
    """
    layers: list[nn.Module] = []
    stages: list[_Stage] = []
    channels, top = 3, max(config.out_levels)
    for number, count in enumerate(DEPTHS[config.depth], start=1):
        if number > top:
            break
        out = config.width * min(2 ** (number - 1), 8)
        convs = []
        for _ in range(count):
            convs.append(len(layers))
            layers.append(nn.Conv2d(channels, out, 3, padding=1))
            if config.norm != "none":
                layers.append(make_norm(stage_norm(config.norm, number, config.freeze_at), out))
            layers.append(nn.ReLU(inplace=True))
            channels = out
        pool = None
        if number < top:
            pool = len(layers)
            keeps = number == 5 and config.pool5 == "3x3s1"
            layers.append(nn.MaxPool2d(3, 1, 1) if keeps else HalvingMaxPool2d(config.ceil_mode))
        stages.append(_Stage(number, tuple(convs), pool))
    return stages, nn.Sequential(*layers), channels
