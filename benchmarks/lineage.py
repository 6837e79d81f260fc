"""Two-stage detectors on the same data: R-CNN, Fast R-CNN, Faster R-CNN, R-FCN, and Mask R-CNN where there are masks.

    python benchmarks/lineage.py PATH/TO/bccd --epochs 15 --seeds 0 1 --keep runs/lineage

Every run is one ``boxwright train``, validated once after its last step. R-CNN and Fast R-CNN are trained and tested on
proposals of selective search, which are made once per split (extra ``selective-search``) and timed separately, on one
thread, with the reading of the image. Milliseconds are per image of the validation split at batch 1, with folded norms
and post-processing, all detectors in turn in one process, on one CPU thread. "With proposals" adds selective search
where a detector needs it. A second table tests the same runs on more proposals. Finished runs and files in ``--keep
FOLDER`` are not repeated, so a long comparison can be made in parts. Writes results/lineage.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boxwright.app.models.counting import detector_row
from boxwright.app.train import training_splits
from boxwright.checkpoints.checkpoint import load_checkpoint
from boxwright.data.index import DetectionIndex
from boxwright.data.proposals.files import read_proposals
from boxwright.data.proposals.selective_search import require_opencv, selective_search
from boxwright.evaluation.proposals import recall_report
from boxwright.recipes import RECIPES, get_recipe
from boxwright.structures import InputError
from compare import Job, length, mean, milliseconds, set_arguments
from machine import describe

LINE = {
    "rcnn-small": "R-CNN",
    "fast-rcnn-small": "Fast R-CNN",
    "faster-rcnn-vgg-small": "Faster R-CNN, VGG",
    "faster-rcnn-c4-small": "Faster R-CNN, C4",
    "faster-rcnn-fpn-small": "Faster R-CNN, FPN",
    "rfcn-resnet-small": "R-FCN",
    "mask-rcnn-small": "Mask R-CNN, FPN",
}
"""Recipes in the order of their papers."""


def chosen(wanted: list[str] | None, index: DetectionIndex) -> tuple[list[str], list[str]]:
    """Return the recipes to run, and a note on each detector that is left out."""
    if wanted is not None:
        return [get_recipe(name).name for name in wanted], []
    notes = [f"{LINE[name]} is left out: there is no recipe `{name}`" for name in LINE if name not in RECIPES]
    recipes = [name for name in LINE if name in RECIPES]
    if not index.has_masks:
        notes += [f"{LINE[name]} is left out: the data has no masks" for name in recipes if needs_masks(name)]
        recipes = [name for name in recipes if not needs_masks(name)]
    return recipes, notes


def needs_masks(recipe: str) -> bool:
    """Return True if the recipe trains on masks."""
    return get_recipe(recipe).data.masks


def needs_proposals(recipe: str) -> bool:
    """Return True if the recipe's detector needs given proposals."""
    return get_recipe(recipe).data.proposals is not None


def proposal_file(keep: Path, split: str) -> Path:
    """Return the path of the proposals of a split."""
    return keep / f"selective-search-{split}.safetensors"


def make_proposals(data: Path, keep: Path, splits: list[str], workers: int) -> None:
    """Make missing proposals by the command line."""
    for split in splits:
        if not proposal_file(keep, split).is_file():
            command = [
                sys.executable, "-m", "boxwright", "proposals", "--data", str(data), "--split", split,
                "--output", str(proposal_file(keep, split)), "--workers", str(workers),
            ]  # fmt: skip
            subprocess.run(command, check=True)


