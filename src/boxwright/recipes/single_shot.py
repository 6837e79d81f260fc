"""Training of SSD and RefineDet as their authors' Caffe code does it (SSD §2.2, §3.6; RefineDet §4.1)."""

from __future__ import annotations

from boxwright.config.recipe import MultiStepConfig, SGDConfig, Stage
from boxwright.data.config import DataConfig
from boxwright.data.transforms.configs import (
    ExpandConfig,
    FlipConfig,
    MinIoUCropConfig,
    PhotometricConfig,
    TransformConfig,
    WarpConfig,
)
from boxwright.data.transforms.resizing import SSD_INTERPOLATIONS


def paper_chain(side: int) -> tuple[TransformConfig, ...]:
    """Return SSD's augmentation in its order (SSD §2.2, §3.6)."""
    return (
        PhotometricConfig(),
        ExpandConfig(p=0.5, ratio=(1.0, 4.0)),
        MinIoUCropConfig(scale=(0.3, 1.0)),
        WarpConfig(size=(side, side), interpolations=SSD_INTERPOLATIONS),
        FlipConfig(p=0.5),
    )


def paper_data(side: int, batch_size: int = 32) -> DataConfig:
    """Return data warped to a square, as in the released code in training and at test."""
    return DataConfig(
        train=paper_chain(side),
        eval=(WarpConfig(size=(side, side), interpolations=("aliased",)),),
        batch_size=batch_size,
        eval_batch_size=8,
        group_by_aspect=False,
        pad_multiple=1,  # a side that is no multiple of 64 is an error, not padded
    )


def paper_stage(length: int, milestones: tuple[int, int], decay_norms: bool = False) -> Stage:
    """Return steps at 1e-3, 1e-4, 1e-5, with the biases of Caffe's prototxts."""
    return Stage(
        length=length,
        unit="steps",
        optimiser=SGDConfig(
            lr=1e-3, momentum=0.9, weight_decay=5e-4, decay_norms=decay_norms, decay_biases=False, bias_lr=2.0
        ),
        schedule=MultiStepConfig(milestones=milestones, gamma=0.1),
    )
