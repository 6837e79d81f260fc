"""Speed and accuracy of truncated SVD of Fast R-CNN's fully connected layers (Fast R-CNN §3.1, §4.4).

    boxwright train fast-rcnn-small --data PATH/TO/bccd --output run --set 'data.proposals.train="train.safetensors"' \\
        --set 'data.proposals.val="val.safetensors"'
    python benchmarks/svd.py PATH/TO/bccd --run run --ranks 128,64 64,32 32,16

For a trained run: time of the head and of the whole detector on one image with its proposals, and COCO's AP on the
split, unchanged and at each pair of ranks. ``--paper`` adds the time of the paper's own network, VGG-16 at 600 pixels
with 2000 proposals, fc6 and fc7 at ranks 1024 and 256. Its weights are random, which does not affect the time. The head
is the layers after pooling. Contestants are timed in turn, round by round. Writes results/svd.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from boxwright.app.load import load
from boxwright.backbones.count import count_parameters
from boxwright.data.formats.opening import open_dataset
from boxwright.data.loading.loader import EvalLoader
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.detector import Detector
from boxwright.heads.regions.truncated_svd import truncate_fc
from boxwright.recipes import get_recipe
from boxwright.structures import Classes, Images, InputError
from boxwright.training.distributed import Processes
from boxwright.training.validation import validate
from machine import describe

Ranks = tuple[int, ...]
PAPER_RANKS: Ranks = (1024, 256)


class Cost(NamedTuple):
    """Median milliseconds per image: the layers of the head, and the whole detector."""

    head: float
    whole: float


def named(ranks: Ranks | None) -> str:
    """Return the name of ranks in a table."""
    return "whole" if ranks is None else ", ".join(map(str, ranks))


def truncated_twins(detector: Detector, every: list[Ranks]) -> dict[Ranks | None, Detector]:
    """Return the detector itself under None, and a truncated copy for each pair of ranks."""
    return {None: detector, **{ranks: truncate_fc(detector, ranks) for ranks in every}}


@torch.inference_mode()
def times_of(detectors: dict[Ranks | None, Detector], images: Images, rounds: int) -> dict[Ranks | None, Cost]:
    """Return the times of head and detector on the same image, measured in turn."""
    heads: dict[Ranks | None, list[float]] = {ranks: [] for ranks in detectors}
    wholes: dict[Ranks | None, list[float]] = {ranks: [] for ranks in detectors}
    ready = {ranks: detector.optimised() for ranks, detector in detectors.items()}
    pooled = pooled_regions(ready[None], images)
    for number in range(rounds + 1):
        for ranks, detector in ready.items():
            head = timed(lambda network=detector: network.head(pooled))
            whole = timed(lambda network=detector: network(images))
            if number > 0:  # the first round warms up
                heads[ranks].append(head)
                wholes[ranks].append(whole)
    return {ranks: Cost(statistics.median(heads[ranks]), statistics.median(wholes[ranks])) for ranks in ready}


def pooled_regions(detector: Detector, images: Images) -> Tensor:
    """Return the input of the head: ``[1, R, P, P, C]``."""
    given: list[Tensor] = []
    hook = detector.get_submodule("head").register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    detector(images)
    hook.remove()
    return given[0]


def timed(call: Callable[[], object]) -> float:
    """Return the milliseconds of one call."""
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def table(
    detectors: dict[Ranks | None, Detector], costs: dict[Ranks | None, Cost], found: dict[Ranks | None, dict] | None
) -> list[str]:
    """Return a table with a row for the unchanged detector and one for each pair of ranks."""
    figures = ("AP", "AP50", "AP75")
    heads = ["ranks", "parameters of the head", "head, ms", "ratio", "whole, ms", "ratio"]
    heads += [] if found is None else [*figures, "AP − that of the whole"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    base = costs[None]
    for ranks, cost in costs.items():
        cells = [named(ranks), f"{count_parameters(detectors[ranks].get_submodule('head')) / 1e6:.2f} M"]
        cells += [f"{cost.head:.1f}", f"{cost.head / base.head:.3f}"]
        cells += [f"{cost.whole:.1f}", f"{cost.whole / base.whole:.3f}"]
        if found is not None:
            cells += [f"{found[ranks][name]:.4f}" for name in figures]
            cells.append(f"{found[ranks]['AP'] - found[None]['AP']:+.4f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def of_run(args: argparse.Namespace) -> list[str]:
    """Return the section on a trained run."""
    loaded = load(args.run, "cpu")
    recipe = loaded.checkpoint.recipe
    if recipe.data.proposals is None or args.data is None:
        raise InputError(f"{args.run}: needs a run of a Fast R-CNN and its data, PATH/TO/DATA --run RUN")
    detectors = truncated_twins(loaded.detector.eval(), [tuple(map(int, text.split(","))) for text in args.ranks])
    index = open_dataset(args.data, args.split)
    loader = EvalLoader(index.subset([0]), replace(recipe.data, eval_batch_size=1, workers=0))
    images = next(iter(loader)).images
    costs = times_of(detectors, images, args.rounds)
    where = Processes(0, 1, torch.device("cpu"))
    found = {ranks: validate(twin, index, recipe.data, where).stats() for ranks, twin in detectors.items()}
    layers = [f"{layer.in_features} x {layer.out_features}" for layer in loaded.detector.head.layers]
    return [
        f"## A trained `{recipe.name}` on {args.data.name}",
        "",
        f"{len(index)} images of the split {args.split}; {recipe.data.proposals.most} proposals an image; fully "
        f"connected layers {' and '.join(layers)}.",
        "",
        *table(detectors, costs, found),
        "",
    ]


def of_paper(args: argparse.Namespace) -> list[str]:
    """Return the section on the paper's own network, with times only."""
    recipe = get_recipe("fast-rcnn-vgg16")
    torch.manual_seed(0)
    detector = build_detector(recipe.detector, Classes.from_names([f"class {i}" for i in range(20)])).eval()
    height, width, count = *args.size, args.proposals
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand((1, count, 2, 2), generator=generator).sort(dim=2).values.flatten(2)
    boxes = corners * torch.tensor([width, height, width, height])
    pixels = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator)
    images = Images(pixels, torch.tensor([[height, width]]), None, boxes)
    detectors = truncated_twins(detector, [PAPER_RANKS])
    costs = times_of(detectors, images, args.paper_rounds)
    return [
        "## The paper's network, time alone",
        "",
        f"VGG-16 with random weights, {width} x {height} pixels, {count} proposals, 20 classes. The paper: 320 ms "
        "whole, 223 ms truncated (a ratio of 0.70), mAP 66.9 and 66.6.",
        "",
        *table(detectors, costs, None),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--run", type=Path, help="a run's folder, or a checkpoint")
    parser.add_argument("--split", default="val")
    parser.add_argument("--ranks", nargs="+", default=["128,64", "64,32", "32,16"], help="pairs, one number a layer")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--paper", action="store_true", help="time the paper's network too")
    parser.add_argument("--paper-rounds", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=[600, 800], help="height and width for --paper")
    parser.add_argument("--proposals", type=int, default=2000, help="for --paper")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parents[1] / "results" / "svd.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.run is None and not args.paper:
        parser.error("give --run with a trained run, --paper, or both")
    sections = [*(of_paper(args) if args.paper else []), *(of_run(args) if args.run else [])]
    words = [f"PATH/TO/{args.data.name}"] if args.data else []
    words += [f"--run RUN --split {args.split} --ranks {' '.join(args.ranks)}"] if args.run else []
    words += [f"--paper --size {args.size[0]} {args.size[1]} --proposals {args.proposals}"] if args.paper else []
    lines = [
        "# Truncated SVD of fully connected layers",
        "",
        f"- command: `python benchmarks/svd.py {' '.join(words)}`",
        *describe(threads=args.threads),
        f"- one image, batch 1, norms folded; medians of {args.rounds} rounds"
        + (f", of {args.paper_rounds} for the paper's network" if args.paper else ""),
        "",
        *sections,
    ]
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    args.output.write_text(text)


if __name__ == "__main__":
    main()
