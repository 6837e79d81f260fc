"""Importing MMDetection 3's detectors: every tensor on the way equals MMDetection's."""

from pathlib import Path

import torch
from tests.weights.golden import GoldenCase
from tests.weights.test_refinedet_pytorch import opencv_resize
from tests.weights.two_stage_taps import original_scale, share_detected

from boxwright.detectors.detector import Detector
from boxwright.structures import Images
from boxwright.weights.class_names import COCO
from boxwright.weights.imported import build_imported
from boxwright.weights.mmdet import import_mmdet


def opencv_images(case: GoldenCase, multiple: int) -> Images:
    """The image resized by OpenCV's bilinear method and padded below and on the right."""
    height, width = case.spec["images"][0]["resized"]
    padded = [-(-side // multiple) * multiple for side in (height, width)]
    pixels = torch.zeros(1, 3, *padded, dtype=torch.uint8)
    resized = opencv_resize(case.picture(0), height, width)
    pixels[..., :height, :width] = torch.from_numpy(resized).permute(2, 0, 1)
    return Images(pixels, torch.tensor([[height, width]]))


def share_found(case: GoldenCase, detector: Detector, images: Images) -> float:
    """Share of the stored detections that the detector has."""
    found = detector(images)
    rows = found.valid[0]
    boxes = found.boxes[0, rows] * original_scale(case, 0)
    return share_detected(case, "img0/dets", found.labels[0, rows], found.scores[0, rows], boxes)


@torch.inference_mode()
def test_retinanet_equals_mmdetections(shared_golden: Path) -> None:
    case = GoldenCase(shared_golden / "mmdet_retinanet_r50_fpn")
    imported = import_mmdet({"meta": {"epoch": 12}, "state_dict": case.weights})
    assert imported.classes == COCO
    detector, images = build_imported(imported, "case.pth"), opencv_images(case, 32)
    pixels = detector.normalise(images)
    case.check("img0/input", pixels)
    maps = detector.neck(detector.backbone(pixels))  # type: ignore[operator]
    logits, deltas = detector.head(maps)  # type: ignore[operator]
    for i, (fmap, logit, delta) in enumerate(zip(maps, logits, deltas, strict=True)):
        case.check(f"img0/neck{i}", fmap)
        for name, values in (("cls", logit), ("reg", delta)):
            case.check(f"img0/{name}{i}", values.reshape(1, *fmap.shape[2:], -1).permute(0, 3, 1, 2))
    assert share_found(case, detector, images) >= 0.97


@torch.inference_mode()
def test_ssd300_equals_mmdetections(shared_golden: Path) -> None:
    case = GoldenCase(shared_golden / "mmdet_ssd300_vgg16")
    detector = build_imported(import_mmdet(case.weights), "case.pth")
    images = opencv_images(case, 1)
    pixels = detector.normalise(images)
    case.check("img0/input", pixels)
    maps = detector.maps(pixels)  # type: ignore[operator]
    for i, (fmap, head) in enumerate(zip(maps, detector.heads, strict=True)):  # type: ignore[arg-type]
        case.check(f"img0/neck{i}", fmap)
        for name, values in zip(("reg", "cls"), head(fmap), strict=True):
            case.check(f"img0/{name}{i}", values.reshape(1, *fmap.shape[2:], -1).permute(0, 3, 1, 2))
    assert share_found(case, detector, images) >= 0.97
