"""Number of epochs that fit into given minutes, from a short run."""

from __future__ import annotations

from dataclasses import dataclass

from boxwright.structures import InputError

RESERVE = 0.95
"""Share of the minutes that is planned, because a pace is never quite steady."""


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
