"""Read a YOLO data.yaml and find the images of each split and their label files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxwright.data.formats.parsing import parse_yaml
from boxwright.data.formats.places import (
    split_name,
    split_rank,
)
from boxwright.data.formats.problems import ProblemLog
from boxwright.data.images import is_image_name
from boxwright.structures import Classes, InputError

_OTHER_KEYS = ("path", "names", "nc", "download", "roboflow", "yaml_file", "kpt_shape", "flip_idx", "channels")


@dataclass(frozen=True)
class YoloLayout:
    """Content of a ``data.yaml``; ``splits`` holds the image files of each split."""

    file: Path
    root: Path
    classes: Classes
    splits: dict[str, list[Path]]


def find_yolo(path: Path) -> Path | None:
    """Return the data.yaml at a path: the file itself, or the only YAML file of a folder with class names, or None."""
    if path.is_file():
        return path if path.suffix.lower() in (".yaml", ".yml") else None
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in (".yaml", ".yml"))
    found = [p for p in files if _names_classes(p)]
    preferred = [p for p in found if p.stem in ("data", "dataset")]
    if len(found) > 1 and len(preferred) != 1:
        raise InputError(
            f"{path}: {', '.join(p.name for p in found)} all describe YOLO data sets; give the path of one"
        )
    return (preferred or found or [None])[0]


def load_yolo(file: Path, log: ProblemLog | None = None) -> YoloLayout:
    """Read a data.yaml and list its images. Raises ``InputError`` naming the key and a remedy.

    With a lenient ``log``, a split whose images are not found is noted and left out.
    """
    log = log or ProblemLog()
    content = parse_yaml(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: a data.yaml holds `names`, `train` and `val`; this one holds none of them")
    classes = _classes(file, content)
    root = _root(file, content)
    splits: dict[str, list[Path]] = {}
    for key, value in content.items():
        if not isinstance(key, str) or key in _OTHER_KEYS or value in (None, "", []):
            continue
        name = split_name(key)
        if name not in ("train", "val", "test") and not (isinstance(value, str) and (root / value).is_dir()):
            continue  # a setting of another tool: a key with another name is a split only if its folder exists
        entries = value if isinstance(value, list) else [value]
        if not all(isinstance(entry, str) for entry in entries):
            raise InputError(f"{file}, key `{key}`: give a folder, a .txt list of images, or a list of those")
        splits[name] = [image for entry in entries for image in _images(file, root, key, entry, log)]
    if not splits:
        raise InputError(f"{file}: none of the keys `train`, `val`, `test` names images; add at least one")
    ordered = dict(sorted(splits.items(), key=lambda item: split_rank(item[0])))
    return YoloLayout(file, root, classes, ordered)


def _names_classes(file: Path) -> bool:
    """Return True if a YAML file looks like a data.yaml; one that does not parse counts if its text has the keys."""
    try:
        content = parse_yaml(file)
    except InputError:
        text = file.read_text(encoding="utf-8", errors="replace")
        return "names:" in text and "train:" in text
    if not isinstance(content, dict) or "names" not in content:
        return False
    folders = (v for v in content.values() if isinstance(v, str))
    return any(k in content for k in ("train", "val", "test")) or any((file.parent / f).is_dir() for f in folders)


def _classes(file: Path, content: dict[Any, Any]) -> Classes:
    """Return the classes in ``names``, a list or a mapping from 0..K-1."""
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise InputError(f"{file}, key `names`: the keys must be 0 to {len(names) - 1} without a gap")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise InputError(f"{file}, key `names`: give the class names as a list, or as a mapping from 0, 1, ...")
    count = content.get("nc", len(names))
    if count != len(names):
        raise InputError(f"{file}: nc is {count} but `names` has {len(names)} names; correct one of them")
    try:
        return Classes.from_names([str(name) for name in names])
    except InputError as error:
        raise InputError(f"{file}, key `names`: {error}") from None


def _root(file: Path, content: dict[Any, Any]) -> Path:
    """Return the folder that split entries are relative to: ``path`` if it exists, else the folder of the file.

    A relative ``path`` is often relative to the data folder of another tool. Then the data is in the file's own folder.
    """
    folder = file.absolute().parent
    value = content.get("path")
    if isinstance(value, str) and value:
        root = Path(os.path.normpath(folder / value))
        if root.is_dir():
            return root
    return folder


def _images(file: Path, root: Path, key: str, entry: str, log: ProblemLog) -> list[Path]:
    """List the images of one entry of a split: a folder with its subfolders, or a text file with a path per line."""
    # Roboflow writes ../train/images for a folder beside the data.yaml.
    shortened = entry.removeprefix("../")
    candidates = [
        Path(os.path.normpath(base / e)) for e in (entry, shortened) for base in (root, file.absolute().parent)
    ]
    place = next((c for c in candidates if c.exists()), None)
    if place is None:
        looked = ", ".join(str(c) for c in dict.fromkeys(candidates))
        log.refuse("no-folder", file, f"key `{key}`", f"{entry} does not exist (looked for {looked}); correct the path")
        return []
    if place.is_dir():
        return sorted(p for p in place.rglob("*") if is_image_name(p) and p.is_file())
    images: list[Path] = []
    for line in place.read_text(encoding="utf-8-sig").splitlines():
        if line.strip():
            path = Path(line.strip())
            bases = (place.parent, root)
            found = (Path(os.path.normpath(base / path)) for base in bases)
            images.append(next((p for p in found if p.is_file()), Path(os.path.normpath(bases[0] / path))))
    return images


def label_file(image: Path) -> Path:
    """Return the label file of an image: the last folder ``images`` in its path becomes ``labels``."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")
