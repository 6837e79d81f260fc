"""Options of ``boxwright train`` that are short for settings of the recipe."""

from pathlib import Path
from typing import Any

import pytest

from boxwright.app.requests.fields import MoreEpochs
from boxwright.app.requests.training import TrainRequest
from boxwright.app.training.request_recipe import parse_size, requested_extension, requested_recipe
from boxwright.config.config_tree import to_tree
from boxwright.config.recipe import Recipe, scaled_lr
from boxwright.structures import InputError
from boxwright.training.extension import Extension

SMALL = "faster-rcnn-detnet-small-fpn"


def recipe_of(name: str = SMALL, **options: Any) -> Recipe:
    return requested_recipe(name, TrainRequest(data=Path("data"), **options))


def value_at(recipe: Recipe, path: str) -> Any:
    value = to_tree(recipe)
    for key in path.split("."):
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def changed(recipe: Recipe, base: Recipe) -> set[str]:
    """Paths of the values that differ."""

    def leaves(value: Any, path: str) -> dict[str, Any]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        if items is None:
            return {path: value}
        return {p: v for key, inner in items for p, v in leaves(inner, f"{path}.{key}".strip(".")).items()}

    one, other = leaves(to_tree(recipe), ""), leaves(to_tree(base), "")
    return {path for path in one.keys() | other.keys() if one.get(path) != other.get(path)}


@pytest.mark.parametrize(
    ("option", "value", "path", "more"),
    [
        ("batch_size", 4, "data.batch_size", set()),
        ("lr", 0.003, "stages.0.optimiser.lr", {"stages.0.optimiser.base_batch"}),
        ("precision", "bf16", "precision", set()),
        ("metric", "mask AP", "validation.metric", set()),
        ("patience", 3, "validation.patience", set()),
        ("seed", 7, "seed", set()),
        ("workers", 0, "data.workers", set()),
        ("epochs", 3, "stages.0.length", set()),
    ],
)
def test_an_option_changes_its_setting_alone(option: str, value: Any, path: str, more: set[str]) -> None:
    recipe = recipe_of(**{option: value})
    assert value_at(recipe, path) == value
    assert changed(recipe, recipe_of()) == {path, *more}


def test_epochs_with_a_plus_extend_a_run() -> None:
    resumed: dict[str, Any] = {"data": Path("data"), "resume": Path("run")}
    assert requested_extension(TrainRequest(**resumed)) is None
    assert requested_extension(TrainRequest(data=Path("data"), epochs=3.0)) is None
    assert requested_extension(TrainRequest(**resumed, epochs=30.0)) == Extension(30.0, in_all=True)
    assert requested_extension(TrainRequest(**resumed, epochs=MoreEpochs(10), lr=0.1)) == Extension(10.0, lr=0.1)
    with pytest.raises(InputError, match="--epochs 0: give a number above 0"):
        requested_extension(TrainRequest(**resumed, epochs=MoreEpochs(0)))
    with pytest.raises(InputError, match=r"--epochs \+3: extends a run; name it with --resume, or give --epochs 3"):
        recipe_of(epochs=MoreEpochs(3))


