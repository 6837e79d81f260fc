"""Find what a split of a data.yaml names: a folder, an image, or a list of images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from boxwright.data.formats.hints import ARCHIVES
from boxwright.data.formats.lists import NameMatcher, read_image_list
from boxwright.data.formats.problems import Problem, ProblemLog
from boxwright.data.formats.splits import KNOWN_SPLITS, split_name
from boxwright.data.formats.yolo.yaml_file import Text
from boxwright.data.images import VIDEO_SUFFIXES, is_image_name, unreadable_reason
from boxwright.structures import InputError


@dataclass(frozen=True)
class Entry:
    """A value of a split: its key and the folder, image or list that it names."""

    key: Text
    place: Path


def find_entry(file: Path, root: Path, key: Text, value: Text, log: ProblemLog) -> Entry | Problem:
    """Return the place that the value of a split names, or the problem if there is none.

    Paths are relative to ``root`` or to the folder of the data.yaml ``file``. Roboflow writes ``../train/images`` for a
    folder beside the data.yaml. Of an absolute path of another machine, the last folders are looked for below both.
    Raises ``InputError`` for a file that is neither an image nor a list, and for a path that means two folders.
    """
    where = f"line {value.line or key.line}, key `{key}`"
    bases = list(dict.fromkeys((root, file.absolute().parent)))
    text = str(value).strip()
    forms = list(dict.fromkeys((text, text.replace("\\", "/"))))
    candidates = [Path(os.path.normpath(base / form)) for form in forms for base in bases]
    inner = [Path(os.path.normpath(base / form)) for form in _inner_forms(forms[-1]) for base in bases]
    names = NameMatcher()
    place = next(filter(None, map(names.existing, candidates)), None)
    inside = next(filter(None, map(names.existing, inner)), None)
    if place is not None and inside is not None and forms[-1].startswith("../") and place != inside:
        raise InputError(f"{file}, {where}: {value} can mean {place} and {inside}; write the absolute path")
    if place is None and inside is not None and not forms[-1].startswith("../"):
        log.correct("moved-path", "info", file, where, f"{value} does not exist; {inside} is read in its place")
    place = place or inside
    if place is None:
        looked = ", ".join(dict.fromkeys(str(c) for c in (*candidates, *inner[:2])))
        remedy = "patterns are not read, name the folder or a list" if "*" in value else "correct the path"
        message = f"{value} does not exist (looked for {looked}); {remedy}"
        return Problem("no-folder", "error", str(file), where, message)
    if place.is_file():
        _check_kind(file, where, place)
    return Entry(key, place)


def listed_images(file: Path, root: Path, other: Path, log: ProblemLog) -> list[Path]:
    """Return the images that a list names, relative to its folder, to ``root`` or to ``other``.

    Of an absolute path of another machine, the last folders are looked for below these. Lines without an image are
    refused together. Raises ``InputError`` for a list without lines.
    """
    bases = list(dict.fromkeys((file.parent, root, other)))
    images: list[Path] = []
    names = NameMatcher()
    moved: list[str] = []
    missing: list[tuple[int, str]] = []
    lines = read_image_list(file, bases)
    if not lines:
        log.refuse("no-images", file, "", "the list is empty; name an image on each line, or leave the split out")
    for number, line in lines:
        form = line.replace("\\", "/") if os.sep == "/" else line
        path = _first(base / text for text in dict.fromkeys((line, form)) for base in bases)
        path = path or _first(names.existing(base / form) for base in bases)
        if path is None:
            path = _first(names.existing(base / tail) for tail in _tails(form) for base in bases)
            if path is not None:
                moved.append(f"{line} as {path}")
        if path is None:
            missing.append((number, line))
        else:
            images.append(Path(os.path.normpath(path)))
    if moved:
        message = f"{len(moved)} paths do not exist and are found by their last folders (the first: {moved[0]})"
        log.correct("moved-path", "info", file, "", message)
    if missing:
        number, line = missing[0]
        more = f", nor do the images of {len(missing) - 1} more lines" if len(missing) > 1 else ""
        message = f"the image {line} does not exist{more}; correct the path, or remove the line"
        log.refuse("missing-image", file, f"line {number}", message)
    return images


def _inner_forms(text: str) -> Iterator[str]:
    """Yield the ends of a path that may lie inside the data set."""
    if text.startswith("../"):
        yield re.sub(r"^(\.\./)+", "", text)
    elif text.startswith("/") or re.match(r"^[A-Za-z]:/", text):
        for tail in _tails(text):
            alone = "/" not in tail
            if not alone or split_name(tail) in KNOWN_SPLITS or tail.lower().endswith(".txt"):
                yield tail


def _tails(text: str) -> Iterator[str]:
    """Yield the ends of a path, the longest first, without the whole path."""
    parts = [part for part in text.split("/") if part not in ("", ".", "..")]
    start = 0 if len(parts) < len(text.strip("/").split("/")) or text.startswith("/") else 1
    for i in range(start, len(parts)):
        yield "/".join(parts[i:])


def _check_kind(file: Path, where: str, place: Path) -> None:
    """Raise ``InputError`` for a file that is neither an image nor a list of images."""
    suffix = place.suffix.lower()
    if is_image_name(place) or suffix in (".txt", ".lst", ".list", ""):
        return
    if reason := unreadable_reason(place):
        raise InputError(f"{file}, {where}: {place.name}: {reason}")
    what = "not a list of images"
    remedy = "name a folder of images, or a .txt file with a path per line"
    if suffix in ARCHIVES:
        what, remedy = "an archive", "unpack it, and name the folder of images"
    elif suffix in VIDEO_SUFFIXES:
        what, remedy = "a video", "save its frames as images with a label file each, and name their folder"
    elif suffix == ".json":
        what, remedy = "a JSON file", "for COCO annotations, give the JSON file itself as the data"
    elif suffix in (".yaml", ".yml"):
        what = "another YAML file"
    raise InputError(f"{file}, {where}: {place.name} is {what}; {remedy}")


def _first(paths: Iterable[Path | None]) -> Path | None:
    return next((path for path in paths if path is not None and os.path.isfile(path)), None)
