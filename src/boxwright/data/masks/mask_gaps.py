"""Find objects without a mask in a data set with masks, which cannot be used for training or scoring masks."""

from __future__ import annotations

import numpy as np

from boxwright.data.index import DetectionIndex


def mask_gap(index: DetectionIndex) -> str | None:
    """Describe the objects without a mask in a data set with masks; None if all or none have one.

    Crowd regions count: masks are scored against theirs too.
    """
    bare = ~index.with_mask
    if not index.has_masks or not bare.any():
        return None
    row = int(bare.argmax())
    image = int(np.searchsorted(index.box_ends, row, side="right")) - 1
    return (
        f"{int(bare.sum())} of {index.num_boxes} objects have no mask, such as annotation id "
        f"{index.annotation_ids[row]} of {index.relative_path(image)}"
    )
