"""HEIC images, read where pillow-heif is installed, and other images that are known by name but not read."""

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxwright.data.images import image_header, image_size, is_image_name, read_image, unreadable_reason
from boxwright.structures import InputError
from tests.support.heic import hide_pillow_heif, write_heic


def scene() -> np.ndarray:
    """A red rectangle x 20..60, y 10..50 in a grey image of 96x64."""
    pixels = np.full((64, 96, 3), 200, dtype=np.uint8)
    pixels[10:50, 20:60] = (220, 30, 30)
    return pixels


def red_box(pixels: np.ndarray) -> list[int]:
    rows, columns = np.nonzero((pixels[..., 0] > 180) & (pixels[..., 1] < 100))
    return [int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


@pytest.mark.parametrize(
    ("orientation", "size", "box"),
    [
        (1, (64, 96), [20, 10, 60, 50]),
        (2, (64, 96), [36, 10, 76, 50]),
        (3, (64, 96), [36, 14, 76, 54]),
        (4, (64, 96), [20, 14, 60, 54]),
        (5, (96, 64), [10, 20, 50, 60]),
        (6, (96, 64), [14, 20, 54, 60]),
        (7, (96, 64), [14, 36, 54, 76]),
        (8, (96, 64), [10, 36, 50, 76]),
    ],
)
def test_heic_is_turned_once(tmp_path: Path, orientation: int, size: tuple[int, int], box: list[int]) -> None:
    path = write_heic(tmp_path / "IMG_0001.HEIC", scene(), orientation)
    assert is_image_name(path)
    assert unreadable_reason(path) is None
    assert image_size(path) == size
    assert image_header(path) == ("HEIF", 1)
    pixels = read_image(path)
    assert pixels.shape[:2] == size
    assert red_box(pixels) == box


def test_another_process_reads_heic(tmp_path: Path) -> None:
    """A started worker has to make pillow-heif known to its own Pillow."""
    path = write_heic(tmp_path / "a.heic", scene())
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert red_box(pool.submit(read_image, path).result()) == [20, 10, 60, 50]


def test_a_heic_file_under_the_name_of_a_jpeg_is_read(tmp_path: Path) -> None:
    path = write_heic(tmp_path / "a.heic", scene()).rename(tmp_path / "a.jpg")
    assert red_box(read_image(path)) == [20, 10, 60, 50]


def test_a_cut_heic_file_is_damaged(tmp_path: Path) -> None:
    path = write_heic(tmp_path / "a.heic", scene())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"a\.heic: the image('s header)? is damaged"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.heic", "A.HEIF", "a.hif", "a.jpg"])
def test_without_pillow_heif_the_message_has_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write_heic(tmp_path / "made.heic", scene()).rename(tmp_path / name)
    hide_pillow_heif(monkeypatch)
    assert is_image_name(path) == (name == "a.jpg")
    assert (unreadable_reason(path) is None) == (name == "a.jpg")
    for read in (read_image, image_size):
        with pytest.raises(InputError) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path}: reading HEIC images needs pillow-heif; install it with: pip install 'boxwright[heic]'"
        )


class Hook:
    """Forbids to find pillow-heif."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pillow_heif":
            raise ImportError("forbidden")


@pytest.mark.parametrize("way", ["hook", "broken"])
def test_a_pillow_heif_that_does_not_load_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    path = write_heic(tmp_path / "a.heic", scene())
    hide_pillow_heif(monkeypatch)
    monkeypatch.delitem(sys.modules, "pillow_heif")
    if way == "hook":
        monkeypatch.setattr(sys, "meta_path", [Hook(), *sys.meta_path])
    else:
        (tmp_path / "pillow_heif.py").write_text("raise ImportError('libheif.so is not there')")
        monkeypatch.syspath_prepend(tmp_path)
    assert is_image_name(path) == (way == "broken")
    with pytest.raises(
        InputError, match=r"needs pillow-heif; install it with: pip install 'boxwright\[heic\]'"
    ) as caught:
        read_image(path)
    assert ("(it fails to load: libheif.so is not there)" in str(caught.value)) == (way == "broken")


def test_reading_other_images_does_not_load_pillow_heif(tmp_path: Path) -> None:
    Image.fromarray(scene()).save(tmp_path / "a.png")
    code = (
        "import sys; from boxwright.data.images import is_image_name, read_image\n"
        f"assert is_image_name('a.heic'); read_image({str(tmp_path / 'a.png')!r})\n"
        "assert 'pillow_heif' not in sys.modules and 'torch' not in sys.modules"
    )
    pytest.importorskip("pillow_heif")
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- other formats -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.jxl", "JPEG XL images are not read; convert it to PNG or JPEG"),
        ("a.DNG", "camera raw files are not read; convert it to PNG or JPEG"),
        ("a.cr2", "camera raw files"),
        ("a.NEF", "camera raw files"),
        ("a.arw", "camera raw files"),
        ("a.raw", "camera raw files"),
        ("a.svg", "SVG drawings"),
        ("a.psd", "Photoshop files"),
        ("a.exr", "OpenEXR images"),
        ("a.dcm", "DICOM files"),
    ],
)
def test_images_that_are_not_read_are_known_by_name(tmp_path: Path, name: str, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"something that Pillow does not know" * 9)
    assert not is_image_name(path)
    assert words in (unreadable_reason(path) or "")
    with pytest.raises(InputError, match=rf"{name}: {words}"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.jpg", "a.PNG", "a.webp", "notes.heic.txt"])
def test_other_names_are_no_unreadable_images(name: str) -> None:
    assert unreadable_reason(name) is None


def test_the_preview_in_a_camera_raw_file_is_not_read_as_the_image(tmp_path: Path) -> None:
    """A DNG is a TIFF whose first image is a preview of some hundred pixels."""
    path = tmp_path / "a.dng"
    Image.fromarray(scene()).save(path, format="TIFF")
    with pytest.raises(InputError, match="camera raw files are not read"):
        read_image(path)
    Image.fromarray(scene()).save(path, format="PNG")  # a wrong suffix alone is no reason
    assert red_box(read_image(path)) == [20, 10, 60, 50]


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    """Opening one would wait for a writer for ever."""
    import os

    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg: this is a pipe or device, not an image file"):
        read_image(tmp_path / "a.jpg")
