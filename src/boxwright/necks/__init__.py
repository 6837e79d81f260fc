"""Necks: layers that turn the levels of a backbone into the levels of a detector."""

from boxwright.necks.fpn import FPN, FPNConfig

__all__ = ["FPN", "FPNConfig"]
