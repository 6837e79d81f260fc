"""Compare our tensors with those of the implementations whose checkpoints we read.

    python benchmarks/parity.py                            torchvision's detectors, with random weights
    python benchmarks/parity.py PATH/TO/fixtures           and the stored outputs of others that are in that folder
    python benchmarks/parity.py PATH/TO/fixtures --cases d2_retinanet_r50_fpn ssd300_vgg16
    python benchmarks/parity.py --list                     the names of all cases

Both sides get the same weights and the same pixels. Heads on regions get the reference's regions. The comparisons are
those of the tests, which fail where a difference exceeds its tolerance. Detections and proposals are lists in which
near ties may swap. For them the share of the reference's rows that are among ours is compared. Then a checkpoint and
the images are written as files and read by the public road, and the input and the detections compared. Writes
results/parity.md
and keeps rows of other cases there that the same versions made. Exits with 1 where a tolerance is exceeded.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from machine import describe

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.detectors import test_mask_rcnn
from tests.support.golden import Comparison, GoldenCase, noted
from tests.support.image_parity import ROADS, compare_images
from tests.support.torchvision_models import MODELS, taps
from tests.weights.darknet import test_yolov1_v2, test_yolov3
from tests.weights.detectron import test_detectron2
from tests.weights.mmdet import test_mmdet
from tests.weights.ports import test_detnet_pytorch, test_refinedet_pytorch, test_ssd_pytorch

RESULT = Path(__file__).resolve().parents[1] / "results" / "parity.md"


class Case(NamedTuple):
    """A case: publisher, model, and its comparison, given the folder of the fixtures."""

    publisher: str
    model: str
    compare: Callable[[Path], object]


def torchvision_model(name: str) -> Callable[[Path], None]:
    """Compare a torchvision model with random weights, an image that needs padding and few classes."""

    def run(_: Path) -> None:
        for tap in taps(name, columns=8, batch=1, height=128, width=176):
            tap.check()

    return run


def detnet(root: Path) -> None:
    """Compare both images of the detector's fixture."""
    case = GoldenCase(root / "detnet59_fpn_voc")
    for number in (0, 1):
        test_detnet_pytorch.test_every_tensor_and_detection_equals_the_ports(
            case, test_detnet_pytorch.built_from(case), number
        )


def refinedet(root: Path) -> None:
    """Compare tensors, anchors and detections of both images."""
    case = test_refinedet_pytorch.Reference(root)
    test_refinedet_pytorch.test_anchors_equal_the_ports(case)
    for number in (0, 1):
        test_refinedet_pytorch.test_every_tensor_equals_the_ports(case, number)
        test_refinedet_pytorch.test_detections_equal_the_ports(case, number)


def ssd(root: Path) -> None:
    """Compare tensors, priors and detections of both images."""
    case = GoldenCase(root / "ssd300_vgg16_voc")
    detector = test_ssd_pytorch.built_from(case)
    test_ssd_pytorch.test_priors_equal_the_ports(case, detector)
    for number in (0, 1):
        test_ssd_pytorch.test_every_tensor_and_detection_equals_the_ports(case, detector, number)


