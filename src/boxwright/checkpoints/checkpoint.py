"""Checkpoints: one safetensors file with all that inference needs, and a second file for resuming.

``NAME.safetensors`` holds the weights for inference (EMA if the recipe has it) and, as JSON in its header, the resolved
recipe, the classes and the origin. ``NAME.train`` suffices for resuming: raw weights, optimiser, EMA, random states and
position in the data. It does not depend on the first file, so a kill between the two writes does no harm. Nothing is
unpickled from either.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from boxwright.backbones.timm import TimmConfig
from boxwright.checkpoints.contents import check_finite, check_types, load_tensors, parse_header, read_classes
from boxwright.config.bounds import shortened
from boxwright.config.config_tree import to_tree
from boxwright.config.reading import recipe_from_tree
from boxwright.config.recipe import Recipe
from boxwright.detectors.build import Build, DetectorConfig, build_detector
from boxwright.detectors.contract.adoption import adopt, misfits, unallocated_parameters
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.preparation import preparation_of
from boxwright.detectors.contract.size_limit import TooLargeError, bounded_network
from boxwright.io.files import write_atomically
from boxwright.structures import Classes, InputError

FORMAT = 1
KEY = "boxwright"
SUFFIX = ".safetensors"
TRAIN_SUFFIX = ".train"


class Checkpoint(NamedTuple):
    """Contents of a checkpoint. ``state`` is the detector's state dict, on the CPU.

    ``meta``: step, epoch, metrics, versions, git, data (name, images, fingerprint), weights ("model" or "ema").
    """

    detector: DetectorConfig
    classes: Classes
    state: dict[str, Tensor]
    recipe: Recipe
    meta: dict[str, Any]


class MisfitError(InputError):
    """The tensors of a checkpoint do not fit the network that its recipe describes."""


@dataclass(frozen=True)
class ClassDifference:
    """Difference between the classes of a data set and of a checkpoint."""

    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    reordered: bool


def save_checkpoint(
    path: Path, state: Mapping[str, Tensor], recipe: Recipe, classes: Classes, meta: Mapping[str, Any]
) -> None:
    """Write ``path`` (``*.safetensors``) atomically. Raises InputError if the disk is full, and keeps an old file."""
    header = {
        "format": FORMAT,
        "recipe": to_tree(recipe),
        "classes": {"names": list(classes.names), "ids": list(classes.ids)},
        "meta": dict(meta),
    }
    # Copies where needed: safetensors takes neither strided nor shared memory.
    tensors = {
        name: t.detach().to("cpu", memory_format=torch.contiguous_format).contiguous() for name, t in state.items()
    }
    owners: set[int] = set()
    for name, tensor in tensors.items():
        tensors[name] = tensor.clone() if tensor.data_ptr() in owners else tensor
        owners.add(tensor.data_ptr())
    write_atomically(path, safetensors.torch.save(tensors, {KEY: json.dumps(header, ensure_ascii=False)}))


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Load the checkpoint at ``path``, or the best (else last) one of the run folder ``path``.

    Raises InputError for a file that is absent, truncated, not a checkpoint, or of a later format.
    """
    path = find_checkpoint(Path(path))
    header = _read_header(path)
    if header["format"] > FORMAT:
        raise InputError(
            f"{path}: written by a later Boxwright (checkpoint format {header['format']}); upgrade Boxwright"
        )
    state = load_tensors(path, "copy it anew or use another one of the run")
    version = header["meta"].get("versions", {}).get("boxwright", "unknown")
    recipe = recipe_from_tree(
        header["recipe"], lambda _: f"{path}: recipe written by Boxwright {version}", trained=True
    )
    classes = read_classes(header["classes"]["names"], header["classes"]["ids"], str(path))
    return Checkpoint(recipe.detector, classes, state, recipe, header["meta"])


def rebuild(checkpoint: Checkpoint, path: Path | str, build: Build | None = None) -> Detector:
    """Build the detector of a checkpoint, on the CPU, in eval mode.

    Its parameters are the tensors of ``checkpoint.state`` themselves, which are the file, mapped into memory. Raises
    MisfitError naming ``path`` if the tensors do not fit, and InputError naming those that hold NaN or infinite values.
    """
    preparation = preparation_of(checkpoint.recipe.data)
    with unallocated_parameters(), bounded_by(checkpoint.state, str(path)):
        detector = build_detector(_without_pretraining(checkpoint.detector), checkpoint.classes, preparation, build)
    if faults := misfits(detector, checkpoint.state):
        version = checkpoint.meta.get("versions", {}).get("boxwright", "unknown")
        what = f"its tensors do not fit its recipe (written by Boxwright {shortened(str(version))})"
        if "imported" in checkpoint.meta:
            what = f"no whole checkpoint of {shortened(str(checkpoint.meta['imported']['source']))}"
        raise MisfitError(f"{path}: {what}: {faults}")
    if "imported" in checkpoint.meta:  # our own files are checked when they are read
        check_finite(checkpoint.state, str(path))
    adopt(detector, checkpoint.state)
    return detector.eval()


