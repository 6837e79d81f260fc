"""Generate scenes, train a small detector on them, evaluate it, detect with it, and write a report."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from boxwright.app.detection.predict import PredictSummary, detect_files
from boxwright.app.evaluate import Scored, run_detector, score
from boxwright.app.load import Loaded, load
from boxwright.app.progress import ProgressBar
from boxwright.app.requests.inference import DetectRequest
from boxwright.app.requests.training import DemoRequest, TrainRequest
from boxwright.app.train import start_training
from boxwright.app.training.request_recipe import requested_recipe
from boxwright.backbones.count import count_parameters
from boxwright.checkpoints.backbone_files import load_pretrained
from boxwright.data.formats.opening import open_dataset
from boxwright.data.index import DetectionIndex
from boxwright.data.scenes import SceneConfig, write_scenes
from boxwright.evaluation.coco import CocoResult, json_safe
from boxwright.evaluation.curves import confusion_matrix
from boxwright.geometry.rounding import round_up
from boxwright.io.environment import versions
from boxwright.io.files import atomic_text
from boxwright.report.examples import choose_examples
from boxwright.report.page import duration
from boxwright.report.report import Report, write_report
from boxwright.structures import InputError
from boxwright.training.logging.run_log import read_rows

RECIPE = "faster-rcnn-lite0-fpn"
_SIZE = 256  # the input size of the recipe
# Few epochs over many scenes, because drawing a new one costs less than training on it.
_SETTINGS = ("stages.0.length=3", "validation.every=1")
# Slightly easier than the default scenes, because training must finish in minutes on two cores. Object sizes still
# range from 8 pixels to three quarters of the image, and clutter, blur and noise remain.
_SCENES = SceneConfig(typical=0.9, distractors=(0, 3), hidden=0.5)
_MARKER = "demo.json"


@dataclass(slots=True)
class DemoResult:
    """Outcome of a demo."""

    recipe: str
    start: str | None
    """ImageNet weights that the backbone started from; None for random ones."""
    report: str
    """Path of the HTML page."""
    checkpoint: str
    stats: dict[str, float]
    """COCO metrics on the test scenes."""
    timings: dict[str, float]
    """Seconds of each stage."""
    threshold: float
    """Score threshold with the best F1, rounded down to hundredths."""
    commands: dict[str, str]
    """Command lines for the user's own data, by purpose."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with None for undefined metrics."""
        return json_safe(asdict(self))


@dataclass(slots=True)
class _Stages:
    """Announces each stage on stderr and records its duration in seconds."""

    count: int
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        print(f"[{len(self.seconds) + 1}/{self.count}] {name}", file=sys.stderr, flush=True)
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 2)


def run_demo(request: DemoRequest) -> DemoResult:
    """Generate scenes, train a small Faster R-CNN from ImageNet weights, evaluate it, detect, write ``report.html``.

    All files are written to ``request.output``. Those of an earlier demo are replaced. Raises InputError if the folder
    holds anything else, and before anything is drawn for settings that do not fit the recipe and for ImageNet weights
    that are absent or damaged.
    """
    output = request.output
    _check(request)
    training = _training(request)
    recipe = requested_recipe(RECIPE, training)
    start = None if recipe.backbone_weights in (None, "none") else recipe.backbone_weights
    if start is not None:
        load_pretrained(start)
    _prepare(request)
    stages = _Stages(5)
    with stages.stage(f"Generating {request.images} training scenes and {request.test_images} test scenes"):
        _draw_scenes(output / "scenes", request)
    with stages.stage(f"Training {RECIPE}"):
        run = start_training(RECIPE, training)
    index = open_dataset(output / "scenes", "test")
    loaded = load(run.checkpoint, request.device)
    with stages.stage("Evaluating on the test scenes"):
        scored = score(index, run_detector(loaded, index, str(output / "scenes")).detections())
    advice = scored.curves.overall.best_f1()
    # Rounded down, because a higher threshold could drop the last correct detection.
    threshold = math.floor(100 * advice.threshold) / 100 if advice else 0.5
    pictures = index.path(0).parent
    with stages.stage("Detecting in the image files of the test scenes"):
        choice = DetectRequest(output=output / "detections", threshold=threshold, device=request.device)
        detected = detect_files(run.checkpoint, [pictures], choice)
    with stages.stage("Writing the report"):
        report = _report(request, start, loaded, index, scored, detected, threshold, stages.seconds)
        page = write_report(output / "report.html", report)
    assert isinstance(scored.result, CocoResult)
    commands = dict(_own_data_commands(threshold))
    stats = scored.result.stats
    result = DemoResult(RECIPE, start, str(page), str(run.checkpoint), stats, stages.seconds, threshold, commands)
    with atomic_text(output / _MARKER) as file:
        json.dump({"options": _json_options(request), **result.to_dict()}, file, indent=1)
    return result


