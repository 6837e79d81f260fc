"""Configuration of the data that a detector is trained and evaluated on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from boxwright.data.proposals.files import ProposalsConfig
from boxwright.data.transforms.configs import TransformConfig
from boxwright.data.transforms.multi_scale import MultiScaleConfig

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Preparation, batching and sampling of images. Sizes are (height, width) in pixels.

    For a compiled model set both ``fixed_size`` and ``max_boxes``, so that all batches have one shape. With neither
    set, a batch is as small as its contents allow.
    """

    train: tuple[TransformConfig, ...]
    """Transforms of a training image, in order."""
    eval: tuple[TransformConfig, ...]
    """Transforms of an image in validation and inference, in order. Each must be invertible."""
    batch_size: Count = 16
    """Images per optimiser step, over all processes and accumulated micro-batches."""
    eval_batch_size: Count = 8
    """Images per batch of one process in validation."""
    workers: CountOrZero = 4
    """Loader processes per training process; 0 loads in the training process itself."""
    group_by_aspect: bool = True
    """Batch portrait and landscape images separately, which saves padding."""
    pad_multiple: Count = 32
    """Padded sides are multiples of this many pixels."""
    fixed_size: tuple[Count, Count] | None = None
    """Pad every batch to this size."""
    shapes: tuple[tuple[Count, Count], ...] | None = None
    """Pad each batch to the smallest of these sizes that holds all its images."""
    max_boxes: Count | None = None
    """Rows that training targets are padded to; None pads to the most boxes of an image in the batch."""
    too_many: Literal["error", "keep_largest"] = "error"
    """Treatment of an image with more than ``max_boxes`` boxes."""
    masks: bool = False
    """Load instance masks."""
    drop_empty: bool = False
    """Train only on images that have an object other than a crowd."""
    repeat_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """Repeat images of classes that are in a smaller fraction of the images (LVIS §A.1)."""
    multi_scale: MultiScaleConfig | None = None
    """Train at several input sizes, which replace those of ``train`` and ``fixed_size``."""
    proposals: ProposalsConfig | None = None
    """Files of proposals, for a detector that does not propose regions itself."""
