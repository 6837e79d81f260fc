"""Compare the line of detectors on the same data: R-CNN, Fast R-CNN, Faster R-CNN, R-FCN, the single-shot ones, and
Mask R-CNN where there are masks.

    python benchmarks/lineage.py PATH/TO/bccd --epochs 12 --recipes rcnn-lite0:3 ssd-lite0 --keep runs/lineage
    python benchmarks/lineage.py PATH/TO/nwpu_vhr10 --epochs 6 --recipes mask-rcnn-lite0-fpn \\
        mask-rcnn-lite0-detnet-fpn --output results/lineage_masks.md

``--line lite0`` (the default) has the recipes on EfficientNet-Lite0 with its ImageNet weights, ``--line small`` the
small networks from random weights; ``--backbone-weights none`` trains the first from random weights too. A recipe may
have its own number of epochs after a colon, and ``--minutes`` gives each recipe as many epochs as it ends in that time
on one core. ``--size`` is for all but SSD, whose layers fit one size, and R-CNN, which reads crops. Every run is one
``boxwright train``, validated once after its last step, and its last weights are evaluated. R-CNN and Fast R-CNN are
trained and tested on proposals of selective search, which are made once per split (extra ``selective-search``) and
timed separately, on one thread, with the reading of the image.
Milliseconds are per image of the validation split at batch 1, with folded norms and post-processing, all detectors in
turn in one process, on one CPU thread. "With proposals" adds selective search where a detector needs it. A second table
tests the same runs on more proposals. Each finished run is kept as a line of the file beside the table, with the suffix
``.jsonl``, and is not repeated; proposals and weights stay in ``--keep FOLDER``. So a long comparison can be made in
parts, and the table is written after each run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boxwright.app.models.counting import detector_row
from boxwright.app.train import training_splits
from boxwright.data.index import DetectionIndex
from boxwright.data.proposals.files import read_proposals
from boxwright.data.proposals.selective_search import require_opencv, selective_search
from boxwright.detectors.rcnn import RCNNConfig
from boxwright.detectors.ssd import SSDConfig
from boxwright.evaluation.proposals import recall_report
from boxwright.recipes import RECIPES, get_recipe
from boxwright.structures import InputError
from machine import describe
from runner.options import (
    asked,
    given,
    keep_folder,
    planned_options,
    rows_beside,
    training_options,
    written_at_end,
)
from runner.plan import Plan, own_lengths
from runner.pool import Place, run_all
from runner.rows import Rows, Values
from runner.tables import markdown, mean, write_lines
from runner.timing import keep_times, milliseconds
from runner.training import BOXWRIGHT, Training, evaluated

LINES = {
    "small": {
        "rcnn-small": "R-CNN",
        "fast-rcnn-small": "Fast R-CNN",
        "faster-rcnn-vgg-small": "Faster R-CNN, VGG",
        "faster-rcnn-c4-small": "Faster R-CNN, C4",
        "faster-rcnn-fpn-small": "Faster R-CNN, FPN",
        "rfcn-resnet-small": "R-FCN",
        "mask-rcnn-small": "Mask R-CNN, FPN",
    },
    "lite0": {
        "rcnn-lite0": "R-CNN",
        "fast-rcnn-lite0": "Fast R-CNN",
        "faster-rcnn-c4-lite0": "Faster R-CNN, one map",
        "faster-rcnn-lite0-fpn": "Faster R-CNN, FPN",
        "rfcn-lite0": "R-FCN",
        "ssd-lite0": "SSD",
        "yolov2-lite0": "YOLOv2",
        "retinanet-lite0": "RetinaNet",
        "refinedet-lite0": "RefineDet",
        "yolov3-lite0": "YOLOv3",
        "mask-rcnn-lite0-fpn": "Mask R-CNN, FPN",
        "mask-rcnn-lite0-detnet-fpn": "Mask R-CNN, FPN on DetNet's idea",
    },
}
"""Recipes of each line with the names of their detectors."""
NAMES = LINES["small"] | LINES["lite0"]


def chosen(wanted: list[str] | None, line: str, index: DetectionIndex) -> tuple[dict[str, float | None], list[str]]:
    """Return the recipes to run with their own epochs, and a note on each detector that is left out.

    Raises InputError for an unknown recipe and an invalid length.
    """
    if wanted is not None:
        return dict(map(own_length, wanted)), []
    names = LINES[line]
    notes = [f"{names[name]} is left out: there is no recipe `{name}`" for name in names if name not in RECIPES]
    recipes = [name for name in names if name in RECIPES]
    if not index.has_masks:
        notes += [f"{names[name]} is left out: the data has no masks" for name in recipes if needs_masks(name)]
        recipes = [name for name in recipes if not needs_masks(name)]
    return dict.fromkeys(recipes), notes


def own_length(word: str) -> tuple[str, float | None]:
    """Parse ``NAME`` or ``NAME:EPOCHS``."""
    name, _, own = word.partition(":")
    try:
        return get_recipe(name).name, float(own) if own else None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"--recipes {word}: give NAME or NAME:EPOCHS") from None


def needs_masks(recipe: str) -> bool:
    """Return True if the recipe trains on masks."""
    return get_recipe(recipe).data.masks


def needs_proposals(recipe: str) -> bool:
    """Return True if the recipe's detector needs given proposals."""
    return get_recipe(recipe).data.proposals is not None


