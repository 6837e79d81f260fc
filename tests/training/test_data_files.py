"""Changes of image files between two sessions of a run are noticed, and copies of them are not changes."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxwright.checkpoints.checkpoint import load_train_state
from boxwright.data.index import DetectionIndex
from boxwright.data.proposals.files import ProposalsConfig, ProposalSet
from boxwright.structures import InputError
from boxwright.training.data_files import FILE, DataFile, compare_data
from boxwright.training.interrupt import TrainingInterrupted
from boxwright.training.loop import train
from tests.support.resuming import assert_same_bits, interrupts, rows
from tests.support.runs import without_pictures
from tests.support.toys import build_toy, toy_index, toy_recipe
from tests.support.two_stage_cases import SMALL_FAST

RECIPE = toy_recipe(8, log_every=1)
HEADER = "split,file,bytes,modified_ns,hash\n"


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


@pytest.fixture
def data(tmp_path: Path) -> tuple[DetectionIndex, DetectionIndex]:
    return toy_index(tmp_path / "train", 11), toy_index(tmp_path / "val", 4, seed=1)


def stopped(data: tuple[DetectionIndex, DetectionIndex], folder: Path) -> None:
    with pytest.raises(TrainingInterrupted):
        train(RECIPE, *data, folder, build=build_toy, device="cpu", log=interrupts(3))


def resumed(data: tuple[DetectionIndex, DetectionIndex], folder: Path) -> list[str]:
    lines: list[str] = []
    train(None, *data, folder, build=build_toy, device="cpu", log=lines.append, resume=True)
    return lines


def repaint(path: Path) -> None:
    """Change pixels of an image without changing the size of its file."""
    pixels = np.array(Image.open(path))
    before = path.stat()
    for value in range(255):
        pixels[0, 0] = value
        Image.fromarray(pixels).save(path)
        if path.stat().st_size == before.st_size and path.stat().st_mtime_ns != before.st_mtime_ns:
            return
    raise AssertionError("no pixel value gives a file of the same size")


@pytest.mark.parametrize("split", [0, 1])
def test_a_changed_image_is_refused(split: int, data, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped(data, run)
    path = data[split].path(2)
    before = path.read_bytes()
    for change, said in (
        (lambda: path.write_bytes(before + b"x"), f"it had {len(before)} bytes and has {len(before) + 1}"),
        (lambda: repaint(path), "it has as many bytes, but others"),
        (path.unlink, "it is not there any more"),
    ):
        change()
        with pytest.raises(
            InputError, match=rf"{path}: not the file that the run was trained with: {said}; put the old"
        ):
            resumed(data, run)
        path.write_bytes(before)
        assert load_train_state(run / "last.train")["step"] == 3, "nothing was done"
    resumed(data, run)


def test_the_first_of_several_changes_is_named_with_their_number(data, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped(data, run)
    for i in (5, 7, 9):
        data[0].path(i).write_bytes(b"another")
    with pytest.raises(InputError, match=rf"{data[0].path(5)}: .*, and 2 other files have changed too; put .* delete "):
        resumed(data, run)
    (run / FILE).unlink()  # the way that the message names
    with pytest.raises(InputError, match="none of the image formats"):
        resumed(data, run)


def test_a_copy_with_other_times_is_the_same_data(data, tmp_path: Path) -> None:
    straight, run = tmp_path / "straight", tmp_path / "run"
    train(RECIPE, *data, straight, build=build_toy, device="cpu", log="quiet")
    stopped(data, run)
    for index in data:
        for k in range(len(index)):
            os.utime(index.path(k), (k, k))
    resumed(data, run)
    assert_same_bits(straight, run)
    assert rows(straight) == rows(run)
    copies = [replace(index, root=shutil.copytree(index.root, tmp_path / f"copy{i}")) for i, index in enumerate(data)]
    resumed(copies, run)


def test_a_run_of_an_earlier_version_resumes(data, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped(data, run)
    (run / FILE).unlink()
    data[0].path(0).write_bytes(data[0].path(1).read_bytes())
    resumed(data, run)
    assert len((run / FILE).read_text().splitlines()) == 1 + 11 + 4


def test_an_image_at_which_the_run_ended_may_be_replaced(data, tmp_path: Path) -> None:
    run, path = tmp_path / "run", data[0].path(4)
    path.write_bytes(b"no image")
    with pytest.raises(InputError, match="put another image under its name"):
        train(RECIPE, *data, run, build=build_toy, device="cpu", log="quiet")
    shutil.copy(data[0].path(5), path)
    other = data[0].path(6).read_bytes()
    data[0].path(6).write_bytes(b"another")
    with pytest.raises(InputError, match=str(data[0].path(6))):
        resumed(data, run)
    data[0].path(6).write_bytes(other)
    assert f"{path} has changed since the run ended at it" in resumed(data, run)


def test_other_validation_images_are_remarked(data, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped(data, run)
    assert [line for line in resumed((data[0], data[1].subset([0, 2])), run) if "cannot be compared" in line]


def test_changed_proposals_are_refused(data, tmp_path: Path) -> None:
    run, boxes = tmp_path / "run", np.array([[2, 2, 20, 18], [6, 4, 28, 22]], np.float32)

    def proposals(score: float) -> list[str]:
        return [
            str(
                ProposalSet.build(index, [boxes] * len(index), [np.array([score, 0.1])] * len(index), "drawn").save(
                    tmp_path / name
                )
            )
            for index, name in zip(data, ("train.safetensors", "val.safetensors"), strict=True)
        ]

    files = proposals(0.9)
    recipe = replace(RECIPE, detector=SMALL_FAST["fast_rcnn"])
    recipe = replace(recipe, data=replace(recipe.data, proposals=ProposalsConfig(train=files[0], val=files[1], most=4)))
    with pytest.raises(TrainingInterrupted):
        train(recipe, *data, run, device="cpu", log=interrupts(3))
    proposals(0.8)
    match = (
        r"train\.safetensors: not the file that the run was trained with: it has as many bytes, but others, and 1 other"
    )
    with pytest.raises(InputError, match=match):
        train(None, *data, run, device="cpu", log="quiet", resume=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n",
        "\x00",
        f"{HEADER}train,a.png\n",
        f"{HEADER}train,a.png,x,1,\n",
        f"{HEADER}train,a.png,{'9' * 5000},1,\n",
        f'{HEADER}train,"{"a" * 200_000}",1,1,\n',
    ],
)
def test_a_damaged_record_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InputError, match=rf"{FILE}: line \d+: damaged .*; delete .*{FILE} to resume without comparing"):
        compare_data(tmp_path, [], True, "")


def test_names_of_any_bytes_are_kept(tmp_path: Path) -> None:
    names = ["a b.png", 'quote".png', "line\nbreak.png", "comma,.png", "caf\u00e9.png", os.fsdecode(b"\xff\xfe.png")]
    files = [DataFile("train", name, tmp_path / name) for name in names]
    for file in files:
        file.path.write_bytes(b"x")
    remarks, record = compare_data(tmp_path, files, False, "")
    (tmp_path / FILE).write_bytes(record)
    assert (remarks, record) == compare_data(tmp_path, files, True, "") == ([], record)
    files[-1].path.write_bytes(b"yy")
    with pytest.raises(InputError, match="it had 1 bytes and has 2"):
        compare_data(tmp_path, files, True, "")
