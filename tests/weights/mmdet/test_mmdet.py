"""Importing MMDetection 3's detectors: every tensor on the way equals its own, or detectron2's of the same net."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from boxwright.data.transforms.resizing import ResizeConfig
from boxwright.detectors.contract.detect import prepared, sample_of
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import IMAGENET
from boxwright.necks.fpn import FPNConfig
from boxwright.structures import Classes, Images, InputError
from boxwright.weights.common.class_names import COCO, VOC
from boxwright.weights.common.foreign_files import tensors_in
from boxwright.weights.common.imported import build_imported
from boxwright.weights.detectron.detectron2 import import_detectron2
from boxwright.weights.mmdet.two_stage import import_mmdet, recognise_mmdet
from tests.support.golden import GoldenCase, compare_share
from tests.support.published_layouts import (
    assert_same,
    detectron2_shapes,
    filled,
    loaded,
    mmdet_ssd512_shapes,
    mmdet_two_stage,
    mmdet_yolov3_shapes,
    on_meta,
)
from tests.support.resizing import opencv_resize
from tests.support.two_stage_taps import original_scale, share_detected


def opencv_images(case: GoldenCase, multiple: int) -> Images:
    """Return the image resized by OpenCV's bilinear method and padded on the bottom and right."""
    height, width = case.spec["images"][0]["resized"]
    padded = [-(-side // multiple) * multiple for side in (height, width)]
    pixels = torch.zeros(1, 3, *padded, dtype=torch.uint8)
    resized = opencv_resize(case.picture(0), height, width)
    pixels[..., :height, :width] = torch.from_numpy(resized).permute(2, 0, 1)
    return Images(pixels, torch.tensor([[height, width]]))


def share_found(case: GoldenCase, detector: Detector, images: Images) -> float:
    """Return the share of the stored detections that the detector has."""
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
    compare_share("img0/dets", share_found(case, detector, images), 0.97)


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
    compare_share("img0/dets", share_found(case, detector, images), 0.97)


@pytest.mark.parametrize(("kind", "style"), [("fpn", "caffe"), ("mask", "pytorch")])
def test_two_stage_tensors_are_those_of_the_same_network_in_detectron2(kind: str, style: str) -> None:
    """With Caffe's ResNet an MMDetection model equals detectron2's, whose tensors are compared elsewhere."""
    state = filled(detectron2_shapes(kind, classes=3), seed=3)
    meta = {
        "dataset_meta": {"classes": ["cat", "dog", "cow"], "palette": []},
        "cfg": f"model = dict(type='X', backbone=dict(type='ResNet', depth=50, style='{style}'))",
    }
    content = {"meta": meta, "state_dict": mmdet_two_stage(state)}
    assert recognise_mmdet(tensors_in(content))
    imported, reference = import_mmdet(content), import_detectron2(state)
    assert imported.classes == Classes.from_names(["cat", "dog", "cow"])
    assert_same(imported.state, reference.state)
    loaded(imported)
    mine: Any = imported.config
    theirs: Any = reference.config
    assert mine.backbone.stride_in_1x1 == (style == "caffe")
    if style == "caffe":
        assert mine.pixels == theirs.pixels
        assert mine.backbone == theirs.backbone
    else:
        assert mine.pixels == IMAGENET
    # What it computes; the constants of training differ.
    assert mine.rpn.anchors == theirs.rpn.anchors
    assert (mine.rpn.pre_nms, mine.rpn.post_nms, mine.rpn.nms_iou, mine.rpn.nms.min_size) == (
        theirs.rpn.pre_nms,
        theirs.rpn.post_nms,
        theirs.rpn.nms_iou,
        theirs.rpn.nms.min_size,
    )
    assert (mine.head.coder.weights, mine.head.post) == (theirs.head.coder.weights, theirs.head.post)
    assert replace(mine.head.pooling, level_epsilon=0) == replace(theirs.head.pooling, level_epsilon=0)
    if kind == "mask":
        assert (mine.mask.paste, mine.mask.convs) == (theirs.mask.paste, theirs.mask.convs)
        assert replace(mine.mask.pooling, level_epsilon=0) == replace(theirs.mask.pooling, level_epsilon=0)


def test_norms_that_are_only_affine_tell_caffes_resnet() -> None:
    state = on_meta(mmdet_two_stage_shapes())
    state["backbone.bn1.running_mean"] = torch.zeros(64)
    assert import_mmdet(state).config.backbone.stride_in_1x1  # type: ignore[union-attr]
    state["backbone.bn1.running_mean"] = torch.ones(64)
    assert not import_mmdet(state).config.backbone.stride_in_1x1  # type: ignore[union-attr]
    assert len(import_mmdet(state).classes) == 80


def mmdet_two_stage_shapes() -> dict[str, tuple[int, ...]]:
    return {n: tuple(v.shape) for n, v in mmdet_two_stage(on_meta(detectron2_shapes("fpn"))).items()}


def test_retinanet_reads_where_p6_comes_from(shared_golden: Path) -> None:
    keys = json.loads((shared_golden / "mmdet_retinanet_r50_fpn" / "keys.json").read_text())
    state = on_meta({name: tuple(shape) for name, shape in keys})
    state["backbone.bn1.running_mean"] = torch.ones(64)
    assert import_mmdet(state).config.neck == FPNConfig(extra="conv_c", extra_relu=False)  # type: ignore[union-attr]
    state["neck.fpn_convs.3.conv.weight"] = torch.empty(256, 256, 3, 3, device="meta")
    meta = {"cfg": "neck=dict(add_extra_convs='on_output', relu_before_extra_convs=True)"}
    imported = import_mmdet({"meta": meta, "state_dict": state})
    assert imported.config.neck == FPNConfig(extra="conv_p", extra_relu=True)  # type: ignore[union-attr]
    loaded(imported)
    meta["cfg"] = "neck=dict(add_extra_convs='on_lateral')"
    with pytest.raises(InputError, match="P6 reads a lateral map has no counterpart here"):
        import_mmdet({"meta": meta, "state_dict": state})


def test_ssd512_has_the_priors_of_its_data() -> None:
    state = on_meta(mmdet_ssd512_shapes(classes=20))
    imported = import_mmdet({"state_dict": state})
    assert imported.source == "MMDetection ssd512"
    assert imported.classes == VOC
    loaded(imported)
    sizes = [cell[0][0] for cell in imported.config.priors.shapes]  # type: ignore[union-attr]
    assert sizes == [35, 76, 153, 230, 307, 384, 460]
    meta = {"cfg": "anchor_generator=dict(basesize_ratio_range=(0.1, 0.9), input_size=512)"}
    imported = import_mmdet({"meta": meta, "state_dict": state})
    sizes = [cell[0][0] for cell in imported.config.priors.shapes]  # type: ignore[union-attr]
    assert sizes == [20, 51, 133, 215, 296, 378, 460]


def test_scores_and_offsets_of_a_map_are_joined() -> None:
    """Background is last on both sides."""
    state = on_meta(mmdet_ssd512_shapes(classes=2))
    scores, offsets = torch.arange(4 * 3.0), 100 + torch.arange(4 * 4.0)
    state |= {"bbox_head.cls_convs.0.0.bias": scores, "bbox_head.reg_convs.0.0.bias": offsets}
    joined = import_mmdet(state).state["heads.0.predict.bias"].reshape(4, 7)
    assert joined[:, :4].flatten().tolist() == offsets.tolist()
    assert joined[:, 4:].flatten().tolist() == scores.tolist()


def test_yolov3_has_every_tensor_in_its_place() -> None:
    shapes = mmdet_yolov3_shapes(classes=80)
    assert sum(math.prod(shape) for shape in shapes.values()) == 62_001_757  # as yolov3.weights
    imported = import_mmdet(
        {"meta": {"cfg": "dict(type='Resize', scale=(416, 416), keep_ratio=True)"}, "state_dict": on_meta(shapes)}
    )
    assert imported.transforms == (ResizeConfig(short=(416,), long=416, interpolation="opencv"),)
    assert imported.classes == COCO
    detector = loaded(imported)
    # Both register their layers in the order of yolov3.cfg, but for the heads, which come last there.
    own = [n for n in detector.state_dict() if not n.endswith("num_batches_tracked")]
    order = [n for n in imported.state if "hidden" not in n and "predict" not in n]
    assert order == [n for n in own if "hidden" not in n and "predict" not in n]
    assert set(own) == set(imported.state)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["roi_head.bbox_head.0.fc_cls.weight"], "Cascade R-CNN"),
        (
            ["neck.fpn_convs.0.conv.weight", "bbox_head.conv_centerness.weight"],
            "detector with bbox_head.conv_centerness",
        ),
        (["bbox_head.convs_pred.0.weight", "backbone.conv1.conv.weight"], "on another backbone than Darknet-53"),
    ],
)
def test_other_models_are_named(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_mmdet(on_meta(dict.fromkeys(names, (1,))))


def test_half_a_file_other_classes_and_other_publishers_are_refused() -> None:
    whole = on_meta(mmdet_two_stage_shapes())
    whole["backbone.bn1.running_mean"] = torch.ones(64)
    with pytest.raises(InputError, match="is for 80 classes, but 1 names are given"):
        import_mmdet(whole, Classes.from_names(["a"]))
    names = list(whole)
    for kept in (names[: len(names) // 2], names[len(names) // 2 :]):
        with pytest.raises(InputError, match=r"is the file whole\?|no detector of MMDetection's"):
            import_mmdet({name: whole[name] for name in kept})
    for foreign in (on_meta(detectron2_shapes("fpn")), {"a": 1}, {}):
        assert not recognise_mmdet(tensors_in(foreign))
        with pytest.raises(InputError, match="no detector of MMDetection's: none of its tensors is called"):
            import_mmdet(foreign)


def test_images_are_resized_as_opencv_does() -> None:
    """Shrinking is compared, where detectron2 and torchvision average and OpenCV does not."""
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    found = {
        how: prepared(sample_of(picture), (ResizeConfig(short=(20,), long=30, interpolation=how),)).image
        for how in ("aliased", "bilinear")
    }
    expected = torch.from_numpy(opencv_resize(picture, 20, 30)).permute(2, 0, 1).int()
    assert (found["aliased"].as_subclass(Tensor).int() - expected).abs().max() <= 1
    assert (found["bilinear"].as_subclass(Tensor).int() - expected).abs().max() > 20
