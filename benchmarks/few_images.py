"""AP against the number of training images, from ImageNet weights and from random weights.

    python benchmarks/few_images.py PATH/TO/bccd --recipe retinanet-lite0 --counts 25 50 100 200 --keep runs/few

Each run sees ``--seen`` images in all, whatever their number: fewer images are seen more often, in the same time.
``--minutes`` chooses them by the pace on one core. A larger part of the training split holds every smaller one. All
runs are validated on the whole split ``val``, once, after the last step. ``--freeze-at`` is for the runs from ImageNet
weights; random weights are all trained. Each finished run is kept as a line of results/few_images.jsonl and is not
repeated. Writes results/few_images.md and, beside it, the figure few_images.png.
"""

from __future__ import annotations

import argparse
import io
import statistics
from dataclasses import replace
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from boxwright.data.formats.opening import open_splits
from boxwright.io.files import write_atomically
from boxwright.recipes import get_recipe
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
from runner.plan import Plan
from runner.pool import run_all
from runner.rows import Rows
from runner.subsets import subset
from runner.tables import defined, markdown, mean, write_lines
from runner.training import Training

STARTS = {"start": None, "scratch": "none"}
"""Value of --backbone-weights by the name of the start; None is the recipe's."""
SHOWN = ("AP", "AP50", "AP75")


def scores(runs: dict[tuple[int, str], list[Training]], rows: Rows) -> dict[tuple[int, str], list[dict[str, float]]]:
    """Return the metrics of the finished runs by number of images and start."""
    found = {place: [rows.find(run.key) for run in own] for place, own in runs.items()}
    return {place: [values["val"] for values in own if values is not None] for place, own in found.items()}


def table(found: dict[tuple[int, str], list[dict[str, float]]], names: dict[str, str]) -> list[str]:
    """Return a table with a row per number of images, and the gain by the start."""
    heads = ["images", *(f"{metric}, {names[start]}" for start in names for metric in SHOWN), "gain in AP"]
    lines = []
    for count in sorted({count for count, _ in found}):
        cells = [mean(one[metric] for one in found[count, start]) for start in names for metric in SHOWN]
        first, second = (defined(one["AP"] for one in found[count, start]) for start in STARTS)
        gain = "–" if first is None or second is None else f"{statistics.mean(first) - statistics.mean(second):+.3f}"
        lines.append([f"{count}", *cells, gain])
    return markdown(heads, lines)


def plot(found: dict[tuple[int, str], list[dict[str, float]]], names: dict[str, str], title: str) -> bytes:
    """Return a PNG of AP against the number of images, a line per start; each seed is a dot."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    counts = sorted({count for count, _ in found})
    for start, name in names.items():
        points = [(count, one["AP"]) for count in counts for one in found[count, start]]
        if not points:
            continue
        own = sorted({count for count, _ in points})
        means = [statistics.mean(ap for other, ap in points if other == count) for count in own]
        (line,) = axes.plot(own, means, label=name)
        axes.scatter(*zip(*points, strict=True), s=14, color=line.get_color())
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set(xlabel="training images", ylabel="AP", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)
    return png.getvalue()


def label(run: Training) -> str:
    """Return the name of a run for ``--only``: data, start and seed."""
    start = next(name for name, weights in STARTS.items() if weights == run.backbone_weights)
    return f"{run.name}-{start}-{run.seed}"


def runs_of(args: argparse.Namespace, keep: Path, seen: int) -> dict[tuple[int, str], list[Training]]:
    """Return the runs of all seeds by number of images and start."""
    runs: dict[tuple[int, str], list[Training]] = {}
    for seed in args.seeds:
        for count in args.counts:
            name = f"{args.data.name}-{count}"
            data = subset(args.data, keep / "data" / name, {"train": count, "val": None})
            for start in STARTS:
                run = replace(whole(args, keep, start, seen / count), data=data, name=name, seed=seed)
                runs.setdefault((count, start), []).append(run)
    return runs


def whole(args: argparse.Namespace, keep: Path, start: str, epochs: float) -> Training:
    """Return a run on all images."""
    return Training(
        data=args.data,
        recipe=args.recipe,
        epochs=round(epochs, 3),
        seed=0,
        keep=keep,
        sets=tuple(args.set),
        backbone_weights=STARTS[start],
        size=args.size,
        freeze_at=args.freeze_at if start == "start" else 0,
        workers=args.workers,
    )


def main() -> None:
    parser = training_options(__doc__, "few_images.md", choose_start=False, epochs=None)
    planned_options(parser, size="192x256")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[25, 50, 100, 200], help="training images")
    parser.add_argument("--seen", type=int, default=4000, help="images that each run sees, the same ones again")
    args = parser.parse_args()
    recipe, images = get_recipe(args.recipe), len(open_splits(args.data)["train"])
    if max(args.counts) > images or min(args.counts) < 1:
        raise InputError(f"--counts {' '.join(map(str, args.counts))}: the split train has {images} images")
    keep, rows, plan = keep_folder(args, "few"), rows_beside(args.output), Plan(args)
    seen = args.seen
    if args.minutes is not None:
        seen = images * plan.epochs([whole(args, keep, start, 1) for start in STARTS], args.minutes)
    runs = runs_of(args, keep, seen)
    wanted = [run for own in runs.values() for run in own if asked(label(run), args.only)]
    wanted.sort(key=lambda run: run.seed)  # seed by seed, so that an early end leaves whole rounds
    if args.calibrate:
        plan.tell(wanted, rows, lambda run: replace(run, data=args.data, name="", epochs=seen / images))
        return
    names = {"start": f"from {recipe.backbone_weights}", "scratch": "from random weights"}

    def write() -> None:
        found = scores(runs, rows)
        lines = [
            "# AP against the number of training images",
            "",
            f"- command: `python benchmarks/few_images.py PATH/TO/{args.data.name} "
            f"{given(args, 'recipe', 'counts', 'seeds', 'size', 'freeze-at', 'set')} --seen {seen}`",
            *describe(args.device, threads=1 if args.device == "cpu" else None),
            f"- {seen} images seen by each run, {len(args.seeds)} seeds, means ± standard deviation, on the whole "
            f"split val; {args.jobs} runs at a time",
            *(f"- {note}" for note in args.note),
            "",
            *table(found, names),
            "",
            f"![AP against the number of training images]({args.output.with_suffix('.png').name})",
        ]
        write_lines(args.output, lines)
        write_atomically(args.output.with_suffix(".png"), plot(found, names, f"{args.data.name}, {args.recipe}"))

    with written_at_end(write, args.output):
        run_all(wanted, rows, args.jobs, args.device, write)


if __name__ == "__main__":
    main()
