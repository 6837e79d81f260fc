"""Random states of Python, NumPy and torch as one value for checkpoints, and seeds of single images."""

from __future__ import annotations

import hashlib
import random
import struct
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Seed all global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of all global generators of this process as tensors, numbers and text."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, words, following = random.getstate()
    return {
        "python": [version, list(words), following],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore what ``random_state()`` returned. A CUDA state is ignored on another kind of device."""
    version, words, following = state["python"]
    random.setstate((version, tuple(words), following))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def image_seeds(seed: int, step: int, batch_size: int, first: int, count: int) -> Tensor:
    """Return seeds, int64 ``[count]``, of the images ``first, first + 1, ...`` of the global batch of a step.

    They depend on an image's position in the stream alone, not on processes or micro-batches.
    """
    positions = range(step * batch_size + first, step * batch_size + first + count)
    digests = (hashlib.blake2b(struct.pack("<2q", seed, p), digest_size=8).digest() for p in positions)
    return torch.tensor([int.from_bytes(d, "little") >> 2 for d in digests], dtype=torch.int64)
