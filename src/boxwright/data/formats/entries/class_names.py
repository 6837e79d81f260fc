"""Class names as they stand in files, and the words for those that are read in another form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from boxwright.data.formats.parsing import shown
from boxwright.data.formats.problems import ProblemLog
from boxwright.structures import Classes, InputError, plain_name


def named_classes(
    names: Sequence[str], file: Path, place: str, log: ProblemLog, ids: Sequence[int] | None = None
) -> Classes:
    """Return the classes of the names of a file, numbered from 1 without ``ids``.

    Blanks and line breaks become single blanks, and invisible characters are removed, which ``log`` says. Raises
    ``InputError`` naming file and place for a name that is empty, too long, used twice, or has control characters.
    """
    note_changed(names, file, place, log)
    try:
        classes = Classes(tuple(names), tuple(range(1, len(names) + 1) if ids is None else ids))
    except InputError as error:
        raise InputError(f"{file}, {place}: {error}" if place else f"{file}: {error}") from None
    _note_alike(classes, file, place, log)
    return classes


def note_changed(names: Iterable[str], file: Path, place: str, log: ProblemLog) -> None:
    """Note the names that are read in another form than they stand in the file."""
    for name in names:
        if (plain := plain_name(name)) != name and plain:
            log.correct("class-name", "warning", file, place, f"class name {shown(name)} is read as {shown(plain)}")


def _note_alike(classes: Classes, file: Path, place: str, log: ProblemLog) -> None:
    """Note names that differ only in case, which are often one class spelled in two ways."""
    first: dict[str, str] = {}
    for name in classes.names:
        other = first.setdefault(name.casefold(), name)
        if other != name:
            message = f"classes {shown(other)} and {shown(name)} differ only in case; are they one class?"
            log.note("class-name", "warning", file, place, message)
