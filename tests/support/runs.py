"""Training runs of tests."""

import pytest


def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs draw nothing: curves and samples cost more time than the runs of a toy."""
    for name in ("run.plot_losses", "tasks.detection.plot_precision", "tasks.detection.draw_samples"):
        monkeypatch.setattr(f"boxwright.training.{name}", lambda *args: None)
