"""Faster R-CNN with DetNet-59 and FPN against guoruoqian/DetNet_pytorch at every stored tensor."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from boxwright.backbones import Classifier
from boxwright.detectors.contract.detect import prepared, sample_of
from boxwright.detectors.faster_rcnn import FasterRCNN
from boxwright.geometry.pooling.feature_table import FeatureTable
from boxwright.geometry.pooling.roi_pooling import assign_levels, pool_regions
from boxwright.heads.regions.proposals import Proposals
from boxwright.structures import Classes, Images, InputError
from boxwright.weights.common.class_names import VOC
from boxwright.weights.common.foreign_files import tensors_in
from boxwright.weights.common.imported import build_imported
from boxwright.weights.common.imported_backbone import build_classifier
from boxwright.weights.ports.detnet_pytorch import (
    import_detnet_classifier,
    import_detnet_pytorch,
    recognise_detnet_classifier,
    recognise_detnet_pytorch,
)
from tests.support.detnet_reference import MEAN, STD, check_classifier
from tests.support.golden import GoldenCase, compare, compare_share


@pytest.fixture(scope="module")
def case(shared_golden: Path) -> GoldenCase:
    return GoldenCase(shared_golden / "detnet59_fpn_voc")


def built_from(case: GoldenCase) -> FasterRCNN:
    """Build the detector from a file in the published form: a dictionary with other entries beside the weights."""
    published = {"session": 1, "epoch": 12, "model": case.weights, "pooling_mode": "align", "class_agnostic": False}
    imported = import_detnet_pytorch(published)
    assert imported.classes is VOC
    built = build_imported(imported, "fpn_1_12.pth")
    assert isinstance(built, FasterRCNN)
    return built


@pytest.fixture(scope="module")
def detector(case: GoldenCase) -> FasterRCNN:
    return built_from(case)


def network_input(case: GoldenCase, number: int) -> Tensor:
    """Return the input of the fixture: normalised, then resized by OpenCV's linear method in floats."""
    picture, meta = case.picture(number), case.spec["images"][number]
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    pixels = torch.from_numpy((picture.astype(np.float32) / 255 - mean) / std).permute(2, 0, 1)[None]
    height, width = (int(side) for side in meta["im_info"][:2])
    return sampled(pixels, (height, width), 181 / 420 if number else 1.0)  # of the sides before they are rounded


def sampled(pixels: Tensor, size: tuple[int, int], step: float) -> Tensor:
    for axis, length in ((2, size[0]), (3, size[1])):
        old = pixels.shape[axis]
        place = ((torch.arange(length, dtype=torch.float64) + 0.5) * step - 0.5).clamp(0, old - 1)
        low = place.floor().long().clamp(max=max(old - 2, 0))
        part = (place - low).reshape([-1, 1] if axis == 2 else [-1]).float()
        pixels = pixels.index_select(axis, low) * (1 - part) + pixels.index_select(axis, low + 1) * part
    return pixels


def share(mine: Tensor, stored: Tensor) -> float:
    """Return the share of the stored rows that have a row of mine within 1."""
    return ((mine[:, None] - stored).abs().amax(-1) < 1).any(0).float().mean().item()


