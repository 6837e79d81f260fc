"""Lengths of time as options give them and as messages show them."""

from __future__ import annotations

import math
import re
import time

from boxwright.structures import InputError

UNITS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str, option: str, example: str) -> float:
    """Read a length of time such as ``15m``, ``1h30m`` or ``50ms`` in seconds. Raises InputError for anything else."""
    compact = re.sub(r"\s+", "", text.lower())
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|sec|min|[smhd])", compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise InputError(f"{option} {text}: give a time with its unit, such as {example}")
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not 0 < seconds < 366 * 86400:
        raise InputError(f"{option} {text}: give a time above 0 and below a year, such as {example}")
    return seconds


def shown(seconds: float) -> str:
    """Return a length of time in words, to two digits: ``40 ms``, ``50 s``, ``14 min``, ``2 h 10 min``."""
    if seconds < 1:
        return f"{seconds * 1000:.2g} ms" if seconds < 0.1 else f"{round(seconds * 1000, -1):.0f} ms"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(round(minutes, -1), 60)
    if hours < 24:
        return f"{hours} h" + (f" {rest} min" if rest else "")
    return f"{seconds / 86400:.1f} days"


def as_option(seconds: float) -> str:
    """Return a length of time, rounded up to two digits, as an option takes it: ``20ms``, ``90s``, ``15m``, ``12h``."""
    units = (("ms", 0.001, 1000), ("s", 1.0, 600), ("m", 60.0, 600), ("h", 3600.0, 240), ("d", 86400.0, math.inf))
    unit, size = next((unit, size) for unit, size, most in units if seconds / size < most)
    count = seconds / size
    step = 10 ** max(0, len(str(int(count))) - 2)
    return f"{math.ceil(round(count / step, 6)) * step}{unit}"


def clock_in(seconds: float) -> str:
    """Return the time of day in ``seconds`` from now, with the date if that is another day."""
    then, now = time.localtime(time.time() + seconds), time.localtime()
    return time.strftime("%H:%M" if then[:3] == now[:3] else "%Y-%m-%d %H:%M", then)
