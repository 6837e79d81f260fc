"""Shared memory for the data set of loader workers that are not forked.

A forked worker shares the parent's arrays as long as nothing writes to them. A spawned worker gets a pickle, in which
the arrays are one block of shared memory that every worker maps. Only the rest is copied.
"""

from __future__ import annotations

import pickle
from typing import Generic, TypeVar

import numpy as np
import torch

from boxwright.geometry.rounding import round_up

T = TypeVar("T")

_ALIGNMENT = 64


class Shared(Generic[T]):
    """A value whose arrays move to shared memory when it is pickled for another process."""

    def __init__(self, value: T) -> None:
        self.value = value
        self._state: tuple[bytes, list[tuple[int, int]], torch.Tensor] | None = None

    def __getstate__(self) -> tuple[bytes, list[tuple[int, int]], torch.Tensor]:
        if self._state is None:  # once, so that all workers get the same block
            buffers: list[pickle.PickleBuffer] = []
            rest = pickle.dumps(self.value, protocol=5, buffer_callback=buffers.append)
            parts = [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
            ranges, end = [], 0
            for part in parts:
                start = round_up(end, _ALIGNMENT)
                end = start + part.size
                ranges.append((start, end))
            # A tensor pickled by torch's multiprocessing travels as a handle to its shared memory.
            block = torch.empty(max(end, 1), dtype=torch.uint8).share_memory_()
            for part, (start, stop) in zip(parts, ranges, strict=True):
                block.numpy()[start:stop] = part
            self._state = rest, ranges, block
        return self._state

    def __setstate__(self, state: tuple[bytes, list[tuple[int, int]], torch.Tensor]) -> None:
        self._state = state
        rest, ranges, block = state
        memory = block.numpy()
        self.value = pickle.loads(rest, buffers=[memory[start:stop] for start, stop in ranges])
