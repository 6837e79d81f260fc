"""The command ``boxwright evaluate``."""

import json
import re
from pathlib import Path

import pytest
import torch

from boxwright.cli.app import main
from boxwright.data.formats.opening import open_dataset
from boxwright.data.images import image_size
from tests.support.command_line import fails, json_output


def test_evaluate_returns_all_metrics_and_saved_detections_give_the_same(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    saved, plots = tmp_path / "found.json", tmp_path / "plots"
    words = ["evaluate", run, "--data", scenes, "--save", saved, "--plots", plots, "--json"]
    value = json_output(capsys, *words)
    assert isinstance(value, dict)
    precision, recall = ["AP", "AP50", "AP75", "APs", "APm", "APl"], ["AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
    assert list(value["stats"]) == precision + recall
    assert (value["split"], value["images"], len(value["per_class"])) == ("val", 3, 10)
    assert set(value["by_iou"]) == {"AP", "AR", "AR_agnostic"}
    assert {path.name for path in plots.iterdir()} == {"precision_recall.png", "thresholds.png", "confusion.png"}
    again = json_output(capsys, "evaluate", "--detections", saved, "--data", scenes, "--json")
    assert isinstance(again, dict)
    assert again["stats"] == pytest.approx(value["stats"], abs=1e-6, nan_ok=True)
    voc = json_output(capsys, "evaluate", "--detections", saved, "--data", scenes, "--metric", "voc07", "--json")
    assert isinstance(voc, dict)
    assert voc["rules"]["average"] == "11-point"


@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
def test_saved_detections_say_what_their_image_ids_mean(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
):
    data, saved = tmp_path / "data", tmp_path / "out" / "found.json"
    assert main(["data", "convert", str(scenes), str(data), "--format", form]) == 0
    capsys.readouterr()
    words = ["evaluate", str(run), "--data", str(data), "--save", str(saved), "--device", "cpu"]
    assert main(words) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("wrote")]
    ids = {entry["image_id"] for entry in json.loads(saved.read_text())}
    assert ids
    value = json_output(capsys, *words, "--json")
    assert isinstance(value, dict)
    assert line == f"wrote {saved}; {value['image_ids']}"
    if form == "coco":
        (file,) = data.rglob("*val*.json")
        assert line == f"wrote {saved}; its image ids are those of {file}"
        assert ids <= {image["id"] for image in json.loads(file.read_text())["images"]}
        return
    images = saved.with_name("found.images.json")
    assert line == f"wrote {saved}; its image ids count the images of val from 1; {images} has the file of each"
    content = json.loads(images.read_text())
    entries = {image["id"]: image for image in content["images"]}
    assert ids <= set(entries) == {1, 2, 3}
    assert [category["name"] for category in content["categories"]] == list(open_dataset(data, "val").classes.names)
    for entry in entries.values():
        assert entry["path"].endswith(entry["file_name"])
        assert image_size(entry["path"]) == (entry["height"], entry["width"])


def test_augmentation_changes_the_detections_and_is_recorded_with_them(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plain, found = tmp_path / "plain.json", tmp_path / "found.json"
    words = ["evaluate", run, "--data", scenes, "--device", "cpu", "--json"]
    json_output(capsys, *words, "--save", plain)
    value = json_output(capsys, *words, "--save", found, "--augment", "flip", "--merge", "nms", "--workers", 1)
    assert isinstance(value, dict)
    assert value["images"] == 3
    assert json.loads(plain.read_text()) != json.loads(found.read_text()) != []
    image, out = next(scenes.rglob("val*.jpg")), tmp_path / "out"
    words = ["detect", run, image, "--output", out, "--threshold", 0, "--device", "cpu", "--no-pictures", "--json"]
    first = json_output(capsys, *words, "--augment", "multiscale")
    assert isinstance(first, dict)
    assert first["detections"] > 0
    assert "augment was 'multiscale', is None" in fails(capsys, *words)
    assert "merge was None, is 'soft_nms'" in fails(capsys, *words, "--augment", "multiscale", "--merge", "soft_nms")
    assert "choose the views with --augment" in fails(capsys, *words[:3], "--merge", "nms")
    message = fails(capsys, "evaluate", "--detections", found, "--data", scenes, "--augment", "flip")
    assert "--augment needs a checkpoint" in message


def test_inference_settings_can_be_overridden(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fewer = ("--set", "detector.rpn.post_nms=[150, 3]")
    words = ["evaluate", run, "--data", scenes, "--device", "cpu", "--json"]
    counts = [json_output(capsys, *words, *more)["detections"] for more in ((), fewer)]  # type: ignore[call-overload]
    assert counts[1] < counts[0]
    image, out = next(scenes.rglob("val*.jpg")), tmp_path / "out"
    words = ["detect", run, image, "--output", out, "--threshold", 0, "--device", "cpu", "--no-pictures", "--json"]
    value = json_output(capsys, *words, *fewer)
    assert isinstance(value, dict)
    assert 0 < value["detections"] < counts[0]
    assert "set was ['detector.rpn.post_nms=[150, 3]'], is None" in fails(capsys, *words)
    message = fails(capsys, "evaluate", "--detections", tmp_path / "x", "--data", scenes, *fewer)
    assert "--set needs a checkpoint" in message


def test_one_plain_view_evaluates_as_the_recipe_does(run: Path, scenes: Path):
    from boxwright.app.evaluate import run_detector
    from boxwright.app.load import load
    from boxwright.data import open_dataset
    from boxwright.detectors.contract.augmented import TestTimeConfig

    loaded, index = load(run, "cpu"), open_dataset(scenes, "val")
    one_view = TestTimeConfig(flip=False, merge="nms", iou=1.0)
    plain = run_detector(loaded, index, "scenes", batch_size=2).detections()
    alone = run_detector(loaded, index, "scenes", batch_size=2, augment=one_view).detections()
    assert len(plain) > 0
    for name in ("image_ids", "labels", "scores", "boxes"):
        ours, theirs = (torch.as_tensor(getattr(columns, name)) for columns in (alone, plain))
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4, msg=name)


def test_choices_of_augment_and_merge_are_complete():
    from typing import get_args

    from boxwright.app.requests.fields import AugmentName, MergeName
    from boxwright.detectors.contract.augmented import TEST_TIME, Merge

    assert get_args(AugmentName) == tuple(TEST_TIME)
    assert get_args(MergeName) == get_args(Merge)


@pytest.mark.parametrize("metric", ["coco", "voc12"])
def test_the_report_is_one_self_contained_page(
    metric: str, run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    report = tmp_path / "deep" / "report.html"
    words = ["evaluate", str(run), "--data", str(scenes), "--metric", metric, "--report", str(report)]
    assert main([*words, "--device", "cpu"]) == 0
    assert f"wrote {report}" in capsys.readouterr().out
    html = report.read_text(encoding="utf-8")
    assert html.count("<img ") == 6  # three validation scenes, annotated and detected
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    for heading in ("Examples", "Metrics", "Precision and recall", "Confusion matrix"):
        assert f"<h2>{heading}</h2>" in html


def test_an_unwritable_report_is_refused_before_the_evaluation(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    message = fails(capsys, "evaluate", run, "--data", scenes, "--report", tmp_path / "file" / "report.html")
    assert "cannot be written" in message
