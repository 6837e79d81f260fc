"""Time and memory of Faster R-CNN R50-FPN beside torchvision's, with the same weights, shapes and conventions.

    python benchmarks/faster_rcnn_speed.py inference
    python benchmarks/faster_rcnn_speed.py training

Runs are interleaved: each round times every contestant once, and the figure is the median of the rounds' ratios to
torchvision. Peak memory is measured in a process of its own for each contestant, as the rise of the resident set above
what it was before the first step. Writes results/faster_rcnn_<mode>.md.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from boxwright.detectors.build import build_detector
from boxwright.detectors.detector import Detector
from boxwright.structures import Classes, Images, Targets
from boxwright.weights.torchvision import faster_rcnn_config, faster_rcnn_state

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe

CLASSES = 90
Step = Callable[[], object]


def reference() -> nn.Module:
    """torchvision's model with random weights that spread scores, so that its post-processing has work to do."""
    torch.manual_seed(0)
    backbone = torchvision.models.detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, trainable_layers=3
    )  # frozen norms, as torchvision's trained models have
    model = torchvision.models.detection.FasterRCNN(backbone, CLASSES + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("conv3.weight"):
                parameter.mul_(0.2)  # without normalisation the residual sums would otherwise grow without bound
        model.roi_heads.box_predictor.cls_score.weight.mul_(30)
    return model


def ours(model: nn.Module) -> Detector:
    """The same weights in our detector."""
    detector = build_detector(faster_rcnn_config(), Classes.from_names([f"class {i}" for i in range(CLASSES)]))
    detector.load_state_dict(faster_rcnn_state(model.state_dict()))
    return detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def pictures(batch: int, height: int, width: int) -> Tensor:
    """Smooth random images, uint8 ``[B, 3, H, W]``."""
    noise = torch.rand((batch, 3, height // 16, width // 16), generator=torch.Generator().manual_seed(1))
    return (nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def inference_steps(device: str, height: int, width: int, batch: int, names: list[str]) -> dict[str, Step]:
    """What is timed, by name; torchvision first."""
    theirs = reference().eval().to(device)
    detector = ours(theirs)
    pixels = pictures(batch, height, width).to(device)
    floats = [image.float() / 255 for image in pixels]
    images = Images(pixels, torch.tensor([[height, width]] * batch, device=device))
    fp32, bf16 = detector.optimised(), detector.optimised(torch.bfloat16)
    compiled = {name: torch.compile(model, fullgraph=True) for name, model in (("fp32", fp32), ("bf16", bf16))}

    def with_autocast() -> object:
        with torch.autocast(device, torch.bfloat16):
            return theirs(floats)

    steps: dict[str, Step] = {
        "torchvision fp32": lambda: theirs(floats),
        "torchvision bf16 autocast": with_autocast,
        "ours fp32": lambda: fp32(images),
        "ours fp32 compiled": lambda: compiled["fp32"](images),
        "ours bf16": lambda: bf16(images),
        "ours bf16 compiled": lambda: compiled["bf16"](images),
    }
    return {name: steps[name] for name in steps if not names or name in names}


def training_steps(device: str, height: int, width: int, batch: int, names: list[str]) -> dict[str, Step]:
    """One step each: forward, backward, SGD."""
    theirs = reference().train().to(device)
    detector = ours(theirs).train()
    pixels = pictures(batch, height, width).to(device)
    images = Images(pixels, torch.tensor([[height, width]] * batch, device=device))
    generator = torch.Generator().manual_seed(2)
    corner = torch.rand((batch, 8, 2), generator=generator) * torch.tensor([width * 0.6, height * 0.6])
    side = (torch.rand((batch, 8, 2), generator=generator) * 0.35 + 0.02) * torch.tensor([width, height])
    boxes = torch.cat([corner, corner + side], dim=-1).to(device)
    labels = torch.randint(0, CLASSES, (batch, 8), generator=generator).to(device)
    no = torch.zeros((batch, 8), dtype=torch.bool, device=device)
    targets = Targets(boxes, labels, ~no, no, no)
    floats = [image.float() / 255 for image in pixels]
    dicts = [{"boxes": b, "labels": k + 1} for b, k in zip(boxes, labels, strict=True)]

    def stepper(model: nn.Module, losses: Callable[[], dict[str, Tensor]], precision: torch.dtype) -> Step:
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimiser = torch.optim.SGD(parameters, lr=1e-6, momentum=0.9)

        def step() -> None:
            with torch.autocast(device, precision, enabled=precision != torch.float32):
                total = sum(losses().values())
            assert isinstance(total, Tensor)
            total.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        return step

    steps: dict[str, Step] = {"torchvision fp32": stepper(theirs, lambda: theirs(floats, dicts), torch.float32)}
    steps["ours fp32"] = stepper(detector, lambda: detector(images, targets), torch.float32)
    if device == "cuda":
        steps["torchvision bf16"] = stepper(theirs, lambda: theirs(floats, dicts), torch.bfloat16)
        steps["ours bf16"] = stepper(detector, lambda: detector(images, targets), torch.bfloat16)
    compiled = torch.compile(detector, fullgraph=True)
    precision = torch.bfloat16 if device == "cuda" else torch.float32
    steps[f"ours {'bf16' if device == 'cuda' else 'fp32'} compiled"] = stepper(
        detector, lambda: compiled(images, targets), precision
    )
    return {name: steps[name] for name in steps if not names or name in names}


def timed(step: Step, device: str) -> float:
    """Seconds of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_rise(step: Step, device: str) -> float:
    """MiB by which the peak of three calls exceeds the memory held before."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        for _ in range(3):
            step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    for _ in range(3):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - resident / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["inference", "training"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1088)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="contestants by name")
    parser.add_argument("--memory-compiled", action="store_true", help="measure memory of compiled models too")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--no-write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    make = inference_steps if args.mode == "inference" else training_steps
    batch = 1 if args.mode == "inference" else 2
    shape = (args.device, args.height, args.width, batch)

    with torch.inference_mode(args.mode == "inference"):
        if args.memory_of:
            print(peak_rise(make(*shape, [args.memory_of])[args.memory_of], args.device))
            return
        steps = make(*shape, args.only)
        times: dict[str, list[float]] = {name: [] for name in steps}
        for step in steps.values():
            step()  # warm up, and compile
            step()
        for _ in range(args.rounds):
            for name, step in steps.items():
                times[name].append(timed(step, args.device))

    memory: dict[str, float | None] = {}
    for name in steps:
        if "compiled" in name and not args.memory_compiled:
            memory[name] = None  # compiling anew takes minutes
            continue
        command = [
            sys.executable, __file__, args.mode, "--memory-of", name, "--device", args.device,
            "--height", str(args.height), "--width", str(args.width), "--threads", str(args.threads),
        ]  # fmt: skip
        memory[name] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])

    base = next(iter(steps))
    lines = [
        f"# Faster R-CNN R50-FPN, {args.mode}, batch {batch}, {args.width} x {args.height} pixels, {args.device}",
        "",
        f"- command: `python benchmarks/faster_rcnn_speed.py {' '.join(sys.argv[1:])}`",
        *describe(args.device, args.threads),
        f"- {args.rounds} rounds, interleaved; median seconds, and the median of each round's ratio to {base}",
        "- peak memory: rise of the peak above what was held before the first step, in a process of its own",
        "",
        "| | seconds | ratio of time (min .. max) | peak memory MiB | ratio of memory |",
        "|---|---|---|---|---|",
    ]
    for name, seconds in times.items():
        ratios = [s / b for s, b in zip(seconds, times[base], strict=True)]
        held, first = memory[name], memory[base]
        amounts = f"{held:.0f} | {held / first:.3f}" if held and first else "not measured | "
        lines.append(
            f"| {name} | {statistics.median(seconds):.3f} | {statistics.median(ratios):.3f} ({min(ratios):.3f} .. "
            f"{max(ratios):.3f}) | {amounts} |"
        )
    print("\n".join(lines))
    if not args.no_write:
        suffix = "" if args.device == "cpu" else "_cuda"
        target = Path(__file__).resolve().parents[1] / "results" / f"faster_rcnn_{args.mode}{suffix}.md"
        target.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
