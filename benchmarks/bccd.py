"""Small DetNet against a ResNet of the same cost on real blood-cell images, from scratch, on a CPU.

    python benchmarks/bccd.py PATH/TO/bccd

Each seed trains both recipes at the same time, with one thread each, so that both see the same load of the machine.
Every run uses the training loop of ``boxwright train`` and is evaluated on the validation split with its best
checkpoint. Writes results/bccd.md.
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
from pathlib import Path

from machine import describe

RECIPES = {"DetNet-small": "faster-rcnn-detnet-small-fpn", "ResNet-small": "faster-rcnn-resnet-small-fpn"}
SETTINGS = ["data.train.0.size=[320,320]", "data.eval.0.size=[320,320]", "validation.every=5"]
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def command(recipe: str, data: Path, output: Path, epochs: int, seed: int) -> list[str]:
    """Return the command line of a run."""
    sets = [part for setting in SETTINGS for part in ("--set", setting)]
    return [
        sys.executable, "-m", "boxwright", "train", recipe, "--data", str(data), "--output", str(output),
        "--epochs", str(epochs), "--seed", str(seed), "--workers", "0", "--device", "cpu", *sets,
    ]  # fmt: skip


def evaluate(run: Path, data: Path, split: str) -> dict[str, float]:
    """Return the COCO metrics of a run's best checkpoint."""
    checkpoint = str(run / "best.safetensors")
    arguments = ["evaluate", checkpoint, "--data", str(data), "--split", split, "--device", "cpu", "--json"]
    done = subprocess.run([sys.executable, "-m", "boxwright", *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["stats"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder")
    args = parser.parse_args()
    folder = args.keep or Path(tempfile.mkdtemp(prefix="bccd-"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in RECIPES}
    for seed in args.seeds:
        running = {}
        start = time.monotonic()
        for name, recipe in RECIPES.items():
            output = folder / f"{name}-{seed}"
            with (folder / f"{name}-{seed}.log").open("w") as log:
                running[name] = subprocess.Popen(
                    command(recipe, args.data, output, args.epochs, seed), env=environment, stdout=log, stderr=log
                )
        minutes = {}
        while len(minutes) < len(running):
            time.sleep(1)
            for name, process in running.items():
                if name not in minutes and process.poll() is not None:
                    minutes[name] = (time.monotonic() - start) / 60
                    if process.returncode:
                        raise SystemExit((folder / f"{name}-{seed}.log").read_text()[-2000:])
        for name in RECIPES:
            stats = evaluate(folder / f"{name}-{seed}", args.data, "val")
            rows[name].append({**stats, "seed": seed, "minutes": minutes[name]})
            print(name, rows[name][-1], flush=True)

    lines = [
        "# Blood cells (BCCD), from scratch on a CPU",
        "",
        "364 real images of 640 x 480 pixels, three classes; trained on 205, evaluated on the 87 for validation.",
        "",
        f"- command: `python benchmarks/bccd.py PATH/TO/bccd --epochs {args.epochs}`",
        *describe(threads=1),
        "- two runs at a time, one thread each; minutes are those of training with validation",
        f"- recipes {', '.join(RECIPES.values())}, {args.epochs} epochs, images within 320 x 320 pixels",
        "",
        "| detector | seed | " + " | ".join(FIGURES) + " | minutes |",
        "|---|---|" + "---|" * (len(FIGURES) + 1),
    ]
    for name, results in rows.items():
        for row in results:
            figures = " | ".join(f"{row[key]:.3f}" for key in FIGURES)
            lines.append(f"| {name} | {row['seed']} | {figures} | {row['minutes']:.1f} |")
    for name, results in rows.items():
        means = []
        for key in FIGURES:
            values = [row[key] for row in results]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            means.append(f"{statistics.mean(values):.3f}{spread}")
        minutes = statistics.mean(row["minutes"] for row in results)
        lines.append(f"| **{name}, mean** | | {' | '.join(means)} | {minutes:.1f} |")
    print("\n".join(lines))
    (Path(__file__).resolve().parents[1] / "results" / "bccd.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
