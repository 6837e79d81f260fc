"""Find the folders, split lists and XML files of a Pascal VOC data set."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from boxwright.data.formats.lists import composed, read_image_list
from boxwright.data.formats.problems import ProblemLog
from boxwright.data.formats.splits import KNOWN_SPLITS, distinct_splits, is_held_back, several, split_name, split_rank
from boxwright.data.images import is_hidden, is_image_name, walk_files
from boxwright.structures import InputError

ANNOTATION_FOLDERS = ("annotations", "annotation", "xmls", "xml", "labels")
"""Lower-case names of folders of XML files; the first that has some counts."""


@dataclass(frozen=True)
class VocLayout:
    """Folders and files of a VOC data set; ``splits`` holds the XML files of each split."""

    root: Path
    splits: dict[str, list[Path]]
    missing: list[tuple[str, Path, int, str]] = field(default_factory=list)  # split, list, line, stem without an XML


def find_voc(path: Path, log: ProblemLog | None = None) -> VocLayout | None:
    """Find the VOC data set at a folder: its root, its ``Annotations``, or a folder of XML files. None without one.

    Raises ``InputError`` for two folders or lists of one meaning.
    """
    log = log or ProblemLog()
    if path.name.lower() in ANNOTATION_FOLDERS and any(
        _folders(path.parent, n) for n in ("imagesets", "jpegimages", "images")
    ):
        path = path.parent
    annotations = _annotation_folder(path)
    if annotations is not None:
        files = _xml_files(annotations)
        lists = _split_lists(path)
        return (
            _listed(path, annotations, files, lists, log) if lists else VocLayout(path, _by_folder(annotations, files))
        )
    homes: list[tuple[str, Path]] = []
    found: dict[Path, list[Path]] = {}
    for folder in sorted(p for p in path.iterdir() if p.is_dir() and not is_hidden(p.name)):
        inner = _annotation_folder(folder) or folder
        if inner != folder and _split_lists(folder):
            return None  # a data set of its own, such as VOC2012
        deep = inner != folder or split_name(folder.name) in KNOWN_SPLITS
        if files := _xml_files(inner, deep):
            homes.append((split_name(folder.name), folder))
            found[folder] = files
    if len(homes) == 1 and homes[0][0] not in KNOWN_SPLITS and not is_held_back(homes[0][0]):
        return None
    if homes:
        return VocLayout(path, {split: found[folder] for split, folder in distinct_splits(path, homes).items()})
    files = _xml_files(path, deep=False)
    name = split_name(path.name)
    return VocLayout(path, {name if name in KNOWN_SPLITS else "all": files}) if files else None


def voc_folders(files: Iterable[Path]) -> dict[Path, Path]:
    """Return the roots of the VOC data sets among XML files, each with its first folder of XML files."""
    first = {file.parent: file for file in sorted(files, reverse=True)}
    roots: dict[Path, Path] = {}
    for folder in sorted(folder for folder, file in first.items() if _is_annotation(file)):
        root = folder
        home = next((p for p in (folder, *folder.parents) if p.name.lower() in ANNOTATION_FOLDERS), None)
        if home is not None and len(folder.parts) - len(home.parts) < 3:
            root = home.parent
        if split_name(root.name) in KNOWN_SPLITS:
            root = root.parent
        if not any(folder.is_relative_to(other) for other in roots):
            roots[root] = folder
    return roots


def _annotation_folder(root: Path) -> Path | None:
    """Return the folder of XML files in a root. Raises ``InputError`` for ``Annotations`` beside ``annotations``."""
    for name in ANNOTATION_FOLDERS:
        found = [folder for folder in _folders(root, name) if _xml_files(folder)]
        if len(found) > 1:
            raise InputError(f"{root}: {several(root, found)}, both with XML files; name the one you mean")
        if found:
            return found[0]
    return None


def _folders(root: Path, name: str) -> list[Path]:
    """Return the subfolders with a name in any case."""
    return sorted(p for p in root.iterdir() if p.name.lower() == name and p.is_dir()) if root.is_dir() else []


def _xml_files(folder: Path, deep: bool = True) -> list[Path]:
    """Return the XML files of a folder, unless they are of another format."""
    files = [file for file in walk_files(folder, deep) if file.suffix.lower() == ".xml"]
    return files if any(_is_annotation(file) for file in files[:3]) else []


def _is_annotation(file: Path) -> bool:
    """Return True unless an XML file begins as one of another format does, such as CVAT's ``<annotations>``."""
    try:
        with file.open("rb") as stream:
            start = stream.read(2048).replace(b"\0", b"")
    except OSError:
        return True
    root = re.search(rb"<([A-Za-z_][\w.-]*)", re.sub(rb"<[?!][^>]*>", b"", start))
    return root is None or root.group(1) not in (b"annotations", b"dataset")


