"""Groups of constants that the region proposal network and the second stages share."""

from __future__ import annotations

import math
from typing import Literal

from boxwright.anchors.coder import BoxCoder
from boxwright.fields import Finite, NotNegative, Positive, config
from boxwright.heads.losses import BoxLoss


@config
class RegionLossConfig:
    """Classification and box loss of the sampled boxes (Fast R-CNN §2.3, Faster R-CNN eq. 1)."""

    box: BoxLoss = "smooth_l1"
    """Box loss: smooth L1 on the deltas, or an IoU loss on the decoded boxes."""
    beta: NotNegative = 1.0
    """Difference at which smooth L1 turns linear: 1 in Fast R-CNN and Detectron, 1/9 in torchvision, 0 (plain L1) in
    detectron2."""
    box_weight: NotNegative = 1.0
    """Weight of the box loss, lambda."""
    normalizer: Literal["fixed", "sampled"] = "fixed"
    """Divide by ``samples`` x images ("fixed", detectron2) or by the boxes really sampled ("sampled", torchvision,
    Caffe). Both count background."""


@config
class CoderConfig:
    """Box deltas and the convention of box corners (Faster R-CNN eq. 2)."""

    weights: tuple[Positive, Positive, Positive, Positive] = (10.0, 10.0, 5.0, 5.0)
    """Factors of dx, dy, dw, dh: 1 / standard deviation of the targets."""
    clamp: Finite | None = math.log(1000.0 / 16)
    """Upper bound of dw and dh before the exponential; None for none, as in py-faster-rcnn."""
    offset: NotNegative = 0.0
    """1 if boxes include their last pixel (Caffe), else 0."""
    decoded_end: Finite | None = None
    """Subtracted from the far corner of a decoded box; None for ``offset``. 0 in py-faster-rcnn."""

    def build(self) -> BoxCoder:
        """Build the coder of these constants."""
        return BoxCoder(weights=self.weights, clamp=self.clamp, offset=self.offset, decoded_end=self.decoded_end)
