"""Every option of a recipe reaches the session that trains: each test fails where its option is ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from boxwright.config.recipe import EMAConfig, GroupConfig, Recipe, SGDConfig
from boxwright.data.index import DetectionIndex
from boxwright.data.transforms.multi_scale import MultiScaleConfig
from boxwright.structures import Classes, InputError
from boxwright.training.distributed import Processes, synchronise_batch_norm
from boxwright.training.optimisation.ema import EMA
from boxwright.training.session import Session
from boxwright.training.stages.gradient import GradientStage
from boxwright.training.tasks.detection import DetectionTask
from tests.support.toys import CLASSES, Toy, toy_index, toy_recipe

ALONE = Processes(0, 1, torch.device("cpu"))
Open = Callable[..., Session]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DetectionIndex:
    return toy_index(tmp_path_factory.mktemp("toys"), 8)


@pytest.fixture
def opened(index: DetectionIndex) -> Iterator[Open]:
    """Opens sessions, and closes them afterwards."""
    sessions: list[Session] = []

    def start(recipe: Recipe, build: Callable[[Any, Classes], Toy] = Watched, where: Processes = ALONE) -> Session:
        sessions.append(Session(DetectionTask(recipe, index, None, where, build), None))
        return sessions[-1]

    yield start
    for session in sessions:
        session.close()


class Watched(Toy):
    """Notes what its forward passes are given and how they are computed."""

    def __init__(self, config: Any, classes: Classes) -> None:
        super().__init__(config, classes, drop=0.0)
        self.seen: list[tuple[int, int, int]] = []
        self.types: set[torch.dtype] = set()

    def outputs(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        self.seen.append((len(pixels), pixels.shape[-2], pixels.shape[-1]))
        found = super().outputs(pixels)
        self.types.add(found[0].dtype)
        return found


def watched(session: Session) -> Watched:
    assert isinstance(session.model, Watched)
    return session.model


def optimised(**changes: Any) -> Recipe:
    recipe = toy_recipe()
    return replace(recipe, stages=(replace(recipe.stages[0], optimiser=SGDConfig(lr=0.05, **changes)),))


def optimiser(session: Session) -> Optimizer:
    assert isinstance(session.runner, GradientStage)
    return session.runner.optimiser


def rates(session: Session) -> dict[str, float]:
    names = {id(p): name for name, p in session.model.named_parameters()}
    return {names[id(p)]: group["lr"] for group in optimiser(session).param_groups for p in group["params"]}


def moved(session: Session, steps: int = 1) -> dict[str, float]:
    """Return the change of each parameter and buffer over some steps."""
    before = {name: t.clone() for name, t in session.model.state_dict().items()}
    for _ in range(steps):
        session.take_step()
    return {n: (t.float() - before[n].float()).norm().item() for n, t in session.model.state_dict().items()}


def test_batch_norms_of_several_processes_become_one() -> None:
    model = Toy(None, CLASSES)
    converted = synchronise_batch_norm(model, Processes(0, 2, torch.device("cuda")))
    assert [type(m) for m in converted.modules() if "BatchNorm" in type(m).__name__] == [nn.SyncBatchNorm]
    assert converted.state_dict().keys() == Toy(None, CLASSES).state_dict().keys()
    alone = synchronise_batch_norm(Toy(None, CLASSES), ALONE)
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in alone.modules())


def test_sync_batch_norm_reaches_the_session(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    two = Processes(0, 2, torch.device("cpu"))
    with pytest.raises(InputError, match="sync_batch_norm = true needs CUDA"):
        opened(toy_recipe(sync_batch_norm=True), where=two)
    given: list[nn.Module] = []
    monkeypatch.setattr(
        "boxwright.training.tasks.detection.synchronise_batch_norm", lambda model, where: given.append(model) or model
    )
    opened(toy_recipe())
    assert given == []
    assert opened(toy_recipe(sync_batch_norm=True)).model is given[0]


def test_learning_rates_by_name(opened: Open) -> None:
    plain = rates(opened(optimised()))
    assert len(set(plain.values())) == 1
    by_name = rates(opened(optimised(groups=(GroupConfig(prefix="backbone.conv", lr=0.1),))))
    assert {name: by_name[name] / plain[name] for name in plain} == pytest.approx(
        {name: 0.1 if name.startswith("backbone.conv") else 1.0 for name in plain}
    )


def test_frozen_parts_stay(opened: Open) -> None:
    recipe = toy_recipe()
    free = moved(opened(recipe), 2)
    held = moved(opened(replace(recipe, stages=(replace(recipe.stages[0], frozen=("backbone",)),))), 2)
    assert all(free[name] > 0 for name in free)
    assert {name for name in held if held[name] == 0} == {name for name in held if name.startswith("backbone")}


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_precision(precision: Any, dtype: torch.dtype, opened: Open) -> None:
    whole, half = opened(toy_recipe()), opened(toy_recipe(precision=precision))
    assert whole.scaler.is_enabled() is False
    assert half.scaler.is_enabled() is (precision == "fp16")
    exact, rough = whole.take_step()[0], half.take_step()[0]
    assert (watched(whole).types, watched(half).types) == ({torch.float32}, {dtype})
    assert all(p.dtype == torch.float32 for p in half.model.parameters())
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(exact, rough, rtol=0.05, atol=0.02)


def test_accumulation_takes_the_batch_in_parts(opened: Open) -> None:
    session = opened(toy_recipe(accumulation=2))
    session.take_step()
    assert watched(session).seen == [(2, 32, 32)] * 2


def test_clipping_bounds_a_step(opened: Open) -> None:
    recipe = optimised(momentum=0.0, weight_decay=0.0)
    free, clipped = (opened(replace(recipe, clip_norm=bound)) for bound in (None, 1e-3))
    names = [name for name, _ in clipped.model.named_parameters()]
    ways = [moved(session) for session in (free, clipped)]
    far, near = (sum(way[name] ** 2 for name in names) ** 0.5 for way in ways)
    assert near == pytest.approx(optimiser(clipped).param_groups[0]["lr"] * 1e-3, rel=1e-3)
    assert far > 10 * near


def test_the_average_is_what_is_used(opened: Open) -> None:
    plain = opened(toy_recipe(ema=None))
    assert plain.eval_model is plain.model
    session = opened(toy_recipe(ema=EMAConfig(decay=0.9, ramp=4)))
    assert isinstance(session.ema, EMA)
    moved(session, 2)
    name = "head.weight"
    assert not torch.equal(session.eval_model.state_dict()[name], session.model.state_dict()[name])


def test_channels_last(opened: Open) -> None:
    for wanted in (True, False):
        weight = opened(toy_recipe(channels_last=wanted)).model.state_dict()["backbone.conv.weight"]
        assert weight.is_contiguous(memory_format=torch.channels_last) is wanted


def test_several_sizes(opened: Open) -> None:
    recipe = toy_recipe(16)
    session = opened(replace(recipe, data=replace(recipe.data, multi_scale=MultiScaleConfig(sizes=(32, 64), every=1))))
    moved(session, 12)
    assert set(watched(session).seen) == {(4, 32, 32), (4, 64, 64)}


def test_seed(opened: Open) -> None:
    first, again, other = (opened(toy_recipe(seed=seed)).take_step()[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
