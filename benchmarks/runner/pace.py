"""Number of epochs that fit into given minutes, from a short run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from boxwright.structures import InputError

RESERVE = 0.95
"""Share of the minutes that is planned, because a pace is never quite steady."""
START = 8.0
"""Seconds in which a run of ours starts and ends; all that takes longer beside training counts as validation."""


def pace_of(values: dict[str, Any], train_images: int, val_images: int) -> Pace:
    """Return the pace of a short run on ``train_images`` with one validation, from its minutes and its speed."""
    train = 1 / values["speed"]
    beside = max(0.0, 60 * values["minutes"] - train_images * train)  # start, end and one validation
    start = min(beside, START)
    return Pace(start, train, (beside - start) / val_images)


@dataclass(frozen=True)
class Pace:
    """Seconds of a contestant: to start and end, for an image of training, and for an image of validation."""

    start: float
    train: float
    val: float

    def epochs(self, minutes: float, train_images: int, val_images: int, per_epoch: float, final: int = 0) -> int:
        """Return the most whole epochs that end within ``minutes`` with their validations.

        ``per_epoch``: validations for each epoch, ``final``: those beside. Raises InputError if not one epoch fits.
        """
        validation = self.val * val_images
        spare = 60 * minutes * RESERVE - self.start - final * validation
        epochs = int(spare / (self.train * train_images + per_epoch * validation))
        if epochs < 1:
            need = (60 * minutes * RESERVE - spare + self.train * train_images + per_epoch * validation) / RESERVE
            raise InputError(f"--minutes {minutes:g}: one epoch takes {need / 60:.1f} minutes; give more")
        return epochs
