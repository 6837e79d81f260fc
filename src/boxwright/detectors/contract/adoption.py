"""Build a module around loaded weights, without initialising or copying any.

The ordinary constructor initialises every weight, and a checkpoint then overwrites it. For a ResNet-50 that is most of
the loading time, and twice the memory. Here parameters are built without memory, and the tensors of a file, which may
be mapped into memory and not be read yet, become the parameters.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook


@contextmanager
def unallocated_parameters() -> Iterator[None]:
    """Put the parameters of modules that this thread builds on the meta device; buffers are allocated as usual.

    Buffers hold values that no checkpoint has (pixel means) or that may be missing (counters), so they keep their first
    values.
    """
    thread = threading.get_ident()

    def to_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta or threading.get_ident() != thread:
            return None  # as it is; the same parameter under a second name stays the same
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    handle = register_module_parameter_registration_hook(to_meta)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()


def misfits(module: nn.Module, given: Mapping[str, Tensor]) -> str:
    """Describe how the tensors ``given`` differ from those of ``module``, in name, shape or kind of number.

    The text is empty if they agree.

    Counters of batch norms may be missing.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in own]
    wrong = [name for name in own if name in given and own[name].shape != given[name].shape]
    odd = [
        name for name in own if name in given and own[name].is_floating_point() and not given[name].is_floating_point()
    ]
    faults = []
    if missing:
        faults.append(f"{len(missing)} of {len(own)} tensors are missing, the first {_short(missing[0])}")
    if unknown:
        faults.append(f"{len(unknown)} belong to none of its layers, the first {_short(unknown[0])}")
    if wrong:
        first = wrong[0]
        faults.append(
            f"{len(wrong)} have another shape, the first {_short(first)}: {list(given[first].shape)} and not "
            f"{list(own[first].shape)}"
        )
    if odd:
        faults.append(f"{len(odd)} are no floating-point numbers, the first {_short(odd[0])}: {given[odd[0]].dtype}")
    return "; ".join(faults)


def _short(name: str) -> str:
    """Return the name of a tensor for a message; a damaged file may hold one of any length."""
    return name if len(name) <= 100 else f"{name[:100]}..."


def not_finite(given: Mapping[str, Tensor]) -> str:
    """Name the tensors among ``given`` that hold NaN or infinite values; empty if all values are finite."""
    bad = [name for name, value in given.items() if value.is_floating_point() and not _finite(value)]
    others = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return f"{', '.join(_short(name) for name in bad[:3])}{others}" if bad else ""


def _finite(value: Tensor) -> bool:
    if value.element_size() == 1:  # float8 has no sums
        value = value.float()
    # The sum reads every number once and makes no second tensor; only where it overflows each number is looked at.
    if value.is_meta or value.sum(dtype=torch.float32).isfinite():
        return True
    return bool(value.isfinite().all())


def adopt(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Make the tensors of ``state`` the parameters and buffers of ``module``, without copying them.

    Copies are made only of tensors of another type or with gaps in memory, and of one given under two names where the
    module has two parameters. Tied parameters stay tied. Counters of batch norms may be missing. Raises RuntimeError,
    as ``load_state_dict`` does, for a name that is missing or unknown, or another shape.
    """
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            places.setdefault(id(parameter), []).append((part, name))
    own = module.state_dict(keep_vars=True)
    fitted: dict[str, Tensor] = {}
    seen: dict[int, int] = {}  # address of the memory: the parameter that it is for
    for name, value in state.items():
        if name in own:
            value = value.detach().to(own[name].dtype).contiguous()
            owner = id(own[name])
            if value.numel() and seen.setdefault(value.data_ptr(), owner) != owner:
                value = value.clone()
        fitted[name] = value
    for name, value in own.items():
        if name.endswith("num_batches_tracked") and name not in fitted:
            fitted[name] = value
    module.load_state_dict(fitted, assign=True)
    for (part, name), *others in places.values():
        for other, second in others:
            setattr(other, second, getattr(part, name))
    assert not any(parameter.is_meta for parameter in module.parameters())
