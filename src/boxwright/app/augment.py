"""Test-time augmentation as the commands name it, and a detector's run over a data set with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from boxwright.app.load import Loaded
from boxwright.app.requests.fields import AugmentName, MergeName
from boxwright.data.config import DataConfig
from boxwright.data.index import DetectionIndex
from boxwright.data.loading.loader import Batch, EvalLoader
from boxwright.detectors.contract.augmented import TEST_TIME, TestTimeConfig, check_views, detect_augmented
from boxwright.evaluation.coco import CocoEvaluation
from boxwright.precision import Precision, autocast
from boxwright.structures import InputError


def named_test_time(augment: AugmentName | None, merge: MergeName | None = None) -> TestTimeConfig | None:
    """The augmentation called ``augment``, its detections merged by ``merge`` where given; None for none."""
    if augment is None:
        if merge is not None:
            raise InputError(f"--merge {merge} merges what several views find; say which views with --augment")
        return None
    if augment not in TEST_TIME:
        raise InputError(f"there is no augmentation {augment!r}; there are {', '.join(TEST_TIME)}")
    config = TEST_TIME[augment]
    return config if merge is None else replace(config, merge=merge)


def run_augmented(
    loaded: Loaded,
    index: DetectionIndex,
    config: TestTimeConfig,
    batch_size: int,
    workers: int = 0,
    precision: Precision = "fp32",
    advance: Callable[[int], None] = lambda count: None,
) -> CocoEvaluation:
    """All detections on a data set, each image looked at as ``config`` says; ``advance`` is told of images done."""
    check_views(loaded.detector, config)
    evaluation = CocoEvaluation(index)
    # Images as they are: every view prepares them in its own way.
    data = DataConfig(train=(), eval=(), eval_batch_size=batch_size, workers=workers, pad_multiple=1)
    loader = EvalLoader(index, data)
    try:
        for batch in loader:
            with autocast(loaded.device, precision):
                found = detect_augmented(loaded.detector, _arrays(batch), config)
            for image_id, one in zip(batch.info.image_ids.tolist(), found, strict=True):
                evaluation.update(image_id, one.boxes, one.scores, one.labels)
            advance(len(found))
    finally:
        loader.close()
    return evaluation


def _arrays(batch: Batch) -> Sequence[np.ndarray]:
    sizes = batch.images.sizes.tolist()
    images = zip(batch.images.pixels, sizes, strict=True)
    return [pixels[:, :height, :width].permute(1, 2, 0).numpy() for pixels, (height, width) in images]
