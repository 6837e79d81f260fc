"""Changes of image files between the sessions of a run.

The fingerprint of a data set covers names and annotations. `data.csv` in the run folder holds size, time and a hash of
every image and every file of proposals at the start of the run. A resumed run compares size and time, which costs no
reading. A file with another time alone, as a copy of the data set has, is read: the hash of its start, middle and end
decides.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from boxwright.structures import InputError

FILE = "data.csv"
_COLUMNS = ["split", "file", "bytes", "modified_ns", "hash"]
_PART = 4096
"""Bytes that are hashed at the start, in the middle and at the end. All formats with compression change there."""
_MOST = 200_000
"""Number of files that are hashed, evenly spread: those of ImageNet would take minutes."""
_THREADS = 16

A = TypeVar("A")
B = TypeVar("B")


class DataFile(NamedTuple):
    """A file that a run reads: ``split`` and ``name`` say which one in the data set."""

    split: str
    name: str
    path: Path


@dataclass(frozen=True)
class State:
    """Size in bytes, -1 without a file; time of the last change in nanoseconds; hash, "" where none was made."""

    size: int
    time: int
    hash: str = ""


class Comparison(NamedTuple):
    """Result of a comparison: ``remarks`` for the user, and the ``record`` to write to `FILE`."""

    remarks: list[str]
    record: bytes


def compare_data(folder: Path, files: Sequence[DataFile], resume: bool, ended: str) -> Comparison:
    """Compare ``files`` with those at the start of the run in ``folder``, which a new run has none of.

    ``ended``: how the run ended before; a file that it names may have been replaced since. Nothing is compared if the
    run is of an earlier version, or if the note was deleted. Raises InputError naming the first file that has changed.
    """
    before = _read(folder / FILE) if resume and (folder / FILE).is_file() else {}
    now = _each(lambda file: _state(file.path), files)
    if not before:
        step = max(1, -(-len(files) // _MOST))
        hashes = _each(lambda i: _hash(files[i].path) if i % step == 0 else "", range(len(files)))
        now = [replace(state, hash=found) for state, found in zip(now, hashes, strict=True)]
        return Comparison([], _dump(files, now))
    pairs = [(before.get((file.split, file.name)), state, file) for file, state in zip(files, now, strict=True)]
    known = _each(lambda pair: _compared(*pair), pairs)
    changes = [(file, change) for file, (_, change) in zip(files, known, strict=True) if change]
    allowed = [file for file, _ in changes if str(file.path) in ended or file.name in ended]
    refused = [(file, change) for file, change in changes if file not in allowed]
    if refused:
        file, change = refused[0]
        others = f", and {len(refused) - 1} other files have changed too" if len(refused) > 1 else ""
        raise InputError(
            f"{file.path}: not the file that the run was trained with: {change}{others}; put the old files back, or "
            f"start a new run with the old checkpoint as weights. To resume with the new files, delete {folder / FILE}"
        )
    notes = [f"{file.path} has changed since the run ended at it" for file in allowed]
    wanted, found = ({key for key in keys if key[0] == "val"} for keys in (before, {f[:2] for f in files}))
    if wanted != found:
        notes.append(
            "WARNING: the validation images are not those of before: metrics from here on cannot be compared with "
            "earlier ones, by which the best checkpoint was chosen"
        )
    return Comparison(notes, _dump(files, [state for state, _ in known]))


def _compared(before: State | None, now: State, file: DataFile) -> tuple[State, str]:
    """Return the state to note of a file, and how it has changed; "" if it has not."""
    if before is None:
        return replace(now, hash=_hash(file.path)), ""
    if now.size < 0 <= before.size:
        return now, "it is not there any more"
    if now.size != before.size:
        return replace(now, hash=_hash(file.path)), f"it had {before.size} bytes and has {now.size}"
    if now.time == before.time or not before.hash:
        return replace(now, hash=before.hash), ""
    found = _hash(file.path)
    return replace(now, hash=found), "" if found == before.hash else "it has as many bytes, but others"


def _state(path: Path) -> State:
    try:
        found = path.stat()
    except (OSError, ValueError):  # who reads it says what is wrong
        return State(-1, 0)
    return State(found.st_size, found.st_mtime_ns)


def _hash(path: Path) -> str:
    """Hash the start, middle and end of a file, or the whole if it is small; "" if it cannot be read."""
    digest = hashlib.blake2b(digest_size=8)
    try:
        if not path.is_file():  # a pipe would wait for a writer
            return ""
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            for start in dict.fromkeys((0, max(0, size // 2 - _PART // 2), max(0, size - _PART))):
                file.seek(start)
                digest.update(file.read(_PART))
    except (OSError, ValueError):
        return ""
    return digest.hexdigest()


def _each(function: Callable[[A], B], values: Sequence[A]) -> list[B]:
    """Apply ``function`` in threads: files on a network answer slowly, but many at once."""
    parts = [values[start : start + 256] for start in range(0, len(values), 256)]
    if len(parts) <= 1:
        return [function(value) for value in values]
    with ThreadPoolExecutor(_THREADS) as pool:
        return [found for part in pool.map(lambda part: [function(value) for value in part], parts) for found in part]


def _dump(files: Sequence[DataFile], states: Sequence[State]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows((f.split, f.name, s.size, s.time, s.hash) for f, s in zip(files, states, strict=True))
    return buffer.getvalue().encode(errors="surrogateescape")


def _read(path: Path) -> dict[tuple[str, str], State]:
    """Read what `_dump` made. Raises InputError naming the line that is something else."""
    text = path.read_bytes().decode(errors="surrogateescape")
    rows = csv.reader(io.StringIO(text, newline=""))
    remedy = f"delete {path} to resume without comparing the image files"
    found: dict[tuple[str, str], State] = {}
    try:
        if next(rows, None) != _COLUMNS:
            raise ValueError(f"its first line must be {','.join(_COLUMNS)}")
        for split, name, size, time, digest in rows:
            found[split, name] = State(int(size), int(time), digest)
    except (csv.Error, ValueError) as error:
        raise InputError(f"{path}: line {rows.line_num}: damaged ({error}); {remedy}") from None
    return found
