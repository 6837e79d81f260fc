"""Drawn data sets on disk are read back as they were drawn, in every format and for any number of workers."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from boxwright.data import open_dataset, open_splits, read_image
from boxwright.data.scenes import SCENE_CLASSES, SceneConfig, draw_scene, write_scenes
from boxwright.structures import InputError

SIZE = (96, 128)
COUNTS = {"train": 5, "val": 3}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_a_set_reads_back_as_it_was_drawn(format, tmp_path: Path) -> None:
    """Pixels (PNG) and labels are equal, boxes to a hundredth of a pixel, empty scenes included."""
    config = SceneConfig(size=SIZE, empty=0.4)
    folder = write_scenes(tmp_path / "set", COUNTS, seed=4, format=format, config=config, image_format="png")
    splits = open_splits(folder)
    assert {name: len(index) for name, index in splits.items()} == COUNTS
    for name, start in (("train", 0), ("val", 1_000_000)):
        index = open_dataset(folder, name)
        assert index.classes.names == SCENE_CLASSES.names
        drawn = [draw_scene(4, start + i, config=config) for i in range(len(index))]
        assert any(len(scene.boxes) == 0 for scene in drawn) or name == "val"
        for i, scene in enumerate(drawn):
            found = index.annotations(i)
            assert index.size(i) == SIZE
            assert np.array_equal(read_image(index.path(i)), scene.image)
            assert found.labels.tolist() == scene.labels.tolist()
            np.testing.assert_allclose(found.boxes, scene.boxes, atol=0.01)


def test_coco_keeps_masks_and_difficult_flags(tmp_path: Path) -> None:
    """Run lengths are the drawn pixels, and the area is that of the mask, not of the box."""
    folder = write_scenes(tmp_path / "set", {"train": 12}, SIZE, seed=8)
    index = open_dataset(folder, "train")
    for i in range(len(index)):
        scene, found = draw_scene(8, i, SIZE), index.annotations(i)
        assert found.difficult.tolist() == scene.difficult.tolist()
        assert found.area.tolist() == scene.masks.sum(axis=(1, 2)).tolist()
        assert np.array_equal(index.masks(i), scene.masks) if len(scene.boxes) else True
    assert index.num_boxes > 20


def test_workers_change_nothing(tmp_path: Path) -> None:
    """Files are equal byte by byte if drawn by two processes, and progress reaches the total."""
    steps: list[tuple[int, int]] = []
    alone = write_scenes(tmp_path / "alone", COUNTS, SIZE, progress=lambda done, total: steps.append((done, total)))
    together = write_scenes(tmp_path / "together", COUNTS, SIZE, workers=2)
    assert contents(alone) == contents(together)
    assert steps == [(i, 8) for i in range(1, 9)]
    assert sum(name.endswith(".jpg") for name in contents(alone)) == 8


def test_more_training_images_do_not_change_the_other_splits(tmp_path: Path) -> None:
    """Training sets of different sizes share the validation images."""
    few = contents(write_scenes(tmp_path / "few", {"train": 1, "val": 2}, (64, 64)))
    many = contents(write_scenes(tmp_path / "many", {"train": 3, "val": 2}, (64, 64)))
    images = [name for name in few if name.endswith(".jpg")]
    assert len(images) == 3
    assert all(few[name] == many[name] for name in images)
    assert len({many[name] for name in many if name.endswith(".jpg")}) == 5


def test_an_interrupted_drawing_leaves_nothing(tmp_path: Path) -> None:
    """A partial data set could later be mistaken for a complete one."""

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "set", COUNTS, (64, 64), progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="kills processes as POSIX does")
def test_a_killed_worker_is_told_in_a_sentence(tmp_path: Path) -> None:
    def kill(done: int, total: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(InputError, match="one of the 2 processes that draw scenes was killed or crashed"):
        write_scenes(tmp_path / "set", {"train": 200}, (64, 64), workers=2, progress=kill)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_is_left_alone(tmp_path: Path) -> None:
    """Images of an older data set would be read as part of the new one. An empty folder is accepted."""
    (tmp_path / "set").mkdir()
    write_scenes(tmp_path / "set", {"train": 1}, (64, 64))
    before = contents(tmp_path / "set")
    with pytest.raises(InputError, match="exists and is not empty"):
        write_scenes(tmp_path / "set", {"train": 1}, (64, 64))
    assert contents(tmp_path / "set") == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"counts": {"training": 3}}, "split training: .*train, val, test"),
        ({"counts": {"train": -1}}, "-1 images"),
        ({"counts": {}}, "at least one image"),
        ({"format": "tfrecord"}, "format tfrecord: .*coco, voc, yolo"),
        ({"image_format": "gif"}, "jpg or png"),
        ({"seed": -1}, "0 or more"),
        ({"size": (8, 8)}, "size = "),
    ],
)
def test_a_bad_argument_is_named_before_anything_is_drawn(arguments: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        write_scenes(tmp_path / "set", **arguments)
    assert list(tmp_path.iterdir()) == []
