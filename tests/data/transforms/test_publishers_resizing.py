"""Resizing as publishers do it: OpenCV's whole numbers, fractions of grey levels, a step of its own, half margins."""

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from boxwright.data.loading.collate import Padding, collate
from boxwright.data.transforms.configs import TransformConfig, build_transform
from boxwright.data.transforms.resizing import LetterboxConfig, ResizeConfig, WarpConfig
from boxwright.data.transforms.sample import Sample
from boxwright.detectors.contract.detect import batch_of, sample_of
from boxwright.geometry.original import in_original
from boxwright.structures import InputError
from tests.support.resizing import darknet_letterbox, opencv_resize


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def prepared(array: np.ndarray, config: TransformConfig) -> Sample:
    return build_transform((config,))(sample_of(array), Generator())


@pytest.mark.parametrize("size", [(30, 41), (75, 90), (7, 200), (13, 13), (26, 34), (1, 1)])
def test_opencvs_method_is_met_to_the_bit(size: tuple[int, int]) -> None:
    array = noise(13, 17)
    made = prepared(array, WarpConfig(size=size, interpolations=("opencv",))).image
    assert made.dtype == torch.uint8
    np.testing.assert_array_equal(made.permute(1, 2, 0).numpy(), opencv_resize(array, *size))


@pytest.mark.parametrize(("height", "width"), [(155, 231), (190, 256), (231, 155), (33, 100)])
def test_darknets_letterbox_and_its_boxes(height: int, width: int) -> None:
    array = noise(height, width)
    config = LetterboxConfig(
        size=(224, 224), fill=(127.5, 127.5, 127.5), interpolation="corners", levels="fractions", margins="halves"
    )
    sample = prepared(array, config)
    expected, inner_width, inner_height = darknet_letterbox(array, 224)
    torch.testing.assert_close(sample.image.as_subclass(Tensor) / 255, expected[0], atol=1e-4, rtol=0)
    # Darknet takes half of what is free from a box, a fraction where an odd number of pixels is free.
    box = torch.tensor([[[60.0, 100.0, 120.0, 130.0]]])
    back = in_original(box, torch.tensor([sample.to_original]), torch.tensor([[height, width]]))[0, 0]
    left, top = (224 - inner_width) / 2, (224 - inner_height) / 2
    theirs = [(60 - left) / inner_width * width, (100 - top) / inner_height * height,
              (120 - left) / inner_width * width, (130 - top) / inner_height * height]  # fmt: skip
    assert back.tolist() == pytest.approx(theirs, abs=1e-3)
    whole = prepared(array, LetterboxConfig(size=(224, 224), interpolation="corners")).to_original
    odd = (224 - inner_width) % 2 / 2, (224 - inner_height) % 2 / 2
    assert (sample.to_original[2] - whole[2], sample.to_original[3] - whole[3]) == odd


def test_a_step_of_the_scale_before_rounding() -> None:
    array = noise(181, 267)
    config = ResizeConfig(short=(420,), long=9999, interpolation="aliased", levels="fractions", sampling="scale")
    sample, scale = prepared(array, config), 420 / 181
    assert sample.size == (420, 620)
    assert sample.to_original == pytest.approx((scale, scale, 0, 0))
    x = (619 + 0.5) / scale - 0.5
    low, part = int(x), x - int(x)
    right = array[0, min(low + 1, 266)].astype(float)
    wanted = array[0, low] * (1 - part) + right * part
    assert sample.image[:, 0, 619].tolist() == pytest.approx(wanted.tolist(), abs=1e-3)
    ratio = prepared(array, ResizeConfig(short=(420,), long=9999, interpolation="aliased", levels="fractions"))
    assert ratio.to_original == pytest.approx((620 / 267, scale, 0, 0))
    assert (ratio.image - sample.image).abs().max() > 0.1


def test_fractions_stay_in_the_batch_and_whole_levels_stay_bytes() -> None:
    array = noise(20, 30)
    fractions = prepared(array, WarpConfig(size=(40, 50), interpolations=("aliased",), levels="fractions"))
    whole = prepared(array, WarpConfig(size=(40, 50), interpolations=("aliased",)))
    assert (fractions.image - whole.image.float()).abs().max() <= 1
    assert not torch.equal(fractions.image, fractions.image.round())
    for images in (batch_of([fractions], 1), collate([fractions], [0], Padding(multiple=1))[0].images):
        assert images.pixels.dtype == torch.float32
        torch.testing.assert_close(images.pixels[0], fractions.image.as_subclass(Tensor))
        assert images.scales is not None
        assert images.scales.tolist() == [pytest.approx([50 / 30, 2.0])]
    assert batch_of([whole], 1).pixels.dtype == torch.uint8


def test_methods_without_fractions_are_refused() -> None:
    for make in (
        lambda: WarpConfig(size=(9, 9), interpolations=("opencv",), levels="fractions"),
        lambda: LetterboxConfig(size=(9, 9), interpolation="nearest", levels="fractions"),
        lambda: ResizeConfig(interpolation="pillow", levels="fractions"),
    ):
        with pytest.raises(InputError, match="give one of bilinear, aliased, corners, bicubic"):
            make()
    with pytest.raises(InputError, match="sampling = 'scale' is for interpolation = 'aliased', not 'bilinear'"):
        ResizeConfig(sampling="scale")
