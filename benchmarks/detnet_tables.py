"""Small versions of DetNet's tables 1, 3, 4 and that of its projection: one detector, data set and length, four
backbones.

    python benchmarks/detnet_tables.py PATH/TO/bccd --seeds 0 1 2 --keep runs/detnet

detnet-small stands for DetNet-59, resnet17-small for ResNet-50, resnet44-small for ResNet-101: a quarter of the width,
fewer blocks, and multiply-adds in nearly the ratio of the paper's 4.8, 3.8 and 7.6 G. Each is the backbone of an FPN
Faster R-CNN of one recipe, from random weights and pretrained on Imagenette: the files in ``benchmarks/pretrained``,
made by ``benchmarks/pretraining.py``, or those of ``--pretrained NAME=FOLDER ...``.
Every run is one ``boxwright train``, and ``boxwright evaluate`` scores its last weights, so no checkpoint is selected
by the reported split. A finished run in ``--keep FOLDER`` is not repeated. The conclusions at the end are computed: the
mean over seeds of the difference of two runs with the same seed, its standard error, and its significance by Student's
t. Writes results/detnet_tables.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from boxwright.backbones.count import backbone_rows
from boxwright.checkpoints.backbone_files import read_card
from boxwright.data.formats.opening import open_dataset
from boxwright.recipes import get_recipe
from boxwright.structures import InputError
from compare import Job, length, mean, set_arguments
from machine import describe

PAPER = {"detnet-small": "DetNet-59", "resnet17-small": "ResNet-50", "resnet44-small": "ResNet-101"}
PAPER |= {"detnet-small-noproj": "DetNet-59-NoProj"}
GIGA = {"detnet-small": 4.8, "resnet17-small": 3.8, "resnet44-small": 7.6, "detnet-small-noproj": math.nan}
AREAS = ("all", "small", "medium", "large")
IOUS = tuple(range(50, 100, 5))
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Standard errors within which 95 % of chance differences lie, for 2, 3 ... 10 seeds; 1.96 for very many."""
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


def jobs_of(args: argparse.Namespace, keep: Path, settings: list[Setting], files: dict[str, Path]) -> list[Job]:
    """Return all runs, seed by seed, so that an early end leaves whole rounds. ``Job.recipe`` is the name of the
    setting.
    """
    environment = dict(os.environ) if args.device == "cuda" else {**os.environ, "OMP_NUM_THREADS": "1"}
    jobs = []
    for seed in args.seeds:
        for setting in settings:
            folder = keep / f"{setting.name.replace(', ', '-').replace(' ', '-')}-{seed}"
            sets = [f"detector.backbone={setting.backbone}", "validation.loss=false"]
            sets += [*length(get_recipe(args.recipe), args.epochs), *args.set]
            command = [
                sys.executable, "-m", "boxwright", "train", args.recipe, "--data", str(args.data), "--output",
                str(folder), "--seed", str(seed), "--workers", str(args.workers), "--device", args.device,
                *set_arguments(sets),
            ]  # fmt: skip
            if setting.pretrained:
                command += ["--backbone-weights", str(files[setting.backbone])]
            jobs.append(Job(setting.name, seed, folder, command, environment))
    return jobs


