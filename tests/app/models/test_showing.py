"""Recipes as TOML and their differences: what is printed is read back as the same recipe."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from boxwright.app.models.showing import compare_recipes, diff_lines, read_recipe, recipe_toml
from boxwright.cli.app import main
from boxwright.config.overlay import Overlay, apply_overlays
from boxwright.config.reading import dump_recipe
from boxwright.recipes import RECIPES, resolve_recipe
from tests.support.command_line import fails

SMALL = "faster-rcnn-detnet-small-fpn"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back(name: str) -> None:
    """From its own recipe, and from one that differs in everything; only names of published metrics add up there."""
    recipe = RECIPES[name]
    tree = tomllib.loads(recipe_toml(recipe))
    assert tree.pop("base") == name
    overlay = [Overlay("my.toml", tree)]
    assert apply_overlays(recipe, overlay) == recipe
    other = next(r for r in RECIPES.values() if r.detector.kind != recipe.detector.kind)
    back = apply_overlays(other, overlay)
    assert replace(back, source=recipe.source) == recipe


@pytest.mark.parametrize(
    "changes", [[], ["data.batch_size=3", "ema=none", 'source.note="a \'note\' of \\"ü\\" \\u007f"']]
)
def test_the_file_serves_as_recipe_and_as_config(changes: list[str], tmp_path: Path, capsys) -> None:
    sets = [word for change in changes for word in ("--set", change)]
    assert main(["recipe", "show", SMALL, *sets]) == 0
    file = tmp_path / "my.toml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    expected = resolve_recipe(SMALL, sets=changes)
    assert resolve_recipe(str(file)) == expected
    assert resolve_recipe(SMALL, file) == expected
    message = fails(capsys, "recipe", "show", "ssd300-voc", "--config", file)
    assert (
        f"my.toml: changes the recipe '{SMALL}', not 'ssd300-voc'; give the file in place of the recipe's name"
        in message
    )


def test_show_reads_what_holds_a_recipe(tmp_path: Path, capsys) -> None:
    recipe = resolve_recipe(SMALL, sets=["seed=8", "name=mine"])
    (tmp_path / "recipe.json").write_text(dump_recipe(recipe))
    assert read_recipe(str(tmp_path)) == recipe
    assert read_recipe(str(tmp_path / "recipe.json"), sets=["seed=9"]) == replace(recipe, seed=9)
    file = tmp_path / "shown.toml"
    file.write_text(recipe_toml(recipe))
    assert resolve_recipe(str(file)) == replace(recipe, source=resolve_recipe(str(file)).source)
    (tmp_path / "recipe.json").write_text("{")
    assert "recipe.json: not valid JSON" in fails(capsys, "recipe", "show", tmp_path)
    assert f"did you mean '{SMALL}'" in fails(capsys, "recipe", "show", SMALL[:-1])


def test_show_as_json(capsys) -> None:
    assert main(["recipe", "show", SMALL, "--set", "seed=4", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert (tree["name"], tree["seed"], tree["detector"]["kind"]) == (SMALL, 4, "faster_rcnn")


def test_diff_shows_what_differs(tmp_path: Path, capsys) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(f"base = '{SMALL}'\nseed = 3\nclip_norm = 'none'\n[data]\nbatch_size = 4\n[ema]\ndecay = 0.5\n")
    assert main(["recipe", "diff", SMALL, str(mine)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"--- {SMALL}",
        f"+++ {mine}",
        "-data.batch_size = 8",
        "+data.batch_size = 4",
        "-ema.decay = 0.998",
        "+ema.decay = 0.5",
        "-clip_norm = 10.0",
        '+clip_norm = "none"',
        "-seed = 0",
        "+seed = 3",
    ]
    assert main(["recipe", "diff", SMALL, str(mine), "--json"]) == 0
    changes = json.loads(capsys.readouterr().out)
    assert changes[0] == {"setting": "data.batch_size", "first": "8", "second": "4"}
    assert main(["recipe", "diff", SMALL, SMALL]) == 0
    assert capsys.readouterr().out == f"{SMALL} and {SMALL} are the same\n"


def test_settings_of_one_recipe_alone_stand_where_they_belong() -> None:
    changes = compare_recipes(RECIPES["retinanet-small"], RECIPES["retinanet-small-modern"])
    lines = diff_lines(("a", "b"), changes)
    assert "-stages.0.schedule.milestones = [10, 13]" in lines
    assert "+stages.0.schedule.final = 0.01" in lines
    places = [line[1:].split(".")[0].split(" ")[0] for line in lines[2:]]
    assert places == sorted(places, key=["name", "detector", "data", "stages", "ema", "source"].index)


def test_list_prints_the_names(capsys) -> None:
    assert main(["recipe", "list"]) == 0
    assert set(capsys.readouterr().out.split()) == set(RECIPES)
    assert main(["recipe", "list", "RetinaNet", "small", "--json"]) == 0
    names = json.loads(capsys.readouterr().out)
    assert set(names) == {name for name in RECIPES if "retinanet" in name and "small" in name}
    assert "no recipe has 'retina' and 'yolo' in its name" in fails(capsys, "recipe", "list", "retina", "yolo")
