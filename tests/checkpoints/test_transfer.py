"""Starting from weights of other classes: what fits is kept, by the name of the class, and told."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from boxwright.checkpoints.transfer import take_weights
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.detector import Detector
from boxwright.heads.class_rows import SHARED
from boxwright.structures import Classes, InputError
from tests.support.detector_cases import CASES

OLD = Classes.from_names(["cat", "dog", "person", "truck"])
NEW = Classes.from_names(["person", "bus", "cat"])


def filled(detector: Detector) -> Detector:
    """Every number that belongs to a class says which: 1000 for shared ones, 2000 for background."""
    marks = {index: float(ord(name[0])) for index, name in enumerate(detector.classes.names)}
    marks |= {SHARED: 1000.0, len(detector.classes): 2000.0}
    state = detector.state_dict()
    with torch.no_grad():
        for name, rows in detector.class_rows().items():
            values = torch.tensor([marks[label] for label in rows.tolist()])
            state[name].copy_(values.reshape(-1, *[1] * (state[name].dim() - 1)).expand_as(state[name]))
    return detector


@pytest.mark.parametrize("name", list(CASES))
def test_rows_go_by_the_name_of_their_class(name: str) -> None:
    """Labels 0, 1, 2 here are 2, none, 0 there."""
    config = CASES[name].config
    old = filled(build_detector(config, OLD))
    new = build_detector(config, NEW)
    before = {key: value.clone() for key, value in new.state_dict().items()}
    line = take_weights(new, old.state_dict(), "old", (config, OLD))
    assert "classes: 2 kept by name (person, cat), 1 fresh (bus), 2 dropped (dog, truck)" in line
    after, rows = new.state_dict(), new.class_rows()
    assert rows
    changed = {key for key, value in old.state_dict().items() if value.shape != after[key].shape}
    assert changed <= set(rows), "every layer that counts classes is known"
    for key, labels in rows.items():
        for mark, label in ((ord("p"), 0), (ord("c"), 2), (1000, SHARED), (2000, 3)):
            assert (after[key][labels == label] == mark).all(), key
        assert torch.equal(after[key][labels == 1], before[key][labels == 1]), "the new class is fresh"
    for key in set(after) - set(rows):
        assert torch.equal(after[key], old.state_dict()[key])


@pytest.mark.parametrize("name", ["faster_rcnn", "retinanet", "ssd", "yolov3"])
def test_as_many_other_classes_are_not_taken_for_the_old_ones(name: str) -> None:
    """Equal shapes: by shape alone every label would mean something else."""
    case = next(key for key in CASES if key.startswith(name))
    config, others = CASES[case].config, Classes.from_names(["dog", "cat", "truck", "tree"])
    old, new = filled(build_detector(config, OLD)), build_detector(config, others)
    take_weights(new, old.state_dict(), "old", (config, OLD))
    for key, labels in new.class_rows().items():
        assert (new.state_dict()[key][labels == 0] == ord("d")).all()
        assert (new.state_dict()[key][labels == 1] == ord("c")).all()
        assert (new.state_dict()[key][labels == 2] == ord("t")).all()
        assert not (new.state_dict()[key][labels == 3] == ord("t")).any(), "a tree is no truck"


def test_svms_of_other_features_are_not_taken_for_fitted() -> None:
    config = CASES[next(key for key in CASES if key.startswith("rcnn"))].config
    for classes in (OLD, NEW):
        old, new = build_detector(config, OLD), build_detector(config, classes)
        old.get_buffer("svm_ready").fill_(True)
        old.get_buffer("box_ready").fill_(True)
        assert old.unfitted() == ()
        take_weights(new, old.state_dict(), "old", (config, OLD))
        assert new.unfitted() == ("svm", "boxes"), "training changes the features that they were fitted to"


def test_classes_can_be_left_out() -> None:
    config = CASES["faster_rcnn"].config
    old, new = filled(build_detector(config, OLD)), build_detector(config, NEW)
    line = take_weights(new, old.state_dict(), "old", (config, OLD), carry_classes=False)
    assert "classes: 3 fresh (person, bus, cat), 4 dropped (cat, dog, person, ...)" in line
    scores = new.state_dict()["head.scores.bias"]
    assert scores.tolist() == [0, 0, 0, 2000]


def test_another_number_of_anchors_is_no_reason_to_guess() -> None:
    from dataclasses import replace

    config = CASES["retinanet"].config
    old = build_detector(config, OLD)
    fewer = replace(config, anchors=replace(config.anchors, ratios=(1.0,)))  # type: ignore[union-attr, call-arg, arg-type]
    line = take_weights(build_detector(fewer, NEW), old.state_dict(), "old", (config, OLD))  # type: ignore[arg-type]
    assert "head.scores.weight" in line.split("fresh: ")[1]
    assert "3 fresh" in line


def test_equal_classes_and_unknown_ones_go_by_shape() -> None:
    config = CASES["faster_rcnn"].config
    old, new = filled(build_detector(config, OLD)), build_detector(config, OLD)
    total = len(new.state_dict())
    assert take_weights(new, old.state_dict(), "old", (config, OLD)) == f"starting from old: {total} of {total} tensors"
    state: dict[str, Tensor] = new.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in old.state_dict().items())
    assert "fresh" not in take_weights(build_detector(config, OLD), old.state_dict(), "a dict")
    with pytest.raises(InputError, match="is it another detector"):
        take_weights(new, {"x": torch.zeros(1)}, "a file", (config, NEW))


def test_the_classifier_of_torchvision_starts_a_backbone(tmp_path: Path) -> None:
    import torchvision

    from boxwright.backbones import Classifier, build_backbone
    from boxwright.weights.torchvision.classifiers import import_torchvision_classifier

    for build in (torchvision.models.resnet18, torchvision.models.mobilenet_v2, torchvision.models.mobilenet_v3_large):
        theirs: nn.Module = build(weights=None, num_classes=10).eval()
        found = import_torchvision_classifier(theirs.state_dict())
        assert found.source == f"torchvision {build.__name__}"
        ours = Classifier(build_backbone(found.config), 10).eval()
        ours.load_state_dict(found.state)
        pixels = torch.randn(1, 3, 64, 64)
        with torch.inference_mode():
            torch.testing.assert_close(ours(pixels), theirs(pixels), atol=1e-4, rtol=1e-4)


def test_a_file_of_torchvisions_starts_a_detector(tmp_path: Path) -> None:
    import torchvision

    from boxwright.backbones import ResNetConfig
    from boxwright.checkpoints.backbone_files import start_backbone
    from boxwright.detectors.retinanet import RetinaNetConfig

    theirs = torchvision.models.resnet18(weights=None, num_classes=10)
    torch.save(theirs.state_dict(), tmp_path / "r.pth")
    config = RetinaNetConfig(backbone=ResNetConfig(depth=18, norm="frozen_bn", out_levels=(3, 4, 5)))
    detector = build_detector(config, OLD)
    line = start_backbone(detector, tmp_path / "r.pth")
    assert line.endswith("tensors, trained on ImageNet (torchvision resnet18)")
    assert torch.equal(detector.get_parameter("backbone.layer4.1.conv2.weight"), theirs.layer4[1].conv2.weight)
    other = build_detector(RetinaNetConfig(backbone=ResNetConfig(depth=34, out_levels=(3, 4, 5))), OLD)
    with pytest.raises(InputError, match="depth = 18 there and 34 here"):
        start_backbone(other, tmp_path / "r.pth")
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"x\.pth: holds 1 tensors, the first 'x', which is no ImageNet network"):
        start_backbone(detector, tmp_path / "x.pth")


def test_fc6_and_fc7_of_the_reduced_vgg_are_every_fourth_unit() -> None:
    from boxwright.weights.torchvision.classifiers import import_torchvision_classifier, reduced_layers

    places = torch.arange(49.0).repeat(8, 2) + 1000 * torch.arange(8.0)[:, None]
    whole = {
        "0.weight": places,
        "0.bias": torch.arange(8.0),
        "3.weight": torch.arange(64.0).reshape(8, 8),
        "3.bias": torch.arange(8.0),
    }
    reduced = reduced_layers(whole)
    assert reduced["fc6.weight"].shape == (2, 2, 3, 3)
    assert reduced["fc6.weight"][1, 1].tolist() == [[4000, 4003, 4006], [4021, 4024, 4027], [4042, 4045, 4048]]
    assert reduced["fc7.weight"][:, :, 0, 0].tolist() == [[0, 4], [32, 36]]
    assert reduced["fc6.bias"].tolist() == reduced["fc7.bias"].tolist() == [0, 4]
    convs = {f"features.{i}.weight": torch.zeros(8, 1, 1, 1) for i in (0, 3, 6, 8, 11, 13, 16, 18)}
    features = convs | {f"classifier.{key}": torch.full_like(value, torch.nan) for key, value in whole.items()}
    found = import_torchvision_classifier(features)
    assert (found.source, found.classes) == ("torchvision vgg11, features", None)
    assert found.pixels.std == (1.0, 1.0, 1.0)
    assert import_torchvision_classifier(convs | {f"classifier.{k}": v for k, v in whole.items()}).classes == 8
