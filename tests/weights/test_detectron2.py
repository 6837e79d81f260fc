"""Faster R-CNN C4 against detectron2's: the map, both outputs of the RPN, proposals, the head on them, detections."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.weights.golden import GoldenCase
from torch import Tensor

from boxwright.detectors.faster_rcnn import FasterRCNN
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4
from boxwright.heads.rpn import Proposals
from boxwright.structures import Classes, Images, InputError
from boxwright.weights.detectron2 import (
    faster_rcnn_c4_config,
    faster_rcnn_config,
    faster_rcnn_state,
)

COCO = Classes.from_names([f"class {i}" for i in range(80)])


@pytest.fixture(scope="module")
def case(shared_golden: Path) -> GoldenCase:
    return GoldenCase(shared_golden / "d2_faster_rcnn_r50_c4")


def images_of(case: GoldenCase) -> Images:
    height, width = case.spec["images"][0]["resized"]
    resized = Image.fromarray(case.picture(0)).resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).unsqueeze(0)
    return Images(pixels, torch.tensor([[height, width]]))


def share(mine: Tensor, stored: Tensor, limit: float) -> float:
    """Share of the stored rows that are near one of mine."""
    near = (mine[:, None] - stored).abs().amax(-1) < limit
    return near.any(0).float().mean().item()


@torch.inference_mode()
def test_c4_equals_detectron2s(case: GoldenCase) -> None:
    detector = FasterRCNNC4(faster_rcnn_c4_config(), COCO).eval()
    detector.load_state_dict(faster_rcnn_state(case.weights))
    images = images_of(case)
    case.check("img0/image", images.pixels[0].flip(0).float())

    fmap = detector.backbone(detector.normalise(images))[0]
    case.check("img0/features/res4", fmap)
    height, width = fmap.shape[2:]
    (logits,), (deltas,) = detector.rpn([fmap])
    case.check("img0/rpn/objectness_c4", logits.unflatten(1, (height, width)).permute(0, 3, 1, 2))
    deltas_map = deltas.reshape(1, height, width, -1).permute(0, 3, 1, 2)
    case.check("img0/rpn/deltas_c4", deltas_map)

    stored = torch.from_numpy(case.stored["img0/proposals"])
    count = len(stored)
    found = detector.rpn.proposals([fmap], images.sizes, training=False)
    mine = torch.cat([found.boxes[0, :count], found.scores[0, :count, None]], dim=1)
    suggested = case.spec["outputs"]["img0/proposals"]["suggested"]
    assert share(mine, stored, suggested["box_tol"]) >= suggested["min_share"]

    proposals = Proposals(stored[None, :, :4], stored[None, :, 4], torch.ones(1, count, dtype=torch.bool))
    pooled = detector._pooled(fmap, proposals.boxes)
    case.check("img0/roi/box_features", detector.head.features(pooled)[0])  # type: ignore[union-attr, operator]
    class_logits, box_deltas = detector.head(pooled)
    case.check("img0/roi/cls_logits", class_logits[0])
    case.check("img0/roi/box_deltas", box_deltas[0].flatten(1))

    detections = detector.head.detections(class_logits, box_deltas, proposals, images.sizes)
    resized, entry = images.sizes[0], case.spec["images"][0]
    scale = torch.tensor([entry["width"] / resized[1], entry["height"] / resized[0]]).repeat(2)
    rows = torch.cat([detections.labels[0, :, None], detections.scores[0, :, None], detections.boxes[0] * scale], 1)
    expected = torch.from_numpy(case.stored["img0/dets"])
    limits = case.spec["outputs"]["img0/dets"]["suggested"]
    tolerance = torch.tensor([0.5, limits["score_tol"], *[limits["box_tol"]] * 4])
    assert share(rows[detections.valid[0]] / tolerance, expected / tolerance, 1.0) >= limits["min_share"]


def test_fpn_takes_every_tensor(shared_golden: Path) -> None:
    case = GoldenCase(shared_golden / "d2_faster_rcnn_r50_fpn")
    with torch.device("meta"):
        detector = FasterRCNN(faster_rcnn_config(), COCO)
    shapes = {name: tuple(value.shape) for name, value in faster_rcnn_state(case.weights).items()}
    assert shapes == {name: tuple(value.shape) for name, value in detector.state_dict().items()}


def test_foreign_keys_are_named() -> None:
    with pytest.raises(InputError, match=r"1 keys are not of detectron2's Faster R-CNN, the first is 'roi_heads.mask"):
        faster_rcnn_state({"roi_heads.mask_head.deconv.weight": torch.zeros(1), "pixel_mean": torch.zeros(3)})
