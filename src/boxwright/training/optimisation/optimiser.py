"""Optimisers with parameter groups: learning rates by prefix, exceptions from weight decay, and frozen parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from boxwright.config.recipe import AdamWConfig, GroupConfig, OptimiserConfig, SGDConfig, scaled_lr
from boxwright.fields import nearest
from boxwright.structures import InputError

NORM_TYPES: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)


def build_optimiser(config: OptimiserConfig, model: nn.Module, batch_size: int) -> Optimizer:
    """Build the optimiser of the parameters of ``model`` that require a gradient.

    Each group has the additional entry ``base_lr``: its full learning rate for the global ``batch_size``, which the
    factor of the schedule multiplies. Raises InputError if a prefix matches no parameter or if all are frozen.
    """
    groups = parameter_groups(config, model, scaled_lr(config, batch_size))
    if not groups:
        raise InputError("no parameter is left to learn: all are frozen; free some of them")
    # Fused steps keep every decision on the device: neither the step count nor fp16's overflow flag is read back.
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for g in groups for p in g["params"])
    match config:
        case SGDConfig():
            return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused)
        case AdamWConfig():
            return AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def parameter_groups(config: OptimiserConfig, model: nn.Module, lr: float) -> list[dict[str, Any]]:
    """Group the parameters by learning rate and weight decay, in the form that torch's optimisers take."""
    names = [name for name, _ in model.named_parameters()]
    check_prefixes([g.prefix for g in config.groups], names, "optimiser.groups")
    norms, biases = _norms_and_biases(model)
    undecayed = (set() if config.decay_norms else norms) | (set() if config.decay_biases else biases)
    members: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        group = _group_of(name, config.groups)
        rate = lr * (group.lr if group else 1.0)
        rate *= config.bias_lr if name in biases else 1.0
        decay = 0.0 if name in undecayed else config.weight_decay * (group.weight_decay if group else 1.0)
        members[rate, decay].append(parameter)
    return [
        {"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in members.items()
    ]


def set_lr(optimiser: Optimizer, factor: float) -> None:
    """Set the learning rate of every group to ``factor`` times its full value."""
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * factor


def check_prefixes(prefixes: Sequence[str], names: Sequence[str], where: str) -> None:
    """Raise InputError for a prefix that no parameter name begins with, up to a dot or the end of the name."""
    known = sorted({".".join(n.split(".")[:i]) for n in names for i in range(1, n.count(".") + 2)})
    for prefix in prefixes:
        if prefix not in known:
            near = nearest(prefix, known) or f"; names begin with {', '.join(sorted({n.split('.')[0] for n in names}))}"
            raise InputError(f"{where}: no parameter's name begins with {prefix!r}{near}")


def has_prefix(name: str, prefix: str) -> bool:
    """Return True if ``name`` lies below ``prefix``, as backbone.layer1.0 does below backbone.layer1."""
    return name == prefix or name.startswith(prefix + ".")


def freeze(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Freeze the parameters below ``prefixes``. :func:`hold_frozen` does so with the statistics of batch norms."""
    check_prefixes(prefixes, [name for name, _ in model.named_parameters()], "stage.frozen")
    for name, parameter in model.named_parameters():
        if any(has_prefix(name, p) for p in prefixes):
            parameter.requires_grad_(False)


def hold_frozen(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Put the modules below ``prefixes`` into eval mode, after ``train()``, to keep their running statistics."""
    for name, module in model.named_modules():
        if any(has_prefix(name, p) for p in prefixes):
            module.eval()


def _norms_and_biases(model: nn.Module) -> tuple[set[str], set[str]]:
    """Return the names of the parameters of normalisation layers, and of the biases of all other layers."""
    norms: set[str] = set()
    biases: set[str] = set()
    for module_name, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            whole = f"{module_name}.{name}" if module_name else name
            if isinstance(module, NORM_TYPES):
                norms.add(whole)
            elif name == "bias":
                biases.add(whole)
    return norms, biases


def _group_of(name: str, groups: Sequence[GroupConfig]) -> GroupConfig | None:
    fitting = [g for g in groups if has_prefix(name, g.prefix)]
    return max(fitting, key=lambda g: len(g.prefix)) if fitting else None
