"""A limit on the size of a network while it is built.

A configuration can ask for a million layers, or for a layer of a billion channels. It is refused when the limit is
passed, before the memory is used.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from boxwright.structures import InputError

_NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "overflow",
    "negative dimension",
    "Overflow",
)
"""Words of torch's errors for tensors that cannot be."""


class TooLargeError(InputError):
    """The network that is being built passes the limit."""


@contextmanager
def bounded_network(values: int, tensors: int) -> Iterator[None]:
    """Raise TooLargeError as soon as this thread has built parameters of more ``values`` or ``tensors`` in the block.

    It is raised too for a tensor that torch cannot make at all.
    """
    thread = threading.get_ident()
    count = [0, 0]

    def look(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is None or threading.get_ident() != thread:
            return
        count[0] += parameter.numel()
        count[1] += 1
        if count[0] > values or count[1] > tensors:
            raise TooLargeError(
                f"more than {values:,} parameters" if count[0] > values else f"more than {tensors:,} tensors"
            )

    handle = register_module_parameter_registration_hook(look)
    try:
        yield
    except (RuntimeError, TypeError, MemoryError, OverflowError) as error:
        if isinstance(error, MemoryError | OverflowError) or any(words in str(error) for words in _NO_MEMORY):
            raise TooLargeError("a layer that no memory can hold") from error
        raise
    finally:
        handle.remove()
