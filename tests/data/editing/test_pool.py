"""Splits put together: every image once, with its own objects."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from boxwright.data.editing.pool import join_indexes, pool_splits
from boxwright.data.formats.opening import open_splits
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.masks.masks import Segmentation
from boxwright.structures import Classes, InputError
from tests.support.dataset_files import write_voc_files
from tests.support.split_sets import many, write_labelled

CLASSES = Classes.from_names(["ant", "bee", "cow"])


def index_of(root: Path, ids: list[int], masks: bool = False) -> DetectionIndex:
    """Images of one box each, a bee of which even ids are crowds."""
    square: list[Segmentation | None] = [[[1.0, 1, 5, 1, 5, 5, 1, 5]]]
    records = [
        ImageRecord(
            path=root / f"{number}.png",
            image_id=number,
            height=40,
            width=60,
            boxes=[[1, 1, 5, 5 + number]],
            labels=[1],
            crowd=[number % 2 == 0],
            segmentations=square if masks else None,
        )
        for number in ids
    ]
    return DetectionIndex.build(CLASSES, records, root=root, name=root.name)


def rows(index: DetectionIndex) -> list[tuple[Path, list[list[float]], list[bool], object]]:
    found = [index.annotations(i) for i in range(len(index))]
    return [(index.path(i), a.boxes.tolist(), a.crowd.tolist(), a.segmentations) for i, a in enumerate(found)]


def test_indexes_of_several_folders_are_joined(tmp_path: Path) -> None:
    parts = [index_of(tmp_path / "a", [3, 1]), index_of(tmp_path / "b", []), index_of(tmp_path / "c", [4])]
    joined = join_indexes(parts)
    assert rows(joined) == [row for part in parts for row in rows(part)]
    assert joined.image_ids.tolist() == [3, 1, 4]  # none repeats, so they stay
    assert joined.root == tmp_path / "a"
    assert join_indexes(parts[:1]) is parts[0]


def test_masks_and_none_are_joined(tmp_path: Path) -> None:
    parts = [index_of(tmp_path / "a", [1]), index_of(tmp_path / "a", [2, 3], masks=True)]
    joined = join_indexes(parts)
    assert [row[3] for row in rows(joined)] == [[None], *(row[3] for row in rows(parts[1]))]
    assert joined.with_mask.tolist() == [False, True, True]


def test_ids_that_repeat_are_numbered_anew(tmp_path: Path) -> None:
    splits = {"train": index_of(tmp_path / "a", [5, 2]), "val": index_of(tmp_path / "b", [2, 1])}
    pooled, owner, notes = pool_splits(splits)
    assert pooled.image_ids.tolist() == [1, 2, 3, 4]
    assert pooled.annotation_ids.tolist() == [1, 2, 3, 4]
    assert owner.tolist() == [0, 0, 1, 1]
    assert notes == ["ids repeat between the splits, so images and objects are numbered anew"]


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_splits_of_every_format_are_pooled(tmp_path: Path, format: str) -> None:
    content = many(9)
    shares = {"train": dict(list(content.items())[:6]), "val": dict(list(content.items())[6:])}
    splits = open_splits(write_labelled(tmp_path / "data", shares, format))
    pooled, owner, _ = pool_splits(splits)
    names = [CLASSES.names[label] for label in pooled.labels]
    assert names == [label for labels in content.values() for label in labels]
    assert [pooled.path(i).name for i in range(9)] == list(content)
    assert all(pooled.path(i).is_file() for i in range(9))
    assert owner.tolist() == [0] * 6 + [1] * 3
    assert len(np.unique(pooled.image_ids)) == 9


def test_an_image_of_two_splits_is_taken_once(tmp_path: Path) -> None:
    data = write_voc_files(tmp_path / "data", {"train": ["a", "b", "c"], "val": ["c", "d", "a"]})
    pooled, owner, notes = pool_splits(open_splits(data))
    assert [pooled.path(i).stem for i in range(len(pooled))] == ["a", "b", "c", "d"]
    assert owner.tolist() == [0, 0, 0, 1]
    assert notes[-1] == "2 images were in two splits (such as c.jpg) and are taken once"


def test_an_image_with_other_objects_in_another_split_is_refused(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "data", {"train": many(3), "val": {"x.png": ["bee"]}})
    file = data / "annotations/instances_val.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = "train/00.png"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        pool_splits(open_splits(data))
    assert "00.png: is in the splits train and val with different objects; remove one" in str(caught.value)


def test_splits_of_different_classes_are_refused(tmp_path: Path) -> None:
    other = DetectionIndex.build(Classes.from_names(["ant"]), [], root=tmp_path, name="val")
    with pytest.raises(InputError, match="the splits have different classes"):
        pool_splits({"train": index_of(tmp_path, [1]), "val": other})
