"""Facts for a bug report: ``boxwright env``."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import torch

import boxwright
from boxwright.app import machine
from boxwright.app.machine import EXTRAS, PACKAGES, describe_environment
from boxwright.cli.app import main
from tests.support.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"docs", "dev"}  # for work on Boxwright itself


def names_of(requirements: list[str]) -> list[str]:
    return [re.split(r"[><=;\[ ]", requirement)[0] for requirement in requirements]


def test_packages_are_those_of_the_project() -> None:
    assert list(PACKAGES) == names_of(PROJECT["dependencies"])


def test_extras_are_those_of_the_project() -> None:
    declared = {name: parts for name, parts in PROJECT["optional-dependencies"].items() if name not in OURS}
    resolved = {
        name: {own for part in names_of(parts) for own in (inner_of(parts) if part == "boxwright" else [part])}
        for name, parts in declared.items()
    }
    assert {name: set(parts) for name, parts in EXTRAS.items()} == resolved


def inner_of(parts: list[str]) -> list[str]:
    """Distributions of the extras that an extra includes, as in ``boxwright[selective-search]``."""
    inner = [name for part in parts for name in re.findall(r"boxwright\[([^]]+)\]", part)]
    return [name for extra in inner for name in names_of(PROJECT["optional-dependencies"][extra])]


def test_messages_name_extras_that_exist() -> None:
    """Each ``pip install 'boxwright[...]'`` in sources and pages is an extra of the project."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    files = [*(ROOT / "src").rglob("*.py"), *pages]
    named = {
        extra.strip()
        for path in files
        for group in re.findall(r"(?:boxwright|\.)\[([a-z, -]+)\]'", path.read_text(encoding="utf-8"))
        for extra in group.split(",")
    }
    assert {"video", "hub", "heic", "selective-search"} <= named
    assert named <= set(PROJECT["optional-dependencies"])
    for path in (ROOT / "src").rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not re.search(r"install boxwright\[", line), f"{path}: a shell needs quotes around the brackets"


def test_env_as_text_and_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert main(["env", "--json"]) == 0
    text = capsys.readouterr().out
    facts = json.loads(text)
    assert "secret" not in text
    assert facts["boxwright"] == boxwright.__version__
    assert facts["packages"]["torch"] == torch.__version__.split("+")[0] or facts["packages"]["torch"]
    assert facts["location"] == str(Path(boxwright.__file__).parent)
    assert facts["torch"]["threads"] == torch.get_num_threads()
    assert facts["usable_cores"] <= facts["cores"]
    assert facts["memory"] > 2**28
    assert facts["variables"]["OMP_NUM_THREADS"] == "1"
    assert main(["env"]) == 0
    lines = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert facts["packages"]["numpy"] in lines["numpy"]
    assert facts["location"] in lines["boxwright"]
    assert facts["system"] in lines["system"]
    assert {"processor", "memory", "NVIDIA driver", "threads", "[video]", "OMP_NUM_THREADS"} <= set(lines)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(machine, "EXTRAS", {"video": ("no-such-package",)})
    monkeypatch.setattr(machine, "_torch", lambda: {"error": "libcudart.so.12: cannot open shared object file"})
    assert describe_environment()["extras"] == {"video": {"no-such-package": None}}
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    assert "no-such-package not installed" in text
    assert "cannot be imported: libcudart.so.12" in text


def test_gpus_are_described(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"cuda": "13.2", "hip": None, "cudnn": 92600, "cuda_available": True, "mps_available": False}
    found |= {"threads": 4, "interop_threads": 2, "cpu_capability": "AVX2"}
    found["gpus"] = [{"name": "NVIDIA X", "memory": 8 * 2**30, "capability": "9.0"}]
    monkeypatch.setattr(machine, "_torch", lambda: found)
    monkeypatch.setattr(machine, "_driver", lambda: "570.86")
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    assert "NVIDIA X, 8.0 GiB, compute capability 9.0" in text
    assert re.search(r"NVIDIA driver +570\.86\n", text)
    assert "CUDA 13.2, cuDNN 92600" in text
