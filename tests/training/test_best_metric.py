"""The metric of a run decides which checkpoint is best and when early stopping stops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from boxwright.checkpoints.checkpoint import load_checkpoint
from boxwright.config.recipe import ValidationConfig
from boxwright.data.index import DetectionIndex
from boxwright.structures import InputError
from boxwright.training.logging.run_log import read_rows
from boxwright.training.loop import TrainResult, train
from boxwright.training.tasks.best_metric import METRICS, check_masks, chosen_metric
from boxwright.training.tasks.detection import DetectionTask
from boxwright.training.tasks.task import Outcome
from tests.support.runs import without_pictures
from tests.support.toys import build_toy, toy_index, toy_recipe

SEQUENCE: dict[str, list[float | None]] = {
    "AP": [0.1, 0.2, 0.3, 0.2, 0.1, 0.1],
    "AP50": [0.2, 0.6, 0.5, 0.4, 0.5, 0.7],
    "AR100": [0.5, 0.4, 0.4, 0.4, 0.4, 0.4],
    "mask_AP": [0.1, 0.1, 0.1, 0.1, 0.4, 0.1],
    "AP of light": [0.1, 0.2, 0.3, 0.9, 0.1, 0.1],
}
"""Made-up validations after the steps 1 to 6."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[DetectionIndex, DetectionIndex]:
    folder = tmp_path_factory.mktemp("toys")
    return toy_index(folder / "train", 8), toy_index(folder / "val", 4, seed=1)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


def run(metric: str, data: Any, folder: Path, patience: int | None = None, **options: Any) -> TrainResult:
    every = ValidationConfig(every=1, unit="steps", metric=metric, patience=patience)
    return train(toy_recipe(6, validation=every), *data, folder, build=build_toy, device="cpu", log="quiet", **options)


@pytest.mark.parametrize(
    ("metric", "best", "stops"),
    [("AP", 3, 5), ("AP50", 6, 4), ("ap50", 6, 4), ("AR", 1, 3), ("mask AP", 5, 3), ("light", 4, 6)],
)
def test_the_metric_decides(metric: str, best: int, stops: int, data, tmp_path: Path, monkeypatch) -> None:
    def validate(task: DetectionTask, model: Any) -> Outcome:
        step = seen[-1] + 1
        seen.append(step)
        return Outcome({name: values[step - 1] for name, values in SEQUENCE.items()})

    monkeypatch.setattr(DetectionTask, "validate", validate)
    monkeypatch.setattr("boxwright.training.tasks.detection.check_masks", lambda *args: None)
    seen = [0]
    result = run(metric, data, tmp_path / "whole")
    assert result.best is not None
    assert result.best["step"] == best
    assert load_checkpoint(tmp_path / "whole").meta["step"] == best
    seen = [0]
    result = run(metric, data, tmp_path / "patient", patience=2)
    assert (result.steps, result.stopped_early) == (stops, stops < 6)


def test_the_ap_of_a_class_is_in_every_row(data, tmp_path: Path) -> None:
    result = run("light", data, tmp_path / "run")
    values = [row["AP of light"] for row in read_rows(tmp_path / "run") if row["kind"] == "validation"]
    assert len(values) == 6
    assert result.best is not None
    assert result.best["AP of light"] == max(values)
    text = (tmp_path / "run" / "README.txt").read_text()
    assert "best AP of light on the validation set" in text
    resumed = run("light", data, tmp_path / "run", resume=True)
    assert resumed.best == result.best


def test_another_name_is_refused_with_the_nearest(data, tmp_path: Path) -> None:
    for name, told in {
        "ligth": "'ligth': neither a metric nor a class of the data; did you mean 'light'?",
        "mAP50": "did you mean 'AP50'?",
        "zebra": "give one of AP, AP50, AP75, AR, mask AP, mask AP50, mask AP75, mask AR, or a class for its AP",
    }.items():
        with pytest.raises(InputError) as caught:
            run(name, data, tmp_path / "run")
        assert told in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_metric_that_is_undefined_on_the_validation_set_is_refused(data, tmp_path: Path) -> None:
    train_index, val = data
    dark = replace(val, labels=val.labels * 0)
    with pytest.raises(InputError, match=r"no object of the validation set .* is a light"):
        run("light", (train_index, dark), tmp_path / "run")
    assert chosen_metric("light", train_index, None).key == "AP of light"
    with pytest.raises(InputError, match="'mask AP': the detector gives no masks; train one that does"):
        run("mask_AP", data, tmp_path / "run")
    with pytest.raises(InputError, match=r"the validation set .* has no masks; choose AP50, or add the masks"):
        check_masks(METRICS["mask AP50"], True, val)
    check_masks(METRICS["mask AP50"], True, None)
    assert not (tmp_path / "run").exists()
