"""Train neck and head on drawn scenes, and compare fine-tuning from them with a start from ImageNet weights alone.

    python benchmarks/detection_start.py PATH/TO/bccd PATH/TO/nwpu_vhr10 PATH/TO/coco_mini --sizes 192x256 320 320 \\
        --recipe retinanet-lite0 --start-minutes 20 --minutes 8 --keep runs/start

The backbone of the start is frozen at its ImageNet weights, so the file of the start, in ``--keep``, holds only the
other tensors, in bf16, without the rows of the classes of scenes. Both runs on a data set begin with the ImageNet
weights of the backbone and have the same number of epochs, ``--epochs`` or what ends within ``--minutes`` on one core.
All are validated once after their last step. Each finished run is kept as a line of results/detection_start.jsonl and
is not repeated; ``--only`` takes words of DATA-START-SEED. Writes results/detection_start.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from boxwright.backbones.efficientnet_lite import EfficientNetLiteConfig
from boxwright.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from boxwright.data.scenes import SceneConfig, write_scenes
from boxwright.detectors.build import build_detector
from boxwright.recipes import get_recipe
from boxwright.structures import InputError
from machine import describe
from runner.options import asked, given, keep_folder, planned_options, rows_beside, training_options, written_at_end
from runner.plan import Plan, equal_length
from runner.pool import run_all
from runner.rows import Rows
from runner.tables import defined, markdown, mean, write_lines
from runner.training import Training

SHOWN = ("AP", "AP50", "AP75")
GAIN = 0.01
"""Gain in AP on a data set that is worth shipping the start for."""


@dataclass(frozen=True)
class Ways:
    """Runs on one data set by start, a run for each seed."""

    data: Path
    plain: list[Training]
    scenes: list[Training]


def scenes_folder(args: argparse.Namespace, keep: Path) -> Path:
    """Return the folder of drawn scenes, which are drawn unless they are there."""
    folder = keep / f"scenes-{args.scenes}"
    if not folder.is_dir():
        # Shapes alone tell most classes apart, in any size.
        config = SceneConfig(objects=(2, 12), common=(0.08, 0.5), typical=0.5)
        write_scenes(folder, {"train": args.scenes, "val": 100}, config=config)
    return folder


def last_level(recipe: str) -> int:
    """Return the last level of a recipe's backbone. Raises InputError unless it is EfficientNet-Lite."""
    backbone = get_recipe(recipe).detector.backbone
    if not isinstance(backbone, EfficientNetLiteConfig):
        raise InputError(f"--recipe {recipe}: give one on EfficientNet-Lite, such as retinanet-lite0")
    return max(backbone.out_levels)


def start_run(args: argparse.Namespace, keep: Path) -> Training:
    """Return the run on drawn scenes, at the recipe's own size, with the whole backbone frozen."""
    return Training(
        data=scenes_folder(args, keep),
        recipe=args.recipe,
        epochs=args.start_epochs,
        seed=0,
        keep=keep,
        sets=tuple(args.set),
        freeze_at=last_level(args.recipe),
        workers=args.workers,
    )


