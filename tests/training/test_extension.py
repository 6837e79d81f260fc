"""A finished run is extended by a stage of its own: a new run by the extended recipe gives the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from boxwright.checkpoints.checkpoint import load_checkpoint, load_train_state
from boxwright.config.reading import load_recipe
from boxwright.config.recipe import CheckpointConfig, MultiStepConfig, Recipe, SGDConfig, Stage, ValidationConfig
from boxwright.data.index import DetectionIndex
from boxwright.structures import InputError
from boxwright.training.extension import Extension, extended
from boxwright.training.interrupt import TrainingInterrupted
from boxwright.training.logging.run_folder import read_run
from boxwright.training.loop import TrainResult, train
from boxwright.training.tasks.detection import DetectionTask
from boxwright.training.tasks.task import Outcome
from tests.support.resuming import Killed, assert_same_bits, interrupts, rows
from tests.support.runs import without_pictures
from tests.support.toys import Toy, build_toy, toy_index, toy_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[DetectionIndex, DetectionIndex]:
    folder = tmp_path_factory.mktemp("toys")
    return toy_index(folder / "train", 8), toy_index(folder / "val", 4, seed=1)  # an epoch is two steps


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


def recipe_of(epochs: float = 2, patience: int | None = None) -> Recipe:
    recipe = toy_recipe(
        4,
        checkpoint=CheckpointConfig(every=3, unit="steps"),
        validation=ValidationConfig(every=2, unit="steps", patience=patience),
    )
    return replace(recipe, stages=(replace(recipe.stages[0], length=epochs, unit="epochs"),))


def run(recipe: Recipe | None, data: Any, folder: Path, build: Any = build_toy, **options: Any) -> TrainResult:
    return train(recipe, *data, folder, build=build, device="cpu", **{"log": "quiet", **options})


def stored(folder: Path) -> Recipe:
    return load_recipe((folder / "recipe.json").read_bytes())


def killed_in_step(number: int) -> Any:
    class Fragile(Toy):
        trained = 0

        def forward(self, images, targets=None):
            if targets is not None and self.training:
                type(self).trained += 1
                if self.trained >= number:
                    raise Killed
            return super().forward(images, targets)

    return Fragile


def test_an_extended_run_is_a_run_of_the_extended_recipe(data, tmp_path: Path) -> None:
    """Also if it is killed in the extension, whose first checkpoint is that of its beginning, and resumed."""
    one, killed, straight = tmp_path / "one", tmp_path / "killed", tmp_path / "straight"
    lines: list[str] = []
    for folder in (one, killed):
        assert run(recipe_of(), data, folder).steps == 4
    torch.manual_seed(5)
    result = run(None, data, one, resume=True, extension=Extension(1.5), log=lines.append)
    assert result.steps == 7
    assert "extended by 1.5 epochs, the stage 'extension 1'" in lines
    assert "resuming after step 4" in lines
    recipe = stored(one)
    assert [stage.name for stage in recipe.stages] == ["train", "extension 1"]

    for step, saved in ((1, 4), (3, 6)):  # of the extension; the second of the resumed session
        extension = Extension(1.5) if step == 1 else None
        with pytest.raises(Killed):
            run(None, data, killed, killed_in_step(step), resume=True, extension=extension)
        assert load_train_state(killed / "last.train")["step"] == saved
    assert run(None, data, killed, resume=True).steps == 7
    run(recipe, data, straight)
    for folder in (one, killed):
        assert_same_bits(folder, straight)
        wanted, found = ([row for row in rows(f) if row["kind"] == "validation"] for f in (straight, folder))
        assert found == wanted
    record = read_run(killed)
    assert (record["status"], record["step"], len(record["sessions"])) == ("finished", 7, 4)


def test_the_rate_rises_again_and_falls_to_the_end(data, tmp_path: Path) -> None:
    stage = Stage(
        length=8, unit="steps", optimiser=SGDConfig(lr=0.1), schedule=MultiStepConfig(milestones=(4, 6), warmup=None)
    )
    recipe = replace(recipe_of(), stages=(stage,), log_every=1, ema=None)
    run(recipe, data, tmp_path / "run")
    run(None, data, tmp_path / "run", resume=True, extension=Extension(6, in_all=True, lr=0.01))
    rates = [row["lr"] for row in rows(tmp_path / "run") if row["kind"] == "train"]
    assert rates == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2 + [0.01, 0.01, 0.001, 0.0001])
    run(None, data, tmp_path / "run", resume=True, extension=Extension(0.5))
    stages = stored(tmp_path / "run").stages
    assert [(s.name, s.length, s.unit) for s in stages if isinstance(s, Stage)] == [
        ("train", 8, "steps"),
        ("extension 1", 2.0, "epochs"),
        ("extension 2", 0.5, "epochs"),
    ]
    assert rows(tmp_path / "run")[-1]["step"] == 13


def test_the_best_checkpoint_of_before_stays_until_it_is_beaten(data, tmp_path: Path, monkeypatch) -> None:
    values = {2: 0.5, 4: 0.3, 6: 0.4, 8: 0.6}

    def validate(task: DetectionTask, model: Any) -> Outcome:
        return Outcome({"AP": values[next(steps)]})

    monkeypatch.setattr(DetectionTask, "validate", validate)
    steps = iter(values)
    run(recipe_of(), data, tmp_path / "run")
    result = run(None, data, tmp_path / "run", resume=True, extension=Extension(1))
    assert result.best == {"step": 2, "epoch": 1.0, "AP": 0.5}
    assert load_checkpoint(tmp_path / "run").meta["step"] == 2
    result = run(None, data, tmp_path / "run", resume=True, extension=Extension(1))
    assert result.best == {"step": 8, "epoch": 4.0, "AP": 0.6}
    assert [row["AP"] for row in rows(tmp_path / "run") if row["kind"] == "validation"] == [*values.values()]


def test_a_run_that_patience_ended_keeps_its_schedule(data, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(DetectionTask, "validate", lambda task, model: Outcome({"AP": 0.5}))
    result = run(recipe_of(20, patience=2), data, tmp_path / "run")
    assert (result.steps, result.stopped_early) == (6, True)
    result = run(None, data, tmp_path / "run", resume=True, extension=Extension(1))
    assert (result.steps, result.stopped_early) == (8, False), "patience counts anew"
    first, second = stored(tmp_path / "run").stages
    assert isinstance(first, Stage)
    assert isinstance(second, Stage)
    assert (first.length, first.cut, second.length, second.cut) == (20, 6, 1, None)
    with pytest.raises(InputError, match=r"--epochs 4: the run has 4 epochs already; give more, or \+N for N more"):
        run(None, data, tmp_path / "run", resume=True, extension=Extension(4, in_all=True))


def test_a_run_before_its_end_is_finished_first(data, tmp_path: Path) -> None:
    recipe = replace(recipe_of(3), log_every=1)
    with pytest.raises(TrainingInterrupted):
        run(recipe, data, tmp_path / "run", log=interrupts(3))
    told = "--epochs 9: the run has 3 of its 6 steps; finish it with --resume, without --epochs, or give +N for N"
    with pytest.raises(InputError) as caught:
        run(None, data, tmp_path / "run", resume=True, extension=Extension(9, in_all=True))
    assert told in str(caught.value)
    assert stored(tmp_path / "run") == recipe
    with pytest.raises(TrainingInterrupted):
        run(None, data, tmp_path / "run", resume=True, extension=Extension(1), log=interrupts(7))
    with pytest.raises(InputError, match=r"7 of its 8 steps; .*: it has been extended already"):
        run(None, data, tmp_path / "run", resume=True, extension=Extension(1))
    assert run(None, data, tmp_path / "run", resume=True).steps == 8
    straight = replace(recipe, stages=stored(tmp_path / "run").stages)
    run(straight, data, tmp_path / "straight")
    assert_same_bits(tmp_path / "run", tmp_path / "straight")


def test_what_cannot_be_extended_is_refused(data, tmp_path: Path) -> None:
    first = recipe_of().stages[0]
    two = replace(recipe_of(), stages=(first, replace(first, name="second")))
    state = {"step": 4, "stream": {"epoch_size": 8}}
    with pytest.raises(InputError, match=r"--epochs \+1: toy has the stages train, second, which depend on each other"):
        extended(two, state, Extension(1))
    with pytest.raises(InputError, match="of an earlier version"):
        extended(recipe_of(), {"step": 4}, Extension(1))
    with pytest.raises(InputError, match="resume it"):
        run(recipe_of(), data, tmp_path / "new", extension=Extension(1))
    assert not (tmp_path / "new").exists()
