"""Configuration of the data that a detector is trained and evaluated on."""

from __future__ import annotations

from typing import Literal

from boxwright.data.loading.sampling import SamplingConfig
from boxwright.data.proposals.files import ProposalsConfig
from boxwright.data.transforms.configs import MIXING, TransformConfig
from boxwright.data.transforms.multi_scale import MultiScaleConfig
from boxwright.fields import Count, CountOrZero, NotNegative, config
from boxwright.structures import InputError


@config
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
    sampling: SamplingConfig = SamplingConfig()
    """Frequency of images in an epoch: rare classes, and images without objects."""
    close_mosaic: NotNegative = 0.0
    """Epochs at the end of training without ``mosaic``, ``mixup`` and ``copy_paste`` (YOLOX §2.1), so that it ends on
    images as they are at inference."""
    multi_scale: MultiScaleConfig | None = None
    """Train at several input sizes, which replace those of ``train`` and ``fixed_size``."""
    proposals: ProposalsConfig | None = None
    """Files of proposals, for a detector that does not propose regions itself."""

    def __post_init__(self) -> None:
        if self.shapes == ():
            raise InputError("shapes is empty; give one or more (height, width), or leave it out")
        if self.fixed_size is not None and self.shapes is not None:
            raise InputError("fixed_size and shapes are both given; give one of them")
        if self.close_mosaic and not any(isinstance(transform, MIXING) for transform in self.train):
            raise InputError(
                f"close_mosaic = {self.close_mosaic:g}, but data.train has no mosaic, mixup or copy_paste to leave "
                "out; set it to 0, or add one"
            )
        if self.drop_empty and self.sampling.background:
            raise InputError(
                f"sampling.background = {self.sampling.background:g} asks for images without objects, and drop_empty "
                "leaves them out; set one of them"
            )
        if self.multi_scale is not None and self.shapes is not None:
            raise InputError("shapes and multi_scale are both given; multi_scale decides the sizes, leave shapes out")
