"""Boxwright: build, train, compare and ship object detectors.

The names below are what most programs need; everything else is one import deeper, in the module that it is about.
"""

from __future__ import annotations

from boxwright.io.openmp import wait_without_spinning

TYPE_CHECKING = False  # type checkers take it as true; `typing` itself would take half of the time of this import

__version__ = "0.1.0"

wait_without_spinning()  # here, because it has to precede every import of torch

if TYPE_CHECKING:
    from typing import Any

    from boxwright.checkpoints.hub import from_pretrained, push_to_hub, save_pretrained
    from boxwright.checkpoints.opening import load_detector
    from boxwright.data.formats.opening import open_dataset, open_splits
    from boxwright.detections import Detections
    from boxwright.detectors.build import build_detector
    from boxwright.recipes import resolve_recipe
    from boxwright.structures import Classes, InputError
    from boxwright.training.loop import train

_HOME = {
    "Classes": "structures",
    "Detections": "detections",
    "InputError": "structures",
    "build_detector": "detectors.build",
    "from_pretrained": "checkpoints.hub",
    "load_detector": "checkpoints.opening",
    "open_dataset": "data.formats.opening",
    "open_splits": "data.formats.opening",
    "push_to_hub": "checkpoints.hub",
    "resolve_recipe": "recipes",
    "save_pretrained": "checkpoints.hub",
    "train": "training.loop",
}

__all__ = [
    "Classes",
    "Detections",
    "InputError",
    "build_detector",
    "from_pretrained",
    "load_detector",
    "open_dataset",
    "open_splits",
    "push_to_hub",
    "resolve_recipe",
    "save_pretrained",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load on first use: ``import boxwright`` and ``boxwright --help`` stay quick, without torch."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"boxwright.{_HOME[name]}"), name)
    raise AttributeError(f"module 'boxwright' has no attribute {name!r}")
