"""The commands ``boxwright data``."""

import shlex
import shutil
from pathlib import Path

import pytest

from boxwright.cli.app import main
from tests.support.command_line import fails, json_output


def test_data_commands(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    report = json_output(capsys, "data", "check", scenes, "--json")
    assert isinstance(report, dict)
    assert report["ok"] is True
    assert report["splits"]["train"]["images"] == 8
    assert main(["data", "check", str(scenes)]) == 0
    assert "0 errors" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main(["data", "show", str(scenes), "--output", str(page), "--count", "2"]) == 0
    assert page.stat().st_size > 1000
    done = json_output(capsys, "data", "convert", scenes, tmp_path / "voc", "--format", "voc", "--json")
    assert isinstance(done, dict)
    assert done["splits"]["val"]["images"] == 3
    assert any("mask" in announcement for announcement in done["announcements"])
    assert "not empty" in fails(capsys, "data", "convert", scenes, tmp_path / "voc", "--format", "coco")
    assert "not an empty folder" in fails(capsys, "data", "scenes", tmp_path / "voc")


def test_data_check_exits_1_for_defects(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy = tmp_path / "copy"
    shutil.copytree(scenes, copy)
    lost = next(copy.rglob("val*.jpg"))
    lost.unlink()
    report = json_output(capsys, "data", "check", copy, "--json", code=1)
    assert isinstance(report, dict)
    assert [p["file"] for p in report["problems"] if p["kind"] == "missing-image"] == [str(lost)]
    assert main(["data", "check", str(copy)]) == 1
    assert lost.name in capsys.readouterr().out


def test_anchors_are_printed_as_options_to_paste(scenes: Path, capsys: pytest.CaptureFixture[str]):
    words = ["data", "anchors", scenes, "--count", 3, "--size", 192, 192, "--resize", "warp"]
    value = json_output(capsys, *words, "--json")
    assert isinstance(value, dict)
    assert (len(value["anchors"]), sum(value["counts"]), value["split"]) == (3, value["boxes"], "train")
    assert 0.3 < value["mean_iou"] < 1
    assert main([str(word) for word in words]) == 0
    text = capsys.readouterr().out
    assert f"mean IoU {value['mean_iou']:.4f}" in text
    pasted = [shlex.split(line) for line in text.splitlines() if line.startswith("  --set")]
    assert pasted == [["--set", value["settings"][unit]] for unit in ("pixels", "cells")]
