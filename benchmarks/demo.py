"""Metrics of the demo: AP on unseen scenes, and the time of each stage.

    python benchmarks/demo.py

Runs ``boxwright demo`` and writes results/demo.md. ``--folder DEMO`` reports on a finished demo.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import describe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp()) / "demo"
    if args.folder is None:
        subprocess.run([sys.executable, "-m", "boxwright", "demo", "--output", str(folder)], check=True)
    told = json.loads((folder / "demo.json").read_text())
    stats, timings, options = told["stats"], told["timings"], told["options"]
    total = sum(timings.values())
    origin = f"the ImageNet weights of `{told['start']}`" if told["start"] else "random weights"
    lines = [
        "# The demo",
        "",
        f"`{told['recipe']}` from {origin}, on {options['images']} drawn scenes of {options['size']} pixels; "
        f"figures on {options['test_images']} scenes that neither training nor the choice of the checkpoint saw.",
        "",
        "- command: `python benchmarks/demo.py`",
        *describe(),
        f"- {total / 60:.1f} minutes in all",
        "",
        "| " + " | ".join(stats) + " |",
        "|" + "---|" * len(stats),
        "| " + " | ".join("–" if value is None else f"{value:.3f}" for value in stats.values()) + " |",
        "",
        "| stage | seconds |",
        "|---|---|",
        *(f"| {name} | {seconds:.0f} |" for name, seconds in timings.items()),
    ]
    print("\n".join(lines))
    (Path(__file__).resolve().parents[1] / "results" / "demo.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
