"""Evaluate a detector or a file of detections on a data set: metrics, tables, plots, report."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from boxwright.app.augment import named_test_time, run_augmented
from boxwright.app.choice.holdout import FILE as DIVISION
from boxwright.app.choice.holdout import divided_split, held_back_of, run_folder_of
from boxwright.app.load import Loaded, load
from boxwright.app.progress import ProgressBar
from boxwright.app.proposals import search
from boxwright.app.requests.inference import SELECTIVE_SEARCH, EvaluateRequest, Metric
from boxwright.app.splits import choose_split
from boxwright.checkpoints.checkpoint import check_classes
from boxwright.data.formats.opening import Source, find_source, open_dataset
from boxwright.data.formats.problems import DatasetWarning
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
from boxwright.io.environment import versions
from boxwright.io.files import atomic_text, check_writable
from boxwright.precision import Precision, check_precision
from boxwright.report.examples import choose_examples
from boxwright.report.report import Report, write_report
from boxwright.structures import InputError
from boxwright.training.distributed import Processes
from boxwright.training.validation import validate


@dataclass(frozen=True)
class Scored:
    """Result of an evaluation."""

    result: CocoResult | VocResult
    """Metrics of the boxes, COCO or VOC as requested."""
    detections: DetectionColumns
    """All detections that were evaluated."""
    curves: ThresholdCurves
    """Precision, recall and F1 against the score threshold."""
    masks: CocoResult | None = None
    """COCO metrics of the masks, where both the detections and the data set have masks."""
    unscored: str | None = None
    """Reason why the masks of the detections could not be evaluated."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
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
    """Run a detector over a data set, as its recipe evaluates or with test-time augmentation ``augment``.

    ``proposals``: proposal file to use instead of the recipe's. Masks are collected if the detector predicts them and
    every object of the data set has one, but never with ``augment``. Raises InputError if the classes of detector and
    data set differ, or if the device does not support ``precision``.
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
    """Evaluate detections with the COCO metrics or the VOC mean AP (``voc07``: 11-point; ``voc12``: area)."""
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
    """Write plots as PNG: precision-recall (COCO only), score thresholds, confusion at the recommended threshold."""
    folder.mkdir(parents=True, exist_ok=True)
    matrix = confusion_matrix(index, scored.detections, score=recommended_threshold(scored.curves))
    plots = [
        plot_thresholds(scored.curves, folder / "thresholds.png"),
        plot_confusion(matrix, folder / "confusion.png"),
    ]
    if isinstance(scored.result, CocoResult):
        plots.insert(0, plot_precision_recall(scored.result, folder / "precision_recall.png"))
    return plots


def recommended_threshold(curves: ThresholdCurves) -> float:
    """Return the score threshold with the best F1 over all classes, 0.5 if no detection is correct."""
    best = curves.overall.best_f1()
    return best.threshold if best else 0.5


def write_evaluation_report(path: Path, title: str, data: Path, index: DetectionIndex, scored: Scored) -> Path:
    """Write the result as a self-contained HTML page. Examples are shown at the recommended threshold."""
    threshold = recommended_threshold(scored.curves)
    report = Report(
        title=title,
        lead=f"Evaluated on {data}, split {index.name}: {len(index)} images, {len(index.classes)} classes.",
        result=scored.result,
        masks=scored.masks,
        curves=scored.curves,
        facts=[(f"{len(scored.detections):,}", "detections"), (f"{threshold:.2f}", "score threshold of best F1")],
        examples=choose_examples(index, scored.detections, threshold),
        threshold=threshold,
        confusion=confusion_matrix(index, scored.detections, score=threshold),
        footer=" · ".join(f"{name} {version}" for name, version in versions().items()),
    )
    return write_report(path, report)


def save_detections(path: Path, index: DetectionIndex, found: DetectionColumns) -> None:
    """Write the detections as a COCO results file."""
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


def images_file(saved: Path) -> Path:
    """Return the path of the file that names the images behind the ids of a saved results file."""
    return saved.with_name(f"{saved.stem}.images.json")


def explain_image_ids(path: Path, index: DetectionIndex, source: Source, split: str) -> str:
    """Return a sentence on the image ids of the results file ``path``, and write `images_file` where it takes one.

    ``split``: that of the data set which ``index`` is, or is a part of. A COCO data set has its own ids. Those of other
    formats count the images of the split.
    """
    if isinstance(source.layout, dict):
        return f"its image ids are those of {source.layout[split]}"
    categories = [{"id": i, "name": n} for i, n in zip(index.classes.ids, index.classes.names, strict=True)]
    images = [
        {"id": index.image_id(i), "file_name": index.relative_path(i), "path": str(index.path(i))}
        | dict(zip(("height", "width"), index.size(i), strict=True))
        for i in range(len(index))
    ]
    target = images_file(path)
    with atomic_text(target) as file:
        json.dump({"images": images, "categories": categories}, file, indent=1)
    return f"its image ids count the images of {index.name} from {index.image_id(0)}; {target} has the file of each"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluated data set and its scores.

    ``image_ids``: a sentence on the image ids of the saved detections, if there are any. ``note``: which images were
    evaluated, if not those of a split.
    """

    index: DetectionIndex
    scored: Scored
    image_ids: str | None
    note: str | None = None


