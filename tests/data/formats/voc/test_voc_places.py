"""Images and XML files of VOC data sets, where people have them. All boxes are compared with what is drawn."""

import os
import unicodedata
import warnings
from pathlib import Path

import pytest

from boxwright.app.train import training_splits
from boxwright.data.formats.check import check_dataset
from boxwright.data.formats.opening import open_splits
from boxwright.structures import InputError
from tests.support.dataset_files import voc_xml, write_drawn
from tests.support.whole_sets import drawn_counts

BOX = (10, 8, 40, 32)


def write_pair(image: Path, xml: Path, box: tuple[int, int, int, int] = BOX, name: str | None = None) -> None:
    """Write an image and its XML file."""
    write_drawn(image, box)
    xml.parent.mkdir(parents=True, exist_ok=True)
    x1, y1, x2, y2 = box
    xml.write_text(voc_xml(image.name if name is None else name, [("red", x1 + 1, y1 + 1, x2, y2)]))


def counts(path: Path) -> dict[str, tuple[int, int]]:
    """Return images and boxes of each split, as drawn and read without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return drawn_counts(path)


@pytest.mark.parametrize(
    ("image", "xml"),
    [
        ("JPEGImages/a.png", "Annotations/a.xml"),
        ("jpegimages/a.png", "annotations/a.XML"),
        ("Images/a.png", "Annotation/a.xml"),
        ("img/a.png", "xmls/a.xml"),
        ("images/cam1/a.png", "annotations/cam1/a.xml"),
        ("JPEGImages/cam1/a.png", "Annotations/a.xml"),
        ("JPEGImages/a.png", "Annotations/cam1/a.xml"),
        ("a.png", "a.xml"),
        ("images/a.png", "a.xml"),
        ("a.png", "Annotations/a.xml"),
        ("VOC2012/JPEGImages/a.png", "VOC2012/Annotations/a.xml"),
        ("VOCdevkit/VOC2012/JPEGImages/a.png", "VOCdevkit/VOC2012/Annotations/a.xml"),
        ("x/y/z/images/a.png", "x/y/z/annotations/a.xml"),
    ],
)
def test_layouts(tmp_path: Path, image: str, xml: str) -> None:
    write_pair(tmp_path / image, tmp_path / xml)
    (tmp_path / xml).with_name("._a.xml").write_bytes(b"\0\5\x16\7")
    (tmp_path / image).with_name("._a.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX/a.xml").write_text("<x")
    assert counts(tmp_path) == {"all": (1, 1)}
    assert [p.kind for p in check_dataset(tmp_path).problems] == []


def test_folders_of_splits(tmp_path: Path) -> None:
    write_pair(tmp_path / "train/a.png", tmp_path / "train/a.xml")
    write_pair(tmp_path / "valid/deep/b.png", tmp_path / "valid/deep/b.xml", (20, 10, 30, 36))
    write_pair(tmp_path / "test/JPEGImages/c.png", tmp_path / "test/annotations/c.xml", (30, 10, 40, 36))
    assert counts(tmp_path) == {"train": (1, 1), "val": (1, 1), "test": (1, 1)}


def test_several_data_sets(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        write_pair(tmp_path / year / f"JPEGImages/{year}.png", tmp_path / year / f"Annotations/{year}.xml")
        (tmp_path / year / "ImageSets/Main").mkdir(parents=True)
        (tmp_path / year / "ImageSets/Main/train.txt").write_text(f"{year}\n")
        if year == "VOC2007":
            assert counts(tmp_path) == {"train": (1, 1)}
    with pytest.raises(InputError, match=r"holds VOC2007, VOC2012; give the path of one of them"):
        open_splits(tmp_path)


def test_links_are_followed(tmp_path: Path) -> None:
    root, other = tmp_path / "set", tmp_path / "elsewhere"
    write_pair(root / "JPEGImages/a.png", root / "Annotations/a.xml")
    write_pair(other / "images/b.png", other / "xml/b.xml", (20, 10, 30, 36))
    (root / "JPEGImages/cam2").symlink_to(other / "images")
    (root / "Annotations/cam2").symlink_to(other / "xml")
    (root / "Annotations/loop").symlink_to("..")
    assert counts(root) == {"all": (2, 2)}


def test_names_in_other_unicode_forms(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "café")
    decomposed = unicodedata.normalize("NFD", composed)
    write_pair(tmp_path / f"JPEGImages/{decomposed}.png", tmp_path / f"Annotations/{composed}.xml")
    write_pair(tmp_path / f"JPEGImages/{composed}2.png", tmp_path / f"Annotations/{decomposed}2.xml", (20, 10, 30, 36))
    lists = tmp_path / "ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text(f"{decomposed}\n{composed}2\n")
    assert counts(tmp_path) == {"train": (2, 2)}


def test_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    write_pair(tmp_path / "JPEGImages/a.png", tmp_path / "Annotations/a.xml", name="a.jxl")
    os.rename(tmp_path / "JPEGImages/a.png", tmp_path / "JPEGImages/a.jxl")
    (tmp_path / "JPEGImages/a.jxl").write_bytes(b"\xff\x0a")
    with pytest.raises(InputError, match=r"JPEGImages/a\.jxl, split all: JPEG XL images are not read; convert it"):
        training_splits(tmp_path)
    problems = check_dataset(tmp_path).problems
    assert [(p.kind, p.severity) for p in problems] == [("damaged-image", "error")]
    assert "JPEG XL images are not read" in problems[0].message


def test_an_image_that_is_missing(tmp_path: Path) -> None:
    write_pair(tmp_path / "JPEGImages/a.png", tmp_path / "Annotations/a.xml")
    (tmp_path / "JPEGImages/a.png").unlink()
    with pytest.raises(InputError, match=r"a\.png: the image does not exist; restore it"):
        training_splits(tmp_path)
    assert [p.kind for p in check_dataset(tmp_path).problems] == ["missing-image"]


@pytest.mark.parametrize("encoding", ["gbk", "shift_jis", "latin-1"])
@pytest.mark.parametrize("name", ["labels.txt", "ImageSets/Main/train.txt"])
def test_text_that_is_not_unicode(tmp_path: Path, encoding: str, name: str) -> None:
    write_pair(tmp_path / "JPEGImages/a.png", tmp_path / "Annotations/a.xml")
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(("é" if encoding == "latin-1" else "日本").encode(encoding) + b"\n")
    with pytest.raises(InputError, match=rf"{file.name}, line 1: byte \d is not UTF-8 text; save it as UTF-8"):
        training_splits(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_labels_in_unicode(tmp_path: Path, encoding: str) -> None:
    write_pair(tmp_path / "JPEGImages/a.png", tmp_path / "Annotations/a.xml")
    (tmp_path / "labels.txt").write_bytes("red\r\n安全帽\r\n".encode(encoding))
    assert open_splits(tmp_path)["all"].classes.names == ("red", "安全帽")
