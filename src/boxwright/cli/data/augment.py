"""The command ``boxwright data augment``."""

from __future__ import annotations

from typing import Annotated

from boxwright.app.requests.data import AugmentRequest
from boxwright.app.requests.fields import Data
from boxwright.cli.common import FLAT, Json, examples, print_json, say

EXAMPLES = examples(
    "boxwright data augment my_data --recipe faster-rcnn-detnet-small-fpn",
    "boxwright data augment my_data --recipe faster-rcnn-detnet-small-fpn --set data.train.+=mixup --output mixup.png",
)


def augment(data: Data, *, request: Annotated[AugmentRequest, FLAT], json: Json = False) -> int:
    """Draw training images as a recipe augments them, beside the images as they are annotated."""
    from boxwright.app.showing.augmented import show_augmented

    sheet = show_augmented(data, request)
    return print_json({"output": str(sheet)}) if json else say(f"wrote {sheet}")
