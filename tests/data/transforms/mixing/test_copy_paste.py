"""Copy-paste: pixels, masks and boxes of what is pasted and of what it covers, and objects without masks."""

from dataclasses import replace

import pytest
import torch

from boxwright.data.transforms.configs import CopyPasteConfig, Sample
from boxwright.data.transforms.mixing.copy_paste import copy_paste
from boxwright.data.transforms.sample import mask_bounds
from boxwright.structures import InputError
from tests.support.tiny_index import generator, painted

EXACT = CopyPasteConfig(p=1.0, scale=(1.0, 1.0), flip=0.0)
"""At a factor of 1 an image of the same size has one position only."""


def other(boxes: list[list[int]], labels: list[int]) -> Sample:
    return painted(boxes, labels=labels)


def test_a_pasted_object_covers_what_lies_below() -> None:
    before = painted([[10, 10, 50, 30], [60, 40, 80, 50]], labels=[0, 0])
    kept = before.image.clone()
    after = copy_paste(before, EXACT, generator(), lambda: other([[30, 0, 90, 30]], [2]))
    assert after.boxes.tolist() == [[10, 10, 30, 30], [60, 40, 80, 50], [30, 0, 90, 30]]
    assert after.labels.tolist() == [0, 0, 2]
    assert after.difficult.tolist() == [False, False, True]
    assert after.masks is not None
    assert torch.equal(mask_bounds(after.masks), after.boxes)
    assert after.masks.flatten(1).sum(1).tolist() == [20 * 20, 20 * 10, 60 * 30]
    assert after.image[:, 15, 20].tolist() == [255, 0, 0]
    assert after.image[:, 15, 40].tolist() == [0, 0, 255]
    assert torch.equal(before.image, kept)


def test_only_the_mask_is_pasted_and_only_its_pixels_cover() -> None:
    source = other([[0, 0, 60, 60]], [2])
    assert source.masks is not None
    source.masks[0, 20:, 20:] = False  # an L
    before = painted([[30, 30, 50, 50], [10, 40, 40, 60]], labels=[0, 0])
    after = copy_paste(before, EXACT, generator(), lambda: source)
    assert after.boxes.tolist() == [[30, 30, 50, 50], [20, 40, 40, 60], [0, 0, 60, 60]]
    assert after.image[:, 40, 40].tolist() == [255, 0, 0]  # the black inside of the L does not cover
    assert after.image[:, 55, 12].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("box", "min_visible", "labels", "why"),
    [
        ([0, 0, 40, 60], 0.0, [2], "nothing is left"),
        ([10, 0, 40, 60], 0.0, [0, 2], "a fifth is left, and no part is demanded"),
        ([10, 0, 40, 60], 0.3, [2], "a fifth is less than 0.3"),
    ],
)
def test_a_covered_object_is_dropped_if_too_little_is_left(
    box: list[int], min_visible: float, labels: list[int], why: str
) -> None:
    before = painted([[5, 10, 30, 30]], labels=[0])
    after = copy_paste(before, replace(EXACT, min_visible=min_visible), generator(), lambda: other([box], [2]))
    assert after.labels.tolist() == labels, why


def test_a_crowd_stays_while_anything_is_left_and_is_never_pasted() -> None:
    before = painted([[0, 0, 40, 40]], labels=[1])
    after = copy_paste(before, replace(EXACT, min_visible=0.9), generator(), lambda: other([[3, 0, 90, 60]], [2]))
    assert after.labels.tolist() == [1, 2]
    assert copy_paste(before, EXACT, generator(), lambda: other([[3, 0, 90, 60]], [3])) is before


def test_a_random_number_of_objects_is_pasted_at_random_scales_and_places() -> None:
    boxes = [[4 * k, 4 * k, 4 * k + 8, 4 * k + 8] for k in range(10)]
    config = CopyPasteConfig(p=1.0, most=4, scale=(0.5, 2.0), flip=0.5, min_visible=0, min_size=0)
    many = [copy_paste(painted([]), config, generator(seed), lambda: other(boxes, [2] * 10)) for seed in range(60)]
    assert {len(sample) for sample in many} == {0, 1, 2, 3, 4} or {len(sample) for sample in many} == {1, 2, 3, 4}
    sides = torch.cat([sample.boxes[:, 2] - sample.boxes[:, 0] for sample in many])
    assert float(sides.min()) < 6
    assert 14 < float(sides.max()) <= 17
    for sample in many:
        assert sample.masks is not None
        torch.testing.assert_close(mask_bounds(sample.masks), sample.boxes, atol=1.01, rtol=0)


def test_objects_without_a_mask_are_skipped_unless_boxes_may_be_pasted() -> None:
    source = replace(other([[0, 0, 10, 10], [20, 0, 40, 10]], [0, 2]), with_mask=torch.tensor([False, True]))
    before = replace(painted([]), with_mask=torch.zeros(0, dtype=torch.bool))
    seen = [copy_paste(before, EXACT, generator(seed), lambda: source) for seed in range(10)]
    assert all(sample.labels.tolist() == [2] for sample in seen)
    assert all(sample.with_mask.tolist() == [True] for sample in seen)  # type: ignore[union-attr]
    config = replace(EXACT, without_masks="boxes")
    assert any(len(copy_paste(before, config, generator(seed), lambda: source)) == 2 for seed in range(10))


def test_images_of_boxes_alone_are_refused_or_pasted_as_boxes() -> None:
    before = replace(painted([[10, 10, 50, 30]]), masks=None)
    source = replace(other([[30, 0, 90, 60]], [2]), masks=None)
    with pytest.raises(InputError, match=r'needs masks.*without_masks = "boxes"'):
        copy_paste(before, EXACT, generator(), lambda: source)
    after = copy_paste(before, replace(EXACT, without_masks="boxes"), generator(), lambda: source)
    assert after.masks is None
    assert after.boxes.tolist() == [[10, 10, 30, 30], [30, 0, 90, 60]]
    assert after.image[:, 50, 60].tolist() == [0, 0, 255]
