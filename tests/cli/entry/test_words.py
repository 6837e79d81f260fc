"""Words that are read as others: old names of options, ``help`` and ``version``, and words of other programs."""

import shlex
from pathlib import Path

import pytest

import boxwright
from boxwright.cli.app import app, main
from boxwright.cli.entry.usage import option_names
from boxwright.cli.entry.words import OTHER_COMMANDS, OTHER_OPTIONS, RENAMED, read_words
from tests.support.command_line import fails
from tests.support.pages import load_script

COMMANDS = load_script("_commands").COMMANDS


def app_of(command: str):
    found = app
    for name in command.split():
        found = found[name]
    return found


@pytest.mark.parametrize("line", ["--version", "-V", "version"])
def test_version(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([line]) == 0
    assert capsys.readouterr().out == f"{boxwright.__version__}\n"


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("help", "--help"),
        ("-h", "--help"),
        ("help train", "train --help"),
        ("train -h", "train --help"),
        ("help data convert", "data convert --help"),
        ("help weights", "weights --help"),
        ("data", "data --help"),
    ],
)
def test_help(line: str, same: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for words in (line, same):
        assert main(words.split()) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[0].startswith("Usage: boxwright")


@pytest.mark.parametrize("command", RENAMED)
def test_old_names_of_options_are_read(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for old, new in RENAMED[command].items():
        assert read_words([*command.split(), old, "x"]) == [*command.split(), new, "x"]
        assert read_words([*command.split(), f"{old}=x"]) == [*command.split(), f"{new}=x"]
        assert capsys.readouterr().err == f"note: {old} is now called {new}\n" * 2
        names = option_names(app_of(command))
        assert new in names
        assert old not in names


def test_an_old_name_converts(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "convert", str(scenes), str(tmp_path / "voc"), "--to", "voc"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines()[0] == "note: --to is now called --format"
    assert "as voc" in captured.out
    by_name = ["data", "convert", "--data", str(scenes), "--output", str(tmp_path / "yolo"), "--format", "yolo"]
    assert main(by_name) == 0
    assert (tmp_path / "yolo" / "data.yaml").is_file()


def test_names_after_two_dashes_are_files() -> None:
    assert read_words(["detect", "run", "--", "--out"]) == ["detect", "run", "--", "--out"]


@pytest.mark.parametrize("line", OTHER_COMMANDS)
def test_commands_of_other_programs(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(capsys, *line.split())
    assert message == f"error: there is no command `{line}`; did you mean `{OTHER_COMMANDS[line]}`?"
    for part in OTHER_COMMANDS[line].split("`")[::2]:
        command = [word for word in shlex.split(part) if word.islower() and not word.startswith("-")]
        words = command[1 : 3 if command[1] in ("data", "weights") else 2]
        assert all(word in parent for word, parent in zip(words, (app, app_of(words[0])), strict=False))


def test_options_of_other_programs_name_what_exists() -> None:
    """Each remedy is an option or argument that some command has, and the option itself is unknown somewhere."""
    known = {command: set(option_names(app_of(command))) for command in COMMANDS}
    everything = set().union(*known.values())
    for option, remedies in OTHER_OPTIONS.items():
        for remedy in remedies:
            assert remedy.split(",")[0].split(" ")[0] in everything, option
        assert any(f"--{option}" not in names for names in known.values()), option
