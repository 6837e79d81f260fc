"""A small configuration of every detector, for the tests of the contract."""

from dataclasses import dataclass, replace
from typing import Literal

from boxwright.detectors.build import DetectorConfig
from tests.support.dense_cases import SMALL_REFINEDET, SMALL_RETINANET, SMALL_SSD
from tests.support.two_stage_cases import (
    SMALL_C4,
    SMALL_FAST,
    SMALL_MASK_RCNN,
    SMALL_RCNN,
    SMALL_RFCN,
    small_faster_rcnn,
)
from tests.support.yolo_cases import SMALL_YOLOV1, SMALL_YOLOV1_MODERN, SMALL_YOLOV2, SMALL_YOLOV2_MODERN, SMALL_YOLOV3

Normaliser = Literal["image", "batch", "average"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A detector small enough to test."""

    config: DetectorConfig
    size: tuple[int, int] = (128, 160)
    """Height and width of its inputs, at least 128 x 160 if ``any_size``."""
    any_size: bool = True
    """False for a detector whose input has one size."""
    spread: tuple[str, ...] = ("scores.weight", "deltas.weight", "objectness.weight")
    """Ends of the names of the parameters that are drawn wide, so that untrained scores differ."""
    normaliser: Normaliser = "image"
    """Divisor of a loss: a count of its image, a count over the batch, or a moving average of such counts."""


YOLO_HEADS = ("output.weight",)
REFINEDET_HEADS = tuple(f"{module}.convs.{level}.weight" for module in ("arm", "odm") for level in range(4))
SSD_HEADS = tuple(f"heads.{i}.{layer}.weight" for i in range(4) for layer in ("predict", "deltas.1", "scores.1"))

CASES: dict[str, Case] = {
    "faster_rcnn": Case(config=small_faster_rcnn()),
    "mask_rcnn": Case(
        config=SMALL_MASK_RCNN,
        spread=("scores.weight", "deltas.weight", "objectness.weight", "predict.weight"),
        normaliser="batch",  # of its mask loss
    ),
    **{name: Case(config=config) for name, config in (SMALL_C4 | SMALL_RFCN | SMALL_RCNN).items()},
    **{name: Case(config=config, normaliser="batch") for name, config in (SMALL_FAST | SMALL_RETINANET).items()},
    "yolov1": Case(config=SMALL_YOLOV1, size=(160, 160), any_size=False, spread=YOLO_HEADS),
    "yolov1_modern": Case(config=SMALL_YOLOV1_MODERN, size=(160, 160), any_size=False, spread=YOLO_HEADS),
    "yolov2": Case(config=SMALL_YOLOV2, spread=YOLO_HEADS),
    "yolov2_modern": Case(config=SMALL_YOLOV2_MODERN, spread=YOLO_HEADS),
    **{name: Case(config=config, spread=("predict.weight",)) for name, config in SMALL_YOLOV3.items()},
    **{
        name: Case(config=config, size=(128, 192), spread=REFINEDET_HEADS, normaliser="batch")
        for name, config in SMALL_REFINEDET.items()
    },
    **{
        name: Case(config=config, any_size=False, spread=SSD_HEADS, normaliser="batch")
        for name, config in SMALL_SSD.items()
    },
}
CASES["retinanet_average"] = replace(CASES["retinanet_average"], normaliser="average")
