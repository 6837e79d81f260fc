"""Name the splits of a data set by its files and folders, and refuse two files for one split."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from boxwright.structures import InputError

KNOWN_SPLITS = ("train", "val", "test", "trainval")

_SYNONYMS = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}
_NO_SPLIT = ("", "default", "labels", "data", "dataset", "xml", "xmls", "json", "coco", "voc", "result", "export")
_HELD_BACK = re.compile(r"val|valid|validation|dev|test|testing|eval|evaluation|holdout|minival|testdev")
_YEAR = re.compile(r"^(train|val|test|trainval|minival)[_-]?\d{4}$", re.IGNORECASE)
_COPY = re.compile(r"(\s*\(\d+\)|\s*-\s*copy(\s*\(\d+\))?|[ _-]copy([ _-]?\d+)?|~)$", re.IGNORECASE)


def split_name(stem: str) -> str:
    """Return the split that a file or folder name means: ``instances_train2017`` is train, ``valid`` is val.

    A name without a split, such as ``annotations``, gives ``all``; any other name is returned unchanged. The marks of
    copies, such as "(1)", are ignored.
    """
    name = _COPY.sub("", stem.strip()).lstrip("_")
    name = re.sub(r"\.coco$", "", name, flags=re.IGNORECASE)
    name = re.sub(r"^(instances|annotations?|labels|person_keypoints)[_-]?", "", name, flags=re.IGNORECASE)
    name = re.sub(r"[_-]?(annotations?|instances|coco)$", "", name, flags=re.IGNORECASE)
    name = _YEAR.sub(r"\1", name)
    lowered = name.lower()
    if lowered in _NO_SPLIT:
        return "all"
    if lowered in KNOWN_SPLITS or lowered in _SYNONYMS:
        return _SYNONYMS.get(lowered, lowered)
    return name


def split_rank(name: str) -> tuple[int, str]:
    """Return the sort key of a split: train, val, test, then the others by name."""
    order = ("train", "val", "test")
    return (order.index(name) if name in order else len(order), name)


def is_held_back(split: str) -> bool:
    """Return True for a split that is meant for validation or testing, such as ``val2017`` or ``night_test``."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", split).lower())
    return any(_HELD_BACK.fullmatch(word) for word in words) and not {"train", "training"} & set(words)


def is_copy(stem: str) -> bool:
    """Return True if a name has the mark of a copy, such as "train (1)" or "train - Copy"."""
    return bool(_COPY.search(stem.strip()))


def distinct_splits(root: Path, places: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Return the files or folders of a data set by split, train first. ``places``: a split and its file or folder.

    Names that mean one split keep their own form if they differ by a year, as train2014 and train2017 do. Raises
    ``InputError`` for two places of one split otherwise.
    """
    groups: dict[str, list[Path]] = {}
    for split, place in places:
        groups.setdefault(split, []).append(place)
    named: dict[str, Path] = {}
    for split, group in groups.items():
        own = [re.sub(r"^(instances|person_keypoints)_", "", place.stem) for place in group]
        years = [bool(_YEAR.match(name)) for name in own]
        years += [split_name(place.parent.name) != split for place in group]  # else the folder gives the split
        if len(group) > 1 and not (all(years) and len(set(own)) == len(own)):
            raise InputError(f"{root}: {several(root, group)}; name the one you mean")
        named.update({split: group[0]} if len(group) == 1 else dict(zip(own, group, strict=True)))
    return dict(sorted(named.items(), key=lambda item: split_rank(item[0])))


def several(root: Path, places: Iterable[Path]) -> str:
    """Return "FOLDER/ holds A, B", with the names of copies last."""
    ordered = sorted(places, key=lambda place: (is_copy(place.stem), str(place)))
    parents = {place.parent for place in ordered}
    if len(parents) > 1:
        return "holds " + ", ".join(place.relative_to(root).as_posix() for place in ordered)
    folder = ordered[0].parent.relative_to(root).as_posix()
    start = "" if folder == "." else f"{folder}/ "
    return f"{start}holds " + ", ".join(place.name for place in ordered)