def evaluate_request(checkpoint: Path | str | None, request: EvaluateRequest) -> Evaluated:
    """Evaluate ``checkpoint`` or the file ``request.detections``, and write the requested files.

    Raises InputError for options that contradict each other and for everything that does not fit the data.
    """
    if (checkpoint is None) == (request.detections is None):
        raise InputError("give either a checkpoint or a results file with --detections")
    augment = named_test_time(request.augment, request.merge)
    if augment is not None and request.detections is not None:
        raise InputError("--augment needs a checkpoint; --detections evaluates a results file without running one")
    if request.proposals is not None and (augment is not None or request.detections is not None):
        raise InputError("--proposals needs a checkpoint and no --augment, which computes proposals for every view")
    if request.sets and request.detections is not None:
        raise InputError("--set needs a checkpoint; --detections evaluates a results file without running one")
    if request.size is not None and request.detections is not None:
        raise InputError("--size needs a checkpoint; --detections evaluates a results file without running one")
    for target in (request.save, request.report):
        if target is not None:
            check_writable(target)
    data = request.data
    source = find_source(data)
    run = None if checkpoint is None or request.split is not None else run_folder_of(checkpoint)
    split = None if run is None or {"val", "test"} & {*source.splits, *source.absent} else divided_split(run)
    note = None
    if run is not None and split is not None and split in source.splits:
        index = held_back_of(open_dataset(data, split, not request.voc_zero_based), run)
        note = (
            f"evaluated on the {len(index)} images of {split} that the run held back from training ({run / DIVISION})"
        )
    else:
        split = choose_split(data, source.splits, request.split, ("val", "test"), absent=source.absent)
        if split == "train" and request.split is None:
            message = f"{data}: has no split for validation, so the metrics are on its only split, train"
            warnings.warn(message, DatasetWarning, stacklevel=2)
        index = open_dataset(data, split, not request.voc_zero_based)
    if request.detections is not None:
        gives_masks = False
        found = load_coco_detections(request.detections, index, None if _all_have_masks(index) else "bbox")
    else:
        assert checkpoint is not None
        loaded = load(checkpoint, request.device, request.sets, request.size)
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
    image_ids = None
    if request.save is not None:
        save_detections(request.save, index, found)
        image_ids = explain_image_ids(request.save, index, source, split)
    if request.plots is not None:
        write_plots(request.plots, index, scored)
    if request.report is not None:
        title = str(request.detections if checkpoint is None else checkpoint)
        write_evaluation_report(request.report, title, data, index, scored)
    return Evaluated(index, scored, image_ids, note)


def _proposals(request: EvaluateRequest, loaded: Loaded, index: DetectionIndex, folder: Path) -> Path | None:
    """Return the requested proposal file, written to ``folder`` for selective search; None for the recipe's."""
    if request.proposals is None:
        return None
    if not isinstance(loaded.detector, TakesProposals):
        raise InputError(f"--proposals: {loaded.detector.config.kind} takes no precomputed proposals; omit the option")
    if request.proposals != SELECTIVE_SEARCH:
        return Path(request.proposals)
    most = loaded.detector.preparation.most_proposals
    return search(index, most, workers=max(1, request.workers)).save(folder / f"proposals{SUFFIX}")
