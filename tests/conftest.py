"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure(config: pytest.Config) -> None:
    """One thread a worker, so that two workers do not fight over two cores."""
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is slow or needs a GPU unless ``-m`` asks for it."""
    # The longest go first, so that none of them runs alone at the end.
    items.sort(key=lambda item: "test_end_to_end" not in item.nodeid)
    expression = config.getoption("-m")
    for item in items:
        if item.get_closest_marker("slow") and "slow" not in expression:
            item.add_marker(pytest.mark.skip(reason="slow: run with `make test-slow`"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="gpu: no CUDA device here; see `make test-gpu`"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; skips where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """The folder of parity fixtures beside the checkout; skips where it is absent."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("the parity fixtures are not beside this checkout")
    return folder


@pytest.fixture(autouse=True)
def _no_terminal_width_surprises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are compared as text: fix the width that rich sees."""
    if "COLUMNS" not in os.environ:
        monkeypatch.setenv("COLUMNS", "160")
