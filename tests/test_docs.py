"""The documentation does what it says: its commands run, its code runs, its names and links exist, it builds."""

import contextlib
import glob
import io
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from boxwright.app.choice.table import LENGTHS
from boxwright.cli.app import app as command_line
from boxwright.cli.app import main
from boxwright.config.recipe import Recipe
from boxwright.data.formats.convert import convert_dataset
from boxwright.recipes import RECIPES
from tests.support.entry_points import install_project
from tests.support.pages import PAGES, ROOT, Command, all_commands, blocks_of, boxwright_words, commands_of, load_script

RECIPE = "faster-rcnn-detnet-small-fpn"

# What is not run as written, and why; each kind is checked by a test below.
NOT_RUN = {
    "make ": "makes an environment: test_make_targets_exist",
    "pip install ": "changes the environment: test_named_extras_exist; -e . is done by hand, see run_page",
    "torchrun ": "starts processes: test_torchrun_commands_parse, and test_torchrun_trains among the slow tests",
    "boxwright weights fetch ": "downloads: test_fetched_names_exist, and tests/weights/published/test_fetch.py",
    ".venv/bin/pytest ": "the tests themselves: test_named_test_folders_exist",
}
MAKES_ITS_OWN_RUN = {"README.md", "getting-started.md"}  # the others find a finished one


def shortened(recipe: Recipe) -> Recipe:
    """A recipe of the same shape that trains for two steps on small images: pages are to take seconds."""

    def small(transforms: tuple) -> tuple:
        return tuple(replace(t, size=(64, 64)) if hasattr(t, "size") else t for t in transforms)

    data = replace(recipe.data, train=small(recipe.data.train), eval=small(recipe.data.eval), workers=0)
    return replace(recipe, data=data, stages=(replace(recipe.stages[0], length=2),))


