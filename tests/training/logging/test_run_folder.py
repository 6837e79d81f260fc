"""One process at a time trains into a folder."""

import errno
import os
import signal
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from boxwright.structures import InputError
from boxwright.training.loop import TrainResult, train
from tests.support.processes import start_python
from tests.support.toys import build_toy, toy_index, toy_recipe

pytest.importorskip("fcntl", reason="the system has no file locks")

TRAINING = """
import sys
import torch; torch.set_num_threads(1)
from pathlib import Path
from boxwright.config.recipe import CheckpointConfig
from boxwright.training.loop import train
from tests.support.toys import build_toy, toy_index, toy_recipe

def log(line):
    if line.startswith(f"step {int(sys.argv[2])}/"):
        print("training", flush=True)
        sys.stdin.read()

here = Path(sys.argv[1])
data = toy_index(here / "data", 5), None
recipe = toy_recipe(6, log_every=1, checkpoint=CheckpointConfig(every=2, unit="steps"))
train(recipe, *data, here / "run", build=build_toy, device="cpu", log=log)
"""


def started(folder: Path, step: int) -> Popen[bytes]:
    """Start a run that stands still after ``step``."""
    child = start_python("-c", TRAINING, str(folder), str(step), stdin=PIPE, stdout=PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"training\n"
    return child


def run(folder: Path, resume: bool) -> TrainResult:
    index = toy_index(folder / "data", 5)
    recipe: Any = None if resume else toy_recipe(6)
    return train(recipe, index, None, folder / "run", build=build_toy, device="cpu", log="quiet", resume=resume)


@pytest.mark.parametrize(("step", "resume"), [(3, True), (3, False), (1, False)])
def test_a_second_run_in_the_folder_is_refused_while_the_first_lives(step: int, resume: bool, tmp_path: Path) -> None:
    """Also before the first checkpoint of the first run, and also if the second would begin a new run."""
    with started(tmp_path, step) as child:
        with pytest.raises(InputError, match=rf"run: process {child.pid} on \S+ is training into this folder"):
            run(tmp_path, resume)
        before = sorted(path.name for path in (tmp_path / "run").iterdir())
        assert ".lock" in before
        assert "run.json" in before
        child.send_signal(signal.SIGKILL)
    if step == 3:  # the dead process holds nothing
        assert run(tmp_path, resume=True).steps == 6
        assert not (tmp_path / "run" / ".lock").exists()
    else:
        with pytest.raises(InputError, match=r"run: is not empty; choose another folder"):
            run(tmp_path, resume=False)


def test_a_refused_run_leaves_no_folder(tmp_path: Path) -> None:
    index = toy_index(tmp_path / "data", 5)
    with pytest.raises(InputError, match="the validation set"):
        train(toy_recipe(6), index, index.subset([]), tmp_path / "run", build=build_toy, device="cpu", log="quiet")
    assert not (tmp_path / "run").exists()


def test_a_run_without_locks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lines: list[str] = []
    index = toy_index(tmp_path / "data", 5)
    train(toy_recipe(6), index, None, tmp_path / "run", build=build_toy, device="cpu", log=lines.append)
    assert [line for line in lines if "no locks" in line] == [
        f"WARNING: the file system of {tmp_path / 'run'} has no locks: let no second process train into this folder"
    ]
