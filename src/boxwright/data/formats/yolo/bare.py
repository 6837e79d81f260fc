"""Read YOLO data sets without a data.yaml: Darknet's ``obj.data``, or images and labels with a ``classes.txt``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from boxwright.data.formats.lists import read_lines
from boxwright.data.formats.problems import ProblemLog
from boxwright.data.formats.splits import KNOWN_SPLITS, several, split_name
from boxwright.data.formats.yolo.layout import YoloLayout, yolo_layout
from boxwright.data.formats.yolo.yaml_file import Entries, Items, Text
from boxwright.data.images import is_image_name, walk_files, walk_images
from boxwright.structures import InputError

_NAME_FILES = ("classes.txt", "obj.names", "predefined_classes.txt")


def find_bare(folder: Path) -> Path | None:
    """Return the ``.data`` file of Darknet in a folder, else its ``classes.txt`` if it has label files, or None."""
    described = sorted(p for p in folder.glob("*.data") if not p.name.startswith(".") and p.is_file() and _describes(p))
    if len(described) > 1:
        raise InputError(f"{folder}: {several(folder, described)}; name the one you mean")
    if described:
        return described[0]
    homes = [folder, *sorted(p for p in folder.iterdir() if p.is_dir() and p.name.lower() == "labels")]
    for file in (home / name for home in homes for name in _NAME_FILES):
        if file.is_file() and _split_folders(folder):
            return file
    return None


def bare_files(files: Iterable[Path]) -> list[Path]:
    """Return what `find_bare` finds in the folders that hold some of ``files``, except in those of single splits."""
    found = (file for file in files if file.name in _NAME_FILES or (file.suffix == ".data" and _describes(file)))
    homes = dict.fromkeys(file.parent.parent if file.parent.name.lower() == "labels" else file.parent for file in found)
    whole = [home for home in homes if split_name(home.name) not in KNOWN_SPLITS]
    return [file for file in map(find_bare, whole) if file is not None]


def _describes(file: Path) -> bool:
    """Return True for an ``obj.data`` and for what has its line of class names; other programs write ``.data`` too."""
    with file.open("rb") as stream:
        start = stream.read(4096).replace(b"\0", b"")
    return file.name == "obj.data" or re.search(rb"(?m)^\W*names\s*=", start) is not None


def load_bare(file: Path, log: ProblemLog) -> YoloLayout:
    """Read the data set that a ``.data`` file or a ``classes.txt`` stands for; as `load_yolo`."""
    if file.suffix == ".data":
        content = _described(file)
        for key, value in content.items():
            if key != "nc" and isinstance(value, Text):
                content[key] = _relative(file.parent, value)
        return yolo_layout(file, content, log)
    root = file.parent.parent if file.parent.name.lower() == "labels" else file.parent
    content = Entries({Text("names"): _names(file), Text("path"): Text(str(root))})
    for split, folder in _split_folders(root).items():
        content[Text(split)] = Text(str(folder))
    return yolo_layout(file, content, log)


def _described(file: Path) -> Entries:
    """Return the keys of a ``.data`` file, lines of ``key = value``; ``classes`` is nc, ``valid`` is val."""
    content = Entries()
    for number, line in read_lines(file):
        if line.startswith("#"):
            continue
        key, separator, value = (part.strip() for part in line.partition("="))
        if not separator:
            raise InputError(f"{file}, line {number}: `{line[:60]}` is not `key = value`; correct it")
        text = Text(value)
        text.line = number
        name = Text({"classes": "nc"}.get(key, key))
        name.line = number
        if name in content:
            raise InputError(f"{file}, line {number}: the key `{key}` stands twice; remove one of them")
        if key in ("classes", "names", "train", "valid", "val", "test"):  # Darknet's others are for its own training
            content[name] = text
    return content


def _relative(folder: Path, value: Text) -> Text:
    """Return a path of a ``.data`` file without the first folders, which are Darknet's own, if it exists so."""
    parts = Path(value).parts
    for i in range(len(parts)):
        tail = Text(os.path.join(*parts[i:]))
        if os.path.exists(folder / tail):
            tail.line = value.line
            return tail
    return value


def _names(file: Path) -> Items:
    names = Items()
    for number, line in read_lines(file):
        name = Text(line)
        name.line = number
        names.append(name)
    names.line = 1
    return names


def _is_label(file: Path) -> bool:
    """Return True for a text file that is not one of class names."""
    return file.suffix.lower() == ".txt" and file.name not in _NAME_FILES


def _split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of images by split, if they have label files.

    They are those in ``images/``, else those in the root, else ``images/`` or the root itself.
    """
    inner = [p for p in sorted(root.iterdir()) if p.is_dir()]
    images = next((p for p in inner if p.name.lower() == "images"), None)
    for folders in ([] if images is None else sorted(p for p in images.iterdir() if p.is_dir()), inner):
        named = {name: p for p in folders if (name := split_name(p.name)) in KNOWN_SPLITS and walk_images(p)}
        if named and any(_is_label(file) for file in walk_files(root)):
            return named
    if images is not None and any(p.name.lower() == "labels" for p in inner):
        return {"all": images}
    stems = {p.stem for p in root.iterdir() if is_image_name(p)}
    return {"all": root} if any((root / f"{stem}.txt").is_file() for stem in stems) else {}
