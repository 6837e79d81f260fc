"""Load a detector for a command: checkpoint, device and precision."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from boxwright.checkpoints.checkpoint import Checkpoint
from boxwright.checkpoints.opening import open_checkpoint
from boxwright.checkpoints.overrides import rebuild_changed
from boxwright.detectors.contract.detector import Detector
from boxwright.precision import Precision, check_precision, dtype_of
from boxwright.training.distributed import choose_device


class Loaded(NamedTuple):
    """A detector with its checkpoint, file and device."""

    detector: Detector
    checkpoint: Checkpoint
    path: Path
    device: torch.device


def load(source: Path | str, device: str = "auto", sets: Sequence[str] = (), size: int | None = None) -> Loaded:
    """Load the detector of a checkpoint on a device.

    ``source`` and ``size``: see :func:`~boxwright.checkpoints.opening.open_checkpoint`. ``sets``: settings other than
    its recipe's, see :func:`~boxwright.checkpoints.overrides.rebuild_changed`.
    Raises ``InputError`` for a file that is absent, truncated or no checkpoint, a name that is not fetched, and for a
    device that is not there.
    """
    where = choose_device(device)
    checkpoint, file = open_checkpoint(source, size=size)
    detector, checkpoint = rebuild_changed(checkpoint, file, sets)
    return Loaded(detector.to(where), checkpoint, file, where)


def for_inference(detector: Detector, device: torch.device, precision: Precision) -> Detector:
    """Return an optimised copy in ``precision``. Raises InputError if the device does not run it well."""
    check_precision(device, precision)
    return detector.optimised(dtype_of(precision)).to(device)


def file_digest(path: Path) -> str:
    """Return the first 16 hexadecimal digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
