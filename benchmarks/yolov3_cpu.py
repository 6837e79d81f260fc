"""YOLOv3 and YOLOv3-tiny on a CPU: time per image, and the share of the processor's peak that it reaches.

    python benchmarks/yolov3_cpu.py

The peak is that of the machine's matrix product: operations per second of the fastest of several square products, in
the same type and with as many threads, timed in turn with the networks. The share is the operations of a network's
convolutions (a multiply-add counts as two) divided by its whole time, with decoding and NMS, and by that peak.
Operations are those of the definition of a convolution. In fp32 wide 3x3 convolutions use Winograd's algorithm with a
quarter of the multiplications, so a share above 100 % is possible; "direct" times the network without it. Weights are
random. Only NMS depends on them, so objectness is spread until a few hundred boxes pass.
Writes results/yolov3_cpu.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from boxwright.app.models.counting import detector_row
from boxwright.backbones.layers.norm import fold_norms
from boxwright.detectors.build import build_detector
from boxwright.detectors.yolov3 import YOLOv3
from boxwright.recipes import RECIPES
from boxwright.structures import Classes, Images
from machine import describe

CLASSES = Classes.from_names([f"class {i}" for i in range(80)])
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIDES = (1024, 2048, 3072)


@dataclass(frozen=True)
class Contestant:
    """A function to time. ``operations``: of one call. ``kind``: its type, a key of ``TYPES``."""

    name: str
    kind: str
    operations: float
    step: Callable[[], object]


def random_detector(name: str) -> YOLOv3:
    """Return the recipe's network with statistics that keep activations in range, and scores of every size."""
    torch.manual_seed(0)
    detector = build_detector(RECIPES[name].detector, CLASSES)
    assert isinstance(detector, YOLOv3)
    side = detector_row(RECIPES[name])["input"][0]
    noise = Images(torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8), torch.tensor([[side, side]]))
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # one pass over an image sets the statistics
    detector.train()
    with torch.no_grad():
        detector.outputs(detector.normalise(noise))
        for scale in detector.scales.scales:
            scale.get_submodule("predict").bias.view(3, -1)[:, 4] = -4  # type: ignore[union-attr, index, operator]
    return detector.eval()


def contestants(names: list[str], kinds: list[str], compiled: bool) -> list[Contestant]:
    """Return matrix products, then each recipe in each type of ``kinds``."""
    rivals = []
    types = {kind: TYPES[kind] for kind in kinds}
    for kind, dtype in types.items():
        for side in SIDES:
            a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
            rivals.append(Contestant(f"product {side}", kind, 2 * side**3, lambda a=a, b=b: a @ b))
    for name in names:
        row, detector = detector_row(RECIPES[name]), random_detector(name)
        side = row["input"][0]
        pixels = torch.randint(0, 256, (1, 3, side // 16, side // 16)).float()
        smooth = nn.functional.interpolate(pixels, (side, side), mode="bilinear").to(torch.uint8)
        images = Images(smooth, torch.tensor([[side, side]]))
        for kind, dtype in types.items():
            fast = detector.optimised(dtype)
            title, operations = f"{name}, {side} x {side}", 2 * row["multiply_adds"]
            rivals.append(Contestant(title, kind, operations, lambda fast=fast, images=images: fast(images)))
            if kind == "fp32":
                direct = fold_norms(detector).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                rivals.append(
                    Contestant(f"{title}, direct", kind, operations, lambda net=direct, images=images: net(images))
                )
            if compiled:
                graph = torch.compile(fast, fullgraph=True)
                rivals.append(
                    Contestant(f"{title}, compiled", kind, operations, lambda graph=graph, images=images: graph(images))
                )
    return rivals


def measure(rivals: list[Contestant], rounds: int) -> dict[tuple[str, str], list[float]]:
    """Return the seconds of each contestant in each round, all timed in turn."""
    times: dict[tuple[str, str], list[float]] = {(rival.name, rival.kind): [] for rival in rivals}
    for rival in rivals:
        rival.step()  # packs weights, or compiles
        rival.step()
    for _ in range(rounds):
        for rival in rivals:
            start = time.perf_counter()
            rival.step()
            times[rival.name, rival.kind].append(time.perf_counter() - start)
    return times


def table(rivals: list[Contestant], times: dict[tuple[str, str], list[float]]) -> list[str]:
    """Return the peak of each type, then a row per network."""
    seconds = {key: statistics.median(each) for key, each in times.items()}
    peak: dict[str, float] = {}
    for rival in rivals:
        if rival.name.startswith("product"):
            peak[rival.kind] = max(peak.get(rival.kind, 0), rival.operations / seconds[rival.name, rival.kind])
    lines = [
        f"- matrix product of {' x '.join([str(SIDES[0])] * 2)} to {' x '.join([str(SIDES[-1])] * 2)}, the fastest: "
        + ", ".join(f"{value / 1e9:.0f} billion operations a second in {kind}" for kind, value in peak.items()),
        "",
        "| network | type | billion operations | milliseconds (min .. max) | billion operations a second | share |",
        "|---|---|---|---|---|---|",
    ]
    for rival in rivals:
        if rival.name.startswith("product"):
            continue
        each, rate = times[rival.name, rival.kind], rival.operations / seconds[rival.name, rival.kind]
        spread = f"{1e3 * statistics.median(each):.0f} ({1e3 * min(each):.0f} .. {1e3 * max(each):.0f})"
        lines.append(
            f"| {rival.name} | {rival.kind} | {rival.operations / 1e9:.1f} | {spread} | {rate / 1e9:.0f} | "
            f"{100 * rate / peak[rival.kind]:.0f} % |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="*", default=["yolov3-608", "yolov3-tiny"])
    parser.add_argument("--types", nargs="*", choices=list(TYPES), default=list(TYPES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compiled", action="store_true", help="time compiled graphs as well")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    with torch.inference_mode():
        rivals = contestants(args.recipes, args.types, args.compiled)
        lines = [
            "# YOLOv3 on a processor: time of one image and share of the matrix product's rate",
            "",
            f"- command: `{' '.join(['python benchmarks/yolov3_cpu.py', *sys.argv[1:]])}`",
            *describe("cpu", args.threads),
            f"- median of {args.rounds} rounds, all in turn; norms folded, batch 1, decoding and NMS included",
            *table(rivals, measure(rivals, args.rounds)),
        ]
    print("\n".join(lines))
    (Path(__file__).resolve().parents[1] / "results" / "yolov3_cpu.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
