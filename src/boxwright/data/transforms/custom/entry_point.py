"""Find and make the transforms that installed packages offer as entry points of the group ``boxwright.transforms``."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeAlias, cast

from torch import Generator

from boxwright.data.transforms.sample import Sample
from boxwright.fields import nearest
from boxwright.structures import InputError

GROUP = "boxwright.transforms"
"""Group of the entry points."""

CustomTransform: TypeAlias = Callable[[Sample, Generator], Sample]
"""Transform that the object of an entry point makes of its options."""


@lru_cache(maxsize=64)
def custom_transform(name: str, options: str) -> CustomTransform:
    """Return the transform of the entry point ``name``, made with ``options``, a JSON object of keyword arguments.

    It is made once in a process. Raises InputError that names the entry point and its package if it is absent, cannot
    be imported or does not take the options.
    """
    point = _found(name)
    what = described(point)
    try:
        factory = point.load()
    except Exception as error:
        raise InputError(f"{what} cannot be loaded: {_told(error)}; repair or reinstall its package") from error
    if not callable(factory):
        raise InputError(f"{what} is {factory!r}, which cannot be called with options; see docs/augmentation.md")
    given = json.loads(options)
    try:
        made = factory(**given)
    except Exception as error:
        raise InputError(
            f"{what} does not take the options {given}: {_told(error)}; change options in its entry of data.train"
        ) from error
    if not callable(made):
        raise InputError(
            f"{what} made {made!r}, which is no transform: it must be callable with a sample and a generator, see "
            "docs/augmentation.md"
        )
    return cast(CustomTransform, made)


def describe_custom(name: str) -> str:
    """Return words for the entry point ``name`` with its package and the object it names."""
    return described(_found(name))


def described(point: EntryPoint) -> str:
    """Return words for an entry point: name, package with version, and the object it names."""
    package = "an unnamed package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
    return f"the transform {point.name!r} of {package} (entry point {point.value})"


def _found(name: str) -> EntryPoint:
    points = entry_points(group=GROUP)
    own = {point.value: point for point in points if point.name == name}
    if len(own) > 1:
        raise InputError(
            f"custom transform {name!r}: several packages have an entry point of this name, "
            f"{' and '.join(sorted(map(described, own.values())))}; uninstall all but one"
        )
    if not own:
        names = sorted({point.name for point in points})
        known = f"installed are {', '.join(names)}" if names else "no installed package has any"
        near = nearest(name, names) or f"; {known}; install the package that has it into this environment"
        raise InputError(f"custom transform {name!r}: there is no entry point of this name in the group {GROUP}{near}")
    return next(iter(own.values()))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
