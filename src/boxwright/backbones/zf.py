"""The fast network of Zeiler and Fergus (arXiv 1311.2901), in the form that SPP-net and Faster R-CNN use.

Five convolutions, of which two have stride 2, and two max pools between them. Level ``Cn`` is the map of convolution n
after its ReLU: strides 2, 8, 16, 16, 16. Its convolutions have 3,726,464 parameters, as a classifier 62,357,608.

Departure, an option: the pools keep ``ceil(H / 2)`` rows; Caffe's round up after padding and keep one more where H is
even (``ceil_mode``).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.backbones.layers.blocks import check_levels
from boxwright.backbones.layers.norm import OptionalNorm, conv_norm, make_norm, stage_norm
from boxwright.fields import Count, CountOrZero, config
from boxwright.structures import Level

# Channels, kernel and stride of each convolution; a max pool and the local normalisation follow the first two.
LAYERS = ((96, 7, 2), (256, 5, 2), (384, 3, 1), (384, 3, 1), (256, 3, 1))
STRIDES = (2, 8, 16, 16, 16)


@config
class ZFConfig:
    """The network of five convolutions; the defaults are the published network."""

    kind: Literal["zf"] = "zf"
    norm: OptionalNorm = "none"
    """Normalisation after every convolution; train from scratch with ``bn``.

    ``none`` normalises only the maps of the first two convolutions, by the energy of their neighbourhood.
    """
    width: Annotated[float, Field(ge=8 / 96)] = 1.0
    """Factor on all channels."""
    ceil_mode: bool = False
    """Round the size of the pools' maps up as Caffe does, which adds one row and column to the declared size."""
    freeze_at: CountOrZero = 0
    """Leading convolutions that are not trained."""
    out_levels: tuple[Count, ...] = (5,)
    """Convolutions whose maps are returned. Those above the last one are not built."""

    def __post_init__(self) -> None:
        check_levels(self.out_levels, self.freeze_at, len(LAYERS), first=1)


class ZF(nn.Module):
    """The network of Zeiler and Fergus.

    ``levels`` states what ``forward`` returns, in that order. The first ``freeze_at`` convolutions are frozen.
    """

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
    """``x / (1 + alpha * mean of x^2 over size x size)^beta``, per channel (WITHIN_CHANNEL in Caffe)."""
    energy = F.avg_pool2d(x.float().square(), size, 1, size // 2)
    return (x * (1 + alpha * energy).pow(-beta)).to(x.dtype)
