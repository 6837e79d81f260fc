"""Records of the defects of a data set. Readers note them, ``open_dataset`` warns of them, the check reports them."""

from __future__ import annotations

import itertools
import math
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from boxwright.data.images import pixel_limit
from boxwright.structures import InputError

Severity = Literal["error", "warning", "info"]
_RANK: tuple[Severity, ...] = ("info", "warning", "error")

_MOST_ITEMS = 20  # in one line
_SLACK = 1.0  # pixels that a box may extend over the edge unreported: formats count from 0 or 1, and tools round


class DatasetWarning(UserWarning):
    """A harmless defect of a data set that the reader has corrected, such as a box without area that was left out."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One defect or note. ``place`` is the line, image id or annotation id in ``file``, or empty."""

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


@dataclass
class _Line:
    """Content of a line that `ProblemLog.gather` composes; ``position`` among the problems."""

    position: int
    severity: Severity
    file: str
    message: str
    announced: bool
    calls: int = 0
    items: dict[str, None] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)

    def text(self) -> str:
        """Return the message with what was gathered so far."""
        names = list(itertools.islice(self.items, _MOST_ITEMS))
        listed = ", ".join(names)
        listed += f" and {len(self.items) - len(names)} more" if len(self.items) > len(names) else ""
        others = len(self.files) - 1 if "{items}" in self.message else 0
        text = self.message.format(items=listed, first=names[0], count=self.calls)
        return text + (f" (and in {others} more file{'s' if others > 1 else ''})" if others else "")


class ProblemLog:
    """Collect problems while a data set is read.

    `refuse` raises at the first defect that cannot be corrected, as training needs. If ``lenient``, it notes the defect
    instead, and the reader leaves the item out and continues, as the check needs. With ``skip_masks`` a reader leaves
    out invalid masks and notes them instead of refusing them.
    """

    def __init__(self, lenient: bool = False, *, skip_masks: bool = False) -> None:
        self.lenient = lenient
        self.skip_masks = skip_masks
        self.problems: list[Problem] = []
        self._corrected: list[Problem] = []
        self._gathered: dict[str, _Line] = {}  # by kind

    def refuse(self, kind: str, file: Path | str, place: str, message: str) -> None:
        """Raise ``InputError`` for a defect that cannot be corrected; note it as an error if lenient."""
        problem = Problem(kind, "error", str(file), place, message)
        if not self.lenient:
            raise InputError(f"{problem}; `boxwright data check` lists all defects")
        self.problems.append(problem)

    def correct(self, kind: str, severity: Severity, file: Path | str, place: str, message: str) -> None:
        """Note a defect that the reader has corrected; `announce` warns of it."""
        problem = Problem(kind, severity, str(file), place, message)
        self.problems.append(problem)
        self._corrected.append(problem)

    def note(self, kind: str, severity: Severity, file: Path | str, place: str, message: str) -> None:
        """Note a problem that does not change the result of reading."""
        self.problems.append(Problem(kind, severity, str(file), place, message))

    def gather(
        self, kind: str, severity: Severity, file: Path | str, item: str, message: str, announced: bool = False
    ) -> None:
        """Note an item of a kind that gets one line for the whole data set, however many files and items it has.

        In ``message``, ``{items}`` stands for the different items, ``{first}`` for the first of them and ``{count}``
        for the number of calls. `announce` warns of the line if ``announced``.
        """
        line = self._gathered.get(kind)
        if line is None:
            line = self._gathered[kind] = _Line(len(self.problems), severity, str(file), message, announced)
            self.problems.append(Problem(kind, severity, str(file), "", ""))
        line.calls += 1
        line.items[item] = None
        line.files.add(str(file))
        line.severity = _RANK[max(_RANK.index(line.severity), _RANK.index(severity))]
        self.problems[line.position] = Problem(kind, line.severity, line.file, "", line.text())

    def announce(self) -> None:
        """Warn once of all corrections: the number of each kind and its first case."""
        lines = [line for line in self._gathered.values() if line.announced]
        if not self._corrected and not lines:
            return
        kinds: defaultdict[str, list[Problem]] = defaultdict(list)
        for problem in [*self._corrected, *(self.problems[line.position] for line in lines)]:
            kinds[problem.kind].append(problem)
        texts = [
            f"{found[0]}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else "") for found in kinds.values()
        ]
        self._corrected.clear()
        for line in lines:
            line.announced = False
        warnings.warn(
            "read with corrections; `boxwright data check` lists them all\n  " + "\n  ".join(texts),
            DatasetWarning,
            stacklevel=3,
        )


def note_zero_id(log: ProblemLog, file: Path, what: str) -> None:
    """Note an id 0 of ``what`` (images, annotations, categories), in one line for the whole data set."""
    message = "ids of {items} begin at 0, which some tools take for none; count from 1 for them"
    log.gather("id-zero", "info" if what == "categories" else "warning", file, what, message)


def size_defect(height: int, width: int) -> str | None:
    """Describe a stated size of an image that no image can have; None if there is no defect."""
    if height * width > (limit := pixel_limit()):
        return f"is {width}x{height}, more than the {limit:,} pixels that an image may have; correct it"
    return None


def refuse_fractions(log: ProblemLog, file: Path, boxes: int) -> bool:
    """Refuse ``boxes`` boxes that all lie within 0..1, where the format holds pixels. A single one is only noted."""
    if boxes == 1:
        message = "its one box lies within 0..1, less than a pixel; if that is in fractions of the image, convert it"
        log.correct("not-pixels", "warning", file, "", message)
        return False
    message = f"all {boxes} boxes lie within 0..1: fractions of the image? The format holds pixels, convert them"
    log.refuse("not-pixels", file, "", message)
    return True


def box_defect(
    log: ProblemLog,
    file: Path | str,
    place: str,
    corners: tuple[float, float, float, float],
    height: int,
    width: int,
) -> bool:
    """Return True if a box, x1 y1 x2 y2 in pixels of its image, can be used; note its defects in ``log``.

    A box without area, with a number that is not finite, or wholly outside its image is left out. A box that extends
    over the edge is kept unchanged.
    """
    x1, y1, x2, y2 = corners
    text = f"box {x1:.6g} {y1:.6g} {x2:.6g} {y2:.6g}"
    if not all(math.isfinite(v) for v in corners):
        log.correct("bad-box", "error", file, place, f"{text} has a number that is not finite; left out")
        return False
    if x2 <= x1 or y2 <= y1:
        log.correct("no-area", "error", file, place, f"{text} has no area; left out")
        return False
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        log.correct("outside", "error", file, place, f"{text} is outside its {width}x{height} image; left out")
        return False
    if x1 < -_SLACK or y1 < -_SLACK or x2 > width + _SLACK or y2 > height + _SLACK:
        log.note("over-edge", "warning", file, place, f"{text} extends over the edge of its {width}x{height} image")
    return True
