"""Options of earlier versions: where each is now, or that it is gone.

Checkpoints, run folders, TOML files and ``--set`` name options by their path. When an option moves, its old path goes
into ``MOVED`` under the class whose table held it, so that all of these go on working::

    MOVED = {
        SSDConfig: {
            "negative_ratio": "loss.negative_ratio",  # both relative to the table of SSDConfig
            "matcher.iou": "assign.positive_iou",     # an old path may have several parts; emptied tables go
            "flavour": Gone("plain"),                 # deleted; only this value was ever shipped
        },
    }

``negative_ratio`` of an ``SSDConfig`` is then read as ``loss.negative_ratio``, wherever an ``SSDConfig`` stands. A
table that moves takes its entries with it. Where the new path crosses a union of configurations, its ``kind`` must be
given by another moved option or be the class's usual one (``USUAL``). ``flavour = "plain"`` is dropped without a word;
another value is an error that says that the option is gone. Entries stay for ever: checkpoints do not get younger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args, get_origin

from boxwright.backbones.resnet import ResNetConfig
from boxwright.config.recipe import AdamWConfig, CosineConfig, SGDConfig
from boxwright.data.config import DataConfig
from boxwright.data.transforms.configs import LetterboxConfig, MinIoUCropConfig, MosaicConfig, PhotometricConfig
from boxwright.detectors.refinedet import RefineDetConfig
from boxwright.detectors.retinanet import RetinaNetConfig
from boxwright.detectors.rfcn import RFCNHeadConfig
from boxwright.detectors.ssd import SSDConfig
from boxwright.detectors.yolov1 import YOLOv1Config
from boxwright.detectors.yolov2 import YOLOv2Config
from boxwright.detectors.yolov3 import YOLOv3Config
from boxwright.fields import choose, field_types, union_members
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig
from boxwright.heads.regions.box_head import BoxHeadConfig
from boxwright.heads.regions.region_heads import LayersHeadConfig, StageHeadConfig
from boxwright.heads.regions.rpn import RPNConfig
from boxwright.structures import InputError

KeyPath: TypeAlias = tuple[str, ...]
Fail: TypeAlias = Callable[[KeyPath, str], InputError]


class Gone:
    """A deleted option, and the values of it that a stored recipe may still hold.

    ``training``: the option acted in training alone, so a trained checkpoint may hold any value of it.
    """

    def __init__(self, *values: Any, training: bool = False) -> None:
        self.values, self.training = values, training


Moves: TypeAlias = Mapping[type, Mapping[str, str | Gone]]

_REGIONS: Mapping[str, str | Gone] = {
    "positive_iou": "assign.positive_iou",
    "negative_iou": "assign.negative_iou",
    "negative_floor": "assign.negative_floor",
    "crowd_ignore": "assign.crowd_ignore",
    "add_truth": "assign.add_truth",
    "box_loss": "loss.box",
    "beta": "loss.beta",
    "box_weight": "loss.box_weight",
    "normalizer": "loss.normalizer",
    "weights": "coder.weights",
    "clamp": "coder.clamp",
    "offset": "coder.offset",
    "decoded_end": "coder.decoded_end",
}
"""Options of every second stage that works on regions."""

MOVED: Moves = {
    DataConfig: {"repeat_threshold": "sampling.class_balance"},
    SGDConfig: {"layer_decay": Gone(None, training=True)},
    AdamWConfig: {"layer_decay": Gone(None, training=True)},
    CosineConfig: {"flat": Gone(0.0, training=True)},
    RPNConfig: {
        "positive_iou": "assign.positive_iou",
        "negative_iou": "assign.negative_iou",
        "low_quality": "assign.low_quality",
        "crowd_ignore": "assign.crowd_ignore",
        "straddle": "assign.straddle",
        "box_loss": "loss.box",
        "beta": "loss.beta",
        "box_weight": "loss.box_weight",
        "normalizer": "loss.normalizer",
        "weights": "coder.weights",
        "clamp": "coder.clamp",
        "offset": "coder.offset",
        "decoded_end": "coder.decoded_end",
        "scope": "nms.scope",
        "filter_first": "nms.filter_first",
        "nms_inclusive": "nms.inclusive",
        "min_size": "nms.min_size",
        "score_threshold": "nms.score_threshold",
    },
    BoxHeadConfig: _REGIONS,
    LayersHeadConfig: _REGIONS,
    StageHeadConfig: _REGIONS,
    RFCNHeadConfig: _REGIONS,
    RoIPoolingConfig: {"first_level": Gone(2), "canonical_level": Gone(4)},
    LetterboxConfig: {"enlarge": Gone(True)},
    MinIoUCropConfig: {
        "whole": Gone(True, training=True),
        "free": Gone(True, training=True),
        "trials": Gone(50, training=True),
    },
    MosaicConfig: {"spread": Gone(0.5, training=True)},
    PhotometricConfig: {"shuffle_p": Gone(0.0, training=True)},
    ResNetConfig: {"stage6_blocks": Gone(0)},
    SSDConfig: {
        "separable": "head.separable",
        "norm": "head.norm",
        "norm_eps": "head.norm_eps",
        "start": "head.start",
        "matching": "assign.method",
        "forced": "assign.forced",
        "topk": "assign.topk",
        "positive_iou": "assign.positive_iou",
        "inclusive": "assign.inclusive",
        "negative_iou": "assign.negative_iou",
        "difficult": "assign.difficult",
        "classification": "loss.classification",
        "negative_ratio": "loss.negative_ratio",
        "min_negatives": "loss.min_negatives",
        "alpha": "loss.alpha",
        "gamma": "loss.gamma",
        "box_loss": "loss.box",
        "beta": "loss.beta",
        "box_weight": "loss.box_weight",
        "weights": "coder.weights",
        "clamp": "coder.clamp",
    },
    RefineDetConfig: {
        "channels": "head.channels",
        "norm": "head.norm",
        "head_block": "head.block",
        "start": "head.start",
        "deconv": Gone(2),
        "arm_iou": "assign.arm_iou",
        "odm_iou": "assign.odm_iou",
        "forced": "assign.forced",
        "arm_assigner": "assign.arm",
        "topk": "assign.topk",
        "difficult": "assign.difficult",
        "negative_ratio": "loss.negative_ratio",
        "min_negatives": "loss.min_negatives",
        "box_losses": "loss.box",
        "box_weights": "loss.box_weight",
        "weights": "coder.weights",
        "clamp": "coder.clamp",
    },
    RetinaNetConfig: {
        "assignment": "assign.method",
        "positive_iou": "assign.positive_iou",
        "negative_iou": "assign.negative_iou",
        "low_quality": "assign.low_quality",
        "atss_topk": "assign.topk",
        "crowd_ignore": "assign.crowd_ignore",
        "difficult": "assign.difficult",
        "classification": "loss.classification",
        "focal_gamma": "loss.gamma",
        "focal_alpha": "loss.alpha",
        "box_loss": "loss.box",
        "beta": "loss.beta",
        "box_weight": "loss.box_weight",
        "normalizer": "loss.normalizer",
        "weights": "coder.weights",
        "clamp": "coder.clamp",
        "offset": "coder.offset",
    },
    YOLOv1Config: {
        "convs": "head.convs",
        "local": "head.local",
        "hidden": "head.hidden",
        "hidden_norm": "head.hidden_norm",
        "dropout": "head.dropout",
        "layout": "head.layout",
        "start": "head.start",
        "start_size": "head.start_size",
        "difficult": "assign.difficult",
        "loss.assignment": "assign.method",
        "loss.radius": "assign.radius",
        "loss.smallest": "assign.smallest",
        "loss.quiet": "assign.quiet",
    },
    YOLOv2Config: {
        "convs": "head.convs",
        "passthrough": "head.passthrough",
        "narrow": "head.narrow",
        "merged": "head.merged",
        "reorg": Gone("darknet"),
        "difficult": "assign.difficult",
        "loss.assignment": "assign.method",
        "loss.match": "assign.match",
        "loss.fit": "assign.fit",
        "loss.quiet": "assign.quiet",
        "loss.most_objects": "assign.most_objects",
        "loss.smallest": "assign.smallest",
        "loss.prior_scale": Gone(0.01, training=True),
        "loss.box_loss": "loss.box",
        "loss.objectness_loss": "loss.objectness",
    },
    YOLOv3Config: {
        "assignment": "assign.method",
        "topk": "assign.topk",
        "also_above": "assign.also_above",
        "ignore_iou": "assign.ignore_iou",
        "crowd_ignore": "assign.crowd_ignore",
        "difficult": "assign.difficult",
        "box_loss": "loss.box",
        "small_weight": "loss.small_weight",
        "object_target": "loss.object_target",
        "box_weight": "loss.box_weight",
        "object_weight": Gone(1.0, training=True),
        "class_weight": "loss.class_weight",
        "normaliser": "loss.normaliser",
        "prior": "scales.prior",
    },
}


@dataclass(frozen=True)
class Renewal:
    """Brings trees of earlier versions to today's paths. ``fail`` makes the error for a path and a message."""

    fail: Fail
    moves: Moves
    trained: bool = False

    def renew(self, annotation: Any, tree: Any, base: Any = None, path: KeyPath = ()) -> Any:
        """``tree`` as a value of the type ``annotation`` is written today.

        ``base``: the tree that ``tree`` changes, if it is an overlay. Numbers as keys then stand for entries of a list.
        Raises what ``fail`` makes for a deleted option with another value than it always had.
        """
        members = union_members(annotation)
        if tree == "none" and type(None) in members:  # TOML has no null
            return None
        if isinstance(tree, list):
            return [self.renew(entry_type(members, i), value, None, (*path, str(i))) for i, value in enumerate(tree)]
        if not isinstance(tree, dict):
            return tree
        if isinstance(base, list):
            entries = ((key, int(key) if key.isdecimal() else -1) for key in tree)
            return {
                key: self.renew(
                    entry_type(members, i), tree[key], base[i] if 0 <= i < len(base) else None, (*path, key)
                )
                for key, i in entries
            }
        old = base if isinstance(base, dict) else {}
        if tree.get("kind", old.get("kind")) != old.get("kind"):
            old = {}
        cls = choose(members, {"kind": old.get("kind"), **tree})
        if cls is None:
            return tree
        types = field_types(cls)
        new = self._moved(cls, tree, path)
        return {k: self.renew(types[k], v, old.get(k), (*path, k)) if k in types else v for k, v in new.items()}

    def _moved(self, cls: type, tree: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        """The table of a ``cls`` with its own moved options at their new places."""
        for old, new in self.moves.get(cls, {}).items():
            rest, value = _taken(tree, old.split("."))
            if rest is None:
                continue
            tree, here = rest, (*path, *old.split("."))
            if isinstance(new, str):
                if not _has_table(tree, new.split(".")[:-1]):
                    continue  # the reader reports the value that stands in the table's place
                twice = self.fail(here, f"{'.'.join(here)} is {new!r} now, which is given as well; leave one out")
                tree = _placed(tree, new.split("."), value, twice)
            elif not (new.training and self.trained) and not any(_same(value, allowed) for allowed in new.values):
                allowed = " or ".join("none" if value is None else repr(_plain(value)) for value in new.values)
                raise self.fail(
                    here, f"{'.'.join(here)} = {value!r}: this option is gone; only {allowed} can still be read"
                )
        return tree


def entry_type(members: tuple[Any, ...], index: int) -> Any:
    """Return the type of entry ``index`` of the list that ``members`` allow."""
    for member in members:
        if get_origin(member) is tuple:
            args = get_args(member)
            return args[0] if args[-1] is Ellipsis else args[index] if 0 <= index < len(args) else Any
    return Any


def _taken(tree: dict[str, Any], keys: list[str]) -> tuple[dict[str, Any] | None, Any]:
    """``tree`` without the value at ``keys`` and without tables that this empties, and the value; None if absent."""
    key, *below = keys
    if key not in tree:
        return None, None
    rest = {k: v for k, v in tree.items() if k != key}
    if not below:
        return rest, tree[key]
    inner, value = _taken(tree[key], below) if isinstance(tree[key], dict) else (None, None)
    if inner is None:
        return None, None
    return ({**rest, key: inner} if inner else rest), value


def _placed(tree: dict[str, Any], keys: list[str], value: Any, twice: InputError) -> dict[str, Any]:
    """``tree`` with ``value`` at ``keys``; tables are merged."""
    key, *below = keys
    if below:
        return {**tree, key: _placed(tree.get(key, {}), below, value, twice)}
    if isinstance(value, dict) and isinstance(tree.get(key), dict):
        for name, inner in value.items():
            tree = {**tree, key: _placed(tree[key], [name], inner, twice)}
        return tree
    if key in tree:
        raise twice
    return {**tree, key: value}


def _has_table(tree: dict[str, Any], keys: list[str]) -> bool:
    """Return True if there is a table at ``keys``, or nothing that keeps one from being added."""
    inner: Any = tree
    for key in keys:
        if not isinstance(inner, dict):
            return False
        inner = inner.get(key, {})
    return isinstance(inner, dict)


def _same(value: Any, allowed: Any) -> bool:
    """Return True if ``value`` of a tree is ``allowed``: of its type too, but whole numbers serve for fractions."""
    if allowed is None:
        return value is None or value == "none"
    alike = isinstance(value, bool) == isinstance(allowed, bool)
    return alike and value == _plain(allowed) and (isinstance(allowed, float) or not isinstance(value, float))


def _plain(value: Any) -> Any:
    """``value`` as a tree holds it."""
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
