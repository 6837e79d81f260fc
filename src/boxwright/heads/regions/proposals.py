"""Region proposals: the boxes that a second stage classifies and refines.

Symbols: B images, R proposals an image.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from boxwright.geometry.boxes import clip_boxes
from boxwright.structures import Images, InputError


class Proposals(NamedTuple):
    """``boxes`` ``[B, R, 4]``, ``scores`` ``[B, R]`` (logits, descending) and ``valid`` bool ``[B, R]``.

    They carry no gradient. Rows where ``valid`` is false are padding.
    """

    boxes: Tensor
    scores: Tensor
    valid: Tensor


def given_proposals(images: Images) -> Proposals:
    """Return ``images.proposals`` clipped to the images; boxes without area are not valid.

    Raises InputError if the images carry no proposals.
    """
    if images.proposals is None:
        raise InputError(
            "this detector finds no proposals of its own and the images came without; make them with `boxwright "
            "proposals` and name the file (data.proposals), or set Images.proposals"
        )
    given = images.proposals.float()
    boxes = clip_boxes(given if given.shape[1] else given.new_zeros(len(given), 1, 4), images.sizes)
    return Proposals(boxes, boxes.new_zeros(boxes.shape[:2]), (boxes[..., 2:] > boxes[..., :2]).all(-1))