def _check(request: DemoRequest) -> None:
    """Raise InputError for numbers out of range, and for an output folder that holds something else."""
    output = request.output
    for name, value in (
        ("--images", request.images),
        ("--val-images", request.val_images),
        ("--test-images", request.test_images),
    ):
        if value < 1:
            raise InputError(f"{name} {value}: must be at least 1")
    if request.steps is not None and request.steps < 1:
        raise InputError(f"--steps {request.steps}: must be at least 1")
    try:
        replace(_SCENES, size=(request.size, request.size))
    except InputError as error:
        raise InputError(f"--size {request.size}: {error}") from None
    ours = (output / _MARKER).is_file()
    if output.exists() and not ours and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: exists and does not hold an earlier demo; choose another --output")


def _prepare(request: DemoRequest) -> None:
    """Make the output folder, empty but for the marker."""
    output = request.output
    if (output / _MARKER).is_file():
        print(f"replacing the earlier demo in {output}", file=sys.stderr)
        for name in ("scenes", "run", "detections"):
            shutil.rmtree(output / name, ignore_errors=True)
        (output / "report.html").unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    with atomic_text(output / _MARKER) as file:
        json.dump({"options": _json_options(request)}, file)


def _draw_scenes(folder: Path, request: DemoRequest) -> None:
    counts = {"train": request.images, "val": request.val_images, "test": request.test_images}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = cores if cores > 1 and sum(counts.values()) >= 100 else 0  # for fewer, starting them takes longer
    done = 0
    with ProgressBar("drawing", sum(counts.values())) as bar:

        def advance(now: int, total: int) -> None:
            nonlocal done
            bar.advance(now - done)
            done = now

        size = (request.size, request.size)
        write_scenes(folder, counts, size, request.seed, "coco", config=_SCENES, progress=advance, workers=workers)


def _training(request: DemoRequest) -> TrainRequest:
    """Return the options of the training, on a canvas of the scenes' shape."""
    sets = [*_SETTINGS]
    if request.steps is not None:
        sets += [f"stages.0.length={request.steps}", "stages.0.unit=steps"]
        if request.steps < 200:
            sets.append('stages.0.schedule.warmup="none"')  # it would last longer than the training
    return TrainRequest(
        data=request.output / "scenes",
        output=request.output / "run",
        sets=(*sets, *request.sets),
        size=None if request.size == _SIZE else str(round_up(request.size, 32)),
        seed=request.seed,
        device=request.device,
    )


def _json_options(request: DemoRequest) -> dict[str, Any]:
    """Return the options that shaped the demo, for its marker file."""
    options = asdict(request)
    del options["output"]
    return options


def _report(
    request: DemoRequest,
    start: str | None,
    loaded: Loaded,
    index: DetectionIndex,
    scored: Scored,
    detected: PredictSummary,
    threshold: float,
    seconds: dict[str, float],
) -> Report:
    assert isinstance(scored.result, CocoResult)
    rows = read_rows(request.output / "run")
    training = next(value for name, value in seconds.items() if name.startswith("Training"))
    origin = "random weights" if start is None else f"the ImageNet weights of {start}"
    lead = (
        f"{RECIPE}, trained from {origin} in {duration(training)} on {request.images} synthetic scenes. All metrics "
        f"are measured on {len(index)} test scenes, which were used neither for training nor to select the checkpoint."
    )
    rate = detected.images / max(detected.seconds, 1e-9)
    return Report(
        title="A detector in minutes",
        lead=lead,
        result=scored.result,
        facts=[
            (f"{count_parameters(loaded.detector) / 1e6:.1f} M", "parameters"),
            (f"{rate:.1f} / s", f"images processed, drawn and saved on {loaded.device.type.upper()}"),
            (duration(sum(seconds.values())), "total time of the demo"),
        ],
        examples=choose_examples(index, scored.detections, threshold),
        threshold=threshold,
        curves=scored.curves,
        confusion=confusion_matrix(index, scored.detections, score=threshold),
        train=[row for row in rows if row["kind"] == "train"],
        validation=[row for row in rows if row["kind"] == "validation"],
        timings=list(seconds.items()),
        commands=_own_data_commands(threshold),
        notes={"next": "The same three steps for a data set of your own in COCO, VOC or YOLO format."},
        footer=_footer(request),
    )


def _own_data_commands(threshold: float) -> list[tuple[str, str]]:
    return [
        ("1. Check your data for defects", "boxwright data check YOUR_DATA"),
        ("2. Train a detector on it", f"boxwright train {RECIPE} --data YOUR_DATA --output run"),
        ("3. Detect objects with it", f"boxwright detect run YOUR_IMAGES --output found --threshold {threshold:.2f}"),
    ]


def _footer(request: DemoRequest) -> str:
    parts = [f"{name} {version}" for name, version in versions().items()]
    return " · ".join([*parts, f"seed {request.seed}", time.strftime("%Y-%m-%d")])
