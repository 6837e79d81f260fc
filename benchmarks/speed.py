"""Time and memory of a detector compared with torchvision's, with the same weights, shapes and conventions.

    python benchmarks/speed.py retinanet inference
    python benchmarks/speed.py retinanet training
    python benchmarks/speed.py retinanet training --memory

Runs are interleaved: each round times every contestant once, and the result is the median of the ratios to torchvision.
Writes results/<detector>_<mode>.md. With ``--memory`` nothing is timed: each contestant runs in a process of its own,
and the result is the rise of the peak resident set above its size before the first step. Writes
results/<detector>_<mode>_memory.md.
"""

from __future__ import annotations

import argparse
import re
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor, resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from boxwright.backbones.layers.winograd import use_winograd_in_training
from boxwright.detectors.build import DetectorConfig, build_detector
from boxwright.detectors.contract.detector import Detector
from boxwright.io.environment import precision_note
from boxwright.structures import Classes, Images, Targets
from boxwright.weights.torchvision.detectors import (
    faster_rcnn_config,
    faster_rcnn_state,
    mask_rcnn_config,
    retinanet_config,
    retinanet_state,
)
from boxwright.weights.torchvision.ssd import ssd_config, ssd_state
from machine import describe

Step = Callable[[], object]


@dataclass(frozen=True)
class Contest:
    """A detector and its counterpart in torchvision.

    ``reference`` builds torchvision's model with random weights that spread scores, so that its post-processing has
    work to do. ``config`` and ``state`` build ours from it. ``first_label``: torchvision's label for our label 0.
    ``masks``: objects have masks.
    """

    title: str
    reference: Callable[[], nn.Module]
    config: DetectorConfig
    state: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    classes: int = 90
    first_label: int = 0
    size: tuple[int, int] = (800, 1088)
    masks: bool = False


def _in_range(model: nn.Module) -> nn.Module:
    """Scale the weights: without trained norms the residual sums would grow without bound."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("conv3.weight"):
                parameter.mul_(0.2)
    return model


def faster_rcnn() -> nn.Module:
    """Return torchvision's Faster R-CNN with frozen norms, as in its trained models."""
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    model = _in_range(torchvision.models.detection.FasterRCNN(backbone, 91))
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(30)
    return model


def mask_rcnn() -> nn.Module:
    """Return torchvision's Mask R-CNN with frozen norms. It pastes no masks here: pasting is timed separately."""
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    model = _in_range(torchvision.models.detection.MaskRCNN(backbone, 91))
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(30)
    torchvision.models.detection.transform.paste_masks_in_image = lambda masks, *_: masks
    return model


def retinanet() -> nn.Module:
    """Return torchvision's first RetinaNet with frozen norms, as in its trained model."""
    backbone = _resnet_fpn_extractor(
        torchvision.models.resnet50(norm_layer=FrozenBatchNorm2d),
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = _in_range(torchvision.models.detection.RetinaNet(backbone, 90))
    with torch.no_grad():
        for name, parameter in model.head.named_parameters():
            if "conv." in name and name.endswith("weight"):
                parameter.mul_(3)
        model.head.classification_head.cls_logits.weight.mul_(5)
    return model


def ssd() -> nn.Module:
    """Return torchvision's SSD300 with VGG-16, with all layers trained."""
    model = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=91)
    with torch.no_grad():
        model.backbone.features[0].weight.mul_(0.02)  # for pixels of the order of 100
        for conv in model.head.classification_head.module_list:
            conv.weight.mul_(1.5)
            conv.bias.view(-1, 91)[:, 0] = 9  # background, as in a trained model, almost everywhere
    return model


