"""Read text files with an entry per line: lists of images, and names of classes."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from boxwright.data.formats.texts import read_text
from boxwright.data.images import is_hidden, is_image_name
from boxwright.structures import InputError

_LINE = re.compile(r"\r\n|\r|\n")
_LONGEST = 2000  # characters, more than any path or class name has


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not blank, with their numbers, without spaces at their ends.

    Raises ``InputError`` as `read_text`, and for a line that is too long for a path or a name.
    """
    lines = enumerate(_LINE.split(read_text(file).removeprefix("\ufeff")), start=1)
    found = [(number, line.strip()) for number, line in lines if line.strip()]
    for number, line in found:
        if len(line) > _LONGEST:
            raise InputError(
                f"{file}, line {number}: has {len(line):,} characters, too many for a path or a name; write one a line"
            )
    return found


def read_list(file: Path) -> list[tuple[int, str]]:
    """Return the entries of a list with their lines, without comments and quotes. Raises ``InputError``."""
    entries: list[tuple[int, str]] = []
    for number, line in read_lines(file):
        if line.startswith("#") and not is_image_name(line):
            continue
        if len(line) > 1 and line[0] == line[-1] and line[0] in "\"'":
            line = line[1:-1].strip()
        entries.append((number, line))
    return entries


def read_image_list(file: Path, bases: Iterable[Path]) -> list[tuple[int, str]]:
    """Return the entries of a list of images as `read_list`, without those that are no data by their names.

    A list that is written from a folder often holds the copies in ``.ipynb_checkpoints`` and the ``._`` files of macOS.
    Paths are relative to ``bases``; of an absolute path only the part below one of them counts, else the last name.
    If all entries are such, the data set itself is in a hidden folder, and all are returned.
    """
    entries = read_list(file)
    starts = [f"{base}/" for base in bases]
    return [entry for entry in entries if not _is_hidden_path(entry[1].replace("\\", "/"), starts)] or entries


def _is_hidden_path(path: str, starts: Iterable[str]) -> bool:
    if path.startswith("/") or path[1:2] == ":":
        start = next((start for start in starts if path.startswith(start)), None)
        path = path.rsplit("/", 1)[-1] if start is None else path.removeprefix(start)
    return any(is_hidden(part) for part in path.split("/") if part not in (".", ".."))


def composed(text: str) -> str:
    """Return text with accents composed (NFC): macOS writes file names decomposed, other systems composed."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


class NameMatcher:
    """Finds files whose names have the accents of a path in another Unicode form. Reads each folder once."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, str]] = {}

    def existing(self, path: Path) -> Path | None:
        """Return the path, or the one with its names in another form, that exists; else None."""
        if os.path.exists(path):  # which is false for a name that is too long, where Path.exists raises
            return path
        if str(path).isascii():
            return None
        here = Path(path.anchor)
        for part in path.parts[1 if path.anchor else 0 :]:
            if not os.path.exists(here / part):
                name = self._names(here).get(composed(part))
                if name is None:
                    return None
                part = name
            here /= part
        return here

    def _names(self, folder: Path) -> dict[str, str]:
        key = str(folder)
        if key not in self._folders:
            try:
                names = os.listdir(folder)
            except OSError:
                names = []
            self._folders[key] = {composed(name): name for name in sorted(names)}
        return self._folders[key]
