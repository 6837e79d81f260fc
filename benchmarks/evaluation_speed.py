"""Time and memory of COCO's metrics on a data set, compared with pycocotools and faster-coco-eval.

    python benchmarks/evaluation_speed.py                  5,000 images, 100 detections each, 80 classes
    python benchmarks/evaluation_speed.py --images 500     a short run; prints, writes nothing

Every contestant gets the same random objects and detections in its own format (ours takes arrays per image, the others
a list of dicts, made before the timing starts), and is timed until it has its twelve metrics. Ours also computes the
tables by class, overlap and area and the recall with pooled classes. Each run is a process of its own. Rounds are
interleaved, and the result is the median of the ratios per round. Writes results/evaluation_speed.md.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
CLASSES, DETECTIONS = 80, 100
CONTESTANTS = {
    "pycocotools": {},
    "faster-coco-eval": {},
    "boxwright": {},
    "boxwright, one thread": {"RAYON_NUM_THREADS": "1"},
}


class Case(NamedTuple):
    """Objects as a COCO dict; detections by image: corners float64 ``[100, 4]``, scores, labels."""

    truth: dict[str, Any]
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def draw(images: int) -> Case:
    """Draw about seven objects per image, as in COCO. About a quarter of the detections are near objects, the rest
    anywhere.
    """
    rng = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    found = []
    for image in range(images):
        count = int(rng.poisson(7.3))
        sides = np.exp(rng.uniform(np.log(8), np.log(400), (count, 2)))
        corner = rng.uniform(0, 1, (count, 2)) * np.maximum([640, 480] - sides, 1)
        objects, labels = np.concatenate([corner, sides], axis=1), rng.integers(0, CLASSES, count)
        for box, label in zip(objects.tolist(), labels.tolist(), strict=True):
            entry = {"id": len(annotations) + 1, "image_id": image + 1, "category_id": label + 1, "bbox": box}
            annotations.append({**entry, "area": 0.7 * box[2] * box[3], "iscrowd": int(rng.random() < 0.01)})
        near = np.repeat(np.arange(count), rng.integers(1, 6, count))[:DETECTIONS]
        boxes = objects[near] + rng.normal(0, 0.08, (len(near), 4)) * np.tile(objects[near, 2:], 2)
        rest = DETECTIONS - len(near)
        stray = np.concatenate([rng.uniform(0, 400, (rest, 2)), np.exp(rng.uniform(2, 6, (rest, 2)))], axis=1)
        boxes = np.concatenate([boxes, stray])
        boxes[:, 2:] = boxes[:, :2] + np.maximum(boxes[:, 2:], 1)
        classes = np.where(rng.random(DETECTIONS) < 0.8, np.append(labels[near], np.zeros(rest, int)), -1)
        classes[len(near) :] = -1
        classes = np.where(classes < 0, rng.integers(0, CLASSES, DETECTIONS), classes)
        scores = np.concatenate([rng.beta(4, 2, len(near)), rng.beta(1, 6, rest)])
        found.append((boxes, scores, classes))
    sizes = [{"id": i + 1, "width": 640, "height": 480} for i in range(images)]
    categories = [{"id": k + 1, "name": f"class {k}"} for k in range(CLASSES)]
    return Case({"info": {}, "images": sizes, "annotations": annotations, "categories": categories}, found)


def as_dicts(case: Case) -> list[dict[str, Any]]:
    """Return the detections in the format of a results file."""
    rows: list[dict[str, Any]] = []
    for image, (boxes, scores, labels) in enumerate(case.found, start=1):
        sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        for box, score, label in zip(sides.tolist(), scores.tolist(), labels.tolist(), strict=True):
            rows.append({"image_id": image, "category_id": label + 1, "bbox": box, "score": score})
    return rows


class Truth:
    """The part of an index that CocoEvaluation uses."""

    def __init__(self, truth: dict[str, Any]) -> None:
        from boxwright.structures import Classes

        self.classes = Classes.from_names([category["name"] for category in truth["categories"]])
        self._truth = truth

    def to_coco(self) -> dict[str, Any]:
        return self._truth


def run(contestant: str, images: int) -> dict[str, Any]:
    """One timed run in this process: seconds, MiB above the inputs at the highest, the twelve numbers."""
    case = draw(images)
    if contestant.startswith("boxwright"):
        from boxwright.evaluation import CocoEvaluation
    elif contestant == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval as Evaluator
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as Evaluator
    rows = [] if contestant.startswith("boxwright") else as_dicts(case)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        if contestant.startswith("boxwright"):
            evaluation = CocoEvaluation(Truth(case.truth))  # type: ignore[arg-type]
            for image, (boxes, scores, labels) in enumerate(case.found, start=1):
                evaluation.update(image, boxes, scores, labels)
            stats = list(evaluation.compute().stats.values())
        else:
            truth = COCO()
            truth.dataset = case.truth
            truth.createIndex()
            evaluator = Evaluator(truth, truth.loadRes(rows), "bbox")
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
            stats = [float(value) for value in evaluator.stats[:12]]
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": seconds, "mib": peak / 1024, "stats": stats, "objects": len(case.truth["annotations"])}


def spawn(contestant: str, images: int) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--images", str(images), "--contestant", contestant]
    environment = os.environ | CONTESTANTS[contestant]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def report(rounds: list[dict[str, dict[str, Any]]], images: int, arguments: list[str], note: str) -> str:
    """The results as Markdown."""
    from machine import describe

    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("pycocotools", "faster-coco-eval", "hotcoco"))
    base = "pycocotools"
    lines = [
        "# Scoring with COCO's metrics",
        "",
        *describe(threads=os.cpu_count()),
        *([f"- note: {note}"] if note else []),
        f"- {versions}, numpy {np.__version__}",
        f"- command: `{' '.join(['python benchmarks/evaluation_speed.py', *arguments])}`",
        f"- case: {images:,} images, {DETECTIONS} detections each, {rounds[0][base]['objects']:,} objects of "
        f"{CLASSES} classes, boxes; {len(rounds)} interleaved rounds, each run a process of its own",
        "",
        "| | seconds, each round | times as fast (median of ratios) | MiB above the inputs | largest difference |",
        "|---|---|---|---|---|",
    ]
    for name in CONTESTANTS:
        seconds = ", ".join(f"{r[name]['seconds']:.2f}" for r in rounds)
        ratio = statistics.median(r[base]["seconds"] / r[name]["seconds"] for r in rounds)
        memory = statistics.median(r[name]["mib"] for r in rounds)
        difference = max(abs(a - b) for r in rounds for a, b in zip(r[name]["stats"], r[base]["stats"], strict=True))
        lines.append(f"| {name} | {seconds} | {ratio:.1f} | {memory:.0f} | {difference:.1e} |")
    lines += [
        "",
        "The difference is that of any of the twelve numbers from pycocotools'. Ours includes collecting the",
        "detections image by image, the tables by class, overlap and area, and a second matching with pooled",
        "classes, which the others do not do.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--note", default="", help="a line for the results file, such as what else the machine did")
    parser.add_argument("--contestant", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        print(json.dumps(run(options.contestant, options.images)))
        return
    rounds = []
    for number in range(options.rounds):
        rounds.append({name: spawn(name, options.images) for name in CONTESTANTS})
        told = ", ".join(f"{name} {value['seconds']:.2f} s" for name, value in rounds[-1].items())
        print(f"round {number + 1}: {told}", flush=True)
    text = report(rounds, options.images, sys.argv[1:], options.note)
    print(text)
    if options.images == 5000:
        target = ROOT / "results" / "evaluation_speed.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)


if __name__ == "__main__":
    main()
