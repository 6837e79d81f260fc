"""How far our numbers are from those of the implementations whose checkpoints we read, place by place.

    python benchmarks/parity.py                           torchvision's detectors, with random weights
    python benchmarks/parity.py PATH/TO/fixtures          and the stored outputs of others that are in that folder
    python benchmarks/parity.py --only ssd --dry-run      the models with "ssd" in their name; prints, writes nothing

Both sides get the same weights and the same pixels. Heads on regions get the reference's regions. A relative
difference is the largest absolute one over the largest number of the reference. Detections and proposals are lists in
which near ties may swap: what is compared is the share of the reference's that are among ours. Writes
results/parity.md; exits with 1 where a tolerance is exceeded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from machine import describe

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.backbones.test_detnet import our_key
from tests.weights.golden import GoldenCase
from tests.weights.test_refinedet_pytorch import opencv_resize
from tests.weights.torchvision_models import MODELS, taps

from boxwright.backbones import Classifier, DetNetConfig, build_backbone
from boxwright.detectors.refinedet import RefineDet
from boxwright.detectors.ssd import SSD
from boxwright.structures import Classes, Images
from boxwright.weights import refinedet_pytorch, ssd_pytorch

ROOT = Path(__file__).resolve().parents[1]
VOC = Classes.from_names([f"class {i}" for i in range(20)])


class Row(NamedTuple):
    """A place in a model: the two differences, and the tolerance in words and whether it is kept."""

    tap: str
    absolute: float
    relative: float
    tolerance: str
    kept: bool


class Recorder(GoldenCase):
    """A case that notes its comparisons instead of stopping at the first that fails."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.rows: list[Row] = []

    def check(self, name: str, value: Tensor) -> None:
        """Note how far ``value`` is from the stored output ``name``."""
        meta = self.spec["outputs"][name]
        mine, stored = self.rule.pick(value.numpy(), meta["step"]), self.stored[name].reshape(-1)
        limits = {key: meta.get(key, 1e-6) for key in ("atol", "rtol")}
        absolute = float(np.abs(mine.astype(np.float64) - stored).max())
        kept = list(value.shape) == meta["shape"] and np.allclose(mine, stored, **limits)
        relative = absolute / max(float(np.abs(stored).max()), 1e-12)
        self.rows.append(Row(name, absolute, relative, f"atol {limits['atol']:.0e}, rtol {limits['rtol']:.0e}", kept))

    def share(self, name: str, share: float, least: float) -> None:
        """Note the ``share`` of the stored list ``name`` that was found."""
        self.rows.append(Row(f"{name} not found", 1 - share, 1 - share, f"{1 - least:.2f}", share >= least))


def torchvision_rows(name: str) -> Iterator[Row]:
    """Random weights, images that need padding, as many classes as a small data set has."""
    for tap in taps(name, columns=8, batch=2, height=128, width=176):
        absolute, relative = tap.differences()
        yield Row(tap.name, absolute, relative, f"relative {tap.tolerance:.0e}", relative <= tap.tolerance)


@torch.inference_mode()
def detnet_classifier(case: Recorder) -> None:
    """guoruoqian/DetNet_pytorch's ImageNet network."""
    model = Classifier(build_backbone(DetNetConfig(stride_in_1x1=False)), 1000).eval()
    model.load_state_dict({our_key(key): value for key, value in case.weights.items()})
    seen: dict[str, Tensor] = {}
    model.backbone.get_submodule("layer1").register_forward_pre_hook(lambda _, x: seen.update(maxpool=x[0]))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for number in range(len(case.spec["images"])):
        pixels = torch.from_numpy(((case.picture(number) / 255 - mean) / std).astype(np.float32)).permute(2, 0, 1)[None]
        seen["logits"] = model(pixels)
        seen |= {f"layer{i}": fmap for i, fmap in enumerate(model.backbone(pixels), start=1)}
        for name in sorted(case.names(number)):
            case.check(f"img{number}/{name}", seen[name])


def opencv_images(case: Recorder, number: int, side: int) -> Images:
    """A picture as the SSD ports resize it."""
    pixels = torch.from_numpy(opencv_resize(case.picture(number), side, side)).permute(2, 0, 1).unsqueeze(0)
    return Images(pixels, torch.tensor([[side, side]]))


