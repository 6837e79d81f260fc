"""Handing the data set to loader workers that are not forked, without a copy for each of them.

A forked worker shares the parent's arrays until somebody writes to them, and nobody does. A spawned one gets a pickle:
here the arrays inside travel as blocks of shared memory, which every worker maps, and only the small rest is copied.
"""

from __future__ import annotations

import pickle
from typing import Generic, TypeVar

import numpy as np
import torch

T = TypeVar("T")


class Shared(Generic[T]):
    """A value whose arrays are in shared memory once it has been pickled for another process."""

    def __init__(self, value: T) -> None:
        self.value = value

    def __getstate__(self) -> tuple[bytes, list[torch.Tensor]]:
        buffers: list[pickle.PickleBuffer] = []
        rest = pickle.dumps(self.value, protocol=5, buffer_callback=buffers.append)
        # Tensors that are pickled by a torch multiprocessing context move to shared memory and travel as handles.
        return rest, [
            torch.from_numpy(np.frombuffer(buffer.raw(), np.uint8).copy()).share_memory_() for buffer in buffers
        ]

    def __setstate__(self, state: tuple[bytes, list[torch.Tensor]]) -> None:
        rest, blocks = state
        self.value = pickle.loads(rest, buffers=[block.numpy() for block in blocks])
