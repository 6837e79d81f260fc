"""Find the COCO JSON files of a data set and their splits."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from boxwright.data.formats.splits import KNOWN_SPLITS, distinct_splits, split_name

_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
ANNOTATION_FOLDERS = ("annotations", "annotation", "ann", "anns", "labels", "json", "jsons", "coco")
"""Lower-case names of folders of COCO files, with the images beside the folder."""


@dataclass(frozen=True)
class CocoFiles:
    """COCO files below a folder: those where a data set has them, those elsewhere, and those of COCO's other tasks."""

    near: list[Path]
    far: list[Path]
    other_tasks: list[Path]


def find_coco(folder: Path, files: Iterable[Path]) -> CocoFiles:
    """Sort the JSON files that look like COCO among ``files``, which are below ``folder``.

    Near are those in the folder itself, in ``annotations/``, and in the folder of a split. Files of other tasks are
    taken only where a data set has no others.
    """
    jsons = [file for file in files if file.suffix.lower() == ".json"]
    found = [file for file in jsons if looks_like_coco(file)]
    others = [file for file in found if file.name.startswith(_OTHER_TASKS) or not _holds(file, b'"annotations"')]
    own = [file for file in found if file not in others]
    if not own:
        own = [file for file in others if file.name.startswith("person_keypoints_")]
        others = [file for file in others if file not in own]
    # A file with the name of one is read too, so that its defect is reported.
    own += [file for file in jsons if file not in found and _is_named(file, folder, any_split=bool(own))]
    own.sort()
    near = [file for file in own if _is_near(file.relative_to(folder).parts[:-1])]
    return CocoFiles(near, [file for file in own if file not in near], others)


def coco_splits(folder: Path, files: Sequence[Path]) -> dict[str, Path]:
    """Return files by split. Raises ``InputError`` if two describe the same split."""
    return distinct_splits(folder, [(coco_split(file, folder, files), file) for file in files])


def coco_split(file: Path, folder: Path, files: Sequence[Path] = ()) -> str:
    """Return the split of a COCO file: by the folder of a split that it is in, else by its own name.

    ``files``: all of the data set, since a folder with a single file gives the file its name.
    """
    stem = split_name(file.stem)
    homes = [split_name(part) for part in reversed(file.relative_to(folder).parts[:-1])]
    if stem in KNOWN_SPLITS and not (homes and homes[0] in KNOWN_SPLITS):
        return stem
    for home in (*homes, split_name(folder.name)):
        if home in KNOWN_SPLITS:
            return home
    alone = sum(other.parent == file.parent for other in files) == 1
    if homes and homes[0] != "all" and (alone or stem == "all"):
        return homes[0]
    return stem


def looks_like_coco(file: Path) -> bool:
    """Return True if a JSON file looks like COCO detections. It is not parsed, since it may be large or damaged."""
    with file.open("rb") as stream:
        start = stream.read(2048).replace(b"\0", b"")  # the zeros of UTF-16 and UTF-32
    if start.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")[:1] != b"{" or b'"imagePath"' in start or b'"shapes"' in start:
        return False
    images, annotations, categories = (_holds(file, key) for key in (b'"images"', b'"annotations"', b'"categories"'))
    if annotations and categories and not images:
        return not _holds(file, b'"items"')  # Datumaro
    return images and (annotations or categories)


def _holds(file: Path, key: bytes) -> bool:
    """Return True if a file has a key, in UTF-8, UTF-16 or UTF-32."""
    if file.stat().st_size == 0:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if b"\0" not in content[:4]:
            return content.find(key) >= 0
        return any(content.find(key.decode().encode(encoding)) >= 0 for encoding in _WIDE)


def _is_named(file: Path, folder: Path, any_split: bool) -> bool:
    """Return True for the name and place of a COCO file: ``instances_*``, or with ``any_split`` that of a split."""
    if not _is_near(file.relative_to(folder).parts[:-1]) or file.name.startswith(_OTHER_TASKS):
        return False
    explicit = file.stem.startswith(("instances_", "_annotations.coco"))
    return explicit or (any_split and split_name(file.stem) in KNOWN_SPLITS)


def _is_near(folders: tuple[str, ...]) -> bool:
    """Return True for the folders of an annotation file where a data set has it: none, annotations/, train/."""
    kinds = ["split" if split_name(name) in KNOWN_SPLITS else name.lower() in ANNOTATION_FOLDERS for name in folders]
    return kinds in ([], [True], [True, "split"]) or kinds[0] == "split"