@torch.inference_mode()
def ssd_port(case: Recorder) -> None:
    """amdegroot/ssd.pytorch."""
    detector = SSD(ssd_pytorch.ssd_config(), VOC).eval()
    detector.load_state_dict(ssd_pytorch.ssd_state(case.weights))
    for number in (0, 1):
        images = opencv_images(case, number, 300)
        pixels = detector.normalise(images)
        seen: dict[str, Tensor] = {"input": pixels}
        conv5_3 = detector.backbone.get_submodule("features.28")
        assert isinstance(conv5_3, nn.Conv2d)
        hook = conv5_3.register_forward_hook(lambda module, args, out, seen=seen: seen.update(vgg29=out.relu()))
        seen["vgg22"], seen["vgg34"] = (fmap.clone() for fmap in detector.backbone(pixels))
        hook.remove()
        maps = detector.maps(pixels)
        seen["loc"], logits = detector.predict(maps)
        seen["conf"] = logits[..., [20, *range(20)]]
        seen |= {f"source{i}": fmap for i, fmap in enumerate(maps)}
        for name, value in seen.items():
            case.check(f"img{number}/{name}", value)
        found = case.share_found(f"img{number}/dets", detector(images), (300, 300))
        case.share(f"img{number}/dets", found, 0.99)


@torch.inference_mode()
def refinedet_port(case: Recorder) -> None:
    """luuuyi/RefineDet.PyTorch."""
    detector = RefineDet(refinedet_pytorch.refinedet_config(), VOC).eval()
    detector.load_state_dict(refinedet_pytorch.refinedet_state(case.weights))
    assert detector.tcb is not None
    for number in (0, 1):
        images = opencv_images(case, number, 320)
        pixels = detector.normalise(images)
        maps, sources = detector.backbone(pixels), detector.sources(pixels)
        pyramid, out = detector.tcb(sources), detector.heads(sources)
        seen = dict(zip(("vgg22", "vgg29", "vgg34"), maps, strict=True)) | {
            "input": pixels,
            "l2_conv4_3": sources[0],
            "l2_conv5_3": sources[1],
            "arm_loc": out.arm_deltas,
            "arm_conf": out.arm_logits.flip(-1),
            "odm_loc": out.odm_deltas,
            "odm_conf": out.odm_logits[..., [20, *range(20)]],
        }
        seen |= {f"tcb{i}": fmap for i, fmap in enumerate(pyramid)}
        for name in sorted(case.names(number) & seen.keys()):
            case.check(f"img{number}/{name}", seen[name])
        found = case.share_found(f"img{number}/dets", detector(images), (320, 320))
        case.share(f"img{number}/dets", found, 0.99)


CASES: dict[str, tuple[str, str, Callable[[Recorder], None]]] = {
    "detnet59_cls": ("guoruoqian/DetNet_pytorch", "DetNet-59 classifier", detnet_classifier),
    "ssd300_vgg16_voc": ("amdegroot/ssd.pytorch", "SSD300 VGG-16", ssd_port),
    "refinedet320_vgg16_voc": ("luuuyi/RefineDet.PyTorch", "RefineDet320 VGG-16", refinedet_port),
}
"""Of the fixtures: publisher, model, and what compares them."""


def models(fixtures: Path | None, only: str) -> Iterator[tuple[str, str, list[Row]]]:
    """Publisher, model and rows of everything that can be compared and has ``only`` in its name."""
    for name in MODELS:
        if only in name:
            yield "torchvision", name, list(torchvision_rows(name))
    for folder, (publisher, model, compare) in CASES.items() if fixtures is not None else ():
        if only in folder and fixtures is not None:
            if not (fixtures / folder).is_dir():
                raise SystemExit(f"{fixtures}: has no {folder}")
            case = Recorder(fixtures / folder)
            compare(case)
            yield publisher, model, case.rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixtures", type=Path, nargs="?", help="the folder of stored outputs")
    parser.add_argument("--only", default="", help="part of a model's name")
    parser.add_argument("--dry-run", action="store_true", help="print, write nothing")
    args = parser.parse_args()
    lines = [
        "# Parity with the publishers of checkpoints",
        "",
        *describe(),
        f"- command: `python benchmarks/parity.py{' PATH/TO/fixtures' if args.fixtures else ''}`",
        "- weights are random; float32 on a CPU; a relative difference is of the reference's largest number",
        "",
        "| publisher | model | tap | largest difference | relative | tolerance |",
        "|---|---|---|---:|---:|---|",
    ]
    broken = []
    for publisher, model, rows in models(args.fixtures, args.only):
        print(f"{publisher} {model}: {len(rows)} taps, {max(r.relative for r in rows):.1e} at most", flush=True)
        for row in rows:
            mark = "" if row.kept else " **exceeded**"
            lines.append(
                f"| {publisher} | {model} | {row.tap} | {row.absolute:.1e} | {row.relative:.1e} | "
                f"{row.tolerance}{mark} |"
            )
            if not row.kept:
                broken.append(lines[-1])
    if args.dry_run:
        print("\n".join(lines))
    else:
        (ROOT / "results" / "parity.md").write_text("\n".join(lines) + "\n")
    if broken:
        raise SystemExit("tolerances exceeded:\n" + "\n".join(broken))


if __name__ == "__main__":
    main()