def one_size(recipe: str) -> bool:
    """Return True if ``--size`` is not for the recipe: SSD's layers fit one size, R-CNN takes crops of the image."""
    return isinstance(get_recipe(recipe).detector, SSDConfig | RCNNConfig)


def own_input(run: Training, evaluated: list[int]) -> str:
    """Return what the network reads in words; ``evaluated``: height and width of an image as the recipe resizes it."""
    detector = run.resolved.detector
    if isinstance(detector, RCNNConfig):
        return f"crops of {detector.warp.size} x {detector.warp.size}"
    return f"{evaluated[0]} x {evaluated[1]}"


def proposal_file(keep: Path, data: str, split: str) -> Path:
    """Return the path of the proposals of a split."""
    return keep / f"selective-search-{data}-{split}.safetensors"


def make_proposals(data: Path, keep: Path, splits: list[str], workers: int) -> None:
    """Make missing proposals by the command line."""
    for split in splits:
        if not proposal_file(keep, data.name, split).is_file():
            command = [*BOXWRIGHT, "proposals", "--data", str(data), "--split", split, "--workers", str(workers)]
            subprocess.run([*command, "--output", str(proposal_file(keep, data.name, split))], check=True)


def search_seconds(index: DetectionIndex, images: int) -> float:
    """Return the median seconds of selective search on one thread, over the first ``images``."""
    times = []
    for i in range(min(images, len(index))):
        start = time.perf_counter()
        selective_search(index.path(i))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def runs_of(
    args: argparse.Namespace, keep: Path, recipes: dict[str, float | None], splits: tuple[str, str]
) -> list[Training]:
    """Return all runs, seed by seed, so that an early end leaves whole rounds."""
    proposals = tuple(
        f'data.proposals.{part}="{proposal_file(keep, args.data.name, split)}"'
        for part, split in zip(("train", "val"), splits, strict=True)
    )
    return [
        Training(
            data=args.data,
            recipe=recipe,
            epochs=own or args.epochs,
            seed=seed,
            keep=keep,
            sets=tuple(args.set),
            files=proposals if needs_proposals(recipe) else (),
            backbone_weights=args.backbone_weights,
            size=None if one_size(recipe) else args.size,
            freeze_at=args.freeze_at,
            splits=(splits[1],),
            arguments=("--train-split", splits[0], "--val-split", splits[1]),
            workers=args.workers,
        )
        for seed in args.seeds
        for recipe, own in recipes.items()
    ]


def prepare(runs: list[Training], args: argparse.Namespace, keep: Path, splits: tuple[str, str]) -> None:
    """Make the proposals that ``runs`` need and that are missing."""
    if any(needs_proposals(run.recipe) for run in runs):
        require_opencv()
        make_proposals(args.data, keep, list(splits), args.jobs)


def label(run: Training) -> str:
    """Return the name of a run for ``--only``."""
    return f"{run.recipe}-{run.seed}"


