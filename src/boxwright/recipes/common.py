"""Blocks that recipes of several detectors share."""

from __future__ import annotations

from boxwright.config.recipe import CosineConfig, EMAConfig, SGDConfig, Stage, WarmupConfig
from boxwright.data.transforms.configs import FlipConfig, LargeScaleJitterConfig, TransformConfig

MODERN_EMA = EMAConfig(decay=0.9998, ramp=2_000)
"""EMA of the weights in modern recipes at full size."""

MODERN_STAGE = Stage(
    length=100,
    unit="epochs",
    optimiser=SGDConfig(lr=0.02, base_batch=16, momentum=0.9, nesterov=True, weight_decay=4e-5),
    schedule=CosineConfig(final=0.01, warmup=WarmupConfig(steps=500, factor=0.001)),
)
"""Training of modern recipes at full size."""


def large_scale_jitter(side: int) -> tuple[TransformConfig, ...]:
    """Return the augmentation of modern recipes at full size: large-scale jitter to a square, and flips."""
    return LargeScaleJitterConfig(size=(side, side), scale=(0.1, 2.0)), FlipConfig(p=0.5)
