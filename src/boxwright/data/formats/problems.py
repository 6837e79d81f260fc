"""Defects of a data set as values. Readers note them, ``open_dataset`` warns of them, the check reports them."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from boxwright.structures import InputError

Severity = Literal["error", "warning", "info"]

_SLACK = 1.0  # pixels that a box may reach over the edge without a remark: formats count from 0 or 1, tools round


class DatasetWarning(UserWarning):
    """A harmless defect of a data set that reading has put right, such as a box without area that was left out."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One defect or remark. ``place`` is the line, image id or annotation id in ``file``, or empty."""

    kind: str
    severity: Severity
    file: str
    place: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}, {self.place}" if self.place else self.file
        return f"{where}: {self.message}"

    def to_dict(self) -> dict[str, str]:
        """Return the fields as a dictionary for JSON."""
        return {name: getattr(self, name) for name in ("kind", "severity", "file", "place", "message")}


class ProblemLog:
    """Collects problems while a data set is read.

    With ``lenient`` false, the way training reads, `refuse` raises at the first defect that cannot be read past. With
    ``lenient`` true, the way the check reads, it notes the defect and the reader leaves that item out and goes on.
    With ``skip_masks`` a reader leaves out masks that are none, and says so, where it would refuse them.
    """

    def __init__(self, lenient: bool = False, *, skip_masks: bool = False) -> None:
        self.lenient = lenient
        self.skip_masks = skip_masks
        self.problems: list[Problem] = []
        self._put_right: list[Problem] = []

    def refuse(self, kind: str, file: Path | str, place: str, message: str) -> None:
        """Raise ``InputError`` for a defect that cannot be read past; note it as an error when lenient."""
        problem = Problem(kind, "error", str(file), place, message)
        if not self.lenient:
            raise InputError(f"{problem}; `boxwright data check` lists all defects")
        self.problems.append(problem)

    def put_right(self, kind: str, severity: Severity, file: Path | str, place: str, message: str) -> None:
        """Note a defect that the reader has corrected; `announce` warns of it."""
        problem = Problem(kind, severity, str(file), place, message)
        self.problems.append(problem)
        self._put_right.append(problem)

    def note(self, kind: str, severity: Severity, file: Path | str, place: str, message: str) -> None:
        """Note a problem that does not change what was read."""
        self.problems.append(Problem(kind, severity, str(file), place, message))

    def announce(self) -> None:
        """Warn once of all corrections: the number of each kind and its first case."""
        if not self._put_right:
            return
        kinds: defaultdict[str, list[Problem]] = defaultdict(list)
        for problem in self._put_right:
            kinds[problem.kind].append(problem)
        lines = [
            f"{found[0]}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else "") for found in kinds.values()
        ]
        self._put_right.clear()
        warnings.warn(
            "read with corrections; `boxwright data check` lists them all\n  " + "\n  ".join(lines),
            DatasetWarning,
            stacklevel=3,
        )


def box_defect(
    log: ProblemLog,
    file: Path | str,
    place: str,
    corners: tuple[float, float, float, float],
    height: int,
    width: int,
) -> bool:
    """Return True if a box, x1 y1 x2 y2 in pixels of its image, can be used; note its defects in ``log``.

    A box without area, with a number that is not finite, or wholly outside its image is left out. A box that reaches
    over the edge is kept as it is.
    """
    x1, y1, x2, y2 = corners
    text = f"box {x1:.6g} {y1:.6g} {x2:.6g} {y2:.6g}"
    if not all(math.isfinite(v) for v in corners):
        log.put_right("bad-box", "error", file, place, f"{text} has a number that is not finite; left out")
        return False
    if x2 <= x1 or y2 <= y1:
        log.put_right("no-area", "error", file, place, f"{text} has no area; left out")
        return False
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        log.put_right("outside", "error", file, place, f"{text} lies outside its {width}x{height} image; left out")
        return False
    if x1 < -_SLACK or y1 < -_SLACK or x2 > width + _SLACK or y2 > height + _SLACK:
        log.note("over-edge", "warning", file, place, f"{text} reaches over the edge of its {width}x{height} image")
    return True
