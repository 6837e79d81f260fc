"""The command ``boxwright data split``."""

from pathlib import Path

import pytest

from boxwright.cli.app import main
from tests.support.command_line import fails, json_output
from tests.support.split_sets import many, names_by_split, write_labelled


def test_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_labelled(tmp_path / "data", {"train": many(60)})
    new = tmp_path / "new"
    words = ["data", "split", str(data), "--output", str(new), "--fractions", "0.7", "0.2", "0.1"]
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert not new.exists()
    assert "nothing was written (--dry-run)" in said
    assert main([*words, "--format", "yolo", "--images", "link"]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "bee 14 (70%) 28 (70%) 4 (20%) 8 (20%) 2 (10%) 4 (10%)" in rows
    assert "(without objects) 14 (70%) 0 4 (20%) 0 2 (10%) 0" in rows
    assert "all 42 (70%) 53 (70%) 12 (20%) 15 (20%) 6 (10%) 8 (11%)" in rows
    assert f"wrote {new} as yolo" in rows
    assert [len(names) for names in names_by_split(new).values()] == [42, 12, 6]
    assert next(new.rglob("00.png")).samefile(data / "train/00.png")


def test_numbers_are_not_cut_on_a_narrow_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    data = write_labelled(tmp_path / "data", {"train": many(60)})
    assert main(["data", "split", str(data), "--output", str(tmp_path / "new"), "--test", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "\N{HORIZONTAL ELLIPSIS}" not in out
    assert max(len(line) for line in out.splitlines() if "(" in line) < 120


def test_options_reach_the_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {"train": many(20, "t{}x.png"), "val": many(5, "v{}.png"), "test": many(3, "s{}.png")}
    data = write_labelled(tmp_path / "data", parts, "yolo")
    words = ["data", "split", data, "--output", tmp_path / "new", "--keep", "val", "--keep", "test"]
    error = fails(capsys, *words)
    assert "neither val nor test gets images" in error
    words = [*words[:-2], "--test", 5, "--group-by", r"t(\d)\d?x", "--near-duplicates", "--seed", 3, "--json"]
    report = json_output(capsys, *words)
    assert isinstance(report, dict)
    assert report["splits"]["val"]["images"] == 5
    assert report["splits"]["test"]["images"] + report["splits"]["train"]["images"] == 23
    assert any(note.startswith("by --group-by, the 28 images are") for note in report["announcements"])
    assert any("near-duplicates" in note for note in report["announcements"])
    found = names_by_split(tmp_path / "new")
    assert found["val"] == sorted(parts["val"])
    assert not {n[1] for n in found["train"] if n[0] == "t"} & {n[1] for n in found["test"] if n[0] == "t"}


def test_refusals_name_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_labelled(tmp_path / "data", {"train": many(10)})
    words = ["data", "split", data, "--output", tmp_path / "new"]
    assert "add up to 1.1" in fails(capsys, *words, "--fractions", 0.7, 0.2, 0.2)
    assert "is no regular expression" in fails(capsys, *words, "--group-by", "*x", "--json")
    assert "--val many: give a number" in fails(capsys, *words, "--val", "many")
    assert "requires --output" in fails(capsys, "data", "split", data)
    assert not (tmp_path / "new").exists()
    assert "exists and is not empty" in fails(capsys, *words[:-1], data)