def tables_of(job: Job, data: Path, split: str, device: str) -> dict[str, Any]:
    """Return AP and AR by overlap and area of the run's last weights, and keep them beside the weights."""
    kept = job.folder / f"tables-{split}.json"
    if not kept.is_file():
        command = [
            sys.executable, "-m", "boxwright", "evaluate", str(job.folder / "last.safetensors"), "--data", str(data),
            "--split", split, "--device", device, "--json",
        ]  # fmt: skip
        done = subprocess.run(command, env=job.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
        kept.write_text(json.dumps(json.loads(done.stdout)["by_iou"]))
    return json.loads(kept.read_text())


def value(tables: dict[str, Any], metric: str, area: str) -> float:
    """Return one metric (AP, AR, AP50 ... AR95); NaN where the data has no such object."""
    found = tables[metric[:2]][area][metric]
    return math.nan if found is None else found


def overlap_table(metric: str, settings: list[Setting], scores: dict[tuple[str, int], Any]) -> list[str]:
    """Return a table of means over seeds at each overlap, by area: the paper's table 3 (AP) or 4 (AR)."""
    each = [f"{metric}{t}" for t in IOUS]
    heads = ["backbone", "objects", f"{metric} (mean)", *each]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for setting in settings:
        own = [tables for (name, _), tables in scores.items() if name == setting.name]
        for area in AREAS:
            first = [mean([value(tables, metric, area) for tables in own])]
            rest = [mean_alone([value(tables, name, area) for tables in own]) for name in each]
            lines.append(f"| {setting.name} | {area} | " + " | ".join(first + rest) + " |")
    return lines


def mean_alone(values: list[float]) -> str:
    """Return the mean without its spread."""
    return "–" if any(math.isnan(v) for v in values) else f"{statistics.mean(values):.3f}"


def first_table(
    settings: list[Setting], jobs: list[Job], files: dict[str, Path], scores: dict[tuple[str, int], Any]
) -> list[str]:
    """Return the paper's table 1: cost, classification accuracy, AP of the detector."""
    rows = {row["name"]: row for row in backbone_rows()}
    base = rows["detnet-small"]["multiply_adds"] / 4.8
    heads = ["backbone", "stands for", "multiply-adds at 224", "as the paper's G", "paper's G", "parameters", "top-1"]
    heads += ["start", "AP", "AP50", "AP75", "APs", "APm", "APl", "AR", "minutes"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
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
        cells += [mean([value(tables, *figure) for tables in own]) for figure in [*figures, ("AR", "all")]]
        cells.append(f"{statistics.mean(job.row()['minutes'] for job in jobs if job.recipe == setting.name):.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def conclusion(claim: Claim, pretrained: bool, seeds: list[int], scores: dict[tuple[str, int], Any]) -> str | None:
    """Return the conclusion of the runs about a claim; None where runs are missing."""
    names = [Setting(backbone, pretrained).name for backbone in (claim.better, claim.worse)]
    what = claim.metric + ("" if claim.area == "all" else f" of {claim.area} objects")
    head = f"{claim.words[0].upper()}{claim.words[1:]}, {START[pretrained]}: {what}, {claim.better} − {claim.worse}"
    return compared(head, names, claim.metric, claim.area, seeds, scores)


def gain(backbone: str, seeds: list[int], scores: dict[tuple[str, int], Any]) -> str | None:
    """Return the gain by pretraining for a backbone; None where it was not trained both ways."""
    names = [Setting(backbone, start).name for start in (True, False)]
    return compared(f"Pretraining helps {backbone}: AP, pretrained − from scratch", names, "AP", "all", seeds, scores)


def compared(
    head: str, names: list[str], metric: str, area: str, seeds: list[int], scores: dict[tuple[str, int], Any]
) -> str | None:
    """Return the mean difference of two settings over seeds and its significance; None where a run is missing."""
    if any((name, seed) not in scores for name in names for seed in seeds):
        return None
    one, other = ([value(scores[name, seed], metric, area) for seed in seeds] for name in names)
    differences = [a - b for a, b in zip(one, other, strict=True)]
    if any(math.isnan(d) for d in differences):
        return f"- {head}: the data has no such object."
    difference = statistics.mean(differences)
    if len(differences) < 2:
        return f"- {head}: {difference:+.3f} from one seed, which says nothing about chance."
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    margin = STUDENT[min(len(differences) - 2, len(STUDENT) - 1)] * error
    if abs(difference) <= margin:
        verdict = f"undecided: {len(differences)} seeds differ by up to ± {margin:.3f} by chance (95 %)"
    else:
        verdict = "so here (beyond chance at 95 %)" if difference > 0 else "the contrary here (beyond chance at 95 %)"
    return f"- {head}: {difference:+.3f} ± {error:.3f}; {verdict}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=15)
    parser.add_argument("--split", default="val", help="the split to report")
    parser.add_argument("--set", action="append", default=[], help="a setting for all runs, as of boxwright train")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder, and reuse those it holds")
    parser.add_argument("--note", action="append", default=[], help="a line for the head of the file")
    results = Path(__file__).resolve().parents[1] / "results"
    parser.add_argument("--output", type=Path, default=results / "detnet_tables.md")
    args = parser.parse_args()
    keep = args.keep or Path(tempfile.mkdtemp(prefix="detnet-"))
    files = pretrained_files(args.pretrained)
    starts = [start == "pretrained" for start in ("pretrained", "scratch") if start in args.starts]
    settings = [Setting(name, start) for start in starts for name in args.backbones if not start or name in files]
    index = open_dataset(args.data, args.split)
    jobs = jobs_of(args, keep, settings, files)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(Job.run, jobs))
        found = pool.map(lambda job: tables_of(job, args.data, args.split, args.device), jobs)
        scores = {(job.recipe, job.seed): tables for job, tables in zip(jobs, found, strict=True)}
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
        *first_table(settings, jobs, files, scores),
        "",
        "## Table 3: AP by overlap and size",
        "",
        *overlap_table("AP", settings, scores),
        "",
        "## Table 4: AR by overlap and size",
        "",
        *overlap_table("AR", settings, scores),
        "",
        "## What the runs say about the paper's claims",
        "",
        "Differences of two runs of one seed, their mean over the seeds ± its standard error:",
        "",
        *(line for line in said if line is not None),
    ]
    print("\n".join(lines))
    args.output.write_text("\n".join(lines) + "\n")


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