def search_seconds(index: DetectionIndex, images: int) -> float:
    """Return the median seconds of selective search on one thread, over the first ``images``."""
    times = []
    for i in range(min(images, len(index))):
        start = time.perf_counter()
        selective_search(index.path(i))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def jobs_of(args: argparse.Namespace, keep: Path, recipes: list[str], splits: tuple[str, str]) -> list[Job]:
    """Return all runs, seed by seed, so that an early end leaves whole rounds."""
    environment = dict(os.environ) if args.device == "cuda" else {**os.environ, "OMP_NUM_THREADS": "1"}
    jobs = []
    for seed in args.seeds:
        for recipe in recipes:
            folder = keep / f"{recipe}-{seed}"
            settings = ["validation.loss=false", *length(get_recipe(recipe), args.epochs), *args.set]
            if needs_proposals(recipe):
                settings += [
                    f'data.proposals.{part}="{proposal_file(keep, split).resolve()}"'
                    for part, split in zip(("train", "val"), splits, strict=True)
                ]
            command = [
                sys.executable, "-m", "boxwright", "train", recipe, "--data", str(args.data), "--output", str(folder),
                "--seed", str(seed), "--workers", str(args.workers), "--device", args.device,
                "--train-split", splits[0], "--val-split", splits[1], *set_arguments(settings),
            ]  # fmt: skip
            jobs.append(Job(recipe, seed, folder, command, environment))
    return jobs


