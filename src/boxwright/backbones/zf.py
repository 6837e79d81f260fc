"""The fast network of Zeiler and Fergus (arXiv 1311.2901), in the form that SPP-net and Faster R-CNN use.

Five convolutions, of which two have stride 2, and two max pools between them. Level ``Cn`` is the map of convolution n
after its ReLU: strides 2, 8, 16, 16, 16. Its convolutions have 3,726,464 parameters, as a classifier 62,357,608.

Departure, an option: the pools keep ``ceil(H / 2)`` rows; Caffe's round up after padding and keep one more where H is
even (``ceil_mode``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.backbones.layers.blocks import check_field, check_levels
from boxwright.backbones.layers.norm import OPTIONAL_NORMS, OptionalNorm, conv_norm, make_norm, stage_norm
from boxwright.structures import Level

# Channels, kernel and stride of each convolution; a max pool and the local normalisation follow the first two.
LAYERS = ((96, 7, 2), (256, 5, 2), (384, 3, 1), (384, 3, 1), (256, 3, 1))
STRIDES = (2, 8, 16, 16, 16)


@dataclass(frozen=True, kw_only=True)
class ZFConfig:
    """The network of five convolutions.

    ``norm``: ``none`` is the published network, which divides the maps of the first two convolutions by the energy of
    their neighbourhood; any other norm takes that one's place, after every convolution: from scratch train with ``bn``.
    ``width``: factor on all channels. ``freeze_at``: leading convolutions that do not learn.
    ``ceil_mode``: pools that round up, as Caffe's do: maps are a row and a column larger than the levels say.
    ``out_levels``: convolutions whose maps are returned; those above the last are not built.
    """

    kind: Literal["zf"] = "zf"
    norm: OptionalNorm = "none"
    width: float = 1.0
    ceil_mode: bool = False
    freeze_at: int = 0
    out_levels: tuple[int, ...] = (5,)

    def __post_init__(self) -> None:
        check_field(self.norm in OPTIONAL_NORMS, self, "norm", f"one of {', '.join(OPTIONAL_NORMS)}")
        narrowest = min(channels for channels, _, _ in LAYERS) * self.width
        check_field(narrowest >= 8, self, "width", f"a factor of at least {8 / 96:.3f}")
        check_levels(self, self.out_levels, self.freeze_at, len(LAYERS), first=1)


class ZF(nn.Module):
    """``levels`` states what ``forward`` returns, in that order. The first ``freeze_at`` convolutions do not learn."""

    def __init__(self, config: ZFConfig) -> None:
        super().__init__()
        top = max(config.out_levels)
        channels = [3] + [8 * round(c * config.width / 8) for c, _, _ in LAYERS]
        self._wanted, self._local = config.out_levels, config.norm == "none"
        self._ceil_mode = config.ceil_mode
        self.levels: tuple[Level, ...] = tuple(Level(f"C{n}", STRIDES[n - 1], channels[n]) for n in config.out_levels)
        self.convs = nn.ModuleList()
        for number, (_, kernel, stride) in enumerate(LAYERS[:top], start=1):
            block = nn.Sequential(
                nn.Conv2d(channels[number - 1], channels[number], kernel, stride, kernel // 2),
                make_norm(stage_norm(config.norm, number, config.freeze_at), channels[number]),
            )
            nn.init.kaiming_normal_(block[0].weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(block[0].bias)  # type: ignore[arg-type]
            if number <= config.freeze_at:
                block.requires_grad_(False)
            self.convs.append(block)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of normalised images ``[B, 3, H, W]``: a ``[B, C, ceil(H / stride), ceil(W / stride)]`` a level."""
        features: list[Tensor] = []
        for number, block in enumerate(self.convs, start=1):
            if number in (2, 3):
                if self._local:
                    x = local_normalisation(x)
                x = F.max_pool2d(x, 3, 2, 1, ceil_mode=self._ceil_mode)
            x = F.relu(conv_norm(x, block[0], block[1]))  # type: ignore[index]
            if number in self._wanted:
                features.append(x)
        return features


def local_normalisation(x: Tensor, size: int = 3, alpha: float = 5e-5, beta: float = 0.75) -> Tensor:
    """``x / (1 + alpha * mean of x^2 over size x size)^beta``, each channel for itself (WITHIN_CHANNEL in Caffe)."""
    energy = F.avg_pool2d(x.float().square(), size, 1, size // 2)
    return (x * (1 + alpha * energy).pow(-beta)).to(x.dtype)
