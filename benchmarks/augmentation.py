"""Compare augmentation, sampling and class weights on small data, one at a time, with the recipe as it is.

    python benchmarks/augmentation.py PATH/TO/bccd PATH/TO/nwpu_vhr10 PATH/TO/coco_mini --recipe retinanet-lite0
    python benchmarks/augmentation.py PATH/TO/bccd --recipe retinanet-lite0 --minutes 8 --seeds 0 1

``default``
    The recipe as it is.
``affine``, ``mixup``, ``copy_paste``
    The transform with its default settings at the end of the list; copy-paste only on sets with masks.
``mosaic``, ``mosaic_closed``
    A mosaic of half of the images before all other transforms; in the second for the first four fifths of the epochs.
``balanced_sampling``
    Images of rare classes more often (``data.sampling.class_balance=auto``); as many images are seen in all.
``class_weights``, ``class_weights_sqrt``
    The classification loss in inverse proportion to the number of objects of a class, or to its root.

All runs of a data set have the same epochs and seeds: those of the table EPOCHS, of ``--epochs``, or with ``--minutes``
as many as the recipe as it is ends within the minutes on one core. So the load of the machine changes no result. They
are validated once, after the last step. Each finished run is kept as a line of results/augmentation.jsonl and is not
repeated, so the table can be made in parts. Writes results/augmentation.md.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from boxwright.config.input_check import fixed_output
from boxwright.data.formats.opening import open_splits
from boxwright.structures import InputError
from machine import describe
from runner.options import asked, given, keep_folder, planned_options, rows_beside, training_options, written_at_end
from runner.plan import Plan
from runner.pool import run_all
from runner.rows import Rows
from runner.tables import FIGURES, defined, markdown, mean, write_lines
from runner.training import Training

EPOCHS = {"bccd": 12.0, "nwpu_vhr10": 12.0, "coco_mini": 8.0}
"""Epochs of a run by the name of the data set's folder."""
CLOSED = 0.2
"""Share of the epochs at the end without mosaic, of ``mosaic_closed``."""
NAMES = {
    "default": "the recipe as it is",
    "affine": "+ affine",
    "mosaic": "+ mosaic",
    "mosaic_closed": "+ mosaic, closed at the end",
    "mixup": "+ mixup",
    "copy_paste": "+ copy-paste",
    "balanced_sampling": "+ class-balanced sampling",
    "class_weights": "+ class weights, balanced",
    "class_weights_sqrt": "+ class weights, square root",
}
NEEDS_MASKS = ("copy_paste",)


def settings(variant: str, base: Training) -> tuple[str, ...]:
    """Return the settings that make a variant of the run ``base``."""
    if variant in ("mosaic", "mosaic_closed"):
        made = fixed_output(base.resolved.data.eval)
        if made is None:
            raise InputError(f"--recipe {base.recipe}: its images have many sizes, and a mosaic needs one; give --size")
        mosaic = f'data.train.+0={{kind = "mosaic", size = {list(made[1])}, p = 0.5}}'
        return (mosaic, *([f"data.close_mosaic={CLOSED * base.epochs:g}"] if variant == "mosaic_closed" else []))
    return {
        "default": (),
        "affine": ("data.train.+=affine",),
        "mixup": ("data.train.+=mixup",),
        "copy_paste": ("data.train.+=copy_paste",),
        "balanced_sampling": ("data.sampling.class_balance=auto",),
        "class_weights": ("class_weights=balanced",),
        "class_weights_sqrt": ("class_weights=sqrt",),
    }[variant]


def variants_of(data: Path, wanted: list[str]) -> list[str]:
    """Return the variants among ``wanted`` that the training set of ``data`` can have; the recipe as it is comes first.

    Raises InputError for data without a split to train on.
    """
    splits = open_splits(data)
    if "train" not in splits:
        raise InputError(f"{data}: has no split train; its splits are {', '.join(splits)}")
    masks = splits["train"].has_masks
    return [name for name in NAMES if name == "default" or (name in wanted and (masks or name not in NEEDS_MASKS))]


def base_of(args: argparse.Namespace, keep: Path, data: Path, plan: Plan) -> Training:
    """Return the run of the recipe as it is on ``data``."""
    base = Training(
        data=data,
        recipe=args.recipe,
        epochs=args.epochs or EPOCHS.get(data.name, 0.0),
        seed=0,
        keep=keep,
        sets=tuple(args.set),
        backbone_weights=args.backbone_weights,
        size=args.size,
        freeze_at=args.freeze_at,
        workers=args.workers,
    )
    if args.minutes is not None:
        return replace(base, epochs=float(plan.epochs([replace(base, epochs=1.0)], args.minutes)))
    if base.epochs <= 0:
        known = ", ".join(EPOCHS)
        raise InputError(f"{data}: has no length in the table EPOCHS ({known}); give --epochs or --minutes")
    return base


