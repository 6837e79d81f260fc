"""Stages that fit: R-CNN's SVMs and box regression behind its fine-tuning, resumed anywhere, refused early."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from boxwright.app.training.request_recipe import with_epochs
from boxwright.checkpoints.checkpoint import load_checkpoint, load_train_state
from boxwright.checkpoints.opening import load_detector
from boxwright.config.reading import load_recipe
from boxwright.config.recipe import (
    AdamWConfig,
    CheckpointConfig,
    EMAConfig,
    FitStage,
    MultiStepConfig,
    Recipe,
    SGDConfig,
    Stage,
    ValidationConfig,
)
from boxwright.data.index import DetectionIndex
from boxwright.data.proposals.files import ProposalsConfig
from boxwright.data.transforms.configs import FlipConfig
from boxwright.detectors.rcnn import RCNN
from boxwright.heads.regions.fits.ridge import RidgeFitConfig
from boxwright.heads.regions.fits.svm import SVMFitConfig
from boxwright.structures import Classes, InputError
from boxwright.training.interrupt import TrainingInterrupted
from boxwright.training.loop import train
from boxwright.training.plan import make_plan
from tests.support.resuming import Killed, assert_same_bits, interrupts, rows
from tests.support.runs import without_pictures
from tests.support.toys import save_proposals, toy_index, toy_recipe
from tests.support.two_stage_cases import SMALL_FAST, SMALL_RCNN

pytest.importorskip("sklearn.svm", reason="the extra `rcnn` is not installed")

TUNING = Stage(name="tuning", length=2, unit="steps", optimiser=SGDConfig(lr=0.01), schedule=MultiStepConfig())
SVMS = FitStage(name="svms", fit=SVMFitConfig(retrain=10))
BOXES = FitStage(name="boxes", fit=RidgeFitConfig(most=20))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[DetectionIndex, DetectionIndex, ProposalsConfig]:
    folder = tmp_path_factory.mktemp("toys")
    index, val = toy_index(folder / "train", 6), toy_index(folder / "val", 2, seed=1)
    files = [save_proposals(one, folder / f"{name}.safetensors") for one, name in ((index, "train"), (val, "val"))]
    return index, val, ProposalsConfig(train=files[0], val=files[1], most=16)


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


def rcnn_recipe(data: Any, **changes: Any) -> Recipe:
    recipe = toy_recipe(
        detector=replace(SMALL_RCNN["rcnn"], chunk=16),
        stages=(TUNING, SVMS, BOXES),
        ema=None,
        log_every=1,
        validation=ValidationConfig(every=1000, unit="steps", loss=False),
    )
    recipe = replace(recipe, data=replace(recipe.data, proposals=data[2], train=(FlipConfig(),), eval=()))
    return replace(recipe, **changes)


def test_plan_of_three_stages(data: Any) -> None:
    plan = make_plan(rcnn_recipe(data), 6)
    assert [stage.steps for stage in plan.stages] == [2, 12, 6], "the SVMs take two passes"
    assert (plan.total, plan.batches, plan.ends) == (20, 2, (2, 14, 20))
    assert [step for step in range(1, 21) if plan.validates(step)] == [2, 14, 20]
    assert [plan.epoch(step) for step in (2, 8, 20)] == pytest.approx([8 / 6, 8 / 6 + 1, 8 / 6 + 3])
    longer = with_epochs(rcnn_recipe(data), 3)
    assert [make_plan(longer, 6).stages[i].steps for i in range(3)] == [5, 12, 6]


def test_three_stages_in_one_run(data: Any, tmp_path: Path) -> None:
    said: list[str] = []
    recipe = rcnn_recipe(data, ema=EMAConfig(decay=0.9, ramp=4))
    result = train(recipe, data[0], data[1], tmp_path / "run", device="cpu", log=said.append)
    detector = load_detector(result.last_checkpoint)
    assert isinstance(detector, RCNN)
    assert detector.unfitted() == ()
    assert bool(detector.svm_weight.any(1).all())
    assert detector.preparation.most_proposals == 16
    state = load_train_state(tmp_path / "run" / "last.train")
    for name in ("svm_weight", "svm_bias", "box_weight", "box_bias"):
        assert torch.equal(state["model"][name], state["ema"]["module"][name]), "all networks get what was fitted"
    log = rows(tmp_path / "run")
    assert [row["step"] for row in log if row["kind"] == "validation"] == [2, 14, 20]
    seen = [row for row in log if row["kind"] == "train"]
    assert [row["step"] for row in seen] == list(range(1, 21))
    assert sum(row.get("positives", 0) for row in seen) == data[0].num_boxes
    assert seen[8]["hard_negatives"] > 0
    assert seen[-1]["pairs"] > 0
    assert seen[-1]["lr"] is seen[-1]["loss"] is None
    assert result.best is not None
    assert result.best["step"] == 20, "only the last stage's detector is whole"
    assert any("SVMs of 2 classes: 6 positives" in line for line in said)
    assert any("box regression from" in line for line in said)
    assert any("fitting svms:" in line for line in said)
    assert load_checkpoint(result.last_checkpoint).recipe == recipe


@pytest.mark.parametrize("saved", [1, 2, 5, 8, 9, 14, 17, 20])
def test_resuming_a_fit_anywhere_gives_the_same_bits(saved: int, straight: Path, data: Any, tmp_path: Path) -> None:
    """In each stage and between them: of the SVMs' passes too."""
    recipe = rcnn_recipe(data, checkpoint=CheckpointConfig(every=saved, unit="steps"))

    def die(line: str) -> None:
        if line.startswith(f"step {saved + 1}/"):
            raise Killed

    broken = tmp_path / "broken"
    if saved < 20:
        with pytest.raises(Killed):
            train(recipe, data[0], None, broken, device="cpu", log=die)
        assert load_train_state(broken / "last.train")["step"] == saved
    else:
        train(recipe, data[0], None, broken, device="cpu", log="quiet")
    torch.manual_seed(99)
    train(None, data[0], None, broken, device="cpu", log="quiet", resume=True)
    one, other = (load_train_state(folder / "last.train")["model"] for folder in (straight, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert rows(straight) == rows(broken)


def test_a_stop_at_the_end_of_each_stage_puts_its_validation_off(data: Any, tmp_path: Path) -> None:
    """The next stage must not have begun when the detector of this one is validated."""
    recipe = rcnn_recipe(data)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train(recipe, *data[:2], straight, device="cpu", log="quiet")
    for resume, stop in enumerate((2, 14, 20)):
        given = None if resume else recipe
        with pytest.raises(TrainingInterrupted):
            train(given, *data[:2], broken, device="cpu", log=interrupts(stop), resume=resume > 0)
    result = train(None, *data[:2], broken, device="cpu", log="quiet", resume=True)
    assert result.best is not None
    assert result.best["step"] == 20
    assert rows(straight) == rows(broken)
    assert_same_bits(straight, broken)
    assert (straight / "best.safetensors").read_bytes() == (broken / "best.safetensors").read_bytes()


@pytest.fixture(scope="module")
def straight(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "run"
    recipe = rcnn_recipe(data, checkpoint=CheckpointConfig(every=20, unit="steps"))
    train(recipe, data[0], None, folder, device="cpu", log="quiet")
    return folder


def test_workers_change_nothing(straight: Path, data: Any, tmp_path: Path) -> None:
    recipe = rcnn_recipe(data)
    recipe = replace(recipe, data=replace(recipe.data, workers=1))
    train(recipe, data[0], None, tmp_path / "run", device="cpu", log="quiet")
    one, other = (load_train_state(folder / "last.train")["model"] for folder in (straight, tmp_path / "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_wrong_is_said_before_anything_is_trained(data: Any, tmp_path: Path, monkeypatch: Any) -> None:
    def refuses(recipe: Recipe, words: str, index: DetectionIndex = data[0]) -> None:
        with pytest.raises(InputError, match=words):
            train(recipe, index, None, tmp_path / "run", device="cpu", log="quiet")
        assert not (tmp_path / "run").exists()

    whole = rcnn_recipe(data)
    refuses(replace(whole, stages=(TUNING, BOXES)), r"no stage fits 'svm'.*kind = \"fit\"")
    refuses(replace(whole, stages=(TUNING,)), "no stage fits 'svm' and 'boxes'")
    softmax = replace(whole.detector, score="softmax", regress=False)  # type: ignore[type-var]
    refuses(replace(whole, detector=softmax), r"fits 'svm', but detector\.score = 'softmax'")
    refuses(replace(whole, detector=SMALL_FAST["fast_rcnn"]), "fits 'svm', but a fast_rcnn has nothing to be fitted")
    more = replace(data[0], classes=Classes.from_names(["dark", "light", "absent"]))
    refuses(whole, r"class 'absent' has no object in the training set", more)
    unset = replace(whole, data=replace(whole.data, proposals=ProposalsConfig()))
    refuses(unset, r"data\.proposals\.train is not set")
    real = importlib.import_module

    def without_sklearn(name: str, *more: Any) -> Any:
        return real("no_such_module" if "sklearn" in name else name, *more)

    monkeypatch.setattr(importlib, "import_module", without_sklearn)
    refuses(whole, r"pip install 'boxwright\[rcnn\]'")
    with pytest.raises(InputError, match=r"validation\.patience = 3 would end the run"):
        replace(whole, validation=ValidationConfig(patience=3))


def test_recipes_of_before_there_were_fits_still_load() -> None:
    tree = json.loads(json.dumps(toy_tree := _tree(toy_recipe())))
    del tree["stages"][0]["kind"]
    assert load_recipe(json.dumps(tree)) == load_recipe(json.dumps(toy_tree))
    tree["stages"][0]["kind"] = "fits"
    with pytest.raises(InputError, match=r"stages\.0\.kind = 'fits'.*did you mean 'fit'"):
        load_recipe(json.dumps(tree))


def _tree(recipe: Recipe) -> dict[str, Any]:
    from boxwright.config.config_tree import to_tree

    return to_tree(recipe)


def test_overfits_a_few_pictures(tmp_path: Path) -> None:
    """The softmax learns eight pictures, and SVMs and regression on top of it are no worse."""
    index = toy_index(tmp_path / "toys", 8, size=(48, 64))
    file = save_proposals(index, tmp_path / "p.safetensors", count=24)
    proposals = ProposalsConfig(train=file, val=file, most=24)
    tuning = replace(TUNING, length=40, optimiser=AdamWConfig(lr=2e-3))
    recipe = rcnn_recipe((None, None, proposals), stages=(tuning, SVMS, BOXES))
    train(recipe, index, index, tmp_path / "run", device="cpu", log="quiet")
    softmax, svms, boxes = (row["AP50"] for row in rows(tmp_path / "run") if row["kind"] == "validation")
    assert softmax > 0.5
    assert svms >= 0.9
    assert boxes >= 0.9
