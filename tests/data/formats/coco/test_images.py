"""The image of each entry of a COCO file: never that of another entry or another data set."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from boxwright.data.formats.check import check_dataset
from boxwright.data.formats.coco.reader import read_coco
from boxwright.data.formats.convert import convert_dataset
from boxwright.data.formats.opening import open_dataset
from boxwright.data.formats.problems import DatasetWarning
from boxwright.structures import InputError
from tests.support.dataset_files import coco_content, write_coco_files, write_image


def written(folder: Path, *names: str, file: str = "instances_train.json", **entry: Any) -> Path:
    """Write a COCO file that names images, none of which it makes."""
    content = coco_content(len(names))
    for image, name in zip(content["images"], names, strict=True):
        image |= {"file_name": name, **entry}
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("second", ["a.png", "./a.png", "sub/../a.png", "images/a.png", ".//a.png", "b.png"])
def test_two_entries_of_one_file(tmp_path: Path, second: str) -> None:
    data = tmp_path / "data"
    write_image(data / "images/a.png")
    (data / "images/sub").mkdir()
    if second == "b.png":
        os.symlink(data / "images/a.png", data / "images/b.png")
    written(data, "a.png", second)
    with pytest.raises(InputError, match=r"instances_train\.json, image ids 1 and 2: both name .*images/a\.png"):
        open_dataset(data)
    with pytest.raises(InputError, match="image ids 1 and 2"):
        convert_dataset(data, tmp_path / "out", "yolo")
    report = check_dataset(data)
    assert [(p.kind, p.place) for p in report.problems if p.severity == "error"] == [
        ("one-image-twice", "image ids 1 and 2")
    ]
    assert "duplicate-image" not in {p.kind for p in report.problems}


def test_copies_and_hard_links_are_two_images(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.png")
    os.link(tmp_path / "images/a.png", tmp_path / "images/b.png")
    shutil.copy(tmp_path / "images/a.png", tmp_path / "images/c.png")
    written(tmp_path, "a.png", "b.png", "c.png")
    assert len(open_dataset(tmp_path)) == 3
    report = check_dataset(tmp_path)
    assert report.ok
    assert [p.kind for p in report.problems if p.severity == "warning"] == ["duplicate-image"] * 2


def test_an_image_outside_does_not_replace_one_inside(tmp_path: Path) -> None:
    data = tmp_path / "set"
    write_image(data / "images/a.png")
    write_image(tmp_path / "images/b.png")  # of another data set
    write_image(tmp_path / "b.png")
    written(data, "a.png", "b.png")
    assert open_dataset(data).path(1) == data / "images/b.png"
    assert [(p.kind, p.file) for p in check_dataset(data).problems if p.severity == "error"] == [
        ("missing-image", str(data / "images/b.png"))
    ]
    (data / "images/a.png").unlink()
    write_image(tmp_path / "images/a.png")
    with pytest.warns(DatasetWarning, match=r"2 images were found outside the folder of the data set, the first: .*a"):
        assert open_dataset(data).path(0) == tmp_path / "images/a.png"


@pytest.mark.parametrize("given", ["annotations", "annotations/instances_train.json", "."])
def test_images_beside_the_folder_of_annotations_are_inside(tmp_path: Path, given: str) -> None:
    write_image(tmp_path / "train/a.png")
    written(tmp_path, "a.png", file="annotations/instances_train.json")
    assert open_dataset(tmp_path / given).path(0) == tmp_path / "train/a.png"


@pytest.mark.parametrize(
    ("names", "on_disk", "size", "found"),
    [
        (["cam1/1.png"], ["1.png"], (40, 60), True),
        (["C:\\data\\cam1\\1.png"], ["1.png"], (40, 60), True),
        (["/data/images/cam1/1.png"], ["cam1/1.png", "2.png"], (40, 60), True),  # the first folders are missing
        (["cam1/1.png"], ["1.png"], (40, 61), False),  # not the image that was annotated
        (["cam1/1.png"], ["1.png", "cam1/2.png"], (40, 60), False),  # its folder is there, and it is not in it
        (["cam1/1.png", "cam2/1.png"], ["1.png"], (40, 60), False),  # of which?
    ],
)
def test_a_name_without_its_folder(
    tmp_path: Path, names: list[str], on_disk: list[str], size: tuple[int, int], found: bool
) -> None:
    for number, name in enumerate(on_disk):
        write_image(tmp_path / "images" / name, seed=number)
    written(tmp_path, *names, height=size[0], width=size[1])
    if not found:
        assert not open_dataset(tmp_path).path(0).is_file()
        assert "missing-image" in {p.kind for p in check_dataset(tmp_path).problems}
        return
    with pytest.warns(DatasetWarning, match="1 images were found without the folder in their `file_name`"):
        assert open_dataset(tmp_path).path(0) == tmp_path / "images" / on_disk[0]


def test_one_name_in_two_folders(tmp_path: Path) -> None:
    """The folder of the split counts more than others, and the stated size more than both."""
    write_image(tmp_path / "1.png", 40, 60, seed=1)
    write_image(tmp_path / "train/1.png", 40, 60, seed=2)
    written(tmp_path, "1.png")
    with pytest.warns(DatasetWarning, match="1 images stand in two folders, and the first is taken"):
        assert open_dataset(tmp_path).path(0) == tmp_path / "train/1.png"
    write_image(tmp_path / "train/1.png", 50, 60, seed=2)
    assert open_dataset(tmp_path).path(0) == tmp_path / "1.png"


@pytest.mark.parametrize(("written_as", "stored_as"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_the_other_form_of_unicode(tmp_path: Path, written_as: str, stored_as: str) -> None:
    forms = {"NFC": "caf\u00e9.png", "NFD": "cafe\u0301.png"}
    write_image(tmp_path / "images" / forms[stored_as])
    written(tmp_path, forms[written_as])
    assert open_dataset(tmp_path).path(0).is_file()


def test_annotations_of_an_image_that_is_refused_are_no_further_defects(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.png")
    file = written(tmp_path, "a.png", "b.png")
    content = json.loads(file.read_text())
    content["images"][1]["id"] = "abc"
    content["annotations"][1]["image_id"] = "abc"
    file.write_text(json.dumps(content))
    errors = [str(p) for p in check_dataset(tmp_path).problems if p.severity == "error"]
    assert errors == [f'{file}, images[1]: needs a whole `id` of 64 bits, but it is "abc"; number the images from 1']


def test_images_without_sizes_take_one_line(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "images" / name, seed=ord(name[0]))
    written(tmp_path, "a.png", "b.png", width=None)
    lines = [p.message for p in check_dataset(tmp_path).problems if p.kind == "no-size"]
    assert lines == ["2 images have no width and height; read from the images"]


@pytest.mark.parametrize("name", ["a\ud800.png", "", " ", "a\0.png", None, 7])
def test_names_that_no_file_can_have(tmp_path: Path, name: object) -> None:
    content = coco_content(2)
    file = write_coco_files(tmp_path, content)
    content["images"][1]["file_name"] = name
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"images\[1\]: .*`file_name`"):
        read_coco(file)
    assert [p.kind for p in check_dataset(file).problems if p.severity == "error"] == ["bad-image-entry"]


@pytest.mark.parametrize("folder", ["Images", "IMAGES/Train", "Train", "images/TRAIN", "JpegImages"])
def test_folders_of_images_in_any_case(tmp_path: Path, folder: str) -> None:
    image = write_image(tmp_path / folder / "a.png")
    written(tmp_path / "Annotations", "a.png", file="Instances_Train.json")
    assert open_dataset(tmp_path, "train").path(0) == image


def test_the_folder_as_it_is_written_goes_first(tmp_path: Path) -> None:
    image = write_image(tmp_path / "images/a.png")
    if (tmp_path / "Images").exists():
        pytest.skip("names do not differ in case here")
    write_image(tmp_path / "Images/a.png", seed=1)
    written(tmp_path / "annotations", "a.png")
    assert open_dataset(tmp_path, "train").path(0) == image