def with_lengths(
    runs: list[Training], recipes: dict[str, float | None], args: argparse.Namespace, plan: Plan
) -> list[Training]:
    """Return the runs as long as ``--minutes`` allows, if they are given and the recipe has no length of its own.

    Runs that ``--only`` leaves out are left out here if nobody has measured their pace.
    """
    if args.minutes is None:
        return runs
    lengths: list[Training] = []
    for run in runs:
        if recipes[run.recipe] is not None:
            lengths.append(run)
        elif asked(label(run), args.only) or plan.known(run):
            lengths += own_lengths([run], args, plan)
    return lengths


def table(runs: list[Training], rows: Rows, split: str, search: float | None) -> list[str]:
    """Return a table with a row per recipe that has a finished run: metrics, cost, and speed relative to the first."""
    found: dict[str, list[tuple[Training, Values]]] = {}
    for run in runs:
        if (values := rows.find(run.key)) is not None:
            found.setdefault(run.recipe, []).append((run, values))
    if not found:
        return ["No run is finished."]
    masks = any("mask_AP" in values[split] for own in found.values() for _, values in own)
    times = {name: next((v["ms"] for _, v in own if "ms" in v), None) for name, own in found.items()}
    total = {
        name: None if ms is None else ms + 1000 * (search or 0) * needs_proposals(name) for name, ms in times.items()
    }
    first = next(iter(found))
    heads = [
        "detector", "recipe", "input", "epochs", "AP", "AP50", *(["mask AP"] if masks else []),
        "parameters", "multiply-adds", "minutes of training", "ms, network", f"{NAMES.get(first, first)} / this",
        "ms with proposals", f"{NAMES.get(first, first)} / this, with proposals",
    ]  # fmt: skip
    lines = []
    for recipe, own in found.items():
        cost = detector_row(own[0][0].resolved)
        cells = [NAMES.get(recipe, "–"), f"`{recipe}`", own_input(own[0][0], cost["input"]), f"{own[0][0].epochs:g}"]
        cells += [mean(values[split][name] for _, values in own) for name in ("AP", "AP50")]
        if masks:
            cells.append(mean(values[split].get("mask_AP") for _, values in own))
        cells += [f"{cost['parameters'] / 1e6:.2f} M", f"{cost['multiply_adds'] / 1e9:.2f} G"]
        cells.append(mean((values["minutes"] for _, values in own), 1))
        for ms in (times, total):
            base, own_ms = ms[first], ms[recipe]
            cells += [mean([own_ms], 1), "–" if base is None or own_ms is None else f"{base / own_ms:.1f}"]
        lines.append(cells)
    return markdown(heads, lines)


def with_more(runs: list[Training], count: int, split: str, device: str) -> dict[str, list[float]]:
    """Return AP and AP50 of each run's last weights with ``count`` proposals per image, by recipe and metric, and keep
    them.
    """
    found: dict[str, list[float]] = {}
    for run in runs:
        kept = run.folder / f"stats-{split}-{count}.json"
        if not kept.is_file():
            what = [str(run.checkpoint), "--set", f"data.proposals.most={count}"]
            kept.write_text(json.dumps(evaluated(what, run.folder, Place(device), run.data, split)))
        stats = json.loads(kept.read_text())
        for name in ("AP", "AP50"):
            found.setdefault(f"{run.recipe} {name}", []).append(stats[name])
    return found


def proposal_table(runs: list[Training], args: argparse.Namespace, keep: Path, index: DetectionIndex) -> list[str]:
    """Return a table of the gain and cost of more proposals at test for each detector that is given them."""
    given_them = [run for run in runs if needs_proposals(run.recipe) and run.checkpoint.is_file()]
    recipes = list(dict.fromkeys(run.recipe for run in given_them))
    if not recipes:
        return []
    with ThreadPoolExecutor(args.jobs) as pool:
        found = pool.map(lambda count: with_more(given_them, count, index.name, args.device), args.counts)
        scores = dict(zip(args.counts, found, strict=True))
    recalls = recall_report(read_proposals(proposal_file(keep, args.data.name, index.name)), index, args.counts)
    files = {run.recipe: run.checkpoint for run in reversed(given_them)}
    names = {f"{recipe} {count}": (recipe, count) for count in args.counts for recipe in recipes}
    sets = {name: [f"data.proposals.most={count}"] for name, (_, count) in names.items()}
    checkpoints = {name: files[recipe] for name, (recipe, _) in names.items()}
    times = milliseconds(checkpoints, args.data, args.device, max(1, args.rounds), sets)
    heads = ["proposals", "recall at 0.5", "detector", "AP", "AP50", "ms, network"]
    heads.append(f"{NAMES.get(recipes[0], recipes[0])} / this")
    lines = []
    for recall in recalls:
        first = times[f"{recipes[0]} {recall.count}"]
        for recipe in recipes:
            figures = [mean(scores[recall.count][f"{recipe} {name}"]) for name in ("AP", "AP50")]
            ms = times[f"{recipe} {recall.count}"]
            cells = [f"{recall.count}", f"{recall.recall_50:.3f}", NAMES.get(recipe, recipe), *figures, f"{ms:.1f}"]
            lines.append([*cells, f"{first / ms:.1f}"])
    return ["", "## More proposals at test", "", *markdown(heads, lines)]


