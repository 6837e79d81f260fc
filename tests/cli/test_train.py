"""The command ``boxwright train``."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from boxwright.cli.app import app, main
from tests.support.command_line import RECIPE, TINY, fails, json_output


def test_the_suggested_commands_use_the_checkpoint(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    outcome = json_output(capsys, "train", RECIPE, "--data", scenes, "--output", run, *TINY, "--seed", 3, "--json")
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


def test_resume_continues_and_refuses_an_absent_run(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    value = json_output(capsys, "train", "--data", scenes, "--resume", copy, "--device", "cpu", "--json")
    assert isinstance(value, dict)
    assert value["steps"] == 2
    assert "nothing to resume" in fails(capsys, "train", "--data", scenes, "--resume", tmp_path / "none")
    message = fails(capsys, "train", "--data", scenes, "--resume", copy, "--output", tmp_path / "x")
    assert "leave --output out" in message


def test_resume_refuses_options_without_effect(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    message = fails(capsys, "train", "--data", "any", "--resume", tmp_path, "--lr", "3", "--set", "seed=1")
    assert "--set, --lr with --resume would change nothing" in message


def test_options_that_need_validation_are_refused_without_it(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", RECIPE, "--data", scenes, "--no-val", "--metric", "AR", "--patience", 2]
    message = fails(capsys, *words)
    assert "--metric AR, --patience 2: nothing is validated in this run; leave it out, or leave out --no-val" in message


def test_a_finished_run_is_extended(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", RECIPE, "--data", str(scenes), "--output", str(run), *TINY]) == 0
    resume = ["train", "--data", str(scenes), "--resume", str(run), "--device", "cpu"]
    message = fails(capsys, "train", RECIPE, *resume[1:], "--epochs", "+1")
    assert f"--epochs +1 extends the run by its own recipe; leave {RECIPE} out" in message
    assert "--size, --seed with --resume would change nothing" in fails(
        capsys, *resume, "--epochs", "+1", "--size", 64, "--seed", 1
    )
    assert "--epochs 0.01: the run has " in fails(capsys, *resume, "--epochs", "0.01")
    assert "'+many' is not a number, such as 12 or +10" in fails(capsys, *resume, "--epochs", "+many")
    outcome = json_output(capsys, *resume, "--epochs", "+1", "--lr", "0.001", "--json")
    assert isinstance(outcome, dict)
    stages = json.loads((run / "recipe.json").read_text())["stages"]
    assert [(s["name"], s["length"]) for s in stages] == [("train", 2), ("extension 1", 1)]
    assert stages[1]["optimiser"]["lr"] == 0.001
    assert outcome["steps"] > 2


@pytest.mark.parametrize("recipe", [[], [RECIPE]])
def test_more_epochs_need_a_run(recipe: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the recipe would be chosen: 10 epochs in all are something else."""
    message = fails(capsys, "train", *recipe, "--data", "nowhere", "--epochs", "+10")
    assert "--epochs +10: extends a run; name it with --resume, or give --epochs 10" in message


def test_epochs_stretch_the_schedule(scenes: Path):
    from boxwright.app.requests.training import TrainRequest
    from boxwright.app.training.request_recipe import requested_recipe

    recipe = requested_recipe("faster-rcnn-r50-fpn", TrainRequest(data=scenes, epochs=12))
    stage = recipe.stages[0]
    assert (stage.length, stage.unit) == (12, "epochs")  # type: ignore[union-attr]
    assert stage.schedule.milestones == pytest.approx((8.0, 32 / 3))  # type: ignore[union-attr]


def test_a_toml_file_changes_the_recipe(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from boxwright.app.requests.training import TrainRequest
    from boxwright.app.training.request_recipe import requested_recipe

    config = tmp_path / "mine.toml"
    config.write_text("seed = 5\n[data]\nbatch_size = 2\n")
    recipe = requested_recipe(RECIPE, TrainRequest(data=scenes, config=config, sets=("data.batch_size=6",)))
    assert (recipe.seed, recipe.data.batch_size) == (5, 6)
    config.write_text("[data]\nbatchsize = 2\n")
    message = fails(capsys, "train", RECIPE, "--data", scenes, "--config", config)
    assert "mine.toml" in message
    assert "did you mean 'batch_size'" in message


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_ctrl_c_in_training_leaves_a_run_that_resumes(scenes: Path, tmp_path: Path):
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
        assert process.wait() == 130
    finally:
        process.kill()
    assert "Traceback" not in rest
    assert rest.count(f"boxwright train --data {scenes} --resume {run}") == 1
    assert (run / "last.train").is_file()


@pytest.mark.parametrize(("word", "carried"), [("--no-carry-classes", False), ("--carry-classes", True)])
def test_transfer_of_class_weights_can_be_switched_off(word: str, carried: bool):
    _, bound, _ = app.parse_args(["train", RECIPE, "--data", "data", word], exit_on_error=False, print_error=False)
    assert bound.kwargs["request"].carry_classes is carried
