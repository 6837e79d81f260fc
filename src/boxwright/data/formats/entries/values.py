"""Read numbers, whole numbers and flags that a file may hold as text, such as ``"640"`` and ``"False"``."""

from __future__ import annotations

import math
import re
from typing import Any

LARGEST_ID = 2**63 - 1
"""Largest id and number of an index, which holds 64 bits."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_NO_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE | re.ASCII)
_FALSE = frozenset({"", "0", "false", "f", "no", "n", "off", "none", "null", "unspecified"})
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})


def number(value: Any) -> float | None:
    """Return a number, given as such or as text; None for anything else, truth values included.

    The number may be infinite or NaN, which JSON and XML files hold too.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str):
        text = value.strip()
        if _NUMBER.fullmatch(text):
            return float(text)
        if _NO_FINITE.fullmatch(text):
            return float(text)
    return None


def whole(value: Any) -> int | None:
    """Return a whole number of 64 bits, given as 3, 3.0 or text of these; None for anything else."""
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"[+-]?\d{1,40}", text, re.ASCII):
            value = int(text)  # not by way of a float, which holds 53 bits
        else:
            value = number(text)
    if isinstance(value, float):
        value = int(value) if math.isfinite(value) and value.is_integer() else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if -LARGEST_ID <= value <= LARGEST_ID else None


def flag(value: Any) -> bool | None:
    """Return the truth value that a JSON value or a text means; None for anything else.

    0, ``"0"``, ``"0.0"``, ``"False"``, ``"no"``, an empty text and null are false; 1, ``"1"`` and ``"true"`` true.
    """
    if isinstance(value, bool):
        return value
    if value is None:
        return False
    if isinstance(value, str):
        text = value.strip().lower()
        if text in _FALSE:
            return False
        if text in _TRUE:
            return True
    found = number(value)
    return bool(found) if found in (0.0, 1.0) else None
