"""Every detector of torchvision: recognised, equal at every tensor, exported again; and its classes."""

import pytest
import torch
import torchvision
from torch import Tensor

from boxwright.detectors.build import build_detector
from boxwright.detectors.faster_rcnn import FasterRCNN
from boxwright.structures import Classes, InputError
from boxwright.weights.common.class_names import COCO, VOC
from boxwright.weights.common.foreign_files import tensors_in
from boxwright.weights.common.imported import build_imported
from boxwright.weights.torchvision.classes import columns_of_classes, columns_to_export
from boxwright.weights.torchvision.detectors import SILENT, faster_rcnn_config, faster_rcnn_state, retinanet_state
from boxwright.weights.torchvision.export import export_torchvision
from boxwright.weights.torchvision.importer import import_torchvision, recognise_torchvision
from tests.support.torchvision_models import MODELS, imported, names, random_model, taps_between

QUICK = {"fasterrcnn_mobilenet_v3_large_fpn", "ssdlite320_mobilenet_v3_large"}


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_has_its_place(name: str) -> None:
    """Names and shapes. Outputs are compared below, for the larger models in the slow suite."""
    with torch.device("meta"):
        theirs = getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None, num_classes=8)
        found = import_torchvision(theirs.state_dict(), small="320_fpn" in name)
        own = build_detector(found.config, found.classes).state_dict()
    assert found.source == f"torchvision {name}"
    assert {key: value.shape for key, value in found.state.items()} == {key: value.shape for key, value in own.items()}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_every_tap_is_torchvisions_and_the_export_is_its_own_state(name: str) -> None:
    columns, size = (4, 128) if "v2" in name else (8, 128)
    theirs = random_model(name, columns, size)
    state = theirs.state_dict()
    assert recognise_torchvision(state)
    assert import_torchvision(state, small="320_fpn" in name).source == f"torchvision {name}"
    ours = imported(name, theirs, columns)
    for tap in taps_between(name, theirs, ours, batch=1, height=size, width=size + 32):
        tap.check()

    exported = export_torchvision(ours)
    same = {key for key, value in state.items() if torch.equal(value, exported.get(key, torch.tensor(torch.nan)))}
    untrained = ("bbox_pred", "mask_fcn_logits", "cls_logits", "num_batches_tracked")  # of background, or of batches
    assert all(key in same or any(part in key for part in untrained) for key in state)
    theirs.load_state_dict(exported, strict=True)
    for tap in taps_between(name, theirs, ours, batch=1, height=size, width=size + 32):
        if "detections" in tap.name or "scores" in tap.name:
            tap.check()
    again = import_torchvision(exported, ours.classes, small="320_fpn" in name)
    assert again.config == ours.config
    own = ours.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in again.state.items() if "num_batches" not in key)


@pytest.mark.parametrize(
    ("columns", "given", "background", "expected"),
    [
        (91, None, True, COCO.ids),
        (91, None, False, COCO.ids),
        (21, None, True, tuple(range(1, 21))),
        (4, None, True, (1, 2, 3)),
        (4, None, False, (0, 1, 2, 3)),
        (4, names(3), True, (1, 2, 3)),
        (4, names(3), False, (1, 2, 3)),
        (4, names(4), False, (0, 1, 2, 3)),
        (91, Classes.from_names(COCO.names), True, COCO.ids),  # numbered 1 to 80, and still not shifted
        (91, Classes.from_names(("toothbrush", "person")), True, (90, 1)),
        (91, Classes(("a", "b"), (3, 90)), True, (3, 90)),
    ],
)
def test_no_label_is_ever_shifted(columns: int, given: Classes | None, background: bool, expected: tuple) -> None:
    classes, labels = columns_of_classes(columns, given, background)
    assert tuple(labels) == tuple(expected)
    if given is None:
        assert classes == {91: COCO, 21: VOC}.get(columns, classes)
        assert len(classes) == len(labels)


@pytest.mark.parametrize(
    ("columns", "given", "background"),
    [(91, names(80), True), (4, names(4), True), (4, Classes(("a",), (9,)), True)],
)
def test_classes_that_fit_no_column_are_refused(columns: int, given: Classes, background: bool) -> None:
    with pytest.raises(InputError, match=f"do not fit a head of {columns} columns"):
        columns_of_classes(columns, given, background)


