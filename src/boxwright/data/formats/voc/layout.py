"""Find the folders, split lists and XML files of a Pascal VOC data set."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from boxwright.data.formats.places import (
    split_name,
    split_rank,
)


@dataclass(frozen=True)
class VocLayout:
    """Folders and files of a VOC data set; ``splits`` holds the XML files of each split."""

    root: Path
    splits: dict[str, list[Path]]
    missing: list[tuple[str, Path, int, str]] = field(default_factory=list)  # split, list, line, stem without an XML


def find_voc(path: Path) -> VocLayout | None:
    """Find the VOC data set at a folder: its root, its ``Annotations``, or a folder of XML files. None without one."""
    if path.name == "Annotations" and any((path.parent / n).is_dir() for n in ("ImageSets", "JPEGImages", "images")):
        path = path.parent
    annotations = path / "Annotations"
    if annotations.is_dir():
        lists = _split_lists(path)
        if lists:
            return _listed(path, annotations, lists)
        files = sorted(annotations.rglob("*.xml"))
        return VocLayout(path, {"all": files}) if files else None
    splits: dict[str, list[Path]] = {}
    for folder in sorted(p for p in path.iterdir() if p.is_dir()):
        inner = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
        if files := sorted(inner.glob("*.xml")):
            splits[split_name(folder.name)] = files
    if splits:
        return VocLayout(path, dict(sorted(splits.items(), key=lambda item: split_rank(item[0]))))
    files = sorted(path.glob("*.xml"))
    return (
        VocLayout(path, {split_name(path.name) if path.name in ("train", "val", "valid", "test") else "all": files})
        if files
        else None
    )


def _split_lists(root: Path) -> dict[str, Path]:
    """Return the lists of ImageSets/Main, else of ImageSets, by split, without those of one class (``cat_train``)."""
    for folder in (root / "ImageSets" / "Main", root / "ImageSets"):
        lists = {split_name(p.stem): p for p in sorted(folder.glob("*.txt")) if not _is_class_list(p)}
        if lists:
            return dict(sorted(lists.items(), key=lambda item: split_rank(item[0])))
    return {}


def _is_class_list(path: Path) -> bool:
    """Return True if the list is of one class, with -1, 0 or 1 after each image."""
    if not re.search(r"_(train|val|trainval|test)$", path.stem):
        return False
    with path.open(encoding="utf-8", errors="replace") as lines:
        first = next((line.split() for line in lines if line.strip()), [])
    return len(first) == 2 and first[1] in ("-1", "0", "1")


def _listed(root: Path, annotations: Path, lists: dict[str, Path]) -> VocLayout:
    """Return the layout that the split lists describe."""
    splits: dict[str, list[Path]] = {}
    missing: list[tuple[str, Path, int, str]] = []
    for split, path in lists.items():
        splits[split] = []
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
            if not (stem := line.strip()):
                continue
            file = annotations / f"{stem}.xml"
            if not file.is_file() and os.path.splitext(stem)[1]:  # some lists keep the suffix of the image
                bare = annotations / f"{os.path.splitext(stem)[0]}.xml"
                file = bare if bare.is_file() else file
            if file.is_file():
                splits[split].append(file)
            else:
                missing.append((split, path, number, stem))
    return VocLayout(root, splits, missing)
