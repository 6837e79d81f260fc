"""R-CNN, Fast R-CNN and Mask R-CNN on the command line: refusals before training, and detection."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from boxwright.cli.app import main
from boxwright.data.formats.coco.writer import write_coco
from boxwright.data.formats.opening import open_dataset
from boxwright.data.scenes import SceneConfig, write_scenes
from tests.support.toys import save_proposals, toy_index


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO data set of six training and two validation images, with a proposal file for each split."""
    folder = tmp_path_factory.mktemp("data")
    index, val = toy_index(folder / "a", 6), toy_index(folder / "b", 2, seed=1)
    write_coco(folder / "coco", {"train": index, "val": val})
    for split in ("train", "val"):
        save_proposals(open_dataset(folder / "coco", split), folder / f"{split}.safetensors")
    return folder


def refusal(capsys: pytest.CaptureFixture[str], recipe: str, data: Path, output: Path, **files: Path) -> str:
    """Run a training that must be refused, and return its one-line error."""
    sets = [word for split, file in files.items() for word in ("--set", f'data.proposals.{split}="{file}"')]
    words = ["train", recipe, "--data", str(data), "--output", str(output), "--device", "cpu"]
    assert main([*words, "--set", "data.workers=0", *sets]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert not output.exists()
    return lines[0]


@pytest.mark.parametrize("recipe", ["rcnn-small", "fast-rcnn-small"])
def test_proposals_of_other_images(recipe: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    val = data / "val.safetensors"
    message = refusal(capsys, recipe, data / "coco", tmp_path / "run", train=val, val=val)
    assert f"{val}: holds proposals of 2 images, but 6 of the 6 images" in message
    assert "such as train/" in message
    assert "with `boxwright proposals --data " in message
    assert " --split train --output FILE.safetensors`" in message


def test_no_proposals(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, "rcnn-small", data / "coco", tmp_path / "run", train=data / "train.safetensors")
    assert f"boxwright proposals --data {data / 'coco'} --split val --output FILE.safetensors`" in message
    assert """--set 'data.proposals.val="FILE.safetensors"'""" in message


def test_a_path_without_quotes(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "rcnn-small", "--data", str(data / "coco"), "--output", str(tmp_path / "run")]
    assert main([*words, "--set", "data.proposals.train=/data/train.safetensors"]) == 2
    message = capsys.readouterr().err
    assert """that the shell leaves in place: --set 'data.proposals.train="TEXT"'\n""" in message


@pytest.mark.parametrize("recipe", ["rcnn-small", "fast-rcnn-small"])
def test_proposals_outside_the_image(
    recipe: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.safetensors"
    with safe_open(data / "train.safetensors", framework="numpy") as file:
        tensors, header = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    tensors["boxes"][3] = np.array([1, 1, 400, 9], np.float32)
    save_file(tensors, broken, metadata=header)
    message = refusal(capsys, recipe, data / "coco", tmp_path / "run", train=broken, val=data / "val.safetensors")
    assert (
        f"{broken}: proposal 3 of train/0_0.png (32 x 24 pixels), x1 y1 x2 y2 = 1, 1, 400, 9, lies outside" in message
    )


def test_masks_of_a_data_set_without_any(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, "mask-rcnn-small", data / "coco", tmp_path / "run")
    assert str(data / "coco") in message
    assert "masks are needed" in message


def test_objects_without_masks_among_others_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = SceneConfig(size=(96, 128), objects=(2, 3), empty=0, smallest=16, common=(0.25, 0.5), hidden=0.3)
    scenes = write_scenes(tmp_path / "scenes", {"train": 4, "val": 2}, seed=1, config=config)
    gone = {}
    for split in ("train", "val"):
        (file,) = scenes.rglob(f"*{split}*.json")
        tree = json.loads(file.read_text())
        del tree["annotations"][1]["segmentation"]
        file.write_text(json.dumps(tree))
        gone[split] = f"1 of {len(tree['annotations'])} objects have no mask, such as annotation id"
        gone[split] += f" {tree['annotations'][1]['id']} of "
    run = tmp_path / "run"
    small = ["stages.0.length=1", "stages.0.unit=steps", "data.workers=0", "data.batch_size=2"]
    small += ["data.train.0.size=[64,64]", "data.eval.0.size=[64,64]", "detector.backbone.width=8"]
    sets = [word for text in small for word in ("--set", text)]
    words = ["train", "mask-rcnn-small", "--data", str(scenes), "--output", str(run), "--device", "cpu"]
    assert main([*words, *sets]) == 0
    captured = capsys.readouterr()
    printed = captured.out + captured.err
    assert f"WARNING: {gone['train']}" in printed
    assert "they are learned as filling their boxes" in printed
    assert f"WARNING: {gone['val']}" in printed
    words = ["evaluate", str(run), "--data", str(scenes), "--device", "cpu"]
    assert main(words) == 0
    assert f"Masks are not evaluated: {gone['val']}" in capsys.readouterr().out.replace("\n", " ")
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["masks_unscored"].startswith(gone["val"])
    assert "masks" not in found
    assert main(["data", "check", str(scenes)]) == 0
    assert gone["train"] in capsys.readouterr().out.replace("\n", " ")


def test_an_svm_without_positives(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn.svm", reason="the extra `rcnn` is not installed")
    names = tmp_path / "more/annotations"
    names.mkdir(parents=True)
    for split in ("train", "val"):
        file = data / f"coco/annotations/instances_{split}.json"
        text = file.read_text().replace('"categories":[', '"categories":[{"id":99,"name":"absent"},')
        (names / file.name).write_text(text)
        (tmp_path / "more" / split).symlink_to(data / "coco" / split)
        save_proposals(open_dataset(tmp_path / "more", split), tmp_path / f"{split}.safetensors")
    files = {split: tmp_path / f"{split}.safetensors" for split in ("train", "val")}
    message = refusal(capsys, "rcnn-small", tmp_path / "more", tmp_path / "run", **files)
    assert "class 'absent' has no object in the training set" in message
    assert "take the class out" in message


def test_rcnn_searches_proposals_to_detect(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Detect on images without precomputed proposals: with selective search, or an error without OpenCV."""
    pytest.importorskip("cv2", reason="the extra `selective-search` is not installed")
    files = [f'data.proposals.{split}="{data / split}.safetensors"' for split in ("train", "val")]
    small = ["data.workers=0", "detector.backbone.width=8", "detector.warp.size=32", "detector.layers.hidden=[16,16]"]
    small += ["data.train.0.short=[48]", "data.train.0.long=64", "data.eval.0.short=[48]", "data.eval.0.long=64"]
    sets = [word for text in [*small, *files, "data.proposals.most=16"] for word in ("--set", text)]
    run, images = tmp_path / "run", data / "coco/val"
    words = ["train", "rcnn-small", "--data", str(data / "coco"), "--output", str(run), "--device", "cpu"]
    assert main([*words, "--epochs", "1", *sets]) == 0
    detect = ["detect", str(run), str(images), "--device", "cpu", "--threshold", "0", "--output"]
    capsys.readouterr()
    assert main([*detect, str(tmp_path / "found"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["failed"]) == (2, [])
    assert found["detections"] > 0
    real = importlib.import_module

    def without_opencv(name: str, *more: str) -> object:
        return real("no_such_module" if name == "cv2" else name, *more)

    monkeypatch.setattr(importlib, "import_module", without_opencv)
    assert main([*detect, str(tmp_path / "none")]) == 2
    assert "`pip install 'boxwright[selective-search]'`" in capsys.readouterr().err.strip().splitlines()[-1]
