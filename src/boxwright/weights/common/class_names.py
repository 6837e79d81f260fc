"""Class names of COCO and VOC in the order of published checkpoints.

COCO uses 80 of the ids 1..90. Heads with 91 columns are indexed by these ids. VOC's names are in alphabetical order.
"""

from __future__ import annotations

from boxwright.structures import Classes

COCO = Classes(
    names=(
        *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
        *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
        *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
        *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
        *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
        *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
        *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard"),
        *("cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors"),
        *("teddy bear", "hair drier", "toothbrush"),
    ),
    ids=(
        *range(1, 12),  # person to fire hydrant; 12 was never given
        *range(13, 26),  # stop sign to giraffe
        *(27, 28, 31, 32, 33),
        *range(34, 45),  # frisbee to bottle
        *range(46, 66),  # wine glass to bed
        *(67, 70),
        *range(72, 83),  # tv to refrigerator
        *range(84, 91),  # book to toothbrush
    ),
)

VOC = Classes.from_names(
    (
        *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
        *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
    )
)


def default_classes(count: int) -> Classes:
    """Return default names for ``count`` classes: COCO's for 80, VOC's for 20, else ``class_0``, ``class_1``, ..."""
    known = {len(COCO): COCO, len(VOC): VOC}
    return known.get(count) or Classes.from_names([f"class_{number}" for number in range(count)])
