"""Mixup: pixels are weighted means, the objects of both images stay, and the weight follows a beta distribution."""

import pytest
import torch
from torch import Generator

from boxwright.data.transforms.configs import FlipConfig, LetterboxConfig, MixupConfig, Sample, build_transform
from boxwright.data.transforms.mixing.mixup import mixup, symmetric_beta
from boxwright.data.transforms.sample import flipped
from tests.support.tiny_index import generator, painted


class One:
    """A data set of one image, wider and lower than the others."""

    def __len__(self) -> int:
        return 1

    def __call__(self, index: int, /) -> Sample:
        return painted([[0, 0, 40, 20]], 40, 120, labels=[2])


def test_a_blend_is_the_weighted_mean_and_keeps_all_objects() -> None:
    first, other = painted([[10, 10, 50, 50]], 60, 120), painted([[0, 0, 40, 20]], 40, 60, labels=[2])
    after = mixup(first, MixupConfig(p=1.0), generator(4), lambda: other)
    draws = generator(4)
    torch.rand((), generator=draws, dtype=torch.float64)  # the chance
    weight = symmetric_beta(draws, 1.5)
    assert 0.1 < weight < 0.9
    assert after.size == (60, 120)
    assert after.boxes.tolist() == [[10, 10, 50, 50], [0, 0, 40, 20]]
    assert after.labels.tolist() == [0, 2]
    assert after.crowd.tolist() == [False, False]
    assert after.masks is not None
    assert after.masks.flatten(1).sum(1).tolist() == [40 * 40, 40 * 20]
    red, blue = 255 * weight, 255 * (1 - weight)
    for (y, x), colour in {
        (15, 20): (red, 0, blue),  # both objects
        (15, 45): (red, 0, 0),  # the first alone, under the other image
        (45, 20): (255, 0, 0),  # below the other image
        (15, 110): (0, 0, 0),  # beside it
    }.items():
        torch.testing.assert_close(
            after.image[:, y, x].float(), torch.tensor(colour, dtype=torch.float32), atol=0.51, rtol=0
        )
    assert after.to_original[0] != after.to_original[0]  # no way back


def test_the_other_image_goes_through_the_transforms_before() -> None:
    transform = build_transform([LetterboxConfig(size=(60, 60)), FlipConfig(p=1.0), MixupConfig(p=1.0)], fetch=One())
    after = transform(painted([[0, 0, 90, 60]]), generator())
    assert after.size == (60, 60)
    assert after.boxes[1].tolist() == [40, 20, 60, 30]  # 120 x 40 becomes 60 x 20 with 20 above; then mirrored


def test_a_larger_image_is_shrunk_into_the_canvas() -> None:
    after = mixup(painted([], 30, 60), MixupConfig(p=1.0), generator(), lambda: One()(0))
    assert after.size == (30, 60)
    assert after.boxes.tolist() == [[0, 0, 20, 10]]  # 120 x 40 becomes 60 x 20


def test_an_image_without_objects_leaves_those_of_the_other() -> None:
    after = mixup(painted([]), MixupConfig(p=1.0), generator(), lambda: flipped(One()(0)))
    assert after.labels.tolist() == [2]
    assert len(mixup(painted([]), MixupConfig(p=1.0), generator(), lambda: painted([]))) == 0
    assert mixup(first := painted([]), MixupConfig(p=0.0), generator(), lambda: painted([])) is first


@pytest.mark.parametrize("alpha", [0.6, 1.0, 1.5, 32.0])
def test_the_weight_has_the_moments_of_the_beta_distribution(alpha: float) -> None:
    draws = Generator().manual_seed(1)
    values = torch.tensor([symmetric_beta(draws, alpha) for _ in range(20_000)], dtype=torch.float64)
    variance = 1 / (4 * (2 * alpha + 1))
    fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))  # fourth central moment
    assert values.mean().item() == pytest.approx(0.5, abs=4 * (variance / 20_000) ** 0.5)
    assert values.var().item() == pytest.approx(variance, rel=0.03)
    assert (values - 0.5).pow(4).mean().item() == pytest.approx(fourth, rel=0.06)
