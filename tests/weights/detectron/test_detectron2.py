"""Importing detectron2's detectors: every tensor equals detectron2's. Export is the inverse of import."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from boxwright.data.transforms.resizing import ResizeConfig
from boxwright.detectors.build import DetectorConfig, build_detector
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import IMAGENET, IMAGENET_255_BGR
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4Config
from boxwright.detectors.retinanet import RetinaNetConfig, octave_anchors
from boxwright.detectors.ssd import SSDConfig
from boxwright.geometry.pooling.feature_table import FeatureTable
from boxwright.heads.dense import DenseHeadConfig
from boxwright.heads.regions.rpn import RPNConfig
from boxwright.necks.fpn import FPNConfig
from boxwright.structures import Classes, InputError
from boxwright.weights.common.class_names import COCO, VOC
from boxwright.weights.common.imported import build_imported
from boxwright.weights.detectron.detectron2 import export_detectron2, import_detectron2, recognise_detectron2
from tests.support.golden import GoldenCase, compare_share
from tests.support.published_layouts import assert_same, detectron2_shapes, filled, loaded, on_meta
from tests.support.two_stage_taps import (
    check_detected,
    check_fpn_detector,
    check_proposals,
    check_rpn,
    original_scale,
    pil_images,
    share_detected,
)

NAMES = {
    "faster_rcnn FPN": "d2_faster_rcnn_r50_fpn",
    "faster_rcnn C4": "d2_faster_rcnn_r50_c4",
    "mask_rcnn FPN": "d2_mask_rcnn_r50_fpn",
    "retinanet FPN": "d2_retinanet_r50_fpn",
}
TITLES = {
    "fpn": "faster_rcnn FPN",
    "mask": "mask_rcnn FPN",
    "c4": "faster_rcnn C4",
    "dc5": "faster_rcnn DC5",
    "retinanet": "retinanet FPN",
}


def sized(detector: Detector, case: GoldenCase, number: int) -> Detector:
    """Return the detector with the resizing and the number of proposals of image ``number``."""
    short = case.spec["images"][number]["target_short_side"]
    detector.preparation = replace(detector.preparation, transforms=(ResizeConfig(short=(short,), long=1333),))
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
        check_detected(case, number, sized(detector, case, number), 0.97)


@torch.inference_mode()
def test_mask_rcnn_equals_detectron2s(shared_golden: Path) -> None:
    """The box branch and all before it are compared here, masks in the tests of the detector."""
    case = GoldenCase(shared_golden / NAMES["mask_rcnn FPN"])
    detector = build_with(case, proposals=200)
    check_fpn_detector(case, 0, detector)
    check_detected(case, 0, sized(detector, case, 0), 0.97)


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
    head = detector.head
    pooled = head.pool(FeatureTable.from_maps([fmap], [16]), proposals.boxes)  # type: ignore[union-attr, operator]
    case.check("img0/roi/box_features", head.features(pooled)[0])  # type: ignore[union-attr, operator]
    logits, deltas = head(pooled)  # type: ignore[operator]
    case.check("img0/roi/cls_logits", logits[0])
    case.check("img0/roi/box_deltas", deltas[0].flatten(1))
    found = head.detections(logits, deltas, proposals, images.sizes)  # type: ignore[union-attr, operator]
    rows, scale = found.valid[0], original_scale(case, 0)
    boxes = found.boxes[0, rows] * scale
    share = share_detected(case, "img0/dets", found.labels[0, rows], found.scores[0, rows], boxes)
    compare_share("img0/dets, of its proposals", share, 0.97)
    check_detected(case, 0, sized(detector, case, 0), 0.97)


@torch.inference_mode()
def test_retinanet_equals_detectron2s(shared_golden: Path) -> None:
    case = GoldenCase(shared_golden / NAMES["retinanet FPN"])
    detector = build_with(case)
    for number in (0, 1):
        images = pil_images(case, number, 32)
        height, width = case.spec["images"][number]["resized"]
        case.check(f"img{number}/image", images.pixels[0, :, :height, :width].flip(0).float())
        maps = detector.neck(detector.backbone(detector.normalise(images)))  # type: ignore[operator]
        logits, deltas = detector.head(maps)  # type: ignore[operator]
        for level, fmap, logit, delta in zip(detector.neck.levels, maps, logits, deltas, strict=True):  # type: ignore
            name = level.name.lower()
            case.check(f"img{number}/features/{name}", fmap)
            for head, values in (("cls_logits", logit), ("bbox_deltas", delta)):
                flat = values.reshape(1, *fmap.shape[2:], -1).permute(0, 3, 1, 2)
                case.check(f"img{number}/head/{head}_{name}", flat)
        check_detected(case, number, sized(detector, case, number), 0.97)


@pytest.mark.parametrize("kind", ["fpn", "mask", "c4", "retinanet"])
def test_exporting_is_the_inverse_of_importing(kind: str) -> None:
    published = filled(detectron2_shapes(kind))
    imported = import_detectron2(published)
    exported = export_detectron2(loaded(imported))
    assert_same(exported, published)
    again = import_detectron2({"model": exported})
    assert again.config == imported.config
    assert_same(again.state, imported.state)


@pytest.mark.parametrize(
    ("kind", "depth", "classes", "agnostic"),
    [
        ("fpn", 101, 80, False),
        ("mask", 101, 80, False),
        ("retinanet", 101, 5, False),
        ("c4", 101, 20, True),
        ("dc5", 50, 80, False),
        ("dc5", 101, 80, False),
        ("fpn", 152, 1, False),
        ("fpn", 50, 7, True),
    ],
)
def test_every_model_of_the_zoo_has_its_place(kind: str, depth: int, classes: int, agnostic: bool) -> None:
    """Names and shapes, in both directions."""
    published = on_meta(detectron2_shapes(kind, depth, classes, agnostic))
    imported = import_detectron2(published)
    detector = loaded(imported)
    assert imported.source == f"detectron2 {TITLES[kind]} R{depth}"
    assert len(imported.classes) == classes
    assert detector.config.backbone.depth == depth
    shapes = {name: value.shape for name, value in detector.state_dict().items()}
    assert shapes == {name: value.shape for name, value in imported.state.items()}
    assert_same(export_detectron2(detector), published)


def test_the_layouts_written_down_are_detectron2s(shared_golden: Path) -> None:
    """The lists of names in the tests above equal the keys of the models themselves."""
    for kind, folder in (
        ("fpn", "faster_rcnn_r50_fpn"),
        ("mask", "mask_rcnn_r50_fpn"),
        ("c4", "faster_rcnn_r50_c4"),
        ("retinanet", "retinanet_r50_fpn"),
    ):
        keys = json.loads((shared_golden / f"d2_{folder}" / "keys.json").read_text())
        assert {name: tuple(shape) for name, shape in keys} == detectron2_shapes(kind)


def test_classes_are_those_given_or_the_usual_ones() -> None:
    for count, usual in ((80, COCO), (20, VOC), (3, Classes.from_names(["class_0", "class_1", "class_2"]))):
        state = on_meta(detectron2_shapes("fpn", classes=count))
        assert import_detectron2(state).classes == usual
    mine = Classes.from_names(["a", "b", "c"])
    assert import_detectron2(state, mine).classes == mine
    with pytest.raises(
        InputError, match=r"is for 80 classes, but 3 names are given \(a, b, c, ...\); give the 80 names"
    ):
        import_detectron2(on_meta(detectron2_shapes("retinanet")), mine)


def test_pixels_and_strides_follow_the_file() -> None:
    state = on_meta(detectron2_shapes("fpn"))
    msra = import_detectron2(state).config
    assert msra.backbone.stride_in_1x1  # type: ignore[union-attr]
    assert msra.pixels == IMAGENET_255_BGR  # type: ignore[union-attr]
    means = {"pixel_mean": torch.tensor([103.53, 116.28, 123.675]), "pixel_std": torch.ones(3)}
    constants = {name: value.reshape(3, 1, 1) for name, value in means.items()}
    assert import_detectron2({**state, **constants}).config == msra
    rgb = {name: torch.tensor(value).reshape(3, 1, 1) for name, value in (
        ("pixel_mean", [123.675, 116.28, 103.53]), ("pixel_std", [58.395, 57.12, 57.375])
    )}  # fmt: skip
    config = import_detectron2({**state, **rgb}).config
    assert config.pixels == IMAGENET  # type: ignore[union-attr]
    assert not config.backbone.stride_in_1x1  # type: ignore[union-attr]
    assert import_detectron2({**state, **rgb}, stride_in_1x1=True).config.backbone.stride_in_1x1  # type: ignore
    assert import_detectron2(on_meta(detectron2_shapes("c4"))).pad_multiple == 1


def test_anchors_of_old_files_are_used() -> None:
    state = on_meta(detectron2_shapes("retinanet"))
    usual = import_detectron2(state).config
    cells = {
        f"anchor_generator.cell_anchors.{i}": torch.tensor(cell)
        for i, cell in enumerate(build_on_meta(usual).anchors.cells)  # type: ignore[union-attr]
    }
    assert import_detectron2({**state, **cells}).config == usual
    doubled = {name: 2 * value for name, value in cells.items()}
    config = import_detectron2({**state, **doubled}).config
    found = torch.tensor(build_on_meta(config).anchors.cells)  # type: ignore[union-attr]
    torch.testing.assert_close(found, torch.stack(list(doubled.values())))
    moved = {name: value + 4 for name, value in cells.items()}
    with pytest.raises(InputError, match="anchors that are not centred"):
        import_detectron2({**state, **moved})


def build_on_meta(config: DetectorConfig) -> Detector:
    with torch.device("meta"):
        return build_detector(config, COCO)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("roi_heads.box_predictor.0.cls_score.weight", "Cascade R-CNN"),
        ("roi_heads.keypoint_head.conv_fcn1.weight", "Keypoint R-CNN"),
        ("sem_seg_head.p2.0.weight", "Panoptic FPN"),
        ("roi_heads.mask_head.point_head.fc1.weight", "PointRend"),
        ("backbone.bottom_up.res2.0.conv2_offset.weight", "1 keys are not of detectron2 faster_rcnn FPN, the first is"),
    ],
)
def test_models_that_only_detectron2_has_are_named(name: str, message: str) -> None:
    state = on_meta(detectron2_shapes("fpn")) | {name: torch.empty(1, device="meta")}
    assert recognise_detectron2(state)
    with pytest.raises(InputError, match=re.escape(message)):
        import_detectron2(state)


def test_resnext_and_masks_on_c4_are_named() -> None:
    state = on_meta(detectron2_shapes("fpn", 101))
    state["backbone.bottom_up.res4.0.conv2.weight"] = torch.empty(512, 16, 3, 3, device="meta")
    with pytest.raises(InputError, match=r"with ResNeXt .* has no counterpart here"):
        import_detectron2(state)
    state = on_meta(detectron2_shapes("c4")) | on_meta({"roi_heads.mask_head.deconv.weight": (2048, 256, 2, 2)})
    with pytest.raises(InputError, match="Mask R-CNN on C4 has no counterpart here; give Mask R-CNN on FPN"):
        import_detectron2(state)


def test_half_a_file_is_no_checkpoint() -> None:
    whole = on_meta(detectron2_shapes("fpn"))
    names = list(whole)
    for kept in (names[: len(names) // 2], names[len(names) // 2 :]):
        with pytest.raises(InputError, match=r"is the file whole\?"):
            import_detectron2({name: whole[name] for name in kept})
    state = filled({name: shape for name, shape in detectron2_shapes("c4").items() if "res3.1" not in name})
    with pytest.raises(InputError, match=r"x\.pkl: no whole checkpoint of detectron2 faster_rcnn C4 R50: 15 of \d+ "):
        build_imported(import_detectron2(state), "x.pkl")


def test_another_publishers_file_is_refused() -> None:
    for state in ({"backbone.body.layer1.0.conv1.weight": torch.zeros(1)}, {"fc.weight": torch.zeros(1)}, {"a": 1}):
        assert not recognise_detectron2(state)
        with pytest.raises(InputError, match=r"no detector of detectron2's: none of its tensors is called"):
            import_detectron2(state)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SSDConfig(), "detectron2 has no ssd"),
        (FasterRCNNConfig(rpn=RPNConfig(objectness="softmax")), "rpn.objectness = 'sigmoid' only"),
        (FasterRCNNConfig(neck=FPNConfig(norm="gn")), "no name for"),
        (FasterRCNNC4Config(), "backbone.kind = 'resnet' only"),
        (RetinaNetConfig(anchors=replace(octave_anchors(), centre="cell")), "anchors.centre = 'corner' only"),
        (RetinaNetConfig(head=DenseHeadConfig(norm="bn")), "no name for"),
    ],
)
def test_what_detectron2_cannot_compute_is_not_exported(config: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        export_detectron2(build_on_meta(config))


def test_own_detectors_are_exported() -> None:
    """A detector with trained norms and torchvision's pixels, which the exported file states."""
    detector = build_on_meta(FasterRCNNConfig())
    with torch.device("cpu"):
        exported = export_detectron2(detector)
    assert exported["pixel_std"].flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    imported = import_detectron2(exported)
    assert imported.config.pixels == IMAGENET  # type: ignore[union-attr]
    assert imported.config.backbone.stride_in_1x1 is False  # type: ignore[union-attr]
    assert {n: v.shape for n, v in imported.state.items()} == {
        n: v.shape for n, v in detector.state_dict().items() if not n.endswith("num_batches_tracked")
    }
