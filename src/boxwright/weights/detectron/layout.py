"""Names and shapes of detectron2 for the parts that its detectors share with ours, in both directions.

Two things differ besides names: a pooled region is flattened with channels first, and the ResNet of a pyramid is called
``backbone.bottom_up``, a ResNet alone ``backbone``. Background is last and has no box, as in ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from boxwright.weights.common.flattened_regions import first_layer_channels_first, first_layer_channels_last
from boxwright.weights.common.tensor_names import Renaming

Kind = Literal["fpn", "c4", "dc5", "retinanet"]
"""Model: Faster or Mask R-CNN on a pyramid, Faster R-CNN on C4, the same on a dilated C5, or RetinaNet."""


def resnet_pairs(theirs: str, ours: str, stages: tuple[int, ...] = (2, 3, 4, 5)) -> list[tuple[str, str]]:
    """Return the pairs of names of the residual stages. Each prefix ends with its dot."""
    pairs: list[tuple[str, str]] = []
    for stage in stages:
        a, b = f"{theirs}res{stage}.{{block}}.", f"{ours}layer{stage - 1}.{{block}}."
        for n in (1, 2, 3):
            pairs.append((f"{a}conv{n}.weight", f"{b}conv{n}.weight"))
            pairs.append((f"{a}conv{n}.norm.{{part}}", f"{b}bn{n}.{{part}}"))
        pairs.append((f"{a}shortcut.weight", f"{b}downsample.0.weight"))
        pairs.append((f"{a}shortcut.norm.{{part}}", f"{b}downsample.1.{{part}}"))
    return pairs


def stem_pairs(theirs: str, ours: str) -> list[tuple[str, str]]:
    """Return the pairs of names of the stem."""
    return [
        (f"{theirs}stem.conv1.weight", f"{ours}conv1.weight"),
        (f"{theirs}stem.conv1.norm.{{part}}", f"{ours}bn1.{{part}}"),
    ]


_RPN = [
    ("proposal_generator.rpn_head.conv.{part}", "rpn.convs.0.{part}"),
    ("proposal_generator.rpn_head.objectness_logits.{part}", "rpn.objectness.{part}"),
    ("proposal_generator.rpn_head.anchor_deltas.{part}", "rpn.deltas.{part}"),
]
_PREDICTOR = [
    ("roi_heads.box_predictor.cls_score.{part}", "head.scores.{part}"),
    ("roi_heads.box_predictor.bbox_pred.{part}", "head.deltas.{part}"),
]
_BOX_HEAD = [(f"roi_heads.box_head.fc{n + 1}.{{part}}", f"head.layers.{n}.{{part}}") for n in range(2)]
_MASK_HEAD = [
    *((f"roi_heads.mask_head.mask_fcn{n + 1}.{{part}}", f"mask_head.convs.{n}.{{part}}") for n in range(8)),
    ("roi_heads.mask_head.deconv.{part}", "mask_head.deconv.{part}"),
    ("roi_heads.mask_head.predictor.{part}", "mask_head.predict.{part}"),
]
_PYRAMID = [
    ("backbone.fpn_lateral{n}.{part}", "neck.lateral.P{n}.conv.{part}"),
    ("backbone.fpn_output{n}.{part}", "neck.output.P{n}.conv.{part}"),
]
_DENSE_HEAD = [
    *(("backbone.top_block.p" + n + ".{part}", "neck.extra.P" + n + ".conv.{part}") for n in "67"),
    *(
        (f"head.{theirs}.{2 * n}.{{part}}", f"head.{ours}.layers.{n}.conv.{{part}}")
        for theirs, ours in (("cls_subnet", "class_subnet"), ("bbox_subnet", "box_subnet"))
        for n in range(4)
    ),
    ("head.cls_score.{part}", "head.scores.{part}"),
    ("head.bbox_pred.{part}", "head.deltas.{part}"),
]


def _resnet(root: str) -> list[tuple[str, str]]:
    return [*stem_pairs(root, "backbone."), *resnet_pairs(root, "backbone.")]


NAMES: dict[Kind, Renaming] = {
    "fpn": Renaming([*_resnet("backbone.bottom_up."), *_PYRAMID, *_RPN, *_BOX_HEAD, *_PREDICTOR, *_MASK_HEAD]),
    "c4": Renaming([*_resnet("backbone."), *resnet_pairs("roi_heads.", "head.stages.", (5,)), *_RPN, *_PREDICTOR]),
    "dc5": Renaming([*_resnet("backbone."), *_RPN, *_BOX_HEAD, *_PREDICTOR]),
    "retinanet": Renaming([*_resnet("backbone.bottom_up."), *_PYRAMID, *_DENSE_HEAD]),
}


def to_ours(state: Mapping[str, Tensor], kind: Kind) -> tuple[dict[str, Tensor], list[str]]:
    """Convert a state dict of detectron2. Returns ours, and the names that do not belong to such a model."""
    ours, unknown = NAMES[kind].import_all(state)
    return first_layer_channels_last(ours), unknown


def to_theirs(state: Mapping[str, Tensor], kind: Kind) -> tuple[dict[str, Tensor], list[str]]:
    """Convert our state dict to detectron2's. Returns theirs, and our names without a counterpart."""
    return NAMES[kind].export_all(first_layer_channels_first(state))
