"""Configurations and state dicts of torchvision's SSD300 (``ssd300_vgg16``) and SSDlite
(``ssdlite320_mobilenet_v3_large``).

Besides names, background is class 0 there and last here, and the configurations state further conventions. Scores and
offsets of a map are separate convolutions in their SSD300 and one here. The MobileNet of their SSDlite is split in two,
inside the block that leaves stride 16.

``labels`` are the columns of their heads for our classes, in the order of our classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from boxwright.anchors.coder import BoxCoder
from boxwright.anchors.priors import PriorConfig
from boxwright.backbones.mobilenet import MobileNetConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.detectors.contract.pixels import SYMMETRIC, TORCHVISION_SSD
from boxwright.detectors.ssd import SSDAssignConfig, SSDConfig, SSDHeadConfig
from boxwright.heads.extra_maps import ExtraConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.structures import InputError
from boxwright.weights.common.heads import joined_head
from boxwright.weights.common.tensor_names import Renaming
from boxwright.weights.torchvision.detectors import SILENT, spread

_HEAD = r"head\.(regression|classification)_head\.module_list\.(\d)\.(weight|bias)"
_SSD = Renaming(
    [
        ("backbone.scale_weight", "l2.weight"),
        # Stage 5 is in the first block of extras, behind pool 4, which is features.23 of the whole VGG.
        *((f"backbone.extra.0.{n}.{{part}}", f"backbone.features.{23 + n}.{{part}}") for n in (1, 3, 5)),
        ("backbone.features.{n}.{part}", "backbone.features.{n}.{part}"),
        ("backbone.extra.0.7.1.{part}", "backbone.fc6.{part}"),
        ("backbone.extra.0.7.3.{part}", "backbone.fc7.{part}"),
        *(
            (f"backbone.extra.{n}.{theirs}.{{part}}", f"extras.{n - 1}.{ours}.{{part}}")
            for n in range(1, 5)
            for theirs, ours in (("0", "0.0"), ("2", "1"))
        ),
    ]
)


def _mobilenet_names() -> list[tuple[str, str]]:
    """Return the pairs of names of the blocks. Block 13 is split after its expansion; the second part has its own
    count.
    """
    pairs = [("backbone.features.0.13.{a}.{b}", "backbone.features.13.block.0.{a}.{b}")]
    for place in ("{n}.{c}.{b}", "{n}.{c}.{a}.{b}"):
        pairs += [(f"backbone.features.1.0.{place}", f"backbone.features.13.block.{place}")]
    fields = [f"{{{letter}}}" for letter in "abcde"]
    places = [".".join(fields[:count]) for count in range(2, 6)]
    pairs += [
        (f"backbone.features.1.{n}.{place}", f"backbone.features.{13 + n}.{place}")
        for n in range(1, 4)
        for place in places
    ]
    return pairs + [(f"backbone.features.0.{{n}}.{place}", f"backbone.features.{{n}}.{place}") for place in places]


_SSDLITE = Renaming(
    [
        *_mobilenet_names(),
        ("backbone.extra.{n}.{layer}.{a}.{b}", "extras.{n}.{layer}.{a}.{b}"),
        *(
            (f"head.{theirs}_head.module_list.{{n}}.{place}", f"heads.{{n}}.{ours}.{place}")
            for theirs, ours in (("classification", "scores"), ("regression", "deltas"))
            for place in ("0.{a}.{b}", "1.{b}")
        ),
    ]
)


def ssd_config(freeze_at: int = 1) -> SSDConfig:
    """Return the configuration that reproduces ``ssd300_vgg16``.

    Its anchors are those of COCO. ``freeze_at``: number of leading stages that are frozen, 1 by default there.
    """
    return SSDConfig(
        backbone=VGGConfig(depth=16, fc="reduced", out_levels=(4, 6), freeze_at=freeze_at),
        priors=PriorConfig(sizes=(21, 45, 99, 153, 207, 261, 315), clip="sides"),
        head=SSDHeadConfig(start="glorot"),
        assign=SSDAssignConfig(forced="parallel"),
        coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)),
        pixels=TORCHVISION_SSD,
        post=PostprocessConfig(score_threshold=0.01, nms_iou=0.45, per_class=400, detections=200, min_size=0),
    )


def ssdlite_config(reduced: bool = True) -> SSDConfig:
    """Return the configuration that reproduces ``ssdlite320_mobilenet_v3_large``.

    ``reduced``: half the channels at stride 32, as in the published weights. torchvision's model that starts from a
    classifier has all of them.
    """
    widths = (512, 256, 256, 128)
    return SSDConfig(
        size=(320, 320),
        backbone=MobileNetConfig(version=3, reduced=reduced, tap="expansion", out_levels=(4, 6)),
        extras=tuple(ExtraConfig(hidden=width // 2, out=width) for width in widths),
        l2_scale=None,
        head=SSDHeadConfig(separable=True, norm="bn", norm_eps=1e-3, start="glorot"),
        priors=PriorConfig(sizes=(64, 112, 160, 208, 256, 304, 320), ratios=((2, 3),) * 6, steps=None, clip="sides"),
        assign=SSDAssignConfig(forced="parallel"),
        coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)),
        pixels=SYMMETRIC,
        post=PostprocessConfig(score_threshold=0.001, nms_iou=0.55, per_class=300, detections=300, min_size=0),
    )


def ssd_state(state: Mapping[str, Tensor], labels: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Convert the state dict of ``ssd300_vgg16``. ``labels``: see the head of the module, from 1; None keeps all.

    Raises InputError naming keys of other models.
    """
    heads: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    for key, value in state.items():
        if head := re.fullmatch(_HEAD, key):
            part, number, kind = head.groups()
            other = key.replace(part, "classification" if part == "regression" else "regression")
            if other not in state:
                raise InputError(f"the state dict has {key!r} but not {other!r}; is the file whole?")
            if part == "regression":
                cell = value.shape[0] // 4
                scores = state[other].unflatten(0, (cell, -1))
                kept = range(1, scores.shape[1]) if labels is None else labels
                heads[f"heads.{number}.predict.{kind}"] = joined_head(value, scores[:, [0, *kept]].flatten(0, 1))
        else:
            rest[key] = value
    ours, unknown = _SSD.import_all(rest)
    if unknown:
        raise InputError(
            f"{len(unknown)} keys are not of torchvision's ssd300_vgg16, the first is {unknown[0]!r}; other models "
            "have importers of their own"
        )
    return ours | heads


