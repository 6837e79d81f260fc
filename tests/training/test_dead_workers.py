"""A worker that dies costs no step, and the message says which one, why and how to go on."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from boxwright.checkpoints.checkpoint import load_train_state
from boxwright.data.loading.loader import TrainStream
from boxwright.data.loading.workers import WorkerError
from boxwright.training.logging.run_folder import read_run
from boxwright.training.loop import train
from boxwright.training.validation import evaluate_detector
from tests.support.resuming import assert_same_bits, rows
from tests.support.runs import without_pictures
from tests.support.toys import Toy, build_toy, toy_index, toy_recipe

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes as POSIX does")
RECIPE = toy_recipe(8)
RECIPE = replace(RECIPE, data=replace(RECIPE.data, workers=2))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("toys")
    return toy_index(folder / "train", 11), toy_index(folder / "val", 60, seed=1)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


def killing(number: signal.Signals, training: bool) -> Any:
    """Build toys that kill a worker in the third step, or in the first validation."""

    class Killing(Toy):
        steps, killed = 0, False

        def forward(self, images, targets=None):
            kind = type(self)
            kind.steps += targets is not None and self.training
            due = kind.steps == 3 if training else targets is None
            if due and not kind.killed:
                kind.killed = True
                newest = max(multiprocessing.active_children(), key=lambda process: process.pid or 0)
                assert newest.pid is not None
                os.kill(newest.pid, number)
                newest.join()
            return super().forward(images, targets)

    return Killing


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (signal.SIGKILL, r"was killed \(SIGKILL\), most probably by the system because memory ran out"),
        (signal.SIGBUS, r"was stopped by SIGBUS, most probably because shared memory \(/dev/shm\) is full"),
        (signal.SIGSEGV, r"crashed \(SIGSEGV\), most probably in the library that decodes an image"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_a_run_whose_worker_dies_is_saved_and_resumes_to_the_bit(
    number: signal.Signals, cause: str, training: bool, data, tmp_path: Path
) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train(RECIPE, *data, straight, build=build_toy, device="cpu", log="quiet")
    match = (
        rf"^worker 2 of 2 that load images \(process \d+\) {cause}\. The run is saved after step \d\. Resume, with "
        r"fewer workers if memory ran out \(--workers 1; 0 loads in the main process\): "
        r"boxwright train --data \S+ --resume "
    )
    with pytest.raises(WorkerError, match=match):
        train(RECIPE, *data, broken, build=killing(number, training), device="cpu", log="quiet")
    assert load_train_state(broken / "last.train")["step"] == (4 if not training else 3)
    assert read_run(broken)["status"].startswith("failed: WorkerError: worker 2 of 2")
    train(None, *data, broken, build=build_toy, device="cpu", log="quiet", resume=True)
    assert_same_bits(straight, broken)
    assert rows(straight) == rows(broken)


def test_a_resumed_run_may_have_other_workers(data, tmp_path: Path) -> None:
    """Their number is the one setting that changes no result."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train(RECIPE, *data, straight, build=build_toy, device="cpu", log="quiet")
    with pytest.raises(WorkerError):
        train(RECIPE, *data, broken, build=killing(signal.SIGKILL, True), device="cpu", log="quiet")
    train(None, *data, broken, build=build_toy, device="cpu", log="quiet", resume=True, workers=0)
    a, b = (load_train_state(folder / "last.train") for folder in (straight, broken))
    assert json.loads(b["recipe"])["data"]["workers"] == 0
    assert all(torch.equal(value, b["model"][name]) for name, value in a["model"].items())


def test_a_death_is_raised_where_a_batch_is_asked_for(data) -> None:
    """Not in the middle of a step, which could then be neither finished nor saved."""
    with TrainStream(data[0], RECIPE.data) as stream:
        next(stream)
        handler = signal.getsignal(signal.SIGCHLD)
        victim = multiprocessing.active_children()[0]
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        assert sum(range(1000)) == 499500  # a handler of signals would run here
        with pytest.raises(WorkerError, match=rf"\(process {victim.pid}\) was killed"):
            [next(stream) for _ in range(10)]
        assert signal.getsignal(signal.SIGCHLD) is handler
        assert next(stream).images.pixels.shape[0] == 4, "it starts again at its position"


def test_an_evaluation_ends_with_the_same_words(data) -> None:
    with pytest.raises(WorkerError, match=r"^worker 2 of 2 .* was killed \(SIGKILL\)"):
        evaluate_detector(
            killing(signal.SIGKILL, False)(RECIPE.detector, data[1].classes),
            data[1],
            RECIPE.data.eval,
            batch_size=1,
            workers=2,
        )
