"""Mask R-CNN against torchvision's with the same weights: detections, masks, losses and every gradient; and masks on
their way to the user."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hotcoco import mask as mask_api
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image

from boxwright.data.transforms.configs import ResizeConfig
from boxwright.data.transforms.sample import flipped
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.detect import prepared, sample_of
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.mask_rcnn import MaskRCNNConfig
from boxwright.geometry.paste import InstanceMasks, paste_masks
from boxwright.geometry.pooling.feature_table import FeatureTable
from boxwright.geometry.pooling.roi_pooling import pool_regions
from boxwright.structures import Classes, Images, InputError
from boxwright.weights.detectron import detectron2
from boxwright.weights.torchvision.detectors import faster_rcnn_state, mask_rcnn_config
from tests.support.batches import example_images, example_targets, with_masks
from tests.support.golden import GoldenCase, compare, compare_share
from tests.support.two_stage_cases import SMALL_MASK_RCNN, plain_logits

CLASSES = Classes.from_names(["disc", "bar", "ring"])


def torchvision_model(classes: int, size: int, **settings: object) -> nn.Module:
    """Random weights, kept in range, scores and masks spread, images of ``size`` taken as they are."""
    torch.manual_seed(classes)
    backbone = torchvision.models.detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, trainable_layers=5
    )
    model = torchvision.models.detection.MaskRCNN(backbone, classes + 1, min_size=size, max_size=4 * size, **settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("conv3.weight"):
                parameter.mul_(0.2)
        model.roi_heads.box_predictor.cls_score.weight.mul_(30)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(30)
        model.rpn.head.bbox_pred.weight.mul_(5)
    return model


def converted(model: nn.Module, classes: int, config: MaskRCNNConfig) -> Detector:
    detector = build_detector(config, Classes.from_names([f"class {i}" for i in range(classes)]))
    detector.load_state_dict(faster_rcnn_state(model.state_dict()))
    return detector


def test_detections_and_masks_equal_torchvisions() -> None:
    theirs = torchvision_model(3, 128).eval()
    ours, images = converted(theirs, 3, mask_rcnn_config()).eval(), example_images(2, 128, 192)
    with torch.inference_mode():
        found = ours(images)
        paste = torchvision.models.detection.roi_heads.paste_masks_in_image
        torchvision.models.detection.transform.paste_masks_in_image = lambda masks, *_: masks  # the network's own masks
        try:
            expected = theirs([image.float() / 255 for image in images.pixels])
        finally:
            torchvision.models.detection.transform.paste_masks_in_image = paste
    assert found.masks is not None
    for b, reference in enumerate(expected):
        valid = found.valid[b]
        assert len(reference["scores"]) > 20, "the comparison needs detections"
        torch.testing.assert_close(found.scores[b, valid], reference["scores"], atol=1e-5, rtol=1e-4)
        same = found.labels[b, valid] + 1 == reference["labels"]
        assert same.float().mean() > 0.97  # near ties may swap
        torch.testing.assert_close(found.boxes[b, valid][same], reference["boxes"][same], atol=0.05, rtol=1e-3)
        masks = reference["masks"][same][:, 0]
        assert masks.std() > 0.02
        torch.testing.assert_close(found.masks[b, valid][same], masks, atol=1e-3, rtol=1e-3)
        assert not found.masks[b, ~valid].any()


def test_losses_and_gradients_equal_torchvisions() -> None:
    theirs = torchvision_model(
        3, 128, rpn_batch_size_per_image=10**6, rpn_post_nms_top_n_train=100, box_batch_size_per_image=10**6
    ).train()
    config = mask_rcnn_config(freeze_at=0)
    config = replace(  # room for every candidate, so that random sampling has nothing to choose
        config,
        rpn=replace(config.rpn, samples=10**6, post_nms=(100, 100)),
        head=replace(config.head, samples=10**6),
    )
    ours = converted(theirs, 3, config).train()
    images, targets = example_images(2, 128, 192), with_masks(example_targets(), 128, 192)
    assert targets.masks is not None
    dicts = [
        {"boxes": b[v], "labels": k[v] + 1, "masks": m[v].to(torch.uint8)}
        for b, k, m, v in zip(targets.boxes, targets.labels, targets.masks, targets.valid, strict=True)
    ]
    expected = theirs([image.float() / 255 for image in images.pixels], dicts)
    losses = ours(images, targets)
    names = {
        "rpn_objectness": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "classification": "loss_classifier",
        "box": "loss_box_reg",
        "mask": "loss_mask",
    }
    assert set(losses) == set(names)
    for mine, reference in names.items():
        torch.testing.assert_close(losses[mine], expected[reference], atol=1e-6, rtol=1e-4)

    sum(losses.values()).backward()  # type: ignore[union-attr]
    sum(expected.values()).backward()
    gradients = faster_rcnn_state({name: p.grad for name, p in theirs.named_parameters() if p.grad is not None})
    for name, parameter in ours.named_parameters():
        reference, mine = gradients[name], parameter.grad
        assert mine is not None
        # In the norm: single entries differ by more where rounding takes an activation to the other side of a ReLU.
        scale = reference.norm().clamp(min=1e-12)
        assert ((mine - reference).norm() / scale).item() < 1e-2, name
    assert sum(name.startswith("mask_head") for name, _ in ours.named_parameters()) == 12


def test_files_of_any_age_lose_the_map_of_background() -> None:
    boxes = {
        "backbone.fpn.layer_blocks.0.0.weight": torch.zeros(1, 1, 3, 3),
        "roi_heads.box_head.fc6.weight": torch.zeros(2, 4),
        **{f"roi_heads.box_predictor.cls_score.{part}": torch.zeros(3) for part in ("weight", "bias")},
        **{f"roi_heads.box_predictor.bbox_pred.{part}": torch.zeros(12) for part in ("weight", "bias")},
    }
    logits = {"roi_heads.mask_predictor.mask_fcn_logits.bias": torch.tensor([9.0, 1, 2])}
    old = {f"roi_heads.mask_head.mask_fcn{n}.weight": torch.full((1,), n - 1.0) for n in (1, 2, 3, 4)}
    new = {f"roi_heads.mask_head.{n}.0.weight": torch.full((1,), float(n)) for n in range(4)}
    for layout in (old, new):
        ours = faster_rcnn_state(boxes | logits | layout)
        assert [ours[f"mask_head.convs.{n}.weight"].item() for n in range(4)] == [0, 1, 2, 3]
        assert ours["mask_head.predict.bias"].tolist() == [1, 2]
    with pytest.raises(InputError, match=r"1 keys are not of .*keypoint_head"):
        faster_rcnn_state(boxes | logits | {"roi_heads.keypoint_head.0.weight": torch.zeros(1)})


def test_only_the_true_classs_map_learns() -> None:
    detector = build_detector(SMALL_MASK_RCNN, CLASSES)
    targets = with_masks(example_targets())
    targets = targets._replace(labels=torch.ones_like(targets.labels))
    detector(example_images(2, 128, 160), targets)["mask"].backward()
    slope = detector.mask_head.predict.weight.grad.abs().sum((1, 2, 3))
    assert slope[1] > 0
    assert slope[0] == slope[2] == 0


def test_losses_without_masks_say_what_to_set() -> None:
    detector = build_detector(SMALL_MASK_RCNN, CLASSES)
    with pytest.raises(InputError, match=r"data\.masks = true"):
        detector(example_images(2, 128, 160), example_targets())


def spread_detector() -> Detector:
    torch.manual_seed(0)
    detector = build_detector(SMALL_MASK_RCNN, CLASSES).eval()
    for name, parameter in detector.named_parameters():
        if name.endswith(("scores.weight", "deltas.weight", "objectness.weight", "predict.weight")):
            nn.init.normal_(parameter, std=0.3)
    detector.preparation = replace(detector.preparation, transforms=(ResizeConfig(short=(128,), long=160),))
    return detector


def picture() -> np.ndarray:
    return example_images(1, 256, 320).pixels[0].permute(1, 2, 0).numpy().copy()


def test_detect_pastes_masks_in_pixels_of_the_original() -> None:
    detector = spread_detector()
    (found,) = detector.detect(picture(), threshold=0.2)
    assert isinstance(found.masks, InstanceMasks)
    assert found.masks.shape == (len(found), 256, 320)
    (raw,) = detector.detect_samples([prepared(sample_of(picture()), detector.preparation.transforms)], 0.2)
    assert raw.masks is not None
    soft = paste_masks_in_image(raw.masks[:, None], raw.boxes, (256, 320))[:, 0]
    assert len(found) > 5
    assert np.array_equal(np.asarray(found.masks), (soft > 0.5).numpy())
    assert len(found.above(0.5).masks or ()) == len(found.above(0.5))
    for entry, mask in zip(found.to_coco(7), found.masks, strict=True):
        assert np.array_equal(mask_api.decode(entry["segmentation"]), mask)
    assert np.asarray(found.draw(picture())).std() > 0


def test_masks_of_mirrored_samples_are_turned_back() -> None:
    detector = spread_detector()
    sample = prepared(flipped(sample_of(picture())), detector.preparation.transforms)
    (back,) = detector.detect_samples([sample], 0.2)
    (there,) = detector.detect_samples([replace(sample, to_original=(0.5, 0.5, 0.0, 0.0))], 0.2)
    assert back.masks is not None
    assert there.masks is not None
    torch.testing.assert_close(back.masks, there.masks.flip(2))
    torch.testing.assert_close(back.boxes[:, 0], 320 - there.boxes[:, 2])


@torch.inference_mode()
def test_heads_and_pasted_masks_equal_detectron2s(shared_golden: Path) -> None:
    """Maps, the heads on detectron2's own boxes, and its masks in the image, pixel for pixel."""
    case = GoldenCase(shared_golden / "d2_mask_rcnn_r50_fpn")
    classes = Classes.from_names([f"class {i}" for i in range(80)])
    detector = build_detector(detectron2.mask_rcnn_config(), classes).eval()
    detector.load_state_dict(detectron2.import_detectron2(case.weights).state)
    with pytest.raises(InputError, match=r"1 keys are not of .*mask_head\.other"):
        detectron2.import_detectron2({**case.weights, "roi_heads.mask_head.other.weight": torch.zeros(1)})
    picture = Image.fromarray(case.picture(0)).resize((330, 224), Image.Resampling.BILINEAR)
    pixels = torch.zeros(1, 3, 224, 352, dtype=torch.uint8)
    pixels[..., :330] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    maps = detector.neck(detector.backbone(detector.normalise(Images(pixels, torch.tensor([[224, 330]])))))
    for level, fmap in zip(detector.neck.levels, maps, strict=True):
        case.check(f"img0/features/{level.name.lower()}", fmap)

    table = FeatureTable.from_maps(maps[:4], detector.strides[:4])
    proposals = torch.from_numpy(case.stored["img0/proposals"])[None, :, :4]
    logits, deltas = detector.head(pool_regions(table, proposals, detector.config.head.pooling))
    case.check("img0/roi/cls_logits", logits[0])
    case.check("img0/roi/box_deltas", deltas[0].flatten(1))

    stored = torch.from_numpy(case.stored["img0/dets"])
    labels, boxes = stored[None, :, 0].long(), stored[:, 2:]
    resized = boxes * torch.tensor([330 / 231, 224 / 157]).repeat(2)
    pooled = pool_regions(table, resized[None], detector.config.mask.pooling)
    case.check("img0/mask_logits", plain_logits(detector.mask_head, pooled))
    masks = detector.mask_head.masks(pooled, labels, torch.ones_like(labels, dtype=torch.bool))[0]
    found = paste_masks(masks.numpy(), boxes.numpy(), (157, 231), detector.paste)
    largest = case.stored["img0/mask_rows"].astype(int)
    same = (np.asarray(found[largest]) == case.stored["img0/mask_pasted"]).mean()
    compare_share("img0/mask_pasted, pixels", float(same), 0.998)
    compare("img0/mask_area", found.areas(), case.stored["img0/mask_area"], rtol=0.01, atol=2)


def region_sides(outputs: list[Tensor]) -> list[int]:
    return list(outputs[-1].shape)


def test_outputs_count_the_mask_branch() -> None:
    detector = spread_detector()
    with torch.no_grad():
        assert region_sides(detector.outputs(torch.zeros(1, 3, 128, 160))) == [1, 100, 12, 12]
