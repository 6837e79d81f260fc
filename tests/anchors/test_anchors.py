"""Anchors, matching, coding and sampling on small tables."""

import math

import pytest
import torch

from boxwright.anchors.coder import BoxCoder
from boxwright.anchors.generator import AnchorConfig, AnchorGenerator
from boxwright.anchors.matching.matcher import Matcher
from boxwright.anchors.sampler import BalancedSampler, hashed_noise
from boxwright.structures import InputError, Level
from tests.support.boxes import random_boxes

P2 = [Level("P2", 4, 8)]


@pytest.mark.parametrize(
    ("config", "stride", "first_cell", "why"),
    [
        (
            AnchorConfig(sizes=((32,),), rounding="extent"),
            4,
            [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]],
            "torchvision rounds half extents",
        ),
        (
            AnchorConfig(sizes=((128, 256, 512),), rounding="caffe", centre="pixel", order="ratio"),
            16,
            [
                [-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199],
                [-56, -56, 71, 71], [-120, -120, 135, 135], [-248, -248, 263, 263],
                [-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359],
            ],
            "py-faster-rcnn's nine",
        ),
        (
            AnchorConfig(sizes=((32,),), rounding="caffe", centre="pixel"),
            4,
            [[-22, -10, 25, 13], [-14, -14, 17, 17], [-10, -22, 13, 25]],
            "Detectron on P2",
        ),
        (
            AnchorConfig(sizes=((32,),), ratios=(0.5, 1, 2), ratio="w/h"),
            4,
            [
                [-16 * math.sqrt(0.5), -16 * math.sqrt(2), 16 * math.sqrt(0.5), 16 * math.sqrt(2)],
                [-16, -16, 16, 16],
                [-16 * math.sqrt(2), -16 * math.sqrt(0.5), 16 * math.sqrt(2), 16 * math.sqrt(0.5)],
            ],
            "DetNet_pytorch reads 0.5 as tall",
        ),
        (AnchorConfig(sizes=((8,),), ratios=(1,), centre="cell"), 8, [[0, 0, 8, 8]], "centred in the cell"),
    ],
)  # fmt: skip
def test_first_cell(config: AnchorConfig, stride: int, first_cell: list[list[float]], why: str) -> None:
    anchors = AnchorGenerator(config, [Level("P", stride, 8)])([(1, 1)], torch.device("cpu"))
    torch.testing.assert_close(anchors, torch.tensor(first_cell, dtype=torch.float32), msg=why)


def test_order_is_level_y_x_anchor() -> None:
    generator = AnchorGenerator(AnchorConfig(sizes=((8,), (16,)), ratios=(1,)), [Level("a", 4, 8), Level("b", 8, 8)])
    centres = generator([(2, 3), (1, 2)], torch.device("cpu")).unflatten(1, (2, 2)).mean(1)
    expected = [[0, 0], [4, 0], [8, 0], [0, 4], [4, 4], [8, 4], [0, 0], [8, 0]]
    assert centres.tolist() == expected


def test_wrong_number_of_levels_names_them() -> None:
    with pytest.raises(InputError, match=r"5 entries but the pyramid has 1 levels \(P2\)"):
        AnchorGenerator(AnchorConfig(), P2)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_decode_undoes_encode(offset: float) -> None:
    coder = BoxCoder(weights=(10, 10, 5, 5), offset=offset, clamp=None)
    reference, boxes = random_boxes(40) + torch.tensor([0, 0, 5, 5]), random_boxes(40, seed=1)
    boxes = boxes + torch.tensor([0, 0, 3, 3])
    torch.testing.assert_close(coder.decode(reference, coder.encode(reference, boxes)), boxes, atol=1e-3, rtol=1e-4)


