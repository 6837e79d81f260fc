"""Choose the split of a data set that a command works on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from boxwright.data.formats.splits import is_held_back, split_name
from boxwright.structures import InputError


def choose_split(
    data: Path,
    splits: Collection[str],
    named: str | None,
    preferred: tuple[str, ...],
    option: str = "--split",
    absent: Mapping[str, str] | None = None,
) -> str:
    """Return the split ``named``, else the first of ``preferred`` that the data set has, else its only split.

    ``splits`` are the names of all splits of ``data``, ``absent`` those that cannot be read, with the reason. A split
    that is meant for validation or testing is used in place of ``train`` only if it is named. Raises InputError, which
    names the command-line ``option``, if there is no such split.
    """
    if named is not None:
        wanted = (named, split_name(named))  # valid and train2017 stand for val and train
    else:
        wanted = (*preferred, *splits) if len(splits) == 1 else preferred
    held_back = [] if named is not None or preferred != ("train",) else [name for name in splits if is_held_back(name)]
    for name in wanted:
        if absent is not None and name in absent and name not in splits:
            raise InputError(absent[name])
        if name in splits and name not in held_back:
            return name
    missing = repr(named) if named is not None else " or ".join(repr(name) for name in preferred)
    remedy = f"choose one with {option}"
    if held_back and len(splits) == 1:
        remedy = f"to train on {held_back[0]} all the same, give {option} {held_back[0]}"
    raise InputError(f"{data}: has no split {missing}; it has {', '.join(splits)}; {remedy}")
