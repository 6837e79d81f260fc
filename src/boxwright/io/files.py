"""Write files atomically, and report failed writes consistently.

Nothing else in the package opens a file for writing. A file is written under a temporary name beside its target and
then renamed, so that a reader sees either the old content or the new. What a killed process left under such a name is
removed by the next write into the folder (`boxwright.io.leftovers`). Every failure is an `InputError` that names the
file; on a full disk it also gives the free space.
"""

from __future__ import annotations

import errno
import os
import platform
import shutil
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, Literal, overload

from boxwright.io.leftovers import release, remove_leftovers, temporary_path
from boxwright.structures import InputError

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is too large",
}


class WriteError(InputError):
    """A file could not be written."""


class DiskFullError(WriteError):
    """A file could not be written for lack of space, or because of a limit on the size of files."""


def write_error(path: Path, error: OSError, size: int | None = None) -> WriteError:
    """Return the error to raise after writing ``size`` bytes to ``path`` failed."""
    if error.errno not in FULL:
        return WriteError(f"{path}: cannot be written: {error.strerror or error}")
    needed = "" if size is None else f" and {size / 1e6:.1f} MB are needed"
    there = next(folder for folder in path.absolute().parents if folder.exists())  # a partial folder is removed by now
    free = shutil.disk_usage(there).free / 1e6
    kept = "; the file that was there before is intact" if path.exists() else ""
    return DiskFullError(
        f"{path}: {FULL[error.errno]}: {free:.1f} MB are free{needed}{kept}. Make room or choose another output folder"
    )


@contextmanager
def write_errors(path: Path, temporary: Path | None = None, size: int | None = None) -> Iterator[None]:
    """Turn an ``OSError`` of the block into an `InputError` that names ``path``.

    An error about another file, such as one that is read in the block, passes unchanged.
    """
    try:
        yield
    except OSError as error:
        named = None if error.filename is None else Path(error.filename)
        if error.errno is None or named not in (None, path, temporary):
            raise
        raise write_error(path, error, size) from error


@contextmanager
def atomic_path(path: Path, *, durable: bool = False, size: int | None = None) -> Iterator[Path]:
    """Give a temporary path with the suffix of ``path``, renamed to ``path`` when the block ends.

    If the block raises, also by Ctrl-C, the temporary file is removed and a file at ``path`` is unchanged. The file
    gets the mode of the one that it replaces, else the usual one of new files, however the block writes it. ``durable``
    forces content and name to disk, so that they survive a power cut. ``size`` in bytes appears in the error of a full
    disk.
    """
    remove_leftovers(path.parent)
    temporary = temporary_path(path)
    try:
        with write_errors(path, temporary, size):
            mode = _mode_of_new(path, temporary)
            yield temporary
            if stat.S_IMODE(temporary.stat().st_mode) != mode:
                temporary.chmod(mode)
            put_in_place(temporary, path, durable=durable, size=size)
    finally:
        temporary.unlink(missing_ok=True)
        release(temporary)


def _mode_of_new(path: Path, temporary: Path) -> int:
    """Create the file ``temporary`` and return the mode to give it: that of ``path`` if it exists, else its own."""
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666))  # less what the umask takes away
    try:
        before = path.stat()
    except OSError:
        before = temporary.stat()
    return stat.S_IMODE(before.st_mode)


@contextmanager
def atomic_text(path: Path) -> Iterator[IO[str]]:
    """Open a UTF-8 text file that appears at ``path`` when the block ends; raises as `atomic_path`."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file


def write_atomically(path: Path, content: bytes | memoryview, *, durable: bool = True) -> None:
    """Replace the file at ``path`` in one step that survives a power cut; raises as `atomic_path`.

    Without ``durable`` the system decides when the content reaches the disk, which suits files that are cheap to redo.
    """
    with atomic_path(path, durable=durable, size=len(content)) as temporary:
        temporary.write_bytes(content)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a new folder beside ``path``, renamed to ``path`` when the block ends; ``path`` may be an empty folder.

    The new folder is removed when the block raises. Errors about a file in it name its path below ``path``.
    """
    target = path.absolute()
    remove_leftovers(target.parent, at_once=True)
    partial = temporary_path(target)
    try:
        with write_errors(target, partial):
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            yield partial
            if target.exists():
                target.rmdir()
            os.replace(partial, target)
    except InputError as error:
        raise type(error)(str(error).replace(str(partial), str(target))) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        release(partial)


