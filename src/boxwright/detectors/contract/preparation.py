"""Preparation of an image before the network sees it."""

from __future__ import annotations

from boxwright.data.config import DataConfig
from boxwright.data.transforms.configs import TransformConfig
from boxwright.data.transforms.resizing import ResizeConfig
from boxwright.fields import Count, config


@config
class Preparation:
    """Preparation of images for a detector in inference. A detector has one for its life, given when it is built."""

    transforms: tuple[TransformConfig, ...] = (ResizeConfig(),)
    """Transforms of an image, in order."""
    pad_multiple: Count = 32
    """Sides of a padded batch are multiples of this many pixels."""
    most_proposals: Count = 2000
    """Proposals of an image to find by selective search, for a detector that is given them (Fast R-CNN §4.1)."""


def preparation_of(data: DataConfig) -> Preparation:
    """Return the preparation that a recipe's ``data`` states for validation and inference."""
    most = Preparation.most_proposals if data.proposals is None else data.proposals.most
    return Preparation(transforms=data.eval, pad_multiple=data.pad_multiple, most_proposals=most)
