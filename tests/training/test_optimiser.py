"""Parameter groups: which parameters decay, learn slower or not at all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from boxwright.config.recipe import AdamWConfig, GroupConfig, SGDConfig
from boxwright.structures import InputError
from boxwright.training.optimisation.optimiser import build_optimiser, freeze, hold_frozen, set_lr


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.conv1 = nn.Conv2d(3, 4, 1)
        self.backbone.bn1 = nn.BatchNorm2d(4)
        self.backbone.layer1 = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.GroupNorm(2, 4))
        self.backbone.layer10 = nn.Conv2d(4, 4, 1, bias=False)
        self.head = nn.Linear(4, 2)


def settings(model: nn.Module, config: SGDConfig | AdamWConfig, batch_size: int = 16) -> dict[str, tuple[float, float]]:
    optimiser = build_optimiser(config, model, batch_size)
    names = {p: n for n, p in model.named_parameters()}
    return {names[p]: (g["lr"], g["weight_decay"]) for g in optimiser.param_groups for p in g["params"]}


def test_weight_decay_spares_norms_and_biases_as_told() -> None:
    found = settings(Net(), SGDConfig(lr=1.0, weight_decay=0.1))
    assert {n for n, (_, decay) in found.items() if decay == 0} == {
        "backbone.bn1.weight",
        "backbone.bn1.bias",
        "backbone.layer1.1.weight",
        "backbone.layer1.1.bias",
    }
    found = settings(Net(), SGDConfig(lr=1.0, weight_decay=0.1, decay_norms=True, decay_biases=False))
    assert {n for n, (_, decay) in found.items() if decay == 0} == {"backbone.conv1.bias", "head.bias"}


@pytest.mark.parametrize("config", [SGDConfig(lr=0.5, bias_lr=2.0), AdamWConfig(lr=0.5, bias_lr=2.0)])
def test_biases_learn_faster_as_told_but_those_of_norms(config: SGDConfig | AdamWConfig) -> None:
    found = settings(Net(), config)
    assert {n for n, (lr, _) in found.items() if lr == 1.0} == {"backbone.conv1.bias", "head.bias"}
    assert all(lr in (0.5, 1.0) for lr, _ in found.values())


def test_longest_prefix_counts_and_ends_at_a_dot() -> None:
    groups = (GroupConfig(prefix="backbone", lr=0.5), GroupConfig(prefix="backbone.layer1", lr=0.1, weight_decay=2.0))
    found = settings(Net(), AdamWConfig(lr=1.0, weight_decay=0.1, groups=groups))
    assert found["backbone.layer1.0.weight"] == (0.1, 0.2)
    assert found["backbone.layer10.weight"] == (0.5, 0.1)
    assert found["head.weight"] == (1.0, 0.1)


def test_linear_scaling_only_on_request() -> None:
    assert settings(Net(), SGDConfig(lr=0.02, base_batch=16), batch_size=4)["head.weight"][0] == pytest.approx(0.005)
    assert settings(Net(), SGDConfig(lr=0.02), batch_size=4)["head.weight"][0] == 0.02


def test_schedule_factor_keeps_ratios() -> None:
    optimiser = build_optimiser(SGDConfig(lr=2.0, groups=(GroupConfig(prefix="head", lr=3.0),)), Net(), 16)
    set_lr(optimiser, 0.5)
    assert sorted({g["lr"] for g in optimiser.param_groups}) == [1.0, 3.0]
    set_lr(optimiser, 1.0)
    assert sorted({g["lr"] for g in optimiser.param_groups}) == [2.0, 6.0]


def test_frozen_parts_neither_learn_nor_track_statistics() -> None:
    model = Net()
    freeze(model, ["backbone.bn1", "backbone.conv1"])
    model.train()
    hold_frozen(model, ["backbone.bn1", "backbone.conv1"])
    assert not model.backbone.bn1.training
    assert model.backbone.layer1.training
    assert "backbone.conv1.weight" not in settings(model, SGDConfig())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: freeze(m, ["backbone.layer2"]), "did you mean 'backbone.layer1"),
        (lambda m: freeze(m, ["nowhere"]), "names begin with backbone, head"),
        (lambda m: build_optimiser(SGDConfig(groups=(GroupConfig(prefix="haed"),)), m, 1), "did you mean 'head'"),
        (lambda m: build_optimiser(SGDConfig(), m.requires_grad_(False), 1), "no parameter is left"),
    ],
)
def test_slips_are_named(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(Net())


@pytest.mark.parametrize("config", [SGDConfig(lr=0.1, weight_decay=0.01), AdamWConfig(lr=0.1)])
def test_fused_step_equals_the_plain_one(config: SGDConfig | AdamWConfig) -> None:
    torch.manual_seed(0)
    model = Net()
    plain = Net()
    plain.load_state_dict(model.state_dict())
    fused = build_optimiser(config, model, 16)
    assert all(g["fused"] for g in fused.param_groups)
    loop = build_optimiser(config, plain, 16)
    for group in loop.param_groups:
        group["fused"] = False
        group["foreach"] = False
    loop.defaults.update(fused=False, foreach=False)
    for _ in range(3):
        for a, b in zip(model.parameters(), plain.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        fused.step()
        loop.step()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)
