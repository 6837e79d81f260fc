"""The command ``boxwright data filter``."""

from pathlib import Path

import pytest

from boxwright.cli.app import main
from tests.support.command_line import fails, json_output
from tests.support.drawn_sets import read_set, write_set

SPLITS = {"train": {"a.png": [("red", 5, 4, 25, 30), ("green", 40, 10, 50, 22)], "b.png": [("blue", 2, 2, 5, 5)]}}


def test_filter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_set(tmp_path / "in", "coco", SPLITS)
    words = ["data", "filter", str(data), "--output", str(tmp_path / "out"), "--rename", "red=apple"]
    words += ["--rename=green=apple", "--min-size", "4"]
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert "nothing was written (--dry-run)" in said
    assert main([*words, "--format", "yolo", "--images", "link"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    for row in (["red", "apple", "1", "1"], ["green", "apple", "1", "1"], ["blue", "blue", "1", "0"]):
        assert row in rows
    assert ["train", "2", "2", "3", "2", "0", "1"] in rows
    assert read_set(tmp_path / "out") == {
        "train": {"a.png": [("apple", [5, 4, 25, 30]), ("apple", [40, 10, 50, 22])], "b.png": []}
    }
    assert next((tmp_path / "out").rglob("a.png")).samefile(data / "train/a.png")
    report = json_output(capsys, "data", "filter", data, "--output", tmp_path / "n", "--drop", "red", "--json")
    assert isinstance(report, dict)
    assert [row["name"] for row in report["classes"]] == [None, "green", "blue"]
    error = fails(capsys, "data", "filter", data, "--output", tmp_path / "m", "--drop", "rod")
    assert error == "error: --drop rod: there is no class 'rod'; did you mean 'red'?"
