"""A table of tensor names in two layouts, usable in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor


class Renaming:
    """Pairs of templates, theirs and ours, such as ``("fc.{part}", "head.{part}")``.

    A field in braces stands for one part of a dotted name and is the same on both sides. The first matching pair is
    used.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._to_ours = [(_pattern(theirs), ours) for theirs, ours in pairs]
        self._to_theirs = [(_pattern(ours), theirs) for theirs, ours in pairs]

    def ours(self, name: str) -> str | None:
        """Return our name for their ``name``; None if it is not in the table."""
        return _renamed(name, self._to_ours)

    def theirs(self, name: str) -> str | None:
        """Return their name for our ``name``; None if it is not in the table."""
        return _renamed(name, self._to_theirs)

    def import_all(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Return the tensors under our names, and the names that are not in the table."""
        return _all(state, self.ours)

    def export_all(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Return the tensors under their names, and the names that are not in the table."""
        return _all(state, self.theirs)


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile("".join(f"(?P<{p}>[^.]+)" if i % 2 else re.escape(p) for i, p in enumerate(parts)))


def _renamed(name: str, table: Sequence[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, template in table:
        if found := pattern.fullmatch(name):
            return template.format(**found.groupdict())
    return None


def _all(state: Mapping[str, Tensor], rename: Callable[[str], str | None]) -> tuple[dict[str, Tensor], list[str]]:
    found: dict[str, Tensor] = {}
    unknown = []
    for name, value in state.items():
        other = rename(name)
        if other is None:
            unknown.append(name)
        else:
            found[other] = value
    return found, unknown
