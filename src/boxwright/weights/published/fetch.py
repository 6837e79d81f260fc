"""Download published checkpoints into the cache: resumed after an interruption, verified, and moved into place
atomically.

Downloads start only on explicit request. Only the standard library is used: proxies come from the usual environment
variables (``HTTPS_PROXY``, ``NO_PROXY``), certificates from the system.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boxwright
from boxwright.io.files import appending, locked, put_in_place, write_atomically
from boxwright.structures import InputError
from boxwright.weights.published.catalogue import Published, PublishedFile

Progress = Callable[[PublishedFile, int, int | None], None]
"""Callback with the file, its downloaded bytes, and its total bytes where the server states them."""

CHUNK = 1 << 18
PART = ".part"
TAG = ".part.tag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Limits for a slow or failing server."""

    timeout: float = 30.0
    """Seconds without a byte after which a server counts as stalled."""
    attempts: int = 5
    """Number of attempts. Each resumes where the last one stopped."""
    pause: float = 1.0
    """Seconds before the second attempt, doubled before each later one."""


class _Again(Exception):
    """Raised for a failure that another attempt may pass. Its text describes the failure."""


def cache_folder() -> Path:
    """Return the cache folder: ``BOXWRIGHT_CACHE``, else ``boxwright`` in ``XDG_CACHE_HOME`` or ``~/.cache``. It need
    not exist.
    """
    if own := os.environ.get("BOXWRIGHT_CACHE"):
        return Path(os.path.expanduser(own))
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "boxwright"


def folder_of(entry: Published) -> Path:
    """Return the folder of the cache for the files of ``entry``."""
    return cache_folder() / "weights" / entry.publisher / entry.name.split(":", 1)[1].replace("/", "--")


def cached(entry: Published) -> Path | None:
    """Return the path of the weights in the cache; None unless all files of ``entry`` are there."""
    paths = [folder_of(entry) / file.name for file in entry.files]
    return paths[0] if all(path.is_file() for path in paths) else None


def require_cached(entry: Published) -> Path:
    """Return the path of the weights in the cache. Raises InputError with the command that fetches them."""
    path = cached(entry)
    if path is None:
        raise InputError(
            f"{entry.name}: not fetched yet, and nothing is downloaded unasked; run `boxwright weights fetch "
            f"{entry.name}`{_size_words(entry)}"
        )
    return path


def _size_words(entry: Published) -> str:
    return "" if entry.about is None else f" ({entry.about / 1e6:.0f} MB)"


def fetch(
    entry: Published,
    folder: Path | None = None,
    progress: Progress | None = None,
    patience: Patience = Patience(),
) -> Path:
    """Download the missing files of ``entry`` into ``folder`` (default: the cache) and return the path of the weights.

    Files that exist are verified and kept. Raises InputError on a failure of network, server, disk or checksum. A
    partial file is kept for the next call unless its content is wrong.
    """
    folder = folder_of(entry) if folder is None else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from None
    for file in entry.files:
        path = folder / file.name
        if path.is_file() and (file.edit is not None or _fault(file, path) is None):
            continue
        _fetch_file(file, path, progress, patience)
    return folder / entry.files[0].name


def _fetch_file(file: PublishedFile, path: Path, progress: Progress | None, patience: Patience) -> None:
    part = path.with_name(path.name + PART)
    with locked(part.with_name(f".{part.name}.lock"), f"{path}: another process is fetching it; wait for that one"):
        pause = patience.pause
        for attempt in range(1, patience.attempts + 1):
            try:
                _download(file, part, progress, patience.timeout)
                break
            except _Again as trouble:
                if attempt == patience.attempts:
                    held = part.stat().st_size if part.is_file() else 0
                    raise InputError(
                        f"{file.url}: {trouble}, {attempt} times in a row; {held / 1e6:.1f} MB are here, and the same "
                        "command goes on from there"
                    ) from None
                time.sleep(pause)
                pause *= 2
        fault = _fault(file, part)
        if fault is not None:
            _forget(part)
            raise InputError(
                f"{file.url}: this is not the published file: {fault}. It was deleted; try again later, and if the "
                "same happens, something on the way changes it, or the publisher has replaced it"
            )
        if file.edit is not None:
            _edit(file, part)
        put_in_place(part, path)
        part.with_name(path.name + TAG).unlink(missing_ok=True)


def _download(file: PublishedFile, part: Path, progress: Progress | None, timeout: float) -> None:
    """Complete ``part``, resuming from its end if the file on the server is unchanged."""
    with _opened(file, part, timeout) as answer:
        held = part.stat().st_size if part.is_file() else 0
        if answer.status == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {held}-"):
            _forget(part)
            raise _Again("the server sent another part than was asked for")
        start = held if answer.status == 206 else 0
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else None
        size = file.size or total
        if size is not None:
            _check_room(part, size - start)
        _note_tag(part, answer.headers)
        done = start
        if start == 0:
            part.unlink(missing_ok=True)
        with appending(part, "ab") as target:
            while chunk := _read(answer, timeout):
                target.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(file, done, total)
    if total is not None and done < total:
        raise _Again(f"the connection broke after {done:,} of {total:,} bytes")


