"""Helpers to stop a run, resume it and compare its files."""

import os
import signal
from pathlib import Path
from typing import Any

import torch

from boxwright.checkpoints.checkpoint import load_train_state
from boxwright.training.logging.run_log import read_rows


class Killed(BaseException):
    """Raised in place of a kill: no handler in the library catches it."""


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return every leaf of nested dicts and lists by its path."""
    if isinstance(value, dict):
        return {k: v for key in value for k, v in flat(value[key], f"{path}/{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, item in enumerate(value) for k, v in flat(item, f"{path}/{i}").items()}
    return {path: value}


def assert_same_bits(one: Path, other: Path) -> None:
    a, b = (flat(load_train_state(folder / "last.train")) for folder in (one, other))
    assert a.keys() == b.keys()
    for key, value in a.items():
        same = torch.equal(value, b[key]) if isinstance(value, torch.Tensor) else value == b[key]
        assert same, key
    assert (one / "last.safetensors").read_bytes() == (other / "last.safetensors").read_bytes()


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the log without values that depend on the clock."""
    return [{k: v for k, v in r.items() if k not in ("images_per_second", "memory")} for r in read_rows(folder)]


def interrupts(*steps: int) -> Any:
    """Return a log function that sends SIGINT after each of these steps. Rows must come every step."""

    def log(line: str) -> None:
        if line.startswith(tuple(f"step {step}/" for step in steps)):
            os.kill(os.getpid(), signal.SIGINT)

    return log
