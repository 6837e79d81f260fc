"""Compare detectors on the same data, with the same number of training images and several seeds each.

    python benchmarks/compare.py PATH/TO/bccd --recipes ssd-small ssd-small-modern --output results/one_stage_bccd.md
    python benchmarks/compare.py PATH/TO/nwpu_vhr10 --recipes retinanet-r50-fpn --device cuda --jobs 1 \\
        --weights resnet50.safetensors --output results/nwpu_vhr10.md

Settings of a recipe may be changed for an ablation: ``retinanet-small+detector.loss.gamma=0+detector.loss.alpha=1``.
``--beside FILE`` adds the rows of an earlier table of the same data, epochs and seeds below the new ones.

Every run is one ``boxwright train``, validated once after its last step on the split that the table reports, so no
checkpoint is selected by it. The first stage of a recipe takes ``--epochs``, later stages are scaled in proportion. On
a CPU, ``--jobs`` runs train at the same time with one thread each. A finished run in ``--keep FOLDER`` is not repeated,
so a long comparison can be made in parts. Milliseconds are per image at batch 1, with folded norms and post-processing,
without the making of given proposals. All detectors are timed in turn in one process.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from boxwright.app.load import for_inference, load
from boxwright.app.models.counting import detector_row
from boxwright.checkpoints.checkpoint import load_checkpoint
from boxwright.config.recipe import Recipe, Stage
from boxwright.data.formats.opening import open_splits
from boxwright.data.loading.loader import EvalLoader
from boxwright.recipes import get_recipe
from machine import describe

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass(frozen=True)
class Job:
    """One run: a recipe and a seed."""

    recipe: str
    seed: int
    folder: Path
    command: list[str]
    environment: dict[str, str]

    @property
    def log(self) -> Path:
        """The output of the run, beside its folder."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def run(self) -> None:
        """Train, unless the folder has the finished run."""
        if (self.folder / "seconds.json").is_file():
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        with self.log.open("w") as log:
            done = subprocess.run(self.command, env=self.environment, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(self.command)}\n{self.log.read_text()[-2000:]}")
        (self.folder / "seconds.json").write_text(json.dumps(time.monotonic() - start))
        print(self.recipe, self.seed, self.row(), flush=True)

    def row(self) -> dict[str, float]:
        """Return the metrics of the finished run."""
        with (self.folder / "validation.csv").open() as file:
            last = list(csv.DictReader(file))[-1]
        with (self.folder / "train.csv").open() as file:
            speeds = [float(row["images_per_second"]) for row in csv.DictReader(file) if row["lr"]]  # not of fits
        figures = {name: float(last[name]) if last[name] not in ("", "nan") else float("nan") for name in FIGURES}
        figures |= {name: float(last[name]) for name in ("mask_AP",) if last.get(name)}
        seconds = json.loads((self.folder / "seconds.json").read_text())
        return {**figures, "speed": statistics.median(speeds), "minutes": seconds / 60}


def jobs_of(args: argparse.Namespace, keep: Path) -> list[Job]:
    """Return all runs, seed by seed, so that an early end leaves whole rounds."""
    environment = dict(os.environ) if args.device == "cuda" else {**os.environ, "OMP_NUM_THREADS": "1"}
    jobs = []
    for seed in args.seeds:
        for recipe in args.recipes:
            folder = keep / f"{recipe}-{seed}"
            name, *changes = recipe.split("+")
            settings = ["validation.loss=false", *length(get_recipe(name), args.epochs), *args.set, *changes]
            command = [
                sys.executable, "-m", "boxwright", "train", name, "--data", str(args.data), "--output", str(folder),
                "--seed", str(seed), "--workers", str(args.workers), "--device", args.device, *set_arguments(settings),
            ]  # fmt: skip
            command += ["--weights", str(args.weights)] if args.weights else []
            jobs.append(Job(recipe, seed, folder, command, environment))
    return jobs


def length(recipe: Recipe, epochs: float) -> list[str]:
    """Return settings for a first stage of ``epochs``, all others in proportion, and one validation after the last
    step.

    That validation always runs, and any other is set beyond the end. Fits of R-CNN use the training set once, whatever
    is set.
    """
    settings, total = [], 0.0
    first = recipe.stages[0]
    assert isinstance(first, Stage)
    for i, stage in enumerate(recipe.stages):
        if not isinstance(stage, Stage):
            total += 1
            continue
        own = round(stage.length / first.length * epochs, 3)
        settings += [f"stages.{i}.length={own}", f"stages.{i}.unit=epochs"]
        if milestones := getattr(stage.schedule, "milestones", ()):
            settings.append(f"stages.{i}.schedule.milestones={[m / stage.length * own for m in milestones]}")
        total += own
    return [*settings, f"validation.every={math.ceil(total) + 1}", "validation.unit=epochs"]


def set_arguments(settings: list[str]) -> list[str]:
    """Return settings as arguments of a command line."""
    return [part for setting in settings for part in ("--set", setting)]


