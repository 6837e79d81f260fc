"""Detectors, input sizes and lengths of training that are chosen from: literal tables, changed as measurements say.

The order of `DETECTORS` is that of preference. An effort is the images that a run sees, in epochs within limits, and
the sizes of the input that it may have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from boxwright.config.recipe import Recipe
from boxwright.recipes import get_recipe

EffortName = Literal["quick", "standard", "best"]
EFFORTS: tuple[EffortName, ...] = ("quick", "standard", "best")


@dataclass(frozen=True, kw_only=True)
class Known:
    """A recipe to choose from. ``good_for`` follows "it", ``less_for`` says why it is not the first choice."""

    recipe: str
    good_for: str
    less_for: str
    masks: bool = False
    small_objects: bool = False
    """It reads a map of stride 4, on which the smallest objects have cells of their own."""
    dense_classes: bool = True
    """It scores every class at every anchor, so that many classes make it slow and large."""
    multiple: int = 32
    """Height and width of its input are multiples of this."""

    @property
    def base(self) -> Recipe:
        """The recipe as it is shipped."""
        return get_recipe(self.recipe)


DETECTORS: tuple[Known, ...] = (
    Known(
        recipe="mask-rcnn-lite0-fpn",
        good_for="gives masks, and boxes nearly as good as a detector of boxes alone",
        less_for="masks cost time; without them its boxes are those of Faster R-CNN",
        masks=True,
        small_objects=True,
        dense_classes=False,
    ),
    Known(
        recipe="faster-rcnn-lite0-fpn",
        good_for="is the most precise for its training time on a few hundred images",
        less_for="it gives boxes and no masks",
        small_objects=True,
        dense_classes=False,
    ),
    Known(
        recipe="retinanet-lite0",
        good_for="has one stage, and is simple to export",
        less_for="less precise after the same training time; weak below 8 px and with many classes",
    ),
    Known(
        recipe="yolov3-lite0",
        good_for="has few anchors to score and is quick at inference",
        less_for="its boxes are less exact after the same training",
    ),
    Known(
        recipe="refinedet-lite0",
        good_for="refines its boxes twice in one pass",
        less_for="it needs a longer training for the same precision",
        multiple=64,
    ),
)
"""Recipes on ImageNet weights that are installed."""

MANY_CLASSES = 200
"""Classes above which a detector that scores each class at every anchor is not preferred."""
SMALL_SHARE = 0.25
"""Share of the objects that may be smaller than `SMALL_SIDE` in the input."""
SMALL_SIDE = 48.0
"""Side in pixels of the input that the other objects should reach: larger ones gain little from more pixels."""
TINY_SIDE = 12.0
"""Side in pixels of the input below which an object needs a map of stride 4."""
ENLARGED = 1.5
"""Factor by which images may be enlarged."""
PIXEL_TOLERANCE = 1.1
"""Share of the pixels wanted that a canvas may have, to come in whole cells."""
LONGEST_ASPECT = 3.0
"""Greatest ratio of the sides of a canvas."""
FREEZE_AT = 2
"""Last stage of the backbone that keeps its ImageNet weights on a CPU: it is general, and costs the most time."""
FREEZE_BELOW = 2_000
"""Images below which it keeps them."""


@dataclass(frozen=True, kw_only=True)
class Length:
    """Length of training and pixels of the input of an effort."""

    areas: tuple[int, ...]
    """Pixels of the input, ascending."""
    seen: int
    """Images that the run sees, those of all epochs, within the limits below."""
    least: int
    """Least number of epochs: for large sets."""
    most: int
    """Greatest number of epochs: for small sets, which would be learned by heart."""


LENGTHS: dict[Literal["cpu", "gpu"], dict[EffortName, Length]] = {
    "cpu": {
        "quick": Length(areas=(192 * 256,), seen=4_000, least=4, most=20),
        "standard": Length(areas=(192 * 256, 256 * 352, 320 * 448), seen=8_000, least=10, most=60),
        "best": Length(areas=(288 * 384, 384 * 512, 480 * 640), seen=30_000, least=24, most=120),
    },
    "gpu": {
        "quick": Length(areas=(384 * 512,), seen=12_000, least=6, most=40),
        "standard": Length(areas=(384 * 512, 480 * 640), seen=40_000, least=12, most=100),
        "best": Length(areas=(480 * 640, 576 * 768, 672 * 896), seen=120_000, least=36, most=200),
    },
}
ENOUGH = 12
"""Epochs in a budget from which the input stays as large as the objects want. With fewer, a smaller one is tried."""
BATCH = {"cpu": 8, "gpu": 16}
"""Images of a step, as far as memory and the number of images allow."""
LEAST_STEPS = 8
"""Steps that an epoch should have at least, so that a small set is not learned in a handful of updates."""
EPOCHS = (
    *(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24, 26, 28, 30, 33, 36, 40, 44, 48, 52, 56),
    *(60, 66, 72, 80, 88, 96, 100, 110, 120, 135, 150, 175, 200),
)
"""Numbers of epochs that a budget is rounded down to, so that a measurement that differs a little gives the same."""
VALIDATIONS = 10
"""Validations of a run, at least an epoch apart."""
START_SECONDS = 15.0
"""Time of a run beside its steps and validations: reading weights, writing checkpoints and figures."""
MEMORY_SHARE = 0.7
"""Share of the memory that a run may plan for; the rest is for the system, the loader and what fragmentation takes."""
