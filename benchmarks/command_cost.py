"""CPU time and peak memory of commands that run no network, each as a whole process.

    python benchmarks/command_cost.py
    python benchmarks/command_cost.py --against HEAD~1

``--against`` measures another revision of this repository beside the present files: it is checked out into a temporary
folder, and its commands run in turn with those of today, so that the ratio holds on a noisy machine. CPU time is user
plus system time of the process and its children, memory the maximum resident set. Writes results/command_cost.md.
Linux and macOS only.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "results" / "command_cost.md"


def commands(data: Path) -> dict[str, list[str]]:
    """Command lines to measure, by their title in the table."""
    run = [sys.executable, "-m", "boxwright"]
    return {
        "`import boxwright`": [sys.executable, "-c", "import boxwright"],
        "`boxwright --help`": [*run, "--help"],
        "`boxwright weights list`": [*run, "weights", "list"],
        "`boxwright models`": [*run, "models"],
        "`boxwright data check`, six images": [*run, "data", "check", str(data)],
    }


def write_data(folder: Path, images: int = 6) -> Path:
    """A YOLO data set of small images with one box each."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part / "train").mkdir(parents=True)
    for i in range(images):
        pixels = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / "train" / f"{i}.png")
        (folder / "labels" / "train" / f"{i}.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    (folder / "data.yaml").write_text("path: .\ntrain: images/train\nnames: [thing]\n")
    return folder


def measure(command: list[str], source: Path) -> tuple[float, float]:
    """CPU seconds and peak resident set in MB of one process that imports ``source``."""
    environment = os.environ | {"PYTHONPATH": str(source), "COLUMNS": "120"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{' '.join(command)} failed: {errors.decode()[-2000:]}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes or KiB
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", metavar="REVISION", help="another revision to measure beside the present files")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sources = {"now": ROOT / "src"}
        if args.against:
            other = Path(scratch) / "other"
            add = ["git", "-C", str(ROOT), "worktree", "add", "--detach", str(other), args.against]
            subprocess.run(add, check=True, capture_output=True)
            sources = {"before": other / "src", **sources}
        try:
            todo = commands(write_data(Path(scratch) / "data"))
            seen: dict[tuple[str, str], list[tuple[float, float]]] = {}
            for round_number in range(args.rounds + 1):  # the first fills the caches and does not count
                for title, command in todo.items():
                    for name, source in sources.items():
                        figures = measure(command, source)
                        if round_number:
                            seen.setdefault((title, name), []).append(figures)
        finally:
            if args.against:
                remove = ["git", "-C", str(ROOT), "worktree", "remove", "--force", str(sources["before"].parent)]
                subprocess.run(remove, check=True, capture_output=True)
    # Not at the head: a process inherits its parent's peak memory, and this loads torch.
    sys.path.insert(0, str(Path(__file__).parent))
    from machine import describe

    lines = [
        "# CPU time and memory of commands that run no network",
        "",
        f"- command: `{' '.join(['python benchmarks/command_cost.py', *sys.argv[1:]])}`",
        *describe(),
        f"- medians of {args.rounds} processes each, run in turn; user and system time together",
    ]
    if args.against:
        lines.append(f"- before: revision {args.against}")
    heads = [f"{name}: CPU s | {name}: MB" for name in sources]
    lines += ["", f"| | {' | '.join(heads)} |", "|---|" + "---|---|" * len(sources)]
    for title in todo:
        cells = []
        for name in sources:
            seconds, memory = zip(*seen[title, name], strict=True)
            cells.append(f"{statistics.median(seconds):.2f} | {statistics.median(memory):.0f}")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    print("\n".join(lines))
    RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
