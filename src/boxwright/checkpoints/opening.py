"""Open a checkpoint by a run folder, a file, a published name or a repository of the Hub.

A checkpoint of another program gets a recipe that evaluates as its publisher does, so that all commands take it and
saving it gives an ordinary file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch

from boxwright.checkpoints.checkpoint import (
    KEY,
    SUFFIX,
    TRAIN_SUFFIX,
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    rebuild,
)
from boxwright.checkpoints.hub_cache import HUB_PREFIX, require_repository
from boxwright.checkpoints.hub_folder import CONFIG, load_folder
from boxwright.checkpoints.overrides import rebuild_changed
from boxwright.config.recipe import CosineConfig, Recipe, SGDConfig, Source, Stage
from boxwright.data.config import DataConfig
from boxwright.data.transforms.configs import FlipConfig
from boxwright.data.transforms.resizing import LetterboxConfig, ResizeConfig, WarpConfig
from boxwright.detectors.build import Build
from boxwright.detectors.contract.detector import Detector
from boxwright.io.environment import versions
from boxwright.precision import Precision, check_precision
from boxwright.structures import Classes, InputError
from boxwright.weights.common.imported import Imported
from boxwright.weights.import_detector import import_checkpoint
from boxwright.weights.published.catalogue import PUBLISHERS, Published, find_published, is_name
from boxwright.weights.published.fetch import require_cached

_RESIZING = (ResizeConfig, LetterboxConfig, WarpConfig)


class Opened(NamedTuple):
    """A checkpoint and the file with its weights."""

    checkpoint: Checkpoint
    path: Path


def open_checkpoint(
    source: Path | str,
    classes: Classes | Sequence[str] | None = None,
    publisher: str | None = None,
    size: int | None = None,
    *,
    any_size: bool = False,
) -> Opened:
    """Open the checkpoint that ``source`` names.

    That is a run's folder, a ``.safetensors`` file of ours, a folder that ``save_pretrained`` wrote, a name such as
    ``torchvision:fasterrcnn_resnet50_fpn`` or ``hf:owner/name``, or another program's file: ``.pth``, ``.pkl``,
    ``.caffemodel``, or Darknet's ``.weights`` with the ``.cfg`` beside it. A path that exists comes before a name.
    ``classes``, ``publisher``, ``size`` and ``any_size`` are for other programs' files, see
    :func:`~boxwright.weights.import_detector.import_checkpoint`.

    Raises InputError for what is absent, not fetched (with the command that fetches it), damaged or not understood.
    Nothing is downloaded.
    """
    text, path = str(source), Path(os.path.expanduser(source))
    names = classes if classes is None or isinstance(classes, Classes) else Classes.from_names(list(classes))
    if not path.exists():
        if text.startswith(HUB_PREFIX):
            path = require_repository(text)
        elif is_name(text):
            entry = find_published(text)
            if entry.kind != "detector":
                raise InputError(
                    f"{text}: an ImageNet network, where a detector was expected; start one from it: `boxwright train "
                    f"RECIPE --backbone-weights {text}`"
                )
            return _foreign(require_cached(entry), names, entry.publisher, entry.input_size, any_size, entry)
        elif ":" in text and "/" not in text.split(":", 1)[0] and len(text.split(":", 1)[0]) > 1:
            known = ", ".join(f"{name}:" for name in (*PUBLISHERS, "hf"))
            raise InputError(f"{text}: neither a path nor a name that begins with one of {known}")
        else:
            raise InputError(
                f"{path}: no such checkpoint; give a {SUFFIX} file, a run folder, another program's file of weights, "
                "or a name that `boxwright weights list` shows"
            )
    if path.is_dir():
        own = load_folder(path) if (path / CONFIG).is_file() else None
        opened = Opened(*own) if own is not None else _ours(find_checkpoint(path))
    elif path.suffix == TRAIN_SUFFIX or _is_ours(path):
        opened = _ours(path)
    else:
        return _foreign(path, names, publisher, size, any_size)
    if (classes, publisher, size) != (None, None, None):
        raise InputError(f"{opened.path}: a checkpoint of Boxwright, which says itself what it is; give it alone")
    return opened


def complete(opened: Opened) -> Checkpoint:
    """Return the checkpoint with every tensor of its detector by its name, ready to be saved.

    Raises MisfitError for another program's file that lacks tensors of the network that it holds, or has more.
    """
    checkpoint, path = opened
    if "imported" not in checkpoint.meta:
        return checkpoint
    return checkpoint._replace(state=rebuild(checkpoint, path).state_dict())


def load_detector(
    source: Path | str,
    device: torch.device | str = "cpu",
    build: Build | None = None,
    classes: Classes | Sequence[str] | None = None,
    sets: Sequence[str] = (),
    *,
    size: int | None = None,
    precision: Precision = "fp32",
) -> Detector:
    """Load the detector of a checkpoint, in eval mode, with the image preparation of its recipe's evaluation.

    ``source``, ``classes`` and ``size``: see :func:`open_checkpoint`. ``build``: makes the detector from its
    configuration, in place of this library. ``sets``: overrides of the recipe, such as
    ``"detector.rpn.post_nms=[2000, 300]"``, see :func:`~boxwright.checkpoints.overrides.rebuild_changed`.

    ``detect`` runs on an optimised copy in ``precision`` (norms folded, channels-last, Winograd's algorithm where it is
    faster), as the command ``boxwright detect`` does. The detector itself stays as it was trained: it can be trained
    further and saved, and the next ``detect`` sees its new weights. Raises InputError for a precision that the device
    does not run well.
    """
    check_precision(torch.device(device), precision)
    checkpoint, path = open_checkpoint(source, classes, size=size)
    return rebuild_changed(checkpoint, path, sets, build)[0].to(device).detect_with(precision)


def _ours(path: Path) -> Opened:
    return Opened(load_checkpoint(path), path)


def _is_ours(path: Path) -> bool:
    """Return True if :func:`load_checkpoint` should read ``path``; also for a damaged ``.safetensors``."""
    if path.suffix != SUFFIX:
        return False
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return KEY in (file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        return True


def _foreign(
    path: Path,
    classes: Classes | None,
    publisher: str | None,
    size: int | None,
    any_size: bool,
    entry: Published | None = None,
) -> Opened:
    imported = import_checkpoint(path, classes, publisher, size, any_size=any_size)
    meta = {"versions": versions(), "imported": origin(imported, path, entry)}
    recipe = recipe_of(imported)
    return Opened(Checkpoint(recipe.detector, imported.classes, imported.state, recipe, meta), path)


def origin(imported: Imported, path: Path, entry: Published | None) -> dict[str, Any]:
    """Describe the origin of another program's checkpoint, for the header of a saved copy."""
    told: dict[str, Any] = {"source": imported.source, "file": path.name}
    if entry is not None:
        told |= {"name": entry.name, "url": entry.files[0].url, "licence": entry.licence, "data": entry.data}
        if entry.figures:
            told["published"] = {"measured_on": entry.measured_on, **entry.figures}
    return told


def recipe_of(imported: Imported) -> Recipe:
    """Make a recipe that evaluates as the publisher does, with the usual options of fine-tuning.

    The file does not say how the publisher trained.
    """
    views, multiple = imported.transforms, imported.pad_multiple
    # Training keeps whole grey levels, which take a quarter of the memory.
    train = [replace(view, levels="whole") if isinstance(view, _RESIZING) else view for view in views]
    data = DataConfig(train=(*train, FlipConfig(p=0.5)), eval=views, pad_multiple=multiple, batch_size=8)
    tune = Stage(length=12, optimiser=SGDConfig(lr=0.002), schedule=CosineConfig())
    note = "Images are prepared as by the publisher; optimiser and schedule are Boxwright's, for fine-tuning."
    return Recipe(name=imported.source, detector=imported.config, data=data, stages=(tune,), source=Source(note=note))
