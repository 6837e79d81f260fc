"""Files of pretrained backbones: written by classification runs, read to initialise a detector.

A file of Boxwright is a safetensors file with the classifier's tensors (``backbone.*`` and ``fc.*``) and a card in its
header: backbone, data and its fingerprint, recipe, top-1 and top-5, licence. The ImageNet networks of other publishers
are converted by :mod:`boxwright.weights.import_backbone` and get a card with what their files state.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from boxwright.backbones.build import BackboneConfig
from boxwright.backbones.darknet import VARIANTS, DarknetConfig
from boxwright.backbones.mobilenet import MobileNetConfig, mobilenet_blocks
from boxwright.checkpoints.checkpoint import KEY as DETECTOR_KEY
from boxwright.checkpoints.checkpoint import SUFFIX
from boxwright.checkpoints.contents import check_finite, check_types, load_tensors
from boxwright.config.bounds import check_bounds, shortened
from boxwright.config.config_tree import from_tree, to_tree
from boxwright.config.reading import parse_json
from boxwright.detectors.contract.capabilities import TakesClassifier
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import PixelConfig
from boxwright.io.files import write_atomically
from boxwright.structures import InputError
from boxwright.weights.common.imported_backbone import ImportedBackbone
from boxwright.weights.import_backbone import import_backbone
from boxwright.weights.published.catalogue import find_published, is_name
from boxwright.weights.published.fetch import require_cached
from boxwright.weights.published.packages import PACKAGED, locate_packaged
from boxwright.weights.torchvision.classifiers import reduced_layers

FORMAT = 1
KEY = "boxwright_backbone"

# Settings that may differ between the pretrained backbone and the detector's: how it is trained further, and which of
# its levels are read.
_FREE = {"freeze_at", "out_levels", "zero_init_residual", "pretrained"}
# Settings that adapt a network to a detector and leave its tensors alone: the level that is read, pooling, dilation in
# place of a stride. The stem's pool is among them: Detectron pads that of MSRA's ResNets, which were trained without.
_TAKEN_ON = {"fc", "fc6_dilation", "pool5", "ceil_mode", "stem_pool", "output_stride", "detnet", "tap"}
# Trunks with the same tensors: two names of one network, and one that continues where the first ends.
_SAME_TRUNK = {("tiny_v2", "tiny_v3"), ("tiny_v3", "tiny_v2"), ("extraction", "yolov1")}
_MEAN_ROUNDING = 2.0
"""Grey levels of 255. ImageNet's mean colour has red 123.68 in one publisher's files, 122.77 and 123 in others'."""


class PretrainedBackbone(NamedTuple):
    """Tensors and metadata of a pretrained backbone.

    ``state``: tensors named as in the backbone itself. ``card``: metadata of the file. ``classifier``: tensors of the
    classifier on top, by their names in it.
    """

    state: dict[str, Tensor]
    card: dict[str, Any]
    classifier: dict[str, Tensor]


