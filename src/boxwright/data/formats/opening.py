"""Recognise the format of the data set at a path, and read it.

========= ============================================================================================================
COCO      a JSON file; or a folder with JSON files in it, in ``annotations/``, or in the folder of each split
YOLO      a ``data.yaml``; or a folder with one
VOC       a folder with ``Annotations/``, that folder itself, or a folder with XML files or a folder of them per split
========= ============================================================================================================

A folder that holds several formats is read as the first that matches; give the path of the ``data.yaml`` or
``Annotations`` for another. Splits are called ``train``, ``val`` and ``test``, also if their files have other names
(``valid``, ``train2017``). A data set without splits has the single split ``all``.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from boxwright.data.formats.coco.reader import read_coco
from boxwright.data.formats.places import split_name, split_rank
from boxwright.data.formats.problems import ProblemLog
from boxwright.data.formats.voc.layout import VocLayout, find_voc
from boxwright.data.formats.voc.reader import read_voc
from boxwright.data.formats.yolo.layout import YoloLayout, find_yolo, load_yolo
from boxwright.data.formats.yolo.reader import read_yolo
from boxwright.data.index import DetectionIndex
from boxwright.structures import InputError

DatasetFormat = Literal["coco", "voc", "yolo"]

_OTHER_COCO = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")  # COCO's other tasks


@dataclass(frozen=True)
class Source:
    """A data set that was found but not read. ``layout``: the JSON files by split, or the layout of VOC or YOLO."""

    format: DatasetFormat
    path: Path
    layout: dict[str, Path] | VocLayout | YoloLayout

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits, train first."""
        return tuple(self.layout if isinstance(self.layout, dict) else self.layout.splits)


def detect_format(path: Path | str) -> DatasetFormat:
    """Return the format of the data set at a path. Raises ``InputError`` if there is none."""
    return find_source(path).format


def open_dataset(path: Path | str, split: str | None = None, voc_one_based: bool = True) -> DetectionIndex:
    """Read one split of the data set at ``path``, in any of the formats.

    ``split`` may be left out if there is only one. ``voc_one_based=False`` reads VOC corners as 0-based, as some tools
    write them. Harmless defects are corrected and announced in one `DatasetWarning`. Raises ``InputError`` for a split
    that does not exist, listing the others, and for every defect that cannot be corrected safely.
    """
    source = find_source(path)
    if split is None:
        if len(source.splits) > 1:
            raise InputError(f"{path}: has the splits {', '.join(source.splits)}; choose one")
        split = next(iter(source.splits))
    elif split not in source.splits:
        wanted = split_name(split)
        if wanted not in source.splits:
            raise InputError(f"{path}: has no split `{split}`; it has {', '.join(source.splits)}")
        split = wanted
    log = ProblemLog()
    index = read_source(source, [split], log, voc_one_based)[split]
    log.announce()
    return index


def open_splits(path: Path | str, voc_one_based: bool = True) -> dict[str, DetectionIndex]:
    """Read all splits of the data set at ``path``, train first.

    VOC's ``trainval`` is left out if train and val exist, since it is their union. All splits must have the same
    classes. Otherwise as `open_dataset`.
    """
    source = find_source(path)
    log = ProblemLog()
    splits = read_source(source, whole_splits(source), log, voc_one_based)
    same_classes(path, splits)
    log.announce()
    return splits


def same_classes(path: Path | str, splits: dict[str, DetectionIndex]) -> None:
    """Raise ``InputError``, naming the differences, unless all splits have the same classes in the same order."""
    first = next(iter(splits.values()))
    for name, index in splits.items():
        if index.classes != first.classes:
            differing = ", ".join(sorted(set(index.classes.names) ^ set(first.classes.names))) or "their ids or order"
            raise InputError(
                f"{path}: the splits {first.name} and {name} have different classes ({differing}); "
                "give both the same categories"
            )


def whole_splits(source: Source) -> list[str]:
    """Return the splits, without VOC's ``trainval`` if it is the union of two others."""
    return [s for s in source.splits if s != "trainval" or not {"train", "val"} <= set(source.splits)]


