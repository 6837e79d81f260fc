"""Losses on their way from the device into rows."""

from __future__ import annotations

import pytest
import torch

from boxwright.training.distributed import Processes
from boxwright.training.logging.monitor import LossMonitor, LossRow, NonFiniteLossError


def monitor(device: str = "cpu", log_every: int = 3) -> LossMonitor:
    return LossMonitor(Processes(0, 1, torch.device(device)), log_every, lambda i: f"image {i}")


def feed(target: LossMonitor, steps: range, device: str = "cpu", bad: int | None = None) -> list[LossRow]:
    rows = []
    for step in steps:
        losses = torch.tensor([float(step), 10.0 * step if step != bad else float("nan")], device=device)
        rows += target.record(step, ("a", "b"), losses, [step, -step], stop=False)
    return rows


def test_rows_are_means_since_the_last_row() -> None:
    rows = feed(monitor(), range(1, 8))
    assert rows == [LossRow(3, {"a": 2.0, "b": 20.0}), LossRow(6, {"a": 5.0, "b": 50.0})]


def test_the_last_step_ends_a_row() -> None:
    target = LossMonitor(Processes(0, 1, torch.device("cpu")), 3, str, last=(4,))
    assert feed(target, range(1, 5))[-1] == LossRow(4, {"a": 4.0, "b": 40.0})


def test_a_saved_state_goes_on_amid_an_interval() -> None:
    first, second = monitor(), monitor()
    rows = feed(first, range(1, 6)) + first.flush()
    second.load_state_dict(first.state_dict())
    assert rows + feed(second, range(6, 8)) == feed(monitor(), range(1, 8))


def test_a_state_saved_between_two_stages_does_not_mix_their_losses() -> None:
    first, second = monitor(), monitor()
    feed(first, range(1, 3))
    second.load_state_dict(first.state_dict())
    assert second.record(3, ("c",), torch.tensor([7.0]), [0], stop=False) == [
        LossRow(2, {"a": 1.5, "b": 15.0}),
        LossRow(3, {"c": 7.0}),
    ]
    second.load_state_dict({"since_row": [[1.0, 2.0]]})  # as it was saved before the names were


def test_a_bad_loss_is_named_at_once_on_the_cpu() -> None:
    target = monitor()
    feed(target, range(1, 5))
    with pytest.raises(
        NonFiniteLossError, match=r"^step 5: the loss is not finite: b = nan. Images of the step: image 5"
    ):
        feed(target, range(5, 6), bad=5)


def test_other_losses_start_a_new_row() -> None:
    target = monitor()
    feed(target, range(1, 5))
    rows = target.record(5, ("c",), torch.tensor([7.0]), [], stop=False)
    rows += target.record(6, ("c",), torch.tensor([9.0]), [], stop=False)
    assert rows == [LossRow(4, {"a": 4.0, "b": 40.0}), LossRow(6, {"c": 8.0})]


def test_a_request_to_stop_is_seen() -> None:
    target = monitor()
    target.record(1, ("a",), torch.tensor([1.0]), [], stop=False)
    assert not target.stop_seen
    target.record(2, ("a",), torch.tensor([1.0]), [], stop=True)
    assert target.stop_seen


@pytest.mark.gpu
def test_on_a_gpu_rows_come_an_interval_late_and_complete() -> None:
    target = monitor("cuda")
    assert feed(target, range(1, 6), "cuda") == []
    assert feed(target, range(6, 8), "cuda") == [LossRow(3, {"a": 2.0, "b": 20.0})]
    assert target.flush() == [LossRow(6, {"a": 5.0, "b": 50.0})]


@pytest.mark.gpu
def test_on_a_gpu_a_bad_loss_is_named_exactly_though_late() -> None:
    target = monitor("cuda")
    feed(target, range(1, 9), "cuda", bad=4)
    with pytest.raises(NonFiniteLossError, match=r"^step 4: .*b = nan. Images of the step: image 4; image -4"):
        feed(target, range(9, 10), "cuda")