def table(jobs: list[Job], recipes: list[str], times: dict[str, float], search: float | None) -> list[str]:
    """Return a table with a row per recipe: metrics, cost, and speed relative to the first."""
    masks = any("mask_AP" in job.row() for job in jobs)
    first = next(iter(times))
    total = {name: ms + (1000 * (search or 0) if needs_proposals(name) else 0) for name, ms in times.items()}
    heads = [
        "detector", "recipe", "AP", "AP50", *(["mask AP"] if masks else []), "parameters", "multiply-adds",
        "minutes of training", "ms, network", f"{LINE.get(first, first)} / this", "ms with proposals",
        f"{LINE.get(first, first)} / this, with proposals",
    ]  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    folders = {job.recipe: job.folder for job in reversed(jobs)}
    for recipe in recipes:
        rows = [job.row() for job in jobs if job.recipe == recipe]
        cost = detector_row(load_checkpoint(folders[recipe] / "last.safetensors").recipe)
        cells = [LINE.get(recipe, "–"), f"`{recipe}`"]
        cells += [mean([row[name] for row in rows]) for name in ("AP", "AP50")]
        if masks:
            cells.append(mean([row.get("mask_AP", float("nan")) for row in rows]))
        cells += [
            f"{cost['parameters'] / 1e6:.2f} M",
            f"{cost['multiply_adds'] / 1e9:.2f} G",
            mean([row["minutes"] for row in rows], 1),
            f"{times[recipe]:.1f}",
            f"{times[first] / times[recipe]:.1f}",
            f"{total[recipe]:.1f}",
            f"{total[first] / total[recipe]:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def with_more(jobs: list[Job], count: int, data: Path, split: str, device: str) -> dict[str, list[float]]:
    """Return AP and AP50 of each job's last weights with ``count`` proposals per image, by recipe and metric, and keep
    them.
    """
    found: dict[str, list[float]] = {}
    for job in jobs:
        kept = job.folder / f"stats-{split}-{count}.json"
        if not kept.is_file():
            command = [
                sys.executable, "-m", "boxwright", "evaluate", str(job.folder / "last.safetensors"), "--data",
                str(data), "--split", split, "--device", device, "--set", f"data.proposals.most={count}", "--json",
            ]  # fmt: skip
            done = subprocess.run(command, env=job.environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
            kept.write_text(json.dumps(json.loads(done.stdout)["stats"]))
        stats = json.loads(kept.read_text())
        for name in ("AP", "AP50"):
            found.setdefault(f"{job.recipe} {name}", []).append(stats[name])
    return found


def proposal_table(jobs: list[Job], args: argparse.Namespace, keep: Path, index: DetectionIndex) -> list[str]:
    """Return a table of the gain and cost of more proposals at test for each detector that is given them."""
    given = [job for job in jobs if needs_proposals(job.recipe)]
    recipes = list(dict.fromkeys(job.recipe for job in given))
    with ThreadPoolExecutor(args.jobs) as pool:
        found = pool.map(lambda n: with_more(given, n, args.data, index.name, args.device), args.counts)
        scores = dict(zip(args.counts, found, strict=True))
    recalls = recall_report(read_proposals(proposal_file(keep, index.name)), index, args.counts)
    folders = {job.recipe: job.folder for job in reversed(given)}
    names = {f"{recipe} {count}": (recipe, count) for count in args.counts for recipe in recipes}
    sets = {name: [f"data.proposals.most={count}"] for name, (_, count) in names.items()}
    runs = {name: folders[recipe] for name, (recipe, _) in names.items()}
    times = milliseconds(runs, args.data, args.device, args.rounds, sets)
    heads = [
        "proposals",
        "recall at 0.5",
        "detector",
        "AP",
        "AP50",
        "ms, network",
        f"{LINE.get(recipes[0], recipes[0])} / this",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for recall in recalls:
        first = times[f"{recipes[0]} {recall.count}"]
        for recipe in recipes:
            figures = [mean(scores[recall.count][f"{recipe} {name}"]) for name in ("AP", "AP50")]
            ms = times[f"{recipe} {recall.count}"]
            cells = [f"{recall.count}", f"{recall.recall_50:.3f}", LINE.get(recipe, recipe), *figures, f"{ms:.1f}"]
            lines.append("| " + " | ".join([*cells, f"{first / ms:.1f}"]) + " |")
    return ["", "## More proposals at test", "", *lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipes", nargs="+", help="default: the whole line, as far as the data allows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=float, default=15)
    parser.add_argument("--set", action="append", default=[], help="a setting for all runs, as of boxwright train")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, on a CPU one thread each")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images, of each run")
    parser.add_argument("--rounds", type=int, default=10, help="for milliseconds per image")
    parser.add_argument(
        "--counts", type=int, nargs="*", default=[300, 1000, 2000], help="proposals at test for the second table"
    )
    parser.add_argument("--search-images", type=int, default=10, help="images that selective search is timed on")
    parser.add_argument("--keep", type=Path, help="keep runs and proposals in this folder, and reuse those it holds")
    parser.add_argument("--note", action="append", default=[], help="a line for the head of the file")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parents[1] / "results" / "lineage.md")
    args = parser.parse_args()
    keep = args.keep or Path(tempfile.mkdtemp(prefix="lineage-"))
    keep.mkdir(parents=True, exist_ok=True)
    train_index, val_index = training_splits(args.data)
    if val_index is None:
        raise InputError(f"{args.data}: has no split to validate on")
    recipes, notes = chosen(args.recipes, train_index)
    search = None
    if any(map(needs_proposals, recipes)):
        require_opencv()
        make_proposals(args.data, keep, [train_index.name, val_index.name], args.jobs)
    jobs = jobs_of(args, keep, recipes, (train_index.name, val_index.name))
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(Job.run, jobs))
    if any(map(needs_proposals, recipes)):
        search = search_seconds(val_index, args.search_images)
        images = len(train_index)
        notes.append(
            f"selective search, OpenCV's fast setting: {search:.2f} s an image, {search * images / 60:.1f} minutes for "
            f"the {images} images of training, in no column but the last two"
        )
    times = milliseconds({job.recipe: job.folder for job in reversed(jobs)}, args.data, args.device, args.rounds)
    times = {name: times[name] for name in recipes}
    sets = "".join(f" --set '{setting}'" for setting in args.set)
    if args.counts != parser.get_default("counts"):
        sets += f" --counts {' '.join(map(str, args.counts))}"
    named = f" --recipes {' '.join(args.recipes)}" if args.recipes else ""
    lines = [
        "# The two-stage line on the same data",
        "",
        f"- command: `python benchmarks/lineage.py PATH/TO/{args.data.name} --epochs {args.epochs:g} --seeds "
        f"{' '.join(map(str, args.seeds))}{sets}{named}`",
        *describe(args.device, threads=1 if args.device == "cpu" else None),
        f"- {len(train_index)} images to train on, {len(val_index)} to validate on; {args.epochs:g} epochs, "
        f"{len(args.seeds)} seeds, means ± standard deviation; {args.jobs} runs at a time",
        *(f"- {note}" for note in [*notes, *args.note]),
        "",
        *table(jobs, recipes, times, search),
        *(proposal_table(jobs, args, keep, val_index) if search is not None and args.counts else []),
    ]
    print("\n".join(lines))
    args.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
