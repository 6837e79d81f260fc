"""A run that dies at any step and is resumed ends in the same bits as one that never stopped."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boxwright.anchors.generator import AnchorConfig
from boxwright.backbones.detnet import DetNetConfig
from boxwright.checkpoints.checkpoint import load_train_state
from boxwright.config.recipe import (
    AdamWConfig,
    CheckpointConfig,
    MultiStepConfig,
    Recipe,
    SGDConfig,
    Stage,
    ValidationConfig,
)
from boxwright.data.proposals.files import ProposalsConfig, ProposalSet
from boxwright.data.transforms.multi_scale import MultiScaleConfig
from boxwright.detectors.fast_rcnn import FastRCNN
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.heads.regions.box_head import BoxHeadConfig
from boxwright.heads.regions.rpn import RPNConfig
from boxwright.necks.fpn import FPNConfig
from boxwright.structures import InputError
from boxwright.training.interrupt import TrainingInterrupted
from boxwright.training.logging.run_folder import read_run
from boxwright.training.logging.run_log import read_rows
from boxwright.training.loop import train
from boxwright.training.session import Session
from tests.support.processes import start_python
from tests.support.resuming import Killed, assert_same_bits, interrupts, rows
from tests.support.runs import without_pictures
from tests.support.toys import Toy, build_toy, toy_index, toy_recipe
from tests.support.two_stage_cases import SMALL_FAST


def killed_at(step: int, accumulation: int = 1) -> Any:
    """Builds a toy whose forward pass of training ``step`` never returns."""

    class Fragile(Toy):
        trained = 0

        def forward(self, images, targets=None):
            if targets is not None and self.training:
                type(self).trained += 1
                if self.trained > (step - 1) * accumulation:
                    raise Killed
            return super().forward(images, targets)

    return Fragile


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("toys")
    return toy_index(folder / "train", 11), toy_index(folder / "val", 4, seed=1)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves cost more than these runs."""
    without_pictures(monkeypatch)


def recipe_of(case: str) -> Recipe:
    recipe = toy_recipe(8, checkpoint=CheckpointConfig(every=5, unit="steps"))
    stage = recipe.stages[0]
    match case:
        case "sgd":
            return recipe
        case "adamw, bf16, accumulated":
            stage = replace(stage, optimiser=AdamWConfig(lr=0.01))
            return replace(recipe, stages=(stage,), precision="bf16", accumulation=2, channels_last=True)
        case "fp16, scaled":
            return replace(recipe, precision="fp16")
        case "stopped between two stages":
            first = replace(stage, length=5)
            second = Stage(
                name="second", length=3, unit="steps", optimiser=SGDConfig(lr=0.01), schedule=MultiStepConfig()
            )
            return replace(recipe, stages=(first, replace(second, frozen=("backbone",))), ema=None)
        case "workers":
            return replace(recipe, data=replace(recipe.data, workers=2, group_by_aspect=True))
        case "several sizes, then one":
            sizes = MultiScaleConfig(sizes=(24, 32, 48), every=2, last=2, last_size=40)
            return replace(recipe, data=replace(recipe.data, multi_scale=sizes))
    raise AssertionError(case)


@pytest.mark.parametrize(
    "case",
    [
        "sgd",
        "adamw, bf16, accumulated",
        "fp16, scaled",
        "stopped between two stages",
        "workers",
        "several sizes, then one",
    ],
)
def test_resumed_run_equals_the_straight_one(case: str, data, tmp_path: Path) -> None:
    recipe = recipe_of(case)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train(recipe, *data, straight, build=build_toy, device="cpu", log="quiet")
    with pytest.raises(Killed):  # in step 8, after a checkpoint at 5 and rows for 3 and 6
        train(recipe, *data, broken, build=killed_at(8, recipe.accumulation), device="cpu", log="quiet")
    assert load_train_state(broken / "last.train")["step"] == 5
    torch.manual_seed(99)  # another process would start from anything
    result = train(None, *data, broken, build=build_toy, device="cpu", log="quiet", resume=True)
    assert result.steps == 8
    assert_same_bits(straight, broken)
    assert rows(straight) == rows(broken)
    assert (straight / "validation.csv").read_text() == (broken / "validation.csv").read_text()
    assert (straight / "best.safetensors").read_bytes() == (broken / "best.safetensors").read_bytes()


def test_faster_rcnn_resumes_to_the_bit(data, tmp_path: Path) -> None:
    """Its random anchors and regions come from seeds that belong to the place in the stream."""
    config = FasterRCNNConfig(
        backbone=DetNetConfig(depths=(1, 1, 1, 1, 1), width=8),
        neck=FPNConfig(channels=16),
        rpn=RPNConfig(
            anchors=AnchorConfig(sizes=((8,), (12,), (16,), (24,), (32,))),
            pre_nms=(40, 40),
            post_nms=(20, 20),
            samples=16,
        ),
        head=BoxHeadConfig(hidden=(16,), samples=8),
    )
    recipe = replace(recipe_of("sgd"), detector=config)

    def die_after_six(line: str) -> None:
        if line.startswith("step 6/"):
            raise Killed

    train(recipe, *data, tmp_path / "straight", device="cpu", log="quiet")
    with pytest.raises(Killed):
        train(recipe, *data, tmp_path / "broken", device="cpu", log=die_after_six)
    train(None, *data, tmp_path / "broken", device="cpu", log="quiet", resume=True)
    assert_same_bits(tmp_path / "straight", tmp_path / "broken")