@pytest.mark.parametrize("number", [0, 1])
@torch.inference_mode()
def test_every_tensor_and_detection_equals_the_ports(case: GoldenCase, detector: FasterRCNN, number: int) -> None:
    pixels = network_input(case, number)
    height, width = pixels.shape[2:]
    images = Images(pixels, torch.tensor([[height, width]]))
    stages = detector.backbone(pixels)
    maps = detector.neck(stages)
    found: dict[str, Tensor] = {"input": pixels}
    found |= {f"c{i}": stage for i, stage in enumerate(stages, start=2)}
    found |= {f"p{i}": fmap for i, fmap in enumerate(maps, start=2)}
    logits, deltas = detector.rpn(maps)
    for i, (fmap, logit, delta) in enumerate(zip(maps, logits, deltas, strict=True), start=2):
        rows, columns = fmap.shape[2:]
        for name, out in (("cls", logit), ("box", delta.reshape(1, rows * columns, -1))):
            found[f"rpn_{name}_p{i}"] = out.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)

    proposals = detector.rpn.propose(logits, deltas, detector.rpn.anchors_of(maps), images.sizes, training=False)
    stored = torch.from_numpy(case.stored[f"img{number}/rois"])[:, 1:]
    limits = case.spec["outputs"][f"img{number}/rois"]["suggested"]
    near = share(proposals.boxes[0] / limits["box_tol"], stored / limits["box_tol"])
    compare_share(f"img{number}/rois", near, limits["min_share"])

    config = detector.config.head.pooling
    assert detector.config.pooled_levels == 4
    table = FeatureTable.from_maps(maps[:4], detector._strides(images, maps[:4]))
    counts = torch.bincount(assign_levels(stored, 4, config), minlength=4).tolist()
    assert counts == case.spec["images"][number]["rois_per_level_p2_to_p5"]
    probes = torch.from_numpy(case.stored[f"img{number}/probe_rois"])
    found["probe_rois"] = probes
    for name, boxes in (("pooled", stored), ("probe_pooled", probes[:, 1:])):
        found[name] = pool_regions(table, boxes[None], config)[0].permute(0, 3, 1, 2)
    hidden: list[Tensor] = []
    hook = detector.head.scores.register_forward_pre_hook(lambda _, args: hidden.append(args[0]))
    class_logits, box_deltas = detector.head(found["pooled"].permute(0, 2, 3, 1)[None])
    hook.remove()
    found["fc7"] = hidden[0][0]
    found["cls_logits"] = class_logits[0][:, [20, *range(20)]]
    # The port also has boxes for background, which nobody reads; they are left out of the comparison.
    name = f"img{number}/box_deltas"
    theirs = torch.full((300 * 84,), torch.nan)
    theirs[:: case.spec["outputs"][name]["step"]] = torch.from_numpy(case.stored[name].reshape(-1))
    theirs = theirs.reshape(300, 84)[:, 4:]
    known = ~theirs.isnan()
    assert known.sum() > 4000
    compare(name, box_deltas[0].flatten(1)[known].numpy(), theirs[known].numpy(), atol=1e-4, rtol=1e-4)

    every = case.names(number) - {"box_deltas", "rois", "dets", "alt_align_corners_false"}
    assert set(found) == every
    for tap in every - {"probe_rois"}:
        case.check(f"img{number}/{tap}", found[tap])

    # The port's NMS runs on the original image, whose pixels are the ones that its widths are one too large by.
    scale = case.spec["images"][number]["im_info"][2]
    limits = case.spec["outputs"][f"img{number}/dets"]["suggested"]
    unit = torch.tensor([0.5, limits["score_tol"], *[limits["box_tol"]] * 4])
    theirs = torch.from_numpy(case.stored[f"img{number}/dets"]) / unit
    given = Proposals(stored[None], torch.zeros(1, 300), torch.ones(1, 300, dtype=torch.bool))
    batch = detector.head.detections(class_logits, box_deltas, given, images.sizes, torch.tensor([[scale, scale]]))
    rows = torch.cat([batch.labels[0, :, None] + 1.0, batch.scores[0, :, None], batch.boxes[0] / scale], 1)
    compare_share(f"img{number}/dets", share(rows[batch.valid[0]] / unit, theirs), 1.0)
    if scale > 1:  # NMS in pixels of the input removes other boxes
        resized = detector.head.detections(class_logits, box_deltas, given, images.sizes)
        rows = torch.cat([resized.labels[0, :, None] + 1.0, resized.scores[0, :, None], resized.boxes[0] / scale], 1)
        assert share(rows[resized.valid[0]] / unit, theirs) < 0.97


@torch.inference_mode()
def test_the_fixtures_other_reading_of_upsampling_is_not_ours(case: GoldenCase, detector: FasterRCNN) -> None:
    maps = detector.neck(detector.backbone(network_input(case, 0)))
    stored, step = case.stored["img0/alt_align_corners_false/p3"].reshape(-1), 263
    assert np.abs(maps[1].numpy().reshape(-1)[::step] - stored).max() > 0.01


def test_detect_prepares_images_as_the_port_does(case: GoldenCase, detector: FasterRCNN) -> None:
    sample = prepared(sample_of(case.picture(1)), detector.preparation.transforms)
    assert sample.size == (600, 885)
    assert detector.preparation.pad_multiple == 1
    image = sample.image.as_subclass(Tensor)[None]
    pixels = detector.normalise(Images(image, torch.tensor([sample.size])))
    expected = sampled(detector.normalise(Images(torch.from_numpy(case.picture(1)).permute(2, 0, 1)[None],
                                                 torch.tensor([[181, 267]]))), sample.size, 181 / 600)  # fmt: skip
    assert (pixels - expected).abs().max() < 1e-4  # the port resizes floats, by 600/181
    assert sample.to_original == (600 / 181, 600 / 181, 0.0, 0.0)


