"""Help, exit codes and errors of the command line as a whole."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from boxwright.cli.app import main
from tests.support.dataset_files import write_coco_files
from tests.support.pages import load_script


def test_python_m_runs_the_command():
    done = subprocess.run([sys.executable, "-m", "boxwright", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)


PAGES = ["", "data", "weights", "--install-completion", *load_script("_commands").COMMANDS]


@pytest.mark.parametrize("page", PAGES)
def test_help_fits_80_columns_and_has_examples(
    page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*page.split(), "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"Usage: boxwright {page}".rstrip())
    assert not re.search(r"\[ARGS|Parameters", "\n".join(lines))
    if page:
        assert any(line.startswith((f" boxwright {page}", f" torchrun boxwright {page}")) for line in lines)
        assert not any(re.search(r" --[a-z-]+ \\ *$", line) and "--json" not in line for line in lines)
    else:
        assert "boxwright demo" in "".join(lines)


@pytest.mark.parametrize(
    ("page", "usage"),
    [
        ("train", "boxwright train [RECIPE] --data PATH [OPTIONS]"),
        ("detect", "boxwright detect CHECKPOINT [SOURCES...] [OPTIONS]"),
        ("data check", "boxwright data check DATA [OPTIONS]"),
        ("data convert", "boxwright data convert DATA OUTPUT --format FORMAT [OPTIONS]"),
        ("weights convert", "boxwright weights convert CHECKPOINT --output PATH [OPTIONS]"),
    ],
)
def test_the_first_line_of_a_help_names_the_arguments(page: str, usage: str, capsys: pytest.CaptureFixture[str]):
    assert main([*page.split(), "--help"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"Usage: {usage}"


def test_commands_are_listed_in_the_order_of_their_use(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    shown = re.findall(r"^. ([a-z]+) ", capsys.readouterr().out, re.MULTILINE)
    order = ["demo", "data", "models", "train", "evaluate", "detect", "weights", "pretrain", "proposals", "env"]
    assert [name for name in shown if name in order] == order


@pytest.mark.parametrize(
    ("words", "example"),
    [
        ("train", "torchrun --nproc-per-node 8 -m boxwright train faster-rcnn-detnet59-fpn --data coco"),
        ("evaluate", "boxwright evaluate --detections detections.json --data my_data --split test --metric voc12"),
        ("models", "boxwright models --json"),
    ],
)
def test_long_examples_are_continued_with_backslashes(
    words: str, example: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words.split(), "--help"]) == 0
    text = capsys.readouterr().out
    joined = re.sub(r"\\ *\n +", "", text)
    assert example in [line.strip() for line in joined.splitlines()]


def test_ctrl_c_exits_130_without_traceback(scenes: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    import boxwright.data.formats.check

    def stopped(path, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(boxwright.data.formats.check, "check_dataset", stopped)
    assert main(["data", "check", str(scenes)]) == 130
    assert capsys.readouterr().err.strip() == "stopped"


def test_debug_shows_the_traceback_of_an_error(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    words = ["data", "check", str(tmp_path / "nowhere")]
    assert main([*words, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("BOXWRIGHT_DEBUG", "1")
    assert main(words) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["data", "check", "none\x1b[31m\x9b2J\u202e"],
        ["data", "show", "none\x1b[31m\x9b2J\u202e"],
        ["train", "faster-rcnn-detnet-small-fpn", "--data", "none\x1b[31m\x9b2J\u202e"],
        ["evaluate", "none\x1b[31m\x9b2J\u202e", "--data", "none"],
        ["detect", "none", "none\x1b[31m\x9b2J\u202e.jpg"],
        ["detect", "none", "rtsp://none\x1b[31m\x9b2J\u202e"],
    ],
)
@pytest.mark.parametrize("json", [False, True])
def test_no_error_sends_control_characters_to_the_terminal(
    words: list[str], json: bool, capsys: pytest.CaptureFixture[str]
):
    assert main([*words, *(["--json"] if json and words[0] != "train" else [])]) == 2
    text = "".join(capsys.readouterr())
    assert "none" in text
    assert all(character.isprintable() for line in text.splitlines() for character in line)


def test_a_terminal_without_unicode_gets_escapes(tmp_path: Path):
    write_coco_files(tmp_path / "d\u00e9")
    words = [sys.executable, "-m", "boxwright", "data", "check", str(tmp_path / "d\u00e9")]
    for more in ([], ["--json"]):
        done = subprocess.run(
            [*words, *more], capture_output=True, timeout=60, env={**os.environ, "PYTHONIOENCODING": "ascii"}
        )
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode("ascii")
        assert "d\\xe9" in text or json.loads(text)["path"].endswith("d\u00e9")
