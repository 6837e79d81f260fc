"""The whole line on data that it draws itself: scenes, training, evaluation, detection, and a page about it all."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.app.detection.predict import PredictSummary, detect_files
from boxwright.app.evaluate import Scored, run_detector, score
from boxwright.app.load import Loaded, load
from boxwright.app.progress import ProgressBar
from boxwright.app.requests.inference import DetectRequest
from boxwright.app.requests.training import DemoRequest, TrainRequest
from boxwright.app.train import start_training
from boxwright.backbones.count import count_parameters
from boxwright.data.formats.opening import open_dataset
from boxwright.data.index import DetectionIndex
from boxwright.data.scenes import SceneConfig, write_scenes
from boxwright.detections import Detections
from boxwright.evaluation.coco import CocoResult, json_safe
from boxwright.evaluation.curves import confusion_matrix
from boxwright.io.environment import versions
from boxwright.io.files import atomic_text
from boxwright.report.demo import Curve, Example, Report, make_example, write_report
from boxwright.report.page import duration
from boxwright.structures import InputError
from boxwright.training.logging.run_log import read_rows

RECIPE = "faster-rcnn-detnet-small-fpn"
_SIZE = 256  # what the recipe is made for
# A little easier than scenes are drawn otherwise: minutes on two cores must do. Objects of 8 pixels and of three
# quarters of the picture stay, and so do clutter, blur and noise.
_SCENES = SceneConfig(typical=0.9, distractors=(0, 3), hidden=0.5)
_EXAMPLES = 12
_MARKER = "demo.json"


@dataclass(slots=True)
class DemoResult:
    """Where the page is, COCO's numbers on the test scenes, the seconds of each stage, and what to do next."""

    report: str
    checkpoint: str
    stats: dict[str, float]
    timings: dict[str, float]
    threshold: float
    commands: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: None where a number is not defined."""
        return json_safe(asdict(self))


@dataclass(slots=True)
class _Stages:
    """Names each stage on stderr as it begins, and keeps its seconds."""

    count: int
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        print(f"[{len(self.seconds) + 1}/{self.count}] {name}", file=sys.stderr, flush=True)
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 2)


def run_demo(request: DemoRequest) -> DemoResult:
    """Draw scenes, train the small DetNet Faster R-CNN, evaluate it, detect with it, and write ``report.html``.

    Everything goes into ``output``. What an earlier demo left there is replaced; a folder with anything else in it
    raises ``InputError``.
    """
    output = request.output
    _prepare(request)
    stages = _Stages(5)
    with stages.stage(f"Drawing {request.images} scenes to train on and {request.test_images} to test on"):
        _draw_scenes(output / "scenes", request)
    with stages.stage(f"Training {RECIPE}"):
        run = start_training(
            RECIPE,
            TrainRequest(
                data=output / "scenes",
                output=output / "run",
                sets=_sets(request),
                seed=request.seed,
                device=request.device,
            ),
        )
    index = open_dataset(output / "scenes", "test")
    loaded = load(run.checkpoint, request.device)
    with stages.stage("Evaluating on the scenes that it never saw"):
        scored = score(index, run_detector(loaded, index, str(output / "scenes")).detections())
    advice = scored.curves.overall.best_f1()
    threshold = math.floor(100 * advice.threshold) / 100 if advice else 0.5  # rounded up it might lose the last hit
    pictures = index.path(0).parent
    with stages.stage("Detecting in their picture files"):
        choice = DetectRequest(output=output / "detections", threshold=threshold, device=request.device)
        detected = detect_files(run.checkpoint, [pictures], choice)
    with stages.stage("Writing the report"):
        report = _report(request, loaded, index, scored, detected, threshold, stages.seconds)
        page = write_report(output / "report.html", report)
    assert isinstance(scored.result, CocoResult)
    commands = dict(_own_data_commands(threshold))
    result = DemoResult(str(page), str(run.checkpoint), scored.result.stats, stages.seconds, threshold, commands)
    with atomic_text(output / _MARKER) as file:
        json.dump({"options": _json_options(request), **result.to_dict()}, file, indent=1)
    return result


def _prepare(request: DemoRequest) -> None:
    output = request.output
    for name, value in (
        ("--images", request.images),
        ("--val-images", request.val_images),
        ("--test-images", request.test_images),
    ):
        if value < 1:
            raise InputError(f"{name} {value}: give 1 or more")
    if request.steps is not None and request.steps < 1:
        raise InputError(f"--steps {request.steps}: give 1 or more")
    ours = (output / _MARKER).is_file()
    if output.exists() and not ours and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: exists and is no earlier demo; choose another --output")
    if ours:
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
    workers = cores if cores > 1 and sum(counts.values()) >= 100 else 0  # below that, starting them takes longer
    done = 0
    with ProgressBar("drawing", sum(counts.values())) as bar:

        def advance(now: int, total: int) -> None:
            nonlocal done
            bar.advance(now - done)
            done = now

        size = (request.size, request.size)
        write_scenes(folder, counts, size, request.seed, "coco", config=_SCENES, progress=advance, workers=workers)


def _sets(request: DemoRequest) -> tuple[str, ...]:
    sets = []
    if request.size != _SIZE:
        sets += [f"data.{part}.0.size=[{request.size}, {request.size}]" for part in ("train", "eval")]
    if request.steps is not None:
        sets += [f"stages.0.length={request.steps}", "stages.0.unit=steps"]
        if request.steps < 200:
            sets.append('stages.0.schedule.warmup="none"')  # it would outlast the training
    return (*sets, *request.sets)


def _json_options(request: DemoRequest) -> dict[str, Any]:
    """Return the options that shaped the demo, for its marker file."""
    options = asdict(request)
    del options["output"]
    return options


def _report(
    request: DemoRequest,
    loaded: Loaded,
    index: DetectionIndex,
    scored: Scored,
    detected: PredictSummary,
    threshold: float,
    seconds: dict[str, float],
) -> Report:
    assert isinstance(scored.result, CocoResult)
    losses, validation = history(request.output / "run")
    training = next(value for name, value in seconds.items() if name.startswith("Training"))
    lead = (
        f"{RECIPE}, trained from scratch in {duration(training)} on {request.images} scenes that Boxwright drew "
        f"itself. Every figure is of {len(index)} other scenes, which served neither to train it nor to choose it."
    )
    rate = detected.images / max(detected.seconds, 1e-9)
    return Report(
        title="A detector in minutes",
        lead=lead,
        result=scored.result,
        facts=[
            (f"{count_parameters(loaded.detector) / 1e6:.1f} M", "parameters"),
            (f"{rate:.1f} / s", f"images detected, drawn and saved on {loaded.device.type.upper()}"),
            (duration(sum(seconds.values())), "from the first scene to this page"),
        ],
        examples=_examples(index, scored, threshold),
        threshold=threshold,
        curves=scored.curves,
        confusion=confusion_matrix(index, scored.detections, score=threshold),
        losses=losses,
        validation=validation,
        timings=list(seconds.items()),
        commands=_own_data_commands(threshold),
        notes={"next": "The same three steps, on a folder of your own in COCO, VOC or YOLO format."},
        footer=_footer(request),
    )


def history(run: Path) -> tuple[list[Curve], list[Curve]]:
    """Losses and validation scores of a run folder over its steps."""
    rows = read_rows(run)
    train = [row for row in rows if row["kind"] == "train"]
    names = list(dict.fromkeys(key for row in train for key in row if key == "loss" or key.startswith("loss_")))
    losses = [_curve(train, key, key.removeprefix("loss_").replace("_", " ")) for key in names]
    seen = [row for row in rows if row["kind"] == "validation"]
    return losses, [_curve(seen, key, key) for key in ("AP", "AP50", "AP75") if seen]


def _curve(rows: list[dict[str, Any]], key: str, name: str) -> Curve:
    kept = [row for row in rows if row.get(key) is not None]
    return Curve(name, [row["step"] for row in kept], [row[key] for row in kept])


def _examples(index: DetectionIndex, scored: Scored, threshold: float) -> list[Example]:
    """Scenes at even distances, not chosen by how well they went."""
    positions = np.unique(np.linspace(0, len(index) - 1, min(_EXAMPLES, len(index))).round().astype(int)).tolist()
    ids = [index.image_id(i) for i in positions]
    found = scored.detections
    examples = []
    for i, rows in zip(positions, found.rows_by_image(ids), strict=True):
        detections = Detections(
            found.corners[rows], found.scores[rows], found.labels[rows], index.classes, index.size(i)
        )
        examples.append(make_example(index, i, detections.above(threshold)))
    return examples


def _own_data_commands(threshold: float) -> list[tuple[str, str]]:
    return [
        ("1. Check your data: every defect, with file and place", "boxwright data check YOUR_DATA"),
        ("2. Train on it", f"boxwright train {RECIPE} --data YOUR_DATA --output run"),
        ("3. Detect with the result", f"boxwright detect run YOUR_PICTURES --output found --threshold {threshold:.2f}"),
    ]


def _footer(request: DemoRequest) -> str:
    parts = [f"{name} {version}" for name, version in versions().items()]
    return " · ".join([*parts, f"seed {request.seed}", time.strftime("%Y-%m-%d")])
