"""Time and memory of pasting masks into an image, compared with torchvision's ``paste_masks_in_image``.

    OMP_NUM_THREADS=2 python benchmarks/mask_paste.py

100 masks of 28 x 28 with boxes of 16 to 800 pixels in an image of 1333 x 800. Runs are interleaved: each round times
every contestant once, and the result is the median of the ratios to torchvision. Both give the same pixels, which is
checked first. Writes results/mask_paste.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from hotcoco import mask as mask_api
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image

from boxwright.geometry.paste import PasteConfig, paste_masks
from machine import describe

HEIGHT, WIDTH = 800, 1333


def instances(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return smooth masks ``[n, 28, 28]`` and boxes ``[n, 4]``, with sides spread evenly in logarithm."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((count, 1, 5, 5), generator=generator)
    masks = F.interpolate(coarse, (28, 28), mode="bicubic")[:, 0].clamp(0, 1)
    side = 16 * 50 ** torch.rand((count, 2), generator=generator)  # 16 to 800
    low = torch.rand((count, 2), generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - side).clamp(min=0)
    return masks, torch.cat([low, (low + side).minimum(torch.tensor([WIDTH, HEIGHT]))], 1)


def contestants(masks: torch.Tensor, boxes: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Return the functions to time by name, torchvision first."""
    size = (HEIGHT, WIDTH)
    arrays, corners = masks.numpy(), boxes.numpy()

    def theirs() -> np.ndarray:
        return (paste_masks_in_image(masks[:, None], boxes, size)[:, 0] > 0.5).numpy()

    def theirs_coded() -> list[object]:
        return [mask_api.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in theirs()]

    return {
        "torchvision, bool masks": theirs,
        "torchvision, run lengths": theirs_coded,
        "ours, windows": lambda: paste_masks(arrays, corners, size),
        "ours, bool masks": lambda: np.asarray(paste_masks(arrays, corners, size)),
        "ours, run lengths": lambda: paste_masks(arrays, corners, size).run_lengths(),
        "ours, detectron2's way, run lengths": lambda: paste_masks(
            arrays, corners, size, PasteConfig(method="centres")
        ).run_lengths(),
    }


def traced_peak(run: Callable[[], object]) -> float:
    """Return the peak of numpy's arrays in MiB above the level before. torch does not report its own."""
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def main() -> None:
    """Run the comparison of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    masks, boxes = instances(args.count)
    runs = contestants(masks, boxes)
    mine, reference = runs["ours, bool masks"](), runs["torchvision, bool masks"]()
    different = int((np.asarray(mine) != np.asarray(reference)).sum())
    if different > 10:
        raise SystemExit(f"{different} pixels differ from torchvision's")

    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    base = next(iter(runs))
    dense = args.count * HEIGHT * WIDTH
    lines = [
        f"# Pasting {args.count} masks into an image of {WIDTH} x {HEIGHT}",
        "",
        f"- command: `python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}`",
        *describe("cpu", args.threads),
        f"- {args.rounds} rounds, interleaved; median milliseconds, and the median of each round's ratio to {base}",
        f"- {different} of {int(np.asarray(reference).sum())} pixels differ from torchvision's",
        f"- torchvision holds {5 * dense / 2**20:.0f} MiB, float and bool; our windows, with all that makes them, "
        f"{traced_peak(runs['ours, windows']):.0f} MiB",
        "",
        "| | ms | ratio of time (min .. max) |",
        "|---|---|---|",
    ]
    for name, seconds in times.items():
        ratios = [s / b for s, b in zip(seconds[1:], times[base][1:], strict=True)]
        spread = f"{statistics.median(ratios):.4f} ({min(ratios):.4f} .. {max(ratios):.4f})"
        lines.append(f"| {name} | {1000 * statistics.median(seconds[1:]):.1f} | {spread} |")
    print("\n".join(lines))
    (Path(__file__).resolve().parents[1] / "results" / "mask_paste.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
