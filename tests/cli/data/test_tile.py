"""The command ``boxwright data tile``."""

from pathlib import Path

import pytest

from boxwright.cli.app import main
from tests.support.command_line import fails, json_output
from tests.support.drawn_sets import write_set

SPLITS = {"train": {"a.png": [("red", 5, 4, 25, 30), ("green", 70, 40, 110, 62)]}}


def test_tile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_set(tmp_path / "in", "coco", SPLITS, size=(200, 150))
    words = ["data", "tile", str(data), "--output", str(tmp_path / "out"), "--size", "64", "--overlap", "0"]
    assert main([*words, "--dry-run"]) == 0
    assert "nothing was written (--dry-run)" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main([*words, "--format", "yolo"]) == 0
    said = capsys.readouterr().out
    assert "train: 1 images become 2, 2 boxes become 2, 0 of them cut" in said
    assert r"pattern '(.+)_x\d+_y\d+'" in said
    names = sorted(path.name for path in (tmp_path / "out/images/train").iterdir())
    assert names == ["a_x0_y0.png", "a_x64_y0.png"]
    words = ["data", "tile", data, "--output", tmp_path / "j", "--size", 64, "--json"]
    report = json_output(capsys, *words)
    assert isinstance(report, dict)
    assert report["splits"]["train"]["boxes_before"] == 2
    for option, value in (("--size", 0), ("--overlap", 1), ("--quality", 101)):
        assert option in fails(capsys, "data", "tile", data, "--output", tmp_path / "k", option, value)
