"""Requests of the commands that run a trained detector: ``evaluate``, ``detect`` and ``proposals``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from boxwright.app.requests.fields import (
    OUTPUT,
    WHERE,
    Augment,
    Data,
    Device,
    InputSize,
    Merge,
    Precision,
    TestSettings,
    TestSplit,
    VocZeroBased,
)

SELECTIVE_SEARCH = "selective-search"
"""Name of the method for ``boxwright proposals --method`` and ``boxwright evaluate --proposals``."""

Metric = Literal["coco", "voc07", "voc12"]


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """Options of ``boxwright evaluate``, for a checkpoint or for the COCO results file ``detections``."""

    data: Data
    split: TestSplit = None
    voc_zero_based: VocZeroBased = False
    detections: Annotated[Path | None, Parameter(help="Evaluate this COCO results file instead of a checkpoint.")] = (
        None
    )
    metric: Annotated[
        Metric, Parameter(help="COCO metrics, or the VOC mean AP: 11-point (voc07) or area under the curve (voc12).")
    ] = "coco"
    proposals: Annotated[
        str | None,
        Parameter(help="For Fast R-CNN and R-CNN: a proposal file, or selective-search. Default: the recipe's file."),
    ] = None
    augment: Augment = None
    merge: Merge = None
    sets: TestSettings = ()
    size: InputSize = None
    report: Annotated[
        Path | None,
        Parameter(help="Write a self-contained HTML report to this file: metrics, curves, examples.", group=OUTPUT),
    ] = None
    plots: Annotated[
        Path | None, Parameter(help="Write curves and the confusion matrix as PNG into this folder.", group=OUTPUT)
    ] = None
    save: Annotated[
        Path | None,
        Parameter(
            help="Write all detections as a COCO results file. Its image ids are those of a COCO data set; images of "
            "other formats are counted from 1, and NAME.images.json, written beside it, has the file of each id.",
            group=OUTPUT,
        ),
    ] = None
    batch_size: Annotated[int | None, Parameter(help="Images per batch. Default: the recipe's.", group=WHERE)] = None
    workers: Annotated[int, Parameter(help="Processes that load images.", group=WHERE)] = 0
    device: Device = "auto"
    precision: Precision = "fp32"


@dataclass(frozen=True, kw_only=True)
class DetectRequest:
    """Options of ``boxwright detect``. ``batch_size`` None: as many images as fit into memory."""

    output: Annotated[Path, Parameter(help="Folder for the results. Run again to continue.", group=OUTPUT)] = Path(
        "detections"
    )
    threshold: Annotated[float, Parameter(help="Minimum score of a detection, 0 to 1.")] = 0.5
    recursive: Annotated[bool, Parameter(help="Include subfolders of the given folders.", show_default=False)] = False
    every: Annotated[int, Parameter(help="Process every N-th frame of a video.")] = 1
    augment: Augment = None
    merge: Merge = None
    sets: TestSettings = ()
    size: InputSize = None
    pictures: Annotated[
        bool,
        Parameter(
            help="Draw the detections on images and videos (the default).",
            group=OUTPUT,
            show_default=False,
        ),
    ] = True
    overwrite: Annotated[
        bool, Parameter(help="Replace the results of other settings in the folder.", group=OUTPUT, show_default=False)
    ] = False
    batch_size: Annotated[
        int | None, Parameter(help="Images per batch. Default: as many as fit into memory.", group=WHERE)
    ] = None
    device: Device = "auto"
    precision: Precision = "fp32"


@dataclass(frozen=True, kw_only=True)
class ProposalsRequest:
    """Options of ``boxwright proposals``."""

    data: Data
    split: Annotated[str | None, Parameter(help="The split. May be omitted if there is only one.")] = None
    voc_zero_based: VocZeroBased = False
    method: Annotated[
        str,
        Parameter(help="selective-search, or the checkpoint of a detector with a proposal network, by path or name."),
    ] = SELECTIVE_SEARCH
    output: Annotated[Path, Parameter(help="The .safetensors file to write.", group=OUTPUT)]
    most: Annotated[int, Parameter(help="Maximum number of proposals per image.")] = 2000
    quality: Annotated[
        Literal["fast", "quality"],
        Parameter(help="Mode of selective search: quality finds more objects but takes longer."),
    ] = "fast"
    workers: Annotated[int, Parameter(help="Processes for selective search.", group=WHERE)] = 1
    device: Device = "auto"