def numbered(columns: int) -> dict[str, Tensor]:
    """Return the heads of a Faster R-CNN whose column ``k`` is ``k`` everywhere, and box coordinates by tenths."""
    rows = torch.arange(float(columns))
    coordinates = (rows[:, None] + torch.tensor([0.0, 0.1, 0.2, 0.3])).flatten()
    state = {
        "backbone.body.conv1.weight": torch.zeros(1),
        "backbone.fpn.layer_blocks.0.0.weight": torch.zeros(1, 1, 3, 3),
        "roi_heads.box_head.fc6.weight": torch.zeros(2, 4),
    }
    for part, shape in (("weight", (-1, 1)), ("bias", (-1,))):
        state[f"roi_heads.box_predictor.cls_score.{part}"] = rows.reshape(shape)
        state[f"roi_heads.box_predictor.bbox_pred.{part}"] = coordinates.reshape(shape)
    return state


def test_91_columns_become_cocos_80_background_last() -> None:
    ours = faster_rcnn_state(numbered(91), COCO.ids)
    assert ours["head.scores.bias"].tolist() == [*COCO.ids, 0]
    assert ours["head.deltas.bias"].reshape(80, 4)[:, 0].tolist() == list(COCO.ids)
    assert ours["head.deltas.weight"].reshape(80, 4)[11].tolist() == pytest.approx([13, 13.1, 13.2, 13.3])
    assert COCO.names[11] == "stop sign", "id 12 was never given"
    cell = {"head.regression_head.bbox_reg.bias": torch.zeros(8)}  # two anchors in a cell
    cell |= {f"head.classification_head.cls_logits.{part}": torch.arange(91.0).repeat(2) for part in ("weight", "bias")}
    sigmoid = retinanet_state(cell, COCO.ids)["head.scores.bias"]
    assert sigmoid.tolist() == list(COCO.ids) * 2, "no background at all"


def test_cocos_classes_go_back_to_their_ids() -> None:
    detector = FasterRCNN(faster_rcnn_config(), COCO)
    with torch.no_grad():
        detector.head.scores.bias.copy_(torch.tensor([*COCO.ids, 0.0]))
    exported = export_torchvision(detector)
    bias = exported["roi_heads.box_predictor.cls_score.bias"]
    unused = [k for k in range(1, 91) if k not in COCO.ids]
    assert len(bias) == 91
    assert bias[list(COCO.ids)].tolist() == list(COCO.ids)
    assert bias[0] == 0
    assert set(bias[unused].tolist()) == {SILENT}
    again = import_torchvision(exported)
    assert again.classes == COCO
    assert again.config == detector.config, "an eps of 0 belongs to torchvision's own files alone"
    own = detector.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in again.state.items())

    published = dict(exported)  # every column was trained there
    published["roi_heads.box_predictor.cls_score.bias"] = torch.arange(91.0)
    found = import_torchvision(published)
    assert found.config.backbone.norm_eps == 0.0
    built = build_imported(found, "a file")
    norm = built.get_submodule("backbone.bn1")
    norm.running_var[0] = 1e-13  # type: ignore[index]
    assert norm.scale_and_shift()[0].isfinite().all()  # type: ignore[operator]
    back = export_torchvision(built)["backbone.body.bn1.weight"]  # for models that add 1e-5, as any built by hand
    assert back[1].item() == pytest.approx((1 + 1e-5) ** 0.5, abs=1e-7)
    assert columns_to_export(names(3)) == ([1, 2, 3], 4)


def test_what_torchvision_would_compute_otherwise_is_refused() -> None:
    from boxwright.recipes import get_recipe

    with torch.device("meta"):
        for recipe, place in (
            ("faster-rcnn-r50-fpn", "backbone.stride_in_1x1|aligned|rounding"),
            ("faster-rcnn-detnet59-fpn", "backbone"),
        ):
            detector = FasterRCNN(get_recipe(recipe).detector, names(3))  # type: ignore[arg-type]
            with pytest.raises(InputError, match=f"torchvision's model would compute something else: .*({place})"):
                export_torchvision(detector)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"roi_heads.keypoint_predictor.kps_score_lowres.weight": torch.zeros(1)}, "Keypoint R-CNN"),
        ({"backbone.body.layer1.0.conv1.weight": torch.zeros(1)}, "no ResNet of 18, 34, 50, 101, 152 layers"),
    ],
)
def test_models_without_counterpart_are_named(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_torchvision(numbered(4) | change)


def test_other_files_are_not_recognised() -> None:
    assert not recognise_torchvision({"conv1.weight": torch.zeros(1)})
    assert recognise_torchvision(tensors_in({"model": numbered(4), "epoch": 3}))
    with pytest.raises(InputError, match=r"no detector of torchvision's: the first of 1 tensors is 'conv1\.weight'"):
        import_torchvision({"conv1.weight": torch.zeros(1)})