def neck_and_head(checkpoint: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint that are neither the backbone's nor of its classes, in bf16."""
    found = load_checkpoint(checkpoint)
    classes = build_detector(found.detector, found.classes).class_rows()
    return {
        name: value.to(torch.bfloat16) if value.is_floating_point() else value
        for name, value in found.state.items()
        if not name.startswith("backbone.") and name not in classes
    }


def write_start(run: Training, file: Path) -> None:
    """Write the start that a finished run on scenes gives."""
    found = load_checkpoint(run.checkpoint)
    save_checkpoint(file, neck_and_head(run.checkpoint), found.recipe, found.classes, found.meta)


def ways_of(args: argparse.Namespace, keep: Path, start: Path) -> list[Ways]:
    """Return the runs on the data sets."""
    found = []
    for data, size in zip(args.data, args.sizes or [None] * len(args.data), strict=True):
        plain = [
            Training(
                data=data,
                recipe=args.recipe,
                epochs=args.epochs,
                seed=seed,
                keep=keep,
                sets=tuple(args.set),
                backbone_weights=get_recipe(args.recipe).backbone_weights,
                size=size,
                freeze_at=args.freeze_at,
                workers=args.workers,
            )
            for seed in args.seeds
        ]
        found.append(Ways(data, plain, [replace(run, weights=start) for run in plain]))
    return found


def table(ways: list[Ways], rows: Rows) -> tuple[list[str], list[float]]:
    """Return a table with a row per data set that has a finished run, and the gains in AP."""
    heads = [
        "data",
        "epochs",
        *(f"{metric}, {name}" for name in ("ImageNet", "scenes") for metric in SHOWN),
        "gain in AP",
    ]
    lines, gains = [], []
    for way in ways:
        own = [[values["val"] for run in runs if (values := rows.find(run.key))] for runs in (way.plain, way.scenes)]
        if not any(own):
            continue
        cells = [mean(one[metric] for one in scores) for scores in own for metric in SHOWN]
        plain, scenes = (defined(one["AP"] for one in scores) for scores in own)
        gain = None if plain is None or scenes is None else sum(scenes) / len(scenes) - sum(plain) / len(plain)
        gains += [] if gain is None else [gain]
        lines.append([way.data.name, f"{way.plain[0].epochs:g}", *cells, "–" if gain is None else f"{gain:+.3f}"])
    return markdown(heads, lines), gains


def label(run: Training) -> str:
    """Return the name of a run on a data set for ``--only``."""
    return f"{run.data.name}-{'imagenet' if run.weights is None else 'scenes'}-{run.seed}"


def main() -> None:
    parser = planned_options(
        training_options(__doc__, "detection_start.md", epochs=12, data="+", choose_start=False), sizes=True
    )
    parser.add_argument("--recipe", required=True, help="a recipe on ImageNet weights")
    parser.add_argument("--scenes", type=int, default=3000, help="drawn scenes that the start is trained on")
    parser.add_argument("--start-epochs", type=float, default=6, help="length of the start's own training")
    parser.add_argument("--start-minutes", type=float, help="the same by time on one core, as --minutes")
    args = parser.parse_args()
    last_level(args.recipe)
    if args.sizes and len(args.sizes) != len(args.data):
        raise InputError(f"--sizes {' '.join(args.sizes)}: give one for each of the {len(args.data)} data sets")
    keep, rows, plan = keep_folder(args, "start"), rows_beside(args.output), Plan(args)
    pretrain = start_run(args, keep)
    if args.start_minutes is not None:
        pretrain = replace(pretrain, epochs=float(plan.epochs([pretrain], args.start_minutes)))
    start = keep / f"start-{pretrain.folder.name}.safetensors"
    ways = [
        Ways(way.data, equal_length(way.plain, args, plan), equal_length(way.scenes, args, plan))
        for way in ways_of(args, keep, start)
    ]
    tuning = [
        run for number in range(len(args.seeds)) for way in ways for run in (way.plain[number], way.scenes[number])
    ]
    wanted = [run for run in tuning if asked(label(run), args.only)]
    if args.calibrate:
        plan.tell([pretrain, *wanted], rows)
        return

    def write() -> None:
        own, (cells, gains) = rows.find(pretrain.key), table(ways, rows)
        options = (
            "recipe",
            "scenes",
            "seeds",
            "sizes",
            "freeze-at",
            "set",
            "epochs" if args.minutes is None else "minutes",
        )
        lines = [
            "# A start of neck and head that was trained on drawn scenes",
            "",
            f"- command: `python benchmarks/detection_start.py "
            f"{' '.join(f'PATH/TO/{data.name}' for data in args.data)} {given(args, *options)} "
            f"--start-epochs {pretrain.epochs:g}`",
            *describe(args.device, threads=1 if args.device == "cpu" else None),
            f"- {len(args.seeds)} seeds, means ± standard deviation, on the split val; {args.jobs} runs at a time",
            *(f"- {note}" for note in args.note),
        ]
        if own is not None and start.is_file():
            lines += [
                f"- start: {args.scenes} scenes, {pretrain.epochs:g} epochs, {own['minutes']:.1f} minutes, AP "
                f"{own['val']['AP']:.3f} on 100 other scenes; {start.stat().st_size / 1e6:.2f} MB in bf16"
            ]
        lines += ["", *cells, ""]
        better = sum(gain >= GAIN for gain in gains)
        lines.append(f"At least {GAIN} AP better on {better} of {len(gains)} data sets.")
        write_lines(args.output, lines)

    with written_at_end(write, args.output):
        if not start.is_file():
            if not pretrain.checkpoint.is_file() or rows.find(pretrain.key) is None:
                rows.add(pretrain.key, pretrain.measure(plan.place))
            write_start(pretrain, start)
        run_all(wanted, rows, args.jobs, args.device, write)


if __name__ == "__main__":
    main()