CONTESTS: dict[str, Contest] = {
    "faster_rcnn": Contest("Faster R-CNN R50-FPN", faster_rcnn, faster_rcnn_config(), faster_rcnn_state, first_label=1),
    "mask_rcnn": Contest(
        "Mask R-CNN R50-FPN", mask_rcnn, mask_rcnn_config(), faster_rcnn_state, first_label=1, masks=True
    ),
    "retinanet": Contest("RetinaNet R50-FPN", retinanet, retinanet_config(), retinanet_state),
    "ssd": Contest("SSD300 VGG-16", ssd, ssd_config(freeze_at=0), ssd_state, first_label=1, size=(300, 300)),
}


def reference(contest: Contest) -> nn.Module:
    """Return torchvision's model, the same in every process."""
    torch.manual_seed(0)
    return contest.reference()


def ours(contest: Contest, model: nn.Module) -> Detector:
    """Return our detector with the same weights."""
    detector = build_detector(contest.config, Classes.from_names([f"class {i}" for i in range(contest.classes)]))
    detector.load_state_dict(contest.state(model.state_dict()))
    return detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def pictures(batch: int, height: int, width: int) -> Tensor:
    """Return smooth random images, uint8 ``[B, 3, H, W]``."""
    noise = torch.rand((batch, 3, height // 16, width // 16), generator=torch.Generator().manual_seed(1))
    return (nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def ellipses(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return the ellipse in each box ``[B, G, 4]``, bool ``[B, G, H, W]``."""
    x1, y1, x2, y2 = boxes[..., None, None].unbind(2)
    x = torch.arange(width, device=boxes.device) + 0.5
    y = (torch.arange(height, device=boxes.device) + 0.5).unsqueeze(1)
    return (2 * (x - x1) / (x2 - x1) - 1) ** 2 + (2 * (y - y1) / (y2 - y1) - 1) ** 2 <= 1


def inference_steps(contest: Contest, device: str, size: tuple[int, int], names: list[str]) -> dict[str, Step]:
    """Return the functions to time by name, torchvision first."""
    theirs = reference(contest).eval().to(device)
    detector = ours(contest, theirs)
    pixels = pictures(1, *size).to(device)
    floats = [image.float() / 255 for image in pixels]
    images = Images(pixels, torch.tensor([size], device=device))
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
    if note := precision_note(torch.device(device), "bf16"):
        if any("bf16" in name for name in names):
            raise SystemExit(f"--only: {note}")
        print(f"without bf16: {note}", flush=True)
        steps = {name: step for name, step in steps.items() if "bf16" not in name}
    return {name: steps[name] for name in steps if not names or name in names}


def training_steps(contest: Contest, device: str, size: tuple[int, int], names: list[str]) -> dict[str, Step]:
    """Return training steps on two images: forward, backward, SGD."""
    (height, width), batch = size, 2
    theirs = reference(contest).train().to(device)
    detector = use_winograd_in_training(ours(contest, theirs).train())  # as ``boxwright train`` does
    pixels = pictures(batch, height, width).to(device)
    images = Images(pixels, torch.tensor([[height, width]] * batch, device=device))
    generator = torch.Generator().manual_seed(2)
    corner = torch.rand((batch, 8, 2), generator=generator) * torch.tensor([width * 0.6, height * 0.6])
    side = (torch.rand((batch, 8, 2), generator=generator) * 0.35 + 0.02) * torch.tensor([width, height])
    boxes = torch.cat([corner, corner + side], dim=-1).to(device)
    labels = torch.randint(0, contest.classes, (batch, 8), generator=generator).to(device)
    no = torch.zeros((batch, 8), dtype=torch.bool, device=device)
    masks = ellipses(boxes, height, width) if contest.masks else None
    targets = Targets(boxes, labels, ~no, no, no, masks)
    floats = [image.float() / 255 for image in pixels]
    dicts = [{"boxes": b, "labels": k + contest.first_label} for b, k in zip(boxes, labels, strict=True)]
    if masks is not None:
        dicts = [one | {"masks": m.to(torch.uint8)} for one, m in zip(dicts, masks, strict=True)]

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
    """Return the seconds of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_rise(step: Step, device: str) -> float:
    """Return the rise of the peak of three calls above the memory before, in MiB."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        for _ in range(3):
            step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    for _ in range(3):
        step()
    # Not ru_maxrss: that outlives exec, and would hold the peak of the process that started this one.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return int(peak.group(1)) / 1024 - resident / 2**20


def title(args: argparse.Namespace, what: str) -> list[str]:
    """Return the head of a results file."""
    batch = 1 if args.mode == "inference" else 2
    shape = f"batch {batch}, {args.width} x {args.height} pixels, {args.device}"
    return [
        f"# {CONTESTS[args.detector].title}, {args.mode}, {what}: {shape}",
        "",
        f"- command: `python benchmarks/{Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}`",
        *describe(args.device, args.threads),
    ]


def compare_times(args: argparse.Namespace, steps: dict[str, Step]) -> list[str]:
    """Time every contestant in turn, round by round."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()  # warm up, and compile
        step()
    for _ in range(args.rounds):
        for name, step in steps.items():
            times[name].append(timed(step, args.device))
    base = next(iter(steps))
    lines = [
        *title(args, "time"),
        f"- {args.rounds} rounds, interleaved; median seconds, and the median of each round's ratio to {base}",
        "",
        "| | seconds | ratio of time (min .. max) |",
        "|---|---|---|",
    ]
    for name, seconds in times.items():
        ratios = [s / b for s, b in zip(seconds, times[base], strict=True)]
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} .. {max(ratios):.3f})"
        lines.append(f"| {name} | {statistics.median(seconds):.3f} | {spread} |")
    return lines


def compare_memory(args: argparse.Namespace, names: list[str]) -> list[str]:
    """Run every contestant in a process of its own, ``rounds`` times."""
    peaks: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in names:
            command = [
                sys.executable, __file__, args.detector, args.mode, "--memory-of", name, "--device", args.device,
                "--height", str(args.height), "--width", str(args.width), "--threads", str(args.threads),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks[name].append(float(done.stdout.split()[-1]))
    lines = [
        *title(args, "memory"),
        f"- rise of the peak in three steps above what was held before them; median of {args.rounds} processes",
        "",
        "| | MiB (min .. max) | ratio |",
        "|---|---|---|",
    ]
    base = statistics.median(peaks[names[0]])
    for name, held in peaks.items():
        middle = statistics.median(held)
        lines.append(f"| {name} | {middle:.0f} ({min(held):.0f} .. {max(held):.0f}) | {middle / base:.3f} |")
    return lines


def main(detector: str | None = None) -> None:
    """Run the comparison of the command line, for ``detector`` where a script has only one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    if detector is None:
        parser.add_argument("detector", choices=list(CONTESTS))
    parser.add_argument("mode", choices=["inference", "training"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--height", type=int, help="pixels; the detector's usual ones if left out")
    parser.add_argument("--width", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="contestants by name")
    parser.add_argument("--memory", action="store_true", help="compare peak memory instead of time")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.detector = detector or args.detector
    torch.set_num_threads(args.threads)
    contest = CONTESTS[args.detector]
    size = args.height, args.width = args.height or contest.size[0], args.width or contest.size[1]
    make = inference_steps if args.mode == "inference" else training_steps

    with torch.inference_mode(args.mode == "inference"):
        if args.memory_of:
            print(peak_rise(make(contest, args.device, size, [args.memory_of])[args.memory_of], args.device))
            return
        if args.memory:
            lines = compare_memory(args, args.only or ["torchvision fp32", "ours fp32"])
        else:
            lines = compare_times(args, make(contest, args.device, size, args.only))
    print("\n".join(lines))
    name = f"{args.detector}_{args.mode}{'_memory' if args.memory else ''}{'' if args.device == 'cpu' else '_cuda'}.md"
    (Path(__file__).resolve().parents[1] / "results" / name).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
