"""Change nested options of a configuration by their paths."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

C = TypeVar("C")


def with_options(config: C, changes: Mapping[str, Any]) -> C:
    """Return ``config`` with other values at the paths ``changes``, such as ``{"loss.box": "giou"}``."""
    for path, value in changes.items():
        name, _, below = path.partition(".")
        config = replace(config, **{name: with_options(getattr(config, name), {below: value}) if below else value})  # type: ignore[type-var]
    return config