@contextmanager
def bounded_by(state: Mapping[str, Tensor], path: str) -> Iterator[None]:
    """Let no network be built in the block that is far larger than the tensors of ``state``.

    A recipe may ask for a million layers. Raises MisfitError naming ``path``.
    """
    held = sum(value.numel() for value in state.values())
    try:
        with bounded_network(2 * held + 10**7, 2 * len(state) + 1000):
            yield
    except TooLargeError as error:
        raise MisfitError(
            f"{path}: its tensors do not fit its recipe, which describes a far larger network ({error}) than its "
            f"{len(state)} tensors of {held:,} values"
        ) from None


def _without_pretraining(config: DetectorConfig) -> DetectorConfig:
    """Return ``config`` with a backbone that downloads no weights: the checkpoint has them."""
    if isinstance(config.backbone, TimmConfig) and config.backbone.pretrained:
        return replace(config, backbone=replace(config.backbone, pretrained=False))
    return config


def find_checkpoint(path: Path) -> Path:
    """``path`` itself, or the best (else last) checkpoint in the run folder ``path``."""
    if not path.is_dir():
        return path
    for name in ("best", "last"):
        if (path / f"{name}{SUFFIX}").is_file():
            return path / f"{name}{SUFFIX}"
    raise InputError(f"{path}: holds neither best{SUFFIX} nor last{SUFFIX}; name a checkpoint or a run folder")


def _read_header(path: Path) -> dict[str, Any]:
    """Read Boxwright's part of the header, without the tensors."""
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; give a {SUFFIX} file or a run folder")
    if path.suffix == TRAIN_SUFFIX:
        raise InputError(f"{path}: only serves to resume a run; use {path.with_suffix(SUFFIX).name} beside it")
    if zipfile.is_zipfile(path):
        raise InputError(
            f"{path}: a PyTorch file, not a Boxwright checkpoint ({SUFFIX}); `boxwright weights convert` makes one"
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _broken(path, error) from None
    if KEY not in metadata:
        raise InputError(f"{path}: safetensors, but not a Boxwright checkpoint: its header has no recipe and classes")
    return parse_header(metadata[KEY], path)


def _broken(path: Path, error: Exception) -> InputError:
    size = path.stat().st_size
    return InputError(
        f"{path}: truncated or not a checkpoint ({size} bytes; {error}); copy it anew or use another one of the run"
    )


def save_train_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write the file for resuming, ``*.train``: tensors, numbers, text, and dicts, lists and tuples of them."""
    buffer = io.BytesIO()
    torch.save({"boxwright_format": FORMAT, **state}, buffer)
    # Through memory, because torch's own writer turns a full disk into an error that does not say so.
    write_atomically(path, buffer.getbuffer())


def load_train_state(path: Path) -> dict[str, Any]:
    """Load a file that :func:`save_train_state` wrote, with tensors on the CPU. Raises InputError for others."""
    if not path.is_file():
        raise InputError(f"{path}: nothing to resume from: no such file; start a new run")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is cut short or is something else
        first = shortened(str(error).splitlines()[0]) if str(error) else type(error).__name__
        raise InputError(f"{path}: truncated or not a training state ({path.stat().st_size} bytes; {first})") from None
    if not isinstance(state, dict) or "boxwright_format" not in state:
        raise InputError(f"{path}: not a training state of Boxwright; resume takes the folder of a run")
    check_types(state, {"boxwright_format": int}, str(path))
    if state["boxwright_format"] > FORMAT:
        raise InputError(f"{path}: written by a later Boxwright; upgrade Boxwright")
    return state


def compare_classes(data: Classes, checkpoint: Classes) -> ClassDifference | None:
    """Compare the names; None if they are equal and in the same order. Category ids may differ."""
    if data.names == checkpoint.names:
        return None
    missing = tuple(n for n in checkpoint.names if n not in data.names)
    unknown = tuple(n for n in data.names if n not in checkpoint.names)
    return ClassDifference(missing, unknown, reordered=not missing and not unknown)


def check_classes(
    data: Classes, checkpoint: Classes, data_name: str, checkpoint_name: str, what: str = "the checkpoint"
) -> None:
    """Raise InputError with the differences and the remedy unless the classes are equal.

    ``what``: a noun for ``checkpoint_name`` in the message.
    """
    difference = compare_classes(data, checkpoint)
    if difference is None:
        return
    if difference.reordered:
        place = next(i for i, (a, b) in enumerate(zip(data.names, checkpoint.names, strict=True)) if a != b)
        raise InputError(
            f"{data_name} and {checkpoint_name} have the same classes in another order: class {place} is "
            f"{data.names[place]!r} in the data and {checkpoint.names[place]!r} in {what}; "
            f"list the data's categories in the order {_listing(checkpoint.names)}"
        )
    parts = [
        f"{lacks} {_listing(names)}"
        for lacks, names in (("the data lacks", difference.missing), (f"{what} lacks", difference.unknown))
        if names
    ]
    remedy = "Rename or filter the data's classes, or train a checkpoint on this data"
    if not difference.unknown:  # no object of some classes: VOC has no other place for their names
        remedy = (
            f"List the classes of {what} in the data too: in the labels.txt of a VOC folder, one a line, or by name"
        )
    raise InputError(
        f"the classes of {data_name} ({len(data)}) and of {checkpoint_name} ({len(checkpoint)}) differ: "
        f"{'; '.join(parts)}. {remedy}"
    )


def _listing(names: tuple[str, ...], most: int = 12) -> str:
    shown = ", ".join(repr(n) for n in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
