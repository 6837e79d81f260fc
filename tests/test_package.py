"""The wheel and the source archive: what is in them, and that the wheel runs outside the checkout.

``DIST`` names a folder with both, as ``make package`` makes them; without it they are built here. With ``FULL`` the
wheel's dependencies are installed anew, torch from ``TORCH_INDEX`` if that is given; without it they are borrowed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import boxwright
from tests.support.pages import ROOT

BIN = Path(sys.executable).parent
SOURCES = {
    str(path.relative_to(ROOT / "src"))
    for path in (ROOT / "src" / "boxwright").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}


def run(*words: str | Path, cwd: Path = ROOT, code: int = 0) -> str:
    """Run a program as from a fresh shell, and return its output."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env=clean, capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive."""
    if os.environ.get("DIST"):
        return Path(os.environ["DIST"]).resolve()
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    run(BIN / "uv", "build", "-q", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, ROOT)
    return folder


def archive(dist: Path, pattern: str) -> Path:
    (found,) = dist.glob(pattern)
    return found


def test_descriptions_are_fit_for_an_index(dist: Path) -> None:
    pytest.importorskip("twine")
    wheel, source = archive(dist, "*.whl"), archive(dist, "*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, source)
    assert wheel.name == f"boxwright-{boxwright.__version__}-py3-none-any.whl"


def test_the_wheel_holds_the_package_alone(dist: Path) -> None:
    with zipfile.ZipFile(archive(dist, "*.whl")) as wheel:
        names = set(wheel.namelist())
        info = f"boxwright-{boxwright.__version__}.dist-info"
        metadata = wheel.read(f"{info}/METADATA").decode()
        entry = wheel.read(f"{info}/entry_points.txt").decode()
    assert {name for name in names if not name.startswith(info)} == SOURCES
    assert {"boxwright/app/models/costs.json", "boxwright/py.typed"} <= names
    assert f"{info}/licenses/LICENSE" in names
    assert "boxwright = boxwright.__main__:main" in entry
    assert {"video", "hub", "heic", "rcnn"} <= set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.MULTILINE))


def test_the_source_archive_is_complete(dist: Path) -> None:
    with tarfile.open(archive(dist, "*.tar.gz")) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    assert {f"src/{name}" for name in SOURCES} <= names
    assert {"pyproject.toml", "LICENSE", "README.md", "Makefile", "requirements/core.lock", "docs/conf.py"} <= names
    assert "tests/test_package.py" in names
    assert not [name for name in names if re.match(r"(\.venv|runs|demo|shared|dist)/", name)]


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of a fresh environment with the wheel and its dependencies."""
    wheel, folder = archive(dist, "*.whl"), tmp_path_factory.mktemp("fresh") / "venv"
    run(BIN / "uv", "venv", "-q", "--python", sys.executable, folder)
    (python,) = [path for path in folder.rglob("python*") if path.name in ("python", "python.exe")]
    install = [BIN / "uv", "pip", "install", "-q", "--python", python]
    if not os.environ.get("FULL"):
        run(*install, "--no-deps", "--offline", wheel)
        (site,) = folder.rglob("site-packages")
        (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        return python.parent
    if index := os.environ.get("TORCH_INDEX"):
        run(*install, "torch", "torchvision", "--default-index", index)
    run(*install, wheel)
    return python.parent


def test_the_installed_command_runs_elsewhere(installed: Path, tmp_path: Path) -> None:
    command = installed / "boxwright"
    assert run(command, "--version", cwd=tmp_path) == f"{boxwright.__version__}\n"
    assert "ssd300-voc" in run(command, "models", cwd=tmp_path)
    assert (
        "no such file"
        in json.loads(run(command, "data", "check", "x", "--json", cwd=tmp_path, code=2))["error"]["message"]
    )
    facts = json.loads(run(command, "env", "--json", cwd=tmp_path))
    assert Path(facts["location"]).is_relative_to(installed.parent)
    assert facts["commit"] is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_installed_demo_trains(installed: Path, tmp_path: Path) -> None:
    """The first minute of the demo: scenes, training, evaluation and the report, all smaller."""
    sizes = ["--images", "24", "--val-images", "6", "--test-images", "6", "--size", "128", "--steps", "12"]
    run(installed / "boxwright", "demo", "--output", "demo", "--device", "cpu", *sizes, cwd=tmp_path)
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_takes_torch_from_another_index(tmp_path: Path) -> None:
    """The commands that ``make demo`` would run: torch from the index, and no library of CUDA after it."""
    index = "https://example.org/whl/cpu"
    lines = run("make", "-n", "env-dev", f"VENV={tmp_path}", f"TORCH_INDEX={index}").splitlines()
    torch = [line for line in lines if "pip install" in line and index in line]
    assert len(torch) == 2  # for the packages of demo and for those of tests
    assert all("--no-deps" in line and "(torch|torchvision)==" in line for line in torch)
    pattern = next(line for line in lines if "grep -Ev" in line).split("'")[1]
    kept = [line for line in (ROOT / "requirements/dev.lock").read_text().splitlines() if not re.match(pattern, line)]
    assert not [line for line in kept if re.match(r"torch|triton|nvidia|cuda", line)]
    assert {"numpy", "pytest", "pillow"} <= {line.split("==")[0] for line in kept}
    plain = run("make", "-n", "env-dev", f"VENV={tmp_path / 'other'}", "TORCH_INDEX=")
    assert "--index-url" not in plain
