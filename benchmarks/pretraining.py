"""Pretrain backbones on image classification, for example on Imagenette, for the detectors of other benchmarks.

    python benchmarks/pretraining.py PATH/TO/imagenette --backbones detnet-small resnet17-small detnet59:4 resnet50:4 \\
        --keep runs/pretrained --licence "ImageNet's terms of access" --checkpoints benchmarks/pretrained

A name followed by a colon and a number is trained for that many epochs, the others for ``--epochs``. Every run is one
``boxwright pretrain`` with the preset ``small``, measured on the folder's ``val``. An unfinished run in ``--keep
FOLDER`` is resumed, and a finished one is not repeated. ``--checkpoints FOLDER`` gets a copy of each file under 30 MB.
Writes results/pretraining.md.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from boxwright.backbones.build import named_backbone
from boxwright.backbones.count import backbone_rows
from boxwright.checkpoints.backbone_files import read_card
from boxwright.structures import InputError
from machine import describe

LARGEST = 30_000_000


class Run(NamedTuple):
    """One run: a backbone, its length in epochs, and its folder."""

    name: str
    epochs: float
    folder: Path

    @property
    def file(self) -> Path:
        """The weights file."""
        return self.folder / "backbone.safetensors"


def asked(words: list[str], epochs: float, keep: Path) -> list[Run]:
    """Parse ``NAME`` or ``NAME:EPOCHS``. Raises InputError for an unknown backbone and for an invalid length."""
    runs = []
    for word in words:
        name, _, own = word.partition(":")
        named_backbone(name)
        try:
            runs.append(Run(name, float(own) if own else epochs, keep / name))
        except ValueError:
            raise InputError(f"--backbones {word}: give NAME or NAME:EPOCHS") from None
    return runs


def train(run: Run, args: argparse.Namespace) -> None:
    """Train to the end, from the last state."""
    words = ["--data", str(args.data), "--device", args.device, "--licence", args.licence]
    if (run.folder / "last.train").is_file():
        words += ["--resume", str(run.folder)]
    else:
        words = [run.name, *words, "--preset", "small", "--output", str(run.folder), "--epochs", f"{run.epochs:g}"]
        words += ["--workers", str(args.workers), "--set", f"crops.size={args.size}"]
        words += ["--set", f"crops.eval_size={args.size * 9 // 8}", "--set", f"validate_every={run.epochs / 2:g}"]
    environment = dict(os.environ) if args.device == "cuda" else {**os.environ, "OMP_NUM_THREADS": "1"}
    log = run.folder.with_name(f"{run.name}.log")
    with log.open("a") as file:
        command = [sys.executable, "-m", "boxwright", "pretrain", *words]
        done = subprocess.run(command, env=environment, stdout=file, stderr=file, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{log.read_text()[-2000:]}")
    print(run.name, read_card(run.file)["top1"], flush=True)


def row(run: Run, counts: dict[str, dict[str, float]]) -> str:
    """Return a row of the table from the card and the log of the run."""
    card, count = read_card(run.file), counts[run.name]
    with (run.folder / "train.csv").open() as file:
        speed = statistics.median(float(line["images_per_second"]) for line in csv.DictReader(file))
    epochs = card["recipe"]["epochs"]
    minutes = epochs * card["data"]["images"] / speed / 60
    top = [f"{100 * card[name]:.1f} %" for name in ("top1", "top5")]
    cells = [f"`{run.name}`", f"{count['parameters'] / 1e6:.2f} M", f"{count['multiply_adds'] / 1e9:.3f} G"]
    cells += [f"{epochs:g}", *top, f"{speed:.0f}", f"{minutes:.0f}", f"{run.file.stat().st_size / 1e6:.1f} MB"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbones", nargs="+", default=["detnet-small", "resnet17-small"], metavar="NAME[:EPOCHS]")
    parser.add_argument("--epochs", type=float, default=14)
    parser.add_argument("--size", type=int, default=64, help="side of the crops; measured on 9/8 of it")
    parser.add_argument("--licence", default="", help="of the pictures, for the cards")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each on a CPU")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder, and go on with those it holds")
    parser.add_argument("--checkpoints", type=Path, help="a folder for copies of the files under 30 MB")
    parser.add_argument("--note", action="append", default=[], help="a line for the head of the file")
    results = Path(__file__).resolve().parents[1] / "results"
    parser.add_argument("--output", type=Path, default=results / "pretraining.md")
    args = parser.parse_args()
    keep = args.keep or Path(tempfile.mkdtemp(prefix="pretraining-"))
    keep.mkdir(parents=True, exist_ok=True)
    runs = asked(args.backbones, args.epochs, keep)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda run: train(run, args), runs))
    if args.checkpoints:
        args.checkpoints.mkdir(parents=True, exist_ok=True)
        for run in runs:
            if run.file.stat().st_size < LARGEST:
                shutil.copyfile(run.file, args.checkpoints / f"{run.name}.safetensors")
    counts = {count["name"]: count for count in backbone_rows()}
    card = read_card(runs[0].file)
    heads = ["backbone", "parameters", "multiply-adds at 224", "epochs", "top-1", "top-5", "images a second"]
    heads += ["minutes at that pace", "file"]
    lines = [
        "# Backbones, pretrained",
        "",
        f"- command: `python benchmarks/pretraining.py PATH/TO/{args.data.name} --backbones {' '.join(args.backbones)} "
        f"--epochs {args.epochs:g} --size {args.size}`",
        *describe(args.device, threads=1 if args.device == "cpu" else None),
        f"- {card['data']['images']} pictures in {len(card['classes'])} classes, measured on "
        f"{card['validation_images']} others; preset `small`, crops of {args.size} pixels, one seed",
        "- parameters and multiply-adds as papers count them, with a classifier of 1000 classes",
        *(f"- {note}" for note in args.note),
        "",
        "| " + " | ".join(heads) + " |",
        "|" + "---|" * len(heads),
        *(row(run, counts) for run in runs),
    ]
    print("\n".join(lines))
    args.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
