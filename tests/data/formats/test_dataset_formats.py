"""Recognition of formats by path, splits, and the same real data in several formats."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from boxwright.data import detect_format, open_dataset, open_splits
from boxwright.data.formats.splits import split_name
from boxwright.data.index import DetectionIndex
from boxwright.structures import InputError
from tests.support.dataset_files import coco_content, write_coco_files, write_image, write_voc_files, write_yolo_files


def test_detection(tmp_path: Path) -> None:
    write_coco_files(tmp_path / "coco")
    write_voc_files(tmp_path / "voc", {"train": ["a"]})
    write_yolo_files(tmp_path / "yolo", {"train/a": "0 0.5 0.5 0.5 0.5\n", "val/b": ""})
    for form, places in {
        "coco": ["coco", "coco/instances_train.json"],
        "voc": ["voc", "voc/Annotations"],
        "yolo": ["yolo", "yolo/data.yaml"],
    }.items():
        assert {detect_format(tmp_path / place) for place in places} == {form}


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("instances_train2017", "train"), ("instances_val", "val"), ("valid", "val"), ("Validation", "val"),
        ("train2014", "train"), ("testing", "test"), ("annotations", "all"), ("instances_default", "all"),
        ("instances_val_extra", "val_extra"), ("trainval", "trainval"), ("train_annotations", "train"),
        ("_annotations.coco", "all"), ("Night", "Night"),
    ],
)  # fmt: skip
def test_split_names(stem: str, name: str) -> None:
    assert split_name(stem) == name


def test_a_split_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    write_coco_files(tmp_path, split="train")
    write_coco_files(tmp_path, split="val")
    assert open_dataset(tmp_path, "valid").name == "val"
    with pytest.raises(InputError, match="has no split `test`; it has train, val"):
        open_dataset(tmp_path, "test")
    with pytest.raises(InputError, match="has the splits train, val; choose one"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path / "instances_val.json").name == "val"


def test_nothing_to_be_found(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"Looked for COCO JSON files.*Found nothing"):
        open_dataset(tmp_path)
    write_image(tmp_path / "images/a.png")
    (tmp_path / "detections.json").write_text('[{"image_id": 1, "bbox": [1, 2, 3, 4]}]')
    (tmp_path / "settings.yaml").write_text("lr: 0.1\n")
    with pytest.raises(InputError, match=r"Found detections\.json, images/, settings\.yaml"):
        open_dataset(tmp_path)
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(InputError, match=r"a\.csv: not a data set in a known format"):
        open_dataset(tmp_path / "a.csv")


def test_other_coco_tasks_are_passed_over(tmp_path: Path) -> None:
    write_image(tmp_path / "train2017/1.png")
    folder = tmp_path / "annotations"
    folder.mkdir()
    for name in ("instances_train2017", "captions_train2017", "person_keypoints_train2017"):
        (folder / f"{name}.json").write_text(json.dumps(coco_content(1)))
    assert list(open_splits(tmp_path)) == ["train"]
    (folder / "instances_train2014.json").write_text(json.dumps(coco_content(1)))
    assert sorted(open_splits(tmp_path)) == ["train2014", "train2017"]  # neither split may replace the other


def test_splits_must_agree_about_classes(tmp_path: Path) -> None:
    write_coco_files(tmp_path, split="train")
    content = coco_content()
    content["categories"][0]["name"] = "lion"
    write_coco_files(tmp_path, content, split="val")
    with pytest.raises(InputError, match=r"train and val have different classes \(cat, lion\)"):
        open_splits(tmp_path)
    assert len(open_dataset(tmp_path, "val")) == 2


def test_a_data_set_without_images_or_classes_is_refused(tmp_path: Path) -> None:
    content = coco_content()
    file = write_coco_files(tmp_path, content)
    file.write_text(json.dumps(content | {"images": [], "annotations": []}))
    with pytest.raises(InputError, match="split train: has no images"):
        open_dataset(file)
    file.write_text(json.dumps(content | {"categories": [], "annotations": []}))
    with pytest.raises(InputError, match="split train: has no classes"):
        open_dataset(file)


def by_name(index: DetectionIndex) -> dict[str, list[tuple[str, float, float, float, float]]]:
    """Return class names and corners of each image, sorted."""
    return {
        index.path(i).name: sorted(
            (index.classes.names[label], *map(float, box))
            for box, label in zip(index.annotations(i).boxes, index.annotations(i).labels, strict=True)
        )
        for i in range(len(index))
    }


def test_the_same_truth_in_every_form(shared_data: Path, tmp_path: Path) -> None:
    """VOC2012 as official XML, ImageNet-style XML, two COCO exports and YOLO files has equal boxes. All were exported
    with unchanged corners, so the XML is read as 0-based here."""
    folder = shared_data / "voc2012_100"
    forms = {"json": open_dataset(folder)}
    for name in ("pascalvoc_format", "imagenet_format"):
        forms[name] = open_dataset(folder / "gts" / name, voc_one_based=False)
    for name in ("coco_format_v1", "coco_format_v2"):
        forms[name] = open_dataset(folder / "gts" / name)
    labels = tmp_path / "labels"
    shutil.copytree(folder / "gts/yolo_format/obj_train_data", labels)
    (tmp_path / "images").symlink_to(folder / "images")
    names = (folder / "gts/yolo_format/obj.names").read_text().split()
    (tmp_path / "data.yaml").write_text(f"train: images\nnames: {json.dumps(names)}\n")
    forms["yolo"] = open_dataset(tmp_path)

    truth = by_name(forms.pop("json"))
    assert len(truth) == 100
    assert sum(map(len, truth.values())) == 273
    for form, index in forms.items():
        found = by_name(index)
        assert found.keys() == truth.keys(), form
        for image, rows in truth.items():
            # Six decimals of a fraction of 500 pixels: centre and size each err by half a thousandth of a pixel.
            tolerance = 1e-3 if form == "yolo" else 0
            assert len(found[image]) == len(rows), (form, image)
            for theirs, ours in zip(found[image], rows, strict=True):
                assert theirs[0] == ours[0], (form, image)
                np.testing.assert_allclose(theirs[1:], ours[1:], atol=tolerance, err_msg=f"{form} {image}")
    official = forms["pascalvoc_format"]
    assert int(official.difficult.sum()) == int(open_dataset(folder).difficult.sum()) == 38
