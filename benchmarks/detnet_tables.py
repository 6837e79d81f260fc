"""Small versions of DetNet's tables 1, 3, 4 and that of its projection: one detector, data set and length, four
backbones.

    python benchmarks/detnet_tables.py PATH/TO/bccd --seeds 0 1 2 --keep runs/detnet

detnet-small stands for DetNet-59, resnet17-small for ResNet-50, resnet44-small for ResNet-101: a quarter of the width,
fewer blocks, and multiply-adds in nearly the ratio of the paper's 4.8, 3.8 and 7.6 G. Each is the backbone of an FPN
Faster R-CNN of one recipe, from random weights and pretrained on Imagenette: the files in ``benchmarks/pretrained``,
made by ``benchmarks/pretraining.py``, or those of ``--pretrained NAME=FOLDER ...``.
Every run is one ``boxwright train``, and ``boxwright evaluate`` scores its last weights, so no checkpoint is selected
by the reported split. Finished runs are kept as lines of results/detnet_tables.jsonl, and are not repeated. The
conclusions at the end are computed: the mean over seeds of the difference of two runs with the same seed, its standard
error, and its significance by Student's t. Writes results/detnet_tables.md.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, NamedTuple

from boxwright.backbones.count import backbone_rows
from boxwright.checkpoints.backbone_files import read_card
from boxwright.data.formats.opening import open_dataset
from boxwright.structures import InputError
from machine import describe
from runner.options import keep_folder, rows_beside, training_options
from runner.pool import run_all
from runner.tables import at, difference, markdown, mean, overlap_table, write_lines
from runner.training import Training

PAPER = {"detnet-small": "DetNet-59", "resnet17-small": "ResNet-50", "resnet44-small": "ResNet-101"}
PAPER |= {"detnet-small-noproj": "DetNet-59-NoProj"}
GIGA = {"detnet-small": 4.8, "resnet17-small": 3.8, "resnet44-small": 7.6, "detnet-small-noproj": math.nan}
START = {False: "from scratch", True: "pretrained"}


class Setting(NamedTuple):
    """One row: a backbone and its initial weights."""

    backbone: str
    pretrained: bool

    @property
    def name(self) -> str:
        """Name of the setting in the tables."""
        return f"{self.backbone}, {START[self.pretrained]}"


class Claim(NamedTuple):
    """A claim of the paper: ``metric`` of ``area`` is higher with ``better`` than with ``worse``."""

    words: str
    better: str
    worse: str
    metric: str = "AP"
    area: str = "all"


CLAIMS = (
    Claim("DetNet finds more than the cheaper ResNet (table 1)", "detnet-small", "resnet17-small"),
    Claim("DetNet finds more than the deeper, dearer ResNet (table 1)", "detnet-small", "resnet44-small"),
    Claim("it places large objects better (table 3)", "detnet-small", "resnet17-small", "AP85", "large"),
    Claim("it misses fewer small objects (table 4)", "detnet-small", "resnet17-small", "AR50", "small"),
    Claim("the projection of stage 6 helps", "detnet-small", "detnet-small-noproj"),
)


def pretrained_files(pairs: list[str]) -> dict[str, Path]:
    """Return the files of ``boxwright pretrain``, given as ``NAME=FOLDER`` or ``NAME=FILE``, for the backbones of the
    tables.
    """
    files = {}
    for pair in pairs:
        name, _, path = pair.partition("=")
        if name not in PAPER or not path:
            raise InputError(f"--pretrained {pair}: give NAME=FOLDER with a name among {', '.join(PAPER)}")
        file = Path(path) / "backbone.safetensors" if Path(path).is_dir() else Path(path)
        read_card(file)
        files[name] = file
    return files


def runs_of(
    args: argparse.Namespace, keep: Path, settings: list[Setting], files: dict[str, Path]
) -> list[tuple[Setting, Training]]:
    """Return all runs, seed by seed, so that an early end leaves whole rounds."""
    return [
        (
            setting,
            Training(
                data=args.data,
                recipe=args.recipe,
                epochs=args.epochs,
                seed=seed,
                keep=keep,
                sets=(f"detector.backbone={setting.backbone}", *args.set),
                backbone_weights=str(files[setting.backbone]) if setting.pretrained else None,
                splits=(args.split,),
                workers=args.workers,
            ),
        )
        for seed in args.seeds
        for setting in settings
    ]


def first_table(
    settings: list[Setting], minutes: dict[str, list[float]], files: dict[str, Path], scores: dict[tuple[str, int], Any]
) -> list[str]:
    """Return the paper's table 1: cost, classification accuracy, AP of the detector."""
    rows = {row["name"]: row for row in backbone_rows()}
    base = rows["detnet-small"]["multiply_adds"] / 4.8
    heads = ["backbone", "stands for", "multiply-adds at 224", "as the paper's G", "paper's G", "parameters", "top-1"]
    heads += ["start", "AP", "AP50", "AP75", "APs", "APm", "APl", "AR", "minutes"]
    lines = []
    for setting in settings:
        row = rows[setting.backbone]
        own = [tables for (name, _), tables in scores.items() if name == setting.name]
        card = read_card(files[setting.backbone]) if setting.pretrained else {"top1": None}
        giga = GIGA[setting.backbone]
        cells = [setting.backbone, PAPER[setting.backbone], f"{row['multiply_adds'] / 1e6:.0f} M"]
        cells += [f"{row['multiply_adds'] / base:.2f}", "–" if math.isnan(giga) else f"{giga}"]
        cells += [f"{row['parameters'] / 1e6:.2f} M", "–" if card["top1"] is None else f"{100 * card['top1']:.1f} %"]
        cells.append(START[setting.pretrained])
        figures = [("AP", "all"), ("AP50", "all"), ("AP75", "all"), ("AP", "small"), ("AP", "medium"), ("AP", "large")]
        cells += [mean([at(tables, *figure) for tables in own]) for figure in [*figures, ("AR", "all")]]
        lines.append([*cells, mean(minutes.get(setting.name, []), 1, spread=False)])
    return markdown(heads, lines)


