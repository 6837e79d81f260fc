"""A backbone learns classes, resumes to the bit, and starts a detector."""

import json
import os
import shlex
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from boxwright.backbones.resnet import ResNetConfig
from boxwright.checkpoints.backbone_files import load_pretrained, read_card, start_backbone
from boxwright.checkpoints.checkpoint import load_train_state, save_train_state
from boxwright.cli.app import main
from boxwright.config.pretrain_recipe import PretrainRecipe
from boxwright.config.recipe import AdamWConfig, EMAConfig
from boxwright.data.classification.folders import open_folders
from boxwright.data.transforms.crops import CropConfig
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.pixels import PixelConfig
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.recipes.pretrain import SMALL, pretrain_recipe
from boxwright.structures import Classes, InputError
from boxwright.training.distributed import Processes
from boxwright.training.interrupt import TrainingInterrupted
from boxwright.training.logging.monitor import NonFiniteLossError
from boxwright.training.logging.run_folder import read_run
from boxwright.training.pretrain import pretrain
from boxwright.training.session import Session
from boxwright.training.tasks.classification import ClassificationTask, mixed
from tests.support.dataset_files import class_folders
from tests.support.resuming import flat, rows

TINY = ResNetConfig(depth=18, blocks=(1, 1, 1, 1), width=8)
RECIPE = replace(
    SMALL,
    name="tiny",
    backbone=TINY,
    crops=CropConfig(size=16, eval_size=18),
    epochs=8,
    batch_size=4,
    workers=0,
    mixup=0.2,
    cutmix=1.0,
    validate_every=2,
    optimiser=AdamWConfig(lr=2e-3),
    ema=EMAConfig(decay=0.9, ramp=4),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("classes"), per_class=8)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = open_folders(data)
    folder = tmp_path_factory.mktemp("runs") / "run"
    result = pretrain(RECIPE, splits["train"], splits["val"], folder, device="cpu", log="quiet", licence="CC0")
    assert result.top1 is not None
    assert result.top1 >= 0.9, "red from blue is not hard"
    return folder


def test_the_card_says_what_it_is(finished: Path, data: Path) -> None:
    card = read_card(finished / "backbone.safetensors")
    assert card["classes"] == ["blue", "red"]
    assert card["data"]["licence"] == "CC0"
    assert card["data"]["name"] == data.name == "classes0"
    assert card["data"]["fingerprint"] == open_folders(data)["train"].fingerprint()
    assert card["top1"] >= 0.9
    assert card["top5"] == 1.0
    assert card["recipe"]["name"] == "tiny"


def test_the_run_folder_explains_itself(finished: Path, data: Path) -> None:
    info = read_run(finished)
    assert info["status"] == "finished"
    assert info["data"]["train"]["fingerprint"] == open_folders(data)["train"].fingerprint()
    assert info["best"]["top1"] >= 0.9
    described = {line.split()[0] for line in (finished / "README.txt").read_text().splitlines() if line}
    files = {path.name for path in finished.iterdir()}
    assert {"loss.png", "accuracy.png", "backbone.safetensors"} <= files
    assert files - {"README.txt"} <= described


def assert_same_run(one: Path, other: Path) -> None:
    """The same bits, the same file for detectors, and the same rows but for what depends on the clock."""
    first, second = (flat(load_train_state(folder / "last.train")) for folder in (one, other))
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key], key
    assert (one / "backbone.safetensors").read_bytes() == (other / "backbone.safetensors").read_bytes()
    assert rows(one) == rows(other)


