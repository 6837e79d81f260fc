"""Names of temporary files, and the removal of those that a killed process left.

A temporary file or folder is named ``.STEM.HOST-PID.part.SUFFIX``. HOST is a hash of the machine's name, its boot and
the namespace of process ids (a container has its own): within it a process id tells a living writer from a dead one.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shutil
import time
from pathlib import Path

FOREIGN_AGE = 24 * 3600
"""Seconds without a change after which a file of another machine is taken for left over: its processes are unknown."""
_STEM = 200
"""Bytes of a file's name that its temporary name keeps; a file system takes 255 in all."""
_AGAIN = 10
"""Seconds before the same process looks through a folder again."""

_NAME = re.compile(
    r"\..+\.(?:([0-9a-f]{8})-(\d+)\.part(\.[^.]*)?|\d+\.part(\.[^.]*)?|\d+\.tmp|\w{8}\.partial)", re.DOTALL
)
"""Names of this version, with host and process, and those of earlier ones."""

_own: set[str] = set()
_looked: dict[str, float] = {}


def temporary_path(path: Path) -> Path:
    """Return the temporary name beside ``path`` of what this process is about to write there; see `release`.

    It keeps the suffix of ``path``, by which writers of images and videos choose the format.
    """
    stem = path.stem.encode(errors="ignore")
    if len(stem) > _STEM:  # two names may differ behind the cut
        stem = stem[: _STEM - 9] + b"-" + hashlib.blake2b(stem, digest_size=4).hexdigest().encode()
    stem = stem.decode(errors="ignore")
    temporary = path.absolute().with_name(f".{stem}.{_host()}-{os.getpid()}.part{path.suffix}")
    _own.add(str(temporary))
    return temporary


def release(temporary: Path) -> None:
    """Note that this process writes no longer to ``temporary``."""
    _own.discard(str(temporary))


def remove_leftovers(folder: Path, at_once: bool = False) -> None:
    """Remove the temporary files and folders that dead processes left in ``folder``.

    Those of a living process stay, and those of another machine, container or boot until they have not changed for
    `FOREIGN_AGE`. A process looks through a folder every ten seconds at most, unless ``at_once``.
    """
    key, now = str(folder.absolute()), time.monotonic()
    if not at_once and now - _looked.get(key, -_AGAIN) < _AGAIN:
        return
    _looked[key] = now
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path).absolute() for entry in entries if entry.name.startswith(".")]
    except OSError:  # the write that follows says what is wrong with the folder
        return
    for path in found:
        match = _NAME.fullmatch(path.name)
        if match is not None and _is_left(path, match[1], match[2]):
            _remove(path)


def _is_left(path: Path, host: str | None, process: str | None) -> bool:
    """Return True if nobody writes to ``path`` any more."""
    if host != _host() or process is None or os.name != "posix":  # os.kill() ends a process on Windows
        return _unchanged_seconds(path) > FOREIGN_AGE
    if int(process) == os.getpid():
        return str(path) not in _own  # an earlier process had the same number
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it lives, but belongs to another user
        pass
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):  # only Linux tells
        return False
    return state in (b"Z", b"X")  # dead, but its parent has not asked for its exit status yet


def _unchanged_seconds(path: Path) -> float:
    """Return the age of the last change of a file, or of anything in a folder; 0 if it cannot be told."""
    try:
        newest = path.lstat().st_mtime
        for base, folders, files in os.walk(path):
            newest = max([newest, *(os.lstat(os.path.join(base, name)).st_mtime for name in (*folders, *files))])
    except OSError:
        return 0
    return time.time() - newest


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        pass  # it is another user's; the write goes on


@functools.cache
def _host() -> str:
    parts = [platform.node()]
    for source in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(os.readlink(source) if source.endswith("pid") else Path(source).read_text(encoding="ascii"))
        except OSError:  # only Linux has them
            parts.append("")
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=4).hexdigest()
