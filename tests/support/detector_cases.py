"""Every detector, small enough to test."""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Case:
    """A detector small enough to test.

    ``size``: height and width of its inputs, at least 128 x 160 if ``any_size``. ``spread``: ends of the names of the
    parameters that must be drawn wide so that untrained scores differ. ``batch_normalised``: its losses are divided by
    a count over the whole batch (SSD, RetinaNet), so that they are no means over images.
    """

    config: DetectorConfig
    size: tuple[int, int] = (128, 160)
    any_size: bool = True
    spread: tuple[str, ...] = ("scores.weight", "deltas.weight", "objectness.weight")
    batch_normalised: bool = False


YOLO_HEADS = ("output.weight",)
REFINEDET_HEADS = tuple(f"{module}.convs.{level}.weight" for module in ("arm", "odm") for level in range(4))
SSD_HEADS = tuple(f"heads.{i}.{layer}.weight" for i in range(4) for layer in ("predict", "deltas.1", "scores.1"))

CASES: dict[str, Case] = {
    "faster_rcnn": Case(small_faster_rcnn()),
    "mask_rcnn": Case(
        SMALL_MASK_RCNN,
        spread=("scores.weight", "deltas.weight", "objectness.weight", "predict.weight"),
        batch_normalised=True,  # its mask loss is
    ),
    **{name: Case(config) for name, config in (SMALL_C4 | SMALL_RFCN | SMALL_RCNN).items()},
    **{name: Case(config, batch_normalised=True) for name, config in (SMALL_FAST | SMALL_RETINANET).items()},
    "yolov1": Case(SMALL_YOLOV1, size=(160, 160), any_size=False, spread=YOLO_HEADS),
    "yolov1_modern": Case(SMALL_YOLOV1_MODERN, size=(160, 160), any_size=False, spread=YOLO_HEADS),
    "yolov2": Case(SMALL_YOLOV2, spread=YOLO_HEADS),
    "yolov2_modern": Case(SMALL_YOLOV2_MODERN, spread=YOLO_HEADS),
    **{name: Case(config, spread=("predict.weight",)) for name, config in SMALL_YOLOV3.items()},
    **{
        name: Case(config, size=(128, 192), spread=REFINEDET_HEADS, batch_normalised=True)
        for name, config in SMALL_REFINEDET.items()
    },
    **{
        name: Case(config, any_size=False, spread=SSD_HEADS, batch_normalised=True)
        for name, config in SMALL_SSD.items()
    },
}
