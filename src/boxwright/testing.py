"""Check that code never waits for the device, which it does when it reads values of a tensor on the host.

On the CPU nothing waits, so operations are judged by what they would do on a GPU; the inside of a custom operator is
then not checked. On CUDA the driver's own check covers that too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

READS = {Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.cpu}
# Their outputs' sizes or types depend on values, though the dispatcher does not say so.
UNDECLARED = {"torchvision::nms", "aten::equal", "aten::allclose", "aten::is_nonzero"}


class HostSyncError(RuntimeError):
    """An operation would have made the host wait for the device."""


@contextmanager
def forbid_host_sync() -> Iterator[None]:
    """Raise HostSyncError, naming the operation, for any that would wait for the device.

    Such operations are: reading a scalar (``item``, ``bool(tensor)``), outputs whose size depends on values
    (``nonzero``, ``masked_select``, ``unique``, indexing with a mask), ``tolist``, ``numpy``, ``cpu``, and copies to
    the host.
    """
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    before = torch.cuda.get_sync_debug_mode() if cuda else 0
    if cuda:
        torch.cuda.set_sync_debug_mode("error")
    try:
        with _Judge(), _ReadJudge():
            yield
    finally:
        if cuda:
            torch.cuda.set_sync_debug_mode(before)


class _Judge(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if name in ("aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"):
            self._judge_index(name, args)
        elif name in UNDECLARED or _depends_on_values(func, kwargs):
            raise HostSyncError(f"{name} reads values of a tensor on the host")
        elif name in ("aten::_to_copy", "aten::copy_"):
            self._judge_copy(name, args, kwargs)
        return func(*args, **kwargs)

    @staticmethod
    def _judge_index(name: str, args: tuple[Any, ...]) -> None:
        masked = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        filled = name != "aten::index" and args[2].numel() == 1  # ``x[mask] = value`` is a fill
        if masked and not filled:
            raise HostSyncError(f"{name} with a mask has an output whose size depends on values")

    @staticmethod
    def _judge_copy(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        source = args[1] if name == "aten::copy_" else args[0]
        target = args[0].device if name == "aten::copy_" else kwargs.get("device") or source.device
        if isinstance(source, Tensor) and source.device.type != "cpu" and torch.device(target).type == "cpu":
            raise HostSyncError(f"{name} copies from {source.device} to the host")


class _ReadJudge(TorchFunctionMode):
    """Refuses the methods that read memory without an operation that the dispatcher sees."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in READS:
            raise HostSyncError(f"Tensor.{func.__name__} reads values of a tensor on the host")
        return func(*args, **(kwargs or {}))


def _depends_on_values(func: Any, kwargs: dict[str, Any]) -> bool:
    if func._schema.name == "aten::repeat_interleave":  # told the size, it need not look
        return kwargs.get("output_size") is None
    return torch.Tag.dynamic_output_shape in func.tags or torch.Tag.data_dependent_output in func.tags
