"""Validation of a detector: COCO metrics and losses on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from boxwright.checkpoints.checkpoint import check_classes
from boxwright.data.config import DataConfig
from boxwright.data.index import DetectionIndex
from boxwright.data.loading.loader import Batch, EvalLoader
from boxwright.data.masks.mask_gaps import mask_gap
from boxwright.data.proposals.files import ProposalsConfig
from boxwright.data.transforms.configs import TransformConfig
from boxwright.detectors.contract.detect import unbatched
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.inference import evaluating
from boxwright.evaluation.coco import CocoEvaluation, CocoResult
from boxwright.evaluation.engine import IouType
from boxwright.geometry.paste import PasteConfig
from boxwright.precision import Precision, autocast
from boxwright.structures import DetectionBatch, InputError
from boxwright.training.distributed import Processes
from boxwright.training.random_state import image_seeds
from boxwright.training.tasks.best_metric import METRICS, Metric


@dataclass(frozen=True)
class Validation:
    """Result of a validation.

    ``evaluation`` holds the detections in pixels of the original images, ``masks`` the same with their masks; None if
    the detector gives no masks or an object of the data set has none. ``losses`` are means over images.
    """

    evaluation: CocoEvaluation
    losses: dict[str, float]
    masks: CocoEvaluation | None = None

    @property
    def loss(self) -> float | None:
        """Sum of the terms, None if they were not computed."""
        return sum(self.losses.values()) if self.losses else None

    def stats(self, metric: Metric = METRICS["AP"]) -> dict[str, float]:
        """Return the COCO metrics of the boxes, and of the masks, if any, with ``mask_`` before their names.

        The AP of a class is among them if it is the ``metric`` of the run.
        """
        masks = {} if self.masks is None else self.masks.compute().stats
        boxes = self.evaluation.compute()
        chosen = [(metric.key, row.AP) for row in boxes.per_class if row.name == metric.of_class]
        return {**boxes.stats, **{f"mask_{name}": value for name, value in masks.items()}, **dict(chosen)}


def evaluate_detector(
    model: Detector,
    index: DetectionIndex,
    transforms: Sequence[TransformConfig] | None = None,
    *,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    workers: int = 0,
    proposals: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CocoResult:
    """Compute the COCO metrics of ``model`` on ``index``; ``transforms`` default to the model's own.

    ``proposals``: their file, for a detector that takes them as input. ``progress`` is called with the number of images
    done and of all. Raises InputError if classes differ or there are no images.
    """
    check_classes(index.classes, model.classes, f"{index.root}", "the detector", "the detector")
    most = model.preparation.most_proposals
    given = None if proposals is None else ProposalsConfig(val=str(proposals), most=most)
    data = DataConfig(
        train=(),
        eval=tuple(model.preparation.transforms if transforms is None else transforms),
        eval_batch_size=batch_size,
        workers=workers,
        pad_multiple=model.preparation.pad_multiple,
        proposals=given,
    )
    alone = Processes(0, 1, torch.device(device))
    return validate(model.to(alone.device), index, data, alone, precision, progress=progress).evaluation.compute()


def validate(
    model: Detector,
    index: DetectionIndex,
    data: DataConfig,
    processes: Processes,
    precision: Precision = "fp32",
    *,
    losses: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Validation:
    """Evaluate ``model`` on ``index``. The processes share the images, and each gets the whole result."""
    if len(index) == 0:
        raise InputError(f"{index.root}: the data set has no image to evaluate; check the path and the split")
    loader = EvalLoader(
        index,
        data,
        rank=processes.rank,
        world=processes.world,
        masks=losses and data.masks,
        pin_memory=processes.device.type == "cuda",
    )
    evaluation = CocoEvaluation(index)
    masks = CocoEvaluation(index, "segm") if scores_masks(model, index) else None
    sums: dict[str, Tensor] = {}
    done = 0
    try:
        with validation_mode(model):
            for batch in loader:
                found, terms = _run(model, batch, processes, precision, losses)
                collect(evaluation, batch, found, masks, model.paste)
                count = len(batch.info.indexes)
                for name, value in terms.items():
                    sums[name] = sums.get(name, torch.zeros_like(value)) + value * count
                done += count
                if progress is not None:
                    progress(done, len(index))
    finally:
        loader.close()
    return Validation(
        _joined(evaluation, index, processes),
        _mean_losses(sums, len(index), processes),
        None if masks is None else _joined(masks, index, processes, "segm"),
    )


def scores_masks(model: Detector, index: DetectionIndex) -> bool:
    """Return True if ``model`` gives masks and every object of ``index`` has one to score them against."""
    return model.gives_masks and index.has_masks and mask_gap(index) is None


def collect(
    evaluation: CocoEvaluation,
    batch: Batch,
    found: DetectionBatch,
    masks: CocoEvaluation | None = None,
    paste: PasteConfig | None = None,
) -> None:
    """Add the detections of a batch to ``evaluation``, and with pasted masks to ``masks``.

    Boxes are in pixels of the original images and clipped to them; empty ones are dropped.
    """
    results = unbatched(found, batch.info.to_original, batch.info.original_sizes)
    sizes = batch.info.original_sizes.tolist()
    for one, image_id, (height, width) in zip(results, batch.info.image_ids.tolist(), sizes, strict=True):
        evaluation.update(image_id, *one[:3])
        if masks is not None and (pasted := one.pasted((height, width), paste)) is not None:
            masks.update(image_id, *one[:3], pasted.run_lengths())


@torch.no_grad()
def _run(
    model: Detector, batch: Batch, processes: Processes, precision: Precision, losses: bool
) -> tuple[DetectionBatch, dict[str, Tensor]]:
    images = batch.images.to(processes.device, non_blocking=True)
    with autocast(processes.device, precision):
        found = model(images)
        if not losses:
            return found, {}
        # The same random samples at each validation, so that losses can be compared.
        seeds = torch.cat([image_seeds(0, 0, 1, int(i), 1) for i in batch.info.indexes])
        terms = model(
            images._replace(seeds=seeds.to(processes.device)), batch.targets.to(processes.device, non_blocking=True)
        )
    return found, {name: value.double() for name, value in terms.items()}


@contextmanager
def validation_mode(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into eval mode, and restore its modes and torch's random state at the end."""
    devices = [p.device for p in model.parameters() if p.device.type == "cuda"][:1]
    with torch.random.fork_rng(devices=devices), evaluating(model):
        yield


def _joined(
    evaluation: CocoEvaluation, index: DetectionIndex, processes: Processes, iou_type: IouType = "bbox"
) -> CocoEvaluation:
    if processes.world == 1:
        return evaluation
    whole = CocoEvaluation(index, iou_type)
    for detections, seen in processes.gather((evaluation.detections(), evaluation.seen)):
        whole.extend(detections, seen)
    return whole


def _mean_losses(sums: dict[str, Tensor], images: int, processes: Processes) -> dict[str, float]:
    shares = processes.gather({name: float(value) for name, value in sums.items()})
    return {name: sum(share.get(name, 0.0) for share in shares) / images for name in shares[0]}