def conclusion(claim: Claim, pretrained: bool, seeds: list[int], scores: dict[tuple[str, int], Any]) -> str | None:
    """Return the conclusion of the runs about a claim; None where runs are missing."""
    names = [Setting(backbone, pretrained).name for backbone in (claim.better, claim.worse)]
    what = claim.metric + ("" if claim.area == "all" else f" of {claim.area} objects")
    head = f"{claim.words[0].upper()}{claim.words[1:]}, {START[pretrained]}: {what}, {claim.better} − {claim.worse}"
    return stated(head, names, claim.metric, claim.area, seeds, scores)


def gain(backbone: str, seeds: list[int], scores: dict[tuple[str, int], Any]) -> str | None:
    """Return the gain by pretraining for a backbone; None where it was not trained both ways."""
    names = [Setting(backbone, start).name for start in (True, False)]
    return stated(f"Pretraining helps {backbone}: AP, pretrained − from scratch", names, "AP", "all", seeds, scores)


def stated(
    head: str, names: list[str], metric: str, area: str, seeds: list[int], scores: dict[tuple[str, int], Any]
) -> str | None:
    """Return a conclusion: the mean difference of two settings and its significance; None where a run is missing."""
    told = difference((names[0], names[1]), seeds, scores, metric, area)
    return None if told is None else f"- {head}: {told}"


def main() -> None:
    parser = training_options(__doc__, "detnet_tables.md", seeds=(0, 1, 2), epochs=15)
    kept = Path(__file__).parent / "pretrained"
    parser.add_argument(
        "--pretrained",
        nargs="*",
        default=[f"{name}={kept / name}.safetensors" for name in PAPER],
        metavar="NAME=FOLDER",
    )
    parser.add_argument("--backbones", nargs="+", choices=list(PAPER), default=list(PAPER))
    parser.add_argument("--starts", nargs="+", choices=["scratch", "pretrained"], default=["scratch", "pretrained"])
    parser.add_argument(
        "--recipe", default="faster-rcnn-detnet-small-fpn", help="an FPN recipe; its backbone is changed"
    )
    parser.add_argument("--split", default="val", help="the split to report")
    args = parser.parse_args()
    keep = keep_folder(args, "detnet")
    files = pretrained_files(args.pretrained)
    starts = [start == "pretrained" for start in ("pretrained", "scratch") if start in args.starts]
    settings = [Setting(name, start) for start in starts for name in args.backbones if not start or name in files]
    index = open_dataset(args.data, args.split)
    runs, rows = runs_of(args, keep, settings, files), rows_beside(args.output)
    run_all([run for _, run in runs], rows, args.jobs, args.device)
    scores, minutes = {}, {}
    for setting, run in runs:
        values = rows.find(run.key) or {}
        scores[setting.name, run.seed] = values[args.split]["by_iou"]
        minutes.setdefault(setting.name, []).append(values["minutes"])
    said = [conclusion(claim, start, args.seeds, scores) for start in starts for claim in CLAIMS]
    said += [gain(name, args.seeds, scores) for name in args.backbones]
    sets = "".join(f" --set '{setting}'" for setting in args.set)
    named = " ".join(f"{name}=FOLDER" for name in files)
    given = "" if args.pretrained == parser.get_default("pretrained") else f" --pretrained {named}".rstrip()
    lines = [
        "# DetNet's tables, small",
        "",
        f"- command: `python benchmarks/detnet_tables.py PATH/TO/{args.data.name} --recipe {args.recipe} --epochs "
        f"{args.epochs:g} --seeds {' '.join(map(str, args.seeds))} --split {args.split}{sets}{given}`",
        *describe(args.device, threads=1 if args.device == "cpu" else None),
        f"- {args.epochs:g} epochs of one recipe, {len(args.seeds)} seeds, means ± standard deviation over them; "
        f"{len(index)} images of the split {args.split}; {args.jobs} runs at a time",
        *(f"- {name}: {pretraining(file)}" for name, file in files.items()),
        *(f"- {note}" for note in args.note),
        "",
        "## Table 1: cost and precision",
        "",
        *first_table(settings, minutes, files, scores),
        "",
        "## Table 3: AP by overlap and size",
        "",
        *overlap_table("AP", [setting.name for setting in settings], scores, "backbone"),
        "",
        "## Table 4: AR by overlap and size",
        "",
        *overlap_table("AR", [setting.name for setting in settings], scores, "backbone"),
        "",
        "## What the runs say about the paper's claims",
        "",
        "Differences of two runs of one seed, their mean over the seeds ± its standard error:",
        "",
        *(line for line in said if line is not None),
    ]
    write_lines(args.output, lines)
    print("\n".join(lines))


def pretraining(file: Path) -> str:
    """Describe a pretrained backbone by its card."""
    card = read_card(file)
    recipe = card["recipe"]
    top = "" if card["top1"] is None else f", top-1 {100 * card['top1']:.1f} %, top-5 {100 * card['top5']:.1f} %"
    return (
        f"pretrained on {card['data']['images']} images of {card['data']['name']} in {len(card['classes'])} classes, "
        f"{recipe['epochs']:g} epochs at {recipe['crops']['size']} pixels{top}"
    )


if __name__ == "__main__":
    main()
