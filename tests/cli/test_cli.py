"""The command line as a person or a program uses it: what it prints, where, and with which exit code."""

import errno
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from boxwright.cli.app import main
from boxwright.recipes import RECIPES

RECIPE = "faster-rcnn-detnet-small-fpn"
TINY = [
    *("--set", "data.train.0.size=[96, 96]", "--set", "data.eval.0.size=[96, 96]", "--set", "data.batch_size=4"),
    *("--set", "stages.0.length=2", "--set", "stages.0.unit=steps", "--set", 'stages.0.schedule.warmup="none"'),
    *("--workers", "0", "--device", "cpu"),
]


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight drawn scenes to train on, three to validate on."""
    folder = tmp_path_factory.mktemp("cli") / "scenes"
    assert main(["data", "scenes", str(folder), "--train", "8", "--val", "3", "--size", "96", "96"]) == 0
    return folder


@pytest.fixture(scope="session")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, made by the command."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", RECIPE, "--data", str(scenes), "--output", str(folder), *TINY]) == 0
    return folder


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one-line error of a command line that must be refused with exit code 2 and no traceback."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, captured.err
    return errors[0]


def says(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> object:
    """The one JSON value that a command prints on stdout."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == code
    return json.loads(capsys.readouterr().out)


# What there is


