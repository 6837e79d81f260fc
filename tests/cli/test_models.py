"""The command ``boxwright models``."""

import re
from pathlib import Path

import pytest

from boxwright.app.models.table import model_rows
from boxwright.cli.app import main
from boxwright.recipes import RECIPES
from tests.support.command_line import RECIPE, fails, json_output

KEYS = ("name", "kind", "parameters", "multiply_adds", "input", "family", "role", "description", "published")
WIDTH = 80


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[list[str], list[str]]:
    """Run ``models``; return its lines, none of which may be wider than the terminal, and the names in them."""
    capsys.readouterr()
    assert main(["models", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    known = {row["name"] for row in model_rows()}
    return lines, [words[0] for line in lines if line.startswith("  ") and (words := line.split())[0] in known]


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))


def test_models_is_one_array_of_rows(capsys: pytest.CaptureFixture[str]):
    rows = json_output(capsys, "models", "--json")
    assert isinstance(rows, list)
    assert {tuple(row) for row in rows} == {(*KEYS, "measured_on")}
    by_name = {row["name"]: row for row in rows}
    assert len(by_name) == len(rows)
    assert set(RECIPES) <= set(by_name)
    detnet = by_name["detnet59"]
    assert (detnet["kind"], detnet["parameters"], detnet["input"]) == ("backbone", 18_372_648, 224)
    assert round(detnet["multiply_adds"] / 1e9, 3) == 4.846
    detector = by_name["faster-rcnn-r50-fpn"]
    assert (detector["kind"], detector["input"]) == ("detector", [800, 1344])
    assert 41e6 < detector["parameters"] < 42e6
    assert (detector["published"]["AP"], detector["measured_on"]) == (0.379, "COCO")


def test_the_list_is_short_and_says_what_it_leaves_out(capsys: pytest.CaptureFixture[str]):
    lines, names = shown(capsys)
    assert 35 <= len(names) <= 45
    assert len(set(names)) == len(names)
    assert "  faster-rcnn-r50-fpn        41.7 M  211.0 G  37.9 COCO   ResNet-50 FPN 800x1344" in lines
    assert "  ssd300-voc               34.3 M  34.4 G  77.2 VOC07  VGG-16 300x300" in lines
    assert "SSD (arXiv 1512.02325): one stage, default boxes on several maps" in lines
    end = " ".join(lines[-4:])
    roles = [row["role"] for row in model_rows()]
    assert f"{roles.count('ablation')} ablations (--ablations)" in end
    assert f"{roles.count(None)} backbones (--kind backbone)" in end
    hidden = sum(int(count) for count in re.findall(r"(?<![\w-])(\d+) (?=for|with|small|ablations|backbones)", end))
    assert hidden + len(names) == len(roles)


def test_filters(capsys: pytest.CaptureFixture[str]):
    rows = {row["name"]: row for row in model_rows()}
    _, family = shown(capsys, "--family", "RetinaNet")
    assert set(family) == {n for n, row in rows.items() if row["family"] == "retinanet" and row["role"] != "ablation"}
    _, with_ablations = shown(capsys, "--family", "retinanet", "--ablations")
    assert set(with_ablations) == {name for name, row in rows.items() if row["family"] == "retinanet"}
    lines, backbones = shown(capsys, "--kind", "backbone")
    assert set(backbones) == {name for name, row in rows.items() if row["kind"] == "backbone"}
    assert any("detnet59 " in line and "DetNet-59 of the paper" in line and " 18.4 M" in line for line in lines)
    assert set(shown(capsys, "--all")[1]) == set(rows)
    assert {n for n in shown(capsys, "--ablations")[1] if rows[n]["role"] == "ablation"} == {
        name for name, row in rows.items() if row["role"] == "ablation"
    }
    chosen = json_output(capsys, "models", "--family", "ssd", "--json")
    assert isinstance(chosen, list)
    assert {row["family"] for row in chosen} == {"ssd"}
    message = fails(capsys, "models", "--family", "detr")
    assert "--family detr: there is no such family; there are fast-rcnn, faster-rcnn, mask-rcnn" in message


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
