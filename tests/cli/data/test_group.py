"""The commands ``boxwright data``."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from boxwright.app.requests.training import TrainRequest
from boxwright.app.train import resume_command, training_splits
from boxwright.cli.app import main
from boxwright.data.formats.opening import open_splits
from tests.support.command_line import fails, json_output
from tests.support.dataset_files import voc_xml, write_voc_files


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
    assert "is not empty" in fails(capsys, "data", "scenes", tmp_path / "voc")


def test_voc_files_that_count_from_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_voc_files(tmp_path / "voc", {"train": ["a", "b"]})
    for stem in ("a", "b"):
        (data / f"Annotations/{stem}.xml").write_text(voc_xml(f"{stem}.jpg", [("cat", 0, 3, 30, 20)]))
    flag = "--voc-zero-based"
    assert main(["data", "check", str(data)]) == 0
    assert "2 of 2 boxes begin at 0" in capsys.readouterr().out
    assert main(["data", "check", str(data), flag]) == 0
    assert "begin at 0" not in capsys.readouterr().out
    json_output(capsys, "data", "convert", data, tmp_path / "coco", "--format", "coco", flag, "--json")
    assert open_splits(tmp_path / "coco")["train"].annotations(0).boxes.tolist() == [[0, 3, 30, 20]]
    json_output(capsys, "data", "show", data, "--output", tmp_path / "page.html", flag, "--json")
    json_output(capsys, "data", "anchors", data, "--count", 1, flag, "--json")
    results = [{"image_id": i, "category_id": 1, "bbox": [0, 3, 30, 17], "score": 0.9} for i in (1, 2)]
    (tmp_path / "found.json").write_text(json.dumps(results))
    words = ["evaluate", "--detections", tmp_path / "found.json", "--data", data, "--split", "train"]
    exact = json_output(capsys, *words, flag, "--json")
    rough = json_output(capsys, *words, "--json")
    assert isinstance(exact, dict)
    assert isinstance(rough, dict)
    assert exact["stats"]["AP"] == 1
    assert rough["stats"]["AP"] < 1
    request = TrainRequest(data=data, voc_zero_based=True)
    assert resume_command(request, Path("run")) == f"boxwright train --data {data} --resume run {flag}"
    train, _ = training_splits(data, voc_one_based=False)
    assert train.annotations(0).boxes.tolist() == [[0, 3, 30, 20]]


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