def stop_in(step: int, patch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C in this step."""
    whole = Session.take_step

    def interrupted(session: Session):
        if session.step == step - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(session)

    patch.setattr(Session, "take_step", interrupted)


@pytest.mark.parametrize("step", [8, 21, 32], ids=["to be measured", "between two rows", "the last"])
def test_a_resumed_run_is_the_same_run(
    step: int, finished: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = open_folders(data)
    run, said = tmp_path / "run", list[str]()
    stop_in(step, monkeypatch)
    with pytest.raises(TrainingInterrupted):
        pretrain(RECIPE, splits["train"], splits["val"], run, device="cpu", log=said.append, licence="CC0")
    assert said[-1] == f"stopped after step {step}; resume with: boxwright pretrain --data {data} --resume {run}"
    monkeypatch.undo()
    pretrain(None, splits["train"], splits["val"], run, device="cpu", log="quiet", resume=True)
    assert_same_run(finished, run)


def test_without_pictures_to_measure_on_too(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, run = open_folders(data)["train"], tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_in(4, patch)
        with pytest.raises(TrainingInterrupted):
            pretrain(replace(RECIPE, epochs=1), train, None, run, device="cpu", log="quiet")
    result = pretrain(None, train, None, run, device="cpu", log="quiet", resume=True)
    assert read_card(result.checkpoint)["step"] == 4


def test_a_damaged_picture_costs_no_step(finished: Path, tmp_path: Path) -> None:
    """Nor one to measure on: repaired, the run goes on as if nothing had been."""
    splits = open_folders(class_folders(tmp_path / "classes0", per_class=8))
    train, val, run = splits["train"], splits["val"], tmp_path / "run"
    damaged = train.path(3), val.path(5)
    whole = [path.read_bytes() for path in damaged]
    for path in damaged:
        path.write_bytes(b"no picture")
    for path, content in zip(damaged, whole, strict=True):
        remedy = rf"{path}.*another image under its name.*boxwright pretrain --data {train.data} --resume {run}$"
        recipe = None if run.exists() else RECIPE
        with pytest.raises(InputError, match=remedy):
            pretrain(recipe, train, val, run, device="cpu", log="quiet", licence="CC0", resume=recipe is None)
        path.write_bytes(content)
    state = load_train_state(run / "last.train")
    assert (state["step"], state["validated"]) == (8, 0)
    assert not (run / "backbone.safetensors").exists()
    pretrain(None, train, val, run, device="cpu", log="quiet", resume=True)
    assert_same_run(finished, run)


def test_lost_weights_are_neither_measured_nor_saved(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = open_folders(data)
    whole = Session.take_step

    def ruins(session: Session):
        loss = whole(session)
        if session.step == 8:
            next(session.model.parameters()).data[0] = float("inf")
        return loss

    monkeypatch.setattr(Session, "take_step", ruins)
    with pytest.raises(NonFiniteLossError, match="step 8: the weights are no longer finite, first "):
        pretrain(RECIPE, splits["train"], splits["val"], tmp_path / "run", device="cpu", log="quiet")
    assert not (tmp_path / "run" / "backbone.safetensors").exists()
    assert load_train_state(tmp_path / "run" / "last.train")["step"] == 4, "saved each epoch, measured every second"


def test_resuming_says_what_does_not_fit(finished: Path, data: Path, tmp_path: Path) -> None:
    train, val = (open_folders(data)[name] for name in ("train", "val"))
    run = tmp_path / "run"
    shutil.copytree(finished, run)

    def resume(recipe: PretrainRecipe | None = None, train=train, val=val, log="quiet"):
        return pretrain(recipe, train, val, run, device="cpu", log=log, resume=True)

    with pytest.raises(InputError, match=r"another recipe \(crops\.size: 16 there, 12 now; seed: 0 there, 3 now\)"):
        resume(replace(RECIPE, crops=replace(RECIPE.crops, size=12), seed=3))
    with pytest.raises(InputError, match="not the images that the run was started on"):
        resume(train=train.subset([0, 15]))
    for other in (val.subset([0, 15]), None):
        with pytest.raises(InputError, match="validation images are not those that the run had"):
            resume(val=other)
    state = load_train_state(run / "last.train")
    save_train_state(run / "last.train", {**state, "world": 2})
    said: list[str] = []
    resume(log=said.append)
    assert said[-1] == "the run had 2 process(es) and now has 1: it continues, but not bit for bit"
    with pytest.raises(InputError, match=r"^batch_size = 4 is not a multiple of 3 processes"):
        ClassificationTask(RECIPE, train, val, Processes(0, 3, torch.device("cpu")), run, "")


def test_runs_of_before_can_be_resumed(finished: Path, data: Path, tmp_path: Path) -> None:
    """Their states do not tell which step was measured last: it is measured again, to the same end."""
    splits = open_folders(data)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    state = load_train_state(run / "last.train")
    recipe = json.loads(state["pretrain"])
    for name in ("validated", "stage", "stream", "last_validation", "validations_since_best", "fit"):
        del state[name]
    del state["monitor"], state["val_fingerprint"], recipe["save_every"]
    save_train_state(run / "last.train", {**state, "pretrain": json.dumps(recipe)})
    pretrain(RECIPE, splits["train"], splits["val"], run, device="cpu", log="quiet", resume=True)
    assert load_train_state(run / "last.train")["validated"] == 32
    assert (finished / "backbone.safetensors").read_bytes() == (run / "backbone.safetensors").read_bytes()
    assert rows(finished) == rows(run)


def test_the_licence_outlives_a_resumption_and_can_be_given_then(finished: Path, data: Path, tmp_path: Path) -> None:
    splits = open_folders(data)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    file = run / "backbone.safetensors"
    again = {"device": "cpu", "log": "quiet", "resume": True}
    pretrain(None, splits["train"], splits["val"], run, **again)  # type: ignore[arg-type]
    assert read_card(file)["data"]["licence"] == "CC0"
    tensors = safetensors.torch.load_file(file)
    pretrain(None, splits["train"], splits["val"], run, licence="CC-BY-4.0", **again)  # type: ignore[arg-type]
    card = read_card(file)
    assert card["data"]["licence"] == "CC-BY-4.0"
    assert {**card, "data": None} == {**read_card(finished / "backbone.safetensors"), "data": None}
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in safetensors.torch.load_file(file).items())


def detector_config(**changes: object) -> FasterRCNNConfig:
    return FasterRCNNConfig(backbone=replace(TINY, norm="frozen_bn", freeze_at=2, **changes))  # type: ignore[arg-type]


def test_a_detector_starts_from_it(finished: Path) -> None:
    path = finished / "backbone.safetensors"
    detector = build_detector(detector_config(), Classes.from_names(["a"]))
    line = start_backbone(detector, path)
    assert "top-1" in line
    state = load_pretrained(path).state
    for name, value in detector.get_submodule("backbone").state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (detector_config(width=16), "width = 8 there and 16 here; use --set detector.backbone.width=8"),
        (replace(detector_config(), pixels=PixelConfig(bgr=True)), "pixels prepared as"),
    ],
)
def test_another_backbone_is_refused(config: FasterRCNNConfig, message: str, finished: Path) -> None:
    detector = build_detector(config, Classes.from_names(["a"]))
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with pytest.raises(InputError, match=message):
        start_backbone(detector, finished / "backbone.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items()), "nothing half-loaded"


def test_files_that_are_no_pretrained_backbone(tmp_path: Path, finished: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_card(tmp_path / "absent.safetensors")
    plain = tmp_path / "plain.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, plain)
    with pytest.raises(InputError, match="has no card of"):
        read_card(plain)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((finished / "backbone.safetensors").read_bytes()[:1000])
    with pytest.raises(InputError, match="truncated"):
        read_card(cut)


def test_frozen_backbones_cannot_be_pretrained() -> None:
    with pytest.raises(InputError, match="set norm to bn"):
        replace(RECIPE, backbone=replace(TINY, norm="frozen_bn"))


def test_an_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'detnet59'"):
        pretrain_recipe("detnet95")


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.0, 0.0), (0.4, 0.0), (0.0, 1.0)])
def test_mixing_keeps_the_shares_it_names(mixup: float, cutmix: float) -> None:
    recipe: PretrainRecipe = replace(RECIPE, mixup=mixup, cutmix=cutmix)
    pixels = torch.stack([torch.zeros(3, 20, 20), torch.full((3, 20, 20), 100.0)])
    for step in range(10):
        made, second, share = mixed(pixels, recipe, step)
        assert second == bool(mixup or cutmix)
        # Picture 1 is bright and gets (1 - share) of the dark one, picture 0 the other way round.
        assert made[1].mean().item() == pytest.approx(100 * share, abs=1e-3)
        assert made[0].mean().item() == pytest.approx(100 * (1 - share), abs=1e-3)
    assert torch.equal(mixed(pixels, recipe, 3)[0], mixed(pixels, recipe, 3)[0])


def test_from_the_command_line_to_a_detector(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    sets = ["--set", "crops.size=32", "--set", "crops.eval_size=32", "--set", "batch_size=4"]
    command = ["pretrain", "resnet-small", "--preset", "small", "--data", str(data), "--output", str(run), *sets]
    assert main([*command, "--epochs", "1", "--workers", "0", "--device", "cpu", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == 4
    assert Path(told["checkpoint"]).is_file()
    assert main(["pretrain", "--data", str(data)]) == 2
    assert "name a backbone" in capsys.readouterr().err
    assert main(["pretrain", "--resume", str(run), "--data", str(data), "--epochs", "2"]) == 2
    assert "would change nothing" in capsys.readouterr().err
    assert main(["pretrain", "resnet-small", "--data", str(data), "--epochs", "0"]) == 2
    assert "--epochs 0" in capsys.readouterr().err
    assert main(["pretrain", "--resume", str(run), "--data", str(data), "--preset", "imagenet"]) == 2
    assert "--preset with --resume would change nothing" in capsys.readouterr().err


def test_ctrl_c_prints_a_command_that_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "a run"
    sets = ["--set", "crops.size=32", "--set", "crops.eval_size=32", "--set", "batch_size=4", "--epochs", "1"]
    command = ["pretrain", "resnet-small", "--preset", "small", "--data", str(data), "--output", str(run), *sets]
    with monkeypatch.context() as patch:
        stop_in(2, patch)
        assert main([*command, "--workers", "0", "--device", "cpu"]) == 130
    said, words = capsys.readouterr().err.rstrip().rsplit("resume with: ", 1)
    assert said.endswith("stopped after step 2; ")
    again = shlex.split(words)
    assert again == ["boxwright", "pretrain", "--data", str(data), "--resume", str(run), "--device", "cpu"]
    assert main(again[1:]) == 0
    told = capsys.readouterr().out
    assert "trained 4 steps" in told
    assert f"--backbone-weights '{run}/backbone.safetensors'" in told
