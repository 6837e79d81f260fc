"""Importing detectron2's detectors: every tensor on the way equals detectron2's; exporting is the inverse."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.weights.golden import GoldenCase
from tests.weights.two_stage_taps import (
    check_fpn_detector,
    check_proposals,
    check_rpn,
    detected,
    original_scale,
    pil_images,
    share_detected,
)
from torch import Tensor

from boxwright.data.resizing import ResizeConfig
from boxwright.detectors.build import DetectorConfig, build_detector
from boxwright.detectors.detector import Detector, PixelConfig
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4Config
from boxwright.detectors.retinanet import RetinaNetConfig
from boxwright.detectors.ssd import SSDConfig
from boxwright.geometry.feature_table import FeatureTable
from boxwright.geometry.paste import paste_masks
from boxwright.geometry.roi_pooling import pool_regions
from boxwright.structures import Classes, InputError
from boxwright.weights import detectron2
from boxwright.weights.class_names import COCO, VOC
from boxwright.weights.detectron2 import export_detectron2, import_detectron2, recognise_detectron2
from boxwright.weights.imported import build_imported

NAMES = {
    "faster_rcnn FPN": "d2_faster_rcnn_r50_fpn",
    "faster_rcnn C4": "d2_faster_rcnn_r50_c4",
    "mask_rcnn FPN": "d2_mask_rcnn_r50_fpn",
    "retinanet FPN": "d2_retinanet_r50_fpn",
}


def sized(detector: Detector, case: GoldenCase, number: int) -> Detector:
    """The detector, resizing as image ``number`` of the case was, and with its number of proposals."""
    short = case.spec["images"][number]["target_short_side"]
    detector.transforms = (ResizeConfig(short=(short,), long=1333),)
    return detector


def build_with(case: GoldenCase, proposals: int | None = None) -> Detector:
    imported = import_detectron2({"model": case.weights, "__author__": "Detectron2 Model Zoo"})
    if proposals:
        imported = imported._replace(
            config=replace(imported.config, rpn=replace(imported.config.rpn, post_nms=(2000, proposals)))  # type: ignore
        )
    return build_imported(imported, "case.pkl")


@torch.inference_mode()
def test_faster_rcnn_with_fpn_equals_detectron2s(shared_golden: Path) -> None:
    case = GoldenCase(shared_golden / NAMES["faster_rcnn FPN"])
    detector = build_with(case, proposals=200)
    assert detector.classes == COCO
    for number in (0, 1):
        check_fpn_detector(case, number, detector)
        assert detected(case, number, sized(detector, case, number)) >= 0.97


@torch.inference_mode()
def test_mask_rcnn_equals_detectron2s(shared_golden: Path) -> None:
    """As Faster R-CNN, and the masks in the image, pixel for pixel; their logits are compared beside the detector."""
    case = GoldenCase(shared_golden / NAMES["mask_rcnn FPN"])
    detector = build_with(case, proposals=200)
    check_fpn_detector(case, 0, detector)
    assert detected(case, 0, sized(detector, case, 0)) >= 0.97
    stored = torch.from_numpy(case.stored["img0/dets"])
    images = pil_images(case, 0, 32)
    maps = detector.neck(detector.backbone(detector.normalise(images)))  # type: ignore[operator]
    table = FeatureTable.from_maps(maps[:4], detector.strides[:4])  # type: ignore[index]
    pooled = pool_regions(table, (stored[:, 2:] / original_scale(case, 0))[None], detector.config.mask.pooling)
    labels = stored[None, :, 0].long()
    masks = detector.mask_head.masks(pooled, labels, torch.ones_like(labels, dtype=torch.bool))[0]  # type: ignore
    found = paste_masks(masks.numpy(), stored[:, 2:].numpy(), case.picture(0).shape[:2], detector.paste)
    largest = case.stored["img0/mask_rows"].astype(int)
    assert (np.asarray(found[largest]) == case.stored["img0/mask_pasted"]).mean() > 0.998
    np.testing.assert_allclose(found.areas(), case.stored["img0/mask_area"], rtol=0.01, atol=2)


@torch.inference_mode()
def test_c4_equals_detectron2s(shared_golden: Path) -> None:
    case = GoldenCase(shared_golden / NAMES["faster_rcnn C4"])
    detector = build_with(case, proposals=len(case.stored["img0/proposals"]))
    images = pil_images(case, 0, 1)
    case.check("img0/image", images.pixels[0].flip(0).float())
    fmap = detector.backbone(detector.normalise(images))[0]  # type: ignore[operator]
    case.check("img0/features/res4", fmap)
    check_rpn(case, 0, detector, [fmap], ["c4"])
    proposals = check_proposals(case, 0, detector, [fmap], images.sizes)
    pooled = detector._pooled(fmap, proposals.boxes)  # type: ignore[operator]
    head = detector.head
    case.check("img0/roi/box_features", head.features(pooled)[0])  # type: ignore[union-attr, operator]
    logits, deltas = head(pooled)  # type: ignore[operator]
    case.check("img0/roi/cls_logits", logits[0])
    case.check("img0/roi/box_deltas", deltas[0].flatten(1))
    found = head.detections(logits, deltas, proposals, images.sizes)  # type: ignore[union-attr, operator]
    rows, scale = found.valid[0], original_scale(case, 0)
    boxes = found.boxes[0, rows] * scale
    assert share_detected(case, "img0/dets", found.labels[0, rows], found.scores[0, rows], boxes) >= 0.97
    assert detected(case, 0, sized(detector, case, 0)) >= 0.97


@torch.inference_mode()
def test_retinanet_equals_detectron2s(shared_golden: Path) -> None:
    case = GoldenCase(shared_golden / NAMES["retinanet FPN"])
    detector = build_with(case)
    for number in (0, 1):
        images = pil_images(case, number, 32)
        maps = detector.neck(detector.backbone(detector.normalise(images)))  # type: ignore[operator]
        logits, deltas = detector.head(maps)  # type: ignore[operator]
        for level, fmap, logit, delta in zip(detector.neck.levels, maps, logits, deltas, strict=True):  # type: ignore
            name = level.name.lower()
            case.check(f"img{number}/features/{name}", fmap)
            for head, values in (("cls_logits", logit), ("bbox_deltas", delta)):
                flat = values.reshape(1, *fmap.shape[2:], -1).permute(0, 3, 1, 2)
                case.check(f"img{number}/head/{head}_{name}", flat)
        assert detected(case, number, sized(detector, case, number)) >= 0.97