def test_measured_box_targets_survive_a_resume(data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are measured once and kept: what resumes must neither measure anew nor forget them."""
    boxes = [np.array([[2, 2, 20, 18], [6, 4, 28, 22], [0, 0, 12, 12], [10, 8, 30, 20]], np.float32)] * 11
    files = [
        str(ProposalSet.build(index, boxes[: len(index)], [np.arange(4.0)] * len(index), "drawn").save(tmp_path / name))
        for index, name in zip(data, ("train.safetensors", "val.safetensors"), strict=True)
    ]
    recipe = replace(recipe_of("sgd"), detector=SMALL_FAST["fast_rcnn"])
    recipe = replace(recipe, data=replace(recipe.data, proposals=ProposalsConfig(train=files[0], val=files[1], most=4)))

    def die_after_six(line: str) -> None:
        if line.startswith("step 6/"):
            raise Killed

    train(recipe, *data, tmp_path / "straight", device="cpu", log="quiet")
    with pytest.raises(Killed):
        train(recipe, *data, tmp_path / "broken", device="cpu", log=die_after_six)
    before = load_train_state(tmp_path / "broken" / "last.train")
    measured = {name: value for name, value in before["model"].items() if ".statistics." in name}
    assert any(bool((value != value.flatten()[0]).any()) for value in measured.values()), "nothing was measured"
    monkeypatch.setattr(FastRCNN, "measure", lambda *args: pytest.fail("measured anew"))
    train(None, *data, tmp_path / "broken", device="cpu", log="quiet", resume=True)
    assert_same_bits(tmp_path / "straight", tmp_path / "broken")
    assert rows(tmp_path / "straight") == rows(tmp_path / "broken")
    after = load_train_state(tmp_path / "broken" / "last.train")["model"]
    assert all(torch.equal(after[name], value) for name, value in measured.items())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_checkpoint_and_the_command(number: signal.Signals, data, tmp_path: Path) -> None:
    class Interrupting(Toy):
        def forward(self, images, targets=None):
            if self.calls == 2:
                os.kill(os.getpid(), number)
            return super().forward(images, targets)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    lines: list[str] = []
    folder = tmp_path / "run"
    with pytest.raises(TrainingInterrupted) as caught:
        train(toy_recipe(8), *data, folder, build=Interrupting, device="cpu", log=lines.append, resume_command="RESUME")
    assert caught.value.step == 3
    assert lines[-1] == "stopped after step 3; resume with: RESUME"
    assert read_run(folder)["status"] == "interrupted"
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    train(None, *data, folder, build=build_toy, device="cpu", log="quiet", resume=True)
    train(toy_recipe(8), *data, tmp_path / "straight", build=build_toy, device="cpu", log="quiet")
    assert_same_bits(tmp_path / "straight", folder)
    assert rows(tmp_path / "straight") == rows(folder)
    assert len(read_run(folder)["sessions"]) == 2


def stages(*lengths: int, lr: float = 0.05, reset: tuple[str, ...] = ("head",)) -> tuple[Stage, ...]:
    """Stages of so many steps; each but the first begins with ``reset`` as the run began."""
    plain = {"unit": "steps", "optimiser": SGDConfig(lr=lr), "schedule": MultiStepConfig()}
    return tuple(
        Stage(name=f"stage {i}", length=n, reset=reset if i else (), **plain)  # type: ignore[arg-type]
        for i, n in enumerate(lengths)
    )


@pytest.mark.parametrize(
    ("changes", "stop"),
    [
        ({}, 4),
        ({}, 8),
        ({"stages": stages(4, 4)}, 4),
        ({"stages": stages(3, 1)}, 4),
        (
            {
                "stages": stages(4, 4, lr=1e-12, reset=()),
                "validation": ValidationConfig(every=2, unit="steps", patience=1),
            },
            4,
        ),
    ],
    ids=["amid the run", "at its end", "at the end of a stage", "at the end of a stage of one step", "patience ends"],
)
def test_a_stop_in_a_step_to_be_validated_puts_the_validation_off(
    changes: dict[str, Any], stop: int, data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the session that makes up for it is killed before it has saved."""
    recipe = toy_recipe(8, log_every=1, **changes)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train(recipe, *data, straight, build=build_toy, device="cpu", log="quiet")
    ended = read_run(straight)
    assert ended["step"] == (
        stop
        if recipe.validation.patience
        else sum(int(stage.length) for stage in recipe.stages if isinstance(stage, Stage))
    )
    with pytest.raises(TrainingInterrupted):
        train(recipe, *data, broken, build=build_toy, device="cpu", log=interrupts(stop))
    assert stop not in [row["step"] for row in rows(broken) if row["kind"] == "validation"]
    with monkeypatch.context() as patch:
        patch.setattr(Session, "save", killed)
        with pytest.raises(Killed):
            train(None, *data, broken, build=build_toy, device="cpu", log="quiet", resume=True)
    for _ in range(2):  # a finished run that is resumed stays as it is
        result = train(None, *data, broken, build=build_toy, device="cpu", log="quiet", resume=True)
        assert_same_bits(straight, broken)
        assert rows(straight) == rows(broken)
        assert (straight / "best.safetensors").read_bytes() == (broken / "best.safetensors").read_bytes()
        assert result.best == ended["best"]
        assert read_run(broken)["status"] == ended["status"]


def killed(*_: Any) -> None:
    raise Killed


def test_a_row_that_a_kill_cut_short_is_dropped(data, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recipe = recipe_of("sgd")
    with pytest.raises(Killed):
        train(recipe, *data, folder, build=killed_at(8), device="cpu", log="quiet")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    train(None, *data, folder, build=build_toy, device="cpu", log="quiet", resume=True)
    assert [(r["kind"], r["step"]) for r in read_rows(folder)] == [
        ("train", 3),
        ("validation", 4),
        ("train", 6),
        ("train", 8),
        ("validation", 8),
    ]


def test_resuming_names_what_does_not_fit(data, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train_index, val_index = data
    train(toy_recipe(2, ema=None), *data, folder, build=build_toy, device="cpu", log="quiet")

    def resume(recipe: Recipe | None, index=train_index) -> None:
        train(recipe, index, val_index, folder, build=build_toy, device="cpu", log="quiet", resume=True)

    with pytest.raises(InputError, match=r"another recipe \(seed: 0 there, 7 now\)"):
        resume(toy_recipe(2, ema=None, seed=7))
    with pytest.raises(InputError, match=r"not the data that the run was started on"):
        resume(None, train_index.subset(range(5)))
    with pytest.raises(InputError, match=r"nothing to resume: there is no last.train"):
        train(None, *data, tmp_path / "absent", build=build_toy, device="cpu", log="quiet", resume=True)
    whole = (folder / "last.train").read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        (folder / "last.train").write_bytes(whole[:size])
        with pytest.raises(InputError, match=rf"truncated or not a training state \({size} bytes"):
            resume(None)


KILLED = """
import os, signal, sys
import torch; torch.set_num_threads(1)
from pathlib import Path
from boxwright.config.recipe import CheckpointConfig
from boxwright.training.loop import train
from tests.support.toys import build_toy, toy_index, toy_recipe

here, folder, number, moment = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
replace, written = os.replace, 0

def replace_and_die(source, target, **options):
    global written
    written += Path(target).name.startswith("last.")
    last = written == number and Path(target).name.startswith("last.")
    if last and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target, **options)
    if last and moment == "after":
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = replace_and_die
recipe = toy_recipe(60, checkpoint=CheckpointConfig(every=7, unit="steps"))
train(recipe, toy_index(here / "a", 11), toy_index(here / "b", 4, seed=1), folder, build=build_toy, device="cpu",
      log="quiet", resume=(folder / "last.train").exists())
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_a_real_kill(tmp_path: Path) -> None:
    """SIGKILL around the two files of a checkpoint, several times in one run, each in a process of its own."""

    def run(folder: str, number: int = -1, moment: str = "never") -> int:
        """Train or resume until the given write of a file ``last.*``; return the exit status."""
        return start_python("-c", KILLED, str(tmp_path), str(tmp_path / folder), str(number), moment).wait()

    assert run("straight") == 0
    for number, moment in ((3, "before"), (3, "after"), (4, "before"), (4, "after"), (1, "before")):
        assert run("broken", number, moment) == -signal.SIGKILL
    assert run("broken") == 0
    assert_same_bits(tmp_path / "straight", tmp_path / "broken")
    assert rows(tmp_path / "straight") == rows(tmp_path / "broken")


def test_a_damaged_image_costs_no_step(data, tmp_path: Path) -> None:
    """The run saves its state before the step, or before the validation, and goes on once the image is repaired."""
    train_index, val_index = data
    recipe, run, saved = toy_recipe(8), tmp_path / "run", list[int]()
    whole = {path: path.read_bytes() for path in (train_index.path(3), val_index.path(1))}
    for path in whole:
        path.write_bytes(b"no image")
    for path, content in whole.items():
        given = None if run.exists() else recipe
        with pytest.raises(InputError, match=rf"{path.name}.*saved after step \d+.*resume with: boxwright train"):
            train(given, *data, run, build=build_toy, device="cpu", log="quiet", resume=given is None)
        path.write_bytes(content)
        saved.append(load_train_state(run / "last.train")["step"])
    assert saved[0] < 4
    assert saved[1] == 4, "the step of the first validation"
    train(None, *data, run, build=build_toy, device="cpu", log="quiet", resume=True)
    train(recipe, *data, tmp_path / "straight", build=build_toy, device="cpu", log="quiet")
    assert_same_bits(tmp_path / "straight", run)
    assert rows(tmp_path / "straight") == rows(run)
