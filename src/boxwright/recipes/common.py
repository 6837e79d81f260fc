"""Blocks that recipes of several detectors share."""

from __future__ import annotations

from boxwright.config.recipe import EMAConfig

MODERN_EMA = EMAConfig(decay=0.9998, ramp=2_000)
"""EMA of the weights in modern recipes at full size."""
