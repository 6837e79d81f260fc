"""Convolutional and hierarchical networks of timm as backbones (needs the extra ``timm``).

Level ``Cn`` is the network's last feature map of stride ``2^n``. timm is imported when such a backbone is built.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from boxwright.backbones.layers.blocks import check_levels
from boxwright.fields import Count, config, nearest
from boxwright.structures import InputError, Level


@config
class TimmConfig:
    """A network of timm, with its own norms and no frozen parts."""

    kind: Literal["timm"] = "timm"
    name: Annotated[str, Field(min_length=1)]
    """Name of the model in timm, with the tag of its weights if there are several: ``resnet50.a1_in1k``."""
    pretrained: bool = False
    """Load those weights, which timm downloads when the network is first built.

    They need the pixel normalisation of timm, mostly ``PixelConfig()``.
    """
    out_levels: tuple[Count, ...] = (2, 3, 4, 5)
    """Levels ``Cn`` that are returned. Parts above the last one are not built."""

    def __post_init__(self) -> None:
        check_levels(self.out_levels, 0, 6, first=1)


class TimmBackbone(nn.Module):
    """A network of timm that returns its feature maps.

    ``levels`` states what ``forward`` returns, in that order. The sides of the input should be multiples of the largest
    stride. Networks differ for other sizes: some round down, some round up, and some raise an error.
    """

    foreign_norms = True
    """``fold_norms`` skips these norms, because it cannot know which layers they follow."""

    def __init__(self, config: TimmConfig) -> None:
        super().__init__()
        every = _create(config.name, False).feature_info
        strides = [int(r) for r in every.reduction(list(range(len(every))))]
        last = {round(math.log2(s)): i for i, s in enumerate(strides) if s.bit_count() == 1}
        if missing := [n for n in config.out_levels if n not in last]:
            raise InputError(
                f"TimmConfig.out_levels = {config.out_levels!r}: {config.name} has no map of stride "
                f"{', '.join(str(2**n) for n in missing)}; it gives the levels {', '.join(map(str, sorted(last)))}"
            )
        self.net = _create(config.name, config.pretrained, tuple(last[n] for n in config.out_levels))
        channels = self.net.feature_info.channels()
        self.levels: tuple[Level, ...] = tuple(
            Level(f"C{n}", 2**n, int(c)) for n, c in zip(config.out_levels, channels, strict=True)
        )
        self._channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of normalised images ``[B, 3, H, W]``: one ``[B, C, H / stride, W / stride]`` a level."""
        features = self.net(x)
        return [f.permute(0, 3, 1, 2) for f in features] if self._channels_last else list(features)


def _create(name: str, pretrained: bool, out_indices: tuple[int, ...] | None = None) -> Any:
    """Create the network of timm that returns the maps of ``out_indices``, or all maps."""
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(f"the backbone timm:{name} needs timm; pip install 'boxwright[timm]'") from error
    if not timm.is_model(name):
        near = nearest(name, timm.list_models())
        raise InputError(f"TimmConfig.name = {name!r}: timm {timm.__version__} has no such model{near}")
    options: dict[str, Any] = {} if out_indices is None else {"out_indices": out_indices}
    try:
        return timm.create_model(name, pretrained=pretrained, features_only=True, **options)
    except (RuntimeError, AssertionError, AttributeError, TypeError) as error:
        # timm raises different errors for a network without feature maps.
        raise InputError(f"TimmConfig.name = {name!r}: timm cannot give its feature maps: {error}") from error