def _resumable(part: Path) -> tuple[int, str | None]:
    """Return the size of the partial file and its tag from the server; (0, None) where it cannot be resumed."""
    tag = part.with_name(part.name.removesuffix(PART) + TAG)
    if part.is_file() and tag.is_file() and part.stat().st_size:
        return part.stat().st_size, tag.read_text(encoding="utf-8")
    return 0, None


def _note_tag(part: Path, headers: Any) -> None:
    """Store the tag that a later request needs to resume this very file. Without one there is no resuming."""
    path = part.with_name(part.name.removesuffix(PART) + TAG)
    tag = headers.get("ETag")
    if tag is None or tag.startswith("W/"):  # a weak one does not promise the same bytes
        tag = headers.get("Last-Modified")
    if tag is None:
        path.unlink(missing_ok=True)
    else:
        write_atomically(path, tag.encode(), durable=False)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(part.name.removesuffix(PART) + TAG).unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(file: PublishedFile, part: Path, timeout: float) -> Iterator[Any]:
    """Open the response of the server. Temporary failures raise ``_Again``, permanent ones InputError."""
    held, tag = _resumable(part)
    headers = {"User-Agent": f"boxwright/{boxwright.__version__}"}
    if tag is not None:
        headers |= {"Range": f"bytes={held}-", "If-Range": tag}
    try:
        # An opener of our own, because urlopen keeps the proxies of its first call.
        opener = urllib.request.build_opener()
        answer = opener.open(urllib.request.Request(file.url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the partial file is as long as the file, or longer
            _forget(part)
            raise _Again("the server refused to go on with the part that was here") from None
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _Again(f"the server answers {error.code} {error.reason}") from None
        raise InputError(
            f"{file.url}: the server answers {error.code} {error.reason}: the publisher has moved or withdrawn the "
            "file, or does not hand it to you; if you have it, give its path instead of the name"
        ) from None
    except TimeoutError:
        raise _Again(f"the server did not answer within {timeout:g} s") from None
    except urllib.error.URLError as error:
        raise _unreachable(file, error.reason, timeout) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Again(f"the connection failed ({error or type(error).__name__})") from None
    with answer:
        yield answer


def _unreachable(file: PublishedFile, reason: Any, timeout: float) -> Exception:
    if isinstance(reason, TimeoutError):
        return _Again(f"the server did not answer within {timeout:g} s")
    if isinstance(reason, ConnectionError) and not isinstance(reason, ConnectionRefusedError):
        return _Again(f"the connection failed ({reason})")
    host = urllib.parse.urlsplit(file.url).hostname
    proxy = urllib.request.getproxies().get(file.url.split(":", 1)[0])
    way = f"the proxy {_without_password(proxy)}" if proxy else "the network; behind a proxy set HTTPS_PROXY"
    what = "its name is not known here" if isinstance(reason, socket.gaierror) else str(reason)
    return InputError(
        f"{file.url}: {host} cannot be reached: {what}. Check {way}; or bring the file from elsewhere and give its "
        "path instead of the name"
    )


def _without_password(proxy: str) -> str:
    scheme, separator, rest = proxy.rpartition("://")
    return f"{scheme}{separator}{rest.rsplit('@', 1)[-1]}"


def _read(answer: Any, timeout: float) -> bytes:
    try:
        return answer.read1(CHUNK)  # read1 returns what has arrived, so a stall loses nothing
    except TimeoutError:
        raise _Again(f"the server sent nothing for {timeout:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Again(f"the connection broke ({error or type(error).__name__})") from None


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise InputError(
            f"{part.parent}: {needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free; make room, or name "
            "another folder with --output or BOXWRIGHT_CACHE"
        )


def _fault(file: PublishedFile, path: Path) -> str | None:
    """Return the fault of the file at ``path``; None if it matches the published size and checksum, where known."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"it has {size:,} bytes and not {file.size:,}"
    if size == 0:
        return "it is empty"
    for kind, digits in (("sha256", file.sha256), ("md5", file.md5)):
        if digits is None:
            continue
        with path.open("rb") as content:
            found = hashlib.file_digest(content, kind).hexdigest()
        if not found.startswith(digits):
            label = "SHA-256" if kind == "sha256" else "MD5"
            return f"its {label} begins with {found[: len(digits)]} and not {digits}"
    return None


def _edit(file: PublishedFile, part: Path) -> None:
    assert file.edit is not None
    old, new = file.edit
    text = part.read_text(encoding="utf-8")
    if old not in text and new not in text:
        _forget(part)
        raise InputError(f"{file.url}: has neither {old!r} nor {new!r}: it is another file than the one known here")
    write_atomically(part, text.replace(old, new).encode(), durable=False)
