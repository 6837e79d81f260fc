"""Shared parts of the small recipes: training from scratch on a CPU, with images of 256 pixels.

Each detector's recipe file describes its network.
"""

from __future__ import annotations

from dataclasses import replace

from boxwright.anchors.generator import AnchorConfig
from boxwright.config.recipe import AdamWConfig, CosineConfig, EMAConfig, Stage, WarmupConfig
from boxwright.data.transforms.configs import FlipConfig, HSVJitterConfig, ScaleJitterConfig
from boxwright.heads.regions.rpn import PAPER_RPN

JITTER = (
    ScaleJitterConfig(size=(256, 256), scale=(0.75, 1.0)),
    FlipConfig(p=0.5),
    HSVJitterConfig(p=0.5, hue=0.02, saturation=1.3, value=1.3),
)
"""Augmentation for training sets of a few hundred images."""

STAGE = Stage(
    length=15,
    unit="epochs",
    optimiser=AdamWConfig(lr=1.5e-3, base_batch=8, weight_decay=0.05),
    schedule=CosineConfig(final=0.01, warmup=WarmupConfig(steps=100, factor=0.01)),
)

EMA = EMAConfig(decay=0.998, ramp=200)
"""Short enough for runs of a few hundred steps."""

ONE_MAP_RPN = replace(
    PAPER_RPN,
    anchors=AnchorConfig(sizes=((24, 48, 96, 160),), centre="cell"),
    channels=64,
    samples=128,
    pre_nms=(600, 300),
    post_nms=(150, 100),
    nms=replace(PAPER_RPN.nms, min_size=4.0),
)
"""RPN of two-stage detectors on one map."""
