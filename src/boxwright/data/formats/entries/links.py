"""Name the links of a data set that point nowhere, whose files would be lost silently."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from boxwright.data.formats.problems import ProblemLog
from boxwright.data.formats.texts import dead_link
from boxwright.data.images import is_image_name, unreadable_reason

_NAMED_BY_READERS = (".txt", ".xml")  # besides images


def note_dead_links(files: Iterable[Path], folder: Path, log: ProblemLog) -> dict[Path, str]:
    """Note the links among ``files`` that point nowhere and that no reader asks for: to folders, and to JSON and YAML.

    Returns what is said of each. A link in ``folder`` itself, the root of the data set, may have no part in it, so that
    it is a warning unless it is one to annotations.
    """
    dead: dict[Path, str] = {}
    for file in files:
        if file.suffix.lower() in _NAMED_BY_READERS or is_image_name(file) or unreadable_reason(file) is not None:
            continue
        if (text := dead_link(file)) is not None:
            dead[file] = text
            serious = file.parent != folder or file.suffix.lower() in (".json", ".yaml", ".yml")
            log.correct("dead-link", "error" if serious else "warning", file, "", text)
    return dead
