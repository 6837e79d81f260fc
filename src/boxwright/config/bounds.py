"""Limits of what a file or a command line may hold, checked before anything walks through it.

TOML and JSON allow numbers of thousands of digits and tables in tables without end. No option needs either, and code
that meets them fails far from their place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from boxwright.structures import InputError

DEEPEST = 40
"""Tables and lists in one another."""
MOST = 200_000
"""Values of a file."""
LONGEST = 100_000
"""Characters of a text."""
LARGEST = 2**63


def check_bounds(tree: Any, where: Callable[[tuple[str, ...]], str]) -> None:
    """Raise InputError for a value in nested dicts and lists that no option can mean.

    That is: too deep, too many, a whole number of more than 64 bits, a text too long or with half a character.
    ``where`` names the file or option of a path, for the message.
    """
    waiting: list[tuple[Any, tuple[str, ...]]] = [(tree, ())]
    seen = 0
    while waiting:
        value, path = waiting.pop()
        seen += 1
        fault = _fault(value, path, seen)
        if fault is not None:
            origin, place = where(path), shortened(".".join(path))
            raise InputError(": ".join(part for part in (origin, place, fault) if part))
        if isinstance(value, dict):
            waiting += [(inner, (*path, str(key))) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(inner, (*path, str(i))) for i, inner in enumerate(value)]


def _fault(value: Any, path: tuple[str, ...], seen: int) -> str | None:
    if len(path) > DEEPEST:
        return f"more than {DEEPEST} tables or lists in one another; correct it"
    if seen > MOST:
        return f"more than {MOST} values; no recipe has as many"
    if isinstance(value, int) and abs(value) >= LARGEST:
        return "a whole number of more than 64 bits; give a smaller one"
    for text in (value, *path[-1:]):
        if isinstance(text, str):
            if len(text) > LONGEST:
                return f"a text of {len(text)} characters; give at most {LONGEST}"
            try:
                text.encode()
            except UnicodeEncodeError:
                return "a text with half a character (a lone surrogate); write it again"
    return None


def shortened(text: str, most: int = 200) -> str:
    """Return ``text``, or its beginning and end if it is longer than ``most`` characters: for messages."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 4 :]}"
