"""Pages of drawn samples."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxwright.data.formats.opening import open_dataset
from boxwright.data.formats.problems import DatasetWarning
from boxwright.data.formats.show import draw_sample, show_dataset
from boxwright.data.images import read_image
from boxwright.structures import InputError
from tests.support.dataset_files import coco_content, write_coco_files


def test_page_is_self_contained_and_seeded(tmp_path: Path) -> None:
    content = coco_content(6)
    content["categories"][0]["name"] = "<b>cat</b>"
    write_coco_files(tmp_path, content)
    (tmp_path / "images/4.png").write_bytes(b"broken")
    page = show_dataset(tmp_path, tmp_path / "out/page.html", count=6)
    text = page.read_text()
    HTMLParser().feed(text)
    assert text.count("data:image/jpeg;base64,") == 5
    assert not re.search(r"(src|href)=\"?(?!data:)http", text)
    assert "<b>cat</b>" not in text
    assert "&lt;b&gt;cat&lt;/b&gt;" in text
    assert "none of the image formats" in text  # the broken image is replaced by its error
    few = [show_dataset(tmp_path, tmp_path / f"{s}.html", count=2, seed=s).read_text() for s in (0, 0, 1, 2, 3)]
    assert few[0] == few[1]
    assert len(set(few)) > 1
    assert "2 of 6 images" in few[0]


def test_sheet(tmp_path: Path) -> None:
    write_coco_files(tmp_path, coco_content(5), split="train")
    write_coco_files(tmp_path, coco_content(5), split="val")
    with Image.open(show_dataset(tmp_path, tmp_path / "sheet.png", count=2, split="val")) as sheet:
        small = sheet.size
    with Image.open(show_dataset(tmp_path, tmp_path / "all.png", count=2)) as sheet:
        assert sheet.size[0] * sheet.size[1] > 1.9 * small[0] * small[1]  # two of each split


def test_sample_has_its_boxes_drawn(tmp_path: Path) -> None:
    content = coco_content(1)
    content["annotations"][0]["segmentation"] = [[2, 3, 10, 3, 10, 20, 2, 20]]
    index = open_dataset(write_coco_files(tmp_path, content))
    drawn = np.asarray(draw_sample(index, 0))
    original = read_image(index.path(0))
    assert drawn.shape == original.shape
    assert (drawn != original).any(axis=2)[5:18, 4:9].all()  # tinted by the mask
    assert (drawn == original).all(axis=2)[:, 50:].all()  # unchanged far from the box
    assert draw_sample(index, 0, side=30).size == (30, 20)


def test_refusals(tmp_path: Path) -> None:
    write_coco_files(tmp_path)
    with pytest.raises(InputError, match=r"\.html or \.png"):
        show_dataset(tmp_path, tmp_path / "page.pdf")
    with pytest.raises(InputError, match="count 0"):
        show_dataset(tmp_path, tmp_path / "page.html", count=0)


def test_boxes_out_of_place_are_said(tmp_path: Path) -> None:
    """An image that has another size than its annotations say is marked on the page and named in a warning."""
    content = coco_content(3)
    content["images"][1] |= {"width": 40, "height": 60}
    write_coco_files(tmp_path, content)
    (tmp_path / "images/3.png").unlink()
    said = (
        "2.png: is 60x40 pixels but its annotations say 40x60, width and height swapped; correct the annotations (and 1"
    )
    with pytest.warns(DatasetWarning, match=re.escape(said)):
        text = show_dataset(tmp_path, tmp_path / "page.html").read_text()
    assert text.count('class="wrong"') == 1
    assert text.count("is 60x40 pixels but its annotations say 40x60") == 1
    with pytest.warns(DatasetWarning, match=re.escape(said)):
        show_dataset(tmp_path, tmp_path / "page.png")


def test_an_enormous_box_is_drawn_to_the_edge(tmp_path: Path) -> None:
    content = coco_content(1)
    content["annotations"][0]["bbox"] = [1, 2, 1e308, 1e200]
    index = open_dataset(write_coco_files(tmp_path, content))
    assert (np.asarray(draw_sample(index, 0)) != read_image(index.path(0))).any()
