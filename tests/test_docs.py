"""The documentation does what it says: its commands run, its code runs, its names and links exist, it builds."""

import contextlib
import glob
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from boxwright.app.models import model_rows
from boxwright.cli.app import app as command_line
from boxwright.cli.app import main
from boxwright.cli.data import data_app
from boxwright.cli.weights import weights_app
from boxwright.config.config_tree import leaf_paths, to_tree
from boxwright.config.recipe import Recipe
from boxwright.data.formats.convert import convert_dataset
from boxwright.recipes import RECIPES
from boxwright.recipes.pretrain import pretrain_recipe
from boxwright.weights.published.catalogue import find_published

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPE = "faster-rcnn-detnet-small-fpn"

# What is not run as written, and why; each kind is checked by a test below.
NOT_RUN = {
    "make ": "makes an environment: test_make_targets_exist",
    "pip install ": "changes the environment: test_named_extras_exist",
    "torchrun ": "starts processes: test_torchrun_commands_parse, and test_torchrun_trains among the slow tests",
    "boxwright weights fetch ": "downloads: test_fetched_names_exist, and tests/weights/test_fetch.py from a server",
    ".venv/bin/pytest ": "the tests themselves: test_named_test_folders_exist",
}
MAKES_ITS_OWN_RUN = {"README.md", "getting-started.md"}  # the others find a finished one


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text and its first line's number in the page."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A command line and what a page shows of its output."""

    words: list[str]
    shown: list[str]
    line: int

    @property
    def code(self) -> int:
        """The exit code that the page promises."""
        return 2 if any(line.startswith("error: ") for line in self.shown) else 0


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    start, language = 0, ""
    for number, line in enumerate(lines, start=1):
        if not line.startswith("```"):
            continue
        if start:
            found.append(Block(language, "\n".join(lines[start : number - 1]), start + 1))
            start = 0
        else:
            start, language = number, line[3:].strip()
    assert not start, f"{page.name}: the block of line {start} has no end"
    return found


def commands_of(block: Block) -> list[Command]:
    """The commands of a block of ``bash`` (a line each) or ``console`` (after ``$``, with output)."""
    found: list[Command] = []
    text = re.sub(r"\\\n\s*", " ", block.text)  # a line that goes on after a backslash
    for number, line in enumerate(text.splitlines(), start=block.line):
        if block.language == "console" and not line.startswith("$ "):
            found[-1].shown.append(line)
        elif words := shlex.split(line.removeprefix("$ "), comments=True):
            found.append(Command(words, [], number))
    return found


def all_commands() -> list[tuple[str, Command]]:
    """Every command of every page."""
    shells = [(p, b) for p in PAGES for b in blocks_of(p) if b.language in ("bash", "console")]
    return [(page.name, command) for page, block in shells for command in commands_of(block)]


def boxwright_words(words: list[str]) -> list[str] | None:
    """What follows ``boxwright`` in a command line, also under ``torchrun``; None for other programs."""
    if words[0] == "boxwright":
        return words[1:]
    for i in range(len(words) - 1):
        if words[i : i + 2] == ["-m", "boxwright"]:
            return words[i + 2 :]
    return None


def shortened(recipe: Recipe) -> Recipe:
    """A recipe of the same shape that trains for two steps on small images: pages are to take seconds."""

    def small(transforms: tuple) -> tuple:
        return tuple(replace(t, size=(64, 64)) if hasattr(t, "size") else t for t in transforms)

    data = replace(recipe.data, train=small(recipe.data.train), eval=small(recipe.data.eval), workers=0)
    return replace(recipe, data=data, stages=(replace(recipe.stages[0], length=2),))


