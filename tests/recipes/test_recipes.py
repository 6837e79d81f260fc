"""Every shipped recipe is complete, fits its detector, comes back from JSON, and can be changed on a command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boxwright.config.config_tree import leaf_paths, to_tree
from boxwright.config.input_check import check_inputs
from boxwright.config.reading import dump_recipe, load_recipe
from boxwright.config.recipe import FitStage, Recipe, SGDConfig
from boxwright.detectors.build import build_detector
from boxwright.recipes import RECIPES, by_name, get_recipe, resolve_recipe
from boxwright.structures import Classes, InputError
from boxwright.training.optimisation.optimiser import build_optimiser, freeze
from boxwright.training.plan import make_plan

CLASSES = Classes.from_names(["a", "b", "c"])


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_shipped_recipes(recipe: Recipe) -> None:
    assert load_recipe(dump_recipe(recipe)) == recipe
    assert make_plan(recipe, 1000).total > 0
    with torch.device("meta"):
        detector = build_detector(recipe.detector, CLASSES)
    check_inputs(detector, recipe.data)
    for stage in recipe.stages:
        if isinstance(stage, FitStage):
            continue
        freeze(detector, stage.frozen)
        assert build_optimiser(stage.optimiser, detector, recipe.data.batch_size).param_groups


def test_two_recipes_with_one_name_are_refused() -> None:
    first, second, *_ = RECIPES.values()
    assert by_name([first, second]) == {first.name: first, second.name: second}
    with pytest.raises(InputError, match=f"two recipes are called '{first.name}'"):
        by_name([first, second, replace(second, name=first.name)])


def test_a_value_out_of_range_is_refused_on_construction() -> None:
    with pytest.raises(InputError, match=r"^SGDConfig\.lr = -1: should be greater than 0$"):
        SGDConfig(lr=-1)
    recipe = get_recipe("faster-rcnn-r50-fpn")
    with pytest.raises(InputError, match=r"^Recipe\.accumulation = 0: should be greater than or equal to 1$"):
        replace(recipe, accumulation=0)


def test_the_detnet_recipe_is_the_papers() -> None:
    """DetNet §4.1."""
    recipe = get_recipe("faster-rcnn-detnet59-fpn")
    stage = recipe.stages[0]
    plan = make_plan(recipe, 118_287)
    schedule = plan.stages[0].schedule
    lr = stage.optimiser.lr
    assert plan.total == 180_000
    assert recipe.data.batch_size == 16
    assert [lr * schedule(s) for s in (0, 500, 120_000, 160_000)] == pytest.approx([0.006, 0.02, 0.002, 0.0002])
    tree = to_tree(recipe)
    assert tree["data"]["train"][0] == {
        "kind": "resize",
        "short": [800],
        "long": 1333,
        "interpolation": "bilinear",
        "rounding": "nearest",
        "levels": "whole",
        "sampling": "sides",
    }
    assert tree["stages"][0]["optimiser"]["momentum"] == 0.9
    assert tree["stages"][0]["optimiser"]["weight_decay"] == 1e-4
    assert tree["detector"]["backbone"]["norm"] == "frozen_bn"
    assert tree["detector"]["backbone"]["freeze_at"] == 1
    assert (tree["detector"]["rpn"]["pre_nms"], tree["detector"]["rpn"]["post_nms"]) == ([12000, 6000], [2000, 1000])


def test_resnet_and_detnet_differ_in_the_backbone_alone() -> None:
    for one, other in (
        ("faster-rcnn-detnet59-fpn", "faster-rcnn-r50-fpn"),
        ("faster-rcnn-detnet59-fpn-modern", "faster-rcnn-r50-fpn-modern"),
        ("faster-rcnn-detnet-small-fpn", "faster-rcnn-resnet-small-fpn"),
    ):
        a, b = get_recipe(one), get_recipe(other)
        same = replace(b, name=a.name, detector=replace(b.detector, backbone=a.detector.backbone), source=a.source)
        assert same == a


def test_small_recipes_cost_the_same() -> None:
    from boxwright.backbones.build import build_backbone
    from boxwright.backbones.count import count_multiply_adds

    costs = [
        count_multiply_adds(build_backbone(get_recipe(f"faster-rcnn-{name}-small-fpn").detector.backbone), 224)
        for name in ("detnet", "resnet")
    ]
    assert max(costs) < 1.1 * min(costs)


def test_near_misses_are_named() -> None:
    with pytest.raises(InputError, match=r"no recipe 'faster-rcnn-r50-fp'; did you mean 'faster-rcnn-r50-fpn'\?$"):
        get_recipe("faster-rcnn-r50-fp")
    with pytest.raises(InputError, match=r"no recipe 'hourglass'; `boxwright models --kind detector` lists"):
        get_recipe("hourglass")


@pytest.mark.parametrize("path", ["stages.0.optimiser.lr", "data.batch_size", "detector.backbone.depths", "seed"])
def test_keys_of_the_documentation_exist(path: str) -> None:
    assert tuple(path.split(".")) in set(leaf_paths(to_tree(get_recipe("faster-rcnn-detnet-small-fpn"))))


def test_resolving_in_order(tmp_path: Path) -> None:
    overlay = tmp_path / "mine.toml"
    overlay.write_text("seed = 3\n[data]\nbatch_size = 2\n[stages.0]\nlength = 5\n[ema]\ndecay = 0.9\n")
    recipe = resolve_recipe("faster-rcnn-detnet-small-fpn", overlay, ["data.batch_size=6", "ema=none"])
    assert (recipe.seed, recipe.data.batch_size, recipe.stages[0].length, recipe.ema) == (3, 6, 5, None)
    other = resolve_recipe("faster-rcnn-detnet-small-fpn", None, ["detector.backbone.kind=resnet"])
    assert other.detector.backbone == type(other.detector.backbone)()

    whole = tmp_path / "own.toml"
    whole.write_text('base = "faster-rcnn-r50-fpn"\nname = "own"\nseed = 8\n')
    assert (resolve_recipe(str(whole)).name, resolve_recipe(str(whole), None, ["seed=9"]).seed) == ("own", 9)
    whole.write_text("seed = 8\n")
    with pytest.raises(InputError, match=r'own.toml: lacks the recipe that it changes; add a line such as base = "'):
        resolve_recipe(str(whole))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr=0.1", ["--set lr=0.1", "did you mean 'stages.0.optimiser.lr'"]),
        ("data.batchsize=2", ["data has no key 'batchsize'", "did you mean 'batch_size'"]),
        ("data.batch_size=0", ["data.batch_size = 0", "greater than or equal to 1"]),
        ("accumulation=3", ["data.batch_size = 8 is not a multiple of accumulation = 3"]),
        ("precision=bf61", ["precision = 'bf61'", "'bf16'"]),
        ("data.train.0.kind=resise", ["data.train.0.kind", "did you mean 'resize'"]),
        ("stages.0.optimiser.weight_decay=-1", ["weight_decay = -1", "greater than or equal to 0"]),
        ("stages.0.optimiser.lr=inf", ["lr = inf", "finite"]),
        ("detector.backbone.depths=[1,1]", ["detector.backbone.depths"]),
    ],
)
def test_slips_on_the_command_line(text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        resolve_recipe("faster-rcnn-detnet-small-fpn", None, [text])
    assert all(word in str(caught.value) for word in words), str(caught.value)
