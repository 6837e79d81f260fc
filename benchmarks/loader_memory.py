"""Memory of annotations with a growing number of loader workers: the packed index and a list of dictionaries.

    python benchmarks/loader_memory.py                          1,000,000 boxes of 118,000 images
    python benchmarks/loader_memory.py --boxes 50000 --dry-run  a short run; prints, writes nothing

Memory is the proportional set size (a page shared by two processes counts half in each) from
``/proc/PID/smaps_rollup``, summed over the parent and its workers, after every worker has read every annotation. Pages
of files are left out, because libraries are shared with other programs. Python writes a reference count
into each object it reads, so a forked worker soon owns a copy of every page of dictionaries.
"nothing" is the same program without a data set: interpreter, torch, queues. Each figure is of a process of its own.
Writes results/loader_memory.md. Linux only.
"""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.loading.sampler import Numbers
from boxwright.data.loading.workers import Workers
from boxwright.structures import Classes
from machine import describe

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "results" / "loader_memory.md"
WORKERS = (0, 1, 2, 4)
CONTENTS = ("nothing", "index", "dictionaries")


class Nothing(Dataset[float]):
    """No annotations at all."""

    def __getitem__(self, number: int) -> float:
        return 0.0


class Packed(Dataset[float]):
    """Reads every annotation of a `DetectionIndex` for one item."""

    def __init__(self, folder: Path) -> None:
        self.index: DetectionIndex = pickle.loads((folder / "index.pickle").read_bytes())

    def __getitem__(self, number: int) -> float:
        return float(sum(self.index.annotations(i).boxes.sum() for i in range(len(self.index))))


class Dictionaries(Dataset[float]):
    """The same with the annotations as dictionaries from a COCO file."""

    def __init__(self, folder: Path) -> None:
        self.annotations: list[dict[str, Any]] = json.loads((folder / "annotations.json").read_bytes())

    def __getitem__(self, number: int) -> float:
        return float(sum(sum(row["bbox"]) + row["category_id"] for row in self.annotations))


def write_data(folder: Path, images: int, boxes: int) -> None:
    """Write the same random annotations as a pickled index and as JSON."""
    rng = np.random.default_rng(0)
    owner = np.sort(rng.integers(0, images, boxes))
    ends = np.searchsorted(owner, np.arange(images + 1))
    corner = rng.uniform(0, 400, (boxes, 2)).round(2)
    xywh = np.concatenate([corner, rng.uniform(4, 80, (boxes, 2)).round(2)], axis=1)
    labels = rng.integers(0, 80, boxes)
    records = [
        ImageRecord(
            path=folder / f"train2017/{i:012d}.jpg",
            image_id=i,
            height=480,
            width=640,
            boxes=xywh[ends[i] : ends[i + 1]],
            labels=labels[ends[i] : ends[i + 1]],
            box_format="xywh",
        )
        for i in range(images)
    ]
    index = DetectionIndex.build(Classes.from_names([f"class {k}" for k in range(80)]), records, root=folder)
    (folder / "index.pickle").write_bytes(pickle.dumps(index, protocol=5))
    rows = [
        {"id": n, "image_id": i, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for n, (i, label, box) in enumerate(zip(owner.tolist(), labels.tolist(), xywh.tolist(), strict=True))
    ]
    (folder / "annotations.json").write_text(json.dumps(rows))


def measure(folder: Path, content: str, workers: int, method: Any) -> float:
    """Return the megabytes of this process and its workers after each has read all annotations."""
    match content:
        case "index":
            dataset: Dataset[float] = Packed(folder)
        case "dictionaries":
            dataset = Dictionaries(folder)
        case _:
            dataset = Nothing()
    loader = Workers(dataset, workers, pin_memory=False, prefetch=1, start_method=method)
    results = loader.start(Numbers(0, max(workers, 1)))  # dealt out in turn: one for each worker
    totals = {next(results) for _ in range(max(workers, 1))}
    assert len(totals) == 1
    children = Path("/proc/self/task")
    pids = ["self", *{pid for task in children.iterdir() for pid in (task / "children").read_text().split()}]
    kilobytes = sum(_pss(pid) for pid in pids)
    loader.stop()
    return kilobytes * 1024 / 1e6


def _pss(pid: str) -> int:
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    sizes = {line[0]: int(line[1]) for line in lines}
    return sizes["Pss_Anon:"] + sizes["Pss_Shmem:"]


def table(folder: Path, method: str, contents: tuple[str, ...], counts: tuple[int, ...]) -> list[str]:
    """Return a Markdown table, with one process per value."""
    lines = [f"| workers | {' | '.join(contents)} |", "|" + "---:|" * (len(contents) + 1)]
    for workers in counts:
        figures = []
        for content in contents:
            case = [sys.executable, __file__, "--case", str(folder), content, str(workers), method]
            done = subprocess.run(case, check=True, capture_output=True, text=True)
            figures.append(f"{float(done.stdout):,.0f}")
        lines.append(f"| {workers} | {' | '.join(figures)} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--boxes", type=int, default=1_000_000)
    parser.add_argument("--dry-run", action="store_true", help="print only")
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        folder, content, workers, method = options.case
        print(measure(Path(folder), content, int(workers), method))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, options.images, options.boxes)
        lines = [
            "# Memory of loader workers",
            "",
            *describe(threads=1),
            f"- command: `{' '.join(['python', 'benchmarks/loader_memory.py', *sys.argv[1:]])}`",
            f"- {options.boxes:,} boxes of {options.images:,} images, without segmentations; all read by every worker",
            "",
            "Megabytes (10^6 bytes) of proportional set size without pages of files, parent and workers",
            "together. nothing: no data set.",
            "",
            "Forked workers, the default on Linux:",
            "",
            *table(folder, "fork", CONTENTS, WORKERS),
            "",
            "Spawned workers, the default elsewhere (each is a new interpreter with its own torch):",
            "",
            *table(folder, "spawn", CONTENTS[:2], (1, 2, 4)),
        ]
    if not options.dry_run:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text("\n".join(lines) + "\n")
        print(f"wrote {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