def milliseconds(
    folders: dict[str, Path], data: Path, device: str, rounds: int, sets: dict[str, list[str]] | None = None
) -> dict[str, float]:
    """Return the median time per image of each detector, timed in turn, without the making of given proposals.

    ``sets``: by the same name, overrides of the recipe, as for ``boxwright evaluate --set``.
    """
    if device == "cpu":
        torch.set_num_threads(1)
    splits = open_splits(data)
    index = splits.get("val", splits.get("test", next(iter(splits.values()))))
    ready = {}
    for name, folder in folders.items():
        loaded = load(folder / "last.safetensors", device, (sets or {}).get(name, ()))
        detector = for_inference(loaded.detector, loaded.device, "fp32")
        # A recipe may pad every batch to one size for its compiled graph; a single image needs no such padding.
        own = loaded.checkpoint.recipe.data
        data_config = replace(own, eval_batch_size=1, workers=0, fixed_size=None, shapes=None)
        loader = EvalLoader(index.subset([0]), data_config)
        ready[name] = detector, next(iter(loader)).images.to(loaded.device)
    times: dict[str, list[float]] = {name: [] for name in ready}
    with torch.inference_mode():
        for number in range(rounds + 2):
            for name, (detector, images) in ready.items():
                start = time.perf_counter()
                detector(images)
                if device == "cuda":
                    torch.cuda.synchronize()
                if number >= 2:
                    times[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(each) for name, each in times.items()}


def mean(values: list[float], digits: int = 3) -> str:
    """Return mean and standard deviation of a column, or a dash where the data has no such object."""
    if any(value != value or value < 0 for value in values):
        return "–"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def table(jobs: list[Job], recipes: list[str], costs: dict[str, dict[str, Any]], times: dict[str, float]) -> list[str]:
    """Return a table of means over seeds, a row per recipe."""
    masks = any("mask_AP" in job.row() for job in jobs)
    heads = ["recipe", *FIGURES, *(["mask AP"] if masks else [])]
    heads += ["parameters", "multiply-adds", "ms/image", "training images/s", "minutes"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for recipe in recipes:
        rows = [job.row() for job in jobs if job.recipe == recipe]
        cells = [mean([row[name] for row in rows]) for name in FIGURES]
        if masks:
            cells.append(mean([row.get("mask_AP", math.nan) for row in rows]))
        cost = costs[recipe]
        cells += [f"{cost['parameters'] / 1e6:.2f} M", f"{cost['multiply_adds'] / 1e9:.2f} G", f"{times[recipe]:.1f}"]
        cells += [f"{statistics.mean(row[name] for row in rows):.1f}" for name in ("speed", "minutes")]
        lines.append(f"| {recipe} | " + " | ".join(cells) + " |")
    return lines


def beside(path: Path, epochs: int, seeds: int) -> tuple[list[str], list[str]]:
    """Return the rows of an earlier table and the origin stated in its head. Stops where its setting differs."""
    lines = path.read_text().splitlines()
    if not any(line.startswith(f"- {epochs} epochs, {seeds} seeds") for line in lines):
        raise SystemExit(f"{path}: not of {epochs} epochs and {seeds} seeds; make it anew")
    marks = ("- command:", "- date:", "- machine:", "- versions:")
    head = [line.removeprefix("- ") for line in lines if line.startswith(marks)]
    at = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    return [line for line in lines[at + 1 :] if line.startswith("|")], head


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipes", nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], help="a setting for all runs, as of boxwright train")
    parser.add_argument("--weights", type=Path, help="a checkpoint that all runs start from")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=20, help="for milliseconds per image")
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder, and reuse those it holds")
    parser.add_argument("--title", default="Detectors on the same data")
    parser.add_argument("--note", action="append", default=[], help="a line for the head of the file")
    parser.add_argument("--beside", type=Path, help="an earlier table whose rows go below the new ones")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    keep = args.keep or Path(tempfile.mkdtemp(prefix="compare-"))
    jobs = jobs_of(args, keep)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(Job.run, jobs))
    first = {job.recipe: job.folder for job in reversed(jobs)}
    costs = {name: detector_row(load_checkpoint(path / "last.safetensors").recipe) for name, path in first.items()}
    times = milliseconds(first, args.data, args.device, args.rounds)
    settings = "".join(f" --set '{setting}'" for setting in args.set)
    older, origin = beside(args.beside, args.epochs, len(args.seeds)) if args.beside else ([], [])
    notes = [*args.note, *([f"the last {len(older)} rows are older: {'; '.join(origin)}"] if older else [])]
    lines = [
        f"# {args.title}",
        "",
        f"- command: `python benchmarks/compare.py PATH/TO/{args.data.name} --epochs {args.epochs} --seeds "
        f"{' '.join(map(str, args.seeds))}{settings} --recipes {' '.join(args.recipes)}`",
        *describe(args.device, threads=1 if args.device == "cpu" else None),
        f"- {args.epochs} epochs, {len(args.seeds)} seeds, means ± standard deviation; {args.jobs} runs at a time",
        *(f"- {note}" for note in notes),
        "",
        *table(jobs, args.recipes, costs, times),
        *older,
    ]
    print("\n".join(lines))
    args.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
