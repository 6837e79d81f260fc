"""Checkpoints: all of them comes back, and nothing else is taken for one."""

from __future__ import annotations

import errno
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from boxwright.backbones import TimmConfig
from boxwright.checkpoints.checkpoint import (
    Checkpoint,
    check_classes,
    load_checkpoint,
    load_train_state,
    rebuild,
    save_checkpoint,
    save_train_state,
)
from boxwright.detectors.build import DetectorConfig
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.io import files
from boxwright.io.files import write_atomically
from boxwright.structures import Classes, InputError
from tests.support.toys import CLASSES, toy_recipe


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, {"w": torch.arange(6.0).reshape(2, 3)}, toy_recipe(), CLASSES, {"step": 3})
    return path


def test_rebuilding_asks_timm_for_no_weights() -> None:
    """They are in the checkpoint, and the machine that loads it may have no network."""
    asked: list[DetectorConfig] = []

    def build(config: DetectorConfig, classes: Classes) -> Detector:
        asked.append(config)
        raise KeyboardInterrupt

    backbone = TimmConfig(name="resnet18", pretrained=True)
    recipe = replace(toy_recipe(), detector=FasterRCNNConfig(backbone=backbone))
    with pytest.raises(KeyboardInterrupt):
        rebuild(Checkpoint(recipe.detector, CLASSES, {}, recipe, {}), "a.safetensors", build)
    assert asked == [FasterRCNNConfig(backbone=TimmConfig(name="resnet18"))]


def test_round_trip_of_awkward_tensors(tmp_path: Path) -> None:
    shared = torch.randn(4)
    state = {
        "strided": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "shared.a": shared,
        "shared.b": shared,
        "view": torch.randn(3, 5).T,
        "count": torch.tensor(7),
        "half": torch.randn(3).bfloat16(),
        "empty": torch.zeros(0, 4),
    }
    classes = Classes(("café", 'a "b"'), (7, 90))
    save_checkpoint(tmp_path / "a.safetensors", state, toy_recipe(), classes, {"metrics": {"AP": None}})
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.classes == classes
    assert loaded.recipe == toy_recipe()
    assert loaded.detector == toy_recipe().detector
    assert loaded.meta == {"metrics": {"AP": None}}
    assert loaded.state.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(loaded.state[name], tensor), name
        assert loaded.state[name].dtype == tensor.dtype


def test_a_run_folder_stands_for_its_best_and_then_its_last(saved: Path) -> None:
    save_checkpoint(saved.with_name("last.safetensors"), {"w": torch.zeros(1)}, toy_recipe(), CLASSES, {"step": 9})
    assert load_checkpoint(saved.parent).meta["step"] == 3
    saved.unlink()
    assert load_checkpoint(saved.parent).meta["step"] == 9
    saved.with_name("last.safetensors").unlink()
    with pytest.raises(InputError, match=r"holds neither best.safetensors nor last.safetensors"):
        load_checkpoint(saved.parent)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -25, -1])
def test_truncated(saved: Path, kept: int) -> None:
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(
        InputError, match=rf"best.safetensors: truncated or not a checkpoint \({saved.stat().st_size} b"
    ):
        load_checkpoint(saved)


def test_not_a_checkpoint(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(InputError) as caught:
            load_checkpoint(path)
        return str(caught.value)

    file = tmp_path / "x.safetensors"
    assert "no such checkpoint" in message(file)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(2000))
    assert "truncated or not a checkpoint" in message(file)
    safetensors.torch.save_file({"w": torch.zeros(2)}, file)
    assert "its header has no recipe and classes" in message(file)
    torch.save({"w": torch.zeros(2)}, tmp_path / "x.pth")
    assert "a PyTorch file, not a Boxwright checkpoint" in message(tmp_path / "x.pth")
    save_train_state(tmp_path / "last.train", {"step": 1})
    assert "only serves to resume a run; use last.safetensors" in message(tmp_path / "last.train")


def test_a_training_state_is_not_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    for content in (pickle.dumps(Evil(), protocol=2), None):
        path = tmp_path / "last.train"
        if content is None:
            torch.save({"boxwright_format": 1, "x": Evil()}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(InputError, match="not a training state"):
            load_train_state(path)
    assert not (tmp_path / "owned").exists()


def test_a_full_disk_leaves_the_old_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(
        InputError, match=r"best.safetensors: the disk is full: [\d.]+ MB are free and [\d.]+ MB are ne"
    ):
        save_checkpoint(saved, {"w": torch.ones(9)}, toy_recipe(), CLASSES, {})
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_file_that_the_system_really_cuts_short(saved: Path) -> None:
    """A limit on file sizes stops the write half way, as a full disk does."""
    resource = pytest.importorskip("resource")
    before = saved.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"the file is too large.*the file that was there before is intact"):
            save_checkpoint(saved, {"w": torch.ones(100_000)}, toy_recipe(), CLASSES, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_ctrl_c_amid_a_write_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent/a: cannot be written: No such file or directory"):
        write_atomically(tmp_path / "absent" / "a", b"content")


@pytest.mark.parametrize(
    ("data", "checkpoint", "words"),
    [
        (
            ("cat", "dog"),
            ("cat", "dog", "cow"),
            ["(2)", "(3)", "the data lacks 'cow'", "in the labels.txt of a VOC folder"],
        ),
        (("cat", "emu"), ("cat", "dog"), ["lacks 'dog'; the checkpoint lacks 'emu'", "Rename or filter"]),
        (("dog", "cat"), ("cat", "dog"), ["another order: class 0 is 'dog' in the data and 'cat'", "'cat', 'dog'"]),
        (tuple(map(str, range(30))), ("x",), ["'11' and 18 more"]),
    ],
)
def test_classes_that_differ_are_listed(data: tuple[str, ...], checkpoint: tuple[str, ...], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        check_classes(Classes.from_names(data), Classes.from_names(checkpoint), "here", "best.safetensors")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_ids_of_categories_may_differ() -> None:
    check_classes(Classes(("a", "b"), (1, 2)), Classes(("a", "b"), (17, 90)), "here", "there")
