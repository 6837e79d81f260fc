"""Reading of images of every mode, and of damaged ones."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxwright.data.images import image_size, read_image
from boxwright.data.pixels import image_to_array, orientation
from boxwright.structures import InputError
from tests.support.dataset_files import write_image

# Stored pixels that each EXIF orientation turns into the upright image [[1, 2, 3], [4, 5, 6]].
_UPRIGHT = np.array([[10, 20, 30], [40, 50, 60]], dtype=np.uint8)
_STORED = {
    1: _UPRIGHT,
    2: _UPRIGHT[:, ::-1],
    3: _UPRIGHT[::-1, ::-1],
    4: _UPRIGHT[::-1],
    5: _UPRIGHT.T,
    6: np.rot90(_UPRIGHT, 1),
    7: _UPRIGHT[::-1, ::-1].T,
    8: np.rot90(_UPRIGHT, -1),
}


@pytest.mark.parametrize("value", _STORED)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_orientation_is_applied(tmp_path: Path, value: int, suffix: str) -> None:
    image = Image.fromarray(np.ascontiguousarray(_STORED[value]))
    exif = Image.Exif()
    exif[0x0112] = value
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    pixels = read_image(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(pixels, np.repeat(_UPRIGHT[..., None], 3, axis=2))
    assert image_size(tmp_path / f"a.{suffix}") == (2, 3)


@pytest.mark.parametrize("value", [0, 9, 65537 % 65536 + 20])
def test_impossible_orientation_is_as_if_absent(tmp_path: Path, value: int) -> None:
    image = Image.fromarray(_UPRIGHT)
    exif = Image.Exif()
    exif[0x0112] = value
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 0], _UPRIGHT)
    with Image.open(tmp_path / "a.png") as opened:
        assert orientation(opened) is None


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("LA", (100, 0), (255, 255, 255)),  # fully transparent: the white background
        ("LA", (100, 255), (100, 100, 100)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),  # a fifth of black over white
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 257 * 12, (12, 12, 12)),
    ],
)
def test_modes(tmp_path: Path, mode: str, value: int | tuple[int, ...], expected: tuple[int, int, int]) -> None:
    path = tmp_path / "a.png"
    if mode == "I;16":
        Image.fromarray(np.full((3, 4), value, dtype=np.uint16)).save(path)
    else:
        Image.new(mode, (4, 3), value).save(path)
    pixels = read_image(path)
    assert pixels.shape == (3, 4, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert (pixels == expected).all()


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png", transparency=1)
    assert read_image(tmp_path / "a.png").tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.jpg", quality=95)
    red, green, blue = read_image(tmp_path / "a.jpg")[4, 4].tolist()
    assert red < 10
    assert green > 245
    assert blue > 245


def test_float_is_stretched_and_survives_nan() -> None:
    values = np.array([[np.nan, -1.0, 0.0, 1.0]], dtype=np.float32)
    assert image_to_array(Image.fromarray(values))[0, :, 0].tolist() == [0, 0, 128, 255]


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    path = write_image(tmp_path / "clip.mp4#t=1055 ä.jpg", format="PNG")
    assert read_image(path).shape == (40, 60, 3)


@pytest.mark.parametrize("suffix", ["png", "tif", "gif"])
def test_pixel_limit_is_ours_and_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path = write_image(tmp_path / f"a.{suffix}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow would raise
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (40, 60, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(InputError, match=r"a\.\w+: 60x40 is 2,400 pixels.*limit of 2,000.*BOXWRIGHT_MAX_PIXELS"):
        read_image(path, max_pixels=2000)
    monkeypatch.setenv("BOXWRIGHT_MAX_PIXELS", "2399")
    with pytest.raises(InputError, match="2,399"):
        image_size(path)
    monkeypatch.setenv("BOXWRIGHT_MAX_PIXELS", "many")
    with pytest.raises(InputError, match="BOXWRIGHT_MAX_PIXELS=many"):
        image_size(path)


def test_errors_name_file_and_remedy(tmp_path: Path) -> None:
    whole = write_image(tmp_path / "whole.jpg", 200, 200)
    cases = {
        "cut.jpg": (whole.read_bytes()[:9000], "damaged.*truncated.*fetch it again"),
        "empty.jpg": (b"", "the file is empty"),
        "text.jpg": (b"hello" * 100, "none of the image formats"),
        "head.png": (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, r"head\.png.*(damaged|formats)"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(InputError, match=r"missing\.jpg: there is no such image"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(InputError, match="a folder"):
        read_image(tmp_path)


def test_bad_inputs(shared_data: Path) -> None:
    """Every real broken image is read correctly, or the error names its file."""
    folder = shared_data / "bad_inputs"
    shapes = {
        "BloodImage_00338.jpg": (480, 640, 3),
        "FISH0041.png": (224, 224, 3),
        "dayride_type1_001.mp4#t=1055.jpg": (720, 1280, 3),  # PNG content, RGBA
        "kangaroo_00076_exif_orientation_0.jpg": (277, 480, 3),
        "kangaroo_00103_exif_orientation_65537.jpg": (321, 480, 3),
    }
    for name, shape in shapes.items():
        assert read_image(folder / name).shape == shape
        assert image_size(folder / name) == shape[:2]
    with pytest.raises(InputError, match=r"kangaroo_00090_truncated\.jpg: the image is damaged.*fetch it again"):
        read_image(folder / "kangaroo_00090_truncated.jpg")
    assert {*shapes, "kangaroo_00090_truncated.jpg"} == {p.name for p in folder.iterdir() if p.suffix != ".xml"}
