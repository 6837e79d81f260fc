"""Number formats in which networks run. Loading this module does not load torch."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal, TypeAlias

from boxwright.io.environment import precision_note
from boxwright.structures import InputError

if TYPE_CHECKING:
    import torch

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]


def dtype_of(precision: Precision) -> torch.dtype:
    """Return the floating-point type of ``precision``."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return a context in which a network runs in ``precision`` while its weights stay in fp32."""
    import torch

    return torch.autocast(device.type, dtype=dtype_of(precision), enabled=precision != "fp32")


def check_precision(device: torch.device, precision: Precision) -> None:
    """Warn of a precision that is slow on ``device``. Raises InputError for one that is not worth running there."""
    if precision == "fp16" and device.type == "cpu":
        raise InputError("precision fp16 on a CPU is slower and less exact than the others; use bf16 or fp32")
    if note := precision_note(device, precision):
        warnings.warn(f"precision {precision}: {note}", stacklevel=3)
