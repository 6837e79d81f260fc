"""A detector, or a file of detections, against a data set: numbers, tables, plots."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from boxwright.app.augment import named_test_time, run_augmented
from boxwright.app.load import Loaded, load
from boxwright.app.progress import ProgressBar
from boxwright.app.proposals import search
from boxwright.app.requests.inference import SELECTIVE_SEARCH, EvaluateRequest, Metric
from boxwright.checkpoints.checkpoint import check_classes
from boxwright.data.formats.opening import find_source, open_dataset
from boxwright.data.index import DetectionIndex
from boxwright.data.masks.mask_gaps import mask_gap
from boxwright.data.proposals.files import SUFFIX, ProposalsConfig
from boxwright.detectors.contract.augmented import TestTimeConfig
from boxwright.detectors.contract.capabilities import TakesProposals
from boxwright.evaluation.coco import CocoEvaluation, CocoResult
from boxwright.evaluation.columns import DetectionColumns
from boxwright.evaluation.curves import ThresholdCurves, confusion_matrix, threshold_curves
from boxwright.evaluation.plots import plot_confusion, plot_precision_recall, plot_thresholds
from boxwright.evaluation.results_file import evaluate_detections, load_coco_detections
from boxwright.evaluation.voc import VocEvaluation, VocResult, VocRules
from boxwright.io.files import atomic_text
from boxwright.precision import Precision, check_precision
from boxwright.structures import InputError
from boxwright.training.distributed import Processes
from boxwright.training.validation import validate


@dataclass(frozen=True)
class Scored:
    """What came of it: ``result`` in the metric asked for, the detections, and how a threshold acts on them; ``masks``,
    COCO's numbers of the masks where detections and data set have some; ``unscored``: why those found were not.
    """

    result: CocoResult | VocResult
    detections: DetectionColumns
    curves: ThresholdCurves
    masks: CocoResult | None = None
    unscored: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        masks: dict[str, Any] = {} if self.masks is None else {"masks": self.masks.to_dict()}
        if self.unscored is not None:
            masks["masks_unscored"] = self.unscored
        return {**self.result.to_dict(), **masks, "thresholds": self.curves.to_dict()}


def run_detector(
    loaded: Loaded,
    index: DetectionIndex,
    data_name: str,
    batch_size: int | None = None,
    workers: int = 0,
    precision: Precision = "fp32",
    augment: TestTimeConfig | None = None,
    proposals: Path | None = None,
) -> CocoEvaluation:
    """All detections of a checkpoint's detector on a data set, as its recipe evaluates, or with ``augment``.

    ``proposals``: the file of them, where it is not the recipe's.
    With masks where the detector gives them and every object of the data set has one; with ``augment`` never. Raises
    InputError where the classes differ, or the device has not got the arithmetic.
    """
    check_precision(loaded.device, precision)
    check_classes(index.classes, loaded.checkpoint.classes, data_name, str(loaded.path))
    recipe = loaded.checkpoint.recipe.data
    data = replace(recipe, eval_batch_size=batch_size or recipe.eval_batch_size, workers=workers)
    if proposals is not None:
        data = replace(data, proposals=replace(recipe.proposals or ProposalsConfig(), val=str(proposals)))
    done = 0
    with ProgressBar("evaluating", len(index)) as bar:

        def advance(now: int, total: int) -> None:
            nonlocal done
            bar.advance(now - done)
            done = now

        if augment is not None:
            return run_augmented(loaded, index, augment, data.eval_batch_size, workers, precision, bar.advance)
        where = Processes(0, 1, loaded.device)
        found = validate(loaded.detector, index, data, where, precision, progress=advance)
        return found.evaluation if found.masks is None else found.masks


def score(index: DetectionIndex, detections: DetectionColumns, metric: Metric = "coco") -> Scored:
    """Score detections: COCO's numbers, or VOC's mean AP (``voc07``: 11 points; ``voc12``: area, since 2010)."""
    result: CocoResult | VocResult
    masks = None
    if metric == "coco":
        result = evaluate_detections(index, detections)
        if detections.masks is not None and _all_have_masks(index):
            masks = evaluate_detections(index, detections, "segm")
    else:
        voc = VocEvaluation(index, VocRules(average="11-point" if metric == "voc07" else "area"))
        voc.extend(detections)
        result = voc.compute()
    return Scored(result, detections, threshold_curves(index, detections), masks)


def _all_have_masks(index: DetectionIndex) -> bool:
    return index.has_masks and mask_gap(index) is None


def write_plots(folder: Path, index: DetectionIndex, scored: Scored) -> list[Path]:
    """Precision-recall (COCO only), threshold and confusion plots as PNG; the confusion at the advised threshold."""
    folder.mkdir(parents=True, exist_ok=True)
    best = scored.curves.overall.best_f1()
    matrix = confusion_matrix(index, scored.detections, score=best.threshold if best else 0.5)
    plots = [
        plot_thresholds(scored.curves, folder / "thresholds.png"),
        plot_confusion(matrix, folder / "confusion.png"),
    ]
    if isinstance(scored.result, CocoResult):
        plots.insert(0, plot_precision_recall(scored.result, folder / "precision_recall.png"))
    return plots


def save_detections(path: Path, index: DetectionIndex, found: DetectionColumns) -> None:
    """Write a COCO results file."""
    rows = [
        {
            "image_id": int(found.image_ids[i]),
            "category_id": index.classes.ids[int(found.labels[i])],
            "bbox": [round(float(v), 4) for v in found.boxes[i]],
            "score": float(found.scores[i]),
            **({} if found.masks is None else {"segmentation": found.masks[i]}),
        }
        for i in range(len(found))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_text(path) as file:
        json.dump(rows, file)


def evaluate_request(checkpoint: Path | str | None, request: EvaluateRequest) -> tuple[DetectionIndex, Scored]:
    """What ``boxwright evaluate`` does. Raises ``InputError`` for all that does not fit together."""
    if (checkpoint is None) == (request.detections is None):
        raise InputError("give a checkpoint, or a results file with --detections; one of the two")
    augment = named_test_time(request.augment, request.merge)
    if augment is not None and request.detections is not None:
        raise InputError("--augment changes how a checkpoint looks at images; a results file has none to look at")
    if request.proposals is not None and (augment is not None or request.detections is not None):
        raise InputError("--proposals is for a checkpoint without --augment, which searches in every image anew")
    if request.sets and request.detections is not None:
        raise InputError("--set changes how a checkpoint looks at images; a results file has none to look at")
    data, split = request.data, request.split
    index = open_dataset(data, split) if split is not None else default_split(data)
    if request.detections is not None:
        gives_masks = False
        found = load_coco_detections(request.detections, index, None if _all_have_masks(index) else "bbox")
    else:
        assert checkpoint is not None
        loaded = load(checkpoint, request.device, request.sets)
        with TemporaryDirectory() as folder:
            proposals = _proposals(request, loaded, index, Path(folder))
            evaluation = run_detector(
                loaded, index, str(data), request.batch_size, request.workers, request.precision, augment, proposals
            )
        gives_masks = loaded.detector.gives_masks and augment is None and request.metric == "coco"
        found = evaluation.detections()
    scored = score(index, found, request.metric)
    if gives_masks:
        scored = replace(scored, unscored=mask_gap(index))
    if request.save is not None:
        save_detections(request.save, index, found)
    if request.plots is not None:
        write_plots(request.plots, index, scored)
    return index, scored


def _proposals(request: EvaluateRequest, loaded: Loaded, index: DetectionIndex, folder: Path) -> Path | None:
    """The file of proposals that the request asks for, made in ``folder`` if need be; None for the recipe's."""
    if request.proposals is None:
        return None
    if not isinstance(loaded.detector, TakesProposals):
        raise InputError(f"--proposals: a {loaded.detector.config.kind} finds its own; leave the option out")
    if request.proposals != SELECTIVE_SEARCH:
        return Path(request.proposals)
    most = loaded.detector.preparation.most_proposals
    return search(index, most, workers=max(1, request.workers)).save(folder / f"proposals{SUFFIX}")


def default_split(data: Path) -> DetectionIndex:
    """``val``, else ``test``, else the only split there is."""
    names = find_source(data).splits
    chosen = next((name for name in ("val", "test") if name in names), None)
    if chosen is None and len(names) > 1:
        raise InputError(f"{data}: has neither val nor test; name one of {', '.join(names)} with --split")
    return open_dataset(data, chosen)
