"""Results of finished runs, kept in a file beside the table, so that a long comparison can be made in parts."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from boxwright.io.environment import versions
from boxwright.io.files import write_atomically
from machine import processor

Key = Mapping[str, Any]
"""Everything that tells a run from the others, as JSON: data, recipe, settings, epochs, seed."""
Values = dict[str, Any]
"""Results of a run, as JSON."""


class Rows:
    """One JSON object a line: the ``key`` of a run and its ``values``, with date, machine and versions.

    A row is kept only as long as the versions are the same; a run that is made again replaces its row. To make one
    again by hand, remove its line.
    """

    def __init__(self, path: Path, packages: Sequence[str] = ("python", "torch", "torchvision")) -> None:
        """Read the file, if it exists. ``packages``: those whose versions count."""
        self.path = path
        self.versions = {name: version for name, version in versions().items() if name in packages}
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self._rows: list[dict[str, Any]] = [json.loads(line) for line in lines if line]
        self._lock = Lock()

    def find(self, key: Key) -> Values | None:
        """Return the values of a run made with these versions, or None."""
        for row in self._rows:
            if row["key"] == _plain(key) and row["versions"] == self.versions:
                return row["values"]
        return None

    def add(self, key: Key, values: Values) -> None:
        """Keep the values of a run, on disk when the call returns."""
        made = {"date": datetime.date.today().isoformat(), "machine": processor(), "versions": self.versions}
        with self._lock:
            self._rows = [row for row in self._rows if row["key"] != _plain(key)]
            self._rows.append({"key": _plain(key), "values": values, **made})
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in self._rows).encode())

    def all(self) -> list[tuple[dict[str, Any], Values]]:
        """Return key and values of all rows made with these versions, in the order they were made."""
        return [(row["key"], row["values"]) for row in self._rows if row["versions"] == self.versions]

    def dates(self) -> str:
        """Return the day of the rows, or the first and the last."""
        days = sorted({row["date"] for row in self._rows}) or [datetime.date.today().isoformat()]
        return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _plain(key: Key) -> dict[str, Any]:
    """Return the key as it comes back from JSON, so that tuples equal lists."""
    return json.loads(json.dumps(key))