def test_an_option_comes_after_file_and_set(tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text("precision = 'fp16'\n[data]\nbatch_size = 2\n[validation]\npatience = 9\n")
    recipe = recipe_of(
        config=config, sets=("data.batch_size=6", "stages.0.optimiser.lr=1"), batch_size=12, lr=0.5, patience=4
    )
    assert (recipe.data.batch_size, recipe.stages[0].optimiser.lr) == (12, 0.5)  # type: ignore[union-attr]
    assert (recipe.validation.patience, recipe.precision) == (4, "fp16")


def test_the_learning_rate_is_that_of_the_command_whatever_the_batch_size() -> None:
    stage = recipe_of(lr=0.003, batch_size=2).stages[0]
    assert scaled_lr(stage.optimiser, 2) == 0.003  # type: ignore[union-attr]
    scaled = recipe_of(batch_size=2).stages[0].optimiser  # type: ignore[union-attr]
    assert scaled.base_batch == 8
    assert scaled_lr(scaled, 2) == pytest.approx(scaled.lr / 4)


@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 1), (2, 2), (3, 1), (6, 2)])
def test_micro_batches_divide_the_batch(batch_size: int, accumulation: int) -> None:
    assert recipe_of("faster-rcnn-vgg16").accumulation == 2
    recipe = recipe_of("faster-rcnn-vgg16", batch_size=batch_size)
    assert (recipe.data.batch_size, recipe.accumulation) == (batch_size, accumulation)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (SMALL, {"batch_size": 0}, "--batch-size 0: give at least 1"),
        (
            SMALL,
            {"batch_size": 6, "sets": ("accumulation=4",)},
            r"--batch-size 6: .* multiple of accumulation = 4",
        ),
        (SMALL, {"lr": 0.0}, "--lr 0: give a number above 0"),
        (SMALL, {"lr": float("nan")}, "--lr nan: give a number above 0"),
        (SMALL, {"epochs": float("inf")}, "--epochs inf: give a number above 0"),
        (SMALL, {"patience": 0}, "--patience 0: validation.patience = 0: should be"),
        (SMALL, {"seed": -1}, "--seed -1: seed = -1: should be"),
        (SMALL, {"workers": -1}, "--workers -1: data.workers = -1: should be"),
        ("rcnn-small", {"patience": 3}, "validation.patience = 3 would end the run before its last stage"),
        ("faster-rcnn-c4-small-4step", {"lr": 0.1}, r"--lr: .* has the stages .*--set stages.0.optimiser.lr=... for"),
        (
            "faster-rcnn-c4-small-4step",
            {"epochs": 1},
            r"--epochs: .*--set stages.0.length=... for each",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_its_option(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe_of(name, **options)


@pytest.mark.parametrize(
    ("text", "size"), [("320", 320), (" 320 ", 320), ("480x640", (480, 640)), ("480 X 640", (480, 640))]
)
def test_sizes_are_read(text: str, size: int | tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "31", "9000", "-320", "320x", "480,640", "320px", "1e3", "9" * 5000])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--size .*: (give a side|\d+ pixels; give a side from 32 to 8192)"):
        recipe_of(size=text)


def test_the_size_is_that_of_the_recipe_with_all_other_changes() -> None:
    recipe = recipe_of(size="320", sets=("data.train.0.size=[128, 128]", "data.eval.0.size=[256, 256]"))
    assert recipe.data.eval[0].size == (320, 320)  # type: ignore[union-attr]
    assert recipe.data.train[0].size == (160, 160)  # type: ignore[union-attr]


def test_a_start_from_random_weights_trains_all_of_the_backbone() -> None:
    """Settings that spare ImageNet weights would leave random numbers as they are."""
    recipe = recipe_of("faster-rcnn-lite0-fpn", backbone_weights="none")
    groups = {f"stages.0.optimiser.groups.0.{key}" for key in ("prefix", "lr", "weight_decay")}
    settings = {"backbone_weights", "detector.backbone.freeze_at", "detector.backbone.norm"}
    assert changed(recipe, recipe_of("faster-rcnn-lite0-fpn")) == settings | groups
    assert (recipe.detector.backbone.norm, recipe.detector.backbone.freeze_at) == ("bn", 0)  # type: ignore[union-attr]
    assert recipe.stages[0].optimiser.groups == ()  # type: ignore[union-attr]
    kept = recipe_of("faster-rcnn-lite0-fpn", backbone_weights="none", sets=["detector.backbone.freeze_at=1"])
    assert kept.detector.backbone.freeze_at == 1, "an override comes after"  # type: ignore[union-attr]
    assert recipe_of(backbone_weights="none").detector == recipe_of().detector
