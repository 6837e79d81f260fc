"""Compare every tensor of a two-stage detector, from the image to the detections, with the stored ones."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from boxwright.detectors.contract.detect import prepared, sample_of
from boxwright.detectors.contract.detector import Detector
from boxwright.geometry.pooling.feature_table import FeatureTable
from boxwright.geometry.pooling.roi_pooling import pool_regions
from boxwright.heads.regions.proposals import Proposals
from boxwright.structures import Images
from tests.support.golden import GoldenCase, compare_share


def pil_images(case: GoldenCase, number: int, multiple: int) -> Images:
    """Return image ``number`` resized as detectron2 does and padded on the bottom and right."""
    height, width = case.spec["images"][number]["resized"]
    picture = Image.fromarray(case.picture(number)).resize((width, height), Image.Resampling.BILINEAR)
    padded = [-(-side // multiple) * multiple for side in (height, width)]
    pixels = torch.zeros(1, 3, *padded, dtype=torch.uint8)
    pixels[..., :height, :width] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return Images(pixels, torch.tensor([[height, width]]))


def share_near(mine: Tensor, stored: Tensor, limit: float = 1.0) -> float:
    """Return the share of the stored rows that have a row of mine nearby."""
    near = (mine[:, None] - stored).abs().amax(-1) < limit
    return near.any(0).float().mean().item()


def share_detected(case: GoldenCase, name: str, labels: Tensor, scores: Tensor, boxes: Tensor) -> float:
    """Return the share of the stored detections (class, score, box in pixels of the original) that are among the given
    ones.
    """
    limits = case.spec["outputs"][name]["suggested"]
    tolerance = torch.tensor([0.5, limits["score_tol"], *[limits["box_tol"]] * 4])
    rows = torch.cat([labels[:, None].float(), scores[:, None], boxes], dim=1)
    return share_near(rows / tolerance, torch.from_numpy(case.stored[name]) / tolerance)


def original_scale(case: GoldenCase, number: int) -> Tensor:
    """Return the factors from the resized image to the original, ``[4]``."""
    entry = case.spec["images"][number]
    height, width = entry["resized"]
    return torch.tensor([entry["width"] / width, entry["height"] / height]).repeat(2)


def check_rpn(case: GoldenCase, number: int, detector: Detector, maps: list[Tensor], names: list[str]) -> None:
    """Compare the raw outputs of the RPN on each level."""
    logits, deltas = detector.rpn(maps)  # type: ignore[operator]
    for name, fmap, logit, delta in zip(names, maps, logits, deltas, strict=True):
        height, width = fmap.shape[2:]
        case.check(f"img{number}/rpn/objectness_{name}", logit.unflatten(1, (height, width)).permute(0, 3, 1, 2))
        deltas_map = delta.reshape(1, height, width, -1).permute(0, 3, 1, 2)
        case.check(f"img{number}/rpn/deltas_{name}", deltas_map)


def check_proposals(case: GoldenCase, number: int, detector: Detector, maps: list[Tensor], sizes: Tensor) -> Proposals:
    """Compare proposals with the stored ones and return those: the stored outputs of the heads belong to them."""
    stored = torch.from_numpy(case.stored[f"img{number}/proposals"])
    found = detector.rpn.proposals(maps, sizes, training=False)  # type: ignore[union-attr, operator]
    mine = torch.cat([found.boxes[0, : len(stored)], found.scores[0, : len(stored), None]], dim=1)
    suggested = case.spec["outputs"][f"img{number}/proposals"]["suggested"]
    compare_share(f"img{number}/proposals", share_near(mine, stored, suggested["box_tol"]), suggested["min_share"])
    valid = torch.ones(1, len(stored), dtype=torch.bool)
    return Proposals(stored[None, :, :4], stored[None, :, 4], valid)


def check_fpn_detector(case: GoldenCase, number: int, detector: Detector) -> None:
    """Compare all tensors of Faster R-CNN or of the box branch of Mask R-CNN, then the detections end to end."""
    images = pil_images(case, number, 32)
    height, width = case.spec["images"][number]["resized"]
    case.check(f"img{number}/image", images.pixels[0, :, :height, :width].flip(0).float())
    maps = detector.neck(detector.backbone(detector.normalise(images)))  # type: ignore[operator]
    names = [level.name.lower() for level in detector.neck.levels]  # type: ignore[union-attr]
    for name, fmap in zip(names, maps, strict=True):
        case.check(f"img{number}/features/{name}", fmap)
    check_rpn(case, number, detector, maps, names)
    proposals = check_proposals(case, number, detector, maps, images.sizes)

    table = FeatureTable.from_maps(maps[:4], detector.strides[:4])  # type: ignore[index]
    pooled = pool_regions(table, proposals.boxes, detector.config.head.pooling)
    head = detector.head
    hidden = pooled.flatten(2)
    for layer in head.layers:  # type: ignore[union-attr]
        hidden = layer(hidden).relu()
    case.check(f"img{number}/roi/box_features", hidden[0])
    logits, deltas = head(pooled)  # type: ignore[operator]
    case.check(f"img{number}/roi/cls_logits", logits[0])
    case.check(f"img{number}/roi/box_deltas", deltas[0].flatten(1))

    stored = f"img{number}/dets"
    found = head.detections(logits, deltas, proposals, images.sizes)  # type: ignore[union-attr, operator]
    rows = found.valid[0]
    boxes = found.boxes[0, rows] * original_scale(case, number)
    share = share_detected(case, stored, found.labels[0, rows], found.scores[0, rows], boxes)
    compare_share(f"{stored}, of its proposals", share, case.spec["outputs"][stored]["suggested"]["min_share"])


def check_detected(case: GoldenCase, number: int, detector: Detector, least: float) -> None:
    """Compare the detections of the whole detector, from the image on, with the stored ones."""
    found = detector.detect_samples([prepared(sample_of(case.picture(number)), detector.preparation.transforms)])[0]
    share = share_detected(case, f"img{number}/dets", found.labels, found.scores, found.boxes)
    compare_share(f"img{number}/dets, from the pixels on", share, least)
