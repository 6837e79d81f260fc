"""Objects without a mask among others that have one: they are learnt as filling their boxes, and cannot be scored."""

from __future__ import annotations

import numpy as np

from boxwright.data.index import DetectionIndex


def mask_gap(index: DetectionIndex) -> str | None:
    """How many objects of a data set with masks have none, and where the first is; None where all or none have one.

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
