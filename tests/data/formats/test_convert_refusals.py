"""Conversions that would displace boxes, take foreign files or write what cannot be read are refused."""

import errno
import json
import os
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image

from boxwright.cli.app import main
from boxwright.data.formats.check import check_dataset
from boxwright.data.formats.convert import convert_dataset
from boxwright.data.formats.opening import DatasetFormat, open_splits
from boxwright.structures import InputError
from tests.support.dataset_files import (
    coco_content,
    voc_xml,
    write_coco_files,
    write_image,
    write_voc_files,
    write_yolo_files,
)

FORMATS: tuple[DatasetFormat, ...] = ("coco", "voc", "yolo")


def turned_image(path: Path, orientation: int) -> None:
    """Write an image that is stored 60 wide and 40 high, and has an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    write_image(path, 40, 60, seed=orientation, exif=exif)


def stated_wrongly(folder: Path, source: str, fault: str) -> None:
    """Write a data set of a right image and of 2.png, whose annotations state a wrong size."""
    stated = {"swapped": (40, 60), "resized": (120, 80), "other": (61, 40), "turned": (60, 40)}[fault]
    if source == "coco":
        content = coco_content()
        content["images"][1] |= {"width": stated[0], "height": stated[1]}
        write_coco_files(folder, content)
        image = folder / "images/2.png"
    else:
        write_voc_files(folder, {"train": ["1", "2"]})
        (folder / "Annotations/2.xml").write_text(voc_xml("2.jpg", [("cat", 2, 3, 30, 20)], f"{stated[0]} {stated[1]}"))
        image = folder / "JPEGImages/2.jpg"
    if fault == "turned":
        turned_image(image, 6)


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("source", ["coco", "voc"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("swapped", "is 60x40 pixels but its annotations say 40x60, width and height swapped"),
        ("resized", "is 60x40 pixels but its annotations say 120x80, as if one had been resized"),
        ("other", "is 60x40 pixels but its annotations say 61x40; correct the annotations"),
        ("turned", "is 40x60 pixels but its annotations say 60x40, the size before its EXIF orientation"),
    ],
)
def test_a_wrong_size_is_refused(
    tmp_path: Path, to: DatasetFormat, source: str, fault: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stated_wrongly(tmp_path / "in", source, fault)
    images: Literal["copy", "link"]
    for images in ("copy", "link"):
        with pytest.raises(InputError) as error:
            convert_dataset(tmp_path / "in", tmp_path / "out", to, images=images)
        assert said in str(error.value)
        assert "/2.png, split train, image id 2" in str(error.value).replace("jpg", "png")
    assert main(["data", "convert", str(tmp_path / "in"), str(tmp_path / "out"), "--to", to]) == 2
    assert said in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    wrong = [p for p in check_dataset(tmp_path / "in").problems if p.kind == "wrong-size"]
    assert [said in p.message for p in wrong] == [True]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_upright_size_of_a_turned_image_is_right(tmp_path: Path, orientation: int) -> None:
    content = coco_content(1)
    upright = (40, 60) if orientation >= 5 else (60, 40)
    content["images"][0] |= {"width": upright[0], "height": upright[1]}
    turned_image(tmp_path / "in/images/1.png", orientation)
    write_coco_files(tmp_path / "in", content)
    convert_dataset(tmp_path / "in", tmp_path / "out", "yolo")
    assert open_splits(tmp_path / "out")["train"].size(0) == upright[::-1]


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", ["../secret.png", "../../secret.png", "{top}/secret.png"])
def test_a_file_name_that_leaves_the_data_set_is_refused(tmp_path: Path, to: DatasetFormat, name: str) -> None:
    content = coco_content()
    (tmp_path / "set/annotations").mkdir(parents=True)
    write_image(tmp_path / "set/images/1.png")
    write_image(tmp_path / "secret.png", seed=1)
    content["images"][1]["file_name"] = name.format(top=tmp_path)
    (tmp_path / "set/annotations/instances_train.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"secret\.png, split train, image id 2: is outside the folder.*--outside-im"):
        convert_dataset(tmp_path / "set", tmp_path / "out", to)
    assert not (tmp_path / "out").exists()
    report = convert_dataset(tmp_path / "set", tmp_path / "out", to, outside_images=True)
    assert report.splits == {"train": {"images": 2, "boxes": 2}}


def test_paths_within_the_data_set_may_have_any_form(tmp_path: Path) -> None:
    """A detour, a full path and a link to a file elsewhere stay within the folder by their names."""
    content = coco_content(3)
    write_image(tmp_path / "elsewhere/x.png", seed=3)
    write_coco_files(tmp_path / "in", content)
    (tmp_path / "in/images/3.png").unlink()
    (tmp_path / "in/images/3.png").symlink_to(tmp_path / "elsewhere/x.png")
    for entry, name in zip(
        content["images"], ("../in/images/1.png", str(tmp_path / "in/images/2.png"), "3.png"), strict=True
    ):
        entry["file_name"] = name
    (tmp_path / "in/instances_train.json").write_text(json.dumps(content))
    convert_dataset(tmp_path / "in", tmp_path / "out", "voc")
    assert sorted(p.name for p in (tmp_path / "out/JPEGImages").iterdir()) == ["1.png", "2.png", "3.png"]
    assert (tmp_path / "out/JPEGImages/3.png").read_bytes() == (tmp_path / "elsewhere/x.png").read_bytes()


def test_yolo_lists_stay_within_the_folders_that_the_yaml_names(tmp_path: Path) -> None:
    write_yolo_files(tmp_path / "in", {"train/a": "0 0.5 0.5 0.5 0.5\n", "val/b": "1 0.5 0.5 0.5 0.5\n"})
    write_image(tmp_path / "far/images/c.png", seed=8)
    yaml = "train: {}\nval: images/val\nnames: [cat, dog]\n"
    (tmp_path / "in/data.yaml").write_text(yaml.format(tmp_path / "far/images"))  # this folder is meant
    (tmp_path / "far/labels").mkdir()
    (tmp_path / "far/labels/c.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    assert convert_dataset(tmp_path / "in", tmp_path / "one", "coco").splits["train"]["boxes"] == 1
    (tmp_path / "in/data.yaml").write_text(yaml.format("train.txt"))
    (tmp_path / "in/train.txt").write_text("images/train/a.png\n../far/images/c.png\n")
    with pytest.raises(InputError, match=r"far/images/c\.png, split train, image id 2: is outside"):
        convert_dataset(tmp_path / "in", tmp_path / "two", "coco")


@pytest.mark.parametrize("to", FORMATS)
def test_what_is_no_image_is_not_copied(tmp_path: Path, to: DatasetFormat) -> None:
    write_coco_files(tmp_path / "in")
    (tmp_path / "in/images/2.png").write_text("root:x:0:0:root:/root:/bin/bash\n")
    with pytest.raises(InputError, match=r"2\.png: this is none of the image formats"):
        convert_dataset(tmp_path / "in", tmp_path / "out", to)
    assert not (tmp_path / "out").exists()


def test_a_split_without_any_labels_is_refused_except_for_test(tmp_path: Path) -> None:
    lines = {"train/a": "0 0.5 0.5 0.5 0.5\n", "val/b": "0 0.5 0.5 0.5 0.5\n", "test/c": ""}
    write_yolo_files(tmp_path / "in", lines, "train: images/train\nval: images/val\ntest: images/test\nnames: [cat]\n")
    (tmp_path / "in/labels/test/c.txt").unlink()
    said = convert_dataset(tmp_path / "in", tmp_path / "out", "coco").announcements
    assert any("none of 1 images has a label file" in line for line in said)
    (tmp_path / "in/labels/train/a.txt").unlink()
    with pytest.raises(InputError, match="split train: none of 1 images has a label file"):
        convert_dataset(tmp_path / "in", tmp_path / "new", "coco")


def test_labels_without_an_image_are_named(tmp_path: Path) -> None:
    write_yolo_files(tmp_path / "in", {"train/a": "0 0.5 0.5 0.5 0.5\n", "val/b": "0 0.5 0.5 0.5 0.5\n"})
    (tmp_path / "in/labels/train/gone.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    said = convert_dataset(tmp_path / "in", tmp_path / "out", "coco").announcements
    assert any("gone.txt" in line for line in said)


@pytest.mark.parametrize("place", ["in", "in/images/train", "in/images/train/out", "file", "nowhere", "file/below"])
def test_output_that_would_harm_is_refused(tmp_path: Path, place: str) -> None:
    write_yolo_files(tmp_path / "in", {"train/a": "0 0.5 0.5 0.5 0.5\n", "val/b": "0 0.5 0.5 0.5 0.5\n"})
    (tmp_path / "file").write_text("kept")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(InputError):
        convert_dataset(tmp_path / "in", tmp_path / place, "coco")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert (tmp_path / "nowhere").is_symlink()


def test_output_inside_the_source_leaves_it_readable(tmp_path: Path) -> None:
    write_coco_files(tmp_path / "in")
    convert_dataset(tmp_path / "in", tmp_path / "in/as_voc", "voc")
    assert {name: index.num_boxes for name, index in open_splits(tmp_path / "in").items()} == {"train": 2}
    assert open_splits(tmp_path / "in/as_voc")["train"].num_boxes == 2


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco_files(tmp_path / "in")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match="out: cannot be written: Read-only file system"):
        convert_dataset(tmp_path / "in", tmp_path / "out", "coco")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_what_is_read_again_must_be_what_was_written(tmp_path: Path) -> None:
    """Two splits that another format would read as one are refused, and nothing is kept."""
    for split in ("train2014", "train2017"):
        write_coco_files(tmp_path / "in", split=split)
    assert len(open_splits(tmp_path / "in")) == 2
    with pytest.raises(InputError, match=r"out: was not kept.*`train2014` and `train2017` are both"):
        convert_dataset(tmp_path / "in", tmp_path / "out", "yolo")
    assert not (tmp_path / "out").exists()


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    write_coco_files(tmp_path / "in")
    (tmp_path / "in/images/2.png").unlink()
    os.mkfifo(tmp_path / "in/images/2.png")
    with pytest.raises(InputError, match=r"2\.png"):
        convert_dataset(tmp_path / "in", tmp_path / "out", "coco")
    assert not (tmp_path / "out").exists()