def main() -> None:
    parser = planned_options(training_options(__doc__, "lineage.md", epochs=12))
    parser.add_argument("--line", choices=list(LINES), default="lite0", help="the recipes, unless --recipes names them")
    parser.add_argument("--recipes", nargs="+", metavar="NAME[:EPOCHS]", help="default: the line, as the data allows")
    parser.add_argument("--rounds", type=int, default=10, help="for milliseconds per image; 0 for none")
    parser.add_argument(
        "--counts", type=int, nargs="*", default=[300, 2000], help="proposals at test for the second table"
    )
    parser.add_argument("--search-images", type=int, default=10, help="images that selective search is timed on")
    args = parser.parse_args()
    keep, rows, plan = keep_folder(args, "lineage"), rows_beside(args.output), Plan(args)
    train_index, val_index = training_splits(args.data)
    if val_index is None:
        raise InputError(f"{args.data}: has no split to validate on")
    splits = train_index.name, val_index.name
    recipes, notes = chosen(args.recipes, args.line, train_index)
    runs = runs_of(args, keep, recipes, splits)
    if args.minutes is not None or args.calibrate:
        asked_for = [run for run in runs if asked(label(run), args.only)]
        prepare([run for run in asked_for if not plan.known(run)], args, keep, splits)
    runs = with_lengths(runs, recipes, args, plan)
    wanted = [run for run in runs if asked(label(run), args.only)]
    if args.calibrate:
        plan.tell(wanted, rows)
        return
    prepare([run for run in wanted if rows.find(run.key) is None], args, keep, splits)
    search = None
    if any(needs_proposals(run.recipe) for run in runs):
        require_opencv()
        search = search_seconds(val_index, args.search_images)
        images = len(train_index)
        notes.append(
            f"selective search, OpenCV's fast setting: {search:.2f} s an image, {search * images / 60:.1f} minutes for "
            f"the {images} images of training, in no column but the last two"
        )
    if args.size is not None:
        notes += [f"{NAMES.get(run.recipe, run.recipe)} has an input of its own" for run in runs if run.size is None]
    more: list[str] = []
    length = "epochs" if args.minutes is None else "minutes"
    options = ("line", length, "seeds", "size", "freeze-at", "set", "backbone-weights")

    def write() -> None:
        lines = [
            "# The line of detectors on the same data",
            "",
            f"- command: `python benchmarks/lineage.py PATH/TO/{args.data.name} "
            f"{given(args, *options, 'counts', 'recipes')}`",
            *describe(args.device, threads=1 if args.device == "cpu" else None),
            f"- {len(train_index)} images to train on, {len(val_index)} to validate on; {len(args.seeds)} seeds"
            f"{', means ± standard deviation' if len(args.seeds) > 1 else ''}; {args.jobs} runs at a time",
            *(f"- {note}" for note in [*notes, *args.note]),
            "",
            *table(runs, rows, val_index.name, search),
            *more,
        ]
        write_lines(args.output, lines)

    with written_at_end(write, args.output):
        run_all(wanted, rows, args.jobs, args.device, write)
        keep_times(runs, rows, args.device, args.rounds)
        if search is not None and args.counts:
            more += proposal_table(runs, args, keep, val_index)


if __name__ == "__main__":
    main()
