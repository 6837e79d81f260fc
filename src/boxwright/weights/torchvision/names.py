"""Names of tensors in torchvision's detectors and in ours, and the names in its older files."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from boxwright.weights.common.tensor_names import Renaming

_OLD: tuple[tuple[str, str], ...] = (
    (r"(rpn\.head\.conv)\.(weight|bias)", r"\1.0.0.\2"),
    (r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)", r"\1.0.\2"),
)


def in_names_of_today(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of an old file as torchvision has written them since version 0.13 (2022)."""
    return {_of_today(key): value for key, value in state.items()}


def _of_today(key: str) -> str:
    for pattern, name in _OLD:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, name, key)
    if match := re.fullmatch(r"roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)", key):
        return f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}"
    if match := re.fullmatch(r"(head\.\w+_head\.conv)\.(\d)\.(weight|bias)", key):
        return f"{match[1]}.{int(match[2]) // 2}.0.{match[3]}"
    return key


def _resnet(theirs: str) -> list[tuple[str, str]]:
    places = ("{a}.{b}", "{a}.{b}.{c}.{d}", "{a}.{b}.downsample.{c}.{d}")
    return [(theirs + place, f"backbone.{place}") for place in places]


def _mobilenet() -> list[tuple[str, str]]:
    fields = [f"{{{letter}}}" for letter in "abcdefg"]
    places = [".".join(fields[:count]) for count in range(3, 7)]
    return [(f"backbone.body.{place}", f"backbone.features.{place}") for place in places]


def _pyramid(first: int, levels: int) -> list[tuple[str, str]]:
    """Return the pairs of names of levels P``first`` and up."""
    return [
        (f"backbone.fpn.{block}_blocks.{i}.{number}.{{part}}", f"neck.{name}.P{first + i}.{layer}.{{part}}")
        for i in range(levels)
        for block, name in (("inner", "lateral"), ("layer", "output"))
        for number, layer in enumerate(("conv", "norm"))
    ]


def two_stage_names(mobile: bool, box_convs: int, mask_norm: bool) -> Renaming:
    """Return the names of Faster and Mask R-CNN.

    ``mobile``: on a MobileNet. ``box_convs``: number of convolutions of the box head. ``mask_norm``: the convolutions
    of the mask head have norms.
    """
    linear = ("fc6", "fc7") if box_convs == 0 else tuple(str(box_convs + 1 + 2 * i) for i in range(2))
    mask = "{n}.conv" if mask_norm else "{n}"
    return Renaming(
        [
            *(_mobilenet() if mobile else _resnet("backbone.body.")),
            *_pyramid(5 if mobile else 2, levels=2 if mobile else 4),
            ("rpn.head.conv.{n}.0.{part}", "rpn.convs.{n}.{part}"),
            ("rpn.head.cls_logits.{part}", "rpn.objectness.{part}"),
            ("rpn.head.bbox_pred.{part}", "rpn.deltas.{part}"),
            *((f"roi_heads.box_head.{name}.{{part}}", f"head.layers.{i}.{{part}}") for i, name in enumerate(linear)),
            ("roi_heads.box_head.{n}.{layer}.{part}", "head.convs.{n}.{layer}.{part}"),
            ("roi_heads.box_predictor.cls_score.{part}", "head.scores.{part}"),
            ("roi_heads.box_predictor.bbox_pred.{part}", "head.deltas.{part}"),
            ("roi_heads.mask_head.{n}.0.{part}", f"mask_head.convs.{mask}.{{part}}"),
            ("roi_heads.mask_head.{n}.1.{part}", "mask_head.convs.{n}.norm.{part}"),
            ("roi_heads.mask_predictor.conv5_mask.{part}", "mask_head.deconv.{part}"),
            ("roi_heads.mask_predictor.mask_fcn_logits.{part}", "mask_head.predict.{part}"),
        ]
    )


RETINANET = Renaming(
    [
        *_resnet("backbone.body."),
        *_pyramid(3, levels=3),
        *((f"backbone.fpn.extra_blocks.p{n}.{{part}}", f"neck.extra.P{n}.conv.{{part}}") for n in (6, 7)),
        *(
            (f"head.{head}_head.conv.{{n}}.{number}.{{part}}", f"head.{subnet}_subnet.layers.{{n}}.{layer}.{{part}}")
            for head, subnet in (("classification", "class"), ("regression", "box"))
            for number, layer in enumerate(("conv", "norm"))
        ),
        ("head.classification_head.cls_logits.{part}", "head.scores.{part}"),
        ("head.regression_head.bbox_reg.{part}", "head.deltas.{part}"),
    ]
)
