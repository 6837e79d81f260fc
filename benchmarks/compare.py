"""Compare detectors on the same data, with the same number of training images and several seeds each.

    python benchmarks/compare.py PATH/TO/bccd --recipes ssd-small ssd-small-modern --output results/one_stage_bccd.md
    python benchmarks/compare.py PATH/TO/nwpu_vhr10 --recipes retinanet-r50-fpn --device cuda --jobs 1 \\
        --weights resnet50.safetensors --output results/nwpu_vhr10.md

Settings of a recipe may be changed for an ablation: ``retinanet-small+detector.loss.gamma=0+detector.loss.alpha=1``.
``--backbone-weights NAME`` or ``none`` gives all runs one start. ``--minutes`` gives all the epochs that the slowest
ends in that time on one core. ``--beside FILE`` adds the rows of an earlier table of
the same data, epochs and seeds below the new ones. ``--by-overlap`` adds DetNet's tables 3 and 4, AP and AR by overlap
and size, and the differences of the first recipe from the others with their standard errors.

Every run is one ``boxwright train``, validated once after its last step, and its last weights are evaluated on the
reported split, so no checkpoint is selected by it. The first stage of a recipe takes ``--epochs``, later stages are
scaled in proportion. On a CPU, ``--jobs`` runs train at the same time with one core each. Each finished run is kept as
a line of the file beside the table, with the name of the table and the suffix ``.jsonl``, and is not repeated, so a
long comparison can be made in parts; the table is written after each. Milliseconds are per image at batch 1, with
folded norms and post-processing, without the making of given proposals. All detectors whose runs are in ``--keep`` are
timed in turn in one process, after the last run; ``--rounds 0`` leaves that out.
"""

from __future__ import annotations

from pathlib import Path

from boxwright.app.models.counting import detector_row
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
from runner.plan import Plan, equal_length
from runner.pool import run_all
from runner.rows import Rows, Values
from runner.tables import FIGURES, difference, markdown, mean, overlap_table, write_lines
from runner.timing import keep_times
from runner.training import Training

CLAIMS = (("AP", "all"), ("AP", "small"), ("AP85", "large"), ("AR50", "small"), ("AR85", "large"))
"""Metrics whose differences are stated: DetNet's claims are that it places large objects better and misses fewer small
ones.
"""


def table(runs: list[Training], rows: Rows, split: str) -> list[str]:
    """Return a table of means over seeds, a row per recipe that has a finished run."""
    found = finished(runs, rows)
    masks = any("mask_AP" in values[split] for own in found.values() for values in own)
    heads = ["recipe", *FIGURES, *(["mask AP"] if masks else [])]
    heads += ["parameters", "multiply-adds", "ms/image", "training images/s", "minutes"]
    lines = []
    for recipe, own in found.items():
        cells = [mean(values[split][name] for values in own) for name in FIGURES]
        if masks:
            cells.append(mean(values[split].get("mask_AP") for values in own))
        first = next(run for run in runs if run.recipe == recipe)
        cost = detector_row(first.resolved)
        cells += [f"{cost['parameters'] / 1e6:.2f} M", f"{cost['multiply_adds'] / 1e9:.2f} G"]
        cells.append(mean([next((values["ms"] for values in own if "ms" in values), None)], 1))
        cells += [mean((values[name] for values in own), 1, spread=False) for name in ("speed", "minutes")]
        lines.append([recipe, *cells])
    return markdown(heads, lines)


def finished(runs: list[Training], rows: Rows) -> dict[str, list[Values]]:
    """Return the values of all finished runs by recipe, in the order of the recipes."""
    found: dict[str, list[Values]] = {}
    for run in runs:
        if (values := rows.find(run.key)) is not None:
            found.setdefault(run.recipe, []).append(values)
    return {recipe: found[recipe] for recipe in dict.fromkeys(run.recipe for run in runs) if recipe in found}


