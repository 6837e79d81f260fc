"""The command ``boxwright demo``."""

import json
import re
import shutil
from pathlib import Path

import pytest

from boxwright.cli.app import main
from tests.support.command_line import TINY


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
