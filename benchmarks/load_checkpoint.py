"""Time and memory to load checkpoints of 160 MB: our file and torchvision's, by Boxwright and by torchvision.

    python benchmarks/load_checkpoint.py               5 rounds, each load in a process of its own
    python benchmarks/load_checkpoint.py --rounds 1 --dry-run

Both files hold a Faster R-CNN with ResNet-50 and FPN for 90 classes. Timing starts with the path and ends when the
detector is built and every weight has been read once, because mapped files are read only then. Peak memory is the
largest growth of the process in that time (VmHWM, reset before), minus the size of the file: 0 means one copy of the
weights and nothing else. Interpreter and imports are not counted. The files are in the page cache. Writes
results/load_checkpoint.md. Linux only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import nn

from boxwright.checkpoints.checkpoint import load_checkpoint, rebuild, save_checkpoint
from boxwright.detectors.build import build_detector
from boxwright.recipes import get_recipe
from boxwright.structures import Classes
from boxwright.weights.common.foreign_files import read_foreign
from boxwright.weights.common.imported import build_imported
from boxwright.weights.torchvision.importer import import_torchvision
from machine import describe

RESULT = Path(__file__).resolve().parents[1] / "results" / "load_checkpoint.md"
CLASSES = Classes.from_names([f"class {i}" for i in range(90)])
OURS, THEIRS = "ours.safetensors", "theirs.pth"


def load_ours(path: Path) -> nn.Module:
    """Load as every command does."""
    return rebuild(load_checkpoint(path), path)


def load_ours_by_copy(path: Path) -> nn.Module:
    """Build with random weights, then copy those of the file over them."""
    checkpoint = load_checkpoint(path)
    detector = build_detector(checkpoint.detector, checkpoint.classes)
    detector.load_state_dict(checkpoint.state)
    return detector


def load_theirs(path: Path) -> nn.Module:
    """Read, recognise, convert and build."""
    return build_imported(import_torchvision(read_foreign(path), CLASSES), str(path))


def load_by_torchvision(path: Path) -> nn.Module:
    """Load as its documentation shows."""
    model = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model


CONTESTANTS: dict[str, tuple[str, Callable[[Path], nn.Module], str]] = {
    "ours": (OURS, load_ours, "our file, by us"),
    "copied": (OURS, load_ours_by_copy, "our file, built with random weights and copied over"),
    "imported": (THEIRS, load_theirs, "torchvision's file, by us"),
    "torchvision": (THEIRS, load_by_torchvision, "torchvision's file, `torch.load` and `load_state_dict` of its model"),
}


def memory(what: str) -> int:
    """Return the entry ``what`` of /proc/self/status in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024


def measure(name: str, folder: Path) -> dict[str, float]:
    """Measure one load in this process."""
    torch.set_num_threads(1)
    file, load, _ = CONTESTANTS[name]
    (folder / file).read_bytes()  # into the page cache
    torch.nn.Linear(8, 8)(torch.ones(1, 8))  # the libraries' first call
    Path("/proc/self/clear_refs").write_text("5")
    before, start = memory("VmRSS"), time.perf_counter()
    model = load(folder / file)
    total = sum(tensor.double().sum().item() for tensor in model.state_dict().values() if tensor.numel() < 1e5)
    total += sum(p.sum().item() for p in model.parameters())
    seconds = time.perf_counter() - start
    assert total == total  # every weight has been read
    grown = memory("VmHWM") - before
    return {"seconds": seconds, "above": grown - (folder / file).stat().st_size}


def write_files(folder: Path) -> None:
    """Write the same kind of network in both layouts."""
    recipe = get_recipe("faster-rcnn-r50-fpn")
    detector = build_detector(recipe.detector, CLASSES)
    save_checkpoint(folder / OURS, detector.state_dict(), recipe, CLASSES, {})
    model = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
    torch.save(model.state_dict(), folder / THEIRS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dry-run", action="store_true", help="print, write nothing")
    parser.add_argument("--measure", nargs=2, metavar=("CONTESTANT", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], Path(args.measure[1]))))
        return
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as scratch:
        write_files(Path(scratch))
        sizes = {file: (Path(scratch) / file).stat().st_size for file in (OURS, THEIRS)}
        for _ in range(args.rounds):
            for name in CONTESTANTS:
                command = [sys.executable, __file__, "--measure", name, scratch]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                rows[name].append(json.loads(done.stdout.splitlines()[-1]))
    base = statistics.median(row["seconds"] for row in rows["torchvision"])
    lines = [
        "# Loading a checkpoint",
        "",
        *describe(threads=1),
        f"- command: `python benchmarks/load_checkpoint.py --rounds {args.rounds}`",
        "- Faster R-CNN with ResNet-50 and FPN, 90 classes: "
        + ", ".join(f"{file} {size / 1e6:.0f} MB" for file, size in sizes.items()),
        f"- medians of {args.rounds} loads, each in a process of its own, contestants in turn; other programs were "
        "running, so that the ratio says more than the seconds",
        "- peak memory: growth of the process at most, less the size of the file (MB = 10^6 bytes)",
        "- of torchvision's file by us, 51 MB are the first linear layer, whose columns are copied into our maps' "
        "order; the mapped original counts as long as the file is mapped",
        "",
        "| what | seconds | of torchvision's time | peak memory above the file, MB |",
        "|---|---:|---:|---:|",
    ]
    for name, (_, _, what) in CONTESTANTS.items():
        seconds = statistics.median(row["seconds"] for row in rows[name])
        above = statistics.median(row["above"] for row in rows[name])
        lines.append(f"| {what} | {seconds:.2f} | {seconds / base:.2f} | {above / 1e6:.0f} |")
    print("\n".join(lines))
    if not args.dry_run:
        RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
