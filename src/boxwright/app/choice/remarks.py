"""Remarks on data that limit the result, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator

from boxwright.app.choice import table
from boxwright.app.choice.candidate import Candidate, Task
from boxwright.app.choice.sides import object_pixels, shape


def remarks(task: Task, chosen: Candidate) -> Iterator[str]:
    """Return what in the data limits the result, each with its remedy."""
    data = task.data
    if data.images < 50:
        yield f"only {data.images} images to train on: expect a first impression, and annotate more"
    if data.rare_classes:
        yield (
            f"{data.rare_classes:,} of {data.classes:,} classes have fewer than 10 boxes, too few to learn; annotate "
            "more of them, or merge or drop them with `boxwright data filter`"
        )
    if data.mask_gap is not None:
        yield f"{data.mask_gap}, so boxes are trained and no masks; complete the masks to train them too"
    small = object_pixels(task.index, chosen.size, 0.1)
    long = max(chosen.size)
    if small < table.TINY_SIDE or chosen.anchors.too_small > 0.1:
        yield (
            f"a tenth of the objects is below {small:.0f} px at {shape(chosen.size)}, too small to find well"
            + (
                f" ({100 * chosen.anchors.too_small:.0f} % are smaller than the smallest anchor fits)"
                if chosen.anchors.too_small > 0.02
                else ""
            )
            + "; cut the images with `boxwright data tile`, or give a larger --size"
        )
    if data.long_sides[-2] >= 8 * long:
        times = data.long_sides[-2] / long
        yield (
            f"images of {data.long_sides[-2]:,} px are shrunk {times:.0f} times and are slow to load; cut them with "
            "`boxwright data tile`"
        )
    if data.long_sides[2] < long / 2:
        size = shape(chosen.size)
        yield f"images of {data.long_sides[2]} px are enlarged to {size}, which shows no more than they have"