@pytest.fixture(scope="session")
def supplies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages assume: ``my_data``, ``photos``, ``clip.mp4``, a finished ``run``, and broken things."""
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
        json.loads(out.getvalue())
        target.write_text(out.getvalue())
    plain, found = " ".join(told.split()), 0
    for piece in (part for line in command.shown for part in line.split("...")):  # "..." stands for what is left out
        found = plain.find(" ".join(piece.split()), found)
        assert found >= 0, f"{place}: {piece!r} is not in\n{told}"


def run_page(page: Path) -> None:
    """Run all that a page shows, in its order."""
    names: dict[str, object] = {"__name__": "__docs__"}
    for block in blocks_of(page):
        place = f"{page.name}, line {block.line}"
        if block.language == "python":
            sys.modules["__docs__"] = type(sys)("__docs__")  # dataclasses look their module up
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block.text, place, "exec"), names)
        elif block.language == "toml":
            named = re.match(r"# (\S+\.toml)\n", block.text)
            assert named, f"{place}: begin with the file's name, as # my.toml"
            Path(named[1]).write_text(block.text)
        elif block.language in ("bash", "console"):
            for command in commands_of(block):
                if not shlex.join(command.words).startswith(tuple(NOT_RUN)):
                    run_command(command, f"{page.name}, line {command.line}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs(page: Path, desk: Path) -> None:
    if page.name in MAKES_ITS_OWN_RUN:
        shutil.rmtree("run")
    run_page(page)


def test_every_language_is_known() -> None:
    known = {"bash", "console", "python", "toml", "text", "{toctree}", "{eval-rst}"}
    odd = {(page.name, b.line, b.language) for page in PAGES for b in blocks_of(page) if b.language not in known}
    assert not odd


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = {words[1] for _, c in all_commands() if (words := c.words)[0] == "make"} | set(
        re.findall(r"`make ([a-z-]+)", text)
    )
    assert {"demo", "test", "docs"} <= named
    assert named <= targets


def test_named_extras_exist() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {name for page in PAGES for name in re.findall(r"'\.\[([a-z]+)\]'", page.read_text(encoding="utf-8"))}
    assert named
    assert named <= set(extras)


def test_named_test_folders_exist() -> None:
    paths = [w for _, c in all_commands() if c.words[0].endswith("pytest") for w in c.words if w.startswith("tests")]
    assert paths
    assert all((ROOT / path).exists() for path in paths)


def test_named_test_files_exist() -> None:
    """The table of parity names files below ``tests/``."""
    names = set(re.findall(r"`((?:\w+/)+test_\w+\.py)`", (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")))
    assert len(names) > 10
    assert not [name for name in names if not (ROOT / "tests" / name).is_file()]


def test_fetched_names_exist() -> None:
    """Every name that a page fetches, also in its text, is one of the catalogue or of the Hub."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    names = set(re.findall(r"weights fetch ([a-z_0-9]+:[\w/.-]+\w)", text))
    assert names
    for name in names:
        assert name.startswith("hf:") or find_published(name).name == name


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


def test_options_exist() -> None:
    """Every ``--option`` in the text belongs to a command, or to one of the other programs named here."""
    others = {"--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--help"}
    commands = load_script("_commands")
    known = {
        word
        for function in commands.COMMANDS.values()
        for row in commands.options_of(function)
        for word in re.findall(r"--[a-z-]+", row[0])
    }
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
        assert named <= known | others | {"--debug"}, page.name


def test_recipes_and_settings_exist() -> None:
    """Every recipe name, and every setting in the form ``a.b`` after ``--set`` or in the table of settings."""
    keys = {".".join(path) for recipe in RECIPES.values() for path in leaf_paths(to_tree(recipe))}
    keys |= {".".join(path) for path in leaf_paths(to_tree(pretrain_recipe("detnet59")))}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        names = set(re.findall(r"\b(faster-rcnn-[a-z0-9-]+[a-z0-9])", text)) - {"faster-rcnn-detnet-smal-fpn"}
        assert names <= set(RECIPES), page.name
        wrong = {"data.batchsize", "batch_size"} if page.name in ("training.md", "troubleshooting.md") else set()
        named = set(re.findall(r"--set '?([\w.]+)=", text)) - wrong
        assert named <= keys, (page.name, named - keys)


def test_parameters_in_the_readme_are_true() -> None:
    told = dict(re.findall(r"`([\w-]+)`, ([\d.]+) M\b", (ROOT / "README.md").read_text("utf-8")))
    true = {row["name"]: f"{row['parameters'] / 1e6:.1f}" for row in model_rows("detector") if row["name"] in told}
    assert len(told) >= 10
    assert told == true


def test_convention_options_exist() -> None:
    """The second column of the tables of conventions names settings of a detector."""
    text = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    short = {"post.": "head.post.", "pooling.": "head.pooling."}
    keys = {
        ".".join(path[1:])
        for recipe in RECIPES.values()
        for path in leaf_paths(to_tree(recipe))
        if path[0] == "detector"
    }
    fits = [stage for recipe in RECIPES.values() for stage in to_tree(recipe)["stages"] if stage["kind"] == "fit"]
    keys |= {f"{stage['name']}.{key}" for stage in fits for key in stage["fit"]}
    cells = [line.split("|")[2] for line in text.splitlines() if line.startswith("| ") and "| option |" not in line]
    named = [name for cell in cells for name in re.findall(r"`([a-z_.0-9]+)`", cell)]
    named = [next((full + n.removeprefix(s) for s, full in short.items() if n.startswith(s)), n) for n in named]
    wrong = {name for name in named if name not in keys and name != "offset"}
    assert len(named) > 40
    assert not wrong


