"""Importing Detectron's detectors: the same tensors as detectron2's of the same network, and Caffe's conventions."""

import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from boxwright.anchors.generator import AnchorGenerator
from boxwright.checkpoints.backbone_files import start_backbone
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.pixels import MSRA
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig, assign_levels
from boxwright.structures import Classes, InputError, Level
from boxwright.weights.common.foreign_files import tensors_in
from boxwright.weights.detectron import caffe2 as detectron
from boxwright.weights.detectron import detectron2
from boxwright.weights.detectron.caffe2 import import_detectron, recognise_detectron
from boxwright.weights.detectron.pretrained_resnet import import_resnet, recognise_resnet
from tests.support.published_layouts import detectron2_shapes, detectron_blobs, filled, loaded, on_meta

TITLES = {"fpn": "faster_rcnn FPN", "mask": "mask_rcnn FPN", "c4": "faster_rcnn C4", "retinanet": "retinanet FPN"}


def folded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold norms to a scale and a shift, and keep all else."""
    out = {name: value for name, value in state.items() if "running_" not in name and name != "average_positives"}
    for name, variance in state.items():
        if name.endswith("running_var"):
            stem = name.removesuffix("running_var")
            scale = state[f"{stem}weight"] / (variance + 1e-5).sqrt()
            out[f"{stem}weight"] = scale
            out[f"{stem}bias"] = state[f"{stem}bias"] - state[f"{stem}running_mean"] * scale
    return out


@pytest.mark.parametrize("kind", ["fpn", "mask", "c4", "retinanet"])
def test_tensors_are_those_of_the_same_network_in_detectron2(kind: str) -> None:
    state = filled(detectron2_shapes(kind, classes=3), seed=1)
    blobs = detectron_blobs(state)
    content = {"blobs": blobs, "cfg": "MODEL: ..."}
    assert recognise_detectron(tensors_in(content))
    imported = import_detectron(content)
    assert imported.source == f"Detectron {TITLES[kind]} R50"
    loaded(imported)
    mine, theirs = folded(imported.state), folded(detectron2.import_detectron2(state).state)
    assert set(mine) == set(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, atol=1e-6, rtol=1e-6, msg=name)


@pytest.mark.parametrize(("kind", "depth"), [("fpn", 101), ("mask", 101), ("c4", 101), ("retinanet", 101)])
def test_deeper_models_have_their_place(kind: str, depth: int) -> None:
    imported = import_detectron(detectron_blobs(on_meta(detectron2_shapes(kind, depth))))
    detector = loaded(imported)
    assert {n: v.shape for n, v in detector.state_dict().items()} == {n: v.shape for n, v in imported.state.items()}
    assert len(imported.classes) == 80


def test_anchors_are_detectrons() -> None:
    """Anchors are rounded at the stride and centred on the pixel, with inclusive corners. RetinaNet's ratios begin with
    1.
    """
    levels = [Level(f"P{n}", 2**n, 256) for n in range(2, 7)]
    cells = AnchorGenerator(detectron.faster_rcnn_config().rpn.anchors, levels).cells
    assert cells[0] == [[-22, -10, 25, 13], [-14, -14, 17, 17], [-10, -22, 13, 25]]
    levels = [Level(f"P{n}", 2**n, 256) for n in range(3, 8)]
    cells = AnchorGenerator(detectron.retinanet_config().anchors, levels).cells
    assert cells[0][0] == [-12, -12, 19, 19]  # 32 x 32 around 3.5
    wide = torch.tensor(cells[0]).reshape(3, 3, 4)
    sides = wide[..., 2:] - wide[..., :2] + 1
    assert (sides[:, 1, 1] > sides[:, 1, 0]).all()  # ratio 2 is tall
    assert (sides[:, 2, 1] < sides[:, 2, 0]).all()


def test_levels_count_the_last_pixel() -> None:
    """A box of 111 between its corners is 112 wide in Detectron, and is assigned to P3."""
    box = torch.tensor([[0.0, 0.0, 111.0, 111.0], [0.0, 0.0, 110.0, 110.0]])
    config = detectron.faster_rcnn_config().head.pooling
    assert assign_levels(box, 4, config).tolist() == [1, 0]
    assert assign_levels(box, 4, RoIPoolingConfig()).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("blobs", "message"),
    [
        ({"kps_score_w": (1,)}, "Keypoint R-CNN"),
        ({"fpn_inner_res5_2_sum_gn_s": (1,)}, "network with group norm"),
        ({"mystery_w": (1,)}, "1 keys are not of Detectron faster_rcnn FPN, the first is 'mystery_w'"),
    ],
)
def test_other_models_are_named(blobs: dict[str, tuple[int, ...]], message: str) -> None:
    state = detectron_blobs(on_meta(detectron2_shapes("fpn"))) | on_meta(blobs)
    with pytest.raises(InputError, match=re.escape(message)):
        import_detectron({"blobs": state})


def test_masks_on_c4_resnext_and_wrong_classes_are_named() -> None:
    c4 = detectron_blobs(on_meta(detectron2_shapes("c4")))
    with pytest.raises(InputError, match="Mask R-CNN on C4 has no counterpart here"):
        import_detectron(c4 | on_meta({"conv5_mask_w": (1,)}))
    with pytest.raises(InputError, match="with ResNeXt"):
        import_detectron(c4 | on_meta({"res4_0_branch2b_w": (256, 8, 3, 3)}))
    with pytest.raises(InputError, match="is for 80 classes, but 2 names are given"):
        import_detectron(c4, Classes.from_names(["a", "b"]))
    names = list(c4)
    for kept in (names[: len(names) // 2], names[len(names) // 2 :]):
        with pytest.raises(InputError, match=r"is the file whole\?|a pretrained ResNet of Detectron's, not a detector"):
            import_detectron({name: c4[name] for name in kept})
    with pytest.raises(InputError, match=r"no detector of Detectron's.*but backbone\.x; give a model_final\.pkl"):
        import_detectron({"backbone.x": torch.zeros(1)})


def test_pretrained_resnets_start_a_detector(tmp_path: Path) -> None:
    """Files of MSRA in the forms of Detectron and detectron2, and of torchvision in that of detectron2."""
    shapes = {name.removeprefix("backbone."): s for name, s in detectron2_shapes("dc5").items() if "backbone." in name}
    state = filled(shapes, seed=2)
    plain = {**state, "stem.fc.weight": torch.zeros(1000, 2048), "stem.fc.bias": torch.zeros(1000)}
    torchvision = import_resnet(tensors_in({"model": plain, "__author__": "torchvision"}))
    assert torchvision.source == "torchvision ResNet-50"
    assert not torchvision.config.stride_in_1x1
    assert torchvision.state["backbone.layer3.5.conv2.weight"] is state["res4.5.conv2.weight"]

    content = detectron_blobs({f"backbone.{name}": value for name, value in state.items()})
    classifier = {"fc1000_w": torch.zeros(1000, 2048), "fc1000_b": torch.zeros(1000), "conv1_b": torch.zeros(64)}
    assert recognise_resnet(tensors_in(content | classifier))
    assert not recognise_resnet(tensors_in(content | {"conv_rpn_w": torch.zeros(1)}))
    msra = import_resnet(tensors_in({"blobs": content | classifier}))
    assert msra.source == "MSRA ResNet-50"
    assert msra.config.stride_in_1x1
    assert msra.pixels == MSRA
    mine, theirs = folded(msra.state), folded(torchvision.state)
    assert set(mine) == set(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, atol=1e-6, rtol=1e-6, msg=name)
    with pytest.raises(
        InputError, match="a pretrained ResNet of Detectron's, not a detector: start a training from it"
    ):
        import_detectron({"blobs": content})

    # As a file, it starts a detector with the same strides and pixels.
    with torch.device("meta"):
        detector = build_detector(detectron.retinanet_config(), Classes.from_names(["a"]))
    detector.backbone.to_empty(device="cpu")  # type: ignore[union-attr]
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"blobs": {name: value.numpy() for name, value in content.items()}}, protocol=2))
    assert "trained on ImageNet" in start_backbone(detector, path)
    started = detector.backbone.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(value, msra.state[f"backbone.{name}"]) for name, value in started.items())