def test_a_decoder_may_forget_the_last_pixel() -> None:
    coder = BoxCoder(offset=1.0, decoded_end=0.0)
    box = torch.tensor([[3.0, 4, 12, 13]])
    assert coder.encode(box, box).abs().max() == 0
    assert coder.decode(box, torch.zeros(1, 4)).tolist() == [[3, 4, 13, 14]]
    assert BoxCoder(offset=1.0).decode(box, torch.zeros(1, 4)).tolist() == box.tolist()


def test_growth_is_clamped() -> None:
    box = BoxCoder().decode(torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([[0.0, 0, 50, 50]]))
    assert (box[0, 2] - box[0, 0]).item() == pytest.approx(1000, rel=1e-4)


def test_encoding_an_empty_box_is_finite() -> None:
    assert BoxCoder().encode(torch.zeros(1, 4), torch.zeros(1, 4)).isfinite().all()


TRUTH = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30]]])
USABLE = torch.tensor([[True, True]])
NO_CROWD = torch.zeros(1, 2, dtype=torch.bool)


def test_thresholds_and_the_gap_between_them() -> None:
    candidates = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 2], [50, 50, 60, 60]])
    matches = Matcher(positive=0.7, negative=0.3)(candidates, TRUTH, USABLE, NO_CROWD)
    assert matches.positive[0].tolist() == [True, False, False, False]
    assert matches.negative[0].tolist() == [False, False, True, True]  # the half overlap is ignored
    assert matches.truth[0, 0].item() == 0


def test_every_ground_truth_gets_its_best_candidates_ties_included() -> None:
    candidates = torch.tensor([[20.0, 20, 30, 25], [20, 25, 30, 30], [0, 0, 2, 2]])
    matches = Matcher(positive=0.7, negative=0.3, low_quality=True)(candidates, TRUTH, USABLE, NO_CROWD)
    assert matches.positive[0].tolist() == [True, True, True]
    assert matches.truth[0].tolist() == [1, 1, 0]


def test_best_candidates_can_need_a_least_overlap() -> None:
    """Detectron's RetinaNet makes best anchors positive from the negative threshold on, and none below it."""
    candidates = torch.tensor([[0.0, 0, 10, 4.5], [20, 20, 30, 22]])  # 0.45 and 0.2, each the best of its object
    matcher = Matcher(positive=0.5, negative=0.4, low_quality=True, low_quality_floor=0.4)
    matches = matcher(candidates, TRUTH, USABLE, NO_CROWD)
    assert matches.positive[0].tolist() == [True, False]
    assert matches.negative[0].tolist() == [False, True]


def test_a_ground_truth_that_touches_nothing_selects_nothing() -> None:
    """In other code a best IoU of 0 makes every distant candidate positive."""
    candidates = torch.tensor([[50.0, 50, 60, 60], [70, 70, 80, 80]])
    matches = Matcher(positive=0.7, negative=0.3, low_quality=True)(candidates, TRUTH, USABLE, NO_CROWD)
    assert not matches.positive.any()
    assert matches.negative.all()


@pytest.mark.parametrize("padded", [0, 3])
def test_an_image_without_objects_is_all_background(padded: int) -> None:
    no = torch.zeros(1, padded, dtype=torch.bool)
    matches = Matcher(positive=0.7, negative=0.3, low_quality=True)(random_boxes(6), torch.zeros(1, padded, 4), no, no)
    assert not matches.positive.any()
    assert matches.negative.all()


def test_padding_rows_change_nothing() -> None:
    candidates = random_boxes(200, seed=3)
    matcher = Matcher(positive=0.5, negative=0.3, low_quality=True)
    plain = matcher(candidates, TRUTH, USABLE, NO_CROWD)
    more = torch.cat([TRUTH, torch.zeros(1, 3, 4)], 1)
    flags = torch.cat([USABLE, torch.zeros(1, 3, dtype=torch.bool)], 1)
    padded = matcher(candidates, more, flags, torch.zeros(1, 5, dtype=torch.bool))
    assert torch.equal(plain.positive, padded.positive)
    assert torch.equal(plain.negative, padded.negative)
    assert torch.equal(plain.truth[plain.positive], padded.truth[padded.positive])


