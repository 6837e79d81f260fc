"""Effect of R-CNN's different labels for its network and for its SVMs (appendix B), on any data set, on a CPU.

    python benchmarks/rcnn_labels.py PATH/TO/bccd --seeds 0 1 --output results/rcnn_labels.md

Proposals of selective search are made once. Each recipe is one ``boxwright train`` with one thread, validated after
every stage: by the softmax after fine-tuning, by the SVMs, and with regressed boxes. The recipes share seeds, network,
data and length and differ only in labels, so two rows with the same labels of fine-tuning have the same first column.
``--keep FOLDER`` keeps the runs and resumes from them.
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

from boxwright.data.formats.opening import open_splits
from boxwright.recipes import get_recipe
from machine import describe

LABELS = {
    "": ("IoU of 0.5 or more", "annotated boxes; background below 0.3"),
    "-svm-overlap": ("IoU of 0.5 or more", "IoU of 0.5 or more; background below 0.5"),
    "-tune-truth": ("annotated boxes; background below 0.3", "annotated boxes; background below 0.3"),
    "-softmax": ("IoU of 0.5 or more", "none"),
}
"""Positives of the network and of the SVMs, by the end of a recipe's name."""


def boxwright(words: list[str], log: Path) -> None:
    """Run a command with its output in ``log``; exit with the end of the log where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        done = subprocess.run([sys.executable, "-m", "boxwright", *words], env=environment, stdout=file, stderr=file)
    if done.returncode:
        raise SystemExit(f"boxwright {' '.join(words)}\n{log.read_text()[-2000:]}")


def make_proposals(data: Path, most: int, keep: Path) -> dict[str, str]:
    """Return the settings for the proposal files of both splits, which are made if missing."""
    splits = open_splits(data)
    chosen = {"train": "train", "val": next(name for name in ("val", "test") if name in splits)}
    settings = {}
    for role, split in chosen.items():
        file = keep / f"proposals-{split}-{most}.safetensors"
        if not file.is_file():
            words = ["proposals", "--data", str(data), "--split", split, "--most", str(most), "--output", str(file)]
            boxwright(words, keep / f"proposals-{split}.log")
        settings[f"data.proposals.{role}"] = json.dumps(str(file))
    return settings


def train(recipe: str, seed: int, data: Path, settings: dict[str, str], epochs: float | None, keep: Path) -> None:
    """Train one run, unless the folder has it finished."""
    run = keep / f"{recipe}-{seed}"
    if (run / "seconds.json").is_file():
        return
    words = ["train", recipe, "--data", str(data), "--output", str(run), "--seed", str(seed), "--device", "cpu"]
    words += ["--workers", "0", *([] if epochs is None else ["--epochs", str(epochs)])]
    words += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    start = time.monotonic()
    boxwright(words, keep / f"{recipe}-{seed}.log")
    (run / "seconds.json").write_text(json.dumps(time.monotonic() - start))
    print(recipe, seed, [round(row["AP50"], 3) for row in validations(run)], flush=True)


def validations(run: Path) -> list[dict[str, float]]:
    """Return the validation after each stage, in order."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    recipe = json.loads((run / "recipe.json").read_text())
    return [row for row in rows if row["kind"] == "validation"][-len(recipe["stages"]) :]


def cell(values: list[float]) -> str:
    """Return mean and standard deviation."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def table(base: str, endings: list[str], seeds: list[int], keep: Path) -> list[str]:
    """Return a table with a row per labelling, AP50 after each stage and AP at the end."""
    heads = ["positives of fine-tuning", "positives of the SVMs", "AP50, softmax", "AP50, SVMs", "AP50, with boxes"]
    heads += ["AP, with boxes", "minutes"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for ending in endings:
        labels = LABELS[ending]
        runs = [keep / f"{base}{ending}-{seed}" for seed in seeds]
        stages = list(zip(*(validations(run) for run in runs), strict=True))
        figures = [cell([row["AP50"] for row in rows]) for rows in stages]
        if ending == "-softmax":
            figures.insert(1, "–")
        minutes = statistics.mean(json.loads((run / "seconds.json").read_text()) for run in runs) / 60
        figures += [cell([row["AP"] for row in stages[-1]]), f"{minutes:.1f}"]
        lines.append("| " + " | ".join([*labels, *figures]) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", default="rcnn-small", help="whose variants are compared")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=float, help="of fine-tuning; default: the recipe's")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[ending.lstrip("-") for ending in LABELS if ending],
        help="beside the paper's labels",
    )
    parser.add_argument("--most", type=int, default=300, help="proposals of an image")
    parser.add_argument("--set", action="append", default=[], help="a setting for all runs, as of boxwright train")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder, and reuse those it holds")
    parser.add_argument("--note", action="append", default=[], help="a line for the head of the file")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    keep = args.keep or Path(tempfile.mkdtemp(prefix="rcnn-labels-"))
    keep.mkdir(parents=True, exist_ok=True)
    endings = [end for end in LABELS if not end or args.only is None or end.lstrip("-") in args.only]
    recipes = [get_recipe(f"{args.recipe}{ending}").name for ending in endings]
    settings = make_proposals(args.data, args.most, keep) | dict(setting.split("=", 1) for setting in args.set)
    settings["data.proposals.most"] = str(args.most)
    jobs = [(recipe, seed) for seed in args.seeds for recipe in recipes]  # whole rounds first
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda job: train(*job, args.data, settings, args.epochs, keep), jobs))
    seeds = " ".join(map(str, args.seeds))
    length = "" if args.epochs is None else f" --epochs {args.epochs:g}"
    more = "".join(f" --set '{setting}'" for setting in args.set)
    more += f" --only {' '.join(args.only)}" if args.only else ""
    lines = [
        "# What is a positive, for R-CNN's network and for its SVMs",
        "",
        f"- command: `python benchmarks/rcnn_labels.py PATH/TO/{args.data.name} --recipe {args.recipe} --seeds {seeds} "
        f"--most {args.most}{length}{more} --output results/{args.output.name}`",
        *describe("cpu", threads=1),
        f"- {len(args.seeds)} seeds, mean ± standard deviation; {args.jobs} runs at a time; nothing is chosen by "
        "the validation split",
        *(f"- {note}" for note in args.note),
        "",
        *table(args.recipe, endings, args.seeds, keep),
    ]
    print("\n".join(lines))
    args.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
