"""Fast R-CNN: which regions it learns from, what it refuses, and truncated SVD."""

from dataclasses import replace

import pytest
import torch

from boxwright.detectors.build import build_detector
from boxwright.detectors.fast_rcnn import FastRCNN, FastRCNNConfig
from boxwright.heads.regions.proposals import given_proposals
from boxwright.heads.regions.truncated_svd import truncate_fc
from boxwright.structures import Classes, Images, InputError
from tests.support.batches import example_images, example_targets
from tests.support.two_stage_cases import SMALL_FAST, example_proposals

CLASSES = Classes.from_names(["disc", "bar", "ring"])


@pytest.fixture
def detector() -> FastRCNN:
    torch.manual_seed(0)
    built = build_detector(SMALL_FAST["fast_rcnn"], CLASSES).eval()
    assert isinstance(built, FastRCNN)
    return built


def images() -> Images:
    return example_images(2, 128, 160)._replace(proposals=example_proposals(2, 128, 160))


def test_regions_are_sampled_as_in_the_paper() -> None:
    """§2.3: 64 an image, at most a quarter objects, and background overlaps one by 0.1 to 0.5."""
    config = FastRCNNConfig().head
    assert (config.samples, config.positive_fraction, config.pooling.method) == (64, 0.25, "pool")
    head = FastRCNN(SMALL_FAST["fast_rcnn"], CLASSES).head
    targets = example_targets()
    truth = targets.boxes[0, 0]  # 10, 12, 60, 70
    overlaps = [0.05, 0.15, 0.45, 0.55, 0.9]
    rows = [torch.stack([truth[0], truth[1], truth[0] + 50 * t, truth[3]]) for t in overlaps]
    given = torch.stack([*rows, torch.zeros(4)])[None].expand(2, -1, -1)
    sample, matches = head.candidates(given_proposals(images()._replace(proposals=given)), targets, targets.valid)
    count = len(overlaps)
    assert matches.positive[0, :count].tolist() == [False, False, False, True, True]
    assert matches.negative[0, :count].tolist() == [False, True, True, False, False]
    assert not sample.valid[0, count], "padding is no region"
    assert sample.labels[0, 3:5].tolist() == [0, 0]


def test_proposals_are_needed(detector: FastRCNN) -> None:
    with pytest.raises(InputError, match=r"`boxwright proposals`.*data\.proposals"):
        detector(example_images(2, 128, 160))


def test_padding_rows_are_never_detected(detector: FastRCNN) -> None:
    given = images()
    assert given.proposals is not None
    longer = given._replace(proposals=torch.cat([given.proposals, torch.zeros(2, 30, 4)], 1))
    with torch.inference_mode():
        a, b = detector(given), detector(longer)
    assert a.valid.any()
    torch.testing.assert_close(a.boxes, b.boxes)
    none = given._replace(proposals=torch.zeros(2, 5, 4))
    assert not detector(none).valid.any()
    losses = detector.train()(none, example_targets())
    assert all(loss.isfinite() for loss in losses.values())


def test_truncated_svd(detector: FastRCNN) -> None:
    layer = detector.head.layers[0]
    values = torch.linalg.svdvals(layer.weight.detach())
    missed = []
    for rank in (2, 6, 10):
        first, second = truncate_fc(detector, (rank, 0)).head.layers[0]
        missed.append(float((second.weight @ first.weight - layer.weight).detach().norm()))
        assert missed[-1] == pytest.approx(float(values[rank:].norm()), rel=1e-4), "the best of its rank"
    assert missed == sorted(missed, reverse=True)

    whole, thin = truncate_fc(detector, (32, 0)), truncate_fc(detector, (4, 4))
    with torch.inference_mode():
        expected, found = detector(images()), whole(images())
        thinner = thin(images())
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-3)
    assert isinstance(detector.head.layers[0], torch.nn.Linear), "the original is left alone"
    size = [sum(p.numel() for p in d.head.parameters()) for d in (detector, thin)]
    assert size[1] < size[0] / 2
    again = build_detector(thin.config, CLASSES).eval()
    again.load_state_dict(thin.state_dict())
    with torch.inference_mode():
        assert torch.equal(again(images()).scores, thinner.scores)
    losses = thin.train()(images(), example_targets())
    assert all(loss.isfinite() for loss in losses.values()), "and it can learn on"


@pytest.mark.parametrize(
    ("ranks", "message"),
    [((4,), r"head.ranks = \(4,\) for 2"), ((4, 99), "rank 99"), ((-1, 4), r"ranks\.0 = -1: should be")],
)
def test_ranks_that_do_not_fit(ranks: tuple[int, ...], message: str, detector: FastRCNN) -> None:
    with pytest.raises(InputError, match=message):
        truncate_fc(detector, ranks)
    with pytest.raises(InputError, match=r"ranks \(4, 0\) already"):
        truncate_fc(truncate_fc(detector, (4, 0)), (2, 0))


def test_measured_statistics_move_losses_and_boxes(detector: FastRCNN) -> None:
    """Deltas are in deviations of their class, relative to its mean."""
    given = images()
    torch.nn.init.normal_(detector.head.deltas.weight, std=0.05)
    plain = build_detector(replace(detector.config, targets="fixed"), CLASSES).eval()
    plain.load_state_dict({k: v for k, v in detector.state_dict().items() if "statistics" not in k})
    with torch.inference_mode():
        torch.testing.assert_close(detector(given).boxes, plain(given).boxes)
        assert detector.head.statistics is not None
        mean, std = detector.head.statistics.mean, detector.head.statistics.std
        mean.copy_(torch.randn(3, 4))
        std.copy_(torch.rand(3, 4) + 0.5)
        moved, losses = detector(given), detector(given, example_targets())
        # The same by hand: the last layer's outputs, scaled and shifted as the authors folded them in at the end.
        plain.head.deltas.weight.copy_((plain.head.deltas.weight.unflatten(0, (3, 4)) * std[..., None]).flatten(0, 1))
        plain.head.deltas.bias.copy_((plain.head.deltas.bias.unflatten(0, (3, 4)) * std + mean).flatten())
        torch.testing.assert_close(moved.boxes, plain(given).boxes, atol=1e-3, rtol=1e-4)
        assert losses["box"] != plain(given, example_targets())["box"]
