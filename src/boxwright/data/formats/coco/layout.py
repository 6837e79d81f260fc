"""Find the COCO JSON files of a data set and their splits."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from boxwright.data.formats.splits import KNOWN_SPLITS, distinct_splits, split_name

_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
_FOLDERS = ("annotations", "annotation", "labels", "json", "coco")  # of annotation files, in any case


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
    found = [file for file in files if file.suffix.lower() == ".json" and looks_like_coco(file)]
    others = [file for file in found if file.name.startswith(_OTHER_TASKS)]
    own = [file for file in found if file not in others]
    if not own:
        own = [file for file in others if file.name.startswith("person_keypoints_")]
        others = [file for file in others if file not in own]
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
    if file.stat().st_size == 0:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content[:2048]
        wide = start[:2] in (b"\xff\xfe", b"\xfe\xff") or start[1:2] == b"\0" or start[:1] == b"\0"
        if wide:  # UTF-16
            start = start.replace(b"\0", b"")
        if start.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")[:1] != b"{" or b'"imagePath"' in start or b'"shapes"' in start:
            return False
        if _holds(content, b'"items"', wide) and not _holds(content, b'"images"', wide):
            return False  # Datumaro
        return sum(_holds(content, key, wide) for key in (b'"images"', b'"annotations"', b'"categories"')) >= 2


def _holds(content: mmap.mmap, key: bytes, wide: bool) -> bool:
    if not wide:
        return content.find(key) >= 0
    return any(content.find(key.decode().encode(encoding)) >= 0 for encoding in ("utf-16-le", "utf-16-be"))


def _is_near(folders: tuple[str, ...]) -> bool:
    """Return True for the folders of an annotation file where a data set has it: none, annotations/, train/."""
    kinds = ["split" if split_name(name) in KNOWN_SPLITS else name.lower() in _FOLDERS for name in folders]
    return kinds in ([], [True], ["split"], ["split", True], [True, "split"])
