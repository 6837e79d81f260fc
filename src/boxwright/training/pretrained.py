"""Files of pretrained backbones: written by classification runs, read as the start of a detector.

One of ours is a safetensors file with the classifier's tensors (``backbone.*`` and ``fc.*``) and a card in its header:
backbone, data and its fingerprint, recipe, top-1 and top-5, licence. torchvision's classifiers (``.pth``, ``.pt``) are
read as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from boxwright.backbones.vgg import VGGConfig
from boxwright.detectors.detector import Detector
from boxwright.structures import InputError
from boxwright.training.config_tree import to_tree
from boxwright.training.files import write_atomically
from boxwright.weights.imported_backbone import ImportedBackbone, build_classifier
from boxwright.weights.reading import read_foreign, tensors_in
from boxwright.weights.torchvision_classifiers import import_torchvision_classifier, reduced_layers

FORMAT = 1
KEY = "boxwright_backbone"

# What may differ between the backbone that was pretrained and the one that starts from it: how it goes on learning and
# which of its levels are read.
_FREE = {"norm", "freeze_at", "out_levels", "zero_init_residual", "pretrained"}


FOREIGN_SUFFIXES = (".pth", ".pt")
# What a classifier's file says nothing of: how its network is taken on to a detector.
_NOT_IN_FILES = {"fc", "fc6_dilation", "pool5", "ceil_mode", "output_stride", "tap"}


class PretrainedBackbone(NamedTuple):
    """``state``: tensors named as in the backbone itself. ``card``: what the file says about itself. ``classifier``:
    the tensors of the classifier on top, by their names in it."""

    state: dict[str, Tensor]
    card: dict[str, Any]
    classifier: dict[str, Tensor]


def save_pretrained(path: Path, state: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write the classifier's ``state`` and its ``card`` in one step."""
    tensors = {name: t.detach().to("cpu").contiguous() for name, t in state.items()}
    header = json.dumps({"format": FORMAT, **card}, ensure_ascii=False)
    write_atomically(path, safetensors.torch.save(tensors, {KEY: header}))


def save_imported(path: Path, imported: ImportedBackbone) -> None:
    """Write a classifier of another publisher as a file that ``--backbone-weights`` takes.

    InputError where its tensors are not those of its network.
    """
    build_classifier(imported, str(path))
    card = {
        "backbone": to_tree(imported.config),
        "pixels": to_tree(imported.pixels),
        "data": {"name": imported.data},
        "source": imported.source,
        "top1": None,
        "top5": None,
    }
    save_pretrained(path, imported.state, card)


def read_card(path: Path | str) -> dict[str, Any]:
    """The card of a pretrained backbone, without its tensors."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the .safetensors that `boxwright pretrain` wrote")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: truncated or no safetensors file ({path.stat().st_size} bytes; {error}); copy it anew"
        ) from None
    if KEY not in metadata:
        raise InputError(
            f"{path}: no pretrained backbone: its header has no card; a detector's checkpoint goes to --weights"
        )
    card = json.loads(metadata[KEY])
    if card["format"] > FORMAT:
        raise InputError(f"{path}: written by a later Boxwright; upgrade Boxwright")
    return card


def load_pretrained(path: Path | str) -> PretrainedBackbone:
    """The backbone's tensors, and beside them those of the classifier on top. ``path``: ours, or torchvision's."""
    if Path(path).suffix in FOREIGN_SUFFIXES:
        try:
            return from_torchvision(tensors_in(read_foreign(path), "model", "state_dict"))
        except InputError as error:
            raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    card = read_card(path)
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path}: truncated ({error}); copy it anew") from None
    state, classifier = (
        {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        for prefix in ("backbone.", "fc.")
    )
    return PretrainedBackbone(state, card, classifier)


def from_torchvision(state: Mapping[str, Tensor]) -> PretrainedBackbone:
    """The state dict of one of torchvision's ImageNet classifiers. InputError where it is of another model.

    The whole VGG-16 brings fc6 and fc7 of the reduced form (SSD §3) too.
    """
    found = import_torchvision_classifier(state)
    card = {
        "format": FORMAT,
        "backbone": to_tree(found.config),
        "pixels": to_tree(found.pixels),
        "data": {"name": f"ImageNet ({found.source})"},
        "top1": None,
    }
    backbone = dict(found.backbone)
    if isinstance(found.config, VGGConfig) and found.classifier:
        backbone |= reduced_layers(found.classifier)
    return PretrainedBackbone(backbone, card, found.classifier)


def start_backbone(detector: Detector, path: Path | str) -> str:
    """Give the detector's backbone the weights of ``path``; a line that says what was taken.

    Every tensor of the detector's backbone must be there in its shape; of the classifier's layers a detector takes what
    its head has as well (fc6 and fc7 of VGG-16). InputError names the settings in which the two
    backbones differ, or pixels that are prepared in another way.
    """
    state, card, classifier = load_pretrained(path)
    _check_same(detector, card, path)
    own = {name: value for part in detector.pretrained_parts() for name, value in part.state_dict().items()}
    foreign = Path(path).suffix in FOREIGN_SUFFIXES
    fresh = {name for name in own if foreign and name.startswith(("fc6", "fc7")) and name not in state}
    missing = [n for n in own if n not in state and n not in fresh and not n.endswith("num_batches_tracked")]
    wrong = [name for name, value in own.items() if name in state and state[name].shape != value.shape]
    if missing or wrong:
        place = (missing + wrong)[0]
        found = "is absent" if missing else f"has the shape {list(state[place].shape)} and not {list(own[place].shape)}"
        raise InputError(
            f"{path}: {len(missing)} tensors of the detector's backbone are missing and {len(wrong)} have another "
            f"shape; the first, {place}, {found}: it was trained as another backbone ({card['backbone']['kind']})"
        )
    with torch.no_grad():
        for name, value in own.items():
            if name in state:
                value.copy_(state[name])
    taken = detector.take_classifier(classifier)
    more = f" and {taken} layers of the head" if taken else ""
    top = "" if card.get("top1") is None else f", top-1 {100 * card['top1']:.1f} %"
    more += f", {len(fresh)} of fc6 and fc7 fresh" if fresh else ""
    return f"backbone from {path}: {len(own) - len(fresh)} tensors{more}, learnt on {card['data']['name']}{top}"


def _check_same(detector: Detector, card: dict[str, Any], path: Path | str) -> None:
    mine = to_tree(detector.config.backbone)
    theirs = card["backbone"]
    if Path(path).suffix in FOREIGN_SUFFIXES:  # what does not concern their tensors, or is made from them
        theirs = {name: value for name, value in theirs.items() if name not in _NOT_IN_FILES}
    names = [field.name for field in fields(detector.config.backbone) if field.name not in _FREE]
    differing = [n for n in names if n in theirs and mine[n] != theirs[n]]
    if mine["kind"] != theirs["kind"] or differing:
        shown = ", ".join(f"{n} = {theirs.get(n)!r} there and {mine[n]!r} here" for n in differing or ["kind"])
        remedy = " ".join(f"--set detector.backbone.{n}={json.dumps(theirs.get(n))}" for n in differing or ["kind"])
        raise InputError(f"{path}: another backbone: {shown}; use {remedy}, or another file")
    pixels = to_tree(detector.config.pixels)
    if card["pixels"] != pixels:
        raise InputError(
            f"{path}: learnt from pixels prepared as {card['pixels']}, but this detector prepares them as {pixels}; "
            "set detector.pixels to the former"
        )
