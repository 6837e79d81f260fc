"""Box targets of each class brought to mean 0 and deviation 1, by hand and in a run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boxwright.anchors.coder import BoxCoder, NormalisedCoder
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.proposals.files import ProposalSet
from boxwright.heads.regions.fits.target_statistics import TargetStatistics
from boxwright.structures import Classes

CODER = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
TRUTH = np.array([[10.0, 10, 30, 50], [40, 20, 80, 60]])
SHIFTS = np.array([[0.0, 0, 0, 0], [2, -1, 3, 2], [-3, 2, -1, 4], [1, 4, -2, -3]])


@pytest.fixture
def index(tmp_path: Path) -> DetectionIndex:
    """Two images of the same two objects, of classes 0 and 1, the second one's first object difficult."""
    records = []
    for i in range(2):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (100, 80)).save(path)
        records.append(
            ImageRecord(
                path=path, image_id=i, height=80, width=100, boxes=TRUTH, labels=np.array([0, 1]),
                difficult=np.array([i == 1, False]),
            )
        )  # fmt: skip
    return DetectionIndex.build(Classes.from_names(["a", "b", "none of it"]), records)


def proposals(index: DetectionIndex) -> ProposalSet:
    """Four near each object, and one that overlaps neither by half."""
    boxes = np.concatenate([*(box + SHIFTS for box in TRUTH), [[0.0, 0, 90, 79]]])
    return ProposalSet.build(index, [boxes] * 2, [np.linspace(1, 0, len(boxes))] * 2, "by hand")


def by_hand(box: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the offsets from ``box + shifts`` to ``box``, each with its mirror image."""
    regions = box + shifts
    size, target = regions[:, 2:] - regions[:, :2], box[2:] - box[:2]
    centre = (box[:2] + box[2:]) / 2 - (regions[:, :2] + regions[:, 2:]) / 2
    offsets = np.concatenate([10 * centre / size, 5 * np.log(target / size)], 1)
    both = np.concatenate([offsets, offsets * [-1, 1, 1, 1]])
    return both.mean(0), both.std(0)


def test_each_class_has_its_own(index: DetectionIndex) -> None:
    statistics = TargetStatistics(3)
    count = statistics.measure(index, proposals(index), CODER, 0.5, add_truth=False)
    assert count == 16
    for k in range(2):
        mean, std = by_hand(TRUTH[k], SHIFTS)
        np.testing.assert_allclose(statistics.mean[k], mean, atol=1e-4)
        np.testing.assert_allclose(statistics.std[k], std, atol=1e-4)
    assert statistics.mean[2].tolist() == [0, 0, 0, 0], "no region of this class"
    assert statistics.std[2].tolist() == [1, 1, 1, 1]
    assert len(set(statistics.std[:2].flatten().tolist())) > 4


def test_truth_and_difficult_objects(index: DetectionIndex) -> None:
    statistics = TargetStatistics(3)
    given = proposals(index)
    assert statistics.measure(index, given, CODER, 0.5) == 16 + 4
    mean, _ = by_hand(TRUTH[1], np.concatenate([SHIFTS, np.zeros((1, 4))]))
    np.testing.assert_allclose(statistics.mean[1], mean, atol=1e-4)
    assert statistics.measure(index, given, CODER, 0.5, difficult=False) == 15
    shared = TargetStatistics(1)
    assert shared.measure(index, given, CODER, 0.5) == 20
    assert (shared.mean[0, 1] - (statistics.mean[0, 1] + statistics.mean[1, 1]) / 2).abs() < 0.2


def test_what_was_learnt_under_other_statistics_gives_the_same_boxes(index: DetectionIndex) -> None:
    statistics, layer = TargetStatistics(3), torch.nn.Linear(5, 12)
    torch.nn.init.normal_(statistics.mean)
    statistics.std.uniform_(0.5, 2.0)
    features, rows = torch.randn(7, 5), torch.arange(3).expand(7, 3)
    regions = torch.tensor([10.0, 10, 40, 60]).expand(7, 3, 4)
    before = statistics.coder(CODER, rows).decode(regions, layer(features).unflatten(1, (3, 4)))
    mean, std = statistics.mean.clone(), statistics.std.clone()
    statistics.measure(index, proposals(index), CODER, 0.5)
    statistics.renormalise(layer, mean, std)
    after = statistics.coder(CODER, rows).decode(regions, layer(features).unflatten(1, (3, 4)))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-3)
    assert not torch.allclose(mean, statistics.mean)


def test_normalised_targets_have_mean_0_and_deviation_1(index: DetectionIndex) -> None:
    statistics = TargetStatistics(3)
    statistics.measure(index, proposals(index), CODER, 0.5, add_truth=False)
    truth = torch.from_numpy(TRUTH[1]).float()
    regions = truth + torch.from_numpy(SHIFTS).float()
    coder = statistics.coder(CODER, torch.ones(4, dtype=torch.int64))
    targets = coder.encode(regions, truth.expand(4, 4))
    torch.testing.assert_close(targets[:, 1:].mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(targets[:, 1:].std(0, correction=0), torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(coder.decode(regions, targets), truth.expand(4, 4), atol=1e-3, rtol=0)


def test_a_region_alone_keeps_the_fixed_deviation(index: DetectionIndex) -> None:
    statistics = TargetStatistics(3)
    only = ProposalSet.build(index, [np.zeros((0, 4))] * 2, [np.zeros(0)] * 2, "none")
    assert statistics.measure(index, only, CODER, 0.5) == 4
    assert statistics.std.eq(1).all(), "the truth alone: offsets of 0 that do not vary"
    assert statistics.measure(index, only, CODER, 0.5, add_truth=False) == 0


def test_coders_agree_where_nothing_was_measured() -> None:
    plain = torch.tensor([[10.0, 10, 30, 50]]), torch.tensor([[12.0, 8, 33, 47]])
    same = TargetStatistics(2).coder(CODER, torch.zeros(1, dtype=torch.int64))
    assert isinstance(same, NormalisedCoder)
    torch.testing.assert_close(same.encode(*plain), CODER.encode(*plain))
