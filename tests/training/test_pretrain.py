"""A backbone learns classes, resumes to the bit, and starts a detector."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tests.data.test_crops import class_folders

from boxwright.backbones.resnet import ResNetConfig
from boxwright.cli import main
from boxwright.data.crops import CropConfig
from boxwright.data.folders import open_folders
from boxwright.detectors.build import build_detector
from boxwright.detectors.detector import PixelConfig
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.recipes.pretrain import SMALL, pretrain_recipe
from boxwright.structures import Classes, InputError
from boxwright.training.interrupt import TrainingInterrupted
from boxwright.training.pretrain import mixed, pretrain
from boxwright.training.pretrain_recipe import PretrainRecipe
from boxwright.training.pretrained import load_pretrained, read_card, start_backbone
from boxwright.training.recipe import AdamWConfig, EMAConfig

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
    assert card["data"]["fingerprint"] == open_folders(data)["train"].fingerprint()
    assert card["top1"] >= 0.9
    assert card["top5"] == 1.0
    assert card["recipe"]["name"] == "tiny"


@pytest.mark.parametrize("stop_after", [3, 20])
def test_a_resumed_run_is_the_same_run(
    stop_after: int, finished: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from boxwright.training import pretrain as module

    splits = open_folders(data)
    whole = module._Run._take_step

    def interrupted(run):
        if run.step == stop_after:
            os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C does
        return whole(run)

    monkeypatch.setattr(module._Run, "_take_step", interrupted)
    with pytest.raises(TrainingInterrupted, match="--resume"):
        pretrain(RECIPE, splits["train"], splits["val"], tmp_path / "run", device="cpu", log="quiet")
    monkeypatch.undo()
    pretrain(None, splits["train"], splits["val"], tmp_path / "run", device="cpu", log="quiet", resume=True)
    first = torch.load(finished / "last.train", weights_only=True)
    second = torch.load(tmp_path / "run" / "last.train", weights_only=True)
    assert first["step"] == second["step"]
    for name, value in first["model"].items():
        assert torch.equal(value, second["model"][name]), name
    for name, value in first["ema"]["module"].items():
        assert torch.equal(value, second["ema"]["module"][name]), name


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
