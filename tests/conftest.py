"""Fixtures of all tests, and the selection of slow and GPU tests."""

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def pytest_configure(config: pytest.Config) -> None:
    """Use one thread per worker, so that two workers do not compete for two cores."""
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip slow and GPU tests unless ``-m`` asks for them."""
    # The longest go first, so that none of them runs alone at the end.
    items.sort(key=lambda item: "test_end_to_end" not in item.nodeid)
    expression = config.getoption("-m") or ""
    for item in items:
        if item.get_closest_marker("slow") and "slow" not in expression:
            item.add_marker(pytest.mark.skip(reason="slow: run with `make test-slow`"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="gpu: no CUDA device here; see `make test-gpu`"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data sets beside the checkout; skip where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """Return the folder of parity fixtures beside the checkout; skip where it is absent."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("the parity fixtures are not beside this checkout")
    return folder


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of ``benchmarks/`` as its commands do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def found(name: str) -> ModuleType:
        return importlib.import_module(name)

    return found


@pytest.fixture(autouse=True)
def _no_terminal_width_surprises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fix the terminal width that rich sees: messages are compared as text."""
    if "COLUMNS" not in os.environ:
        monkeypatch.setenv("COLUMNS", "160")
