"""Read the class names of a data.yaml."""

from __future__ import annotations

import os
import re
from pathlib import Path

from boxwright.data.formats.entries.class_names import named_classes
from boxwright.data.formats.lists import read_lines
from boxwright.data.formats.parsing import shown
from boxwright.data.formats.problems import ProblemLog
from boxwright.data.formats.yolo.yaml_file import Entries, Items, Text, Value
from boxwright.structures import Classes, InputError


def read_classes(file: Path, content: Entries, log: ProblemLog) -> Classes:
    """Return the classes in ``names``: a list, a mapping from 0, 1, ..., or the path of a text file.

    Names are taken as they are written. Raises ``InputError`` naming the line for missing, empty, nested and repeated
    names, keys with a gap, and an ``nc`` of another number.
    """
    value = content.get(Text("names"))
    if value is None:
        raise InputError(
            f"{file}: has no key `names`; add the class names as a list, in the order of the class numbers"
        )
    line = value.line
    place = f"{file}, line {line}, key `names`"
    if isinstance(value, Text):
        value = _from_file(file, value, place)
    if isinstance(value, Entries):
        value = _in_order(value, place)
    if not value:
        raise InputError(f"{place}: is empty; give the class names as a list, or as a mapping from 0, 1, ...")
    names: list[str] = []
    lines: dict[str, int] = {}
    for number, name in enumerate(value):
        at = f"{file}, line {name.line}, key `names`"
        if not isinstance(name, Text):
            raise InputError(f"{at}: class {number} is a list or mapping; give one name for each class")
        text = name.strip()
        if not text:
            raise InputError(f"{at}: class {number} has no name; give it one")
        if text in lines:
            first = f"first in line {lines[text]}"
            raise InputError(f"{at}: class name {shown(text)} appears more than once, {first}; rename one")
        lines[text] = name.line
        names.append(text)
    _check_count(file, content.get(Text("nc")), len(names))
    return named_classes(names, file, f"line {line}, key `names`", log)


def _from_file(file: Path, value: Text, place: str) -> Items:
    """Return the lines of the text file that ``names`` names."""
    path = file.parent / value
    if value.empty or not os.path.isfile(path):
        raise InputError(f"{place}: {shown(value)} is one text; give the class names as a list, such as [cat, dog]")
    names = Items()
    for number, line in read_lines(path):
        name = Text(line)
        name.line = number
        names.append(name)
    return names


def _in_order(names: Entries, place: str) -> Items:
    """Return the names of a mapping by their numbers, which run from 0 without a gap."""
    numbered: dict[int, Value] = {}
    for key, name in names.items():
        if not re.fullmatch(r"\d{1,9}", key):
            raise InputError(f"{place}: the key {shown(key)} in line {key.line} is not a class number; count from 0")
        if int(key) in numbered:
            raise InputError(f"{place}: the class number {int(key)} stands twice; give each class its own")
        numbered[int(key)] = name
    found = sorted(numbered)
    if found != list(range(len(found))):
        first = next((i for i in range(len(found)) if i not in numbered), 0)
        why = " (they count from 1; label files count from 0)" if found == list(range(1, len(found) + 1)) else ""
        raise InputError(
            f"{place}: the keys must be 0 to {len(found) - 1} without a gap, but {first} is missing{why}; number all "
            "classes of the label files"
        )
    return Items(numbered[i] for i in found)


def _check_count(file: Path, value: Value | None, number: int) -> None:
    """Raise ``InputError`` unless ``nc``, if there is one, is the number of names."""
    if value is None or (isinstance(value, Text) and value.empty):
        return
    place = f"{file}, line {value.line}, key `nc`"
    if not isinstance(value, Text) or not re.fullmatch(r"\d{1,9}(\.0*)?", value.strip()):
        what = shown(value) if isinstance(value, Text) else "a list or mapping"
        raise InputError(f"{place}: {what} is not a number of classes; write {number}, or remove the line")
    if int(float(value)) != number:
        raise InputError(f"{place}: nc is {value} but `names` has {number} names; correct one of them")
