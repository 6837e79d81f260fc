"""The command ``boxwright models``."""

from pathlib import Path

import pytest

from boxwright.cli.app import main
from boxwright.recipes import RECIPES
from tests.support.command_line import RECIPE, fails, json_output


def test_models_is_one_array_of_rows(capsys: pytest.CaptureFixture[str]):
    rows = json_output(capsys, "models", "--json")
    assert isinstance(rows, list)
    assert {tuple(row) for row in rows} == {("name", "kind", "parameters", "multiply_adds", "input")}
    by_name = {row["name"]: row for row in rows}
    assert len(by_name) == len(rows)
    detnet = by_name["detnet59"]
    assert (detnet["kind"], detnet["parameters"], detnet["input"]) == ("backbone", 18_372_648, 224)
    assert round(detnet["multiply_adds"] / 1e9, 3) == 4.846
    detector = by_name["faster-rcnn-r50-fpn"]
    assert (detector["kind"], detector["input"]) == ("detector", [800, 1344])
    assert 41e6 < detector["parameters"] < 42e6


def test_models_as_a_table_of_one_kind(capsys: pytest.CaptureFixture[str]):
    assert main(["models", "--kind", "backbone"]) == 0
    text = capsys.readouterr().out
    assert "18,372,648" in text
    assert RECIPE not in text


def test_the_table_of_models_shows_whole_names_on_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["models"]) == 0
    assert set(RECIPES) <= set(capsys.readouterr().out.split())


def test_recipes_of_the_user_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('base = "faster-rcnn-r50-fpn"\nname = "mine"\n[detector.backbone]\ndepth = 101\n')
    rows = json_output(capsys, "models", "faster-rcnn-r50-fpn", mine, "--json")
    assert isinstance(rows, list)
    assert [row["name"] for row in rows] == ["faster-rcnn-r50-fpn", "mine"]
    assert rows[1]["parameters"] > rows[0]["parameters"]
    assert "faster-rcnn-r50-fpn" in fails(capsys, "models", "faster-rcnn-r50-fp")


def test_a_kind_holds_for_named_rows_too(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json_output(capsys, "models", "resnet50", RECIPE, "--kind", "detector", "--json")
    assert isinstance(rows, list)
    assert [row["name"] for row in rows] == [RECIPE]