def exported_ssd(ours: Mapping[str, Tensor], labels: Sequence[int], columns: int) -> dict[str, Tensor]:
    """Convert back to a state dict for torchvision's model of ``columns`` classes: the inverse of :func:`ssd_state`.

    Columns that are not among ``labels`` get the bias SILENT.
    """
    heads: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    for name, value in ours.items():
        if head := re.fullmatch(r"heads\.(\d)\.predict\.(weight|bias)", name):
            number, kind = head.groups()
            rows = value.unflatten(0, (-1, 4 + len(labels) + 1))
            scores = _spread_scores(rows[:, 4:], labels, columns, kind)
            heads[f"head.regression_head.module_list.{number}.{kind}"] = rows[:, :4].flatten(0, 1)
            heads[f"head.classification_head.module_list.{number}.{kind}"] = scores
        else:
            rest[name] = value
    theirs, unknown = _SSD.export_all(rest)
    assert not unknown, unknown
    return theirs | heads


def ssdlite_state(state: Mapping[str, Tensor], columns: int, labels: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Convert the state dict of ``ssdlite320_mobilenet_v3_large`` of ``columns`` classes, like :func:`ssd_state`."""
    ours, unknown = _SSDLITE.import_all(state)
    if unknown:
        raise InputError(
            f"{len(unknown)} keys are not of torchvision's ssdlite320_mobilenet_v3_large, the first is {unknown[0]!r}"
        )
    kept = list(range(1, columns)) if labels is None else list(labels)
    for name, value in ours.items():
        if re.fullmatch(r"heads\.\d\.scores\.1\.(weight|bias)", name):
            ours[name] = value.unflatten(0, (-1, columns))[:, [*kept, 0]].flatten(0, 1)
    return ours


def exported_ssdlite(ours: Mapping[str, Tensor], labels: Sequence[int], columns: int) -> dict[str, Tensor]:
    """Convert back for torchvision, like :func:`exported_ssd`: the inverse of :func:`ssdlite_state`."""
    ours = dict(ours)
    for name, value in ours.items():
        if match := re.fullmatch(r"heads\.\d\.scores\.1\.(weight|bias)", name):
            ours[name] = _spread_scores(value.unflatten(0, (-1, len(labels) + 1)), labels, columns, match[1])
    theirs, unknown = _SSDLITE.export_all(ours)
    assert not unknown, unknown
    return theirs


def _spread_scores(rows: Tensor, labels: Sequence[int], columns: int, kind: str) -> Tensor:
    """Reorder scores ``[a, K + 1, ...]``, background last, to ``[a * columns, ...]``, background first."""
    turned = torch.cat([rows[:, -1:], rows[:, :-1]], dim=1).transpose(0, 1)
    fill = SILENT if kind == "bias" else 0.0
    return spread(turned, [0, *labels], columns, fill).transpose(0, 1).flatten(0, 1)