def by_overlap(runs: list[Training], rows: Rows, split: str) -> list[str]:
    """Return AP and AR by overlap and size, and the differences between the first recipe and each other."""
    kept = [(run, rows.find(run.key)) for run in runs]
    scores = {(run.recipe, run.seed): values[split]["by_iou"] for run, values in kept if values is not None}
    recipes = list(dict.fromkeys(run.recipe for run in runs))
    seeds = sorted({run.seed for run in runs})
    lines = []
    for metric in ("AP", "AR"):
        lines += ["", f"## {metric} by overlap and size", "", *overlap_table(metric, recipes, scores, "recipe")]
    lines += ["", "## Differences of two runs of one seed, mean over the seeds ± its standard error", ""]
    for other in recipes[1:]:
        for metric, area in CLAIMS:
            if (told := difference((recipes[0], other), seeds, scores, metric, area)) is not None:
                objects = "" if area == "all" else f" of {area} objects"
                lines.append(f"- {metric}{objects}, {recipes[0]} − {other}: {told}")
    return lines


def beside(path: Path, epochs: float, seeds: int) -> tuple[list[str], list[str]]:
    """Return the rows of an earlier table and the origin stated in its head. Stops where its setting differs."""
    lines = path.read_text().splitlines()
    if not any(line.startswith(f"- {epochs:g} epochs, {seeds} seeds") for line in lines):
        raise SystemExit(f"{path}: not of {epochs:g} epochs and {seeds} seeds; make it anew")
    marks = ("- command:", "- date:", "- machine:", "- versions:")
    head = [line.removeprefix("- ") for line in lines if line.startswith(marks)]
    at = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    return [line for line in lines[at + 1 :] if line.startswith("|")], head


def main() -> None:
    parser = planned_options(training_options(__doc__, None, seeds=(0, 1), epochs=20))
    parser.add_argument("--recipes", nargs="+", required=True)
    parser.add_argument("--weights", type=Path, help="a checkpoint that all runs start from")
    parser.add_argument("--split", default="val", help="the split to report")
    parser.add_argument("--rounds", type=int, default=20, help="for milliseconds per image; 0 for none")
    parser.add_argument("--by-overlap", action="store_true", help="tables by overlap and size, and differences")
    parser.add_argument("--title", default="Detectors on the same data")
    parser.add_argument("--beside", type=Path, help="an earlier table whose rows go below the new ones")
    args = parser.parse_args()
    keep, rows = keep_folder(args, "compare"), rows_beside(args.output)
    runs = [
        Training(
            data=args.data,
            recipe=recipe,
            epochs=args.epochs,
            seed=seed,
            keep=keep,
            sets=tuple(args.set),
            backbone_weights=args.backbone_weights,
            size=args.size,
            freeze_at=args.freeze_at,
            weights=args.weights,
            splits=(args.split,),
            workers=args.workers,
        )
        for seed in args.seeds  # seed by seed, so that an early end leaves whole rounds
        for recipe in args.recipes
    ]
    plan = Plan(args)
    runs = equal_length(runs, args, plan)
    epochs = args.epochs = runs[0].epochs
    wanted = [run for run in runs if asked(f"{run.recipe}-{run.seed}", args.only)]
    if args.calibrate:
        plan.tell(wanted, rows)
        return
    older, origin = beside(args.beside, epochs, len(args.seeds)) if args.beside else ([], [])
    notes = [*args.note, *([f"the last {len(older)} rows are older: {'; '.join(origin)}"] if older else [])]
    shared = ("epochs", "seeds", "size", "freeze-at", "set", "backbone-weights", "weights", "split", "by-overlap")
    options = given(args, *shared, "recipes")

    def write() -> None:
        lines = [
            f"# {args.title}",
            "",
            f"- command: `python benchmarks/compare.py PATH/TO/{args.data.name} {options}`",
            *describe(args.device, threads=1 if args.device == "cpu" else None),
            f"- {epochs:g} epochs, {len(args.seeds)} seeds, means ± standard deviation; {args.jobs} runs at a time",
            *(f"- {note}" for note in notes),
            "",
            *table(runs, rows, args.split),
            *older,
            *(by_overlap(runs, rows, args.split) if args.by_overlap else []),
        ]
        write_lines(args.output, lines)

    with written_at_end(write, args.output):
        run_all(wanted, rows, args.jobs, args.device, write)
        keep_times(runs, rows, args.device, args.rounds)


if __name__ == "__main__":
    main()