def small(case: GoldenCase) -> dict[str, Tensor]:
    """Return all tensors of the file as expanded scalars."""
    return {key: torch.zeros(1).expand(value.shape) for key, value in case.weights.items()}


def test_variants_of_the_file(case: GoldenCase) -> None:
    state = {f"module.{key}": value for key, value in small(case).items()}
    state["module.RCNN_layer0.1.num_batches_tracked"] = torch.tensor(0)
    imported = import_detnet_pytorch(state, large_scale=True)
    assert imported.config.rpn.post_nms == (2000, 1000)  # type: ignore[union-attr]
    assert imported.transforms[0].short == (800,)  # type: ignore[union-attr]
    agnostic = small(case) | {
        "RCNN_bbox_pred.weight": torch.zeros(4, 1024), "RCNN_bbox_pred.bias": torch.zeros(4),
        "RCNN_cls_score.weight": torch.zeros(6, 1024), "RCNN_cls_score.bias": torch.zeros(6),
    }  # fmt: skip
    imported = import_detnet_pytorch({"model": agnostic})
    assert imported.classes.names == tuple(f"class_{k}" for k in range(5))
    detector = build_imported(imported, "five.pth")
    assert detector.config.head.class_agnostic


def test_what_is_no_detector_of_the_port(case: GoldenCase) -> None:
    state = small(case)
    assert recognise_detnet_pytorch(tensors_in({"model": state}))
    assert not recognise_detnet_pytorch(tensors_in({"model": 3}))
    assert not recognise_detnet_classifier(state)
    with pytest.raises(InputError, match=r"among 1 tensors there is no RCNN_layer5.*--backbone-weights"):
        import_detnet_pytorch({"conv1.weight": torch.zeros(1)})
    with pytest.raises(InputError, match=r"1 of 344 keys are not of DetNet_pytorch's detector, the first is 'fc.bias'"):
        import_detnet_pytorch(state | {"fc.bias": torch.zeros(1)})
    with pytest.raises(InputError, match="pooling_mode 'crop': only its default, 'align', is read"):
        import_detnet_pytorch({"model": state, "pooling_mode": "crop"})
    with pytest.raises(InputError, match="is for 20 classes and background, but 2 names were given; give 20"):
        import_detnet_pytorch(state, Classes.from_names(["a", "b"]))
    with pytest.raises(InputError, match=r"lacks RCNN_top.0.weight or .bias"):
        import_detnet_pytorch({key: value for key, value in state.items() if key != "RCNN_top.0.bias"})
    half = dict(list(state.items())[::2]) | {key: v for key, v in state.items() if "layer" not in key or "5.0.0" in key}
    with pytest.raises(
        InputError, match=r"x.pth: no whole checkpoint of DetNet_pytorch detnet59 fpn: \d+ of 343 tensors are"
    ):
        build_imported(import_detnet_pytorch(half), "x.pth")


@torch.inference_mode()
def test_the_classifier(shared_golden: Path) -> None:
    case = GoldenCase(shared_golden / "detnet59_cls")
    state: dict[str, Any] = {f"module.{key}": value for key, value in case.weights.items()}
    assert recognise_detnet_classifier(tensors_in(state))
    imported = import_detnet_classifier(state)
    assert imported.classes == 1000
    assert len(imported.state) == 317
    model = build_classifier(imported, "detnet59.pth")
    means, stds = ([value / 255 for value in values] for values in (imported.pixels.mean, imported.pixels.std))
    assert (means, stds) == (pytest.approx(MEAN), pytest.approx(STD))
    assert isinstance(model, Classifier)
    check_classifier(case, model)
    with pytest.raises(InputError, match=r"2 of 2 keys are of no such network, the first is 'conv9.weight'"):
        import_detnet_classifier({"conv9.weight": torch.zeros(1), "a": torch.zeros(1)})
    with pytest.raises(InputError, match="among 1 tensors there is no layer5"):
        import_detnet_classifier({"conv1.weight": torch.zeros(1)})
    del state["module.fc.bias"]
    with pytest.raises(InputError, match=r"1 belong to none of its layers, the first fc.weight"):
        build_classifier(import_detnet_classifier(state), "detnet59.pth")
