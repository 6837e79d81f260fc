"""torchvision's SSD300 with VGG-16 (``ssd300_vgg16``) in our layout.

Besides names, three things differ: scores and offsets of a map are separate convolutions there and one here, background
is class 0 there and the last here, and it has conventions that :func:`ssd_config` states.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor

from boxwright.anchors.priors import PriorConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.detectors.detector import PixelConfig
from boxwright.detectors.ssd import SSDConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.structures import InputError
from boxwright.weights.prior_heads import joined_head

_HEAD = r"head\.(regression|classification)_head\.module_list\.(\d)\.(weight|bias)"
_NAMES: tuple[tuple[str, str], ...] = (
    (r"backbone\.scale_weight", r"l2.weight"),
    (r"backbone\.features\.(\d+)\.(.+)", r"backbone.features.\1.\2"),
    (r"backbone\.extra\.0\.7\.1\.(.+)", r"backbone.fc6.\1"),
    (r"backbone\.extra\.0\.7\.3\.(.+)", r"backbone.fc7.\1"),
)


def ssd_config(freeze_at: int = 1) -> SSDConfig:
    """The configuration under which torchvision's weights compute what they compute there.

    Its anchors are those of COCO. ``freeze_at``: leading stages that do not learn, 1 by default there.
    """
    return SSDConfig(
        backbone=VGGConfig(depth=16, fc="reduced", out_levels=(4, 6), freeze_at=freeze_at),
        priors=PriorConfig(sizes=(21, 45, 99, 153, 207, 261, 315), clip="sides"),
        start="glorot",
        forced="parallel",
        clamp=math.log(1000 / 16),
        pixels=PixelConfig(mean=(0.48235 * 255, 0.45882 * 255, 0.40784 * 255), std=(1.0, 1.0, 1.0)),
        post=PostprocessConfig(score_threshold=0.01, nms_iou=0.45, per_class=400, detections=200, min_size=0),
    )


def ssd_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from torchvision's. Raises InputError naming the keys that are not of that model."""
    ours: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        if head := re.fullmatch(_HEAD, key):
            part, number, kind = head.groups()
            other = key.replace(part, "classification" if part == "regression" else "regression")
            if other not in state:
                raise InputError(f"the state dict has {key!r} but not {other!r}; is the file whole?")
            if part == "regression":
                ours[f"heads.{number}.predict.{kind}"] = joined_head(value, state[other])
        elif name := _name(key):
            ours[name] = value
        else:
            unknown.append(key)
    if unknown:
        raise InputError(
            f"{len(unknown)} keys are not of torchvision's ssd300_vgg16, the first is {unknown[0]!r}; other models "
            "have importers of their own"
        )
    return ours


def _name(key: str) -> str | None:
    """Our name of a tensor that keeps its shape; None for a key that is not of the model."""
    for pattern, name in _NAMES:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, name, key)
    # Stage 5 is in the first block of extras, behind pool 4, which is features.23 of the whole VGG.
    if found := re.fullmatch(r"backbone\.extra\.0\.([135])\.(.+)", key):
        return f"backbone.features.{23 + int(found[1])}.{found[2]}"
    if found := re.fullmatch(r"backbone\.extra\.([1-4])\.([02])\.(.+)", key):
        return f"extras.{int(found[1]) - 1}.{'0.0' if found[2] == '0' else '1'}.{found[3]}"
    return None