def test_convention_defaults_are_true() -> None:
    from boxwright.detectors.faster_rcnn import FasterRCNNConfig

    config = FasterRCNNConfig()
    assert (config.rpn.offset, config.head.offset, config.head.post.offset) == (0, 0, 0)
    assert (config.rpn.anchors.ratio, config.rpn.anchors.centre, config.rpn.anchors.order) == ("h/w", "corner", "size")
    assert (config.rpn.anchors.rounding, config.rpn.straddle) == ("none", None)
    assert (config.rpn.beta, config.head.beta, config.rpn.normalizer) == (1 / 9, 1.0, "fixed")
    assert (config.rpn.pre_nms, config.rpn.post_nms, config.rpn.scope) == ((2000, 1000), (1000, 1000), "level")
    assert (config.head.pooling.aligned, config.head.pooling.sampling_ratio, config.pooled_levels) == (True, 2, 4)
    assert (config.head.post.score_threshold, config.head.post.nms_iou, config.head.post.detections) == (0.05, 0.5, 100)
    assert (config.rpn.crowd_ignore, config.head.add_truth, config.difficult) == (0.7, True, True)


def test_defects_are_all_documented() -> None:
    """Every kind of defect that the data package can report stands in the table, and no other."""
    table = (
        (ROOT / "docs" / "data.md").read_text(encoding="utf-8").split("## What the check reports")[1].split("\n## ")[0]
    )
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = {kind for row in rows for kind in re.findall(r"`([a-z-]+)`", row)}
    call = re.compile(
        r"\.(?:refuse|put_right|note)\(\s*\"([a-z-]+)\"|kind = \"([a-z-]+)\"|\"(missing-image|damaged-image)\""
    )
    source = "\n".join(p.read_text() for p in (ROOT / "src" / "boxwright" / "data").rglob("*.py"))
    reported = {kind for groups in call.findall(source) for kind in groups if kind}
    assert documented == reported


def test_the_picture_is_small_and_can_be_made_anew(desk: Path) -> None:
    committed = ROOT / "docs" / "images" / "detections.jpg"
    assert committed.stat().st_size < 120_000
    Path("demo").mkdir()
    shutil.move("run", "demo/run")
    shutil.move("my_data", "demo/scenes")
    Path("demo/demo.json").write_text(json.dumps({"threshold": 0.01}))
    made = load_script("_picture").compose(Path("demo"), Path("made.jpg"))
    assert made.stat().st_size < 120_000


def load_script(name: str) -> Any:
    """One of the scripts that lie beside the pages, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_commands_page_is_up_to_date() -> None:
    commands = load_script("_commands")
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert written == commands.render(), "run: python docs/_commands.py"
    plain = {name for name in command_line if not name.startswith("-")} - {"data", "weights"}
    inner = {f"data {name}" for name in data_app if not name.startswith("-")}
    inner |= {f"weights {name}" for name in weights_app if not name.startswith("-")}
    assert set(commands.COMMANDS) == plain | inner


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the builder make them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if target.startswith("https://"):
                continue
            file, _, anchor = target.partition("#")
            path = (page.parent / file) if file else page
            assert path.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors_of(path), f"{page.name}: {target}"


def test_numbers_come_from_results() -> None:
    """A row of the README's figures that names a file in results/ quotes only numbers that stand there."""
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        if not line.startswith("| "):
            continue
        files = [ROOT / name for name in re.findall(r"\((results/[\w.]+)\)", line)]
        found = "".join(path.read_text(encoding="utf-8") for path in files)
        last = re.sub(r"\[[^]]*\]\([^)]*\)", "", line.rstrip().rstrip("|").rsplit("|", 1)[1])
        for number in re.findall(r"\d+\.\d+", last):
            assert number in found, f"{number} of {line[:60]} is not in {', '.join(map(str, files))}"


def test_all_pages_are_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = {
        line for b in blocks_of(ROOT / "docs" / "index.md") if b.language == "{toctree}" for line in b.text.split()
    }
    pages = {p.stem for p in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= listed
    assert all(f"({page}.md)" in index for page in pages)


def test_sphinx_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path)]
    words += ["-D", "extensions=myst_parser,sphinx.ext.autodoc"]  # without pages of the sources, half of the time
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert glob.glob(str(tmp_path / "*.html"))
