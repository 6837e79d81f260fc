"""Test-time augmentation by name, and detection on a data set with it."""

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
    """Return the named augmentation, with ``merge`` in place of its own merging if given; None for none."""
    if augment is None:
        if merge is not None:
            raise InputError(f"--merge {merge} merges the detections of several views; choose the views with --augment")
        return None
    if augment not in TEST_TIME:
        raise InputError(f"no augmentation is named {augment!r}; choose one of {', '.join(TEST_TIME)}")
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
    """Detect on all images of a data set with test-time augmentation ``config``.

    ``advance`` is called with the number of images finished.
    """
    check_views(loaded.detector, config)
    evaluation = CocoEvaluation(index)
    # Unprepared images, because every view prepares them in its own way.
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
