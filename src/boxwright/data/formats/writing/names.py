"""Choose the file names of a written data set: unique, below its folder, and read alike by every format and system."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from boxwright.data.images import image_header, is_image_name
from boxwright.data.index import DetectionIndex
from boxwright.structures import InputError

_FORBIDDEN = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters of no name: separators, control characters, line ends, bytes that are not UTF-8."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)
"""Names that Windows keeps for devices, with any suffix."""
_LONGEST = 240
"""Bytes of the longest stem that is kept; a file system takes 255 with a suffix and a number."""
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "JPEG2000": ".jp2", "TIFF": ".tif", "HEIF": ".heic", "AVIF": ".avif"}


def unique_names(
    indexes: Mapping[str, DetectionIndex], one_folder: bool, own: Mapping[Path, str] | None = None
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the file names to write for the images of each split, and one sentence for each reason to rename any.

    A stem is used once in a folder, in any case, Unicode form and with any suffix, since VOC and YOLO find a label file
    by the image's stem. ``one_folder``: all splits share one folder; the same file in two splits keeps one name.
    ``own``: names to use instead of those of the files, by path.
    """
    taken: dict[str, Path] = {}
    names: dict[str, list[str]] = {}
    clashes: list[str] = []
    unfit: list[str] = []
    for split, index in indexes.items():
        names[split] = []
        if not one_folder:
            taken = {}
        for i in range(len(index)):
            path = index.path(i)
            given = (own or {}).get(path, path.name)
            usable = _usable_name(path, given)
            first, suffix = os.path.splitext(usable)
            stem, number = first, 1
            while taken.setdefault(unicodedata.normalize("NFC", stem).casefold(), path) != path:
                number += 1
                stem = f"{first}_{number}"
            names[split].append(stem + suffix)
            if number > 1:
                clashes.append(names[split][-1])
            elif usable != given:
                unfit.append(f"{given!r} to {usable!r}")
    said = []
    if clashes:
        said.append(f"{len(clashes)} images were renamed, because two had the same name")
    if unfit:
        said.append(f"{len(unfit)} images were renamed, because their names cannot be used everywhere: {_few(unfit)}")
    return names, said


def check_splits(splits: Mapping[str, DetectionIndex], taken: Iterable[str] = ()) -> None:
    """Raise ``InputError`` for splits whose names cannot be those of folders, or differ by case only.

    Also for a name in ``taken``, those that the format uses otherwise, and for splits of different classes.
    """
    seen: dict[str, str] = {}
    for name, index in splits.items():
        fits = name == name.strip() and not name.startswith(".") and not _FORBIDDEN.search(name)
        if not name or not fits or _RESERVED.fullmatch(name) or len(name.encode(errors="replace")) > _LONGEST:
            raise InputError(f"split {name[:80]!r}: cannot be the name of a folder; rename its key or file")
        if name in taken:
            raise InputError(f"split {name!r}: the format uses this name for something else; rename its key or file")
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise InputError(f"splits {other!r} and {name!r}: differ by case only; rename the key or file of one")
        first = next(iter(splits.values()))
        if index.classes.names != first.classes.names:
            raise InputError(f"splits {first.name!r} and {name!r}: have different classes; give both the same")


def _usable_name(path: Path, name: str) -> str:
    """Return the name to write for the image file at ``path``, changed where a format or system could not hold it."""
    if not is_image_name(name) and path.is_file():
        form = image_header(path)[0]
        suffix = _SUFFIXES.get(form, f".{form.lower()}")
        name += suffix if is_image_name(f"a{suffix}") else ".png"
    stem, suffix = os.path.splitext(name)
    stem = _FORBIDDEN.sub("_", stem).strip()
    if stem.startswith("."):  # readers pass over hidden files
        stem = "_" + stem.lstrip(".")
    if _RESERVED.fullmatch(stem.split(".")[0]):
        stem = f"_{stem}"
    if len(stem.encode()) > _LONGEST:
        stem = stem.encode()[: _LONGEST - 40].decode(errors="ignore").rstrip()
    return (stem or "image") + suffix


def _few(texts: list[str]) -> str:
    return ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
