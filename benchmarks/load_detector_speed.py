"""Time of `load_detector(...).detect` beside torchvision's detector of the same file, image preparation included.

    python benchmarks/load_detector_speed.py
    python benchmarks/load_detector_speed.py --rounds 5 --only "torchvision fp32" "ours fp32"

Faster R-CNN R50-FPN at 800 pixels, one image of 1088 x 800, random weights in a file of torchvision's layout. Ours is
what a person gets who asks for nothing else: ``load_detector(file).detect(image)``, and the same with
``precision="bf16"``. torchvision's is ``model(images)`` in eval mode, and under bf16 autocast. Both take uint8 pixels
and give boxes in pixels of the image. Runs are interleaved, and the figure is the median of each round's ratio to
torchvision in fp32. Writes results/load_detector_inference.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import torch

from boxwright import load_detector
from boxwright.io.environment import precision_note

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe
from speed import CONTESTS, Step, pictures, reference, timed

RESULT = Path(__file__).resolve().parents[1] / "results" / "load_detector_inference.md"


def contestants(folder: Path) -> dict[str, Step]:
    """Calls to time by name; torchvision in fp32 first."""
    contest = CONTESTS["faster_rcnn"]
    theirs = reference(contest).eval()
    torch.save(theirs.state_dict(), folder / "theirs.pth")
    pixels = pictures(1, *contest.size)[0]  # uint8 [3, H, W]

    def with_autocast() -> object:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return theirs([pixels.float() / 255])

    def plain() -> object:
        with torch.inference_mode():
            return theirs([pixels.float() / 255])

    fp32 = load_detector(folder / "theirs.pth")
    steps: dict[str, Step] = {"torchvision fp32": plain, "ours fp32": lambda: fp32.detect(pixels)}
    if note := precision_note(torch.device("cpu"), "bf16"):
        print(f"without bf16: {note}", flush=True)
        return steps
    bf16 = load_detector(folder / "theirs.pth", precision="bf16")
    return steps | {"torchvision bf16 autocast": with_autocast, "ours bf16": lambda: bf16.detect(pixels)}


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="contestants by name")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        steps = contestants(Path(scratch))
        steps = {name: step for name, step in steps.items() if not args.only or name in args.only}
        for step in steps.values():
            step()
            step()
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(args.rounds):
            for name, step in steps.items():
                times[name].append(timed(step, "cpu"))
    base = next(iter(steps))
    lines = [
        "# load_detector(...).detect, Faster R-CNN R50-FPN: one image of 1088 x 800 pixels, CPU",
        "",
        f"- command: `{' '.join(['python benchmarks/load_detector_speed.py', *sys.argv[1:]])}`",
        *describe(threads=args.threads),
        f"- {args.rounds} rounds, interleaved; median seconds, and the median of each round's ratio to {base}",
        "",
        "| | seconds | ratio of time (min .. max) |",
        "|---|---|---|",
    ]
    for name, seconds in times.items():
        ratios = [s / b for s, b in zip(seconds, times[base], strict=True)]
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} .. {max(ratios):.3f})"
        lines.append(f"| {name} | {statistics.median(seconds):.3f} | {spread} |")
    print("\n".join(lines))
    RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
