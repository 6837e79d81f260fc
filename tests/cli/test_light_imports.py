"""Commands that run no network do not load torch. Each runs in a process of its own, which lists its modules."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.dataset_files import write_coco_files

HEAVY = {"torch", "torchvision", "matplotlib", "hotcoco", "scipy", "cv2", "safetensors", "sklearn"}

RUN = """
import json, sys
from boxwright.cli.app import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
sys.exit(code)
"""


def modules_of(*words: str, cwd: Path, code: int = 0) -> set[str]:
    """Run a command line, which must exit with ``code``, and return the top-level modules that it loaded."""
    done = subprocess.run([sys.executable, "-c", RUN, *words], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    modules: list[str] = json.loads(done.stderr.splitlines()[-1])
    return set(modules)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small COCO data sets named ``data`` and ``data2``."""
    folder = tmp_path_factory.mktemp("light")
    write_coco_files(folder / "data")
    write_coco_files(folder / "data2")
    return folder


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["data", "--help"], ["--version"]], ids=" ".join)
def test_help_loads_no_numpy_either(words: list[str], folder: Path):
    assert not modules_of(*words, cwd=folder) & (HEAVY | {"numpy", "PIL"})


@pytest.mark.parametrize(
    "words",
    [
        ["weights", "list"],
        ["weights", "list", "--publisher", "torchvision", "--json"],
        ["weights", "show", "torchvision:resnet50"],
        ["models"],
        ["models", "--kind", "detector", "--json"],
        ["models", "faster-rcnn-r50-fpn"],
        ["recipe", "list", "retinanet"],
        ["data", "check", "data"],
        ["data", "show", "data", "--output", "page.html"],
        ["data", "show", "data", "--output", "page.png"],
        ["data", "convert", "data", "as_yolo", "--format", "yolo"],
        ["data", "convert", "data", "as_voc", "--format", "voc"],
        ["data", "filter", "data", "--output", "part", "--min-size", "1"],
        ["data", "merge", "data", "data2", "--output", "both"],
        ["data", "split", "data", "--output", "divided", "--val", "1", "--near-duplicates"],
        ["data", "tile", "data", "--output", "tiles", "--size", "32"],
        ["data", "convert", "data", "as_coco", "--format", "coco"],
    ],
    ids=" ".join,
)
def test_commands_without_a_network_load_no_torch(words: list[str], folder: Path):
    assert not modules_of(*words, cwd=folder) & HEAVY


@pytest.mark.parametrize(
    "words", [["data", "check", "nowhere"], ["weights", "fetch", "nobody:nothing"], ["train"]], ids=" ".join
)
def test_refusals_load_no_torch(words: list[str], folder: Path):
    assert not modules_of(*words, cwd=folder, code=2) & HEAVY
