"""Command lines that cannot be read, and the flags that can."""

import re
from pathlib import Path

import pytest
from cyclopts import App

from boxwright.cli.app import app, main
from boxwright.cli.entry.usage import arguments_of, option_names
from tests.support.command_line import RECIPE, TINY, fails
from tests.support.pages import ROOT, load_script

SCRIPT = load_script("_commands")
COMMANDS = list(SCRIPT.COMMANDS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian", "there is no command `trian`; did you mean 'train'?"),
        ("data chek x", "there is no command `data chek`; did you mean 'check'?"),
        ("data zzz", "there is no command `data zzz`; boxwright data has the commands anchors, augment, check, c"),
        ("model=x.pt", "`model=x.pt` is not a command: write the command first, then options as --data PATH"),
        ("--bogus", "unknown option --bogus; `boxwright --help` shows the options"),
        ("train r --dta x", "unknown option --dta; did you mean '--data'?"),
        ("train r --data x --zzz", "unknown option --zzz; `boxwright train --help` shows the options"),
        ("train r --data x foo", "unexpected argument `foo`; `boxwright train --help` shows what it takes"),
        ("train r --data x foo bar", "unexpected arguments `foo`, `bar`;"),
        ("train r", "`boxwright train` requires --data; `boxwright train --help` shows an example"),
        ("train r --data", "--data requires a value"),
        ("detect", "`boxwright detect` requires the argument CHECKPOINT"),
        ("demo --images many", "--images many: give a whole number"),
        ("detect a b --threshold high", "--threshold high: give a number"),
        ("data scenes x --size 3", "--size takes 2 values, not 1"),
        ("data convert a b --format pascal", "coco"),
        ("data convert --data a b --format coco", "after an argument by name, give the next one by name too: --output"),
        ("train model=yolo.pt data=c.yaml", "`model=yolo.pt`: write yolo.pt alone, as the argument RECIPE of `boxwri"),
        ("train r data=c.yaml", "`data=c.yaml`: options are written with dashes here; write --data c.yaml"),
        ("train r batch=8 --data x", "write --batch-size 8"),
        ("train r imgsz=640 --data x", "write --size 640"),
        ("train r task=detect --data x", "`task=detect`: the command is `boxwright train`; leave it out"),
        ("detect run conf=0.3 source=x", "`conf=0.3`: options are written with dashes here; write --threshold 0.3"),
        ("detect run source=x", "write x alone, as the argument SOURCES of `boxwright detect`"),
        ("detect run x --conf 0.3", "unknown option --conf; use --threshold"),
        ("detect --model run x", "unknown option --model; give it without an option, as the argument CHECKPOINT"),
        ("train r --data x --batch 4", "unknown option --batch; use --batch-size"),
        ("train r --data x --imgsz 640", "unknown option --imgsz; use --size"),
        ("train r --data x --lr0 0.01", "unknown option --lr0; use --lr"),
        ("pretrain resnet18 --data x --batch-size 4", "unknown option --batch-size; use --set batch_size=8"),
        ("detect r x --imgsz 640", "use --set, for a setting of the recipe such as 'data.eval.0.size=[640, 640]'"),
        ("pretrain r --data x --lr 0.1", "use --set optimiser.lr=0.01"),
    ],
)
def test_refused_with_the_remedy(line: str, message: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *line.split())
    assert list(tmp_path.iterdir()) == []


def test_files_with_an_equals_sign_are_files(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("source=1.jpg").write_bytes(b"")
    assert "no such checkpoint" in fails(capsys, "detect", "nothing", "source=1.jpg")


def value_of(argument) -> list[str]:
    """Words that the parser takes as the value of an argument."""
    count, _ = argument.token_count()
    choices: list[str] = re.findall(r"'([^']+)'", str(argument.hint)) if "Literal" in str(argument.hint) else []
    return (choices[:1] or ["1"]) * count


def app_of(command: str) -> App:
    found = app
    for name in command.split():
        found = found[name]
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_accepted_and_listed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The parser takes each option and each negative form, and help and page list them, and no others."""
    arguments = arguments_of(app_of(command))
    required = [a for a in arguments if a.required]
    for argument in arguments:
        for name in argument.names:
            words = [word for a in required if a is not argument for word in by_name(a)]
            positional = name.isupper()
            own = value_of(argument) if positional or name not in argument.negatives else []
            line = [*command.split(), *(own if positional else []), *words, *([] if positional else [name, *own])]
            app.parse_args(line, exit_on_error=False, print_error=False)
    assert main([*command.split(), "--help"]) == 0
    shown = set(re.findall(r"(?<![\w-])--[a-z-]+", capsys.readouterr().out.split("Examples")[0]))
    listed = {w for row in SCRIPT.options_of(SCRIPT.COMMANDS[command]) for w in re.findall(r"--[a-z-]+", row.option)}
    names = {name for argument in arguments for name in argument.names if name.startswith("--")}
    assert listed == names
    assert names <= shown


def by_name(argument) -> list[str]:
    name = next((n for n in argument.names if n.startswith("--")), None)
    return value_of(argument) if name is None else [name, *value_of(argument)]


def test_flags_of_the_pages_are_accepted() -> None:
    """Negative forms that a page names are options of a command."""
    known = {name for command in COMMANDS for name in option_names(app_of(command))}
    text = "\n".join(page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    named = set(re.findall(r"(?<![\w-])--no-[a-z-]+", text))
    assert {"--no-carry-classes", "--no-tensorboard", "--no-recursive", "--no-pictures", "--no-masks"} <= named
    assert named <= known


def test_negative_forms_run(run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    words = ["train", RECIPE, "--data", scenes, "--output", out, "--weights", run, "--no-carry-classes"]
    assert main([*map(str, words), "--no-tensorboard", *TINY]) == 0
    assert not list(out.rglob("events.out*"))
    image = next(scenes.rglob("val*.jpg"))
    words = ["detect", run, image, "--output", tmp_path / "found", "--no-recursive", "--no-pictures", "--device", "cpu"]
    assert main([*map(str, words), "--no-overwrite"]) == 0
    assert not (tmp_path / "found" / "pictures").exists()