def runs_of(args: argparse.Namespace, keep: Path, plan: Plan) -> dict[str, dict[str, list[Training]]]:
    """Return the runs of all seeds by data set and variant."""
    runs: dict[str, dict[str, list[Training]]] = {}
    for data in args.data:
        base = base_of(args, keep, data, plan)
        runs[data.name] = {
            variant: [replace(base, sets=(*base.sets, *settings(variant, base)), seed=seed) for seed in args.seeds]
            for variant in variants_of(data, args.variants)
        }
    return runs


def label(variant: str, run: Training) -> str:
    """Return the name of a run for ``--only``: data, variant and seed."""
    return f"{run.data.name}-{variant}-{run.seed}"


def gain(own: list[dict[str, Any] | None], default: list[dict[str, Any] | None]) -> float | None:
    """Return the mean difference in AP over the seeds that both have; None if there are none."""
    pairs = [(a["AP"], b["AP"]) for a, b in zip(own, default, strict=True) if a is not None and b is not None]
    if defined(value for pair in pairs for value in pair) is None:
        return None
    return statistics.mean(a - b for a, b in pairs)


def section(name: str, runs: dict[str, list[Training]], rows: Rows) -> tuple[list[str], dict[str, float]]:
    """Return the table of a data set, and the gain in AP of each finished variant."""
    found = {variant: [(rows.find(run.key) or {}).get("val") for run in own] for variant, own in runs.items()}
    cells, gains = [], {}
    for variant, own in found.items():
        done = [stats for stats in own if stats is not None]
        if not done:
            continue
        difference = None if variant == "default" else gain(own, found["default"])
        if difference is not None:
            gains[variant] = difference
        told = "–" if difference is None else f"{difference:+.3f}"
        cells.append([NAMES[variant], f"{len(done)}", *(mean(one[figure] for one in done) for figure in FIGURES), told])
    epochs = runs["default"][0].epochs
    heads = ["variant", "seeds", *FIGURES, "difference in AP"]
    return ["", f"## {name}, {epochs:g} epochs", "", *markdown(heads, cells)] if cells else [], gains


def verdicts(gains: dict[str, dict[str, float]]) -> list[str]:
    """Return a table of the gains of each variant over the data sets, and on how many of them it is above 0."""
    lines = []
    for variant in NAMES:
        own = {data: found[variant] for data, found in gains.items() if variant in found}
        if own:
            each = [f"{own[data]:+.3f}" if data in own else "–" for data in gains]
            lines.append([NAMES[variant], *each, f"{sum(value > 0 for value in own.values())} of {len(own)}"])
    return ["", "## Difference in AP", "", *markdown(["variant", *gains, "above 0"], lines)] if lines else []


def main() -> None:
    parser = training_options(__doc__, "augmentation.md", epochs=None, data="+")
    planned_options(parser)
    parser.add_argument("--recipe", required=True, help="such as retinanet-lite0")
    parser.add_argument("--epochs", type=float, help="of all runs; default: those of the table EPOCHS")
    parser.add_argument("--variants", nargs="+", choices=list(NAMES), default=list(NAMES))
    args = parser.parse_args()
    keep, rows, plan = keep_folder(args, "augmentation"), rows_beside(args.output), Plan(args)
    runs = runs_of(args, keep, plan)
    named = [(label(variant, run), run) for own in runs.values() for variant, each in own.items() for run in each]
    wanted = [run for name, run in sorted(named, key=lambda pair: pair[1].seed) if asked(name, args.only)]
    if args.calibrate:
        plan.tell(wanted, rows)
        return
    length = "minutes" if args.minutes is not None else "epochs"

    def write() -> None:
        sections = {name: section(name, own, rows) for name, own in runs.items()}
        lines = [
            "# Augmentation, sampling and class weights, one at a time",
            "",
            f"- command: `python benchmarks/augmentation.py {' '.join(f'PATH/TO/{data.name}' for data in args.data)} "
            f"{given(args, 'recipe', length, 'seeds', 'size', 'freeze-at', 'set', 'backbone-weights')}`",
            *describe(args.device, threads=1 if args.device == "cpu" else None),
            f"- the same epochs and seeds for all runs of a data set, on the split val; {args.jobs} runs at a time",
            *(f"- {note}" for note in args.note),
            *(line for lines, _ in sections.values() for line in lines),
            *verdicts({name: gains for name, (_, gains) in sections.items()}),
        ]
        write_lines(args.output, lines)

    with written_at_end(write, args.output):
        run_all(wanted, rows, args.jobs, args.device, write)


if __name__ == "__main__":
    main()