def read_source(
    source: Source, splits: Sequence[str], log: ProblemLog, voc_one_based: bool = True
) -> dict[str, DetectionIndex]:
    """Read the named splits of a source; defects go to ``log``."""
    match source.layout:
        case VocLayout() as layout:
            indexes = read_voc(layout, splits, one_based=voc_one_based, log=log)
        case YoloLayout() as layout:
            indexes = read_yolo(layout, splits, log=log)
        case files:
            indexes = {split: read_coco(files[split], split, log) for split in splits}
    for split, index in indexes.items():
        if not len(index):
            log.refuse("no-images", source.path, f"split {split}", "has no images; add some or leave the split out")
        if not len(index.classes):
            log.refuse("no-classes", source.path, f"split {split}", "has no classes; annotate at least one object")
    return indexes


def find_source(path: Path | str, log: ProblemLog | None = None) -> Source:
    """Recognise the data set at a path. Raises ``InputError`` that lists what was searched and what was found.

    A lenient ``log`` collects the defects of a data.yaml.
    """
    log = log or ProblemLog()
    target = Path(path).expanduser().absolute()
    if not target.exists():
        raise InputError(f"{path}: there is no such file or folder; correct the path")
    if target.is_file():
        return _file_source(target, log)
    if files := _coco_files(target):
        return Source("coco", target, files)
    if (file := find_yolo(target)) is not None:
        return Source("yolo", target, load_yolo(file, log))
    if (layout := find_voc(target)) is not None:
        return Source("voc", target, layout)
    if inner := _inner_voc(target):
        if len(inner) > 1:
            raise InputError(f"{path}: holds {', '.join(p.name for p in inner)}; give the path of one of them")
        layout = find_voc(inner[0])
        assert layout is not None
        return Source("voc", inner[0], layout)
    found = sorted(p.name + ("/" if p.is_dir() else "") for p in target.iterdir())
    listing = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "") if found else "nothing"
    raise InputError(
        f"{path}: no data set found. Looked for COCO JSON files (here, in annotations/, in train/ valid/ test/), "
        f"a YOLO data.yaml, and VOC XML files (in Annotations/, here, in train/ val/). Found {listing}"
    )


def _file_source(file: Path, log: ProblemLog) -> Source:
    suffix = file.suffix.lower()
    if suffix == ".json":
        return Source(
            "coco", file, {split_name(file.stem if file.stem != "_annotations.coco" else file.parent.name): file}
        )
    if suffix in (".yaml", ".yml"):
        return Source("yolo", file, load_yolo(file, log))
    hint = (
        "give the folder that holds the XML files"
        if suffix == ".xml"
        else "give a .json file, a .yaml file or a folder"
    )
    raise InputError(f"{file}: not a data set in a known format; {hint}")


def _coco_files(folder: Path) -> dict[str, Path]:
    """Return the COCO files by split: those in the folder, in ``annotations/``, or one in the folder of each split."""
    for home in (folder, folder / "annotations"):
        files = [p for p in sorted(home.glob("*.json")) if not p.name.startswith(_OTHER_COCO) and _is_coco(p)]
        instances = [p for p in files if p.name.startswith("instances_")]
        if named := _by_split(instances or files):
            return named
    inner: dict[str, Path] = {}
    for home in sorted(p for p in folder.iterdir() if p.is_dir()):
        files = [p for p in sorted(home.glob("*.json")) if _is_coco(p)]
        if len(files) == 1:
            inner[split_name(home.name)] = files[0]
    return dict(sorted(inner.items(), key=lambda item: split_rank(item[0])))


def _by_split(files: list[Path]) -> dict[str, Path]:
    """Return files by split; two of the same split (train2014, train2017) keep the names of their files."""
    names = [split_name(p.stem if p.stem != "_annotations.coco" else p.parent.name) for p in files]
    plain = [p.stem.removeprefix("instances_") for p in files]
    named = {n if names.count(n) == 1 else own: p for n, own, p in zip(names, plain, files, strict=True)}
    return dict(sorted(named.items(), key=lambda item: split_rank(item[0])))


def _is_coco(file: Path) -> bool:
    """Return True if a JSON file looks like COCO detections. It is not parsed, since it may be large or damaged."""
    if file.stat().st_size == 0:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        keys = (b'"images"', b'"annotations"', b'"categories"')
        return content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and sum(content.find(k) >= 0 for k in keys) >= 2


def _inner_voc(folder: Path) -> list[Path]:
    """Return VOC roots one or two levels below a folder, such as ``VOCdevkit/VOC2012``."""
    found: list[Path] = []
    for level in ("*/Annotations", "*/*/Annotations"):
        found += [p.parent for p in sorted(folder.glob(level)) if p.is_dir() and any(p.glob("*.xml"))]
    return found
