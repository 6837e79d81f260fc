"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from boxwright.structures import InputError

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is too large",
}


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Replace the file at ``path``, in one step that survives a power cut: old content or new, never half.

    Raises InputError naming the path and the free space where the disk is full; the old file then is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_error(path, error, len(content)) from error
    except BaseException:  # Ctrl-C amid the write
        temporary.unlink(missing_ok=True)
        raise


def write_error(path: Path, error: OSError, size: int | None = None) -> InputError:
    """What went wrong while writing ``path``, with the remedy."""
    if error.errno not in FULL:
        return InputError(f"{path}: cannot be written: {error.strerror or error}")
    needed = "" if size is None else f" and {size / 1e6:.1f} MB are needed"
    there = next(folder for folder in path.absolute().parents if folder.exists())  # a half-made one is gone by now
    free = shutil.disk_usage(there).free / 1e6
    kept = "; the file that was there before is intact" if path.exists() else ""
    return InputError(
        f"{path}: {FULL[error.errno]}: {free:.1f} MB are free{needed}{kept}. Make room or choose another output folder"
    )


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems do not do this for folders
    finally:
        os.close(handle)
