"""Learning-rate schedules against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from boxwright.config.recipe import CosineConfig, MultiStepConfig, SGDConfig, Stage, WarmupConfig, steps_of
from boxwright.structures import InputError
from boxwright.training.optimisation.schedule import build_schedule


def test_detnet_paper_schedule() -> None:
    """DetNet: 0.02 at most, warm-up over 500 steps from 0.3 of it, a tenth at 120k and 160k of 180k."""
    schedule = MultiStepConfig(milestones=(120_000, 160_000), warmup=WarmupConfig(steps=500, factor=0.3))
    stage = Stage(length=180_000, unit="steps", optimiser=SGDConfig(), schedule=schedule)
    factor = build_schedule(stage, images=118_287, batch_size=16)
    expected = {0: 0.3, 250: 0.65, 500: 1, 119_999: 1, 120_000: 0.1, 159_999: 0.1, 160_000: 0.01, 179_999: 0.01}
    assert {step: factor(step) for step in expected} == pytest.approx(expected)


def test_cosine() -> None:
    stage = Stage(length=10, optimiser=SGDConfig(), schedule=CosineConfig(final=0.1))
    factor = build_schedule(stage, images=40, batch_size=4)  # 100 steps
    assert [factor(0), factor(50), factor(100)] == pytest.approx([1, 0.55, 0.1])
    assert factor(25) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))


@pytest.mark.parametrize(
    ("length", "unit", "steps"), [(1, "epochs", 7), (2, "epochs", 13), (0.01, "epochs", 1), (9, "steps", 9)]
)
def test_steps_of(length: float, unit, steps: int) -> None:
    assert steps_of(length, unit, images=100, batch_size=16) == steps


def test_milestones_in_epochs() -> None:
    stage = Stage(length=3, optimiser=SGDConfig(), schedule=MultiStepConfig(milestones=(1, 2)))
    factor = build_schedule(stage, images=10, batch_size=5)
    assert [factor(s) for s in range(6)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_short_stage_cuts_its_warm_up_to_a_third() -> None:
    warmup = WarmupConfig(steps=500, factor=0.0)
    stage = Stage(length=12, unit="steps", optimiser=SGDConfig(), schedule=MultiStepConfig(warmup=warmup))
    factor = build_schedule(stage, images=20, batch_size=1)
    assert [factor(s) for s in range(6)] == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])


def test_darknets_burn_in_rises_with_the_fourth_power() -> None:
    """yolov3.cfg: burn_in 1000, so that step n of it has (n / 1000)^4 of the rate."""
    schedule = MultiStepConfig(milestones=(400_000, 450_000), warmup=WarmupConfig(steps=1000, factor=0.0, power=4.0))
    stage = Stage(length=500_200, unit="steps", optimiser=SGDConfig(), schedule=schedule)
    factor = build_schedule(stage, images=118_287, batch_size=64)
    expected = {0: 0, 100: 1e-4, 500: 0.0625, 900: 0.6561, 1000: 1, 399_999: 1, 400_000: 0.1, 450_000: 0.01}
    assert {step: factor(step) for step in expected} == pytest.approx(expected)


def test_milestones_beyond_the_length_are_named() -> None:
    with pytest.raises(InputError, match=r"\[120000\] do not lie within length = 1000 steps"):
        Stage(length=1000, unit="steps", optimiser=SGDConfig(), schedule=MultiStepConfig(milestones=(120_000,)))
