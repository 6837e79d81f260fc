"""Find the images and videos that files, folders and globs on a command line name."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from boxwright.data.images import is_image_name, unreadable_reason, walk_files
from boxwright.fields import nearest
from boxwright.structures import InputError

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts"})


@dataclass(frozen=True, slots=True)
class MediaFile:
    """An image or video to process. ``name`` is its relative path in the output, unique in its list."""

    path: Path
    kind: Literal["image", "video"]
    name: str


def find_sources(patterns: Iterable[str | Path], recursive: bool = False) -> list[MediaFile]:
    """Return all images and videos that files, folders and globs name, in the given order, each file once.

    A folder gives the images and videos in it, with ``recursive`` those of the folders in it too, linked ones
    included, in natural order (``2.jpg`` before ``10.jpg``). Images of formats that are not read are among them, so
    that they are reported. A file named outright is taken whatever its suffix, as an image unless the suffix is a
    video's. Raises ``InputError`` for what does not exist, and for a folder or glob without images and videos.
    """
    found: dict[Path, tuple[Literal["image", "video"], str]] = {}
    for pattern in patterns:
        for path, name in _expand(str(pattern), recursive):
            found.setdefault(path.resolve(), ("video" if path.suffix.lower() in VIDEO_SUFFIXES else "image", name))
    if not found:
        raise InputError("no files given; give images, videos, folders, or globs such as 'photos/*.jpg'")
    names = _unique([name for _, name in found.values()])
    return [MediaFile(path, kind, name) for (path, (kind, _)), name in zip(found.items(), names, strict=True)]


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sorting key that compares numbers in the text by value."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def _expand(pattern: str, recursive: bool) -> Iterator[tuple[Path, str]]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        files = _media_in(path, recursive)
        if not files:
            more = "" if recursive else "; include its subfolders with --recursive"
            raise InputError(f"{pattern}: no image or video in this folder{more}")
        yield from ((file, file.relative_to(path).as_posix()) for file in files)
    elif path.exists():
        yield path, path.name
    elif glob.has_magic(pattern):
        hits = [Path(hit) for hit in glob.glob(str(path), recursive=True)]
        files = sorted((hit for hit in hits if hit.is_file() and _is_media(hit)), key=lambda p: natural_key(str(p)))
        if not files:
            raise InputError(f"{pattern}: no image or video matches this pattern")
        yield from ((file, file.name) for file in files)
    else:
        raise InputError(f"{pattern}: no such file or folder{_meant(path)}")


def _is_media(path: Path) -> bool:
    """Return True for images and videos by their names, those of formats that are not read included."""
    return is_image_name(path) or unreadable_reason(path) is not None or path.suffix.lower() in VIDEO_SUFFIXES


def _media_in(folder: Path, recursive: bool) -> list[Path]:
    files = [file for file in walk_files(folder, recursive) if _is_media(file)]
    return sorted(files, key=lambda file: natural_key(file.relative_to(folder).as_posix()))


def _meant(path: Path) -> str:
    """Return a hint with the most similar name in the same folder."""
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist either"
    return nearest(path.name, [entry.name for entry in path.parent.iterdir()])


def _unique(names: Sequence[str]) -> list[str]:
    """Make the names unique, ignoring case, by adding -2, -3, ... before the suffix of repeated ones."""
    taken: set[str] = set()
    result: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate.lower() in taken:
            number += 1
            path = Path(name)
            candidate = path.with_name(f"{path.stem}-{number}{path.suffix}").as_posix()
        taken.add(candidate.lower())
        result.append(candidate)
    return result
