"""Images as people give them to ``Detector.detect``, and what is none."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxwright.data.images import read_image
from boxwright.detectors.contract.detect import pixels_of
from boxwright.structures import InputError
from tests.support.heic import hide_pillow_heif, write_heic


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "1"])
def test_an_open_image_gives_the_pixels_of_its_file(tmp_path: Path, mode: str) -> None:
    """Transparent over white, 16 bits scaled and not cut off, turned by its EXIF orientation."""
    if mode == "I;16":
        image = Image.fromarray(np.linspace(0, 65535, 24).astype(np.uint16).reshape(4, 6))
    else:
        image = Image.fromarray(np.arange(96, dtype=np.uint8).reshape(4, 6, 4)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    pixels = pixels_of(Image.open(tmp_path / "a.png"))
    assert pixels.shape == (6, 4, 3)
    np.testing.assert_array_equal(pixels, read_image(tmp_path / "a.png"))


def test_heic_is_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_heic(tmp_path / "a.heic", np.full((40, 60, 3), 200, dtype=np.uint8))
    assert pixels_of(str(path)).shape == (40, 60, 3)
    hide_pillow_heif(monkeypatch)
    with pytest.raises(InputError, match=r"a\.heic: reading HEIC images needs pillow-heif; install it with"):
        pixels_of(path)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("https://example.org/bus.jpg", r"^https://example\.org/bus\.jpg: addresses .* are not read; download"),
        ("rtsp://me:word@10.0.0.1/a", r"^rtsp://me:\*\*\*@10\.0\.0\.1/a: addresses"),
        (0, r"^0: addresses \(streams, web pages, cameras\) are not read"),
        ("0", r"^0: addresses"),
        (None, "an image of type NoneType; give a path, a PIL image, an array or a tensor"),
        ("missing.jpg", "there is no such image"),
        ("a\0.jpg", r"'a\\x00\.jpg': there cannot be such a file"),
        ("clip.mp4", r"clip\.mp4: this is a video, not an image; `boxwright detect` reads videos"),
        ("a.jxl", r"a\.jxl: JPEG XL images are not read; convert it"),
        ("folder", "this is a folder, not an image"),
    ],
)
def test_what_is_no_image_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: object, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("folder")
    for name in ("clip.mp4", "a.jxl"):
        Path(name).write_bytes(b"something else" * 20)
    with pytest.raises(InputError, match=words):
        pixels_of(source)  # type: ignore[arg-type]