def test_crowd_regions_shade_negatives_and_match_nothing() -> None:
    candidates = torch.tensor([[1.0, 1, 5, 5], [8, 8, 18, 18], [0, 0, 10, 10]])
    crowd, usable = torch.tensor([[True, False]]), torch.tensor([[False, True]])
    matches = Matcher(positive=0.5, negative=0.5)(candidates, TRUTH, usable, crowd)
    assert matches.negative[0].tolist() == [False, True, False]
    assert not matches.positive.any()
    ignored = Matcher(positive=0.5, negative=0.5, crowd_ignore=None)(candidates, TRUTH, usable, crowd)
    assert ignored.negative.all()


def test_candidates_left_out_are_neither() -> None:
    candidates = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    allowed = torch.tensor([[False, False]])
    matches = Matcher(positive=0.7, negative=0.3, low_quality=True)(candidates, TRUTH, USABLE, NO_CROWD, allowed)
    assert not matches.positive.any()
    assert not matches.negative.any()


def sample(positives: int, negatives: int, total: int = 400, seed: int = 1) -> tuple[int, int]:
    matches_positive = torch.zeros(1, total, dtype=torch.bool)
    matches_positive[0, :positives] = True
    matches_negative = torch.zeros_like(matches_positive)
    matches_negative[0, positives : positives + negatives] = True
    from boxwright.anchors.matching.matcher import Matches

    matches = Matches(torch.zeros(1, total, dtype=torch.int64), matches_positive, matches_negative)
    choice = BalancedSampler(count=64, positive_fraction=0.25)(matches, torch.tensor([seed]), salt=1)
    assert choice.chosen.shape == (1, 64)
    chosen = choice.chosen[0, choice.valid[0]]
    assert len(chosen.unique()) == len(chosen), "no candidate twice"
    assert matches_positive[0, choice.chosen[0]][choice.positive[0]].all()
    assert matches_negative[0, choice.chosen[0]][choice.valid[0] & ~choice.positive[0]].all()
    return int(choice.positive.sum()), int((choice.valid & ~choice.positive).sum())


@pytest.mark.parametrize(
    ("positives", "negatives", "expected", "why"),
    [
        (5, 300, (5, 59), "few positives: negatives fill up"),
        (100, 300, (16, 48), "positives are capped at a quarter"),
        (0, 300, (0, 64), "an empty image gives negatives only"),
        (5, 10, (5, 10), "too few of both: the rest is masked"),
        (100, 0, (16, 0), "no negatives: positives keep their cap"),
        (0, 0, (0, 0), "nothing at all"),
    ],
)
def test_balanced_sampling(positives: int, negatives: int, expected: tuple[int, int], why: str) -> None:
    assert sample(positives, negatives) == expected, why


def test_noise_is_uniform_repeatable_and_different_by_seed_and_salt() -> None:
    noise = hashed_noise(torch.tensor([1, 2, 2**40 + 1]), 20000, salt=1)
    assert 0 <= noise.min() < noise.max() < 1
    assert noise.mean(1).tolist() == pytest.approx([0.5] * 3, abs=0.01)
    assert noise.std(1).tolist() == pytest.approx([12**-0.5] * 3, abs=0.01)
    assert torch.corrcoef(noise).fill_diagonal_(0).abs().max() < 0.03
    assert torch.equal(noise, hashed_noise(torch.tensor([1, 2, 2**40 + 1]), 20000, salt=1))
    other = hashed_noise(torch.tensor([1]), 20000, salt=2)
    assert torch.corrcoef(torch.cat([noise[:1], other]))[0, 1].abs() < 0.03


def test_noise_of_an_image_does_not_depend_on_its_batch() -> None:
    assert torch.equal(hashed_noise(torch.tensor([7, 8, 9]), 50, 1)[1], hashed_noise(torch.tensor([8]), 50, 1)[0])