def test_help_is_quick_because_it_does_not_import_torch():
    probe = (
        "import sys; from boxwright.cli.app import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'torchvision', 'matplotlib', 'hotcoco', 'numpy'} & set(sys.modules); "
        "sys.exit(f'imports {heavy}' if heavy else code)"
    )
    for words in (["--help"], ["train", "--help"], ["data", "--help"], ["--version"]):
        done = subprocess.run([sys.executable, "-c", probe, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_python_m_is_the_command():
    done = subprocess.run([sys.executable, "-m", "boxwright", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize("words", [[], ["train"], ["evaluate"], ["detect"], ["demo"], ["models"]])
def test_help_shows_examples(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Usage: boxwright")
    assert "boxwright demo" in text or f" boxwright {words[0]} " in text


@pytest.mark.parametrize(
    ("words", "example"),
    [
        ("train", "torchrun --nproc-per-node 8 -m boxwright train faster-rcnn-detnet59-fpn --data coco"),
        ("evaluate", "boxwright evaluate --detections detections.json --data my_data --split test --metric voc12"),
        ("models", "boxwright models --json"),
    ],
)
def test_long_examples_are_broken_as_a_shell_has_it(
    words: str, example: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words.split(), "--help"]) == 0
    text = capsys.readouterr().out
    as_a_shell_reads_it = re.sub(r"\\ *\n +", "", text)
    assert example in [line.strip() for line in as_a_shell_reads_it.splitlines()]


def test_models_is_one_array_of_rows(capsys: pytest.CaptureFixture[str]):
    rows = says(capsys, "models", "--json")
    assert isinstance(rows, list)
    assert {tuple(row) for row in rows} == {("name", "kind", "parameters", "multiply_adds", "input")}
    by_name = {row["name"]: row for row in rows}
    assert len(by_name) == len(rows)
    detnet = by_name["detnet59"]
    assert (detnet["kind"], detnet["parameters"], detnet["input"]) == ("backbone", 18_372_648, 224)
    assert round(detnet["multiply_adds"] / 1e9, 3) == 4.846
    detector = by_name["faster-rcnn-r50-fpn"]
    assert (detector["kind"], detector["input"]) == ("detector", [800, 1344])
    assert 41e6 < detector["parameters"] < 42e6


def test_models_as_a_table_of_one_kind(capsys: pytest.CaptureFixture[str]):
    assert main(["models", "--kind", "backbone"]) == 0
    text = capsys.readouterr().out
    assert "18,372,648" in text
    assert RECIPE not in text


# The whole line


def test_train_says_what_to_do_with_the_checkpoint(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    outcome = says(capsys, "train", RECIPE, "--data", scenes, "--output", run, *TINY, "--seed", 3, "--json")
    assert isinstance(outcome, dict)
    assert outcome["steps"] == 2
    assert Path(outcome["checkpoint"]).is_file()
    recipe = json.loads((run / "recipe.json").read_text())
    assert (recipe["seed"], recipe["data"]["workers"], recipe["data"]["batch_size"]) == (3, 0, 4)
    evaluate, detect = outcome["next"].values()
    assert main(evaluate.split()[1:]) == 0
    assert "AP50" in capsys.readouterr().out
    images = next((scenes / "val").rglob("*.jpg"), None) or next(scenes.rglob("val*.jpg"))
    words = detect.replace("IMAGES...", str(images)).replace("--output detections", f"--output {tmp_path / 'out'}")
    assert main(words.split()[1:]) == 0
    assert (tmp_path / "out" / "detections.csv").is_file()


def test_evaluate_gives_all_numbers_and_its_detections_score_the_same(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    saved, plots = tmp_path / "found.json", tmp_path / "plots"
    words = ["evaluate", run, "--data", scenes, "--save", saved, "--plots", plots, "--json"]
    value = says(capsys, *words)
    assert isinstance(value, dict)
    precision, recall = ["AP", "AP50", "AP75", "APs", "APm", "APl"], ["AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
    assert list(value["stats"]) == precision + recall
    assert (value["split"], value["images"], len(value["per_class"])) == ("val", 3, 10)
    assert set(value["by_iou"]) == {"AP", "AR", "AR_agnostic"}
    assert {path.name for path in plots.iterdir()} == {"precision_recall.png", "thresholds.png", "confusion.png"}
    again = says(capsys, "evaluate", "--detections", saved, "--data", scenes, "--json")
    assert isinstance(again, dict)
    assert again["stats"] == pytest.approx(value["stats"], abs=1e-6, nan_ok=True)
    voc = says(capsys, "evaluate", "--detections", saved, "--data", scenes, "--metric", "voc07", "--json")
    assert isinstance(voc, dict)
    assert voc["rules"]["average"] == "11-point"


def test_detect_resumes_and_reports_what_it_cannot_read(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for path in list(scenes.rglob("train*.jpg"))[:3]:
        shutil.copy(path, pictures)
    words = ["detect", run, pictures, "--output", out, "--threshold", "0.01", "--device", "cpu", "--json"]
    first = says(capsys, *words)
    assert isinstance(first, dict)
    assert (first["images"], first["pictures"], first["failed"]) == (3, 3, [])
    results = json.loads((out / "detections.json").read_text())
    assert len(results) == first["detections"] > 0
    whole = next(pictures.iterdir()).read_bytes()
    (pictures / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    second = says(capsys, *words, code=1)
    assert isinstance(second, dict)
    assert (second["skipped"], second["images"]) == (3, 0)
    assert "cut.jpg" in second["failed"][0]["message"]
    assert json.loads((out / "detections.json").read_text()) == results
    assert main([str(word) for word in words[:-1]]) == 1
    assert "1 could not be read" in capsys.readouterr().out
    words[words.index("0.01")] = "0.4"
    assert "threshold was 0.01, is 0.4" in fails(capsys, *words)


def test_detect_in_half_precision_finds_nearly_the_same(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    image = next(scenes.rglob("val*.jpg"))
    counts = []
    for precision in ("fp32", "bf16"):
        words = ["detect", run, image, "--output", tmp_path / precision, "--threshold", 0, "--precision", precision]
        value = says(capsys, *words, "--device", "cpu", "--no-pictures", "--json")
        assert isinstance(value, dict)
        counts.append(value["detections"])
    assert abs(counts[0] - counts[1]) <= 0.2 * counts[0]
    words = ["--device", "cpu", "--precision", "fp16"]
    assert "fp16 on a CPU" in fails(capsys, "detect", run, image, "--output", tmp_path / "x", *words)
    assert "fp16 on a CPU" in fails(capsys, "evaluate", run, "--data", scenes, *words)


def test_bf16_without_instructions_for_it_is_told_of(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    image, words = next(scenes.rglob("val*.jpg")), ["--device", "cpu", "--precision"]
    for precision, told in (("bf16", True), ("fp32", False)):
        assert main(["detect", str(run), str(image), "--output", str(tmp_path / precision), *words, precision]) == 0
        assert ("no instructions for bf16" in capsys.readouterr().err) == told


def test_augmentation_changes_what_is_found_and_results_say_so(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plain, found = tmp_path / "plain.json", tmp_path / "found.json"
    words = ["evaluate", run, "--data", scenes, "--device", "cpu", "--json"]
    says(capsys, *words, "--save", plain)
    value = says(capsys, *words, "--save", found, "--augment", "flip", "--merge", "nms", "--workers", 1)
    assert isinstance(value, dict)
    assert value["images"] == 3
    assert json.loads(plain.read_text()) != json.loads(found.read_text()) != []
    image, out = next(scenes.rglob("val*.jpg")), tmp_path / "out"
    words = ["detect", run, image, "--output", out, "--threshold", 0, "--device", "cpu", "--no-pictures", "--json"]
    first = says(capsys, *words, "--augment", "multiscale")
    assert isinstance(first, dict)
    assert first["detections"] > 0
    assert "augment was 'multiscale', is None" in fails(capsys, *words)
    assert "merge was None, is 'soft_nms'" in fails(capsys, *words, "--augment", "multiscale", "--merge", "soft_nms")
    assert "say which views with --augment" in fails(capsys, *words[:3], "--merge", "nms")
    message = fails(capsys, "evaluate", "--detections", found, "--data", scenes, "--augment", "flip")
    assert "a results file has none to look at" in message


def test_settings_that_act_at_test_can_be_changed(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fewer = ("--set", "detector.rpn.post_nms=[150, 3]")
    words = ["evaluate", run, "--data", scenes, "--device", "cpu", "--json"]
    counts = [says(capsys, *words, *more)["detections"] for more in ((), fewer)]  # type: ignore[call-overload]
    assert counts[1] < counts[0]
    image, out = next(scenes.rglob("val*.jpg")), tmp_path / "out"
    words = ["detect", run, image, "--output", out, "--threshold", 0, "--device", "cpu", "--no-pictures", "--json"]
    value = says(capsys, *words, *fewer)
    assert isinstance(value, dict)
    assert 0 < value["detections"] < counts[0]
    assert "set was ['detector.rpn.post_nms=[150, 3]'], is None" in fails(capsys, *words)
    message = fails(capsys, "evaluate", "--detections", tmp_path / "x", "--data", scenes, *fewer)
    assert "--set changes how a checkpoint looks at images" in message


def test_one_plain_view_evaluates_as_the_recipe_does(run: Path, scenes: Path):
    from boxwright.app.evaluate import run_detector
    from boxwright.app.load import load
    from boxwright.data import open_dataset
    from boxwright.detectors.contract.augmented import TestTimeConfig

    loaded, index = load(run, "cpu"), open_dataset(scenes, "val")
    one_look = TestTimeConfig(flip=False, merge="nms", iou=1.0)
    plain = run_detector(loaded, index, "scenes", batch_size=2).detections()
    alone = run_detector(loaded, index, "scenes", batch_size=2, augment=one_look).detections()
    assert len(plain) > 0
    for name in ("image_ids", "labels", "scores", "boxes"):
        ours, theirs = (torch.as_tensor(getattr(columns, name)) for columns in (alone, plain))
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4, msg=name)


def test_the_augmentations_on_offer_are_those_there_are():
    from typing import get_args

    from boxwright.app.requests.fields import AugmentName, MergeName
    from boxwright.detectors.contract.augmented import TEST_TIME, Merge

    assert get_args(AugmentName) == tuple(TEST_TIME)
    assert get_args(MergeName) == get_args(Merge)


def test_resume_goes_on_and_refuses_what_is_not_there(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    value = says(capsys, "train", "--data", scenes, "--resume", copy, "--device", "cpu", "--json")
    assert isinstance(value, dict)
    assert value["steps"] == 2
    assert "nothing to resume" in fails(capsys, "train", "--data", scenes, "--resume", tmp_path / "none")
    message = fails(capsys, "train", "--data", scenes, "--resume", copy, "--output", tmp_path / "x")
    assert "leave --output out" in message


def test_epochs_stretch_the_schedule(scenes: Path):
    from boxwright.app.requests.training import TrainRequest
    from boxwright.app.train import requested_recipe

    recipe = requested_recipe("faster-rcnn-r50-fpn", TrainRequest(data=scenes, epochs=12))
    stage = recipe.stages[0]
    assert (stage.length, stage.unit) == (12, "epochs")
    assert stage.schedule.milestones == pytest.approx((8.0, 32 / 3))  # type: ignore[union-attr]


def test_a_toml_file_changes_the_recipe(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from boxwright.app.requests.training import TrainRequest
    from boxwright.app.train import requested_recipe

    config = tmp_path / "mine.toml"
    config.write_text("seed = 5\n[data]\nbatch_size = 2\n")
    recipe = requested_recipe(RECIPE, TrainRequest(data=scenes, config=config, sets=("data.batch_size=6",)))
    assert (recipe.seed, recipe.data.batch_size) == (5, 6)
    config.write_text("[data]\nbatchsize = 2\n")
    message = fails(capsys, "train", RECIPE, "--data", scenes, "--config", config)
    assert "mine.toml" in message
    assert "did you mean 'batch_size'" in message


# Data commands


def test_data_commands(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    report = says(capsys, "data", "check", scenes, "--json")
    assert isinstance(report, dict)
    assert report["ok"] is True
    assert report["splits"]["train"]["images"] == 8
    assert main(["data", "check", str(scenes)]) == 0
    assert "0 errors" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main(["data", "show", str(scenes), "--output", str(page), "--count", "2"]) == 0
    assert page.stat().st_size > 1000
    done = says(capsys, "data", "convert", scenes, tmp_path / "voc", "--to", "voc", "--json")
    assert isinstance(done, dict)
    assert done["splits"]["val"]["images"] == 3
    assert any("mask" in announcement for announcement in done["announcements"])
    assert "not empty" in fails(capsys, "data", "convert", scenes, tmp_path / "voc", "--to", "coco")
    assert "not an empty folder" in fails(capsys, "data", "scenes", tmp_path / "voc")


def test_data_check_exits_1_for_defects(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy = tmp_path / "copy"
    shutil.copytree(scenes, copy)
    lost = next(copy.rglob("val*.jpg"))
    lost.unlink()
    report = says(capsys, "data", "check", copy, "--json", code=1)
    assert isinstance(report, dict)
    assert [p["file"] for p in report["problems"] if p["kind"] == "missing-image"] == [str(lost)]
    assert main(["data", "check", str(copy)]) == 1
    assert lost.name in capsys.readouterr().out


def test_anchors_are_reported_and_printed_to_be_pasted(scenes: Path, capsys: pytest.CaptureFixture[str]):
    words = ["data", "anchors", scenes, "--count", 3, "--size", 192, 192, "--resize", "warp"]
    value = says(capsys, *words, "--json")
    assert isinstance(value, dict)
    assert (len(value["anchors"]), sum(value["counts"]), value["split"]) == (3, value["boxes"], "train")
    assert 0.3 < value["mean_iou"] < 1
    assert main([str(word) for word in words]) == 0
    text = capsys.readouterr().out
    assert f"mean IoU {value['mean_iou']:.4f}" in text
    pasted = [shlex.split(line) for line in text.splitlines() if line.startswith("  --set")]
    assert pasted == [["--set", value["settings"][unit]] for unit in ("pixels", "cells")]


# What is refused


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trian", 'Did you mean "train"'),
        ("data chek x", 'Did you mean "check"'),
        ("train --dta x", "Did you mean --data"),
        ("detect", "CHECKPOINT requires an argument"),
        ("data convert a b --to pascal", "coco"),
        ("demo --images many", "many"),
        ("data anchors SCENES", "--count"),
        ("data anchors SCENES --count 500", "different sizes: ask for 1 to"),
        ("data anchors SCENES --count 2 --split dev", "has no split 'dev'; it has train, val"),
        ("data anchors SCENES --count 2 --resize keep --size 9 9", "omit --size"),
        ("train faster-rcnn-detnet59-fp --data SCENES", "did you mean 'faster-rcnn-detnet59-fpn'"),
        ("train --data SCENES", "needs a recipe"),
        (f"train {RECIPE} --data nowhere", "nowhere: there is no such file or folder"),
        (f"train {RECIPE} --data SCENES --set data.batchsize=2", "did you mean 'batch_size'"),
        (f"train {RECIPE} --data SCENES --set data.batch_size=many", "data.batch_size"),
        (f"train {RECIPE} --data SCENES --set data.batch_size=0", "greater than or equal to 1"),
        (f"train {RECIPE} --data SCENES --val-split dev", "has no split 'dev'; it has train, val"),
        (f"train {RECIPE} --data SCENES --epochs 0", "more than 0"),
        (f"train {RECIPE} --data SCENES --device tpu", "device 'tpu'"),
        (f"train {RECIPE} --data SCENES --output SCENES", "not empty"),
        ("evaluate --data SCENES", "give a checkpoint, or a results file"),
        ("evaluate nothing --data SCENES", "no such checkpoint"),
        ("detect nothing SCENES", "--recursive"),
        ("detect nothing SCENES --recursive", "no such checkpoint"),
        ("detect nothing nowhere.jpg", "nowhere.jpg: no such file or folder"),
        ("demo --output SCENES", "no earlier demo"),
        ("demo --images 0", "--images 0"),
    ],
)
def test_refused_with_the_remedy(line: str, words: str, scenes: Path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [str(scenes) if word == "SCENES" else word for word in line.split()]
    assert words in fails(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []  # and nothing was done


def test_a_missing_split_lists_those_there_are(run: Path, scenes: Path, capsys: pytest.CaptureFixture[str]):
    message = fails(capsys, "evaluate", run, "--data", scenes, "--split", "test")
    assert "has no split `test`; it has train, val" in message


def test_a_truncated_checkpoint_is_named(run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    whole = (run / "best.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in (len(whole) - 1000, 4000, 5, 0):
        cut.write_bytes(whole[:length])
        for words in (["evaluate", cut, "--data", scenes], ["detect", cut, scenes, "--recursive", "--output", "out"]):
            assert f"{cut}: truncated or not a checkpoint" in fails(capsys, *words)


def test_a_file_of_another_kind_is_no_checkpoint(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"model": torch.zeros(3)}, tmp_path / "model.pth")
    message = fails(capsys, "evaluate", tmp_path / "model.pth", "--data", scenes)
    assert "model.pth: no importer knows its layout: 1 tensors, by the first part of their names model (1)" in message


def test_classes_that_differ_are_listed(run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy = tmp_path / "copy"
    shutil.copytree(scenes, copy)
    for path in copy.rglob("*.json"):
        path.write_text(path.read_text().replace('"mug"', '"teacup"'))
    message = fails(capsys, "evaluate", run, "--data", copy)
    assert "the data lacks 'mug'" in message
    assert "the checkpoint lacks 'teacup'" in message


def coco(folder: Path, images: list[dict], annotations: list[dict]) -> Path:
    folder.mkdir(exist_ok=True)
    value = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "train.json").write_text(json.dumps(value))
    return folder


def test_a_data_set_without_images_or_boxes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = coco(tmp_path / "data", [], [])
    assert "has no images" in fails(capsys, "train", RECIPE, "--data", data, "--output", tmp_path / "run")
    Image.new("RGB", (64, 64)).save(data / "a.png")
    coco(data, [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}], [])
    message = fails(capsys, "train", RECIPE, "--data", data, "--output", tmp_path / "run")
    assert "1 images and no box" in message


def test_an_image_that_cannot_be_read_stops_training_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 30, 30], "area": 900, "iscrowd": 0}
    data = coco(tmp_path / "data", [{"id": 1, "file_name": "bad.jpg", "width": 64, "height": 64}], [box])
    (data / "bad.jpg").write_bytes(b"\xff\xd8\xff no picture")
    message = fails(capsys, "train", RECIPE, "--data", data, "--output", tmp_path / "run", *TINY)
    assert "bad.jpg" in message


# What goes wrong on the way


def test_ctrl_c_is_130_with_a_word_and_no_traceback(scenes: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    import boxwright.data.formats.check

    def stopped(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(boxwright.data.formats.check, "check_dataset", stopped)
    assert main(["data", "check", str(scenes)]) == 130
    assert capsys.readouterr().err.strip() == "stopped"


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_ctrl_c_in_training_leaves_a_run_that_can_go_on(scenes: Path, tmp_path: Path):
    run = tmp_path / "run"
    words = [sys.executable, "-m", "boxwright", "train", RECIPE, "--data", str(scenes), "--output", str(run), *TINY]
    words += ["--set", "stages.0.length=100000", "--set", "log_every=1"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if line.startswith("step 2/"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
    assert "Traceback" not in rest
    assert rest.count(f"boxwright train --data {scenes} --resume {run}") == 1
    assert (run / "last.train").is_file()


def test_a_full_disk_is_said(run: Path, scenes: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    from boxwright.app.detection.results import ResultFolder

    def full(self, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "out" / "journal.jsonl"))

    monkeypatch.setattr(ResultFolder, "add", full)
    image = next(scenes.rglob("val*.jpg"))
    message = fails(capsys, "detect", run, image, "--output", tmp_path / "out", "--device", "cpu")
    assert "the disk is full" in message
    assert "journal.jsonl" in message


def test_debug_shows_where_an_error_comes_from(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    words = ["data", "check", str(tmp_path / "nowhere")]
    assert main([*words, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("BOXWRIGHT_DEBUG", "1")
    assert main(words) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_fault_of_ours_is_not_dressed_up_as_bad_input(tmp_path: Path, monkeypatch):
    import boxwright.data.formats.check

    def broken(path):
        raise RuntimeError("a bug")

    monkeypatch.setattr(boxwright.data.formats.check, "check_dataset", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["data", "check", str(tmp_path)])


# On a GPU


@pytest.mark.gpu
def test_detect_on_a_gpu_fits_the_batch_to_memory_and_agrees_with_the_cpu(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    found = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        value = says(
            capsys,
            "detect",
            run,
            scenes,
            "--recursive",
            "--output",
            out,
            "--device",
            device,
            "--threshold",
            0,
            "--json",
        )
        assert isinstance(value, dict)
        assert value["images"] == 11
        assert device == "cpu" or value["batch_size"] > 2
        found[device] = json.loads((out / "detections.json").read_text())
    assert len(found["cpu"]) == pytest.approx(len(found["cuda"]), rel=0.02)


# The demonstration


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest demo, by its own options."""
    folder = tmp_path_factory.mktemp("cli") / "demo"
    assert main(demo_words(folder)) == 0
    return folder


def demo_words(folder: Path) -> list[str]:
    counts = ["--images", "8", "--val-images", "2", "--test-images", "3", "--steps", "2", "--size", "96"]
    return ["demo", "--output", str(folder), *counts, "--set", "data.workers=0", "--device", "cpu"]


def test_the_demo_leaves_a_report_that_needs_nothing_else(demo: Path):
    html = (demo / "report.html").read_text(encoding="utf-8")
    assert html.count("<img ") == 6  # three test scenes, annotated and detected
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    for heading in ("By overlap and size", "Precision and recall", "How it learned", "Where the time went"):
        assert heading in html
    summary = json.loads((demo / "demo.json").read_text())
    assert set(summary["stats"]) >= {"AP", "AP50"}
    assert len(summary["timings"]) == 5


def test_the_demos_commands_are_real(demo: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The three commands, with a data set in place of the placeholder, are accepted as they stand."""
    check, train, detect = json.loads((demo / "demo.json").read_text())["commands"].values()
    assert main(check.replace("YOUR_DATA", str(scenes)).split()[1:]) == 0
    run = tmp_path / "run"
    words = train.replace("YOUR_DATA", str(scenes)).replace("--output run", f"--output {run}").split()[1:]
    assert main([*words, *TINY]) == 0
    images = next(scenes.rglob("val*.jpg"))
    words = detect.replace("detect run", f"detect {run}").replace("YOUR_PICTURES", str(images))
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


def test_resume_refuses_changes_that_would_do_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    message = fails(capsys, "train", "--data", "any", "--resume", tmp_path, "--epochs", "3", "--set", "seed=1")
    assert "--set, --epochs with --resume would change nothing" in message


def test_the_table_of_models_shows_whole_names_on_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["models"]) == 0
    assert set(RECIPES) <= set(capsys.readouterr().out.split())