def _by_folder(annotations: Path, files: list[Path]) -> dict[str, list[Path]]:
    """Return the XML files by the folders of splits in ``Annotations``, or all in one split."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        inner = file.relative_to(annotations).parts[:-1]
        name = split_name(inner[0]) if inner else "all"
        splits.setdefault(name if name in KNOWN_SPLITS else "all", []).append(file)
    return dict(sorted(splits.items(), key=lambda item: split_rank(item[0])))


def _split_lists(root: Path) -> dict[str, Path]:
    """Return the lists by split, without those of one class (``cat_train``).

    They are in ImageSets/Main, else in ImageSets, else in its only other folder, else in the root by the names of
    splits. Raises ``InputError`` for two lists of one split, and for several other folders.
    """
    sets = _folders(root, "imagesets")
    main = [folder for home in sets for folder in _folders(home, "main")]
    for folder in (*main, *sets):
        if lists := _lists(folder):
            return distinct_splits(root, lists)
    others = [folder for home in sets for folder in sorted(p for p in home.iterdir() if p.is_dir()) if _lists(folder)]
    if len(others) > 1:
        raise InputError(f"{root}: {several(root, others)}, but no Main; rename the one you mean to Main")
    if others:
        return distinct_splits(root, _lists(others[0]))
    return distinct_splits(root, [(split, file) for split, file in _lists(root) if split in KNOWN_SPLITS])


def _lists(folder: Path) -> list[tuple[str, Path]]:
    files = [file for file in walk_files(folder, recursive=False) if file.suffix.lower() == ".txt"]
    return [(split_name(file.stem), file) for file in files if not _is_class_list(file)]


def _is_class_list(path: Path) -> bool:
    """Return True if the list is of one class, with -1, 0 or 1 after each image."""
    if not re.search(r"_(train|val|trainval|test)$", path.stem):
        return False
    with path.open(encoding="utf-8", errors="replace") as lines:
        first = next((line.split() for line in lines if line.strip()), [])
    return len(first) == 2 and first[1] in ("-1", "0", "1")


def _listed(root: Path, annotations: Path, files: list[Path], lists: dict[str, Path], log: ProblemLog) -> VocLayout:
    """Return the layout that the split lists describe."""
    by_path: dict[str, Path] = {}
    by_name: dict[str, list[Path]] = {}
    for file in files:
        by_path[composed(file.relative_to(annotations).with_suffix("").as_posix())] = file
        by_name.setdefault(composed(file.stem), []).append(file)
    splits: dict[str, list[Path]] = {}
    missing: list[tuple[str, Path, int, str]] = []
    for split, path in lists.items():
        found: list[Path] = []
        for number, line in read_image_list(path, (root,)):
            file = _named(line, by_path, by_name)
            if file is None:
                missing.append((split, path, number, line))
            else:
                found.append(file)
        splits[split] = found
    listed = {file for found in splits.values() for file in found}
    if unlisted := [file for file in files if file not in listed]:
        message = (
            f"{len(unlisted)} XML files are in no list of a split and are not read (the first: {unlisted[0].name})"
        )
        log.correct("unused-file", "info", annotations, "", message)
    return VocLayout(root, splits, missing)


def _named(line: str, by_path: dict[str, Path], by_name: dict[str, list[Path]]) -> Path | None:
    """Return the XML file that a line names: by its stem, or by the path of the image or of the XML file."""
    texts = [line]
    if len(words := line.split()) == 2:
        texts += [words[1] if words[1].lower().endswith(".xml") else words[0]]
    for text in texts:
        whole = composed(text.replace("\\", "/").removeprefix("./"))
        stem = whole[: whole.rindex(".")] if is_image_name(whole) or whole.lower().endswith(".xml") else whole
        for name in (whole, stem):
            parts = name.split("/")
            for i in range(len(parts)):
                if file := by_path.get("/".join(parts[i:])):
                    return file
            same = by_name.get(parts[-1], [])
            if len(same) == 1:
                return same[0]
    return None
