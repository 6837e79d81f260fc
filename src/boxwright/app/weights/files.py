"""Describe, convert and export checkpoints, also those of other programs: ``boxwright weights``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch

from boxwright.app.requests.weights import ImportOptions
from boxwright.checkpoints.checkpoint import SUFFIX, Checkpoint, rebuild, save_checkpoint
from boxwright.checkpoints.hub_folder import save_folder
from boxwright.checkpoints.model_card import parameter_count
from boxwright.checkpoints.opening import Opened, complete, open_checkpoint
from boxwright.config.config_tree import to_tree
from boxwright.detectors.build import DetectorConfig
from boxwright.heads.regions.truncated_svd import truncate_fc
from boxwright.io.files import write_atomically
from boxwright.structures import InputError
from boxwright.weights.detectron.detectron2 import export_detectron2
from boxwright.weights.import_detector import read_names
from boxwright.weights.torchvision.export import export_torchvision


def describe(source: str, options: ImportOptions) -> dict[str, Any]:
    """Describe the detector in a checkpoint: source, architecture, size, classes, image preparation, metadata."""
    opened = _open(source, options)
    checkpoint, path = complete(opened), opened.path
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "source": (checkpoint.meta.get("imported") or {}).get("source") or f"Boxwright, {checkpoint.recipe.name}",
        "detector": checkpoint.detector.kind,
        "backbone": _backbone(checkpoint),
        "parameters": parameter_count(checkpoint.state),
        "classes": list(checkpoint.classes.names),
        "images": {"eval": to_tree(checkpoint.recipe.data.eval), "pad_multiple": checkpoint.recipe.data.pad_multiple},
        "meta": checkpoint.meta,
        "fetched": True,
    }


def _backbone(checkpoint: Checkpoint) -> str:
    tree = to_tree(checkpoint.detector.backbone)
    detail = next((str(tree[key]) for key in ("depth", "variant", "name") if tree.get(key)), "")
    return f"{tree['kind']} {detail}".strip()


def convert(
    source: str,
    output: Path,
    options: ImportOptions,
    licence: str | None = None,
    ranks: Sequence[int] = (),
) -> Opened:
    """Convert ``source`` to Boxwright's format and return the checkpoint that was written.

    ``output`` is a ``.safetensors`` file, or without a suffix a folder as on the Hub. ``licence`` goes into the model
    card of a folder. ``ranks``: compress the fully connected layers of the head to them by truncated SVD. Raises
    InputError if ``output`` exists.
    """
    if output.suffix not in ("", SUFFIX):
        raise InputError(f"--output {output}: give a file name that ends in {SUFFIX}, or a folder name without suffix")
    if licence is not None and output.suffix:
        raise InputError(f"--licence {licence}: is written to the model card of a folder; give a folder as --output")
    _check_new(output)
    opened = _open(source, options)
    checkpoint = truncated(opened, ranks) if ranks else complete(opened)
    if output.suffix == SUFFIX:
        output.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(output, checkpoint.state, checkpoint.recipe, checkpoint.classes, checkpoint.meta)
    else:
        save_folder(checkpoint, output, output.resolve().name, licence)
    return Opened(checkpoint, output)


def truncated(opened: Opened, ranks: Sequence[int]) -> Checkpoint:
    """Compress the fully connected layers of the head by truncated SVD to ``ranks``, one per layer.

    Raises InputError if the head has another number of such layers.
    """
    checkpoint = opened.checkpoint
    thin = truncate_fc(rebuild(checkpoint, opened.path), ranks)
    config = cast(DetectorConfig, thin.config)
    meta = {**checkpoint.meta, "truncated": list(ranks)}
    return Checkpoint(config, checkpoint.classes, thin.state_dict(), replace(checkpoint.recipe, detector=config), meta)


def export_weights(
    source: str, to: Literal["torchvision", "detectron2"], output: Path, options: ImportOptions
) -> Opened:
    """Write the weights of ``source`` as a ``.pth`` file that another program loads.

    The file holds a state dict for torchvision and ``{"model": state dict}`` for detectron2. Raises InputError if
    ``output`` exists, or naming the setting under which the other program would compute something else.
    """
    if output.suffix != ".pth":
        raise InputError(f"--output {output}: give a file name that ends in .pth")
    _check_new(output)
    opened = _open(source, options)
    detector = rebuild(opened.checkpoint, opened.path)
    state: dict[str, Any]
    try:
        state = export_torchvision(detector) if to == "torchvision" else {"model": export_detectron2(detector)}
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    buffer = io.BytesIO()
    torch.save(state, buffer)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, buffer.getbuffer())
    return Opened(opened.checkpoint, output)


def _check_new(output: Path) -> None:
    if output.exists():
        raise InputError(f"--output {output}: exists already; choose another name")


def _open(source: str, options: ImportOptions) -> Opened:
    classes = None if options.classes is None else read_names(options.classes)
    return open_checkpoint(source, classes, options.publisher, options.size)
