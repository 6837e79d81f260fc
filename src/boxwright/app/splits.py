"""Choose the split of a data set that a command works on."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from boxwright.data.formats.places import split_name
from boxwright.structures import InputError


def choose_split(
    data: Path, splits: Collection[str], named: str | None, preferred: tuple[str, ...], option: str = "--split"
) -> str:
    """Return the split ``named``, else the first of ``preferred`` that the data set has, else its only split.

    ``splits`` are the names of all splits of ``data``. Raises InputError, which names the command-line ``option``, if
    there is no such split.
    """
    if named is not None:
        wanted = (named, split_name(named))  # valid and train2017 stand for val and train
    else:
        wanted = (*preferred, *splits) if len(splits) == 1 else preferred
    for name in wanted:
        if name in splits:
            return name
    missing = repr(named) if named is not None else " or ".join(repr(name) for name in preferred)
    raise InputError(f"{data}: has no split {missing}; it has {', '.join(splits)}; choose one with {option}")
