"""Small constant tensors, created on a device without synchronising with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def constant(values: Sequence[Any], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a small tensor of plain numbers on ``device`` without synchronising with it.

    ``torch.tensor(values, device="cuda")`` copies from pageable memory, which blocks until the GPU has caught up. A
    copy from pinned memory does not.
    """
    if device.type != "cuda" or torch.compiler.is_compiling():
        return torch.tensor(values, dtype=dtype, device=device)
    return torch.tensor(values, dtype=dtype).pin_memory().to(device, non_blocking=True)
