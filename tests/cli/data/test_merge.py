"""The command ``boxwright data merge``."""

from pathlib import Path

import pytest

from boxwright.cli.app import main
from tests.support.command_line import fails, json_output
from tests.support.drawn_sets import read_set, write_set

A = {"train": {"a.png": [("red", 5, 4, 25, 30)]}}
B = {"train": {"b.png": [("blue", 2, 2, 9, 9)]}, "val": {"c.png": [("red", 2, 2, 9, 9)]}}


def test_merge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write_set(tmp_path / "a", "coco", A, ("red",)), write_set(tmp_path / "b", "voc", B)
    words = ["data", "merge", str(a), str(b), "--output", str(tmp_path / "out"), "--rename", "blue=sky"]
    assert main([*words, "--dry-run"]) == 0
    assert "nothing was written (--dry-run)" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main([*words, "--format", "yolo", "--images", "link"]) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines()]
    for row in (["red", "1", "1", "2"], ["sky", "0", "1", "1"], ["train", "1", "1", "2", "2"], ["val", "0", "1"]):
        assert any(found[: len(row)] == row for found in rows)
    assert "note: a: has no class" in said
    assert read_set(tmp_path / "out") == {
        "train": {"a.png": [("red", [5, 4, 25, 30])], "b.png": [("sky", [2, 2, 9, 9])]},
        "val": {"c.png": [("red", [2, 2, 9, 9])]},
    }
    report = json_output(capsys, "data", "merge", a, b, "--output", tmp_path / "n", "--json")
    assert isinstance(report, dict)
    assert report["splits"]["train"]["sources"] == [1, 1]
    assert "give two or more" in fails(capsys, "data", "merge", a, "--output", tmp_path / "m")