@overload
def appending(path: Path, mode: Literal["a"] = "a") -> AbstractContextManager[IO[str]]: ...
@overload
def appending(path: Path, mode: Literal["ab"]) -> AbstractContextManager[IO[bytes]]: ...


@contextmanager
def appending(path: Path, mode: Literal["a", "ab"] = "a") -> Iterator[IO[Any]]:
    """Open a UTF-8 text file, or with mode "ab" a binary one, to append: for logs and interrupted downloads."""
    text = mode == "a"
    with write_errors(path), open(path, mode, encoding="utf-8" if text else None, newline="" if text else None) as file:
        yield file


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content; raises `InputError` naming the file that cannot be read or written."""
    with atomic_path(target) as temporary:
        try:
            shutil.copyfile(source, temporary)
        except OSError as error:
            # The system's copy of large files names the source in every error, even if the disk of the target is full.
            if error.filename == str(source) and error.errno not in FULL:
                raise InputError(f"{source}: cannot be read: {error.strerror}") from error
            raise write_error(target, error) from error


def put_in_place(temporary: Path, path: Path, *, durable: bool = False, size: int | None = None) -> None:
    """Rename a finished file to ``path``; with ``durable`` content and name survive a power cut."""
    with write_errors(path, temporary, size):
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    if durable:
        _sync_folder(path.parent)


def check_writable(path: Path) -> None:
    """Raise `InputError` if no file can be created at ``path``; creates the folder of ``path``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, at_once=True)
        temporary = temporary_path(path)
        try:
            temporary.open("w").close()
        finally:
            temporary.unlink(missing_ok=True)
            release(temporary)
    except OSError as error:
        raise write_error(path, error) from error


_NO_LOCKS = {getattr(errno, name) for name in ("ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL")}
_held: set[str] = set()


@contextmanager
def locked(path: Path, busy: str) -> Iterator[bool]:
    """Hold the lock file ``path``; gives False where the system or the file system has no locks (Windows).

    Raises `InputError` with the text ``busy`` while another process holds it; ``{holder}`` in it is replaced by that
    process and its machine. The lock of a process that died holds nobody up.
    """
    with write_errors(path):
        lock = _lock(path.absolute(), busy)
    if lock is None:
        yield False
        return
    key = str(path.absolute())
    _held.add(key)
    try:
        with write_errors(path):
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {platform.node()}")
            lock.flush()
        yield True
    finally:
        path.unlink(missing_ok=True)
        _held.discard(key)
        lock.close()


def _lock(path: Path, busy: str) -> IO[str] | None:
    """Open and lock a file; None where there are no locks.

    A lock of POSIX ends with its process, while one of ``flock`` lives on in processes that were forked from it. So the
    latter is given up again; it is asked for because earlier versions hold it. A lock of POSIX does not keep out the
    process itself, for which there is ``_held``.
    """
    try:
        import fcntl
    except ImportError:
        return None
    if str(path) in _held:  # before the file is opened: closing it would give up the lock
        raise InputError(busy.replace("{holder}", "this process"))
    while True:
        lock = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(lock, fcntl.LOCK_UN)
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                return lock
            lock.close()  # its holder has just removed the file: another file is the lock now
        except OSError as error:
            with lock:
                lock.seek(0)
                holder = lock.read(200) or "another process"
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise InputError(busy.replace("{holder}", holder)) from None
            if error.errno not in _NO_LOCKS:
                raise
            path.unlink(missing_ok=True)
            return None


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable, if the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems do not support this for folders
    finally:
        os.close(handle)
