"""R-CNN: which windows it learns from, how it scores, and what its fits see."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from boxwright.backbones.vgg import VGGConfig
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.detectors.build import build_detector
from boxwright.detectors.rcnn import RCNN, RCNNConfig, WindowConfig
from boxwright.detectors.rcnn_fits import BoxFitting, SVMFitting, Windows
from boxwright.geometry.pooling.region_warp import RegionWarpConfig
from boxwright.heads.regions.crop_layers import LayersConfig
from boxwright.heads.regions.fits.ridge import RidgeFitConfig
from boxwright.heads.regions.fits.svm import SVMFitConfig
from boxwright.structures import Classes, Images, InputError, Targets
from tests.support.batches import example_images
from tests.support.two_stage_cases import SMALL_RCNN, example_proposals

CLASSES = Classes.from_names(["disc", "bar", "ring"])
CONFIG = SMALL_RCNN["rcnn"]


def built(config: RCNNConfig = CONFIG) -> RCNN:
    torch.manual_seed(0)
    detector = build_detector(config, CLASSES).eval()
    assert isinstance(detector, RCNN)
    return detector


def images(batch: int = 1) -> Images:
    return example_images(batch, 128, 160)._replace(proposals=example_proposals(batch, 128, 160))


def one_object(box: list[float], label: int = 0, crowd: bool = False) -> Targets:
    no = torch.zeros(1, 1, dtype=torch.bool)
    return Targets(torch.tensor([[box]]), torch.tensor([[label]]), ~no, no | crowd, no)


def beside(truth: list[float], overlaps: list[float]) -> Tensor:
    """Boxes within ``truth`` that overlap it by these IoUs."""
    x1, y1, x2, y2 = truth
    return torch.tensor([[[x1, y1, x1 + (x2 - x1) * share, y2] for share in overlaps]])


TRUTH = [10.0, 20.0, 110.0, 100.0]


def test_windows_are_labelled_as_in_the_paper() -> None:
    """§2.3: IoU of 0.5 makes a positive, a quarter of the windows are."""
    given = images()._replace(proposals=beside(TRUTH, [0.1, 0.4, 0.49, 0.51, 0.9]))
    detector = built(replace(CONFIG, windows=WindowConfig(count=6, positive_fraction=0.5)))
    boxes, labels, valid = detector.sample(detector.proposals_of(given), one_object(TRUTH, 2), torch.tensor([5]))
    assert valid.all()
    assert labels[0].tolist().count(2) == 3, "both windows above a half, and the box itself"
    assert labels[0].tolist().count(len(CLASSES)) == 3
    widths = (boxes[0, labels[0] == 2][:, 2] - 10).sort().values
    assert widths.tolist() == pytest.approx([51, 90, 100])
    config = RCNNConfig()
    assert (16 * config.windows.count, int(16 * config.windows.count * config.windows.positive_fraction)) == (128, 32)


def test_windows_labelled_as_for_the_svms() -> None:
    given = images()._replace(proposals=beside(TRUTH, [0.1, 0.4, 0.49, 0.51, 0.9]))
    windows = WindowConfig(count=6, positive_fraction=0.5, positives="truth", negative_iou=0.3)
    detector = built(replace(CONFIG, windows=windows))
    boxes, labels, valid = detector.sample(detector.proposals_of(given), one_object(TRUTH), torch.tensor([5]))
    assert valid.sum() == 2, "one box, one window below 0.3; all between is ignored"
    assert labels[valid].tolist() == [0, 3]
    assert boxes[0, 0].tolist() == TRUTH


def test_until_its_svms_are_fitted_it_scores_by_the_softmax() -> None:
    detector = built()
    torch.nn.init.normal_(detector.scores.weight, std=0.3)
    softmax = built(replace(CONFIG, score="softmax", regress=False))
    softmax.load_state_dict(detector.state_dict())
    with torch.inference_mode():
        assert torch.equal(detector(images()).scores, softmax(images()).scores)
        assert detector.unfitted() == ("svm", "boxes")
        assert softmax.unfitted() == ()
        detector.svm_ready.fill_(True)
        torch.nn.init.normal_(detector.svm_weight)
        found = detector(images())
        fc7, pool5 = detector.describe(images(), images().proposals[0, :21])  # type: ignore[index]
        scores, _ = detector.scores_and_deltas(fc7, pool5)
        assert torch.allclose(scores, (fc7 @ detector.svm_weight.T).sigmoid())
        assert found.scores[0, 0] == pytest.approx(float(scores.max()), abs=1e-4)


def test_boxes_move_by_the_regression_of_their_own_class() -> None:
    detector = built(replace(CONFIG, score="softmax"))
    torch.nn.init.normal_(detector.scores.weight, std=0.3)
    with torch.inference_mode():
        before = detector(images())
        detector.box_bias[1] = torch.tensor([0.0, 0.0, 0.0, -0.5])  # bars become lower
        after = detector(images())
    bars = after.labels[after.valid]
    assert (bars == 1).any()
    one = before.boxes[before.valid][before.labels[before.valid] != 1]
    other = after.boxes[after.valid][bars != 1]
    assert torch.equal(one, other), "the others stay where they were"
    heights = [(b.boxes[b.valid & (b.labels == 1)][:, 3] - b.boxes[b.valid & (b.labels == 1)][:, 1]).max()
               for b in (before, after)]  # fmt: skip
    assert heights[1] < heights[0]


def test_chunks_and_padding_change_nothing() -> None:
    detector, whole = built(), built(replace(CONFIG, chunk=1000))
    whole.load_state_dict(detector.state_dict())
    given = images(2)
    assert given.proposals is not None
    longer = given._replace(proposals=torch.cat([given.proposals, torch.zeros(2, 50, 4)], 1))
    with torch.inference_mode():
        expected = whole(given)
        for found in (detector(given), whole(longer)):
            torch.testing.assert_close(found.scores, expected.scores, atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(found.boxes, expected.boxes, atol=1e-4, rtol=1e-5)
        assert detector.proposals_of(longer).boxes.shape == (2, 21, 4), "three of 24 are padding"
        assert not detector(given._replace(proposals=torch.zeros(2, 0, 4))).valid.any()


def test_at_most_so_many_boxes_of_a_class_enter_nms() -> None:
    detector = built(replace(CONFIG, score="softmax", post=replace(CONFIG.post, per_class=2, nms_iou=1.0)))
    torch.nn.init.normal_(detector.scores.weight, std=0.3)
    with torch.inference_mode():
        found = detector(images())
    assert torch.bincount(found.labels[found.valid], minlength=3).tolist() == [2, 2, 2]


def test_no_class_crowds_another_out_of_nms() -> None:
    """All boxes the same and one class far ahead: each class still has its best box."""
    post = replace(CONFIG.post, per_class=10, detections=3, candidates=3)
    detector = built(replace(CONFIG, score="softmax", post=post))
    detector.scores.bias.data.copy_(torch.tensor([4.0, 2.0, 0.0, 0.0]))
    given = images()
    assert given.proposals is not None
    boxes = given.proposals[:, :1].expand(-1, 10, -1)
    with torch.inference_mode():
        found = detector(given._replace(proposals=boxes))
    assert found.labels[found.valid].unflatten(0, (len(boxes), -1)).tolist() == [[0, 1, 2]] * len(boxes)


def test_overlap_with_each_class() -> None:
    given = images()._replace(proposals=beside(TRUTH, [0.2, 0.6]))
    two = [torch.tensor([[TRUTH, [0.0, 0.0, 10.0, 10.0]]]), torch.tensor([[2, 0]])]
    yes = torch.ones(1, 2, dtype=torch.bool)
    windows = Windows(built(), given, Targets(*two, yes, ~yes, ~yes))
    assert windows.proposals == 2
    expected = torch.tensor([[0, 0, 0.2], [0, 0, 0.6], [0, 0, 1.0], [1.0, 0, 0]])
    torch.testing.assert_close(windows.overlap(3), expected)


def index_of(labels: list[int], folder: Path) -> DetectionIndex:
    boxes = [[4.0 * i, 0.0, 4.0 * i + 4, 9.0] for i in range(len(labels))]
    record = ImageRecord(path=folder / "a.png", image_id=1, height=128, width=160, boxes=boxes, labels=labels)
    return DetectionIndex.build(CLASSES, [record], root=folder)


def test_svms_see_positives_and_negatives_of_the_labelling(tmp_path: Path) -> None:
    pytest.importorskip("sklearn.svm", reason="the extra `rcnn` is not installed")
    detector, index = built(), index_of([0, 1, 2], tmp_path)
    given = images()._replace(proposals=beside(TRUTH, [0.1, 0.29, 0.31, 0.51, 0.9]))
    for config, positives, negatives in (
        (SVMFitConfig(), 1, [2, 6, 6]),  # windows of another class's object are background, its box too
        (SVMFitConfig(positives="overlap", negative_iou=0.5), 3, [3, 6, 6]),
    ):
        fit = detector.fitting(config, index, seed=0)
        assert isinstance(fit, SVMFitting)
        assert fit.see(given, one_object(TRUTH), 0, 0, False) == (positives, 0)
        fit.positives[1] = fit.positives[2] = fit.positives[0]
        scale = fit.scale
        assert fit.see(given, one_object(TRUTH), 0, 1, True) == (0, sum(negatives))
        assert [m.fits for m in fit.machines] == [1, 1, 1]
        features, _ = detector.describe(given, torch.cat([given.proposals[0], torch.tensor([TRUTH])]))  # type: ignore[index]
        assert float((features * scale).norm(dim=1).mean()) == pytest.approx(20, rel=1e-3)
        found = fit.finish()
        margins = features @ found["svm_weight"][0] + found["svm_bias"][0]
        torch.testing.assert_close(margins.double(), fit.machines[0].margins(features * scale), atol=1e-4, rtol=1e-3)


def test_negatives_avoid_crowds(tmp_path: Path) -> None:
    pytest.importorskip("sklearn.svm", reason="the extra `rcnn` is not installed")
    detector = built()
    fit = detector.fitting(SVMFitConfig(), index_of([0, 1, 2], tmp_path), seed=0)
    assert isinstance(fit, SVMFitting)
    fit.positives = [[torch.ones(1, detector.svm_weight.shape[1])] for _ in range(3)]
    given = images()._replace(proposals=beside(TRUTH, [0.2, 0.9]))
    assert fit.see(given, one_object(TRUTH, crowd=True), 0, 1, False) == (0, 0)


def test_pairs_of_box_regression(tmp_path: Path) -> None:
    detector = built()
    fit = detector.fitting(RidgeFitConfig(norm=None, whiten=False), index_of([0, 1, 2], tmp_path), seed=0)
    assert isinstance(fit, BoxFitting)
    given = images()._replace(proposals=beside(TRUTH, [0.5, 0.59, 0.7, 0.9]))
    assert fit.see(given, one_object(TRUTH, 1), 0, 0, False) == (2,)
    pairs = fit.stores[1].pairs()
    assert pairs is not None
    expected = torch.tensor([[0.5 / share - 0.5, 0, -math.log(share), 0] for share in (0.7, 0.9)])
    torch.testing.assert_close(pairs[1], expected, atol=1e-5, rtol=1e-4)
    assert fit.see(given, one_object(TRUTH, 1, crowd=True), 1, 0, False) == (0,)
    found = fit.finish()
    assert found["box_weight"].shape == detector.box_weight.shape
    assert not found["box_weight"][0].any()
    assert "none of disc, ring, whose boxes stay" in fit.summary()


def test_a_class_without_objects_is_named(tmp_path: Path) -> None:
    pytest.importorskip("sklearn.svm", reason="the extra `rcnn` is not installed")
    with pytest.raises(InputError, match=r"class 'bar' has no object in the training set.*softmax"):
        built().fitting(SVMFitConfig(), index_of([0, 2], tmp_path), seed=0)


@pytest.mark.parametrize(
    ("changes", "fit", "words"),
    [
        ({"score": "softmax"}, SVMFitConfig(), r"fits 'svm', but detector\.score = 'softmax'"),
        ({"regress": False}, RidgeFitConfig(), r"fits 'boxes', but detector\.regress = false"),
    ],
)
def test_a_fit_that_nothing_would_use(changes: dict, fit: SVMFitConfig | RidgeFitConfig, words: str, tmp_path) -> None:
    with pytest.raises(InputError, match=words):
        built(replace(CONFIG, **changes)).fitting(fit, index_of([0, 1, 2], tmp_path), seed=0)


def test_the_network_starts_from_a_classifier() -> None:
    from boxwright.backbones.build import build_backbone
    from boxwright.backbones.classifier import Classifier

    backbone = VGGConfig(depth=11, width=8, out_levels=(5,))
    classifier = Classifier(build_backbone(backbone), 10).eval()
    config = RCNNConfig(backbone=backbone, layers=LayersConfig(hidden=(512, 512)))
    detector = built(config)
    detector.backbone.load_state_dict(classifier.backbone.state_dict())
    assert detector.take_classifier(classifier.fc.state_dict()) == 2
    crops = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        expected = torch.nn.functional.max_pool2d(classifier.backbone(crops)[-1], 2).flatten(1)
        for layer in list(classifier.fc)[:6]:
            expected = layer(expected)
        torch.testing.assert_close(detector.features(crops)[0], expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"warp": RegionWarpConfig(size=40, context=2)}, "multiple of its stride"),
        ({"backbone": VGGConfig(depth=11, width=8, out_levels=(4, 5))}, "out_levels to one"),
        ({"layers": LayersConfig(pool=3)}, "leaves no cell"),
        ({"chunk": 0}, r"RCNNConfig\.chunk = 0: should be greater than or equal to 1"),
    ],
)
def test_configurations_that_cannot_be(changes: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        built(replace(CONFIG, **changes))
    with pytest.raises(InputError, match="add_truth"):
        WindowConfig(positives="truth", add_truth=False)
