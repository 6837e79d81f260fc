"""Commands refuse bad input with a message that names the remedy."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.support.command_line import RECIPE, TINY, fails


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("data anchors SCENES", "--count"),
        ("data anchors SCENES --count 500", "different sizes: ask for 1 to"),
        ("data anchors SCENES --count 2 --split other", "has no split 'other'; it has train, val"),
        ("data anchors SCENES --count 2 --resize keep --size 9 9", "omit --size"),
        ("train faster-rcnn-detnet59-fp --data SCENES", "did you mean 'faster-rcnn-detnet59-fpn'"),
        ("train --data SCENES --budget 15", "give a time with its unit, such as 15m"),
        (f"train {RECIPE} --data nowhere", "nowhere: there is no such file or folder"),
        (f"train {RECIPE} --data SCENES --set data.batchsize=2", "did you mean 'batch_size'"),
        (f"train {RECIPE} --data SCENES --set data.batch_size=many", "data.batch_size"),
        (f"train {RECIPE} --data SCENES --set data.batch_size=0", "greater than or equal to 1"),
        (f"train {RECIPE} --data SCENES --val-split other", "has no split 'other'; it has train, val"),
        (f"train {RECIPE} --data SCENES --epochs 0", "a number above 0"),
        (f"train {RECIPE} --data SCENES --device tpu", "device 'tpu'"),
        (f"train {RECIPE} --data SCENES --output SCENES", "not empty"),
        ("evaluate --data SCENES", "give either a checkpoint or a results file"),
        ("evaluate nothing --data SCENES", "no such checkpoint"),
        ("detect nothing SCENES", "--recursive"),
        ("detect nothing SCENES --recursive", "no such checkpoint"),
        ("detect nothing nowhere.jpg", "nowhere.jpg: no such file or folder"),
        ("demo --output SCENES", "does not hold an earlier demo"),
        ("demo --images 0", "--images 0"),
        ("demo --set stages.0.lenght=3", "lenght"),
        ("demo --size 0", "--size 0"),
    ],
)
def test_refused_with_the_remedy(line: str, words: str, scenes: Path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [str(scenes) if word == "SCENES" else word for word in line.split()]
    assert words in fails(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []  # and nothing was done


def test_a_missing_split_lists_the_existing_ones(run: Path, scenes: Path, capsys: pytest.CaptureFixture[str]):
    message = fails(capsys, "evaluate", run, "--data", scenes, "--split", "test")
    assert "has no split 'test'; it has train, val; choose one with --split" in message


def test_a_truncated_checkpoint_is_named(run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    whole = (run / "best.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in (len(whole) - 1000, 4000, 5, 0):
        cut.write_bytes(whole[:length])
        for words in (["evaluate", cut, "--data", scenes], ["detect", cut, scenes, "--recursive", "--output", "out"]):
            assert f"{cut}: truncated or not a checkpoint" in fails(capsys, *words)


def test_an_unknown_file_is_no_checkpoint(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"model": torch.zeros(3)}, tmp_path / "model.pth")
    message = fails(capsys, "evaluate", tmp_path / "model.pth", "--data", scenes)
    assert "model.pth: no importer knows its layout: 1 tensors, by the first part of their names model (1)" in message


def test_classes_that_differ_are_listed(run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy = tmp_path / "copy"
    shutil.copytree(scenes, copy)
    for path in copy.rglob("*.json"):
        path.write_text(path.read_text().replace('"mug"', '"teacup"'))
    message = fails(capsys, "evaluate", run, "--data", copy)
    assert "the data lacks 'mug'" in message
    assert "the checkpoint lacks 'teacup'" in message


def coco(folder: Path, images: list[dict], annotations: list[dict]) -> Path:
    folder.mkdir(exist_ok=True)
    value = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "train.json").write_text(json.dumps(value))
    return folder


def test_a_data_set_without_images_or_boxes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = coco(tmp_path / "data", [], [])
    assert "has no images" in fails(capsys, "train", RECIPE, "--data", data, "--output", tmp_path / "run")
    Image.new("RGB", (64, 64)).save(data / "a.png")
    coco(data, [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}], [])
    message = fails(capsys, "train", RECIPE, "--data", data, "--output", tmp_path / "run")
    assert "1 images and no box" in message


def test_an_image_that_cannot_be_read_stops_training_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 30, 30], "area": 900, "iscrowd": 0}
    data = coco(tmp_path / "data", [{"id": 1, "file_name": "bad.jpg", "width": 64, "height": 64}], [box])
    (data / "bad.jpg").write_bytes(b"\xff\xd8\xff no image")
    message = fails(capsys, "train", RECIPE, "--data", data, "--output", tmp_path / "run", *TINY)
    assert "bad.jpg" in message
