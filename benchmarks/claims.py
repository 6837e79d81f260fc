"""Test claims of the papers on small data, all detectors from the ImageNet weights of one backbone.

    python benchmarks/claims.py PATH/TO/bccd --minutes 8 --keep runs/claims
    python benchmarks/claims.py PATH/TO/bccd --minutes 8 --keep runs/claims --claims detnet --only detnet-2

``refinedet``
    RefineDet's table 3: negative anchor filtering, two-step cascaded regression and transfer connection blocks are
    taken away one after another. Assignment and losses are the paper's.
``focal``
    RetinaNet's table 1b: gamma of the focal loss, each with the alpha that suits it in the paper, two seeds. Assignment
    and losses are the paper's.
``detnet``
    DetNet's tables 3 and 4: AP and AR by overlap and size of Faster R-CNN with FPN on EfficientNet-Lite0 with DetNet's
    strides and on the plain network, three seeds.

All runs of a claim have one number of epochs, which is ``--epochs`` or what the slowest ends within ``--minutes`` on
one core. Every run is one ``boxwright train`` on one thread, validated once after its last step, and its last weights
are evaluated. Each finished run is kept as a line of results/claims.jsonl and is not repeated, so the table can be made
in parts; ``--only`` takes words of CLAIM-ROW-SEED. Writes results/claims.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

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
from runner.training import Training

OVERALL = (("AP", "all"), ("AP50", "all"))


@dataclass(frozen=True)
class Claim:
    """Rows of one table, and the differences that its paper finds."""

    title: str
    rows: dict[str, str]
    """Recipe with its changes, by the name of the row."""
    paper: dict[str, str]
    """The paper's figures of each row."""
    measure: str
    """The metric and data of the paper's figures."""
    gains: tuple[tuple[str, str], ...]
    """Pairs of rows of which the paper finds the first better."""
    metrics: tuple[tuple[str, str], ...] = OVERALL
    """Metrics and sizes of objects of which the differences are stated."""
    settings: tuple[str, ...] = ()
    """Settings of all rows."""
    seeds: tuple[int, ...] = (0,)
    by_overlap: bool = False
    """Add tables of AP and AR by overlap and size."""


_UNFILTERED = "refinedet-lite0+detector.floor=0"
_ONE_STEP = f"{_UNFILTERED}+detector.two_step=false"
_GAMMA = "retinanet-lite0+detector.loss.gamma={}+detector.loss.alpha={}"

CLAIMS = {
    "refinedet": Claim(
        title="RefineDet: what its parts give",
        rows={
            "all": "refinedet-lite0",
            "no-filtering": _UNFILTERED,
            "nor-two-steps": _ONE_STEP,
            "nor-tcb": f"{_ONE_STEP}+detector.tcb=false",
        },
        paper={"all": "80.0", "no-filtering": "79.5", "nor-two-steps": "77.3", "nor-tcb": "76.2"},
        measure="AP50 on VOC 2007, arXiv 1711.06897, table 3",
        gains=(("all", "no-filtering"), ("no-filtering", "nor-two-steps"), ("nor-two-steps", "nor-tcb")),
        settings=(
            "detector.assign.arm=iou",
            'detector.loss.box=["smooth_l1","smooth_l1"]',
            "detector.loss.box_weight=[1,1]",
            "detector.loss.min_negatives=0",
        ),
    ),
    "focal": Claim(
        title="Focal loss: gamma, each with the alpha that suits it in the paper",
        rows={f"gamma-{gamma}": _GAMMA.format(gamma, alpha) for gamma, alpha in ((0, 0.75), (2, 0.25), (5, 0.25))},
        paper={"gamma-0": "31.1", "gamma-2": "34.0", "gamma-5": "32.2"},
        measure="AP on COCO, arXiv 1708.02002, table 1b",
        gains=(("gamma-2", "gamma-0"), ("gamma-2", "gamma-5")),
        settings=(
            "detector.assign.method=iou",
            "detector.loss.classification=focal",
            "detector.loss.box=smooth_l1",
            "detector.loss.box_weight=1",
        ),
        seeds=(0, 1),
    ),
    "detnet": Claim(
        title="DetNet's idea against the plain backbone",
        rows={"detnet": "faster-rcnn-lite0-detnet-fpn", "plain": "faster-rcnn-lite0-fpn"},
        paper={"detnet": "40.2", "plain": "37.9"},
        measure="AP on COCO of DetNet-59 and ResNet-50, arXiv 1804.06215, table 3",
        gains=(("detnet", "plain"),),
        metrics=(*OVERALL, ("AP", "small"), ("AP85", "large"), ("AR50", "small"), ("AR85", "large")),
        seeds=(0, 1, 2),
        by_overlap=True,
    ),
}


