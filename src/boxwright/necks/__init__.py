"""Necks: a backbone's levels in, the detector's levels out."""

from boxwright.necks.fpn import FPN, FPNConfig

__all__ = ["FPN", "FPNConfig"]
