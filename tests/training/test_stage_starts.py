"""Stages that begin with parts as they began the run, or with proposals of the network before: 4-step training."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from boxwright.config.recipe import CheckpointConfig, MultiStepConfig, Recipe, SGDConfig, Stage
from boxwright.data.loading.workers import SampleError
from boxwright.detectors.build import build_detector
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4
from boxwright.recipes.faster_rcnn_c4 import four_steps
from boxwright.structures import Classes, InputError
from boxwright.training.loop import train
from boxwright.training.stages.gradient import GradientStage
from tests.support.resuming import Killed, assert_same_bits
from tests.support.runs import without_pictures
from tests.support.toys import build_toy, toy_index, toy_recipe
from tests.support.two_stage_cases import SMALL_C4

LR = SGDConfig(lr=0.01)
STEP = Stage(length=2, unit="steps", optimiser=LR, schedule=MultiStepConfig())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("toys")
    return toy_index(folder / "train", 8), None


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


def four_step_recipe(**changes: Any) -> Recipe:
    config = SMALL_C4["faster_rcnn_c4"]
    config = replace(config, rpn=replace(config.rpn, assign=replace(config.rpn.assign, straddle=None)))
    recipe = toy_recipe(2, detector=config, stages=four_steps(STEP, STEP), ema=None)
    return replace(recipe, **{"checkpoint": CheckpointConfig(every=3, unit="steps")} | changes)


class Watched(FasterRCNNC4):
    """Notes its weights before every training step, the losses it returns, and the proposals it is given."""

    seen: ClassVar[list[tuple[dict[str, Tensor], tuple[str, ...], Any]]] = []

    def forward(self, images: Any, targets: Any = None, proposals: Any = None) -> Any:
        before = copy.deepcopy(self.state_dict())
        out = super().forward(images, targets, proposals)
        if targets is not None and self.training:
            self.seen.append((before, tuple(out), proposals))
        return out


def parts_changed(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    return {name.split(".")[0] for name, tensor in one.items() if not torch.equal(tensor, other[name])}


def test_the_four_steps(data: Any, tmp_path: Path) -> None:
    Watched.seen = []
    train(four_step_recipe(), *data, tmp_path / "run", build=Watched, device="cpu", log="quiet")  # type: ignore[arg-type]
    weights, losses, given = zip(*Watched.seen, strict=True)
    start = weights[0]
    rpn, head = ("rpn_objectness", "rpn_box"), ("classification", "box")
    assert losses == (rpn, rpn, head, head, rpn, rpn, head, head), "nothing is computed that nothing learns from"
    assert [g is not None for g in given] == [False, False, True, True, False, False, False, False]
    assert parts_changed(start, weights[1]) == {"backbone", "rpn"}
    assert parts_changed(start, weights[2]) == {"rpn"}, "step 2 begins with the backbone that the run began with"
    assert parts_changed(weights[2], weights[3]) == {"backbone", "head"}
    assert parts_changed(start, weights[4]) == {"backbone", "head"}, "step 3 begins with new proposal layers"
    assert parts_changed(weights[4], weights[5]) == {"rpn"}, "on fixed convolutions, running statistics too"
    assert parts_changed(weights[6], weights[7]) == {"head"}


def test_step_two_takes_the_proposals_of_the_network_before_it(data: Any, tmp_path: Path) -> None:
    Watched.seen = []
    captured: list[Any] = []

    class Proposing(Watched):
        def propose(self, images: Any) -> Any:
            found = super().propose(images)
            captured.append((copy.deepcopy(self.state_dict()), self.training, found))
            return found

    train(four_step_recipe(), *data, tmp_path / "run", build=Proposing, device="cpu", log="quiet")  # type: ignore[arg-type]
    assert len(captured) == 2, "one for each step of the second stage"
    (first, training, found), (second, _, _) = captured
    assert not training
    assert parts_changed(first, second) == set(), "it does not learn"
    assert parts_changed(first, Watched.seen[0][0]) == {"backbone", "rpn"}, "it has what the first stage learnt"
    assert torch.equal(found.boxes, Watched.seen[2][2].boxes)


@pytest.mark.parametrize("saved", [2, 3, 4])
def test_resuming_at_any_place_gives_the_same_bits(saved: int, data: Any, tmp_path: Path) -> None:
    """Between two stages, within the one with a proposer, and before a reset."""
    recipe = four_step_recipe(checkpoint=CheckpointConfig(every=saved, unit="steps"), log_every=1)

    def die(line: str) -> None:
        if line.startswith(f"step {saved + 1}/"):
            raise Killed

    train(recipe, *data, tmp_path / "straight", device="cpu", log="quiet")
    with pytest.raises(Killed):
        train(recipe, *data, tmp_path / "broken", device="cpu", log=die)
    torch.manual_seed(99)
    train(None, *data, tmp_path / "broken", device="cpu", log="quiet", resume=True)
    assert_same_bits(tmp_path / "straight", tmp_path / "broken")


def test_a_reset_reaches_the_average(data: Any, tmp_path: Path) -> None:
    stages = (replace(STEP, length=3), replace(STEP, name="again", length=1, reset=("backbone",), frozen=("backbone",)))
    recipe = toy_recipe(stages=stages)
    result = train(recipe, *data, tmp_path / "run", build=build_toy, device="cpu", log="quiet")
    torch.manual_seed(recipe.seed)
    fresh = build_toy(None, Classes.from_names(["dark", "light"])).state_dict()
    from boxwright.checkpoints.checkpoint import load_checkpoint

    kept = load_checkpoint(result.last_checkpoint).state
    torch.testing.assert_close(kept["backbone.conv.weight"], fresh["backbone.conv.weight"])
    assert not torch.equal(kept["head.weight"], fresh["head.weight"])


def test_given_proposals_are_the_regions_learnt_from() -> None:
    from tests.support.batches import example_images, example_targets

    torch.manual_seed(0)
    config = SMALL_C4["faster_rcnn_c4"]
    detector = build_detector(config, Classes.from_names(["a", "b", "c"])).eval()
    assert isinstance(detector, FasterRCNNC4)
    images, targets = example_images(2, 128, 160), example_targets()
    everything = detector(images, targets)
    given = detector(images, targets, detector.propose(images))
    assert list(given) == ["classification", "box"]
    torch.testing.assert_close(given, {name: everything[name] for name in given})
    other = detector.propose(images)._replace(boxes=torch.rand(2, 20, 4) * 60 + torch.tensor([0, 0, 60.0, 60.0]))
    assert detector(images, targets, other)["classification"] != given["classification"]


def test_what_cannot_be_is_named(data: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"stages\.0\.proposals = 'before': no stage is trained to propose yet"):
        toy_recipe(stages=(replace(STEP, proposals="before"),))
    for stage, words in (
        (replace(STEP, reset=("backbon",)), r"stages\.1\.reset: no parameter's name begins with 'backbon'.*'backbone'"),
        (replace(STEP, proposals="before"), r"stages\.1\.proposals = 'before': a faster_rcnn takes no proposals"),
    ):
        with pytest.raises(InputError, match=words):
            train(toy_recipe(stages=(STEP, stage)), *data, tmp_path / "run", build=build_toy, device="cpu", log="quiet")


def test_an_unreadable_image_at_the_start_of_a_stage_saves_nothing(data: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """The parts of the new stage are reset by then, and a resumed run would take its proposals from them."""
    folder, recipe = tmp_path / "run", four_step_recipe(checkpoint=CheckpointConfig(every=2, unit="steps"))
    take_step, saved = GradientStage.take_step, []

    def fail(self: Any, step: int) -> Any:
        if step == 2 and not saved:  # the first step of the second stage
            saved.append((folder / "last.train").read_bytes())
            raise SampleError("bad.jpg: damaged")
        return take_step(self, step)

    monkeypatch.setattr(GradientStage, "take_step", fail)
    options: dict[str, Any] = {"build": FasterRCNNC4, "device": "cpu", "log": "quiet"}
    with pytest.raises(InputError, match=r"bad.jpg: damaged. The run is saved after step 2. Repair that file"):
        train(recipe, *data, folder, **options)
    assert (folder / "last.train").read_bytes() == saved[0]
    train(recipe, *data, folder, resume=True, **options)
    train(recipe, *data, tmp_path / "straight", **options)
    assert_same_bits(folder, tmp_path / "straight")