def runs_of(args: argparse.Namespace, keep: Path, claim: Claim) -> list[Training]:
    """Return the runs of a claim, seed by seed, so that an early end leaves whole rounds."""
    return [
        Training(
            data=args.data,
            recipe=recipe,
            epochs=args.epochs,
            seed=seed,
            keep=keep,
            sets=(*claim.settings, *args.set),
            backbone_weights=args.backbone_weights,
            size=args.size,
            freeze_at=args.freeze_at,
            workers=args.workers,
        )
        for seed in args.seeds or claim.seeds
        for recipe in claim.rows.values()
    ]


def label(name: str, run: Training) -> str:
    """Return the name of a run of the claim called ``name`` for ``--only``."""
    row = next(row for row, recipe in CLAIMS[name].rows.items() if recipe == run.recipe)
    return f"{name}-{row}-{run.seed}"


def section(claim: Claim, runs: list[Training], rows: Rows) -> list[str]:
    """Return the part of a claim, a row for each that has a finished run; nothing without one."""
    found: dict[str, list[tuple[Training, Values]]] = {}
    for row, recipe in claim.rows.items():
        own = [(run, rows.find(run.key)) for run in runs if run.recipe == recipe]
        if done := [(run, values) for run, values in own if values is not None]:
            found[row] = done
    if not found:
        return []
    heads = ["", "recipe", *FIGURES, f"the paper: {claim.measure}", "seeds", "training images/s", "minutes"]
    lines = []
    for row, own in found.items():
        cells = [mean(values["val"][figure] for _, values in own) for figure in FIGURES]
        cells += [claim.paper[row], f"{len(own)}"]
        cells += [mean((values[name] for _, values in own), 1, spread=False) for name in ("speed", "minutes")]
        lines.append([row, f"`{claim.rows[row]}`", *cells])
    settings = f", {' '.join(f'`--set {setting}`' for setting in runs[0].sets)}" if runs[0].sets else ""
    part = ["", f"## {claim.title}", "", f"{runs[0].epochs:g} epochs{settings}.", "", *markdown(heads, lines)]
    scores = {(row, run.seed): values["val"]["by_iou"] for row, own in found.items() for run, values in own}
    seeds = sorted({run.seed for run in runs})
    told = []
    for pair in claim.gains:
        for metric, area in claim.metrics:
            if (words := difference(pair, seeds, scores, metric, area)) is not None:
                told.append(f"- {metric}{'' if area == 'all' else f' of {area} objects'}, {' − '.join(pair)}: {words}")
    if told:
        part += ["", "Differences that the paper finds to be gains, means over seeds ± standard error:", "", *told]
    for metric in ("AP", "AR") if claim.by_overlap else ():
        part += ["", f"{metric} by overlap and size:", "", *overlap_table(metric, list(found), scores, "backbone")]
    return part


def main() -> None:
    parser = training_options(__doc__, "claims.md", seeds=())
    planned_options(parser, size="192x256")
    parser.add_argument("--claims", nargs="+", choices=list(CLAIMS), default=list(CLAIMS))
    args = parser.parse_args()
    keep, rows, plan = keep_folder(args, "claims"), rows_beside(args.output), Plan(args)
    runs = {name: equal_length(runs_of(args, keep, CLAIMS[name]), args, plan) for name in args.claims}
    wanted = [run for name, own in runs.items() for run in own if asked(label(name, run), args.only)]
    if args.calibrate:
        plan.tell(wanted, rows)
        return
    length = "epochs" if args.minutes is None else "minutes"
    options = ("claims", length, "seeds", "size", "freeze-at", "set", "backbone-weights")

    def write() -> None:
        lines = [
            "# Claims of the papers, tested from ImageNet weights",
            "",
            f"- command: `python benchmarks/claims.py PATH/TO/{args.data.name} {given(args, *options)}`",
            *describe(args.device, threads=1 if args.device == "cpu" else None),
            f"- means ± standard deviation over the seeds, on the split val; {args.jobs} runs at a time",
            *(f"- {note}" for note in args.note),
            *(line for name, own in runs.items() for line in section(CLAIMS[name], own, rows)),
        ]
        write_lines(args.output, lines)

    with written_at_end(write, args.output):
        run_all(wanted, rows, args.jobs, args.device, write)


if __name__ == "__main__":
    main()
