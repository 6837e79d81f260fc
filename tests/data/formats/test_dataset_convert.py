"""Conversions to other formats and back, with an announcement of every loss."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from boxwright.data.formats.convert import convert_dataset
from boxwright.data.formats.opening import detect_format, open_splits
from boxwright.structures import InputError
from tests.support.dataset_files import coco_content, write_coco_files, write_image, write_voc_files


@pytest.mark.parametrize("first", ["coco", "voc", "yolo"])
@pytest.mark.parametrize("second", ["coco", "voc", "yolo"])
def test_there_and_back(tmp_path: Path, first: str, second: str) -> None:
    content = coco_content(3)
    content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    for row in content["annotations"]:
        row["category_id"] = 1 + row["id"] % 2
        del row["area"]
    write_coco_files(tmp_path / "in", content, split="train")
    write_coco_files(tmp_path / "in", content, split="val")
    one = convert_dataset(tmp_path / "in", tmp_path / "one", first, voc_fractions=True)  # type: ignore[arg-type]
    two = convert_dataset(tmp_path / "one", tmp_path / "two", second, images="link", voc_fractions=True)  # type: ignore[arg-type]
    assert detect_format(tmp_path / "two") == second
    assert two.splits == {"train": {"images": 3, "boxes": 3}, "val": {"images": 3, "boxes": 3}}
    assert (one.source_format, one.format, two.source_format) == ("coco", first, first)
    # COCO and YOLO have an image folder per split, VOC has one for all, where the two 1.png need different names.
    renamed = ("3 images were renamed, because two had the same name",) if second == "voc" != first else ()
    assert (one.announcements, two.announcements) == ((), renamed)
    before, after = open_splits(tmp_path / "in"), open_splits(tmp_path / "two")
    for split in ("train", "val"):
        assert after[split].classes == before[split].classes
        for i in range(3):
            assert after[split].path(i).read_bytes() == before[split].path(i).read_bytes()
            assert after[split].size(i) == before[split].size(i)
            ours, theirs = before[split].annotations(i), after[split].annotations(i)
            np.testing.assert_allclose(theirs.boxes, ours.boxes, atol=2e-6)
            assert theirs.labels.tolist() == ours.labels.tolist()


def test_crowd_difficult_masks_and_ids(tmp_path: Path) -> None:
    content = coco_content(2)
    content["annotations"][0] |= {
        "difficult": 1,
        "segmentation": [[2, 3, 9, 3, 9, 9]],
        "bbox": [2, 3, 8.4, 6],
        "caption": "x",
    }
    content["annotations"][1] |= {"iscrowd": 1}
    write_coco_files(tmp_path / "in", content)
    said = {to: convert_dataset(tmp_path / "in", tmp_path / to, to).announcements for to in ("coco", "voc", "yolo")}  # type: ignore[arg-type]
    unread = said["coco"][0]
    assert unread.endswith("not read: `caption` of annotations")
    assert said["coco"][1:] == ("train: 1 difficult boxes have the key `difficult`, which COCO tools ignore",)
    assert said["voc"] == (
        unread,
        "train: masks are left out, VOC XML holds boxes only",
        "train: 1 crowd regions become difficult boxes",
        "train: category ids 3..7 are lost, VOC has names only",
        "train: 2 boxes were rounded to whole pixels, which moved sides by up to 0.40",
    )
    assert said["yolo"][1:4] == (
        "train: 1 crowd regions are left out, because YOLO cannot mark them",
        "train: 1 difficult boxes become ordinary ones",
        "train: boxes become those of the polygons, moving sides by up to 1.4 pixels",
    )
    kept = open_splits(tmp_path / "coco")["train"]
    assert kept.difficult.tolist() == [True, False]
    assert kept.crowd.tolist() == [False, True]
    assert kept.has_masks
    assert open_splits(tmp_path / "voc")["train"].difficult.tolist() == [True, True]


def test_bad_masks_are_left_out_only_when_asked(tmp_path: Path) -> None:
    content = coco_content(2)
    triangle = [2, 3, 9, 3, 9, 9]
    content["annotations"][0]["segmentation"] = [triangle, [2, 3, 9, 3]]
    content["annotations"][0]["bbox"] = [2, 3, 7, 6]
    content["annotations"][1]["segmentation"] = [[2, 3]]
    write_coco_files(tmp_path / "in", content)
    with pytest.raises(InputError, match=r"annotation id 1, .*convert DATA NEW --format coco --skip-bad-masks"):
        convert_dataset(tmp_path / "in", tmp_path / "out", "coco")
    assert not (tmp_path / "out").exists()
    said = convert_dataset(tmp_path / "in", tmp_path / "out", "coco", skip_bad_masks=True).announcements
    assert len(said) == 2
    assert "segmentation[1]: a polygon has 4" in said[0]
    assert "segmentation[0]: a polygon has 2" in said[1]
    assert all(line.endswith("; left out") for line in said)
    kept = open_splits(tmp_path / "out")["train"]
    assert [kept.annotations(i).segmentations for i in range(2)] == [[[triangle]], [None]]
    assert kept.num_boxes == 2


def test_images_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    content = coco_content(3)
    for entry, name in zip(content["images"], ("a/1.png", "b/1.png", "b/1.jpg"), strict=True):
        entry["file_name"] = name
        write_image(tmp_path / "in/images" / name, seed=len(name) + ord(name[0]) + ord(name[-1]))
    write_coco_files(tmp_path / "in", content)
    for to in ("voc", "yolo", "coco"):
        report = convert_dataset(tmp_path / "in", tmp_path / to, to)  # type: ignore[arg-type]
        assert "2 images were renamed, because two had the same name" in report.announcements
        before, after = open_splits(tmp_path / "in")["train"], open_splits(tmp_path / to)["train"]
        contents = {before.path(i).read_bytes(): before.annotations(i).labels.tolist() for i in range(3)}
        assert {after.path(i).read_bytes(): after.annotations(i).labels.tolist() for i in range(3)} == contents


def test_trainval_is_not_written_twice(tmp_path: Path) -> None:
    write_voc_files(tmp_path / "in", {"train": ["a"], "val": ["b"], "trainval": ["a", "b"]})
    assert list(convert_dataset(tmp_path / "in", tmp_path / "out", "coco").splits) == ["train", "val"]


def test_a_split_of_another_name_survives_yolo(tmp_path: Path) -> None:
    write_coco_files(tmp_path / "in", split="night")
    report = convert_dataset(tmp_path / "in", tmp_path / "out", "yolo")
    assert any("other YOLO tools read train, val and test only" in said for said in report.announcements)
    assert open_splits(tmp_path / "out")["night"].num_boxes == 2


def test_output_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco_files(tmp_path / "in")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(InputError, match="exists and is not empty"):
        convert_dataset(tmp_path / "in", tmp_path / "full", "voc")
    (tmp_path / "in/images/2.png").unlink()
    with pytest.raises(InputError, match=r"2\.png: there is no such image"):
        convert_dataset(tmp_path / "in", tmp_path / "out", "yolo")
    write_image(tmp_path / "in/images/2.png")

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", no_space)
    with pytest.raises(InputError, match="the disk is full"):
        convert_dataset(tmp_path / "in", tmp_path / "out", "coco")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "in"]
    monkeypatch.undo()
    (tmp_path / "out").mkdir()  # an empty folder is accepted
    convert_dataset(tmp_path / "in", tmp_path / "out", "coco")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "in", "out"]


def test_links_share_the_file(tmp_path: Path) -> None:
    write_coco_files(tmp_path / "in")
    convert_dataset(tmp_path / "in", tmp_path / "out", "voc", images="link")
    assert (tmp_path / "out/JPEGImages/1.png").samefile(tmp_path / "in/images/1.png")


@pytest.mark.parametrize(
    ("to", "images", "message"), [("csv", "copy", "coco, voc or yolo"), ("voc", "none", "copied or")]
)
def test_refusals(tmp_path: Path, to: str, images: str, message: str) -> None:
    write_coco_files(tmp_path / "in")
    with pytest.raises(InputError, match=message):
        convert_dataset(tmp_path / "in", tmp_path / "out", to, images=images)  # type: ignore[arg-type]


@pytest.mark.parametrize("to", ["voc", "yolo"])
def test_voc2012_there_and_back(shared_data: Path, tmp_path: Path, to: str) -> None:
    """The 273 real boxes are unchanged after conversion to either format and back."""
    convert_dataset(shared_data / "voc2012_100", tmp_path / "one", to, images="link")  # type: ignore[arg-type]
    convert_dataset(tmp_path / "one", tmp_path / "two", "coco", images="link")
    before, after = open_splits(shared_data / "voc2012_100")["all"], open_splits(tmp_path / "two")["all"]
    assert after.classes == before.classes
    np.testing.assert_allclose(after.xywh, before.xywh, atol=1e-6)
    assert after.labels.tolist() == before.labels.tolist()
    if to == "voc":
        assert after.difficult.tolist() == before.difficult.tolist()