def yolov3(name: str) -> Callable[[Path], None]:
    """Compare layers and detections of a fixture of YOLOv3."""

    def run(root: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            golden = test_yolov3.Golden(root, name, Path(folder))
        test_yolov3.test_every_layer(golden)
        for what in ("dets_before_nms", "dets"):
            test_yolov3.test_detections(golden, what)

    return run


def in_scratch(check: Callable[[Path, Path], object]) -> Callable[[Path], None]:
    """Call ``check`` with an empty folder as its second argument."""

    def run(root: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            check(root, Path(folder))

    return run


def mask_rcnn(root: Path) -> None:
    """Compare maps, boxes and masks."""
    test_detectron2.test_mask_rcnn_equals_detectron2s(root)
    test_mask_rcnn.test_heads_and_pasted_masks_equal_detectron2s(root)


DARKNET, DETECTRON2 = "pjreddie/darknet", "facebookresearch/detectron2"
MMDETECTION, DETNET = "open-mmlab/mmdetection", "guoruoqian/DetNet_pytorch"
yolov2 = test_yolov1_v2.test_yolov2
mini_local = test_yolov1_v2.test_untied_layer_and_connected_batch_norm
CASES: dict[str, Case] = {
    "detnet59_cls": Case(DETNET, "DetNet-59 classifier", test_detnet_pytorch.test_the_classifier),
    "detnet59_fpn_voc": Case(DETNET, "Faster R-CNN DetNet-59 FPN", detnet),
    "refinedet320_vgg16_voc": Case("luuuyi/RefineDet.PyTorch", "RefineDet320 VGG-16", refinedet),
    "ssd300_vgg16_voc": Case("amdegroot/ssd.pytorch", "SSD300 VGG-16", ssd),
    "darknet_yolov3": Case(DARKNET, "YOLOv3", yolov3("darknet_yolov3")),
    "darknet_yolov3_tiny": Case(DARKNET, "YOLOv3-tiny", yolov3("darknet_yolov3_tiny")),
    "darknet_yolov2_voc": Case(DARKNET, "YOLOv2", in_scratch(lambda *at: yolov2("darknet_yolov2_voc", *at))),
    "darknet_yolov2_tiny_voc": Case(
        DARKNET, "YOLOv2-tiny", in_scratch(lambda *at: yolov2("darknet_yolov2_tiny_voc", *at))
    ),
    "darknet_yolov1_tiny": Case(DARKNET, "YOLOv1-tiny", in_scratch(test_yolov1_v2.test_tiny_yolov1)),
    "darknet_mini_local": Case(DARKNET, "small network with YOLOv1's untied layer", in_scratch(mini_local)),
    "d2_faster_rcnn_r50_fpn": Case(
        DETECTRON2, "Faster R-CNN R50 FPN", test_detectron2.test_faster_rcnn_with_fpn_equals_detectron2s
    ),
    "d2_faster_rcnn_r50_c4": Case(DETECTRON2, "Faster R-CNN R50 C4", test_detectron2.test_c4_equals_detectron2s),
    "d2_mask_rcnn_r50_fpn": Case(DETECTRON2, "Mask R-CNN R50 FPN", mask_rcnn),
    "d2_retinanet_r50_fpn": Case(
        DETECTRON2, "RetinaNet R50 FPN", test_detectron2.test_retinanet_equals_detectron2s
    ),
    "mmdet_retinanet_r50_fpn": Case(
        MMDETECTION, "RetinaNet R50 FPN", test_mmdet.test_retinanet_equals_mmdetections
    ),
    "mmdet_ssd300_vgg16": Case(MMDETECTION, "SSD300 VGG-16", test_mmdet.test_ssd300_equals_mmdetections),
}  # fmt: skip
"""The fixtures, by the names of their folders."""


def compared(name: str, fixtures: Path) -> tuple[str, str, list[Comparison]]:
    """Return publisher, model and rows of a case. An error that stops the comparison is a row too."""
    publisher, model, compare = CASES[name] if name in CASES else Case("torchvision", name, torchvision_model(name))
    stopped = None
    with noted() as rows:
        try:
            compare(fixtures)
        except AssertionError as error:
            stopped = Comparison(str(error).splitlines()[0], None, None, None, "stops here", False)
    worst: dict[str, Comparison] = {}
    for row in rows:  # two tests may pass the same place
        if row.tap not in worst or not row.kept or (row.absolute or 0) > (worst[row.tap].absolute or 0):
            worst[row.tap] = row
    return publisher, model, [*worst.values(), *([stopped] if stopped else [])]


def image_rows(name: str, fixtures: Path) -> tuple[list[str], list[str]]:
    """Return the rows of a case's table from the image file on, and those that exceed a tolerance."""
    publisher, model, _ = CASES[name]
    rows, broken = [], []
    with tempfile.TemporaryDirectory() as folder:
        for row in compare_images(fixtures / name, Path(folder)):
            levels = "not stored" if row.levels is None else f"{row.levels:.1e}"
            kept = row.share >= row.least and (row.levels or 0) < 0.001
            share = f"{row.share:.4f}" + ("" if kept else " **exceeded**")
            today = datetime.date.today().isoformat()
            rows.append(f"| {publisher} | {model} | image {row.image} | {levels} | {share} | {today} |")
            broken += [] if kept else rows[-1:]
    return rows, broken


def table_row(publisher: str, model: str, row: Comparison) -> str:
    """Return a row of the long table."""
    differences = [f"{value:.1e}" if value is not None else "" for value in (row.absolute, row.relative)]
    share = f"{row.share:.4f}" if row.share is not None else ""
    mark = "" if row.kept else " **exceeded**"
    return f"| {' | '.join([publisher, model, row.tap, *differences, share, row.tolerance + mark])} |"


def summary_row(publisher: str, model: str, rows: list[Comparison]) -> str:
    """Return a row of the short table."""
    relative = max((row.relative for row in rows if row.relative is not None), default=None)
    share = min((row.share for row in rows if row.share is not None), default=None)
    texts = [f"{relative:.1e}" if relative is not None else "", f"{share:.4f}" if share is not None else ""]
    kept = sum(row.kept for row in rows)
    counts = [str(len(rows)), str(kept) if kept == len(rows) else f"**{kept}**"]
    return f"| {' | '.join([publisher, model, *counts, *texts, datetime.date.today().isoformat()])} |"


Tables = tuple[dict[str, str], dict[str, list[str]], dict[str, list[str]]]


def earlier(versions: str) -> Tables:
    """Return the lines of the three tables in the existing file by ``publisher | model``, if the same versions made
    them.
    """
    short: dict[str, str] = {}
    long: dict[str, list[str]] = {}
    images: dict[str, list[str]] = {}
    lines = RESULT.read_text().splitlines() if RESULT.is_file() else []
    if versions in lines:
        known = {f"{case.publisher} | {case.model}" for case in CASES.values()} | {f"torchvision | {m}" for m in MODELS}
        for line in lines:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            key = " | ".join(cells[:2])
            if key not in known:
                continue
            if cells[2].isdigit():
                short[key] = line
            elif re.fullmatch(r"image \d+", cells[2]):
                images.setdefault(key, []).append(line)
            else:
                long.setdefault(key, []).append(line)
    return short, long, images


def report(tables: Tables, head: Iterable[str], with_fixtures: bool) -> str:
    """Return the text of the file."""
    short, long, images = tables
    order = [f"torchvision | {name}" for name in MODELS]
    order += [f"{case.publisher} | {case.model}" for case in CASES.values()]
    lines = [
        "# Parity with the publishers of checkpoints",
        "",
        *head,
        f"- command: `python benchmarks/parity.py{' PATH/TO/fixtures' if with_fixtures else ''}`, or in parts by "
        "`--cases`",
        "- weights are random, float32 on a CPU. Of torchvision's models the package itself is the reference; of all "
        "others what their code computed from the same weights and images, stored beforehand, every so many elements "
        "of a large tensor",
        "- a relative difference is the largest absolute one over the reference's largest number; a tolerance `atol`, "
        "`rtol` holds for each element, and is the fixture's; of proposals and detections, lists in which near ties "
        "may swap, the share of the reference's rows that found a partner is compared",
        "- the comparisons are those of the tests in `tests/weights` and `tests/detectors`",
        "- Darknet divides by `sqrt(var) + 1e-6`, we by the root of `var + 1e-5`: about 5e-6 a layer, which adds up. "
        "Of YOLOv3-tiny's detections those without a partner are of one box, 44 images high as random weights will "
        "have it: 0.003 of an image off, where the limit is 0.002; YOLOv3's all have one before NMS",
        "",
        "| publisher | model | places compared | within tolerance | largest relative difference | least share | made |",
        "|---|---|---:|---:|---:|---:|---|",
        *(short[key] for key in order if key in short),
        "",
        "## From the image file on",
        "",
        "A checkpoint in the published form and a PNG are written, and read by `load_detector(FILE).detect(IMAGE)`. "
        "Only the settings that the reference was run with in place of its publisher's are overridden, such as a "
        "smaller input. Grey levels are of 255. Darknet loses the last row of an image of some sizes to a rounding "
        "fault, which is not copied; such an image of the fixtures is left out.",
        "",
        "| publisher | model | image | largest difference of the input, grey levels | share with a partner | made |",
        "|---|---|---|---:|---:|---|",
        *(line for key in order for line in images.get(key, [])),
        "",
        "## Every place",
        "",
        "| publisher | model | tap | largest absolute difference | relative | share with a partner | tolerance |",
        "|---|---|---|---:|---:|---:|---|",
        *(line for key in order for line in long.get(key, [])),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixtures", type=Path, nargs="?", help="the folder of stored outputs")
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--list", action="store_true", help="print the names of all cases")
    parser.add_argument("--dry-run", action="store_true", help="print, write nothing")
    args = parser.parse_args()
    if args.list:
        print("\n".join([*MODELS, *CASES]))
        return
    names = args.cases or [*MODELS, *(CASES if args.fixtures else ())]
    for name in names:
        if name not in MODELS and name not in CASES:
            parser.error(f"{name}: no such case; see --list")
        if name in CASES and (args.fixtures is None or not (args.fixtures / name).is_dir()):
            parser.error(f"{name}: is not in {args.fixtures or 'a folder of fixtures, which must be given'}")
    head = describe()
    tables = earlier(head[-1])
    short, long, images = tables
    broken = []
    for name in names:
        publisher, model, rows = compared(name, args.fixtures or Path())
        key = f"{publisher} | {model}"
        short[key], long[key] = summary_row(publisher, model, rows), [table_row(publisher, model, r) for r in rows]
        print(short[key], flush=True)
        broken += [table_row(publisher, model, row) for row in rows if not row.kept]
        if name in ROADS:
            images[key], exceeded = image_rows(name, args.fixtures)
            broken += exceeded
            print("\n".join(images[key]), flush=True)
        if not args.dry_run:
            fixtures = args.fixtures is not None or any(not key.startswith("torchvision") for key in short)
            RESULT.write_text(report(tables, head, fixtures))
    if broken:
        raise SystemExit("tolerances exceeded:\n" + "\n".join(broken))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
