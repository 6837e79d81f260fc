"""Find the images and videos that files, lists of files, folders and globs on a command line name."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from boxwright.data.addresses import address_reason
from boxwright.data.formats.lists import read_list
from boxwright.data.images import VIDEO_SUFFIXES, image_size, is_image_name, unreadable_reason, walk_files
from boxwright.fields import nearest
from boxwright.structures import InputError


@dataclass(frozen=True, slots=True)
class MediaFile:
    """An image or video to process. ``name`` is its relative path in the output, unique in its list."""

    path: Path
    kind: Literal["image", "video"]
    name: str


def find_sources(patterns: Iterable[str | Path], recursive: bool = False) -> list[MediaFile]:
    """Return all images and videos that files, lists, folders and globs name, in the given order, each file once.

    A folder gives the images and videos in it, with ``recursive`` those of the folders in it too, linked ones
    included, in natural order (``2.jpg`` before ``10.jpg``). Images of formats that are not read are among them, so
    that they are reported. A file named outright is taken whatever its suffix, as an image unless the suffix is a
    video's; a .txt file is a list with one path a line. Raises ``InputError`` for what does not exist, for addresses
    and cameras, for a folder or glob without images and videos, and where no image is of a format that is read.
    """
    found: dict[Path, tuple[Literal["image", "video"], str]] = {}
    for pattern in patterns:
        for path, name in _expand(str(pattern), recursive):
            real = path.resolve() if path.exists() else path.absolute()  # a link that leads nowhere is named itself
            found.setdefault(real, ("video" if path.suffix.lower() in VIDEO_SUFFIXES else "image", name))
    if not found:
        raise InputError("no files given; give images, videos, folders, or globs such as 'photos/*.jpg'")
    _refuse_unreadable([path for path, (kind, _) in found.items() if kind == "image"], len(found))
    names = _unique([name for _, name in found.values()])
    return [MediaFile(path, kind, name) for (path, (kind, _)), name in zip(found.items(), names, strict=True)]


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sorting key that compares numbers in the text by value."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def _expand(pattern: str, recursive: bool) -> Iterator[tuple[Path, str]]:
    if not pattern.strip():
        raise InputError("an empty name was given for a file; is a variable of the shell not set?")
    path = Path(os.path.expanduser(pattern))  # which leaves the home of a user that does not exist as it is
    if path.is_dir():
        files = _media_in(path, recursive)
        if not files:
            more = "" if recursive else "; include its subfolders with --recursive"
            raise InputError(f"{pattern}: no image or video in this folder{more}")
        yield from ((file, file.relative_to(path).as_posix()) for file in files)
    elif path.is_file():
        if path.suffix.lower() == ".txt":
            yield from ((file, file.name) for file in _listed(path))
        else:
            yield path, path.name
    elif (reason := address_reason(pattern)) is not None:
        raise InputError(reason)
    elif path.exists():
        raise InputError(f"{pattern}: this is a pipe or device, not a file; save the image or video and name the file")
    elif path.is_symlink():
        raise InputError(f"{pattern}: this is a link to {path.resolve()}, which does not exist; restore that file")
    elif glob.has_magic(pattern):
        files = sorted((hit for hit in _hits(path) if _is_media(hit)), key=lambda p: natural_key(str(p)))
        if not files:
            raise InputError(f"{pattern}: no image or video matches this pattern")
        yield from ((file, file.name) for file in files)
    else:
        raise InputError(f"{pattern}: no such file or folder{_meant(path)}")


def _hits(pattern: Path) -> Iterator[Path]:
    """Yield the files that match a pattern; ``**`` stands for folders at any depth, linked ones included."""
    parts = pattern.parts
    if "**" not in parts:
        yield from (Path(hit) for hit in glob.glob(str(pattern)) if os.path.isfile(hit))
        return
    first = parts.index("**")
    for base in glob.glob(os.path.join(*parts[:first])) if first else ["."]:  # glob itself has no end in loops of links
        if os.path.isdir(base):
            files = walk_files(base)
            yield from (file for file in files if _fits(file.relative_to(base).parts, parts[first:]))


def _fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_fits(names[start:], patterns[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _fits(names[1:], patterns[1:])


def _is_media(path: Path) -> bool:
    """Return True for images and videos by their names, those of formats that are not read included."""
    return is_image_name(path) or unreadable_reason(path) is not None or path.suffix.lower() in VIDEO_SUFFIXES


def _media_in(folder: Path, recursive: bool) -> list[Path]:
    files = [file for file in walk_files(folder, recursive) if _is_media(file)]
    return sorted(files, key=lambda file: natural_key(file.relative_to(folder).as_posix()))


def _listed(file: Path) -> list[Path]:
    """Return the files of a list with one path a line, relative to the list's folder or the current one."""
    found: list[Path] = []
    for number, text in read_list(file):
        spellings = (text, text.replace("\\", "/"))  # the second for lists that were written on Windows
        candidates = [base / os.path.expanduser(s) for s in spellings for base in (file.parent, Path())]
        path = next((candidate for candidate in candidates if os.path.isfile(candidate)), None)
        if path is None:
            reason = address_reason(text)
            if reason is None and any(map(os.path.isdir, candidates)):
                reason = f"{text}: this is a folder; a list names files, so give the folder to the command itself"
            if reason is None:
                also = "" if Path(text).is_absolute() else f" in {file.parent} or in {Path.cwd()}"
                reason = f"{text}: no such file{also}; correct or remove the line"
            raise InputError(f"{file}, line {number}: {reason}")
        found.append(path)
    if not found:
        raise InputError(f"{file}: this list is empty; write the path of an image or video on each line")
    return found


def _refuse_unreadable(images: Sequence[Path], count: int) -> None:
    """Raise InputError if all ``count`` files are images of formats that are not read, so that nothing can be done."""
    if len(images) < count or any(unreadable_reason(image) is None for image in images):
        return
    refusals: list[InputError] = []
    for image in images:
        try:
            image_size(image)  # a wrong suffix alone is no reason
            return
        except InputError as error:
            refusals.append(error)
    more = f"; nor can the {len(images) - 1} other images be read" if len(images) > 1 else ""
    raise InputError(f"{refusals[0]}{more}")


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
