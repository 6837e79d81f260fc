"""The statements of the documentation are true: names, options, defaults, links and figures exist."""

import re
from dataclasses import fields
from pathlib import Path

from boxwright.app.models.table import model_rows
from boxwright.cli.app import app as command_line
from boxwright.cli.data.group import data_app
from boxwright.cli.entry.words import OTHER_OPTIONS, RENAMED
from boxwright.cli.recipe.group import recipe_app
from boxwright.cli.weights import weights_app
from boxwright.config.config_tree import leaf_paths, to_tree
from boxwright.data.transforms.resizing import LetterboxConfig, ResizeConfig, WarpConfig
from boxwright.recipes import RECIPES
from boxwright.recipes.pretrain import pretrain_recipe
from boxwright.weights.published.catalogue import find_published
from tests.support.pages import PAGES, ROOT, all_commands, blocks_of, load_script


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


def test_options_exist() -> None:
    """Every ``--option`` in the text belongs to a command, to a benchmark, or to one of the other programs named here.

    The change log also names options that were renamed, and those of other programs that the command line knows.
    """
    explained = {name for names in RENAMED.values() for name in names} | {f"--{name}" for name in OTHER_OPTIONS}
    others = {"--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--index-url", "--help"}
    commands = load_script("_commands")
    known = {
        word
        for function in commands.COMMANDS.values()
        for row in commands.options_of(function)
        for word in re.findall(r"--[a-z-]+", row[0])
    }
    shared = (ROOT / "benchmarks" / "runner" / "options.py").read_text(encoding="utf-8")
    benchmarks = set(re.findall(r"\"(--[a-z-]+)\"", shared))
    assert "--jobs" in benchmarks
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
        wrong = named - known - others - {"--debug", "--install-completion"}
        wrong -= benchmarks if page.name == "CONTRIBUTING.md" else set()
        assert wrong <= (explained if page.name == "CHANGELOG.md" else set()), page.name


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
        named = {name for name in named if ".options." not in name}  # those of users' own transforms
        assert named <= keys, (page.name, named - keys)


def test_parameters_in_the_readme_are_true() -> None:
    told = dict(re.findall(r"`([\w-]+)`, ([\d.]+) M\b", (ROOT / "README.md").read_text("utf-8")))
    true = {row["name"]: f"{row['parameters'] / 1e6:.1f}" for row in model_rows("detector") if row["name"] in told}
    assert len(told) >= 10
    assert told == true


def test_convention_options_exist() -> None:
    """The second column of the tables of conventions names settings of a detector or of resizing."""
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
    keys |= {f.name for transform in (ResizeConfig, LetterboxConfig, WarpConfig) for f in fields(transform)}
    cells = [line.split("|")[2] for line in text.splitlines() if line.startswith("| ") and "| option |" not in line]
    named = [name for cell in cells for name in re.findall(r"`([a-z_.0-9]+)`", cell)]
    named = [next((full + n.removeprefix(s) for s, full in short.items() if n.startswith(s)), n) for n in named]
    wrong = {name for name in named if name not in keys and name != "offset"}
    assert len(named) > 40
    assert not wrong


def test_convention_defaults_are_true() -> None:
    from boxwright.detectors.faster_rcnn import FasterRCNNConfig

    config = FasterRCNNConfig()
    assert (config.rpn.coder.offset, config.head.coder.offset, config.head.post.offset) == (0, 0, 0)
    assert (config.rpn.anchors.ratio, config.rpn.anchors.centre, config.rpn.anchors.order) == ("h/w", "corner", "size")
    assert (config.rpn.anchors.rounding, config.rpn.assign.straddle) == ("none", None)
    assert (config.rpn.loss.beta, config.head.loss.beta, config.rpn.loss.normalizer) == (1 / 9, 1.0, "fixed")
    assert (config.rpn.pre_nms, config.rpn.post_nms, config.rpn.nms.scope) == ((2000, 1000), (1000, 1000), "level")
    assert (config.head.pooling.aligned, config.head.pooling.sampling_ratio, config.pooled_levels) == (True, 2, 4)
    assert (config.head.post.score_threshold, config.head.post.nms_iou, config.head.post.detections) == (0.05, 0.5, 100)
    assert (config.rpn.assign.crowd_ignore, config.head.assign.add_truth, config.difficult) == (0.7, True, True)


def test_defects_are_all_documented() -> None:
    """Every kind of defect that the data package can report stands in the table, and no other."""
    table = (
        (ROOT / "docs" / "data.md").read_text(encoding="utf-8").split("## What the check reports")[1].split("\n## ")[0]
    )
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = {kind for row in rows for kind in re.findall(r"`([a-z-]+)`", row)}
    call = re.compile(
        r"(?:\.(?:refuse|correct|note|gather|_leave_out)|Problem)\(\s*\"([a-z-]+)\"|kind = \"([a-z-]+)\""
        r"|\"(missing-image|damaged-image)\""
    )
    source = "\n".join(p.read_text() for p in (ROOT / "src" / "boxwright" / "data").rglob("*.py"))
    reported = {kind for groups in call.findall(source) for kind in groups if kind}
    assert documented == reported


def test_commands_page_is_up_to_date() -> None:
    commands = load_script("_commands")
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert written == commands.render(), "run: python docs/_commands.py"
    groups = {"data": data_app, "recipe": recipe_app, "weights": weights_app}
    plain = {name for name in command_line if not name.startswith("-")} - set(groups)
    inner = {f"{group} {name}" for group, app in groups.items() for name in app if not name.startswith("-")}
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