@pytest.fixture(scope="session")
def supplies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the files that the pages use: ``my_data``, ``photos``, ``clip.mp4``, a finished ``run``, broken things."""
    folder = tmp_path_factory.mktemp("docs")
    with contextlib.chdir(folder):
        counts = ["--train", "8", "--val", "3", "--test", "3", "--size", "64", "64"]
        assert main(["data", "scenes", "my_data", *counts]) == 0
        Path("photos").mkdir()
        pictures = sorted(Path("my_data").rglob("test*.jpg"))
        shutil.copy(pictures[0], "photos/a.jpg")
        shutil.copy(pictures[1], "photos/b.jpg")
        write_clip(Path("clip.mp4"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(RECIPES, RECIPE, shortened(RECIPES[RECIPE]))
            assert main(["train", RECIPE, "--data", "my_data", "--output", "run"]) == 0
        Path("cut.safetensors").write_bytes(Path("run/best.safetensors").read_bytes()[:5000])
        for split in ("train", "val"):
            for number, name in enumerate(("cats", "dogs")):
                Path("my_classes", split, name).mkdir(parents=True)
                shutil.copy(pictures[number], Path("my_classes", split, name, "a.jpg"))
        shutil.copytree("my_data", "damaged")
        for picture in sorted(Path("damaged").rglob("train*.jpg")):
            picture.write_bytes(b"no picture")
        convert_dataset("my_data", "other_classes", "coco")
        for file in Path("other_classes").rglob("*.json"):
            keep_classes(file, 3)
        Path("more.toml").write_text("[data]\nbatch_size = 4\n")
    return folder


def write_clip(path: Path) -> None:
    """Six frames of one colour."""
    from fractions import Fraction

    from PIL import Image

    from boxwright.app.detection.video import VideoWriter

    with VideoWriter(path, Fraction(10)) as writer:
        for value in range(6):
            writer.write(Image.new("RGB", (64, 48), (40 * value, 90, 120)))


def keep_classes(file: Path, count: int) -> None:
    """Leave the first categories of a COCO file."""
    content = json.loads(file.read_text())
    content["categories"] = content["categories"][:count]
    kept = {category["id"] for category in content["categories"]}
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] in kept]
    file.write_text(json.dumps(content))


@pytest.fixture
def desk(supplies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the supplies, where the recipe for first tries takes two steps."""
    shutil.copytree(supplies, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOXWRIGHT_CACHE", "empty_cache")
    monkeypatch.setitem(RECIPES, RECIPE, shortened(RECIPES[RECIPE]))
    for other in (RECIPE.replace("detnet", "resnet"), RECIPE.replace("faster", "mask")):
        monkeypatch.setitem(RECIPES, other, shortened(RECIPES[other]))
    for device, efforts in LENGTHS.items():  # what is chosen without a recipe is trained for an epoch
        brief = {name: replace(length, areas=(64 * 64,), least=1, most=1) for name, length in efforts.items()}
        monkeypatch.setitem(LENGTHS, device, brief)
    return tmp_path


def run_command(command: Command, place: str) -> None:
    """Run a ``boxwright`` command in this process and compare its exit code and what the page shows."""
    words = boxwright_words(command.words)
    assert words is not None, f"{place}: only commands of Boxwright run here; put others on the list NOT_RUN"
    target = None
    if ">" in words:
        target = Path(words[words.index(">") + 1])
        words = words[: words.index(">")]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    told = out.getvalue() + err.getvalue()
    assert code == command.code, f"{place}: exit code {code}\n{told}"
    if target is not None:
        (tomllib if target.suffix == ".toml" else json).loads(out.getvalue())
        target.write_text(out.getvalue())
    plain, found = " ".join(told.split()), 0
    for piece in (part for line in command.shown for part in line.split("...")):  # "..." stands for what is left out
        found = plain.find(" ".join(piece.split()), found)
        assert found >= 0, f"{place}: {piece!r} is not in\n{told}"


def run_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run all that a page shows, in its order."""
    names: dict[str, object] = {"__name__": "__docs__"}
    for block in blocks_of(page):
        place = f"{page.name}, line {block.line}"
        if named := re.match(r"# (\S+\.(?:py|toml))\n", block.text):
            Path(named[1]).write_text(block.text)
        if block.language == "python":
            sys.modules["__docs__"] = type(sys)("__docs__")  # dataclasses look their module up
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block.text, place, "exec"), names)
        elif block.language == "toml":
            assert named, f"{place}: begin with the file's name, as # my.toml"
        elif block.language in ("bash", "console"):
            for command in commands_of(block):
                if command.words == ["pip", "install", "-e", "."]:
                    install_project(Path.cwd(), monkeypatch)
                elif not shlex.join(command.words).startswith(tuple(NOT_RUN)):
                    run_command(command, f"{page.name}, line {command.line}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs(page: Path, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.name in MAKES_ITS_OWN_RUN:
        shutil.rmtree("run")
    run_page(page, monkeypatch)


def torchrun_commands() -> list[Command]:
    return [command for _, command in all_commands() if command.words[0] == "torchrun"]


def test_torchrun_commands_parse() -> None:
    assert torchrun_commands()
    for command in torchrun_commands():
        words = boxwright_words(command.words)
        assert words
        _, bound, _ = command_line.parse_args(words, exit_on_error=False, print_error=False)
        assert bound.arguments["recipe"] in RECIPES


@pytest.mark.slow
def test_torchrun_trains(desk: Path) -> None:
    """The page's command for one machine, with the two processes it asks for."""
    command = next(c for c in torchrun_commands() if "--nnodes" not in c.words)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = [sys.executable, "-m", "torch.distributed.run", "--master-port", port, *command.words[1:]]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path("both/best.safetensors").is_file()


def test_the_picture_is_small_and_can_be_made_anew(desk: Path) -> None:
    committed = ROOT / "docs" / "images" / "detections.jpg"
    assert committed.stat().st_size < 120_000
    Path("demo").mkdir()
    shutil.move("run", "demo/run")
    shutil.move("my_data", "demo/scenes")
    Path("demo/demo.json").write_text(json.dumps({"threshold": 0.01}))
    made = load_script("_picture").compose(Path("demo"), Path("made.jpg"))
    assert made.stat().st_size < 120_000


def test_sphinx_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path)]
    words += ["-D", "extensions=myst_parser,sphinx.ext.autodoc"]  # without pages of the sources, half of the time
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert glob.glob(str(tmp_path / "*.html"))