def save_pretrained(path: Path, state: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write the classifier's ``state`` and its ``card`` in one step."""
    tensors = {name: t.detach().to("cpu").contiguous() for name, t in state.items()}
    header = json.dumps({"format": FORMAT, **card}, ensure_ascii=False)
    write_atomically(path, safetensors.torch.save(tensors, {KEY: header}))


def read_card(path: Path | str) -> dict[str, Any]:
    """Read the card of a pretrained backbone, without its tensors. Raises InputError for other files."""
    path = Path(path)
    metadata = _header(path)
    if DETECTOR_KEY in metadata:
        raise InputError(f"{path}: a detector, where a backbone was expected; start from it by --weights {path}")
    if KEY not in metadata:
        raise InputError(f"{path}: no pretrained backbone: its header has no card of `boxwright pretrain`")
    return _parse_card(metadata[KEY], path)


def _parse_card(text: str, path: Path) -> dict[str, Any]:
    """Read a card. Raises InputError naming the entry that is missing or of another type."""
    where = f"{path}: its card"
    card = parse_json(text, where)
    check_bounds(card, lambda _: where)
    check_types(card, {"format": int, "backbone": dict, "pixels": dict, "data": dict}, where)
    check_types(card["data"], {"name": str}, f"{where}: data")
    check_types(card["backbone"], {"kind": str}, f"{where}: backbone")
    if card["format"] > FORMAT:
        raise InputError(f"{path}: written by a later Boxwright; upgrade Boxwright")
    if not isinstance(card.get("top1"), float | int | None):
        raise InputError(f"{where}: top1 = {shortened(repr(card['top1']), 80)}: must be a number or null")
    return card


def _is_safetensors(path: Path) -> bool:
    """Return True if the suffix or the first bytes are those of a safetensors file, damaged or not."""
    if path.suffix == SUFFIX or not path.is_file():
        return path.suffix == SUFFIX
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _header(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file. Raises InputError for an absent or damaged file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the .safetensors that `boxwright pretrain` wrote")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: truncated or no safetensors file ({path.stat().st_size} bytes; {error}); copy it anew"
        ) from None


def load_pretrained(source: Path | str) -> PretrainedBackbone:
    """Load the tensors of a pretrained backbone and of the classifier on top.

    ``source``: a file of Boxwright or of another publisher, detected by its content, or a published name. The state
    includes the layers of the classifier that a detector's backbone may have: fc6 and fc7 of VGG in their reduced form
    (SSD §3), and the last 1x1 convolution of MobileNets V2 and V3. Raises InputError for a file that is absent,
    damaged, unknown or of a detector. Nothing is downloaded.
    """
    path = _located(source)
    if _is_safetensors(path) and _header(path).keys() & {KEY, DETECTOR_KEY}:
        card = read_card(path)
        tensors = load_tensors(path, "copy it anew")
    else:
        imported = import_backbone(path)
        check_finite(imported.state, str(path), "fetch or copy it anew")
        tensors, card = imported.state, _card_of(imported)
    state, classifier = (
        {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        for prefix in ("backbone.", "fc.")
    )
    return PretrainedBackbone(state | _upper_layers(card, state, classifier), card, classifier)


def _upper_layers(
    card: Mapping[str, Any], state: Mapping[str, Tensor], classifier: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Convert the layers of the ``classifier`` that a detector's backbone has above the trunk."""
    backbone = card["backbone"]
    if _is_plain_vgg(backbone) and {"0.weight", "3.weight"} <= classifier.keys():
        return reduced_layers(classifier)
    if backbone["kind"] == "mobilenet":
        config = from_tree(MobileNetConfig, backbone)
        _, blocks = mobilenet_blocks(config.version, config.width, config.reduced)
        top = 1 + len(blocks)  # after the stem and all blocks; a backbone that was cut below has another one there
        if any(name.startswith(f"features.{top - 1}.") for name in state):
            last = {name: value for name, value in classifier.items() if name.startswith("last.")}
            return {name.replace("last", f"features.{top}", 1): value for name, value in last.items()}
    return {}


def _is_plain_vgg(backbone: Mapping[str, Any]) -> bool:
    """Return True for a VGG that ends with its convolutions, without fc6 and fc7 of its own."""
    return backbone["kind"] == "vgg" and backbone.get("fc", "none") == "none"


def _located(source: Path | str) -> Path:
    """Return the path of the file that ``source``, a path or a published name, refers to."""
    path = Path(os.path.expanduser(source))
    if not path.exists() and str(source) in PACKAGED:
        return locate_packaged(str(source))
    if path.exists() or not is_name(str(source)):
        return path
    entry = find_published(str(source))
    if entry.kind != "backbone":
        raise InputError(f"{source}: a detector, where a backbone was expected; start from it by --weights {source}")
    return require_cached(entry)


def _card_of(imported: ImportedBackbone) -> dict[str, Any]:
    """Make a card of what another publisher's file states."""
    return {
        "format": FORMAT,
        "backbone": to_tree(imported.config),
        "pixels": to_tree(imported.pixels),
        "data": {"name": f"{imported.data} ({imported.source})"},
        "top1": None,
        "top5": None,
    }


def for_pretraining(config: BackboneConfig) -> BackboneConfig:
    """Return the backbone to pretrain on classification for detectors on ``config``.

    It has all levels, strides where the detector dilates, and a classifier in place of fc6 and fc7. All its layers are
    trained, batch norms too. Of YOLOv1's 24 convolutions it has the first 20 (YOLO §2.2). :func:`start_backbone`
    initialises a detector from it.
    """
    defaults = {field.name: field.default for field in fields(config)}
    reset = ("freeze_at", "out_levels", "fc", "fc6_dilation", "pool5", "output_stride", "detnet", "tap")
    changes: dict[str, Any] = {name: defaults[name] for name in reset if name in defaults}
    if getattr(config, "norm", None) == "frozen_bn":
        changes["norm"] = "bn"
    if isinstance(config, DarknetConfig):
        variant = "extraction" if config.variant == "yolov1" else config.variant
        changes |= {"variant": variant, "out_levels": (len(VARIANTS[variant]) - 1,)}
    return replace(config, **changes)


def start_backbone(detector: Detector, source: Path | str) -> str:
    """Initialise the detector's backbone from ``source``, see :func:`load_pretrained`; return a line about it.

    Every tensor of the detector's backbone must be in the file with its shape. A detector whose head has layers of the
    classifier (fc6 and fc7 of VGG-16) takes these too. Two groups of layers may keep their random initialisation: fc6
    and fc7 of the reduced VGG-16 if the file lacks them, and the layers of YOLOv1 above its 20 pretrained convolutions
    (YOLO §2.2). Settings that adapt the network to a detector, such as dilation in place of a stride, may differ.
    Raises InputError naming the other settings in which the two backbones differ, or the different preparation of
    pixels.
    """
    state, card, classifier = load_pretrained(source)
    _check_same(detector, card, source)
    own = {name: value for part in detector.pretrained_parts() for name, value in part.state_dict().items()}
    fresh = _above(card, state, own)
    missing = [n for n in own if n not in state and n not in fresh and not n.endswith("num_batches_tracked")]
    wrong = [name for name, value in own.items() if name in state and state[name].shape != value.shape]
    if missing or wrong:
        first = (missing + wrong)[0]
        found = "is absent" if missing else f"has the shape {list(state[first].shape)} and not {list(own[first].shape)}"
        raise InputError(
            f"{source}: {len(missing)} tensors of the detector's backbone are missing and {len(wrong)} have another "
            f"shape; the first, {first}, {found}: it was trained as another backbone ({card['backbone']['kind']})"
        )
    with torch.no_grad():
        for name, value in own.items():
            if name in state:
                value.copy_(state[name])
    taken = detector.take_classifier(classifier) if isinstance(detector, TakesClassifier) else 0
    more = f" and {taken} layers of the head" if taken else ""
    top = "" if card.get("top1") is None else f", top-1 {100 * card['top1']:.1f} %"
    more += f", {len(fresh)} above them fresh" if fresh else ""
    return f"backbone from {source}: {len(own) - len(fresh)} tensors{more}, trained on {card['data']['name']}{top}"


def _above(card: dict[str, Any], state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> set[str]:
    """Return the names of the tensors in ``own`` that lie above the end of the pretrained backbone."""
    backbone = card["backbone"]
    if _is_plain_vgg(backbone):
        return {name for name in own if name.startswith(("fc6", "fc7")) and name not in state}
    if backbone.get("variant") == "extraction":
        indices = [tuple(map(int, name.split(".")[1:3])) for name in state]
        return {name for name in own if tuple(map(int, name.split(".")[1:3])) > max(indices)}
    return set()


def _check_same(detector: Detector, card: dict[str, Any], source: Path | str) -> None:
    mine, theirs = to_tree(detector.config.backbone), card["backbone"]
    if mine["kind"] != theirs["kind"]:
        raise InputError(
            f"{source}: another backbone: a {shortened(theirs['kind'])} there and a {mine['kind']} here; use another "
            f"file, or a recipe on a {shortened(theirs['kind'])} (`boxwright models --kind detector`)"
        )
    names = [field.name for field in fields(detector.config.backbone) if field.name not in _FREE | _TAKEN_ON]
    differing = {n: theirs[n] for n in names if n in theirs and not _agree(n, theirs[n], mine[n])}
    if differing:
        shown = ", ".join(
            f"{n} = {shortened(repr(value))} there and {mine[n]!r} here" for n, value in differing.items()
        )
        raise InputError(
            f"{source}: another backbone: {shown}; use {shortened(_settings('backbone', differing), 600)}, or another "
            "file"
        )
    pixels = to_tree(detector.config.pixels)
    if not _same_pixels(from_tree(PixelConfig, card["pixels"]), detector.config.pixels):
        other = {name: value for name, value in card["pixels"].items() if value != pixels[name]}
        raise InputError(
            f"{source}: trained on pixels prepared as {card['pixels']}, but this detector prepares them as {pixels}; "
            f"use {_settings('pixels', other)}"
        )


def _agree(name: str, there: Any, here: Any) -> bool:
    """Return True if a setting of the pretrained backbone is compatible with that of the detector's."""
    if name == "norm":  # whole batch norms may be frozen, but norms with folded statistics cannot be trained
        return there == here or (there == "bn" and here == "frozen_bn")
    return there == here or (name == "variant" and (there, here) in _SAME_TRUNK)


def _same_pixels(there: PixelConfig, here: PixelConfig) -> bool:
    """Return True if both prepare pixels in the same way, up to a publisher's rounding of the mean colour."""
    means = all(abs(a - b) <= _MEAN_ROUNDING for a, b in zip(there.mean, here.mean, strict=True))
    return means and (there.std, there.bgr) == (here.std, here.bgr)


def _settings(part: str, values: Mapping[str, Any]) -> str:
    """Format the command-line options that set the fields of ``part`` of a detector."""
    texts = {
        name: value if isinstance(value, str) else "none" if value is None else json.dumps(value, separators=(",", ":"))
        for name, value in values.items()
    }
    return " ".join(f"--set {shlex.quote(f'detector.{part}.{name}={text}')}" for name, text in texts.items())
